//! What of an upstream's EHLO reply a client is shown: the lines that stay true behind weir.
//!
//! A keyword weir does not know may bring commands or parameters that weir would refuse, so it is left out; XCLIENT and
//! XFORWARD are for proxies and none of the client's business; ETRN, TURN and ATRN turn the direction of the connection.
//! AUTH passes untouched. The greeting line passes too: it is the upstream that talks.

use alloc::vec::Vec;

use crate::decimal;
use crate::extension::{ExtensionSet, OwnLimits, push_number, stricter};
use crate::xclient::XCLIENT_UNDERSTOOD;

/// Whether STARTTLS stands in the reply.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Shown {
    Never,
    AsOffered,
    Always,
}

/// What is shown by more than the upstream's word.
#[derive(Copy, Clone, Debug)]
pub(super) struct Shows {
    pub(super) starttls: Shown,
    /// Both legs are inside TLS, and the upstream has proven its name.
    pub(super) requiretls: bool,
    /// The peer is trusted to introduce clients to weir.
    pub(super) xclient: bool,
}

/// How a keyword's line is shown.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Line {
    AsItIs,
    Size,
    Limits,
    StartTls,
    RequireTls,
    Binary,
}

const KEYWORDS: [(&str, ExtensionSet, Line); 16] = [
    ("PIPELINING", ExtensionSet::PIPELINING, Line::AsItIs),
    ("SIZE", ExtensionSet::SIZE, Line::Size),
    ("STARTTLS", ExtensionSet::STARTTLS, Line::StartTls),
    ("AUTH", ExtensionSet::AUTH, Line::AsItIs),
    ("AUTH=", ExtensionSet::AUTH, Line::AsItIs),
    (
        "ENHANCEDSTATUSCODES",
        ExtensionSet::ENHANCEDSTATUSCODES,
        Line::AsItIs,
    ),
    ("8BITMIME", ExtensionSet::EIGHTBITMIME, Line::AsItIs),
    ("DSN", ExtensionSet::DSN, Line::AsItIs),
    ("SMTPUTF8", ExtensionSet::SMTPUTF8, Line::AsItIs),
    ("CHUNKING", ExtensionSet::CHUNKING, Line::AsItIs),
    ("BINARYMIME", ExtensionSet::BINARYMIME, Line::Binary),
    ("LIMITS", ExtensionSet::LIMITS, Line::Limits),
    ("REQUIRETLS", ExtensionSet::REQUIRETLS, Line::RequireTls),
    ("VRFY", ExtensionSet::NONE, Line::AsItIs),
    ("EXPN", ExtensionSet::NONE, Line::AsItIs),
    ("HELP", ExtensionSet::NONE, Line::AsItIs),
];

/// Writes what the client is shown of the positive EHLO reply `text`; returns what it was offered by that.
pub(super) fn filter(
    out: &mut Vec<u8>,
    text: &[u8],
    own: &OwnLimits,
    shows: &Shows,
) -> ExtensionSet {
    let mut offered = ExtensionSet::NONE;
    let mut last = out.len();
    let chunking = lines(text).any(|line| keyword(line).eq_ignore_ascii_case(b"CHUNKING"));
    for (index, line) in lines(text).enumerate() {
        let row = row(line);
        let shown = match row {
            _ if index == 0 => true,
            None => false,
            Some((_, _, Line::StartTls)) => shows.starttls == Shown::AsOffered,
            Some((_, _, Line::RequireTls)) => shows.requiretls,
            Some((_, _, Line::Binary)) => chunking,
            Some(_) => true,
        };
        if !shown {
            continue;
        }
        last = out.len();
        out.extend_from_slice(b"250-");
        match row.filter(|_| index > 0) {
            Some((_, _, Line::Size)) => size(out, line, own),
            Some((_, _, Line::Limits)) => limits(out, line, own),
            _ => out.extend_from_slice(line),
        }
        out.extend_from_slice(b"\r\n");
        if let Some((_, extension, _)) = row.filter(|_| index > 0) {
            offered.insert(extension);
        }
    }
    if shows.starttls == Shown::Always {
        last = out.len();
        out.extend_from_slice(b"250-STARTTLS\r\n");
        offered.insert(ExtensionSet::STARTTLS);
    }
    if shows.xclient {
        last = out.len();
        out.extend_from_slice(b"250-XCLIENT ");
        out.extend_from_slice(XCLIENT_UNDERSTOOD.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out[last + 3] = b' ';
    offered
}

/// The lines of a reply without code and CRLF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r\n").unwrap_or(line))
        .map(|line| line.get(4..).unwrap_or_default())
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|&byte| byte == b' ' || byte == b'\t')
        .filter(|word| !word.is_empty())
}

fn keyword(line: &[u8]) -> &[u8] {
    words(line).next().unwrap_or_default()
}

fn row(line: &[u8]) -> Option<(&'static str, ExtensionSet, Line)> {
    let word = keyword(line);
    // old servers write "AUTH=LOGIN"
    let word = match memchr::memchr(b'=', word) {
        Some(at) => &word[..=at],
        None => word,
    };
    KEYWORDS
        .into_iter()
        .find(|row| word.eq_ignore_ascii_case(row.0.as_bytes()))
}

fn size(out: &mut Vec<u8>, line: &[u8], own: &OwnLimits) {
    let theirs = words(line).nth(1).and_then(decimal::read).unwrap_or(0);
    let limit = stricter(theirs, own.message_size_max);
    if limit == theirs {
        return out.extend_from_slice(line);
    }
    out.extend_from_slice(b"SIZE");
    push_number(out, b" ", limit);
}

fn limits(out: &mut Vec<u8>, line: &[u8], own: &OwnLimits) {
    out.extend_from_slice(b"LIMITS");
    for word in words(line).skip(1) {
        let own = match memchr::memchr(b'=', word).map(|at| &word[..at]) {
            Some(name) if name.eq_ignore_ascii_case(b"RCPTMAX") => own.recipients_max,
            Some(name) if name.eq_ignore_ascii_case(b"MAILMAX") => own.messages_max,
            _ => 0,
        };
        let value = word.get(8..).and_then(decimal::read).unwrap_or(0);
        if own != 0 && stricter(value, own.into()) != value {
            out.push(b' ');
            out.extend_from_slice(&word[..7]);
            push_number(out, b"=", own.into());
        } else {
            out.push(b' ');
            out.extend_from_slice(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    const OWN: OwnLimits = OwnLimits {
        message_size_max: 1000,
        recipients_max: 50,
        messages_max: 0,
    };

    fn shown(text: &str, starttls: Shown) -> (String, ExtensionSet) {
        let mut out = Vec::new();
        let shows = Shows {
            starttls,
            requiretls: starttls == Shown::Never,
            xclient: false,
        };
        let set = filter(&mut out, text.as_bytes(), &OWN, &shows);
        (String::from_utf8(out).unwrap(), set)
    }

    #[test]
    fn lines_that_stay_true_behind_weir_pass() {
        let table = [
            ("250 mx\r\n", "250 mx\r\n"),
            (
                "250-mx at your service\r\n250 PIPELINING\r\n",
                "250-mx at your service\r\n250 PIPELINING\r\n",
            ),
            (
                "250-mx\r\n250-pipelining\r\n250 XCLIENT NAME ADDR\r\n",
                "250-mx\r\n250 pipelining\r\n",
            ),
            (
                "250-mx\r\n250-XFORWARD NAME\r\n250-ETRN\r\n250-X-EXPS GSSAPI\r\n250 XEXCH50\r\n",
                "250 mx\r\n",
            ),
            (
                "250-mx\r\n250-AUTH PLAIN  LOGIN\r\n250 AUTH=LOGIN\r\n",
                "250-mx\r\n250-AUTH PLAIN  LOGIN\r\n250 AUTH=LOGIN\r\n",
            ),
            (
                "250-mx\r\n250-SIZE 999\r\n250 SIZE 20000\r\n",
                "250-mx\r\n250-SIZE 999\r\n250 SIZE 1000\r\n",
            ),
            (
                "250-mx\r\n250-SIZE\r\n250 SIZE 0\r\n",
                "250-mx\r\n250-SIZE 1000\r\n250 SIZE 1000\r\n",
            ),
            ("250-mx\r\n250 BINARYMIME\r\n", "250 mx\r\n"),
            (
                "250-mx\r\n250-BINARYMIME\r\n250 CHUNKING\r\n",
                "250-mx\r\n250-BINARYMIME\r\n250 CHUNKING\r\n",
            ),
            (
                "250-mx\r\n250 LIMITS RCPTMAX=100 MAILMAX=7 X=1\r\n",
                "250-mx\r\n250 LIMITS RCPTMAX=50 MAILMAX=7 X=1\r\n",
            ),
            ("250-mx\r\n250 MT-PRIORITY\r\n", "250 mx\r\n"),
            ("250-\r\n250 \r\n", "250 \r\n"),
        ];
        for (text, want) in table {
            assert_eq!(shown(text, Shown::Never).0, want);
        }
    }

    #[test]
    fn starttls_is_shown_as_the_session_serves_it() {
        let with = "250-mx\r\n250-STARTTLS\r\n250 DSN\r\n";
        let without = "250-mx\r\n250 DSN\r\n";
        assert_eq!(shown(with, Shown::Never).0, without);
        assert_eq!(shown(with, Shown::AsOffered).0, with);
        assert_eq!(shown(without, Shown::AsOffered).0, without);
        let tls = "250-mx\r\n250 REQUIRETLS\r\n";
        assert_eq!(shown(tls, Shown::Never).0, tls);
        assert_eq!(shown(tls, Shown::AsOffered).0, "250 mx\r\n");
        for text in [with, without] {
            let (text, set) = shown(text, Shown::Always);
            assert_eq!(text, "250-mx\r\n250-DSN\r\n250 STARTTLS\r\n");
            assert_eq!(set.to_string(), "STARTTLS DSN");
        }
    }
}
