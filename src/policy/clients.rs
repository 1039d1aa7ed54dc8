//! What is known of each client address: one table per shard, one entry of 64 bytes for each address.
//!
//! The kernel steers an address to one shard, so an entry here is all there is and needs no lock. An IPv6
//! client is its /64: who has one has all of it.
//!
//! The number of entries is bounded. A clock hand looks for one to give up when a new address
//! comes: first one that holds nothing any more (no connection, all rates whole, no errors, not
//! known), else one that was not used since the hand last passed. An entry with a connection is
//! never given up, so a [`ClientId`] is good for as long as its connection. The index is allocated whole
//! at the start (5 bytes a place) and never rehashes; entries come in chunks as addresses do.

use std::net::IpAddr;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher;
use std::time::Duration;
use weir_smtp::time::Moment;

use super::bytes::Bucket;
use super::errors::Memory;
use super::rate::{Tat, Tick};
use super::temper;

/// Entries of one chunk.
const CHUNK: usize = 1024;
/// Entries the hand looks at before it gives up: bounds the work of one new connection.
const SWEEP_MAX: usize = 64;
/// Longer than any rate looks ahead; what was not touched for this long is as new.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an accepted message speaks for an address.
const KNOWN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A client for the purposes of policy: an IPv4 address or an IPv6 /64.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct ClientKey(u64);

impl From<IpAddr> for ClientKey {
    /// IPv4 lies in ::/64, of which nothing but ::1 and mapped addresses is in use.
    fn from(ip: IpAddr) -> ClientKey {
        match ip.to_canonical() {
            IpAddr::V4(ip) => ClientKey(0xffff_0000_0000 | u64::from(ip.to_bits())),
            IpAddr::V6(ip) => ClientKey((ip.to_bits() >> 64) as u64),
        }
    }
}

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

    pub const fn active(&self) -> u32 {
        self.active
    }

    /// A message of this address was accepted by an upstream, not too long ago.
    pub fn is_known(&self, now: Moment) -> bool {
        seconds(now) < self.known_until
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
        let idle = [self.connections, self.messages, self.recipients]
            .iter()
            .all(|tat| tat.is_idle(tick));
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
            index: HashTable::with_capacity(clients_max as usize),
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
