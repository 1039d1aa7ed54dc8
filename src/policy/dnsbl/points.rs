//! Test points: whether a list is one (RFC 5782, 5).
//!
//! A list of IPv4 addresses must list 127.0.0.2 and must not list 127.0.0.1; one of IPv6 addresses ::FFFF:7F00:2 and
//! ::FFFF:7F00:1. A list that was given up is soon a parked domain, which lists the world, or no domain, which lists nobody; both
//! show here before they cost mail. A list that does not pass is suspended, and asked again until it does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::dns::Outcome;

use super::answer::{Unknown, addresses, is_listing};

/// The questions of one test, by number.
pub const POINTS: usize = 4;

/// Their addresses: for each family the one that is listed, then the one that is not.
const ADDRESSES: [IpAddr; POINTS] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 2)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, 1)),
];

/// The address that a question of a test is about. IPv6 ones are meant as such, mapped or not.
pub fn address(point: u8) -> Option<IpAddr> {
    ADDRESSES.get(usize::from(point)).copied()
}

/// Whether a list is believed, for clients of one family.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Standing {
    /// Not yet: it is asked, and what it says is not known to be true.
    Untested,
    Passed,
    Suspended(Why),
}

impl Standing {
    /// By [`Standing::number`].
    const WORDS: [&str; 6] = [
        "untested",
        "passed",
        "lists_everything",
        "lists_nothing",
        "wrong_answer",
        "no_answer",
    ];

    /// For metrics.
    pub const fn number(self) -> u64 {
        match self {
            Standing::Untested => 0,
            Standing::Passed => 1,
            Standing::Suspended(Why::ListsAll) => 2,
            Standing::Suspended(Why::ListsNothing) => 3,
            Standing::Suspended(Why::Fault(_)) => 4,
            Standing::Suspended(Why::Silent) => 5,
        }
    }

    /// For logs and the status page.
    pub const fn word(self) -> &'static str {
        Standing::WORDS[self.number() as usize]
    }

    /// The word of a number that stood in a metric.
    pub fn word_of(number: u64) -> &'static str {
        let place = usize::try_from(number).unwrap_or(usize::MAX);
        Standing::WORDS.get(place).copied().unwrap_or("unknown")
    }
}

/// Why a list is suspended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Why {
    /// It lists what must not be listed.
    ListsAll,
    /// It does not list what must be: given up, mistyped, or behind a resolver that it does not answer.
    ListsNothing,
    /// It answers with what is no listing.
    Fault(Ipv4Addr),
    /// There was no answer.
    Silent,
}

impl fmt::Display for Why {
    /// For the operator.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::ListsAll => f.write_str(
                "it lists 127.0.0.1, which no list does: it would list everybody, as a parked domain does",
            ),
            Why::ListsNothing => f.write_str(
                "it does not list 127.0.0.2, which every list does: it is given up, mistyped, or does not answer this resolver",
            ),
            Why::Fault(address) if address.octets()[..3] == [127, 255, 255] => write!(
                f,
                "it answers {address}: it refuses to be asked like this (too often, through a public resolver, or without a key)"
            ),
            Why::Fault(address) => write!(
                f,
                "it answers {address}, which is no listing: a parked domain, or a resolver that makes up answers"
            ),
            Why::Silent => f.write_str("it does not answer"),
        }
    }
}

/// How a list stands for clients of both families.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Standings {
    pub v4: Standing,
    pub v6: Standing,
}

impl Standings {
    pub const UNTESTED: Standings = Standings::both(Standing::Untested);
    pub const TRUSTED: Standings = Standings::both(Standing::Passed);

    pub const fn both(standing: Standing) -> Standings {
        Standings {
            v4: standing,
            v6: standing,
        }
    }

    pub const fn of(&self, ip: IpAddr) -> Standing {
        match ip {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }

    /// Why it is suspended, in full or in part.
    pub const fn why(&self) -> Option<Why> {
        match (self.v4, self.v6) {
            (Standing::Suspended(why), _) | (_, Standing::Suspended(why)) => Some(why),
            _ => None,
        }
    }
}

/// Whether a list was silent in its last test, for clients of each family.
#[derive(Copy, Clone, Default, Debug)]
pub struct Silence {
    v4: bool,
    v6: bool,
}

impl Silence {
    /// How a list stands after a test. Silent for once it stands as it did: a datagram may have been lost. What is a lie once is one.
    pub fn weigh(&mut self, before: Standings, tested: Standings) -> Standings {
        let weigh = |was_silent: &mut bool, before: Standing, tested: Standing| {
            let is_silent = tested == Standing::Suspended(Why::Silent);
            let again = std::mem::replace(was_silent, is_silent);
            match is_silent && !again {
                true => before,
                false => tested,
            }
        };
        Standings {
            v4: weigh(&mut self.v4, before.v4, tested.v4),
            v6: weigh(&mut self.v6, before.v6, tested.v6),
        }
    }
}

/// One test of one list, while its answers come in.
#[derive(Clone, Default, Debug)]
pub struct Trial([Option<Point>; POINTS]);

/// What was said of one point.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Point {
    Listed,
    Unlisted,
    Fault(Ipv4Addr),
    Silent,
}

impl Trial {
    /// An answer. Some: it was the last one that was missing.
    pub fn answered(&mut self, point: u8, outcome: &Outcome) -> Option<Standings> {
        *self.0.get_mut(usize::from(point))? = Some(Point::of(outcome));
        self.end()
    }

    fn end(&self) -> Option<Standings> {
        let [v4_listed, v4_unlisted, v6_listed, v6_unlisted] = self.0;
        let v4 = family(v4_listed?, v4_unlisted?);
        let v6 = family(v6_listed?, v6_unlisted?);
        Some(Standings {
            v4,
            // Some lists have IPv6 addresses and no test point for them; what matters is that they do not list everybody.
            v6: match (v4, v6) {
                (_, Standing::Suspended(Why::ListsNothing)) => v4,
                _ => v6,
            },
        })
    }
}

impl Point {
    fn of(outcome: &Outcome) -> Point {
        match addresses(outcome) {
            Ok([]) => Point::Unlisted,
            Ok(addresses) => addresses
                .iter()
                .find(|address| !is_listing(**address))
                .map_or(Point::Listed, |fault| Point::Fault(*fault)),
            Err(Unknown) => Point::Silent,
        }
    }
}

/// What the two points of a family say of it. A lie weighs more than silence.
fn family(listed: Point, unlisted: Point) -> Standing {
    match (listed, unlisted) {
        (Point::Fault(address), _) | (_, Point::Fault(address)) => {
            Standing::Suspended(Why::Fault(address))
        }
        (_, Point::Listed) => Standing::Suspended(Why::ListsAll),
        (Point::Unlisted, _) => Standing::Suspended(Why::ListsNothing),
        (Point::Silent, _) | (_, Point::Silent) => Standing::Suspended(Why::Silent),
        (Point::Listed, Point::Unlisted) => Standing::Passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Failure, Records};

    fn outcome(word: &str) -> Outcome {
        match word {
            "no" => Outcome::NoName,
            "nodata" => Outcome::NoData,
            "time" => Outcome::Failed(Failure::Timeout),
            "fail" => Outcome::Failed(Failure::Server),
            "yes" => outcome("127.0.0.2"),
            address => Outcome::Records(Records::A([address.parse().unwrap()].into())),
        }
    }

    fn trial(words: [&str; POINTS]) -> Standings {
        let mut trial = Trial::default();
        let mut end = None;
        // The order in which answers come does not matter.
        for point in [3, 0, 2, 1] {
            assert_eq!(end, None);
            end = trial.answered(point, &outcome(words[usize::from(point)]));
        }
        end.expect("all points are answered")
    }

    #[test]
    fn a_list_is_believed_that_lists_what_it_must_and_nothing_else() {
        use Standing::{Passed, Suspended};
        use Why::{ListsAll, ListsNothing, Silent};
        let refused = Suspended(Why::Fault(Ipv4Addr::new(127, 255, 255, 254)));
        let rewritten = Suspended(Why::Fault(Ipv4Addr::new(198, 51, 100, 1)));
        let table = [
            (["yes", "no", "yes", "no"], Passed, Passed),
            (["yes", "nodata", "no", "no"], Passed, Passed),
            (["no", "no", "yes", "no"], Suspended(ListsNothing), Passed),
            (
                ["yes", "yes", "yes", "yes"],
                Suspended(ListsAll),
                Suspended(ListsAll),
            ),
            (["yes", "no", "yes", "yes"], Passed, Suspended(ListsAll)),
            (
                ["no", "no", "no", "no"],
                Suspended(ListsNothing),
                Suspended(ListsNothing),
            ),
            (
                ["no", "time", "no", "time"],
                Suspended(ListsNothing),
                Suspended(ListsNothing),
            ),
            (
                ["time", "time", "time", "time"],
                Suspended(Silent),
                Suspended(Silent),
            ),
            (
                ["yes", "fail", "no", "fail"],
                Suspended(Silent),
                Suspended(Silent),
            ),
            (["time", "no", "yes", "no"], Suspended(Silent), Passed),
            (["yes", "no", "fail", "no"], Passed, Suspended(Silent)),
            (
                ["time", "yes", "no", "no"],
                Suspended(ListsAll),
                Suspended(ListsAll),
            ),
            (
                [
                    "127.255.255.254",
                    "127.255.255.254",
                    "127.255.255.254",
                    "127.255.255.254",
                ],
                refused,
                refused,
            ),
            (
                ["yes", "198.51.100.1", "198.51.100.1", "198.51.100.1"],
                rewritten,
                rewritten,
            ),
            (["127.255.255.254", "time", "no", "no"], refused, refused),
        ];
        for (words, v4, v6) in table {
            assert_eq!(trial(words), Standings { v4, v6 }, "{words:?}");
        }
    }

    #[test]
    fn a_list_is_suspended_that_is_silent_twice_or_lies_once() {
        let silent = Standings::both(Standing::Suspended(Why::Silent));
        let lies = Standings::both(Standing::Suspended(Why::ListsAll));
        let (good, untested) = (Standings::TRUSTED, Standings::UNTESTED);
        let half = Standings {
            v4: Standing::Passed,
            v6: Standing::Suspended(Why::Silent),
        };
        // One test after the other, and how it stands then.
        let table: [&[(Standings, Standings)]; 6] = [
            &[(silent, untested), (silent, silent), (silent, silent)],
            &[(good, good), (silent, good), (good, good), (silent, good)],
            &[(good, good), (silent, good), (silent, silent), (good, good)],
            &[(good, good), (lies, lies), (silent, lies), (silent, silent)],
            &[(good, good), (silent, good), (lies, lies)],
            &[(good, good), (half, good), (silent, half)],
        ];
        for tests in table {
            let (mut silence, mut standings) = (Silence::default(), untested);
            for (tested, want) in tests {
                standings = silence.weigh(standings, *tested);
                assert_eq!(standings, *want, "{tests:?}");
            }
        }
    }

    #[test]
    fn no_other_point_is_heard() {
        let mut trial = Trial::default();
        assert_eq!(trial.answered(4, &outcome("yes")), None);
        assert_eq!(address(4), None);
    }
}
