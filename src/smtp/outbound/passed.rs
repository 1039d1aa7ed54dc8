//! A connection that serves one client alone: the client's own commands pass, and so do the replies to them, a 421
//! included. Before the client's first word weir may have something to say itself: see [`Opening`].

use alloc::sync::Arc;
use alloc::vec::Vec;

use memchr::memchr;

use super::{LegLost, Outbound, Owed, Phase};
use crate::extension::Capabilities;
use crate::held::Held;
use crate::pieces::Pieces;

/// What weir itself says on such a connection before the client's EHLO goes up.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Opening {
    /// Nothing.
    Silent,
    /// EHLO, and what builds on it: STARTTLS, XCLIENT.
    Hello,
}

impl Outbound {
    /// A connection for one client, just made: its greeting is awaited, and handed out whatever its code. `hostname` is
    /// said in an EHLO of weir's own. It is [`Outbound::is_ready`] for the client's EHLO when the opening is over.
    pub fn dedicated(hostname: Arc<[u8]>, opening: Opening) -> Self {
        Self {
            opening: Some(opening),
            ..Self::new(hostname)
        }
    }

    /// XCLIENT, in one or more whole command lines: each goes up when the one before has had its 220. The connection is
    /// not [`Outbound::is_ready`] until the last has, and lost if one is refused.
    pub fn introduce(&mut self, commands: Vec<u8>) {
        assert!(
            self.is_ready() && !self.is_owed(),
            "XCLIENT begins the session anew"
        );
        if commands.is_empty() {
            return;
        }
        self.introduction = commands;
        self.phase = Phase::Hello;
        self.unsent = 1;
        write_next(&mut self.introduction, &mut self.out);
        self.owed.push_back(Owed::Xclient);
    }

    /// The client's EHLO or HELO with its own name. What the one before it brought is forgotten.
    pub fn hello(&mut self, name: &[u8], esmtp: bool) {
        self.caps = Capabilities {
            esmtp,
            ..Capabilities::default()
        };
        self.begin();
        self.out.insert(if esmtp { b"EHLO " } else { b"HELO " });
        self.out.insert(name);
        self.command_end(Owed::Hello);
    }

    /// A command line without its CRLF, parsed by us and passed as it is.
    pub fn pass(&mut self, line: &[u8], owed: Owed) {
        debug_assert!(
            memchr::memchr3(b'\r', b'\n', 0, line).is_none(),
            "one command is one line to everybody"
        );
        self.begin();
        self.out.insert(line);
        self.command_end(owed);
    }

    /// What is held of a chunk, ahead of the rest of it.
    pub fn part(&mut self, held: &mut Held) {
        self.bdat(held, b"", Owed::Part);
    }
}

/// The next XCLIENT goes up.
pub(super) fn write_next(commands: &mut Vec<u8>, out: &mut Pieces) {
    let end = memchr(b'\n', commands).map_or(commands.len(), |lf| lf + 1);
    out.insert(&commands[..end]);
    commands.drain(..end);
}

/// The server will say nothing more to this client: a 421, or a greeting that refuses it.
pub(super) fn is_last(opening: Option<Opening>, owed: Owed, code: u16) -> bool {
    opening.is_some() && (code == 421 || (owed == Owed::Greeting && code >= 300))
}

/// Does this reply end the connection, for what it says? The replies to the client's own commands pass, whatever they
/// are, if they can be replies to these commands.
pub(super) fn refusal(owed: Option<Owed>, code: u16) -> Option<LegLost> {
    let class = code / 100;
    match owed {
        None if code == 421 => None,
        Some(Owed::Greeting) if class != 3 => None,
        None => super::refusal(owed, code),
        Some(Owed::Xclient) if class != 2 => Some(LegLost::Unwelcome),
        Some(Owed::Auth) if class != 3 || code == 334 => None,
        Some(Owed::Greeting | Owed::Auth) => Some(LegLost::Protocol),
        Some(Owed::Data) if class > 3 => None,
        Some(Owed::Ehlo | Owed::Helo | Owed::StartTls | Owed::Rset | Owed::Data) => {
            super::refusal(owed, code)
        }
        Some(_) if class == 3 => Some(LegLost::Protocol),
        Some(_) => None,
    }
}
