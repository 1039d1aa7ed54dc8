//! Which upstream connection serves which transaction: the pool of one shard.
//!
//! A session that asks gets an idle connection of the least loaded upstream; failing that a new connection is opened,
//! if the upstream's permits (shared by all shards) allow one; failing that it waits. Whatever comes free, opened for it
//! or given back by another, goes to the first waiter it suits. Connections being opened are nobody's in particular:
//! there are as many of them as sessions that wait, at most.

use std::io;
use std::time::Duration;

use weir_smtp::extension::ExtensionSet;
use weir_smtp::gate::RouteId;
use weir_smtp::outbound::Outbound;
use weir_smtp::relay::{AttachFailure, Detach, LegId, UpstreamId};
use weir_smtp::time::Moment;

use crate::metrics::{ClosedLeg, UPSTREAMS_MAX};
use crate::ring::{Dial, Wire};
use crate::route::{EndpointId, Routes};

use super::leg::{Duty, Leg, Reset};
use super::mail::{Mail, To};
use super::secure_leg::tls_wanted;
use super::shared::shards_in;
use super::slab::{Key, Slab};
use super::waiters::{Class, Full, Judgement, Ticket};
use super::want::Want;
use super::who::{Chore, Who};
use super::world::World;

/// How often it is looked whether a connection can be opened for those who wait, when nothing else causes a look.
const RETRY: Duration = Duration::from_secs(1);

/// How long a session waits while no upstream answers at all: long enough for a restart.
const DOWN_WAIT: Duration = Duration::from_secs(10);

/// How long the reply to a RSET in front of a transaction may take. A server may send it together with those behind it.
const RESET_AHEAD: Duration = Duration::from_secs(30);

/// Connections opened at once for those who wait.
pub(super) const OPENED_AT_ONCE: usize = 16;

/// Connections of one shard that wait for work, and how many are on the way. What is busy, the routes count.
#[derive(Debug, Default)]
pub struct Pools {
    /// Idle connections by endpoint. The one used last is taken first, so that a load that shrinks leaves the others to
    /// their idle timeout.
    idle: Vec<Vec<Key>>,
    opening: usize,
    /// Permits that this shard has, by upstream.
    held: Vec<u32>,
}

impl Pools {
    fn at(&mut self, endpoint: EndpointId) -> &mut Vec<Key> {
        let at = usize::from(endpoint.0);
        if self.idle.len() <= at {
            self.idle.resize_with(at + 1, Vec::new);
        }
        &mut self.idle[at]
    }

    /// A connection stops being idle for another reason than that a session took it.
    pub fn leave(&mut self, key: Key, endpoint: EndpointId) {
        self.at(endpoint).retain(|idle| *idle != key);
    }

    pub(super) fn idle_at(&self, endpoint: EndpointId) -> &[Key] {
        self.idle
            .get(usize::from(endpoint.0))
            .map_or(&[], Vec::as_slice)
    }

    pub(super) fn held_at(&mut self, upstream: usize) -> &mut u32 {
        if self.held.len() <= upstream {
            self.held.resize(upstream + 1, 0);
        }
        &mut self.held[upstream]
    }

    fn has_below(&self, upstream: usize, share: u32) -> bool {
        self.held.get(upstream).copied().unwrap_or(0) < share
    }

    pub fn idle(&self) -> impl Iterator<Item = Key> + '_ {
        self.idle.iter().flatten().copied()
    }
}

impl<W: Wire> World<W> {
    /// A session asks for an upstream connection.
    pub(super) fn attach(
        &mut self,
        key: Key,
        needs: ExtensionSet,
        route: RouteId,
        prefer: Option<UpstreamId>,
    ) {
        if self.config.is_dedicated() {
            return self.attach_own(key);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.want.needs = needs;
        session.want.route = route;
        session.want.since = self.now;
        session.want.prefer = prefer;
        if prefer.is_some() {
            self.counters.replays.inc();
        }
        let want = session.want;
        if self.is_beyond_share(key) {
            self.counters.streams_put_off.inc();
            return self.wait_for_leg(key);
        }
        match self.choose(&want, Room::IdleOrNew) {
            Ok(best) => {
                if let Some(leg) = self.take_idle(best, needs) {
                    return self.attach_to(key, leg);
                }
                if self.is_offered(&want) {
                    return self.wait_for_leg(key);
                }
                // Opened for the next time; who finds an idle one elsewhere does not wait for the handshake.
                self.open(best);
                if let Ok(other) = self.choose(&want, Room::Idle)
                    && let Some(leg) = self.take_idle(other, needs)
                {
                    return self.attach_to(key, leg);
                }
                self.wait_for_leg(key);
            }
            Err(AttachFailure::Unqualified) => self.attach_failed(key, AttachFailure::Unqualified),
            Err(AttachFailure::NoSlot) if self.is_offered(&want) => self.wait_for_leg(key),
            Err(AttachFailure::NoSlot) => {
                self.wait_for_leg(key);
                self.want_one_back();
                self.starve(route);
            }
            // Perhaps one comes back within the wait.
            Err(AttachFailure::NoUpstream) => self.wait_for_leg(key),
        }
    }

    /// It wants to stream, and has or all have as many streams as they may.
    fn is_beyond_share(&self, key: Key) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.relay.wants_to_stream()) && !self.may_stream(key)
    }

    /// A connection that came free in this very step goes to whoever asks now: a client that pipelines transactions gets
    /// its own back, and no other is opened or asked for.
    fn is_offered(&mut self, want: &Want) -> bool {
        let World {
            routes, legs, now, ..
        } = self;
        let suits = |leg: &Key| {
            legs.get(*leg)
                .is_some_and(|leg| suits(routes, leg, want, *now))
        };
        self.waiters.is_empty() && self.offers.iter().any(suits)
    }

    /// The least loaded endpoint that suits, has not failed this transaction already, and has room.
    pub(super) fn choose(&mut self, want: &Want, room: Room) -> Result<EndpointId, AttachFailure> {
        let only = self.only(want);
        let World {
            routes,
            pools,
            legs,
            shared,
            shard,
            wire,
            ..
        } = self;
        let slots = wire.free_slots() > 0 && !legs.is_full();
        routes.choose(
            want.route,
            want.needs,
            &want.tried,
            self.now,
            |id, endpoint| {
                let wanted = only.is_none_or(|upstream| upstream == endpoint.upstream);
                let has_idle = || {
                    pools
                        .idle_at(id)
                        .iter()
                        .any(|key| offers(legs, *key, want.needs))
                };
                let may_open = || {
                    let upstream = endpoint.upstream.0.into();
                    room == Room::IdleOrNew
                        && slots
                        && shared.has_permit(upstream)
                        && pools.has_below(upstream, shared.fair_share(upstream, *shard))
                };
                wanted && (has_idle() || may_open())
            },
        )
    }

    /// The upstream that has accepted recipients of this transaction already. Another will do when it is down.
    fn only(&mut self, want: &Want) -> Option<UpstreamId> {
        let (needs, now) = (want.needs, self.now);
        want.prefer
            .filter(|upstream| self.routes.is_upstream_usable(*upstream, needs, now))
    }

    /// The idle connection that was used last and offers what is needed.
    fn take_idle(&mut self, endpoint: EndpointId, needs: ExtensionSet) -> Option<Key> {
        let World { legs, pools, .. } = self;
        let idle = pools.at(endpoint);
        let at = idle.iter().rposition(|key| offers(legs, *key, needs))?;
        Some(idle.remove(at))
    }

    /// Gives a free connection to a session that has asked for one. The caller settles the session.
    fn attach_to(&mut self, key: Key, leg_key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(leg) = self.legs.get_mut(leg_key) else {
            return;
        };
        let waited = session.want.waited_until(self.now);
        session.want.ticket = Ticket::NONE;
        session.leg = Some(leg_key);
        session.leg_tls = self.wire.facts(leg.slot).map(|facts| facts.version);
        leg.duty = Duty::Attached(key);
        leg.uses += 1;
        leg.due = match leg.reset {
            Reset::Ahead => self.now + RESET_AHEAD,
            Reset::No | Reset::Due => Moment::NEVER,
        };
        let streams = session.relay.wants_to_stream();
        let (endpoint, reused) = (leg.endpoint, leg.uses > 1);
        let upstream = self.upstream_of(endpoint);
        if reused {
            self.counters.upstream_reuses.at(upstream).inc();
        }
        self.counters.wait_seconds.observe(waited);
        self.arm_leg(leg_key);
        self.routes.begin(endpoint);
        self.count_spare(endpoint);
        if streams {
            self.enter_streams(key);
        }
        self.forward_client(key, leg_key);
        let id = LegId(leg_key.index());
        self.relay_call(key, |relay, cx| {
            relay.handle_attached(cx, id, UpstreamId(upstream as u16))
        });
    }

    pub(super) fn attach_failed(&mut self, key: Key, why: AttachFailure) {
        self.relay_call(key, |relay, cx| relay.handle_attach_failed(cx, why));
    }

    pub(super) fn wait_for_leg(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let class = if session.relay.owes_final() {
            Class::Committed
        } else if session.relay.wants_to_stream() {
            Class::Stream
        } else {
            Class::Normal
        };
        match self.waiters.push(key, class) {
            Ok(ticket) => {
                session.want.ticket = ticket;
                let patience = self.config.wait.time.min(DOWN_WAIT);
                session.want.be_patient_for(patience);
                self.counters.waiters.set(self.waiters.len() as u64);
                self.retry_later();
            }
            Err(Full) => {
                self.counters.waits_refused.inc();
                self.attach_failed(key, AttachFailure::NoSlot);
            }
        }
    }

    /// The session does not want a connection any more, or has ended.
    pub(super) fn cancel_attach(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !session.want.ticket.is_none() {
            session.want.waited_until(self.now);
            session.want.ticket = Ticket::NONE;
            self.waiters.forget();
            self.counters.waiters.set(self.waiters.len() as u64);
        }
        self.give_up_own_leg(key);
    }

    /// The session has waited as long as it may: for a busy upstream longer than for one that does not answer.
    pub(super) fn wait_is_over(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let want = session.want;
        let end = want.since + self.config.wait.time;
        let answered = self.legs.iter().any(|(_, leg)| {
            let endpoint = self.routes.get(leg.endpoint);
            leg.connected && endpoint.is_some_and(|endpoint| endpoint.route() == want.route)
        });
        if answered && self.now < end {
            session.want.be_patient_for(self.config.wait.time);
            return;
        }
        let why = if answered {
            AttachFailure::NoSlot
        } else {
            AttachFailure::NoUpstream
        };
        self.cancel_attach(key);
        self.counters.waits_expired.inc();
        self.attach_failed(key, why);
        self.settle(key);
    }

    /// The session gives its connection back.
    pub(super) fn detach(&mut self, key: Key, how: Detach) {
        self.leave_streams(key);
        let Some(leg_key) = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.leg.take())
        else {
            return;
        };
        let Some(leg) = self.legs.get_mut(leg_key) else {
            return;
        };
        leg.pace = None;
        let endpoint = leg.endpoint;
        match how {
            Detach::Clean | Detach::Reset if leg.own => {
                self.routes.end(endpoint);
                leg.duty = Duty::Offered;
                self.dismiss_leg(leg_key, ClosedLeg::Uses);
            }
            Detach::Clean => {
                self.routes.end(endpoint);
                self.offer_later(leg_key);
            }
            Detach::Reset if leg.outbound.may_reset_ahead() => {
                // Should somebody wait for it, RSET and the next transaction go up in one flight.
                leg.reset = Reset::Due;
                self.routes.end(endpoint);
                self.offer_later(leg_key);
            }
            Detach::Reset => {
                self.routes.end(endpoint);
                self.reset_leg(leg_key);
            }
            // It said goodbye, or has nothing left to say.
            Detach::Close if leg.own && !leg.outbound.is_owed() => self.close_leg(leg_key, None),
            Detach::Close => self.close_leg(leg_key, Some(ClosedLeg::Aborted)),
        }
    }

    /// RSET, and its reply awaited.
    fn reset_leg(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        leg.reset = Reset::No;
        leg.duty = Duty::Resetting;
        leg.due = self.now + self.config.leg.reset;
        leg.outbound.begin_reset();
        self.pump(key);
        self.arm_leg(key);
    }

    /// A connection is free; who gets it is decided at the end of the step.
    pub(super) fn offer_later(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        if leg.duty == Duty::Opening {
            self.pools.opening -= 1;
        }
        leg.duty = Duty::Offered;
        leg.due = Moment::NEVER;
        self.offers.push_back(key);
    }

    /// Connections that came free in this step go to those who wait, or to the pool.
    pub(super) fn serve_offers(&mut self) {
        self.serve_waiters();
        // Who took one may have left too few; what silent clients give back is on offer at once.
        while self.relieve_shortage() {
            self.serve_waiters();
        }
    }

    fn serve_waiters(&mut self) {
        while let Some(key) = self.offers.pop_front() {
            let Some(leg) = self.legs.get_mut(key) else {
                continue;
            };
            if leg.duty != Duty::Offered {
                continue;
            }
            let (endpoint, reset_due) = (leg.endpoint, leg.reset == Reset::Due);
            let worn_out = leg.worn_out(&self.config.leg, self.now);
            let reason = match worn_out {
                None if leg.broken => Some(ClosedLeg::Peer),
                None if !leg.outbound.is_reusable() => Some(ClosedLeg::Protocol),
                other => other,
            };
            if let Some(reason) = reason {
                self.dismiss_leg(key, reason);
                self.open_for_waiters();
                continue;
            }
            let upstream = self.upstream_of(endpoint);
            let share = self.shared.fair_share(upstream, self.shard);
            if *self.pools.held_at(upstream) > share {
                // Others of this shard wait too, but they have more than their part of the connections.
                self.dismiss_leg(key, ClosedLeg::Yielded);
                continue;
            }
            match self.next_waiter(key) {
                Some(session) => {
                    if reset_due {
                        self.reset_ahead(key);
                    }
                    self.step(Who::Session(session));
                    self.attach_to(session, key);
                    self.settle(session);
                    self.feed(session);
                }
                None if reset_due => self.reset_leg(key),
                None => self.keep_idle(key, endpoint),
            }
        }
    }

    fn reset_ahead(&mut self, key: Key) {
        if let Some(leg) = self.legs.get_mut(key) {
            leg.reset = Reset::Ahead;
            leg.outbound.reset_ahead();
        }
    }

    /// Nobody waits for this connection: it goes to the pool, or makes room where another shard is short.
    fn keep_idle(&mut self, key: Key, endpoint: EndpointId) {
        if self.drain.is_on() {
            return self.dismiss_leg(key, ClosedLeg::Drain);
        }
        let retired = self
            .routes
            .get(endpoint)
            .is_none_or(|endpoint| endpoint.is_retired());
        if retired
            || self
                .shared
                .others_starve(self.upstream_of(endpoint), self.shard)
        {
            return self.dismiss_leg(key, ClosedLeg::Yielded);
        }
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        leg.duty = Duty::Idle;
        leg.due = (self.now + self.config.leg.idle_max).min(leg.born + self.config.leg.age_max);
        self.pools.at(endpoint).push(key);
        self.arm_leg(key);
    }

    /// The first session this connection suits.
    fn next_waiter(&mut self, leg: Key) -> Option<Key> {
        if self.waiters.is_empty() {
            return None;
        }
        let World {
            sessions,
            routes,
            waiters,
            legs,
            streams,
            shared,
            ..
        } = self;
        let leg = legs.get(leg)?;
        let now = self.now;
        let judge = |key: Key, ticket: Ticket| {
            let Some(session) = sessions
                .get(key)
                .filter(|session| session.want.ticket == ticket)
            else {
                return Judgement::Gone;
            };
            let may_go_on =
                || !session.relay.wants_to_stream() || streams.admits(session, shared.streams());
            if suits(routes, leg, &session.want, now) && may_go_on() {
                Judgement::Take
            } else {
                Judgement::Unfit
            }
        };
        let session = waiters.take(judge);
        self.counters.waiters.set(self.waiters.len() as u64);
        session
    }

    /// Opens as many connections as sessions wait, where permits and slots allow it.
    pub(super) fn open_for_waiters(&mut self) {
        self.retry_armed = false;
        if self.config.is_dedicated() {
            return self.open_for_own_waiters();
        }
        let missing = self.waiters.len().saturating_sub(self.pools.opening);
        let mut passed_over = 0;
        for _ in 0..missing.min(OPENED_AT_ONCE) {
            // Connections under way are for those who came first.
            let sessions = &self.sessions;
            let waits = |key: Key, ticket: Ticket| {
                sessions
                    .get(key)
                    .is_some_and(|session| session.want.ticket == ticket)
            };
            let Some(key) = self.waiters.nth(self.pools.opening + passed_over, waits) else {
                break;
            };
            let Some(want) = self.sessions.get(key).map(|session| session.want) else {
                break;
            };
            if self.is_beyond_share(key) {
                passed_over += 1;
                continue;
            }
            match self.choose(&want, Room::IdleOrNew) {
                Ok(endpoint) => {
                    if let Some(leg) = self.take_idle(endpoint, want.needs) {
                        self.offer_later(leg);
                        break;
                    }
                    if !self.open(endpoint) {
                        break;
                    }
                }
                Err(why) => {
                    if why == AttachFailure::NoSlot {
                        self.starve(want.route);
                    }
                    if want.prefer.is_none() && want.needs.is_empty() {
                        break;
                    }
                    // It waits for one upstream or for a capable one; the next may be content with another.
                    passed_over += 1;
                }
            }
        }
        self.retry_later();
    }

    /// Opens one connection to an endpoint, if a permit and a slot are to be had.
    fn open(&mut self, endpoint: EndpointId) -> bool {
        let upstream = self.upstream_of(endpoint);
        if self.shared.take_permit(upstream, self.shard).is_err() {
            return false;
        }
        *self.pools.held_at(upstream) += 1;
        match self.connect(endpoint, Duty::Opening) {
            Ok(_) => {
                self.pools.opening += 1;
                true
            }
            Err(_) => {
                // No slot left: that is our own limit, not the upstream's fault.
                self.give_permit(upstream);
                false
            }
        }
    }

    /// Sessions wait and all permits are taken: other shards are asked to make room.
    pub(super) fn starve(&mut self, route: RouteId) {
        let upstreams = self
            .routes
            .iter()
            .filter(|(_, endpoint)| endpoint.route() == route);
        for (_, endpoint) in upstreams {
            let upstream = endpoint.upstream.0;
            if self.shared.starve(upstream.into(), self.shard) {
                self.outgoing
                    .push_back((To::Others, Mail::Starving { upstream }));
            }
        }
    }

    pub(super) fn connect(&mut self, endpoint: EndpointId, duty: Duty) -> io::Result<Key> {
        let Some(address) = self.routes.get(endpoint).map(|endpoint| endpoint.addr) else {
            return Err(io::Error::other("this endpoint is gone"));
        };
        let tls = self.tls_for(endpoint, address);
        let mut outbound = Outbound::new(self.config.hostname.clone());
        outbound.set_tls(tls_wanted(&tls));
        let dial = self.dial(address);
        let preface = self.preface_of_weir(address);
        let key = self.dial_out(&dial, endpoint, outbound, duty)?;
        if let Some(leg) = self.legs.get_mut(key) {
            leg.tls = tls;
            leg.preface = preface;
        }
        Ok(key)
    }

    /// Opens a connection whose machine is ready, if there is room for it.
    pub(super) fn dial_out(
        &mut self,
        dial: &Dial,
        endpoint: EndpointId,
        outbound: Outbound,
        duty: Duty,
    ) -> io::Result<Key> {
        if self.legs.is_full() {
            return Err(io::Error::other(
                "no more upstream connections fit this shard",
            ));
        }
        let slot = self.wire.connect(dial, Who::Nobody.owner())?;
        let due = self.now + self.config.leg.connect;
        let leg = Leg::new(outbound, slot, endpoint, dial.to, duty, self.now, due);
        let Ok(key) = self.legs.insert(leg) else {
            unreachable!("room was looked for above");
        };
        self.wire.set_owner(slot, Who::Leg(key).owner());
        self.routes.opened(endpoint);
        self.counters
            .upstream_connects
            .at(self.upstream_of(endpoint))
            .inc();
        self.arm_leg(key);
        Ok(key)
    }

    /// Books for a connection that is gone.
    pub(super) fn leg_left(&mut self, key: Key, leg: &Leg) {
        self.routes.closed(leg.endpoint);
        match leg.duty {
            Duty::Opening => self.pools.opening -= 1,
            Duty::Attached(_) => self.routes.end(leg.endpoint),
            Duty::Idle => self.pools.leave(key, leg.endpoint),
            Duty::Offered | Duty::Resetting | Duty::Quitting => {}
            Duty::Probing(_) => return,
        }
        self.give_permit(self.upstream_of(leg.endpoint));
        if leg.own && !self.waiters.is_empty() {
            self.wheel
                .insert(self.now, Who::Chore(Chore::Waiters).to_bits());
        }
    }

    pub(super) fn give_permit(&mut self, upstream: usize) {
        *self.pools.held_at(upstream) -= 1;
        for shard in shards_in(self.shared.give_permit(upstream)) {
            let upstream = upstream as u16;
            self.outgoing
                .push_back((To::Shard(shard), Mail::PermitFree { upstream }));
        }
    }

    /// Nobody waits here: what others have is theirs.
    pub(super) fn note_if_sated(&self) {
        if self.waiters.is_empty() {
            (0..UPSTREAMS_MAX).for_each(|upstream| self.shared.is_sated(upstream, self.shard));
        }
    }

    /// Another shard is short of connections to this upstream: one idle one makes room.
    pub(super) fn yield_connection(&mut self, upstream: usize) {
        let belongs = |key: &Key| {
            self.legs
                .get(*key)
                .is_some_and(|leg| self.upstream_of(leg.endpoint) == upstream)
        };
        let idle = self.pools.idle().find(belongs);
        match idle {
            Some(key) => self.dismiss_leg(key, ClosedLeg::Yielded),
            None => self.want_one_back(),
        }
    }

    /// Makes sure somebody looks after the waiters again.
    pub(super) fn retry_later(&mut self) {
        if !self.waiters.is_empty() && !self.retry_armed {
            self.retry_armed = true;
            self.wheel
                .insert(self.now + RETRY, Who::Chore(Chore::Waiters).to_bits());
        }
    }

    pub(super) fn upstream_of(&self, endpoint: EndpointId) -> usize {
        let endpoint = self
            .routes
            .get(endpoint)
            .expect("an endpoint stays as long as a connection to it");
        endpoint.upstream.0.into()
    }

    /// Shows in the metrics how the connections are used. Now and then: it looks at every endpoint.
    pub(super) fn count_pools(&mut self) {
        let mut idle = [0u64; UPSTREAMS_MAX];
        let mut open = [0u64; UPSTREAMS_MAX];
        let mut up = [0u64; UPSTREAMS_MAX];
        let mut unheard = 0;
        for (id, endpoint) in self.routes.iter() {
            let upstream = usize::from(endpoint.upstream.0);
            idle[upstream] += self.pools.idle_at(id).len() as u64;
            open[upstream] += u64::from(endpoint.connections());
            if endpoint.is_retired() || endpoint.health().ejected_until().is_some() {
                continue;
            }
            match endpoint.capabilities() {
                Some(_) => up[upstream] = 1,
                None => unheard += 1,
            }
        }
        self.counters.upstream_unheard.set(unheard);
        for upstream in 0..UPSTREAMS_MAX {
            self.counters.pool_idle.at(upstream).set(idle[upstream]);
            self.counters
                .pool_active
                .at(upstream)
                .set(open[upstream].saturating_sub(idle[upstream]));
            self.counters.upstream_up.at(upstream).set(up[upstream]);
        }
    }
}

/// Whether a connection of the pool offers what a transaction uses.
fn offers(legs: &Slab<Leg>, key: Key, needs: ExtensionSet) -> bool {
    legs.get(key)
        .is_some_and(|leg| leg.outbound.capabilities().set.contains(needs))
}

/// Whether this connection is one that the session asks for.
fn suits(routes: &mut Routes, leg: &Leg, want: &Want, now: Moment) -> bool {
    let Some(endpoint) = routes.get(leg.endpoint) else {
        return false;
    };
    let (route, upstream) = (endpoint.route(), endpoint.upstream);
    let elsewhere = want.prefer.is_some_and(|other| {
        other != upstream && routes.is_upstream_usable(other, want.needs, now)
    });
    leg.outbound.capabilities().set.contains(want.needs)
        && !want.tried.contains(leg.endpoint)
        && route == want.route
        && !elsewhere
}

/// What counts as room at an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Room {
    /// An idle connection, or a permit and a slot for a new one.
    IdleOrNew,
    Idle,
}
