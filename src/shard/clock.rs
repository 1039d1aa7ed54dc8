//! The only file of the data plane that reads the clock: everything else is told what time it is.
//!
//! One epoch for the whole process, so that moments of different shards can be compared. The loop reads the clock
//! once before it hands out the completions of a turn; all of them happen at that moment.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use weir_smtp::time::Moment;

/// Where moments come from. Cheap to copy; every shard has the same epoch.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
    /// Seconds since 1970 at the epoch, as the host had it then.
    unix: u64,
}

impl Clock {
    /// Starts counting now.
    pub fn start() -> Clock {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Clock {
            epoch: Instant::now(),
            // A host whose clock stands before 1970 has no time worth keeping.
            unix: since_1970.map_or(0, |since| since.as_secs()),
        }
    }

    /// Where [`Moment::ZERO`] lies.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Seconds since 1970 at [`Moment::ZERO`]: what happens later to the host's clock moves nothing here until the next start.
    pub fn unix(&self) -> u64 {
        self.unix
    }

    /// Always later than [`Moment::ZERO`], which so can mean "not set".
    pub fn now(&self) -> Moment {
        Moment::from_micros(self.epoch.elapsed().as_micros() as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_and_never_is_zero() {
        let clock = Clock::start();
        let first = clock.now();
        let second = clock.now();
        assert!(first > Moment::ZERO);
        assert!(second >= first);
    }
}
