//! The body and its reply: held first, forwarded in one flight or streamed, one final answer.
//!
//! ```text
//!   DATA/BDAT -> body bytes -> [Held] --- end of data -> questions -> forward -> final reply
//!                                |                                      ^
//!                                +-- over hold_max --> stream_on -------+
//! ```
//! Once a message has failed its remaining octets are still scanned, for their end, and dropped.

use super::commands::size_limit;
use super::transaction::{Attached, EndStep, Outcome, Replay, Stream, Transaction};
use super::{Act, Consumed, Cx, Detach, Phase, Relay, Waiting, unused};
use crate::body::{BareNewline, BodyScanner, EndOfData};
use crate::gate::{Finding, Stage};
use crate::limits::{CHUNKS_OWED_MAX, RECEIVED_MAX, STREAM_CHUNK_MIN};
use crate::outbound::{LegLost, Outbound};
use crate::pieces::{BufferId, Form, Pieces};
use crate::reply::{Reply, ReplyText, carry};
use crate::texts;
use crate::violation::Violation;

/// What a client hears when its upstream connection was lost.
pub(super) fn lost_reply(why: LegLost) -> ReplyText {
    match why {
        LegLost::Timeout => texts::UPSTREAM_TIMEOUT,
        LegLost::Protocol | LegLost::Injection => texts::UPSTREAM_GARBLED,
        LegLost::Closed | LegLost::Refused421 | LegLost::Unwelcome | LegLost::NoTls => {
            texts::UPSTREAM_LOST
        }
    }
}

/// A refusal, and whether the session ends with it.
type Refused = Option<(ReplyText, bool)>;

impl Relay {
    /// Puts a header field of weir's own above the body that is about to begin: when `Stage::Data` is asked, before the answer.
    pub fn stamp(&mut self, field: &[u8]) {
        assert!(
            matches!(self.waiting, Waiting::Data(_) | Waiting::Chunk(_)),
            "a field goes above a body, not into it"
        );
        let held = &mut self.tx_mut().held;
        // a client whose DATA was refused may have tried again
        if held.pieces().is_empty() {
            held.insert_header(field);
        }
    }

    pub(super) fn begin_data(&mut self, cx: &mut Cx<'_>) {
        let tx = self.tx_mut();
        tx.scanner = BodyScanner::data(cx.config.bare_newline);
        tx.body_begun = Some(cx.now);
        // early 354: the body is held, and the final reply will be the upstream's
        self.say(cx, &texts::GO_AHEAD);
        self.phase = Phase::Data;
    }

    pub(super) fn begin_chunk(&mut self, cx: &mut Cx<'_>, size: u64, last: bool) {
        let limit = size_limit(cx);
        let tx = self.tx_mut();
        tx.body_begun.get_or_insert(cx.now);
        tx.chunk_size = size;
        tx.chunk_left = size;
        tx.chunk_last = last;
        if limit != 0 && tx.octets.saturating_add(size) > limit {
            self.fail_message(cx, &Violation::MessageTooBig.reply());
        }
        self.phase = Phase::Chunk;
        if size == 0 {
            self.chunk_complete(cx);
        }
    }

    /// Body octets. Consumes all it can.
    pub(super) fn take_body(
        &mut self,
        cx: &mut Cx<'_>,
        buffer: BufferId,
        start: u32,
        bytes: &[u8],
    ) -> Consumed {
        let in_data = self.phase == Phase::Data;
        let tx = self.tx_mut();
        let failed = tx.is_failed();
        let left = usize::try_from(tx.chunk_left).unwrap_or(usize::MAX);
        let (scanner, into) = tx.body_sink();
        let before = into.content_len();
        let (len, end) = if in_data {
            scanner.scan_data(buffer, start, bytes, into)
        } else {
            let len = bytes.len().min(left);
            scanner.scan_chunk(buffer, start, &bytes[..len], into);
            (len, None)
        };
        let grown = into.content_len() - before;
        let kept = u32::from(!failed && grown > 0);
        if kept > 0 {
            into.keep(buffer);
        }
        if !in_data {
            tx.chunk_left -= len as u64;
        }
        // Nothing of a body that is refused for its newlines gets into the list any more: it is measured as it came.
        let dropped =
            cx.config.bare_newline == BareNewline::Reject && tx.scanner.findings().bare_newline();
        tx.octets += if dropped { len as u64 } else { grown };
        tx.scratch.clear();
        let octets = tx.octets;
        let limit = size_limit(cx);
        if limit != 0 && octets > limit {
            self.fail_message(cx, &Violation::MessageTooBig.reply());
        }
        if let Some(end) = end {
            self.body_complete(cx, end);
        } else {
            self.ask_about_headers(cx);
            if !in_data && self.tx().chunk_left == 0 {
                self.chunk_complete(cx);
            }
            self.stream_on(cx);
        }
        Consumed { len, kept }
    }

    fn ask_about_headers(&mut self, cx: &mut Cx<'_>) {
        let tx = self.tx();
        if tx.headers_asked || tx.is_failed() || !tx.scanner.findings().headers_ended {
            return;
        }
        self.tx_mut().headers_asked = true;
        let id = self.ask(cx, Stage::EndOfHeaders);
        self.waiting = Waiting::EndOfHeaders(id);
    }

    pub(super) fn headers_judged(&mut self, cx: &mut Cx<'_>, refused: Refused) {
        self.message_judged(cx, refused);
        if self.phase == Phase::Chunk && self.tx().chunk_left == 0 {
            self.chunk_complete(cx);
        } else if self.phase == Phase::Final {
            self.judge_end(cx);
        } else {
            self.stream_on(cx);
        }
    }

    /// A refusal in the middle of a message counts at its end: there is no reply before.
    fn message_judged(&mut self, cx: &mut Cx<'_>, refused: Refused) {
        if let Some((reply, close)) = refused {
            self.close_after |= close;
            self.fail_message(cx, &reply);
        }
    }

    fn chunk_complete(&mut self, cx: &mut Cx<'_>) {
        if self.waiting != Waiting::Nothing {
            return; // the gate at the end of headers comes first
        }
        let tx = self.tx_mut();
        if tx.chunk_last {
            let (scanner, into) = tx.body_sink();
            let end = scanner.finish_bdat(into);
            tx.scratch.clear();
            return self.body_complete(cx, end);
        }
        self.phase = Phase::BetweenChunks;
        let tx = self.tx();
        if tx.is_failed() {
            // RFC 3030, 2: after a failed chunk the client has to reset
            cx.out.extend_from_slice(&tx.failure);
        } else {
            let size = tx.chunk_size;
            self.chunk_received(cx, size);
        }
    }

    fn body_complete(&mut self, cx: &mut Cx<'_>, end: EndOfData) {
        self.phase = Phase::Final;
        let tx = self.tx_mut();
        tx.end_of_data = Some(tx.pause.earliest(cx.now));
        if !tx.is_failed() {
            let ends_with_crlf = tx.scanner.findings().ends_with_crlf;
            tx.held.seal(end, ends_with_crlf);
        }
        self.ask_about_headers(cx);
        if self.waiting == Waiting::Nothing {
            self.judge_end(cx);
        }
    }

    /// Goes through the questions at the end of the body; each may be answered later.
    fn judge_end(&mut self, cx: &mut Cx<'_>) {
        loop {
            if self.tx().is_failed() {
                return self.refuse_message(cx);
            }
            let bare_matters = self.bare_newline_matters(cx);
            let tx = self.tx_mut();
            let findings = tx.scanner.findings();
            let stage = match tx.end_step {
                EndStep::BareNewline => {
                    tx.end_step = EndStep::Nul;
                    bare_matters.then_some(Stage::Finding(Finding::BareNewline))
                }
                EndStep::Nul => {
                    tx.end_step = EndStep::Loop;
                    findings.nul.then_some(Stage::Finding(Finding::Nul))
                }
                EndStep::Loop => {
                    tx.end_step = EndStep::Gate;
                    let looping = findings.received >= RECEIVED_MAX;
                    looping.then_some(Stage::Finding(Finding::Loop))
                }
                EndStep::Gate => {
                    tx.end_step = EndStep::Forward;
                    Some(Stage::EndOfData)
                }
                EndStep::Forward => return self.forward_message(cx),
            };
            if let Some(stage) = stage {
                if stage == Stage::Finding(Finding::BareNewline) {
                    // whatever the verdict, such a body can not go up
                    self.tx_mut().end_step = EndStep::BareNewline;
                }
                let id = self.ask(cx, stage);
                self.waiting = Waiting::End(id);
                return;
            }
        }
    }

    /// With `reject` bare newlines end the message; with `pass` they do where the upstream would
    /// have to take them in DATA form, whose end they could forge.
    fn bare_newline_matters(&self, cx: &Cx<'_>) -> bool {
        let found = self.tx().scanner.findings();
        if !found.bare_lf && !found.bare_cr {
            return false;
        }
        match cx.config.bare_newline {
            BareNewline::Reject => true,
            BareNewline::Normalize => false,
            BareNewline::Pass => cx.leg.as_ref().is_some_and(|leg| leg.form() == Form::Data),
        }
    }

    pub(super) fn end_judged(&mut self, cx: &mut Cx<'_>, refused: Refused) {
        let about_newline = self.tx().end_step == EndStep::BareNewline;
        self.message_judged(cx, refused);
        if about_newline && !self.tx().is_failed() {
            self.fail_message(cx, &Violation::BareNewlineInBody.reply());
        }
        self.judge_end(cx);
    }

    /// The message will be refused with `reply` at its end. What is held is let go; what went up
    /// is undone by closing the upstream connection.
    pub(super) fn fail_message(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        let tx = self.tx_mut();
        tx.fail(reply);
        tx.let_go(cx);
    }

    /// The end of a message that had failed before.
    fn refuse_message(&mut self, cx: &mut Cx<'_>) {
        let mut failure = core::mem::take(&mut self.tx_mut().failure);
        self.tx_mut().reply.extend_from_slice(&failure);
        failure.clear();
        self.tx_mut().failure = failure;
        self.finish_message(cx);
    }

    pub(super) fn forward_message(&mut self, cx: &mut Cx<'_>) {
        self.waiting = Waiting::Final;
        let tx = self.tx.as_mut().expect("a message is being forwarded");
        match tx.attached {
            Attached::Given => tx.ask_for_leg(cx, tx.route),
            Attached::Yes(_) if tx.replay == Replay::None => {
                if self.bare_newline_matters(cx) {
                    // asked before the form of this connection was known
                    self.fail_message(cx, &Violation::BareNewlineInBody.reply());
                    return self.failed_upstream(cx);
                }
                let tx = self.tx.as_mut().expect("a message is being forwarded");
                let leg = cx.leg.as_deref_mut();
                tx.send_end(leg.expect("an attached leg is passed to every call"));
            }
            // the replay's last reply brings us here again
            _ => {}
        }
    }

    /// Sends on what a streaming body has gathered, or starts to stream when too much is held.
    pub(super) fn stream_on(&mut self, cx: &mut Cx<'_>) {
        let was_read = self.waiting != Waiting::Stream;
        self.stream_some(cx);
        let is_read = self.waiting != Waiting::Stream;
        let Some(tx) = self.tx.as_mut() else { return };
        match (was_read, is_read) {
            (true, false) => tx.pause.began = cx.now,
            (false, true) => tx.pause.ended = cx.now,
            _ => {}
        }
    }

    fn stream_some(&mut self, cx: &mut Cx<'_>) {
        if !matches!(
            self.phase,
            Phase::Data | Phase::Chunk | Phase::BetweenChunks
        ) {
            return;
        }
        if !matches!(self.waiting, Waiting::Nothing | Waiting::Stream) {
            return; // nothing goes up before the gate at the end of headers
        }
        let hold_max = cx.hold_max;
        let window = cx.config.stream_window;
        if self.has_to_wait_for_stream(cx) {
            self.give_back(cx);
        }
        let Some(tx) = self.tx.as_mut() else { return };
        if tx.is_failed() {
            if self.waiting == Waiting::Stream {
                self.waiting = Waiting::Nothing;
            }
            return;
        }
        if tx.stream == Stream::Held {
            if tx.held_octets() <= hold_max {
                if self.waiting == Waiting::Stream {
                    // While it waited to stream, memory has become free: it may be held, and has to be read on.
                    self.waiting = Waiting::Nothing;
                }
                return;
            }
            if tx.attached == Attached::Given {
                tx.ask_for_leg(cx, tx.route);
            }
            if tx.attached == Attached::Asked || tx.replay != Replay::None {
                self.waiting = Waiting::Stream;
                return;
            }
        }
        let Some(leg) = cx.leg.as_deref_mut() else {
            return;
        };
        if cx.config.bare_newline == BareNewline::Pass && leg.form() == Form::Data {
            let found = tx.scanner.findings();
            if found.bare_newline() {
                // this server may see an end of data in it: not one octet of it goes up
                self.fail_message(cx, &Violation::BareNewlineInBody.reply());
                return self.stream_some(cx);
            }
        }
        if tx.stream == Stream::Held {
            tx.begin_stream(leg);
        }
        let room = leg.queued() < window;
        if room {
            tx.send_some(leg);
        }
        let full = leg.queued() >= window || tx.held_octets() > hold_max.max(window);
        match self.waiting {
            Waiting::Nothing if full => self.waiting = Waiting::Stream,
            Waiting::Stream if !full => self.waiting = Waiting::Nothing,
            _ => {}
        }
    }

    /// It is time to stream, but others have to end theirs first: the connection must not wait for that.
    fn has_to_wait_for_stream(&self, cx: &Cx<'_>) -> bool {
        let beyond = |tx: &Transaction| tx.held_octets() > cx.hold_max && tx.may_give_back();
        !cx.may_stream && self.tx.as_deref().is_some_and(beyond)
    }

    /// The reply to DATA.
    pub(super) fn data_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        if reply.code != 354 {
            tx.fail_with_reply(reply);
            // no body octet went up, so RSET is enough
            tx.stream = Stream::Held;
            tx.let_go(cx);
            return self.failed_upstream(cx);
        }
        tx.stream = Stream::Flowing;
        if self.waiting == Waiting::Final {
            let leg = cx.leg.as_deref_mut();
            return tx.send_end(leg.expect("the leg that answered is attached"));
        }
        self.stream_on(cx);
    }

    pub(super) fn chunk_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.chunks_owed -= 1;
        if reply.is_positive() {
            return self.stream_on(cx);
        }
        tx.fail_with_reply(reply);
        tx.let_go(cx);
        self.failed_upstream(cx);
    }

    /// The upstream has refused a message whose end may still be to come.
    pub(super) fn failed_upstream(&mut self, cx: &mut Cx<'_>) {
        if self.waiting == Waiting::Final {
            self.waiting = Waiting::Nothing;
            return self.refuse_message(cx);
        }
        self.stream_on(cx);
    }

    /// The reply that decides.
    pub(super) fn message_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        carry(&mut tx.reply, reply);
        if reply.is_positive() {
            // sacred: never asked about, never delayed
            tx.detach(cx, Detach::Clean);
            return self.finish_message(cx);
        }
        tx.detach(cx, Detach::Reset);
        let code = reply.code;
        let id = self.ask(cx, Stage::FinalReply { code });
        self.waiting = Waiting::FinalReply(id);
    }

    pub(super) fn final_reply_judged(&mut self, cx: &mut Cx<'_>, refused: Refused) {
        if let Some((reply, close)) = refused {
            self.close_after |= close;
            let tx = self.tx_mut();
            tx.reply.clear();
            tx.reply.extend_from_slice(reply.as_bytes());
        }
        self.finish_message(cx);
    }

    /// Says the final reply and ends the transaction.
    fn finish_message(&mut self, cx: &mut Cx<'_>) {
        self.waiting = Waiting::Nothing;
        let gone = self.client_gone;
        let tx = self.tx_mut();
        tx.unheard = gone;
        if !gone {
            cx.out.extend_from_slice(&tx.reply);
        }
        let outcome = match tx.reply.first() {
            Some(b'2') => Outcome::Accepted,
            Some(b'5') => Outcome::Rejected,
            _ => Outcome::Deferred,
        };
        if outcome == Outcome::Accepted {
            self.stats.accepted = self.stats.accepted.saturating_add(1);
            self.stats.junk = 0;
        } else {
            self.stats.refused = self.stats.refused.saturating_add(1);
            let error = u16::from(outcome == Outcome::Rejected);
            self.stats.errors = self.stats.errors.saturating_add(error);
        }
        self.end_transaction(cx, outcome);
        self.phase = Phase::Ready;
        if let Some(farewell) = self.farewell.take() {
            self.say_and_close(cx, &farewell);
        } else if self.close_after {
            self.close(cx, true);
        }
    }

    pub(super) fn leg_lost(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        if !matches!(
            self.phase,
            Phase::Data | Phase::Chunk | Phase::BetweenChunks | Phase::Final
        ) {
            return self.leg_lost_in_envelope(cx, why);
        }
        let Some(tx) = self.tx.as_mut() else { return };
        if matches!(tx.attached, Attached::Lost) {
            return; // given back already, its reply is with the gate
        }
        if tx.is_unheard_leg() {
            tx.part();
            if self.waiting == Waiting::Final {
                self.forward_message(cx);
            } else {
                self.stream_on(cx);
            }
            return;
        }
        tx.attached = Attached::Lost;
        tx.replay = Replay::None;
        // After the dot the outcome is unknown: the same 451 (RFC 5321, 6.1), never a 250.
        tx.fail(&lost_reply(why));
        tx.let_go(cx);
        self.failed_upstream(cx);
    }
}

impl Relay {
    /// The upstream has been silent for too long in the middle of a message.
    pub(super) fn message_overdue(&mut self, cx: &mut Cx<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.fail(&lost_reply(LegLost::Timeout));
        tx.detach(cx, Detach::Close);
        tx.let_go(cx);
        self.failed_upstream(cx);
    }
}

impl Transaction {
    /// The scanner, and where its content goes: a failed message is only scanned for its end.
    fn body_sink(&mut self) -> (&mut BodyScanner, &mut Pieces) {
        let into = if self.failure.is_empty() {
            self.held.pieces_mut()
        } else {
            &mut self.scratch
        };
        (&mut self.scanner, into)
    }

    /// What the held body costs: its octets and the lists that point at them.
    fn held_octets(&self) -> u64 {
        self.held.content_len() + self.held.memory() as u64
    }

    /// Lets go of the held body and of the leg.
    pub(super) fn let_go(&mut self, cx: &mut Cx<'_>) {
        let how = if self.stream != Stream::Held || self.committed {
            Detach::Close
        } else if self.mail_sent {
            Detach::Reset
        } else {
            unused(cx.leg.as_deref())
        };
        self.detach(cx, how);
        for buffer in self.held.release() {
            cx.acts.push_back(Act::Release(buffer));
        }
    }

    /// More is held than may be: DATA goes up, or the first chunk will.
    fn begin_stream(&mut self, leg: &mut Outbound) {
        self.streamed = true;
        self.stream = match leg.form() {
            Form::Bdat => Stream::Flowing,
            Form::Data => {
                leg.data();
                Stream::Asked
            }
        };
    }

    /// Sends up what is held of a streaming body, in pieces worth a flight.
    fn send_some(&mut self, leg: &mut Outbound) {
        if self.stream != Stream::Flowing || self.held.pieces().is_empty() {
            return;
        }
        match leg.form() {
            Form::Data => leg.body(&mut self.held),
            Form::Bdat => {
                let enough = self.held.content_len() >= STREAM_CHUNK_MIN;
                if enough && self.chunks_owed < CHUNKS_OWED_MAX {
                    leg.chunk(&mut self.held);
                    self.chunks_owed += 1;
                }
            }
        }
    }

    /// Sends up the rest of the body and its end, or DATA if that has not been asked for yet.
    fn send_end(&mut self, leg: &mut Outbound) {
        match (leg.form(), self.stream) {
            (Form::Data, Stream::Held) => {
                leg.data();
                self.stream = Stream::Asked;
            }
            (Form::Data, Stream::Asked) => {}
            (Form::Data, Stream::Flowing) => {
                let end = self.held.take_end();
                leg.body(&mut self.held);
                leg.dot(end.expect("a sealed body has its proof"));
                self.committed = true;
            }
            (Form::Bdat, _) => {
                let end = self.held.take_end();
                leg.last_chunk(&mut self.held, end.expect("a sealed body has its proof"));
                self.committed = true;
            }
        }
    }
}
