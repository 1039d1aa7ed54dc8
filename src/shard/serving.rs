//! Serving those who wait: what comes free, opened for it or given back by another, goes to the first waiter it suits.
//!
//! Connections being opened are nobody's in particular: there are as many of them as sessions that wait, at most.

use std::time::Duration;

use weir_smtp::relay::AttachFailure;
use weir_smtp::time::Moment;

use crate::metrics::ClosedLeg;
use crate::ring::Wire;

use super::leg::{Duty, Reset};
use super::pool::{OPENED_AT_ONCE, Room, suits};
use super::slab::Key;
use super::waiters::{Class, Full, Judgement, Ticket};
use super::who::{Chore, Who};
use super::world::World;

/// How often it is looked whether a connection can be opened for those who wait, when nothing else causes a look.
const RETRY: Duration = Duration::from_secs(1);

/// How long a session waits while no upstream answers at all: long enough for a restart.
const DOWN_WAIT: Duration = Duration::from_secs(10);

impl<W: Wire> World<W> {
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
            let endpoint_left = self
                .routes
                .get(endpoint)
                .is_none_or(|endpoint| endpoint.is_retired());
            let reason = match worn_out {
                None if leg.broken => Some(ClosedLeg::Peer),
                None if endpoint_left => Some(ClosedLeg::Drain),
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

    /// Makes sure somebody looks after the waiters again.
    pub(super) fn retry_later(&mut self) {
        if !self.waiters.is_empty() && !self.retry_armed {
            self.retry_armed = true;
            self.wheel
                .insert(self.now + RETRY, Who::Chore(Chore::Waiters).to_bits());
        }
    }
}
