//! Going down in order: nobody new, transactions finish, everybody else hears 421 on a line of its own.
//!
//! Sessions between transactions and parked clients are told at once, a bounded number a turn. Those inside a
//! transaction are told when it ends, or when the grace is over; a final reply that is owed is waited for even then, up
//! to its own deadline: the upstream may have the message already. A second signal ends everything where it stands.

use std::time::Duration;

use weir_smtp::texts;
use weir_smtp::time::Moment;

use crate::metrics::{ClosedLeg, Ended, PitEnd};
use crate::ring::{Close, Wire};

use super::leg::Duty;
use super::slab::Key;
use super::who::{Chore, Who};
use super::world::World;

/// Clients told in one turn.
const TOLD_PER_TURN: usize = 256;

/// Where a drain stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    phase: Phase,
    /// The next place of the session slab to look at.
    next: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    #[default]
    Off,
    /// Sessions between transactions are being told.
    TellingIdle,
    /// Transactions run.
    Waiting,
    /// The grace is over: everybody is being told.
    TellingAll,
    /// Only final replies are waited for.
    LastReplies,
    /// A second signal: everybody is being told, and nobody is waited for.
    Ending,
    Over,
}

impl Drain {
    pub fn is_on(&self) -> bool {
        self.phase != Phase::Off
    }

    /// There is somebody to be told in the next turn.
    pub fn has_work(&self) -> bool {
        matches!(
            self.phase,
            Phase::TellingIdle | Phase::TellingAll | Phase::Ending
        )
    }
}

impl<W: Wire> World<W> {
    pub(super) fn begin_drain(&mut self, grace: Duration) {
        if self.drain.is_on() {
            return;
        }
        self.drain.phase = Phase::TellingIdle;
        self.wheel
            .insert(self.now + grace, Who::Chore(Chore::Drain).to_bits());
        let idle: Vec<Key> = self.pools.idle().collect();
        for leg in idle {
            self.dismiss_leg(leg, ClosedLeg::Drain);
        }
    }

    /// The grace is over.
    pub(super) fn drain_timer(&mut self) {
        if matches!(self.drain.phase, Phase::TellingIdle | Phase::Waiting) {
            self.drain.phase = Phase::TellingAll;
            self.drain.next = 0;
        }
    }

    pub(super) fn end_at_once(&mut self) {
        self.drain.phase = Phase::Ending;
        self.drain.next = 0;
    }

    /// One turn's share of telling.
    pub(super) fn drain_some(&mut self) {
        let nobody = self.sessions.is_empty() && self.pit.is_empty() && self.proxied.is_empty();
        if self.drain.is_on() && nobody {
            self.let_go_of_legs();
            self.let_go_of_aside();
            self.rest_resolver();
        }
        if !self.drain.has_work() {
            return;
        }
        for _ in 0..TOLD_PER_TURN {
            if self.send_off_proxied() {
                continue;
            }
            if let Some(row) = self.pit.oldest() {
                if let Some(row) = self.pit.take(row) {
                    self.cut_row(row, PitEnd::Cut, &texts::SHUTDOWN);
                }
                continue;
            }
            let Some(key) = self.sessions.next_from(self.drain.next) else {
                self.drain.phase = match self.drain.phase {
                    Phase::TellingIdle => Phase::Waiting,
                    Phase::Ending => Phase::Over,
                    _ => Phase::LastReplies,
                };
                return;
            };
            self.drain.next = key.index() + 1;
            let told = self.drain.phase != Phase::TellingIdle;
            let idle = self.sessions.get(key).is_some_and(|session| {
                session.relay.is_between_transactions() || session.secrecy.is_shaking()
            });
            if told || idle {
                self.send_off(key);
            }
        }
    }

    /// Nobody is left whom a connection being opened, or a probe, could serve.
    fn let_go_of_legs(&mut self) {
        let idle = |duty: &Duty| matches!(duty, Duty::Opening | Duty::Probing(_));
        let legs = self.legs.iter().filter(|(_, leg)| idle(&leg.duty));
        let legs: Vec<Key> = legs.map(|(key, _)| key).collect();
        for leg in legs {
            self.close_leg(leg, Some(ClosedLeg::Drain));
        }
    }

    /// Tells one client that weir is going down.
    pub(super) fn send_off(&mut self, key: Key) {
        if let Some(tunnel) = self.tunnels.of_session(key) {
            return self.end_tunnel(tunnel, Ended::Drain, Close::Now);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            // A handshake that outlasts the grace is not waited for: nothing can be said in it, and nothing is lost.
            if session.secrecy.is_shaking() && self.drain.phase != Phase::TellingIdle {
                return self.drop_client(key, Ended::Drain);
            }
            session.ended = Ended::Drain;
            self.relay_step(key, |relay, cx| relay.refuse(cx, &texts::SHUTDOWN));
        }
    }

    pub fn is_draining(&self) -> bool {
        self.drain.is_on()
    }

    /// A second signal, and everybody has been told: the shard ends whatever is left.
    pub fn is_ending(&self) -> bool {
        self.drain.phase == Phase::Over
    }

    /// Nothing is left to wait for: the shard may end once it does not listen any more.
    pub fn is_over(&self) -> bool {
        self.drain.is_on()
            && self.sessions.is_empty()
            && self.pit.is_empty()
            && self.proxied.is_empty()
            && self.legs.is_empty()
            && self.resolver.is_at_rest()
            && self.closing == 0
    }

    /// When a drain needs the next turn.
    pub(super) fn drain_deadline(&self) -> Moment {
        if self.drain.has_work() {
            self.now
        } else {
            Moment::NEVER
        }
    }
}
