//! What the memory of networks knows of a client, and what it has to say at RCPT and DATA.

use weir_smtp::path::{self, Path};
use weir_smtp::time::Moment;

use crate::metrics::Greylisted;
use crate::policy::access::Listed;
use crate::policy::dossier::{Detail, Mark};
use crate::policy::greylist::Try;
use crate::policy::origin::Origin;
use crate::policy::{Action, Finding, Ruling};
use crate::ring::Wire;

use super::super::slab::Key;
use super::super::world::World;

impl<W: Wire> World<W> {
    /// A client was admitted, or is looked into again: what its network is remembered for becomes marks at once.
    pub(super) fn recall(&mut self, inquiry: Key) {
        let Some(ip) = self.inquiries.get(inquiry).map(|entry| entry.ip) else {
            return;
        };
        let now = self.wall();
        let place = self.lore.places.find(ip);
        let known = self.memory.known(ip, now);
        if known.trapped_until > now {
            self.mark_trapped(inquiry, known.trapped_until);
        }
        self.mark_history(inquiry, Detail::None, known.history);
        // A provider answers for those who are not known themselves.
        let asn = if place.asn != 0 { place.asn } else { known.asn };
        let provider = self.memory.provider_points(asn, now);
        let stranger = known.history == 0 && known.proven_until == 0;
        let points = if stranger { provider } else { 0 };
        self.mark_history(inquiry, Detail::Asn(asn), points);
        let lore = self.lore.clone();
        for weight in lore.weights.of(place) {
            let detail = match weight.origin {
                Origin::Asn(asn) => Detail::Asn(asn),
                Origin::Country(country) => Detail::Country(country.letters()),
            };
            let mark = Mark::lasting(Finding::Origin, weight.weight);
            self.mark(inquiry, Mark { detail, ..mark });
        }
    }

    /// RCPT `index`, before anything is waited for: spamtraps. The envelope has the recipient.
    pub(in super::super) fn at_trap(&mut self, session: Key, index: u16) -> Ruling {
        if self.lore.spamtraps.is_empty() || self.is_off(Finding::Spamtrap) {
            return Ruling::PASS;
        }
        let Some(inquiry) = self.inquiry_of(session) else {
            return Ruling::PASS;
        };
        let Some(entry) = self.sessions.get(session) else {
            return Ruling::PASS;
        };
        let trapped = entry.relay.envelope().is_some_and(|envelope| {
            let recipient = read(envelope.recipient_argument(index));
            !read(envelope.mail_path()).null
                && self.lore.spamtraps.has(&recipient)
                && self.policy.access().recipient(&recipient) != Some(Listed::Allow)
        });
        if !trapped {
            return Ruling::PASS;
        }
        let (standing, ip) = (entry.standing, entry.peer.ip());
        let asn = self.asn_of(ip);
        let until = self.memory.trap(ip, asn, self.wall());
        self.mark_trapped(inquiry, until);
        self.policy.found(standing, Finding::Spamtrap, self.now)
    }

    /// RCPT `index`, when score and findings have let it pass: greylisting. The null sender's turn comes at DATA: callouts
    /// end before, and are to be told whether the recipient exists.
    pub(in super::super) fn at_recipient(&mut self, session: Key, index: u16) -> Ruling {
        if !self.is_greylisted(session) {
            return Ruling::PASS;
        }
        let sender = self.sessions.get(session).and_then(|session| {
            let envelope = session.relay.envelope()?;
            Some(read(envelope.mail_path()).null)
        });
        match sender {
            Some(false) if self.is_too_early(session, index) => self.greylisted(session),
            _ => Ruling::PASS,
        }
    }

    /// DATA: who came with the null sender was spared at RCPT. One recipient that has to come again defers all: there is
    /// one reply.
    pub(in super::super) fn at_data(&mut self, session: Key) -> Ruling {
        if !self.is_greylisted(session) {
            return Ruling::PASS;
        }
        let envelope = |session: Key| self.sessions.get(session)?.relay.envelope();
        let null = |key| envelope(key).is_some_and(|envelope| read(envelope.mail_path()).null);
        if !null(session) {
            return Ruling::PASS;
        }
        let count = envelope(session).map_or(0, |envelope| envelope.recipient_count());
        let mut early = false;
        for index in 0..count as u16 {
            let refused = self
                .sessions
                .get(session)
                .and_then(|session| session.relay.envelope())
                .is_none_or(|envelope| envelope.is_refused(index));
            early |= !refused && self.is_too_early(session, index);
        }
        match early {
            true => self.greylisted(session),
            false => Ruling::PASS,
        }
    }

    /// Whether this client has to come again: so its score says, and no list vouches for it.
    pub(super) fn is_greylisted(&self, session: Key) -> bool {
        let (Some(findings), Some(session)) =
            (self.findings_of(session), self.sessions.get(session))
        else {
            return false;
        };
        let vouched = findings.noted.contains(Finding::Dnswl);
        let config = &self.memory.config().greylist;
        !self.is_off(Finding::Greylist)
            && !session.relay.is_authenticated()
            && findings
                .score
                .is_some_and(|score| config.asks(score, vouched))
    }

    /// A try to send to recipient `index`: whether it was too early.
    fn is_too_early(&mut self, session: Key, index: u16) -> bool {
        let now = self.wall();
        let Some(session) = self.sessions.get(session) else {
            return false;
        };
        let Some(envelope) = session.relay.envelope() else {
            return false;
        };
        let (sender, recipient) = (
            read(envelope.mail_path()),
            read(envelope.recipient_argument(index)),
        );
        let access = self.policy.access();
        if access.sender(&sender) == Some(Listed::Allow)
            || access.recipient(&recipient) == Some(Listed::Allow)
        {
            return false;
        }
        let came = self
            .memory
            .tried(session.peer.ip(), &sender, &recipient, now);
        self.counters.greylist.at(word(came)).inc();
        came.is_some_and(Try::is_deferred)
    }

    fn greylisted(&mut self, session: Key) -> Ruling {
        let Some(session) = self.sessions.get(session) else {
            return Ruling::PASS;
        };
        self.policy
            .found(session.standing, Finding::Greylist, self.now)
    }

    fn mark_history(&mut self, inquiry: Key, detail: Detail, points: i16) {
        if points != 0 {
            let mark = Mark::lasting(Finding::History, points);
            self.mark(inquiry, Mark { detail, ..mark });
        } else if let Some(entry) = self.inquiries.get_mut(inquiry) {
            // It had points before, and they have faded.
            entry.dossier.take_back(Finding::History, detail);
        }
    }

    fn mark_trapped(&mut self, inquiry: Key, until: u32) {
        let weight = self.policy.config().actions.weight(Finding::Trapped);
        let left = u64::from(until.saturating_sub(self.wall()));
        let until = Moment::from_micros(self.now.as_micros() + left * 1_000_000);
        let mark = Mark::lasting(Finding::Trapped, weight);
        self.mark(inquiry, Mark { until, ..mark });
    }

    fn is_off(&self, finding: Finding) -> bool {
        self.policy.config().actions.of(finding) == Action::Off
    }
}

/// A path that the relay has read already.
fn read(argument: &[u8]) -> Path<'_> {
    match path::parse(argument) {
        Ok((path, _)) => path,
        Err(_) => unreachable!("the relay asks about paths that it has parsed"),
    }
}

const fn word(came: Option<Try>) -> Greylisted {
    match came {
        None => Greylisted::Proven,
        Some(Try::First) => Greylisted::First,
        Some(Try::Early(_)) => Greylisted::Early,
        Some(Try::Passed) => Greylisted::Passed,
        Some(Try::NoRoom) => Greylisted::NoRoom,
    }
}
