//! What is known of networks: one entry for each that has done something, 48 bytes and some 10 for the index.
//!
//! A network is a /24 or a /64, or what --network-prefix says: large senders come back from another address of theirs,
//! and who is bad at one address is at the next. Every shard has the whole table, since the addresses of one network come
//! to different shards; see [`super::news`].
//!
//! The number of entries is bounded. Entries that have faded go by themselves; when the table is full, those go first
//! that say least: neither proven nor trapped nor ever accepted, and not heard of for longest. Then those that were
//! trapped only: one address of a trap and an IPv6 prefix make as many of them as anybody likes.

use super::book::{Book, Worth};
use super::clients::ClientKey;
use super::history::Tally;
use super::news::{Deed, Seconds};

/// Everything about one network.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Network {
    pub tally: Tally,
    /// Its autonomous system; 0: not known.
    pub asn: u32,
    /// It passed greylisting, which is remembered until then; 0: it did not.
    pub proven_until: Seconds,
    /// It wrote to a spamtrap, which is held against it until then; 0: it did not.
    pub trapped_until: Seconds,
}

const _: () = assert!(
    size_of::<(ClientKey, Network)>() == 48,
    "48 bytes and the index's share stay below 64"
);

impl Network {
    pub const fn new(now: Seconds) -> Network {
        Network {
            tally: Tally::new(now),
            asn: 0,
            proven_until: 0,
            trapped_until: 0,
        }
    }

    pub const fn is_proven(&self, now: Seconds) -> bool {
        now < self.proven_until
    }

    pub const fn is_trapped(&self, now: Seconds) -> bool {
        now < self.trapped_until
    }

    fn worth(&self, now: Seconds, half_life: Seconds) -> Worth {
        let (proven, trapped) = (self.is_proven(now), self.is_trapped(now));
        if !proven && !trapped && self.tally.is_blank(now, half_life) {
            return Worth::Nothing;
        }
        let accepted = self.tally.counts[Deed::Accepted as usize] > 0.0;
        let rank = match proven || accepted {
            true => 2,
            false => u64::from(trapped),
        };
        Worth::Some(rank << 32 | u64::from(self.tally.at))
    }
}

/// The table of one shard.
pub struct Networks {
    book: Book<ClientKey, Network>,
    half_life: Seconds,
}

impl Networks {
    pub fn new(max: u32, half_life: Seconds) -> Networks {
        Networks {
            book: Book::new(max),
            half_life,
        }
    }

    pub fn find(&self, key: ClientKey) -> Option<&Network> {
        self.book.find(key)
    }

    /// The entry of a network, a new one if there is none. None: there is no room at all.
    pub fn find_or_add(&mut self, key: ClientKey, now: Seconds) -> Option<&mut Network> {
        let half_life = self.half_life;
        self.book.find_or_add(
            key,
            || Network::new(now),
            |network| network.worth(now, half_life),
        )
    }

    /// Frees a few entries that have faded.
    pub fn sweep(&mut self, now: Seconds) {
        let half_life = self.half_life;
        self.book.sweep(|network| network.worth(now, half_life));
    }

    pub const fn len(&self) -> usize {
        self.book.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.book.is_empty()
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.book.memory()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Seconds = 7 * 86_400;

    fn key(number: u32) -> ClientKey {
        ClientKey::from_bits(0xffff_0000_0000 | u64::from(number) << 8)
    }

    #[test]
    fn a_million_networks_take_at_most_64_bytes_each() {
        let mut networks = Networks::new(1_000_000, WEEK);
        for number in 0..1_000_000 {
            let network = networks.find_or_add(key(number), 1000).expect("room");
            network.proven_until = 2000;
            // Halfway through, parts of the index are at their emptiest.
            if number % 65_536 == 65_535 {
                let each = networks.memory() / networks.len();
                assert!(each <= 64, "{each} bytes at {}", networks.len());
            }
        }
        let each = networks.memory() / networks.len();
        assert!(networks.len() == 1_000_000 && each <= 64, "{each} bytes");
        networks.find_or_add(key(1_000_000), 1000).expect("room");
        assert_eq!(networks.len(), 1_000_000);
    }

    #[test]
    fn a_flood_of_strangers_leaves_those_who_are_known() {
        let mut networks = Networks::new(1000, WEEK);
        for number in 0..100 {
            let network = networks.find_or_add(key(number), 1000).expect("room");
            match number % 3 {
                0 => network.proven_until = 9000,
                1 => network.trapped_until = 9000,
                _ => network.tally.counts[Deed::Accepted as usize] = 1.0,
            }
        }
        for number in 100..20_000 {
            let network = networks.find_or_add(key(number), 1001).expect("room");
            network.tally.counts[Deed::HangUp as usize] = 1.0;
        }
        assert!((0..100).all(|number| networks.find(key(number)).is_some()));
        (0..100).for_each(|_| networks.sweep(1001 + 10 * WEEK));
        assert!(networks.is_empty(), "all has faded, {}", networks.len());
    }

    /// Whoever has many networks and knows one trap can have them all remembered for it.
    #[test]
    fn a_flood_of_trapped_networks_leaves_those_that_are_proven() {
        let mut networks = Networks::new(1000, WEEK);
        for number in 0..100 {
            let network = networks.find_or_add(key(number), 1000).expect("room");
            match number % 2 {
                0 => network.proven_until = 9000,
                _ => network.tally.counts[Deed::Accepted as usize] = 1.0,
            }
        }
        for number in 100..20_000 {
            let network = networks.find_or_add(key(number), 1001).expect("room");
            network.tally.counts[Deed::Spamtrap as usize] = 1.0;
            network.trapped_until = 9000;
        }
        assert!((0..100).all(|number| networks.find(key(number)).is_some()));
    }
}
