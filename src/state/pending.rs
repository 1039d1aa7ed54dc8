//! What has been learnt and is not on disk yet: merged, bounded.
//!
//! A commit empties it every few seconds. While the disk is full or the file is somebody else's it fills up; what is known of
//! already is still merged then, and what would need another entry is let go and counted.

use std::collections::HashMap;

use crate::policy::news::{News, Seconds, TupleKey};

use super::record::{Lives, Network, Subject};

/// Entries at most: about 24 MiB.
pub const PENDING_MAX: usize = 1 << 18;

pub struct Pending {
    pub tuples: HashMap<TupleKey, Seconds>,
    pub networks: HashMap<u64, Network>,
    /// News let go, since the start.
    pub dropped: u64,
    max: usize,
}

impl Default for Pending {
    fn default() -> Pending {
        Pending::of(PENDING_MAX)
    }
}

impl Pending {
    pub fn of(max: usize) -> Pending {
        Pending {
            tuples: HashMap::new(),
            networks: HashMap::new(),
            dropped: 0,
            max,
        }
    }

    pub fn len(&self) -> usize {
        self.tuples.len() + self.networks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in what is new, with its times put right.
    pub fn add(&mut self, news: &[News], now: Seconds, lives: &Lives) {
        for news in news {
            let Some(news) = lives.put_right(*news, now) else {
                continue;
            };
            let full = self.len() >= self.max;
            match Subject::from(&news) {
                Subject::Tuple(key, first) => match self.tuples.get_mut(&key) {
                    Some(known) => *known = first.min(*known),
                    None if full => self.dropped += 1,
                    None => drop(self.tuples.insert(key, first)),
                },
                Subject::Network(key) => match self.networks.get_mut(&key) {
                    Some(network) => network.add(&news, lives),
                    None if full => self.dropped += 1,
                    None => self.networks.entry(key).or_default().add(&news, lives),
                },
            }
        }
    }

    /// All is written. Room is kept for as much again, not for the worst there was.
    pub fn clear(&mut self) {
        let (tuples, networks) = (self.tuples.len(), self.networks.len());
        self.tuples.clear();
        self.tuples.shrink_to(tuples);
        self.networks.clear();
        self.networks.shrink_to(networks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::clients::ClientKey;

    #[test]
    fn what_is_known_is_merged_also_where_there_is_no_room() {
        let mut pending = Pending::of(2);
        let tuple = |key, first| News::Tuple {
            key: TupleKey(key),
            first,
        };
        let proven = |network| News::Proven {
            network: ClientKey::from_bits(network),
            until: 2000,
        };
        let lives = Lives::default();
        pending.add(
            &[tuple(1, 500), proven(1), tuple(2, 500), proven(2)],
            1000,
            &lives,
        );
        pending.add(&[tuple(1, 400), tuple(1, 600), proven(1)], 1000, &lives);
        assert_eq!((pending.len(), pending.dropped), (2, 2));
        assert_eq!(pending.tuples[&TupleKey(1)], 400);
        pending.clear();
        pending.add(&[tuple(2, 5000)], 1000, &lives);
        assert_eq!(pending.tuples[&TupleKey(2)], 1000, "not ahead of now");
    }
}
