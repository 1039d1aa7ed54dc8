//! The content of a message, by DATA or in chunks: when it may come, what is to happen within it, and what it is worth.

use weir_smtp::extension::ExtensionSet;
use weir_smtp::violation::Violation;

use super::super::fault::{Deed, Place};
use super::{Desk, Mail, Next, Phase, Replies, Session, Transaction, own};
use crate::ledger::Seen;

/// Chunks larger than this end the connection. No stamped message is so large.
const CHUNK_MAX: u64 = 1 << 32;

impl Session {
    /// Whether the content of a message may begin now; if not, why, and whether that is the client's fault.
    fn unready(&self) -> Option<(Violation, bool)> {
        match self.transaction.mail {
            Mail::None => Some((Violation::NeedMail, true)),
            Mail::Refused => Some((Violation::NeedMail, false)),
            Mail::Open if self.transaction.recipients > 0 => None,
            Mail::Open if self.transaction.tried => Some((Violation::NoValidRecipients, false)),
            Mail::Open => Some((Violation::NeedRcpt, true)),
        }
    }

    pub(super) fn data(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        // the 354, or a refusal of which the client has to know before it goes on
        self.must_wait = Some(own::EARLY_BODY);
        match self.unready() {
            Some((violation, true)) => return self.refuse(violation, desk, out),
            Some((violation, false)) => return self.follow_up(violation, desk, out),
            None => {}
        }
        if self.transaction.chunked {
            return self.refuse(Violation::MixedDataBdat, desk, out);
        }
        if self.transaction.binary {
            return self.refuse(Violation::BinaryNeedsBdat, desk, out);
        }
        let text = b"354 End data with <CR><LF>.<CR><LF>\r\n";
        let (next, taken) = self.answer_at(Place::Data, text, desk, out);
        if taken {
            self.phase = Phase::Data;
            self.begin_content(self.transaction.stated, desk);
        }
        next
    }

    fn begin_content(&mut self, stated: Option<u64>, desk: &mut Desk<'_>) {
        self.content.restart();
        self.trap = desk.faults.trap(stated, &mut self.rng);
    }

    pub(super) fn take_data(
        &mut self,
        rest: &mut &[u8],
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        let (taken, ended) = self.content.take_data(rest);
        *rest = &rest[taken..];
        if let Some(next) = self.spring(ended, desk) {
            return next;
        }
        if !ended {
            return Next::GoOn;
        }
        self.phase = Phase::Commands;
        self.finish(desk, out)
    }

    /// The fault within a message, if its octet is reached, or if the message is over.
    fn spring(&mut self, ended: bool, desk: &mut Desk<'_>) -> Option<Next> {
        let (octet, deed) = self.trap?;
        if self.content.octets() < octet && !ended {
            return None;
        }
        self.trap = None;
        desk.counters.fault(match deed {
            Deed::Reset => "reset_in_body",
            _ => "stalled_in_body",
        });
        Some(match deed {
            Deed::Reset => Next::Reset,
            _ => Next::StopReading,
        })
    }

    pub(super) fn bdat(
        &mut self,
        size: u64,
        last: bool,
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        if size > CHUNK_MAX {
            return self.end_with(Violation::MessageTooBig, desk, out);
        }
        let offered = desk.texts.capabilities.set.contains(ExtensionSet::CHUNKING);
        if !offered {
            desk.counters.violation(own::NOT_OFFERED);
        }
        // its octets follow whatever is said; who is at fault is said now, the reply at the chunk's end
        let unready = self.unready();
        if let Some((violation, true)) = unready {
            desk.counters.violation(violation.word());
        }
        let taken = offered && unready.is_none();
        if taken && !self.transaction.chunked {
            let stated = if last {
                Some(size)
            } else {
                self.transaction.stated
            };
            self.transaction.chunked = true;
            self.begin_content(stated, desk);
        }
        self.phase = Phase::Chunk {
            left: size,
            last,
            taken,
        };
        // the octets of the chunk need not wait
        self.must_wait = None;
        match size {
            0 => self.end_chunk(last, taken, desk, out),
            _ => Next::GoOn,
        }
    }

    pub(super) fn take_chunk(
        &mut self,
        rest: &mut &[u8],
        left: u64,
        last: bool,
        taken: bool,
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        let length = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let (chunk, after) = rest.split_at(length);
        *rest = after;
        let left = left - length as u64;
        self.phase = Phase::Chunk { left, last, taken };
        if taken {
            self.content.take_chunk(chunk, self.transaction.binary);
            if let Some(next) = self.spring(left == 0 && last, desk) {
                return next;
            }
        }
        if left > 0 {
            return Next::GoOn;
        }
        self.end_chunk(last, taken, desk, out)
    }

    fn end_chunk(
        &mut self,
        last: bool,
        taken: bool,
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        self.phase = Phase::Commands;
        if !desk
            .texts
            .capabilities
            .set
            .contains(ExtensionSet::PIPELINING)
        {
            self.must_wait = Some(own::PIPELINING);
        }
        if !taken {
            let violation = match self.unready() {
                Some((violation, _)) => violation,
                None => Violation::NotImplemented,
            };
            if self.transaction.mail == Mail::Open {
                self.transaction.mail = Mail::Refused;
            }
            desk.counters.refused += u64::from(last);
            return self.follow_up(violation, desk, out);
        }
        if last {
            return self.finish(desk, out);
        }
        let (next, taken) = self.answer_at(Place::Bdat, b"250 2.0.0 Ok\r\n", desk, out);
        if !taken {
            self.transaction.mail = Mail::Refused;
        }
        next
    }

    /// The message is complete. It is counted before its reply is written: a server that accepts mail has it, heard or not.
    fn finish(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        self.content.end();
        if self.content.bare_newline() {
            desk.counters.violation(own::BARE_NEWLINE);
        }
        self.after_end = true;
        self.transaction = Transaction::default();
        let seen = self.content.checker.finish();
        let octets = self.content.octets();
        let size_max = desk.texts.capabilities.size_max;
        if size_max != 0 && octets > size_max {
            desk.counters.refused += 1;
            return self.refuse(Violation::MessageTooBig, desk, out);
        }
        let (next, taken) = self.answer_at(Place::Final, b"250 2.0.0 Ok: counted\r\n", desk, out);
        if !taken {
            desk.counters.refused += 1;
            return next;
        }
        desk.counters.accepted += 1;
        desk.counters.accepted_octets += octets;
        desk.counters.altered += u64::from(matches!(seen, Seen::Altered(_)));
        desk.counters.unstamped += u64::from(seen == Seen::Unknown);
        desk.ledgers.count(seen);
        next
    }
}
