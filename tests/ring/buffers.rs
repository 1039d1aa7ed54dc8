//! Provided buffers: exhaustion, and that one group cannot starve the other.

use std::io::Write;
use std::time::Duration;

use weir::ring::{BufferId, Event, Group, RingConfig, Wire};

use crate::bench::{Bench, small, word};

/// A client sends as fast as it can and nothing is sent on: every client buffer is held. The upstream's reply, which would set the body in motion,
/// still finds a buffer, and once the held ones are released the rest of the body arrives.
#[test]
fn a_fast_client_before_a_stalled_upstream_leaves_room_for_replies() {
    let mut bench = Bench::new();
    let (client, mut sender) = bench.pair();
    let (upstream, mut far) = bench.upstream();
    bench.ring.start_receive(client, Group::Client);
    bench.ring.start_receive(upstream, Group::Upstream);
    let body: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    let copy = body.clone();
    let writer = std::thread::spawn(move || {
        sender.write_all(&copy).expect("sent in the end");
        sender
    });

    let mut held: Vec<(BufferId, u32)> = Vec::new();
    let why = bench.until(|ring, event| match *event {
        Event::Received { buffer, len, .. } => {
            ring.retain(buffer);
            held.push((buffer, len));
            None
        }
        Event::ReceiveEnded { ref why, .. } => Some(word(why)),
        _ => None,
    });
    assert_eq!(why, "no buffers");
    assert_eq!(held.len(), small().client_buffers);
    assert_eq!(bench.ring.stats().no_buffers, 1);

    // Armed again, it waits its turn instead of failing over and over.
    bench.ring.start_receive(client, Group::Client);
    let enters = bench.ring.stats().enters;
    bench.turn(Duration::from_millis(50));
    assert_eq!(bench.ring.stats().enters, enters + 1);

    far.write_all(b"354 go on\r\n").expect("sent");
    assert_eq!(bench.received(upstream), b"354 go on\r\n");

    let mut heard: Vec<u8> = Vec::new();
    for (buffer, len) in held {
        heard.extend(crate::bench::take(&mut bench.ring, buffer, len));
    }
    while heard.len() < body.len() {
        heard.extend(bench.until(|ring, event| crate::bench::received(ring, event, client)));
    }
    assert!(heard == body, "the body arrives whole and in order");
    writer.join().expect("sent");
}

#[test]
fn a_stop_reaches_a_receive_that_waits_for_a_buffer() {
    let mut bench = Bench::with(RingConfig {
        client_buffers: 1,
        ..small()
    });
    let (first, mut one) = bench.pair();
    let (second, mut two) = bench.pair();
    bench.ring.start_receive(first, Group::Client);
    one.write_all(b"1").expect("sent");
    let held = bench.until(|_, event| match event {
        Event::Received { buffer, .. } => Some(*buffer),
        _ => None,
    });
    bench.ring.start_receive(second, Group::Client);
    bench.turn(Duration::from_millis(5));
    bench.ring.stop_receive(second);
    assert_eq!(bench.ended(second), "stopped");
    bench.ring.start_receive(second, Group::Client);
    two.write_all(b"2").expect("sent");
    bench.ring.release(held);
    assert_eq!(bench.received(second), b"2");
}

#[test]
fn a_burst_wider_than_the_window_is_taken_without_a_word() {
    let mut bench = Bench::with(RingConfig {
        slots: 300,
        client_buffers: 256,
        ..small()
    });
    let mut pairs: Vec<_> = (0..200).map(|_| bench.pair()).collect();
    for (slot, _) in &pairs {
        bench.ring.start_receive(*slot, Group::Client);
    }
    bench.turn(Duration::ZERO);
    for (_, peer) in &mut pairs {
        peer.write_all(b"x").expect("sent");
    }
    let mut heard = 0;
    while heard < 200 {
        heard += bench.until(|_, event| match event {
            Event::Received { .. } => Some(1),
            Event::ReceiveEnded { why, .. } => panic!("{why:?}"),
            _ => None,
        });
    }
    assert_eq!(bench.ring.stats().no_buffers, 0);
}
