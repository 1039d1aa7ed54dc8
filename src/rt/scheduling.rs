//! How a shard's thread shares its core with whatever else runs there.
//!
//! An ordinary thread that is woken takes the core from the one that runs, at once: a shard would stop its client or its
//! mail server, on the same host, in the middle of a batch, for the first event of it, and be back for each of the others.
//! A thread of SCHED_BATCH waits until the other has gone to sleep or used up its slice; on a core that is idle it
//! starts as soon as any. That is gathering which leaves no core idle: on a core of its own it changes nothing.

use std::io;

/// Makes the calling thread one that takes its core from nobody. Needs no privilege.
pub fn give_way() -> io::Result<()> {
    let plain = libc::sched_param { sched_priority: 0 };
    // SAFETY: reads the parameter, which lives through the call; 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const plain) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The lowest of priorities: beside a thread that has work its share is a hundredth or so.
const NICE: libc::c_int = 19;

/// Makes the calling thread one that leaves the core to whoever wants it, a shard above all: for work that may take long and
/// that nobody waits for. Needs no privilege, and cannot be taken back without.
pub fn step_back() -> io::Result<()> {
    give_way()?;
    // SAFETY: no memory is involved; 0 is the calling thread (Linux counts niceness by threads).
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_steps_back_alone() {
        let nice = || {
            // SAFETY: no memory is involved; 0 is the calling thread.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        };
        let before = nice();
        let stepping = std::thread::spawn(move || {
            step_back().unwrap();
            nice()
        });
        assert_eq!((stepping.join().unwrap(), nice()), (NICE, before));
    }

    #[test]
    fn a_thread_gives_way_alone() {
        let policy = || {
            // SAFETY: no memory is involved; 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        };
        let giving = std::thread::spawn(move || {
            give_way().unwrap();
            policy()
        });
        assert_eq!(giving.join().unwrap(), libc::SCHED_BATCH);
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
