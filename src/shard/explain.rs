//! What a shard tells of an address when control asks: what it remembers, and on one shard what an inquiry finds now.
//!
//! Limits and temper of an address lie on the shard that it is steered to, so all are asked. The one it belongs to also
//! begins an inquiry without a session: lists and names are asked as for a client that has just connected, from the cache
//! where it has the answers. It tells when all answers are there, or after [`PATIENCE`] with what there is by then.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_smtp::time::Moment;

use crate::net::shard_of;
use crate::policy::access::Listed;
use crate::policy::dossier::{Dossier, Mark};
use crate::policy::memory::Known;
use crate::policy::origin::Place;
use crate::policy::remembered::Remembered;
use crate::policy::reputation::STEPS;
use crate::policy::{Action, Finding, Temper};
use crate::ring::Wire;

use super::inquiry::Inquiry;
use super::lookups::About;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// How long answers are waited for.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Addresses that are inquired of at a time; of more it is told what is remembered.
const AT_A_TIME: usize = 16;
/// Sessions of one address that are told of.
const SESSIONS_MAX: usize = 8;

/// A question of control's. Cheap to clone: each shard gets one.
#[derive(Clone)]
pub struct Explain {
    pub ip: IpAddr,
    /// Called once by each shard.
    pub tell: Arc<dyn Fn(Explanation) + Send + Sync>,
}

/// One shard's answer.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    pub shard: usize,
    pub remembered: Option<Remembered>,
    /// Sessions of this address that are inquired of.
    pub sessions: Vec<Found>,
    /// Of the shard that the address belongs to.
    pub home: Option<Home>,
}

/// What holds for an address, connected or not.
#[derive(Clone, Debug, Default)]
pub struct Home {
    pub listed: Option<Listed>,
    /// It may send anywhere.
    pub relay_from: bool,
    pub reputation: bool,
    pub found: Found,
    /// Questions without an answer, in words.
    pub unanswered: Vec<String>,
    /// Too many addresses are being asked about: nothing was inquired of this one.
    pub busy: bool,
    pub network: Option<Network>,
    pub place: Place,
    pub would: Would,
}

/// What memory has of the address's network. Durations are those left.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub known: Known,
    pub proven_for: Duration,
    pub trapped_for: Duration,
}

#[derive(Clone, Debug, Default)]
pub struct Found {
    pub score: i32,
    pub marks: Vec<MarkWords>,
}

/// A mark, for people.
#[derive(Clone, Debug)]
pub struct MarkWords {
    pub finding: Finding,
    pub weight: i16,
    /// Which list, which provider.
    pub detail: String,
    pub action: Action,
    /// None: as long as the session.
    pub holds: Option<Duration>,
}

/// What weir would do with a client at this address that says nothing wrong itself.
#[derive(Clone, Debug, Default)]
pub struct Would {
    /// At `connect` or `rcpt`.
    pub refuse: Option<(&'static str, Finding, Action)>,
    pub greylist: bool,
    pub temper: Temper,
    /// Steps of the score, lists and greylisting that would act if their action were more than `log`.
    pub logged: Vec<Finding>,
}

/// Addresses that control has asked about and that are inquired of now.
#[derive(Default)]
pub struct Explaining(Vec<Asked>);

struct Asked {
    inquiry: Key,
    asked: Explain,
    /// Questions that nobody could answer.
    failed: Vec<About>,
}

impl Explaining {
    pub(super) fn add(&mut self, inquiry: Key, asked: Explain) {
        self.0.push(Asked {
            inquiry,
            asked,
            failed: Vec::new(),
        });
    }

    /// An answer has come that says nothing.
    pub(super) fn failed(&mut self, inquiry: Key, about: About) {
        let asked = self.0.iter_mut().find(|asked| asked.inquiry == inquiry);
        if let Some(asked) = asked {
            asked.failed.push(about);
        }
    }

    fn take(&mut self, inquiry: Key) -> Option<Asked> {
        let place = self.0.iter().position(|asked| asked.inquiry == inquiry)?;
        Some(self.0.swap_remove(place))
    }

    fn has_room(&self) -> bool {
        self.0.len() < AT_A_TIME
    }
}

impl<W: Wire> World<W> {
    /// Control asks about an address.
    pub(super) fn explain(&mut self, asked: Explain) {
        let ip = asked.ip.to_canonical();
        let prefix = self.policy.config().prefix;
        if shard_of(ip, self.config.proxied.owners, prefix) != self.shard {
            let told = self.explanation(ip);
            return (asked.tell)(told);
        }
        self.forget_stale_explanations();
        let wanted = self.policy.config().reputation.on;
        let inquiry = match wanted && self.explaining.has_room() {
            true => self.begin_explained(ip, self.now + PATIENCE),
            false => None,
        };
        let Some(inquiry) = inquiry else {
            let mut told = self.explanation(ip);
            let mut home = self.home(ip, &Dossier::default());
            home.busy = wanted;
            told.home = Some(home);
            return (asked.tell)(told);
        };
        self.explaining.add(inquiry, asked);
        self.step(Who::Inquiry(inquiry));
        self.ask_for_explanation(inquiry);
        self.explained_further(inquiry);
    }

    /// Something was found, or nothing more is waited for.
    pub(super) fn explained_further(&mut self, inquiry: Key) {
        let Some(entry) = self.inquiries.get(inquiry) else {
            return;
        };
        if !entry.is_answered() && entry.due() > self.now {
            return;
        }
        let Some(Asked { asked, failed, .. }) = self.explaining.take(inquiry) else {
            return;
        };
        let (ip, dossier) = (entry.ip, entry.dossier.clone());
        let open: Vec<About> = entry.open_questions().chain(failed).collect();
        self.inquiries.drop_entry(inquiry);
        let mut told = self.explanation(ip);
        let mut home = self.home(ip, &dossier);
        home.unanswered = open
            .into_iter()
            .map(|about| self.about_words(about))
            .collect();
        told.home = Some(home);
        (asked.tell)(told);
    }

    /// Those whose step has panicked: nobody waits for them any more.
    fn forget_stale_explanations(&mut self) {
        let (now, inquiries) = (self.now, &mut self.inquiries);
        self.explaining.0.retain(|Asked { inquiry, .. }| {
            let due = inquiries.get(*inquiry).map(Inquiry::due);
            let waits = due.is_some_and(|due| now < due + PATIENCE);
            if !waits {
                inquiries.drop_entry(*inquiry);
            }
            waits
        });
    }

    /// What every shard tells.
    fn explanation(&self, ip: IpAddr) -> Explanation {
        let here = self.inquiries.of_sessions(ip).take(SESSIONS_MAX);
        Explanation {
            shard: self.shard,
            remembered: self.policy.remembered(ip, self.now),
            sessions: here.map(|entry| self.found(&entry.dossier)).collect(),
            home: None,
        }
    }

    fn home(&self, ip: IpAddr, dossier: &Dossier) -> Home {
        let wall = self.wall();
        let known = self.memory.known(ip, wall);
        let left = |until: u32| Duration::from_secs(until.saturating_sub(wall).into());
        let network = self.memory.config().on.then(|| Network {
            proven_for: left(known.proven_until),
            trapped_for: left(known.trapped_until),
            known,
        });
        Home {
            listed: self.policy.access().lookup(ip),
            relay_from: self.policy.is_relay_from(ip),
            reputation: self.policy.config().reputation.on,
            found: self.found(dossier),
            unanswered: Vec::new(),
            busy: false,
            network,
            place: self.lore.places.find(ip),
            would: self.would(ip, dossier, &known),
        }
    }

    fn found(&self, dossier: &Dossier) -> Found {
        Found {
            score: dossier.score(),
            marks: dossier
                .marks()
                .iter()
                .map(|mark| self.mark_words(mark))
                .collect(),
        }
    }

    fn mark_words(&self, mark: &Mark) -> MarkWords {
        let action = self.policy.config().actions.of(mark.finding);
        MarkWords {
            finding: mark.finding,
            weight: mark.weight,
            detail: self.detail_words(mark.detail),
            action: match mark.weight < 0 {
                // What speaks for a client leads to nothing else.
                true => action.min(Action::Log),
                false => action,
            },
            holds: (mark.until != Moment::NEVER).then(|| mark.until.since(self.now)),
        }
    }

    fn would(&self, ip: IpAddr, dossier: &Dossier, known: &Known) -> Would {
        let actions = &self.policy.config().actions;
        let listed = self.policy.access().lookup(ip);
        let remembered = self.policy.remembered(ip, self.now);
        let remembered = remembered.map_or(Temper::Normal, |client| client.temper);
        if listed == Some(Listed::Allow) {
            return Would::default();
        }
        let mut felt = Vec::new();
        if listed == Some(Listed::Deny) {
            let denied = actions.of(Finding::DenyList);
            if denied.refuses() {
                return Would {
                    refuse: Some(("connect", Finding::DenyList, denied)),
                    ..Would::default()
                };
            }
            felt.push(Finding::DenyList);
        }
        if self.policy.is_relay_from(ip) {
            return Would {
                temper: remembered,
                logged: felt,
                ..Would::default()
            };
        }
        let score = dossier.score();
        let refusal = self
            .policy
            .refusal(dossier.against(), score, dossier.neighbours());
        let refuse = refusal.map(|(finding, action)| ("rcpt", finding, action));
        let reached = self.policy.config().reputation.thresholds.reached(score);
        felt.extend(STEPS.iter().filter(|step| reached.contains(**step)));
        let vouched = dossier.findings().contains(Finding::Dnswl);
        let memory = self.memory.config();
        let asked = memory.on && known.proven_until == 0 && memory.greylist.asks(score, vouched);
        let tempers = dossier.against().iter().chain(felt.iter().copied());
        let temper = tempers.filter_map(|finding| treatment(actions.of(finding)));
        let temper = temper.max().unwrap_or_default().max(remembered);
        felt.extend(asked.then_some(Finding::Greylist));
        felt.retain(|finding| actions.of(*finding) == Action::Log);
        Would {
            greylist: refuse.is_none() && asked && actions.of(Finding::Greylist).refuses(),
            refuse,
            temper,
            logged: felt,
        }
    }

    fn about_words(&self, about: About) -> String {
        match about {
            About::Zone(zone) | About::Reason(zone) => self.zone_word(zone),
            About::Name(_) => "the name of the address".into(),
        }
    }
}

fn treatment(action: Action) -> Option<Temper> {
    match action {
        Action::Delay => Some(Temper::Delayed),
        Action::Stutter => Some(Temper::Stutter),
        _ => None,
    }
}
