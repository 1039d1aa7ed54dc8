//! One slot that has begun TLS: its connection, and how far its shard and the network are apart.

use crate::ring::{Group, Owner, Part, ReceiveEnd, Wire};
use crate::tls::Failure;
use crate::tls::connection::{Connection, PLAIN_MAX, Progress};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The layer listens by itself.
    Handshake,
    Open,
    /// Nothing is read any more: closed by the peer, cut or failed.
    Over,
}

/// Where the shard's send is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owed {
    Nothing,
    /// So many octets of plaintext are in `pending`.
    Pending(usize),
    /// They are on their way.
    Flying(usize),
}

pub(super) struct Channel {
    pub connection: Connection,
    pub owner: Owner,
    pub group: Group,
    pub phase: Phase,
    /// The shard has a receive armed.
    pub wanted: bool,
    /// The network has one.
    pub armed: bool,
    /// The shard has looked and waits for what there is to see.
    pub looking: bool,
    /// Plaintext that nobody has asked for yet.
    pub held: Vec<u8>,
    /// So much of what the connection carries stands in the layer's sum.
    pub counted: usize,
    /// The end of the stream, that nobody has asked for yet.
    pub end: Option<ReceiveEnd>,
    /// Encrypted and not handed to the network yet.
    pub pending: Vec<u8>,
    /// The network has a send, of so many octets.
    pub sending: bool,
    pub flying: usize,
    pub owed: Owed,
    /// A send was cut: what follows would not be understood.
    pub broken: bool,
    /// The connection is of no more use; an alert may be pending.
    pub failed: bool,
    /// Our side ends when everything pending is out.
    pub finishing: bool,
    /// Stands on the list of those with something to send.
    pub dirty: bool,
}

impl Channel {
    pub fn new(connection: Connection, owner: Owner, group: Group, wanted: bool) -> Channel {
        Channel {
            connection,
            owner,
            group,
            phase: Phase::Handshake,
            wanted,
            armed: true,
            looking: false,
            held: Vec::new(),
            counted: 0,
            end: None,
            pending: Vec::new(),
            sending: false,
            flying: 0,
            owed: Owed::Nothing,
            broken: false,
            failed: false,
            finishing: false,
            dirty: false,
        }
    }

    /// What a read has left to send can wait for a send of the shard: tickets, which a server makes at the end of a TLS 1.3 handshake.
    pub fn is_lazy(&self, read: &Result<Progress, Failure>) -> bool {
        let secured = matches!(read, Ok(progress) if progress.secured && !progress.closed);
        secured
            && self.connection.is_server()
            && self
                .connection
                .facts()
                .is_some_and(|facts| facts.is_newest())
    }

    /// Takes a few bytes, if what was taken before is out.
    pub fn drip(&mut self, bytes: &[u8]) -> bool {
        !self.sending && !self.broken && self.connection.write(bytes, &mut self.pending).is_ok()
    }

    /// What the network is to send now.
    pub fn take_flight(&mut self) -> Option<Vec<u8>> {
        if self.sending || self.broken || self.pending.is_empty() {
            return None;
        }
        self.sending = true;
        self.flying = self.pending.len();
        if let Owed::Pending(octets) = self.owed {
            self.owed = Owed::Flying(octets);
        }
        Some(std::mem::take(&mut self.pending))
    }

    /// Encrypts the parts of a gathered send in full records. `record` is where they are put together.
    pub fn write_parts<W: Wire>(
        &mut self,
        wire: &W,
        record: &mut Vec<u8>,
        head: &[u8],
        parts: &[Part],
    ) -> Result<usize, Failure> {
        let mut octets = 0;
        for part in parts {
            let mut bytes = match *part {
                Part::Bytes { start, len } => &head[start as usize..][..len as usize],
                Part::Span { buffer, start, len } => {
                    &wire.buffer(buffer)[start as usize..][..len as usize]
                }
            };
            octets += bytes.len();
            while !bytes.is_empty() {
                let (some, rest) = bytes.split_at(bytes.len().min(PLAIN_MAX - record.len()));
                record.extend_from_slice(some);
                bytes = rest;
                if record.len() == PLAIN_MAX {
                    self.connection.write(record, &mut self.pending)?;
                    record.clear();
                }
            }
        }
        if !record.is_empty() {
            self.connection.write(record, &mut self.pending)?;
        }
        Ok(octets)
    }
}
