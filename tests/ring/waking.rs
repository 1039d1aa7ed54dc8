//! What wakes a sleeping ring: other threads, deadlines, the executor's own work.

use std::time::{Duration, Instant};

use weir::ring::{Event, Group, RingConfig, Wire};

use crate::bench::{Bench, small};

#[test]
fn another_thread_rings() {
    let mut bench = Bench::new();
    let doorbell = bench.ring.doorbell();
    for _ in 0..50 {
        let doorbell = doorbell.clone();
        let ringer = std::thread::spawn(move || {
            doorbell.ring();
            doorbell.ring();
        });
        bench.until(|_, event| matches!(event, Event::Doorbell).then_some(()));
        ringer.join().expect("rung");
        bench.turn(Duration::ZERO);
    }
}

#[test]
fn a_deadline_ends_the_sleep_and_nothing_else_does() {
    let mut bench = Bench::new();
    bench.turn(Duration::ZERO);
    let begun = Instant::now();
    let seen = bench.turn(Duration::from_millis(80));
    assert!(seen.is_empty(), "{seen:?}");
    assert!(begun.elapsed() >= Duration::from_millis(79));
}

#[test]
fn a_watched_descriptor_is_told_again_while_it_is_ready() {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    let mut bench = Bench::new();
    let (mut far, mut near) = std::os::unix::net::UnixStream::pair().expect("a pair");
    bench.ring.watch_background(near.as_raw_fd());
    bench.turn(Duration::ZERO);
    far.write_all(b"x").expect("sent");
    for _ in 0..3 {
        bench.until(|_, event| matches!(event, Event::Background).then_some(()));
    }
    near.read_exact(&mut [0; 1]).expect("the byte");
    bench.turn(Duration::ZERO);
    let seen = bench.turn(Duration::from_millis(20));
    assert!(seen.is_empty(), "{seen:?}");
}

#[test]
fn who_looks_sees_news_and_takes_it_without_sleeping() {
    use std::io::Write;
    let mut bench = Bench::with(RingConfig {
        shows_news: true,
        ..small()
    });
    let (slot, mut peer) = bench.pair();
    bench.ring.start_receive(slot, Group::Client);
    while bench.ring.look(bench.now()).expect("a look") {
        while bench.ring.next_event().is_some() {}
    }
    let enters = bench.ring.stats().enters;
    assert!(!bench.ring.look(bench.now()).expect("a look"));
    assert!(!bench.ring.has_news());
    assert_eq!(bench.ring.stats().enters, enters, "nothing to enter for");
    peer.write_all(b"QUIT\r\n").expect("sent");
    let begun = Instant::now();
    while !bench.ring.has_news() {
        assert!(begun.elapsed() < Duration::from_secs(10), "no news");
    }
    assert!(bench.ring.look(bench.now()).expect("a look"));
    assert_eq!(bench.received(slot), b"QUIT\r\n");
}
