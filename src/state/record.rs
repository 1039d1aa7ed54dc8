//! What is kept of a tuple and of a network: all news about it, merged.
//!
//! Merging in another order gives the same, but for rounding: of times the earliest or the latest counts, counts are aged to the
//! later of both moments and added. Times that lie ahead of now are set to now: a host whose clock ran ahead would otherwise
//! have its word for good.

use crate::policy::clients::ClientKey;
use crate::policy::news::{Deed, News, Seconds, TupleKey};

/// How long what is learnt is worth keeping, in seconds.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Lives {
    /// A tuple whose client does not come back: --greylist-window.
    pub tuple: Seconds,
    /// A network that has passed: --greylist-lifetime.
    pub proven: Seconds,
    /// A network that wrote to a spamtrap: --trap-time.
    pub trapped: Seconds,
    /// After which deeds count half: --history-half-life.
    pub half_life: Seconds,
}

impl Default for Lives {
    fn default() -> Lives {
        const DAY: Seconds = 86_400;
        Lives {
            tuple: DAY,
            proven: 36 * DAY,
            trapped: DAY,
            half_life: 7 * DAY,
        }
    }
}

impl Lives {
    /// The news with times that can be; None: it is too old to be any.
    pub fn put_right(&self, news: News, now: Seconds) -> Option<News> {
        let right = match news {
            News::Tuple { key, first } => News::Tuple {
                key,
                first: first.min(now),
            },
            News::Proven { network, until } => News::Proven {
                network,
                until: until.min(now.saturating_add(self.proven)),
            },
            News::Trapped { network, until } => News::Trapped {
                network,
                until: until.min(now.saturating_add(self.trapped)),
            },
            News::Deeds {
                network,
                asn,
                at,
                counts,
            } => News::Deeds {
                network,
                asn,
                at: at.min(now),
                counts,
            },
        };
        let lasts = match right {
            News::Tuple { first, .. } => first.saturating_add(self.tuple) > now,
            News::Proven { until, .. } | News::Trapped { until, .. } => until > now,
            News::Deeds { .. } => {
                let mut network = Network::default();
                network.add(&right, self);
                !network.is_over(now, self)
            }
        };
        lasts.then_some(right)
    }

    /// What is left of a count after some time, in 2^16ths.
    fn left(&self, seconds: Seconds) -> u64 {
        let halves = f64::from(seconds) / f64::from(self.half_life.max(1));
        ((-halves).exp2() * 65_536.0) as u64
    }
}

/// Parts of one deed that are counted.
const PARTS: u32 = 256;
/// Less than an eighth of a deed is none.
const TRACE: u32 = PARTS / 8;

/// All that is kept of one network.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Network {
    /// 0: not proven.
    proven: Seconds,
    /// 0: not trapped.
    trapped: Seconds,
    asn: u32,
    /// As of when the counts are.
    at: Seconds,
    /// In 256ths, so that what is written down often does not lose a half each time.
    counts: [u32; Deed::COUNT],
}

impl Network {
    /// Octets of [`Network::to_octets`].
    pub const OCTETS: usize = 16 + 4 * Deed::COUNT;

    /// Takes in one piece of news about this network.
    pub fn add(&mut self, news: &News, lives: &Lives) {
        let mut other = Network::default();
        match *news {
            News::Proven { until, .. } => other.proven = until,
            News::Trapped { until, .. } => other.trapped = until,
            News::Deeds {
                asn, at, counts, ..
            } => {
                other.asn = asn;
                other.at = at;
                other.counts = counts.map(|count| u32::from(count) * PARTS);
            }
            News::Tuple { .. } => {}
        }
        self.merge(&other, lives);
    }

    /// Takes in what else is known of it.
    pub fn merge(&mut self, other: &Network, lives: &Lives) {
        let at = self.at.max(other.at);
        let (mine, theirs) = (self.aged(at, lives), other.aged(at, lives));
        for (count, (mine, theirs)) in self.counts.iter_mut().zip(mine.into_iter().zip(theirs)) {
            *count = mine.saturating_add(theirs);
        }
        if other.asn != 0 && (other.at >= self.at || self.asn == 0) {
            self.asn = other.asn;
        }
        self.at = at;
        self.proven = self.proven.max(other.proven);
        self.trapped = self.trapped.max(other.trapped);
    }

    /// The counts as they are at that moment.
    fn aged(&self, at: Seconds, lives: &Lives) -> [u32; Deed::COUNT] {
        let gone = at.saturating_sub(self.at);
        if gone == 0 {
            return self.counts;
        }
        let left = lives.left(gone);
        self.counts
            .map(|count| ((u64::from(count) * left) >> 16) as u32)
    }

    /// Until when the network is worth an entry for its marks; its deeds fade by themselves.
    fn marked_until(&self) -> Seconds {
        self.proven.max(self.trapped)
    }

    /// Sets times that cannot be to those that can: a clock was ahead when they were written.
    pub fn hold_to(&mut self, now: Seconds, lives: &Lives) {
        self.at = self.at.min(now);
        self.proven = self.proven.min(now.saturating_add(lives.proven));
        self.trapped = self.trapped.min(now.saturating_add(lives.trapped));
    }

    /// Nothing is left of it.
    pub fn is_over(&self, now: Seconds, lives: &Lives) -> bool {
        self.marked_until() <= now && self.aged(now, lives).iter().all(|count| *count < TRACE)
    }

    /// By what entries are given up where there are too many: the lowest first.
    pub fn worth(&self) -> Seconds {
        self.marked_until().max(self.at)
    }

    /// As news, for shards that know nothing yet.
    pub fn tell(&self, key: u64, now: Seconds, lives: &Lives, tell: &mut impl FnMut(News)) {
        let network = ClientKey::from_bits(key);
        let counts = self.counts.map(|count| {
            u16::try_from(count.saturating_add(PARTS / 2) / PARTS).unwrap_or(u16::MAX)
        });
        let deeds = News::Deeds {
            network,
            asn: self.asn,
            at: self.at,
            counts,
        };
        let (proven, trapped) = (self.proven, self.trapped);
        let all = [
            News::Proven {
                network,
                until: proven,
            },
            News::Trapped {
                network,
                until: trapped,
            },
            deeds,
        ];
        all.into_iter()
            .filter_map(|news| lives.put_right(news, now))
            .for_each(tell);
    }

    pub fn to_octets(&self) -> [u8; Network::OCTETS] {
        let mut octets = [0; Network::OCTETS];
        let fields = [self.proven, self.trapped, self.asn, self.at];
        let all = fields.iter().chain(&self.counts);
        for (place, field) in octets.chunks_exact_mut(4).zip(all) {
            place.copy_from_slice(&field.to_be_bytes());
        }
        octets
    }

    pub fn from_octets(octets: &[u8; Network::OCTETS]) -> Network {
        let (words, _) = octets.as_chunks::<4>();
        let word = |number: usize| u32::from_be_bytes(words[number]);
        Network {
            proven: word(0),
            trapped: word(1),
            asn: word(2),
            at: word(3),
            counts: std::array::from_fn(|deed| word(4 + deed)),
        }
    }
}

/// What news are about.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Subject {
    Tuple(TupleKey, Seconds),
    Network(u64),
}

impl From<&News> for Subject {
    fn from(news: &News) -> Subject {
        match *news {
            News::Tuple { key, first } => Subject::Tuple(key, first),
            News::Proven { network, .. }
            | News::Trapped { network, .. }
            | News::Deeds { network, .. } => Subject::Network(network.to_bits()),
        }
    }
}

#[cfg(test)]
pub mod arbitrary {
    //! News of all kinds, for properties.

    use super::*;
    use proptest::prelude::*;

    pub fn news() -> impl Strategy<Value = News> {
        let network = any::<u64>().prop_map(ClientKey::from_bits);
        let until = (network.clone(), any::<Seconds>());
        prop_oneof![
            (any::<u64>(), any::<Seconds>()).prop_map(|(key, first)| News::Tuple {
                key: TupleKey(key),
                first
            }),
            until
                .clone()
                .prop_map(|(network, until)| News::Proven { network, until }),
            until.prop_map(|(network, until)| News::Trapped { network, until }),
            (
                network,
                any::<u32>(),
                any::<Seconds>(),
                any::<[u16; Deed::COUNT]>()
            )
                .prop_map(|(network, asn, at, counts)| News::Deeds {
                    network,
                    asn,
                    at,
                    counts
                }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Seconds = 1_800_000_000;
    const DAY: Seconds = 86_400;

    fn key() -> ClientKey {
        ClientKey::from_bits(7)
    }

    fn deeds(at: Seconds, accepted: u16) -> News {
        let mut counts = [0; Deed::COUNT];
        counts[Deed::Accepted as usize] = accepted;
        News::Deeds {
            network: key(),
            asn: 64_500,
            at,
            counts,
        }
    }

    fn merged(news: &[News]) -> Network {
        let mut network = Network::default();
        news.iter()
            .for_each(|news| network.add(news, &Lives::default()));
        network
    }

    fn told(network: &Network, now: Seconds) -> Vec<News> {
        let mut told = Vec::new();
        network.tell(7, now, &Lives::default(), &mut |news| told.push(news));
        told
    }

    #[test]
    fn counts_fade_by_half_and_are_told_as_of_then() {
        let week = 7 * DAY;
        let network = merged(&[deeds(NOW - week, 100), deeds(NOW, 10)]);
        assert_eq!(told(&network, NOW), [deeds(NOW, 60)]);
        assert_eq!(
            told(&merged(&[deeds(NOW, 10), deeds(NOW - week, 100)]), NOW),
            [deeds(NOW, 60)]
        );
        assert!(!network.is_over(NOW + week, &Lives::default()));
        assert!(network.is_over(NOW + 10 * week, &Lives::default()));
        assert_eq!(told(&network, NOW + 10 * week), []);
    }

    #[test]
    fn the_latest_mark_counts_and_ends() {
        let marks = |until| {
            [
                News::Proven {
                    network: key(),
                    until,
                },
                News::Trapped {
                    network: key(),
                    until: until - 10,
                },
            ]
        };
        let network = merged(&[marks(NOW + 20), marks(NOW + 5)].concat());
        assert_eq!(told(&network, NOW), marks(NOW + 20));
        assert_eq!(told(&network, NOW + 10), marks(NOW + 20)[..1]);
        assert!(network.is_over(NOW + 20, &Lives::default()));
    }

    #[test]
    fn times_ahead_of_now_are_set_to_now() {
        let lives = Lives::default();
        let ahead = NOW + 1000 * DAY;
        let tuple = |first| News::Tuple {
            key: TupleKey(1),
            first,
        };
        let proven = |until| News::Proven {
            network: key(),
            until,
        };
        let right = |news| lives.put_right(news, NOW);
        assert_eq!(right(tuple(ahead)), Some(tuple(NOW)));
        assert_eq!(right(tuple(NOW - 2 * DAY)), None, "too old");
        assert_eq!(right(deeds(ahead, 3)), Some(deeds(NOW, 3)));
        assert_eq!(right(deeds(NOW - 300 * DAY, 3)), None);
        assert_eq!(right(proven(ahead)), Some(proven(NOW + 36 * DAY)));
        assert_eq!(right(proven(NOW)), None);
    }

    #[test]
    fn counts_that_are_full_are_told_as_the_most_there_is() {
        let most = [u16::MAX; Deed::COUNT];
        let all = News::Deeds {
            network: key(),
            asn: 64_500,
            at: NOW,
            counts: most,
        };
        let network = merged(&[all; 300]);
        assert_eq!(network.counts, [u32::MAX; Deed::COUNT]);
        assert_eq!(told(&network, NOW), [all]);
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(proven: u32, trapped: u32, asn: u32, at: u32, counts: [u32; Deed::COUNT]) {
            let network = Network { proven, trapped, asn, at, counts };
            prop_assert_eq!(Network::from_octets(&network.to_octets()), network);
        }

        /// In which order news come, and how they were merged on the way, makes no difference but for rounding.
        #[test]
        fn order_does_not_matter(news in prop::collection::vec((0..30 * DAY, 0u16..500), 2..20), turn in any::<prop::sample::Index>()) {
            let news: Vec<News> = news.into_iter().map(|(ago, count)| deeds(NOW - ago, count)).collect();
            let whole = merged(&news);
            let (front, back) = news.split_at(turn.index(news.len()));
            let mut other = merged(back);
            other.merge(&merged(front), &Lives::default());
            prop_assert_eq!(whole.at, other.at);
            for (one, another) in whole.counts.iter().zip(other.counts) {
                prop_assert!(one.abs_diff(another) <= 2 * news.len() as u32 + one / 1000, "{} {}", one, another);
            }
        }
    }
}
