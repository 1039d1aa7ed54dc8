//! Limits of the process that bound how many sockets there can be.

use std::io;

/// A limit of setrlimit(2) that weir cares about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Descriptors: also the size of each ring's own table of sockets.
    OpenFiles,
    /// Locked memory: the executors' rings register a little.
    LockedMemory,
}

/// Soft and hard value; `u64::MAX` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub soft: u64,
    pub hard: u64,
}

impl Limit {
    const fn resource(self) -> libc::__rlimit_resource_t {
        match self {
            Limit::OpenFiles => libc::RLIMIT_NOFILE,
            Limit::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }

    pub fn bounds(self) -> io::Result<Bounds> {
        let mut raw = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `raw` is a valid rlimit for the kernel to fill, and lives through the call.
        match unsafe { libc::getrlimit(self.resource(), &raw mut raw) } {
            0 => Ok(Bounds {
                soft: raw.rlim_cur,
                hard: raw.rlim_max,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Lifts the soft value to the hard one, which needs no privilege; returns what holds then.
    pub fn raise(self) -> io::Result<Bounds> {
        let bounds = self.bounds()?;
        if bounds.soft == bounds.hard {
            return Ok(bounds);
        }
        let raw = libc::rlimit {
            rlim_cur: bounds.hard,
            rlim_max: bounds.hard,
        };
        // SAFETY: `raw` is a valid rlimit that is only read.
        match unsafe { libc::setrlimit(self.resource(), &raw const raw) } {
            0 => self.bounds(),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Limit {
    /// Makes the limit so high if it is lower and this process may; returns what holds then.
    pub fn reach(self, wanted: u64) -> io::Result<Bounds> {
        let bounds = self.raise()?;
        if bounds.hard >= wanted {
            return Ok(bounds);
        }
        let raw = libc::rlimit {
            rlim_cur: wanted,
            rlim_max: wanted,
        };
        // Without CAP_SYS_RESOURCE it stays as it is, and what is made next tells whether that is enough.
        // SAFETY: `raw` is a valid rlimit that is only read.
        unsafe { libc::setrlimit(self.resource(), &raw const raw) };
        self.bounds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_or_left() {
        let before = Limit::LockedMemory.bounds().unwrap();
        let same = Limit::LockedMemory.reach(before.hard).unwrap();
        assert_eq!(same.soft, before.hard);
        let more = before.hard.saturating_add(4096);
        let after = Limit::LockedMemory.reach(more).unwrap();
        assert!(after.hard == before.hard || after.hard == more, "{after:?}");
    }

    #[test]
    fn the_soft_value_is_lifted_to_the_hard_one() {
        for limit in [Limit::OpenFiles, Limit::LockedMemory] {
            let before = limit.bounds().unwrap();
            let after = limit.raise().unwrap();
            assert_eq!(
                after,
                Bounds {
                    soft: before.hard,
                    hard: before.hard
                },
                "{limit:?}"
            );
        }
    }
}
