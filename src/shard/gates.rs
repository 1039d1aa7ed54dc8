//! Where a session meets policy: the questions of the relay, and what is counted on the side.
//!
//! Policy answers at once; only a RCPT may have to wait for what is inquired of its client (`inquiry.rs`). A ruling has three parts: the
//! verdict goes back into the relay, what was noticed is counted and logged, and what it does to the client's temper
//! shows in how its next replies go out: delayed, or dripped from the pit.

use std::time::Duration;

use weir_smtp::gate::{AskId, Stage, Verdict};
use weir_smtp::path;
use weir_smtp::texts;
use weir_smtp::violation::Violation;

use crate::maillog::FindingRecord;
use crate::net::proxy::looks_like_header;
use crate::policy::access::Listed;
use crate::policy::dossier::Detail;
use crate::policy::finding::FindingSet;
use crate::policy::pace::Pace;
use crate::policy::{Action, Finding, Ruling, Standing, Temper};
use crate::ring::Wire;

use super::inquiry::Place;
use super::leg::outcome_of;
use super::session::Session;
use super::slab::Key;
use super::world::World;

/// One finding, for counters and log.
pub struct Note {
    pub finding: Finding,
    pub stage: &'static str,
    /// The reason, where a finding can have several.
    pub why: &'static str,
    /// What it adds to the score.
    pub weight: i16,
    pub detail: Detail,
    /// What it leads to now, should that be milder than what it is set to.
    pub taken: Action,
}

impl Note {
    pub fn of(finding: Finding, stage: &'static str) -> Note {
        Note {
            finding,
            stage,
            why: "",
            weight: 0,
            detail: Detail::None,
            taken: Action::Drop,
        }
    }
}

impl<W: Wire> World<W> {
    /// The answer to a question of the relay; None: it comes later.
    pub(super) fn judge(&mut self, key: Key, id: AskId, stage: Stage) -> Option<Verdict> {
        if let Stage::Rcpt { index } = stage {
            return self.judge_recipient(key, id, index);
        }
        self.inquire_at(key, stage);
        let verdict = self.judge_at_once(key, stage);
        let command = matches!(
            stage,
            Stage::Helo | Stage::StartTls | Stage::Mail | Stage::Data
        );
        match verdict {
            Verdict::Pass if command => Some(self.dropped(key).unwrap_or(Verdict::Pass)),
            verdict => Some(verdict),
        }
    }

    /// What a command tells of its client is looked into.
    fn inquire_at(&mut self, key: Key, stage: Stage) {
        match stage {
            Stage::Helo => self.helo_said(key),
            Stage::Mail => self.mail_said(key),
            _ => {}
        }
    }

    /// A recipient, from the cheapest question on. None: it waits for what is still being looked up.
    fn judge_recipient(&mut self, key: Key, id: AskId, index: u16) -> Option<Verdict> {
        let Some(session) = self.sessions.get(key) else {
            return Some(Verdict::Pass);
        };
        if session.flags.stutter {
            // As at MAIL: none gets any further.
            return Some(self.count_refusal(Verdict::Refuse(texts::DENIED_FOR_NOW)));
        }
        let argument = session
            .relay
            .envelope()
            .map(|envelope| envelope.recipient_argument(index));
        let Some(Ok((path, _))) = argument.map(path::parse) else {
            unreachable!("the relay asks about recipients that it has parsed");
        };
        let is_spared = self.policy.access().recipient(&path) == Some(Listed::Allow);
        let mut ruling = self.policy.relays(sender(session), &path, self.now);
        if ruling.passes() {
            ruling = ruling.and(self.at_trap(key, index));
        }
        self.take_note(key, &ruling, "rcpt");
        if !ruling.passes() {
            return Some(self.count_refusal(ruling.verdict));
        }
        if is_spared {
            // It gets all mail, whoever it is from: there is nothing to wait for.
            return Some(self.judge_at_last(key, index));
        }
        if self.is_inquired(key) && self.put_off(key, id, index) {
            return None;
        }
        Some(self.judge_by_score(key, index))
    }

    /// The rest of it, when nothing has to be waited for any more.
    pub(super) fn judge_by_score(&mut self, key: Key, index: u16) -> Verdict {
        let verdict = match self.is_inquired(key) {
            true => self.weigh_score(key),
            false => Verdict::Pass,
        };
        let Some(session) = self.sessions.get(key) else {
            return Verdict::Pass;
        };
        if session.flags.stutter {
            return self.count_refusal(Verdict::Refuse(texts::DENIED_FOR_NOW));
        }
        match verdict {
            Verdict::Pass => self.judge_at_last(key, index),
            verdict => self.count_refusal(verdict),
        }
    }

    /// What does not depend on the client's score, or comes after it.
    fn judge_at_last(&mut self, key: Key, index: u16) -> Verdict {
        let Some(session) = self.sessions.get(key) else {
            return Verdict::Pass;
        };
        let standing = sender(session);
        let mut ruling = self.at_recipient(key, index);
        self.take_note(key, &ruling, "rcpt");
        if ruling.passes() {
            ruling = self.policy.recipient(standing, self.now);
            self.take_note(key, &ruling, "rcpt");
        }
        self.count_refusal(ruling.verdict)
    }

    /// Who was authenticated meanwhile is not doubted any more.
    fn is_inquired(&self, key: Key) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            session.inquiry != Place::NONE && !sender(session).is_beyond_doubt()
        })
    }

    /// Counts the recipient if that is what it comes to.
    fn count_refusal(&self, verdict: Verdict) -> Verdict {
        if let Verdict::Refuse(reply) | Verdict::Close(reply) = &verdict {
            self.counters.recipients.at(outcome_of(reply.code())).inc();
        }
        verdict
    }

    fn judge_at_once(&mut self, key: Key, stage: Stage) -> Verdict {
        let now = self.now;
        let Some(session) = self.sessions.get(key) else {
            return Verdict::Pass;
        };
        let standing = session.standing;
        let ruling = match stage {
            Stage::Connect => return self.welcome.take().unwrap_or(Verdict::Pass),
            Stage::Mail | Stage::Data if session.flags.stutter => {
                // It is parked as soon as no transaction is open, so none gets any further.
                return Verdict::Refuse(texts::DENIED_FOR_NOW);
            }
            Stage::Mail if self.has_no_server(session) => return Verdict::Close(texts::COME_AGAIN),
            Stage::Helo => self.policy.helo(standing, session.relay.helo(), now),
            Stage::Mail => {
                let mail = session
                    .relay
                    .envelope()
                    .map(|envelope| envelope.mail_path());
                let Some(Ok((path, _))) = mail.map(path::parse) else {
                    unreachable!("the relay asks about senders that it has parsed");
                };
                self.policy.mail(standing, &path, now)
            }
            Stage::Finding(finding) => self.policy.found(standing, finding.into(), now),
            // Where client and server come to terms themselves, weir needs no certificate.
            Stage::StartTls if self.tls.is_none() && !self.tunnels(session.listener) => {
                return Verdict::Refuse(texts::TLS_UNAVAILABLE);
            }
            Stage::StartTls if self.tunnels(session.listener) && !self.may_tunnel(key) => {
                return Verdict::Refuse(texts::TLS_UNAVAILABLE);
            }
            Stage::StartTls => self.policy.handshake(standing, now),
            Stage::Data => {
                let ruling = self.at_data(key);
                if ruling.passes() {
                    self.stamp_message(key);
                }
                ruling
            }
            Stage::Rcpt { .. }
            | Stage::EndOfHeaders
            | Stage::EndOfData
            | Stage::FinalReply { .. } => {
                return Verdict::Pass;
            }
        };
        self.take_note(key, &ruling, word(stage));
        ruling.verdict
    }

    /// What is said inside a tunnel passes no gate: there is one only for whom the gates on recipients would let pass anyway.
    fn may_tunnel(&self, key: Key) -> bool {
        let Some(standing) = self.sessions.get(key).map(sender) else {
            return false;
        };
        self.policy.may_go_unread(standing)
            && (standing.is_beyond_doubt() || self.is_unsuspected(key))
    }

    /// Counts and logs what was noticed, and lets the client feel it.
    pub(super) fn take_note(&mut self, key: Key, ruling: &Ruling, stage: &'static str) {
        self.take_note_of(key, ruling, stage, "");
    }

    /// The same, with a reason for the log.
    pub(super) fn take_note_of(
        &mut self,
        key: Key,
        ruling: &Ruling,
        stage: &'static str,
        why: &'static str,
    ) {
        if ruling.noticed.is_empty() {
            return;
        }
        self.note_each(key, ruling.noticed, stage, why);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some((finding, action)) = ruling.by {
            match action {
                Action::Delay | Action::Stutter => session.blame = Some(finding),
                _ => session.why = Some(finding),
            }
            self.feel_temper(key);
        }
    }

    /// Counts and logs what was found, and lets its weight be felt.
    fn note_each(&mut self, key: Key, noticed: FindingSet, stage: &'static str, why: &'static str) {
        let mut weighed = false;
        for finding in noticed.iter() {
            let weight = self.policy.config().actions.weight(finding);
            let note = Note {
                why,
                weight,
                ..Note::of(finding, stage)
            };
            weighed |= self.weigh_finding(key, finding);
            self.note(key, &note);
            self.remember_finding(key, finding);
        }
        if let Some(inquiry) = self.inquiry_of(key).filter(|_| weighed) {
            self.feel_score(inquiry, key);
        }
    }

    /// What was found of a client before it had a session.
    pub(super) fn note_all(&mut self, key: Key, noticed: FindingSet) {
        self.note_each(key, noticed, "connect", "");
    }

    /// Counts and logs one finding.
    pub(super) fn note(&mut self, key: Key, note: &Note) {
        let inquiry = self.inquiry_of(key);
        let inquiry = inquiry.and_then(|inquiry| self.inquiries.get_mut(inquiry));
        let score = inquiry.map(|entry| {
            entry.told(note.finding);
            entry.dossier.score()
        });
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let finding = note.finding;
        let action = match self.policy.config().actions.of(finding) {
            // What speaks for a client leads to nothing else.
            action if note.weight < 0 => action.min(Action::Log),
            action => action.min(note.taken),
        };
        self.counters
            .findings
            .at(finding as usize, action as usize)
            .inc();
        self.log.finding(&FindingRecord {
            at: self.now,
            session: session.number,
            client: session.peer.into(),
            finding: finding.word(),
            action: action.word(),
            stage: note.stage,
            after: self.now.since(session.accepted),
            why: note.why,
            // Nothing is weighed without a score.
            weight: score.map_or(0, |_| note.weight),
            score,
            detail: &self.detail_words(note.detail),
        });
    }

    pub(super) fn detail_words(&self, detail: Detail) -> String {
        match detail {
            Detail::None => String::new(),
            Detail::Zone(zone) => self.zone_word(zone),
            Detail::Asn(number) => format!("AS{number}"),
            Detail::Country(letters) => letters.map(char::from).iter().collect(),
        }
    }

    /// A finding whose action is delay or stutter is remembered of the client's address.
    pub(super) fn resent(&mut self, key: Key, finding: Finding) {
        let action = self.policy.config().actions.of(finding);
        if !matches!(action, Action::Delay | Action::Stutter) {
            return;
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.blame = Some(finding);
            self.policy.found(session.standing, finding, self.now);
        }
    }

    /// Reads how this client is to be treated from now on.
    pub(super) fn feel_temper(&mut self, key: Key) {
        let scored = self.temper_of_score(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let remembered = self
            .policy
            .temper(session.standing, session.errors, self.now);
        let temper = remembered.max(scored);
        if scored > remembered {
            session.blame = Some(match scored {
                Temper::Stutter => Finding::ScoreStutter,
                _ => Finding::ScoreDelay,
            });
        }
        session.flags.paced = temper != Temper::Normal;
        session.flags.stutter = temper == Temper::Stutter;
        session.relay.set_paced(session.flags.paced);
    }

    fn temper_of_score(&self, key: Key) -> Temper {
        if !self.is_inquired(key) {
            return Temper::Normal;
        }
        let inquiry = self.inquiry_of(key);
        let entry = inquiry.and_then(|inquiry| self.inquiries.get(inquiry));
        entry.map_or(Temper::Normal, |entry| {
            self.policy.temper_of(self.felt_score(entry))
        })
    }

    /// Counts a rule that the client broke; its reply is on its way already.
    pub(super) fn violated(&mut self, violation: Violation) {
        self.counters.violations.at(violation as usize).inc();
    }

    /// The first octets of a client: it must not begin as a proxy does.
    pub(super) fn weigh_first_octets(&mut self, key: Key) -> Verdict {
        let first = self.sessions.get(key).and_then(|session| {
            let piece = session.intake.first()?;
            let bytes = &self.wire.buffer(piece.buffer)[piece.start as usize..];
            let forged = looks_like_header(&bytes[..piece.len as usize]);
            forged.then_some(session.standing)
        });
        let Some(standing) = first else {
            return Verdict::Pass;
        };
        let ruling = self.policy.found(standing, Finding::ForgedProxy, self.now);
        self.take_note(key, &ruling, "connect");
        ruling.verdict
    }

    /// Compares the session's errors and junk commands with what was known of them, and acts on the difference.
    pub(super) fn weigh_errors(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let stats = *session.relay.stats();
        if stats.errors == session.errors_seen && stats.junk == session.junk_seen {
            return;
        }
        let limits = self.policy.config().errors;
        if stats.junk < session.junk_seen {
            session.errors.accepted();
            session.junk_seen = 0;
        }
        let mut found: Option<Finding> = None;
        while session.errors_seen < stats.errors {
            session.errors_seen += 1;
            found = session.errors.error(&limits).or(found);
        }
        while session.junk_seen < stats.junk {
            session.junk_seen += 1;
            found = session.errors.junk(&limits).or(found);
        }
        let Some(finding) = found else { return };
        let standing = session.standing;
        let ruling = self.policy.found(standing, finding, self.now);
        self.take_note(key, &ruling, "command");
        if let Verdict::Close(reply) | Verdict::Refuse(reply) = ruling.verdict {
            self.relay_call(key, |relay, cx| relay.refuse(cx, &reply));
            self.settle(key);
        }
    }

    /// Octets of a body count against the client's byte rate: beyond it, reading pauses.
    pub(super) fn charge_bytes(&mut self, key: Key, len: u32) {
        let in_body = |session: &Session| session.relay.body_octets().is_some();
        if !self.sessions.get(key).is_some_and(in_body) {
            return;
        }
        if let Some(pause) = self.charge(key, len)
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.pause_until = self.now + pause;
            self.pause_receiving(key);
        }
    }

    /// Octets of a client, whatever they are: how long it is not to be read for them.
    pub(super) fn charge(&mut self, key: Key, len: u32) -> Option<Duration> {
        let standing = self.sessions.get(key)?.standing;
        let pause = self.policy.body(standing, len, self.now)?;
        let action = self.policy.config().actions.of(Finding::RateBytes);
        self.counters
            .findings
            .at(Finding::RateBytes as usize, action as usize)
            .inc();
        (!pause.is_zero()).then_some(pause)
    }

    /// A body that holds an upstream connection has been looked at: is it coming along?
    pub(super) fn check_body_pace(&mut self, leg_key: Key, key: Key) {
        let config = self.policy.config().pace;
        let short = self.is_short_of_buffers();
        let Some(leg) = self.legs.get_mut(leg_key) else {
            return;
        };
        if short {
            // It may well be us who do not read.
            leg.pace = leg.pace.map(|_| Pace::start(&config, self.now));
        }
        let Some(pace) = &mut leg.pace else { return };
        let slow = pace.is_slow(&config, self.now);
        leg.due = pace.deadline(&config);
        self.arm_leg(leg_key);
        if !slow {
            return;
        }
        let Some(standing) = self.sessions.get(key).map(|session| session.standing) else {
            return;
        };
        let ruling = self.policy.found(standing, Finding::SlowBody, self.now);
        self.take_note(key, &ruling, "body");
        if let Verdict::Close(reply) | Verdict::Refuse(reply) = ruling.verdict {
            self.relay_step(key, |relay, cx| relay.refuse(cx, &reply));
        }
    }
}

fn word(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "connect",
        Stage::Helo => "helo",
        Stage::StartTls => "starttls",
        Stage::Mail => "mail",
        Stage::Rcpt { .. } => "rcpt",
        Stage::Data => "data",
        Stage::EndOfHeaders => "end_of_headers",
        Stage::EndOfData => "end_of_data",
        Stage::FinalReply { .. } => "final_reply",
        Stage::Finding(_) => "command",
    }
}

/// What policy knows of a client as somebody who sends mail: an upstream that has authenticated it decides itself.
fn sender(session: &Session) -> Standing {
    match session.relay.is_authenticated() {
        true => session.standing.vouched_for(),
        false => session.standing,
    }
}
