//! MAIL and RCPT: checked, asked about, passed.

use super::transaction::Transaction;
use super::{Dedicated, Phase, Waiting};
use crate::command::{MailArgs, RcptArgs};
use crate::envelope::RecipientState;
use crate::extension::ExtensionSet;
use crate::gate::{AskId, Stage};
use crate::limits::RECIPIENTS_LIMIT;
use crate::relay::Cx;
use crate::reply::Reply;
use crate::texts;
use crate::violation::Violation;

/// Why weir itself refuses a MAIL.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum MailRefused {
    For(Violation),
    /// It ends the session.
    TooManyMessages,
}

impl Dedicated {
    pub(super) fn refuses_mail(&self, cx: &Cx<'_>, args: &MailArgs<'_>) -> Option<MailRefused> {
        let messages = u32::from(self.stats.transactions);
        let size_max = cx.config.message_size_max;
        if cx.config.messages_max != 0 && messages >= cx.config.messages_max {
            Some(MailRefused::TooManyMessages)
        } else if size_max != 0 && args.size.is_some_and(|size| size > size_max) {
            Some(MailRefused::For(Violation::MessageTooBig))
        } else {
            None
        }
    }

    pub(super) fn mail(&mut self, cx: &mut Cx<'_>, args: &MailArgs<'_>) {
        match self.phase {
            Phase::Greeted => return self.violation(cx, Violation::NeedHelo),
            Phase::Ready => {}
            _ => return self.violation(cx, Violation::NestedMail),
        }
        match self.refuses_mail(cx, args) {
            Some(MailRefused::For(violation)) => return self.violation(cx, violation),
            Some(MailRefused::TooManyMessages) => {
                return self.say_and_close(cx, &texts::TOO_MANY_MESSAGES);
            }
            None => {}
        }
        let mut tx = self.spare.take().unwrap_or_default();
        tx.started = cx.now;
        tx.envelope.set_mail(args);
        self.tx = Some(tx);
        self.phase = Phase::Envelope;
        let id = self.ask(cx, Stage::Mail);
        self.waiting = Waiting::Mail(id);
    }

    pub(super) fn mail_passed(&mut self, cx: &mut Cx<'_>) {
        self.stats.transactions = self.stats.transactions.saturating_add(1);
        let Some(mut tx) = self.tx.take() else { return };
        let envelope = &tx.envelope;
        self.send_up(cx, |leg| {
            leg.mail(envelope.mail_path(), envelope.mail_params())
        });
        tx.begun = true;
        self.tx = Some(tx);
    }

    pub(super) fn mail_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.pass(cx, reply);
        if reply.code >= 400 {
            // what the same flight still has coming is refused by the upstream, each with its own reply
            self.tx_mut().refused = true;
            self.tx_mut().note_refusal(reply.text);
        }
        if reply.code >= 500 {
            // one error, however many recipients stood behind it (smtp-rules 64)
            self.count_error();
        }
        self.replied(cx);
    }

    /// Why weir itself refuses a RCPT of the transaction `tx`.
    pub(super) fn refuses_recipient(
        &self,
        cx: &Cx<'_>,
        tx: &Transaction,
        args: &RcptArgs<'_>,
    ) -> Option<Violation> {
        let max = match cx.config.recipients_max as usize {
            0 => RECIPIENTS_LIMIT,
            limit => limit.min(RECIPIENTS_LIMIT),
        };
        let utf8 = args.uses.contains(ExtensionSet::SMTPUTF8);
        match self.phase {
            Phase::BetweenChunks => Some(Violation::BadSequence),
            Phase::Envelope if tx.refused => Some(Violation::NeedMail),
            Phase::Envelope if utf8 && !tx.envelope.is_smtputf8() => {
                Some(Violation::Utf8NotDeclared)
            }
            Phase::Envelope if tx.envelope.recipient_count() >= max => {
                Some(Violation::TooManyRecipients)
            }
            Phase::Envelope => None,
            _ => Some(Violation::NeedMail),
        }
    }

    pub(super) fn rcpt(&mut self, cx: &mut Cx<'_>, args: &RcptArgs<'_>) {
        let Some(tx) = self.tx.as_ref() else {
            return self.violation(cx, Violation::NeedMail);
        };
        if let Some(violation) = self.refuses_recipient(cx, tx, args) {
            return self.violation(cx, violation);
        }
        let ask = AskId(self.asks.wrapping_add(1));
        let index = self.tx_mut().envelope.add_recipient(args, ask, cx.now);
        let id = self.ask(cx, Stage::Rcpt { index });
        self.waiting = Waiting::Rcpt(id, index);
    }

    pub(super) fn recipient_passed(&mut self, cx: &mut Cx<'_>, index: u16) {
        let Some(mut tx) = self.tx.take() else { return };
        tx.envelope.recipients[usize::from(index)].state = RecipientState::Sent;
        let argument = tx.envelope.recipient_argument(index);
        self.send_up(cx, |leg| leg.rcpt(argument));
        tx.unanswered += 1;
        self.tx = Some(tx);
    }

    pub(super) fn recipient_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.pass(cx, reply);
        let tx = self.tx_mut();
        let refused = tx.refused;
        tx.answered(reply);
        if reply.is_positive() {
            self.stats.recipients = self.stats.recipients.saturating_add(1);
        } else if reply.code >= 500 && !refused {
            self.count_error();
        }
        self.replied(cx);
    }
}
