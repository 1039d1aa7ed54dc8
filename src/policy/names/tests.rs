//! Tables: what is said, what DNS answers to which question, what is found.
//!
//! Each row runs with the answers in the order of the questions and in the reverse: when an answer comes must not matter.

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_smtp::path;

use super::*;
use crate::dns::{Failure, Kind};

const CLIENT: &str = "192.0.2.7";
const CLIENT6: &str = "2001:db8::7";
const PTR: &str = "7.2.0.192.in-addr.arpa";
const PTR6: &str = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";

/// `(name, kind, answer)`; a name that is not there does not exist.
type Zone<'a> = &'a [(&'a str, Kind, &'a str)];

fn outcome(kind: Kind, text: &str) -> Outcome {
    let words = || text.split_whitespace();
    let name = |word: &str| Name::parse(word.as_bytes()).unwrap();
    match (text, kind) {
        ("none", _) => Outcome::NoData,
        ("no", _) => Outcome::NoName,
        ("time", _) => Outcome::Failed(Failure::Timeout),
        ("fail", _) => Outcome::Failed(Failure::Server),
        (_, Kind::A) => Outcome::Records(Records::A(
            words()
                .map(|word| word.parse::<Ipv4Addr>().unwrap())
                .collect(),
        )),
        (_, Kind::Aaaa) => Outcome::Records(Records::Aaaa(
            words()
                .map(|word| word.parse::<Ipv6Addr>().unwrap())
                .collect(),
        )),
        (_, Kind::Ptr) => Outcome::Records(Records::Ptr(words().map(name).collect())),
        (_, Kind::Mx) => {
            Outcome::Records(Records::Mx(words().map(|word| (10, name(word))).collect()))
        }
        (_, Kind::Txt) => unreachable!("nobody asks"),
    }
}

fn answer(zone: Zone<'_>, question: &Question) -> Answer {
    let name = question.name.to_string();
    let text = zone
        .iter()
        .find(|(owner, kind, _)| *owner == name && *kind == question.kind)
        .map_or("no", |(_, _, text)| text);
    Answer {
        outcome: outcome(question.kind, text),
        until: Moment::from_micros(text.len() as u64),
    }
}

/// Whether answers are awaited that may lead to findings.
fn is_open(names: &Names) -> bool {
    let reverse = names.reverse.is_open() && names.wants.any(&Wants::REVERSE);
    reverse || names.helo.is_open() || names.sender.is_open()
}

/// Asks and answers until nothing is open. The questions that were asked, and what was found.
fn settle(names: &mut Names, zone: Zone<'_>, backwards: bool) -> (Vec<String>, Vec<Finding>) {
    let mut asked = Vec::new();
    let mut waiting = Vec::new();
    let mut found = Vec::new();
    loop {
        while let Some((topic, question)) = names.next_question() {
            asked.push(format!("{} {:?}", question.name, question.kind));
            waiting.push((topic, question));
        }
        found.extend(std::iter::from_fn(|| names.next_found()).map(|found| found.finding));
        if waiting.is_empty() {
            break;
        }
        let at = if backwards { waiting.len() - 1 } else { 0 };
        let (topic, question) = waiting.remove(at);
        names.heard(topic, &answer(zone, &question));
    }
    assert!(!is_open(names), "all is answered");
    (asked, found)
}

fn ours() -> Ours {
    Ours {
        hostname: (*b"mx.weir.example").into(),
        addresses: [
            IpAddr::from([198, 51, 100, 1]),
            "2001:db8::1".parse().unwrap(),
        ]
        .into(),
    }
}

fn wants(findings: &[Finding]) -> Wants {
    Wants::those(|finding| findings.contains(&finding))
}

fn both_ways(mut check: impl FnMut(bool)) {
    check(false);
    check(true);
}

#[test]
fn an_address_is_confirmed_by_any_of_its_names() {
    use Finding::{NoReverse, ReverseMismatch};
    let many: Vec<String> = (0..9).map(|n| format!("n{n}.example")).collect();
    let many = many.join(" ");
    let addresses = vec!["198.51.100.9"; 16].join(" ");
    // client, zone, found, name
    let table: &[(&str, Zone<'_>, &[Finding], Option<&str>)] = &[
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, "198.51.100.9 192.0.2.7"),
            ],
            &[],
            Some("a.example"),
        ),
        (
            "::ffff:192.0.2.7",
            &[
                (PTR, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, CLIENT),
            ],
            &[],
            Some("a.example"),
        ),
        (
            CLIENT6,
            &[
                (PTR6, Kind::Ptr, "a.example"),
                ("a.example", Kind::Aaaa, CLIENT6),
            ],
            &[],
            Some("a.example"),
        ),
        (
            CLIENT6,
            &[
                (PTR6, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, CLIENT),
            ],
            &[ReverseMismatch],
            None,
        ),
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example b.example"),
                ("b.example", Kind::A, CLIENT),
            ],
            &[],
            Some("b.example"),
        ),
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example b.example"),
                ("a.example", Kind::A, "time"),
                ("b.example", Kind::A, CLIENT),
            ],
            &[],
            Some("b.example"),
        ),
        (CLIENT, &[], &[NoReverse], None),
        (CLIENT, &[(PTR, Kind::Ptr, "none")], &[NoReverse], None),
        (CLIENT, &[(PTR, Kind::Ptr, "time")], &[], None),
        (CLIENT, &[(PTR, Kind::Ptr, "fail")], &[], None),
        (CLIENT, &[(PTR, Kind::Ptr, ".")], &[ReverseMismatch], None),
        (
            CLIENT,
            &[(PTR, Kind::Ptr, "a.example")],
            &[ReverseMismatch],
            None,
        ),
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, "none"),
            ],
            &[ReverseMismatch],
            None,
        ),
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, "198.51.100.9"),
            ],
            &[ReverseMismatch],
            None,
        ),
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, "time"),
            ],
            &[],
            None,
        ),
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example b.example"),
                ("a.example", Kind::A, "fail"),
                ("b.example", Kind::A, "198.51.100.9"),
            ],
            &[],
            None,
        ),
        // Cut answers: what is not there may be there all the same.
        (
            CLIENT,
            &[
                (PTR, Kind::Ptr, "a.example"),
                ("a.example", Kind::A, &addresses),
            ],
            &[],
            None,
        ),
        (CLIENT, &[(PTR, Kind::Ptr, &many)], &[], None),
        (
            CLIENT,
            &[(PTR, Kind::Ptr, "a.example a.example A.example")],
            &[ReverseMismatch],
            None,
        ),
    ];
    for (client, zone, want, name) in table {
        both_ways(|backwards| {
            let mut names = Names::new(client.parse().unwrap(), wants(&Wants::REVERSE));
            let (asked, found) = settle(&mut names, zone, backwards);
            assert_eq!(found, *want, "{client} {zone:?}");
            assert_eq!(
                names.confirmed().map(Name::to_string).as_deref(),
                *name,
                "{zone:?}"
            );
            assert!(asked.len() <= 9, "{asked:?}");
        });
    }
}

#[test]
fn a_name_in_helo_is_a_host_name_or_an_address() {
    use Finding::{HeloLiteral, HeloOurs, HeloSyntax};
    let table: &[(&str, &str, &[Finding])] = &[
        (CLIENT, "[192.0.2.7]", &[]),
        (CLIENT, "[IPv6:::ffff:192.0.2.7]", &[]),
        (CLIENT6, "[IPv6:2001:db8::7]", &[]),
        (CLIENT6, "[ipv6:2001:DB8:0::7]", &[]),
        (CLIENT, "[192.0.2.8]", &[HeloLiteral]),
        (CLIENT, "[10.0.0.1]", &[HeloLiteral]),
        (CLIENT, "[127.0.0.1]", &[HeloLiteral]),
        (CLIENT6, "[IPv6:2001:db8::8]", &[HeloLiteral]),
        (CLIENT, "[198.51.100.1]", &[HeloOurs]),
        (CLIENT, "[IPv6:2001:db8::1]", &[HeloOurs]),
        (CLIENT, "mx.weir.example", &[HeloOurs]),
        (CLIENT, "MX.Weir.Example", &[HeloOurs]),
        ("127.0.0.1", "mx.weir.example", &[]),
        ("198.51.100.1", "mx.weir.example", &[]),
        ("127.0.0.1", "[198.51.100.1]", &[]),
        (CLIENT, "192.0.2.7", &[HeloSyntax]),
        (CLIENT, "[192.0.2]", &[HeloSyntax]),
        (CLIENT, "[2001:db8::7]", &[HeloSyntax]),
        (CLIENT, "[x400:whatever]", &[HeloSyntax]),
        (CLIENT, "[192.0.2.7", &[HeloSyntax]),
        (CLIENT, "localhost", &[HeloSyntax]),
        (CLIENT, "a.example.", &[HeloSyntax]),
        (CLIENT, "a..example", &[HeloSyntax]),
        (CLIENT, ".example", &[HeloSyntax]),
        (CLIENT, "-a.example", &[HeloSyntax]),
        (CLIENT, "a-.example", &[HeloSyntax]),
        (CLIENT, "a.example b", &[HeloSyntax]),
        (CLIENT, "a@b.example", &[HeloSyntax]),
        (CLIENT, "b\u{fc}cher.example", &[HeloSyntax]),
        (CLIENT, "a.example.7", &[HeloSyntax]),
        (CLIENT, "under_score.example", &[]),
    ];
    for (client, argument, want) in table {
        let mut names = Names::new(client.parse().unwrap(), wants(&Wants::HELO[..4]));
        names.helo(argument.as_bytes(), &ours());
        let zone: Zone<'_> = &[("under_score.example", Kind::A, CLIENT)];
        assert_eq!(settle(&mut names, zone, false).1, *want, "{argument}");
    }
    let mut names = Names::new(CLIENT.parse().unwrap(), wants(&Wants::HELO));
    names.helo(format!("{}.example", "a".repeat(64)).as_bytes(), &ours());
    assert_eq!(names.next_found().unwrap().finding, HeloSyntax);
}

#[test]
fn a_name_in_helo_exists_and_leads_to_the_client() {
    use Finding::{HeloMismatch, HeloUnresolved};
    const HELO: &str = "h.example";
    let cut = vec!["198.51.100.9"; 16].join(" ");
    let table: &[(&str, Zone<'_>, &[Finding])] = &[
        (CLIENT, &[(HELO, Kind::A, "198.51.100.9 192.0.2.7")], &[]),
        (CLIENT6, &[(HELO, Kind::Aaaa, CLIENT6)], &[]),
        (CLIENT, &[(HELO, Kind::A, "198.51.100.9")], &[HeloMismatch]),
        (
            CLIENT,
            &[(HELO, Kind::A, "198.51.100.9"), (PTR, Kind::Ptr, "none")],
            &[HeloMismatch],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "198.51.100.9"),
                (PTR, Kind::Ptr, "x.example H.example"),
            ],
            &[],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "198.51.100.9"),
                (PTR, Kind::Ptr, "x.example"),
                ("x.example", Kind::A, CLIENT),
            ],
            &[HeloMismatch],
        ),
        (
            CLIENT,
            &[(HELO, Kind::A, "198.51.100.9"), (PTR, Kind::Ptr, "time")],
            &[],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "198.51.100.9"),
                (PTR, Kind::Ptr, "x.example"),
                ("x.example", Kind::A, "time"),
            ],
            &[HeloMismatch],
        ),
        (CLIENT, &[(HELO, Kind::A, &cut)], &[]),
        (CLIENT, &[], &[HeloUnresolved]),
        (CLIENT, &[(HELO, Kind::A, "time")], &[]),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "time"),
                (HELO, Kind::Aaaa, "none"),
                (HELO, Kind::Mx, "none"),
            ],
            &[],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "none"),
                (HELO, Kind::Aaaa, "none"),
                (HELO, Kind::Mx, "none"),
            ],
            &[HeloUnresolved],
        ),
        (
            CLIENT,
            &[(HELO, Kind::A, "none"), (HELO, Kind::Aaaa, CLIENT6)],
            &[],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "none"),
                (HELO, Kind::Aaaa, "none"),
                (HELO, Kind::Mx, "mx.example"),
            ],
            &[],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "none"),
                (HELO, Kind::Aaaa, "none"),
                (HELO, Kind::Mx, "."),
            ],
            &[HeloUnresolved],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "none"),
                (HELO, Kind::Aaaa, "fail"),
                (HELO, Kind::Mx, "none"),
            ],
            &[],
        ),
        (
            CLIENT,
            &[
                (HELO, Kind::A, "none"),
                (HELO, Kind::Aaaa, "none"),
                (HELO, Kind::Mx, "time"),
            ],
            &[],
        ),
        (
            CLIENT6,
            &[(HELO, Kind::Aaaa, "no"), (HELO, Kind::A, CLIENT)],
            &[],
        ),
        (CLIENT6, &[], &[HeloUnresolved]),
    ];
    for (client, zone, want) in table {
        both_ways(|backwards| {
            let mut names = Names::new(client.parse().unwrap(), wants(&Wants::HELO));
            names.helo(HELO.as_bytes(), &ours());
            let (_, found) = settle(&mut names, zone, backwards);
            assert_eq!(found, *want, "{client} {zone:?}");
        });
    }
}

#[test]
fn a_sender_s_domain_takes_mail() {
    use Finding::{SenderNullMx, SenderUnresolved};
    const FROM: &str = "s.example";
    let table: &[(&str, Zone<'_>, &[Finding])] = &[
        ("<a@s.example>", &[(FROM, Kind::Mx, "mx.example")], &[]),
        ("<a@S.EXAMPLE>", &[(FROM, Kind::Mx, "mx.example .")], &[]),
        ("<a@s.example>", &[(FROM, Kind::Mx, ".")], &[SenderNullMx]),
        ("<a@s.example>", &[], &[SenderUnresolved]),
        ("<a@s.example>", &[(FROM, Kind::Mx, "time")], &[]),
        ("<a@s.example>", &[(FROM, Kind::Mx, "fail")], &[]),
        (
            "<a@s.example>",
            &[(FROM, Kind::Mx, "none"), (FROM, Kind::A, CLIENT)],
            &[],
        ),
        (
            "<a@s.example>",
            &[
                (FROM, Kind::Mx, "none"),
                (FROM, Kind::A, "none"),
                (FROM, Kind::Aaaa, CLIENT6),
            ],
            &[],
        ),
        (
            "<a@s.example>",
            &[
                (FROM, Kind::Mx, "none"),
                (FROM, Kind::A, "none"),
                (FROM, Kind::Aaaa, "none"),
            ],
            &[SenderUnresolved],
        ),
        (
            "<a@s.example>",
            &[
                (FROM, Kind::Mx, "none"),
                (FROM, Kind::A, "time"),
                (FROM, Kind::Aaaa, "none"),
            ],
            &[],
        ),
        (
            "<a@s.example>",
            &[
                (FROM, Kind::Mx, "none"),
                (FROM, Kind::A, "none"),
                (FROM, Kind::Aaaa, "fail"),
            ],
            &[],
        ),
        (
            "<@relay.example:a@s.example>",
            &[(FROM, Kind::Mx, "mx.example")],
            &[],
        ),
        ("<>", &[], &[]),
        ("<postmaster>", &[], &[]),
        ("<a@[192.0.2.7]>", &[], &[]),
        ("<a@b\u{fc}cher.example>", &[], &[]),
    ];
    for (sender, zone, want) in table {
        both_ways(|backwards| {
            let mut names = Names::new(CLIENT.parse().unwrap(), wants(&Wants::SENDER));
            names.sender(&path::parse(sender.as_bytes()).unwrap().0);
            let (_, found) = settle(&mut names, zone, backwards);
            assert_eq!(found, *want, "{sender} {zone:?}");
        });
    }
    let long = format!("<a@{}.example>", "a".repeat(64));
    let mut names = Names::new(CLIENT.parse().unwrap(), wants(&Wants::SENDER));
    names.sender(&path::parse(long.as_bytes()).unwrap().0);
    assert_eq!(
        settle(&mut names, &[], false),
        (vec![], vec![SenderUnresolved])
    );
}

#[test]
fn what_is_not_wanted_is_not_asked() {
    let all: &[&[Finding]] = &[&Wants::REVERSE, &Wants::HELO, &Wants::SENDER];
    let every: Vec<Finding> = all.concat();
    let table: &[(&[Finding], usize)] = &[
        (&[], 0),
        (
            &[Finding::HeloSyntax, Finding::HeloOurs, Finding::HeloLiteral],
            0,
        ),
        (&[Finding::NoReverse], 1),
        (&[Finding::HeloUnresolved], 1),
        (&[Finding::HeloMismatch], 2),
        (&[Finding::SenderNullMx], 1),
        (&every, 3),
    ];
    for (findings, questions) in table {
        let mut names = Names::new(CLIENT.parse().unwrap(), wants(findings));
        names.helo(b"h.example", &ours());
        names.sender(&path::parse(b"<a@s.example>").unwrap().0);
        let (asked, found) = settle(&mut names, &[], false);
        assert_eq!(asked.len(), *questions, "{findings:?}: {asked:?}");
        let not_wanted = found.iter().find(|finding| !findings.contains(finding));
        assert_eq!(not_wanted, None, "{findings:?}");
    }
}

#[test]
fn an_answer_about_an_earlier_name_is_not_heard() {
    let mut names = Names::new(CLIENT.parse().unwrap(), wants(&Wants::SENDER));
    names.sender(&path::parse(b"<a@old.example>").unwrap().0);
    let (old, question) = names.next_question().unwrap();
    names.sender(&path::parse(b"<a@new.example>").unwrap().0);
    names.heard(old, &answer(&[], &question));
    assert_eq!(names.next_found(), None);
    let (new, _) = names.next_question().unwrap();
    assert!(is_open(&names));
    let refused = Answer {
        outcome: outcome(Kind::Mx, "."),
        until: Moment::from_micros(9),
    };
    names.heard(new, &refused);
    let want = Found {
        finding: Finding::SenderNullMx,
        until: Moment::from_micros(9),
    };
    assert_eq!(names.next_found(), Some(want));
    names.heard(new, &refused);
    assert_eq!(names.next_found(), None, "twice is no news");
}

#[test]
fn a_finding_holds_as_long_as_all_that_led_to_it() {
    let mut names = Names::new(CLIENT.parse().unwrap(), wants(&Wants::REVERSE));
    let mut hear = |until: u64, kind, text| {
        let (topic, _) = names.next_question().unwrap();
        let until = Moment::from_micros(until);
        let outcome = outcome(kind, text);
        names.heard(topic, &Answer { outcome, until });
        names.next_found()
    };
    assert_eq!(hear(50, Kind::Ptr, "a.example"), None);
    let found = hear(90, Kind::A, "198.51.100.9").unwrap();
    assert_eq!(found.until, Moment::from_micros(50));
}
