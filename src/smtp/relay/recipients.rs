//! Recipients in flight: RCPT by RCPT past the gate, up in order, and answered in order.
//!
//! Several may be open at once in a pipelined group. Verdicts come in any order; commands go up in
//! the client's order, MAIL in the same flight as the first; replies go down in the client's order.

use super::message::lost_reply;
use super::transaction::{Attached, Replay, Stream, Transaction};
use super::{Act, AttachFailure, Cx, Detach, LegId, Phase, Relay, UpstreamId, Waiting};
use crate::command::RcptArgs;
use crate::envelope::RecipientState;
use crate::extension::ExtensionSet;
use crate::gate::{AskId, RouteId, Stage, Verdict};
use crate::limits::{RECIPIENTS_IN_FLIGHT_MAX, RECIPIENTS_LIMIT};
use crate::outbound::{LegLost, Outbound};
use crate::reply::{Reply, ReplyText, carry};
use crate::texts;
use crate::violation::Violation;

impl Relay {
    /// Some recipients have not been answered yet.
    pub(super) fn awaits_recipients(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| !tx.all_told())
    }

    /// `false`: has to be offered again.
    pub(super) fn rcpt(&mut self, cx: &mut Cx<'_>, args: &RcptArgs<'_>) -> bool {
        if self.phase != Phase::Envelope {
            let violation = if self.phase == Phase::BetweenChunks {
                Violation::BadSequence
            } else {
                Violation::NeedMail
            };
            self.violation(cx, violation);
            return true;
        }
        let max = match cx.config.recipients_max as usize {
            0 => RECIPIENTS_LIMIT,
            limit => limit.min(RECIPIENTS_LIMIT),
        };
        let tx = self.tx();
        let count = tx.envelope.recipient_count();
        let in_flight = count - tx.told;
        // a reply of our own has to wait its turn behind those in flight
        let undeclared = args.uses.contains(ExtensionSet::SMTPUTF8) && !tx.envelope.is_smtputf8();
        let own_reply = undeclared || tx.is_failed() || !tx.mail_refusal.is_empty() || count >= max;
        if in_flight > 0 && (own_reply || in_flight >= RECIPIENTS_IN_FLIGHT_MAX) {
            self.stats.commands = self.stats.commands.saturating_sub(1);
            self.waiting = Waiting::Recipients;
            return false;
        }
        if undeclared {
            self.violation(cx, Violation::Utf8NotDeclared);
            return true;
        }
        if own_reply {
            self.refuse_rcpt(cx);
            return true;
        }
        let ask = AskId(self.asks.wrapping_add(1));
        let index = self.tx_mut().envelope.add_recipient(args, ask, cx.now);
        let asked = self.ask(cx, Stage::Rcpt { index });
        debug_assert_eq!(ask, asked);
        true
    }

    /// The transaction is past taking recipients.
    fn refuse_rcpt(&mut self, cx: &mut Cx<'_>) {
        let tx = self.tx();
        if !tx.mail_refusal.is_empty() {
            cx.out.extend_from_slice(&tx.mail_refusal);
        } else if tx.is_failed() {
            cx.out.extend_from_slice(&tx.failure);
        } else {
            self.violation(cx, Violation::TooManyRecipients);
        }
    }

    pub(super) fn resolve_recipient(&mut self, cx: &mut Cx<'_>, id: AskId, verdict: Verdict) {
        let Some(tx) = self.tx.as_mut() else { return };
        let asked = RecipientState::Asked(id);
        let rows = &mut tx.envelope.recipients;
        let Some(index) = rows.iter().position(|row| row.state == asked) else {
            return;
        };
        match verdict {
            Verdict::Pass => rows[index].state = RecipientState::Cleared,
            Verdict::PassVia(route) => {
                rows[index].state = RecipientState::Cleared;
                rows[index].route = route;
            }
            Verdict::Refuse(reply) => tx.envelope.refuse(index, reply),
            Verdict::Close(reply) => {
                tx.envelope.refuse(index, reply);
                self.close_after = true;
            }
        }
        self.pump(cx);
    }

    /// Tells what can be told and sends up what can go up.
    pub(super) fn pump(&mut self, cx: &mut Cx<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        let errors = tx.tell(cx);
        self.stats.errors = self.stats.errors.saturating_add(errors);
        let before = tx.forwarded;
        tx.forward(cx);
        if tx.forwarded != before {
            // forwarding may have refused some on the way
            let errors = tx.tell(cx);
            self.stats.errors = self.stats.errors.saturating_add(errors);
        }
        let told = self.tx().all_told();
        if told && self.waiting == Waiting::Recipients {
            self.waiting = Waiting::Nothing;
        }
        if told && self.close_after {
            self.close(cx, true);
        }
    }

    pub(super) fn accept_leg(&mut self, cx: &mut Cx<'_>, leg: LegId, upstream: UpstreamId) -> bool {
        let Some(tx) = self.tx.as_mut() else {
            return false;
        };
        if tx.attached != Attached::Asked {
            return false;
        }
        tx.attached = Attached::Yes(leg);
        tx.upstream = Some(upstream);
        tx.attached_at.get_or_insert(cx.now);
        if tx.replay == Replay::Due {
            tx.replay = Replay::Running { next: 0, owed: 0 };
            let uses = tx.envelope.uses();
            let offers = |leg: &Outbound| leg.capabilities().set.contains(uses);
            if !cx.leg.as_deref().is_some_and(offers) {
                // the driver looks for this as well; a message that requires TLS must not depend on it
                self.replay_refused(cx);
                return true;
            }
        }
        self.pump(cx);
        self.replay_on(cx);
        true
    }

    pub(super) fn no_leg(&mut self, cx: &mut Cx<'_>, why: AttachFailure) {
        let Some(tx) = self.tx.as_mut() else { return };
        if tx.attached != Attached::Asked {
            return;
        }
        let reply = match why {
            AttachFailure::NoUpstream => texts::NO_UPSTREAM,
            AttachFailure::NoSlot => texts::NO_SLOT,
            AttachFailure::Unqualified => tx.unqualified(),
        };
        let replaying = core::mem::take(&mut tx.replay) != Replay::None;
        if self.phase != Phase::Envelope {
            tx.attached = Attached::Lost;
            tx.fail(&reply);
            tx.let_go(cx);
            return self.failed_upstream(cx);
        }
        tx.attached = if replaying {
            Attached::Given
        } else {
            Attached::No
        };
        tx.refuse_untold(&reply);
        self.pump(cx);
    }

    /// The client has been silent for a while: others may use the connection.
    pub(super) fn give_back(&mut self, cx: &mut Cx<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.detach(cx, Detach::Reset);
        tx.given_back = tx.given_back.saturating_add(1);
        tx.part();
    }

    /// A reply in the replay: nothing of it reaches the client, unless a recipient is refused.
    fn replayed(&mut self, cx: &mut Cx<'_>, next: usize, owed: u16, positive: bool) {
        let tx = self.tx_mut();
        if !positive {
            return self.replay_refused(cx);
        }
        tx.replay = Replay::Running {
            next,
            owed: owed - 1,
        };
        self.pump(cx);
        self.replay_on(cx);
    }

    /// Goes on with what the replay was for, once it is over.
    fn replay_on(&mut self, cx: &mut Cx<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        let Replay::Running { next, owed: 0 } = tx.replay else {
            return;
        };
        if next < tx.replay_end {
            return;
        }
        tx.replay = Replay::None;
        if self.waiting == Waiting::Final {
            self.forward_message(cx);
        } else {
            self.stream_on(cx);
        }
    }

    /// An upstream goes back on what it had accepted: the client, who knows nothing, hears a 451
    /// for the whole message.
    fn replay_refused(&mut self, cx: &mut Cx<'_>) {
        let tx = self.tx_mut();
        tx.replay = Replay::None;
        tx.replay_refused = true;
        tx.fail(&texts::REPLAY_REFUSED);
        tx.refuse_untold(&texts::REPLAY_REFUSED);
        tx.let_go(cx);
        if self.phase == Phase::Envelope {
            return self.pump(cx);
        }
        self.failed_upstream(cx);
    }

    pub(super) fn mail_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        if reply.is_positive() {
            return self.pump(cx);
        }
        if tx.replay != Replay::None {
            return self.replay_refused(cx);
        }
        // Remembered: every RCPT of this transaction gets this reply. What the same flight still
        // has coming (503s) is swallowed by the reset.
        tx.heard = true;
        carry(&mut tx.mail_refusal, reply);
        tx.detach(cx, Detach::Reset);
        let refusal = core::mem::take(&mut tx.mail_refusal);
        for index in tx.told..tx.envelope.recipient_count() {
            tx.envelope.recipients[index].state = RecipientState::Refused;
            cx.out.extend_from_slice(&refusal);
        }
        tx.mail_refusal = refusal;
        tx.told = tx.envelope.recipient_count();
        tx.forwarded = tx.told;
        // one error, however many recipients stood behind it (smtp-rules 64)
        if reply.code >= 500 {
            self.stats.errors = self.stats.errors.saturating_add(1);
        }
        self.pump(cx);
    }

    pub(super) fn recipient_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        if let Replay::Running { next, owed } = tx.replay
            && owed > 0
        {
            return self.replayed(cx, next, owed, reply.is_positive());
        }
        let errors = tx.tell(cx);
        self.stats.errors = self.stats.errors.saturating_add(errors);
        let row = &mut tx.envelope.recipients[tx.told];
        assert_eq!(
            row.state,
            RecipientState::Sent,
            "recipients go up in order, so the first one not told is the one answered"
        );
        tx.heard = true;
        tx.told += 1;
        let said = cx.out.len();
        carry(cx.out, reply);
        if reply.is_positive() {
            row.state = RecipientState::Accepted;
            self.stats.recipients = self.stats.recipients.saturating_add(1);
        } else {
            row.state = RecipientState::Refused;
            tx.note_refusal(&cx.out[said..]);
            if reply.code >= 500 {
                self.stats.errors = self.stats.errors.saturating_add(1);
            }
        }
        self.pump(cx);
    }

    /// The leg was lost before a body was on its way. While the client has heard nothing of it, in the first round or
    /// in a replay, what went up goes up again.
    pub(super) fn leg_lost_in_envelope(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        let Some(tx) = self.tx.as_mut() else { return };
        if tx.is_unheard_leg() {
            tx.part();
        } else {
            tx.attached = Attached::Lost;
            tx.replay = Replay::None;
            let reply = lost_reply(why);
            tx.refuse_untold(&reply);
            tx.fail(&reply);
        }
        self.pump(cx);
    }
}

impl Transaction {
    /// No upstream offers what it uses. A message that must travel inside TLS comes back to its sender (RFC 8689, 4.2.1).
    fn unqualified(&self) -> ReplyText {
        match self.envelope.uses().contains(ExtensionSet::REQUIRETLS) {
            true => Violation::NoRequireTls.reply(),
            false => texts::NO_QUALIFIED,
        }
    }

    /// Says the refusals whose turn it is. Returns how many count as errors.
    fn tell(&mut self, cx: &mut Cx<'_>) -> u16 {
        let mut errors = 0;
        while self.told < self.envelope.recipient_count()
            && self.envelope.recipients[self.told].state == RecipientState::Refusing
        {
            let reply = self.envelope.take_refusal(self.told);
            self.envelope.recipients[self.told].state = RecipientState::Refused;
            self.told += 1;
            errors += u16::from(reply.code() >= 500);
            self.note_refusal(reply.as_bytes());
            cx.out.extend_from_slice(reply.as_bytes());
        }
        errors
    }

    /// Sends up the recipients that are cleared, in order, as far as the leg allows.
    fn forward(&mut self, cx: &mut Cx<'_>) {
        if !self.resend(cx) {
            return;
        }
        while self.forwarded < self.envelope.recipient_count() {
            let index = self.forwarded;
            let (state, route) = {
                let row = &self.envelope.recipients[index];
                (row.state, row.route)
            };
            match state {
                RecipientState::Asked(_) => return,
                RecipientState::Cleared => {}
                _ => {
                    self.forwarded += 1;
                    continue;
                }
            }
            match self.attached {
                Attached::No | Attached::Given => return self.ask_for_leg(cx, route),
                Attached::Asked => return,
                Attached::Lost => {
                    self.envelope.refuse(index, texts::UPSTREAM_LOST);
                    continue;
                }
                Attached::Yes(_) => {}
            }
            let leg = cx
                .leg
                .as_deref_mut()
                .expect("an attached leg is passed to every call");
            if route != self.route {
                self.envelope.refuse(index, texts::OTHER_ROUTE);
                continue;
            }
            if !leg.capabilities().set.contains(self.envelope.uses()) {
                self.envelope.refuse(index, self.unqualified());
                continue;
            }
            if !self.send_up(leg, index) {
                return;
            }
        }
    }

    fn send_up(&mut self, leg: &mut Outbound, index: usize) -> bool {
        if !leg.can_pipeline() {
            return false;
        }
        if !self.mail_sent {
            leg.mail(self.envelope.mail_path(), self.envelope.mail_params());
            self.mail_sent = true;
            if !leg.can_pipeline() {
                return false;
            }
        }
        leg.rcpt(self.envelope.recipient_argument(index as u16));
        self.envelope.recipients[index].state = RecipientState::Sent;
        self.forwarded += 1;
        true
    }

    /// Sends up again what was accepted before, in order. True: all of it is up.
    fn resend(&mut self, cx: &mut Cx<'_>) -> bool {
        let Replay::Running { mut next, mut owed } = self.replay else {
            return self.replay == Replay::None;
        };
        let leg = cx
            .leg
            .as_deref_mut()
            .expect("a replay runs on an attached leg");
        while next < self.replay_end && leg.can_pipeline() {
            if !self.mail_sent {
                leg.mail(self.envelope.mail_path(), self.envelope.mail_params());
                self.mail_sent = true;
                continue;
            }
            if self.envelope.recipients[next].state == RecipientState::Accepted {
                leg.rcpt(self.envelope.recipient_argument(next as u16));
                owed += 1;
            }
            next += 1;
        }
        self.replay = Replay::Running { next, owed };
        next == self.replay_end
    }

    pub(super) fn ask_for_leg(&mut self, cx: &mut Cx<'_>, route: RouteId) {
        // Whoever the client has heard of should take the message; before that any will do.
        let prefer = self.upstream.filter(|_| self.heard);
        if self.attached == Attached::Given {
            self.replay = Replay::Due;
            self.replay_end = self.told;
        } else {
            self.route = route;
        }
        self.attached = Attached::Asked;
        self.attempts = self.attempts.saturating_add(1);
        self.attach_asked.get_or_insert(cx.now);
        cx.acts.push_back(Act::Attach {
            needs: self.envelope.uses(),
            route: self.route,
            prefer,
        });
    }

    /// Without a connection from here on. What the last one accepted will be replayed; what it had
    /// not answered goes up as if for the first time.
    pub(super) fn part(&mut self) {
        self.attached = if self.envelope.accepted() > 0 {
            Attached::Given
        } else {
            Attached::No
        };
        self.replay = Replay::None;
        self.mail_sent = false;
        self.stream = Stream::Held;
        for row in &mut self.envelope.recipients[self.told..] {
            if row.state == RecipientState::Sent {
                row.state = RecipientState::Cleared;
            }
        }
        self.forwarded = self.told;
    }

    /// All recipients that wait for an upstream are refused; those still before their gate too,
    /// since the transaction has nowhere to go.
    pub(super) fn refuse_untold(&mut self, reply: &ReplyText) {
        for index in self.told..self.envelope.recipient_count() {
            match self.envelope.recipients[index].state {
                RecipientState::Asked(_) | RecipientState::Cleared | RecipientState::Sent => {
                    self.envelope.refuse(index, reply.clone());
                }
                _ => {}
            }
        }
    }

    /// Gives the leg back, if there is one.
    pub(super) fn detach(&mut self, cx: &mut Cx<'_>, how: Detach) {
        match self.attached {
            Attached::Yes(leg) => cx.acts.push_back(Act::Detach { leg, how }),
            Attached::Asked => cx.acts.push_back(Act::CancelAttach),
            Attached::No | Attached::Given | Attached::Lost => {}
        }
        self.attached = Attached::Lost;
        self.replay = Replay::None;
        cx.leg = None;
    }
}
