//! What is known of each client address: one table per shard, one entry of 64 bytes for each address.
//!
//! The kernel steers an address to one shard, so an entry here is all there is and needs no lock. An IPv6
//! client is its /64: who has one has all of it.
//!
//! The number of entries is bounded. A clock hand looks for one to give up when a new address
//! comes: first one that holds nothing any more (no connection, all rates whole, no errors, not
//! known), else one that was not used since the hand last passed. An entry with a connection is
//! never given up, so a [`ClientId`] is good for as long as its connection. Entries come in chunks as
//! addresses do; the index (5 bytes a place) doubles. Allocated whole it would never rehash, but each
//! address would touch a page of its own in it, and few shards ever know a hundred thousand.

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::time::Duration;
use weir_smtp::time::Moment;

pub use super::client_key::ClientKey;

use super::bytes::Bucket;
use super::errors::Memory;
use super::rate::{Tat, Tick};
use super::temper;

/// Entries of one chunk.
const CHUNK: usize = 1024;
/// Addresses for which the index has room at first.
const INDEX_FIRST: usize = 2048;
/// Entries the hand looks at before it gives up: bounds the work of one new connection.
const SWEEP_MAX: usize = 64;
/// Longer than any rate looks ahead; what was not touched for this long is as new.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an accepted message speaks for an address.
const KNOWN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Names an entry while a connection of its address is open.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ClientId(u32);

impl ClientId {
    /// A client that is not kept book of: on a list, or the table is full of connected ones.
    pub const NONE: ClientId = ClientId(u32::MAX);
}

/// Everything about one address.
#[derive(Clone, Debug)]
pub struct Client {
    key: ClientKey,
    pub connections: Tat,
    pub messages: Tat,
    pub recipients: Tat,
    pub handshakes: Tat,
    pub bytes: Bucket,
    pub errors: Memory,
    pub temper: temper::State,
    /// Open connections, parked ones included. An entry with none may go at any time.
    active: u32,
    /// Seconds: when it was last used.
    seen: u32,
    /// Seconds: until when it is known for an accepted message; 0 if it is not.
    known_until: u32,
    /// Used since the hand passed.
    referenced: bool,
    vacant: bool,
}

const _: () = assert!(
    size_of::<Client>() <= 64,
    "one entry per client address has to stay small"
);

impl Client {
    fn new(key: ClientKey, now: Moment) -> Client {
        let tat = Tat::new(Tick::from(now));
        Client {
            key,
            connections: tat,
            messages: tat,
            recipients: tat,
            handshakes: tat,
            bytes: Bucket::default(),
            errors: Memory::default(),
            temper: temper::State::default(),
            active: 0,
            seen: seconds(now),
            known_until: 0,
            referenced: true,
            vacant: false,
        }
    }

    pub const fn key(&self) -> ClientKey {
        self.key
    }

    pub const fn active(&self) -> u32 {
        self.active
    }

    /// A message of this address was accepted by an upstream, not too long ago.
    pub fn is_known(&self, now: Moment) -> bool {
        seconds(now) < self.known_until
    }

    /// For how long it is known still.
    pub fn known_for(&self, now: Moment) -> Duration {
        Duration::from_secs(self.known_until.saturating_sub(seconds(now)).into())
    }

    pub fn set_known(&mut self, now: Moment) {
        self.known_until = seconds(now + KNOWN);
    }

    /// Brings all times up to date, so that cut ones cannot wrap around.
    fn touch(&mut self, now: Moment) {
        let tick = Tick::from(now);
        let tats = [
            &mut self.connections,
            &mut self.messages,
            &mut self.recipients,
            &mut self.handshakes,
        ];
        if u64::from(seconds(now).saturating_sub(self.seen)) > STALE.as_secs() {
            tats.into_iter().for_each(|tat| *tat = Tat::new(tick));
            self.bytes = Bucket::default();
        } else {
            tats.into_iter().for_each(|tat| tat.settle(tick));
        }
        self.seen = seconds(now);
        self.referenced = true;
    }

    /// Nothing would be lost with it. A stale one has nothing but its temper, which is over by then.
    fn is_blank(&self, config: &temper::Config, now: Moment) -> bool {
        let tick = Tick::from(now);
        let tats = [
            self.connections,
            self.messages,
            self.recipients,
            self.handshakes,
        ];
        let idle = tats.iter().all(|tat| tat.is_idle(tick));
        idle && self.errors.is_clean(now)
            && !self.is_known(now)
            && self.temper.clone().at(config, now) == temper::Temper::Normal
    }
}

/// The table of one shard.
pub struct Clients {
    index: HashTable<u32>,
    hasher: RandomState,
    chunks: Vec<Box<[Client]>>,
    /// Places in the last chunk and before that were ever used.
    used: u32,
    /// Places that were given up and are free again.
    free: Vec<u32>,
    clients_max: u32,
    hand: u32,
    /// For [`Client::is_blank`].
    temper: temper::Config,
}

impl Clients {
    /// Room for `clients_max` addresses. Should exceed the connections a shard may have.
    pub fn new(clients_max: u32, temper: temper::Config) -> Clients {
        Clients {
            index: HashTable::with_capacity(INDEX_FIRST.min(clients_max as usize)),
            hasher: RandomState::default(),
            chunks: Vec::new(),
            used: 0,
            free: Vec::new(),
            clients_max,
            hand: 0,
            temper,
        }
    }

    /// A connection of this address opens. None: the table is full of addresses that are connected.
    pub fn open(&mut self, key: ClientKey, now: Moment) -> Option<ClientId> {
        let place = match self.find(key) {
            Some(place) => place,
            None => self.add(key, now)?,
        };
        let client = self.at(place);
        client.touch(now);
        client.active += 1;
        Some(ClientId(place))
    }

    /// A connection of this client is closed; its id is void.
    pub fn close(&mut self, id: ClientId, now: Moment) {
        if id == ClientId::NONE {
            return;
        }
        let client = self.at(id.0);
        assert!(client.active > 0, "a connection is closed only once");
        client.touch(now);
        client.active -= 1;
    }

    /// The entry of a connected client; None for [`ClientId::NONE`].
    pub fn client(&mut self, id: ClientId, now: Moment) -> Option<&mut Client> {
        if id == ClientId::NONE {
            return None;
        }
        let client = self.at(id.0);
        assert!(
            client.active > 0,
            "only the id of an open connection is used"
        );
        client.touch(now);
        Some(client)
    }

    /// A copy of what is known of an address now; nothing changes by looking.
    pub fn peek(&self, key: ClientKey, now: Moment) -> Option<Client> {
        let mut client = entry(&self.chunks, self.find(key)?).clone();
        client.touch(now);
        Some(client)
    }

    /// The entry of a client that is known, connected or not.
    pub fn known(&mut self, key: ClientKey, now: Moment) -> Option<&mut Client> {
        let place = self.find(key)?;
        let client = self.at(place);
        client.touch(now);
        Some(client)
    }

    /// Moves the clock hand over a few entries and frees what holds nothing: to be called now and then when there is nothing better to do.
    pub fn sweep(&mut self, now: Moment) {
        for _ in 0..SWEEP_MAX.min(self.used as usize) {
            let place = self.step();
            let temper = self.temper;
            let client = self.at(place);
            if !client.vacant && client.active == 0 && client.is_blank(&temper, now) {
                self.give_up(place);
                self.free.push(place);
            }
        }
    }

    /// Addresses in the table.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.index.allocation_size()
            + self.chunks.len() * CHUNK * size_of::<Client>()
            + self.free.capacity() * size_of::<u32>()
    }

    fn find(&self, key: ClientKey) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.index
            .find(hash, |&place| entry(&self.chunks, place).key == key)
            .copied()
    }

    fn add(&mut self, key: ClientKey, now: Moment) -> Option<u32> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.used < self.clients_max => self.fresh_place(key, now),
            None => self.victim(now)?,
        };
        *self.at(place) = Client::new(key, now);
        let Clients {
            index,
            hasher,
            chunks,
            ..
        } = self;
        let hash = hasher.hash_one(key);
        index.insert_unique(hash, place, |&other| {
            hasher.hash_one(entry(chunks, other).key)
        });
        Some(place)
    }

    fn fresh_place(&mut self, key: ClientKey, now: Moment) -> u32 {
        let place = self.used;
        if place as usize == self.chunks.len() * CHUNK {
            self.chunks.push(vec![Client::new(key, now); CHUNK].into());
        }
        self.used += 1;
        place
    }

    /// Takes the place of an entry that can be missed: the first blank one, else the first that had its second chance.
    fn victim(&mut self, now: Moment) -> Option<u32> {
        let mut second_best = None;
        for _ in 0..SWEEP_MAX.min(self.used as usize) {
            let place = self.step();
            let temper = self.temper;
            let client = self.at(place);
            debug_assert!(!client.vacant, "vacant places are on the free list");
            if client.active > 0 {
                continue;
            }
            if client.is_blank(&temper, now) {
                self.give_up(place);
                return Some(place);
            }
            match (std::mem::take(&mut client.referenced), second_best) {
                // Used since: spared, unless all are.
                (true, None) => second_best = Some((false, place)),
                (false, None | Some((false, _))) => second_best = Some((true, place)),
                _ => {}
            }
        }
        let (_, place) = second_best?;
        self.give_up(place);
        Some(place)
    }

    fn give_up(&mut self, place: u32) {
        let client = self.at(place);
        client.vacant = true;
        let key = client.key;
        let hash = self.hasher.hash_one(key);
        let found = self.index.find_entry(hash, |&other| other == place);
        found.expect("an entry in use is in the index").remove();
    }

    /// The hand moves to the next place.
    fn step(&mut self) -> u32 {
        let place = self.hand;
        self.hand = (place + 1) % self.used;
        place
    }

    fn at(&mut self, place: u32) -> &mut Client {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

fn entry(chunks: &[Box<[Client]>], place: u32) -> &Client {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

fn seconds(at: Moment) -> u32 {
    u32::try_from(at.as_micros() / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::errors::{Errors, Limits};
    use crate::policy::rate::Rate;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::net::IpAddr;

    fn key(number: u32) -> ClientKey {
        ClientKey::from(IpAddr::from(number.to_be_bytes()))
    }

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(seconds)
    }

    fn clients(max: u32) -> Clients {
        Clients::new(max, temper::Config::default())
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let key = |text: &str| ClientKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::1"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("::1"), key("0.0.0.0"));
    }

    #[test]
    fn an_entry_is_remembered_after_its_connection() {
        let mut clients = clients(10);
        let rate: Rate = "1/h".parse().unwrap();
        let id = clients.open(key(1), at(0)).unwrap();
        let client = clients.client(id, at(0)).unwrap();
        assert!(rate.take(&mut client.messages, Tick::from(at(0))));
        clients.close(id, at(1));
        let id = clients.open(key(1), at(2)).unwrap();
        let client = clients.client(id, at(2)).unwrap();
        assert!(!rate.take(&mut client.messages, Tick::from(at(2))) && client.active() == 1);
        assert!(clients.client(ClientId::NONE, at(2)).is_none());
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_does_not_come_around() {
        let mut clients = clients(10);
        let rate: Rate = "1/d".parse().unwrap();
        let mut now = 0;
        // Gaps around the 76 hours after which cut times repeat, and around half of them.
        for hours in [25, 37, 38, 39, 40, 75, 76, 77, 114, 1000, 10_000] {
            let id = clients.open(key(1), at(now)).unwrap();
            let client = clients.client(id, at(now)).unwrap();
            assert!(
                rate.take(&mut client.messages, Tick::from(at(now))),
                "after {hours} hours"
            );
            assert!(!rate.take(&mut client.messages, Tick::from(at(now))));
            clients.close(id, at(now));
            now += hours * 3600;
        }
    }

    #[test]
    fn a_full_table_gives_up_blank_entries_first_then_old_ones_and_never_connected_ones() {
        let mut clients = clients(4);
        let connected = clients.open(key(1), at(0)).unwrap();
        for number in 2..=4 {
            let id = clients.open(key(number), at(0)).unwrap();
            if number != 3 {
                clients.client(id, at(0)).unwrap().set_known(at(0));
            }
            clients.close(id, at(0));
        }
        let fifth = clients.open(key(5), at(1)).unwrap();
        assert!(clients.find(key(3)).is_none(), "the blank one went");
        let sixth = clients.open(key(6), at(2)).unwrap();
        let seventh = clients.open(key(7), at(3)).unwrap();
        assert!(
            clients.find(key(1)).is_some()
                && clients.find(key(2)).is_none()
                && clients.find(key(4)).is_none()
        );
        assert_eq!(clients.open(key(8), at(4)), None, "all are connected");
        for id in [connected, fifth, sixth, seventh] {
            assert_eq!(clients.client(id, at(4)).unwrap().active(), 1);
            clients.close(id, at(4));
        }
        assert_eq!(clients.len(), 4);
        assert!(clients.open(key(8), at(5)).is_some());
    }

    #[test]
    fn sweeping_frees_what_holds_nothing() {
        let mut clients = clients(1000);
        let mut bad = Errors::default();
        bad.error(&Limits::default());
        for number in 0..500 {
            let id = clients.open(key(number), at(0)).unwrap();
            if number % 2 == 0 {
                clients.client(id, at(0)).unwrap().errors.record(bad, at(0));
            }
            clients.close(id, at(0));
        }
        (0..20).for_each(|_| clients.sweep(at(1)));
        assert_eq!(clients.len(), 250);
        (0..20).for_each(|_| clients.sweep(at(100)));
        assert!(clients.is_empty());
        // Places are used again.
        let before = clients.memory();
        assert!((0..500).all(|number| clients.open(key(number), at(200)).is_some()));
        assert_eq!(
            (clients.len(), clients.used, clients.memory()),
            (500, 500, before)
        );
    }

    proptest! {
        /// Against a map: connections are counted exactly, the bound holds, and connected clients stay.
        #[test]
        fn connections_are_counted_exactly(steps in prop::collection::vec((any::<bool>(), 0u32..40, 0u64..100), 1..500)) {
            let mut clients = clients(16);
            let mut open: HashMap<u32, (ClientId, u32)> = HashMap::new();
            let mut now = 0;
            for (opens, number, seconds) in steps {
                now += seconds;
                if opens {
                    match clients.open(key(number), at(now)) {
                        Some(id) => {
                            let (known, active) = open.entry(number).or_insert((id, 0));
                            prop_assert_eq!(*known, id);
                            *active += 1;
                            prop_assert_eq!(clients.client(id, at(now)).unwrap().active(), *active);
                        }
                        None => prop_assert!(open.len() == 16 && !open.contains_key(&number)),
                    }
                } else if let Some((id, active)) = open.get_mut(&number) {
                    clients.close(*id, at(now));
                    *active -= 1;
                    if *active == 0 {
                        open.remove(&number);
                    }
                } else {
                    clients.sweep(at(now));
                }
                prop_assert!(clients.len() <= 16 && clients.len() >= open.len());
            }
        }
    }
}
