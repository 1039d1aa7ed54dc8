//! Bodies that come by BDAT (RFC 3030): chunk by chunk, each answered by the upstream.
//!
//! A chunk goes up once it is whole, counted anew, since its newlines may have been mended; LAST only with the proof that
//! the body has ended. One that outgrows what may be held goes up in parts, as chunks of weir's own whose replies nobody
//! else is owed, and all of them are in before the client's chunk is completed.

use super::{Dedicated, Phase, Refusal, Waiting};
use crate::body::{BareNewline, BodyScanner};
use crate::extension::ExtensionSet;
use crate::gate::{Finding, Stage};
use crate::limits::{CHUNKS_OWED_MAX, STREAM_CHUNK_MIN};
use crate::relay::Cx;
use crate::reply::Reply;
use crate::violation::Violation;

impl Dedicated {
    pub(super) fn bdat(&mut self, cx: &mut Cx<'_>, size: u64, last: bool) {
        if self.phase == Phase::BetweenChunks {
            return self.begin_chunk(cx, size, last);
        }
        // The chunk's octets come whatever we answer, and must not be taken for commands.
        self.swallow = size;
        if !self.announced.contains(ExtensionSet::CHUNKING) {
            return self.violation(cx, Violation::NotImplemented);
        }
        if !self.may_begin_chunks(cx, size) {
            return self.chunk_refused();
        }
        let tx = self.tx_mut();
        tx.chunk_left = size;
        tx.chunk_last = last;
        let id = self.ask(cx, Stage::Data);
        self.waiting = Waiting::Chunk(id);
    }

    /// Is there something the first chunk could belong to? Answers the client if not.
    fn may_begin_chunks(&mut self, cx: &mut Cx<'_>, size: u64) -> bool {
        if !self.may_begin_body(cx) {
            return false;
        }
        let limit = cx.config.message_size_max;
        let fits = limit == 0 || size <= limit;
        if !fits {
            self.violation(cx, Violation::MessageTooBig);
        }
        fits
    }

    /// A client that pipelines has sent the next chunk already: it must not begin a message of its own.
    pub(super) fn chunk_refused(&mut self) {
        if let Some(tx) = self.tx.as_mut() {
            tx.chunk_refused = true;
        }
    }

    /// Policy has nothing against the first chunk.
    pub(super) fn chunks_passed(&mut self, cx: &mut Cx<'_>) {
        let bare_newline = cx.config.bare_newline;
        self.swallow = 0;
        let tx = self.tx_mut();
        tx.scanner = BodyScanner::bdat(bare_newline, tx.is_binary());
        tx.chunked = true;
        tx.body_begun = Some(cx.now);
        let (size, last) = (tx.chunk_left, tx.chunk_last);
        self.begin_chunk(cx, size, last);
    }

    fn begin_chunk(&mut self, cx: &mut Cx<'_>, size: u64, last: bool) {
        let limit = cx.config.message_size_max;
        self.phase = Phase::Chunk;
        let tx = self.tx_mut();
        tx.chunk_left = size;
        tx.chunk_last = last;
        if limit != 0 && tx.octets.saturating_add(size) > limit {
            self.fail_message(cx, &Violation::MessageTooBig.reply());
        }
        if size == 0 {
            self.chunk_complete(cx);
        }
    }

    /// All octets of the chunk are there, unless a gate or the replies to its parts come first.
    pub(super) fn chunk_complete(&mut self, cx: &mut Cx<'_>) {
        let whole = self.phase == Phase::Chunk && self.tx_mut().chunk_left == 0;
        if !whole || self.waiting != Waiting::Nothing {
            return;
        }
        let reject = cx.config.bare_newline == BareNewline::Reject;
        let tx = self.tx_mut();
        if tx.is_failed() {
            return self.refuse_message(cx);
        }
        if tx.parts_owed > 0 {
            self.waiting = Waiting::Parts;
            return;
        }
        if tx.chunk_last {
            let end = tx.finish_chunks();
            return self.body_complete(cx, end);
        }
        if reject && tx.scanner.findings().bare_newline() {
            // what is behind it is not in the list: this chunk can not go up, whatever the verdict
            let id = self.ask(cx, Stage::Finding(Finding::BareNewline));
            self.waiting = Waiting::ChunkNewline(id);
            return;
        }
        self.phase = Phase::BetweenChunks;
        self.waiting = Waiting::Reply;
        let Some(mut tx) = self.tx.take() else { return };
        let held = &mut tx.held;
        self.send_up(cx, |leg| leg.chunk(held));
        tx.streamed = true;
        self.tx = Some(tx);
    }

    pub(super) fn chunk_newline_judged(&mut self, cx: &mut Cx<'_>, refused: Option<Refusal>) {
        self.message_judged(cx, refused);
        self.fail_message(cx, &Violation::BareNewlineInBody.reply());
        self.chunk_complete(cx);
    }

    /// The reply to a chunk of the client's. After a refusal the upstream refuses what still comes itself.
    pub(super) fn chunk_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.waiting = Waiting::Nothing;
        self.pass(cx, reply);
        self.replied(cx);
    }

    /// The reply to a part of one. Nobody is owed it, unless it is a refusal.
    pub(super) fn part_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.parts_owed -= 1;
        if !reply.is_positive() {
            tx.fail_with(reply.text);
            tx.release(cx);
            self.let_go(cx);
        }
        self.parts_settled(cx);
    }

    /// Goes on with a chunk whose parts are answered, or need not be any more.
    pub(super) fn parts_settled(&mut self, cx: &mut Cx<'_>) {
        if self.waiting == Waiting::Parts {
            self.waiting = Waiting::Nothing;
        }
        self.stream_on(cx);
        self.chunk_complete(cx);
    }

    /// Sends up what is held of a chunk that is too big to be held. True: nothing more of it can be taken for now.
    pub(super) fn stream_chunk(&mut self, cx: &mut Cx<'_>) -> bool {
        let window = cx.config.stream_window;
        let hold_max = cx.hold_max;
        let (Some(tx), Some(leg)) = (self.tx.as_mut(), cx.leg.as_deref_mut()) else {
            return false;
        };
        let held = tx.held.content_len() + tx.held.memory() as u64;
        if held <= hold_max && tx.parts_owed == 0 {
            return false;
        }
        let pipelining = leg.capabilities().set.contains(ExtensionSet::PIPELINING);
        let more = tx.parts_owed == 0 || (pipelining && tx.parts_owed < CHUNKS_OWED_MAX);
        if more && leg.queued() < window && tx.held.content_len() >= STREAM_CHUNK_MIN {
            leg.part(&mut tx.held);
            tx.parts_owed += 1;
            tx.streamed = true;
        }
        let held = tx.held.content_len() + tx.held.memory() as u64;
        leg.queued() >= window || (tx.parts_owed > 0 && held > hold_max.max(window))
    }
}
