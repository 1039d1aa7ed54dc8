//! Where a session meets policy: the questions of the relay, and what is counted on the side.
//!
//! Policy answers at once, so every `Ask` is answered within the step that asked it. A ruling has three parts: the
//! verdict goes back into the relay, what was noticed is counted and logged, and what it does to the client's temper
//! shows in how its next replies go out: delayed, or dripped from the pit.

use std::time::Duration;

use weir_smtp::gate::{Stage, Verdict};
use weir_smtp::path;
use weir_smtp::texts;
use weir_smtp::violation::Violation;

use crate::maillog::FindingRecord;
use crate::net::proxy::looks_like_header;
use crate::policy::pace::Pace;
use crate::policy::{Action, Finding, Ruling, Standing, Temper};
use crate::ring::Wire;

use super::leg::outcome_of;
use super::session::Session;
use super::slab::Key;
use super::world::World;

impl<W: Wire> World<W> {
    /// The answer to a question of the relay.
    pub(super) fn judge(&mut self, key: Key, stage: Stage) -> Verdict {
        let now = self.now;
        let Some(session) = self.sessions.get(key) else {
            return Verdict::Pass;
        };
        let standing = session.standing;
        let ruling = match stage {
            Stage::Connect => return self.welcome.take().unwrap_or(Verdict::Pass),
            Stage::Mail | Stage::Rcpt { .. } | Stage::Data if session.flags.stutter => {
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
            Stage::Rcpt { index } => {
                let argument = session
                    .relay
                    .envelope()
                    .map(|envelope| envelope.recipient_argument(index));
                let Some(Ok((path, _))) = argument.map(path::parse) else {
                    unreachable!("the relay asks about recipients that it has parsed");
                };
                self.policy.recipient(sender(session), &path, now)
            }
            Stage::Finding(finding) => self.policy.found(standing, finding.into(), now),
            // Where client and server come to terms themselves, weir needs no certificate.
            Stage::StartTls if self.tls.is_none() && !self.tunnels(session.listener) => {
                return Verdict::Refuse(texts::TLS_UNAVAILABLE);
            }
            Stage::StartTls if self.tunnels(session.listener) && !self.may_tunnel(session) => {
                return Verdict::Refuse(texts::TLS_UNAVAILABLE);
            }
            Stage::StartTls => self.policy.handshake(standing, now),
            Stage::Data => {
                self.stamp_message(key);
                return Verdict::Pass;
            }
            Stage::EndOfHeaders | Stage::EndOfData | Stage::FinalReply { .. } => {
                return Verdict::Pass;
            }
        };
        if let (Stage::Rcpt { .. }, Verdict::Refuse(reply) | Verdict::Close(reply)) =
            (stage, &ruling.verdict)
        {
            self.counters.recipients.at(outcome_of(reply.code())).inc();
        }
        self.take_note(key, &ruling, word(stage));
        ruling.verdict
    }

    /// What is said inside a tunnel passes no gate: there is one only for whom the gates on recipients would let pass anyway.
    fn may_tunnel(&self, session: &Session) -> bool {
        self.policy.may_go_unread(sender(session))
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
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        for finding in ruling.noticed.iter() {
            let action = self.policy.config().actions.of(finding);
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
                stage,
                after: self.now.since(session.accepted),
                why,
            });
        }
        if let Some((finding, action)) = ruling.by {
            match action {
                Action::Delay | Action::Stutter => session.blame = Some(finding),
                _ => session.why = Some(finding),
            }
            self.feel_temper(key);
        }
    }

    /// Reads how this client is to be treated from now on.
    pub(super) fn feel_temper(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let temper = self
            .policy
            .temper(session.standing, session.errors, self.now);
        session.flags.paced = temper != Temper::Normal;
        session.flags.stutter = temper == Temper::Stutter;
        session.relay.set_paced(session.flags.paced);
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
