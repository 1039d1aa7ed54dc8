//! What a network, or the provider it belongs to, has done: counts that fade, and the points they come to.
//!
//! Counts halve every half-life, so what was done lately speaks loudest and nothing is held against anybody for ever. What
//! counts is the share of bad deeds among all, once there are enough to speak of a share: a large sender has unknown
//! recipients every day, and a thousand good messages beside them.

use super::news::{Deed, Seconds};

/// Counts of deeds as of a time.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Tally {
    pub at: Seconds,
    pub counts: [f32; Deed::COUNT],
}

const _: () = assert!(
    size_of::<Tally>() == 28,
    "there is one for each network and each provider"
);

/// What is left of a deed below this is forgotten.
const TRACE: f32 = 0.05;
/// Beyond this one more deed would be lost in rounding.
const COUNT_MAX: f32 = 4_000_000.0;

/// How much worse than a refused message each deed is, in the order of their numbers; good ones are 0 here.
/// Hang-ups come of scanners, monitors and broken paths as well: many of them make little.
const GRAVITY: [f32; Deed::COUNT] = [0.0, 1.0, 1.0, 25.0, 2.0, 0.25];

impl Tally {
    pub const fn new(now: Seconds) -> Tally {
        Tally {
            at: now,
            counts: [0.0; Deed::COUNT],
        }
    }

    /// Brings the counts to the present.
    pub fn decay(&mut self, now: Seconds, half_life: Seconds) {
        let passed = now.saturating_sub(self.at);
        if passed == 0 {
            return;
        }
        self.at = now;
        let left = remains(passed, half_life);
        for count in &mut self.counts {
            *count *= left;
            if *count < TRACE {
                *count = 0.0;
            }
        }
    }

    /// Adds deeds of another time; a time to come is taken for the present.
    pub fn add(
        &mut self,
        counts: &[u16; Deed::COUNT],
        at: Seconds,
        now: Seconds,
        half_life: Seconds,
    ) {
        self.decay(now, half_life);
        let left = remains(now.saturating_sub(at), half_life);
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count = (*count + f32::from(*more) * left).min(COUNT_MAX);
        }
    }

    /// Whether all has faded by `now`.
    pub fn is_blank(&self, now: Seconds, half_life: Seconds) -> bool {
        let left = remains(now.saturating_sub(self.at), half_life);
        self.counts.iter().all(|count| count * left < TRACE)
    }

    /// Messages that an upstream took, and the weight of what was bad.
    fn good_and_bad(&self, now: Seconds, half_life: Seconds) -> (f32, f32) {
        let left = remains(now.saturating_sub(self.at), half_life);
        let bad: f32 = self
            .counts
            .iter()
            .zip(GRAVITY)
            .map(|(count, gravity)| count * gravity)
            .sum();
        (self.counts[Deed::Accepted as usize] * left, bad * left)
    }
}

/// What is left of a count after so many seconds.
fn remains(passed: Seconds, half_life: Seconds) -> f32 {
    match passed {
        0 => 1.0,
        _ => (-f64::from(passed) / f64::from(half_life.max(1))).exp2() as f32,
    }
}

/// Points by the share of bad deeds: at least this share, so many points; only with evidence enough.
struct Scale {
    /// Good and bad together, before anything is said.
    evidence: f32,
    bad: [(f32, i16); 3],
    /// At most this share, with so many good ones.
    good: [(f32, f32, i16); 2],
}

const NETWORK: Scale = Scale {
    evidence: 5.0,
    bad: [(0.9, 3), (0.7, 2), (0.5, 1)],
    good: [(0.02, 100.0, -2), (0.1, 10.0, -1)],
};

/// A provider answers for many: it takes more to say something, there is less to say, and nothing good.
const PROVIDER: Scale = Scale {
    evidence: 200.0,
    bad: [(0.95, 2), (0.8, 1), (f32::INFINITY, 0)],
    good: [(-1.0, f32::INFINITY, 0), (-1.0, f32::INFINITY, 0)],
};

impl Scale {
    fn points(&self, good: f32, bad: f32) -> i16 {
        let all = good + bad;
        if all < self.evidence {
            return 0;
        }
        let share = bad / all;
        let worse = self.bad.iter().find(|(least, _)| share >= *least);
        let better = || {
            let fits = |(most, enough, _): &&(f32, f32, i16)| share <= *most && good >= *enough;
            self.good
                .iter()
                .find(fits)
                .map_or(0, |(.., points)| *points)
        };
        worse.map_or_else(better, |(_, points)| *points)
    }
}

/// Points of a network: from -2 (a hundred good messages and hardly anything else) to 3 (next to nothing good).
pub fn network_points(tally: &Tally, now: Seconds, half_life: Seconds) -> i16 {
    let (good, bad) = tally.good_and_bad(now, half_life);
    NETWORK.points(good, bad)
}

/// Points of a provider: 0 to 2.
pub fn provider_points(tally: &Tally, now: Seconds, half_life: Seconds) -> i16 {
    let (good, bad) = tally.good_and_bad(now, half_life);
    PROVIDER.points(good, bad)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: Seconds = 7 * 86_400;

    fn tally(deeds: &[(Deed, u16)]) -> Tally {
        let mut tally = Tally::new(1000);
        let mut counts = [0; Deed::COUNT];
        deeds
            .iter()
            .for_each(|(deed, count)| counts[*deed as usize] = *count);
        tally.add(&counts, 1000, 1000, WEEK);
        tally
    }

    #[test]
    fn points_follow_the_share_of_bad_deeds() {
        use Deed::{Accepted, HangUp, Protocol, Refused, Spamtrap, UnknownRecipient};
        type Row = (&'static str, &'static [(Deed, u16)], i16);
        let table: [Row; 12] = [
            ("nothing", &[], 0),
            ("two typing errors", &[(UnknownRecipient, 2)], 0),
            (
                "a large sender's unknown recipients",
                &[(Accepted, 1000), (UnknownRecipient, 80)],
                -1,
            ),
            ("a good sender", &[(Accepted, 400), (Refused, 3)], -2),
            ("a small good one", &[(Accepted, 12)], -1),
            ("too small to tell", &[(Accepted, 4)], 0),
            ("half and half", &[(Accepted, 10), (Refused, 10)], 1),
            ("mostly refused", &[(Accepted, 3), (Refused, 10)], 2),
            ("a dictionary", &[(UnknownRecipient, 50)], 3),
            ("one spamtrap", &[(Spamtrap, 1)], 3),
            (
                "one spamtrap of a good sender",
                &[(Accepted, 500), (Spamtrap, 1)],
                -1,
            ),
            ("a monitor's hang-ups", &[(HangUp, 19), (Protocol, 0)], 0),
        ];
        for (name, deeds, want) in table {
            assert_eq!(network_points(&tally(deeds), 1000, WEEK), want, "{name}");
        }
        let crowd = tally(&[(Refused, 1000), (Accepted, 10)]);
        assert_eq!(provider_points(&crowd, 1000, WEEK), 2);
        assert_eq!(provider_points(&tally(&[(Refused, 100)]), 1000, WEEK), 0);
        assert_eq!(provider_points(&tally(&[(Accepted, 9999)]), 1000, WEEK), 0);
    }

    #[test]
    fn what_was_done_fades() {
        let mut bad = tally(&[(Deed::Refused, 16)]);
        assert_eq!(network_points(&bad, 1000, WEEK), 3);
        assert_eq!(network_points(&bad, 1000 + WEEK, WEEK), 3, "8 are left");
        assert_eq!(network_points(&bad, 1000 + 2 * WEEK, WEEK), 0, "4 are left");
        assert!(!bad.is_blank(1000 + 8 * WEEK, WEEK) && bad.is_blank(1000 + 9 * WEEK, WEEK));
        bad.decay(1000 + 9 * WEEK, WEEK);
        assert_eq!(bad.counts, [0.0; Deed::COUNT]);
        // A clock that goes back changes nothing, and one that is ahead adds no more than the present.
        let mut back = tally(&[(Deed::Refused, 16)]);
        back.decay(10, WEEK);
        back.add(&[0, 1, 0, 0, 0, 0], u32::MAX, 1000, WEEK);
        assert_eq!((back.at, back.counts[1]), (1000, 17.0));
    }

    proptest! {
        /// Fading in many small steps is fading in one.
        #[test]
        fn steps_do_not_matter(steps in prop::collection::vec(1u32..40_000, 1..60)) {
            let mut whole = tally(&[(Deed::Accepted, 10_000)]);
            let mut stepwise = whole;
            let mut now = 1000;
            for step in steps {
                now += step;
                stepwise.decay(now, WEEK);
            }
            whole.decay(now, WEEK);
            let apart = (whole.counts[0] - stepwise.counts[0]).abs();
            prop_assert!(apart <= whole.counts[0] * 1e-3, "{} and {}", whole.counts[0], stepwise.counts[0]);
        }
    }
}
