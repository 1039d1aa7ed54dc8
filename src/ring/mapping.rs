//! Memory straight from the kernel: zeroed, page-aligned, never moved, and paid for only where it is touched.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Types for which all-zero bytes are a value.
///
/// # Safety
/// The implementor vouches for that.
pub(super) unsafe trait Zeroable {}

// SAFETY: a byte is any byte.
unsafe impl Zeroable for u8 {}

/// A table of `len` zeroed values.
pub(super) struct Mapping<T: Zeroable> {
    base: NonNull<T>,
    len: usize,
    owns: PhantomData<T>,
}

impl<T: Zeroable> Mapping<T> {
    pub(super) fn new(len: usize) -> io::Result<Mapping<T>> {
        let bytes = Self::bytes(len);
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A huge page would be resident as a whole for the first row touched in it.
        // SAFETY: advice about our own mapping; a kernel without huge pages refuses it, which changes nothing.
        unsafe { libc::madvise(base, bytes, libc::MADV_NOHUGEPAGE) };
        Ok(Mapping {
            base: NonNull::new(base.cast()).expect("mmap maps nothing at address zero"),
            len,
            owns: PhantomData,
        })
    }

    pub(super) fn base(&self) -> *mut T {
        self.base.as_ptr()
    }

    fn bytes(len: usize) -> usize {
        (len * size_of::<T>()).max(1)
    }
}

impl<T: Zeroable> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping holds `len` values, zeroed at first, which is a value of T.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> DerefMut for Mapping<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<T: Zeroable> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: made by mmap with this length, and nobody else has it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), Self::bytes(self.len)) };
    }
}
