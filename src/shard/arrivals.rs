//! Arrivals and departures: from an accepted socket to a session, and from a finished session to its line in the log.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use weir_smtp::gate::Verdict;
use weir_smtp::relay::Outcome;
use weir_smtp::reply::ReplyText;
use weir_smtp::texts;

use crate::maillog::{SessionRecord, TransactionRecord, Value};
use crate::metrics::{self, Body, Ended, Refusal};
use crate::policy::overload::Rung;
use crate::policy::{Finding, Standing};
use crate::ring::{Close, SlotId, Wire};
use crate::route::Tried;

use super::dedicated::upstream_name;
use super::introduction::{Introduction, told};
use super::parking::Belongings;
use super::pit::{Peer, Row};
use super::secure::tls_words;
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
    pub(super) fn admit(&mut self, arrival: Arrival) {
        self.weigh_load();
        let rung = self.ladder.rung();
        let admission = self.policy.connected(arrival.peer.ip(), rung, self.now);
        if self.is_implicit(arrival.listener) {
            return self.admit_to_handshake(arrival, admission);
        }
        let wait = self.greet_wait();
        let waits =
            !wait.is_zero() && admission.ruling.passes() && !admission.standing.is_allowed();
        if waits && arrival.unread.is_empty() {
            return self.park_newcomer(arrival, admission, wait);
        }
        let ruling = match waits {
            // It has not even waited for the first line.
            true => self
                .policy
                .found(admission.standing, Finding::Pregreet, self.now),
            false => admission.ruling,
        };
        self.sessions_seen += 1;
        let peer = Peer::from(arrival.peer);
        let mut session = Session::new(self.now, self.sessions_seen, arrival.slot, peer);
        session.standing = admission.standing;
        session.errors = admission.errors;
        session.listener = arrival.listener as u8;
        session.introduction = arrival.introduction;
        session.bytes_in = arrival.unread.len() as u64;
        let Some(key) = self.add_session(session) else {
            return;
        };
        self.take_note(key, &ruling, "connect");
        self.read_again(key, &arrival.unread);
        self.greet_early(key, ruling.verdict);
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
                if let Some(slot) = slot {
                    self.wire.set_owner(slot, Who::Session(key).owner());
                }
                self.count_sessions();
                self.feel_temper(key);
                Some(key)
            }
            Err(_) => {
                self.policy.disconnected(standing, errors, self.now);
                self.shared.client_leaves();
                if let Some(slot) = slot {
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

    /// Nobody owns this slot any more; its end is only counted.
    pub(super) fn close_slot(&mut self, slot: SlotId, how: Close) {
        self.wire.set_owner(slot, Who::Nobody.owner());
        self.wire.close(slot, how);
        self.closing += 1;
    }

    /// Takes a session out of the slab.
    pub(super) fn take_session(&mut self, key: Key) -> Option<Session> {
        let session = self.sessions.remove(key)?;
        if session.flags.idle {
            self.idle_sessions -= 1;
        }
        Some(session)
    }

    /// The relay has nothing left to do and the socket is closed.
    pub(super) fn end_session(&mut self, key: Key) {
        self.cancel_attach(key);
        self.leave_streams(key);
        self.drop_intake(key);
        self.forget_room(key);
        let Some(mut session) = self.take_session(key) else {
            return;
        };
        session.out.clear();
        self.flights.relieve(&mut session.out);
        if let Some(leg) = session.leg {
            self.close_leg(leg, Some(metrics::ClosedLeg::Aborted));
        }
        let stats = session.relay.stats();
        self.counters.sessions_ended.at(session.ended).inc();
        self.counters
            .session_seconds
            .observe(self.now.since(session.accepted));
        self.log.session(&SessionRecord {
            at: self.now,
            session: session.number,
            client: session.peer.into(),
            told: told(&session.introduction),
            helo: session.relay.helo(),
            ended: session.ended,
            why: session.why.map_or("", Finding::word),
            reply: session
                .last_words
                .as_ref()
                .map_or(b"", |text| text.as_bytes()),
            lasted: self.now.since(session.accepted),
            parked: Duration::from_millis(session.parked_millis.into()),
            transactions: stats.transactions.into(),
            accepted: stats.accepted.into(),
            deferred: stats.deferred.into(),
            rejected: stats.rejected.into(),
            errors: stats.errors.into(),
            bytes_in: session.bytes_in,
            bytes_out: session.bytes_out,
            tls: session.secrecy.facts().map(tls_words),
        });
        self.leave(session.standing, session.errors);
    }

    /// The client is gone from all books.
    pub(super) fn leave(&mut self, standing: Standing, errors: crate::policy::errors::Errors) {
        self.policy.disconnected(standing, errors, self.now);
        self.shared.client_leaves();
        self.count_sessions();
    }

    pub(super) fn count_sessions(&self) {
        self.counters
            .sessions_active
            .set((self.sessions.len() + self.pit.len()) as u64);
    }

    /// The last line of a client that left, or was cut, while it was parked.
    pub(super) fn log_parked_end(
        &mut self,
        row: &Row<Belongings>,
        introduction: &Option<Box<Introduction>>,
        ended: Ended,
    ) {
        self.counters.sessions_ended.at(ended).inc();
        let tenant = &row.tenant;
        let here = self.now.since(row.since);
        let mut record = SessionRecord {
            at: self.now,
            session: 0,
            client: tenant.peer.into(),
            told: told(introduction),
            helo: b"",
            ended,
            why: tenant.why.map_or("", |finding| finding.word()),
            reply: row.rest(),
            lasted: here,
            parked: here + Duration::from_millis(tenant.parked_before.into()),
            transactions: 0,
            accepted: 0,
            deferred: 0,
            rejected: 0,
            errors: 0,
            bytes_in: 0,
            bytes_out: 0,
            tls: self.wire.facts(tenant.slot).map(tls_words),
        };
        if let Belongings::Session(parked) = &tenant.parked {
            let stats = parked.relay.stats();
            record.session = parked.number(self.sessions_seen);
            record.helo = parked.relay.helo();
            record.lasted = self.now.since(parked.accepted(row.since));
            record.transactions = stats.transactions.into();
            record.accepted = stats.accepted.into();
            record.deferred = stats.deferred.into();
            record.rejected = stats.rejected.into();
            record.errors = stats.errors.into();
            record.bytes_in = parked.bytes_in.into();
            record.bytes_out = parked.bytes_out.into();
        }
        self.log.session(&record);
    }

    /// A transaction is over: counted, logged, and its client remembered for good if an upstream took the message.
    pub(super) fn transaction_ended(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(ended) = session.relay.ended() else {
            return;
        };
        let outcome = match ended.outcome {
            Outcome::Accepted => metrics::Outcome::Accepted,
            Outcome::Deferred => metrics::Outcome::Deferred,
            Outcome::Rejected => metrics::Outcome::Rejected,
            Outcome::Abandoned | Outcome::Lost => metrics::Outcome::Abandoned,
        };
        let lasted = self.now.since(ended.started);
        let answer = ended
            .end_of_data
            .map(|end| self.now.since(end))
            .unwrap_or_default();
        let counters = &self.counters;
        counters.transactions.inc();
        counters.transaction_seconds.observe(lasted);
        counters.messages.at(outcome).inc();
        if ended.end_of_data.is_some() {
            counters
                .bodies
                .at(if ended.streamed {
                    Body::Streamed
                } else {
                    Body::Held
                })
                .inc();
            counters.final_reply_seconds.observe(answer);
        }
        match outcome {
            metrics::Outcome::Accepted => {
                counters.message_bytes.add(ended.octets);
                self.policy.accepted(session.standing, self.now);
            }
            metrics::Outcome::Deferred
            | metrics::Outcome::Rejected
            | metrics::Outcome::Abandoned => {}
        }
        self.counters.given_back.add(ended.given_back.into());
        self.counters
            .replay_refusals
            .add(ended.replay_refused.into());
        let name = |id| upstream_name(&self.upstream_names, &self.config.services, session, id);
        let upstream = ended.upstream.map(name);
        let record = TransactionRecord {
            at: self.now,
            session: session.number,
            transaction: session.relay.stats().transactions.into(),
            client: session.peer.into(),
            told: told(&session.introduction),
            helo: session.relay.helo(),
            sender: ended.envelope.sender(),
            recipients: ended.envelope.recipient_count() as u32,
            recipients_accepted: ended.envelope.accepted() as u32,
            size: ended.octets,
            upstream: upstream.as_deref().unwrap_or_default(),
            outcome,
            reply: ended.reply,
            why: if ended.unheard { "unheard" } else { "" },
            body: ended.end_of_data.map(|_| {
                if ended.streamed {
                    Body::Streamed
                } else {
                    Body::Held
                }
            }),
            lasted,
            queue_wait: Duration::from_millis(session.want.waited.into()),
            data: ended.data_took(),
            answer,
            tls: session.secrecy.facts().map(tls_words),
        };
        let all = 0..ended.envelope.recipient_count() as u16;
        self.log
            .transaction(&record, all.map(|index| ended.envelope.recipient(index)));
        session.want.waited = 0;
        session.want.tried = Tried::default();
        if self.drain.is_on() {
            session.flags.send_off = true;
        }
        self.forget_room(key);
    }
}
