//! The part of a session that exists only between MAIL and the final reply, recycled afterwards.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use super::{LegId, UpstreamId};
use crate::body::{BareNewline, BodyScanner};
use crate::envelope::Envelope;
use crate::gate::RouteId;
use crate::held::Held;
use crate::limits::ATTACH_ATTEMPTS_MAX;
use crate::pieces::Pieces;
use crate::reply::{Reply, ReplyText, carry};
use crate::time::Moment;

/// Transactions kept for reuse by a shard: about 1 KiB each.
const SPARE_MAX: usize = 256;
/// Parts and inserted octets of a body's list that survive recycling.
const PARTS_KEPT: usize = 64;
const INSERTED_KEPT: usize = 512;
/// Octets of a stored reply's buffer that survive recycling.
const REPLY_KEPT: usize = 512;

/// How a transaction ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum Outcome {
    /// An upstream answered 2xx to the message.
    Accepted,
    /// The message was answered with 4xx.
    Deferred,
    /// The message was answered with 5xx.
    Rejected,
    /// The client gave it up before its end: RSET, a new EHLO, QUIT.
    #[default]
    Abandoned,
    /// The connection went away, or was closed, before the end of the message.
    Lost,
}

/// The tale of an ended transaction, for the log and the metrics.
#[derive(Debug)]
pub struct Summary<'a> {
    pub outcome: Outcome,
    pub envelope: &'a Envelope,
    /// Body octets, dots of transparency not counted.
    pub octets: u64,
    /// The last upstream attached.
    pub upstream: Option<UpstreamId>,
    /// The final reply as the client got it (or would have, had it stayed). Where none came: the last refusal of MAIL or
    /// a recipient, or what the session was closed with; empty if there was none.
    pub reply: &'a [u8],
    /// The client did not wait for the final reply.
    pub unheard: bool,
    pub started: Moment,
    /// When an upstream connection was first asked for.
    pub attach_asked: Option<Moment>,
    pub attached: Option<Moment>,
    /// When the body began: at DATA or the first BDAT.
    pub body_begun: Option<Moment>,
    pub end_of_data: Option<Moment>,
    /// How often an upstream connection was asked for.
    pub attempts: u8,
    /// The body went up while it came in.
    pub streamed: bool,
    /// How often the upstream connection was given back while the client was silent.
    pub given_back: u8,
    /// The message was deferred because a recipient, accepted before, was refused in the replay.
    pub replay_refused: bool,
}

impl Summary<'_> {
    /// How long the client took for its body; zero if it never ended.
    pub fn data_took(&self) -> Duration {
        match (self.body_begun, self.end_of_data) {
            (Some(begun), Some(end)) => end.since(begun),
            _ => Duration::ZERO,
        }
    }
}

/// The last time a streaming body was not read, because nothing more of it could go up.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Pause {
    pub(super) began: Moment,
    pub(super) ended: Moment,
}

impl Pause {
    /// When octets that are read now may have come: during the pause, if it ended only just before. The client counts the time
    /// of its reply from then.
    pub(super) fn earliest(self, now: Moment) -> Moment {
        if now.since(self.ended) <= self.ended.since(self.began) {
            self.began
        } else {
            now
        }
    }
}

#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub(super) enum Attached {
    /// Not yet asked for.
    #[default]
    No,
    /// `Act::Attach` is out.
    Asked,
    Yes(LegId),
    /// Given back, or lost while nothing of the body depended on it: what it had accepted is
    /// replayed when a connection is needed again.
    Given,
    /// Lost, and not to be replaced in this transaction.
    Lost,
}

/// An envelope on its way up for the second time.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub(super) enum Replay {
    #[default]
    None,
    /// With the next connection.
    Due,
    /// The accepted recipients before `next` went up again, and `owed` of them wait for a reply.
    Running { next: usize, owed: u16 },
}

#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub(super) enum Stream {
    /// The body is held; nothing of it has gone up.
    #[default]
    Held,
    /// DATA went up before the body's end; its 354 is awaited.
    Asked,
    /// Octets of the body went up.
    Flowing,
}

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
    /// Recipients whose reply has been said to the client.
    pub(super) told: usize,
    /// Recipients that went up, or never will.
    pub(super) forwarded: usize,
    pub(super) attached: Attached,
    pub(super) upstream: Option<UpstreamId>,
    pub(super) replay: Replay,
    /// The recipients to replay stand before this one.
    pub(super) replay_end: usize,
    /// A recipient that had been accepted was refused in the replay.
    pub(super) replay_refused: bool,
    /// How often the connection was given back to be of use to others.
    pub(super) given_back: u8,
    pub(super) route: RouteId,
    pub(super) attempts: u8,
    pub(super) mail_sent: bool,
    /// A reply of an upstream has reached the client in this transaction.
    pub(super) heard: bool,
    /// MAIL was refused: every RCPT gets this. Empty: it was not.
    pub(super) mail_refusal: Vec<u8>,
    /// What the client heard last of a refused MAIL or recipient, or in place of its message; for the log.
    pub(super) refusal: Vec<u8>,
    /// The message will be refused with this, whatever still comes. Empty: it will not.
    pub(super) failure: Vec<u8>,
    /// The final reply as it went to the client; at the end of a transaction without one, what was refused last.
    pub(super) reply: Vec<u8>,
    pub(super) scanner: BodyScanner,
    pub(super) held: Held,
    pub(super) scratch: Pieces,
    pub(super) end_step: EndStep,
    pub(super) headers_asked: bool,
    pub(super) chunk_left: u64,
    pub(super) chunk_last: bool,
    pub(super) chunk_size: u64,
    pub(super) octets: u64,
    pub(super) stream: Stream,
    pub(super) chunks_owed: u8,
    /// It began to go up before its end was there.
    pub(super) streamed: bool,
    /// The end of the body is on its way up: from now on the upstream decides.
    pub(super) committed: bool,
    pub(super) outcome: Outcome,
    pub(super) unheard: bool,
    pub(super) started: Moment,
    pub(super) attach_asked: Option<Moment>,
    pub(super) attached_at: Option<Moment>,
    pub(super) body_begun: Option<Moment>,
    pub(super) end_of_data: Option<Moment>,
    pub(super) pause: Pause,
}

impl Transaction {
    fn new() -> Self {
        Self {
            envelope: Envelope::default(),
            told: 0,
            forwarded: 0,
            attached: Attached::No,
            upstream: None,
            replay: Replay::None,
            replay_end: 0,
            replay_refused: false,
            given_back: 0,
            route: RouteId::default(),
            attempts: 0,
            mail_sent: false,
            heard: false,
            mail_refusal: Vec::new(),
            refusal: Vec::new(),
            failure: Vec::new(),
            reply: Vec::new(),
            scanner: BodyScanner::data(BareNewline::Reject),
            held: Held::new(),
            scratch: Pieces::new(),
            end_step: EndStep::BareNewline,
            headers_asked: false,
            chunk_left: 0,
            chunk_last: false,
            chunk_size: 0,
            octets: 0,
            stream: Stream::Held,
            chunks_owed: 0,
            streamed: false,
            committed: false,
            outcome: Outcome::Abandoned,
            unheard: false,
            started: Moment::ZERO,
            attach_asked: None,
            attached_at: None,
            body_begun: None,
            end_of_data: None,
            pause: Pause::default(),
        }
    }

    pub(super) fn leg(&self) -> Option<LegId> {
        match self.attached {
            Attached::Yes(leg) => Some(leg),
            _ => None,
        }
    }

    /// The connection could serve others now: nothing is owed either way, nothing of a body went
    /// up, and what it accepted can be replayed.
    pub(super) fn may_give_back(&self) -> bool {
        matches!(self.attached, Attached::Yes(_))
            && self.replay == Replay::None
            && self.stream == Stream::Held
            && !self.committed
            && self.all_told()
            && !self.is_failed()
    }

    /// Nothing that the attached connection said has reached the client: it can be replaced without anybody noticing.
    pub(super) fn is_unheard_leg(&self) -> bool {
        (!self.heard || self.replay != Replay::None) && self.attempts < ATTACH_ATTEMPTS_MAX
    }

    pub(super) fn is_streaming(&self) -> bool {
        self.streamed && !self.committed
    }

    /// All recipients so far have been answered.
    pub(super) fn all_told(&self) -> bool {
        self.told == self.envelope.recipient_count()
    }

    /// The message is lost for good; the first reason counts.
    pub(super) fn fail(&mut self, reply: &ReplyText) {
        if self.failure.is_empty() {
            self.failure.extend_from_slice(reply.as_bytes());
        }
    }

    pub(super) fn fail_with_reply(&mut self, reply: &Reply<'_>) {
        if self.failure.is_empty() {
            carry(&mut self.failure, reply);
        }
    }

    /// Remembers what the client was told, should it be the last word in this transaction.
    pub(super) fn note_refusal(&mut self, reply: &[u8]) {
        self.refusal.clear();
        self.refusal.extend_from_slice(reply);
    }

    pub(super) fn is_failed(&self) -> bool {
        !self.failure.is_empty()
    }

    pub(super) fn summary(&self) -> Summary<'_> {
        Summary {
            outcome: self.outcome,
            envelope: &self.envelope,
            octets: self.octets,
            upstream: self.upstream,
            reply: &self.reply,
            unheard: self.unheard,
            started: self.started,
            attach_asked: self.attach_asked,
            attached: self.attached_at,
            body_begun: self.body_begun,
            end_of_data: self.end_of_data,
            attempts: self.attempts,
            streamed: self.streamed,
            given_back: self.given_back,
            replay_refused: self.replay_refused,
        }
    }

    /// Back to the state of a new one, the buffers of ordinary size kept.
    fn recycle(&mut self) {
        let fresh = Self::new();
        let old = mem::replace(self, fresh);
        self.envelope = old.envelope;
        self.envelope.recycle();
        self.held = old.held;
        self.held.pieces_mut().shrink(PARTS_KEPT, INSERTED_KEPT);
        self.scratch = old.scratch;
        self.scratch.clear();
        self.scratch.shrink(PARTS_KEPT, INSERTED_KEPT);
        for (slot, mut kept) in [
            (&mut self.mail_refusal, old.mail_refusal),
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

/// Ended transactions, kept so that the next one allocates nothing. One per shard.
#[derive(Debug, Default)]
pub struct SparePool {
    #[expect(
        clippy::vec_box,
        reason = "the boxes go to sessions and come back whole"
    )]
    spare: Vec<Box<Transaction>>,
}

impl SparePool {
    pub(super) fn take(&mut self, now: Moment) -> Box<Transaction> {
        let mut tx = self
            .spare
            .pop()
            .unwrap_or_else(|| Box::new(Transaction::new()));
        tx.started = now;
        tx
    }

    pub(super) fn put(&mut self, mut tx: Box<Transaction>) {
        if self.spare.len() < SPARE_MAX {
            tx.recycle();
            self.spare.push(tx);
        }
    }
}
