//! Arrivals: from an accepted socket to a session, or to the one line that is all it gets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use weir_smtp::gate::Verdict;
use weir_smtp::reply::ReplyText;
use weir_smtp::texts;

use crate::maillog::Value;
use crate::metrics::{Ended, Refusal};
use crate::policy::overload::Rung;
use crate::policy::{Admission, Finding};
use crate::ring::{Close, SlotId, Wire};

use super::introduction::Introduction;
use super::pit::Peer;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// A client that has come, as far as it is known.
pub struct Arrival {
    pub listener: usize,
    pub slot: SlotId,
    /// The client itself, whoever spoke for it.
    pub peer: SocketAddr,
    pub introduction: Option<Box<Introduction>>,
    /// What it has sent by now.
    pub unread: Vec<u8>,
}

impl<W: Wire> World<W> {
    /// A connection has come.
    pub(super) fn accepted(
        &mut self,
        listener: usize,
        slot: SlotId,
        peer: SocketAddr,
        destination: Option<SocketAddr>,
    ) {
        self.counters.sessions_accepted.inc();
        if self.drain.is_on() {
            return self.turn_away(listener, slot, Refusal::Drain, &texts::SHUTDOWN);
        }
        if self.is_full() || !self.shared.client_enters() {
            return self.turn_away(listener, slot, Refusal::Full, &texts::OVERLOAD);
        }
        let arrival = Arrival {
            listener,
            slot,
            peer,
            introduction: destination.map(|to| Box::new(Introduction::to(to))),
            unread: Vec::new(),
        };
        match self.config.services[listener].proxy {
            true => self.await_introduction(arrival),
            false => self.admit(arrival),
        }
    }

    /// The last few slots are for those who are told that there is none: who finds no slot at all waits in the kernel, unheard.
    pub(super) fn is_full(&self) -> bool {
        let slots = self.config.client_slots() as usize;
        self.client_slots_used() >= slots - (slots / 32).clamp(1, 64)
    }

    /// It is known who the client is; counted among the clients it is already.
    pub(super) fn admit(&mut self, mut arrival: Arrival) {
        self.weigh_load();
        let rung = self.ladder.rung();
        let admission = self.policy.connected(arrival.peer.ip(), rung, self.now);
        if admission.ruling.passes() {
            let ip = arrival.peer.ip();
            self.begin_inquiry(arrival.slot, ip, admission.standing);
        }
        if self.is_implicit(arrival.listener) {
            return self.admit_to_handshake(arrival, admission);
        }
        let wait = self.greet_wait();
        let waits =
            !wait.is_zero() && admission.ruling.passes() && !admission.standing.is_allowed();
        if waits && arrival.unread.is_empty() {
            self.tell_later(arrival.slot, admission.ruling.noticed);
            return self.park_newcomer(arrival, admission, wait);
        }
        let mut session = self.begin_session(&mut arrival, &admission);
        session.bytes_in = arrival.unread.len() as u64;
        let ruling = match waits {
            // It has not even waited for the first line.
            true => self
                .policy
                .found(admission.standing, Finding::Pregreet, self.now),
            false => admission.ruling,
        };
        let Some(key) = self.add_session(session) else {
            return;
        };
        self.take_note(key, &ruling, "connect");
        self.read_again(key, &arrival.unread);
        self.greet_early(key, ruling.verdict);
    }

    /// The session of a client that has been admitted.
    pub(super) fn begin_session(
        &mut self,
        arrival: &mut Arrival,
        admission: &Admission,
    ) -> Session {
        self.sessions_seen += 1;
        let peer = Peer::from(arrival.peer);
        Session {
            standing: admission.standing,
            errors: admission.errors,
            listener: arrival.listener as u8,
            introduction: arrival.introduction.take(),
            ..Session::new(self.now, self.sessions_seen, arrival.slot, peer)
        }
    }

    /// How long a client must hold its tongue before it is greeted.
    pub(super) fn greet_wait(&self) -> Duration {
        let session = &self.config.session;
        match self.ladder.rung() {
            Rung::Calm => session.greet_wait,
            _ => session.greet_wait.min(session.greet_wait_stressed),
        }
    }

    /// A session gets its place in the slab, and its slot a new owner.
    pub(super) fn add_session(&mut self, session: Session) -> Option<Key> {
        let standing = session.standing;
        let errors = session.errors;
        let (slot, listener) = (session.slot, session.listener.into());
        match self.sessions.insert(session) {
            Ok(key) => {
                self.step(Who::Session(key));
                if let Some(slot) = slot {
                    self.wire.set_owner(slot, Who::Session(key).owner());
                }
                self.count_sessions();
                self.feel_temper(key);
                if let Some(slot) = slot {
                    self.join_inquiry(key, slot);
                }
                Some(key)
            }
            Err(_) => {
                self.policy.disconnected(standing, errors, self.now);
                self.shared.client_leaves();
                if let Some(slot) = slot {
                    self.end_inquiry_beside(slot);
                    self.turn_away(listener, slot, Refusal::Full, &texts::OVERLOAD);
                }
                None
            }
        }
    }

    /// The same for a client that may have spoken before it was greeted.
    pub(super) fn greet_early(&mut self, key: Key, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Pass => self.weigh_first_octets(key),
            refusal => refusal,
        };
        self.greet(key, verdict);
    }

    /// The greeting, or what stands in its place.
    pub(super) fn greet(&mut self, key: Key, verdict: Verdict) {
        let verdict = match verdict {
            Verdict::Pass => self.dropped(key).unwrap_or(Verdict::Pass),
            refusal => refusal,
        };
        if !matches!(verdict, Verdict::Pass | Verdict::PassVia(_)) {
            self.counters.sessions_refused.at(Refusal::Policy).inc();
            if let Some(session) = self.sessions.get_mut(key) {
                session.ended = Ended::Refused;
            }
        }
        self.bind(key);
        self.welcome = Some(verdict);
        self.relay_call(key, |relay, cx| relay.start(cx));
        self.settle(key);
        self.feed(key);
    }

    /// One line instead of a session.
    pub(super) fn turn_away(
        &mut self,
        listener: usize,
        slot: SlotId,
        why: Refusal,
        reply: &ReplyText,
    ) {
        self.counters.sessions_refused.at(why).inc();
        if self.is_implicit(listener) && !self.wire.is_secure(slot) {
            // It waits for a handshake and would not understand.
            return self.close_slot(slot, Close::Now);
        }
        let mut words = self.flights.take(reply.as_bytes().len());
        words.extend_from_slice(reply.as_bytes());
        self.wire.send(slot, words);
        self.close_slot(slot, Close::Linger);
    }

    pub(super) fn accept_failed(&mut self, error: &io::Error) {
        self.counters.accept_failures.inc();
        let code = error.raw_os_error().unwrap_or(0);
        self.log.event(
            self.now,
            "accept_failed",
            &[("errno", Value::Number(code as u64))],
        );
    }
}
