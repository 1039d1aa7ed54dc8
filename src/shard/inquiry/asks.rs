//! RCPTs that wait for answers, and what becomes of each.

use weir_smtp::gate::{AskId, Verdict};
use weir_smtp::path;
use weir_smtp::time::Moment;

use crate::metrics::Waited;
use crate::policy::access::Listed;
use crate::policy::finding::FindingSet;
use crate::policy::names::Topic;
use crate::policy::reputation::Stakes;
use crate::policy::{Action, Finding};
use crate::ring::Wire;

use super::super::lookups::About;
use super::super::slab::Key;
use super::super::who::Who;
use super::super::world::World;
use super::Inquiry;

/// A RCPT that waits.
pub struct Pending {
    id: AskId,
    index: u16,
    since: Moment,
}

impl<W: Wire> World<W> {
    /// A RCPT has come as far as its client's score. True: it waits, and is judged later.
    pub(in super::super) fn put_off(&mut self, session: Key, id: AskId, index: u16) -> bool {
        let now = self.now;
        let Some(inquiry) = self.inquiry_of(session) else {
            return false;
        };
        if self.is_decided(inquiry) {
            return false;
        }
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return false;
        };
        // As many as a transaction may have in flight.
        entry.pending.push(Pending {
            id,
            index,
            since: now,
        });
        self.arm_inquiry(inquiry);
        true
    }

    /// What the score and the findings say to a recipient, now that it need not wait any more.
    pub(in super::super) fn weigh_score(&mut self, session: Key) -> Verdict {
        let Some(inquiry) = self.inquiry_of(session) else {
            return Verdict::Pass;
        };
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return Verdict::Pass;
        };
        entry.weighed = true;
        let refusal = self.refusal_of(inquiry);
        let taken = refusal.map_or(Action::Off, |(_, action)| action);
        self.tell_steps(inquiry, session, Some(taken));
        self.feel_temper(session);
        match refusal {
            None => Verdict::Pass,
            Some((finding, action)) => self.refused(inquiry, session, finding, action),
        }
    }

    /// What a recipient would be refused for.
    pub(super) fn refusal_of(&self, inquiry: Key) -> Option<(Finding, Action)> {
        let entry = self.inquiries.get(inquiry)?;
        let (found, score, open) = self.known(entry, self.worth_from());
        // Greylisting comes later: this is about refusals.
        let least = match self.policy.suffices(found, score, open, true) {
            // What is done holds whatever the answers are: nobody is dropped who may have to be rejected only.
            true => open.least,
            // They were waited for: it goes by what is known.
            false => 0,
        };
        let neighbours = entry.dossier.neighbours();
        self.policy
            .refusal(found, score + i32::from(least), neighbours)
    }

    /// At any gate: the verdict on a client that is to be dropped whatever is still unknown. Mail to who gets all mail is let
    /// in first.
    pub(in super::super) fn dropped(&mut self, session: Key) -> Option<Verdict> {
        let inquiry = self.inquiry_of(session)?;
        let entry = self.inquiries.get(inquiry)?;
        let (found, score, open) = self.known(entry, Moment::ZERO);
        // Nobody is dropped for what neighbours did.
        let score = score - entry.dossier.neighbours();
        let outlook = self.policy.outlook(found, score + i32::from(open.least));
        let (finding, action) = outlook
            .refusal
            .filter(|(_, action)| *action == Action::Drop)
            .filter(|_| !self.has_spared_recipient(session))?;
        if let Some(entry) = self.inquiries.get_mut(inquiry) {
            entry.weighed = true;
        }
        self.tell_steps(inquiry, session, Some(action));
        Some(self.refused(inquiry, session, finding, action))
    }

    /// Whether somebody has been accepted who gets all mail.
    fn has_spared_recipient(&self, session: Key) -> bool {
        let session = self.sessions.get(session);
        let Some(envelope) = session.and_then(|session| session.relay.envelope()) else {
            return false;
        };
        let access = self.policy.access();
        (0..envelope.recipient_count() as u16).any(|index| {
            let path = path::parse(envelope.recipient_argument(index));
            let listed = path.map(|(path, _)| access.recipient(&path));
            !envelope.is_refused(index) && listed == Ok(Some(Listed::Allow))
        })
    }

    fn refused(&mut self, inquiry: Key, session: Key, finding: Finding, action: Action) -> Verdict {
        if let Some(session) = self.sessions.get_mut(session) {
            session.why = Some(finding);
        }
        self.refusal_for(inquiry, finding, action)
    }

    /// The score that a client feels at once: what may still speak for it is taken to do so. In the pit it could not be told
    /// otherwise for minutes.
    pub(in super::super) fn felt_score(&self, entry: &Inquiry) -> i32 {
        let (_, score, open) = self.known(entry, Moment::ZERO);
        score + i32::from(open.least)
    }

    /// What is known, and what is still at stake in questions that are younger than `from`.
    fn known(&self, entry: &Inquiry, from: Moment) -> (FindingSet, i32, Stakes) {
        let mut stakes = Stakes::NONE;
        let mut names = [Stakes::NONE; Topic::SUBJECTS];
        for open in entry.open.iter().filter(|open| open.since >= from) {
            match open.about {
                // However many questions there are about a name, one finding comes of them.
                About::Name(topic) => {
                    let subject = &mut names[topic.subject()];
                    *subject = subject.or(open.stakes);
                }
                About::Zone(_) | About::Reason(_) => stakes = stakes.and(open.stakes),
            }
        }
        let stakes = names.into_iter().fold(stakes, Stakes::and);
        (entry.dossier.against(), entry.dossier.score(), stakes)
    }

    /// Whether a RCPT may be judged: nothing is open that is worth a wait, or all of it has been waited for.
    pub(super) fn is_decided(&self, inquiry: Key) -> bool {
        let Some(entry) = self.inquiries.get(inquiry) else {
            return true;
        };
        if entry.open.is_empty() || self.is_expired(inquiry) {
            return true;
        }
        let (found, score, open) = self.known(entry, self.worth_from());
        let spared = self.is_not_greylisted(entry);
        self.policy.suffices(found, score, open, spared)
    }

    /// Whether greylisting asks this client nothing, as far as it is known now and whatever its score is.
    fn is_not_greylisted(&self, entry: &Inquiry) -> bool {
        if self.policy.config().reputation.greylist_from.is_none() {
            return true;
        }
        let session = entry.session().and_then(|key| self.sessions.get(key));
        let envelope = session.and_then(|session| session.relay.envelope());
        let sender = envelope.and_then(|envelope| path::parse(envelope.mail_path()).ok());
        entry.findings().noted.contains(Finding::Dnswl)
            || sender
                .is_some_and(|(path, _)| self.policy.access().sender(&path) == Some(Listed::Allow))
            || self.memory.is_proven(entry.ip, self.wall())
    }

    /// All that is open has been waited for.
    fn is_expired(&self, inquiry: Key) -> bool {
        let entry = self.inquiries.get(inquiry);
        entry.is_some_and(|entry| !entry.open.is_empty() && self.wait_ends(entry) <= self.now)
    }

    fn count_wait(&self, pending: &Pending, end: Waited) {
        let counters = &self.counters;
        counters.recipient_waits.at(end).inc();
        counters
            .recipient_wait_seconds
            .observe(self.now.since(pending.since));
    }

    /// A question asked before that has been waited for.
    fn worth_from(&self) -> Moment {
        let wait = self.policy.config().reputation.wait.as_micros() as u64;
        let from = self.now.as_micros().saturating_sub(wait);
        Moment::from_micros(from + 1)
    }

    /// When the RCPT that has waited the longest is judged at the latest.
    fn wait_ends(&self, entry: &Inquiry) -> Moment {
        let wait = self.policy.config().reputation.wait;
        let newest = entry.open.iter().map(|open| open.since).max();
        let first = entry.pending.first().map(|pending| pending.since);
        let asked = newest.map_or(Moment::ZERO, |since| since + wait);
        first.map_or(asked, |since| asked.min(since + wait))
    }

    /// When one more of the open questions has been waited for: what is left may not be worth more.
    fn next_look(&self, entry: &Inquiry) -> Moment {
        let wait = self.policy.config().reputation.wait;
        let ends = entry.open.iter().map(|open| open.since + wait);
        let next = ends.filter(|end| *end > self.now).min();
        next.unwrap_or(Moment::NEVER).min(self.wait_ends(entry))
    }

    fn arm_inquiry(&mut self, inquiry: Key) {
        let Some(entry) = self.inquiries.get(inquiry) else {
            return;
        };
        let due = self.next_look(entry);
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        if due < entry.armed {
            entry.armed = due;
            self.wheel.insert(due, Who::Inquiry(inquiry).to_bits());
        }
    }

    pub(in super::super) fn inquiry_timer(&mut self, inquiry: Key) {
        let now = self.now;
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        if now < entry.armed {
            return;
        }
        if entry.is_explained() {
            return self.explained_further(inquiry);
        }
        entry.armed = Moment::NEVER;
        if let Some(session) = entry.session() {
            self.step(Who::Session(session));
        }
        self.answer_asks(inquiry);
    }

    /// Judges the RCPTs that wait, if they need wait no more.
    pub(super) fn answer_asks(&mut self, inquiry: Key) {
        let waits = |entry: &&Inquiry| !entry.pending.is_empty();
        let Some(entry) = self.inquiries.get(inquiry).filter(waits) else {
            return;
        };
        let Some(session) = entry.session() else {
            return;
        };
        if !self.is_decided(inquiry) {
            return self.arm_inquiry(inquiry);
        }
        let expired = self.is_expired(inquiry);
        while let Some(pending) = self.next_pending(inquiry) {
            self.count_wait(
                &pending,
                if expired {
                    Waited::Expired
                } else {
                    Waited::Answered
                },
            );
            let verdict = self.judge_by_score(session, pending.index);
            self.relay_call(session, |relay, cx| {
                relay.handle_verdict(cx, pending.id, verdict)
            });
            self.settle(session);
        }
        self.finish_step(session);
    }

    fn next_pending(&mut self, inquiry: Key) -> Option<Pending> {
        let entry = self.inquiries.get_mut(inquiry)?;
        (!entry.pending.is_empty()).then(|| entry.pending.remove(0))
    }

    /// The transaction is over: nobody waits for these any more.
    pub(in super::super) fn forget_asks(&mut self, session: Key) {
        let Some(inquiry) = self.inquiry_of(session) else {
            return;
        };
        while let Some(pending) = self.next_pending(inquiry) {
            self.count_wait(&pending, Waited::Left);
        }
    }
}

#[cfg(test)]
impl<W: Wire> World<W> {
    /// What has to hold whenever the world rests: who waits is in a transaction, will be looked at again, and its inquiry is
    /// the one its session knows.
    pub(in super::super) fn check_asks(&self) {
        for (inquiry, entry) in self.inquiries.slab.iter() {
            let Some(session) = entry.session() else {
                assert!(entry.pending.is_empty(), "a row has no recipients");
                continue;
            };
            assert_eq!(self.inquiry_of(session), Some(inquiry), "one each");
            let relay = &self.sessions.get(session).expect("it ends first").relay;
            for pending in &entry.pending {
                let recipients = relay.envelope().map_or(0, |all| all.recipient_count());
                assert!(usize::from(pending.index) < recipients, "a stale ask");
                assert!(entry.armed < Moment::NEVER, "nobody looks at it again");
                assert!(!entry.open.is_empty(), "it waits for nothing");
            }
        }
    }
}
