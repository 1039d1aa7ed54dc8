//! Replies: reading those of an upstream, carrying them to the client, and writing weir's own.
//!
//! A reply is read strictly: what an upstream says goes to a client verbatim, and a half-understood reply would shift every later one by a
//! place. So: three digits 200 to 599, the same on each line; "-" or a blank or the end of the line; CRLF; no NUL, no bare CR, no bare LF;
//! within the limits. Anything else is a [`ReplyFault`] and the connection is of no further use.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use memchr::{memchr, memchr2};

use crate::limits::{REPLY_BYTES_MAX, REPLY_LINE_MAX, REPLY_LINES_MAX};

/// One whole reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reply<'a> {
    pub code: u16,
    /// All lines with their CRLF, verbatim.
    pub text: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The first digit.
    pub fn class(&self) -> u8 {
        (self.code / 100) as u8
    }

    pub fn is_positive(&self) -> bool {
        self.class() == 2
    }

    /// 3xx: 354 after DATA.
    pub fn is_intermediate(&self) -> bool {
        self.class() == 3
    }

    pub fn is_transient(&self) -> bool {
        self.class() == 4
    }

    pub fn is_permanent(&self) -> bool {
        self.class() == 5
    }

    /// The text of the first line, without code and CRLF.
    pub fn first_line(&self) -> &'a [u8] {
        let line = lines(self.text).next().unwrap_or_default();
        text_of(line)
    }

    /// The enhanced status code of the first line (RFC 3463), whatever its class.
    pub fn enhanced(&self) -> Option<(u8, u16, u16)> {
        parse_enhanced(self.first_line())
    }
}

/// What is wrong with an upstream's reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReplyFault {
    /// A line without a reply code.
    NoCode,
    /// Lines of one reply with different codes.
    CodeChanged,
    LineTooLong,
    TooManyLines,
    TooLong,
    /// LF without CR, CR without LF, or NUL.
    BadByte,
}

impl ReplyFault {
    /// For logs.
    pub fn word(self) -> &'static str {
        match self {
            ReplyFault::NoCode => "no_code",
            ReplyFault::CodeChanged => "code_changed",
            ReplyFault::LineTooLong => "line_too_long",
            ReplyFault::TooManyLines => "too_many_lines",
            ReplyFault::TooLong => "too_long",
            ReplyFault::BadByte => "bad_byte",
        }
    }
}

/// Cuts a stream into replies. A reply that lies whole in the input is borrowed from there; only one that comes in pieces is collected.
#[derive(Debug, Default)]
pub struct ReplyReader {
    carry: Vec<u8>,
    /// The carry was handed out and is to be emptied.
    spent: bool,
    lines: Lines,
}

/// The lines of the current reply so far.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    /// 0 before the first line.
    code: u16,
    count: usize,
    octets: usize,
}

impl ReplyReader {
    pub const fn new() -> ReplyReader {
        ReplyReader {
            carry: Vec::new(),
            spent: false,
            lines: Lines {
                code: 0,
                count: 0,
                octets: 0,
            },
        }
    }

    /// The next reply, taken off `input`. None: more input is needed, and all of `input` was taken. After a fault the reader is of no use.
    pub fn next<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Reply<'r>>, ReplyFault> {
        if self.spent {
            self.carry.clear();
            self.carry.shrink_to(CARRY_KEPT);
            self.spent = false;
        }
        if self.carry.is_empty() {
            return self.borrow(input);
        }
        match self.collect(input)? {
            None => Ok(None),
            Some(code) => {
                self.spent = true;
                Ok(Some(Reply {
                    code,
                    text: &self.carry,
                }))
            }
        }
    }

    /// Whether nothing of a reply is buffered: an idle connection must be so.
    pub fn is_empty(&self) -> bool {
        self.spent || self.carry.is_empty()
    }

    /// The usual case: the reply begins in `input`, and mostly ends there.
    fn borrow<'i>(&mut self, input: &mut &'i [u8]) -> Result<Option<Reply<'i>>, ReplyFault> {
        let bytes = *input;
        let mut at = 0;
        while let Some(lf) = memchr(b'\n', &bytes[at..]) {
            let line = &bytes[at..at + lf + 1];
            at += line.len();
            if let Some(code) = self.lines.add(line)? {
                *input = &bytes[at..];
                return Ok(Some(Reply {
                    code,
                    text: &bytes[..at],
                }));
            }
        }
        check_line_length(bytes.len() - at)?;
        self.carry.extend_from_slice(bytes);
        *input = &[];
        Ok(None)
    }

    /// A reply that began in earlier input: line by line into the carry.
    fn collect(&mut self, input: &mut &[u8]) -> Result<Option<u16>, ReplyFault> {
        while let Some(lf) = memchr(b'\n', input) {
            let (head, rest) = input.split_at(lf + 1);
            *input = rest;
            check_line_length(self.carry.len() - self.lines.octets + head.len())?;
            self.carry.extend_from_slice(head);
            if let Some(code) = self.lines.add(&self.carry[self.lines.octets..])? {
                return Ok(Some(code));
            }
        }
        check_line_length(self.carry.len() - self.lines.octets + input.len())?;
        self.carry.extend_from_slice(input);
        *input = &[];
        Ok(None)
    }
}

/// What a reader keeps of its carry's memory between replies.
const CARRY_KEPT: usize = 512;

fn check_line_length(octets: usize) -> Result<(), ReplyFault> {
    if octets > REPLY_LINE_MAX {
        Err(ReplyFault::LineTooLong)
    } else {
        Ok(())
    }
}

impl Lines {
    /// Takes one whole line with its LF. Some(code): it was the last one, and the next reply may begin.
    fn add(&mut self, line: &[u8]) -> Result<Option<u16>, ReplyFault> {
        check_line_length(line.len())?;
        let (code, last) = parse_line(line)?;
        if self.count > 0 && self.code != code {
            return Err(ReplyFault::CodeChanged);
        }
        self.code = code;
        self.count += 1;
        self.octets += line.len();
        if self.count > REPLY_LINES_MAX {
            return Err(ReplyFault::TooManyLines);
        }
        if self.octets > REPLY_BYTES_MAX {
            return Err(ReplyFault::TooLong);
        }
        if last {
            *self = Lines::default();
        }
        Ok(last.then_some(code))
    }
}

/// The code of a line (with its LF), and whether it is the last of its reply.
fn parse_line(line: &[u8]) -> Result<(u16, bool), ReplyFault> {
    let text = line.strip_suffix(b"\r\n").ok_or(ReplyFault::BadByte)?;
    let (digits, rest) = text.split_first_chunk::<3>().ok_or(ReplyFault::NoCode)?;
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(digits[0], b'2'..=b'5') {
        return Err(ReplyFault::NoCode);
    }
    let code = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let last = match rest.first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return Err(ReplyFault::NoCode),
    };
    if memchr2(b'\r', 0, rest).is_some() {
        return Err(ReplyFault::BadByte);
    }
    Ok((code, last))
}

/// Appends `reply` for the client: verbatim, with "X.0.0" put in on each line that has no enhanced status code of the reply's class, since
/// weir announces ENHANCEDSTATUSCODES (RFC 2034, 4). Not for greetings and EHLO replies, which carry none.
pub fn carry(out: &mut Vec<u8>, reply: &Reply<'_>) {
    let class = reply.class();
    if !matches!(class, 2 | 4 | 5) {
        out.extend_from_slice(reply.text);
        return;
    }
    for line in lines(reply.text) {
        let text = text_of(line);
        if parse_enhanced(text).is_some_and(|code| code.0 == class) {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
            continue;
        }
        out.extend_from_slice(&line[..3]);
        out.push(line.get(3).copied().unwrap_or(b' '));
        out.extend_from_slice(&[b'0' + class, b'.', b'0', b'.', b'0']);
        if !text.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
}

/// The lines of a reply, without CRLF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = text.strip_suffix(b"\r\n").unwrap_or(text);
    text.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn text_of(line: &[u8]) -> &[u8] {
    line.get(4..).unwrap_or_default()
}

/// `class.subject.detail` at the start of `text`, followed by a blank or nothing (RFC 2034, 4).
fn parse_enhanced(text: &[u8]) -> Option<(u8, u16, u16)> {
    let (class @ (b'2' | b'4' | b'5'), rest) = text.split_first()? else {
        return None;
    };
    let (subject, rest) = part(rest)?;
    let (detail, rest) = part(rest)?;
    match rest.first() {
        None | Some(b' ' | b'\t') => Some((class - b'0', subject, detail)),
        Some(_) => None,
    }
}

/// A dot and one to three digits.
fn part(text: &[u8]) -> Option<(u16, &[u8])> {
    let digits = text.strip_prefix(b".")?;
    let len = digits
        .iter()
        .take(4)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if len == 0 || len > 3 {
        return None;
    }
    let number = digits[..len]
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some((number, &digits[len..]))
}

/// A reply of weir's own, with its CRLF: canned, or built for the occasion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplyText(Cow<'static, [u8]>);

impl ReplyText {
    pub const fn fixed(text: &'static str) -> ReplyText {
        let bytes = text.as_bytes();
        assert!(
            bytes.len() > 5 && bytes[0].is_ascii_digit(),
            "a reply begins with its code"
        );
        assert!(
            bytes[bytes.len() - 2] == b'\r' && bytes[bytes.len() - 1] == b'\n',
            "a reply ends with CRLF"
        );
        ReplyText(Cow::Borrowed(bytes))
    }

    /// Whole lines, each with the same code and its CRLF.
    pub fn built(text: Vec<u8>) -> ReplyText {
        debug_assert!(
            matches!(ReplyReader::new().next(&mut text.as_slice()), Ok(Some(reply)) if reply.text.len() == text.len()),
            "a built reply is exactly one reply"
        );
        ReplyText(Cow::Owned(text))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn code(&self) -> u16 {
        self.0[..3]
            .iter()
            .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
    }

    pub fn as_reply(&self) -> Reply<'_> {
        Reply {
            code: self.code(),
            text: &self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    type Read = Result<Vec<(u16, Vec<u8>)>, ReplyFault>;

    /// Reads all replies of a stream that arrives in the given parts.
    fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Read, bool) {
        let mut reader = ReplyReader::new();
        let mut replies = Vec::new();
        for mut part in parts {
            loop {
                match reader.next(&mut part) {
                    Ok(Some(reply)) => replies.push((reply.code, reply.text.to_vec())),
                    Ok(None) => break,
                    Err(fault) => return (Err(fault), false),
                }
            }
            assert!(part.is_empty());
        }
        (Ok(replies), reader.is_empty())
    }

    fn check(stream: &[u8], want: &Read, empty: bool) {
        let want = (want.clone(), empty);
        assert_eq!(read([stream]), want, "whole");
        assert_eq!(read(stream.chunks(1)), want, "bytewise");
        for at in 0..stream.len().min(300) {
            assert_eq!(read([&stream[..at], &stream[at..]]), want, "split at {at}");
        }
    }

    #[test]
    fn replies_are_cut_verbatim() {
        let first = b"250-mx.example\r\n250-PIPELINING\r\n250 DSN\r\n".to_vec();
        type Row<'a> = (&'a [u8], &'a [(u16, &'a [u8])]);
        let table: &[Row<'_>] = &[
            (b"", &[]),
            (b"220 hi\r\n", &[(220, b"220 hi\r\n")]),
            (b"250\r\n354 \r\n", &[(250, b"250\r\n"), (354, b"354 \r\n")]),
            (&first, &[(250, &first)]),
            (b"250-\r\n250\r\n", &[(250, b"250-\r\n250\r\n")]),
            (
                b"550 5.1.1 \xc3\xa4\r\n599 x\r\n200 y\r\n",
                &[
                    (550, b"550 5.1.1 \xc3\xa4\r\n"),
                    (599, b"599 x\r\n"),
                    (200, b"200 y\r\n"),
                ],
            ),
        ];
        for (stream, want) in table {
            let want = want
                .iter()
                .map(|(code, text)| (*code, text.to_vec()))
                .collect();
            check(stream, &Ok(want), true);
        }
    }

    #[test]
    fn half_a_reply_is_none_and_is_not_nothing() {
        for stream in [
            &b"2"[..],
            b"250",
            b"250 ok\r",
            b"250-a\r\n",
            b"250-a\r\n250",
        ] {
            check(stream, &Ok(Vec::new()), false);
        }
    }

    #[test]
    fn faults() {
        use ReplyFault::*;
        let long = [b"250 ", vec![b'x'; REPLY_LINE_MAX].as_slice(), b"\r\n"].concat();
        let many = b"250-x\r\n".repeat(REPLY_LINES_MAX + 1);
        let much = [b"250-", vec![b'x'; 1000].as_slice(), b"\r\n"]
            .concat()
            .repeat(17);
        let table: &[(&[u8], ReplyFault)] = &[
            (b"\r\n", NoCode),
            (b"25\r\n", NoCode),
            (b"hello\r\n", NoCode),
            (b"150 x\r\n", NoCode),
            (b"600 x\r\n", NoCode),
            (b"2500 x\r\n", NoCode),
            (b"250_x\r\n", NoCode),
            (b" 250 x\r\n", NoCode),
            (b"250-a\r\n251 b\r\n", CodeChanged),
            (b"250-a\r\nb\r\n", NoCode),
            (b"250 a\n", BadByte),
            (b"250 a\rb\r\n", BadByte),
            (b"250 a\r\r\n", BadByte),
            (b"250 a\0b\r\n", BadByte),
            (&long, LineTooLong),
            (&long[..REPLY_LINE_MAX + 1], LineTooLong),
            (&many, TooManyLines),
            (&much, TooLong),
        ];
        for (stream, fault) in table {
            check(stream, &Err(*fault), false);
        }
    }

    #[test]
    fn the_longest_legal_reply_passes() {
        let line = [b"250-", vec![b'x'; 122].as_slice(), b"\r\n"].concat();
        let mut stream = line.repeat(REPLY_LINES_MAX);
        assert_eq!(stream.len(), REPLY_BYTES_MAX);
        let last = stream.len() - line.len();
        stream[last + 3] = b' ';
        check(&stream, &Ok(vec![(250, stream.clone())]), true);
    }

    #[test]
    fn a_reader_gives_its_memory_back() {
        let stream = [&b"250-"[..], &[b'x'; 1500], b"\r\n250 y\r\n"].concat();
        let mut reader = ReplyReader::new();
        for mut part in [&stream[..1000], &stream[1000..], b"250 x\r\n"] {
            while reader.next(&mut part).expect("legal").is_some() {}
        }
        assert!(reader.carry.capacity() <= CARRY_KEPT && reader.is_empty());
    }

    #[test]
    fn enhanced_codes() {
        type Row<'a> = (&'a [u8], Option<(u8, u16, u16)>);
        let table: &[Row<'_>] = &[
            (b"250 2.1.5 Ok\r\n", Some((2, 1, 5))),
            (b"250 2.1.5\r\n", Some((2, 1, 5))),
            (b"550-5.7.509 no\r\n550 5.7.1 x\r\n", Some((5, 7, 509))),
            (b"250 4.1.5 odd\r\n", Some((4, 1, 5))),
            (b"250 3.1.5 odd\r\n", None),
            (b"250 2.1.5x\r\n", None),
            (b"250 2.1.\r\n", None),
            (b"250 2.1\r\n", None),
            (b"250 2.1000.1 x\r\n", None),
            (b"250 Ok\r\n", None),
            (b"250\r\n", None),
        ];
        for (text, want) in table {
            assert_eq!(Reply { code: 250, text }.enhanced(), *want, "{text:?}");
        }
    }

    #[test]
    fn carried_replies_have_an_enhanced_code_on_each_line() {
        let table: &[(&[u8], &[u8])] = &[
            (b"250 2.1.5 Ok\r\n", b"250 2.1.5 Ok\r\n"),
            (b"250 Ok\r\n", b"250 2.0.0 Ok\r\n"),
            (b"250\r\n", b"250 2.0.0\r\n"),
            (b"250 \r\n", b"250 2.0.0\r\n"),
            (
                b"450-4.7.1 a\r\n450 b\r\n",
                b"450-4.7.1 a\r\n450 4.0.0 b\r\n",
            ),
            (
                b"550-a\r\n550-\r\n550 5.1.1 b\r\n",
                b"550-5.0.0 a\r\n550-5.0.0\r\n550 5.1.1 b\r\n",
            ),
            (b"550 4.1.1 odd\r\n", b"550 5.0.0 4.1.1 odd\r\n"),
            (b"354 go\r\n", b"354 go\r\n"),
        ];
        for (text, want) in table {
            let mut input = *text;
            let mut reader = ReplyReader::new();
            let reply = reader.next(&mut input).expect("legal").expect("whole");
            let mut out = Vec::new();
            carry(&mut out, &reply);
            assert_eq!(out, *want);
        }
    }

    #[test]
    fn classes() {
        let reply = |code| Reply { code, text: b"" };
        assert!(reply(250).is_positive() && reply(354).is_intermediate());
        assert!(reply(421).is_transient() && reply(554).is_permanent());
        let text = ReplyText::built(b"451-4.3.0 a\r\n451 4.3.0 b\r\n".to_vec());
        assert_eq!(
            (text.code(), text.as_reply().first_line()),
            (451, &b"4.3.0 a"[..])
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn cuts_do_not_matter(
            tokens in prop::collection::vec(prop::sample::select(vec!["250", "550", "-", " ", "x", "\r\n", "\r\n", "\n", "\r", "\0", "2.1.5"]), 0..24),
            at in any::<prop::sample::Index>(),
        ) {
            let stream = tokens.concat().into_bytes();
            let at = at.index(stream.len() + 1);
            let whole = read([&stream[..]]);
            prop_assert_eq!(&read([&stream[..at], &stream[at..]]), &whole);
            prop_assert_eq!(&read(stream.chunks(1)), &whole);
        }

        #[test]
        fn what_is_carried_is_one_reply_of_the_same_code(tail in prop::collection::vec("[ -~]{0,20}", 1..5)) {
            let last = tail.len() - 1;
            let text: Vec<u8> = tail.iter().enumerate().flat_map(|(i, line)| {
                [&b"451"[..], if i == last { b" " } else { b"-" }, line.as_bytes(), b"\r\n"].concat()
            }).collect();
            let mut out = Vec::new();
            carry(&mut out, &Reply { code: 451, text: &text });
            let (read, empty) = read([&out[..]]);
            prop_assert!(empty);
            prop_assert_eq!(read, Ok(vec![(451, out)]));
        }
    }
}
