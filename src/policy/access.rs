//! Lists of client networks: allow, deny, and who may relay.
//!
//! Text form, one network a line: `192.0.2.0/24`, `2001:db8::/32`, a single address, `#` begins a comment.
//! Held in a prefix trie: a million networks take some 30 MB, and a lookup well under a microsecond.
//! The more specific entry counts, whichever list it is on; of two equal ones, the one that allows.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use prefix_trie::PrefixMap;

/// A network: an address and how many of its bits count.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Network {
    ip: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits)),
            None => (text, None),
        };
        let ip: IpAddr = ip.parse().map_err(|_| NetworkError::Address)?;
        let width: u8 = if ip.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            // Digits only: `parse` would take "+8" too.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(|_| NetworkError::Bits)?
            }
            Some(_) => return Err(NetworkError::Bits),
        };
        if bits > width {
            return Err(NetworkError::Bits);
        }
        let network = Network { ip, bits }.canonical();
        if !network.has_clear_host_bits() {
            return Err(NetworkError::HostBits);
        }
        Ok(network)
    }
}

impl Network {
    /// `::ffff:192.0.2.0/120` is `192.0.2.0/24`: that is how clients are looked up.
    fn canonical(self) -> Network {
        match (self.ip, self.ip.to_canonical()) {
            (IpAddr::V6(_), ip @ IpAddr::V4(_)) if self.bits >= 96 => Network {
                ip,
                bits: self.bits - 96,
            },
            _ => self,
        }
    }

    fn has_clear_host_bits(self) -> bool {
        match self.ip {
            IpAddr::V4(ip) => ip.to_bits().checked_shl(u32::from(self.bits)).unwrap_or(0) == 0,
            IpAddr::V6(ip) => ip.to_bits().checked_shl(u32::from(self.bits)).unwrap_or(0) == 0,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// Why a network could not be read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NetworkError {
    Address,
    Bits,
    /// Most likely a typing error; to guess which half is wrong would be a guess about who gets in.
    HostBits,
}

impl std::error::Error for NetworkError {}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NetworkError::Address => {
                "not an IP address or network, as in 192.0.2.0/24 or 2001:db8::/32"
            }
            NetworkError::Bits => "the prefix length is a number from 0 to 32 (IPv4) or 128 (IPv6)",
            NetworkError::HostBits => "address bits are set beyond the prefix length",
        })
    }
}

/// A value for each network; the longest match counts.
#[derive(Clone)]
pub struct Networks<T> {
    v4: PrefixMap<(u32, u8), T>,
    v6: PrefixMap<(u128, u8), T>,
}

impl<T> Default for Networks<T> {
    fn default() -> Networks<T> {
        Networks {
            v4: PrefixMap::new(),
            v6: PrefixMap::new(),
        }
    }
}

impl<T> Networks<T> {
    pub fn insert(&mut self, network: Network, value: T) {
        match network.ip {
            IpAddr::V4(ip) => drop(self.v4.insert((ip.to_bits(), network.bits), value)),
            IpAddr::V6(ip) => drop(self.v6.insert((ip.to_bits(), network.bits), value)),
        }
    }

    /// What the most specific network around an address says.
    pub fn lookup(&self, ip: IpAddr) -> Option<&T> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.get_lpm(&(ip.to_bits(), 32)).map(|(_, value)| value),
            IpAddr::V6(ip) => self
                .v6
                .get_lpm(&(ip.to_bits(), 128))
                .map(|(_, value)| value),
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.lookup(ip).is_some()
    }

    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.v4.mem_size() + self.v6.mem_size()
    }
}

/// What the lists say about a client.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Listed {
    Allow,
    Deny,
}

/// The allow and the deny list together. Built once, shared by all shards, replaced whole on reload.
#[derive(Clone, Default)]
pub struct Access {
    networks: Networks<Listed>,
}

impl Access {
    /// Reads both lists; all errors of both, each with its line.
    pub fn parse(allow: &str, deny: &str) -> Result<Access, Vec<ListError>> {
        let mut networks = Networks::default();
        let mut errors = Vec::new();
        // Allow comes second and so wins where the same network is on both.
        for (text, listed) in [(deny, Listed::Deny), (allow, Listed::Allow)] {
            let insert = |network| networks.insert(network, listed);
            errors.extend(read_networks(text, insert));
        }
        if errors.is_empty() {
            Ok(Access { networks })
        } else {
            Err(errors)
        }
    }

    pub fn lookup(&self, ip: IpAddr) -> Option<Listed> {
        self.networks.lookup(ip).copied()
    }

    pub fn len(&self) -> usize {
        self.networks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    pub fn memory(&self) -> usize {
        self.networks.memory()
    }
}

/// Reads a list of networks line by line; the errors are returned, at most [`ERRORS_MAX`] of them.
pub fn read_networks(text: &str, mut insert: impl FnMut(Network)) -> Vec<ListError> {
    let mut errors = Vec::new();
    for (number, line) in lines(text) {
        match line.parse() {
            Ok(network) => insert(network),
            Err(why) => errors.push(ListError::new(number, line, why)),
        }
        if errors.len() == ERRORS_MAX {
            break;
        }
    }
    errors
}

/// Errors reported of one list: who mistook one file for another does not need a million.
pub const ERRORS_MAX: usize = 20;

/// The lines of a list that say something, with their numbers; comments and blanks are cut.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let said = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    said.enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.is_empty())
}

/// A line of a list that cannot be read.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct ListError {
    pub line: usize,
    /// The line, cut.
    pub text: String,
    pub why: String,
}

impl ListError {
    pub(super) fn new(line: usize, text: &str, why: impl fmt::Display) -> ListError {
        ListError {
            line,
            text: text.chars().take(60).collect(),
            why: why.to_string(),
        }
    }
}

impl std::error::Error for ListError {}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: \"{}\": {}",
            self.line,
            self.text.escape_debug(),
            self.why
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read() {
        let table = [
            ("192.0.2.0/24", Ok("192.0.2.0/24")),
            ("192.0.2.1", Ok("192.0.2.1/32")),
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("::1", Ok("::1/128")),
            ("::/0", Ok("::/0")),
            ("::ffff:192.0.2.0/120", Ok("192.0.2.0/24")),
            ("192.0.2.1/24", Err(NetworkError::HostBits)),
            ("2001:db8::1/32", Err(NetworkError::HostBits)),
            ("128.0.0.0/0", Err(NetworkError::HostBits)),
            ("192.0.2.0/33", Err(NetworkError::Bits)),
            ("::/129", Err(NetworkError::Bits)),
            ("192.0.2.0/", Err(NetworkError::Bits)),
            ("192.0.2.0/+24", Err(NetworkError::Bits)),
            ("192.0.2.0/255.255.255.0", Err(NetworkError::Bits)),
            ("192.0.2", Err(NetworkError::Address)),
            ("192.0.2.*", Err(NetworkError::Address)),
            ("mx.example", Err(NetworkError::Address)),
        ];
        for (text, want) in table {
            let got = text.parse::<Network>().map(|network| network.to_string());
            assert_eq!(got, want.map(String::from), "{text}");
        }
    }

    #[test]
    fn the_more_specific_entry_counts_and_allow_wins_a_draw() {
        let allow = "10.1.0.0/16\n2001:db8:1::/48\n192.0.2.1 # a friend\n";
        let deny = "10.0.0.0/8\n10.1.2.0/24\n2001:db8::/32\n192.0.2.1\n";
        let access = Access::parse(allow, deny).expect("both are fine");
        let table = [
            ("10.2.0.1", Some(Listed::Deny)),
            ("10.1.0.1", Some(Listed::Allow)),
            ("10.1.2.3", Some(Listed::Deny)),
            ("::ffff:10.1.2.3", Some(Listed::Deny)),
            ("192.0.2.1", Some(Listed::Allow)),
            ("192.0.2.2", None),
            ("2001:db8::1", Some(Listed::Deny)),
            ("2001:db8:1::1", Some(Listed::Allow)),
            ("2001:db9::1", None),
        ];
        for (client, want) in table {
            assert_eq!(access.lookup(ip(client)), want, "{client}");
        }
        assert_eq!(access.len(), 6);
    }

    #[test]
    fn errors_name_their_lines_and_come_to_an_end() {
        let errors = Access::parse("# fine\n\nmx.example\n10.0.0.0/8\n10.0.0.1/8\n", "")
            .err()
            .expect("two errors");
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            text[0],
            "line 3: \"mx.example\": not an IP address or network, as in 192.0.2.0/24 or 2001:db8::/32"
        );
        assert_eq!(
            text[1],
            "line 5: \"10.0.0.1/8\": address bits are set beyond the prefix length"
        );
        let errors = Access::parse("", &"\u{1b}[2J\r\n".repeat(1000))
            .err()
            .expect("not a list");
        assert_eq!(errors.len(), ERRORS_MAX);
        assert!(errors[0].to_string().is_ascii() && !errors[0].to_string().contains('\u{1b}'));
    }

    #[test]
    fn files_of_other_systems_are_read() {
        let access =
            Access::parse("\u{feff}10.0.0.0/8\r\n\t192.0.2.0/24 \r\n", "").expect("a list");
        assert_eq!(access.len(), 2);
    }

    #[test]
    fn a_large_list_stays_small() {
        let text: String = (0..200_000u32)
            .map(|n| format!("{}/24\n", Ipv4Addr::from((n << 8) + 0x0100_0000)))
            .collect();
        let access = Access::parse("", &text).expect("a list");
        assert_eq!(
            (access.len(), access.lookup(ip("1.0.5.9"))),
            (200_000, Some(Listed::Deny))
        );
        assert!(access.memory() < 64 * 200_000, "{}", access.memory());
    }

    proptest! {
        /// Against a list that is searched whole.
        #[test]
        fn the_longest_match_is_found(entries in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 1..100), clients in prop::collection::vec(any::<u32>(), 50), v6: bool) {
            // Few different addresses, so that networks nest.
            let narrow = |bits: u32| bits & 0xc0c0_c0c0;
            let mask = |width: u8| u32::MAX.checked_shl(32 - u32::from(width)).unwrap_or(0);
            let address = |bits: u32| if v6 { IpAddr::V6(Ipv6Addr::from(u128::from(bits) << 96)) } else { IpAddr::V4(Ipv4Addr::from(bits)) };
            let mut networks = Networks::default();
            let mut list: Vec<(u32, u8, bool)> = Vec::new();
            for (bits, width, value) in entries {
                let bits = narrow(bits) & mask(width);
                networks.insert(format!("{}/{width}", address(bits)).parse().expect("a network"), value);
                list.retain(|(other, other_width, _)| (*other, *other_width) != (bits, width));
                list.push((bits, width, value));
            }
            for client in clients.into_iter().map(narrow) {
                let around = list.iter().filter(|(bits, width, _)| client & mask(*width) == *bits);
                let want = around.max_by_key(|(_, width, _)| *width).map(|(_, _, value)| value);
                prop_assert_eq!(networks.lookup(address(client)), want);
            }
            prop_assert_eq!(networks.len(), list.len());
        }
    }
}
