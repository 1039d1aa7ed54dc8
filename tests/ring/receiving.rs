//! Receives: armed, stopped, started again, looked at once.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use weir::ring::{Event, Group, Owner, Wire};

use crate::bench::{Bench, word};

#[test]
fn input_arrives_until_the_peer_is_done() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.set_owner(slot, Owner(5));
    bench.ring.start_receive(slot, Group::Client);
    peer.write_all(b"EHLO").expect("sent");
    assert_eq!(bench.received(slot), b"EHLO");
    peer.write_all(b"QUIT").expect("sent");
    assert_eq!(bench.received(slot), b"QUIT");
    peer.shutdown(Shutdown::Write).expect("half closed");
    let owner = bench.until(|_, event| match event {
        Event::ReceiveEnded { owner, why, .. } if word(why) == "eof" => Some(*owner),
        _ => None,
    });
    assert_eq!(owner, Owner(5));
}

#[test]
fn an_accept_names_the_peer() {
    let mut bench = Bench::new();
    let peer = std::net::TcpStream::connect(bench.address).expect("it listens");
    let named = bench.until(|_, event| match event {
        Event::Accepted { peer, listener, .. } => Some((*listener, *peer)),
        _ => None,
    });
    assert_eq!(named, (0, peer.local_addr().expect("connected")));
}

#[test]
fn a_stopped_receive_ends_and_loses_nothing() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.turn(Duration::ZERO);
    bench.ring.stop_receive(slot);
    assert_eq!(bench.ended(slot), "stopped");
    peer.write_all(b"held back").expect("sent");
    for event in bench.turn(Duration::from_millis(20)) {
        assert!(!matches!(event, Event::Received { .. }), "{event:?}");
    }
    bench.ring.start_receive(slot, Group::Client);
    assert_eq!(bench.received(slot), b"held back");
}

#[test]
fn a_start_takes_back_a_stop_that_has_not_taken_effect() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    for _ in 0..100 {
        bench.ring.start_receive(slot, Group::Client);
        bench.turn(Duration::ZERO);
        bench.ring.stop_receive(slot);
        bench.ring.start_receive(slot, Group::Client);
        peer.write_all(b"x").expect("sent");
        assert_eq!(bench.received(slot), b"x");
    }
    bench.ring.stop_receive(slot);
    assert_eq!(bench.ended(slot), "stopped");
}

#[test]
fn stop_and_start_race_with_input_and_lose_no_byte() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    let mut heard = 0u32;
    let mut armed = false;
    for round in 0..2000u32 {
        peer.write_all(&[7]).expect("sent");
        if armed {
            bench.ring.stop_receive(slot);
        } else {
            bench.ring.start_receive(slot, Group::Client);
            armed = true;
        }
        if round % 3 == 0 {
            bench.ring.stop_receive(slot);
        }
        for event in bench.turn(Duration::from_micros(u64::from(round % 7) * 10)) {
            match event {
                Event::Received { buffer, len, .. } => {
                    heard += len;
                    bench.ring.release(buffer);
                }
                Event::ReceiveEnded { why, .. } => {
                    assert_eq!(word(&why), "stopped");
                    armed = false;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    bench.ring.start_receive(slot, Group::Client);
    drop(peer);
    while heard < 2000 {
        let more = bench.until(|ring, event| crate::bench::received(ring, event, slot));
        heard += more.len() as u32;
    }
    assert_eq!(bench.ended(slot), "eof");
    assert_eq!(bench.ring.stats().stale, 0);
}

#[test]
fn a_look_takes_what_is_there_and_does_not_wait() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.receive_now(slot, Group::Client);
    assert_eq!(bench.ended(slot), "stopped");
    peer.write_all(b"early talker").expect("sent");
    std::thread::sleep(Duration::from_millis(5));
    bench.ring.receive_now(slot, Group::Client);
    assert_eq!(bench.received(slot), b"early talker");
    drop(peer);
    std::thread::sleep(Duration::from_millis(5));
    bench.ring.receive_now(slot, Group::Client);
    assert_eq!(bench.ended(slot), "eof");
}

#[test]
fn a_reset_is_told_as_one() {
    let mut bench = Bench::new();
    let (slot, peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.turn(Duration::ZERO);
    let peer = socket2::Socket::from(peer);
    peer.set_linger(Some(Duration::ZERO)).expect("set");
    drop(peer);
    assert_eq!(bench.ended(slot), "reset");
    bench.ring.close(slot, weir::ring::Close::Now);
    bench.closed(slot);
}
