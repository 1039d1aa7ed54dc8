//! The clients' way into TLS: before the greeting on listeners for that, after STARTTLS on all others that offer it.
//!
//! ```text
//!   Plain -- Act::StartTls --> Asked -- the 220 is out --> Shaking -- Secured --> Inside
//!   accepted by a listener with implicit TLS --> First -- Secured --> Inside, then greeted as ever
//! ```
//!
//! What a client has sent behind STARTTLS and in front of its hello was not protected by the handshake: it is thrown away,
//! counted and noted (RFC 3207, 6). The records themselves are the layer's business ([`crate::tls::Layer`]).

use std::io;

use weir_smtp::gate::Verdict;
use weir_smtp::relay::TlsOffer;
use weir_smtp::starttls::PlaintextDrained;
use weir_smtp::time::Moment;

use crate::metrics::{Ended, Refusal};
use crate::net::{ClientTls, Service};
use crate::policy::{Admission, Ruling};
use crate::ring::{Group, SlotId, Wire};
use crate::tls::{Begin, Connection, Failure};

use super::arrivals::Arrival;
use super::pit::Peer;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// How far a session is on its way to TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrecy {
    #[default]
    Plain,
    /// The 220 to STARTTLS is on its way out.
    Asked,
    /// The handshake that STARTTLS asked for.
    Shaking,
    /// The handshake that comes before the greeting: the relay has not begun.
    First,
    Inside,
}

impl Secrecy {
    /// Nothing can be said to the client now.
    pub fn is_shaking(self) -> bool {
        matches!(self, Secrecy::Shaking | Secrecy::First)
    }

    /// What is received is not for the relay.
    pub fn discards(self) -> bool {
        matches!(self, Secrecy::Asked | Secrecy::Shaking)
    }
}

/// How a session stands to TLS, by its listener and by what has happened.
pub(super) fn offer(services: &[Service], certified: bool, session: &Session) -> TlsOffer {
    if session.secrecy == Secrecy::Inside {
        return TlsOffer::Active;
    }
    let service = services.get(usize::from(session.listener));
    match service.map(|service| service.tls).unwrap_or_default() {
        ClientTls::May if certified => TlsOffer::May,
        ClientTls::Require => TlsOffer::Require,
        ClientTls::Off | ClientTls::May | ClientTls::Implicit => TlsOffer::Off,
    }
}

impl<W: Wire> World<W> {
    /// Whether a listener's clients begin with a handshake.
    pub(super) fn is_implicit(&self, listener: usize) -> bool {
        let service = self.config.services.get(listener);
        service.is_some_and(|service| service.tls == ClientTls::Implicit)
    }

    /// A client of a listener with implicit TLS. Who is refused anyway is spared the handshake, and weir its cost.
    pub(super) fn admit_to_handshake(&mut self, arrival: Arrival, admission: Admission) {
        self.sessions_seen += 1;
        let peer = Peer::from(arrival.peer);
        let mut session = Session::new(self.now, self.sessions_seen, arrival.slot, peer);
        session.standing = admission.standing;
        session.errors = admission.errors;
        session.listener = arrival.listener as u8;
        session.relay = self.dialogue(session.listener);
        session.introduction = arrival.introduction;
        session.secrecy = Secrecy::First;
        session.close_at = self.now + self.config.smtp.timeouts.handshake;
        let Some(key) = self.add_session(session) else {
            return;
        };
        self.take_note(key, &admission.ruling, "connect");
        if !admission.ruling.passes() {
            self.counters.sessions_refused.at(Refusal::Policy).inc();
            return self.drop_client(key, Ended::Refused);
        }
        let drained = PlaintextDrained::from_the_start();
        if self.greet_wait().is_zero() || admission.standing.is_allowed() {
            // For whom no wait is due, a receive stays armed from the handshake on.
            self.go_on_receiving(key);
        }
        self.shake_hands(key, arrival.slot, drained, &arrival.unread);
        self.arm_session(key);
    }

    /// STARTTLS was accepted: from now on nothing that comes is read as a command.
    pub(super) fn secure_next(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.secrecy = Secrecy::Asked;
        // Nothing comes after this reply that it could wait for.
        session.flags.prompt = true;
        let glued = session.waiting_octets();
        self.discard_glued(key, glued);
        self.drop_intake(key);
    }

    /// Octets that came between STARTTLS and the handshake.
    pub(super) fn discard_glued(&mut self, key: Key, octets: usize) {
        let _ = (key, octets);
    }

    /// The 220 is out: the handshake begins.
    pub(super) fn begin_secrecy(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let unread = session.waiting_octets();
        let drained = session.relay.plaintext_drained(unread);
        let (Some(slot), Some(drained)) = (session.slot, drained) else {
            // It has left meanwhile.
            return;
        };
        session.secrecy = Secrecy::Shaking;
        self.shake_hands(key, slot, drained, &[]);
    }

    fn shake_hands(&mut self, key: Key, slot: SlotId, drained: PlaintextDrained, unread: &[u8]) {
        let receiving = self
            .sessions
            .get(key)
            .is_some_and(|session| session.flags.receiving);
        let connection = match &self.tls {
            Some(tls) => Connection::server(tls.config.clone()),
            None => Err(Failure::Internal),
        };
        match connection {
            Ok(connection) => {
                let begin = Begin {
                    slot,
                    owner: Who::Session(key).owner(),
                    group: Group::Client,
                    receiving,
                };
                self.wire.begin(begin, connection, unread, drained);
            }
            Err(_) => self.drop_client(key, Ended::Dropped),
        }
    }

    /// A client's handshake is over.
    pub(super) fn client_secured(&mut self, key: Key, result: io::Result<()>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut session.secrecy, Secrecy::Inside);
        if result.is_err() {
            session.secrecy = before;
            return self.drop_client(key, Ended::Dropped);
        }
        if before == Secrecy::First {
            session.close_at = Moment::NEVER;
            return self.greet_inside(key);
        }
        self.relay_call(key, |relay, cx| relay.handle_secured(cx));
        self.settle(key);
        self.feed(key);
    }

    /// The greeting of a listener with implicit TLS, or the wait before it.
    fn greet_inside(&mut self, key: Key) {
        let wait = self.greet_wait();
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        // Somebody had something else to say in the meantime.
        let leaves = session.flags.closing;
        if leaves {
            return self.finish_step(key);
        }
        let waits = !wait.is_zero() && !session.standing.is_allowed() && !session.flags.receiving;
        let (Some(slot), true) = (session.slot, waits) else {
            return self.greet(key, Verdict::Pass);
        };
        if let Some(session) = self.take_session(key) {
            let admission = Admission {
                standing: session.standing,
                ruling: Ruling::PASS,
                errors: session.errors,
            };
            let arrival = Arrival {
                listener: session.listener.into(),
                slot,
                peer: session.peer.into(),
                introduction: session.introduction,
                unread: Vec::new(),
            };
            self.park_newcomer(arrival, admission, wait);
        }
    }

    /// Ends a session that nothing can be said to.
    pub(super) fn drop_client(&mut self, key: Key, why: Ended) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.ended = why;
            session.flags.closing = true;
            self.client_lost(key);
        }
    }
}
