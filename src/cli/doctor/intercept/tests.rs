//! What the doctor says of packet rules, routes and source checks, each case by what the host's tools would tell.

use super::*;
use crate::cli::doctor::packet_rules::Taking;
use crate::cli::doctor::tests::config;

const PATH: &[&str] = &["--listen", "127.0.0.1:2525", "--listen", "[::1]:2525"];

fn wish(words: &[&str]) -> Wish {
    Wish::of(&config(&[PATH, words].concat())).expect("something transparent")
}

fn tproxy(port: u16) -> Taking {
    Taking {
        way: Intercept::Tproxy,
        v4: true,
        v6: true,
        port: Some(port),
        mark: Some(1),
        output: false,
    }
}

fn levels(points: &[Point]) -> Vec<Level> {
    points.iter().map(|point| point.level).collect()
}

const BOTH: &[&str] = &["--transparent", "--identity", "transparent"];

#[test]
fn who_intercepts_nothing_hears_nothing() {
    assert!(Wish::of(&config(&["--identity", "proxy-v2"])).is_none());
    assert!(points(&config(&[])).is_empty());
    let shown = wish(&["--identity", "transparent"]);
    assert!(shown.way.is_none() && shown.needs_transparent_sockets());
    assert!(
        !wish(&["--transparent", "redirect", "--relay-domains", "any"]).needs_transparent_sockets()
    );
}

#[test]
fn rules_have_to_lead_to_a_listener() {
    let wish = wish(BOTH);
    let socket = vec![Some(1)];
    let of = |takings: Vec<Taking>, sockets: &Vec<Option<u32>>| {
        let rules = PacketRules {
            takings,
            sockets: sockets.clone(),
            foreign: false,
        };
        levels(&wish.rules_points(&rules))
    };
    use Level::{Failure, Good, Warning};
    assert_eq!(of(vec![tproxy(2525)], &socket), [Good, Good]);
    assert_eq!(of(vec![tproxy(2526)], &socket), [Warning, Warning]);
    assert_eq!(of(vec![], &socket), [Warning, Warning]);
    let v4 = Taking {
        v6: false,
        ..tproxy(2525)
    };
    assert_eq!(of(vec![v4], &socket), [Good, Warning]);
    let nat = Taking {
        way: Intercept::Redirect,
        ..tproxy(2525)
    };
    assert_eq!(of(vec![nat], &socket), [Warning, Warning]);
    assert_eq!(of(vec![tproxy(2525)], &vec![]), [Good, Good, Failure]);
}

#[test]
fn what_takes_weirs_own_connections_needs_a_mark() {
    let rules = PacketRules {
        takings: vec![Taking {
            way: Intercept::Redirect,
            output: true,
            ..tproxy(2525)
        }],
        ..PacketRules::default()
    };
    let redirect = ["--transparent", "redirect", "--relay-domains", "any"];
    let points = wish(&redirect).rules_points(&rules);
    assert_eq!(levels(&points), [Level::Good, Level::Good, Level::Failure]);
    let marked = [&redirect[..], &["--transparent-mark", "2"]].concat();
    assert_eq!(wish(&marked).rules_points(&rules).len(), 2);
}

#[test]
fn marks_have_to_lead_to_this_host() {
    let wish = wish(BOTH);
    let rules = PacketRules {
        takings: vec![tproxy(2525)],
        sockets: vec![Some(1)],
        foreign: false,
    };
    let good = || {
        Routes::of(
            r#"[{"fwmark":"0x1","table":"100"}]"#,
            r#"[{"type":"local","dst":"default","table":"100"}]"#,
        )
        .ok_or_else(String::new)
    };
    let told = |routes| levels(&wish.route_points(&rules, routes));
    use Level::{Failure, Good, Warning};
    assert_eq!(told([good(), good()]), [Good, Good]);
    assert_eq!(told([good(), Ok(Routes::default())]), [Good, Failure]);
    assert_eq!(told([Err("no ip".into()), good()]), [Warning, Good]);
    assert!(
        wish.route_points(&PacketRules::default(), [good(), good()])
            .is_empty()
    );
}

#[test]
fn source_checks_by_interface() {
    let of = |all: &str, eth0: &str| -> Vec<(String, String)> {
        [("all", all), ("default", "1"), ("eth0", eth0), ("lo", "1")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    let told = |filter: Vec<_>, mark: Vec<_>| levels(&source_checks(&filter, &mark));
    use Level::{Failure, Good, Warning};
    assert_eq!(told(of("0", "0"), of("0", "0")), [Good]);
    assert_eq!(told(of("2", "1"), of("0", "0")), [Good], "the higher one");
    assert_eq!(told(of("0", "1"), of("0", "0")), [Warning]);
    assert_eq!(told(of("1", "0"), of("0", "1")), [Warning, Failure]);
    assert_eq!(told(vec![], of("1", "0")), [Good, Failure]);
}

#[test]
fn the_kernel_conntrack_and_forwarding() {
    use Level::{Failure, Good, Warning};
    let level = |trial: Result<String, String>| kernel(trial).map(|point| point.level);
    assert_eq!(level(Ok(String::new())), Some(Good));
    assert_eq!(level(Err("nft is not installed".into())), Some(Warning));
    assert_eq!(
        level(Err("nft: Could not process rule".into())),
        Some(Failure)
    );
    for (max, expected) in [("262144", Good), ("1000", Warning), ("", Warning)] {
        assert_eq!(conntrack(max, 100_000).level, expected, "{max}");
    }
    let told = |v4, v6| forwarding(v4, v6).map(|point| (point.level, point.what));
    assert_eq!(told("1", "1").map(|told| told.0), Some(Good));
    let (level, what) = told("0", "1").unwrap();
    assert_eq!(level, Warning);
    assert!(
        what.contains("ip_forward") && !what.contains("ipv6"),
        "{what}"
    );
}
