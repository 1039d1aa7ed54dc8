//! Inquiries: what is asked about a client while it is served, and what the answers lead to.
//!
//! ```text
//!   admitted --> begin: lists, address name, memory --+
//!   HELO ------> its name -----------------------------+--> marks --> dossier --> score --> temper, at once and both ways
//!   MAIL ------> the sender's domain ------------------+                               \-> RCPT: waits, then its verdict
//! ```
//!
//! Nothing waits for an answer but RCPT, and RCPT only while an answer could change what becomes of it, and only for so long.
//! An inquiry is an entry of its own: a session keeps its place, and for a client in its greet wait it lies beside the pit.
//! A parked stutterer has none: what it had been found is kept in two words, and asked again when it is a session again.
//!
//! What is asked, and what an answer means, is in `zones.rs`, `names.rs` and `memory.rs`: they put marks and nothing else.

mod asks;
mod begin;
mod explained;
mod memory;
pub(super) mod names;
mod unread;
mod zones;

use std::net::IpAddr;

use hashbrown::HashMap;
use weir_smtp::time::Moment;

use crate::dns::{Answer, Outcome, Question};
use crate::policy::dnsbl::ZONES_MAX;
use crate::policy::dossier::{Dossier, Mark};
use crate::policy::finding::FindingSet;
use crate::policy::names::Names;
use crate::policy::reputation::Stakes;
use crate::policy::{Action, Finding};
use crate::ring::{SlotId, Wire};

use super::gates::Note;
use super::lookups::{About, Asker};
use super::slab::{Key, Slab};
use super::who::Who;
use super::world::World;
use asks::Pending;
use zones::Reason;

/// Questions of one client that may be open at a time: more is not asked. Reasons of lists are what may be left out.
const OPEN_MAX: usize = 96;
const _: () = assert!(
    ZONES_MAX + 16 <= OPEN_MAX,
    "all lists and all names can be asked at once"
);

/// What is inquired of one client.
pub struct Inquiry {
    of: Of,
    pub ip: IpAddr,
    pub dossier: Dossier,
    open: Vec<Open>,
    names: Option<Box<Names>>,
    /// Why it is on lists, as far as they have told.
    reasons: Vec<Reason>,
    /// RCPTs that wait: at most as many as a transaction may have in flight.
    pending: Vec<Pending>,
    /// When it is looked at again for them.
    armed: Moment,
    /// Findings of this session, steps of the score among them.
    told: FindingSet,
    /// Of these, found before and lost from sight: found again, they are not told again.
    before: FindingSet,
    /// Found when it was admitted, to be told when there is a session to tell it of.
    untold: FindingSet,
    /// Numbers questions: an answer to one that was dropped finds nobody.
    serial: u16,
    /// A RCPT has been weighed: steps that refuse are worth telling from now on.
    weighed: bool,
    /// It has broken the protocol, which its network is remembered for once.
    pub misbehaved: bool,
}

const _: () = assert!(
    size_of::<Inquiry>() <= 176,
    "there is one for each client that is inquired of"
);

/// Whose inquiry it is.
#[derive(Clone, Copy)]
enum Of {
    Session(Key),
    /// It waits for its greeting.
    Row,
    /// Nobody: it was asked for.
    Explained,
}

/// A question without an answer yet.
struct Open {
    about: About,
    serial: u16,
    stakes: Stakes,
    since: Moment,
}

/// A session's inquiry, in the four octets that it has left.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    pub const NONE: Place = Place(u32::MAX);
}

/// What lies beside the pit, by slot.
enum Beside {
    Inquiry(Key),
    /// [`Findings`], so that the mark of this enum takes no octets of its own.
    Findings {
        noted: FindingSet,
        score: Option<i32>,
    },
}

const _: () = assert!(
    size_of::<(SlotId, Beside)>() <= 24,
    "a parked client is to take 256 bytes with what lies beside it"
);

/// What was found of a client by now, in short.
#[derive(Clone, Copy, Default)]
pub struct Findings {
    pub noted: FindingSet,
    /// None: it is not inquired of.
    pub score: Option<i32>,
}

/// All inquiries of a shard.
pub struct Inquiries {
    slab: Slab<Inquiry>,
    beside: HashMap<SlotId, Beside, foldhash::fast::RandomState>,
    /// Of sessions that are there for their last words only, and are inquired of no more.
    parting: HashMap<Key, Findings, foldhash::fast::RandomState>,
}

impl Inquiries {
    pub fn new(slots: u32) -> Inquiries {
        Inquiries {
            slab: Slab::new(slots),
            beside: HashMap::default(),
            parting: HashMap::default(),
        }
    }

    pub fn get(&self, inquiry: Key) -> Option<&Inquiry> {
        self.slab.get(inquiry)
    }

    pub fn get_mut(&mut self, inquiry: Key) -> Option<&mut Inquiry> {
        self.slab.get_mut(inquiry)
    }

    pub fn at(&self, place: Place) -> Option<Key> {
        self.slab.key_at(place.0)
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slab.is_empty() && self.beside.is_empty() && self.parting.is_empty()
    }

    #[cfg(test)]
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.slab.iter().map(|(key, _)| key)
    }

    pub fn end(&mut self, place: Place) {
        if place != Place::NONE
            && let Some(key) = self.at(place)
        {
            self.slab.remove(key);
        }
    }

    /// A session that only says its last words: what was found of its client is for its last line in the log.
    pub fn part_with(&mut self, session: Key, findings: Option<Findings>) {
        if let Some(findings) = findings {
            self.parting.insert(session, findings);
        }
    }

    pub fn take_parting(&mut self, session: Key) -> Option<Findings> {
        match self.parting.is_empty() {
            true => None,
            false => self.parting.remove(&session),
        }
    }

    fn put_beside(&mut self, slot: SlotId, what: Beside) {
        if let Some(Beside::Inquiry(old)) = self.beside.insert(slot, what) {
            self.slab.remove(old);
        }
    }

    fn take_beside(&mut self, slot: SlotId) -> Option<Beside> {
        if self.beside.is_empty() {
            return None;
        }
        let what = self.beside.remove(&slot);
        // A burst is not paid for when it is over.
        if self.beside.is_empty() && self.beside.capacity() > 1024 {
            self.beside = HashMap::default();
        }
        what
    }
}

impl Inquiry {
    /// `before`: findings that need not be told again.
    fn new(of: Of, ip: IpAddr, before: FindingSet) -> Inquiry {
        Inquiry {
            of,
            ip: ip.to_canonical(),
            dossier: Dossier::default(),
            open: Vec::new(),
            names: None,
            reasons: Vec::new(),
            pending: Vec::new(),
            armed: Moment::NEVER,
            told: before,
            before,
            untold: FindingSet::EMPTY,
            serial: 0,
            weighed: false,
            misbehaved: false,
        }
    }

    /// The session, if it has begun.
    pub fn session(&self) -> Option<Key> {
        match self.of {
            Of::Session(key) => Some(key),
            Of::Row | Of::Explained => None,
        }
    }

    /// Whether a question about this is without an answer.
    pub fn awaits(&self, about: About) -> bool {
        self.open.iter().any(|open| open.about == about)
    }

    /// The answer to this, should it still come, is no longer wanted.
    #[cfg(test)]
    pub fn drop_question(&mut self, about: About) {
        self.open.retain(|open| open.about != about);
    }

    fn findings(&self) -> Findings {
        let mut noted = self.told;
        noted.extend(self.dossier.findings());
        Findings {
            noted,
            score: Some(self.dossier.score()),
        }
    }

    /// A finding of its session, whether it has a weight or not.
    pub fn told(&mut self, finding: Finding) {
        self.told.insert(finding);
    }
}

impl<W: Wire> World<W> {
    /// The inquiry of a session.
    pub(super) fn inquiry_of(&self, session: Key) -> Option<Key> {
        let place = self.sessions.get(session)?.inquiry;
        if place == Place::NONE {
            return None;
        }
        self.inquiries.at(place)
    }

    /// Asks a question for a client. What is in the cache is digested at once; the rest comes when it comes. What is being
    /// asked already is not asked again.
    pub fn inquire(&mut self, inquiry: Key, about: About, question: &Question, stakes: Stakes) {
        let now = self.now;
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        if entry.open.len() >= OPEN_MAX || entry.awaits(about) {
            return;
        }
        entry.serial = entry.serial.wrapping_add(1);
        let serial = entry.serial;
        if let Some(answer) = self.look_up(question, Asker::Inquiry(inquiry, about, serial)) {
            return self.digest(inquiry, about, &answer);
        }
        if let Some(entry) = self.inquiries.get_mut(inquiry) {
            entry.open.push(Open {
                about,
                serial,
                stakes,
                since: now,
            });
        }
    }

    /// An answer that was waited for.
    pub(super) fn inquiry_heard(
        &mut self,
        inquiry: Key,
        about: About,
        serial: u16,
        answer: &Answer,
    ) {
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        let place = entry
            .open
            .iter()
            .position(|open| (open.about, open.serial) == (about, serial));
        let Some(place) = place else { return };
        entry.open.swap_remove(place);
        if let Of::Session(key) = entry.of {
            self.step(Who::Session(key));
        }
        self.digest(inquiry, about, answer);
        self.reconsider(inquiry);
    }

    /// Puts what an answer says into marks. May ask more.
    fn digest(&mut self, inquiry: Key, about: About, answer: &Answer) {
        if matches!(answer.outcome, Outcome::Failed(_)) {
            self.explaining.failed(inquiry, about);
        }
        match about {
            About::Zone(_) | About::Reason(_) => self.zone_answered(inquiry, about, answer),
            About::Name(_) => self.name_answered(inquiry, about, answer),
        }
    }

    /// Something was found of a client. Counted, logged and felt at once; refusals are for the gates.
    pub(super) fn mark(&mut self, inquiry: Key, mark: Mark) {
        if self.policy.config().actions.of(mark.finding) == Action::Off {
            return;
        }
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        if entry.dossier.put(mark)
            && let Of::Session(key) = entry.of
        {
            self.tell_mark(inquiry, key, mark);
        }
    }

    /// A mark is in the log once per session and finding, or once per list.
    fn tell_mark(&mut self, inquiry: Key, key: Key, mark: Mark) {
        let Some(entry) = self.inquiries.get_mut(inquiry) else {
            return;
        };
        // After a stay in the pit, or when its time was over, everything is found again.
        if entry.before.contains(mark.finding) {
            return;
        }
        let note = Note {
            weight: mark.weight,
            detail: mark.detail,
            ..Note::of(mark.finding, "lookup")
        };
        self.note(key, &note);
        if mark.weight >= 0 {
            self.resent(key, mark.finding);
        }
    }

    /// Everything that was found before there was a session to tell it of.
    fn tell_marks(&mut self, inquiry: Key, key: Key) {
        let mut next = 0;
        while let Some(mark) = self
            .inquiries
            .get(inquiry)
            .and_then(|entry| entry.dossier.marks().get(next).copied())
        {
            self.tell_mark(inquiry, key, mark);
            next += 1;
        }
    }

    /// What is found of a session itself counts as well. True: the score is another one now.
    pub(super) fn weigh_finding(&mut self, session: Key, finding: Finding) -> bool {
        let weight = self.policy.config().actions.weight(finding);
        if weight == 0 {
            return false;
        }
        let inquiry = self.inquiry_of(session);
        let entry = inquiry.and_then(|inquiry| self.inquiries.get_mut(inquiry));
        entry.is_some_and(|entry| entry.dossier.put(Mark::lasting(finding, weight)))
    }

    /// The dossier has changed outside any step of its session: the client feels it, and who waits may wait no more.
    pub(super) fn reconsider(&mut self, inquiry: Key) {
        let Some(entry) = self.inquiries.get(inquiry) else {
            return;
        };
        if let Some(key) = entry.session() {
            self.feel_score(inquiry, key);
            self.answer_asks(inquiry);
        } else if entry.is_explained() {
            self.explained_further(inquiry);
        }
    }

    /// The score as it is now shows in how the client is treated.
    pub(super) fn feel_score(&mut self, inquiry: Key, session: Key) {
        self.tell_steps(inquiry, session, None);
        self.feel_temper(session);
    }

    /// Tells of the steps that the score has reached, each once. Those that refuse mean something to who has named a
    /// recipient, and those that would if they were not only logged. `taken`: what it has come to at a gate.
    fn tell_steps(&mut self, inquiry: Key, session: Key, taken: Option<Action>) {
        let Some(entry) = self.inquiries.get(inquiry) else {
            return;
        };
        let (score, felt_now) = (entry.dossier.score(), self.felt_score(entry));
        let thresholds = self.policy.config().reputation.thresholds;
        let reached = thresholds.reached(score);
        let felt_now = thresholds.reached(felt_now);
        for step in reached.iter() {
            let Some(entry) = self.inquiries.get_mut(inquiry) else {
                return;
            };
            let action = self.policy.config().actions.of(step);
            let felt = matches!(step, Finding::ScoreDelay | Finding::ScoreStutter);
            if felt && !felt_now.contains(step) {
                continue;
            }
            let due = felt || entry.weighed && (taken.is_some() || !action.refuses());
            if entry.told.contains(step) || !due {
                continue;
            }
            entry.told.insert(step);
            if action != Action::Off {
                let taken = match taken {
                    Some(taken) if !felt => taken.max(Action::Log),
                    _ => action,
                };
                self.note(
                    session,
                    &Note {
                        taken,
                        ..Note::of(step, "score")
                    },
                );
            }
        }
    }
}
