//! From the connect gate to the reply to EHLO.

use alloc::boxed::Box;

use super::keywords::{Shown, Shows, filter};
use super::{Dedicated, Leg, Phase, Waiting, Way};
use crate::extension::{ExtensionSet, OwnLimits};
use crate::gate::{RouteId, Stage};
use crate::limits::HELO_MAX;
use crate::relay::{Act, AttachFailure, Cx, TlsOffer};
use crate::reply::Reply;
use crate::texts;

impl Dedicated {
    pub(super) fn attach(&mut self, cx: &mut Cx<'_>) {
        self.leg = Leg::Asked;
        self.waiting = Waiting::Leg;
        self.owed_since = cx.now;
        cx.acts.push_back(Act::Attach {
            needs: ExtensionSet::NONE,
            route: RouteId::default(),
            prefer: None,
        });
    }

    pub(super) fn no_leg(&mut self, cx: &mut Cx<'_>, why: AttachFailure) {
        if self.leg != Leg::Asked {
            return;
        }
        self.leg = Leg::Gone;
        let reply = match why {
            AttachFailure::NoSlot => &texts::OVERLOAD,
            AttachFailure::NoUpstream | AttachFailure::Unqualified => &texts::NOBODY_THERE,
        };
        self.say_and_close(cx, reply);
    }

    /// The upstream's greeting passes, whatever it says.
    pub(super) fn greeted(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        if self.waiting != Waiting::Leg {
            return;
        }
        self.waiting = Waiting::Nothing;
        self.say(cx, reply.text);
        if reply.is_positive() {
            self.phase = Phase::Greeted;
        } else {
            self.phase = Phase::Unwelcome;
            self.let_go(cx);
        }
    }

    pub(super) fn hello(&mut self, cx: &mut Cx<'_>, name: &[u8], esmtp: bool) {
        if self.phase != Phase::Greeted {
            self.junk();
        }
        self.abandon(cx);
        self.esmtp = esmtp;
        self.announced = ExtensionSet::NONE;
        self.helo = Box::from(&name[..name.len().min(HELO_MAX)]);
        let id = self.ask(cx, Stage::Helo);
        self.waiting = Waiting::Helo(id);
    }

    pub(super) fn hello_passed(&mut self, cx: &mut Cx<'_>) {
        self.waiting = Waiting::Opening;
        self.owed_since = cx.now;
        self.open_on(cx);
    }

    /// Sends the client's EHLO up once the leg's own opening is over and the client has been introduced.
    pub(super) fn open_on(&mut self, cx: &mut Cx<'_>) {
        let ready = cx.leg.as_ref().is_some_and(|leg| leg.is_ready());
        if ready && self.waiting == Waiting::Replies {
            // a command that came too early
            return self.replied(cx);
        }
        if self.waiting != Waiting::Opening || !ready {
            return;
        }
        if self.manner.introduces && !self.introduced {
            self.introduced = true;
            cx.acts.push_back(Act::Introduce);
            return;
        }
        self.waiting = Waiting::Reply;
        let (name, esmtp) = (core::mem::take(&mut self.helo), self.esmtp);
        self.send_up(cx, |leg| leg.hello(&name, esmtp));
        self.helo = name;
    }

    pub(super) fn hello_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.waiting = Waiting::Nothing;
        if !reply.is_positive() {
            self.phase = Phase::Greeted;
            self.esmtp = false;
            self.pass(cx, reply);
            return self.replied(cx);
        }
        self.phase = Phase::Ready;
        if !self.esmtp {
            self.pass(cx, reply);
            return self.replied(cx);
        }
        self.owed -= 1;
        let own = OwnLimits {
            message_size_max: cx.config.message_size_max,
            recipients_max: cx.config.recipients_max,
            messages_max: cx.config.messages_max,
        };
        let leg = cx.leg.as_ref().map(|leg| leg.capabilities().set);
        let shows = Shows {
            starttls: self.shown_starttls(cx.tls),
            // what the upstream's reply is worth is known to the leg: no more than its protection
            requiretls: cx.tls == TlsOffer::Active
                && leg.is_some_and(|set| set.contains(ExtensionSet::REQUIRETLS)),
            xclient: cx.announced.caps.set.contains(ExtensionSet::XCLIENT),
        };
        self.announced = filter(cx.out, reply.text, &own, &shows);
        self.replied(cx);
    }

    fn shown_starttls(&self, tls: TlsOffer) -> Shown {
        match (self.manner.starttls, tls) {
            (Way::Offer, TlsOffer::May | TlsOffer::Require) => Shown::Always,
            (_, TlsOffer::Active) | (Way::Off | Way::Offer, _) => Shown::Never,
            (Way::Tunnel | Way::Refuse, _) => Shown::AsOffered,
        }
    }
}
