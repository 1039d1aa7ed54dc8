//! Octets as an answer: RFC 1035, RFC 2308 for what does not exist, RFC 2181 for what may not be believed.
//!
//! Only the answer section is believed, and of it only what the question leads to: its own name, and the names that CNAMEs from there
//! lead to. Records of any other owner are skipped unread, so nothing that was not asked for gets into the cache. The authority
//! section is looked at for one thing only, how long a "no" holds.

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::wire::ParseError;
use domain::base::{Message, ParsedName, ParsedRecord};
use domain::rdata::{A, Aaaa, Cname, Mx, Ptr, Soa, Txt};

use super::answer::{Outcome, Records};
use super::name::{Kind, Name, Question};

/// Records kept of an answer.
pub const RECORDS_MAX: usize = 16;
/// Octets kept of one text.
pub const TEXT_MAX: usize = 1024;
/// CNAMEs followed. Resolvers give up at about as many; a loop ends here, too.
const ALIASES_MAX: usize = 8;
/// Records looked at in one section: more than resolvers pass on of honest zones.
const SCAN_MAX: usize = 128;

/// What a message says that repeats the question.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Reading {
    /// An answer, and for how many seconds it holds; None: nothing was said about that.
    Answer(Outcome, Option<u32>),
    /// There is more than a datagram can carry.
    Truncated,
    /// The server cannot read the question as it was written.
    NotUnderstood,
    /// The server cannot or will not answer, or its answer says nothing.
    Failure,
    /// Not to be read.
    Garbage,
}

/// What stands in a message's header, as far as it can be told without a question.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Head {
    pub id: u16,
    /// The whole message is no more than "I cannot read that": old servers repeat no question then.
    pub bare_refusal: bool,
}

/// None: no reply to a query.
pub fn head(message: &[u8]) -> Option<Head> {
    let message = Message::from_slice(message).ok()?;
    let header = message.header();
    if !header.qr() || header.opcode() != Opcode::QUERY {
        return None;
    }
    let bare = message.header_counts().qdcount() == 0;
    let refused = matches!(header.rcode(), Rcode::FORMERR | Rcode::NOTIMP);
    Some(Head {
        id: header.id(),
        bare_refusal: bare && refused,
    })
}

/// Reads a message that [`head`] and [`super::query::echo`] have let pass.
pub fn read(message: &[u8], question: &Question) -> Reading {
    let Ok(message) = Message::from_slice(message) else {
        return Reading::Garbage;
    };
    if message.header().tc() {
        return Reading::Truncated;
    }
    match message.opt_rcode().to_int() {
        0 | 3 => follow(message, question).unwrap_or(Reading::Garbage),
        // FORMERR, NOTIMP, BADVERS
        1 | 4 | 16 => Reading::NotUnderstood,
        _ => Reading::Failure,
    }
}

fn follow(message: &Message<[u8]>, question: &Question) -> Result<Reading, ParseError> {
    let no_name = message.header().rcode() == Rcode::NXDOMAIN;
    let mut owner = question.name.clone();
    let mut ttl = None;
    for _ in 0..=ALIASES_MAX {
        let found = Found::at(message, &owner, question.kind)?;
        if let Some(records) = found.records {
            // Records of a name that does not exist: one of both is wrong.
            return Ok(match no_name {
                true => Reading::Failure,
                false => Reading::Answer(Outcome::Records(records), least(ttl, found.records_ttl)),
            });
        }
        match found.alias {
            Some((target, alias_ttl)) => {
                ttl = least(ttl, Some(alias_ttl));
                owner = target;
            }
            // Records that lead nowhere: whatever was answered, it was not this question.
            None if owner == question.name && message.header_counts().ancount() > 0 => {
                return Ok(Reading::Failure);
            }
            None => return absence(message, no_name, ttl),
        }
    }
    Ok(Reading::Failure)
}

/// What the answer section has of one owner.
#[derive(Default)]
struct Found {
    records: Option<Records>,
    records_ttl: Option<u32>,
    alias: Option<(Name, u32)>,
}

impl Found {
    fn at(message: &Message<[u8]>, owner: &Name, kind: Kind) -> Result<Found, ParseError> {
        let mut found = Found::default();
        let mut kept = Kept::new(kind);
        for record in message.answer()?.take(SCAN_MAX) {
            let record = record?;
            if record.class() != Class::IN || !same(&record.owner(), owner) {
                continue;
            }
            if record.rtype().to_int() == kind.code() {
                kept.take(&record)?;
                found.records_ttl = least(found.records_ttl, Some(seconds(&record)));
            } else if found.alias.is_none()
                && let Some(cname) = record.to_record::<Cname<_>>()?
            {
                found.alias = Some((name(cname.data().cname())?, seconds(&record)));
            }
        }
        found.records = kept.records();
        Ok(found)
    }
}

/// Records of one kind, as many as may be kept.
enum Kept {
    A(Vec<Ipv4Addr>),
    Aaaa(Vec<Ipv6Addr>),
    Ptr(Vec<Name>),
    Mx(Vec<(u16, Name)>),
    Txt(Vec<Box<[u8]>>),
}

impl Kept {
    fn new(kind: Kind) -> Kept {
        match kind {
            Kind::A => Kept::A(Vec::new()),
            Kind::Aaaa => Kept::Aaaa(Vec::new()),
            Kind::Ptr => Kept::Ptr(Vec::new()),
            Kind::Mx => Kept::Mx(Vec::new()),
            Kind::Txt => Kept::Txt(Vec::new()),
        }
    }

    /// A record of the kind, by its type's number.
    fn take(&mut self, record: &ParsedRecord<'_, [u8]>) -> Result<(), ParseError> {
        match self {
            Kept::A(kept) => {
                if let Some(record) = record.to_record::<A>()? {
                    keep(kept, record.data().addr());
                }
            }
            Kept::Aaaa(kept) => {
                if let Some(record) = record.to_record::<Aaaa>()? {
                    keep(kept, record.data().addr());
                }
            }
            Kept::Ptr(kept) => {
                if let Some(record) = record.to_record::<Ptr<_>>()? {
                    keep(kept, name(record.data().ptrdname())?);
                }
            }
            Kept::Mx(kept) => {
                if let Some(record) = record.to_record::<Mx<_>>()? {
                    let mx = record.data();
                    keep(kept, (mx.preference(), name(mx.exchange())?));
                }
            }
            Kept::Txt(kept) => {
                if let Some(record) = record.to_record::<Txt<_>>()? {
                    let octets = record.data().iter().flatten().copied();
                    keep(kept, octets.take(TEXT_MAX).collect());
                }
            }
        }
        Ok(())
    }

    /// None: there were none.
    fn records(self) -> Option<Records> {
        Some(match self {
            Kept::A(kept) if !kept.is_empty() => Records::A(kept.into()),
            Kept::Aaaa(kept) if !kept.is_empty() => Records::Aaaa(kept.into()),
            Kept::Ptr(kept) if !kept.is_empty() => Records::Ptr(kept.into()),
            Kept::Mx(mut kept) if !kept.is_empty() => {
                kept.sort_by_key(|(preference, _)| *preference);
                Records::Mx(kept.into())
            }
            Kept::Txt(kept) if !kept.is_empty() => Records::Txt(kept.into()),
            _ => return None,
        })
    }
}

fn keep<V: PartialEq>(kept: &mut Vec<V>, value: V) {
    if kept.len() < RECORDS_MAX && !kept.contains(&value) {
        kept.push(value);
    }
}

/// Nothing at the end of the chain. Whether that is a "no" (RFC 2308, 2.1 and 2.2) or only a hint whom else to ask.
fn absence(
    message: &Message<[u8]>,
    no_name: bool,
    ttl: Option<u32>,
) -> Result<Reading, ParseError> {
    let mut no_ttl = None;
    let mut referral = false;
    for record in message.authority()?.take(SCAN_MAX) {
        let record = record?;
        if record.rtype() == Rtype::NS {
            referral = true;
        } else if let Some(soa) = record.to_record::<Soa<_>>()? {
            let minimum = soa.data().minimum().as_secs();
            no_ttl = least(no_ttl, Some(minimum.min(seconds(&record))));
        }
    }
    if no_name {
        return Ok(Reading::Answer(Outcome::NoName, least(ttl, no_ttl)));
    }
    let header = message.header();
    let answers = message.header_counts().ancount() > 0;
    // An alias without the end of its chain was left unresolved.
    let complete = !answers && !referral && (header.ra() || header.aa());
    let speaks_for_itself = no_ttl.is_some() || complete;
    Ok(match speaks_for_itself {
        true => Reading::Answer(Outcome::NoData, least(ttl, no_ttl)),
        false => Reading::Failure,
    })
}

fn least(a: Option<u32>, b: Option<u32>) -> Option<u32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A TTL of more than 31 bits is none (RFC 2181, 8).
fn seconds(record: &ParsedRecord<'_, [u8]>) -> u32 {
    let seconds = record.ttl().as_secs();
    match seconds >> 31 {
        0 => seconds,
        _ => 0,
    }
}

fn same(parsed: &ParsedName<&[u8]>, name: &Name) -> bool {
    let labels = parsed.iter().map(|label| label.as_slice());
    let mut want = name.labels();
    for label in labels.filter(|label| !label.is_empty()) {
        if !want
            .next()
            .is_some_and(|want| want.eq_ignore_ascii_case(label))
        {
            return false;
        }
    }
    want.next().is_none()
}

fn name<Octets: AsRef<[u8]>>(parsed: &ParsedName<Octets>) -> Result<Name, ParseError> {
    let labels = parsed.iter().map(|label| label.as_slice());
    Name::from_labels(labels).map_err(|_| ParseError::form_error("name too long"))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin_tests;
