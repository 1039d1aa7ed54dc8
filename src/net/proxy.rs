//! The PROXY protocol, reading side: who a trusted peer says that it speaks for.
//!
//! Both versions of <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, told apart by their first octet: a line of text, or a binary
//! header of a known length. [`parse`] is given everything received so far, and again with more of it until it knows; what follows the header is
//! the client's and is not looked at.
//!
//! Stricter than the crate `ppp`, which is the oracle of the tests: a prefix of a header is never an error, ports are digits only, a header that
//! announces more than [`HEADER_MAX`] is refused at its sixteenth octet instead of waited for, and TLVs have to fill their place exactly.
//! No checksum (PP2_TYPE_CRC32C) is computed: TCP has its own, and nobody sends it on a stream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its end included.
pub const LINE_MAX: usize = 107;

/// The longest header of version 2 that is waited for. Real ones take 28 to some 200 octets.
pub const HEADER_MAX: usize = 4096;

/// What a header of version 2 begins with.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header of version 1 begins with.
pub const WORD: &[u8] = b"PROXY ";

/// The longest unique identifier (PP2_TYPE_UNIQUE_ID).
const UNIQUE_ID_MAX: usize = 128;

/// What a header says. Slices lie in the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header<'a> {
    /// None: the peer speaks for itself (LOCAL, UNKNOWN, or a client that has no address, such as one of a UNIX socket).
    pub client: Option<Ends>,
    /// The name that the client asked for in its handshake with the peer.
    pub authority: Option<&'a [u8]>,
    /// What the peer calls this connection in its logs.
    pub unique_id: Option<&'a [u8]>,
    /// The client speaks TLS with the peer.
    pub secured: bool,
}

/// The two ends of the client's own connection. IPv4 addresses in IPv6 clothes are IPv4 addresses here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    pub client: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed<'a> {
    /// All so far may be the beginning of a header.
    Incomplete,
    /// A header, and how many octets it has.
    Whole(Header<'a>, usize),
}

/// Why it is no header; the word stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Neither the word nor the signature.
    NoHeader,
    TooLong,
    Protocol,
    Address,
    Tlv,
}

impl Malformed {
    pub const fn word(self) -> &'static str {
        match self {
            Malformed::NoHeader => "no_header",
            Malformed::TooLong => "too_long",
            Malformed::Protocol => "protocol",
            Malformed::Address => "address",
            Malformed::Tlv => "tlv",
        }
    }
}

/// Reads the header at the beginning of what a peer has sent.
pub fn parse(input: &[u8]) -> Result<Parsed<'_>, Malformed> {
    match input.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') => parse_line(input),
        Some(_) => parse_binary(input),
    }
}

/// Whether somebody who must not begins with a header: a whole word or the beginning of the signature that no client of SMTP sends.
pub fn looks_like_header(input: &[u8]) -> bool {
    const ENOUGH: usize = 5;
    input.starts_with(WORD) || input.starts_with(&SIGNATURE[..ENOUGH])
}

/// Version 1.
fn parse_line(input: &[u8]) -> Result<Parsed<'_>, Malformed> {
    let known = input.len().min(WORD.len());
    if input[..known] != WORD[..known] {
        return Err(Malformed::NoHeader);
    }
    let within = &input[..input.len().min(LINE_MAX)];
    let Some(end) = within.iter().position(|octet| *octet == b'\n') else {
        return match within.len() {
            LINE_MAX => Err(Malformed::TooLong),
            _ => Ok(Parsed::Incomplete),
        };
    };
    let line = within[..end]
        .strip_suffix(b"\r")
        .and_then(|line| line.strip_prefix(WORD))
        .ok_or(Malformed::Protocol)?;
    let header = Header {
        client: read_line(line)?,
        ..Header::default()
    };
    Ok(Parsed::Whole(header, end + 1))
}

/// The line between its first word and its end.
fn read_line(line: &[u8]) -> Result<Option<Ends>, Malformed> {
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Protocol)?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    let mut next = || words.next().ok_or(Malformed::Address);
    let (client, destination) = (next()?, next()?);
    let (client_port, destination_port) = (port(next()?)?, port(next()?)?);
    if next().is_ok() {
        return Err(Malformed::Address);
    }
    let ip = match family {
        "TCP4" => |text: &str| text.parse::<Ipv4Addr>().map(IpAddr::from),
        "TCP6" => |text: &str| text.parse::<Ipv6Addr>().map(IpAddr::from),
        _ => return Err(Malformed::Protocol),
    };
    let ip = |text| ip(text).map_err(|_| Malformed::Address);
    ends(
        (ip(client)?, client_port),
        (ip(destination)?, destination_port),
    )
}

/// Digits, without a zero before them.
fn port(text: &str) -> Result<u16, Malformed> {
    let digits = text.bytes().all(|octet| octet.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(Malformed::Address);
    }
    text.parse().map_err(|_| Malformed::Address)
}

fn ends(client: (IpAddr, u16), destination: (IpAddr, u16)) -> Result<Option<Ends>, Malformed> {
    let [client, destination] =
        [client, destination].map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
    // Nobody comes from there; to take it at its word would let limits and logs say nothing.
    if client.ip().is_unspecified() || client.ip().is_multicast() {
        return Err(Malformed::Address);
    }
    Ok(Some(Ends {
        client,
        destination,
    }))
}

/// Octets of a version 2 header before its addresses.
const FIXED: usize = 16;

/// Version 2.
fn parse_binary(input: &[u8]) -> Result<Parsed<'_>, Malformed> {
    let known = input.len().min(SIGNATURE.len());
    if input[..known] != SIGNATURE[..known] {
        return Err(Malformed::NoHeader);
    }
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Incomplete);
    };
    let len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED + len > HEADER_MAX {
        return Err(Malformed::TooLong);
    }
    let Some(rest) = rest.get(..len) else {
        return Ok(Parsed::Incomplete);
    };
    let header = match fixed[12] {
        // LOCAL: whatever else it says is to be skipped.
        0x20 => Header::default(),
        0x21 => read_binary(fixed[13], rest)?,
        _ => return Err(Malformed::Protocol),
    };
    Ok(Parsed::Whole(header, FIXED + len))
}

fn read_binary(family: u8, rest: &[u8]) -> Result<Header<'_>, Malformed> {
    let addresses = match family {
        // UNSPEC, over a stream or over anything: what follows is not said to be TLVs.
        0x00 | 0x01 => return Ok(Header::default()),
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Malformed::Protocol),
    };
    let (addresses, tlvs) = rest.split_at_checked(addresses).ok_or(Malformed::Address)?;
    let client = match family {
        0x11 => {
            let (client, rest) = split::<4>(addresses);
            let (destination, ports) = split::<4>(rest);
            let ports = two_ports(ports);
            ends(
                (Ipv4Addr::from(client).into(), ports[0]),
                (Ipv4Addr::from(destination).into(), ports[1]),
            )?
        }
        0x21 => {
            let (client, rest) = split::<16>(addresses);
            let (destination, ports) = split::<16>(rest);
            let ports = two_ports(ports);
            ends(
                (Ipv6Addr::from(client).into(), ports[0]),
                (Ipv6Addr::from(destination).into(), ports[1]),
            )?
        }
        _ => None,
    };
    let mut header = Header {
        client,
        ..Header::default()
    };
    read_tlvs(&mut header, tlvs)?;
    Ok(header)
}

fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (first, rest) = bytes.split_first_chunk::<N>().expect("cut to its length");
    (*first, rest)
}

fn two_ports(bytes: &[u8]) -> [u16; 2] {
    let (bytes, _) = split::<4>(bytes);
    [[bytes[0], bytes[1]], [bytes[2], bytes[3]]].map(u16::from_be_bytes)
}

fn read_tlvs<'a>(header: &mut Header<'a>, mut rest: &'a [u8]) -> Result<(), Malformed> {
    const AUTHORITY: u8 = 0x02;
    const UNIQUE_ID: u8 = 0x05;
    const SSL: u8 = 0x20;
    /// Of the first octet of an SSL value: the client connected over TLS.
    const CLIENT_SSL: u8 = 0x01;
    while !rest.is_empty() {
        let (head, behind) = rest.split_first_chunk::<3>().ok_or(Malformed::Tlv)?;
        let len = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, behind) = behind.split_at_checked(len).ok_or(Malformed::Tlv)?;
        rest = behind;
        match head[0] {
            AUTHORITY => header.authority = Some(value),
            UNIQUE_ID if len <= UNIQUE_ID_MAX => header.unique_id = Some(value),
            UNIQUE_ID => return Err(Malformed::Tlv),
            // Client bits and the result of a verification; what more it tells is not used.
            SSL if len < 5 => return Err(Malformed::Tlv),
            SSL => header.secured = value[0] & CLIENT_SSL != 0,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
