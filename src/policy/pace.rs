//! The minimum data rate: a message that holds an upstream has to come along.
//!
//! Octets are counted over a window, after a grace for the start of the body. Time in which weir itself
//! did not read (a full upstream, a byte rate) is not held against the client.

use std::time::Duration;

use weir_smtp::time::Moment;

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Config {
    /// Octets per second. 0 lifts the limit.
    pub octets_per_second: u32,
    /// Nothing is asked for this long after the start.
    pub grace: Duration,
    /// The rate has to be kept in each window of this length.
    pub window: Duration,
}

impl Default for Config {
    /// 500 octets a second, like Postfix's smtpd_min_data_rate.
    fn default() -> Config {
        Config {
            octets_per_second: 500,
            grace: Duration::from_secs(5),
            window: Duration::from_secs(10),
        }
    }
}

/// The pace of one body: 40 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Pace {
    /// When the present window (the grace first) ends; moves on by pauses.
    ends: Moment,
    octets: u64,
    in_grace: bool,
    paused: Option<Pause>,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Pause(Moment);

impl Pace {
    pub fn start(config: &Config, now: Moment) -> Pace {
        Pace {
            ends: now + config.grace,
            octets: 0,
            in_grace: true,
            paused: None,
        }
    }

    /// Octets of the body came in.
    pub const fn count(&mut self, octets: u64) {
        self.octets = self.octets.saturating_add(octets);
    }

    /// We stop reading.
    pub fn pause(&mut self, now: Moment) {
        self.paused.get_or_insert(Pause(now));
    }

    /// We read again.
    pub fn resume(&mut self, now: Moment) {
        if let Some(Pause(began)) = self.paused.take() {
            self.ends = self.ends + now.since(began);
        }
    }

    /// When [`Pace::is_slow`] has to be asked again; never during a pause.
    pub fn deadline(&self, config: &Config) -> Moment {
        match self.paused {
            None if config.octets_per_second > 0 => self.ends,
            _ => Moment::NEVER,
        }
    }

    /// At the end of a window: did too little come in it? Begins the next window.
    pub fn is_slow(&mut self, config: &Config, now: Moment) -> bool {
        if now < self.deadline(config) {
            return false;
        }
        let wanted = u128::from(config.octets_per_second) * config.window.as_millis() / 1000;
        let slow = !self.in_grace && u128::from(self.octets) < wanted;
        self.in_grace = false;
        self.octets = 0;
        self.ends = now + config.window;
        slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        octets_per_second: 100,
        grace: Duration::from_secs(10),
        window: Duration::from_secs(30),
    };

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_trickle_is_slow_after_grace_and_window() {
        let mut pace = Pace::start(&CONFIG, at(0));
        assert!(!pace.is_slow(&CONFIG, at(10)), "grace");
        assert_eq!(pace.deadline(&CONFIG), at(40));
        pace.count(3000);
        assert!(!pace.is_slow(&CONFIG, at(40)), "just enough");
        pace.count(2999);
        assert!(!pace.is_slow(&CONFIG, at(69)), "not yet");
        assert!(pace.is_slow(&CONFIG, at(70)));
    }

    #[test]
    fn our_own_pauses_do_not_count() {
        let mut pace = Pace::start(&CONFIG, at(0));
        assert!(!pace.is_slow(&CONFIG, at(10)));
        pace.pause(at(20));
        assert_eq!(pace.deadline(&CONFIG), Moment::NEVER);
        assert!(!pace.is_slow(&CONFIG, at(500)));
        pace.resume(at(1000));
        assert_eq!(pace.deadline(&CONFIG), at(1020));
        pace.count(3000);
        assert!(!pace.is_slow(&CONFIG, at(1020)));
    }

    #[test]
    fn zero_lifts_it() {
        let config = Config {
            octets_per_second: 0,
            ..CONFIG
        };
        let mut pace = Pace::start(&config, at(0));
        assert_eq!(pace.deadline(&config), Moment::NEVER);
        assert!(!pace.is_slow(&config, at(100_000)));
    }
}
