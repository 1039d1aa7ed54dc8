//! One TLS connection as bytes in, bytes out: a driver over rustls for both sides, without sockets and without buffers that an idle connection would keep.
//!
//! What was received is decrypted where it lies; only a record that has not come whole is carried over to the next read, and only a handshake message
//! that spans records is carried longer. So an idle connection owns its keys and nothing else. rustls gets one record at a time and is asked for what
//! it has made of it at once: it buffers nothing either.
//!
//! A connection that failed may have an alert in `out` to tell the peer so, and does nothing more.

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};

use super::facts::{Facts, Shown};
use super::failure::Failure;

/// Octets of a record's header, and the most that may follow it (RFC 5246, 6.2.3; RFC 8446, 5.2 allows less).
const HEADER: usize = 5;
const RECORD_MAX: usize = (1 << 14) + 2048;

/// The most plaintext of one record.
pub const PLAIN_MAX: usize = 1 << 14;

/// What encryption adds to a record at most: header, explicit nonce, content type, tag.
const RECORD_EXTRA: usize = 32;

/// Room for what rustls may put in front of a record: a key update, an alert.
const NOTICE: usize = 256;

/// Octets of a handshake message that may be waited for: a chain of client certificates with RSA keys fits twice. A record comes on top.
const CARRY_MAX: usize = 32 * 1024;

/// What a read has led to, besides plaintext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The handshake is over with this read.
    pub secured: bool,
    /// The peer has said that this was its last byte.
    pub closed: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    Open,
    /// The peer has sent its close_notify; we may still write.
    PeerClosed,
    Failed,
}

pub struct Connection {
    side: Side,
    phase: Phase,
    /// The certificate that the peer has shown was found good.
    trusted: bool,
    /// Our close_notify was made.
    closed: bool,
    /// What was received and could not be worked off yet: the beginning of a record, or parts of a handshake message in front of it.
    carry: Vec<u8>,
    /// Where in it the record begins that has not come whole.
    tail: usize,
}

impl Connection {
    pub fn server(config: Arc<ServerConfig>) -> Result<Connection, Failure> {
        let side = UnbufferedServerConnection::new(config)?;
        Ok(Connection::new(Side::Server(Box::new(side))))
    }

    /// The first flight is made by [`Connection::start`].
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Connection, Failure> {
        let side = UnbufferedClientConnection::new(config, name)?;
        Ok(Connection::new(Side::Client(Box::new(side))))
    }

    fn new(side: Side) -> Connection {
        Connection {
            side,
            phase: Phase::Handshake,
            trusted: false,
            closed: false,
            carry: Vec::new(),
            tail: 0,
        }
    }

    pub fn is_server(&self) -> bool {
        matches!(self.side, Side::Server(_))
    }

    pub fn is_secured(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::PeerClosed)
    }

    /// Octets that wait for the rest of their record.
    pub fn carried(&self) -> usize {
        self.carry.len()
    }

    /// What one side has to say before it has heard anything.
    pub fn start(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.read(&mut [], &mut Vec::new(), out).map(drop)
    }

    /// Takes everything that was received: plaintext is appended to `plain`, bytes for the peer to `out`.
    /// `input` is used as working memory.
    pub fn read(
        &mut self,
        mut input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Failure> {
        let mut progress = Progress::default();
        while !self.carry.is_empty() && !input.is_empty() {
            let (head, rest) = input.split_at_mut(self.missing().min(input.len()));
            self.carry.extend_from_slice(head);
            input = rest;
            self.find_tail();
            if self.is_whole() {
                self.work_off_carry(plain, out, &mut progress)?;
            }
        }
        if self.carry.is_empty() {
            let used = self.work_off(input, plain, out, &mut progress)?;
            self.keep(&input[used..])?;
        }
        Ok(progress)
    }

    /// The rest of the record that came in part, or the header of the next one.
    fn missing(&self) -> usize {
        match self.carry[self.tail..] {
            [_, _, _, high, low, ref rest @ ..] => {
                usize::from(u16::from_be_bytes([high, low])).saturating_sub(rest.len())
            }
            ref header => HEADER - header.len(),
        }
        .max(1)
    }

    /// Moves on to the last record that has begun.
    fn find_tail(&mut self) {
        while let [_, _, _, high, low, rest @ ..] = &self.carry[self.tail..] {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            if rest.len() < len {
                return;
            }
            self.tail += HEADER + len;
        }
    }

    /// Nothing is missing; or what has begun is no record that could ever be whole.
    fn is_whole(&self) -> bool {
        match self.carry[self.tail..] {
            [] => true,
            [_, _, _, high, low, ..] => usize::from(u16::from_be_bytes([high, low])) > RECORD_MAX,
            _ => false,
        }
    }

    fn work_off_carry(
        &mut self,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let mut carry = std::mem::take(&mut self.carry);
        let used = self.work_off(&mut carry, plain, out, progress)?;
        if used < carry.len() {
            carry.drain(..used);
            self.tail -= used.min(self.tail);
            self.carry = carry;
            return self.weigh_carry();
        }
        self.tail = 0;
        Ok(())
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), Failure> {
        if rest.is_empty() {
            return Ok(());
        }
        self.carry.extend_from_slice(rest);
        self.tail = 0;
        self.find_tail();
        self.weigh_carry()
    }

    fn weigh_carry(&mut self) -> Result<(), Failure> {
        if self.tail > CARRY_MAX {
            self.phase = Phase::Failed;
            return Err(Failure::TooLong);
        }
        Ok(())
    }

    /// Gives the machine what is there. Returns how much of it is done with.
    fn work_off(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
        progress: &mut Progress,
    ) -> Result<usize, Failure> {
        match self.phase {
            Phase::Handshake | Phase::Open => {}
            // Nothing counts after close_notify (RFC 8446, 6.1), nor after a failure.
            Phase::PeerClosed => return Ok(input.len()),
            Phase::Failed => return Err(Failure::Internal),
        }
        let mut taken = Taken {
            plain,
            out,
            used: 0,
            closed: false,
        };
        let result = match &mut self.side {
            Side::Server(machine) => taken.drive(machine.as_mut(), input),
            Side::Client(machine) => taken.drive(machine.as_mut(), input),
        };
        let Taken { used, closed, .. } = taken;
        if let Err(failure) = result {
            self.phase = Phase::Failed;
            self.carry = Vec::new();
            self.tail = 0;
            return Err(failure);
        }
        if self.phase == Phase::Handshake && !self.common().is_handshaking() {
            self.phase = Phase::Open;
            progress.secured = true;
        }
        if closed {
            self.phase = Phase::PeerClosed;
            progress.closed = true;
            return Ok(input.len());
        }
        Ok(used)
    }

    /// Appends `plain` to `out`, encrypted. Only after the handshake.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.is_secured() || self.closed {
            return Err(Failure::Internal);
        }
        let records = plain.len().div_ceil(PLAIN_MAX);
        let room = plain.len() + records * RECORD_EXTRA + NOTICE;
        self.traffic(out, |traffic, out| traffic.encrypt_to(plain, room, out))
    }

    /// Appends our close_notify, once.
    pub fn close(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        if !self.is_secured() || self.closed {
            return Ok(());
        }
        self.closed = true;
        self.traffic(out, |traffic, out| traffic.close_to(NOTICE, out))
    }

    fn traffic(
        &mut self,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut dyn Traffic, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let carry = &mut self.carry;
        let result = match &mut self.side {
            Side::Server(machine) => with_traffic(machine.as_mut(), carry, out, write),
            Side::Client(machine) => with_traffic(machine.as_mut(), carry, out, write),
        };
        if result.is_err() {
            self.phase = Phase::Failed;
        }
        result
    }

    /// What was agreed on; None before the end of the handshake.
    pub fn facts(&self) -> Option<Facts> {
        if self.phase == Phase::Handshake {
            return None;
        }
        let common = self.common();
        Some(Facts::new(
            common.protocol_version()?,
            common.negotiated_cipher_suite()?.suite(),
            common.handshake_kind() == Some(HandshakeKind::Resumed),
            match (common.peer_certificates(), self.trusted) {
                (None, _) => Shown::Nothing,
                (Some(_), false) => Shown::Untrusted,
                (Some(_), true) => Shown::Trusted,
            },
        ))
    }

    /// Looks once whether the peer's certificate, if it has shown one, leads to those that count.
    pub fn weigh_certificate(&mut self, trusts: impl FnOnce(&[CertificateDer<'static>]) -> bool) {
        self.trusted = self.common().peer_certificates().is_some_and(trusts);
    }

    fn common(&self) -> &CommonState {
        match &self.side {
            Side::Server(machine) => machine,
            Side::Client(machine) => machine,
        }
    }
}

/// The two machines of rustls, which have the same calls by different types.
trait Machine {
    type Data;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// It has made bytes that were not taken yet.
    fn has_more(&self) -> bool;
}

impl Machine for UnbufferedServerConnection {
    type Data = rustls::server::ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn has_more(&self) -> bool {
        self.wants_write()
    }
}

impl Machine for UnbufferedClientConnection {
    type Data = rustls::client::ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }

    fn has_more(&self) -> bool {
        self.wants_write()
    }
}

/// Where a read puts what it gets.
struct Taken<'a> {
    plain: &'a mut Vec<u8>,
    out: &'a mut Vec<u8>,
    used: usize,
    closed: bool,
}

impl Taken<'_> {
    /// Turns the machine until it needs more input.
    fn drive<M: Machine>(&mut self, machine: &mut M, input: &mut [u8]) -> Result<(), Failure> {
        loop {
            let UnbufferedStatus { discard, state } = machine.process(&mut input[self.used..]);
            let mut used = discard;
            let waits = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        used += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut notice)) => {
                    append(self.out, NOTICE, |out| notice.encode(out))?;
                    false
                }
                Ok(ConnectionState::TransmitTlsData(notice)) => {
                    notice.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    self.closed = true;
                    false
                }
                Ok(
                    ConnectionState::WriteTraffic(_)
                    | ConnectionState::BlockedHandshake
                    | ConnectionState::Closed,
                ) => true,
                // Early data was not offered.
                Ok(_) => return Err(Failure::Misbehaved),
                Err(error) => {
                    self.used += used;
                    self.last_words(machine, input);
                    return Err(error.into());
                }
            };
            self.used += used;
            if waits {
                return Ok(());
            }
        }
    }

    /// The alert that tells the peer what it did wrong.
    fn last_words<M: Machine>(&mut self, machine: &mut M, input: &mut [u8]) {
        while machine.has_more()
            && let Ok(ConnectionState::EncodeTlsData(mut notice)) =
                machine.process(&mut input[self.used..]).state
            && append(self.out, NOTICE, |out| notice.encode(out)).is_ok()
        {}
    }
}

/// What can be done to a machine that is ready to encrypt.
trait Traffic {
    fn encrypt_to(&mut self, plain: &[u8], room: usize, out: &mut Vec<u8>) -> Result<(), Failure>;
    fn close_to(&mut self, room: usize, out: &mut Vec<u8>) -> Result<(), Failure>;
}

impl<Data> Traffic for WriteTraffic<'_, Data> {
    fn encrypt_to(&mut self, plain: &[u8], room: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        append(out, room, |out| self.encrypt(plain, out))
    }

    fn close_to(&mut self, room: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        append(out, room, |out| self.queue_close_notify(out))
    }
}

/// Brings the machine to where it encrypts; what it has to say before goes to `out` first.
fn with_traffic<M: Machine>(
    machine: &mut M,
    carry: &mut [u8],
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut dyn Traffic, &mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        // Whatever is carried has been seen already: nothing of it is discarded here.
        match machine.process(carry).state? {
            ConnectionState::EncodeTlsData(mut notice) => {
                append(out, NOTICE, |out| notice.encode(out))?;
            }
            ConnectionState::TransmitTlsData(notice) => notice.done(),
            ConnectionState::WriteTraffic(mut traffic) => return write(&mut traffic, out),
            _ => return Err(Failure::Internal),
        }
    }
}

/// The two ways in which rustls says that a buffer is too small.
trait TooSmall {
    fn required(&self) -> Option<usize>;
}

impl TooSmall for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(size) => Some(size.required_size),
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl TooSmall for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(size) => Some(size.required_size),
            EncryptError::EncryptExhausted => None,
        }
    }
}

/// Appends what `write` makes, given room for as much as it may be; if that was not enough, once more.
fn append<E: TooSmall>(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Failure> {
    let start = out.len();
    out.resize(start + room, 0);
    let mut result = write(&mut out[start..]);
    if let Err(required) = result.as_ref().map_err(TooSmall::required)
        && let Some(required) = required
    {
        out.resize(start + required, 0);
        result = write(&mut out[start..]);
    }
    let written = result.as_ref().copied().unwrap_or(0);
    out.truncate(start + written);
    result.map(drop).map_err(|_| Failure::Internal)
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
