//! How things end: time, hang-ups, refusals from outside, the upstream's going.

use alloc::boxed::Box;
use core::mem;

use super::{Dedicated, Leg, Phase, Waiting};
use crate::gate::Verdict;
use crate::outbound::LegLost;
use crate::relay::{Act, Cx, Detach, Gone, LineVerdict, Outcome};
use crate::reply::{Reply, ReplyText};
use crate::texts;
use crate::time::Moment;

impl Dedicated {
    pub fn handle_client_gone(&mut self, cx: &mut Cx<'_>, gone: Gone) {
        self.recycle_ended();
        self.eof = true;
        if gone == Gone::Reset {
            self.client_gone = true;
            if !self.is_committed() {
                self.close(cx, false);
            }
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        if cx.now < self.deadline {
            return;
        }
        self.recycle_ended();
        if self.waiting.asks().is_some() {
            // a decision of ours that did not come is our trouble, never the client's
            let waiting = mem::replace(&mut self.waiting, Waiting::Nothing);
            let verdict = match waiting {
                Waiting::Connect(_) => Verdict::Close(texts::OVERLOAD),
                Waiting::FinalReply(_) => Verdict::Pass,
                Waiting::StartTls(_) => Verdict::Refuse(texts::TLS_UNAVAILABLE),
                _ => Verdict::Refuse(texts::INTERNAL),
            };
            self.resolve(cx, waiting, verdict);
        } else if self.waiting == Waiting::Handshake {
            // in the middle of a handshake there is no language for last words
            self.close(cx, false);
        } else if self.waiting != Waiting::Nothing || self.owed > 0 {
            self.let_go(cx);
            self.upstream_gone(cx, LegLost::Timeout);
        } else {
            self.say_and_close(cx, &texts::TIMEOUT);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// Ends the session with `reply` on a line of its own. A final reply that is owed is waited for, and goes down before
    /// it.
    pub fn refuse(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        self.recycle_ended();
        if self.owes_final() || self.waiting == Waiting::Handshake {
            self.farewell = Some(Box::new(reply.clone()));
        } else if self.phase == Phase::Tunnel {
            self.close(cx, false);
        } else if self.phase != Phase::Closing {
            self.say_and_close(cx, reply);
        }
        self.rearm(cx);
    }

    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Closing && self.tx.is_none()
    }

    pub fn is_between_transactions(&self) -> bool {
        self.tx.is_none()
            && self.waiting == Waiting::Nothing
            && self.owed == 0
            && !matches!(self.phase, Phase::Closing | Phase::Tunnel | Phase::Auth)
    }

    pub fn owes_final(&self) -> bool {
        self.phase == Phase::Final
    }

    pub fn owes_reply(&self) -> bool {
        match self.waiting {
            Waiting::Nothing => self.owed > 0,
            Waiting::Stream | Waiting::EndOfHeaders(_) | Waiting::Handshake => false,
            _ => true,
        }
    }

    /// The end of the message is on its way up: only the upstream can say what becomes of it.
    fn is_committed(&self) -> bool {
        self.owes_final() && self.tx.as_ref().is_some_and(|tx| tx.committed)
    }

    /// A 421 that nobody asked for.
    pub(super) fn farewell_heard(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        if !self.is_in_message() && self.waiting != Waiting::Handshake {
            self.say(cx, reply.text);
        }
    }

    /// The upstream said 421: it will hear nothing more. Inside a message that is the same as losing it.
    pub(super) fn upstream_closes(&mut self, cx: &mut Cx<'_>) {
        self.let_go(cx);
        if self.is_in_message() {
            return self.message_lost(cx, LegLost::Refused421);
        }
        if self.waiting == Waiting::Handshake {
            return self.leave_when_secured();
        }
        self.close(cx, true);
    }

    /// Nothing can be said in the middle of a handshake: its end is waited for, and this is the first thing inside TLS.
    fn leave_when_secured(&mut self) {
        self.farewell
            .get_or_insert_with(|| Box::new(texts::UPSTREAM_GONE));
    }

    pub(super) fn leg_lost(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        if self.leg == Leg::Gone {
            return;
        }
        self.leg = Leg::Gone;
        self.owed = 0;
        self.upstream_gone(cx, why);
    }

    /// The session has no upstream any more.
    fn upstream_gone(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        if self.is_in_message() {
            return self.message_lost(cx, why);
        }
        if self.waiting == Waiting::Handshake {
            return self.leave_when_secured();
        }
        match (self.phase, why) {
            (Phase::Closing, _) => {}
            (Phase::Tunnel, _) => self.close(cx, false),
            (Phase::Connecting, _) => self.say_and_close(cx, &texts::NOBODY_THERE),
            _ if self.quitting => self.say_and_close(cx, &texts::BYE),
            (_, LegLost::Timeout) => self.say_and_close(cx, &texts::UPSTREAM_SILENT),
            _ => self.say_and_close(cx, &texts::UPSTREAM_GONE),
        }
    }

    /// Inside of a body, or at its end: the reply to it is still to be said.
    fn is_in_message(&self) -> bool {
        matches!(self.phase, Phase::Data | Phase::Chunk | Phase::Final)
    }

    /// Says `reply` and closes; whatever was open is given up.
    pub(super) fn say_and_close(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        self.say(cx, reply.as_bytes());
        if let Some(tx) = self.tx.as_mut().filter(|tx| !tx.refused) {
            tx.note_refusal(reply.as_bytes());
        }
        self.close(cx, true);
    }

    pub(super) fn close(&mut self, cx: &mut Cx<'_>, linger: bool) {
        if self.phase == Phase::Closing {
            return;
        }
        let idle = self.tx.is_none() && cx.leg.as_ref().is_some_and(|leg| leg.is_reusable());
        self.drop_transaction(cx, Outcome::Lost);
        self.detach(cx, if idle { Detach::Clean } else { Detach::Close });
        self.pending = None;
        self.waiting = Waiting::Nothing;
        self.line_verdict = LineVerdict::None;
        self.phase = Phase::Closing;
        cx.acts.push_back(Act::Close { linger });
    }

    /// The upstream connection is closed, whatever state it is in.
    pub(super) fn let_go(&mut self, cx: &mut Cx<'_>) {
        self.detach(cx, Detach::Close);
    }

    /// Gives the leg back, if there is one. No reply comes from it any more.
    pub(super) fn detach(&mut self, cx: &mut Cx<'_>, how: Detach) {
        match self.leg {
            Leg::Yes(leg) => cx.acts.push_back(Act::Detach { leg, how }),
            Leg::Asked => cx.acts.push_back(Act::CancelAttach),
            Leg::No | Leg::Gone => {}
        }
        self.leg = Leg::Gone;
        self.owed = 0;
        cx.leg = None;
    }

    /// Gives up the open transaction, if there is one: RSET, a new EHLO, QUIT, a refused MAIL.
    pub(super) fn abandon(&mut self, cx: &mut Cx<'_>) {
        if self.tx.is_some() {
            self.drop_transaction(cx, Outcome::Abandoned);
            self.phase = Phase::Ready;
        }
    }

    fn drop_transaction(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        if let Some(tx) = self.tx.as_mut() {
            let outcome = tx.cut_short(outcome);
            self.end_transaction(cx, outcome);
        }
    }

    pub(super) fn end_transaction(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        let Some(mut tx) = self.tx.take() else { return };
        tx.release(cx);
        tx.outcome = outcome;
        match outcome {
            Outcome::Deferred => self.stats.deferred = self.stats.deferred.saturating_add(1),
            Outcome::Rejected => self.stats.rejected = self.stats.rejected.saturating_add(1),
            Outcome::Accepted | Outcome::Abandoned | Outcome::Lost => {}
        }
        self.stats.octets = self.stats.octets.saturating_add(tx.octets);
        self.ended = Some(tx);
        cx.acts.push_back(Act::TransactionEnd);
    }

    /// The client has closed its side, everything it said has been dealt with: so do we.
    pub(super) fn finish_if_drained(&mut self, cx: &mut Cx<'_>) {
        let idle = matches!(self.waiting, Waiting::Nothing | Waiting::Handshake) && self.owed == 0;
        if self.eof && idle && !matches!(self.phase, Phase::Closing | Phase::Tunnel) {
            self.close(cx, false);
        }
    }

    /// Sets the deadline that is next, the client's time counting from now.
    pub(super) fn rearm(&mut self, cx: &Cx<'_>) {
        let timeouts = &cx.config.timeouts;
        self.deadline = match (self.waiting, self.phase) {
            (_, Phase::Closing | Phase::Tunnel) => Moment::NEVER,
            (Waiting::Handshake, _) => cx.now + timeouts.handshake,
            (_, Phase::Final) => {
                let end = self.tx.as_ref().and_then(|tx| tx.end_of_data);
                end.unwrap_or(cx.now) + timeouts.final_reply
            }
            (Waiting::Stream | Waiting::Parts, _) => cx.now + timeouts.data_reply,
            (Waiting::Claim, _) => cx.now + timeouts.verdict,
            (waiting, _) if waiting.asks().is_some() => cx.now + timeouts.verdict,
            // DATA
            (Waiting::Reply, Phase::Envelope) => self.owed_since + timeouts.data_reply,
            _ if self.owed > 0 => self.owed_since + timeouts.rcpt_reply,
            (Waiting::Leg | Waiting::Opening | Waiting::Replies, _) => {
                self.owed_since + timeouts.rcpt_reply
            }
            (_, Phase::Data | Phase::Chunk) => cx.now + timeouts.body,
            (_, Phase::Ready) => cx.now + timeouts.idle,
            _ => cx.now + timeouts.command,
        };
    }

    /// As `rearm`, but a client that sends a line octet by octet gains no time by it.
    pub(super) fn rearm_after_input(&mut self, cx: &Cx<'_>, lines_read: bool) {
        let body = matches!(self.phase, Phase::Data | Phase::Chunk);
        let idle = self.waiting == Waiting::Nothing && self.owed == 0;
        if lines_read || body || !idle || self.phase == Phase::Closing {
            self.rearm(cx);
        }
    }
}
