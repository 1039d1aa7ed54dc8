//! TCP to the servers, for what datagrams cannot carry: one connection for each, as many questions on it as there are (RFC 7766).

use weir_smtp::time::Moment;

use super::ports::Unknown;

/// Messages nobody asked for, before the connection is closed.
const STRAYS_MAX: u16 = 32;
/// Queries that wait to be sent: as octets, about a thousand.
const OUTBOX_MAX: usize = 65_536;

/// A connection that a shard holds for the resolver.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct StreamId {
    server: u32,
    life: u32,
}

impl StreamId {
    /// The number of its server: below eight, and no other open stream's.
    pub fn number(self) -> usize {
        self.server as usize
    }
}

/// One connection. Both directions carry messages behind their lengths in two octets.
#[derive(Debug)]
pub struct Stream {
    pub id: StreamId,
    connected: bool,
    /// The shard has octets that it has not sent yet.
    sending: bool,
    outbox: Vec<u8>,
    /// What has come of a message that is not whole.
    inbox: Vec<u8>,
    /// Queries that wait for their answers.
    pub open: u16,
    pub answers: u32,
    strays: u16,
    /// When it is closed, if nothing is open.
    pub idle_at: Moment,
}

impl Stream {
    pub fn new(server: usize, life: u32) -> Stream {
        Stream {
            id: StreamId {
                server: server as u32,
                life,
            },
            connected: false,
            sending: false,
            outbox: Vec::new(),
            inbox: Vec::new(),
            open: 0,
            answers: 0,
            strays: 0,
            idle_at: Moment::NEVER,
        }
    }

    pub fn connected(&mut self) {
        self.connected = true;
    }

    pub fn sent(&mut self) {
        self.sending = false;
    }

    /// False: too much waits already.
    pub fn push(&mut self, message: &[u8]) -> bool {
        let Ok(len) = u16::try_from(message.len()) else {
            return false;
        };
        if self.outbox.len() + message.len() + 2 > OUTBOX_MAX {
            return false;
        }
        self.outbox.extend(len.to_be_bytes());
        self.outbox.extend_from_slice(message);
        true
    }

    /// What is to be sent now.
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        if !self.connected || self.sending || self.outbox.is_empty() {
            return None;
        }
        self.sending = true;
        Some(std::mem::take(&mut self.outbox))
    }

    /// Octets have come: takes what completes the message that is not whole, or begins one, off their front. Some: it is whole.
    pub fn message(&mut self, octets: &mut &[u8]) -> Option<Vec<u8>> {
        self.fill(octets, 2);
        let len = self.inbox.first_chunk::<2>()?;
        let whole = 2 + usize::from(u16::from_be_bytes(*len));
        self.fill(octets, whole);
        if self.inbox.len() < whole {
            return None;
        }
        let mut message = std::mem::take(&mut self.inbox);
        message.drain(..2);
        Some(message)
    }

    fn fill(&mut self, octets: &mut &[u8], upto: usize) {
        let missing = upto.saturating_sub(self.inbox.len()).min(octets.len());
        let (taken, rest) = octets.split_at(missing);
        self.inbox.extend_from_slice(taken);
        *octets = rest;
    }

    /// Something has come that was not asked for here.
    pub fn stray(&mut self) -> Unknown {
        self.strays += 1;
        match self.strays > STRAYS_MAX {
            true => Unknown::Flood,
            false => Unknown::Stray,
        }
    }
}
