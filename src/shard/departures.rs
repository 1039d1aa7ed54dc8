//! Departures: from the end of a transaction, or of a session, to its line in the log and its place in every count.

use std::time::Duration;

use weir_smtp::relay::Outcome;

use crate::maillog::{SessionRecord, TransactionRecord, Weighed};
use crate::metrics::{self, Body, Ended};
use crate::policy::{Finding, Standing, errors::Errors};
use crate::ring::{Close, SlotId, Wire};
use crate::route::Tried;
use crate::tls::Version;

use super::dedicated::upstream_name;
use super::inquiry::Findings;
use super::introduction::{Introduction, told};
use super::parking::Belongings;
use super::pit::Row;
use super::secure::tls_words;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

impl<W: Wire> World<W> {
    /// The relay has nothing left to do and the socket is closed.
    pub(super) fn end_session(&mut self, key: Key) {
        self.cancel_attach(key);
        self.leave_streams(key);
        self.drop_intake(key);
        self.forget_room(key);
        let parting = self.inquiries.take_parting(key);
        let findings = parting.or_else(|| self.findings_of(key));
        self.count_score(findings);
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
            findings: weighed(findings),
        });
        self.remember_end(&session);
        self.leave(session.standing, session.errors);
    }

    /// A transaction is over: counted, logged, and its client remembered for good if an upstream took the message.
    pub(super) fn transaction_ended(&mut self, key: Key) {
        let findings = self.findings_of(key);
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
        let answer = ended.end_of_data.map(|end| self.now.since(end));
        let body = ended.end_of_data.map(|_| match ended.streamed {
            true => Body::Streamed,
            false => Body::Held,
        });
        let counters = &self.counters;
        counters.transactions.inc();
        counters.transaction_seconds.observe(lasted);
        counters.messages.at(outcome).inc();
        if let (Some(body), Some(answer)) = (body, answer) {
            counters.bodies.at(body).inc();
            counters.final_reply_seconds.observe(answer);
        }
        if outcome == metrics::Outcome::Accepted {
            counters.message_bytes.add(ended.octets);
            self.policy.accepted(session.standing, self.now);
        }
        counters.given_back.add(ended.given_back.into());
        counters.replay_refusals.add(ended.replay_refused.into());
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
            upstream_tls: ended
                .upstream
                .and(session.leg_tls)
                .map_or("", Version::word),
            outcome,
            reply: ended.reply,
            why: if ended.unheard { "unheard" } else { "" },
            body,
            lasted,
            queue_wait: Duration::from_millis(session.want.waited.into()),
            data: ended.data_took(),
            answer: answer.unwrap_or_default(),
            tls: session.secrecy.facts().map(tls_words),
            findings: weighed(findings),
        };
        let all = 0..ended.envelope.recipient_count() as u16;
        self.log
            .transaction(&record, all.map(|index| ended.envelope.recipient(index)));
        session.want.waited = 0;
        session.want.tried = Tried::default();
        if self.drain.is_on() {
            session.flags.send_off = true;
        }
        self.forget_asks(key);
        self.forget_room(key);
        self.remember_transaction(key);
    }

    /// The last line of a client that left, or was cut, while it was parked.
    pub(super) fn log_parked_end(
        &mut self,
        row: &Row<Belongings>,
        introduction: &Option<Box<Introduction>>,
        findings: Option<Findings>,
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
            findings: weighed(findings),
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

    /// The client is gone from all books.
    pub(super) fn leave(&mut self, standing: Standing, errors: Errors) {
        self.policy.disconnected(standing, errors, self.now);
        self.shared.client_leaves();
        self.count_sessions();
    }

    pub(super) fn count_sessions(&self) {
        self.counters
            .sessions_active
            .set((self.sessions.len() + self.pit.len()) as u64);
    }

    /// Takes a session out of the slab.
    pub(super) fn take_session(&mut self, key: Key) -> Option<Session> {
        let session = self.sessions.remove(key)?;
        self.inquiries.end(session.inquiry);
        if session.flags.idle {
            self.idle_sessions -= 1;
        }
        Some(session)
    }

    /// Nobody owns this slot any more; its end is only counted.
    pub(super) fn close_slot(&mut self, slot: SlotId, how: Close) {
        self.wire.set_owner(slot, Who::Nobody.owner());
        self.wire.close(slot, how);
        self.closing += 1;
    }
}

/// For the log.
fn weighed(findings: Option<Findings>) -> Option<Weighed> {
    findings.map(|findings| Weighed {
        findings: findings.noted,
        score: findings.score,
    })
}
