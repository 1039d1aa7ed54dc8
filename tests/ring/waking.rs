//! What wakes a sleeping ring: other threads, deadlines, the executor's own work.

use std::time::{Duration, Instant};

use weir::ring::Event;

use crate::bench::Bench;

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
