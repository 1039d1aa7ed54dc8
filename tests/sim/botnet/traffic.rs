//! Who sends mail, and what each message does when it is not taken: the traffic that every filter of the table meets.
//!
//! A message is an [`Errand`]. It makes visits (a connection, an envelope) and hears of each what came of it; then it is done with, tries
//! again by the habits of its kind, or is given up. Nothing here knows a filter: the same seed is the same traffic for all of them, up to
//! the first answer that differs.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::retries::Retry;
use crate::chance::Chance;

/// What a filter sees of an errand at once: one connection with one envelope.
#[derive(Clone, Debug)]
pub struct Visit {
    pub at: Moment,
    pub from: IpAddr,
    pub helo: Rc<str>,
    /// Empty: the null sender.
    pub sender: Rc<str>,
    pub recipients: Vec<Rc<str>>,
    pub manner: Manner,
}

/// How somebody talks.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Speaks so long after the connection is there, whether it was greeted or not.
    pub speaks_after: Option<Duration>,
    /// Says MAIL to DATA in one flight without having been offered it.
    pub hurries: bool,
    /// Does so where it is offered.
    pub pipelines: bool,
    pub patience: Patience,
    /// Says goodbye instead of just leaving.
    pub quits: bool,
}

/// How long somebody waits for a reply.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub reply: Duration,
    /// Each octet that comes lets it wait as long again, up to this in all.
    pub renewed: Option<Duration>,
}

impl Patience {
    /// How long a reply is listened to that takes so long, in octets that come evenly; true: it was heard out.
    pub fn listens(self, takes: Duration, evenly: Duration) -> (Duration, bool) {
        let most = match self.renewed {
            Some(most) if evenly <= self.reply => most,
            _ => self.reply,
        };
        (takes.min(most), takes <= most)
    }
}

/// What a recipient's part of a visit came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    Taken,
    Deferred,
    Refused,
}

/// What came of a visit.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// For each recipient; deferred too when the visitor lost patience or the connection.
    pub answers: Vec<Answer>,
    pub ended: Moment,
}

/// What bots are like.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum BotKind {
    /// Says its piece once, and forgets.
    Forgets,
    /// Keeps a queue as MTAs do.
    Retries,
    /// Speaks before it is greeted.
    Pregreets,
    /// Proper machines, a whole network of them, none of which sends much.
    Snowshoe,
    /// Looks for addresses that exist.
    Guesses,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    Good,
    Bot(BotKind),
}

/// Where a party's connections come from, each with the name it gives there.
pub type Doors = Rc<[(IpAddr, Rc<str>)]>;

/// How the address of another try is chosen.
#[derive(Clone, Debug)]
pub enum Origin {
    /// Always the same.
    One(usize),
    /// One of all, for each visit.
    Any,
    /// Mostly of the network it began in (so many to a network), now and then of another.
    Networks { each: usize, home: usize },
}

/// A message, or what a bot takes for one.
#[derive(Clone, Debug)]
pub struct Errand {
    pub whose: Whose,
    pub begins: Moment,
    sender: Rc<str>,
    /// Those who have not got it yet.
    recipients: Vec<Rc<str>>,
    doors: Doors,
    origin: Origin,
    manner: Manner,
    retry: Retry,
    chance: Chance,
    pub fate: Fate,
}

/// What has become of an errand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    pub tries: u32,
    /// When its last recipient was served.
    pub delivered: Option<Moment>,
    /// Recipients who got it.
    pub taken: u32,
    /// Recipients for whom it was given up.
    pub lost: u32,
    /// Time in connections, and the longest.
    pub held: Duration,
    pub held_longest: Duration,
}

/// What an errand is made of.
pub struct Plan {
    pub whose: Whose,
    pub begins: Moment,
    pub sender: Rc<str>,
    pub recipients: Vec<Rc<str>>,
    pub doors: Doors,
    pub origin: Origin,
    pub manner: Manner,
    pub retry: Retry,
}

impl Errand {
    pub fn new(plan: Plan, chance: Chance) -> Errand {
        Errand {
            whose: plan.whose,
            begins: plan.begins,
            sender: plan.sender,
            recipients: plan.recipients,
            doors: plan.doors,
            origin: plan.origin,
            manner: plan.manner,
            retry: plan.retry,
            chance,
            fate: Fate::default(),
        }
    }

    pub fn is_good(&self) -> bool {
        self.whose == Whose::Good
    }

    /// In words, if it is good mail of which something was lost.
    pub fn loss(&self) -> Option<String> {
        let lost = self.is_good() && self.fate.lost > 0;
        lost.then(|| {
            format!(
                "<{}> from {} of {} addresses, begun at {}, {:?}: {:?}",
                self.sender,
                self.doors[0].0,
                self.doors.len(),
                self.begins,
                self.retry,
                self.fate
            )
        })
    }

    /// The next visit, which begins now.
    pub fn visit(&mut self, at: Moment) -> Visit {
        self.fate.tries += 1;
        let door = match self.origin {
            Origin::One(door) => door,
            Origin::Any => self.chance.below(self.doors.len() as u64) as usize,
            Origin::Networks { each, home } => {
                let networks = (self.doors.len() / each) as u64;
                let network = if self.chance.percent(60) {
                    home
                } else {
                    self.chance.below(networks) as usize
                };
                network * each + self.chance.below(each as u64) as usize
            }
        };
        let (from, helo) = &self.doors[door];
        Visit {
            at,
            from: *from,
            helo: helo.clone(),
            sender: self.sender.clone(),
            recipients: self.recipients.clone(),
            manner: self.manner,
        }
    }

    /// What came of it; when it is tried again.
    pub fn hears(&mut self, began: Moment, outcome: &Outcome) -> Option<Moment> {
        let held = outcome.ended.since(began);
        self.fate.held += held;
        self.fate.held_longest = self.fate.held_longest.max(held);
        let mut answers = outcome.answers.iter();
        let fate = &mut self.fate;
        self.recipients
            .retain(|_| match answers.next().expect("one for each") {
                Answer::Taken => {
                    fate.taken += 1;
                    false
                }
                Answer::Deferred => true,
                Answer::Refused => {
                    fate.lost += 1;
                    false
                }
            });
        if self.recipients.is_empty() {
            fate.delivered = (fate.lost == 0).then_some(outcome.ended);
            return None;
        }
        let age = outcome.ended.since(self.begins);
        let wait = self.retry.wait(fate.tries, age, &mut self.chance);
        if wait.is_none() {
            fate.lost += self.recipients.len() as u32;
        }
        wait.map(|wait| outcome.ended + wait)
    }
}
