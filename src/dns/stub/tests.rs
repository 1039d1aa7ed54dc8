//! A question's life as a shard would drive it: with time, servers and chance in hand.

use std::time::Duration;

use super::super::testing::*;
use super::super::{Answer, Config, Failure, Kind, Name, Outcome, Question};

const SECOND_LONG: Duration = Duration::from_secs(1);

#[test]
fn a_question_is_one_datagram_and_its_answer_is_kept() {
    let mut bench = Bench::new(&[FIRST]);
    assert_eq!(bench.ask("mail.example", Kind::A, 1), None);
    assert_eq!(bench.sent.len(), 1);
    bench.reply(&Reply::with(vec![a("mail.example", 60, [192, 0, 2, 9])]));
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
    let known = bench.ask("Mail.Example", Kind::A, 2).unwrap();
    assert_eq!(known.until.since(bench.now), Duration::from_secs(60));
    bench.wait(Duration::from_secs(59));
    assert!(bench.ask("mail.example", Kind::A, 3).is_some());
    bench.wait(SECOND_LONG);
    assert_eq!(bench.ask("mail.example", Kind::A, 4), None);
    assert_eq!(bench.sent.len(), 2);
    let stats = bench.stub.stats();
    assert_eq!((stats.asked, stats.hits, stats.datagrams), (4, 2, 2));
}

#[test]
fn who_asks_the_same_waits_for_the_same_answer() {
    let mut bench = Bench::new(&[FIRST]);
    for asker in 0..3 {
        assert_eq!(bench.ask("a.example", Kind::A, asker), None);
    }
    assert_eq!(bench.ask("a.example", Kind::Aaaa, 3), None);
    assert_eq!(bench.sent.len(), 2);
    let first = bench.sent[0].clone();
    bench.datagram(first.port, &Reply::code(3).to(&first.query));
    assert_eq!(bench.told(), "0 NoName; 1 NoName; 2 NoName");
    assert_eq!(bench.stub.open(), 1);
}

#[test]
fn silence_moves_on_to_the_next_server_and_a_late_answer_counts() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    bench.wait(Duration::from_secs(2));
    let servers: Vec<_> = bench
        .sent
        .iter()
        .map(|sent| sent.server.to_string())
        .collect();
    assert_eq!(servers, [FIRST, SECOND]);
    let first = bench.sent[0].clone();
    bench.datagram(
        first.port,
        &Reply::with(vec![a("a.example", 60, [192, 0, 2, 9])]).to(&first.query),
    );
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
    // What the second says is of no more interest, and no sign of anything bad.
    let late = bench.stub.stats().late;
    bench.reply(&Reply::code(3));
    assert_eq!(bench.stub.stats().late, late + 1);
    assert_eq!(bench.stub.stats().strays, 0);
}

#[test]
fn nobody_there_is_not_known_once_patience_is_over() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    bench.wait(Duration::from_millis(4999));
    assert_eq!(bench.told(), "");
    bench.wait(Duration::from_millis(1));
    assert_eq!(bench.told(), "1 Failed(Timeout)");
    assert_eq!(bench.sent.len(), 3);
    // Held for a moment: not each client costs queries.
    let known = bench.ask("a.example", Kind::A, 2).unwrap();
    assert_eq!(known.outcome, Outcome::Failed(Failure::Timeout));
    bench.wait(Duration::from_secs(5));
    assert_eq!(bench.ask("a.example", Kind::A, 3), None);
}

#[test]
fn servfail_is_no_answer_and_the_next_server_is_asked_at_once() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::code(2));
    assert_eq!(bench.sent.len(), 2);
    bench.reply(&Reply::code(5));
    assert_eq!(bench.told(), "1 Failed(Server)");
}

#[test]
fn without_servers_nothing_is_known() {
    let mut bench = Bench::new(&[]);
    let answer = bench.ask("a.example", Kind::A, 1).unwrap();
    assert_eq!(answer.outcome, Outcome::Failed(Failure::NoServer));
    assert!(answer.until <= bench.now);
}

#[test]
fn no_more_is_open_than_may_be() {
    let mut bench = Bench::with(Config {
        servers: vec![FIRST.parse().unwrap()],
        open_max: 2,
        ..Config::default()
    });
    assert_eq!(bench.ask("a.example", Kind::A, 1), None);
    assert_eq!(bench.ask("b.example", Kind::A, 2), None);
    let answer = bench.ask("c.example", Kind::A, 3).unwrap();
    assert_eq!(answer.outcome, Outcome::Failed(Failure::Busy));
    // One that is open already may be joined.
    assert_eq!(bench.ask("b.example", Kind::A, 4), None);
}

#[test]
fn a_flood_of_names_leaves_room_for_what_others_say() {
    let mut bench = Bench::with(Config {
        servers: vec![FIRST.parse().unwrap()],
        open_max: 8,
        ..Config::default()
    });
    let question = |name: &str| Question {
        name: Name::parse(name.as_bytes()).unwrap(),
        kind: Kind::A,
    };
    let busy = Outcome::Failed(Failure::Busy);
    for number in 0..8 {
        let name = question(&format!("n{number}.example"));
        let answer = bench.stub.ask_for_client(&name, number, bench.now);
        let want = (number >= 6).then_some(&busy);
        assert_eq!(answer.as_ref().map(|it| &it.outcome), want, "{number}");
    }
    assert_eq!(bench.ask("1.list.example", Kind::A, 8), None);
    assert_eq!(bench.ask("2.list.example", Kind::A, 9), None);
    assert_eq!(
        bench.ask("3.list.example", Kind::A, 10).unwrap().outcome,
        busy
    );
}

#[test]
fn many_may_wait_for_a_list_and_few_for_a_name() {
    let mut bench = Bench::new(&[FIRST]);
    let name = Question {
        name: Name::parse(b"a.example").unwrap(),
        kind: Kind::A,
    };
    let few = super::super::flights::ASKERS_OF_CLIENTS_MAX as u32;
    let waits = |answer: Option<Answer>| answer.is_none();
    for asker in 0..few + 1 {
        let answer = bench.stub.ask_for_client(&name, asker, bench.now);
        assert_eq!(waits(answer), asker < few);
    }
    for asker in 0..8192 {
        assert!(
            waits(bench.ask("1.list.example", Kind::A, asker)),
            "{asker}"
        );
    }
    assert!(!waits(bench.ask("1.list.example", Kind::A, 8192)));
}
