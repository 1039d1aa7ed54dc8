//! How many events a shard sleeps for.
//!
//! Going to sleep and waking up is the dearest thing a shard does, so it pays to wake for several events at once. To wait
//! for one that does not come costs latency, and where the core falls idle over it CPU as well. Nobody knows how many will
//! come; so the number is found by trying. It grows by a step as long as it is reached in time, and falls by a quarter
//! when it is not; and the more often a step was one too many, the longer until the next is tried. A quiet shard wakes
//! for the first.

use std::time::Duration;

/// The most events worth waiting for: beyond this, what a wake-up costs is spread thin enough.
const WANTED_MAX: u32 = 48;

/// The fewest. A shard whose turns have fewer by themselves has sessions that all wait for it.
const WANTED_MIN: u32 = 4;

/// What more events cost in credit: at first, and after many waits in vain.
const PRICE_MIN: u32 = 4;
const PRICE_MAX: u32 = 256;

/// While a shard is quiet, what an event adds to the credit, and what a turn takes from it: more than one event and a half a
/// turn speak for gathering.
const QUIET_EVENT: u32 = 2;
const QUIET_TURN: u32 = 3;

/// Events that come further apart than this do not gather: the shard has time for each.
const EVENT_APART_MAX: Duration = Duration::from_micros(100);

#[derive(Debug)]
pub(super) struct Patience {
    /// How long a wait for more than one event may take; zero: there is none.
    span: Duration,
    /// 1, or [`WANTED_MIN`] to [`WANTED_MAX`].
    wanted: u32,
    /// What speaks for more events, and how much of it the next step takes.
    credit: u32,
    price: u32,
}

impl Patience {
    pub(super) fn new(span: Duration) -> Patience {
        Patience {
            span,
            wanted: 1,
            credit: 0,
            price: PRICE_MIN,
        }
    }

    /// How many events to wait for, and how long at most. None: for the first, however long it takes.
    pub(super) fn wanted(&self) -> Option<(u32, Duration)> {
        (self.wanted > 1).then_some((self.wanted, self.span))
    }

    /// A turn had so many events, and took so long, sleep and work together.
    pub(super) fn learn(&mut self, came: u32, turn: Duration) {
        if self.span.is_zero() {
            return;
        }
        let slow = self.wanted > 1 && turn > came * EVENT_APART_MAX;
        if slow && came >= self.wanted {
            self.step_down(self.wanted - 1);
        } else if came >= self.wanted {
            self.credit += match self.wanted {
                1 => came * QUIET_EVENT,
                _ => 1,
            };
        } else if self.wanted > 1 {
            self.step_down(came);
            self.price = (self.price * 2).min(PRICE_MAX);
        }
        if self.wanted == 1 && came > 0 {
            self.credit = self.credit.saturating_sub(QUIET_TURN);
        }
        if self.credit >= self.price {
            self.credit = 0;
            self.price = (self.price / 2).max(PRICE_MIN);
            let more = self.wanted + self.wanted / 4 + 1;
            self.wanted = more.clamp(WANTED_MIN, WANTED_MAX);
        }
    }

    /// `reached` could be had, so three quarters of it come more easily.
    fn step_down(&mut self, reached: u32) {
        let easy = reached - reached / 4;
        self.wanted = if easy < WANTED_MIN { 1 } else { easy };
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_millis(1);

    /// Turns of a shard that gets `by_itself` events when it wakes for the first, and `most` at most; and how many were waited for in vain.
    fn turns(patience: &mut Patience, by_itself: u32, most: u32, turns: usize) -> usize {
        let in_vain = (0..turns).filter(|_| {
            let wanted = patience.wanted().map_or(1, |(wanted, _)| wanted);
            let came = wanted.max(by_itself).min(most);
            patience.learn(came, came * EVENT_APART_MAX);
            wanted > most
        });
        in_vain.count()
    }

    #[test]
    fn a_busy_shard_waits_for_more_and_more() {
        let mut patience = Patience::new(SPAN);
        assert_eq!(patience.wanted(), None);
        assert_eq!(turns(&mut patience, 2, 1000, 500), 0);
        assert_eq!(patience.wanted(), Some((WANTED_MAX, SPAN)));
    }

    #[test]
    fn who_comes_alone_is_not_kept_waiting() {
        let mut patience = Patience::new(SPAN);
        assert_eq!(turns(&mut patience, 1, 3, 10_000), 0);
        assert_eq!(patience.wanted(), None);
    }

    #[test]
    fn few_sessions_are_seldom_waited_for_in_vain() {
        for sessions in 2..40 {
            let mut patience = Patience::new(SPAN);
            let in_vain = turns(&mut patience, 2, sessions, 10_000);
            assert!(in_vain < 1500, "{sessions} sessions: {in_vain}");
        }
    }

    #[test]
    fn a_shard_that_falls_silent_is_quiet_at_once() {
        let mut patience = Patience::new(SPAN);
        turns(&mut patience, 2, 1000, 500);
        patience.learn(1, SPAN);
        assert_eq!(patience.wanted(), None);
    }

    #[test]
    fn a_shard_with_time_for_each_event_waits_for_none() {
        let mut patience = Patience::new(SPAN);
        turns(&mut patience, 2, 1000, 500);
        for _ in 0..12 {
            let wanted = patience.wanted().map_or(1, |(wanted, _)| wanted);
            patience.learn(wanted, (wanted + 1) * EVENT_APART_MAX);
        }
        assert_eq!(patience.wanted(), None);
    }

    #[test]
    fn without_a_span_nothing_is_waited_for() {
        let mut patience = Patience::new(Duration::ZERO);
        turns(&mut patience, 2, 1000, 500);
        assert_eq!(patience.wanted(), None);
    }
}
