//! Errors and junk commands: how many a session may make, and what is remembered of them.
//!
//! Counts are per session, as in Postfix: a large sender has many sessions at once, each with its
//! share of unknown recipients, and their sum says nothing. But to hang up and come back must not be a
//! way to shed them: the address keeps the worst recent count, one of which is forgiven a minute, and a
//! new session begins with it, at most at the soft limit. So who returns is slow at once, but is never
//! cut for what an earlier session did.

use std::time::Duration;

use weir_smtp::time::Moment;

use super::Finding;

/// 0 lifts a limit.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Limits {
    /// Beyond this many errors, replies are delayed (finding `errors-soft`).
    pub soft: u16,
    /// At this many errors the session ends (finding `errors-hard`).
    pub hard: u16,
    /// Beyond this many commands without mail the session ends (finding `junk`).
    pub junk: u16,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            soft: 10,
            hard: 20,
            junk: 100,
        }
    }
}

/// Counts of one session: 4 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Errors {
    errors: u16,
    junk: u16,
}

impl Errors {
    /// One more refused or malformed command. Do not count what follows from an earlier refusal in the same group.
    pub fn error(&mut self, limits: &Limits) -> Option<Finding> {
        self.errors = self.errors.saturating_add(1);
        if limits.hard != 0 && self.errors >= limits.hard {
            return Some(Finding::ErrorsHard);
        }
        (limits.soft != 0 && self.errors > limits.soft).then_some(Finding::ErrorsSoft)
    }

    /// One more command that leads to no mail: NOOP, RSET, VRFY, EXPN, HELP, a repeated EHLO.
    pub fn junk(&mut self, limits: &Limits) -> Option<Finding> {
        self.junk = self.junk.saturating_add(1);
        (limits.junk != 0 && self.junk > limits.junk).then_some(Finding::Junk)
    }

    /// A message was accepted: junk starts anew, errors stay.
    pub const fn accepted(&mut self) {
        self.junk = 0;
    }

    pub const fn errors(self) -> u16 {
        self.errors
    }

    /// The limits that are passed now.
    pub fn passed(self, limits: &Limits) -> impl Iterator<Item = Finding> {
        let passed = [
            (
                limits.soft != 0 && self.errors > limits.soft,
                Finding::ErrorsSoft,
            ),
            (
                limits.hard != 0 && self.errors >= limits.hard,
                Finding::ErrorsHard,
            ),
            (limits.junk != 0 && self.junk > limits.junk, Finding::Junk),
        ];
        passed
            .into_iter()
            .filter_map(|(is, finding)| is.then_some(finding))
    }
}

/// One error is forgiven after this time.
const FORGIVEN: Duration = Duration::from_secs(60);

/// What an address is remembered for: 8 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Memory {
    /// Minutes since the beginning.
    minute: u32,
    errors: u16,
}

impl Memory {
    /// A session ends with these counts.
    pub fn record(&mut self, ended: Errors, now: Moment) {
        self.errors = self.left(now).max(ended.errors);
        self.minute = minute(now);
    }

    /// The counts with which a new session of this address begins.
    pub fn fresh(self, limits: &Limits, now: Moment) -> Errors {
        Errors {
            errors: self.left(now).min(limits.soft),
            junk: 0,
        }
    }

    pub fn is_clean(self, now: Moment) -> bool {
        self.left(now) == 0
    }

    /// Errors that are not forgiven yet.
    pub fn left(self, now: Moment) -> u16 {
        let forgiven = minute(now).saturating_sub(self.minute);
        u32::from(self.errors).saturating_sub(forgiven) as u16
    }
}

fn minute(now: Moment) -> u32 {
    (now.as_micros() / FORGIVEN.as_micros() as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_pass_then_delay_then_end_the_session() {
        let limits = Limits::default();
        let mut errors = Errors::default();
        let found: Vec<_> = (1..=20).map(|_| errors.error(&limits)).collect();
        assert!(found[..10].iter().all(Option::is_none));
        assert!(
            found[10..19]
                .iter()
                .all(|found| *found == Some(Finding::ErrorsSoft))
        );
        assert_eq!(found[19], Some(Finding::ErrorsHard));
        let passed: Vec<_> = errors.passed(&limits).collect();
        assert_eq!(passed, [Finding::ErrorsSoft, Finding::ErrorsHard]);
    }

    #[test]
    fn junk_is_counted_since_the_last_accepted_message() {
        let limits = Limits {
            junk: 2,
            ..Limits::default()
        };
        let mut errors = Errors::default();
        assert_eq!((errors.junk(&limits), errors.junk(&limits)), (None, None));
        assert_eq!(errors.junk(&limits), Some(Finding::Junk));
        errors.accepted();
        assert_eq!(errors.junk(&limits), None);
    }

    #[test]
    fn zero_lifts_each_limit() {
        let limits = Limits {
            soft: 0,
            hard: 0,
            junk: 0,
        };
        let mut errors = Errors::default();
        assert!(
            (0..70_000).all(|_| errors.error(&limits).is_none() && errors.junk(&limits).is_none())
        );
        assert_eq!(errors.passed(&limits).count(), 0);
    }

    #[test]
    fn who_comes_back_is_slow_but_not_cut_and_is_forgiven_in_time() {
        let limits = Limits::default();
        let at = |minutes: u64| Moment::ZERO + FORGIVEN * minutes as u32;
        let mut bad = Errors::default();
        assert_eq!((0..20).filter_map(|_| bad.error(&limits)).count(), 10);
        let mut memory = Memory::default();
        memory.record(bad, at(100));
        let mut again = memory.fresh(&limits, at(101));
        assert_eq!(again.error(&limits), Some(Finding::ErrorsSoft));
        // A clean session in between takes nothing back.
        memory.record(Errors::default(), at(101));
        assert_eq!(memory.fresh(&limits, at(115)).errors(), 5);
        assert!(memory.is_clean(at(120)) && !memory.is_clean(at(119)));
    }
}
