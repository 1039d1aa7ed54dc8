//! What a resolver is told: whom to ask, how long to wait, how much to keep.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use resolv_conf::ParseError;

/// More than these are not asked: a question has not the time to go around them all.
pub const SERVERS_MAX: usize = 8;
const PORT: u16 = 53;

#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Config {
    /// In order of preference; those behind the eighth are left out.
    pub servers: Vec<SocketAddr>,
    /// How long a server has for one try, before another is asked as well.
    pub timeout: Duration,
    /// How long a question may take in all.
    pub patience: Duration,
    /// Answers kept. Each costs 256 octets on average at most; long ones take the place of several.
    pub cache: usize,
    /// What is known is forgotten no sooner, whatever its TTL: no zone makes the resolver ask all the time.
    pub ttl_min: Duration,
    /// Nor kept longer.
    pub ttl_max: Duration,
    /// Questions open at a time; at a few hundred octets each.
    pub open_max: usize,
    /// Sockets for each server.
    pub ports: usize,
    /// Whether to ask in mixed case (draft-vixie-dnsext-dns0x20), a few bits more that a forger has to guess.
    pub mix_case: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            patience: Duration::from_secs(5),
            cache: 65_536,
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(60 * 60),
            open_max: 4096,
            ports: 16,
            mix_case: true,
        }
    }
}

/// The servers that a resolv.conf names; none named: the one on this host (resolv.conf(5)). Lines that are not understood are passed
/// over, as every other program on the host does, and told.
pub fn resolv_conf(text: &[u8]) -> (Vec<SocketAddr>, Vec<ParseError>) {
    let (config, errors) = resolv_conf::Config::parse_with_errors(text);
    let named = config.nameservers.iter().map(IpAddr::from);
    let mut servers: Vec<SocketAddr> = named
        .take(SERVERS_MAX)
        .map(|ip| SocketAddr::new(ip, PORT))
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    (servers, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_names_servers() {
        let table = [
            (
                "# by hand\nsearch example.org\nnameserver 192.0.2.1\nnameserver 2001:db8::1\noptions edns0\n",
                vec!["192.0.2.1:53", "[2001:db8::1]:53"],
                0,
            ),
            ("", vec!["127.0.0.1:53"], 0),
            (
                "nameserver somewhere\nnameserver 192.0.2.1\n",
                vec!["192.0.2.1:53"],
                1,
            ),
        ];
        for (text, want, wrong) in table {
            let (servers, errors) = resolv_conf(text.as_bytes());
            let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
            assert_eq!(
                (servers, errors.len()),
                (want.into_iter().map(String::from).collect(), wrong)
            );
        }
    }
}
