//! What others than the server may send, or a server that has gone wrong: nothing of it is believed, and the answer still counts.

use std::time::Duration;

use super::super::testing::*;
use super::super::{Config, Kind, PortId};

const IP: [u8; 4] = [192, 0, 2, 9];
const FORGED: [u8; 4] = [203, 0, 113, 66];

fn asked() -> (Bench, Sent) {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("mail.example", Kind::A, 1);
    let sent = bench.sent[0].clone();
    (bench, sent)
}

fn answer(ip: [u8; 4]) -> Reply {
    Reply::with(vec![a("mail.example", 60, ip)])
}

#[test]
fn what_is_not_the_answer_changes_nothing() {
    let (_, sent) = asked();
    let good = answer(FORGED).to(&sent.query);
    let question_end = 12 + wire("mail.example").len() + 4;
    let with = |at: usize, change: &dyn Fn(u8) -> u8| {
        let mut message = good.clone();
        message[at] = change(message[at]);
        message
    };
    let table = [
        ("another id", with(1, &|octet| octet ^ 1)),
        ("a query", with(2, &|octet| octet & 0x7f)),
        ("another opcode", with(2, &|octet| octet | 0x28)),
        ("no question", with(5, &|_| 0)),
        ("two questions", with(5, &|_| 2)),
        ("another name", with(13, &|octet| octet ^ 3)),
        ("another kind", with(question_end - 3, &|_| 28)),
        ("another class", with(question_end - 1, &|_| 3)),
        (
            "a record that does not end",
            good[..good.len() - 1].to_vec(),
        ),
        ("nothing", Vec::new()),
        ("half a header", good[..7].to_vec()),
        ("its own query", sent.query.clone()),
    ];
    for (label, message) in table {
        let (mut bench, sent) = asked();
        bench.datagram(sent.port, &message);
        assert_eq!(bench.told(), "", "{label}");
        let stats = bench.stub.stats();
        assert_eq!(stats.strays + stats.garbage, 1, "{label}");
        bench.datagram(sent.port, &answer(IP).to(&sent.query));
        assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))", "{label}");
    }
}

#[test]
fn an_answer_to_another_port_is_none() {
    let mut bench = Bench::new(&[FIRST]);
    for asker in 0..32 {
        bench.ask(&format!("m{asker}.example"), Kind::A, asker);
    }
    let first = bench.sent[0].clone();
    let elsewhere = bench.sent.iter().find(|sent| sent.port != first.port);
    let elsewhere = elsewhere.expect("32 draws of 16").port;
    bench.datagram(elsewhere, &Reply::code(3).to(&first.query));
    assert_eq!(bench.told(), "");
}

#[test]
fn what_nobody_asked_for_is_not_known_afterwards() {
    let (mut bench, sent) = asked();
    let reply = Reply::with(vec![
        a("mail.example", 60, IP),
        a("bank.example", 60, FORGED),
        cname("www.example", 60, "evil.example"),
    ])
    .authority(ns("example", 60, "evil.example"))
    .authority(a("shop.example", 60, FORGED))
    .additional(a("ns.example", 60, FORGED))
    .additional(a("mail.example", 60, FORGED));
    bench.datagram(sent.port, &reply.to(&sent.query));
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
    assert_eq!(bench.stub.cached(), 1);
    for name in [
        "bank.example",
        "www.example",
        "shop.example",
        "ns.example",
        "evil.example",
        "example",
    ] {
        assert_eq!(bench.ask(name, Kind::A, 2), None, "{name}");
    }
}

/// Whoever guesses gets so many tries; then the question goes where guesses do not reach.
#[test]
fn a_flood_of_guesses_moves_the_question_to_tcp() {
    let (mut bench, sent) = asked();
    let id = u16::from_be_bytes([sent.query[0], sent.query[1]]);
    let mut guesses = 0;
    while bench.streams.is_empty() {
        guesses += 1;
        let mut forged = answer(FORGED).to(&sent.query);
        forged[..2].copy_from_slice(&id.wrapping_add(guesses).to_be_bytes());
        bench.datagram(sent.port, &forged);
        assert!(guesses < 100, "never");
    }
    assert_eq!(guesses, 33);
    assert!(bench.ports.is_empty(), "the socket is given up");
    // Even the right guess comes too late.
    bench.datagram(sent.port, &answer(FORGED).to(&sent.query));
    assert_eq!(bench.told(), "");
    let stream = bench.connected();
    let query = bench.stream_queries().remove(0);
    bench.stream_reply(stream, &answer(IP).to(&query));
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
    assert_eq!(bench.stub.stats().floods, 1);
}

fn lower(query: &[u8]) -> Vec<u8> {
    let mut lower = query.to_vec();
    lower[12..].make_ascii_lowercase();
    lower
}

#[test]
fn another_case_is_asked_about_by_tcp() {
    let (mut bench, sent) = asked();
    bench.datagram(sent.port, &answer(FORGED).to(&lower(&sent.query)));
    assert_eq!(bench.told(), "");
    let stream = bench.connected();
    let query = bench.stream_queries().remove(0);
    bench.stream_reply(stream, &answer(IP).to(&query));
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
    // The server was not to blame: it is asked in mixed case as before.
    bench.ask("other.example", Kind::A, 2);
    bench.reply(&Reply::code(3));
    assert_eq!(bench.told(), "2 NoName");
    assert_eq!(bench.stub.stats().other_case, 1);
}

#[test]
fn a_server_that_keeps_no_case_is_asked_by_tcp_once() {
    let (mut bench, sent) = asked();
    bench.datagram(sent.port, &answer(IP).to(&lower(&sent.query)));
    let stream = bench.connected();
    let query = bench.stream_queries().remove(0);
    bench.stream_reply(stream, &answer(IP).to(&lower(&query)));
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
    bench.ask("other.example", Kind::A, 2);
    let sent = bench.sent.last().unwrap().clone();
    assert_eq!(lower(&sent.query), sent.query);
    bench.datagram(sent.port, &Reply::code(3).to(&sent.query));
    assert_eq!(bench.told(), "2 NoName");
    assert_eq!(bench.stub.stats().other_case, 1);
}

#[test]
fn a_server_that_keeps_no_case_and_has_no_tcp_is_believed_all_the_same() {
    let (mut bench, sent) = asked();
    bench.datagram(sent.port, &answer(IP).to(&lower(&sent.query)));
    let (stream, _) = bench.streams.pop().unwrap();
    bench.stub.stream_over(stream, bench.now);
    bench.turn();
    bench.reply(&answer(IP));
    assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
}

#[test]
fn ids_ports_and_case_are_drawn_anew_for_each_query() {
    let mut bench = Bench::new(&[FIRST]);
    let count = 2000;
    for asker in 0..count {
        bench.ask("mail.example", Kind::A, asker);
        bench.reply(&Reply::with(vec![a("mail.example", 0, IP)]));
        bench.wait(Duration::from_secs(5));
    }
    let different = |of: &dyn Fn(&Sent) -> Vec<u8>| {
        let mut all: Vec<Vec<u8>> = bench.sent.iter().map(of).collect();
        all.sort();
        all.dedup();
        all.len()
    };
    assert!(different(&|sent| sent.query[..2].to_vec()) > 1900);
    // Eleven letters.
    assert!(different(&|sent| sent.query[12..26].to_vec()) > 1000);
    let mut ports: Vec<PortId> = bench.sent.iter().map(|sent| sent.port).collect();
    ports.dedup();
    assert!(ports.len() > 1800, "the next port is seldom the last one");
    // One in three queries finds the socket that it draws younger than half a minute.
    assert!(bench.stub.stats().ports_opened > 1000);
}

#[test]
fn without_mixed_case_questions_are_lower_case() {
    let mut bench = Bench::with(Config {
        servers: vec![FIRST.parse().unwrap()],
        mix_case: false,
        ..Config::default()
    });
    bench.ask("mail.example", Kind::A, 1);
    assert_eq!(lower(&bench.sent[0].query), bench.sent[0].query);
}
