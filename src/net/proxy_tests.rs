//! Headers of both versions: what real peers send, what nobody may send, and every way to cut them.

use ppp::{v1, v2};
use proptest::prelude::*;

use super::*;

fn ends_of(client: &str, destination: &str) -> Option<Ends> {
    Some(Ends {
        client: client.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    })
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend([command, family]);
    header.extend((rest.len() as u16).to_be_bytes());
    header.extend(rest);
    header
}

const IPV4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 25, 0xd4, 0x31, 0, 25];

fn with_tlvs(tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut rest = IPV4.to_vec();
    for (kind, value) in tlvs {
        rest.push(*kind);
        rest.extend((value.len() as u16).to_be_bytes());
        rest.extend(*value);
    }
    binary(0x21, 0x11, &rest)
}

/// The whole header, and that no beginning of it says anything but that more is needed.
#[track_caller]
fn read(input: &[u8]) -> Header<'_> {
    for cut in 0..input.len() {
        assert_eq!(parse(&input[..cut]), Ok(Parsed::Incomplete), "at {cut}");
    }
    match parse(input) {
        Ok(Parsed::Whole(header, len)) => {
            assert_eq!(len, input.len());
            header
        }
        other => panic!("{other:?} of {input:?}"),
    }
}

#[test]
fn lines() {
    let table = [
        (
            "PROXY TCP4 192.0.2.7 198.51.100.25 54321 25\r\n",
            ends_of("192.0.2.7:54321", "198.51.100.25:25"),
        ),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::25 1 65535\r\n",
            ends_of("[2001:db8::7]:1", "[2001:db8::25]:65535"),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.25 54321 25\r\n",
            ends_of("192.0.2.7:54321", "198.51.100.25:25"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        (
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            None,
        ),
    ];
    for (line, client) in table {
        assert_eq!(read(line.as_bytes()).client, client, "{line}");
    }
}

#[test]
fn lines_that_are_none() {
    use Malformed::*;
    let table = [
        ("EHLO there\r\n", NoHeader),
        ("PROXI TCP4", NoHeader),
        ("PROXY\r\n", NoHeader),
        ("PROXY \r\n", Address),
        ("PROXY TCP4\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25 54321\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25 54321 25 \r\n", Address),
        ("PROXY TCP4  192.0.2.7 198.51.100.25 54321 25\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25 054321 25\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25 +54321 25\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25 65536 25\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25  25\r\n", Address),
        ("PROXY TCP4 2001:db8::7 2001:db8::25 54321 25\r\n", Address),
        ("PROXY TCP6 192.0.2.7 198.51.100.25 54321 25\r\n", Address),
        ("PROXY TCP4 192.0.2.256 198.51.100.25 54321 25\r\n", Address),
        ("PROXY TCP4 0.0.0.0 198.51.100.25 54321 25\r\n", Address),
        ("PROXY TCP6 ff02::1 2001:db8::25 54321 25\r\n", Address),
        ("PROXY UDP4 192.0.2.7 198.51.100.25 54321 25\r\n", Protocol),
        ("PROXY tcp4 192.0.2.7 198.51.100.25 54321 25\r\n", Protocol),
        ("PROXY UNKNOWNS\r\n", Address),
        ("PROXY TCP4 192.0.2.7 198.51.100.25 54321 25\n", Protocol),
        ("PROXY UNKNOWN\n", Protocol),
    ];
    for (line, why) in table {
        assert_eq!(parse(line.as_bytes()), Err(why), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(&long.as_bytes()[..106]), Ok(Parsed::Incomplete));
    assert_eq!(parse(&long.as_bytes()[..107]), Err(TooLong));
    assert_eq!(parse(b"PROXY UNKNOWN \xff\xfe\r\n"), Err(Protocol));
}

#[test]
fn binary_headers() {
    let client = ends_of("192.0.2.7:54321", "198.51.100.25:25");
    assert_eq!(read(&binary(0x21, 0x11, IPV4)).client, client);
    let mut mapped = Vec::new();
    for ip in ["::ffff:192.0.2.7", "::ffff:198.51.100.25"] {
        mapped.extend(ip.parse::<Ipv6Addr>().expect("an address").octets());
    }
    mapped.extend(&IPV4[8..]);
    assert_eq!(read(&binary(0x21, 0x21, &mapped)).client, client);
    let unix = [b'/'; 216];
    let for_themselves = [
        binary(0x20, 0x00, b""),
        binary(0x20, 0x11, IPV4),
        binary(0x20, 0xff, b"anything"),
        binary(0x21, 0x00, b"not said to be TLVs"),
        binary(0x21, 0x01, b""),
        binary(0x21, 0x31, &unix),
    ];
    for header in for_themselves {
        assert_eq!(read(&header), Header::default(), "{header:?}");
    }
}

#[test]
fn binary_headers_that_are_none() {
    use Malformed::*;
    let table = [
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), NoHeader),
        (b"\r\nEHLO".to_vec(), NoHeader),
        (b"\x16\x03\x01".to_vec(), NoHeader),
        (binary(0x11, 0x11, IPV4), Protocol),
        (binary(0x22, 0x11, IPV4), Protocol),
        (binary(0x21, 0x12, IPV4), Protocol),
        (binary(0x21, 0x41, IPV4), Protocol),
        (binary(0x21, 0x11, &IPV4[..11]), Address),
        (binary(0x21, 0x21, IPV4), Address),
        (binary(0x21, 0x31, &[0; 215]), Address),
        (binary(0x21, 0x11, &[0; 12]), Address),
        (with_tlvs(&[(0x20, &[1, 0, 0, 0])]), Tlv),
        (with_tlvs(&[(0x05, &[b'u'; 129])]), Tlv),
        (binary(0x21, 0x11, &[IPV4, &[4, 0]].concat()), Tlv),
        (binary(0x21, 0x11, &[IPV4, &[4, 0, 2, 0]].concat()), Tlv),
    ];
    for (header, why) in table {
        assert_eq!(parse(&header), Err(why), "{header:?}");
    }
    // Known at once, however little of it has come.
    let mut endless = binary(0x21, 0x11, IPV4);
    endless[14..16].copy_from_slice(&4081u16.to_be_bytes());
    assert_eq!(parse(&endless[..15]), Ok(Parsed::Incomplete));
    assert_eq!(parse(&endless[..16]), Err(TooLong));
    endless[15] -= 1;
    assert_eq!(parse(&endless), Ok(Parsed::Incomplete));
}

#[test]
fn what_tlvs_tell() {
    let tlvs: &[(u8, &[u8])] = &[
        (0x04, &[0; 9]),
        (0x02, b"mx.example"),
        (0xee, b"of some vendor"),
        (0x05, b"7f000001:1"),
        (0x20, &[1, 0, 0, 0, 0, 0x21, 0, 3, b'1', b'.', b'3']),
    ];
    let header = with_tlvs(tlvs);
    let read = read(&header);
    assert_eq!(read.authority, Some(b"mx.example".as_slice()));
    assert_eq!(read.unique_id, Some(b"7f000001:1".as_slice()));
    assert!(read.secured);
    assert!(read.client.is_some());
}

#[test]
fn what_follows_is_the_clients() {
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.25 54321 25\r\n";
    for header in [line.as_slice(), &binary(0x21, 0x11, IPV4)] {
        for behind in [b"EHLO early\r\n".as_slice(), line, SIGNATURE] {
            let both = [header, behind].concat();
            match parse(&both) {
                Ok(Parsed::Whole(_, len)) => assert_eq!(len, header.len()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_looks_like_a_header_to_those_who_expect_none() {
    for header in [b"PROXY TCP4 ".as_slice(), SIGNATURE, b"\r\n\r\n\0"] {
        assert!(looks_like_header(header), "{header:?}");
    }
    for command in [
        b"EHLO proxy\r\n".as_slice(),
        b"PROXYS\r\n",
        b"\r\n\r\nEHLO",
        b"",
    ] {
        assert!(!looks_like_header(command), "{command:?}");
    }
}

fn tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = prop_oneof![Just(1u8), Just(2), Just(4), 0x30u8..=0xff];
    proptest::collection::vec((kind, proptest::collection::vec(any::<u8>(), 0..100)), 0..5)
}

#[test]
fn what_weir_itself_sends_is_read() {
    use crate::net::{ProxyVersion, Spoken, write_proxy};
    for (client, destination) in [
        ("192.0.2.7:54321", "198.51.100.25:25"),
        ("[2001:db8::7]:1", "[2001:db8::25]:25"),
    ] {
        let spoken = Spoken {
            client: client.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            tls: Some("TLSv1.3"),
            name: Some("mx.example"),
        };
        for version in [ProxyVersion::Text, ProxyVersion::Binary] {
            let mut header = Vec::new();
            write_proxy(&mut header, version, Some(&spoken));
            let told = read(&header);
            assert_eq!(told.client, ends_of(client, destination));
            if version == ProxyVersion::Binary {
                assert_eq!(told.authority, Some(b"mx.example".as_slice()));
                assert!(told.secured);
            }
            header.clear();
            write_proxy(&mut header, version, None);
            assert_eq!(read(&header), Header::default());
        }
    }
}

proptest! {
    #[test]
    fn lines_of_others_are_read(client: [u8; 16], destination: [u8; 16], ports: [u16; 2]) {
        let [v6, to6] = [client, destination].map(Ipv6Addr::from);
        prop_assume!(!v6.is_multicast() && !v6.is_unspecified() && client[0] < 224 && client[0] > 0);
        let [v4, to4] = [client, destination].map(|ip| Ipv4Addr::new(ip[0], ip[1], ip[2], ip[3]));
        let lines = [
            v1::Addresses::new_tcp4(v4, to4, ports[0], ports[1]).to_string(),
            v1::Addresses::new_tcp6(v6, to6, ports[0], ports[1]).to_string(),
        ];
        let wanted: [(IpAddr, IpAddr); 2] = [(v4.into(), to4.into()), (v6.into(), to6.into())];
        for (line, (client, destination)) in lines.iter().zip(wanted) {
            let ends = read(line.as_bytes()).client.expect("somebody");
            prop_assert_eq!(ends.client, SocketAddr::new(client.to_canonical(), ports[0]));
            prop_assert_eq!(ends.destination, SocketAddr::new(destination.to_canonical(), ports[1]));
        }
    }

    #[test]
    fn binary_headers_of_others_are_read(ip: [u8; 4], port: u16, tlvs in tlvs()) {
        prop_assume!(ip[0] < 224 && ip != [0; 4]);
        let addresses = v2::IPv4::new(ip, [192, 0, 2, 25], port, 25);
        let command = v2::Version::Two | v2::Command::Proxy;
        let mut builder = v2::Builder::with_addresses(command, v2::Protocol::Stream, addresses);
        for (kind, value) in &tlvs {
            builder = builder.write_tlv(*kind, value).expect("short");
        }
        let header = builder.build().expect("short");
        let read = read(&header);
        prop_assert_eq!(read.client.expect("somebody").client, SocketAddr::from((ip, port)));
        let authority = tlvs.iter().rfind(|tlv| tlv.0 == 2).map(|tlv| tlv.1.as_slice());
        prop_assert_eq!(read.authority, authority);
    }

    /// Whatever comes: an answer that more input does not change, and no header that the other implementation does not see.
    #[test]
    fn answers_stay(
        start in prop_oneof![
            Just(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n".to_vec()),
            Just(b"PROXY UNKNOWN\r\n".to_vec()),
            Just(with_tlvs(&[(2, b"mx.example"), (0x20, &[1, 0, 0, 0, 0])])),
            Just(Vec::new()),
        ],
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        behind in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut input = [start, behind].concat();
        for (at, octet) in flips {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = octet;
            }
        }
        let mut settled = None;
        for cut in 0..=input.len() {
            match (settled, parse(&input[..cut])) {
                (None, Ok(Parsed::Incomplete)) => {}
                (None, answer) => settled = Some(answer),
                (Some(before), now) => prop_assert_eq!(before, now),
            }
        }
        if let Some(Ok(Parsed::Whole(header, len))) = settled {
            let seen = ppp::HeaderResult::parse(&input[..len]);
            match seen {
                ppp::HeaderResult::V1(seen) => prop_assert!(seen.is_ok(), "{:?}", seen),
                ppp::HeaderResult::V2(Ok(_)) => {}
                // LOCAL of a family that is none: to be skipped all the same.
                ppp::HeaderResult::V2(Err(_)) => prop_assert_eq!(header, Header::default()),
            }
        }
    }
}
