//! DNS lists: which of them are asked, what their answers mean, and what a client that is on one is told.

use weir_smtp::gate::Verdict;

use crate::dns::{Answer, Failure, Outcome, Records};
use crate::metrics::ListSays;
use crate::policy::dnsbl::{self, Meaning};
use crate::policy::dossier::{Detail, Mark};
use crate::policy::reputation::Stakes;
use crate::policy::verdict::verdict;
use crate::policy::{Action, Finding};
use crate::ring::Wire;

use super::super::lookups::About;
use super::super::slab::Key;
use super::super::world::World;

/// Why a client is on a list, by the list's number.
pub struct Reason {
    list: u16,
    text: Box<str>,
}

impl<W: Wire> World<W> {
    /// A client was admitted: each list is asked for its address, unless what it could say is off.
    pub(super) fn ask_zones(&mut self, inquiry: Key) {
        let Some(ip) = self.inquiries.get(inquiry).map(|entry| entry.ip) else {
            return;
        };
        for list in 0..self.lists.zones.len() as u16 {
            let stakes = self.list_stakes(list);
            if stakes.worst == Action::Off {
                continue;
            }
            if let Some(question) = self.lists.zones.question(list, ip) {
                self.inquire(inquiry, About::Zone(list), &question, stakes);
            }
        }
    }

    /// What the answer of a list can add, by its weights.
    fn list_stakes(&self, list: u16) -> Stakes {
        let actions = &self.policy.config().actions;
        let (least, most) = self.lists.zones.range(list);
        let for_it = match least {
            0 => Stakes::NONE,
            least => Stakes::of(Finding::Dnswl, least, actions),
        };
        // A list that weighs nothing is there to be told of.
        let against = match (least, most) {
            (..0, 0) => Stakes::NONE,
            _ => Stakes::of(Finding::Dnsbl, most, actions),
        };
        for_it.and(against)
    }

    /// A list has answered ([`About::Zone`]), or told its reason ([`About::Reason`]).
    pub(super) fn zone_answered(&mut self, inquiry: Key, about: About, answer: &Answer) {
        match about {
            About::Zone(list) => self.list_answered(inquiry, list, answer),
            About::Reason(list) => self.reason_told(inquiry, list, answer),
            About::Name(_) => {}
        }
    }

    fn list_answered(&mut self, inquiry: Key, list: u16, answer: &Answer) {
        let Some(ip) = self.inquiries.get(inquiry).map(|entry| entry.ip) else {
            return;
        };
        let meaning = self.lists.zones.meaning(list, ip, &answer.outcome);
        let says = match meaning {
            Meaning::Listed(_) => ListSays::Listed,
            Meaning::Unlisted => ListSays::Unlisted,
            Meaning::Unknown => ListSays::Unknown,
            Meaning::Fault(_) => ListSays::Fault,
        };
        self.counters.dnsbl_answers.at(list.into(), says).inc();
        // Where there was no room to ask, or nobody, the list is not to blame.
        let silent = |failure| matches!(failure, Failure::Timeout | Failure::Server);
        let is_silent = matches!(answer.outcome, Outcome::Failed(why) if silent(why));
        if is_silent || says == ListSays::Fault {
            self.doubt_list(list);
        }
        match meaning {
            Meaning::Listed(weight) => self.listed(inquiry, list, weight, answer),
            Meaning::Unlisted => self.unlisted(inquiry, list),
            Meaning::Unknown | Meaning::Fault(_) => {}
        }
    }

    fn listed(&mut self, inquiry: Key, list: u16, weight: i16, answer: &Answer) {
        let against = weight >= 0;
        let (finding, other) = match against {
            true => (Finding::Dnsbl, Finding::Dnswl),
            false => (Finding::Dnswl, Finding::Dnsbl),
        };
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        let (detail, ip) = (Detail::Zone(list), entry.ip);
        entry.dossier.take_back(other, detail);
        let until = answer.until;
        self.mark(
            inquiry,
            Mark {
                finding,
                weight,
                detail,
                until,
            },
        );
        // Nobody waits for it: who is refused before it is there is told the list's name.
        if against && let Some(question) = self.lists.zones.reason(list, ip) {
            self.inquire(inquiry, About::Reason(list), &question, Stakes::NONE);
        }
    }

    /// It may have been on the list when it was asked before.
    fn unlisted(&mut self, inquiry: Key, list: u16) {
        if let Some(entry) = self.inquiries.get_mut(inquiry) {
            for finding in [Finding::Dnsbl, Finding::Dnswl] {
                entry.dossier.take_back(finding, Detail::Zone(list));
            }
        }
    }

    fn reason_told(&mut self, inquiry: Key, list: u16, answer: &Answer) {
        let Outcome::Records(Records::Txt(texts)) = &answer.outcome else {
            return;
        };
        let text = texts.first().map(|text| dnsbl::clean(text));
        if let Some(text) = text.filter(|text| !text.is_empty())
            && let Some(entry) = self.inquiries.get_mut(inquiry)
        {
            entry.reasons.retain(|reason| reason.list != list);
            let text = text.into();
            entry.reasons.push(Reason { list, text });
        }
    }

    /// What a list is called in public.
    pub(in super::super) fn zone_word(&self, zone: u16) -> String {
        match self.lists.zones.public(zone) {
            Some(name) => name.to_string(),
            None => zone.to_string(),
        }
    }

    /// The reply to a client that is refused for a finding: one that lists speak against is told the weightiest of them.
    pub(super) fn refusal_for(&self, inquiry: Key, finding: Finding, action: Action) -> Verdict {
        let by_lists = matches!(
            finding,
            Finding::Dnsbl | Finding::ScoreDefer | Finding::ScoreReject | Finding::ScoreDrop
        );
        let told = by_lists
            .then(|| self.blamed_list(inquiry, action))
            .flatten();
        told.unwrap_or_else(|| verdict(finding, action))
    }

    fn blamed_list(&self, inquiry: Key, action: Action) -> Option<Verdict> {
        let entry = self.inquiries.get(inquiry)?;
        let listings = entry.dossier.marks().iter().filter_map(|mark| {
            let Detail::Zone(list) = mark.detail else {
                return None;
            };
            (mark.finding == Finding::Dnsbl).then_some((mark.weight, list))
        });
        let (_, list) = listings.max_by_key(|(weight, _)| *weight)?;
        let name = self.lists.zones.public(list)?;
        let reason = entry.reasons.iter().find(|reason| reason.list == list);
        let reply = dnsbl::reply(action, entry.ip, name, reason.map(|reason| &*reason.text))?;
        Some(match action {
            Action::Drop => Verdict::Close(reply),
            _ => Verdict::Refuse(reply),
        })
    }
}
