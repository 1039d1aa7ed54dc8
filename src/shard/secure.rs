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
use std::time::Duration;

use rustls::pki_types::UnixTime;
use weir_smtp::gate::Verdict;
use weir_smtp::relay::TlsOffer;
use weir_smtp::starttls::PlaintextDrained;
use weir_smtp::time::Moment;

use crate::maillog::TlsWords;
use crate::metrics::{Ended, Handshake, Refusal, TlsFailure, TlsLeg};
use crate::net::{ClientTls, Service};
use crate::policy::{Admission, Finding, Ruling};
use crate::ring::{Group, SlotId, Wire};
use crate::tls::{Begin, Connection, Facts, Failure, Shown, Version};

use super::arrivals::Arrival;
use super::clock::Clock;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// How far a session is on its way to TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrecy {
    #[default]
    Plain,
    /// The 220 to STARTTLS is on its way out. `glued`: something has come in front of the handshake.
    Asked {
        glued: bool,
    },
    /// The handshake that STARTTLS asked for.
    Shaking {
        glued: bool,
    },
    /// The handshake that comes before the greeting: the relay has not begun.
    First,
    Inside(Facts),
}

impl Secrecy {
    /// Nothing can be said to the client now.
    pub fn is_shaking(self) -> bool {
        matches!(self, Secrecy::Shaking { .. } | Secrecy::First)
    }

    /// Nothing but the 220 is in the way of a handshake.
    pub fn is_asked(self) -> bool {
        matches!(self, Secrecy::Asked { .. })
    }

    /// What was agreed on with the client.
    pub fn facts(self) -> Option<Facts> {
        match self {
            Secrecy::Inside(facts) => Some(facts),
            _ => None,
        }
    }

    /// What is received is not for the relay.
    pub fn discards(self) -> bool {
        matches!(self, Secrecy::Asked { .. } | Secrecy::Shaking { .. })
    }
}

/// How a session stands to TLS, by its listener and by what has happened.
pub(super) fn offer(services: &[Service], certified: bool, session: &Session) -> TlsOffer {
    if session.secrecy.facts().is_some() {
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
    pub(super) fn admit_to_handshake(&mut self, mut arrival: Arrival, admission: Admission) {
        let mut session = self.begin_session(&mut arrival, &admission);
        session.secrecy = Secrecy::First;
        session.close_at = self.now + self.config.smtp.timeouts.handshake;
        let Some(key) = self.add_session(session) else {
            return;
        };
        self.take_note(key, &admission.ruling, "connect");
        let mut ruling = admission.ruling;
        if ruling.passes() {
            ruling = self.policy.handshake(admission.standing, self.now);
            self.take_note(key, &ruling, "connect");
        }
        if !ruling.passes() {
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
        session.secrecy = Secrecy::Asked { glued: false };
        // Nothing comes after this reply that it could wait for.
        session.flags.prompt = true;
        let glued = !session.intake.is_empty();
        self.drop_intake(key);
        if glued {
            self.glued(key);
        }
    }

    /// Octets came between STARTTLS and the handshake, and were thrown away.
    pub(super) fn glued(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.secrecy = match session.secrecy {
            Secrecy::Asked { glued: false } => Secrecy::Asked { glued: true },
            Secrecy::Shaking { glued: false } => Secrecy::Shaking { glued: true },
            // Once is enough.
            _ => return,
        };
        let standing = session.standing;
        self.counters.tls_injections.inc();
        let ruling = self.policy.found(standing, Finding::TlsInjection, self.now);
        self.take_note(key, &ruling, "starttls");
        if let Verdict::Close(reply) | Verdict::Refuse(reply) = ruling.verdict {
            // Said inside TLS.
            self.relay_call(key, |relay, cx| relay.refuse(cx, &reply));
        }
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
        let glued = session.secrecy == Secrecy::Asked { glued: true };
        session.secrecy = Secrecy::Shaking { glued };
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
            Err(failure) => {
                self.count_failure(TlsLeg::Client, &failure.into());
                self.drop_client(key, Ended::Tls)
            }
        }
    }

    /// A client's handshake is over.
    pub(super) fn client_secured(&mut self, key: Key, result: io::Result<()>) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before = session.secrecy;
        let slot = session.slot;
        let secured = result.and_then(|()| {
            if let (Some(slot), Some(tls)) = (slot, &self.tls) {
                let wall = Duration::from_secs(self.log.wall_seconds(self.now));
                let now = UnixTime::since_unix_epoch(wall);
                self.wire
                    .weigh_certificate(slot, |chain| tls.trusts(chain, now));
            }
            let facts = slot.and_then(|slot| self.wire.facts(slot));
            facts.ok_or_else(|| Failure::Internal.into())
        });
        let facts = match secured {
            Ok(facts) => facts,
            Err(error) => {
                self.count_failure(TlsLeg::Client, &error);
                self.note_failure(key, "handshake", failure_of(&error).word());
                return self.drop_client(key, Ended::Tls);
            }
        };
        session.secrecy = Secrecy::Inside(facts);
        if before == Secrecy::First && !session.flags.closing {
            session.close_at = Moment::NEVER;
        }
        self.count_handshake(TlsLeg::Client, facts);
        if before == Secrecy::First {
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
        self.leave_inquiry_beside(key, slot);
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

    /// The handshake did not come to its end in time.
    pub(super) fn handshake_overdue(&mut self, key: Key) {
        let failures = &self.counters.tls_failures;
        failures.at(TlsLeg::Client, TlsFailure::Timeout).inc();
        self.note_failure(key, "handshake", "timeout");
    }

    /// A client's connection is gone: not by its close_notify, if it is inside TLS.
    pub(super) fn client_cut(&mut self, key: Key, error: &io::Error) {
        self.count_cut(TlsLeg::Client, error);
        if Failure::of(error).is_some_and(|failure| failure != Failure::Truncated) {
            self.note_failure(key, "tls", failure_of(error).word());
        }
    }

    fn note_failure(&mut self, key: Key, stage: &'static str, why: &'static str) {
        if let Some(session) = self.sessions.get(key) {
            let standing = session.standing;
            let ruling = self.policy.found(standing, Finding::TlsFailed, self.now);
            self.take_note_of(key, &ruling, stage, why);
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

/// The books of both sides.
impl<W: Wire> World<W> {
    /// What handshakes cost shows in the metrics from now on.
    pub(super) fn measure_handshakes_by(&mut self, clock: Clock) {
        self.wire.measure_by(move || clock.now());
    }

    pub(super) fn count_handshake(&self, leg: TlsLeg, facts: Facts) {
        let kind = match (facts.version, facts.resumed) {
            (Version::Tls12, false) => Handshake::Tls12,
            (Version::Tls12, true) => Handshake::Tls12Resumed,
            (Version::Tls13, false) => Handshake::Tls13,
            (Version::Tls13, true) => Handshake::Tls13Resumed,
        };
        self.counters.tls_handshakes.at(leg, kind).inc();
    }

    pub(super) fn count_failure(&self, leg: TlsLeg, error: &io::Error) {
        self.counters.tls_failures.at(leg, failure_of(error)).inc();
    }

    /// A stream that has ended without its close_notify, or that broke the rules.
    pub(super) fn count_cut(&self, leg: TlsLeg, error: &io::Error) {
        match Failure::of(error) {
            Some(Failure::Truncated) => self.counters.tls_cut.at(leg).inc(),
            Some(_) => self.count_failure(leg, error),
            // The network's own: a reset, as without TLS.
            None => {}
        }
    }
}

/// For the log.
pub(super) fn tls_words(facts: Facts) -> TlsWords {
    TlsWords {
        version: facts.version.word(),
        suite: facts.suite(),
        resumed: facts.resumed,
        certificate: match facts.certificate {
            Shown::Nothing => "",
            Shown::Untrusted => "untrusted",
            Shown::Trusted => "trusted",
        },
    }
}

pub(super) fn failure_of(error: &io::Error) -> TlsFailure {
    match Failure::of(error) {
        Some(Failure::Garbage) => TlsFailure::Garbage,
        Some(Failure::Incompatible) => TlsFailure::Incompatible,
        Some(Failure::Misbehaved) => TlsFailure::Misbehaved,
        Some(Failure::Alert) => TlsFailure::Alert,
        Some(Failure::Certificate) => TlsFailure::Certificate,
        Some(Failure::TooLong) => TlsFailure::TooLong,
        Some(Failure::NoRoom) => TlsFailure::NoRoom,
        Some(Failure::Internal) => TlsFailure::Internal,
        Some(Failure::Truncated) | None => TlsFailure::Truncated,
    }
}
