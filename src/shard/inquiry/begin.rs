//! Where an inquiry begins, whom it follows, and where it ends.

use std::net::{IpAddr, SocketAddr};

use crate::metrics::ScoreRange;
use crate::policy::Standing;
use crate::policy::dossier::Mark;
use crate::policy::finding::{Finding, FindingSet};
use crate::ring::{SlotId, Wire};

use super::super::slab::Key;
use super::super::world::World;
use super::{Beside, Findings, Inquiry, Of, Place};

impl<W: Wire> World<W> {
    /// A client was admitted, or is a session again: everything that its address tells is asked for. It lies beside the pit
    /// until a session takes it.
    pub(in super::super) fn begin_inquiry(&mut self, slot: SlotId, ip: IpAddr, standing: Standing) {
        if !self.policy.config().reputation.on || standing.is_beyond_doubt() {
            return;
        }
        let carried = match self.inquiries.take_beside(slot) {
            Some(Beside::Findings { noted, .. }) => noted,
            _ => FindingSet::EMPTY,
        };
        let entry = Inquiry::new(Of::Row, ip, carried);
        let Ok(inquiry) = self.inquiries.slab.insert(entry) else {
            return;
        };
        self.inquiries.put_beside(slot, Beside::Inquiry(inquiry));
        for finding in carried.iter().filter(|finding| finding.is_of_session()) {
            let weight = self.policy.config().actions.weight(finding);
            if weight != 0 {
                self.mark(inquiry, Mark::lasting(finding, weight));
            }
        }
        self.recall(inquiry);
        self.ask_zones(inquiry);
        self.ask_reverse(inquiry);
    }

    /// A new client waits for its greeting: what was found by now is told when it has waited, and it has a session.
    pub(in super::super) fn tell_later(&mut self, slot: SlotId, noticed: FindingSet) {
        if noticed.is_empty() {
            return;
        }
        match self.inquiries.take_beside(slot) {
            Some(Beside::Inquiry(inquiry)) => {
                if let Some(entry) = self.inquiries.get_mut(inquiry) {
                    entry.untold = noticed;
                }
                self.inquiries.put_beside(slot, Beside::Inquiry(inquiry));
            }
            _ => {
                let findings = Beside::Findings {
                    noted: noticed,
                    score: None,
                };
                self.inquiries.put_beside(slot, findings);
            }
        }
    }

    /// A session has begun, or begun again.
    pub(in super::super) fn join_inquiry(&mut self, session: Key, slot: SlotId) {
        let inquiry = match self.inquiries.take_beside(slot) {
            Some(Beside::Inquiry(inquiry)) => inquiry,
            Some(Beside::Findings { noted, .. }) => return self.note_all(session, noted),
            None => return,
        };
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        entry.of = Of::Session(session);
        let untold = std::mem::take(&mut entry.untold);
        let Some(joined) = self.sessions.get_mut(session) else {
            return self.inquiries.end(Place(inquiry.index()));
        };
        joined.inquiry = Place(inquiry.index());
        self.tell_marks(inquiry, session);
        self.note_all(session, untold);
        self.feel_score(inquiry, session);
    }

    /// A session becomes a row that waits for its greeting: its inquiry goes on.
    pub(in super::super) fn leave_inquiry_beside(&mut self, session: Key, slot: SlotId) {
        let Some(inquiry) = self.inquiry_of(session) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(session) {
            session.inquiry = Place::NONE;
        }
        if let Some(entry) = self.inquiries.get_mut(inquiry) {
            entry.of = Of::Row;
        }
        self.inquiries.put_beside(slot, Beside::Inquiry(inquiry));
    }

    /// A session is parked: a row is too small for an inquiry.
    pub(in super::super) fn leave_findings_beside(&mut self, session: Key, slot: SlotId) {
        if let Some(Findings { noted, score }) = self.findings_of(session)
            && !noted.is_empty()
        {
            let findings = Beside::Findings { noted, score };
            self.inquiries.put_beside(slot, findings);
        }
    }

    /// A row is gone, and no session came of it. What was found of its client, if it was inquired of.
    pub(in super::super) fn end_inquiry_beside(&mut self, slot: SlotId) -> Option<Findings> {
        match self.inquiries.take_beside(slot)? {
            Beside::Inquiry(inquiry) => {
                let found = self.inquiries.get(inquiry).map(Inquiry::findings);
                self.inquiries.end(Place(inquiry.index()));
                found
            }
            Beside::Findings { noted, score } => Some(Findings { noted, score }),
        }
    }

    /// A session has another client from now on.
    pub(in super::super) fn begin_inquiry_anew(&mut self, session: Key) {
        let Some(entry) = self.sessions.get_mut(session) else {
            return;
        };
        let before = std::mem::replace(&mut entry.inquiry, Place::NONE);
        let (ip, standing) = (SocketAddr::from(entry.peer).ip(), entry.standing);
        let slot = entry.slot;
        self.inquiries.end(before);
        if let Some(slot) = slot {
            self.begin_inquiry(slot, ip, standing);
            self.join_inquiry(session, slot);
        }
    }

    /// What was found of a session's client by now; None: it is not inquired of.
    pub(in super::super) fn findings_of(&self, session: Key) -> Option<Findings> {
        let inquiry = self.inquiry_of(session)?;
        self.inquiries.get(inquiry).map(Inquiry::findings)
    }

    /// The score that a client has left with.
    pub(in super::super) fn count_score(&self, findings: Option<Findings>) {
        if let Some(score) = findings.and_then(|findings| findings.score) {
            self.counters.scores.at(ScoreRange::of(score)).inc();
        }
    }

    /// HELO or EHLO was read.
    pub(in super::super) fn helo_said(&mut self, session: Key) {
        if let Some(inquiry) = self.inquiry_of(session) {
            self.ask_helo(inquiry, session);
            self.feel_score(inquiry, session);
        }
    }

    /// What was found has its time. A session that outlives it is looked into again, from one transaction to the next.
    fn renew(&mut self, inquiry: Key, session: Key) {
        let now = self.now;
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        let over = entry.dossier.expire(now);
        if over.is_empty() {
            return;
        }
        entry.before.extend(over);
        self.recall(inquiry);
        self.ask_zones(inquiry);
        self.ask_reverse(inquiry);
        self.ask_helo(inquiry, session);
    }

    /// MAIL was read. What was found of the sender before belongs to another transaction.
    pub(in super::super) fn mail_said(&mut self, session: Key) {
        if let Some(inquiry) = self.inquiry_of(session) {
            self.renew(inquiry, session);
            self.ask_sender(inquiry, session);
            self.feel_score(inquiry, session);
        }
    }
}

impl Finding {
    /// Found in what a session does, so that nothing could be asked again.
    fn is_of_session(self) -> bool {
        (self as u8) < Finding::Dnsbl as u8 || self == Finding::Spamtrap
    }
}
