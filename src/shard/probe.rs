//! Health probes: one shard asks every endpoint how it is, in SMTP, and tells all shards.
//!
//! A probe is an upstream connection with an errand: greeting, EHLO, QUIT. So it sees what a transaction would see, and
//! brings home what the EHLO reply offers, from which all shards compute what weir announces. At start it also asks
//! whether the server relays for the world: weir stands between it and its access rules, and must not open what they close.

use std::net::SocketAddr;

use weir_smtp::extension::Capabilities;
use weir_smtp::outbound::{LegLost, Owed};

use crate::maillog::Value;
use crate::metrics::{ClosedLeg, Probe};
use crate::ring::Wire;
use crate::route::{Approach, Endpoint, EndpointId, Failure};

use super::leg::Duty;
use super::mail::{Mail, ProbeFailure, To};
use super::slab::Key;
use super::who::{Chore, Who};
use super::world::World;

/// The shard that probes for all.
const PROBER: usize = 0;

/// A sender and a recipient that no server should want to bring together for a stranger. RFC 2606 keeps the names free.
const FOREIGN_SENDER: &[u8] = b"<relay-test@weir-probe.invalid>";
const FOREIGN_RECIPIENT: &[u8] = b"<relay-test@weir-probe.example>";

/// Where a probe stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Errand {
    /// EHLO is awaited, then QUIT.
    Greet,
    /// EHLO is awaited, then the relay test.
    GreetAndTest,
    /// MAIL, RCPT and RSET are out.
    Testing,
    /// All is known.
    Done,
}

impl<W: Wire> World<W> {
    /// Asks all endpoints. The timer for the next round is set here too.
    pub(super) fn send_probes(&mut self) {
        if self.shard != PROBER || self.drain.is_on() {
            return;
        }
        if !self.config.probe.interval.is_zero() {
            let next = self.now + self.config.probe.interval;
            self.wheel.insert(next, Who::Chore(Chore::Probe).to_bits());
        }
        self.probe_endpoints(|_| true);
    }

    /// The table of upstreams is new: who was not in it before is asked at once, and the relay question too.
    pub(super) fn probe_newcomers(&mut self) {
        if self.shard != PROBER || self.drain.is_on() {
            return;
        }
        let routes = &self.routes;
        let present =
            |approach: &Approach| routes.iter().any(|(_, endpoint)| endpoint.is_at(approach));
        self.introduced.retain(present);
        self.probe_endpoints(|new| new);
    }

    fn probe_endpoints(&mut self, wanted: impl Fn(bool) -> bool) {
        let endpoints = self
            .routes
            .iter()
            .filter(|(_, endpoint)| !endpoint.is_retired() && !endpoint.is_anywhere());
        let probes: Vec<(EndpointId, Errand)> = endpoints
            .map(|(id, endpoint)| {
                (
                    id,
                    !self.introduced.iter().any(|known| endpoint.is_at(known)),
                )
            })
            .filter(|(_, new)| wanted(*new))
            // What it relays for weir's own address is no question where it sees the client's.
            .map(|(id, new)| match new && self.config.tests_relaying() {
                true => (id, Errand::GreetAndTest),
                false => (id, Errand::Greet),
            })
            .collect();
        for (id, errand) in probes {
            // A probe that still hangs is answer enough; its own deadline ends it.
            let busy = self
                .legs
                .iter()
                .any(|(_, leg)| leg.endpoint == id && matches!(leg.duty, Duty::Probing(_)));
            if !busy && self.connect(id, Duty::Probing(errand)).is_err() {
                // No slot for a probe: that says something of us and nothing of the endpoint.
                return;
            }
        }
    }

    pub(super) fn probe_replied(&mut self, key: Key, errand: Errand, owed: Owed, code: u16) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        match (errand, owed) {
            (Errand::Greet | Errand::GreetAndTest, Owed::Ehlo | Owed::Helo | Owed::StartTls)
                if leg.outbound.is_ready() =>
            {
                let caps = *leg.outbound.capabilities();
                let endpoint = leg.endpoint;
                if errand == Errand::GreetAndTest {
                    leg.duty = Duty::Probing(Errand::Testing);
                    leg.outbound.mail(FOREIGN_SENDER, b"");
                } else {
                    leg.duty = Duty::Probing(Errand::Done);
                    leg.outbound.quit();
                }
                self.probe_done(endpoint, Ok(caps));
            }
            // One by one: a server without PIPELINING is asked the same question.
            (Errand::Testing, Owed::Mail) if code < 300 => leg.outbound.rcpt(FOREIGN_RECIPIENT),
            (Errand::Testing, Owed::Mail | Owed::Rcpt) => {
                let endpoint = leg.endpoint;
                leg.duty = Duty::Probing(Errand::Done);
                leg.outbound.begin_reset();
                if owed == Owed::Rcpt && code < 300 {
                    self.warn_of_open_relay(endpoint);
                }
            }
            (Errand::Done, Owed::Rset) => leg.outbound.quit(),
            (Errand::Done, Owed::Quit) => self.close_leg(key, None),
            _ => {}
        }
    }

    /// A probe's connection ended before it was let go.
    pub(super) fn probe_lost(
        &mut self,
        endpoint: EndpointId,
        errand: Errand,
        why: LegLost,
        reason: ClosedLeg,
    ) {
        if !matches!(errand, Errand::Greet | Errand::GreetAndTest) {
            return;
        }
        let failure = match (why, reason) {
            (_, ClosedLeg::ConnectFailed) => ProbeFailure::Connect,
            (LegLost::Timeout, _) => ProbeFailure::Timeout,
            (LegLost::Closed, _) => ProbeFailure::Closed,
            (LegLost::Protocol | LegLost::Injection, _) => ProbeFailure::Protocol,
            (LegLost::Refused421 | LegLost::Unwelcome, _) => ProbeFailure::Refused,
            (LegLost::NoTls, _) => ProbeFailure::Tls,
        };
        self.probe_done(endpoint, Err(failure));
    }

    /// Its handshake failed and mail does not depend on it: the endpoint is asked in plaintext.
    pub(super) fn probe_again(&mut self, endpoint: EndpointId, errand: Errand) {
        if !self.drain.is_on() && self.connect(endpoint, Duty::Probing(errand)).is_err() {
            // No slot for it now: the next round asks.
            log::debug!("no slot to probe an upstream again without TLS");
        }
    }

    fn probe_done(&mut self, endpoint: EndpointId, result: Result<Capabilities, ProbeFailure>) {
        let Some(approach) = self.routes.get(endpoint).map(Endpoint::approach) else {
            return;
        };
        let upstream = self.upstream_of(endpoint);
        let known = self.introduced.iter().any(|one| one.is_like(&approach));
        if result.is_ok() && !known {
            self.introduced.push(approach.clone());
        }
        let word = if result.is_ok() {
            Probe::Passed
        } else {
            Probe::Failed
        };
        self.counters.upstream_probes.at(upstream, word).inc();
        let told = approach.clone();
        self.outgoing.push_back((
            To::Others,
            Mail::Probed {
                approach: told,
                result,
            },
        ));
        self.probed(&approach, result);
    }

    /// What a probe found, on every shard.
    pub(super) fn probed(
        &mut self,
        approach: &Approach,
        result: Result<Capabilities, ProbeFailure>,
    ) {
        let address = approach.addr;
        let news = self.routes.probed(approach, result.ok(), self.now);
        if let Err(why) = result
            && news.ejected
        {
            self.log_endpoint("upstream_ejected", address, why.word());
            self.count_upstreams_at(approach, |counters, upstream| {
                counters.upstream_ejections.at(upstream).inc()
            });
        }
        if news.returned {
            self.log_endpoint("upstream_returned", address, "probe");
            self.count_upstreams_at(approach, |counters, upstream| {
                counters.upstream_returns.at(upstream).inc()
            });
        }
        if news.caps_changed || news.ejected || news.returned {
            self.announce();
        }
        self.count_pools();
        self.open_for_waiters();
    }

    /// An endpoint failed a connection or said 421.
    pub(super) fn endpoint_failed(&mut self, id: EndpointId, why: Failure) {
        let endpoint = self
            .routes
            .get(id)
            .filter(|endpoint| !endpoint.is_anywhere());
        let Some(address) = endpoint.map(|endpoint| endpoint.addr) else {
            return;
        };
        if self.routes.failed(id, why, self.now) {
            let word = match why {
                Failure::Connect => "connect",
                Failure::Refused => "421",
                Failure::Tls => "tls",
                Failure::Probe => "probe",
            };
            self.counters
                .upstream_ejections
                .at(self.upstream_of(id))
                .inc();
            self.log_endpoint("upstream_ejected", address, word);
            self.announce();
        }
    }

    fn count_upstreams_at(
        &self,
        approach: &Approach,
        count: impl Fn(&crate::metrics::Counters, usize),
    ) {
        for (_, endpoint) in self
            .routes
            .iter()
            .filter(|(_, endpoint)| endpoint.is_at(approach))
        {
            count(&self.counters, endpoint.upstream.0.into());
        }
    }

    fn warn_of_open_relay(&mut self, endpoint: EndpointId) {
        let Some(address) = self.routes.get(endpoint).map(|endpoint| endpoint.addr) else {
            return;
        };
        log::warn!(
            "the mail server at {address} relays for the world to whoever connects from here: \
             only --relay-domains and --relay-from stand between it and abuse"
        );
        self.log_endpoint("upstream_relays", address, "foreign_recipient");
    }

    fn log_endpoint(&mut self, event: &'static str, address: SocketAddr, why: &'static str) {
        let fields = [
            ("address", Value::Address(address)),
            ("why", Value::Word(why)),
        ];
        self.log.event(self.now, event, &fields);
    }
}
