//! What weir itself says on an upstream connection: each command into the flight in the making, its reply into the queue of those owed.

use crate::body::EndOfData;
use crate::decimal;
use crate::extension::ExtensionSet;
use crate::held::Held;
use crate::param;
use crate::pieces::Pieces;

use super::{Outbound, Owed, Phase};

impl Outbound {
    /// XFORWARD, in one or more whole command lines, ahead of a transaction's MAIL: in one flight with it, or each after the reply to the
    /// one before where there is no PIPELINING. It ends with the transaction, or with a RSET in place of one.
    pub fn xforward(&mut self, commands: &[u8]) {
        self.forwards = true;
        self.begin();
        let pipelining = self.caps.set.contains(ExtensionSet::PIPELINING);
        let mut lines = commands.split_inclusive(|byte| *byte == b'\n');
        for line in lines.by_ref() {
            self.out.insert(line);
            self.unsent += 1;
            self.owed.push_back(Owed::Xforward);
            if !pipelining {
                break;
            }
        }
        self.introduction.clear();
        lines.for_each(|line| self.introduction.extend_from_slice(line));
    }

    /// MAIL with its reverse-path and parameters as the client wrote them. `SIZE=` is an extension
    /// of each hop: it is left out where this server does not offer it.
    pub fn mail(&mut self, path: &[u8], params: &[u8]) {
        self.forwards = false;
        self.begin();
        self.out.insert(b"MAIL FROM:");
        self.out.insert(path);
        if self.caps.set.contains(ExtensionSet::SIZE) {
            self.out.insert(params);
        } else {
            for param in param::without(params, "SIZE") {
                self.out.insert(b" ");
                self.out.insert(param);
            }
        }
        self.command_end(Owed::Mail);
    }

    /// RCPT with all that followed `TO:`, byte for byte.
    pub fn rcpt(&mut self, argument: &[u8]) {
        self.begin();
        self.out.insert(b"RCPT TO:");
        self.out.insert(argument);
        self.command_end(Owed::Rcpt);
    }

    pub fn data(&mut self) {
        self.begin();
        self.out.insert(b"DATA");
        self.command_end(Owed::Data);
    }

    /// What is held of a body, in DATA form, after the 354. May be called several times.
    pub fn body(&mut self, held: &mut Held) {
        held.forward_data(&mut self.out);
    }

    /// The end of data in DATA form. What went before ended with CRLF, or was nothing at all.
    pub fn dot(&mut self, _evidence: EndOfData) {
        self.begin();
        self.out.insert(b".");
        self.command_end(Owed::End);
    }

    /// What is held of a body as a BDAT chunk that is not the last.
    pub fn chunk(&mut self, held: &mut Held) {
        self.bdat(held, b"", Owed::Chunk);
    }

    /// The rest of a body as the last BDAT chunk; it may be empty.
    pub fn last_chunk(&mut self, held: &mut Held, _evidence: EndOfData) {
        self.bdat(held, b" LAST", Owed::End);
    }

    /// RSET; the connection is [`Outbound::is_resetting`] until its 250. Replies owed to earlier
    /// commands still come first, and mean nothing to anyone; without PIPELINING they are waited
    /// for.
    pub fn begin_reset(&mut self) {
        self.forwards = false;
        self.introduction.clear();
        if !self.owed.is_empty() && !self.caps.set.contains(ExtensionSet::PIPELINING) {
            self.phase = Phase::Draining;
            return;
        }
        self.phase = Phase::Resetting;
        self.begin();
        self.out.insert(b"RSET");
        self.command_end(Owed::Rset);
    }

    /// Owes nothing, and RSET may go up in one flight with the next transaction.
    pub fn may_reset_ahead(&self) -> bool {
        self.is_reusable() && self.caps.set.contains(ExtensionSet::PIPELINING)
    }

    /// RSET in front of a transaction's MAIL, which has to follow (RFC 2920, 3.1: it may stand anywhere in a group). Its
    /// reply comes before theirs, and a server that refuses it is lost like one that garbles its replies.
    pub fn reset_ahead(&mut self) {
        assert!(
            self.may_reset_ahead(),
            "replies to an older transaction would be taken for those of the next"
        );
        self.begin();
        self.out.insert(b"RSET");
        self.command_end(Owed::Rset);
    }

    pub fn quit(&mut self) {
        self.phase = Phase::Quitting;
        self.begin();
        self.out.insert(b"QUIT");
        self.command_end(Owed::Quit);
    }

    pub(super) fn bdat(&mut self, held: &mut Held, last: &[u8], owed: Owed) {
        let mut digits = [0; decimal::DIGITS_MAX];
        self.begin();
        self.out.insert(b"BDAT ");
        self.out
            .insert(decimal::write(held.content_len(), &mut digits));
        self.out.insert(last);
        self.out.insert(b"\r\n");
        held.forward_bdat(&mut self.out);
        self.unsent += 1;
        self.owed.push_back(owed);
    }

    /// Before each command: whatever was written before has left if nothing is queued.
    pub(super) fn begin(&mut self) {
        if self.out.is_empty() {
            self.unsent = 0;
        }
    }

    pub(super) fn command_end(&mut self, owed: Owed) {
        self.out.insert(b"\r\n");
        self.unsent += 1;
        self.owed.push_back(owed);
    }
}

pub(super) fn write_hello(out: &mut Pieces, verb: Owed, hostname: &[u8]) {
    out.insert(match verb {
        Owed::Helo => b"HELO ",
        _ => b"EHLO ",
    });
    out.insert(hostname);
    out.insert(b"\r\n");
}
