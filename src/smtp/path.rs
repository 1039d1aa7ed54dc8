//! Reverse-path and forward-path: `<user@domain>`, `<>`, `<Postmaster>`, source routes, quoted local parts, address literals, UTF-8.
//! A path is spans of the command line and passes on verbatim; parsing it only decides whether it may.
//!
//! More is taken than RFC 5321 allows where senders do it and no server reads it two ways: dots in odd places of a local part, underscores
//! in domains, over-long local parts. Less where it would be a guess: the brackets must be there, an address without domain is only
//! Postmaster, an unquoted second "@" is refused.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::MAILBOX_MAX;

/// A parsed path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Path<'a> {
    /// Between the brackets, without source route.
    pub mailbox: &'a [u8],
    /// Before the "@", quotes included.
    pub local: &'a [u8],
    /// After the "@"; empty for `<>` and `<Postmaster>`.
    pub domain: &'a [u8],
    /// The null sender `<>`.
    pub null: bool,
    /// With the brackets.
    pub whole: &'a [u8],
}

impl Path<'_> {
    pub fn is_ascii(&self) -> bool {
        self.whole.is_ascii()
    }
}

/// The text is no path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAPath;

/// Reads a path from the start of `input`; returns it and what follows the closing bracket.
pub fn parse(input: &[u8]) -> Result<(Path<'_>, &[u8]), NotAPath> {
    let inner = input.strip_prefix(b"<").ok_or(NotAPath)?;
    if let Some(rest) = inner.strip_prefix(b">") {
        return Ok((
            Path {
                mailbox: b"",
                local: b"",
                domain: b"",
                null: true,
                whole: &input[..2],
            },
            rest,
        ));
    }
    let after_route = skip_source_route(inner)?;
    let local_len = local_part(after_route)?;
    let (local, after_local) = after_route.split_at(local_len);
    let (domain, after) = match after_local {
        [b'@', domain @ ..] => domain.split_at(domain_part(domain)?),
        _ if local.eq_ignore_ascii_case(b"postmaster") => (&b""[..], after_local),
        _ => return Err(NotAPath),
    };
    let rest = after.strip_prefix(b">").ok_or(NotAPath)?;
    let mailbox = &after_route[..after_route.len() - after.len()];
    let whole = &input[..input.len() - rest.len()];
    if mailbox.len() > MAILBOX_MAX || (!whole.is_ascii() && core::str::from_utf8(whole).is_err()) {
        return Err(NotAPath);
    }
    Ok((
        Path {
            mailbox,
            local,
            domain,
            null: false,
            whole,
        },
        rest,
    ))
}

/// `@a,@b:` before a mailbox (RFC 5321, 4.1.1.3: must be accepted, should be ignored).
fn skip_source_route(input: &[u8]) -> Result<&[u8], NotAPath> {
    let mut rest = input;
    while let Some(domain) = rest.strip_prefix(b"@") {
        let after = &domain[domain_part(domain)?..];
        match after {
            [b',', next @ ..] if next.first() == Some(&b'@') => rest = next,
            [b':', mailbox @ ..] if mailbox.first() != Some(&b'@') => return Ok(mailbox),
            _ => return Err(NotAPath),
        }
    }
    Ok(rest)
}

/// Length of the local part at the start of `input`.
fn local_part(input: &[u8]) -> Result<usize, NotAPath> {
    if input.first() == Some(&b'"') {
        return quoted_string(input);
    }
    span_of(input, LOCAL)
}

/// Length of a quoted string with its quotes.
fn quoted_string(input: &[u8]) -> Result<usize, NotAPath> {
    let mut at = 1;
    loop {
        match (input.get(at).ok_or(NotAPath)?, input.get(at + 1)) {
            (b'"', _) => return Ok(at + 1),
            (b'\\', Some(b' '..=b'~')) => at += 2,
            (b'\\', _) | (..b' ' | 0x7f, _) => return Err(NotAPath),
            _ => at += 1,
        }
    }
}

/// Length of the domain or address literal at the start of `input`.
fn domain_part(input: &[u8]) -> Result<usize, NotAPath> {
    if input.first() == Some(&b'[') {
        return address_literal(input);
    }
    let len = span_of(input, DOMAIN)?;
    let labels = input[..len].split(|&byte| byte == b'.');
    for label in labels {
        if label.is_empty() {
            return Err(NotAPath);
        }
    }
    Ok(len)
}

/// `[192.0.2.1]`, `[IPv6:2001:db8::1]`, `[tag:content]` (RFC 5321, 4.1.3).
fn address_literal(input: &[u8]) -> Result<usize, NotAPath> {
    let end = memchr::memchr(b']', input).ok_or(NotAPath)?;
    let text = core::str::from_utf8(&input[1..end]).map_err(|_| NotAPath)?;
    let legal = match text.split_once(':') {
        None => text.parse::<Ipv4Addr>().is_ok(),
        Some((tag, address)) if tag.eq_ignore_ascii_case("IPv6") => {
            address.parse::<Ipv6Addr>().is_ok()
        }
        Some((tag, content)) => {
            let tag_legal = !tag.is_empty()
                && tag
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            tag_legal
                && !content.is_empty()
                && content
                    .bytes()
                    .all(|byte| matches!(byte, b'!'..=b'Z' | b'^'..=b'~'))
        }
    };
    if legal { Ok(end + 1) } else { Err(NotAPath) }
}

/// Length of the longest start of `input` whose bytes are all of `class`; at least one.
fn span_of(input: &[u8], class: u8) -> Result<usize, NotAPath> {
    let len = input
        .iter()
        .position(|&byte| CLASSES[byte as usize] & class == 0)
        .unwrap_or(input.len());
    if len == 0 { Err(NotAPath) } else { Ok(len) }
}

const LOCAL: u8 = 1;
const DOMAIN: u8 = 2;

/// Which bytes may stand unquoted in a local part and in a domain. Bytes from 128 on are UTF-8, checked as a whole.
static CLASSES: [u8; 256] = {
    let mut classes = [0u8; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.') || b >= 0x80 {
            classes[byte] |= LOCAL | DOMAIN;
        }
        let atext = matches!(
            b,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'/'
                | b'='
                | b'?'
                | b'^'
                | b'`'
                | b'{'
                | b'|'
                | b'}'
                | b'~'
        );
        if atext {
            classes[byte] |= LOCAL;
        }
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn paths_and_their_parts() {
        let table = [
            ("<a@b.example>", "a@b.example", "a", "b.example"),
            (
                "<A.b+c=d%e!f@B.Example>",
                "A.b+c=d%e!f@B.Example",
                "A.b+c=d%e!f",
                "B.Example",
            ),
            (
                "<.odd..dots.@docomo.example>",
                ".odd..dots.@docomo.example",
                ".odd..dots.",
                "docomo.example",
            ),
            ("<a@host_name>", "a@host_name", "a", "host_name"),
            ("<postmaster>", "postmaster", "postmaster", ""),
            ("<PostMaster>", "PostMaster", "PostMaster", ""),
            (
                "<@hop.example:a@b.example>",
                "a@b.example",
                "a",
                "b.example",
            ),
            (
                "<@hop.example,@[192.0.2.1]:a@b.example>",
                "a@b.example",
                "a",
                "b.example",
            ),
            ("<@hop.example:postmaster>", "postmaster", "postmaster", ""),
            (
                "<\"a b\"@c.example>",
                "\"a b\"@c.example",
                "\"a b\"",
                "c.example",
            ),
            (
                "<\"a>b@c\\\"d\\\\\"@e.example>",
                "\"a>b@c\\\"d\\\\\"@e.example",
                "\"a>b@c\\\"d\\\\\"",
                "e.example",
            ),
            ("<\"\"@e.example>", "\"\"@e.example", "\"\"", "e.example"),
            ("<a@[192.0.2.1]>", "a@[192.0.2.1]", "a", "[192.0.2.1]"),
            (
                "<a@[IPv6:2001:db8::1]>",
                "a@[IPv6:2001:db8::1]",
                "a",
                "[IPv6:2001:db8::1]",
            ),
            (
                "<a@[ipv6:::ffff:192.0.2.1]>",
                "a@[ipv6:::ffff:192.0.2.1]",
                "a",
                "[ipv6:::ffff:192.0.2.1]",
            ),
            ("<a@[x25:31]>", "a@[x25:31]", "a", "[x25:31]"),
            (
                "<jürgen@straße.example>",
                "jürgen@straße.example",
                "jürgen",
                "straße.example",
            ),
            (
                "<\"ä ö\"@b.example>",
                "\"ä ö\"@b.example",
                "\"ä ö\"",
                "b.example",
            ),
        ];
        for (input, mailbox, local, domain) in table {
            let line = format!("{input} SIZE=1");
            let (path, rest) = parse(line.as_bytes()).expect(input);
            let text = |bytes| core::str::from_utf8(bytes).expect(input);
            assert_eq!(
                (text(path.mailbox), text(path.local), text(path.domain)),
                (mailbox, local, domain)
            );
            assert_eq!(
                (text(path.whole), rest, path.null),
                (input, &b" SIZE=1"[..], false)
            );
        }
    }

    #[test]
    fn the_null_sender() {
        let (path, rest) = parse(b"<> RET=HDRS").expect("legal");
        assert!(path.null && path.mailbox.is_empty() && path.domain.is_empty());
        assert_eq!((path.whole, rest), (&b"<>"[..], &b" RET=HDRS"[..]));
    }

    #[test]
    fn what_is_no_path() {
        let table: &[&[u8]] = &[
            b"",
            b"<",
            b">",
            b"a@b",
            b"<a@b",
            b"a@b>",
            b"< >",
            b"<a>",
            b"<a@>",
            b"<@b>",
            b"<@b:>",
            b"<@b,c:a@d>",
            b"<@b:@c:a@d>",
            b"<a@b@c>",
            b"<a b@c>",
            b"<a@b c>",
            b"<<a@b>>",
            b"<a@b.>",
            b"<a@.b>",
            b"<a@b..c>",
            b"<a@b,c>",
            b"<a,b@c>",
            b"<a:b@c>",
            b"<a;b@c>",
            b"<(x)a@b>",
            b"<a\\@b@c>",
            b"<\"a@b>",
            b"<\"a\"b@c>",
            b"<\"a\\\"@b>",
            b"<\"a\tb\"@c>",
            b"<a\x7f@b>",
            b"<a@[192.0.2]>",
            b"<a@[192.0.2.1>",
            b"<a@[IPv6:1::2::3]>",
            b"<a@[]>",
            b"<a@[x:]>",
            b"<a@[:x]>",
            b"<a@[x25:a b]>",
            b"<a@[192.0.2.1]x>",
            b"<\xff@b>",
            b"<a@\xc3>",
            b"<\xc3\x28@b>",
        ];
        for input in table {
            assert_eq!(parse(input).err(), Some(NotAPath), "{input:?}");
        }
        let long = format!("<{}@b.example>", "a".repeat(MAILBOX_MAX));
        assert_eq!(parse(long.as_bytes()).err(), Some(NotAPath));
    }
}
