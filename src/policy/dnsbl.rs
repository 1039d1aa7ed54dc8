//! Lists of client addresses in DNS: block lists and allow lists (DNSBL, DNSWL; RFC 5782).
//!
//! [`Zones`] is one shard's: it says what to ask of a client, and what an answer means (`answer.rs`). Which answers count
//! and for how much is read from `--dnsbl` (`spec.rs`). A list is believed as long as it passes its test points (`points.rs`);
//! one that does not is asked nothing, so that it neither refuses mail nor keeps it waiting. Who is refused is told by
//! which list (`reply.rs`).
//!
//! Nothing here asks: the shard does, and brings back what it heard.

mod answer;
mod points;
mod reply;
mod spec;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::dns::{Kind, Name, Outcome, Question};

pub use answer::Meaning;
pub use points::{POINTS, Silence, Standing, Standings, Trial, Why};
pub use reply::{clean, reply};
pub use spec::{Spec, SpecError, WEIGHT_MAX, ZONES_MAX, Zone, ZonesError, zones};

/// How soon a list is tested again that did not pass.
pub const RETRY: Duration = Duration::from_secs(60);

/// How soon one that was silent for once.
pub const RETRY_SILENT: Duration = Duration::from_secs(5);

/// Which lists are asked, and how often they are tested.
#[derive(Clone, Debug)]
pub struct Config {
    pub zones: Arc<[Zone]>,
    /// Between two tests of a list; zero: they are believed untested.
    pub recheck: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            zones: Arc::default(),
            recheck: Duration::from_secs(30 * 60),
        }
    }
}

/// The lists, as a shard stands to them. A list's number is its place in the configuration.
#[derive(Debug)]
pub struct Zones {
    zones: Arc<[Zone]>,
    standings: Box<[Standings]>,
}

impl Zones {
    pub fn new(config: &Config) -> Zones {
        match config.recheck.is_zero() {
            true => Zones::trusting(config),
            false => Zones::standing(config, Standings::UNTESTED),
        }
    }

    /// All of them believed, tested or not.
    pub fn trusting(config: &Config) -> Zones {
        Zones::standing(config, Standings::TRUSTED)
    }

    fn standing(config: &Config, standings: Standings) -> Zones {
        Zones {
            zones: config.zones.clone(),
            standings: config.zones.iter().map(|_| standings).collect(),
        }
    }

    pub fn len(&self) -> usize {
        self.zones.len()
    }

    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
    }

    /// What a list is to be asked about a client; None: it is suspended.
    pub fn question(&self, number: u16, ip: IpAddr) -> Option<Question> {
        let ip = ip.to_canonical();
        match self.standings(number)?.of(ip) {
            Standing::Suspended(_) => None,
            Standing::Untested | Standing::Passed => {
                Some(question(self.zone(number)?, ip, Kind::A))
            }
        }
    }

    /// What an answer says of a client. A list that is suspended, or not tested yet, says nothing.
    pub fn meaning(&self, number: u16, ip: IpAddr, outcome: &Outcome) -> Meaning {
        let (Some(zone), Some(standings)) = (self.zone(number), self.standings(number)) else {
            return Meaning::Unknown;
        };
        match (standings.of(ip.to_canonical()), Meaning::of(zone, outcome)) {
            // A fault is one whoever tells of it.
            (_, fault @ Meaning::Fault(_)) => fault,
            (Standing::Passed, meaning) => meaning,
            (Standing::Untested | Standing::Suspended(_), _) => Meaning::Unknown,
        }
    }

    /// To be asked about a client that is listed, where `txt` says so: why it is.
    pub fn reason(&self, number: u16, ip: IpAddr) -> Option<Question> {
        let zone = self.zone(number).filter(|zone| zone.wants_reason())?;
        Some(question(zone, ip.to_canonical(), Kind::Txt))
    }

    /// The least and the most that the answer of a list can add to a score.
    pub fn range(&self, number: u16) -> (i16, i16) {
        self.zone(number).map_or((0, 0), Zone::range)
    }

    pub fn zone(&self, number: u16) -> Option<&Zone> {
        self.zones.get(usize::from(number))
    }

    /// What a list is called where others read it.
    pub fn public(&self, number: u16) -> Option<&Arc<str>> {
        self.zone(number).map(Zone::public)
    }

    pub fn standings(&self, number: u16) -> Option<Standings> {
        self.standings.get(usize::from(number)).copied()
    }

    /// A test is over. Some: the list stood otherwise before.
    pub fn set_standings(&mut self, number: u16, now: Standings) -> Option<Standings> {
        let standings = self.standings.get_mut(usize::from(number))?;
        let before = std::mem::replace(standings, now);
        (before != now).then_some(before)
    }

    /// A question of a test.
    pub fn test_point(&self, number: u16, point: u8) -> Option<Question> {
        Some(question(
            self.zone(number)?,
            points::address(point)?,
            Kind::A,
        ))
    }
}

fn question(zone: &Zone, ip: IpAddr, kind: Kind) -> Question {
    Question {
        name: Name::reversed(ip, zone.name()).expect("a zone was tried with the longest address"),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Records;

    fn config(typed: &[&str]) -> Config {
        let specs = typed.iter().map(|text| text.parse().unwrap()).collect();
        Config {
            zones: zones(specs).unwrap(),
            ..Config::default()
        }
    }

    fn asked(zones: &Zones, ip: &str) -> Vec<(u16, String)> {
        let question = |number| Some((number, zones.question(number, ip.parse().unwrap())?));
        (0..zones.len() as u16)
            .filter_map(question)
            .map(|(number, question)| (number, question.name.to_string()))
            .collect()
    }

    fn listed() -> Outcome {
        Outcome::Records(Records::A(["127.0.0.2".parse().unwrap()].into()))
    }

    #[test]
    fn each_list_is_asked_in_the_clients_family() {
        let zones = Zones::new(&config(&["a.example", "b.example*-2"]));
        let want = |reversed: &str| {
            vec![
                (0, format!("{reversed}.a.example")),
                (1, format!("{reversed}.b.example")),
            ]
        };
        assert_eq!(asked(&zones, "192.0.2.99"), want("99.2.0.192"));
        assert_eq!(asked(&zones, "::ffff:192.0.2.99"), want("99.2.0.192"));
        let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
        assert_eq!(asked(&zones, "2001:db8::1"), want(nibbles));
        assert_eq!(zones.range(1), (-2, 0));
    }

    #[test]
    fn a_suspended_list_is_not_asked_and_not_believed() {
        let mut zones = Zones::new(&config(&["a.example", "b.example"]));
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(
            zones.meaning(0, v4, &listed()),
            Meaning::Unknown,
            "untested"
        );
        let good = Standings {
            v4: Standing::Passed,
            v6: Standing::Suspended(Why::ListsAll),
        };
        assert_eq!(zones.set_standings(0, good), Some(Standings::UNTESTED));
        assert_eq!(zones.set_standings(0, good), None, "no news");
        assert_eq!(zones.meaning(0, v4, &listed()), Meaning::Listed(1));
        assert_eq!(zones.meaning(0, v6, &listed()), Meaning::Unknown);
        let numbers = |ip| asked(&zones, ip).into_iter().map(|(number, _)| number);
        assert_eq!(numbers("192.0.2.1").collect::<Vec<_>>(), [0, 1]);
        assert_eq!(numbers("2001:db8::1").collect::<Vec<_>>(), [1]);
        assert_eq!(zones.meaning(7, v4, &listed()), Meaning::Unknown);
    }

    #[test]
    fn without_tests_lists_are_believed() {
        let config = Config {
            recheck: Duration::ZERO,
            ..config(&["a.example"])
        };
        let zones = Zones::new(&config);
        let ip = "192.0.2.1".parse().unwrap();
        assert_eq!(zones.meaning(0, ip, &listed()), Meaning::Listed(1));
    }

    #[test]
    fn a_reason_is_asked_for_where_it_is_wanted() {
        let zones = Zones::new(&config(&["a.example", "b.example,txt"]));
        let ip = "192.0.2.1".parse().unwrap();
        assert_eq!(zones.reason(0, ip), None);
        let question = zones.reason(1, ip).unwrap();
        assert_eq!(
            (question.name.to_string().as_str(), question.kind),
            ("1.2.0.192.b.example", Kind::Txt)
        );
    }

    #[test]
    fn test_points_are_those_of_the_rfc() {
        let zones = Zones::new(&config(&["a.example"]));
        let names: Vec<String> = (0..POINTS as u8)
            .map(|point| zones.test_point(0, point).unwrap().name.to_string())
            .collect();
        let mapped =
            |last: &str| format!("{last}.0.0.0.0.0.f.7.f.f.f.f.{}a.example", "0.".repeat(20));
        assert_eq!(
            names,
            [
                "2.0.0.127.a.example".into(),
                "1.0.0.127.a.example".into(),
                mapped("2"),
                mapped("1"),
            ]
        );
        assert!(zones.test_point(0, POINTS as u8).is_none() && zones.test_point(1, 0).is_none());
    }
}
