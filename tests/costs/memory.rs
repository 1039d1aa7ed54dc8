//! What the memory of networks costs: bytes of each, and nanoseconds to look one up, at a million of them.
//!
//! `cargo bench --bench memory [-- NETWORKS]`. Lookups go to networks in no order, so that most of them miss the
//! caches; the slowest insertion shows what growing costs a shard that is serving at the time.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use weir::policy::greylist::{self, When};
use weir::policy::memory::{Config, Memory};
use weir::policy::news::Deed;
use weir_smtp::path;

const NOW: u32 = 1_000_000;
const LOOKUPS: u32 = 5_000_000;

fn main() {
    // cargo adds a word of its own.
    let wanted = std::env::args().skip(1).find(|word| word != "--bench");
    let count: u32 = wanted.map_or(1_000_000, |text| {
        text.parse().expect("a number of networks")
    });
    let mut memory = Memory::new(Config {
        on: true,
        networks_max: count,
        greylist: greylist::Config {
            when: When::All,
            tuples_max: count,
            ..greylist::Config::default()
        },
        ..Config::default()
    });

    let (each, slowest) = timed(count, |number| {
        memory.did(client(number), 0, Deed::Accepted, NOW);
    });
    let networks = memory.networks();
    println!(
        "{} networks: {:.1} bytes each, index included",
        networks.len(),
        networks.memory() as f64 / networks.len() as f64
    );
    println!("a new one: {each:.0} ns, the slowest {slowest:?}");
    drop(memory.take_news());

    let step = 0x9e37_79b1_u32;
    let place = |number: u32| number.wrapping_mul(step) % count;
    let (each, _) = timed(LOOKUPS, |number| {
        black_box(memory.known(client(place(number)), NOW));
    });
    println!("a known one: {each:.0} ns");
    let (each, _) = timed(LOOKUPS, |number| {
        black_box(memory.known(client(count + place(number)), NOW));
    });
    println!("an unknown one: {each:.0} ns");

    let sender = path::parse(b"<somebody@sender.example>").expect("a path").0;
    let recipient = path::parse(b"<somebody@recipient.example>")
        .expect("a path")
        .0;
    let (each, slowest) = timed(count, |number| {
        black_box(memory.tried(client(number), &sender, &recipient, NOW));
    });
    let tuples = memory.tuples();
    println!(
        "{} first tries: {:.1} bytes each; one takes {each:.0} ns, the slowest {slowest:?}",
        tuples.len(),
        tuples.memory() as f64 / tuples.len() as f64
    );
}

/// A client of network `number`.
fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0100_0001 + (number << 8)).into()
}

/// Nanoseconds of each, and the time of the slowest.
fn timed(count: u32, mut work: impl FnMut(u32)) -> (f64, Duration) {
    let began = Instant::now();
    let mut slowest = Duration::ZERO;
    let mut last = began;
    for number in 0..count {
        work(number);
        // Reading the clock each time would be measured as well.
        if number % 16 == 15 {
            let now = Instant::now();
            slowest = slowest.max(now - last);
            last = now;
        }
    }
    let each = began.elapsed().as_nanos() as f64 / f64::from(count);
    (each, slowest)
}
