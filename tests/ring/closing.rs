//! The ends of slots: at once, lingering, abortive, and the silence in between.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use weir::ring::{Close, Event, Group, Owner, Wire};

use crate::bench::Bench;

#[test]
fn a_close_with_everything_in_flight_is_silent_and_ends() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.ring.send(slot, vec![b'.'; 64 << 20]);
    bench.turn(Duration::from_millis(20));
    peer.write_all(b"never heard").expect("sent");
    bench.ring.set_owner(slot, Owner(9));
    bench.ring.close(slot, Close::Now);
    let mut seen = Vec::new();
    while seen.is_empty() {
        seen = bench.turn(Duration::from_millis(100));
    }
    assert!(
        matches!(seen[..], [Event::Closed { slot: s, owner: Owner(9) }] if s == slot),
        "{seen:?}"
    );
    assert_eq!(bench.ring.buffers_held(Group::Client), 0);
}

#[test]
fn events_of_the_same_turn_are_swallowed_after_a_close() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.turn(Duration::ZERO);
    peer.write_all(b"one").expect("sent");
    std::thread::sleep(Duration::from_millis(5));
    bench.ring.send(slot, b"two".to_vec());
    drop(peer);
    std::thread::sleep(Duration::from_millis(5));
    let now = bench.now();
    bench
        .ring
        .wait(now, now + Duration::from_secs(1))
        .expect("a turn");
    let first = bench.ring.next_event().expect("something happened");
    if let Event::Received { buffer, .. } = first {
        bench.ring.release(buffer);
    }
    bench.ring.close(slot, Close::Now);
    let after = bench.ring.next_event();
    assert!(after.is_none(), "after the close: {after:?}");
    bench.closed(slot);
}

#[test]
fn who_has_finished_still_hears() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.ring.send(slot, b"last".to_vec());
    let mut sent = false;
    while !sent {
        let seen = bench.turn(Duration::from_millis(100));
        sent = seen.iter().any(|event| matches!(event, Event::Sent { .. }));
    }
    bench.ring.finish(slot);
    bench.ring.finish(slot);
    bench.turn(Duration::from_millis(20));
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).expect("the end of the stream");
    assert_eq!(heard, b"last");
    peer.write_all(b"and you").expect("sent");
    let mut got = 0;
    while got < 7 {
        for event in bench.turn(Duration::from_millis(100)) {
            if let Event::Received { buffer, len, .. } = event {
                got += len;
                bench.ring.release(buffer);
            }
        }
    }
    bench.ring.close(slot, Close::Linger);
    drop(peer);
    bench.closed(slot);
}

/// The reply is on its way while the peer's own bytes lie unread: a plain close would reset the connection and the reply with it.
#[test]
fn a_final_reply_survives_the_peers_unread_input() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    peer.write_all(&[b'x'; 60_000])
        .expect("it fits the sockets");
    bench.ring.send(slot, b"421 4.3.2 closing\r\n".to_vec());
    bench.ring.close(slot, Close::Linger);
    for _ in 0..8 {
        bench.turn(Duration::from_millis(10));
    }
    // More input after our FIN is discarded as well.
    peer.write_all(b"MAIL FROM:<a@b>\r\n").expect("still taken");
    bench.turn(Duration::from_millis(10));
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard).expect("no reset");
    assert_eq!(heard, b"421 4.3.2 closing\r\n");
    drop(peer);
    bench.closed(slot);
}

#[test]
fn a_lingering_slot_whose_peer_hangs_up_closes_at_once() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.ring.send(slot, b"221 2.0.0 bye\r\n".to_vec());
    bench.ring.close(slot, Close::Linger);
    bench.turn(Duration::from_millis(5));
    let mut heard = [0; 15];
    peer.read_exact(&mut heard).expect("the reply");
    drop(peer);
    let begun = Instant::now();
    bench.closed(slot);
    assert!(begun.elapsed() < Duration::from_millis(500));
}

#[test]
fn a_lingering_slot_whose_peer_stays_ends_after_two_seconds() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    let begun = Instant::now();
    bench.ring.send(slot, b"221 bye\r\n".to_vec());
    bench.ring.close(slot, Close::Linger);
    let (seen, closed) = (0..10_000)
        .find_map(|_| {
            let seen = bench.turn(Duration::from_secs(5));
            let closed = seen.iter().any(|e| matches!(e, Event::Closed { .. }));
            closed.then_some((seen, begun.elapsed()))
        })
        .expect("it ends");
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(
        (1.9..4.0).contains(&closed.as_secs_f64()),
        "closed after {closed:?}"
    );
    let mut heard = String::new();
    peer.read_to_string(&mut heard).expect("a FIN, no reset");
    assert_eq!(heard, "221 bye\r\n");
}

#[test]
fn a_linger_can_be_cut_short() {
    let mut bench = Bench::new();
    let (slot, _peer) = bench.pair();
    bench.ring.close(slot, Close::Linger);
    bench.turn(Duration::from_millis(50));
    let begun = Instant::now();
    bench.ring.close(slot, Close::Now);
    bench.closed(slot);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_reset_close_sends_rst() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    bench.turn(Duration::ZERO);
    bench.ring.close(slot, Close::Reset);
    bench.closed(slot);
    let error = peer.read(&mut [0; 1]).expect_err("reset");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_connect_can_be_given_up() {
    let mut bench = Bench::new();
    // A listener whose queue is full answers no SYN.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let any = "127.0.0.1:0"
        .parse::<std::net::SocketAddr>()
        .expect("an address");
    listener.bind(&any.into()).expect("a port");
    listener.listen(0).expect("it listens");
    let to = listener
        .local_addr()
        .expect("bound")
        .as_socket()
        .expect("of IP");
    let _filler = TcpStream::connect(to).expect("the one place");
    let before = bench.ring.free_slots();
    let slot = bench.ring.connect(&to.into(), Owner(1)).expect("a slot");
    bench.turn(Duration::from_millis(50));
    assert_eq!(bench.ring.free_slots(), before - 1);
    bench.ring.close(slot, Close::Now);
    bench.closed(slot);
    assert_eq!(bench.ring.free_slots(), before);
}

#[test]
fn a_refused_connect_is_told() {
    let mut bench = Bench::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = free.local_addr().expect("bound");
    drop(free);
    let slot = bench.ring.connect(&to.into(), Owner(1)).expect("a slot");
    let kind = bench.until(|_, event| match event {
        Event::Connected { result, .. } => {
            Some(result.as_ref().expect_err("nobody listens").kind())
        }
        _ => None,
    });
    assert_eq!(kind, ErrorKind::ConnectionRefused);
    bench.ring.close(slot, Close::Now);
    bench.closed(slot);
}

/// How often a slot is reused in debug builds and in optimised ones.
const LIVES: u32 = if cfg!(debug_assertions) {
    30_000
} else {
    1_000_000
};

/// One slot, a million lives, ended by resets from both sides with a receive armed and input under way.
/// A completion that reached the next life would count as stale, and in a debug build panic.
#[test]
fn a_slot_is_reused_a_million_times_under_resets() {
    use weir::ring::RingConfig;
    let mut bench = Bench::with(RingConfig {
        slots: 20,
        reserve: 4,
        ..crate::bench::small()
    });
    let address = socket2::SockAddr::from(bench.address);
    let mut lives = 0u32;
    let mut peers: Vec<socket2::Socket> = Vec::new();
    let mut turn = 0u32;
    while lives < LIVES {
        turn += 1;
        while peers.len() < 16 {
            let peer = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                .expect("a socket");
            peer.set_linger(Some(Duration::ZERO))
                .expect("it will reset");
            peer.connect(&address).expect("it connects");
            if peers.len().is_multiple_of(2) {
                peer.send(b"x").expect("sent");
            }
            peers.push(peer);
        }
        let now = bench.now();
        bench
            .ring
            .wait(now, now + Duration::from_millis(50))
            .expect("a turn");
        let mut drained = 0;
        while let Some(event) = bench.ring.next_event() {
            match event {
                Event::Accepted { slot, .. } => {
                    bench.ring.start_receive(slot, Group::Client);
                    if (slot.0 + turn).is_multiple_of(3) {
                        bench.ring.close(slot, Close::Now);
                    }
                }
                Event::Received { slot, buffer, .. } => {
                    bench.ring.release(buffer);
                    bench.ring.close(slot, Close::Now);
                }
                Event::ReceiveEnded { slot, .. } => bench.ring.close(slot, Close::Reset),
                Event::Closed { .. } => {
                    lives += 1;
                    drained += 1;
                }
                Event::AcceptFailed { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        // As many resets from the other side as slots have ended.
        let drop_now = drained.max(1).min(peers.len());
        peers.drain(..drop_now);
    }
    assert_eq!(bench.ring.stats().stale, 0);
    assert_eq!(bench.ring.buffers_held(Group::Client), 0);
}
