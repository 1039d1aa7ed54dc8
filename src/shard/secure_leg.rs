//! Upstream connections inside TLS: before the greeting where the upstream is configured so, after STARTTLS elsewhere.
//!
//! A connection whose handshake fails is lost; none goes on in plaintext. In the pool it keeps its TLS.

use std::io;

use weir_smtp::outbound::{LegLost, TlsWanted};
use weir_smtp::starttls::PlaintextDrained;

use crate::maillog::Value;
use crate::metrics::{ClosedLeg, TlsLeg};
use crate::ring::{Group, Wire};
use crate::route::EndpointId;
use crate::tls::{Begin, Connection, Failure, UpstreamMode};

use super::secure::failure_of;
use super::slab::Key;
use super::who::Who;
use super::world::World;

impl<W: Wire> World<W> {
    /// What a new connection to an endpoint does about STARTTLS.
    pub(super) fn tls_wanted(&self, endpoint: EndpointId) -> TlsWanted {
        let tls = self
            .routes
            .get(endpoint)
            .and_then(|endpoint| endpoint.tls());
        match tls {
            Some(tls) if !tls.implicit => match tls.mode {
                UpstreamMode::May => TlsWanted::May,
                UpstreamMode::Require | UpstreamMode::Verify => TlsWanted::Require,
            },
            _ => TlsWanted::Off,
        }
    }

    /// A connection is there: from the first octet it is TLS, or first a greeting is awaited.
    pub(super) fn listen_to_leg(&mut self, key: Key) {
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        self.wire.start_receive(leg.slot, Group::Upstream);
        let tls = self
            .routes
            .get(leg.endpoint)
            .and_then(|endpoint| endpoint.tls());
        if tls.is_some_and(|tls| tls.implicit) {
            self.secure_leg(key, PlaintextDrained::from_the_start());
        }
    }

    /// The 220 to STARTTLS has come, and nothing behind it: the handshake begins as soon as the command's own send is over.
    pub(super) fn secure_leg_if_due(&mut self, key: Key) {
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        if leg.sending || leg.broken || !leg.outbound.wants_tls() {
            return;
        }
        if let Some(drained) = leg.outbound.plaintext_drained(0)
            && !self.wire.is_secure(leg.slot)
        {
            self.secure_leg(key, drained);
        }
    }

    fn secure_leg(&mut self, key: Key, drained: PlaintextDrained) {
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        let endpoint = self.routes.get(leg.endpoint);
        let connection = match endpoint.and_then(|endpoint| endpoint.tls()) {
            Some(tls) => Connection::client(tls.config.clone(), tls.name.clone()),
            // The table has changed meanwhile.
            None => Err(Failure::Internal),
        };
        match connection {
            Ok(connection) => {
                let begin = Begin {
                    slot: leg.slot,
                    owner: Who::Leg(key).owner(),
                    group: Group::Upstream,
                    receiving: true,
                };
                self.wire.begin(begin, connection, &[], drained);
            }
            Err(_) => self.lose_leg(key, LegLost::NoTls, ClosedLeg::Tls),
        }
    }

    /// An upstream's handshake is over.
    pub(super) fn leg_secured(&mut self, key: Key, result: io::Result<()>) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        let slot = leg.slot;
        if let Err(error) = result {
            self.count_failure(TlsLeg::Upstream, &error);
            self.log_leg_failure(key, &error);
            return self.lose_leg(key, LegLost::NoTls, ClosedLeg::Tls);
        }
        let tls = self
            .routes
            .get(leg.endpoint)
            .and_then(|endpoint| endpoint.tls());
        let verified = tls.is_some_and(|tls| tls.mode == UpstreamMode::Verify);
        leg.outbound.handle_secured(verified);
        if let Some(facts) = self.wire.facts(slot) {
            self.count_handshake(TlsLeg::Upstream, facts);
        }
        self.pump(key);
    }

    pub(super) fn log_injection(&mut self, endpoint: EndpointId) {
        if let Some(endpoint) = self.routes.get(endpoint) {
            let fields = [("address", Value::Address(endpoint.addr))];
            self.log.event(self.now, "upstream_tls_injection", &fields);
        }
    }

    fn log_leg_failure(&mut self, key: Key, error: &io::Error) {
        let endpoint = self.legs.get(key).map(|leg| leg.endpoint);
        if let Some(endpoint) = endpoint.and_then(|endpoint| self.routes.get(endpoint)) {
            let fields = [
                ("address", Value::Address(endpoint.addr)),
                ("why", Value::Word(failure_of(error).word())),
            ];
            self.log.event(self.now, "upstream_tls_failed", &fields);
        }
    }
}
