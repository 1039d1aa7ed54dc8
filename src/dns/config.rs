//! What a resolver is told: whom to ask, how long to wait, how much to keep.

use std::net::SocketAddr;
use std::time::Duration;

/// More than these are not asked: a question has not the time to go around them all.
pub const SERVERS_MAX: usize = 8;

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
