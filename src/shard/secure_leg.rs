//! Upstream connections inside TLS: before the greeting where the upstream is configured so, after STARTTLS elsewhere.
//!
//! A connection whose handshake fails is lost; none goes on in plaintext. In the pool it keeps its TLS.
//!
//! Where TLS is not a must, a server whose handshakes fail would get no mail at all, although one that offers none gets it.
//! So the next connections to it do without (RFC 7435, 3): not for long, and never the one that failed.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use weir_smtp::outbound::{LegLost, TlsWanted};
use weir_smtp::starttls::PlaintextDrained;
use weir_smtp::time::Moment;

use crate::maillog::Value;
use crate::metrics::{ClosedLeg, TlsLeg};
use crate::ring::{Group, Wire};
use crate::route::EndpointId;
use crate::tls::{Begin, Connection, Failure, UpstreamMode, UpstreamTls};

use super::secure::failure_of;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// How long connections go without TLS after a handshake that failed.
const WITHOUT_TLS: Duration = Duration::from_secs(600);

/// What a new connection does about STARTTLS.
pub(super) fn tls_wanted(tls: &Option<UpstreamTls>) -> TlsWanted {
    match tls {
        Some(tls) if !tls.implicit => match tls.mode {
            UpstreamMode::May => TlsWanted::May,
            UpstreamMode::Require | UpstreamMode::Verify => TlsWanted::Require,
        },
        _ => TlsWanted::Off,
    }
}

/// What a handshake that failed means. Trouble of weir's own is not the server's: clients that use up weir's memory must not
/// bring it to do without TLS.
fn lost_by(failure: Option<Failure>) -> LegLost {
    match failure {
        Some(Failure::NoRoom | Failure::Internal) => LegLost::Closed,
        _ => LegLost::NoTls,
    }
}

impl<W: Wire> World<W> {
    /// How a new connection is spoken to, of this client's own or of the pool; None: in plaintext.
    pub(super) fn tls_for(
        &self,
        endpoint: EndpointId,
        to: SocketAddr,
        client: Option<IpAddr>,
    ) -> Option<UpstreamTls> {
        let there = self.routes.get(endpoint)?;
        let mut tls = there.tls()?.clone();
        let without = if there.is_anywhere() {
            tls.name = ServerName::IpAddress(to.ip().to_canonical().into());
            client.is_some_and(|client| self.destinations.goes_without_tls(client, to, self.now))
        } else {
            there.goes_without_tls(self.now)
        };
        if without {
            let upstream = self.upstream_of(endpoint);
            self.counters.upstream_tls_forgone.at(upstream).inc();
            return None;
        }
        Some(tls)
    }

    /// A connection is there: from the first octet it is TLS, or first a greeting is awaited.
    pub(super) fn listen_to_leg(&mut self, key: Key) {
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        self.wire.start_receive(leg.slot, Group::Upstream);
        if leg.begins_with_tls() {
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
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        let Some(tls) = &leg.tls else {
            unreachable!("only who has TLS to speak is told to");
        };
        let connection = Connection::client(tls.config.clone(), tls.name.clone());
        if leg.own {
            // The session's deadlines are for replies, and none is owed.
            leg.due = self.now + self.config.leg.handshake;
        }
        match connection {
            Ok(connection) => {
                let begin = Begin {
                    slot: leg.slot,
                    owner: Who::Leg(key).owner(),
                    group: Group::Upstream,
                    receiving: true,
                };
                self.wire.begin(begin, connection, &[], drained);
                self.arm_leg(key);
            }
            Err(failure) => self.lose_leg(key, lost_by(Some(failure)), ClosedLeg::Tls),
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
            let why = lost_by(Failure::of(&error));
            return self.lose_leg(key, why, ClosedLeg::Tls);
        }
        let tls = leg.tls.as_ref();
        let verified = tls.is_some_and(|tls| tls.mode == UpstreamMode::Verify);
        leg.outbound.handle_secured(verified);
        if leg.own {
            leg.due = Moment::NEVER;
        }
        let session = leg.session();
        if let Some(facts) = self.wire.facts(slot) {
            self.count_handshake(TlsLeg::Upstream, facts);
            // Its own connection; those of the pool are attached later.
            if let Some(session) = session.and_then(|key| self.sessions.get_mut(key)) {
                session.leg_tls = Some(facts.version);
            }
        }
        self.pump(key);
    }

    /// A connection is about to be lost. True: in its handshake, and mail may go there without.
    pub(super) fn forgo_tls(&mut self, key: Key, why: LegLost) -> bool {
        let leg = self.legs.get(key);
        let Some(leg) = leg.filter(|leg| leg.may_forgo_tls(why)) else {
            return false;
        };
        let (to, endpoint, until) = (leg.address, leg.endpoint, self.now + WITHOUT_TLS);
        let news = if self.is_anywhere(endpoint) {
            let session = leg.session().and_then(|key| self.sessions.get(key));
            let Some(client) = session.map(Session::client_ip) else {
                return false;
            };
            self.destinations.forgo_tls(client, to, self.now, until)
        } else {
            self.routes.forgo_tls(endpoint, self.now, until)
        };
        if news {
            let fields = [
                ("address", Value::Address(to)),
                ("seconds", Value::Number(WITHOUT_TLS.as_secs())),
            ];
            self.log.event(self.now, "upstream_tls_forgone", &fields);
        }
        true
    }

    pub(super) fn log_injection(&mut self, address: SocketAddr) {
        let fields = [("address", Value::Address(address))];
        self.log.event(self.now, "upstream_tls_injection", &fields);
    }

    /// TLS is wanted, and the server did not offer or would not begin it.
    pub(super) fn log_no_tls(&mut self, key: Key) {
        self.log_tls_failed(key, "not_offered");
    }

    fn log_leg_failure(&mut self, key: Key, error: &io::Error) {
        self.log_tls_failed(key, failure_of(error).word());
    }

    fn log_tls_failed(&mut self, key: Key, why: &'static str) {
        if let Some(leg) = self.legs.get(key) {
            let fields = [
                ("address", Value::Address(leg.address)),
                ("why", Value::Word(why)),
            ];
            self.log.event(self.now, "upstream_tls_failed", &fields);
        }
    }
}
