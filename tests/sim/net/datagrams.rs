//! Datagrams: lost, late, doubled and overtaking each other, from whoever their sender says they are from.
//!
//! A port hears everybody, or one peer alone as a connected socket does; whether the sender told the truth nobody knows.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Happening, Net, Party};

/// What a port hears next.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Nobody is where it sent one to.
    Refused,
}

/// How datagrams fare.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    pub latency: Duration,
    /// Added to each one's latency, up to this: so they overtake each other.
    pub jitter: Duration,
    /// Percent.
    pub lost: u64,
    pub doubled: u64,
    /// Percent that come seconds later.
    pub late: u64,
}

impl Default for Fate {
    fn default() -> Fate {
        Fate {
            latency: Duration::from_micros(300),
            jitter: Duration::ZERO,
            lost: 0,
            doubled: 0,
            late: 0,
        }
    }
}

/// Somebody who takes datagrams.
#[derive(Debug)]
pub(super) struct Port {
    party: Party,
    /// Others are not heard.
    peer: Option<SocketAddr>,
    inbox: VecDeque<Heard>,
}

impl Net {
    pub fn set_fate(&mut self, fate: Fate) {
        self.fate = fate;
    }

    /// A port of this address that nobody has had.
    pub fn fresh_port(&mut self, ip: IpAddr) -> SocketAddr {
        self.ports_given = self.ports_given % 28_000 + 1;
        SocketAddr::new(ip, 32_000 + self.ports_given)
    }

    /// From now on `party` is told of datagrams to `at`; `peer`: of its alone.
    pub fn open_port(&mut self, at: SocketAddr, party: Party, peer: Option<SocketAddr>) {
        let port = Port {
            party,
            peer,
            inbox: VecDeque::new(),
        };
        self.ports.insert(at, port);
    }

    pub fn close_port(&mut self, at: SocketAddr) {
        self.ports.remove(&at);
    }

    pub fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let fate = self.fate;
        if self.chance.percent(fate.lost) {
            return;
        }
        let copies = 1 + u32::from(self.chance.percent(fate.doubled));
        for _ in 0..copies {
            let mut delay =
                fate.latency + self.chance.micros(0..fate.jitter.as_micros() as u64 + 1);
            if self.chance.percent(fate.late) {
                delay += self.chance.millis(1000..9000);
            }
            let bytes = bytes.to_vec();
            let at = self.now + delay;
            self.schedule(at, Happening::Datagram { from, to, bytes });
        }
    }

    pub fn has_datagram(&self, at: SocketAddr) -> bool {
        self.ports
            .get(&at)
            .is_some_and(|port| !port.inbox.is_empty())
    }

    pub fn take_datagram(&mut self, at: SocketAddr) -> Option<Heard> {
        self.ports.get_mut(&at)?.inbox.pop_front()
    }

    pub(super) fn datagram_arrived(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.ports.contains_key(&to) {
            self.put_into(to, from, Heard::Datagram { from, bytes });
        } else {
            let at = self.now + self.fate.latency;
            self.schedule(at, Happening::Refusal { to: from, by: to });
        }
    }

    /// Only who is connected there is told.
    pub(super) fn refusal_arrived(&mut self, to: SocketAddr, by: SocketAddr) {
        let connected = self.ports.get(&to).is_some_and(|port| port.peer.is_some());
        if connected {
            self.put_into(to, by, Heard::Refused);
        }
    }

    fn put_into(&mut self, to: SocketAddr, from: SocketAddr, heard: Heard) {
        if let Some(port) = self.ports.get_mut(&to)
            && port.peer.is_none_or(|peer| peer == from)
        {
            port.inbox.push_back(heard);
            self.told.push_back(port.party);
        }
    }
}
