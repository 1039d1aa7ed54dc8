//! Why a TLS connection is of no more use: one word for metrics and log, and its way through an `io::Error`.

use std::fmt;
use std::io;

/// Why a connection is of no more use. Told apart by guilt, for metrics and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not TLS at all.
    Garbage,
    /// No version, suite, signature or name that both sides know.
    Incompatible,
    /// The peer broke the protocol: a record that does not decrypt, renegotiation, floods.
    Misbehaved,
    /// The peer gave up with an alert.
    Alert,
    /// The peer's certificate does not convince.
    Certificate,
    /// A handshake message or record beyond all measure.
    TooLong,
    /// The peer's stream ended without close_notify, or in the middle of the handshake.
    Truncated,
    /// weir has no memory left for what this connection has to keep.
    NoRoom,
    /// Keys used up, no configuration, or a defect of weir's own.
    Internal,
}

impl Failure {
    pub fn word(self) -> &'static str {
        match self {
            Failure::Garbage => "garbage",
            Failure::Incompatible => "incompatible",
            Failure::Misbehaved => "misbehaved",
            Failure::Alert => "alert",
            Failure::Certificate => "certificate",
            Failure::TooLong => "too_long",
            Failure::Truncated => "truncated",
            Failure::NoRoom => "no_room",
            Failure::Internal => "internal",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "TLS: {}", self.word())
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> io::Error {
        let kind = match failure {
            Failure::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, failure)
    }
}

impl Failure {
    /// What stands behind an error of [`super::Layer`]; None: the network's own.
    pub fn of(error: &io::Error) -> Option<Failure> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<rustls::Error> for Failure {
    fn from(error: rustls::Error) -> Failure {
        use rustls::Error;
        match error {
            Error::InvalidMessage(_) => Failure::Garbage,
            Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
            Error::AlertReceived(_) => Failure::Alert,
            Error::InvalidCertificate(_)
            | Error::InvalidCertRevocationList(_)
            | Error::NoCertificatesPresented => Failure::Certificate,
            Error::PeerMisbehaved(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::DecryptError
            | Error::PeerSentOversizedRecord => Failure::Misbehaved,
            _ => Failure::Internal,
        }
    }
}
