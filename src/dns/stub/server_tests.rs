//! Servers that are dead, slow, come back, or are others than before.

use std::time::Duration;

use super::super::testing::*;
use super::super::{Kind, ServerState};

const IP: [u8; 4] = [192, 0, 2, 9];
const SECONDS: Duration = Duration::from_secs(1);

fn servers_of(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(|sent| sent.server.to_string()).collect()
}

/// Asks, and has `answers` answer after a while; the others say nothing.
fn answered_by(bench: &mut Bench, name: &str, answers: &str, after: Duration) -> Vec<String> {
    let before = bench.sent.len();
    assert_eq!(bench.ask(name, Kind::A, 1), None);
    let mut waited = Duration::ZERO;
    loop {
        let sent = bench.sent[before..]
            .iter()
            .find(|sent| sent.server.to_string() == answers);
        if let Some(sent) = sent.cloned() {
            bench.wait(after);
            bench.datagram(
                sent.port,
                &Reply::with(vec![a(name, 60, IP)]).to(&sent.query),
            );
            assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))");
            return servers_of(&bench.sent[before..]);
        }
        assert!(waited < 6 * SECONDS, "never asked");
        waited += SECONDS;
        bench.wait(SECONDS);
    }
}

fn up(bench: &Bench) -> Vec<bool> {
    bench.stub.servers().map(|server| server.up).collect()
}

#[test]
fn the_dead_are_passed_over_and_found_again_at_nobodys_expense() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    let quick = Duration::from_millis(5);
    for name in ["a.example", "b.example", "c.example"] {
        assert_eq!(
            answered_by(&mut bench, name, SECOND, quick),
            [FIRST, SECOND]
        );
    }
    assert_eq!(up(&bench), [false, true]);
    // Three seconds later it is due, and gets a copy; then it is left alone for a while.
    bench.wait(3 * SECONDS);
    assert_eq!(
        answered_by(&mut bench, "d.example", SECOND, quick),
        [FIRST, SECOND]
    );
    assert_eq!(
        answered_by(&mut bench, "e.example", SECOND, quick),
        [SECOND]
    );
    bench.wait(3 * SECONDS);
    assert_eq!(
        answered_by(&mut bench, "f.example", FIRST, quick),
        [FIRST, SECOND]
    );
    assert_eq!(up(&bench), [true, true]);
}

#[test]
fn an_answer_that_comes_too_late_still_shows_that_somebody_is_there() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    let quick = Duration::from_millis(5);
    for name in ["a.example", "b.example", "c.example"] {
        answered_by(&mut bench, name, SECOND, quick);
    }
    let late = bench.sent[0].clone();
    bench.datagram(late.port, &Reply::code(3).to(&late.query));
    assert_eq!(up(&bench), [true, true]);
    assert_eq!(bench.told(), "");
}

#[test]
fn the_far_slower_is_passed_over_until_it_is_quick_again() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    let first = |bench: &Bench| bench.stub.servers().next().unwrap().latency.unwrap();
    // One slow answer is the zone's fault, many are the server's.
    answered_by(&mut bench, "a.example", FIRST, SECONDS);
    assert_eq!(
        answered_by(&mut bench, "b.example", FIRST, SECONDS),
        [FIRST]
    );
    while first(&bench) < Duration::from_millis(200) {
        let name = format!("s{}.example", bench.sent.len());
        answered_by(&mut bench, &name, FIRST, SECONDS);
    }
    let quick = Duration::from_millis(1);
    assert_eq!(
        answered_by(&mut bench, "c.example", SECOND, quick),
        [FIRST, SECOND]
    );
    assert_eq!(
        answered_by(&mut bench, "d.example", SECOND, quick),
        [SECOND]
    );
    // Two quick answers bring it back.
    for name in ["e.example", "f.example"] {
        bench.wait(3 * SECONDS);
        let sent = answered_by(&mut bench, name, FIRST, quick);
        assert_eq!(sent, [FIRST, SECOND]);
    }
    bench.wait(3 * SECONDS);
    assert_eq!(answered_by(&mut bench, "g.example", FIRST, quick), [FIRST]);
}

#[test]
fn who_is_not_known_yet_gets_a_copy() {
    let mut bench = Bench::new(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    assert_eq!(servers_of(&bench.sent), [SECOND, FIRST]);
    bench.ask("b.example", Kind::A, 2);
    assert_eq!(
        servers_of(&bench.sent[2..]),
        [FIRST],
        "and no second one at once"
    );
}

#[test]
fn a_port_that_nobody_listens_on_moves_on_at_once() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    let port = bench.sent[0].port;
    bench.stub.port_failed(port, bench.now);
    bench.turn();
    assert_eq!(servers_of(&bench.sent), [FIRST, SECOND]);
    assert_eq!(up(&bench), [false, true]);
    // The driver may say so twice; and what comes to a closed port is nobody's.
    bench.stub.port_failed(port, bench.now);
    bench.datagram(port, &Reply::code(3).to(&bench.sent[0].query.clone()));
    bench.reply(&Reply::code(3));
    assert_eq!(bench.told(), "1 NoName");
}

#[test]
fn the_only_server_is_waited_for_while_it_starts() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    for _ in 0..3 {
        let port = bench.sent.last().unwrap().port;
        bench.stub.port_failed(port, bench.now);
        bench.turn();
        bench.wait(Duration::from_millis(500));
    }
    assert_eq!(bench.sent.len(), 4);
    bench.reply(&Reply::code(3));
    assert_eq!(bench.told(), "1 NoName");
}

#[test]
fn sockets_that_cannot_be_opened_end_in_no_answer() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    while !bench.ports.is_empty() {
        let (port, _) = bench.ports[0];
        bench.stub.port_failed(port, bench.now);
        bench.turn();
        bench.wait(Duration::from_millis(500));
    }
    bench.wait(5 * SECONDS);
    assert_eq!(bench.told(), "1 Failed(Timeout)");
    assert!(bench.sent.len() <= 8, "{}", bench.sent.len());
}

#[test]
fn other_servers_get_what_is_open_and_what_is_known_stays() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::code(3));
    bench.ask("b.example", Kind::A, 2);
    bench.ask("c.example", Kind::A, 3);
    bench.reply(&Reply::truncated());
    bench.told();
    bench
        .stub
        .set_servers(&[SECOND.parse().unwrap()], bench.now);
    bench.turn();
    assert!(bench.streams.is_empty());
    let moved = bench.sent[bench.sent.len() - 2..].to_vec();
    assert_eq!(servers_of(&moved), [SECOND, SECOND]);
    for sent in moved {
        bench.datagram(sent.port, &Reply::code(3).to(&sent.query));
    }
    assert_eq!(bench.told(), "2 NoName; 3 NoName");
    assert!(bench.ask("a.example", Kind::A, 4).is_some());
    // The same again changes nothing, none at all ends what is open.
    bench.ask("d.example", Kind::A, 5);
    let count = bench.sent.len();
    bench
        .stub
        .set_servers(&[SECOND.parse().unwrap()], bench.now);
    bench.turn();
    assert_eq!(bench.sent.len(), count);
    bench.stub.set_servers(&[], bench.now);
    bench.turn();
    assert_eq!(bench.told(), "5 Failed(NoServer)");
    assert!(bench.ports.is_empty());
}

#[test]
fn old_servers_are_asked_without_edns_from_then_on() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    let with_edns = bench.sent[0].query.len();
    // As some say it: no more than a header.
    let refusal = [
        &bench.sent[0].query[..2],
        &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    bench.datagram(bench.sent[0].port, &refusal);
    assert_eq!(bench.sent[1].query.len(), with_edns - 11);
    bench.reply(&Reply::code(3));
    assert_eq!(bench.told(), "1 NoName");
    bench.ask("b.example", Kind::A, 2);
    assert_eq!(bench.sent[2].query.len(), with_edns - 11);
}

#[test]
fn who_understands_nothing_is_no_help() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::code(4));
    bench.reply(&Reply::code(4));
    assert_eq!(bench.told(), "1 Failed(Server)");
    // That it was EDNS that it did not understand is not known.
    bench.ask("b.example", Kind::A, 2);
    assert_eq!(bench.sent[2].query.len(), bench.sent[0].query.len());
}

#[test]
fn what_is_known_can_be_asked_afresh() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::code(3));
    let asked = question("a.example", Kind::A);
    assert_eq!(bench.stub.ask_afresh(&asked, 2, bench.now), None);
    bench.turn();
    bench.reply(&Reply::with(vec![a("a.example", 60, IP)]));
    assert_eq!(bench.told(), "1 NoName; 2 Records(A([192.0.2.9]))");
    let known = bench.ask("a.example", Kind::A, 3).unwrap();
    assert_eq!(format!("{:?}", known.outcome), "Records(A([192.0.2.9]))");
    assert_eq!(bench.stub.cached(), 1);
}

#[test]
fn the_state_of_servers_can_be_seen() {
    let mut bench = Bench::new(&[FIRST]);
    let state = |bench: &Bench| bench.stub.servers().next().unwrap();
    assert_eq!(state(&bench).latency, None);
    answered_by(&mut bench, "a.example", FIRST, Duration::from_millis(8));
    let want = ServerState {
        addr: FIRST.parse().unwrap(),
        up: true,
        latency: Some(Duration::from_millis(8)),
    };
    assert_eq!(state(&bench), want);
}
