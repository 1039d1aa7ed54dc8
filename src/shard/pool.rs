//! Which upstream connection serves which transaction: the pool of one shard.
//!
//! A session that asks gets an idle connection of the least loaded upstream; failing that a new connection is opened,
//! if the upstream's permits (`permits.rs`) allow one; failing that it waits (`serving.rs`).

use std::time::Duration;

use weir_smtp::extension::ExtensionSet;
use weir_smtp::gate::RouteId;
use weir_smtp::relay::{AttachFailure, Detach, LegId, UpstreamId};
use weir_smtp::time::Moment;

use crate::metrics::ClosedLeg;
use crate::ring::Wire;
use crate::route::{EndpointId, Routes};

use super::leg::{Duty, Leg, Reset};
use super::slab::{Key, Slab};
use super::waiters::Ticket;
use super::want::Want;
use super::world::World;

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
    pub(super) opening: usize,
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
    pub(super) fn is_beyond_share(&self, key: Key) -> bool {
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
    pub(super) fn take_idle(&mut self, endpoint: EndpointId, needs: ExtensionSet) -> Option<Key> {
        let World { legs, pools, .. } = self;
        let idle = pools.at(endpoint);
        let at = idle.iter().rposition(|key| offers(legs, *key, needs))?;
        Some(idle.remove(at))
    }

    /// Gives a free connection to a session that has asked for one. The caller settles the session.
    pub(super) fn attach_to(&mut self, key: Key, leg_key: Key) {
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
    pub(super) fn reset_leg(&mut self, key: Key) {
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

    pub(super) fn reset_ahead(&mut self, key: Key) {
        if let Some(leg) = self.legs.get_mut(key) {
            leg.reset = Reset::Ahead;
            leg.outbound.reset_ahead();
        }
    }

    /// Nobody waits for this connection: it goes to the pool, or makes room where another shard is short.
    pub(super) fn keep_idle(&mut self, key: Key, endpoint: EndpointId) {
        if self.drain.is_on() {
            return self.dismiss_leg(key, ClosedLeg::Drain);
        }
        if self
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
}

/// Whether a connection of the pool offers what a transaction uses.
fn offers(legs: &Slab<Leg>, key: Key, needs: ExtensionSet) -> bool {
    legs.get(key)
        .is_some_and(|leg| leg.outbound.capabilities().set.contains(needs))
}

/// Whether this connection is one that the session asks for.
pub(super) fn suits(routes: &mut Routes, leg: &Leg, want: &Want, now: Moment) -> bool {
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
