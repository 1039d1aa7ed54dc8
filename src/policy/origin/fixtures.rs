//! Files in MaxMind's format, made for tests: a tree over 128 bits, IPv4 at its left edge, a map for each network.

use std::net::IpAddr;

/// What a file says of a network.
#[derive(Copy, Clone)]
pub enum Record {
    Country(&'static str),
    Asn(u32),
}

/// Half of a node: nothing, another node, or the data at an offset.
#[derive(Copy, Clone)]
enum Half {
    Nothing,
    Node(usize),
    Data(usize),
}

/// Networks that do not nest, each with its record.
pub fn database(kind: &str, networks: &[(&str, Record)]) -> Vec<u8> {
    let mut nodes = vec![[Half::Nothing; 2]];
    let mut data = Vec::new();
    for (network, record) in networks {
        let (bits, len) = prefix(network);
        let offset = data.len();
        write_record(&mut data, *record);
        let mut node = 0;
        for depth in 0..len {
            let side = usize::from(bits >> (127 - depth) & 1 == 1);
            if depth == len - 1 {
                nodes[node][side] = Half::Data(offset);
                break;
            }
            node = match nodes[node][side] {
                Half::Node(next) => next,
                _ => {
                    nodes.push([Half::Nothing; 2]);
                    nodes[node][side] = Half::Node(nodes.len() - 1);
                    nodes.len() - 1
                }
            };
        }
    }
    let mut file = Vec::new();
    for half in nodes.iter().flatten() {
        let value = match half {
            Half::Nothing => nodes.len(),
            Half::Node(node) => *node,
            Half::Data(offset) => nodes.len() + 16 + offset,
        };
        file.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    write_metadata(&mut file, kind, nodes.len() as u32);
    file
}

fn prefix(network: &str) -> (u128, u32) {
    let (ip, len) = network.split_once('/').expect("a network");
    let len: u32 = len.parse().expect("a length");
    match ip.parse().expect("an address") {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), len + 96),
        IpAddr::V6(ip) => (ip.to_bits(), len),
    }
}

const STRING: u8 = 2;
const U16: u8 = 5;
const U32: u8 = 6;
const MAP: u8 = 7;

/// A field's type and length; lengths here are short.
fn control(out: &mut Vec<u8>, kind: u8, len: usize) {
    assert!(len < 29, "longer ones are written otherwise");
    out.push(kind << 5 | len as u8);
}

fn string(out: &mut Vec<u8>, text: &str) {
    control(out, STRING, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, kind: u8, value: u32) {
    let len = if kind == U16 { 2 } else { 4 };
    control(out, kind, len);
    out.extend_from_slice(&value.to_be_bytes()[4 - len..]);
}

fn write_record(out: &mut Vec<u8>, record: Record) {
    control(out, MAP, 1);
    match record {
        Record::Country(code) => {
            string(out, "country");
            control(out, MAP, 1);
            string(out, "iso_code");
            string(out, code);
        }
        Record::Asn(asn) => {
            string(out, "autonomous_system_number");
            number(out, U32, asn);
        }
    }
}

fn write_metadata(out: &mut Vec<u8>, kind: &str, nodes: u32) {
    control(out, MAP, 9);
    let numbers = [
        ("node_count", U32, nodes),
        ("record_size", U16, 24),
        ("ip_version", U16, 6),
        ("binary_format_major_version", U16, 2),
        ("binary_format_minor_version", U16, 0),
    ];
    for (name, kind, value) in numbers {
        string(out, name);
        number(out, kind, value);
    }
    string(out, "database_type");
    string(out, kind);
    string(out, "languages");
    // An array of nothing: type 11.
    out.extend_from_slice(&[0, 4]);
    string(out, "build_epoch");
    // 64 bits, of which four octets are written: type 9.
    out.extend_from_slice(&[4, 2, 0x65, 0, 0, 0]);
    string(out, "description");
    control(out, MAP, 0);
}
