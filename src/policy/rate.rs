//! Rates per client address: how many of something in how much time.
//!
//! The generic cell rate algorithm: of each client and kind only one number is kept, the moment at
//! which the allowance is whole again (*theoretical arrival time*). An event is allowed if that moment
//! lies less than the unit ahead, and moves it on by unit / N. So N may come at once, then one each
//! unit / N; nothing has to be refilled, and there is no window at whose edge 2N slip through.
//!
//! The moment is 32 bits of 64 microseconds: it wraps after 76 hours, and is therefore only compared
//! after [`Tat::settle`], which the table of clients does whenever an entry is touched.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use weir_smtp::time::Moment;

const TICK_MICROS_BITS: u32 = 6;
/// The longest unit: a moment ahead must be told from one behind, within half of 76 hours.
pub const UNIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// More in a second than this cannot be told apart from no limit.
pub const PER_SECOND_MAX: u64 = 1_000_000 >> TICK_MICROS_BITS;

/// N per unit. Text form `N/UNIT`: `100/s`, `30/m`, `1000/h`, `5000/d`, `5/60s`, `20/10m`; `0` lifts the limit.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Rate {
    count: u32,
    unit_seconds: u32,
    /// Ticks that one event costs. 0: no limit.
    interval: u32,
}

/// The present in the ticks of [`Tat`].
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Tick(u32);

impl From<Moment> for Tick {
    fn from(now: Moment) -> Tick {
        Tick((now.as_micros() >> TICK_MICROS_BITS) as u32)
    }
}

/// The state of one rate of one client.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Tat(u32);

impl Tat {
    /// Nothing has happened yet.
    pub const fn new(now: Tick) -> Tat {
        Tat(now.0)
    }

    /// A moment that has passed becomes the present, so that it cannot wrap around into the future.
    /// To be called at least once in a day (`last` is longer ago: [`Tat::new`]).
    pub const fn settle(&mut self, now: Tick) {
        if self.is_idle(now) {
            self.0 = now.0;
        }
    }

    /// The allowance is whole.
    pub const fn is_idle(self, now: Tick) -> bool {
        self.0.wrapping_sub(now.0) as i32 <= 0
    }
}

impl Rate {
    pub const UNLIMITED: Rate = Rate {
        count: 0,
        unit_seconds: 1,
        interval: 0,
    };

    pub fn new(count: u32, unit: Duration) -> Result<Rate, RateError> {
        if count == 0 {
            return Ok(Rate::UNLIMITED);
        }
        if unit < Duration::from_secs(1) || unit > UNIT_MAX || unit.subsec_nanos() != 0 {
            return Err(RateError::Unit);
        }
        let ticks = unit.as_micros() as u64 >> TICK_MICROS_BITS;
        // Rounded down: never stricter than what was asked for, and N of them fit the unit.
        let interval = ticks / u64::from(count);
        if interval == 0 {
            return Err(RateError::TooFast);
        }
        Ok(Rate {
            count,
            unit_seconds: unit.as_secs() as u32,
            interval: interval as u32,
        })
    }

    pub const fn is_unlimited(self) -> bool {
        self.interval == 0
    }

    /// Whether one more is allowed now; it is counted if so. A refused one costs nothing.
    pub const fn take(self, state: &mut Tat, now: Tick) -> bool {
        if self.interval == 0 {
            return true;
        }
        state.settle(now);
        let ahead = state.0.wrapping_sub(now.0);
        if ahead > (self.count - 1) * self.interval {
            return false;
        }
        state.0 = state.0.wrapping_add(self.interval);
        true
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.count, self.unit_seconds) {
            (0, _) => f.write_str("0"),
            (count, 1) => write!(f, "{count}/s"),
            (count, 60) => write!(f, "{count}/m"),
            (count, 3600) => write!(f, "{count}/h"),
            (count, 86400) => write!(f, "{count}/d"),
            (count, seconds) => write!(f, "{count}/{seconds}s"),
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        if text == "0" {
            return Ok(Rate::UNLIMITED);
        }
        let (count, unit) = text.split_once('/').ok_or(RateError::Form)?;
        let count = count.parse().map_err(|_| RateError::Form)?;
        Rate::new(count, parse_unit(unit).ok_or(RateError::Form)?)
    }
}

/// `s`, `m`, `h`, `d`, each with a number before it or not.
pub(super) fn parse_unit(text: &str) -> Option<Duration> {
    let (number, letter) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match letter {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return None,
    };
    let number: u64 = if number.is_empty() {
        1
    } else {
        number.parse().ok()?
    };
    Some(Duration::from_secs(number.checked_mul(seconds)?))
}

/// Why a rate could not be read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum RateError {
    Form,
    Unit,
    TooFast,
}

impl std::error::Error for RateError {}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RateError::Form => f.write_str("a rate is N/UNIT with UNIT s, m, h, d or a number of them, as in 30/m or 5/60s; 0 lifts the limit"),
            RateError::Unit => f.write_str("the unit of a rate is from one second to one day"),
            RateError::TooFast => write!(f, "a rate is at most {PER_SECOND_MAX} a second; 0 lifts the limit"),
        }
    }
}
