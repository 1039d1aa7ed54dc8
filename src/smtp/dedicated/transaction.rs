//! What exists only between MAIL and the final reply; kept by its session for the next one.

use alloc::vec::Vec;
use core::mem;

use crate::body::{BareNewline, BodyScanner};
use crate::command::BodyType;
use crate::envelope::{Envelope, RecipientState};
use crate::held::Held;
use crate::pieces::Pieces;
use crate::relay::{Outcome, Summary, UpstreamId};
use crate::reply::{Reply, ReplyText};
use crate::time::Moment;

/// Parts and inserted octets of a body's list that survive recycling.
const PARTS_KEPT: usize = 16;
const INSERTED_KEPT: usize = 512;
/// Octets of a stored reply's buffer that survive recycling.
const REPLY_KEPT: usize = 256;

/// The questions at the end of a body, in order.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub(super) enum EndStep {
    #[default]
    BareNewline,
    Nul,
    Loop,
    Gate,
    Forward,
}

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) envelope: Envelope,
    /// MAIL went up.
    pub(super) begun: bool,
    /// MAIL was refused: the transaction ends as soon as all replies to its group are in.
    pub(super) refused: bool,
    /// Recipients before this one have been answered.
    told: usize,
    /// Recipients that went up and have no answer yet.
    pub(super) unanswered: usize,
    accepted: usize,
    /// What the client heard last of a refused MAIL or recipient; for the log.
    refusal: Vec<u8>,
    /// The message will be refused with this, whatever still comes. Empty: it will not.
    pub(super) failure: Vec<u8>,
    /// The final reply as it went to the client; at the end of a transaction without one, what was refused last.
    pub(super) reply: Vec<u8>,
    pub(super) scanner: BodyScanner,
    pub(super) held: Held,
    pub(super) scratch: Pieces,
    pub(super) end_step: EndStep,
    pub(super) headers_asked: bool,
    /// It comes by BDAT.
    pub(super) chunked: bool,
    /// A chunk of it was refused: what still comes is the rest of a message, and no message (RFC 3030, 2).
    pub(super) chunk_refused: bool,
    pub(super) chunk_left: u64,
    pub(super) chunk_last: bool,
    /// Parts of the present chunk that went up as chunks of their own and were not answered yet.
    pub(super) parts_owed: u8,
    pub(super) octets: u64,
    /// Octets of the body went up before its end was there.
    pub(super) streamed: bool,
    /// The end of the body is on its way up: from now on the upstream decides.
    pub(super) committed: bool,
    pub(super) outcome: Outcome,
    pub(super) unheard: bool,
    pub(super) started: Moment,
    pub(super) body_begun: Option<Moment>,
    pub(super) end_of_data: Option<Moment>,
}

impl Default for Transaction {
    fn default() -> Self {
        Self {
            envelope: Envelope::default(),
            begun: false,
            refused: false,
            told: 0,
            unanswered: 0,
            accepted: 0,
            refusal: Vec::new(),
            failure: Vec::new(),
            reply: Vec::new(),
            scanner: BodyScanner::data(BareNewline::Reject),
            held: Held::new(),
            scratch: Pieces::new(),
            end_step: EndStep::BareNewline,
            headers_asked: false,
            chunked: false,
            chunk_refused: false,
            chunk_left: 0,
            chunk_last: false,
            parts_owed: 0,
            octets: 0,
            streamed: false,
            committed: false,
            outcome: Outcome::Abandoned,
            unheard: false,
            started: Moment::ZERO,
            body_begun: None,
            end_of_data: None,
        }
    }
}

impl Transaction {
    /// A recipient was accepted, or one is on its way up and may be.
    pub(super) fn may_have_recipients(&self) -> bool {
        self.accepted > 0 || (self.unanswered > 0 && !self.refused)
    }

    pub(super) fn is_binary(&self) -> bool {
        self.envelope.body_type() == BodyType::BinaryMime
    }

    /// Recipient `index` is refused by weir.
    pub(super) fn refuse(&mut self, index: u16) {
        self.envelope.recipients[usize::from(index)].state = RecipientState::Refused;
    }

    /// The upstream's reply to the first recipient that has none yet.
    pub(super) fn answered(&mut self, reply: &Reply<'_>) {
        let waits = |row: &crate::envelope::Recipient| row.state == RecipientState::Sent;
        let rows = &mut self.envelope.recipients;
        let at = rows[self.told..].iter().position(waits);
        let at = self.told + at.expect("a recipient is answered once, after it went up");
        self.told = at + 1;
        self.unanswered -= 1;
        if reply.is_positive() {
            rows[at].state = RecipientState::Accepted;
            self.accepted += 1;
        } else {
            rows[at].state = RecipientState::Refused;
            if !self.refused {
                self.note_refusal(reply.text);
            }
        }
    }

    /// Remembers what the client was told, should it be the last word in this transaction.
    pub(super) fn note_refusal(&mut self, reply: &[u8]) {
        self.refusal.clear();
        self.refusal.extend_from_slice(reply);
    }

    /// The message is lost for good; the first reason counts.
    pub(super) fn fail(&mut self, reply: &ReplyText) {
        self.fail_with(reply.as_bytes());
    }

    pub(super) fn fail_with(&mut self, reply: &[u8]) {
        if self.failure.is_empty() {
            self.failure.extend_from_slice(reply);
        }
    }

    pub(super) fn is_failed(&self) -> bool {
        !self.failure.is_empty()
    }

    /// Notes how the transaction ended before its message had a reply.
    pub(super) fn cut_short(&mut self, outcome: Outcome) -> Outcome {
        if self.reply.is_empty() {
            mem::swap(&mut self.reply, &mut self.refusal);
        }
        match self.reply.first() {
            Some(b'4') if self.refused => Outcome::Deferred,
            Some(b'5') if self.refused => Outcome::Rejected,
            _ => outcome,
        }
    }

    pub(super) fn summary(&self, upstream: Option<UpstreamId>) -> Summary<'_> {
        Summary {
            outcome: self.outcome,
            envelope: &self.envelope,
            octets: self.octets,
            upstream,
            reply: &self.reply,
            unheard: self.unheard,
            started: self.started,
            attach_asked: None,
            attached: None,
            body_begun: self.body_begun,
            end_of_data: self.end_of_data,
            attempts: 0,
            streamed: self.streamed,
            given_back: 0,
            replay_refused: false,
        }
    }

    /// Back to the state of a new one, the buffers of ordinary size kept.
    pub(super) fn recycle(&mut self) {
        let old = mem::take(self);
        self.envelope = old.envelope;
        self.envelope.recycle();
        self.held = old.held;
        self.held.pieces_mut().shrink(PARTS_KEPT, INSERTED_KEPT);
        self.scratch = old.scratch;
        self.scratch.clear();
        self.scratch.shrink(PARTS_KEPT, INSERTED_KEPT);
        for (slot, mut kept) in [
            (&mut self.refusal, old.refusal),
            (&mut self.failure, old.failure),
            (&mut self.reply, old.reply),
        ] {
            kept.clear();
            kept.shrink_to(REPLY_KEPT);
            *slot = kept;
        }
    }
}
