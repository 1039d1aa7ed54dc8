//! What one mail server tells another of a client: XCLIENT and XFORWARD, read and written.
//!
//! Both are one verb and attributes as xtext (Postfix, XCLIENT_README and XFORWARD_README). XCLIENT changes whom the server takes the client
//! for, until the connection ends, so only few may say it; XFORWARD is for the log, and over with the transaction. Who may is not decided
//! here.
//!
//! Written commands stay within 512 octets (RFC 5321, 4.5.3.1.4): what does not fit goes into one more. ADDR comes last with XCLIENT, since
//! from then on the peer speaks as somebody who may not say XCLIENT any more.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use core::str;

use crate::decimal;
use crate::limits::{ATTRIBUTE_MAX, XCLIENT_COMMAND_MAX};

/// A set of attributes, as an EHLO reply lists them behind the keyword.
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub struct Attributes(u16);

impl Attributes {
    pub const NONE: Attributes = Attributes(0);
    pub const NAME: Attributes = Attributes(1 << 0);
    pub const ADDR: Attributes = Attributes(1 << 1);
    pub const PORT: Attributes = Attributes(1 << 2);
    pub const PROTO: Attributes = Attributes(1 << 3);
    pub const HELO: Attributes = Attributes(1 << 4);
    pub const LOGIN: Attributes = Attributes(1 << 5);
    pub const DESTADDR: Attributes = Attributes(1 << 6);
    pub const DESTPORT: Attributes = Attributes(1 << 7);
    pub const SOURCE: Attributes = Attributes(1 << 8);

    pub const fn contains(self, other: Attributes) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn insert(&mut self, other: Attributes) {
        self.0 |= other.0;
    }

    /// The attribute of this name, in any case; none if it is not known.
    pub fn named(word: &[u8]) -> Attributes {
        let row = NAMES
            .iter()
            .find(|row| word.eq_ignore_ascii_case(row.0.as_bytes()));
        row.map_or(Attributes::NONE, |row| row.1)
    }
}

const NAMES: [(&str, Attributes); 9] = [
    ("NAME", Attributes::NAME),
    ("ADDR", Attributes::ADDR),
    ("PORT", Attributes::PORT),
    ("PROTO", Attributes::PROTO),
    ("HELO", Attributes::HELO),
    ("LOGIN", Attributes::LOGIN),
    ("DESTADDR", Attributes::DESTADDR),
    ("DESTPORT", Attributes::DESTPORT),
    ("SOURCE", Attributes::SOURCE),
];

/// What weir understands of XCLIENT, as its EHLO reply lists it.
pub const XCLIENT_UNDERSTOOD: &str = "NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";

/// A value that may be known to be unknown.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Said<T> {
    Is(T),
    /// `[UNAVAILABLE]`: there is none.
    Unavailable,
    /// `[TEMPUNAVAIL]`: it could not be found out for now.
    NotNow,
}

impl<T> Said<T> {
    pub fn known(&self) -> Option<&T> {
        match self {
            Said::Is(value) => Some(value),
            Said::Unavailable | Said::NotNow => None,
        }
    }
}

/// What one XCLIENT command says of a client. None: nothing, what was said before stands.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub struct Claim {
    pub name: Option<Said<Box<[u8]>>>,
    pub addr: Option<Said<IpAddr>>,
    pub port: Option<Said<u16>>,
    /// ESMTP, not SMTP.
    pub esmtp: Option<Said<bool>>,
    pub helo: Option<Said<Box<[u8]>>>,
    pub login: Option<Said<Box<[u8]>>>,
    pub destination_addr: Option<Said<IpAddr>>,
    pub destination_port: Option<Said<u16>>,
}

/// Reads all behind `XCLIENT`. None: not its syntax, or an attribute that was not announced: nothing of such a command counts.
pub fn parse(argument: &[u8]) -> Option<Claim> {
    let mut claim = Claim::default();
    let mut seen = Attributes::NONE;
    let words = argument
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    for word in words {
        let at = memchr::memchr(b'=', word)?;
        let (attribute, value) = (Attributes::named(&word[..at]), &word[at + 1..]);
        if attribute == Attributes::NONE || seen.contains(attribute) {
            return None;
        }
        seen.insert(attribute);
        claim.take(attribute, &decode(value)?)?;
    }
    (seen != Attributes::NONE).then_some(claim)
}

impl Claim {
    fn take(&mut self, attribute: Attributes, value: &[u8]) -> Option<()> {
        match attribute {
            Attributes::NAME => self.name = Some(said(value, text)?),
            Attributes::ADDR => self.addr = Some(said(value, address)?),
            Attributes::PORT => self.port = Some(said(value, port)?),
            Attributes::PROTO => self.esmtp = Some(said(value, protocol)?),
            Attributes::HELO => self.helo = Some(said(value, text)?),
            Attributes::LOGIN => self.login = Some(said(value, text)?),
            Attributes::DESTADDR => self.destination_addr = Some(said(value, address)?),
            Attributes::DESTPORT => self.destination_port = Some(said(value, port)?),
            _ => return None,
        }
        Some(())
    }
}

fn said<T>(value: &[u8], read: fn(&[u8]) -> Option<T>) -> Option<Said<T>> {
    if value.eq_ignore_ascii_case(b"[UNAVAILABLE]") {
        Some(Said::Unavailable)
    } else if value.eq_ignore_ascii_case(b"[TEMPUNAVAIL]") {
        Some(Said::NotNow)
    } else {
        read(value).map(Said::Is)
    }
}

/// A name of some kind, for logs and servers: printable, and not longer than a name may be.
fn text(value: &[u8]) -> Option<Box<[u8]>> {
    let printable = value.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    (printable && !value.is_empty() && value.len() <= ATTRIBUTE_MAX).then(|| Box::from(value))
}

/// An IPv4 address, or an IPv6 address behind `IPV6:` (which careless peers leave out).
fn address(value: &[u8]) -> Option<IpAddr> {
    let (head, rest) = value.split_at_checked(5).unwrap_or((b"", value));
    let parsed: IpAddr = if head.eq_ignore_ascii_case(b"IPV6:") {
        str::from_utf8(rest).ok()?.parse::<Ipv6Addr>().ok()?.into()
    } else {
        str::from_utf8(value).ok()?.parse().ok()?
    };
    Some(parsed.to_canonical())
}

fn port(value: &[u8]) -> Option<u16> {
    decimal::read(value).and_then(|port| u16::try_from(port).ok())
}

fn protocol(value: &[u8]) -> Option<bool> {
    if value.eq_ignore_ascii_case(b"ESMTP") {
        Some(true)
    } else if value.eq_ignore_ascii_case(b"SMTP") {
        Some(false)
    } else {
        None
    }
}

/// xtext to what it means (RFC 3461, 4). None: it is none.
fn decode(xtext: &[u8]) -> Option<Vec<u8>> {
    let mut meant = Vec::with_capacity(xtext.len());
    let mut rest = xtext;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        meant.push(match byte {
            b'+' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                rest = behind;
                hex(digits[0])? << 4 | hex(digits[1])?
            }
            b'=' => return None,
            // Postfix before 2.3 wrote values as they are: more than xtext may hold is let in, a blank is not
            byte => byte,
        });
    }
    Some(meant)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// What is known of a client, to be told.
#[derive(Copy, Clone, Debug)]
pub struct ClientFacts<'a> {
    pub address: SocketAddr,
    /// Its host name, if somebody has found it.
    pub name: Option<&'a [u8]>,
    /// As it said; empty: not yet.
    pub helo: &'a [u8],
    pub esmtp: bool,
    /// Where it connected to.
    pub destination: Option<SocketAddr>,
    pub login: Option<&'a [u8]>,
}

/// Writes the XCLIENT commands that tell all of `facts` that a server understands. False, and nothing written: it would not even learn the
/// client's address.
pub fn write_xclient(out: &mut Vec<u8>, facts: &ClientFacts<'_>, understood: Attributes) -> bool {
    const ORDER: [Attributes; 8] = [
        Attributes::NAME,
        Attributes::HELO,
        Attributes::PROTO,
        Attributes::LOGIN,
        Attributes::DESTADDR,
        Attributes::DESTPORT,
        Attributes::PORT,
        Attributes::ADDR,
    ];
    write(out, b"XCLIENT", &ORDER, facts, understood)
}

/// The same for XFORWARD. What a header field could not hold is not passed on (XFORWARD_README, note 1).
pub fn write_xforward(out: &mut Vec<u8>, facts: &ClientFacts<'_>, understood: Attributes) -> bool {
    const ORDER: [Attributes; 6] = [
        Attributes::NAME,
        Attributes::ADDR,
        Attributes::PORT,
        Attributes::PROTO,
        Attributes::HELO,
        Attributes::SOURCE,
    ];
    let clean = |text: &&[u8]| text.iter().all(|&byte| is_harmless(byte));
    let facts = ClientFacts {
        name: facts.name.filter(clean),
        helo: Some(facts.helo).filter(clean).unwrap_or_default(),
        ..*facts
    };
    write(out, b"XFORWARD", &ORDER, &facts, understood)
}

/// Printable, and nothing special in a header field.
pub(crate) fn is_harmless(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"<>()\\\";@,".contains(&byte)
}

fn write(
    out: &mut Vec<u8>,
    verb: &[u8],
    order: &[Attributes],
    facts: &ClientFacts<'_>,
    understood: Attributes,
) -> bool {
    if !understood.contains(Attributes::ADDR) {
        return false;
    }
    let mut line = out.len();
    out.extend_from_slice(verb);
    for &attribute in order.iter().filter(|one| understood.contains(**one)) {
        let at = out.len();
        write_attribute(out, attribute, facts);
        if out.len() - line + 2 > XCLIENT_COMMAND_MAX {
            line = at + 2;
            out.splice(at..at, b"\r\n".iter().chain(verb).copied());
        }
    }
    out.extend_from_slice(b"\r\n");
    true
}

fn write_attribute(out: &mut Vec<u8>, attribute: Attributes, facts: &ClientFacts<'_>) {
    let row = NAMES.iter().find(|row| row.1 == attribute);
    let (name, _) = row.expect("each attribute has its row");
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.push(b'=');
    let at = out.len();
    let destination = facts.destination;
    match attribute {
        Attributes::NAME => encode(out, facts.name.unwrap_or_default()),
        Attributes::HELO => encode(out, facts.helo),
        Attributes::LOGIN => encode(out, facts.login.unwrap_or_default()),
        Attributes::ADDR => write_address(out, facts.address.ip()),
        Attributes::PORT => write_port(out, facts.address.port()),
        Attributes::PROTO if facts.esmtp => out.extend_from_slice(b"ESMTP"),
        Attributes::PROTO => out.extend_from_slice(b"SMTP"),
        Attributes::DESTADDR => {
            if let Some(destination) = destination {
                write_address(out, destination.ip());
            }
        }
        Attributes::DESTPORT => {
            if let Some(destination) = destination {
                write_port(out, destination.port());
            }
        }
        _ => out.extend_from_slice(b"REMOTE"),
    }
    // a part of a name would be another name
    let length = out.len() - at;
    if length == 0 || length > ATTRIBUTE_MAX {
        out.truncate(at);
        out.extend_from_slice(b"[UNAVAILABLE]");
    }
}

/// As xtext (RFC 3461, 4).
fn encode(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in text {
        if byte.is_ascii_graphic() && byte != b'+' && byte != b'=' {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'+', DIGITS[high], DIGITS[low]]);
        }
    }
}

fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    let address = address.to_canonical();
    if address.is_ipv6() {
        out.extend_from_slice(b"IPV6:");
    }
    push_display(out, &address);
}

fn write_port(out: &mut Vec<u8>, port: u16) {
    decimal::push(out, port.into());
}

/// What it shows as, without a string in between.
pub(crate) fn push_display(out: &mut Vec<u8>, value: &impl core::fmt::Display) {
    struct Sink<'a>(&'a mut Vec<u8>);
    impl core::fmt::Write for Sink<'_> {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    core::fmt::Write::write_fmt(&mut Sink(out), format_args!("{value}"))
        .expect("a Vec takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;
    use proptest::prelude::*;

    const ALL: Attributes = Attributes(0x1ff);

    fn facts<'a>() -> ClientFacts<'a> {
        ClientFacts {
            address: "192.0.2.7:1025".parse().unwrap(),
            name: Some(b"mail.example"),
            helo: b"client.example",
            esmtp: true,
            destination: Some("[2001:db8::25]:25".parse().unwrap()),
            login: None,
        }
    }

    fn lines(written: &[u8]) -> Vec<String> {
        let text = String::from_utf8(written.to_vec()).unwrap();
        assert!(text.ends_with("\r\n"));
        text.trim_end().split("\r\n").map(String::from).collect()
    }

    #[test]
    fn xclient_tells_all_with_the_address_last() {
        let mut out = Vec::new();
        assert!(write_xclient(&mut out, &facts(), ALL));
        assert_eq!(
            lines(&out),
            [
                "XCLIENT NAME=mail.example HELO=client.example PROTO=ESMTP LOGIN=[UNAVAILABLE] DESTADDR=IPV6:2001:db8::25 DESTPORT=25 PORT=1025 ADDR=192.0.2.7"
            ]
        );
    }

    #[test]
    fn a_server_hears_only_what_it_understands_and_nothing_without_the_address() {
        let mut some = Attributes::ADDR;
        some.insert(Attributes::named(b"proto"));
        some.insert(Attributes::named(b"IDENT"));
        let mut out = Vec::new();
        assert!(write_xclient(&mut out, &facts(), some));
        assert_eq!(lines(&out), ["XCLIENT PROTO=ESMTP ADDR=192.0.2.7"]);
        out.clear();
        assert!(!write_xclient(&mut out, &facts(), Attributes::NAME) && out.is_empty());
        assert!(!write_xforward(&mut out, &facts(), Attributes::NONE) && out.is_empty());
    }

    #[test]
    fn long_names_make_more_commands_and_too_long_ones_are_left_out() {
        let (long, longer) = (vec![b'a'; ATTRIBUTE_MAX], vec![b'+'; 100]);
        let mut told = facts();
        (told.name, told.helo, told.login) = (Some(&long[..]), &long[..], Some(&longer[..]));
        let mut out = Vec::new();
        assert!(write_xclient(&mut out, &told, ALL));
        let lines = lines(&out);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines.iter().all(|line| line.len() <= 510));
        assert!(
            lines[1].contains(" LOGIN=[UNAVAILABLE] "),
            "300 octets as xtext"
        );
        assert!(lines[1].ends_with(" ADDR=192.0.2.7"));
    }

    #[test]
    fn xforward_passes_on_nothing_that_a_header_field_could_not_hold() {
        let mut told = facts();
        told.address = "[::ffff:198.51.100.1]:7".parse().unwrap();
        told.helo = b"a b(c";
        told.esmtp = false;
        let mut out = Vec::new();
        assert!(write_xforward(&mut out, &told, ALL));
        assert_eq!(
            lines(&out),
            [
                "XFORWARD NAME=mail.example ADDR=198.51.100.1 PORT=7 PROTO=SMTP HELO=[UNAVAILABLE] SOURCE=REMOTE"
            ]
        );
    }

    #[test]
    fn claims_are_read() {
        let claim = parse(b"name=[tempunavail] ADDR=IPv6:2001:DB8::1  PORT=65535 PROTO=esmtp HELO=a+20b LOGIN=x+3Dy DESTADDR=[UNAVAILABLE] DESTPORT=25");
        assert_eq!(claim, None, "a blank in a name");
        let claim = parse(b"name=[tempunavail] ADDR=IPv6:2001:DB8::1  PORT=65535 PROTO=esmtp HELO=a+2Eb LOGIN=x+3Dy DESTADDR=[UNAVAILABLE] DESTPORT=25").unwrap();
        assert_eq!(claim.name, Some(Said::NotNow));
        assert_eq!(claim.addr, Some(Said::Is("2001:db8::1".parse().unwrap())));
        assert_eq!(claim.port, Some(Said::Is(65535)));
        assert_eq!(claim.esmtp, Some(Said::Is(true)));
        assert_eq!(claim.helo.unwrap().known().unwrap().as_ref(), b"a.b");
        assert_eq!(claim.login.unwrap().known().unwrap().as_ref(), b"x=y");
        assert_eq!(claim.destination_addr, Some(Said::Unavailable));
        assert_eq!(claim.destination_port, Some(Said::Is(25)));
        let mapped = parse(b"ADDR=IPV6:::ffff:192.0.2.1").unwrap();
        assert_eq!(mapped.addr, Some(Said::Is("192.0.2.1".parse().unwrap())));
        assert_eq!(parse(b"ADDR=2001:db8::1").unwrap().name, None);
    }

    #[test]
    fn what_is_no_claim_is_none_as_a_whole() {
        let table: &[&[u8]] = &[
            b"",
            b" ",
            b"ADDR",
            b"ADDR=",
            b"=192.0.2.1",
            b"ADDR=192.0.2.1 NAME",
            b"ADDR=192.0.2.1 ADDR=192.0.2.2",
            b"ADDR=192.0.2.256",
            b"ADDR=[192.0.2.1]",
            b"ADDR=IPV6:192.0.2.1",
            b"ADDR=IPV6:",
            b"ADDR=fe80::1%eth0",
            b"ADDR=192.0.2.1\tNAME=x",
            b"PORT=65536",
            b"PORT=-1",
            b"PORT=0x19",
            b"PROTO=HTTP",
            b"NAME=a+2",
            b"NAME=a+",
            b"NAME=a+0A",
            b"NAME=a+00b",
            b"NAME=a=b",
            b"NAME=a\x7f",
            b"SOURCE=LOCAL",
            b"IDENT=x",
            b"ADDRESS=192.0.2.1",
        ];
        for line in table {
            assert_eq!(parse(line), None, "{:?}", String::from_utf8_lossy(line));
        }
        let long = [b"HELO=", &[b'a'; ATTRIBUTE_MAX + 1][..]].concat();
        assert_eq!(parse(&long), None);
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }

        #[test]
        fn weir_understands_itself(
            name in "[!-~]{1,300}",
            helo in "[!-~]{1,255}",
            login in "[!-~]{1,90}",
            ip in any::<[u8; 16]>(),
            ports in any::<(u16, u16)>(),
            esmtp in any::<bool>(),
        ) {
            let told = ClientFacts {
                address: SocketAddr::new(IpAddr::from(ip).to_canonical(), ports.0),
                name: Some(name.as_bytes()),
                helo: helo.as_bytes(),
                esmtp,
                destination: Some(SocketAddr::new(IpAddr::from([ip[0], 1, 2, 3]), ports.1)),
                login: Some(login.as_bytes()),
            };
            let mut out = Vec::new();
            prop_assert!(write_xclient(&mut out, &told, ALL));
            let mut whole = Claim::default();
            for line in lines(&out) {
                prop_assert!(line.len() <= 510, "{line}");
                let claim = parse(line.strip_prefix("XCLIENT ").unwrap().as_bytes()).unwrap();
                whole.name = claim.name.or(whole.name);
                whole.addr = claim.addr.or(whole.addr);
                whole.port = claim.port.or(whole.port);
                whole.esmtp = claim.esmtp.or(whole.esmtp);
                whole.helo = claim.helo.or(whole.helo);
                whole.login = claim.login.or(whole.login);
                whole.destination_port = claim.destination_port.or(whole.destination_port);
            }
            prop_assert_eq!(whole.addr, Some(Said::Is(told.address.ip())));
            prop_assert_eq!(whole.port, Some(Said::Is(ports.0)));
            prop_assert_eq!(whole.esmtp, Some(Said::Is(esmtp)));
            prop_assert_eq!(whole.destination_port, Some(Said::Is(ports.1)));
            for (said, meant) in [(whole.name, &name), (whole.helo, &helo), (whole.login, &login)] {
                match said.unwrap() {
                    Said::Is(said) => prop_assert_eq!(said.as_ref(), meant.as_bytes()),
                    other => {
                        let special = meant.bytes().filter(|b| b"+=".contains(b)).count();
                        prop_assert_eq!(other, Said::Unavailable);
                        prop_assert!(meant.len() + 2 * special > ATTRIBUTE_MAX);
                    }
                }
            }
        }
    }
}
