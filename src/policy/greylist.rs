//! Greylisting (RFC 6647): who is new comes again in a while; what sends spam seldom does.
//!
//! Known by network, sender and recipient ([`TupleKey`]). The first try is deferred, and so is every other before the
//! delay is over; the time of the first stays. A try between the delay and the end of the window passes, and proves the
//! whole network: it is not asked again for the lifetime, which begins anew while it sends. A try after the window is a
//! first one.
//!
//! Two things must never happen. A sender that keeps coming back must get through: an entry that could not yet have
//! come back is not given up, and who finds no room for one passes. And a callout must not be hurt: the null sender is
//! deferred only at DATA, where a callout does not come to.

use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};

use super::book::{Book, Worth};
use super::clients::ClientKey;
use super::news::{Seconds, TupleKey};

/// Who is greylisted.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum When {
    /// Nobody.
    #[default]
    Off,
    /// Who has a score.
    Score,
    /// Everybody but those with a good score.
    All,
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<When, &'static str> {
        match word {
            "off" => Ok(When::Off),
            "score" => Ok(When::Score),
            "all" => Ok(When::All),
            _ => Err("off, score or all"),
        }
    }
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Config {
    pub when: When,
    /// Under [`When::Score`]: who has at least this score.
    pub score: i32,
    /// From the first try to the first that passes.
    pub delay: Seconds,
    /// From the first try to the last that passes.
    pub window: Seconds,
    /// How long a network is proven after its last mail.
    pub lifetime: Seconds,
    /// Tuples of a shard that are waited for: 16 bytes each, and some 10 for the index.
    pub tuples_max: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            when: When::Off,
            score: 1,
            delay: 5 * 60,
            window: 86_400,
            lifetime: 36 * 86_400,
            tuples_max: 1_000_000,
        }
    }
}

impl Config {
    /// Whether somebody with this score is greylisted. `vouched`: a list of good ones has it.
    pub const fn asks(&self, score: i32, vouched: bool) -> bool {
        match self.when {
            When::Off => false,
            When::Score => score >= self.score && !vouched,
            When::All => score >= 0 && !vouched,
        }
    }
}

impl TupleKey {
    /// Case does not count, nor how the addresses are written down otherwise: a retry has them the same.
    pub fn new(network: ClientKey, sender: &[u8], recipient: &[u8]) -> TupleKey {
        let mut digest = Context::new(&SHA256);
        digest.update(&network.to_bits().to_be_bytes());
        for address in [sender, recipient] {
            digest.update(&(address.len() as u32).to_be_bytes());
            for part in address.chunks(64) {
                let mut lower = [0; 64];
                let lower = &mut lower[..part.len()];
                lower.copy_from_slice(part);
                lower.make_ascii_lowercase();
                digest.update(lower);
            }
        }
        let digest = digest.finish();
        let (first, _) = digest.as_ref().split_first_chunk().expect("32 octets");
        TupleKey(u64::from_be_bytes(*first))
    }
}

/// What came of a try.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Try {
    /// Never seen: deferred.
    First,
    /// Not yet: deferred for so many seconds more.
    Early(Seconds),
    /// It came back in time.
    Passed,
    /// There is no room to remember it: it passes, or it never would.
    NoRoom,
}

impl Try {
    pub const fn is_deferred(self) -> bool {
        matches!(self, Try::First | Try::Early(_))
    }
}

/// The tuples that a shard waits for.
pub struct Tuples {
    config: Config,
    /// By key, when it was first seen.
    first: Book<TupleKey, Seconds>,
}

impl Tuples {
    pub fn new(config: Config) -> Tuples {
        Tuples {
            config,
            first: Book::new(config.tuples_max),
        }
    }

    /// Somebody tries to send; who passes is forgotten here, its network is proven instead.
    pub fn tried(&mut self, key: TupleKey, now: Seconds) -> Try {
        let Some((first, is_new)) = self.note(key, now, now) else {
            return Try::NoRoom;
        };
        let waited = now.saturating_sub(first);
        if waited >= self.config.delay {
            self.first.remove(key);
            return Try::Passed;
        }
        match is_new {
            true => Try::First,
            false => Try::Early(self.config.delay - waited),
        }
    }

    /// When a tuple was first seen, if its window is still open.
    #[cfg(test)]
    pub fn peek(&self, key: TupleKey, now: Seconds) -> Option<Seconds> {
        let first = *self.first.find(key)?;
        (!is_over(&self.config, first, now)).then_some(first)
    }

    /// Another shard or host has seen a tuple, or has it from before: the earliest try counts, if its window is still open.
    pub fn learn(&mut self, key: TupleKey, first: Seconds, now: Seconds) {
        let first = first.min(now);
        if !is_over(&self.config, first, now) {
            self.note(key, first, now);
        }
    }

    /// Frees a few entries that are over.
    pub fn sweep(&mut self, now: Seconds) {
        let config = self.config;
        self.first.sweep(|first| worth(&config, *first, now));
    }

    /// When the tuple was first seen, which is `at` if it is new or its window is over; whether that is so. None: no room.
    fn note(&mut self, key: TupleKey, at: Seconds, now: Seconds) -> Option<(Seconds, bool)> {
        let config = self.config;
        let mut is_new = false;
        let new = || {
            is_new = true;
            at
        };
        let first = self
            .first
            .find_or_add(key, new, |first| worth(&config, *first, now))?;
        if is_over(&config, *first, now) {
            is_new = true;
            *first = at;
        }
        *first = (*first).min(at);
        Some((*first, is_new))
    }

    pub const fn len(&self) -> usize {
        self.first.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.first.memory()
    }
}

fn is_over(config: &Config, first: Seconds, now: Seconds) -> bool {
    now.saturating_sub(first) > config.window
}

fn worth(config: &Config, first: Seconds, now: Seconds) -> Worth {
    let age = now.saturating_sub(first);
    if age > config.window {
        return Worth::Nothing;
    }
    // Who was told to come back is given as long again to do so.
    match age <= config.delay.saturating_mul(2) {
        true => Worth::All,
        false => Worth::Some(first.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(number: u64) -> TupleKey {
        TupleKey(number)
    }

    fn tuples(tuples_max: u32) -> Tuples {
        Tuples::new(Config {
            when: When::All,
            tuples_max,
            ..Config::default()
        })
    }

    #[test]
    fn a_retry_passes_between_the_delay_and_the_end_of_the_window() {
        let table: [(&str, &[(Seconds, Try)]); 4] = [
            (
                "as most senders do it",
                &[(0, Try::First), (60, Try::Early(240)), (300, Try::Passed)],
            ),
            (
                "an early retry does not put the time off",
                &[(0, Try::First), (299, Try::Early(1)), (301, Try::Passed)],
            ),
            (
                "late, but in the window",
                &[(0, Try::First), (86_400, Try::Passed)],
            ),
            (
                "too late: a first try again",
                &[(0, Try::First), (86_401, Try::First), (86_701, Try::Passed)],
            ),
        ];
        for (name, tries) in table {
            let mut tuples = tuples(10);
            for (at, want) in tries {
                let came = tuples.tried(key(1), 1_000_000 + at);
                assert_eq!(came, *want, "{name}, after {at} s");
            }
            assert!(tuples.is_empty(), "{name}: who passed is forgotten");
        }
    }

    #[test]
    fn who_finds_no_room_passes_and_who_waits_keeps_its_place() {
        let mut tuples = tuples(100);
        for number in 0..100 {
            assert_eq!(tuples.tried(key(number), 1000), Try::First);
        }
        assert_eq!(tuples.tried(key(1000), 1500), Try::NoRoom);
        assert_eq!(tuples.tried(key(1), 1500), Try::Passed);
        assert_eq!(tuples.tried(key(1000), 1500), Try::First);
        assert_eq!(tuples.tried(key(1001), 1500), Try::NoRoom);
        // Those who had long enough to come back make room.
        assert_eq!(tuples.tried(key(1001), 1601), Try::First);
        assert_eq!(tuples.len(), 100);
    }

    #[test]
    fn what_others_saw_counts_from_the_earliest_try_on() {
        let mut here = tuples(10);
        here.learn(key(1), 700, 1000);
        assert_eq!(here.tried(key(1), 1000), Try::Passed);
        assert_eq!(here.tried(key(2), 1000), Try::First);
        here.learn(key(2), 900, 1100);
        here.learn(key(2), 1050, 1100);
        assert_eq!(here.peek(key(2), 1100), Some(900));
        // A clock that is ahead does not make anybody wait for longer than from now on, one that is far behind is too late.
        here.learn(key(3), u32::MAX, 1100);
        assert_eq!(here.peek(key(3), 1100), Some(1100));
        here.learn(key(4), 1100, 1100 + 86_401);
        assert_eq!(here.peek(key(4), 1100 + 86_401), None);
        (0..3).for_each(|_| here.sweep(1101 + 86_400));
        assert!(here.is_empty());
    }

    #[test]
    fn a_tuple_is_the_network_the_sender_and_the_recipient() {
        let network = ClientKey::from_bits(1);
        let of = |sender: &str, recipient: &str| {
            TupleKey::new(network, sender.as_bytes(), recipient.as_bytes())
        };
        // All hosts and all versions have to agree on it.
        assert_eq!(of("a@x.example", "b@y.example").0, 0x1051_9a2b_efa7_6069);
        assert_eq!(
            of("a@x.example", "b@y.example"),
            of("A@X.example", "b@Y.example")
        );
        let same = of("ab", "c");
        for other in [of("a", "bc"), of("ab", ""), of("", "abc"), of("abc", "")] {
            assert_ne!(same, other);
        }
        assert_ne!(
            same,
            TupleKey::new(ClientKey::from_bits(2), b"ab", b"c"),
            "another network"
        );
        let long = "x".repeat(300);
        assert_ne!(of(&long, ""), of(&long[..299], ""));
    }

    #[test]
    fn who_is_asked() {
        let config = |when| Config {
            when,
            score: 3,
            ..Config::default()
        };
        let table = [
            (When::Off, 99, false, false),
            (When::Score, 3, false, true),
            (When::Score, 2, false, false),
            (When::Score, 3, true, false),
            (When::All, 0, false, true),
            (When::All, -1, false, false),
            (When::All, 5, true, false),
        ];
        for (when, score, vouched, want) in table {
            assert_eq!(
                config(when).asks(score, vouched),
                want,
                "{when:?} {score} {vouched}"
            );
        }
    }

    proptest! {
        /// Whoever keeps trying at some interval below the window passes within a delay and an interval, whatever else comes.
        #[test]
        fn who_keeps_trying_gets_through(interval in 1u32..3600, noise in prop::collection::vec((0u64..1000, 0u32..600), 0..300)) {
            let mut tuples = tuples(50);
            let mut noise = noise.into_iter();
            let mut now = 1_000_000;
            let began = now;
            while tuples.tried(key(u64::MAX), now).is_deferred() {
                prop_assert!(now - began <= 300 + interval);
                if let Some((other, _)) = noise.next() {
                    tuples.tried(key(other), now);
                }
                now += interval;
            }
        }
    }
}
