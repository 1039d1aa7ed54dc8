//! Questions that go by TCP, and connections that fail them.

use std::time::Duration;

use super::super::testing::*;
use super::super::{Kind, StreamId};

const IP: [u8; 4] = [192, 0, 2, 9];

/// A question that was truncated; its query on the connection, which is made.
fn truncated(bench: &mut Bench, name: &str, asker: u32) -> (StreamId, Vec<u8>) {
    bench.ask(name, Kind::A, asker);
    bench.reply(&Reply::truncated());
    let stream = bench.connected();
    let query = bench.stream_queries().remove(0);
    (stream, query)
}

fn lost(bench: &mut Bench, stream: StreamId) {
    bench.streams.retain(|(open, _)| *open != stream);
    bench.stub.stream_over(stream, bench.now);
    bench.turn();
}

#[test]
fn what_was_cut_short_comes_whole_by_tcp_however_it_is_cut() {
    for step in [1, 2, 3, 7, 1000] {
        let mut bench = Bench::new(&[FIRST]);
        let (stream, query) = truncated(&mut bench, "a.example", 1);
        let answer = Reply::with(vec![a("a.example", 60, IP)]).to(&query);
        let octets = [&(answer.len() as u16).to_be_bytes()[..], &answer].concat();
        for piece in octets.chunks(step) {
            assert_eq!(bench.told(), "");
            bench.stub.bytes(stream, piece, bench.now);
            bench.turn();
        }
        assert_eq!(bench.told(), "1 Records(A([192.0.2.9]))", "by {step}");
        assert_eq!(bench.stub.stats().truncated, 1);
        bench.wait(Duration::from_secs(10));
        assert!(bench.streams.is_empty(), "idle connections are closed");
    }
}

#[test]
fn questions_share_a_connection_and_answers_come_in_any_order() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::truncated());
    bench.ask("b.example", Kind::A, 2);
    bench.reply(&Reply::truncated());
    let stream = bench.connected();
    let queries = bench.stream_queries();
    assert_eq!(queries.len(), 2);
    // What comes while octets are being sent waits for them.
    bench.ask("c.example", Kind::A, 3);
    bench.reply(&Reply::truncated());
    assert!(bench.stream_queries().is_empty());
    bench.stub.sent(stream);
    bench.turn();
    let third = bench.stream_queries().remove(0);
    for query in [&third, &queries[1], &queries[0]] {
        bench.stream_reply(stream, &Reply::code(3).to(query));
    }
    assert_eq!(bench.told(), "3 NoName; 2 NoName; 1 NoName");
}

#[test]
fn a_connection_that_ends_after_an_answer_is_made_again() {
    let mut bench = Bench::new(&[FIRST]);
    let (stream, query) = truncated(&mut bench, "a.example", 1);
    bench.ask("b.example", Kind::A, 2);
    bench.reply(&Reply::truncated());
    bench.stream_reply(stream, &Reply::code(3).to(&query));
    lost(&mut bench, stream);
    assert_eq!(bench.told(), "1 NoName");
    let stream = bench.connected();
    let query = bench.stream_queries().remove(0);
    bench.stream_reply(stream, &Reply::code(3).to(&query));
    assert_eq!(bench.told(), "2 NoName");
}

#[test]
fn no_connection_and_no_other_server_is_not_known() {
    let mut bench = Bench::new(&[FIRST]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::truncated());
    let (stream, _) = bench.streams[0];
    lost(&mut bench, stream);
    assert_eq!(bench.told(), "1 Failed(Server)");
}

#[test]
fn no_connection_moves_on_to_the_next_server() {
    let mut bench = Bench::known(&[FIRST, SECOND]);
    bench.ask("a.example", Kind::A, 1);
    bench.reply(&Reply::truncated());
    let (stream, _) = bench.streams[0];
    lost(&mut bench, stream);
    assert_eq!(bench.sent[1].server.to_string(), SECOND);
    bench.reply(&Reply::code(3));
    assert_eq!(bench.told(), "1 NoName");
}

#[test]
fn a_connection_that_says_nothing_is_left() {
    let mut bench = Bench::new(&[FIRST]);
    truncated(&mut bench, "a.example", 1);
    bench.wait(Duration::from_secs(2));
    assert!(bench.streams.is_empty());
    assert_eq!(bench.told(), "1 Failed(Server)");
}

#[test]
fn a_connection_full_of_nonsense_is_left() {
    let mut bench = Bench::new(&[FIRST]);
    let (stream, _) = truncated(&mut bench, "a.example", 1);
    bench.stub.bytes(stream, &[0; 100], bench.now);
    bench.turn();
    assert!(bench.streams.is_empty());
    assert_eq!(bench.told(), "1 Failed(Server)");
    // What comes after its end is nobody's.
    bench.stub.bytes(stream, &[0; 100], bench.now);
    bench.stub.stream_over(stream, bench.now);
    bench.turn();
    assert_eq!(bench.told(), "");
}

#[test]
fn truncated_by_tcp_is_no_answer() {
    let mut bench = Bench::new(&[FIRST]);
    let (stream, query) = truncated(&mut bench, "a.example", 1);
    bench.stream_reply(stream, &Reply::truncated().to(&query));
    assert_eq!(bench.told(), "1 Failed(Server)");
}
