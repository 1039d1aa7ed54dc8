//! STARTTLS on the client's side (RFC 3207): who may begin it, what is forgotten by it, what is refused without it.

use alloc::boxed::Box;

use super::{Act, Cx, Inbound, LineVerdict, Phase, Relay, TlsOffer, Waiting};
use crate::command::Command;
use crate::gate::Stage;
use crate::starttls::PlaintextDrained;
use crate::texts;
use crate::violation::Violation;

/// RFC 3207, 4: served before TLS where that is required. HELO and RSET do nothing for anybody without mail; XCLIENT is how a trusted peer in
/// front says for whom it asks.
pub(crate) fn is_for_plaintext(command: &Command<'_>) -> bool {
    matches!(
        command,
        Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Noop
            | Command::Rset
            | Command::StartTls
            | Command::Xclient(_)
            | Command::Quit
    )
}

impl Relay {
    /// The handshake of the last `Act::StartTls` is over, and `cx.tls` says so. Everything is as after the greeting: what the client said in
    /// plaintext may have been said by somebody in between (RFC 3207, 4.2). Its errors stay counted.
    pub fn handle_secured(&mut self, cx: &mut Cx<'_>) {
        assert!(
            self.waiting == Waiting::Handshake && self.tx.is_none(),
            "a handshake that nobody asked for, or inside a transaction"
        );
        self.recycle_ended(cx);
        self.waiting = Waiting::Nothing;
        self.begin_anew();
        if let Some(farewell) = self.farewell.take() {
            self.say_and_close(cx, &farewell);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// `unread`: octets received and not fed. The proof that a handshake may begin; none while there is something of the plaintext left, or no
    /// handshake is due.
    pub fn plaintext_drained(&self, unread: usize) -> Option<PlaintextDrained> {
        let holds = self.waiting != Waiting::Handshake
            || self.inbound.is_mid_line()
            || self.swallow > 0
            || !matches!(self.line_verdict, LineVerdict::None);
        PlaintextDrained::proven(holds, unread)
    }

    pub(super) fn start_tls(&mut self, cx: &mut Cx<'_>) {
        let violation = match (cx.tls, self.phase) {
            (TlsOffer::Active, _) => Violation::TlsActive,
            (TlsOffer::Off, _) => Violation::NotImplemented,
            // whoever said HELO has not seen it offered
            (_, Phase::Greeted) => Violation::NeedHelo,
            (_, Phase::Ready) if !self.esmtp => Violation::NeedHelo,
            (_, Phase::Ready) => {
                let id = self.ask(cx, Stage::StartTls);
                self.waiting = Waiting::StartTls(id);
                return;
            }
            _ => Violation::BadSequence,
        };
        self.violation(cx, violation);
    }

    /// Policy has nothing against it.
    pub(super) fn begin_handshake(&mut self, cx: &mut Cx<'_>) {
        self.say(cx, &texts::TLS_GO_AHEAD);
        self.waiting = Waiting::Handshake;
        cx.acts.push_back(Act::StartTls);
    }

    /// As after the greeting.
    pub(super) fn begin_anew(&mut self) {
        self.phase = Phase::Greeted;
        self.esmtp = false;
        self.helo = Box::default();
        self.announced = Default::default();
        self.inbound = Inbound::default();
        self.line_verdict = LineVerdict::None;
        self.swallow = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair::{FULL, Pair};
    use super::*;
    use crate::gate::Verdict;
    use core::time::Duration;

    fn offered() -> Pair {
        let mut pair = Pair::greeted(FULL, usize::MAX);
        pair.tls = TlsOffer::May;
        pair
    }

    fn begun() -> Pair {
        let mut pair = offered();
        pair.say("STARTTLS\r\n");
        assert_eq!(pair.heard(), "220 2.0.0 Ready to start TLS\r\n");
        assert_eq!(pair.handshakes, 1);
        pair
    }

    fn secure(pair: &mut Pair) {
        pair.tls = TlsOffer::Active;
        pair.call(|relay, cx| relay.handle_secured(cx));
    }

    #[test]
    fn there_is_no_proof_before_a_handshake_is_due_nor_with_something_left() {
        let mut pair = offered();
        assert_eq!(pair.relay.plaintext_drained(0), None);
        pair.say("START");
        assert_eq!(pair.relay.plaintext_drained(0), None);
        pair.say("TLS\r\n");
        assert_eq!(pair.relay.plaintext_drained(1), None);
        assert!(pair.relay.plaintext_drained(0).is_some());
        secure(&mut pair);
        assert_eq!(pair.relay.plaintext_drained(0), None);
    }

    #[test]
    fn a_handshake_is_waited_for_in_silence() {
        let mut pair = begun();
        assert!(!pair.relay.wants_input() && !pair.relay.owes_reply());
        assert!(!pair.relay.is_parkable() && !pair.relay.is_between_transactions());
        pair.call(|relay, cx| relay.refuse(cx, &texts::SHUTDOWN));
        assert_eq!((pair.heard().as_str(), pair.closed), ("", None));
        secure(&mut pair);
        assert_eq!(pair.heard(), "421 4.3.2 Service shutting down\r\n");
        assert_eq!(pair.closed, Some(true));
    }

    #[test]
    fn a_handshake_that_does_not_end_is_cut_without_a_word() {
        let mut pair = begun();
        pair.now = pair.relay.deadline();
        assert!(
            pair.now.since(crate::time::Moment::from_micros(1_000_000)) == Duration::from_secs(30)
        );
        pair.call(|relay, cx| relay.handle_timeout(cx));
        assert_eq!((pair.heard().as_str(), pair.closed), ("", Some(false)));
        assert_eq!(
            pair.relay.plaintext_drained(0),
            None,
            "too late to begin one"
        );
    }

    #[test]
    fn nothing_but_counts_survives_a_handshake() {
        let mut pair = begun();
        let commands = pair.relay.stats().commands;
        secure(&mut pair);
        assert!(pair.relay.helo().is_empty() && !pair.relay.is_esmtp());
        assert_eq!(pair.relay.stats().commands, commands);
        pair.say("EHLO again\r\nNOOP\r\n");
        assert!(pair.heard().starts_with("250-weir.example"));
        assert_eq!(pair.relay.stats().junk, 1, "the NOOP, not the EHLO");
    }

    #[test]
    fn a_verdict_that_does_not_come_is_our_local_problem() {
        let mut pair = offered();
        pair.late = true;
        pair.say("STARTTLS\r\n");
        pair.now = pair.relay.deadline();
        pair.call(|relay, cx| relay.handle_timeout(cx));
        assert_eq!(
            pair.heard(),
            "454 4.7.0 TLS not available due to local problem\r\n"
        );
        assert_eq!(pair.handshakes, 0);
        pair.answer_all(false);
        assert_eq!(
            pair.handshakes, 0,
            "an answer that is too late does no harm"
        );
    }

    #[test]
    fn policy_may_close_over_it() {
        let mut pair = offered();
        pair.verdicts = |stage| match stage {
            Stage::StartTls => Verdict::Close(texts::OVERLOAD),
            _ => Verdict::Pass,
        };
        pair.say("STARTTLS\r\nNOOP\r\n");
        assert!(pair.heard().starts_with("421 4.3.2"));
        assert_eq!((pair.handshakes, pair.closed), (0, Some(true)));
    }
}
