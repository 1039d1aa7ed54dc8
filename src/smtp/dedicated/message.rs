//! A body on its way: scanned, sent up as it comes, ended by the proof of its end, answered by the upstream.
//!
//! The 354 was the upstream's, so from there on a message that fails can only be undone by closing the leg. Its remaining
//! octets are still scanned, for their end, and dropped; then the client has its reply, and the session is over.

use super::transaction::{EndStep, Transaction};
use super::{Dedicated, Leg, Phase, Refusal, Waiting};
use crate::body::{BareNewline, BodyScanner, EndOfData};
use crate::gate::{Finding, Stage};
use crate::limits::RECEIVED_MAX;
use crate::outbound::LegLost;
use crate::pieces::{BufferId, Pieces};
use crate::relay::{Act, Consumed, Cx, Outcome};
use crate::reply::{Reply, ReplyText};
use crate::texts;
use crate::violation::Violation;

/// What is said to a message whose upstream connection was lost.
fn lost_reply(why: LegLost) -> ReplyText {
    match why {
        LegLost::Timeout => texts::UPSTREAM_TIMEOUT,
        LegLost::Protocol => texts::UPSTREAM_GARBLED,
        _ => texts::UPSTREAM_LOST,
    }
}

impl Dedicated {
    /// The reply to DATA.
    pub(super) fn data_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.waiting = Waiting::Nothing;
        if reply.code == 354 && self.tx_mut().refused {
            // It refused MAIL and would take a message: it counts commands differently from us.
            self.let_go(cx);
            return self.say_and_close(cx, &texts::UPSTREAM_GONE);
        }
        self.pass(cx, reply);
        let tx = self.tx_mut();
        if reply.code != 354 && !tx.refused {
            tx.note_refusal(reply.text);
        }
        if reply.code == 354 {
            tx.scanner = BodyScanner::data(cx.config.bare_newline);
            tx.body_begun = Some(cx.now);
            self.phase = Phase::Data;
        }
        self.replied(cx);
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
        self.measure(cx, len, grown);
        if let Some(end) = end {
            self.body_complete(cx, end);
        } else {
            self.ask_about_headers(cx);
            self.stream_on(cx);
            self.chunk_complete(cx);
        }
        Consumed { len, kept }
    }

    /// Counts what came of a body, and fails it if that is too much.
    fn measure(&mut self, cx: &mut Cx<'_>, len: usize, grown: u64) {
        let reject = cx.config.bare_newline == BareNewline::Reject;
        let limit = cx.config.message_size_max;
        let tx = self.tx_mut();
        // Nothing of a body that is refused for its newlines gets into the list any more: it is measured as it came.
        let dropped = reject && tx.scanner.findings().bare_newline();
        tx.octets += if dropped { len as u64 } else { grown };
        tx.scratch.clear();
        if limit != 0 && tx.octets > limit {
            self.fail_message(cx, &Violation::MessageTooBig.reply());
        }
    }

    fn ask_about_headers(&mut self, cx: &mut Cx<'_>) {
        let tx = self.tx_mut();
        if tx.headers_asked || tx.is_failed() || !tx.scanner.findings().headers_ended {
            return;
        }
        tx.headers_asked = true;
        let id = self.ask(cx, Stage::EndOfHeaders);
        self.waiting = Waiting::EndOfHeaders(id);
    }

    pub(super) fn headers_judged(&mut self, cx: &mut Cx<'_>, refused: Option<Refusal>) {
        self.message_judged(cx, refused);
        if self.phase == Phase::Final {
            self.judge_end(cx);
        } else {
            self.stream_on(cx);
            self.chunk_complete(cx);
        }
    }

    /// A refusal in the middle of a message counts at its end: there is no reply before.
    pub(super) fn message_judged(&mut self, cx: &mut Cx<'_>, refused: Option<Refusal>) {
        if let Some((reply, close)) = refused {
            self.close_after |= close;
            self.fail_message(cx, &reply);
        }
    }

    pub(super) fn body_complete(&mut self, cx: &mut Cx<'_>, end: EndOfData) {
        self.phase = Phase::Final;
        let tx = self.tx_mut();
        tx.end_of_data = Some(cx.now);
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
            if self.tx_mut().is_failed() {
                return self.refuse_message(cx);
            }
            let bare_matters = self.bare_newline_matters(cx);
            let tx = self.tx_mut();
            let findings = tx.scanner.findings();
            let stage = match tx.end_step {
                // whatever the verdict, such a body can not go up: the step stays
                EndStep::BareNewline if bare_matters => Some(Stage::Finding(Finding::BareNewline)),
                EndStep::BareNewline => {
                    tx.end_step = EndStep::Nul;
                    None
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
                EndStep::Forward => return self.send_end(cx),
            };
            if let Some(stage) = stage {
                let id = self.ask(cx, stage);
                self.waiting = Waiting::End(id);
                return;
            }
        }
    }

    /// With `reject` bare newlines end the message; with `pass` they do inside of DATA, whose end they could forge.
    fn bare_newline_matters(&mut self, cx: &Cx<'_>) -> bool {
        let tx = self.tx_mut();
        let matters = match cx.config.bare_newline {
            BareNewline::Reject => true,
            BareNewline::Normalize => false,
            BareNewline::Pass => !tx.chunked,
        };
        matters && tx.scanner.findings().bare_newline()
    }

    pub(super) fn end_judged(&mut self, cx: &mut Cx<'_>, refused: Option<Refusal>) {
        let about_newline = self.tx_mut().end_step == EndStep::BareNewline;
        self.message_judged(cx, refused);
        if about_newline && !self.tx_mut().is_failed() {
            self.fail_message(cx, &Violation::BareNewlineInBody.reply());
        }
        self.judge_end(cx);
    }

    /// The message will be refused with `reply` at its end, and its upstream connection has seen the last of it.
    pub(super) fn fail_message(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        let tx = self.tx_mut();
        tx.fail(reply);
        tx.release(cx);
        self.let_go(cx);
    }

    /// The end of a message that had failed before.
    pub(super) fn refuse_message(&mut self, cx: &mut Cx<'_>) {
        let tx = self.tx_mut();
        core::mem::swap(&mut tx.reply, &mut tx.failure);
        self.finish_message(cx);
    }

    /// The rest of the body and its end go up.
    fn send_end(&mut self, cx: &mut Cx<'_>) {
        self.waiting = Waiting::Final;
        let Some(mut tx) = self.tx.take() else { return };
        let end = tx.held.take_end().expect("a sealed body has its proof");
        let (held, chunked) = (&mut tx.held, tx.chunked);
        self.send_up(cx, |leg| {
            if chunked {
                return leg.last_chunk(held, end);
            }
            leg.body(held);
            leg.dot(end);
        });
        tx.committed = true;
        self.tx = Some(tx);
    }

    /// Sends on what has come of a body, as far as the leg takes it.
    pub(super) fn stream_on(&mut self, cx: &mut Cx<'_>) {
        let body = matches!(self.phase, Phase::Data | Phase::Chunk);
        if !body || !matches!(self.waiting, Waiting::Nothing | Waiting::Stream) {
            return; // nothing goes up before the gate at the end of headers
        }
        self.waiting = Waiting::Nothing;
        if self.tx_mut().is_failed() {
            return;
        }
        let full = match self.phase {
            Phase::Chunk => self.stream_chunk(cx),
            _ => self.stream_data(cx),
        };
        if full {
            self.waiting = Waiting::Stream;
        }
    }

    /// True: nothing more of it can be taken for now.
    fn stream_data(&mut self, cx: &mut Cx<'_>) -> bool {
        let window = cx.config.stream_window;
        if cx.config.bare_newline == BareNewline::Pass && self.bare_newline_matters(cx) {
            // the upstream may see an end of data in it: not one octet of it goes up
            self.fail_message(cx, &Violation::BareNewlineInBody.reply());
            return false;
        }
        let (Some(tx), Some(leg)) = (self.tx.as_mut(), cx.leg.as_deref_mut()) else {
            return false;
        };
        if leg.queued() < window && !tx.held.pieces().is_empty() {
            leg.body(&mut tx.held);
            tx.streamed = true;
        }
        leg.queued() >= window
    }

    /// The reply that decides.
    pub(super) fn message_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        self.owed = 0;
        tx.reply.extend_from_slice(reply.text);
        if reply.is_positive() {
            // sacred: never asked about, never delayed
            return self.finish_message(cx);
        }
        let code = reply.code;
        let id = self.ask(cx, Stage::FinalReply { code });
        self.waiting = Waiting::FinalReply(id);
    }

    pub(super) fn final_reply_judged(&mut self, cx: &mut Cx<'_>, refused: Option<Refusal>) {
        if let Some((reply, close)) = refused {
            self.close_after |= close;
            let tx = self.tx_mut();
            tx.reply.clear();
            tx.reply.extend_from_slice(reply.as_bytes());
        }
        self.finish_message(cx);
    }

    /// Says the final reply and ends the transaction; with its connection gone the session too.
    fn finish_message(&mut self, cx: &mut Cx<'_>) {
        self.waiting = Waiting::Nothing;
        let gone = self.client_gone;
        let tx = self.tx_mut();
        tx.unheard = gone;
        if !gone {
            cx.out.extend_from_slice(&tx.reply);
        }
        let said_421 = tx.reply.starts_with(b"421");
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
        } else if self.close_after || said_421 {
            self.close(cx, true);
        } else if self.leg == Leg::Gone {
            self.say_and_close(cx, &texts::UPSTREAM_GONE);
        }
    }

    /// The connection was lost in the middle of a message, whose outcome is unknown if its end has gone up: the same 451
    /// (RFC 5321, 6.1), never a 250.
    pub(super) fn message_lost(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.fail(&lost_reply(why));
        tx.release(cx);
        match self.waiting {
            Waiting::Final => self.refuse_message(cx),
            Waiting::Stream | Waiting::Parts => {
                self.waiting = Waiting::Nothing;
                self.chunk_complete(cx);
            }
            _ => {}
        }
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

    /// The last chunk is whole.
    pub(super) fn finish_chunks(&mut self) -> EndOfData {
        let (scanner, into) = self.body_sink();
        let end = scanner.finish_bdat(into);
        self.scratch.clear();
        end
    }

    /// Lets go of what is held of the body.
    pub(super) fn release(&mut self, cx: &mut Cx<'_>) {
        for buffer in self.held.release() {
            cx.acts.push_back(Act::Release(buffer));
        }
    }
}
