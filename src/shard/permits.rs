//! Connections to upstreams, opened and counted: each takes a permit of its upstream, which all shards share.
//!
//! A shard that finds none while its sessions wait asks the others to make room (`shared.rs`).

use std::io;

use weir_smtp::gate::RouteId;
use weir_smtp::outbound::Outbound;

use crate::metrics::{ClosedLeg, UPSTREAMS_MAX};
use crate::ring::{Dial, Wire};
use crate::route::EndpointId;

use super::leg::{Duty, Leg};
use super::mail::{Mail, To};
use super::secure_leg::tls_wanted;
use super::shared::shards_in;
use super::slab::Key;
use super::who::{Chore, Who};
use super::world::World;

impl<W: Wire> World<W> {
    pub(super) fn connect(&mut self, endpoint: EndpointId, duty: Duty) -> io::Result<Key> {
        let Some(address) = self.routes.get(endpoint).map(|endpoint| endpoint.addr) else {
            return Err(io::Error::other("this endpoint is gone"));
        };
        let tls = self.tls_for(endpoint, address, None);
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

    /// Opens one connection to an endpoint, if a permit and a slot are to be had.
    pub(super) fn open(&mut self, endpoint: EndpointId) -> bool {
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
