//! The domain of the sender: whether a bounce could be delivered (RFC 5321, 5.1; RFC 7505).
//!
//! The null sender, Postmaster and address literals have no domain to look up; one that is not ASCII is left alone.

use weir_smtp::path::Path;

use crate::dns::{Kind, Name, Outcome, Question, Records};
use crate::policy::Finding;

use super::{End, Step, is_null_mx};

#[derive(Debug)]
pub(super) struct Sender {
    domain: Name,
    /// Questions about addresses whose answers are awaited.
    open: u8,
    doubt: bool,
}

/// Who takes its mail.
const MX: u8 = 0;
/// Nobody in particular: has it addresses itself (the implicit MX of RFC 5321, 5.1)?
const A: u8 = 1;
const AAAA: u8 = 2;

impl Sender {
    /// None: there is nothing to look up.
    pub(super) fn new(path: &Path<'_>) -> Option<(Sender, Step)> {
        let domain = path.domain;
        if domain.is_empty() || domain.starts_with(b"[") || !domain.is_ascii() {
            return None;
        }
        let Ok(domain) = Name::parse(domain) else {
            // No such name can exist.
            let nowhere = Sender::of(Name::parse(b"").ok()?);
            return Some((nowhere, Step::Done(End::Found(Finding::SenderUnresolved))));
        };
        let sender = Sender::of(domain);
        let step = sender.ask(&[(MX, Kind::Mx)]);
        Some((sender, step))
    }

    const fn of(domain: Name) -> Sender {
        Sender {
            domain,
            open: 0,
            doubt: false,
        }
    }

    pub(super) fn heard(&mut self, number: u8, outcome: &Outcome) -> Step {
        match number {
            MX => self.served(outcome),
            _ => self.addressed(outcome),
        }
    }

    fn served(&mut self, outcome: &Outcome) -> Step {
        match outcome {
            Outcome::Records(Records::Mx(servers)) if is_null_mx(servers) => {
                Step::Done(End::Found(Finding::SenderNullMx))
            }
            Outcome::Records(Records::Mx(_)) => Step::Done(End::Clean),
            Outcome::NoName => Step::Done(End::Found(Finding::SenderUnresolved)),
            Outcome::NoData => {
                self.open = 2;
                self.ask(&[(A, Kind::A), (AAAA, Kind::Aaaa)])
            }
            Outcome::Records(_) | Outcome::Failed(_) => Step::Done(End::Unknown),
        }
    }

    fn addressed(&mut self, outcome: &Outcome) -> Step {
        self.open = self.open.saturating_sub(1);
        match outcome {
            Outcome::Records(_) => return Step::Done(End::Clean),
            Outcome::NoData | Outcome::NoName => {}
            Outcome::Failed(_) => self.doubt = true,
        }
        Step::unless_open(self.open.into(), self.doubt, Finding::SenderUnresolved)
    }

    fn ask(&self, kinds: &[(u8, Kind)]) -> Step {
        let question = |(number, kind): &(u8, Kind)| {
            let name = self.domain.clone();
            (*number, Question { name, kind: *kind })
        };
        Step::Ask(kinds.iter().map(question).collect())
    }
}
