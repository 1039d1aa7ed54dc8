//! One `--dnsbl`: `ZONE[=FILTER][*WEIGHT][,as=NAME][,txt]`, and what several of them make of one zone.
//!
//! The form is postscreen's (`zone=127.0.0.[2..11]*3`), so that a list of zones can be moved over. Several may name
//! the same zone with different filters: it is asked once, and the weights of all that match are added up.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use crate::dns::{Name, NameError};

use super::answer::is_listing;

/// Each costs a question per client.
pub const ZONES_MAX: usize = 64;
/// What one list may weigh, either way.
pub const WEIGHT_MAX: i16 = crate::policy::actions::WEIGHT_MAX as i16;
/// A name for replies is cut out for one line of a reply.
const PUBLIC_MAX: usize = 64;
const PATTERNS_MAX: usize = 16;
/// A first label like this is a customer's key, and no part of a list's name.
const KEY_MIN: usize = 16;

/// One flag, read.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Spec {
    zone: Name,
    entry: Entry,
    /// The name given by `as=`.
    public: Option<Arc<str>>,
    txt: bool,
}

/// Which answers count, and for how much.
#[derive(Clone, Eq, PartialEq, Debug)]
struct Entry {
    /// Any of them; none at all: whatever is a listing.
    patterns: Vec<Pattern>,
    weight: i16,
}

/// Four sets of octets, as in `127.0.0.[2..11]`.
#[derive(Clone, Eq, PartialEq, Debug)]
struct Pattern([Octets; 4]);

#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
struct Octets([u64; 4]);

/// A list that is asked.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Zone {
    name: Name,
    /// What it is called where strangers read it: a key for the list is not in it.
    public: Arc<str>,
    /// The reason for a listing is asked for.
    txt: bool,
    entries: Vec<Entry>,
}

impl Zone {
    pub const fn name(&self) -> &Name {
        &self.name
    }

    pub const fn public(&self) -> &Arc<str> {
        &self.public
    }

    pub const fn wants_reason(&self) -> bool {
        self.txt
    }

    /// What a listing by these addresses weighs; None: none of the filters matches.
    pub fn weight(&self, addresses: &[Ipv4Addr]) -> Option<i16> {
        let matching = self
            .entries
            .iter()
            .filter(|entry| addresses.iter().any(|address| entry.matches(*address)));
        matching.map(|entry| entry.weight).reduce(|a, b| a + b)
    }

    /// The least and the most that an answer can add to a score.
    pub fn range(&self) -> (i16, i16) {
        let weights = || self.entries.iter().map(|entry| entry.weight);
        (
            weights().filter(|weight| *weight < 0).sum(),
            weights().filter(|weight| *weight > 0).sum(),
        )
    }

    /// The filters and weights, for the plan.
    pub fn rules(&self) -> impl Iterator<Item = String> {
        self.entries.iter().map(Entry::to_string)
    }
}

/// The zones of all flags, each once, in the order in which they were first named.
pub fn zones(specs: Vec<Spec>) -> Result<Arc<[Zone]>, ZonesError> {
    let mut zones: Vec<Zone> = Vec::new();
    let mut named: Vec<bool> = Vec::new();
    for spec in specs {
        let Some(at) = zones.iter().position(|zone| zone.name == spec.zone) else {
            named.push(spec.public.is_some());
            zones.push(Zone {
                public: spec.public.unwrap_or_else(|| without_key(&spec.zone)),
                name: spec.zone,
                txt: spec.txt,
                entries: vec![spec.entry],
            });
            continue;
        };
        let zone = &mut zones[at];
        if let Some(public) = spec.public {
            if named[at] && zone.public != public {
                return Err(ZonesError::TwoNames(zone.public.clone(), public));
            }
            zone.public = public;
            named[at] = true;
        }
        zone.txt |= spec.txt;
        if zone.entries.len() == ENTRIES_MAX {
            return Err(ZonesError::TooManyFilters(zone.public.clone()));
        }
        zone.entries.push(spec.entry);
    }
    for (number, zone) in zones.iter().enumerate() {
        if zones[..number]
            .iter()
            .any(|other| other.public == zone.public)
        {
            return Err(ZonesError::SameName(zone.public.clone()));
        }
    }
    if zones.len() > ZONES_MAX {
        return Err(ZonesError::TooMany(zones.len()));
    }
    Ok(zones.into())
}

/// Flags for the same zone. Their weights have to add up within 16 bits.
const ENTRIES_MAX: usize = 64;
const _: () = assert!(ENTRIES_MAX * (WEIGHT_MAX as usize) < i16::MAX as usize);

/// The zone's name without a customer's key in front of it.
fn without_key(zone: &Name) -> Arc<str> {
    let name = zone.to_string();
    let is_key = |label: &str| {
        label.len() >= KEY_MIN
            && label.bytes().all(|octet| octet.is_ascii_alphanumeric())
            && label.bytes().any(|octet| octet.is_ascii_digit())
    };
    match name.split_once('.') {
        Some((label, rest)) if is_key(label) => rest.into(),
        _ => name.into(),
    }
}

impl Entry {
    fn matches(&self, address: Ipv4Addr) -> bool {
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.matches(address))
    }
}

impl Pattern {
    fn matches(&self, address: Ipv4Addr) -> bool {
        let parts = self.0.iter().zip(address.octets());
        parts.into_iter().all(|(set, octet)| set.contains(octet))
    }

    /// Whether any answer that is a listing at all can match. What is none are 257 addresses: the search is short.
    fn can_match(&self) -> bool {
        let Pattern([a, b, c, d]) = self;
        let mut within = b
            .iter()
            .flat_map(|b| c.iter().flat_map(move |c| d.iter().map(move |d| [b, c, d])));
        a.contains(127) && within.any(|[b, c, d]| is_listing(Ipv4Addr::new(127, b, c, d)))
    }
}

impl Octets {
    const fn contains(&self, octet: u8) -> bool {
        self.0[octet as usize / 64] & 1 << (octet % 64) != 0
    }

    const fn insert(&mut self, octet: u8) {
        self.0[octet as usize / 64] |= 1 << (octet % 64);
    }

    fn iter(&self) -> impl Iterator<Item = u8> {
        (0..=255).filter(|octet| self.contains(*octet))
    }

    /// Runs of neighbours, first and last.
    fn runs(&self) -> Vec<(u8, u8)> {
        let mut runs: Vec<(u8, u8)> = Vec::new();
        for octet in self.iter() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == octet => *last = octet,
                _ => runs.push((octet, octet)),
            }
        }
        runs
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Spec, SpecError> {
        let mut parts = text.split(',');
        let (zone, entry) = parts.next().map(read_zone).expect("a first part, always")?;
        let mut spec = Spec {
            zone,
            entry,
            public: None,
            txt: false,
        };
        for option in parts {
            match option.split_once('=') {
                None if option == "txt" => spec.txt = true,
                Some(("as", public)) if is_public(public) => spec.public = Some(public.into()),
                Some(("as", public)) => return Err(SpecError::Public(public.into())),
                _ => return Err(SpecError::Option(option.into())),
            }
        }
        Ok(spec)
    }
}

/// `ZONE[=FILTER][*WEIGHT]`.
fn read_zone(text: &str) -> Result<(Name, Entry), SpecError> {
    let (text, weight) = match text.rsplit_once('*') {
        Some((text, weight)) => (text, read_weight(weight)?),
        None => (text, 1),
    };
    let (zone, patterns) = match text.split_once('=') {
        Some((zone, filter)) => (zone, read_filter(filter)?),
        None => (text, Vec::new()),
    };
    let name = Name::parse(zone.as_bytes()).map_err(|why| SpecError::Zone(zone.into(), why))?;
    let in_host = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet);
    if name.is_root() || !zone.bytes().all(in_host) {
        return Err(SpecError::NoZone(zone.into()));
    }
    // An IPv6 address in front of it is the longest question.
    if let Err(why) = Name::reversed(IpAddr::V6(Ipv6Addr::UNSPECIFIED), &name) {
        return Err(SpecError::Zone(zone.into(), why));
    }
    Ok((name, Entry { patterns, weight }))
}

fn read_weight(text: &str) -> Result<i16, SpecError> {
    let weight = text.parse::<i16>().ok();
    weight
        .filter(|weight| (-WEIGHT_MAX..=WEIGHT_MAX).contains(weight))
        .ok_or_else(|| SpecError::Weight(text.into()))
}

/// Patterns with `|` between them.
fn read_filter(text: &str) -> Result<Vec<Pattern>, SpecError> {
    let fault = || SpecError::Filter(text.into());
    let mut patterns = Vec::new();
    for pattern in text.split('|') {
        let pattern = read_pattern(pattern).ok_or_else(fault)?;
        if !pattern.can_match() {
            return Err(SpecError::NeverMatches(text.into()));
        }
        patterns.push(pattern);
    }
    match patterns.len() > PATTERNS_MAX {
        true => Err(fault()),
        false => Ok(patterns),
    }
}

/// Four parts with dots between them; there are two more within `[2..11]`.
fn read_pattern(text: &str) -> Option<Pattern> {
    let mut sets = [Octets::default(); 4];
    let mut rest = text;
    for (number, set) in sets.iter_mut().enumerate() {
        if number > 0 {
            rest = rest.strip_prefix('.')?;
        }
        let end = match rest.starts_with('[') {
            true => rest.find(']')? + 1,
            false => rest.find('.').unwrap_or(rest.len()),
        };
        let (part, behind) = rest.split_at(end);
        *set = read_octets(part)?;
        rest = behind;
    }
    rest.is_empty().then_some(Pattern(sets))
}

/// A number, or numbers and ranges in brackets with `;` between them.
fn read_octets(text: &str) -> Option<Octets> {
    let mut set = Octets::default();
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let Some(inside) = inside else {
        set.insert(read_octet(text)?);
        return Some(set);
    };
    for range in inside.split(';') {
        let (first, last) = range.split_once("..").unwrap_or((range, range));
        let (first, last) = (read_octet(first)?, read_octet(last)?);
        if first > last {
            return None;
        }
        (first..=last).for_each(|octet| set.insert(octet));
    }
    Some(set)
}

fn read_octet(text: &str) -> Option<u8> {
    let is_number = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// It stands in a reply and in log lines: nothing that could break either.
fn is_public(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= PUBLIC_MAX
        && text.bytes().all(|octet| octet.is_ascii_graphic())
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, pattern) in self.patterns.iter().enumerate() {
            f.write_str(if number > 0 { "|" } else { "=" })?;
            write!(f, "{pattern}")?;
        }
        write!(f, "*{}", self.weight)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, set) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            let runs = set.runs();
            if let [(only, last)] = runs[..]
                && only == last
            {
                write!(f, "{only}")?;
                continue;
            }
            for (number, (first, last)) in runs.iter().enumerate() {
                f.write_str(if number > 0 { ";" } else { "[" })?;
                match first == last {
                    true => write!(f, "{first}")?,
                    false => write!(f, "{first}..{last}")?,
                }
            }
            f.write_str("]")?;
        }
        Ok(())
    }
}

/// Why a `--dnsbl` could not be read.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum SpecError {
    NoZone(Box<str>),
    Zone(Box<str>, NameError),
    Filter(Box<str>),
    /// Only what is never a listing.
    NeverMatches(Box<str>),
    Weight(Box<str>),
    Public(Box<str>),
    Option(Box<str>),
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecError::NoZone(zone) => write!(f, "{zone:?} is no zone, as in bl.example"),
            SpecError::Zone(zone, why) => write!(f, "the zone {zone:?} cannot be asked: {why}"),
            SpecError::Filter(filter) => write!(
                f,
                "{filter:?} is no filter, as in 127.0.0.2, 127.0.0.[2..11] or 127.0.0.[2;4]|127.0.1.2"
            ),
            SpecError::NeverMatches(filter) => write!(
                f,
                "{filter:?} never matches: a listing lies in 127.0.0.0/8 and is neither 127.0.0.1 nor in 127.255.255.0/24"
            ),
            SpecError::Weight(weight) => write!(
                f,
                "{weight:?} is no weight; write a whole number from -{WEIGHT_MAX} to {WEIGHT_MAX}"
            ),
            SpecError::Public(name) => write!(
                f,
                "as={name:?} is no name for replies; write up to {PUBLIC_MAX} printable characters without blanks"
            ),
            SpecError::Option(option) => {
                write!(f, "{option:?} is no option; there are as=NAME and txt")
            }
        }
    }
}

/// Why several `--dnsbl` do not go together.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum ZonesError {
    TooMany(usize),
    TooManyFilters(Arc<str>),
    TwoNames(Arc<str>, Arc<str>),
    /// Nobody could tell them apart in a log.
    SameName(Arc<str>),
}

impl std::error::Error for ZonesError {}

impl fmt::Display for ZonesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZonesError::TooMany(zones) => write!(
                f,
                "{zones} zones are named; each costs a question per client, and {ZONES_MAX} are the most"
            ),
            ZonesError::TooManyFilters(zone) => {
                write!(f, "{zone} is named more than {ENTRIES_MAX} times")
            }
            ZonesError::SameName(name) => {
                write!(f, "two zones are called {name}; as=NAME tells them apart")
            }
            ZonesError::TwoNames(one, other) => {
                write!(f, "one zone has the names {one} and {other}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
