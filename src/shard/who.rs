//! Names: what stands in a completion, in a timer and on the list of things to do.
//!
//! A slab key fits 56 bits and carries a generation, so a name that outlives its bearer finds nobody.
//! The top byte says which slab.

use crate::ring::Owner;

use super::slab::Key;

/// Who is meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Who {
    Session(Key),
    Leg(Key),
    /// A row of the pit.
    Row(Key),
    /// A connection whose client is not known yet.
    Proxied(Key),
    /// A tunnel, and whose socket it is about.
    Tunnel(Key, Side),
    /// What is inquired of a client.
    Inquiry(Key),
    /// A socket of the resolver.
    Resolver(Lane),
    /// A timer of the shard itself.
    Chore(Chore),
    /// A slot that was closed, or has not been given to anybody.
    Nobody,
}

/// The two ends of a tunnel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    pub const fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// A socket of the resolver, by the number it goes by there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// For datagrams.
    Port(u32),
    Stream(u32),
}

/// The shard's own timers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Chore {
    /// Look again whether a connection can be opened for those who wait.
    Waiters,
    /// Send out the health probes.
    Probe,
    /// The grace of a drain is over.
    Drain,
    /// Ask silent clients for their connections again.
    Shortage,
    /// Test DNS lists.
    Lists,
    /// Look at the load, return upstreams gradually, mirror the ring's counters.
    Housekeeping,
}

const SESSION: u64 = 1;
const LEG: u64 = 2;
const ROW: u64 = 3;
const CHORE: u64 = 4;
const PROXIED: u64 = 5;
const TUNNEL_CLIENT: u64 = 6;
const TUNNEL_SERVER: u64 = 7;
const INQUIRY: u64 = 8;
const PORT: u64 = 9;
const STREAM: u64 = 10;
const TAG_SHIFT: u32 = 56;

impl Who {
    pub fn to_bits(self) -> u64 {
        match self {
            Who::Session(key) => SESSION << TAG_SHIFT | key.to_bits(),
            Who::Leg(key) => LEG << TAG_SHIFT | key.to_bits(),
            Who::Row(key) => ROW << TAG_SHIFT | key.to_bits(),
            Who::Proxied(key) => PROXIED << TAG_SHIFT | key.to_bits(),
            Who::Tunnel(key, Side::Client) => TUNNEL_CLIENT << TAG_SHIFT | key.to_bits(),
            Who::Tunnel(key, Side::Server) => TUNNEL_SERVER << TAG_SHIFT | key.to_bits(),
            Who::Inquiry(key) => INQUIRY << TAG_SHIFT | key.to_bits(),
            Who::Resolver(Lane::Port(number)) => PORT << TAG_SHIFT | u64::from(number),
            Who::Resolver(Lane::Stream(number)) => STREAM << TAG_SHIFT | u64::from(number),
            Who::Chore(chore) => CHORE << TAG_SHIFT | chore as u64,
            Who::Nobody => Owner::NONE.0,
        }
    }

    pub fn from_bits(bits: u64) -> Who {
        match bits >> TAG_SHIFT {
            SESSION => Who::Session(Key::from_bits(bits)),
            LEG => Who::Leg(Key::from_bits(bits)),
            ROW => Who::Row(Key::from_bits(bits)),
            PROXIED => Who::Proxied(Key::from_bits(bits)),
            TUNNEL_CLIENT => Who::Tunnel(Key::from_bits(bits), Side::Client),
            TUNNEL_SERVER => Who::Tunnel(Key::from_bits(bits), Side::Server),
            INQUIRY => Who::Inquiry(Key::from_bits(bits)),
            PORT => Who::Resolver(Lane::Port(bits as u32)),
            STREAM => Who::Resolver(Lane::Stream(bits as u32)),
            CHORE => match bits as u8 {
                0 => Who::Chore(Chore::Waiters),
                1 => Who::Chore(Chore::Probe),
                2 => Who::Chore(Chore::Drain),
                3 => Who::Chore(Chore::Shortage),
                4 => Who::Chore(Chore::Lists),
                _ => Who::Chore(Chore::Housekeeping),
            },
            _ => Who::Nobody,
        }
    }

    pub fn owner(self) -> Owner {
        Owner(self.to_bits())
    }
}

impl From<Owner> for Who {
    fn from(owner: Owner) -> Who {
        Who::from_bits(owner.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_survives_its_way_through_a_completion() {
        let key = Key::from_bits(0x00ab_cdef_1234_5678);
        let all = [
            Who::Session(key),
            Who::Leg(key),
            Who::Row(key),
            Who::Proxied(key),
            Who::Tunnel(key, Side::Client),
            Who::Tunnel(key, Side::Server),
            Who::Inquiry(key),
            Who::Resolver(Lane::Port(u32::MAX)),
            Who::Resolver(Lane::Stream(7)),
            Who::Chore(Chore::Waiters),
            Who::Chore(Chore::Probe),
            Who::Chore(Chore::Drain),
            Who::Chore(Chore::Shortage),
            Who::Chore(Chore::Lists),
            Who::Chore(Chore::Housekeeping),
            Who::Nobody,
        ];
        for who in all {
            assert_eq!(Who::from(who.owner()), who);
        }
    }
}
