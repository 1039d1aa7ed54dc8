//! Upstream connections that serve one client only: opened when it comes, closed when it goes, never pooled.
//!
//! For mail servers that are to know the client by its connection (`--identity`), and for those that clients want to go to
//! themselves (`--transparent`). The leg is the session's from the first packet on, so nobody else is offered it; its permit
//! is one of the upstream's, as in the pool, and a session that finds none waits in the same queue. As long as no greeting
//! has passed, another address of the upstream is tried when one does not answer.
//!
//! A connection that was meant for another host goes there and nowhere else. All such hosts have one place in the table of
//! upstreams, which stands for anywhere; what is known of each is `destinations.rs`'s.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use weir_smtp::dedicated::{Dedicated, Manner};
use weir_smtp::dialogue::Dialogue;
use weir_smtp::extension::ExtensionSet;
use weir_smtp::gate::{RouteId, Verdict};
use weir_smtp::outbound::{Opening, Outbound, TlsWanted};
use weir_smtp::relay::{AttachFailure, LegId, UpstreamId};
use weir_smtp::texts;
use weir_smtp::time::Moment;

use crate::maillog::Value;
use crate::metrics::ClosedLeg;
use crate::net::{ClientTls, Service};
use crate::policy::Finding;
use crate::ring::{Dial, Wire};
use crate::route::{EndpointId, Failure, Identity, Starttls, Tried};

use super::destinations::Shut;
use super::leg::Duty;
use super::pool::{OPENED_AT_ONCE, Room};
use super::secure_leg::tls_wanted;
use super::session::Session;
use super::slab::Key;
use super::waiters::Ticket;
use super::who::Who;
use super::world::World;

/// Where a session's own connection goes.
enum Course {
    To(EndpointId, SocketAddr),
    /// No permit or slot is left; one may come free.
    Later,
    Nowhere(AttachFailure),
    /// The client is weir itself, or wants to go to weir.
    Loop,
}

impl<W: Wire> World<W> {
    /// A client is about to be greeted: where connections are not shared, its session gets the machine for that. Who is
    /// known to have earned a stutter gets no connection at all: weir answers it itself, from the pit and for nothing.
    pub(super) fn bind(&mut self, key: Key) {
        if !self.config.is_dedicated() {
            return;
        }
        let now = self.now;
        let Some((listener, stutters)) = self
            .sessions
            .get(key)
            .map(|session| (session.listener, session.flags.stutter))
        else {
            return;
        };
        if stutters {
            return;
        }
        let manner = Manner {
            starttls: self.starttls(listener),
            introduces: self.config.identity == Identity::Xclient,
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.relay = Dialogue::Dedicated(Box::new(Dedicated::new(now, manner)));
            session.relay.set_paced(session.flags.paced);
        }
    }

    /// A client that has earned a stutter must not hold a server's connection while it is made to wait: it is told to come
    /// again, and will be known then.
    pub(super) fn part_from_offender(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let leaves = session.flags.stutter
            && !session.flags.closing
            && matches!(session.relay, Dialogue::Dedicated(_))
            && session.relay.is_between_transactions();
        if leaves {
            self.relay_call(key, |relay, cx| relay.refuse(cx, &texts::COME_AGAIN));
            self.settle(key);
        }
    }

    /// Whether a session that was greeted by weir itself, for its manners, wants mail taken: there is nobody to take it.
    pub(super) fn has_no_server(&self, session: &Session) -> bool {
        self.config.is_dedicated() && matches!(session.relay, Dialogue::Multiplexed(_))
    }

    /// Whether client and server come to terms on TLS themselves.
    pub(super) fn tunnels(&self, listener: u8) -> bool {
        self.config.is_dedicated() && self.starttls(listener) == weir_smtp::dedicated::Way::Tunnel
    }

    fn starttls(&self, listener: u8) -> weir_smtp::dedicated::Way {
        use weir_smtp::dedicated::Way;
        match self.config.dedicated.starttls {
            Some(Starttls::Tunnel) => Way::Tunnel,
            Some(Starttls::Terminate) => Way::Offer,
            Some(Starttls::Refuse) => Way::Refuse,
            None => match self.config.services[usize::from(listener)].tls {
                ClientTls::May | ClientTls::Require => Way::Offer,
                ClientTls::Off | ClientTls::Implicit => Way::Off,
            },
        }
    }

    /// A session asks for its upstream connection.
    pub(super) fn attach_own(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.want.since = self.now;
        session.want.needs = ExtensionSet::NONE;
        session.want.route = RouteId::default();
        session.want.tried = Tried::default();
        if self.waiters.is_empty() {
            self.open_own(key);
        } else {
            // Who came before has the next permit.
            self.wait_for_leg(key);
        }
    }

    fn open_own(&mut self, key: Key) {
        match self.course(key) {
            Course::To(endpoint, to) => self.dial_own(key, endpoint, to),
            Course::Later => {
                self.wait_for_leg(key);
                self.starve(RouteId::default());
            }
            Course::Nowhere(why) => self.attach_failed(key, why),
            Course::Loop => self.found_loop(key),
        }
    }

    fn course(&mut self, key: Key) -> Course {
        let Some(session) = self.sessions.get(key) else {
            return Course::Nowhere(AttachFailure::NoUpstream);
        };
        let service = self.config.services[usize::from(session.listener)];
        if service.intercept.is_some() {
            return self.course_to_destination(key);
        }
        let want = session.want;
        match self.choose(&want, Room::IdleOrNew) {
            Ok(endpoint) => match self.routes.get(endpoint) {
                Some(there) => Course::To(endpoint, there.addr),
                None => Course::Nowhere(AttachFailure::NoUpstream),
            },
            Err(AttachFailure::NoSlot) => Course::Later,
            Err(why) => Course::Nowhere(why),
        }
    }

    fn course_to_destination(&mut self, key: Key) -> Course {
        let nowhere = Course::Nowhere(AttachFailure::NoUpstream);
        let mut endpoints = self.routes.iter();
        let Some((anywhere, _)) = endpoints.find(|(_, endpoint)| endpoint.is_anywhere()) else {
            return nowhere;
        };
        let Some(session) = self.sessions.get(key) else {
            return nowhere;
        };
        let Some(to) = session.destination() else {
            return nowhere;
        };
        if self.config.dedicated.own.contains(&to) {
            return Course::Loop;
        }
        if self.wire.free_slots() == 0 || self.legs.is_full() {
            return Course::Nowhere(AttachFailure::NoSlot);
        }
        let patience = self.config.leg.connect;
        match self
            .destinations
            .admit(session.client_ip(), to, self.now, patience)
        {
            Ok(()) => Course::To(anywhere, to),
            Err(Shut::Dead) => {
                self.counters.destinations_spared.inc();
                nowhere
            }
            Err(Shut::Loop) => Course::Loop,
        }
    }

    /// Opens the connection. Its machine knows from the start whom it serves.
    fn dial_own(&mut self, key: Key, endpoint: EndpointId, to: SocketAddr) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let client = session.client_ip();
        let counted = session.destination() == Some(to) && self.is_anywhere(endpoint);
        let upstream = self.upstream_of(endpoint);
        let leg = self.dial_as(key, endpoint, to, upstream);
        let Some(leg_key) = leg else {
            if counted {
                self.destinations.answered(client, to);
            }
            return self.attach_failed(key, AttachFailure::NoSlot);
        };
        if let Some(leg) = self.legs.get_mut(leg_key) {
            leg.own = true;
            leg.uses = 1;
            leg.asking = counted.then_some(client);
        }
        self.routes.begin(endpoint);
        if let Some(session) = self.sessions.get_mut(key) {
            session.leg = Some(leg_key);
            session.leg_tls = None;
        }
    }

    fn dial_as(
        &mut self,
        key: Key,
        endpoint: EndpointId,
        to: SocketAddr,
        upstream: usize,
    ) -> Option<Key> {
        let session = self.sessions.get(key)?;
        let tls = self.tls_for(endpoint, to, Some(session.client_ip()));
        let wanted = tls_wanted(&tls);
        let opening = match self.config.identity {
            Identity::Xclient => Opening::Hello,
            _ if wanted != TlsWanted::Off => Opening::Hello,
            _ => Opening::Silent,
        };
        let mut outbound = Outbound::dedicated(self.config.hostname.clone(), opening);
        outbound.set_tls(wanted);
        let preface = self.preface_of(session);
        let dial = Dial {
            from: self.source(session, to)?,
            ..self.dial(to)
        };
        self.shared.take_permit(upstream, self.shard).ok()?;
        *self.pools.held_at(upstream) += 1;
        match self.dial_out(&dial, endpoint, outbound, Duty::Attached(key)) {
            Ok(leg_key) => {
                if let Some(leg) = self.legs.get_mut(leg_key) {
                    leg.tls = tls;
                    leg.preface = preface;
                }
                Some(leg_key)
            }
            Err(error) => {
                self.give_permit(upstream);
                self.log_dial_failure(to, &error);
                None
            }
        }
    }

    /// The address that the connection comes from. `None`: the client has none of that family.
    fn source(&self, session: &Session, to: SocketAddr) -> Option<Option<SocketAddr>> {
        if self.config.identity != Identity::Transparent {
            return Some(None);
        }
        let client = session.client_ip();
        let fits = client.is_ipv4() == to.ip().to_canonical().is_ipv4();
        fits.then(|| Some(SocketAddr::new(client, 0)))
    }

    /// A connection to a mail server, under weir's own address.
    pub(super) fn dial(&self, to: SocketAddr) -> Dial {
        Dial {
            mark: self.config.dedicated.mark,
            ..Dial::from(to)
        }
    }

    /// The connection is there: what the machine has to say goes out, and its session is told.
    pub(super) fn own_leg_connected(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        // From now on each reply has a deadline of the session's.
        leg.due = Moment::NEVER;
        let (to, endpoint, asking) = (leg.address, leg.endpoint, leg.asking);
        let Duty::Attached(session) = leg.duty else {
            return;
        };
        if asking.is_some_and(|client| self.destinations.connected(client, to)) {
            self.log_destination("destination_returned", to);
        }
        self.pump(key);
        let upstream = UpstreamId(self.upstream_of(endpoint) as u16);
        if let Some(session) = self.sessions.get_mut(session) {
            let waited = session.want.waited_until(self.now);
            self.counters.wait_seconds.observe(waited);
        }
        self.step(Who::Session(session));
        let id = LegId(key.index());
        self.relay_call(session, |relay, cx| relay.handle_attached(cx, id, upstream));
        self.settle(session);
        self.feed(session);
    }

    /// It could not be made: another address is tried, if there is one.
    pub(super) fn own_leg_failed(&mut self, key: Key, reason: ClosedLeg) {
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        let (to, endpoint, asking, duty) = (leg.address, leg.endpoint, leg.asking, leg.duty);
        let upstream = self.upstream_of(endpoint);
        self.counters.upstream_connect_failures.at(upstream).inc();
        self.close_leg(key, Some(reason));
        if let Some(client) = asking {
            if self.destinations.failed(client, to, self.now) {
                self.log_destination("destination_dead", to);
            }
        } else {
            self.endpoint_failed(endpoint, Failure::Connect);
        }
        let Duty::Attached(session_key) = duty else {
            return;
        };
        self.step(Who::Session(session_key));
        let Some(session) = self.sessions.get_mut(session_key) else {
            return;
        };
        session.leg = None;
        let elsewhere = session.want.tried.insert(endpoint) && asking.is_none();
        if elsewhere {
            self.open_own(session_key);
        } else {
            self.attach_failed(session_key, AttachFailure::NoUpstream);
        }
        self.settle(session_key);
        self.feed(session_key);
    }

    /// The session ends before its connection was there.
    pub(super) fn give_up_own_leg(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let leg = session.leg.filter(|leg| {
            let leg = self.legs.get(*leg);
            leg.is_some_and(|leg| leg.own && !leg.connected)
        });
        if let Some(leg) = leg {
            session.leg = None;
            self.close_leg(leg, Some(ClosedLeg::Aborted));
        }
    }

    /// Sessions wait for permits: as many connections as there are now.
    pub(super) fn open_for_own_waiters(&mut self) {
        for _ in 0..OPENED_AT_ONCE {
            let sessions = &self.sessions;
            let waits = |key: Key, ticket: Ticket| {
                sessions
                    .get(key)
                    .is_some_and(|session| session.want.ticket == ticket)
            };
            let Some(key) = self.waiters.nth(0, waits) else {
                break;
            };
            self.step(Who::Session(key));
            match self.course(key) {
                Course::Later => {
                    self.starve(RouteId::default());
                    break;
                }
                Course::To(endpoint, to) => {
                    self.stop_waiting(key);
                    self.dial_own(key, endpoint, to);
                }
                Course::Nowhere(why) => {
                    self.stop_waiting(key);
                    self.attach_failed(key, why);
                }
                Course::Loop => {
                    self.stop_waiting(key);
                    self.found_loop(key);
                }
            }
            self.settle(key);
            self.finish_step(key);
        }
        self.retry_later();
    }

    fn stop_waiting(&mut self, key: Key) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.want.ticket = Ticket::NONE;
            self.waiters.forget();
            self.counters.waiters.set(self.waiters.len() as u64);
        }
    }

    /// The greeting is there, or never will be: the client has nothing unanswered at this host any more.
    pub(super) fn host_answered(&mut self, key: Key) {
        if let Some(leg) = self.legs.get_mut(key)
            && let Some(client) = leg.asking.take()
        {
            self.destinations.answered(client, leg.address);
        }
    }

    /// weir would talk to itself.
    fn found_loop(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let standing = session.standing;
        let ruling = self
            .policy
            .found(standing, Finding::InterceptLoop, self.now);
        self.take_note(key, &ruling, "connect");
        let reply = match ruling.verdict {
            Verdict::Refuse(reply) | Verdict::Close(reply) => reply,
            Verdict::Pass | Verdict::PassVia(_) => texts::NOBODY_THERE,
        };
        self.relay_call(key, |relay, cx| relay.refuse(cx, &reply));
    }

    pub(super) fn is_anywhere(&self, endpoint: EndpointId) -> bool {
        let endpoint = self.routes.get(endpoint);
        endpoint.is_some_and(|endpoint| endpoint.is_anywhere())
    }

    fn log_destination(&mut self, event: &'static str, to: SocketAddr) {
        self.counters
            .destinations_dead
            .set(self.destinations.dead() as u64);
        self.log
            .event(self.now, event, &[("address", Value::Address(to))]);
    }

    fn log_dial_failure(&mut self, to: SocketAddr, error: &std::io::Error) {
        let fields = [
            ("address", Value::Address(to)),
            (
                "errno",
                Value::Number(error.raw_os_error().unwrap_or(0) as u64),
            ),
        ];
        self.log.event(self.now, "dial_failed", &fields);
    }
}

/// What stands in the log for an upstream: its name, or the host that the client has chosen itself.
pub(super) fn upstream_name<'a>(
    names: &'a [String],
    services: &[Service],
    session: &Session,
    upstream: UpstreamId,
) -> Cow<'a, str> {
    let service = services[usize::from(session.listener)];
    match session.destination() {
        Some(to) if service.intercept.is_some() => to.to_string().into(),
        _ => names
            .get(usize::from(upstream.0))
            .map_or("".into(), |name| name.as_str().into()),
    }
}

impl Session {
    /// Where the client wanted to go.
    pub(super) fn destination(&self) -> Option<SocketAddr> {
        self.introduction.as_ref()?.destination
    }

    pub(super) fn client_ip(&self) -> IpAddr {
        SocketAddr::from(self.peer).ip().to_canonical()
    }
}
