//! Names: of the client's address, of HELO, of the sender's domain. What they come to is decided in `policy::names`.

use std::net::IpAddr;

use weir_smtp::path;

use crate::dns::Answer;
use crate::policy::access::Listed;
use crate::policy::dossier::{Detail, Mark};
use crate::policy::names::{Names, Ours, Topic, Wants};
use crate::policy::reputation::Stakes;
use crate::policy::{Action, Finding};
use crate::ring::Wire;

use super::super::config::WorldConfig;
use super::super::lookups::About;
use super::super::slab::Key;
use super::super::world::World;
use super::Inquiry;

/// What is weir's own, and nobody else's to say in HELO.
pub fn ours(config: &WorldConfig) -> Ours {
    let mut addresses: Vec<IpAddr> = config.dedicated.own.iter().map(|own| own.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ours {
        hostname: config.smtp.hostname.clone().into(),
        addresses: addresses.into(),
    }
}

impl<W: Wire> World<W> {
    /// A client was admitted: what is its address called? What was found of its names before is found anew.
    pub(super) fn ask_reverse(&mut self, inquiry: Key) {
        let actions = &self.policy.config().actions;
        let wants = Wants::those(|finding| actions.of(finding) != Action::Off);
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        entry.drop_names(|_| true);
        entry.names = match wants.are_none() {
            true => None,
            false => Some(Box::new(Names::new(entry.ip, wants))),
        };
        self.ask_names(inquiry);
    }

    /// HELO was read, not for the first time perhaps.
    pub(super) fn ask_helo(&mut self, inquiry: Key, session: Key) {
        let (Some(entry), Some(session)) =
            (self.inquiries.get_mut(inquiry), self.sessions.get(session))
        else {
            return;
        };
        entry.take_back(&Wants::HELO);
        entry.drop_names(Topic::is_of_helo);
        let helo = session.relay.helo();
        // After STARTTLS nobody has said its name yet.
        let is_spared = helo.is_empty() || self.policy.access().helo(helo) == Some(Listed::Allow);
        match &mut entry.names {
            Some(names) if !is_spared => names.helo(helo, &self.ours),
            _ => return,
        }
        self.ask_names(inquiry);
    }

    /// MAIL was read. What was found of the sender before belongs to another transaction.
    pub(super) fn ask_sender(&mut self, inquiry: Key, session: Key) {
        let (Some(entry), Some(session)) =
            (self.inquiries.get_mut(inquiry), self.sessions.get(session))
        else {
            return;
        };
        entry.take_back(&Wants::SENDER);
        entry.drop_names(Topic::is_of_sender);
        let argument = session
            .relay
            .envelope()
            .map(|envelope| envelope.mail_path());
        let Some(Ok((path, _))) = argument.map(path::parse) else {
            return;
        };
        let is_spared = self.policy.access().sender(&path) == Some(Listed::Allow);
        match &mut entry.names {
            Some(names) if !is_spared => names.sender(&path),
            _ => return,
        }
        self.ask_names(inquiry);
    }

    /// An answer about one of them: into marks, or into further questions.
    pub(super) fn name_answered(&mut self, inquiry: Key, about: About, answer: &Answer) {
        let About::Name(topic) = about else { return };
        let entry = self.inquiries.get_mut(inquiry);
        if let Some(names) = entry.and_then(|entry| entry.names.as_mut()) {
            names.heard(topic, answer);
            self.ask_names(inquiry);
        }
    }

    /// Notes what was found and asks what is to be asked. What the cache knows comes back here, a few questions deep at most.
    fn ask_names(&mut self, inquiry: Key) {
        while let Some(names) = self
            .inquiries
            .get_mut(inquiry)
            .and_then(|entry| entry.names.as_mut())
        {
            if let Some(found) = names.next_found() {
                let weight = self.policy.config().actions.weight(found.finding);
                let mark = Mark {
                    finding: found.finding,
                    weight,
                    detail: Detail::None,
                    until: found.until,
                };
                self.mark(inquiry, mark);
                continue;
            }
            let Some((topic, question)) = names.next_question() else {
                return;
            };
            let actions = &self.policy.config().actions;
            let outcomes = names.at_stake(topic);
            let stakes = outcomes
                .map(|finding| Stakes::of(finding, actions.weight(finding), actions))
                .fold(Stakes::NONE, Stakes::or);
            self.inquire(inquiry, About::Name(topic), &question, stakes);
        }
    }
}

impl Inquiry {
    fn take_back(&mut self, findings: &[Finding]) {
        for finding in findings {
            self.dossier.take_back(*finding, Detail::None);
        }
    }

    /// Answers about these names, should they still come, are no longer wanted.
    fn drop_names(&mut self, which: impl Fn(Topic) -> bool) {
        self.open
            .retain(|open| !matches!(open.about, About::Name(topic) if which(topic)));
    }
}
