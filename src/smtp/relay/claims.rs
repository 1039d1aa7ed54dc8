//! XCLIENT on the client's side: a peer in front says for whom it speaks (Postfix, XCLIENT_README).

use alloc::boxed::Box;

use super::{Act, Cx, Phase, Relay, Waiting};
use crate::violation::Violation;
use crate::xclient::{self, Claim, Said};

impl Relay {
    /// The answer to `Act::Xclient`. With the claim: it counts, and everything is as before the greeting, which policy gives to the client
    /// that was introduced, or not (XCLIENT_README, "Server response"). Without: the peer may not say that, and nothing has changed.
    pub fn handle_claim(&mut self, cx: &mut Cx<'_>, claim: Option<&Claim>) {
        assert!(
            self.waiting == Waiting::Claim && self.tx.is_none(),
            "an answer about nobody, or inside a transaction"
        );
        self.recycle_ended(cx);
        self.waiting = Waiting::Nothing;
        match claim {
            None => self.violation(cx, Violation::XclientRefused),
            Some(claim) => {
                self.begin_anew();
                self.phase = Phase::Connecting;
                if let Some(Said::Is(helo)) = &claim.helo {
                    self.helo = helo.clone();
                }
                self.start(cx);
            }
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    pub(super) fn xclient(&mut self, cx: &mut Cx<'_>, argument: &[u8]) {
        if !matches!(self.phase, Phase::Greeted | Phase::Ready) {
            return self.violation(cx, Violation::BadSequence);
        }
        let Some(claim) = xclient::parse(argument) else {
            return self.violation(cx, Violation::BadParameter);
        };
        self.waiting = Waiting::Claim;
        cx.acts.push_back(Act::Xclient(Box::new(claim)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::pair::{FULL, Pair};
    use crate::gate::{Stage, Verdict};
    use crate::reply::ReplyText;
    use crate::texts;

    const LINE: &str = "XCLIENT ADDR=192.0.2.1 HELO=told.example\r\n";

    /// A peer that is trusted, or is not.
    fn peer(trusted: bool) -> Pair {
        let mut pair = Pair::greeted(FULL, usize::MAX);
        pair.trusted = trusted;
        pair
    }

    #[test]
    fn a_client_is_introduced_before_its_greeting() {
        let mut pair = peer(true);
        pair.say(LINE);
        assert_eq!(pair.heard(), "220 weir.example ESMTP\r\n");
        assert_eq!(pair.claims.len(), 1);
        assert!(!pair.relay.is_esmtp());
        assert_eq!(pair.relay.helo(), b"told.example");
        pair.say("MAIL FROM:<a@b>\r\n");
        assert!(pair.heard().starts_with("503 5.5.1"), "HELO comes first");
        pair.say("EHLO real.example\r\nMAIL FROM:<a@b>\r\n");
        assert!(pair.heard().ends_with("250 2.1.0 Ok\r\n"));
        assert_eq!(pair.relay.helo(), b"real.example");
    }

    #[test]
    fn who_is_not_trusted_changes_nothing() {
        let mut pair = peer(false);
        pair.say(LINE);
        assert_eq!(
            pair.heard(),
            "550 5.7.0 Error: insufficient authorization\r\n"
        );
        assert_eq!(pair.relay.helo(), b"client");
        assert_eq!(pair.relay.stats().errors, 1);
        pair.say("MAIL FROM:<a@b>\r\n");
        assert_eq!(pair.heard(), "250 2.1.0 Ok\r\n");
    }

    #[test]
    fn policy_may_turn_away_whoever_was_introduced() {
        for (verdict, closed) in [
            (
                Verdict::Refuse(ReplyText::fixed("554 5.7.1 not you\r\n")),
                None,
            ),
            (
                Verdict::Close(ReplyText::fixed("554 5.7.1 not you\r\n")),
                Some(true),
            ),
        ] {
            let mut pair = peer(true);
            pair.late = true;
            pair.say(LINE);
            let (id, stage) = pair.asked.remove(0);
            assert_eq!(stage, Stage::Connect);
            pair.call(|relay, cx| relay.handle_verdict(cx, id, verdict.clone()));
            assert_eq!(pair.heard(), "554 5.7.1 not you\r\n");
            assert_eq!(pair.closed, closed);
            if closed.is_none() {
                pair.say("EHLO again\r\n");
                assert!(pair.heard().starts_with("503 5.5.1"), "it is not welcome");
            }
        }
    }

    #[test]
    fn a_claim_is_none_inside_a_transaction_and_badly_written() {
        let mut pair = peer(true);
        pair.say("XCLIENT ADDR=192.0.2.1 SHOE=44\r\nXCLIENT\r\n");
        assert!(pair.heard().matches("501 5.5.4").count() == 2);
        pair.say("MAIL FROM:<a@b>\r\n");
        pair.heard();
        pair.say(LINE);
        assert!(pair.heard().starts_with("503 5.5.1"));
        assert!(pair.claims.is_empty());
    }

    #[test]
    fn an_answer_that_does_not_come_ends_the_session() {
        let mut pair = peer(true);
        pair.answers_claims = false;
        pair.say(LINE);
        assert!(!pair.relay.wants_input());
        pair.now = pair.relay.deadline();
        pair.call(|relay, cx| relay.handle_timeout(cx));
        assert_eq!(pair.heard().as_bytes(), texts::TIMEOUT.as_bytes());
        assert_eq!(pair.closed, Some(true));
    }
}
