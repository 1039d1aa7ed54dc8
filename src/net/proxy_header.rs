//! The PROXY header that weir sends: whom a connection to a mail server speaks for, in front of everything else on it.
//!
//! haproxy's doc/proxy-protocol.txt, 2.1 and 2.2. ProxyVersion 1 is a line of text, version 2 is binary and has room for more: the
//! name that the client asked for in TLS, and that it spoke TLS at all. A connection of weir's own says that there is nobody.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// What a version 2 header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TLV_AUTHORITY: u8 = 0x02;
const TLV_SSL: u8 = 0x20;
/// PP2_CLIENT_SSL: the client connected over TLS. No certificate of its own is claimed, and none verified.
const CLIENT_SSL: u8 = 0x01;
const NOT_VERIFIED: [u8; 4] = [0, 0, 0, 1];
const SUBTYPE_VERSION: u8 = 0x21;

/// A name longer than this is none (RFC 1035, 2.3.4).
const AUTHORITY_MAX: usize = 255;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyVersion {
    Text,
    Binary,
}

/// Whom a connection speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoken<'a> {
    pub client: SocketAddr,
    /// Where it connected to.
    pub destination: SocketAddr,
    /// The version of TLS that the client speaks with weir, as in `TLSv1.3`.
    pub tls: Option<&'a str>,
    /// The name it asked for there.
    pub name: Option<&'a str>,
}

/// Appends the header for a client, or for nobody.
pub fn write_proxy(out: &mut Vec<u8>, version: ProxyVersion, spoken: Option<&Spoken<'_>>) {
    match (version, spoken) {
        (ProxyVersion::Text, None) => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
        (ProxyVersion::Text, Some(spoken)) => write_text(out, spoken),
        (ProxyVersion::Binary, None) => {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[LOCAL, UNSPECIFIED, 0, 0]);
        }
        (ProxyVersion::Binary, Some(spoken)) => write_binary(out, spoken),
    }
}

fn write_text(out: &mut Vec<u8>, spoken: &Spoken<'_>) {
    let (client, destination) = one_family(spoken.client, spoken.destination);
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        client.ip(),
        destination.ip(),
        known(client),
        known(destination)
    );
    out.extend_from_slice(line.as_bytes());
}

/// A port that is not known is 1: Exim takes a line with 0 for damaged.
fn known(address: SocketAddr) -> u16 {
    address.port().max(1)
}

fn write_binary(out: &mut Vec<u8>, spoken: &Spoken<'_>) {
    let (client, destination) = one_family(spoken.client, spoken.destination);
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[PROXY, if client.is_ipv4() { TCP4 } else { TCP6 }]);
    let length = out.len();
    out.extend_from_slice(&[0, 0]);
    for ip in [client.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    out.extend_from_slice(&client.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
    if let Some(name) = spoken.name.filter(|name| name.len() <= AUTHORITY_MAX) {
        write_tlv(out, TLV_AUTHORITY, name.as_bytes());
    }
    if let Some(version) = spoken.tls {
        let mut ssl = vec![CLIENT_SSL];
        ssl.extend_from_slice(&NOT_VERIFIED);
        write_tlv(&mut ssl, SUBTYPE_VERSION, version.as_bytes());
        write_tlv(out, TLV_SSL, &ssl);
    }
    let rest = (out.len() - length - 2) as u16;
    out[length..][..2].copy_from_slice(&rest.to_be_bytes());
}

fn write_tlv(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

/// Both addresses as one family has them: IPv4 if both are, written as IPv6 otherwise.
fn one_family(client: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (from, to) = (client.ip().to_canonical(), destination.ip().to_canonical());
    let (from, to) = match (from, to) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => (from, to),
        _ => (mapped(from).into(), mapped(to).into()),
    };
    (
        SocketAddr::new(from, client.port()),
        SocketAddr::new(to, destination.port()),
    )
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken<'a>(client: &str, destination: &str) -> Spoken<'a> {
        Spoken {
            client: client.parse().unwrap(),
            destination: destination.parse().unwrap(),
            tls: None,
            name: None,
        }
    }

    fn written(version: ProxyVersion, spoken: Option<&Spoken<'_>>) -> Vec<u8> {
        let mut out = Vec::new();
        write_proxy(&mut out, version, spoken);
        out
    }

    #[test]
    fn as_text_it_is_a_line() {
        for (client, destination, line) in [
            (
                "192.0.2.7:0",
                "198.51.100.1:25",
                "PROXY TCP4 192.0.2.7 198.51.100.1 1 25\r\n",
            ),
            (
                "192.0.2.7:40000",
                "198.51.100.1:25",
                "PROXY TCP4 192.0.2.7 198.51.100.1 40000 25\r\n",
            ),
            (
                "[2001:db8::7]:40000",
                "[2001:db8::1]:25",
                "PROXY TCP6 2001:db8::7 2001:db8::1 40000 25\r\n",
            ),
            (
                "[::ffff:192.0.2.7]:1",
                "198.51.100.1:25",
                "PROXY TCP4 192.0.2.7 198.51.100.1 1 25\r\n",
            ),
            (
                "192.0.2.7:1",
                "[2001:db8::1]:25",
                "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 25\r\n",
            ),
        ] {
            let text = written(ProxyVersion::Text, Some(&spoken(client, destination)));
            assert_eq!(text, line.as_bytes());
            assert!(text.len() <= 107, "the most that a receiver has to take");
        }
    }

    #[test]
    fn another_implementation_reads_it() {
        let whom = Spoken {
            tls: Some("TLSv1.3"),
            name: Some("mx.example"),
            ..spoken("192.0.2.7:40000", "198.51.100.1:25")
        };
        let bytes = written(ProxyVersion::Binary, Some(&whom));
        let header = ppp::v2::Header::try_from(bytes.as_slice()).expect("it is whole");
        let addresses = ppp::v2::IPv4::new([192, 0, 2, 7], [198, 51, 100, 1], 40_000, 25);
        assert_eq!(header.addresses, addresses.into());
        let tlvs: Vec<_> = header.tlvs().map(|tlv| tlv.expect("well-formed")).collect();
        assert_eq!(tlvs.len(), 2);
        assert_eq!(&*tlvs[0].value, b"mx.example");
        assert_eq!(&*tlvs[1].value, b"\x01\0\0\0\x01\x21\0\x07TLSv1.3");
        let wide = spoken("[2001:db8::7]:1", "[2001:db8::1]:25");
        let bytes = written(ProxyVersion::Binary, Some(&wide));
        let header = ppp::v2::Header::try_from(bytes.as_slice()).expect("it is whole");
        assert_eq!(header.protocol, ppp::v2::Protocol::Stream);
        assert_eq!(bytes.len(), 16 + 36);
        let text = written(ProxyVersion::Text, Some(&wide));
        assert!(ppp::v1::Header::try_from(text.as_slice()).is_ok());
    }

    #[test]
    fn who_speaks_for_nobody_says_so() {
        assert_eq!(written(ProxyVersion::Text, None), b"PROXY UNKNOWN\r\n");
        let local = written(ProxyVersion::Binary, None);
        let header = ppp::v2::Header::try_from(local.as_slice()).expect("it is whole");
        assert_eq!(header.command, ppp::v2::Command::Local);
    }
}
