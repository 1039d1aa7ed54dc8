//! The name in HELO or EHLO: a host name or an address literal (RFC 5321, 4.1.1.1), not weir's own, one that exists, and leads to
//! the client.
//!
//! Underscores are let pass: hosts have them that deliver mail for years. A name without a dot is nobody's to look up. RFC 5321, 4.1.4
//! forbids to refuse mail for a name that leads elsewhere; that is a fact for the score, and refused only where an operator says so.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::{Kind, Name, Outcome, Question, Records};
use crate::policy::Finding;

use super::{End, Leads, Ours, Step, is_null_mx, leads};

#[derive(Debug)]
pub(super) struct Helo {
    ip: IpAddr,
    /// None: there is nothing to look up.
    name: Option<Name>,
    /// It has addresses of the client's family, and the client's is not among them.
    elsewhere: bool,
    /// Questions of the second round whose answers are awaited.
    open: u8,
    doubt: bool,
}

/// Its addresses of the client's family.
const OWN: u8 = 0;
/// Those of the other.
const OTHER: u8 = 1;
/// Its mail servers.
const MX: u8 = 2;

impl Helo {
    pub(super) fn new(argument: &[u8], ip: IpAddr, ours: &Ours) -> (Helo, Step) {
        let mut helo = Helo {
            ip,
            name: None,
            elsewhere: false,
            open: 0,
            doubt: false,
        };
        let step = match Said::read(argument) {
            Said::Nothing => Step::Done(End::Found(Finding::HeloSyntax)),
            Said::Address(said) if said == ip => Step::Done(End::Clean),
            Said::Address(said) if ours.has_address(said) => Step::Done(borrowed(ip, ours)),
            Said::Address(_) => Step::Done(End::Found(Finding::HeloLiteral)),
            Said::Name(_) if argument.eq_ignore_ascii_case(&ours.hostname) => {
                Step::Done(borrowed(ip, ours))
            }
            Said::Name(name) => {
                helo.name = Some(name);
                helo.ask(&[(OWN, helo.own())])
            }
        };
        (helo, step)
    }

    pub(super) fn heard(&mut self, number: u8, outcome: &Outcome) -> Step {
        match number {
            OWN => self.led(outcome),
            _ => self.exists(outcome),
        }
    }

    /// The name, if it leads elsewhere.
    pub(super) fn elsewhere(&self) -> Option<&Name> {
        self.name.as_ref().filter(|_| self.elsewhere)
    }

    fn own(&self) -> Kind {
        match self.ip {
            IpAddr::V4(_) => Kind::A,
            IpAddr::V6(_) => Kind::Aaaa,
        }
    }

    fn other(&self) -> Kind {
        match self.ip {
            IpAddr::V4(_) => Kind::Aaaa,
            IpAddr::V6(_) => Kind::A,
        }
    }

    fn led(&mut self, outcome: &Outcome) -> Step {
        match leads(outcome, self.ip) {
            Leads::Here => return Step::Done(End::Clean),
            Leads::Elsewhere => {
                self.elsewhere = true;
                return Step::Done(End::Found(Finding::HeloMismatch));
            }
            // It has addresses, more than are known.
            Leads::Unknown if matches!(outcome, Outcome::Records(_)) => {
                return Step::Done(End::Unknown);
            }
            // There are servers that say NXDOMAIN where they mean "no AAAA" (RFC 4074, 4.2): taken at its word for A only.
            Leads::Nowhere if *outcome == Outcome::NoName && self.own() == Kind::A => {
                return Step::Done(End::Found(Finding::HeloUnresolved));
            }
            Leads::Nowhere => {}
            Leads::Unknown => self.doubt = true,
        }
        self.open = 2;
        self.ask(&[(OTHER, self.other()), (MX, Kind::Mx)])
    }

    /// It has no address of the client's family: has it anything?
    fn exists(&mut self, outcome: &Outcome) -> Step {
        self.open = self.open.saturating_sub(1);
        match outcome {
            Outcome::Records(Records::Mx(servers)) if is_null_mx(servers) => {}
            // It exists, and whether it is the client cannot be told.
            Outcome::Records(_) => return Step::Done(End::Clean),
            Outcome::NoData | Outcome::NoName => {}
            Outcome::Failed(_) => self.doubt = true,
        }
        Step::unless_open(self.open.into(), self.doubt, Finding::HeloUnresolved)
    }

    fn ask(&self, kinds: &[(u8, Kind)]) -> Step {
        let Some(name) = &self.name else {
            return Step::Done(End::Unknown);
        };
        let question = |(number, kind): &(u8, Kind)| {
            let name = name.clone();
            (*number, Question { name, kind: *kind })
        };
        Step::Ask(kinds.iter().map(question).collect())
    }
}

/// It is weir's own name: of this host too, which may say so.
fn borrowed(ip: IpAddr, ours: &Ours) -> End {
    match ours.is_here(ip) {
        true => End::Clean,
        false => End::Found(Finding::HeloOurs),
    }
}

/// What stands behind HELO.
enum Said {
    Name(Name),
    Address(IpAddr),
    /// Neither.
    Nothing,
}

impl Said {
    fn read(argument: &[u8]) -> Said {
        let literal = argument
            .strip_prefix(b"[")
            .and_then(|argument| argument.strip_suffix(b"]"));
        let said = match literal {
            Some(literal) => address(literal).map(Said::Address),
            None => host(argument).map(Said::Name),
        };
        said.unwrap_or(Said::Nothing)
    }
}

/// `192.0.2.1` or `IPv6:2001:db8::1`, as between the brackets of a literal.
fn address(literal: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(literal).ok()?;
    match text.split_once(':') {
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => {
            let address = address.parse::<Ipv6Addr>().ok()?;
            Some(IpAddr::V6(address).to_canonical())
        }
        Some(_) => None,
    }
}

/// Letters, digits and hyphens, at least one dot, and no number at the end: that would be an address.
fn host(argument: &[u8]) -> Option<Name> {
    let labels = || argument.split(|octet| *octet == b'.');
    let in_label = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let is_label = |label: &[u8]| {
        !label.is_empty()
            && label.iter().all(in_label)
            && label.first() != Some(&b'-')
            && label.last() != Some(&b'-')
    };
    let is_number = |label: &[u8]| label.iter().all(u8::is_ascii_digit);
    let is_host = labels().count() > 1
        && labels().all(is_label)
        && !labels().next_back().is_some_and(is_number);
    is_host.then(|| Name::parse(argument).ok()).flatten()
}
