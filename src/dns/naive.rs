//! The slow twin of [`super::reply`], for tests and fuzzing: a message taken apart octet by octet into plain records, all that can be, and the rules
//! applied to those. It shares no code with the quick one, but for the types of what is found.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use weir_smtp::time::Moment;

use super::answer::{Outcome, Records};
use super::name::{Kind, Name, Question};
use super::query::{self, Echo};
use super::reply::{self, Reading};
use super::{Act, Config, Stub};

const RECORDS: usize = 16;
const TEXT: usize = 1024;
const ALIASES: usize = 8;
const SCANNED: usize = 128;

/// Reads the message both ways and compares; and what is read is within its bounds. True: it was an answer.
pub fn agree(message: &[u8], question: &Question) -> bool {
    let quick = reply::read(message, question);
    assert_eq!(Some(&quick), read(message, question).as_ref());
    let Reading::Answer(outcome, ttl) = quick else {
        return false;
    };
    assert!(ttl.is_none_or(|ttl| ttl < 1 << 31));
    let (count, longest) = match outcome {
        Outcome::Records(Records::A(kept)) => (kept.len(), 0),
        Outcome::Records(Records::Aaaa(kept)) => (kept.len(), 0),
        Outcome::Records(Records::Ptr(kept)) => (kept.len(), 0),
        Outcome::Records(Records::Mx(kept)) => (kept.len(), 0),
        Outcome::Records(Records::Txt(kept)) => {
            let longest = kept.iter().map(|text| text.len()).max();
            (kept.len(), longest.unwrap_or(0))
        }
        Outcome::NoData | Outcome::NoName => return true,
        Outcome::Failed(_) => panic!("a reply is no failure of the resolver's"),
    };
    assert!((1..=RECORDS).contains(&count) && longest <= TEXT);
    true
}

/// Whether a resolver may believe the message at all.
pub fn may_be_believed(message: &[u8], id: u16, question: &Question, case: u64) -> bool {
    let same = message.get(..2) == Some(&id.to_be_bytes());
    let reply = message.get(2).is_some_and(|flags| flags >> 3 == 16);
    let whole = query::echo(message, question, case) != Echo::Other;
    same && reply && whole
}

struct Message<'a> {
    octets: &'a [u8],
    counts: [usize; 4],
}

#[derive(Clone)]
struct Record {
    owner: Vec<u8>,
    code: u16,
    class: u16,
    ttl: u32,
    data: usize,
    end: usize,
}

/// None: not even a header.
fn read(octets: &[u8], question: &Question) -> Option<Reading> {
    let count = |at: usize| Some(usize::from(u16_at(octets, at, octets.len())?));
    let counts = [count(4)?, count(6)?, count(8)?, count(10)?];
    let message = Message { octets, counts };
    let flags = u16_at(octets, 2, octets.len())?;
    if flags & 0x0200 != 0 {
        return Some(Reading::Truncated);
    }
    let code = flags & 15 | message.extended_code() << 4;
    Some(match code {
        0 | 3 => message.follow(question, flags).unwrap_or(Reading::Garbage),
        1 | 4 | 16 => Reading::NotUnderstood,
        _ => Reading::Failure,
    })
}

impl Message<'_> {
    /// None: garbage.
    fn follow(&self, question: &Question, flags: u16) -> Option<Reading> {
        let no_name = flags & 15 == 3;
        let mut owner = question.name.as_wire().to_vec();
        let mut ttls = Vec::new();
        for _ in 0..=ALIASES {
            let mut alias = None;
            let mut found = Vec::new();
            for record in self.section(1).take(SCANNED) {
                let record = record?;
                if record.class != 1 || record.owner != owner {
                    continue;
                }
                if record.code == question.kind.code() {
                    found.push(record);
                } else if record.code == 5 && alias.is_none() {
                    let (target, end) = self.name(record.data, record.end)?;
                    if end != record.end {
                        return None;
                    }
                    alias = Some((target, record.ttl));
                }
            }
            if !found.is_empty() {
                ttls.extend(found.iter().map(|record| record.ttl));
                let records = self.records(question.kind, &found)?;
                return Some(match no_name {
                    true => Reading::Failure,
                    false => Reading::Answer(Outcome::Records(records), ttls.into_iter().min()),
                });
            }
            let Some((target, ttl)) = alias else {
                return match owner == question.name.as_wire() && self.counts[1] > 0 {
                    true => Some(Reading::Failure),
                    false => self.absence(flags, no_name, ttls),
                };
            };
            ttls.push(ttl);
            owner = target;
        }
        Some(Reading::Failure)
    }

    fn absence(&self, flags: u16, no_name: bool, mut ttls: Vec<u32>) -> Option<Reading> {
        let (mut is_referral, mut is_closed) = (false, false);
        // The records before are only stepped over.
        self.start(2)?;
        for record in self.section(2).take(SCANNED) {
            let record = record?;
            is_referral |= record.code == 2;
            if record.code == 6 {
                let (_, at) = self.name(record.data, record.end)?;
                let (_, at) = self.name(at, record.end)?;
                if at + 20 != record.end {
                    return None;
                }
                is_closed = true;
                ttls.extend([record.ttl, u32_at(self.octets, at + 16, record.end)?]);
            }
        }
        let ttl = ttls.into_iter().min();
        let recurses = flags & 0x0480 != 0 && self.counts[1] == 0;
        Some(match (no_name, is_closed || (recurses && !is_referral)) {
            (true, _) => Reading::Answer(Outcome::NoName, ttl),
            (false, true) => Reading::Answer(Outcome::NoData, ttl),
            (false, false) => Reading::Failure,
        })
    }

    fn records(&self, kind: Kind, found: &[Record]) -> Option<Records> {
        let name_at = |record: &Record, at: usize| {
            let (wire, end) = self.name(at, record.end)?;
            (end == record.end).then(|| named(&wire))
        };
        let data = |record: &Record| &self.octets[record.data..record.end];
        Some(match kind {
            Kind::A => {
                let ip =
                    |record: &Record| Some(Ipv4Addr::from(<[u8; 4]>::try_from(data(record)).ok()?));
                Records::A(kept(found.iter().map(ip).collect::<Option<_>>()?).into())
            }
            Kind::Aaaa => {
                let ip = |record: &Record| {
                    Some(Ipv6Addr::from(<[u8; 16]>::try_from(data(record)).ok()?))
                };
                Records::Aaaa(kept(found.iter().map(ip).collect::<Option<_>>()?).into())
            }
            Kind::Ptr => {
                let target = |record: &Record| name_at(record, record.data);
                Records::Ptr(kept(found.iter().map(target).collect::<Option<_>>()?).into())
            }
            Kind::Mx => {
                let mx = |record: &Record| {
                    let preference = u16_at(self.octets, record.data, record.end)?;
                    Some((preference, name_at(record, record.data + 2)?))
                };
                let mut all = kept(found.iter().map(mx).collect::<Option<Vec<_>>>()?);
                all.sort_by_key(|(preference, _)| *preference);
                Records::Mx(all.into())
            }
            Kind::Txt => {
                let text = |record: &Record| text(data(record));
                Records::Txt(kept(found.iter().map(text).collect::<Option<_>>()?).into())
            }
        })
    }

    /// Where the section's records begin; those before it are stepped over, whatever their names lead to.
    fn start(&self, section: usize) -> Option<usize> {
        let mut at = 12;
        for before in 0..section {
            for _ in 0..self.counts[before] {
                at = self.step_over_name(at)?;
                let fixed = if before == 0 { 4 } else { 8 };
                at += fixed;
                if before > 0 {
                    at += 2 + usize::from(u16_at(self.octets, at, self.octets.len())?);
                }
                if at > self.octets.len() {
                    return None;
                }
            }
        }
        Some(at)
    }

    /// The section's records; a None is the last, and stands for what cannot be read.
    fn section(&self, section: usize) -> impl Iterator<Item = Option<Record>> + '_ {
        let mut at = self.start(section);
        let mut left = self.counts[section];
        let mut is_over = false;
        std::iter::from_fn(move || {
            if is_over || (left == 0 && at.is_some()) {
                return None;
            }
            left = left.saturating_sub(1);
            let record = at.and_then(|at| self.record(at));
            at = record.as_ref().map(|record| record.end);
            is_over = record.is_none();
            Some(record)
        })
    }

    fn record(&self, at: usize) -> Option<Record> {
        let all = self.octets.len();
        let (owner, at) = self.name(at, all)?;
        let ttl = u32_at(self.octets, at + 4, all)?;
        let end = at + 10 + usize::from(u16_at(self.octets, at + 8, all)?);
        (end <= all).then_some(Record {
            owner,
            code: u16_at(self.octets, at, all)?,
            class: u16_at(self.octets, at + 2, all)?,
            ttl: if ttl < 1 << 31 { ttl } else { 0 },
            data: at + 10,
            end,
        })
    }

    /// The name at `at` in lower case, and where it ends there. Pointers only lead back.
    fn name(&self, mut at: usize, limit: usize) -> Option<(Vec<u8>, usize)> {
        let mut wire = Vec::new();
        let mut end = None;
        let mut pointers = 0;
        loop {
            let len = *self.octets[..limit].get(at)?;
            match len {
                0 => {
                    wire.push(0);
                    wire.make_ascii_lowercase();
                    return Some((wire, end.unwrap_or(at + 1)));
                }
                1..=63 => {
                    let label = self.octets[..limit].get(at..=at + usize::from(len))?;
                    wire.extend_from_slice(label);
                    at += label.len();
                    if wire.len() > 254 {
                        return None;
                    }
                }
                192.. => {
                    let to = usize::from(u16_at(self.octets, at, limit)? & 0x3fff);
                    pointers += 1;
                    if to >= at || pointers > 255 {
                        return None;
                    }
                    end = end.or(Some(at + 2));
                    at = to;
                }
                _ => return None,
            }
        }
    }

    fn step_over_name(&self, mut at: usize) -> Option<usize> {
        let start = at;
        loop {
            let len = *self.octets.get(at)?;
            match len {
                0 => return (at + 1 - start <= 255).then_some(at + 1),
                1..=63 => at += 1 + usize::from(len),
                192.. => return self.octets.get(at + 1).map(|_| at + 2),
                _ => return None,
            }
            if at > self.octets.len() || at - start > 255 {
                return None;
            }
        }
    }

    /// The upper bits of the code (RFC 6891, 6.1.3): of the first OPT, if all before it can be read.
    fn extended_code(&self) -> u16 {
        let Some(mut at) = self.start(3) else {
            return 0;
        };
        for _ in 0..self.counts[3] {
            let Some(record) = self.record(at) else {
                return 0;
            };
            if record.code == 41 {
                let is_whole = options(&self.octets[record.data..record.end]);
                // The TTL as it stands there, all bits of it.
                let code = u16::from(self.octets[record.data - 6]);
                return if is_whole { code } else { 0 };
            }
            at = record.end;
        }
        0
    }
}

fn options(mut data: &[u8]) -> bool {
    while let Some((head, rest)) = data.split_first_chunk::<4>() {
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let Some((_, behind)) = rest.split_at_checked(len) else {
            return false;
        };
        data = behind;
    }
    data.is_empty()
}

fn text(mut data: &[u8]) -> Option<Box<[u8]>> {
    let mut text = Vec::new();
    while let Some((len, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(*len))?;
        text.extend_from_slice(string);
        data = rest;
    }
    text.truncate(TEXT);
    Some(text.into())
}

fn kept<V: PartialEq>(all: Vec<V>) -> Vec<V> {
    let mut kept = Vec::new();
    for value in all {
        if !kept.contains(&value) && kept.len() < RECORDS {
            kept.push(value);
        }
    }
    kept
}

fn named(wire: &[u8]) -> Name {
    let mut labels = Vec::new();
    let mut at = 0;
    while wire[at] > 0 {
        let end = at + 1 + usize::from(wire[at]);
        labels.push(&wire[at + 1..end]);
        at = end;
    }
    Name::from_labels(labels.into_iter())
        .expect("a name that was read is no longer than one may be")
}

fn u16_at(octets: &[u8], at: usize, limit: usize) -> Option<u16> {
    let two = octets[..limit].get(at..at + 2)?;
    Some(u16::from_be_bytes([two[0], two[1]]))
}

fn u32_at(octets: &[u8], at: usize, limit: usize) -> Option<u32> {
    let four = octets[..limit].get(at..at + 4)?;
    Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

/// One input of the fuzzer: a kind and a message.
pub fn fuzz(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else {
        return;
    };
    let kind = [Kind::A, Kind::Aaaa, Kind::Ptr, Kind::Mx, Kind::Txt][usize::from(kind % 5)];
    let name = Name::parse(b"a.example").expect("a name");
    let question = Question { name, kind };
    if message.len() >= query::HEADER {
        agree(message, &question);
    }
    resolve(&question, message);
}

/// A resolver that has asked and gets the message, as a datagram and on a connection, believes it only if it may.
fn resolve(question: &Question, message: &[u8]) {
    let mut stub = resolver();
    assert_eq!(stub.ask(question, (), Moment::ZERO), None);
    let (mut asked, mut is_answered) = (None, false);
    while let Some(act) = stub.poll() {
        if let Act::Send { port, message } = act {
            asked = Some((port, u16::from_be_bytes([message[0], message[1]])));
        }
    }
    let (port, id) = asked.expect("a question is sent at once");
    stub.datagram(port, message, Moment::ZERO);
    while let Some(act) = stub.poll() {
        is_answered |= matches!(act, Act::Answered { .. });
        if let Act::Connect { stream, .. } = act {
            stub.connected(stream);
            let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
            stub.bytes(stream, &len.to_be_bytes(), Moment::ZERO);
            stub.bytes(stream, message, Moment::ZERO);
        }
    }
    // A bare refusal ends a question too, but only the second, and no second message has come.
    assert!(!is_answered || may_be_believed(message, id, question, 0));
    // Whatever it was, the question ends in time, and once.
    let mut ends = usize::from(is_answered);
    while stub.deadline() <= Moment::ZERO + Duration::from_secs(5) {
        let now = stub.deadline();
        stub.timeout(now);
        while let Some(act) = stub.poll() {
            ends += usize::from(matches!(act, Act::Answered { .. }));
        }
    }
    assert_eq!((ends, stub.open()), (1, 0));
}

/// Its ids are all 0x0101, which a fuzzer guesses soon, and its letters lower case.
fn resolver() -> Stub<()> {
    let config = Config {
        servers: vec![(Ipv4Addr::LOCALHOST, 53).into()],
        mix_case: false,
        ..Config::default()
    };
    Stub::new(config, Box::new(|| 0x0101_0101_0101_0101))
}
