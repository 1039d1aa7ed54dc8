//! Framing of the client's side: bytes to command lines, across any split.
//!
//! A line that lies whole in the received bytes is used where it lies. Only a line that is cut by
//! the end of a receive is carried over, up to [`COMMAND_LINE_MAX`] octets; what is longer is
//! swallowed to its end, so that its tail is never taken for a command.

use alloc::vec::Vec;
use core::mem;

use crate::limits::COMMAND_LINE_MAX;
use crate::line::{Terminator, split_line};

/// What the next bytes hold.
pub(crate) enum Framed {
    /// All bytes were taken; the line goes on in the next receive.
    Partial,
    /// A whole line lies in the first `len` octets; its terminator ends at `used`.
    Here {
        len: usize,
        used: usize,
        terminator: Terminator,
    },
    /// The line began in an earlier receive; `Carried` has all of it.
    Carried { line: Carried, used: usize },
    /// A line over the limit ended here.
    TooLong { used: usize, began: Began },
}

/// A line put together from several receives. Give it back with [`Inbound::put_back`] if it can
/// not be handled yet.
pub(crate) struct Carried {
    bytes: Vec<u8>,
    before: usize,
    len: usize,
    pub(crate) terminator: Terminator,
}

impl Carried {
    pub(crate) fn line(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The unfinished line of one client, if any.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    carry: Vec<u8>,
    overlong: Option<Began>,
}

/// What an overlong line began with: behind a BDAT come octets that are no commands.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Began {
    Bdat,
    Otherwise,
}

impl Began {
    fn of(line: &[u8]) -> Self {
        match line.get(..4) {
            Some(verb) if verb.eq_ignore_ascii_case(b"BDAT") => Self::Bdat,
            _ => Self::Otherwise,
        }
    }
}

impl Inbound {
    /// Something of a line was read and its end was not.
    pub(crate) fn is_mid_line(&self) -> bool {
        self.overlong.is_some() || !self.carry.is_empty()
    }

    /// What came of the line so far is the beginning of a TLS handshake record.
    pub(crate) fn begins_with_tls(&self) -> bool {
        self.carry.starts_with(&[0x16, 0x03])
    }

    /// Finds the next line of `bytes`.
    pub(crate) fn frame(&mut self, bytes: &[u8]) -> Framed {
        self.frame_within(bytes, COMMAND_LINE_MAX)
    }

    /// The same, where a line may have up to `max` octets.
    pub(crate) fn frame_within(&mut self, bytes: &[u8], max: usize) -> Framed {
        let Some((len, used, terminator)) = split_line(bytes) else {
            self.keep(bytes, max);
            return Framed::Partial;
        };
        if self.overlong.is_some() || self.carry.len() + len > max {
            let began = self.overlong.take();
            let began = began.unwrap_or_else(|| self.began(&bytes[..len]));
            self.carry = Vec::new();
            return Framed::TooLong { used, began };
        }
        if self.carry.is_empty() {
            return Framed::Here {
                len,
                used,
                terminator,
            };
        }
        let mut bytes_whole = mem::take(&mut self.carry);
        let before = bytes_whole.len();
        bytes_whole.extend_from_slice(&bytes[..len]);
        let mut line = Carried {
            len: bytes_whole.len(),
            bytes: bytes_whole,
            before,
            terminator,
        };
        // the CR was the last octet of the receive before
        if len == 0 && used == 1 && line.bytes.last() == Some(&b'\r') {
            line.len -= 1;
            line.terminator = Terminator::CrLf;
        }
        Framed::Carried { line, used }
    }

    /// The line stays unhandled: its bytes of the current receive will be offered again.
    pub(crate) fn put_back(&mut self, line: Carried) {
        self.carry = line.bytes;
        self.carry.truncate(line.before);
    }

    /// The line that was found to be too long stays unhandled: what is left of it still counts as
    /// too long when it is offered again.
    pub(crate) fn remember_overlong(&mut self, began: Began) {
        self.overlong = Some(began);
    }

    /// How the line begins whose latest octets are `bytes`.
    fn began(&self, bytes: &[u8]) -> Began {
        match self.carry.len() {
            0 => Began::of(bytes),
            1..4 => {
                let mut start = self.carry.clone();
                start.extend_from_slice(&bytes[..bytes.len().min(4)]);
                Began::of(&start)
            }
            _ => Began::of(&self.carry),
        }
    }

    fn keep(&mut self, bytes: &[u8], max: usize) {
        if self.overlong.is_some() {
            return;
        }
        // one more for a CR whose LF has not come yet
        if self.carry.len() + bytes.len() > max + 1 {
            self.overlong = Some(self.began(bytes));
            self.carry = Vec::new();
            return;
        }
        self.carry.extend_from_slice(bytes);
    }
}
