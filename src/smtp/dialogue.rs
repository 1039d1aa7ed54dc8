//! A client's side of the conversation, whichever way its upstream is bound: the driver calls one type.

use alloc::boxed::Box;
use core::time::Duration;

use crate::dedicated::Dedicated;
use crate::envelope::Envelope;
use crate::gate::{AskId, Verdict};
use crate::outbound::{LegLost, Owed};
use crate::relay::{
    AttachFailure, Consumed, Cx, Gone, Input, LegId, Parked, Relay, Summary, UpstreamId,
};
use crate::reply::{Reply, ReplyText};
use crate::starttls::PlaintextDrained;
use crate::stats::SessionStats;
use crate::time::Moment;
use crate::xclient::Claim;

/// One client session. The calls are those of [`Relay`], which documents them.
#[derive(Debug)]
pub enum Dialogue {
    /// The upstream connection is shared with other clients, one transaction at a time.
    Multiplexed(Relay),
    /// The upstream connection is this client's alone.
    Dedicated(Box<Dedicated>),
}

/// Passes a call on to whichever machine it is.
macro_rules! pass {
    ($self:ident, $call:ident $(, $argument:expr)*) => {
        match $self {
            Dialogue::Multiplexed(machine) => machine.$call($($argument),*),
            Dialogue::Dedicated(machine) => machine.$call($($argument),*),
        }
    };
}

impl Dialogue {
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        pass!(self, start, cx)
    }

    pub fn set_paced(&mut self, paced: bool) {
        pass!(self, set_paced, paced)
    }

    pub fn handle_input(&mut self, cx: &mut Cx<'_>, input: Input<'_>) -> Consumed {
        pass!(self, handle_input, cx, input)
    }

    pub fn wants_input(&self) -> bool {
        pass!(self, wants_input)
    }

    pub fn handle_verdict(&mut self, cx: &mut Cx<'_>, id: AskId, verdict: Verdict) {
        pass!(self, handle_verdict, cx, id, verdict)
    }

    pub fn handle_attached(&mut self, cx: &mut Cx<'_>, leg: LegId, upstream: UpstreamId) {
        pass!(self, handle_attached, cx, leg, upstream)
    }

    pub fn handle_attach_failed(&mut self, cx: &mut Cx<'_>, why: AttachFailure) {
        pass!(self, handle_attach_failed, cx, why)
    }

    pub fn handle_reply(&mut self, cx: &mut Cx<'_>, owed: Owed, reply: &Reply<'_>) {
        pass!(self, handle_reply, cx, owed, reply)
    }

    pub fn handle_leg_lost(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        pass!(self, handle_leg_lost, cx, why)
    }

    pub fn handle_leg_drained(&mut self, cx: &mut Cx<'_>) {
        pass!(self, handle_leg_drained, cx)
    }

    pub fn handle_client_gone(&mut self, cx: &mut Cx<'_>, gone: Gone) {
        pass!(self, handle_client_gone, cx, gone)
    }

    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        pass!(self, handle_timeout, cx)
    }

    pub fn handle_secured(&mut self, cx: &mut Cx<'_>) {
        pass!(self, handle_secured, cx)
    }

    /// The answer to [`Act::Xclient`](crate::relay::Act::Xclient).
    pub fn handle_claim(&mut self, cx: &mut Cx<'_>, claim: Option<&Claim>) {
        pass!(self, handle_claim, cx, claim)
    }

    /// [`Relay::stamp`]; a message on a connection of its client's own is left as it is.
    pub fn stamp(&mut self, field: &[u8]) {
        if let Dialogue::Multiplexed(machine) = self {
            machine.stamp(field);
        }
    }

    pub fn plaintext_drained(&self, unread: usize) -> Option<PlaintextDrained> {
        pass!(self, plaintext_drained, unread)
    }

    /// The answer to [`Act::Introduce`](crate::relay::Act::Introduce).
    pub fn handle_introduced(&mut self, cx: &mut Cx<'_>) {
        if let Dialogue::Dedicated(machine) = self {
            machine.handle_introduced(cx);
        }
    }

    pub fn handle_shortage(&mut self, cx: &mut Cx<'_>) {
        pass!(self, handle_shortage, cx)
    }

    pub fn refuse(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        pass!(self, refuse, cx, reply)
    }

    pub fn could_give_back(&self, now: Moment, give_back: Duration, after: Duration) -> bool {
        pass!(self, could_give_back, now, give_back, after)
    }

    pub fn deadline(&self) -> Moment {
        pass!(self, deadline)
    }

    pub fn helo(&self) -> &[u8] {
        pass!(self, helo)
    }

    /// The upstream knows the client by more than its address.
    pub fn is_authenticated(&self) -> bool {
        match self {
            Dialogue::Multiplexed(_) => false,
            Dialogue::Dedicated(machine) => machine.is_authenticated(),
        }
    }

    pub fn is_esmtp(&self) -> bool {
        pass!(self, is_esmtp)
    }

    pub fn stats(&self) -> &SessionStats {
        pass!(self, stats)
    }

    pub fn envelope(&self) -> Option<&Envelope> {
        pass!(self, envelope)
    }

    pub fn ended(&self) -> Option<Summary<'_>> {
        pass!(self, ended)
    }

    pub fn leg(&self) -> Option<LegId> {
        pass!(self, leg)
    }

    pub fn body_octets(&self) -> Option<u64> {
        pass!(self, body_octets)
    }

    pub fn is_streaming(&self) -> bool {
        pass!(self, is_streaming)
    }

    pub fn wants_to_stream(&self) -> bool {
        pass!(self, wants_to_stream)
    }

    pub fn is_finished(&self) -> bool {
        pass!(self, is_finished)
    }

    pub fn is_between_transactions(&self) -> bool {
        pass!(self, is_between_transactions)
    }

    pub fn owes_final(&self) -> bool {
        pass!(self, owes_final)
    }

    pub fn owes_reply(&self) -> bool {
        pass!(self, owes_reply)
    }

    pub fn is_parkable(&self) -> bool {
        pass!(self, is_parkable)
    }

    pub fn park(&mut self) -> Parked {
        pass!(self, park)
    }
}
