//! The doorbell: how another thread wakes a shard that sleeps in its ring.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rings a shard. Cheap to clone; rung again before the shard has looked, it costs no syscall.
#[derive(Clone, Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    eventfd: File,
    rung: AtomicBool,
}

impl Doorbell {
    pub fn new() -> io::Result<Doorbell> {
        // Not O_NONBLOCK: the ring would answer a read with EAGAIN instead of waiting.
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor made just now, that nobody else owns.
        let owned = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Doorbell {
            shared: Arc::new(Shared {
                eventfd: File::from(owned),
                rung: AtomicBool::new(false),
            }),
        })
    }

    /// Makes the shard hear [`super::Event::Doorbell`] soon. What it is to find has to be in place before.
    pub fn ring(&self) {
        if !self.shared.rung.swap(true, Ordering::AcqRel) {
            (&self.shared.eventfd)
                .write_all(&1u64.to_ne_bytes())
                .expect("an eventfd that is read takes another one");
        }
    }

    /// The shard has heard: what is put in place from now on needs another ring.
    pub(super) fn heard(&self) {
        // A swap and not a store: the look at what was put in place must not move up before it.
        self.shared.rung.swap(false, Ordering::AcqRel);
    }

    pub(super) fn fd(&self) -> RawFd {
        self.shared.eventfd.as_raw_fd()
    }
}
