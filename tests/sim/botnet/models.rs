//! The rules of others on the same traffic: what spamd and postscreen would have said, from their manuals.
//!
//! Models, not the programs: a visit is one step, a reply takes a tenth of a second, the lists are known at once, and the mail server behind
//! takes all mail for its users. What the rules say about time (waits, stutter, caches, the two visits that greylisting takes) is theirs.

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::places::{Places, WORST, is_trap, is_user};
use super::traffic::{Answer, Outcome, Visit};

/// A filter with a mail server behind it.
pub trait Model {
    fn name(&self) -> &'static str;
    fn meet(&mut self, places: &Places, visit: &Visit) -> Outcome;
}

const REPLY: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// No filter at all.
pub struct Nothing;

impl Model for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn meet(&mut self, _: &Places, visit: &Visit) -> Outcome {
        mail_server(visit, visit.at)
    }
}

/// The dialogue with the mail server itself.
fn mail_server(visit: &Visit, from: Moment) -> Outcome {
    let replies = 4 + visit.recipients.len() as u32;
    let answer = |recipient: &Rc<str>| {
        if is_user(recipient) {
            Answer::Taken
        } else {
            Answer::Refused
        }
    };
    Outcome {
        answers: visit.recipients.iter().map(answer).collect(),
        ended: from + REPLY * replies,
    }
}

fn all(visit: &Visit, answer: Answer, ended: Moment) -> Outcome {
    Outcome {
        answers: vec![answer; visit.recipients.len()],
        ended,
    }
}

/// OpenBSD's spamd with its defaults: everybody unknown is grey, one list is loaded every hour, and traps are set.
///
/// A client that comes again after 25 minutes and within 4 hours is white within a minute, so its mail goes through at the visit after that
/// one. Grey clients get an octet a second for ten seconds, black ones for the whole dialogue. There is no table of large senders to pass.
#[derive(Default)]
pub struct Spamd {
    white: HashMap<IpAddr, (Moment, Moment)>,
    trapped: HashMap<IpAddr, Moment>,
    grey: HashMap<Greyed, Moment>,
}

/// Address, HELO, sender, recipient.
type Greyed = (IpAddr, Rc<str>, Rc<str>, Rc<str>);

impl Spamd {
    const PASS: Duration = Duration::from_secs(25 * 60);
    const WINDOW: Duration = Duration::from_secs(4 * 3600);
    const WHITE: Duration = Duration::from_secs(864 * 3600);
    const SCAN: Duration = Duration::from_secs(60);
    const GREY_STUTTER: Duration = Duration::from_secs(10);
    /// Octets of its replies to the greeting, HELO, MAIL, RCPT, DATA and the message.
    const REPLIES: [u32; 6] = [75, 56, 79, 52, 48, 60];

    fn is_white(&self, visit: &Visit) -> bool {
        let white = self.white.get(&visit.from);
        white.is_some_and(|(from, until)| (*from..*until).contains(&visit.at))
    }

    fn is_black(&self, places: &Places, visit: &Visit) -> bool {
        let trapped = self.trapped.get(&visit.from);
        let loaded = visit.at.as_micros() / HOUR.as_micros() as u64 * HOUR.as_micros() as u64;
        trapped.is_some_and(|until| *until > visit.at)
            || places.is_listed(WORST, visit.from, Moment::from_micros(loaded))
    }

    /// When the visitor leaves, and whether it stayed to the end.
    fn stutter(visit: &Visit, most: Duration) -> (Moment, bool) {
        let mut now = visit.at;
        let recipients = visit.recipients.len() as u32;
        let replies = Self::REPLIES.into_iter().enumerate();
        let replies = replies.flat_map(|(nth, octets)| {
            let times = if nth == 3 { recipients } else { 1 };
            (0..times).map(move |_| octets)
        });
        for octets in replies {
            let left = most.saturating_sub(now.since(visit.at));
            let takes = (SECOND * octets).min(left) + REPLY;
            let (listened, stayed) = visit.manner.patience.listens(takes, SECOND);
            now = now + listened;
            if !stayed {
                return (now, false);
            }
        }
        (now, true)
    }

    fn note(&mut self, visit: &Visit) {
        for recipient in &visit.recipients {
            if is_trap(recipient) {
                self.trapped.insert(visit.from, visit.at + DAY);
            }
            let key = (
                visit.from,
                visit.helo.clone(),
                visit.sender.clone(),
                recipient.clone(),
            );
            let first = *self.grey.entry(key.clone()).or_insert(visit.at);
            let age = visit.at.since(first);
            if age > Self::WINDOW {
                self.grey.insert(key, visit.at);
            } else if age > Self::PASS {
                let from = visit.at + Self::SCAN;
                self.white.insert(visit.from, (from, from + Self::WHITE));
            }
        }
    }
}

impl Model for Spamd {
    fn name(&self) -> &'static str {
        "spamd"
    }

    fn meet(&mut self, places: &Places, visit: &Visit) -> Outcome {
        if self.is_white(visit) {
            return mail_server(visit, visit.at);
        }
        let black = self.is_black(places, visit);
        let most = if black { DAY } else { Self::GREY_STUTTER };
        let (ended, stayed) = Self::stutter(visit, most);
        if stayed && !black {
            self.note(visit);
        }
        all(visit, Answer::Deferred, ended)
    }
}

/// Postfix's postscreen, told to enforce: a greeting after six seconds, lists with weights and a threshold, and on wish the tests behind the
/// greeting, after which a new client has to come again.
pub struct Postscreen {
    behind_greeting: bool,
    passed: HashMap<IpAddr, Passes>,
}

/// Until when a client has passed each test.
#[derive(Clone, Copy)]
struct Passes {
    greeting: Moment,
    lists: Moment,
    behind: Moment,
}

impl Postscreen {
    const GREET_WAIT: Duration = Duration::from_secs(6);
    const THRESHOLD: i32 = 3;
    const BEHIND: Duration = Duration::from_secs(30 * 24 * 3600);

    pub fn new(behind_greeting: bool) -> Postscreen {
        Postscreen {
            behind_greeting,
            passed: HashMap::new(),
        }
    }

    /// The dialogue with postscreen itself, which knows no users.
    fn engine(visit: &Visit, answer: Answer) -> Outcome {
        let replies = 3 + visit.recipients.len() as u32;
        all(visit, answer, visit.at + Self::GREET_WAIT + REPLY * replies)
    }
}

impl Model for Postscreen {
    fn name(&self) -> &'static str {
        if self.behind_greeting {
            "postscreen, all tests"
        } else {
            "postscreen"
        }
    }

    fn meet(&mut self, places: &Places, visit: &Visit) -> Outcome {
        let never = Moment::ZERO;
        let passed = self.passed.get(&visit.from).copied().unwrap_or(Passes {
            greeting: never,
            lists: never,
            behind: never,
        });
        let tested_behind = !self.behind_greeting || passed.behind > visit.at;
        if passed.greeting > visit.at && passed.lists > visit.at && tested_behind {
            return mail_server(visit, visit.at);
        }
        let (listened, stayed) = visit
            .manner
            .patience
            .listens(Self::GREET_WAIT, Self::GREET_WAIT);
        if !stayed {
            return all(visit, Answer::Deferred, visit.at + listened);
        }
        let early = visit
            .manner
            .speaks_after
            .is_some_and(|after| after < Self::GREET_WAIT);
        let bad = places.score(visit.from, visit.at) >= Self::THRESHOLD;
        if early || bad || (self.behind_greeting && visit.manner.hurries) {
            return Self::engine(visit, Answer::Refused);
        }
        self.passed.insert(
            visit.from,
            Passes {
                greeting: visit.at + DAY,
                lists: visit.at + HOUR,
                behind: visit.at + Self::BEHIND,
            },
        );
        if tested_behind {
            return mail_server(visit, visit.at + Self::GREET_WAIT);
        }
        Self::engine(visit, Answer::Deferred)
    }
}
