//! The few system calls that have no safe wrapper: limits, clocks of other processes, signals, timers, one socket option.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Soft and hard limit of open files.
pub fn open_files() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit where the pointer leads, and it leads to one.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
        0 => Ok((limit.rlim_cur, limit.rlim_max)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit of open files to the hard one and returns it. Child processes inherit it.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = open_files()?;
    if soft == hard {
        return Ok(hard);
    }
    let limit = libc::rlimit {
        rlim_cur: hard,
        rlim_max: hard,
    };
    // SAFETY: the kernel reads one rlimit where the pointer leads.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(hard),
        _ => Err(io::Error::last_os_error()),
    }
}

/// User plus system time of a process, threads that have ended included, to the nanosecond.
pub fn process_cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the C library writes one clock id where the pointer leads.
    match unsafe { libc::clock_getcpuclockid(pid, &mut clock) } {
        0 => {}
        error => return Err(io::Error::from_raw_os_error(error)),
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec where the pointer leads.
    match unsafe { libc::clock_gettime(clock, &mut time) } {
        0 => Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    kill(
        libc::pid_t::try_from(pid).map_err(io::Error::other)?,
        signal,
    )
}

/// Sends a signal to a process group: a server started by us and what it forked.
pub fn signal_group(group: u32, signal: i32) -> io::Result<()> {
    kill(
        -libc::pid_t::try_from(group).map_err(io::Error::other)?,
        signal,
    )
}

fn kill(target: libc::pid_t, signal: i32) -> io::Result<()> {
    // 0, 1 and -1 are everybody, or init: never meant.
    if target.unsigned_abs() < 2 {
        return Err(io::Error::other("no such target of a signal"));
    }
    // SAFETY: takes no pointer.
    match unsafe { libc::kill(target, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the kernel end the child with SIGTERM when the thread that started it ends, whatever ends it.
pub fn end_with_parent(command: &mut Command) {
    let ask = || {
        // SAFETY: takes no pointer; a system call and nothing else, so it may run between fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

pub fn page_octets() -> u64 {
    // SAFETY: asks for a number, takes no pointer.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as u64 }
}

/// A timer of the monotonic clock, which the tokio runtime waits for.
pub fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: takes no pointer.
    let timer = match unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: the descriptor was made just now, and nobody else has it.
        timer => unsafe { OwnedFd::from_raw_fd(timer) },
    };
    // SAFETY: an OwnedFd stays open and the same as long as it is owned.
    unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }.map_err(io::Error::from)
}

/// Has the timer go off once, `after` from now; forgets what it was set to, and that it went off.
pub fn set_timer(timer: BorrowedFd<'_>, after: Duration) -> io::Result<()> {
    let never = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let setting = libc::itimerspec {
        it_interval: never,
        it_value: libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(after.subsec_nanos().max(1)),
        },
    };
    // SAFETY: the kernel reads one itimerspec where the pointer leads; a null pointer says that the old setting is not wanted.
    match unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &setting, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has `bind` to port 0 leave the choice of the port to `connect`, which looks at both ends: a source address then has its ports once for
/// every target, instead of once.
pub fn bind_without_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the kernel reads `length` octets of an int where the pointer leads, and it leads to one.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let limit = raise_open_files().unwrap();
        assert_eq!(open_files().unwrap(), (limit, limit));
    }
}
