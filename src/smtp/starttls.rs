//! The switch from plaintext to TLS, seen by the protocol: the proof that nothing said before it is read after it.
//!
//! Octets that lie behind a STARTTLS, or behind the 220 to one, were not protected by the handshake: whoever sits in the path can put them
//! there, and they would be obeyed as if they had come inside TLS (RFC 3207, 6; CVE-2011-0411, CVE-2021-38371). What a machine has framed of
//! them is its own business; what was received and not fed to it is the driver's. Both have to be nothing.

#[cfg(any(test, fuzzing))]
pub mod twins;

/// Proof that a machine holds no plaintext that it would go on with, and its driver none that it would feed. A handshake is begun with it and
/// consumes it; only the machines make one, out of the state they are in.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a handshake begins with it"]
pub struct PlaintextDrained(());

impl PlaintextDrained {
    /// TLS from the first octet (RFC 8314, 3), or from the first behind a PROXY header: there is no plaintext, and whatever has been received
    /// belongs to the handshake.
    pub fn from_the_start() -> Self {
        Self(())
    }

    /// `holds`: the machine has read a part of something; `unread`: octets that were received and not fed to it.
    pub(crate) fn proven(holds: bool, unread: usize) -> Option<Self> {
        (!holds && unread == 0).then_some(Self(()))
    }
}
