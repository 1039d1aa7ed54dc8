//! STARTTLS of the client, by the session's [`Way`].

use alloc::boxed::Box;

use super::{Dedicated, Phase, Waiting, Way};
use crate::extension::ExtensionSet;
use crate::gate::Stage;
use crate::inbound::Inbound;
use crate::outbound::Owed;
use crate::relay::{Act, Cx, LineVerdict, TlsOffer};
use crate::reply::Reply;
use crate::starttls::PlaintextDrained;
use crate::texts;
use crate::violation::Violation;

impl Dedicated {
    pub(super) fn start_tls(&mut self, cx: &mut Cx<'_>) {
        let offered = match self.manner.starttls {
            Way::Off => false,
            Way::Offer => cx.tls != TlsOffer::Off,
            Way::Tunnel | Way::Refuse => self.announced.contains(ExtensionSet::STARTTLS),
        };
        let violation = match self.phase {
            _ if cx.tls == TlsOffer::Active => Violation::TlsActive,
            // whoever said HELO has not seen it offered
            Phase::Greeted => Violation::NeedHelo,
            Phase::Ready if !self.esmtp => Violation::NeedHelo,
            _ if !offered => Violation::NotImplemented,
            // The upstream would still take the client for whoever said that in the clear: somebody in between, perhaps, to
            // whose account the mail would go that comes inside TLS. Nothing but another connection forgets it.
            Phase::Ready if self.authenticated && self.manner.starttls == Way::Offer => {
                Violation::BadSequence
            }
            Phase::Ready if self.manner.starttls == Way::Refuse => {
                return self.say(cx, texts::TLS_UNAVAILABLE.as_bytes());
            }
            Phase::Ready => {
                let id = self.ask(cx, Stage::StartTls);
                self.waiting = Waiting::StartTls(id);
                return;
            }
            _ => Violation::BadSequence,
        };
        self.violation(cx, violation);
    }

    /// Policy has nothing against it.
    pub(super) fn starttls_passed(&mut self, cx: &mut Cx<'_>) {
        if self.manner.starttls == Way::Tunnel {
            self.waiting = Waiting::Reply;
            return self.send_up(cx, |leg| leg.pass(b"STARTTLS", Owed::Tunnel));
        }
        self.say(cx, texts::TLS_GO_AHEAD.as_bytes());
        self.waiting = Waiting::Handshake;
        cx.acts.push_back(Act::StartTls);
    }

    /// The upstream's reply to the client's STARTTLS: with its 220 weir has nothing more to say.
    pub(super) fn tunnel_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.waiting = Waiting::Nothing;
        self.pass(cx, reply);
        if reply.code != 220 {
            return self.replied(cx);
        }
        self.phase = Phase::Tunnel;
        self.inbound = Inbound::default();
        cx.acts.push_back(Act::Tunnel);
    }

    /// The handshake of the last `Act::StartTls` is over, and `cx.tls` says so. Everything is as after the greeting, but
    /// for the upstream, which hears the client's next EHLO.
    pub fn handle_secured(&mut self, cx: &mut Cx<'_>) {
        assert!(
            self.waiting == Waiting::Handshake && self.tx.is_none(),
            "a handshake that nobody asked for, or inside a transaction"
        );
        self.recycle_ended();
        self.waiting = Waiting::Nothing;
        self.begin_anew();
        if let Some(farewell) = self.farewell.take() {
            self.say_and_close(cx, &farewell);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// As after the greeting.
    pub(super) fn begin_anew(&mut self) {
        self.phase = Phase::Greeted;
        self.esmtp = false;
        self.helo = Box::default();
        self.announced = ExtensionSet::NONE;
        self.inbound = Inbound::default();
        self.line_verdict = LineVerdict::None;
        self.swallow = 0;
    }

    /// `unread`: octets received and not fed. The proof that nothing of the plaintext is left, where a handshake begins
    /// here or behind weir.
    pub fn plaintext_drained(&self, unread: usize) -> Option<PlaintextDrained> {
        let due = self.waiting == Waiting::Handshake || self.phase == Phase::Tunnel;
        let holds = !due
            || self.inbound.is_mid_line()
            || self.swallow > 0
            || !matches!(self.line_verdict, LineVerdict::None);
        PlaintextDrained::proven(holds, unread)
    }
}
