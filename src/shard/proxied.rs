//! Peers that speak for others: the PROXY header of a trusted one, and the shard that its client belongs to.
//!
//! ```text
//! accepted --+-- trusted peer of a `proxy` listener --> its header --+--> this shard owns the client's address --> admit
//!            +-- others ----------------------------------------------+--> another does: out of the ring, a letter, adopt, admit
//! ```
//!
//! The kernel steers clients to the shard that keeps the books of their address, but behind a proxy it sees only the proxy.
//! So `proxy` listeners spread connections evenly, and each moves to the owner of its client once that is known, before the
//! greeting: limits per client stay exact, and nothing of a session ever moves. Where the kernel cannot take a socket out of
//! the ring (before 6.8) clients stay, and limits hold per shard.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weir_smtp::texts;
use weir_smtp::time::Moment;

use crate::maillog::Value;
use crate::metrics::{Introduced, Refusal, Way};
use crate::net::proxy::{self, Header, Parsed};
use crate::net::shard_of;
use crate::ring::{BufferId, Close, Group, ReceiveEnd, SlotId, Wire};

use super::arrivals::Arrival;
use super::introduction::Introduction;
use super::mail::{Mail, To};
use super::shared::Shared;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// Octets that may come with a header and behind it. A client that has heard no greeting has little to say, in TLS a hello.
const AHEAD_MAX: usize = 64 << 10;

/// Of what was no header, so much stands in the log.
const SAMPLE_MAX: usize = 64;

/// A connection whose client is not known, or not at home.
pub struct Proxied {
    /// `peer` is the proxy until the header is read, and then the client; `unread` is all that has come.
    arrival: Arrival,
    since: Moment,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// One look at what has come with the connection.
    Looking,
    /// The header is waited for.
    Reading,
    /// The client is known, and the armed receive is being stopped.
    Stopping,
    /// The socket is being taken out of the ring.
    Leaving,
}

/// A client on its way to the shard that owns its address.
pub struct HandOver {
    socket: OwnedFd,
    listener: usize,
    peer: SocketAddr,
    introduction: Option<Box<Introduction>>,
    unread: Vec<u8>,
    place: Place,
}

/// A client's place in the count of all. A letter that is lost gives it up.
struct Place(Option<Arc<Shared>>);

impl Place {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.client_leaves();
        }
    }
}

impl<W: Wire> World<W> {
    /// Whether this peer may say whom it speaks for.
    pub(super) fn is_trusted(&self, peer: SocketAddr) -> bool {
        self.config.proxied.trust.contains(peer.ip())
    }

    /// A connection to a `proxy` listener, counted among the clients.
    pub(super) fn await_introduction(&mut self, arrival: Arrival) {
        if !self.is_trusted(arrival.peer) {
            return self.bring_home(arrival);
        }
        let slot = arrival.slot;
        let Some(key) = self.add_proxied(arrival, Stage::Looking) else {
            return;
        };
        let until = self.now + self.config.proxied.wait;
        self.wheel.insert(until, Who::Proxied(key).to_bits());
        // Most proxies send their header at once: then nothing has to be armed, and stopped again.
        self.wire.receive_now(slot, Group::Client);
    }

    fn add_proxied(&mut self, arrival: Arrival, stage: Stage) -> Option<Key> {
        let (slot, listener) = (arrival.slot, arrival.listener);
        let entry = Proxied {
            arrival,
            since: self.now,
            stage,
        };
        match self.proxied.insert(entry) {
            Ok(key) => {
                self.wire.set_owner(slot, Who::Proxied(key).owner());
                Some(key)
            }
            Err(_) => {
                self.shared.client_leaves();
                self.turn_away(listener, slot, Refusal::Full, &texts::OVERLOAD);
                None
            }
        }
    }

    pub(super) fn proxied_received(&mut self, key: Key, buffer: BufferId, len: u32) {
        let Some(entry) = self.proxied.get_mut(key) else {
            return self.release(buffer);
        };
        let bytes = &self.wire.buffer(buffer)[..len as usize];
        entry.arrival.unread.extend_from_slice(bytes);
        let (stage, much) = (entry.stage, entry.arrival.unread.len() > AHEAD_MAX);
        self.wire.release(buffer);
        self.counters.client_bytes.at(Way::In).add(u64::from(len));
        match stage {
            _ if much => self.refuse_proxied(key, Introduced::Malformed, "too_long"),
            Stage::Looking | Stage::Reading => self.read_header(key),
            Stage::Stopping | Stage::Leaving => {}
        }
    }

    pub(super) fn proxied_receive_ended(&mut self, key: Key, why: &ReceiveEnd) {
        let Some(entry) = self.proxied.get_mut(key) else {
            return;
        };
        match (why, entry.stage) {
            (ReceiveEnd::Stopped | ReceiveEnd::NoBuffers, Stage::Looking | Stage::Reading) => {
                self.go_on_reading(key);
            }
            (ReceiveEnd::Stopped | ReceiveEnd::NoBuffers, _) => {
                if let Some(entry) = self.proxied.remove(key) {
                    self.bring_home(entry.arrival);
                }
            }
            (ReceiveEnd::Eof | ReceiveEnd::Reset(_), _) => {
                self.drop_proxied(key, Introduced::Closed);
            }
        }
    }

    fn go_on_reading(&mut self, key: Key) {
        if let Some(entry) = self.proxied.get_mut(key) {
            entry.stage = Stage::Reading;
            self.wire.start_receive(entry.arrival.slot, Group::Client);
        }
    }

    fn read_header(&mut self, key: Key) {
        let Some(entry) = self.proxied.get_mut(key) else {
            return;
        };
        let peer = entry.arrival.peer;
        let (introduced, len) = match proxy::parse(&entry.arrival.unread) {
            Ok(Parsed::Whole(header, len)) => (header.client.zip(Some(told(&header, peer))), len),
            Ok(Parsed::Incomplete) => {
                if entry.stage == Stage::Looking {
                    self.go_on_reading(key);
                }
                return;
            }
            Err(why) => return self.refuse_proxied(key, Introduced::Malformed, why.word()),
        };
        entry.arrival.unread.drain(..len);
        let result = match introduced {
            // LOCAL, UNKNOWN: it speaks for itself, and is a client like others.
            None => Introduced::Itself,
            Some((ends, introduction)) => {
                entry.arrival.peer = ends.client;
                entry.arrival.introduction = Some(Box::new(introduction));
                Introduced::Client
            }
        };
        self.counters.introductions.at(result).inc();
        if entry.stage == Stage::Reading {
            entry.stage = Stage::Stopping;
            return self.wire.stop_receive(entry.arrival.slot);
        }
        if let Some(entry) = self.proxied.remove(key) {
            self.bring_home(entry.arrival);
        }
    }

    /// It is known who the client is: on to the shard that keeps its books.
    fn bring_home(&mut self, arrival: Arrival) {
        let owner = self.owner_of(arrival.peer);
        // An error: this kernel cannot.
        if owner == self.shard || self.wire.extract(arrival.slot).is_err() {
            return self.admit(arrival);
        }
        self.add_proxied(arrival, Stage::Leaving);
    }

    fn owner_of(&self, client: SocketAddr) -> usize {
        match self.config.proxied.owners {
            1 => self.shard,
            shards => shard_of(client.ip(), shards, self.policy.config().prefix),
        }
    }

    pub(super) fn extracted(&mut self, key: Key, result: std::io::Result<OwnedFd>) {
        let Some(entry) = self.proxied.remove(key) else {
            return;
        };
        let arrival = entry.arrival;
        let Ok(socket) = result else {
            return self.admit(arrival);
        };
        self.wire.set_owner(arrival.slot, Who::Nobody.owner());
        self.closing += 1;
        self.counters.handed_over.inc();
        let owner = self.owner_of(arrival.peer);
        let letter = HandOver {
            socket,
            listener: arrival.listener,
            peer: arrival.peer,
            introduction: arrival.introduction,
            unread: arrival.unread,
            place: Place(Some(self.shared.clone())),
        };
        let mail = Mail::HandOver(Arc::new(letter));
        self.outgoing.push_back((To::Shard(owner), mail));
    }

    /// A client of ours that came to another shard.
    pub(super) fn taken_over(&mut self, letter: HandOver) {
        let Ok(slot) = self.wire.adopt(letter.socket, Who::Nobody.owner()) else {
            self.counters.sessions_refused.at(Refusal::Full).inc();
            return;
        };
        let refusal = match () {
            () if self.drain.is_on() => Some((Refusal::Drain, &texts::SHUTDOWN)),
            () if self.is_full() => Some((Refusal::Full, &texts::OVERLOAD)),
            () => None,
        };
        if let Some((why, reply)) = refusal {
            return self.turn_away(letter.listener, slot, why, reply);
        }
        letter.place.keep();
        self.admit(Arrival {
            listener: letter.listener,
            slot,
            peer: letter.peer,
            introduction: letter.introduction,
            unread: letter.unread,
        });
    }

    /// The time for the header is over, if it was still waited for.
    pub(super) fn proxied_timer(&mut self, key: Key) {
        let waiting = self
            .proxied
            .get(key)
            .is_some_and(|entry| matches!(entry.stage, Stage::Looking | Stage::Reading));
        if waiting {
            self.refuse_proxied(key, Introduced::Timeout, "timeout");
        }
    }

    /// A trusted peer that does not keep to the protocol: it is told nothing, since nobody knows who would hear it.
    fn refuse_proxied(&mut self, key: Key, result: Introduced, why: &'static str) {
        if let Some(entry) = self.proxied.get(key) {
            let sample = &entry.arrival.unread;
            self.log.event(
                self.now,
                "proxy_failed",
                &[
                    ("peer", Value::Address(entry.arrival.peer)),
                    ("why", Value::Word(why)),
                    ("after", Value::Seconds(self.now.since(entry.since))),
                    (
                        "sample",
                        Value::Bytes(&sample[..sample.len().min(SAMPLE_MAX)]),
                    ),
                ],
            );
        }
        self.drop_proxied(key, result);
    }

    fn drop_proxied(&mut self, key: Key, result: Introduced) {
        if let Some(entry) = self.proxied.remove(key) {
            self.counters.introductions.at(result).inc();
            self.close_slot(entry.arrival.slot, Close::Now);
            self.shared.client_leaves();
        }
    }

    /// weir goes down: tells one of those whose client is not known. False: there is none.
    pub(super) fn send_off_proxied(&mut self) -> bool {
        let Some(entry) = self
            .proxied
            .next_from(0)
            .and_then(|key| self.proxied.remove(key))
        else {
            return false;
        };
        self.shared.client_leaves();
        let arrival = entry.arrival;
        self.turn_away(
            arrival.listener,
            arrival.slot,
            Refusal::Drain,
            &texts::SHUTDOWN,
        );
        true
    }

    /// A step for it panicked. Its slot, if there still is such an entry.
    pub(super) fn abandon_proxied(&mut self, key: Key) -> Option<SlotId> {
        let entry = self.proxied.remove(key)?;
        self.shared.client_leaves();
        Some(entry.arrival.slot)
    }
}

/// What a header tells besides the client's address.
fn told(header: &Header<'_>, by: SocketAddr) -> Introduction {
    let kept = |bytes: Option<&[u8]>| bytes.map(Box::from);
    Introduction {
        by: Some(by),
        destination: header.client.map(|ends| ends.destination),
        authority: kept(header.authority),
        id: kept(header.unique_id),
        secured: header.secured,
        ..Introduction::default()
    }
}
