//! XCLIENT of the client: a peer in front says for whom it speaks.
//!
//! What the upstream knows of the client it learned when its connection was made. So a claim that counts begins all anew,
//! with another connection, and the 220 that XCLIENT is answered with is that connection's greeting.

use alloc::boxed::Box;

use super::{Dedicated, Leg, Phase, Waiting};
use crate::relay::{Act, Cx, Detach};
use crate::violation::Violation;
use crate::xclient::{self, Claim, Said};

impl Dedicated {
    pub fn handle_claim(&mut self, cx: &mut Cx<'_>, claim: Option<&Claim>) {
        assert!(
            self.waiting == Waiting::Claim && self.tx.is_none(),
            "an answer about nobody, or inside a transaction"
        );
        self.recycle_ended();
        self.waiting = Waiting::Nothing;
        match claim {
            None => self.violation(cx, Violation::XclientRefused),
            Some(claim) => {
                self.detach(cx, Detach::Clean);
                self.leg = Leg::No;
                self.introduced = false;
                self.authenticated = false;
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
