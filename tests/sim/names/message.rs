//! DNS messages as octets: queries read, answers written (RFC 1035 4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER: usize = 12;

/// Response, recursion desired and available.
const ANSWERS: [u8; 2] = [0x81, 0x80];
const TRUNCATED: u8 = 0x02;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;

/// How long "there is no such thing" holds, in seconds.
const NEGATIVE_TTL: u32 = 60;

/// Types of records; others are known to have no data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    A,
    Ptr,
    Mx,
    Txt,
    Aaaa,
    Other(u16),
}

impl Kind {
    fn from_number(number: u16) -> Kind {
        match number {
            1 => Kind::A,
            12 => Kind::Ptr,
            15 => Kind::Mx,
            16 => Kind::Txt,
            28 => Kind::Aaaa,
            other => Kind::Other(other),
        }
    }
}

pub enum Data {
    Address(IpAddr),
    Ptr(String),
    Mx(u16, String),
    Txt(String),
}

pub struct Record {
    pub seconds: u32,
    pub data: Data,
}

/// What is known of a name.
pub enum Found {
    Records(Vec<Record>),
    /// The name exists, and has none of that type.
    NoData,
    NoName,
}

pub struct Query {
    id: [u8; 2],
    /// As it came, in whatever case.
    question: Vec<u8>,
    pub name: String,
    pub kind: Kind,
}

impl Query {
    pub fn parse(bytes: &[u8]) -> Option<Query> {
        let id = [*bytes.first()?, *bytes.get(1)?];
        let is_query = bytes.get(2)? & 0x80 == 0 && bytes.get(4..6)? == [0, 1];
        let mut at = HEADER;
        let mut name = String::new();
        loop {
            let len = usize::from(*bytes.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            let label = bytes.get(at..at + len).filter(|_| len < 64)?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
            at += len;
        }
        let kind = u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
        let question = bytes.get(HEADER..at + 4)?.to_vec();
        is_query.then_some(Query {
            id,
            question,
            name,
            kind: Kind::from_number(kind),
        })
    }

    /// Where the question ends in a message.
    pub fn end(&self) -> usize {
        HEADER + self.question.len()
    }

    pub fn answer(&self, found: &Found) -> Vec<u8> {
        match found {
            Found::Records(records) => {
                let mut message = self.head(0, 0, records.len() as u16);
                records.iter().for_each(|record| put(&mut message, record));
                message
            }
            Found::NoData => self.nothing(0),
            Found::NoName => self.nothing(NAME_ERROR),
        }
    }

    pub fn failure(&self) -> Vec<u8> {
        self.head(0, SERVER_FAILURE, 0)
    }

    pub fn truncated(&self) -> Vec<u8> {
        self.head(TRUNCATED, 0, 0)
    }

    fn head(&self, flags: u8, code: u8, answers: u16) -> Vec<u8> {
        let mut message = Vec::with_capacity(512);
        message.extend(self.id);
        message.extend([ANSWERS[0] | flags, ANSWERS[1] | code]);
        for count in [1, answers, 0, 0] {
            message.extend(count.to_be_bytes());
        }
        message.extend(&self.question);
        message
    }

    /// With the SOA record that says for how long (RFC 2308 5).
    fn nothing(&self, code: u8) -> Vec<u8> {
        let mut message = self.head(0, code, 0);
        message[9] = 1;
        let mut data = vec![0, 0];
        for number in [1, 3600, 600, 86_400, NEGATIVE_TTL] {
            data.extend(number.to_be_bytes());
        }
        message.push(0);
        put_rest(&mut message, 6, NEGATIVE_TTL, &data);
        message
    }
}

fn put(message: &mut Vec<u8>, record: &Record) {
    let (kind, data) = match &record.data {
        Data::Address(IpAddr::V4(four)) => (1, four.octets().to_vec()),
        Data::Address(IpAddr::V6(six)) => (28, six.octets().to_vec()),
        Data::Ptr(name) => (12, labels(name)),
        Data::Mx(preference, name) => (15, [&preference.to_be_bytes()[..], &labels(name)].concat()),
        Data::Txt(text) => (16, [&[text.len() as u8], text.as_bytes()].concat()),
    };
    // The name of the question.
    message.extend([0xc0, HEADER as u8]);
    put_rest(message, kind, record.seconds, &data);
}

fn put_rest(message: &mut Vec<u8>, kind: u16, seconds: u32, data: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(1_u16.to_be_bytes());
    message.extend(seconds.to_be_bytes());
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

fn labels(name: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        octets.push(label.len() as u8);
        octets.extend(label.as_bytes());
    }
    octets.push(0);
    octets
}

/// The address that a name under `zone` is about: octets or nibbles in reverse (RFC 5782 2.1, 2.4).
pub fn address_of(name: &str, zone: &str) -> Option<IpAddr> {
    let reversed = name.strip_suffix(zone)?.strip_suffix('.')?;
    let parts: Vec<&str> = reversed.rsplit('.').collect();
    match parts.len() {
        4 => {
            let four: Ipv4Addr = parts.join(".").parse().ok()?;
            Some(four.into())
        }
        32 => {
            let bits = u128::from_str_radix(&parts.concat(), 16).ok()?;
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[test]
fn queries_are_read_and_answered() {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(labels("2.0.0.127.Lists.TEST"));
    bytes.extend([0, 1, 0, 1]);
    let query = Query::parse(&bytes).expect("a query");
    assert_eq!(
        (&*query.name, query.kind),
        ("2.0.0.127.lists.test", Kind::A)
    );
    let record = Record {
        seconds: 300,
        data: Data::Address([127, 0, 0, 2].into()),
    };
    let answer = query.answer(&Found::Records(vec![record]));
    assert_eq!(
        answer[..12],
        [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]
    );
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 127, 0, 0, 2];
    assert_eq!(answer[12..], [&bytes[12..], &record].concat());
    assert_eq!(query.answer(&Found::NoName)[3], 0x83);
    assert!(Query::parse(&bytes[..bytes.len() - 1]).is_none());
    assert!(Query::parse(&answer).is_none(), "an answer is no query");
}

#[test]
fn names_of_addresses_are_read_backwards() {
    let six = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.zone.test";
    let cases = [
        ("4.3.2.1.zone.test", Some("1.2.3.4")),
        (six, Some("::ffff:7f00:2")),
        ("3.2.1.zone.test", None),
        ("4.3.2.1.other.test", None),
        ("4.3.2.1zone.test", None),
    ];
    for (name, want) in cases {
        let want = want.map(|want| want.parse().expect("an address"));
        assert_eq!(address_of(name, "zone.test"), want, "{name}");
    }
}
