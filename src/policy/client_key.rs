//! What names a client, or a network of clients, in the tables of policy and in what hosts tell each other.

use std::net::IpAddr;

use crate::net::{ClientPrefix, Network};

/// A client for the purposes of policy: an IPv4 address or an IPv6 /64, or what --client-prefix says.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct ClientKey(u64);

impl ClientKey {
    /// IPv4 lies in ::/64, of which nothing but ::1 and mapped addresses is in use.
    pub fn of(ip: IpAddr, prefix: ClientPrefix) -> ClientKey {
        match prefix.network(ip) {
            Network::V4(network) => ClientKey(0xffff_0000_0000 | u64::from(network)),
            Network::V6(network) => ClientKey(network),
        }
    }

    /// For what is kept or sent elsewhere.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    pub const fn from_bits(bits: u64) -> ClientKey {
        ClientKey(bits)
    }
}

#[cfg(test)]
impl From<IpAddr> for ClientKey {
    fn from(ip: IpAddr) -> ClientKey {
        ClientKey::of(ip, ClientPrefix::default())
    }
}
