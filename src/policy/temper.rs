//! How a client is treated for a while after a finding: normal, delayed, stutter.
//!
//! Actions `delay` and `stutter` set it; it belongs to the address, so a new connection finds it again. (What a session
//! earned by its errors stays with the session: see `errors.rs`.)
//! It moves both ways: a finding makes it worse at once, and each hold time without one makes it better by a step.

use std::time::Duration;

use weir_smtp::time::Moment;

/// From better to worse.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Default, Debug)]
#[repr(u8)]
pub enum Temper {
    #[default]
    Normal,
    /// Replies wait.
    Delayed,
    /// Replies go out a byte at a time.
    Stutter,
}

impl Temper {
    pub const fn word(self) -> &'static str {
        match self {
            Temper::Normal => "normal",
            Temper::Delayed => "delayed",
            Temper::Stutter => "stutter",
        }
    }

    const fn better(self) -> Temper {
        match self {
            Temper::Stutter => Temper::Delayed,
            Temper::Delayed | Temper::Normal => Temper::Normal,
        }
    }
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Config {
    /// How long a reply of a delayed client waits.
    pub delay: Duration,
    /// Time between the drips of a reply to a stuttered client, of one byte or a few.
    pub interval: Duration,
    /// After this long without a finding the treatment gets better by a step.
    pub hold: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            delay: Duration::from_secs(1),
            interval: Duration::from_secs(1),
            hold: Duration::from_secs(600),
        }
    }
}

/// The temper of one address: 8 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct State {
    /// Seconds: when it gets better by a step.
    until: u32,
    temper: Temper,
}

impl State {
    /// Makes the treatment as bad as `temper`, from now on for the hold time; never better.
    pub fn worsen(&mut self, temper: Temper, config: &Config, now: Moment) {
        let current = self.at(config, now);
        self.temper = current.max(temper);
        self.until = seconds(now + config.hold);
    }

    /// The treatment now. Goes down by the steps whose time is over.
    pub fn at(&mut self, config: &Config, now: Moment) -> Temper {
        while self.temper != Temper::Normal && seconds(now) >= self.until {
            self.temper = self.temper.better();
            self.until = self.until.saturating_add(config.hold.as_secs() as u32);
        }
        self.temper
    }
}

impl State {
    /// How long until the treatment gets better by a step; zero where it cannot.
    pub fn holds(mut self, config: &Config, now: Moment) -> Duration {
        match self.at(config, now) {
            Temper::Normal => Duration::ZERO,
            _ => Duration::from_secs(self.until.saturating_sub(seconds(now)).into()),
        }
    }
}

fn seconds(at: Moment) -> u32 {
    u32::try_from(at.as_micros() / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_worsens_at_once_and_gets_better_step_by_step() {
        let config = Config::default();
        let at = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        let mut state = State::default();
        state.worsen(Temper::Stutter, &config, at(0));
        // A milder finding does not make it better, but prolongs it.
        state.worsen(Temper::Delayed, &config, at(300));
        for (when, want) in [
            (899, Temper::Stutter),
            (900, Temper::Delayed),
            (1499, Temper::Delayed),
            (1500, Temper::Normal),
        ] {
            assert_eq!(state.at(&config, at(when)), want, "{when}");
        }
    }

    #[test]
    fn nobody_asked_for_a_long_time() {
        let config = Config::default();
        let at = |seconds| Moment::ZERO + Duration::from_secs(seconds);
        let mut state = State::default();
        state.worsen(Temper::Stutter, &config, at(0));
        assert_eq!(state.at(&config, at(1_000_000)), Temper::Normal);
    }
}
