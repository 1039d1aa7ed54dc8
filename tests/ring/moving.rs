//! A connection from one ring to another.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use weir::ring::{Close, Event, Group, Owner, SlotId, Wire};

use crate::bench::{Bench, small};

/// Takes a slot out of its ring, and waits for its end.
fn extract(bench: &mut Bench, slot: SlotId) -> OwnedFd {
    bench.ring.extract(slot).expect("this kernel can");
    let mut socket = None;
    bench.until(|_, event| match event {
        Event::Extracted {
            slot: of, result, ..
        } => {
            assert_eq!(*of, slot);
            let descriptor = result.as_ref().expect("it is open").try_clone();
            socket = Some(descriptor.expect("one more"));
            None
        }
        Event::Closed { slot: of, .. } if *of == slot => Some(()),
        _ => None,
    });
    socket.expect("told before the end")
}

#[test]
fn a_connection_goes_on_in_another_ring() {
    let (mut first, mut second) = (Bench::new(), Bench::new());
    let room = small().slots - small().reserve;
    let (slot, mut peer) = first.pair();
    peer.write_all(b"PROXY ...").expect("sent");
    first.ring.start_receive(slot, Group::Client);
    assert_eq!(first.received(slot), b"PROXY ...");
    first.ring.stop_receive(slot);
    first.ended(slot);
    // What comes on the way is not lost.
    peer.write_all(b"EHLO early").expect("sent");
    let socket = extract(&mut first, slot);
    assert_eq!(first.ring.client_slots_free(), room);

    let slot = second.ring.adopt(socket, Owner(5)).expect("room");
    assert_eq!(second.ring.client_slots_free(), room - 1);
    second.ring.start_receive(slot, Group::Client);
    assert_eq!(second.received(slot), b"EHLO early");
    second.ring.send(slot, b"250 here".to_vec());
    let told = second.until(|_, event| match *event {
        Event::Sent { owner, .. } => Some(owner),
        _ => None,
    });
    assert_eq!(told, Owner(5));
    peer.read_exact(&mut [0; 8]).expect("the answer");
    second.ring.close(slot, Close::Now);
    second.closed(slot);
    assert_eq!(peer.read(&mut [0; 1]).expect("a FIN"), 0);
    assert_eq!(second.ring.client_slots_free(), room);
    assert_eq!(first.ring.stats().stale + second.ring.stats().stale, 0);
}

#[test]
fn a_close_in_the_turn_of_the_extraction_leaks_no_descriptor() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.extract(slot).expect("this kernel can");
    bench.ring.close(slot, Close::Now);
    bench.closed(slot);
    assert_eq!(peer.read(&mut [0; 1]).expect("a FIN"), 0);
}

#[test]
fn a_full_table_takes_nobody_in_and_those_taken_in_make_room_again() {
    let (mut first, mut second) = (Bench::new(), Bench::new());
    // Accepts in flight keep their places.
    second.turn(Duration::ZERO);
    let mut taken = Vec::new();
    let mut peers = Vec::new();
    let refused = loop {
        let (slot, peer) = first.pair();
        let socket = extract(&mut first, slot);
        match second.ring.adopt(socket, Owner(1)) {
            Ok(slot) => taken.push(slot),
            Err(error) => break error,
        }
        peers.push(peer);
    };
    assert_eq!(refused.raw_os_error(), Some(libc::ENFILE));
    assert_eq!(taken.len(), small().slots - small().reserve - 32);
    // Places are the kernel's to give: those accepted meanwhile have others.
    let (slot, _peer) = second.pair();
    assert!(!taken.contains(&slot));
    for slot in taken.drain(..) {
        second.ring.close(slot, Close::Now);
        second.closed(slot);
    }
    let (slot, _peer) = first.pair();
    let socket = extract(&mut first, slot);
    second.ring.adopt(socket, Owner(1)).expect("room again");
}

#[test]
fn sockets_come_in_while_completions_wait() {
    let (mut first, mut second) = (Bench::new(), Bench::new());
    let mut pairs: Vec<_> = (0..5).map(|_| second.pair()).collect();
    for (slot, peer) in &mut pairs {
        second.ring.start_receive(*slot, Group::Client);
        peer.write_all(b"waiting").expect("sent");
    }
    let (slot, mut peer) = first.pair();
    let socket = extract(&mut first, slot);
    let adopted = second.ring.adopt(socket, Owner(9)).expect("room");
    second.ring.start_receive(adopted, Group::Client);
    peer.write_all(b"come in").expect("sent");
    let mut heard = 0;
    while heard < 6 {
        heard += second.until(|_, event| matches!(event, Event::Received { .. }).then_some(1));
    }
}

/// The kernel's own choice would be the place that the close has just emptied, before its end is told.
#[test]
fn a_socket_does_not_take_the_place_of_one_that_is_being_closed() {
    let (mut first, mut second) = (Bench::new(), Bench::new());
    for _ in 0..100 {
        let (leaving, _peer) = second.pair();
        let (slot, _other) = first.pair();
        let socket = extract(&mut first, slot);
        second.ring.close(leaving, Close::Now);
        let adopted = second.ring.adopt(socket, Owner(1)).expect("room");
        assert_ne!(adopted, leaving);
        second.closed(leaving);
        second.ring.close(adopted, Close::Now);
        second.closed(adopted);
    }
    assert_eq!(second.ring.stats().stale, 0);
}

#[test]
fn a_socket_does_not_take_the_place_of_one_that_was_just_accepted() {
    let (mut first, mut second) = (Bench::new(), Bench::new());
    let adopt = |first: &mut Bench, second: &mut Bench| {
        let (slot, peer) = first.pair();
        let socket = extract(first, slot);
        (second.ring.adopt(socket, Owner(1)).expect("room"), peer)
    };
    let held: Vec<_> = (0..10).map(|_| second.pair()).collect();
    let last = held.last().expect("ten").0;
    // Sockets from elsewhere go downwards; the next would be put where the last of these is.
    loop {
        let (slot, _peer) = adopt(&mut first, &mut second);
        second.ring.close(slot, Close::Now);
        second.closed(slot);
        if slot.0 == last.0 + 1 {
            break;
        }
    }
    second.ring.close(last, Close::Now);
    second.closed(last);
    let _peer = TcpStream::connect(second.address).expect("queued");
    let now = second.now();
    let until = now + Duration::from_secs(1);
    second.ring.wait(now, until).expect("a turn");
    let (adopted, mut far) = adopt(&mut first, &mut second);
    assert_ne!(adopted, last);
    assert_eq!(second.accepted(), last, "an accept took it, unseen");
    second.ring.send(adopted, b"here".to_vec());
    second.until(|_, event| matches!(event, Event::Sent { .. }).then_some(()));
    far.read_exact(&mut [0; 4]).expect("it is the right one");
}
