//! The flags of glommio's own rings, and their descriptors, without a fork of glommio.
//!
//! glommio 0.9.0 sets its rings up with no flags. Where a packet is processed on another CPU than the shard's, each completion then interrupts the
//! shard's CPU; IORING_SETUP_COOP_TASKRUN halves that cost. glommio reaches the kernel through one C function of its bundled liburing,
//! so the linker's `--wrap` (build.rs) puts ours in its place. It also tells us the descriptors, which the hot ring polls:
//! a shard that sleeps in its hot ring has to wake when glommio has work.

use std::cell::RefCell;
use std::os::fd::RawFd;

use libc::{c_int, c_long, c_uint, c_void};

/// From the kernel's `io_uring.h`; 5.19 and later.
const SETUP_COOP_TASKRUN: u32 = 1 << 8;
const SETUP_IOPOLL: u32 = 1 << 0;

/// liburing sets up a ring this small to ask which operations exist, and closes it again: not one to remember.
const PROBE_ENTRIES: c_uint = 2;

/// The head of the kernel's `struct io_uring_params`; what follows is the kernel's to fill.
#[repr(C)]
struct SetupParams {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
}

thread_local! {
    static EXECUTOR_RINGS: RefCell<Vec<RawFd>> = const { RefCell::new(Vec::new()) };
}

/// The rings that glommio set up on this thread and that can be polled.
///
/// Not its IOPOLL ring: that one has to be asked, it never wakes anybody; glommio uses it for O_DIRECT files only, of which weir has none.
pub fn executor_rings() -> Vec<RawFd> {
    EXECUTOR_RINGS.with_borrow(Clone::clone)
}

/// Called by liburing inside glommio instead of its own `__sys_io_uring_setup`.
///
/// # Safety
/// `params` points to a whole `struct io_uring_params`, as liburing's callers promise.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: c_uint, params: *mut c_void) -> c_int {
    // SAFETY: the caller's struct begins with these three fields and nobody else uses it during the call.
    let head = unsafe { &mut *params.cast::<SetupParams>() };
    let pollable = head.flags & SETUP_IOPOLL == 0;
    if pollable {
        head.flags |= SETUP_COOP_TASKRUN;
    }
    // SAFETY: the arguments are those of the syscall; errors come back as -1 with errno, as liburing expects of this function.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries as c_long, params) } as c_int;
    if fd >= 0 && pollable && entries > PROBE_ENTRIES {
        EXECUTOR_RINGS.with_borrow_mut(|rings| rings.push(fd));
    }
    fd
}
