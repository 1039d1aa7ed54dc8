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

    /// What one event costs.
    pub const fn cost(self) -> Duration {
        Duration::from_micros((self.interval as u64) << TICK_MICROS_BITS)
    }

    /// The time in which N are allowed.
    pub const fn unit(self) -> Duration {
        Duration::from_secs(self.unit_seconds as u64)
    }

    /// The allowance is used up at least until then: what others have let pass counts too.
    pub fn owe(self, state: &mut Tat, now: Tick, ahead: Duration) {
        state.settle(now);
        let whole = u64::from(self.count) * u64::from(self.interval);
        let ahead = (ahead.as_micros() as u64 >> TICK_MICROS_BITS).min(whole) as u32;
        if ahead > state.0.wrapping_sub(now.0) {
            state.0 = now.0.wrapping_add(ahead);
        }
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

    /// How many are allowed now.
    pub fn left(self, state: Tat, now: Tick) -> u32 {
        if self.interval == 0 {
            return u32::MAX;
        }
        let ahead = match state.is_idle(now) {
            true => 0,
            false => state.0.wrapping_sub(now.0),
        };
        let most = (self.count - 1) * self.interval;
        most.checked_sub(ahead)
            .map_or(0, |free| free / self.interval + 1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tick(millis: u64) -> Tick {
        Tick::from(Moment::from_micros(millis * 1000))
    }

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_read_and_written() {
        let table = [
            ("30/m", Ok("30/m")),
            ("5/60s", Ok("5/m")),
            ("20/10m", Ok("20/600s")),
            ("1/d", Ok("1/d")),
            ("15625/s", Ok("15625/s")),
            ("0", Ok("0")),
            ("0/m", Ok("0")),
            ("15626/s", Err(RateError::TooFast)),
            ("1/2d", Err(RateError::Unit)),
            ("1/0s", Err(RateError::Unit)),
            ("1/999999999999999999999d", Err(RateError::Form)),
            ("5", Err(RateError::Form)),
            ("5/", Err(RateError::Form)),
            ("/s", Err(RateError::Form)),
            ("-1/s", Err(RateError::Form)),
            ("1/é", Err(RateError::Form)),
            ("1/week", Err(RateError::Form)),
        ];
        for (text, want) in table {
            let got = text.parse::<Rate>().map(|rate| rate.to_string());
            assert_eq!(got, want.map(String::from), "{text}");
        }
    }

    #[test]
    fn n_at_once_then_one_each_part_of_the_unit() {
        let rate = rate("6/m");
        let mut tat = Tat::new(tick(1000));
        let taken = (0..10).filter(|_| rate.take(&mut tat, tick(1000))).count();
        assert_eq!(taken, 6);
        for (millis, want) in [
            (10_900, false),
            (11_001, true),
            (11_001, false),
            (31_002, true),
            (31_002, true),
            (31_002, false),
        ] {
            assert_eq!(rate.take(&mut tat, tick(millis)), want, "{millis}");
        }
        assert!(!tat.is_idle(tick(60_000)) && tat.is_idle(tick(100_000)));
    }

    #[test]
    fn what_others_let_pass_counts_and_never_more_than_the_whole_rate() {
        let rate = rate("6/m");
        let mut tat = Tat::new(tick(1000));
        assert!(rate.take(&mut tat, tick(1000)));
        rate.owe(&mut tat, tick(1000), Duration::from_secs(5));
        assert_eq!(
            tat,
            Tat(tick(1000).0 + rate.interval),
            "it owes more itself"
        );
        rate.owe(&mut tat, tick(1000), rate.cost() * 4);
        let left = (0..10).filter(|_| rate.take(&mut tat, tick(1000))).count();
        assert_eq!(left, 2);
        rate.owe(&mut tat, tick(1000), Duration::from_secs(86_400));
        assert!(!rate.take(&mut tat, tick(10_900)) && rate.take(&mut tat, tick(11_001)));
        let mut free = Tat::new(tick(0));
        Rate::UNLIMITED.owe(&mut free, tick(0), Duration::from_secs(60));
        assert!(free.is_idle(tick(0)));
    }

    #[test]
    fn zero_lifts_the_limit() {
        let mut tat = Tat::new(tick(0));
        assert!((0..100_000).all(|_| rate("0").take(&mut tat, tick(0))));
        assert!(tat.is_idle(tick(0)));
    }

    #[test]
    fn a_settled_moment_does_not_wrap_into_the_future() {
        let rate = rate("1/d");
        let day = 86_400_000;
        let mut tat = Tat::new(tick(0));
        for now in (0..100).map(|n| n * (day + 1000)) {
            tat.settle(tick(now));
            assert!(rate.take(&mut tat, tick(now)), "{now}");
            assert!(!rate.take(&mut tat, tick(now + day / 2)), "{now}");
        }
    }

    proptest! {
        /// Against one that keeps the whole moment, unit / N in exact fractions.
        #[test]
        fn it_does_what_an_exact_one_does(count in 1u32..2000, unit in 1u64..100_000, start in any::<u32>(), gaps in prop::collection::vec(0u64..40_000_000, 1..300)) {
            let unit = unit.min(86_400);
            let Ok(rate) = Rate::new(count, Duration::from_secs(unit)) else { return Ok(()) };
            let mut now = u64::from(start) << 20;
            let mut tat = Tat::new(Tick::from(Moment::from_micros(now)));
            // In ticks of this algorithm, but 64 bits that never wrap.
            let interval = ((unit * 1_000_000) >> TICK_MICROS_BITS) / u64::from(count);
            let mut exact = now >> TICK_MICROS_BITS;
            for gap in gaps {
                now += gap % (2 * unit * 1_000_000 / u64::from(count)).max(2);
                let present = now >> TICK_MICROS_BITS;
                exact = exact.max(present);
                let want = exact - present <= (u64::from(count) - 1) * interval;
                exact += if want { interval } else { 0 };
                prop_assert_eq!(rate.take(&mut tat, Tick::from(Moment::from_micros(now))), want);
            }
        }

        /// In no stretch of time of one unit more than twice N pass, and never less than what was asked for in the long run.
        #[test]
        fn the_long_run_keeps_the_rate(count in 1u32..200, unit in 1u64..600) {
            let rate = Rate::new(count, Duration::from_secs(unit)).unwrap();
            let mut tat = Tat::new(tick(0));
            let mut taken = 0;
            // Tries come ten times as often as allowed, over ten units.
            let tries = u64::from(count) * 100;
            for number in 0..tries {
                let now = tick(unit * 10_000 * number / tries);
                taken += u32::from(rate.take(&mut tat, now));
            }
            prop_assert!(taken >= count * 10 && f64::from(taken) <= f64::from(count) * 11.0 * 1.02 + 1.0, "{} of {}", taken, count);
        }
    }

    #[test]
    fn what_is_left_is_what_can_be_taken() {
        for text in ["1/s", "3/s", "7/10s", "100/m"] {
            let rate = rate(text);
            let mut state = Tat::new(tick(0));
            for step in 0..400u64 {
                let now = tick(step * 37);
                let left = rate.left(state, now);
                let mut trial = state;
                let taken = (0..).take_while(|_| rate.take(&mut trial, now)).count();
                assert_eq!(left as usize, taken, "{text} after {step} steps");
                rate.take(&mut state, now);
            }
        }
        assert_eq!(Rate::UNLIMITED.left(Tat::new(tick(0)), tick(1)), u32::MAX);
    }
}
