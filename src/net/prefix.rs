//! How much of an address makes a client: what limits count by, and what decides on the shard.

use std::net::IpAddr;

/// `--client-prefix`: so many bits of an address are the client's, the rest is its to choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientPrefix {
    v4: u8,
    v6: u8,
}

impl Default for ClientPrefix {
    /// An IPv4 address; an IPv6 /64, which is what one customer has.
    fn default() -> ClientPrefix {
        ClientPrefix { v4: 32, v6: 64 }
    }
}

impl ClientPrefix {
    pub const V4: std::ops::RangeInclusive<u8> = 8..=32;
    /// Beyond the half that names a network hosts choose as they like.
    pub const V6: std::ops::RangeInclusive<u8> = 16..=64;

    pub fn new(v4: u8, v6: u8) -> Option<ClientPrefix> {
        let fits = Self::V4.contains(&v4) && Self::V6.contains(&v6);
        fits.then_some(ClientPrefix { v4, v6 })
    }

    pub fn bits(self) -> (u8, u8) {
        (self.v4, self.v6)
    }

    /// Of an IPv4 address.
    pub(super) fn v4_mask(self) -> u32 {
        u32::MAX << (32 - self.v4)
    }

    /// Of the first half of an IPv6 address.
    pub(super) fn v6_mask(self) -> u64 {
        u64::MAX << (64 - self.v6)
    }

    /// What clients of the same prefix have in common.
    pub fn network(self, client: IpAddr) -> Network {
        match client.to_canonical() {
            IpAddr::V4(ip) => Network::V4(ip.to_bits() & self.v4_mask()),
            IpAddr::V6(ip) => Network::V6((ip.to_bits() >> 64) as u64 & self.v6_mask()),
        }
    }
}

/// A client's network, the bits that do not count being 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Network {
    V4(u32),
    /// The first half.
    V6(u64),
}
