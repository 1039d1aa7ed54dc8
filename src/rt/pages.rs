//! Small pages for the whole process.
//!
//! The allocator asks for transparent huge pages, and where the kernel grants them to whoever asks (the default of Debian
//! and others), memory is taken by 2 MiB for each kind of thing that is allocated, on each thread, and given back as
//! rarely: an idle weir on two shards had 37 MB instead of 12. What a shard touches much, its receive buffers, lies on
//! small pages anyway (`ring/mapping.rs`).

use std::io;

/// For the process and all its threads. What lies on huge pages already stays there: to be called early.
pub fn keep_pages_small() -> io::Result<()> {
    // SAFETY: sets a flag of the process; no argument is a pointer.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
