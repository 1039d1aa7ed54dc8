//! Names: what DNS says of the address of a client, of the name in its HELO, of the domain of its sender.
//!
//! [`Names`] is of one session. It says what to ask ([`Names::next_question`]), is told what came of it ([`Names::heard`]), and
//! finds ([`Names::next_found`]); it asks nothing itself. Each of the three is a machine of its own: `reverse.rs`, `helo.rs`,
//! `sender.rs`. One that is not wanted asks nothing.
//!
//! What could not be found out is no finding: a resolver that does not answer, or that has cut a long answer, leaves it open.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use weir_smtp::path::Path;
use weir_smtp::time::Moment;

use crate::dns::{Answer, Name, Outcome, Question, RECORDS_MAX, Records};

use super::finding::{Finding, FindingSet};

mod helo;
mod reverse;
mod sender;

use helo::Helo;
use reverse::Reverse;
use sender::Sender;

/// Which of the findings about names are worth a question.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Wants(FindingSet);

impl Wants {
    pub const REVERSE: [Finding; 2] = [Finding::NoReverse, Finding::ReverseMismatch];
    pub const HELO: [Finding; 5] = [
        Finding::HeloSyntax,
        Finding::HeloLiteral,
        Finding::HeloUnresolved,
        Finding::HeloOurs,
        Finding::HeloMismatch,
    ];
    /// Those of HELO that take a question.
    const HELO_LOOKED_UP: [Finding; 2] = [Finding::HeloUnresolved, Finding::HeloMismatch];
    pub const SENDER: [Finding; 2] = [Finding::SenderUnresolved, Finding::SenderNullMx];

    /// Those of the findings about names for which `counts` holds.
    pub fn those(counts: impl Fn(Finding) -> bool) -> Wants {
        let all = [&Wants::REVERSE[..], &Wants::HELO, &Wants::SENDER];
        let mut wanted = FindingSet::EMPTY;
        for finding in all.into_iter().flatten().filter(|one| counts(**one)) {
            wanted.insert(*finding);
        }
        Wants(wanted)
    }

    pub const fn are_none(self) -> bool {
        self.0.is_empty()
    }

    const fn has(self, finding: Finding) -> bool {
        self.0.contains(finding)
    }

    fn any(self, findings: &[Finding]) -> bool {
        findings.iter().any(|finding| self.has(*finding))
    }
}

/// What is weir's own, and nobody else's to say in HELO.
#[derive(Clone, Default, Debug)]
pub struct Ours {
    /// The host name in weir's greeting.
    pub hostname: Box<[u8]>,
    /// Where weir listens.
    pub addresses: Arc<[IpAddr]>,
}

impl Ours {
    fn has_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.addresses.iter().any(|own| own.to_canonical() == ip)
    }

    /// This host itself may call itself so.
    fn is_here(&self, client: IpAddr) -> bool {
        client.is_loopback() || self.has_address(client)
    }
}

/// What a question is about: goes out with it and comes back with the answer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Topic {
    what: What,
    /// Of which HELO, of which sender: answers about an earlier one are not taken for this one's.
    round: u8,
    number: u8,
}

impl Topic {
    /// What questions may be about, by [`Topic::subject`].
    pub const SUBJECTS: usize = What::Sender as usize + 1;

    /// Of all questions about one subject at most one finding comes.
    pub const fn subject(self) -> usize {
        self.what as usize
    }

    pub fn is_of_helo(self) -> bool {
        self.what == What::Helo
    }

    pub fn is_of_sender(self) -> bool {
        self.what == What::Sender
    }
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum What {
    Reverse,
    Helo,
    Sender,
}

/// Something was found, and holds until then.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Found {
    pub finding: Finding,
    pub until: Moment,
}

/// What one machine makes of an answer.
#[derive(Debug, Eq, PartialEq)]
enum Step {
    /// To be asked, by number.
    Ask(Vec<(u8, Question)>),
    /// Other answers are awaited.
    Wait,
    Done(End),
}

impl Step {
    /// None of the answers so far has cleared it, and so many are still awaited: it is a finding when all are in and none of
    /// them was in doubt.
    fn unless_open(open: usize, doubt: bool, finding: Finding) -> Step {
        match (open, doubt) {
            (0, false) => Step::Done(End::Found(finding)),
            (0, true) => Step::Done(End::Unknown),
            _ => Step::Wait,
        }
    }
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum End {
    /// Nothing is wrong with it.
    Clean,
    Found(Finding),
    /// It could not be found out.
    Unknown,
}

/// All that is asked about the names of one session.
#[derive(Debug)]
pub struct Names {
    ip: IpAddr,
    wants: Wants,
    reverse: Track<Reverse>,
    helo: Track<Helo>,
    sender: Track<Sender>,
    ask: VecDeque<(Topic, Question)>,
    found: VecDeque<Found>,
}

/// A machine at work, and what is known of its questions.
#[derive(Debug)]
struct Track<M> {
    machine: Option<M>,
    end: Option<End>,
    round: u8,
    /// What it makes of answers holds as long as all of them do.
    until: Moment,
}

impl<M> Default for Track<M> {
    fn default() -> Track<M> {
        Track {
            machine: None,
            end: None,
            round: 0,
            until: Moment::NEVER,
        }
    }
}

impl<M> Track<M> {
    fn begin(&mut self, machine: M) {
        *self = Track {
            machine: Some(machine),
            end: None,
            round: self.round.wrapping_add(1),
            until: Moment::NEVER,
        };
    }

    fn drop_it(&mut self) {
        self.machine = None;
        self.end = None;
        self.round = self.round.wrapping_add(1);
    }

    const fn is_open(&self) -> bool {
        self.machine.is_some() && self.end.is_none()
    }
}

impl Names {
    /// A client has come. Whether there is something to ask, [`Names::next_question`] tells.
    pub fn new(ip: IpAddr, wants: Wants) -> Names {
        let ip = ip.to_canonical();
        let mut names = Names {
            ip,
            wants,
            reverse: Track::default(),
            helo: Track::default(),
            sender: Track::default(),
            ask: VecDeque::new(),
            found: VecDeque::new(),
        };
        // A name that leads elsewhere may still be the one that the address has.
        if wants.any(&Wants::REVERSE) || wants.has(Finding::HeloMismatch) {
            names.reverse.begin(Reverse::new(ip));
            names.take(What::Reverse, Step::Ask(vec![(0, reverse::question(ip))]));
        }
        names
    }

    /// The client calls itself by this name. Findings about an earlier name are void: the caller forgets them.
    pub fn helo(&mut self, argument: &[u8], ours: &Ours) {
        self.helo.drop_it();
        if !self.wants.any(&Wants::HELO) {
            return;
        }
        let (helo, step) = Helo::new(argument, self.ip, ours);
        let step = match step {
            Step::Ask(_) if !self.wants.any(&Wants::HELO_LOOKED_UP) => Step::Done(End::Unknown),
            step => step,
        };
        self.helo.begin(helo);
        self.take(What::Helo, step);
    }

    /// MAIL from this sender. Findings about an earlier one are void: the caller forgets them.
    pub fn sender(&mut self, path: &Path<'_>) {
        self.sender.drop_it();
        if !self.wants.any(&Wants::SENDER) {
            return;
        }
        if let Some((sender, step)) = Sender::new(path) {
            self.sender.begin(sender);
            self.take(What::Sender, step);
        }
    }

    /// An answer has come, in any order.
    pub fn heard(&mut self, topic: Topic, answer: &Answer) {
        let (number, outcome) = (topic.number, &answer.outcome);
        let step = match topic.what {
            What::Reverse => tell(&mut self.reverse, topic.round, answer, |machine| {
                machine.heard(number, outcome)
            }),
            What::Helo => tell(&mut self.helo, topic.round, answer, |machine| {
                machine.heard(number, outcome)
            }),
            What::Sender => tell(&mut self.sender, topic.round, answer, |machine| {
                machine.heard(number, outcome)
            }),
        };
        if let Some(step) = step {
            self.take(topic.what, step);
        }
        self.settle_helo();
    }

    /// What to ask next, until there is nothing.
    pub fn next_question(&mut self) -> Option<(Topic, Question)> {
        self.ask.pop_front()
    }

    /// What was found since.
    pub fn next_found(&mut self) -> Option<Found> {
        self.found.pop_front()
    }

    /// What may come of a question: one of these, or nothing.
    pub fn at_stake(&self, topic: Topic) -> impl Iterator<Item = Finding> + use<> {
        let findings: &'static [Finding] = match topic.what {
            What::Reverse => &Wants::REVERSE,
            What::Helo => &Wants::HELO_LOOKED_UP,
            What::Sender => &Wants::SENDER,
        };
        let wants = self.wants;
        findings
            .iter()
            .copied()
            .filter(move |finding| wants.has(*finding))
    }

    /// The name of the client's address that leads back to it.
    pub fn confirmed(&self) -> Option<&Name> {
        self.reverse.machine.as_ref()?.confirmed()
    }

    /// What a machine wants, or what it has found.
    fn take(&mut self, what: What, step: Step) {
        match step {
            Step::Wait => {}
            Step::Ask(questions) => {
                let round = match what {
                    What::Reverse => self.reverse.round,
                    What::Helo => self.helo.round,
                    What::Sender => self.sender.round,
                };
                let topic = |number| Topic {
                    what,
                    round,
                    number,
                };
                let questions = questions.into_iter();
                self.ask
                    .extend(questions.map(|(number, question)| (topic(number), question)));
            }
            // Whether it is one depends on the names of the address.
            Step::Done(End::Found(Finding::HeloMismatch)) => self.settle_helo(),
            Step::Done(end) => self.end(what, end),
        }
    }

    fn end(&mut self, what: What, end: End) {
        let (slot, until) = match what {
            What::Reverse => (&mut self.reverse.end, self.reverse.until),
            What::Helo => (&mut self.helo.end, self.helo.until),
            What::Sender => (&mut self.sender.end, self.sender.until),
        };
        *slot = Some(end);
        if let End::Found(finding) = end
            && self.wants.has(finding)
        {
            self.found.push_back(Found { finding, until });
        }
    }

    /// A name in HELO that leads elsewhere is a mismatch unless the client's address has it as a name.
    fn settle_helo(&mut self) {
        if !self.helo.is_open() {
            return;
        }
        let Some(name) = self.helo.machine.as_ref().and_then(Helo::elsewhere) else {
            return;
        };
        let reverse = self.reverse.machine.as_ref();
        let end = match reverse.map_or(Some(false), |reverse| reverse.is_called(name)) {
            None if self.reverse.is_open() => return,
            None => End::Unknown,
            Some(true) => End::Clean,
            Some(false) => End::Found(Finding::HeloMismatch),
        };
        self.end(What::Helo, end);
    }
}

/// Hands an answer to a machine that still waits for it.
fn tell<M>(
    track: &mut Track<M>,
    round: u8,
    answer: &Answer,
    heard: impl FnOnce(&mut M) -> Step,
) -> Option<Step> {
    if track.round != round || track.end.is_some() {
        return None;
    }
    track.until = track.until.min(answer.until);
    track.machine.as_mut().map(heard)
}

/// Whether these mail servers say that the domain takes no mail (RFC 7505): none of them has a name.
fn is_null_mx(servers: &[(u16, Name)]) -> bool {
    servers.iter().all(|(_, to)| to.is_root())
}

/// Where a name leads, by its addresses.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Leads {
    /// To the client.
    Here,
    Elsewhere,
    /// It has no address.
    Nowhere,
    Unknown,
}

fn leads(outcome: &Outcome, ip: IpAddr) -> Leads {
    let (here, records) = match (outcome, ip) {
        (Outcome::Records(Records::A(list)), IpAddr::V4(ip)) => (list.contains(&ip), list.len()),
        (Outcome::Records(Records::Aaaa(list)), IpAddr::V6(ip)) => (list.contains(&ip), list.len()),
        (Outcome::Records(Records::A(_) | Records::Aaaa(_)), _) => return Leads::Elsewhere,
        (Outcome::NoData | Outcome::NoName, _) => return Leads::Nowhere,
        (Outcome::Records(_) | Outcome::Failed(_), _) => return Leads::Unknown,
    };
    match here {
        true => Leads::Here,
        // It may have been cut: what is not in it may still be so.
        false if records >= RECORDS_MAX => Leads::Unknown,
        false => Leads::Elsewhere,
    }
}

#[cfg(test)]
mod tests;
