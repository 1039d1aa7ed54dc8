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
