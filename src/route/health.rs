//! Whether an address may be used, and for how much: ejection with growing back-off, and the way back.
//!
//! A connect that failed, a 421 or a failed probe ejects. The first time for a second; each
//! further failure before it is whole again doubles that. When the time is over (or a probe succeeds
//! earlier), the address comes back with a tenth of its share, which grows to the whole over the
//! recovery time: a server that has just started is not met by everything that waited for it.

use std::time::Duration;

use weir_smtp::time::Moment;

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Config {
    /// The first ejection lasts this long; each further one twice as long as the one before.
    pub ejected_first: Duration,
    pub ejected_max: Duration,
    /// How long it takes from the first transaction after an ejection to the whole share.
    pub recovery: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            ejected_first: Duration::from_secs(1),
            ejected_max: Duration::from_secs(60),
            recovery: Duration::from_secs(30),
        }
    }
}

/// Why an address was ejected.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Failure {
    /// The connection was not established, or not greeted.
    Connect,
    /// It said 421: it wants to be left alone, so a probe does not end this one early.
    Refused,
    /// No TLS came about, and it is a must.
    Tls,
    Probe,
}

/// The whole share.
pub const SHARE_WHOLE: u32 = 1000;
/// What an address comes back with.
const SHARE_FIRST: u32 = 100;

#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
enum State {
    #[default]
    Up,
    Ejected {
        until: Moment,
        why: Failure,
    },
    Recovering {
        since: Moment,
    },
}

/// The health of one address as one shard sees it.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Health {
    state: State,
    /// Ejections since it was last whole.
    ejections: u32,
}

impl Health {
    /// Something failed. True: it is ejected from now on, and was not before.
    pub fn failed(&mut self, why: Failure, config: &Config, now: Moment) -> bool {
        self.settle(config, now);
        if let State::Ejected { until, .. } = self.state {
            // Others that were under way at that time fail too: that is the same trouble, not more of it.
            // A failed probe is news.
            if why == Failure::Probe {
                let until = until.max(now + config.ejected_first);
                self.state = State::Ejected { until, why };
            }
            return false;
        }
        let doubled = config
            .ejected_first
            .saturating_mul(1 << self.ejections.min(16));
        self.ejections = self.ejections.saturating_add(1);
        let until = now + doubled.min(config.ejected_max);
        self.state = State::Ejected { until, why };
        true
    }

    /// A probe went well. True: it comes back by this.
    pub fn probed(&mut self, config: &Config, now: Moment) -> bool {
        self.settle(config, now);
        let ended = matches!(
            self.state,
            State::Ejected {
                why: Failure::Connect | Failure::Tls | Failure::Probe,
                ..
            }
        );
        if ended {
            self.state = State::Recovering { since: now };
        }
        ended
    }

    /// Thousandths of its weight that it gets now; 0: ejected.
    pub fn share(&mut self, config: &Config, now: Moment) -> u32 {
        self.settle(config, now);
        match self.state {
            State::Up => SHARE_WHOLE,
            State::Ejected { .. } => 0,
            State::Recovering { since } => {
                let grown = now.since(since).as_micros() * u128::from(SHARE_WHOLE - SHARE_FIRST)
                    / config.recovery.as_micros().max(1);
                (SHARE_FIRST + grown as u32).min(SHARE_WHOLE)
            }
        }
    }

    /// When it comes back, if it is ejected.
    pub const fn ejected_until(&self) -> Option<Moment> {
        match self.state {
            State::Ejected { until, .. } => Some(until),
            _ => None,
        }
    }

    /// `up`, `ejected`, `recovering`: for status and logs.
    pub const fn word(&self) -> &'static str {
        match self.state {
            State::Up => "up",
            State::Ejected { .. } => "ejected",
            State::Recovering { .. } => "recovering",
        }
    }

    /// What time alone changes.
    fn settle(&mut self, config: &Config, now: Moment) {
        if let State::Ejected { until, .. } = self.state
            && now >= until
        {
            // It recovers from when it is used again, not from when it might have been.
            self.state = State::Recovering { since: now };
        }
        if let State::Recovering { since } = self.state
            && now >= since + config.recovery
        {
            self.state = State::Up;
            self.ejections = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: Config = Config {
        ejected_first: Duration::from_secs(1),
        ejected_max: Duration::from_secs(60),
        recovery: Duration::from_secs(30),
    };

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_failure_ejects_and_the_share_grows_back() {
        let mut health = Health::default();
        assert_eq!(health.share(&CONFIG, at(0)), 1000);
        assert!(health.failed(Failure::Connect, &CONFIG, at(0)));
        assert!(
            !health.failed(Failure::Connect, &CONFIG, at(10)),
            "the same trouble"
        );
        assert_eq!(health.ejected_until(), Some(at(1000)));
        for (when, share) in [
            (999, 0),
            (1000, 100),
            (11_000, 400),
            (30_999, 999),
            (31_000, 1000),
        ] {
            assert_eq!(health.share(&CONFIG, at(when)), share, "{when}");
        }
        assert_eq!(health, Health::default());
    }

    #[test]
    fn ejections_grow_until_it_was_whole() {
        let mut health = Health::default();
        let mut now = at(0);
        let mut spans = Vec::new();
        for _ in 0..8 {
            health.failed(Failure::Refused, &CONFIG, now);
            let until = health.ejected_until().expect("ejected");
            spans.push(until.since(now).as_secs());
            now = until;
        }
        assert_eq!(spans, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(health.share(&CONFIG, now), 100);
        now = now + CONFIG.recovery;
        assert_eq!(health.share(&CONFIG, now), 1000);
        health.failed(Failure::Refused, &CONFIG, now);
        assert_eq!(health.ejected_until(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn a_probe_ends_an_ejection_but_not_one_by_421() {
        let mut health = Health::default();
        health.failed(Failure::Connect, &CONFIG, at(0));
        assert!(health.probed(&CONFIG, at(10)));
        assert_eq!(health.share(&CONFIG, at(10)), 100);
        health.failed(Failure::Refused, &CONFIG, at(20));
        assert!(!health.probed(&CONFIG, at(30)));
        assert_eq!(health.share(&CONFIG, at(30)), 0);
        assert!(!health.probed(&CONFIG, at(2020)), "it is back by itself");
        assert_eq!(health.share(&CONFIG, at(2020)), 100);
    }

    #[test]
    fn a_probe_that_passes_inside_tls_ends_an_ejection_for_tls() {
        let mut health = Health::default();
        assert!(health.failed(Failure::Tls, &CONFIG, at(0)));
        assert!(health.probed(&CONFIG, at(10)));
        assert_eq!(health.share(&CONFIG, at(10)), 100);
    }

    #[test]
    fn failed_probes_keep_it_out() {
        let mut health = Health::default();
        health.failed(Failure::Probe, &CONFIG, at(0));
        for seconds in 1..100 {
            health.failed(Failure::Probe, &CONFIG, at(seconds * 900));
            assert_eq!(health.share(&CONFIG, at(seconds * 900)), 0);
        }
    }
}
