//! What an answer of a list means.
//!
//! RFC 5782, 2.1: who is listed has an A record in 127.0.0.0/8, "SHOULD be 127.0.0.2". Lists and what stands between use the
//! same way to say other things. 127.255.255.0/24 is "you may not ask like this" (from a public resolver, too often, with a
//! mistyped zone); 127.0.0.1 must never be listed; an address from elsewhere is a resolver that rewrites NXDOMAIN, or a parked
//! domain. Taken for listings they refuse all mail, so they are faults of the list and say nothing of the client.

use std::net::Ipv4Addr;

use crate::dns::{Outcome, Records};

use super::spec::Zone;

/// What is known of a client, of one list.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Meaning {
    /// It is on the list; the weights of all filters that match, added up.
    Listed(i16),
    /// It is not, or not in a way that any filter asks for.
    Unlisted,
    /// Nobody knows.
    Unknown,
    /// The list does not work as a list.
    Fault(Ipv4Addr),
}

impl Meaning {
    pub fn of(zone: &Zone, outcome: &Outcome) -> Meaning {
        match addresses(outcome) {
            Ok([]) => Meaning::Unlisted,
            Ok(addresses) => match addresses.iter().find(|address| !is_listing(**address)) {
                Some(fault) => Meaning::Fault(*fault),
                None => zone
                    .weight(addresses)
                    .map_or(Meaning::Unlisted, Meaning::Listed),
            },
            Err(Unknown) => Meaning::Unknown,
        }
    }
}

/// There was no answer.
pub(super) struct Unknown;

/// The addresses of an answer; none for who has no entry.
pub(super) fn addresses(outcome: &Outcome) -> Result<&[Ipv4Addr], Unknown> {
    match outcome {
        Outcome::Records(Records::A(addresses)) => Ok(addresses),
        Outcome::NoData | Outcome::NoName => Ok(&[]),
        Outcome::Records(_) | Outcome::Failed(_) => Err(Unknown),
    }
}

/// Whether an address in an answer says that somebody is listed.
pub(super) fn is_listing(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    address.is_loopback() && octets[..3] != [127, 255, 255] && octets != [127, 0, 0, 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Failure, Name};
    use crate::policy::dnsbl::zones;

    fn a(addresses: &[&str]) -> Outcome {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        Outcome::Records(Records::A(addresses.collect()))
    }

    #[test]
    fn only_what_is_a_listing_is_one() {
        let listed = zones(vec!["bl.example=127.0.0.[2..3]*3".parse().unwrap()]).unwrap();
        let any = zones(vec!["bl.example*2".parse().unwrap()]).unwrap();
        let fault = |text: &str| Meaning::Fault(text.parse().unwrap());
        // answer, by a filter, by none
        let table = [
            (a(&["127.0.0.2"]), Meaning::Listed(3), Meaning::Listed(2)),
            (a(&["127.0.0.9"]), Meaning::Unlisted, Meaning::Listed(2)),
            (
                a(&["127.0.0.9", "127.0.0.3"]),
                Meaning::Listed(3),
                Meaning::Listed(2),
            ),
            (a(&["127.255.254.1"]), Meaning::Unlisted, Meaning::Listed(2)),
            (
                a(&["127.255.255.254"]),
                fault("127.255.255.254"),
                fault("127.255.255.254"),
            ),
            (
                a(&["127.0.0.2", "127.255.255.255"]),
                fault("127.255.255.255"),
                fault("127.255.255.255"),
            ),
            (a(&["127.0.0.1"]), fault("127.0.0.1"), fault("127.0.0.1")),
            (
                a(&["198.51.100.1"]),
                fault("198.51.100.1"),
                fault("198.51.100.1"),
            ),
            (a(&["0.0.0.0"]), fault("0.0.0.0"), fault("0.0.0.0")),
            (Outcome::NoName, Meaning::Unlisted, Meaning::Unlisted),
            (Outcome::NoData, Meaning::Unlisted, Meaning::Unlisted),
            (
                Outcome::Failed(Failure::Timeout),
                Meaning::Unknown,
                Meaning::Unknown,
            ),
            (
                Outcome::Failed(Failure::Server),
                Meaning::Unknown,
                Meaning::Unknown,
            ),
            (
                Outcome::Failed(Failure::Busy),
                Meaning::Unknown,
                Meaning::Unknown,
            ),
            (
                Outcome::Failed(Failure::NoServer),
                Meaning::Unknown,
                Meaning::Unknown,
            ),
            (
                Outcome::Records(Records::Ptr([Name::parse(b"x.example").unwrap()].into())),
                Meaning::Unknown,
                Meaning::Unknown,
            ),
        ];
        for (outcome, by_filter, by_none) in table {
            assert_eq!(Meaning::of(&listed[0], &outcome), by_filter, "{outcome:?}");
            assert_eq!(Meaning::of(&any[0], &outcome), by_none, "{outcome:?}");
        }
    }
}
