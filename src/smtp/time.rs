//! Time as data: a [`Moment`] is what a caller's clock said. The core never reads a clock; whoever drives it passes `now`.

use core::fmt;
use core::ops::Add;
use core::time::Duration;

/// Microseconds since an epoch of the process's own choosing (its start, or zero in a simulation).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Moment(u64);

impl Moment {
    pub const ZERO: Moment = Moment(0);
    /// Later than every deadline; what "no deadline" is written as.
    pub const NEVER: Moment = Moment(u64::MAX);

    pub const fn from_micros(micros: u64) -> Moment {
        Moment(micros)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`; zero when that lies ahead.
    pub const fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    /// Saturates: a deadline that is too far to write down is [`Moment::NEVER`].
    fn add(self, span: Duration) -> Moment {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Moment::NEVER {
            return f.write_str("never");
        }
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn adding_saturates_at_never() {
        let later = Moment::from_micros(5) + Duration::from_millis(2);
        assert_eq!(later.as_micros(), 2005);
        assert_eq!(Moment::from_micros(1) + Duration::MAX, Moment::NEVER);
        assert_eq!(Moment::NEVER + Duration::from_secs(1), Moment::NEVER);
    }

    #[test]
    fn since_is_zero_for_what_lies_ahead() {
        let (early, late) = (Moment::from_micros(10), Moment::from_micros(25));
        assert_eq!(late.since(early), Duration::from_micros(15));
        assert_eq!(early.since(late), Duration::ZERO);
    }

    #[test]
    fn shown_in_seconds() {
        assert_eq!(Moment::from_micros(1_000_002).to_string(), "1.000002s");
        assert_eq!(Moment::NEVER.to_string(), "never");
    }
}
