//! What DNS says of a client, and what that leads to: lists and names, from the question to the reply.
//!
//! A table of names is the whole of DNS; questions stay open until the test lets it answer.

use super::*;
use crate::dns::{Answer, Failure, Kind, Name, Outcome, Question, Records};
use crate::policy::dnsbl::{self, Standing, Standings, Why, zones};
use crate::policy::reputation;
use crate::policy::{Action, Finding, On};
use crate::shard::lookups::Asker;

/// `(name, kind, answer)`; what is not there does not exist.
type Zone<'a> = &'a [(&'a str, Kind, &'a str)];

const PTR: &str = "1.100.51.198.in-addr.arpa";
const CLEAN: Zone<'static> = &[
    (PTR, Kind::Ptr, "c.example"),
    ("c.example", Kind::A, "198.51.100.1"),
    ("c.example", Kind::Mx, "mx.c.example"),
];

/// `lists` as in --dnsbl, `on` as in --on; with a score of 5 a recipient is rejected.
fn asking(lists: &[&str], on: &[&str]) -> Stage {
    let lists = lists.iter().map(|list| list.parse().expect("a list"));
    let on = on.iter().chain(&["score-reject=reject"]);
    let on = on.map(|on| on.parse::<On>().expect("a finding and an action"));
    let mut reputation = reputation::Config {
        on: true,
        ..reputation::Config::default()
    };
    reputation.thresholds.set(Finding::ScoreReject, Some(5));
    let config = WorldConfig {
        policy: Arc::new(policy::Config {
            actions: on.collect(),
            dnsbl: dnsbl::Config {
                zones: zones(lists.collect()).expect("lists that go together"),
                // Believed untested: tests of lists are told of elsewhere.
                recheck: Duration::ZERO,
            },
            reputation,
            ..policy::Config::default()
        }),
        ..settings()
    };
    let mut stage = Stage::new(config, 1, 10);
    stage.world.asked = Some(Vec::new());
    stage
}

fn outcome(kind: Kind, text: &str) -> Outcome {
    let name = Name::parse(text.as_bytes()).expect("a name");
    let address = || text.parse().expect("an address");
    match (text, kind) {
        ("none", _) => Outcome::NoData,
        ("time", _) => Outcome::Failed(Failure::Timeout),
        (_, Kind::A) => Outcome::Records(Records::A([address()].into())),
        (_, Kind::Ptr) => Outcome::Records(Records::Ptr([name].into())),
        (_, Kind::Mx) => Outcome::Records(Records::Mx([(10, name)].into())),
        (_, Kind::Txt) => Outcome::Records(Records::Txt([text.as_bytes().into()].into())),
        (_, Kind::Aaaa) => panic!("no client has such an address"),
    }
}

fn said(zone: Zone<'_>, question: &Question) -> Outcome {
    let name = question.name.to_string();
    let record = zone
        .iter()
        .find(|(owner, kind, _)| (*owner, *kind) == (name.as_str(), question.kind));
    record.map_or(Outcome::NoName, |(_, kind, text)| outcome(*kind, text))
}

/// DNS answers everything that is asked, and what is asked for that. All questions.
fn resolve(stage: &mut Stage, zone: Zone<'_>) -> Vec<String> {
    let mut asked = Vec::new();
    loop {
        let open = stage
            .world
            .asked
            .replace(Vec::new())
            .expect("they stay open");
        if open.is_empty() {
            return asked;
        }
        for (question, asker) in open {
            asked.push(format!("{} {:?}", question.name, question.kind));
            resolve_one(stage, zone, &question, asker);
        }
    }
}

fn resolve_one(stage: &mut Stage, zone: Zone<'_>, question: &Question, asker: Asker) {
    let answer = Answer {
        outcome: said(zone, question),
        until: stage.now + Duration::from_secs(60),
    };
    stage.world.now = stage.now;
    stage.world.heard(asker, &answer);
    stage.settle();
}

fn noticed(stage: &Stage, finding: Finding) -> u64 {
    let actions = Action::ALL.iter();
    let cells = actions.map(|action| {
        stage
            .counters
            .findings
            .at(finding as usize, *action as usize)
    });
    cells.map(|cell| cell.value()).sum()
}

/// The last line of what it was told.
fn last(stage: &mut Stage, client: SlotId) -> String {
    let heard = stage.heard(client);
    heard.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_listed_client_is_told_by_whom_and_why() {
    let mut stage = asking(&["0123456789abcdef0.bl.example=127.0.0.2*5,txt"], &[]);
    let zone = &[
        (
            "1.100.51.198.0123456789abcdef0.bl.example",
            Kind::A,
            "127.0.0.2",
        ),
        (
            "1.100.51.198.0123456789abcdef0.bl.example",
            Kind::Txt,
            "see\r\nhttps://bl.example/",
        ),
    ];
    let client = stage.client();
    resolve(&mut stage, zone);
    stage.say(
        client,
        "EHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n",
    );
    resolve(&mut stage, zone);
    assert_eq!(
        last(&mut stage, client),
        "550 5.7.1 Service unavailable; client [198.51.100.1] blocked using bl.example; see https://bl.example/"
    );
    assert_eq!(noticed(&stage, Finding::Dnsbl), 1);
    assert_eq!(noticed(&stage, Finding::ScoreReject), 1);
    // From the next client on the list's name alone is refused by: the finding itself.
    let mut stage = asking(&["bl.example=127.0.0.2*1"], &["dnsbl=drop"]);
    let client = stage.client();
    resolve(
        &mut stage,
        &[("1.100.51.198.bl.example", Kind::A, "127.0.0.2")],
    );
    stage.say(client, "EHLO c.example\r\n");
    assert_eq!(
        last(&mut stage, client),
        "521 5.7.1 Service unavailable; client [198.51.100.1] blocked using bl.example"
    );
}

#[test]
fn lists_speak_against_a_client_and_for_it() {
    let lists = [
        "a.example*3",
        "b.example*3",
        "w.example*-2",
        "w.example=127.0.0.9*-9",
    ];
    // which of them list it, refused
    let table: [(&[(&str, &str)], bool); 6] = [
        (&[("a", "127.0.0.2")], false),
        (&[("a", "127.0.0.2"), ("b", "127.0.0.2")], true),
        (
            &[("a", "127.0.0.2"), ("b", "127.0.0.2"), ("w", "127.0.0.2")],
            false,
        ),
        (&[("a", "127.0.0.2"), ("b", "127.255.255.254")], false),
        (&[("a", "127.0.0.2"), ("b", "198.51.100.1")], false),
        (&[("a", "127.0.0.2"), ("b", "time")], false),
    ];
    for (listings, refused) in table {
        let mut stage = asking(&lists, &[]);
        let client = stage.client();
        let names: Vec<(String, &str)> = listings
            .iter()
            .map(|(list, says)| (format!("1.100.51.198.{list}.example"), *says))
            .collect();
        let zone: Vec<(&str, Kind, &str)> = names
            .iter()
            .map(|(name, says)| (name.as_str(), Kind::A, *says))
            .chain(CLEAN.iter().copied())
            .collect();
        stage.ask(client);
        resolve(&mut stage, &zone);
        assert_eq!(stage.legs(1).is_empty(), refused, "{listings:?}");
    }
}

#[test]
fn a_list_that_is_suspended_before_it_answers_is_not_believed() {
    let mut stage = asking(&["bl.example*9"], &[]);
    let client = stage.client();
    let lies = Standings::both(Standing::Suspended(Why::ListsAll));
    let told = Mail::ListTested {
        list: 0,
        standings: lies,
    };
    stage.world.handle_mail(stage.now, told);
    let zone = &[("1.100.51.198.bl.example", Kind::A, "127.0.0.2")];
    stage.ask(client);
    resolve(&mut stage, zone);
    assert_eq!(stage.legs(1).len(), 1, "it goes to the mail server");
    let next = stage.client();
    let asked = resolve(&mut stage, zone);
    assert!(
        !asked.iter().any(|name| name.contains("bl.example")),
        "{asked:?}"
    );
    stage.say(next, "QUIT\r\n");
}

#[test]
fn names_are_found_out_from_greeting_to_sender() {
    use Finding::*;
    let all = [
        NoReverse,
        ReverseMismatch,
        HeloSyntax,
        HeloLiteral,
        HeloUnresolved,
        HeloOurs,
        HeloMismatch,
        SenderUnresolved,
        SenderNullMx,
    ];
    let with =
        |more: &[(&'static str, Kind, &'static str)]| -> Vec<(&'static str, Kind, &'static str)> {
            more.iter().chain(CLEAN).copied().collect()
        };
    // helo, sender, more of DNS, found
    let table: Vec<(&str, &str, Vec<_>, &[Finding])> = vec![
        ("c.example", "a@c.example", with(&[]), &[]),
        ("c.example", "", with(&[]), &[]),
        ("c.example", "a@[192.0.2.1]", with(&[]), &[]),
        (
            "c.example",
            "a@c.example",
            with(&[(PTR, Kind::Ptr, "none")]),
            &[NoReverse],
        ),
        (
            "c.example",
            "a@c.example",
            with(&[(PTR, Kind::Ptr, "time")]),
            &[],
        ),
        (
            "c.example",
            "a@c.example",
            with(&[(PTR, Kind::Ptr, "x.example")]),
            &[ReverseMismatch],
        ),
        ("c", "a@c.example", with(&[]), &[HeloSyntax]),
        ("[192.0.2.1]", "a@c.example", with(&[]), &[HeloLiteral]),
        ("[198.51.100.1]", "a@c.example", with(&[]), &[]),
        ("x.example", "a@c.example", with(&[]), &[HeloUnresolved]),
        ("weir.example", "a@c.example", with(&[]), &[HeloOurs]),
        (
            "x.example",
            "a@c.example",
            with(&[("x.example", Kind::A, "192.0.2.1")]),
            &[HeloMismatch],
        ),
        ("c.example", "a@x.example", with(&[]), &[SenderUnresolved]),
        (
            "c.example",
            "a@x.example",
            with(&[("x.example", Kind::Mx, ".")]),
            &[SenderNullMx],
        ),
        (
            "c.example",
            "a@x.example",
            with(&[("x.example", Kind::Mx, "time")]),
            &[],
        ),
    ];
    for (helo, sender, zone, want) in table {
        let mut stage = asking(&[], &["helo-ours=score=4"]);
        let client = stage.client();
        stage.say(client, &format!("EHLO {helo}\r\n"));
        resolve(&mut stage, &zone);
        stage.say(
            client,
            &format!("MAIL FROM:<{sender}>\r\nRCPT TO:<b@d.example>\r\n"),
        );
        resolve(&mut stage, &zone);
        let found: Vec<Finding> = all
            .iter()
            .copied()
            .filter(|one| noticed(&stage, *one) > 0)
            .collect();
        assert_eq!(found, want, "{helo} {sender} {zone:?}");
        assert_eq!(
            stage.legs(1).len(),
            1,
            "nothing is refused that is only logged"
        );
    }
}

#[test]
fn what_is_found_of_a_sender_ends_with_its_transaction() {
    let mut stage = asking(
        &[],
        &["sender-null-mx=reject", "helo-unresolved=log,score=2"],
    );
    let zone = &[("x.example", Kind::Mx, "."), CLEAN[0], CLEAN[1], CLEAN[2]];
    let client = stage.client();
    stage.say(
        client,
        "EHLO nobody.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@d.example>\r\n",
    );
    assert!(
        !last(&mut stage, client).starts_with('5'),
        "it waits for the answer"
    );
    resolve(&mut stage, zone);
    assert!(
        last(&mut stage, client).starts_with("550 5.7.27 "),
        "null MX"
    );
    stage.say(
        client,
        "RSET\r\nEHLO c.example\r\nMAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n",
    );
    resolve(&mut stage, zone);
    assert_eq!(stage.legs(1).len(), 1);
    let (session, _) = stage.world.sessions.iter().next().expect("a session");
    let findings = stage.world.findings_of(session).expect("it is inquired of");
    assert_eq!(
        findings.score,
        Some(0),
        "the name of before is not held against it"
    );
}

#[test]
fn what_is_off_is_not_asked() {
    let off = [
        "no-reverse=off",
        "reverse-mismatch=off",
        "helo-unresolved=off",
        "helo-mismatch=off",
        "sender-unresolved=off",
        "sender-null-mx=off",
        "dnsbl=off",
    ];
    let mut stage = asking(&["bl.example", "wl.example*-1"], &off);
    let client = stage.client();
    stage.ask(client);
    assert_eq!(resolve(&mut stage, CLEAN), ["1.100.51.198.wl.example A"]);
}

#[test]
fn of_several_questions_about_a_name_one_finding_comes() {
    let names = |weight: &str| {
        let on = [
            weight,
            "no-reverse=off",
            "reverse-mismatch=off",
            "helo-mismatch=off",
            "sender-unresolved=off",
            "sender-null-mx=off",
        ];
        let mut stage = asking(&[], &on);
        let client = stage.client();
        stage.say(client, "EHLO x.example\r\n");
        let zone = &[("x.example", Kind::A, "none")];
        let first = stage.world.asked.replace(Vec::new()).expect("open");
        for (question, asker) in first {
            resolve_one(&mut stage, zone, &question, asker);
        }
        let open = stage.world.asked.as_ref().map(Vec::len);
        assert_eq!(open, Some(2), "another kind of address, a mail server");
        stage.ask(client);
        stage.legs(1).len()
    };
    assert_eq!(names("helo-unresolved=score=4"), 1, "4 points, not 8");
    assert_eq!(names("helo-unresolved=score=5"), 0, "it waits");
}
