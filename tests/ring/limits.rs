//! Full tables: of slots, of completions, of submissions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use weir::ring::{Close, Event, Group, Owner, RingConfig, SlotId, Wire};

use crate::bench::{Bench, small};

#[test]
fn a_full_table_leaves_clients_waiting_and_the_reserve_free() {
    let mut bench = Bench::new();
    let room = small().slots - small().reserve;
    let peers: Vec<_> = (0..room + 10)
        .map(|_| TcpStream::connect(bench.address).expect("the kernel queues it"))
        .collect();
    let mut slots = Vec::new();
    let mut told_full = 0;
    for _ in 0..20 {
        for event in bench.turn(Duration::from_millis(10)) {
            match event {
                Event::Accepted { slot, .. } => slots.push(slot),
                Event::AcceptFailed { error, .. } => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
                    told_full += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((slots.len(), told_full), (room, 1));
    assert_eq!(bench.ring.client_slots_free(), 0);

    let (upstream, mut far) = bench.upstream();
    bench.ring.send(upstream, b"EHLO".to_vec());
    bench.until(|_, event| matches!(event, Event::Sent { .. }).then_some(()));
    far.read_exact(&mut [0; 4]).expect("the reserve works");

    for slot in slots.drain(..5) {
        bench.ring.close(slot, Close::Now);
    }
    for _ in 0..5 {
        bench.accepted();
    }
    drop(peers);
}

#[test]
fn the_reserve_has_an_end_as_well() {
    let mut bench = Bench::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = listener.local_addr().expect("bound");
    let slots: Vec<SlotId> = (0..small().reserve)
        .map(|n| {
            bench
                .ring
                .connect(&to.into(), Owner(n as u64))
                .expect("reserved")
        })
        .collect();
    let error = bench
        .ring
        .connect(&to.into(), Owner(99))
        .expect_err("none is left");
    assert_eq!(error.raw_os_error(), Some(libc::ENFILE));
    bench.turn(Duration::from_millis(20));
    bench.ring.close(slots[3], Close::Now);
    bench.closed(slots[3]);
    assert_eq!(
        bench
            .ring
            .connect(&to.into(), Owner(1))
            .expect("one is free"),
        slots[3]
    );
}

#[test]
fn completions_beyond_the_queue_are_not_lost() {
    let mut bench = Bench::with(RingConfig {
        slots: 512,
        reserve: 8,
        entries: 8,
        completions: 16,
        client_buffers: 512,
        ..small()
    });
    let mut pairs: Vec<_> = (0..200).map(|_| bench.pair()).collect();
    for (slot, _) in &pairs {
        bench.ring.start_receive(*slot, Group::Client);
    }
    bench.turn(Duration::ZERO);
    for (_, peer) in &mut pairs {
        peer.write_all(b"all at once").expect("sent");
    }
    let mut heard = 0;
    while heard < 200 * 11 {
        heard += bench.until(|ring, event| match *event {
            Event::Received { buffer, len, .. } => {
                Some(crate::bench::take(ring, buffer, len).len())
            }
            _ => None,
        });
    }
    assert!(
        bench.ring.stats().overflows > 0,
        "the queue was meant to be too small: {:?}",
        bench.ring.stats()
    );
    // Receives that the overflow ended were armed again.
    for (_, peer) in &mut pairs {
        peer.write_all(b"again").expect("sent");
    }
    let mut again = 0;
    while again < 200 * 5 {
        again += bench.until(|ring, event| match *event {
            Event::Received { buffer, len, .. } => {
                Some(crate::bench::take(ring, buffer, len).len())
            }
            _ => None,
        });
    }
}

#[test]
fn more_operations_than_the_queue_holds_go_out_in_one_turn() {
    let mut bench = Bench::with(RingConfig {
        entries: 4,
        ..small()
    });
    let mut pairs: Vec<_> = (0..40).map(|_| bench.pair()).collect();
    for (slot, _) in &pairs {
        bench.ring.send(*slot, b"220 hello\r\n".to_vec());
        bench.ring.start_receive(*slot, Group::Client);
    }
    let mut sent = 0;
    while sent < 40 {
        sent += bench.until(|_, event| matches!(event, Event::Sent { .. }).then_some(1));
    }
    for (_, peer) in &mut pairs {
        peer.read_exact(&mut [0; 11]).expect("the greeting");
    }
}

#[test]
fn accepting_stops_when_the_queue_is_empty_and_told_to() {
    let mut bench = Bench::new();
    let _waiting = TcpStream::connect(bench.address).expect("queued");
    assert!(!bench.ring.accept_queues_empty());
    bench.accepted();
    assert!(bench.ring.accept_queues_empty());
    bench.ring.stop_accepting();
    while !bench.ring.has_stopped_accepting() {
        bench.turn(Duration::from_millis(20));
    }
    TcpStream::connect(bench.address).expect_err("nobody listens");
}

#[test]
fn this_host_has_what_the_ring_needs() {
    let support = weir::ring::probe().expect("io_uring is there");
    assert!(support.is_sufficient(), "{support:?}");
    println!("{support:?}");
}
