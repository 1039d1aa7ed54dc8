//! The names of the client's address, and whether one of them leads back to it (RFC 1912, 2.1; RFC 8601, 3 calls it iprev).

use std::net::IpAddr;

use crate::dns::{Kind, Name, Outcome, Question, RECORDS_MAX, Records};
use crate::policy::Finding;

use super::{End, Leads, Step, leads};

/// Names that are followed. More than a few are a sign of a pool of virtual hosts; each costs a question.
const NAMES_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Reverse {
    ip: IpAddr,
    named: Named,
    /// Names whose answer is awaited.
    open: usize,
    confirmed: Option<u8>,
    /// It may have more names than those.
    cut: bool,
    /// Something could not be found out, so that "none" is not known.
    doubt: bool,
}

/// The names of the address.
#[derive(Debug)]
enum Named {
    Asked,
    /// Those that are followed.
    As(Vec<Name>),
    Unknown,
}

/// What the address is called.
pub(super) fn question(ip: IpAddr) -> Question {
    let zone: &[u8] = match ip {
        IpAddr::V4(_) => b"in-addr.arpa",
        IpAddr::V6(_) => b"ip6.arpa",
    };
    let zone = Name::parse(zone).expect("a name");
    Question {
        name: Name::reversed(ip, &zone).expect("it is short"),
        kind: Kind::Ptr,
    }
}

impl Reverse {
    pub(super) fn new(ip: IpAddr) -> Reverse {
        Reverse {
            ip,
            named: Named::Asked,
            open: 0,
            confirmed: None,
            cut: false,
            doubt: false,
        }
    }

    /// 0: what it is called; from 1 on: where those names lead.
    pub(super) fn heard(&mut self, number: u8, outcome: &Outcome) -> Step {
        match number {
            0 => self.named(outcome),
            number => self.led(number - 1, outcome),
        }
    }

    pub(super) fn confirmed(&self) -> Option<&Name> {
        let Named::As(names) = &self.named else {
            return None;
        };
        names.get(usize::from(self.confirmed?))
    }

    /// Whether the address has this name, whatever it leads to. None: not known.
    pub(super) fn is_called(&self, name: &Name) -> Option<bool> {
        match &self.named {
            Named::As(names) if names.contains(name) => Some(true),
            Named::As(_) if self.cut => None,
            Named::As(_) => Some(false),
            Named::Asked | Named::Unknown => None,
        }
    }

    fn named(&mut self, outcome: &Outcome) -> Step {
        match outcome {
            Outcome::Records(Records::Ptr(names)) => self.follow(names),
            Outcome::NoName | Outcome::NoData => {
                self.named = Named::As(Vec::new());
                Step::Done(End::Found(Finding::NoReverse))
            }
            Outcome::Records(_) | Outcome::Failed(_) => {
                self.named = Named::Unknown;
                Step::Done(End::Unknown)
            }
        }
    }

    fn follow(&mut self, names: &[Name]) -> Step {
        let mut kept: Vec<Name> = Vec::with_capacity(names.len().min(NAMES_MAX));
        for name in names.iter().filter(|name| !name.is_root()) {
            if !kept.contains(name) {
                kept.push(name.clone());
            }
        }
        self.cut = kept.len() > NAMES_MAX || names.len() >= RECORDS_MAX;
        self.doubt = self.cut;
        kept.truncate(NAMES_MAX);
        self.open = kept.len();
        let kind = match self.ip {
            IpAddr::V4(_) => Kind::A,
            IpAddr::V6(_) => Kind::Aaaa,
        };
        let questions: Vec<(u8, Question)> = (1..)
            .zip(kept.iter().cloned().map(|name| Question { name, kind }))
            .collect();
        self.named = Named::As(kept);
        match questions.is_empty() {
            true => Step::Done(End::Found(Finding::ReverseMismatch)),
            false => Step::Ask(questions),
        }
    }

    fn led(&mut self, name: u8, outcome: &Outcome) -> Step {
        self.open = self.open.saturating_sub(1);
        match leads(outcome, self.ip) {
            Leads::Here => {
                self.confirmed = Some(name);
                return Step::Done(End::Clean);
            }
            Leads::Unknown => self.doubt = true,
            Leads::Elsewhere | Leads::Nowhere => {}
        }
        Step::unless_open(self.open, self.doubt, Finding::ReverseMismatch)
    }
}
