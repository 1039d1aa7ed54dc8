//! ESMTP extensions: the set, what an EHLO reply says about it, what weir announces, and the EHLO reply it writes.
//! A new extension is a constant and a row of `KEYWORDS` here, and a row in `param` or `verb` if it brings a parameter or a verb.

use alloc::vec::Vec;
use core::fmt;

use crate::decimal;
use crate::xclient::{Attributes, XCLIENT_UNDERSTOOD};

/// A set of extensions, two bytes.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct ExtensionSet(u16);

impl ExtensionSet {
    pub const NONE: ExtensionSet = ExtensionSet(0);
    pub const PIPELINING: ExtensionSet = ExtensionSet(1 << 0);
    pub const SIZE: ExtensionSet = ExtensionSet(1 << 1);
    pub const EIGHTBITMIME: ExtensionSet = ExtensionSet(1 << 2);
    pub const SMTPUTF8: ExtensionSet = ExtensionSet(1 << 3);
    pub const DSN: ExtensionSet = ExtensionSet(1 << 4);
    pub const ENHANCEDSTATUSCODES: ExtensionSet = ExtensionSet(1 << 5);
    pub const CHUNKING: ExtensionSet = ExtensionSet(1 << 6);
    pub const BINARYMIME: ExtensionSet = ExtensionSet(1 << 7);
    pub const LIMITS: ExtensionSet = ExtensionSet(1 << 8);
    pub const STARTTLS: ExtensionSet = ExtensionSet(1 << 9);
    pub const AUTH: ExtensionSet = ExtensionSet(1 << 10);
    pub const XCLIENT: ExtensionSet = ExtensionSet(1 << 11);
    pub const XFORWARD: ExtensionSet = ExtensionSet(1 << 12);
    pub const REQUIRETLS: ExtensionSet = ExtensionSet(1 << 13);

    /// What weir offers on its own hop, whatever stands behind it.
    pub const OWN: ExtensionSet = Self::PIPELINING
        .union(Self::CHUNKING)
        .union(Self::ENHANCEDSTATUSCODES)
        .union(Self::SIZE);
    /// What is only true if every upstream does it.
    pub const SHARED: ExtensionSet = Self::EIGHTBITMIME
        .union(Self::SMTPUTF8)
        .union(Self::DSN)
        .union(Self::BINARYMIME)
        .union(Self::REQUIRETLS);

    pub const fn union(self, other: ExtensionSet) -> ExtensionSet {
        ExtensionSet(self.0 | other.0)
    }

    pub const fn intersect(self, other: ExtensionSet) -> ExtensionSet {
        ExtensionSet(self.0 & other.0)
    }

    pub const fn without(self, other: ExtensionSet) -> ExtensionSet {
        ExtensionSet(self.0 & !other.0)
    }

    /// Whether all of `other` is in here.
    pub const fn contains(self, other: ExtensionSet) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn insert(&mut self, other: ExtensionSet) {
        self.0 |= other.0;
    }

    pub fn remove(&mut self, other: ExtensionSet) {
        self.0 &= !other.0;
    }
}

/// Keywords in the order in which weir announces them.
const KEYWORDS: [(&str, ExtensionSet); 14] = [
    ("PIPELINING", ExtensionSet::PIPELINING),
    ("SIZE", ExtensionSet::SIZE),
    ("STARTTLS", ExtensionSet::STARTTLS),
    ("AUTH", ExtensionSet::AUTH),
    ("ENHANCEDSTATUSCODES", ExtensionSet::ENHANCEDSTATUSCODES),
    ("8BITMIME", ExtensionSet::EIGHTBITMIME),
    ("DSN", ExtensionSet::DSN),
    ("SMTPUTF8", ExtensionSet::SMTPUTF8),
    ("CHUNKING", ExtensionSet::CHUNKING),
    ("BINARYMIME", ExtensionSet::BINARYMIME),
    ("XCLIENT", ExtensionSet::XCLIENT),
    ("XFORWARD", ExtensionSet::XFORWARD),
    ("LIMITS", ExtensionSet::LIMITS),
    ("REQUIRETLS", ExtensionSet::REQUIRETLS),
];

/// The keywords, separated by blanks; "-" for none.
impl fmt::Display for ExtensionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut separator = "";
        for (keyword, _) in KEYWORDS.iter().filter(|row| self.contains(row.1)) {
            write!(f, "{separator}{keyword}")?;
            separator = " ";
        }
        Ok(())
    }
}

impl fmt::Debug for ExtensionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

/// What one side of a connection can do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Capabilities {
    pub set: ExtensionSet,
    /// Largest message; 0: none stated.
    pub size_max: u64,
    /// LIMITS RCPTMAX, recipients of a message; 0: none stated.
    pub rcpt_max: u32,
    /// LIMITS MAILMAX, messages of a connection; 0: none stated.
    pub mail_max: u32,
    /// What it understands of XCLIENT and of XFORWARD.
    pub xclient: Attributes,
    pub xforward: Attributes,
    /// It answered EHLO. A server that only knows HELO gets no parameters.
    pub esmtp: bool,
}

/// Reads a positive EHLO reply, verbatim with all its lines. Keywords weir does not know are passed over.
pub fn parse_ehlo_reply(text: &[u8]) -> Capabilities {
    let mut caps = Capabilities {
        esmtp: true,
        ..Capabilities::default()
    };
    // the first line is the server's name and a greeting
    for line in text.split(|&byte| byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(line) = line.get(4..) {
            caps.note(line);
        }
    }
    caps
}

impl Capabilities {
    /// One line of an EHLO reply, without its code: a keyword and its parameters.
    fn note(&mut self, line: &[u8]) {
        let mut words = line
            .split(|&byte| byte == b' ' || byte == b'\t')
            .filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        // old servers wrote "AUTH=LOGIN"
        let keyword = if keyword
            .get(..5)
            .is_some_and(|head| head.eq_ignore_ascii_case(b"AUTH="))
        {
            b"AUTH"
        } else {
            keyword
        };
        let Some(row) = KEYWORDS
            .iter()
            .find(|row| keyword.eq_ignore_ascii_case(row.0.as_bytes()))
        else {
            return;
        };
        self.set.insert(row.1);
        match row.1 {
            ExtensionSet::SIZE => self.size_max = words.next().and_then(decimal::read).unwrap_or(0),
            ExtensionSet::LIMITS => words.for_each(|word| self.note_limit(word)),
            ExtensionSet::XCLIENT => {
                words.for_each(|word| self.xclient.insert(Attributes::named(word)))
            }
            ExtensionSet::XFORWARD => {
                words.for_each(|word| self.xforward.insert(Attributes::named(word)))
            }
            _ => {}
        }
    }

    fn note_limit(&mut self, word: &[u8]) {
        let mut halves = word.splitn(2, |&byte| byte == b'=');
        let (Some(name), Some(value)) = (halves.next(), halves.next()) else {
            return;
        };
        let Some(value) =
            decimal::read(value).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
        else {
            return;
        };
        if name.eq_ignore_ascii_case(b"RCPTMAX") {
            self.rcpt_max = value;
        } else if name.eq_ignore_ascii_case(b"MAILMAX") {
            self.mail_max = value;
        }
    }
}

/// Weir's own limits; 0: none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OwnLimits {
    pub message_size_max: u64,
    pub recipients_max: u32,
    pub messages_max: u32,
}

/// What weir may promise to a client before it knows which of the `candidates` will get the message: its own hop's extensions, and of those
/// that change meaning further on only what every candidate does. No candidate known: none of these.
pub fn announce(own: &OwnLimits, candidates: impl Iterator<Item = Capabilities>) -> Capabilities {
    let mut shared: Option<ExtensionSet> = None;
    let (mut size_max, mut rcpt_max) = (own.message_size_max, own.recipients_max);
    for candidate in candidates {
        // BINARYMIME travels by BDAT only
        let offered = if candidate.set.contains(ExtensionSet::CHUNKING) {
            candidate.set
        } else {
            candidate.set.without(ExtensionSet::BINARYMIME)
        };
        shared = Some(shared.unwrap_or(ExtensionSet::SHARED).intersect(offered));
        size_max = stricter(size_max, candidate.size_max);
        rcpt_max = stricter(rcpt_max.into(), candidate.rcpt_max.into()) as u32;
    }
    let mut set = ExtensionSet::OWN.union(shared.unwrap_or_default());
    if rcpt_max != 0 || own.messages_max != 0 {
        set.insert(ExtensionSet::LIMITS);
    }
    Capabilities {
        set,
        size_max,
        rcpt_max,
        mail_max: own.messages_max,
        esmtp: true,
        ..Capabilities::default()
    }
}

/// The smaller of two limits, of which 0 is none.
pub(crate) fn stricter(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, limit) | (limit, 0) => limit,
        _ => one.min(other),
    }
}

/// Writes the EHLO reply of `hostname`.
pub fn write_ehlo(out: &mut Vec<u8>, hostname: &[u8], caps: &Capabilities) {
    let mut last = out.len();
    start_line(out, hostname);
    out.extend_from_slice(b"\r\n");
    for (keyword, _) in KEYWORDS.iter().filter(|row| caps.set.contains(row.1)) {
        last = out.len();
        start_line(out, keyword.as_bytes());
        match *keyword {
            "SIZE" if caps.size_max != 0 => push_number(out, b" ", caps.size_max),
            "LIMITS" => {
                if caps.rcpt_max != 0 {
                    push_number(out, b" RCPTMAX=", caps.rcpt_max.into());
                }
                if caps.mail_max != 0 {
                    push_number(out, b" MAILMAX=", caps.mail_max.into());
                }
            }
            "XCLIENT" => {
                out.push(b' ');
                out.extend_from_slice(XCLIENT_UNDERSTOOD.as_bytes());
            }
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
    }
    out[last + 3] = b' ';
}

fn start_line(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(b"250-");
    out.extend_from_slice(text);
}

pub(crate) fn push_number(out: &mut Vec<u8>, label: &[u8], number: u64) {
    out.extend_from_slice(label);
    decimal::push(out, number);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn ehlo(caps: &Capabilities) -> Vec<u8> {
        let mut out = Vec::new();
        write_ehlo(&mut out, b"mx.example", caps);
        out
    }

    fn upstream(set: ExtensionSet) -> Capabilities {
        Capabilities {
            set,
            esmtp: true,
            ..Capabilities::default()
        }
    }

    #[test]
    fn ehlo_reply_is_read() {
        let text = b"250-mx.example greets you, SIZE 5\r\n250-size 10240000\r\n250-PIPELINING\r\n250-8bitmime\r\n250-AUTH=LOGIN PLAIN\r\n\
            250-X-UNKNOWN 1\r\n250-\r\n250-LIMITS RCPTMAX=50 mailmax=7 RCPTDOMAINMAX=2 odd\r\n250 CHUNKING\r\n";
        let caps = parse_ehlo_reply(text);
        assert!(caps.esmtp);
        assert_eq!(
            caps.set.to_string(),
            "PIPELINING SIZE AUTH 8BITMIME CHUNKING LIMITS"
        );
        assert_eq!(
            (caps.size_max, caps.rcpt_max, caps.mail_max),
            (10_240_000, 50, 7)
        );
    }

    #[test]
    fn sizes_nobody_can_write_down_are_the_highest() {
        assert_eq!(
            parse_ehlo_reply(b"250-a\r\n250 SIZE 99999999999999999999999\r\n").size_max,
            u64::MAX
        );
        assert_eq!(parse_ehlo_reply(b"250-a\r\n250 SIZE big\r\n").size_max, 0);
        assert_eq!(parse_ehlo_reply(b"250-a\r\n250 SIZE\r\n").size_max, 0);
        assert_eq!(parse_ehlo_reply(b"250 a\r\n"), upstream(ExtensionSet::NONE));
    }

    #[test]
    fn nothing_shared_is_announced_before_an_upstream_is_known() {
        let caps = announce(&OwnLimits::default(), core::iter::empty());
        assert_eq!(caps.set, ExtensionSet::OWN);
        assert_eq!(ehlo(&caps), b"250-mx.example\r\n250-PIPELINING\r\n250-SIZE\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n");
    }

    #[test]
    fn shared_extensions_are_those_of_every_candidate() {
        let all = upstream(ExtensionSet::SHARED.union(ExtensionSet::CHUNKING));
        let own = OwnLimits {
            message_size_max: 1000,
            recipients_max: 0,
            messages_max: 100,
        };
        let alone = announce(&own, [all].into_iter());
        assert!(alone.set.contains(ExtensionSet::SHARED));
        let some = upstream(ExtensionSet::EIGHTBITMIME.union(ExtensionSet::BINARYMIME));
        let both = announce(&own, [all, some].into_iter());
        assert_eq!(
            both.set.intersect(ExtensionSet::SHARED),
            ExtensionSet::EIGHTBITMIME,
            "BINARYMIME without CHUNKING is none"
        );
        assert!(
            announce(&own, [all, upstream(ExtensionSet::NONE)].into_iter())
                .set
                .intersect(ExtensionSet::SHARED)
                .is_empty()
        );
    }

    #[test]
    fn the_stricter_limit_is_announced() {
        let own = OwnLimits {
            message_size_max: 1000,
            recipients_max: 0,
            messages_max: 100,
        };
        let small = Capabilities {
            size_max: 500,
            rcpt_max: 20,
            ..upstream(ExtensionSet::NONE)
        };
        let large = Capabilities {
            size_max: 5000,
            rcpt_max: 30,
            ..upstream(ExtensionSet::NONE)
        };
        let caps = announce(&own, [large, small].into_iter());
        assert_eq!(
            (caps.size_max, caps.rcpt_max, caps.mail_max),
            (500, 20, 100)
        );
        let text = ehlo(&caps);
        assert!(text.ends_with(b"250-CHUNKING\r\n250 LIMITS RCPTMAX=20 MAILMAX=100\r\n"));
        assert_eq!(parse_ehlo_reply(&text), caps, "weir understands itself");
        assert_eq!(announce(&own, [large].into_iter()).size_max, 1000);
    }

    #[test]
    fn a_host_without_extensions_answers_in_one_line() {
        assert_eq!(ehlo(&Capabilities::default()), b"250 mx.example\r\n");
    }

    #[test]
    fn a_set_shows_its_keywords() {
        assert_eq!(ExtensionSet::NONE.to_string(), "-");
        assert_eq!(
            ExtensionSet::DSN.union(ExtensionSet::SIZE).to_string(),
            "SIZE DSN"
        );
    }
}
