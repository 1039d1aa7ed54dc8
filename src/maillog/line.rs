//! One log line, as text (`key=value`) or JSON, with whatever a peer sent escaped and cut.
//!
//! Escaping is the same in both forms: valid UTF-8 stays, but control characters, bytes that are no UTF-8 and the backslash
//! become `\xNN` or `\\`. Then the form's own quoting goes around it. So no peer byte can end a line, forge a field or move a
//! terminal's cursor, and an internationalised address stays readable.

use super::TlsWords;
use std::{
    io::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// A field of [`super::LogBuffer::event`].
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// A fixed word of ours: letters, digits, `_`, `-`, `.`.
    Word(&'static str),
    /// Anything else; is escaped.
    Bytes(&'a [u8]),
    Number(u64),
    Address(SocketAddr),
    Seconds(Duration),
}

/// Longest field, in bytes before escaping: holds any legal address (320) and reply line (512).
pub const FIELD_MAX: usize = 512;

pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl<'a> Line<'a> {
    /// `wall`: microseconds since 1970. `event` is a fixed word.
    pub fn begin(
        out: &'a mut Vec<u8>,
        format: Format,
        wall: u64,
        event: &str,
        shard: Option<usize>,
    ) -> Self {
        match format {
            Format::Text => {
                push_time(out, wall);
                out.push(b' ');
                out.extend_from_slice(event.as_bytes());
            }
            Format::Json => {
                out.extend_from_slice(b"{\"time\":\"");
                push_time(out, wall);
                out.extend_from_slice(b"\",\"event\":\"");
                out.extend_from_slice(event.as_bytes());
                out.push(b'"');
            }
        }
        let mut line = Self { out, format };
        if let Some(shard) = shard {
            line.number("shard", shard as u64);
        }
        line
    }

    pub fn end(self) {
        if self.format == Format::Json {
            self.out.push(b'}');
        }
        self.out.push(b'\n');
    }

    pub fn value(&mut self, key: &str, value: &Value<'_>) {
        match *value {
            Value::Word(word) => self.word(key, word),
            Value::Bytes(bytes) => self.bytes(key, bytes),
            Value::Number(n) => self.number(key, n),
            Value::Address(address) => self.address(key, address),
            Value::Seconds(seconds) => self.seconds(key, seconds),
        }
    }

    pub fn session(&mut self, session: u64) {
        self.key("session");
        self.json_quote();
        push_number(self.out, session, 16);
        self.json_quote();
    }

    pub fn word(&mut self, key: &str, word: &str) {
        self.key(key);
        self.json_quote();
        self.out.extend_from_slice(word.as_bytes());
        self.json_quote();
    }

    pub fn word_if(&mut self, key: &str, word: &str) {
        if !word.is_empty() {
            self.word(key, word);
        }
    }

    pub fn tls(&mut self, tls: Option<TlsWords>) {
        if let Some(tls) = tls {
            self.word("tls", tls.version);
            self.word("suite", tls.suite);
            self.word_if("resumed", if tls.resumed { "yes" } else { "" });
            self.word_if("certificate", tls.certificate);
        }
    }

    pub fn number(&mut self, key: &str, n: u64) {
        self.key(key);
        push_number(self.out, n, 10);
    }

    pub fn number_if(&mut self, key: &str, n: u64) {
        if n > 0 {
            self.number(key, n);
        }
    }

    /// A number that may be below zero; nothing for zero.
    pub fn signed_if(&mut self, key: &str, n: i64) {
        if n != 0 {
            self.signed(key, n);
        }
    }

    pub fn signed(&mut self, key: &str, n: i64) {
        self.key(key);
        if n < 0 {
            self.out.push(b'-');
        }
        push_number(self.out, n.unsigned_abs(), 10);
    }

    /// `[address]:port`, IPv4 as well: one form to grep for.
    pub fn address(&mut self, key: &str, address: SocketAddr) {
        self.key(key);
        self.json_quote();
        self.out.push(b'[');
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                for (number, octet) in ip.octets().into_iter().enumerate() {
                    if number > 0 {
                        self.out.push(b'.');
                    }
                    push_number(self.out, octet.into(), 10);
                }
            }
            IpAddr::V6(ip) => write!(self.out, "{ip}").expect("writing to a vector cannot fail"),
        }
        self.out.extend_from_slice(b"]:");
        push_number(self.out, address.port().into(), 10);
        self.json_quote();
    }

    /// In seconds with milliseconds.
    pub fn seconds(&mut self, key: &str, duration: Duration) {
        self.key(key);
        push_number(self.out, duration.as_secs(), 10);
        self.out.push(b'.');
        push_padded::<3>(self.out, duration.subsec_millis().into());
    }

    pub fn seconds_if(&mut self, key: &str, duration: Duration) {
        if !duration.is_zero() {
            self.seconds(key, duration);
        }
    }

    /// Bytes that we did not write ourselves.
    pub fn bytes(&mut self, key: &str, bytes: &[u8]) {
        self.key(key);
        self.quoted(bytes);
    }

    pub fn bytes_if(&mut self, key: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(key, bytes);
        }
    }

    pub fn list<'b>(&mut self, key: &str, items: impl Iterator<Item = &'b [u8]>) {
        self.key(key);
        self.out.push(b'[');
        for (i, item) in items.enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.quoted(item);
        }
        self.out.push(b']');
    }

    /// Fixed words, as in `findings=dnsbl,no-reverse`.
    pub fn words(&mut self, key: &str, words: impl Iterator<Item = &'static str>) {
        if self.format == Format::Json {
            return self.list(key, words.map(str::as_bytes));
        }
        self.key(key);
        for (number, word) in words.enumerate() {
            if number > 0 {
                self.out.push(b',');
            }
            self.out.extend_from_slice(word.as_bytes());
        }
    }

    fn key(&mut self, key: &str) {
        let (before, after): (&[u8], &[u8]) = match self.format {
            Format::Text => (b" ", b"="),
            Format::Json => (b",\"", b"\":"),
        };
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(after);
    }

    fn quoted(&mut self, bytes: &[u8]) {
        self.out.push(b'"');
        push_escaped(self.out, bytes, self.format);
        self.out.push(b'"');
    }

    /// A quote where JSON has one and text has none.
    fn json_quote(&mut self) {
        if self.format == Format::Json {
            self.out.push(b'"');
        }
    }
}

/// A number without the formatting machinery: a transaction's line has a dozen of them.
fn push_number(out: &mut Vec<u8>, mut n: u64, base: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(n % base) as usize];
        n /= base;
        if n == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

/// The last `WIDTH` decimal digits, zeros included.
fn push_padded<const WIDTH: usize>(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [b'0'; WIDTH];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
    out.extend_from_slice(&digits);
}

fn push_escaped(out: &mut Vec<u8>, bytes: &[u8], format: Format) {
    let cut = cut_at(bytes);
    // Nearly always there is nothing to escape.
    let plain = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if cut == bytes.len() && bytes.iter().all(plain) {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes[..cut].utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => push_backslash(out, format, b"\\", true),
                ' '..='~' => out.push(c as u8),
                c if c.is_control() || is_invisible(c) => {
                    let mut utf8 = [0; 4];
                    c.encode_utf8(&mut utf8)
                        .bytes()
                        .for_each(|byte| push_hex(out, format, byte));
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| push_hex(out, format, *byte));
    }
    if cut < bytes.len() {
        out.extend_from_slice(b"...");
    }
}

/// Never in the middle of a character.
fn cut_at(bytes: &[u8]) -> usize {
    if bytes.len() <= FIELD_MAX {
        return bytes.len();
    }
    let is_continuation = |at: &usize| bytes[*at] & 0xC0 == 0x80;
    let mut candidates = (FIELD_MAX - 3..=FIELD_MAX).rev();
    candidates
        .find(|at| !is_continuation(at))
        .unwrap_or(FIELD_MAX)
}

/// Line and paragraph separators, and what turns the direction of text: they forge what a reader sees.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

fn push_hex(out: &mut Vec<u8>, format: Format, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let word = [
        b'x',
        HEX[usize::from(byte >> 4)],
        HEX[usize::from(byte & 15)],
    ];
    push_backslash(out, format, &word, false);
}

/// A backslash of our escaping (two for a literal one), doubled once more by JSON's own quoting.
fn push_backslash(out: &mut Vec<u8>, format: Format, rest: &[u8], literal: bool) {
    out.push(b'\\');
    if format == Format::Json {
        out.push(b'\\');
        if literal {
            out.push(b'\\');
        }
    }
    out.extend_from_slice(rest);
}

/// `2026-11-22T02:50:19.123Z`
fn push_time(out: &mut Vec<u8>, wall: u64) {
    let (days, second) = (wall / 86_400_000_000, wall / 1_000_000 % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second, milli) = (
        second / 3600,
        second / 60 % 60,
        second % 60,
        wall / 1000 % 1000,
    );
    push_padded::<4>(out, year);
    out.push(b'-');
    push_padded::<2>(out, month);
    out.push(b'-');
    push_padded::<2>(out, day);
    out.push(b'T');
    push_padded::<2>(out, hour);
    out.push(b':');
    push_padded::<2>(out, minute);
    out.push(b':');
    push_padded::<2>(out, second);
    out.push(b'.');
    push_padded::<3>(out, milli);
    out.push(b'Z');
}

/// Days since 1970-01-01 to a date, counted in eras of 400 years that begin on the first of March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_utc_with_milliseconds() {
        for (wall, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000Z"),
            (1_795_312_219_123_000, "2026-11-22T01:50:19.123Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut out = Vec::new();
            push_time(&mut out, wall);
            assert_eq!(String::from_utf8_lossy(&out), want, "{wall}");
        }
    }

    #[test]
    fn peer_bytes_cannot_leave_their_field() {
        for (input, text, json) in [
            (&b"mx.example"[..], "mx.example", "mx.example"),
            (
                b"a\r\nforged=1",
                "a\\x0d\\x0aforged=1",
                "a\\\\x0d\\\\x0aforged=1",
            ),
            (b"quote\" end", "quote\\\" end", "quote\\\" end"),
            (b"back\\slash", "back\\\\slash", "back\\\\\\\\slash"),
            (
                b"\x1b[2J\0\x7f",
                "\\x1b[2J\\x00\\x7f",
                "\\\\x1b[2J\\\\x00\\\\x7f",
            ),
            (
                "jürgen@exämple".as_bytes(),
                "jürgen@exämple",
                "jürgen@exämple",
            ),
            (b"\xff\xfe", "\\xff\\xfe", "\\\\xff\\\\xfe"),
            (
                "\u{202e}\u{2028}\u{85}".as_bytes(),
                "\\xe2\\x80\\xae\\xe2\\x80\\xa8\\xc2\\x85",
                "\\\\xe2\\\\x80\\\\xae\\\\xe2\\\\x80\\\\xa8\\\\xc2\\\\x85",
            ),
        ] {
            for (format, want) in [(Format::Text, text), (Format::Json, json)] {
                let mut out = Vec::new();
                push_escaped(&mut out, input, format);
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    want,
                    "{format:?} {input:?}"
                );
            }
        }
    }

    #[test]
    fn a_long_field_is_cut_between_characters() {
        let mut out = Vec::new();
        push_escaped(&mut out, &"ä".repeat(400).into_bytes(), Format::Text);
        assert_eq!(String::from_utf8(out).unwrap(), "ä".repeat(256) + "...");
        let mut out = Vec::new();
        push_escaped(
            &mut out,
            &[b"x".as_slice(), &"ä".repeat(400).into_bytes()].concat(),
            Format::Text,
        );
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "x".to_owned() + &"ä".repeat(255) + "..."
        );
    }

    #[test]
    fn any_bytes_give_valid_json_on_one_line() {
        use proptest::prelude::*;
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..600))| {
            let mut out = Vec::new();
            let mut line = Line::begin(&mut out, Format::Json, 0, "event", None);
            line.bytes("helo", &bytes);
            line.list("to", [bytes.as_slice(), b"b"].into_iter());
            line.end();
            prop_assert_eq!(memchr::memchr(b'\n', &out), Some(out.len() - 1));
            let parsed: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert!(parsed["helo"].is_string());
            prop_assert_eq!(parsed["to"].as_array().unwrap().len(), 2);
        });
    }
}
