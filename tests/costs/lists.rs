//! How long a client is looked up in lists of a million networks: `cargo bench --bench lists`.
//!
//! Networks and addresses are made up and come in random order, so that nearly every look-up misses the caches of the core as
//! it would with a botnet. Printed: what an entry takes in memory, how long the list takes to build, and of hits and misses
//! the mean time in ns (the loop's own cost and the drawing of addresses are not taken off).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use weir::policy::access::{AccessBuilder, Listed, Subject};

const NETWORKS: usize = 1_000_000;
const LOOKUPS: usize = 4_000_000;

/// xorshift64*: the same at each run.
struct Chance(u64);

impl Chance {
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// A kind of list: its name, and how an address and its network are drawn.
type Kind = (&'static str, fn(&mut Chance) -> (IpAddr, u8));

fn main() {
    let kinds: [Kind; 5] = [
        ("IPv4 addresses", |chance| (v4(chance), 32)),
        ("IPv4 /16 to /32", |chance| {
            let bits = 16 + (chance.draw() % 17) as u8;
            (v4(chance), bits)
        }),
        ("IPv6 /64", |chance| (v6(chance), 64)),
        ("IPv6 /32 to /64", |chance| {
            let bits = 32 + (chance.draw() % 33) as u8;
            (v6(chance), bits)
        }),
        ("IPv6 addresses", |chance| (v6(chance), 128)),
    ];
    for (name, draw) in kinds {
        measure(name, draw);
    }
}

fn v4(chance: &mut Chance) -> IpAddr {
    Ipv4Addr::from((chance.draw() >> 32) as u32).into()
}

fn v6(chance: &mut Chance) -> IpAddr {
    let (high, low) = (0x2000 << 48 | chance.draw() >> 3, chance.draw());
    Ipv6Addr::from(u128::from(high) << 64 | u128::from(low)).into()
}

fn measure(name: &str, draw: fn(&mut Chance) -> (IpAddr, u8)) {
    let mut chance = Chance(88_172_645_463_325_252);
    let listed: Vec<(IpAddr, u8)> = (0..NETWORKS).map(|_| draw(&mut chance)).collect();
    let text: String = listed
        .iter()
        .map(|(ip, bits)| format!("{}/{bits}\n", first(*ip, *bits)))
        .collect();
    let began = Instant::now();
    let mut lists = AccessBuilder::default();
    assert_eq!(lists.read(Subject::Client, Listed::Deny, &text), []);
    let access = lists.build();
    let built = began.elapsed();
    let pick = |chance: &mut Chance| listed[chance.draw() as usize % NETWORKS].0;
    let hits: Vec<IpAddr> = (0..LOOKUPS).map(|_| pick(&mut chance)).collect();
    let others: Vec<IpAddr> = (0..LOOKUPS).map(|_| draw(&mut chance).0).collect();
    let time = |clients: &[IpAddr]| {
        let began = on_cpu();
        let found = clients
            .iter()
            .filter(|ip| access.lookup(**ip).is_some())
            .count();
        ((on_cpu() - began) / LOOKUPS as u64, found * 100 / LOOKUPS)
    };
    let ((hit, all), (other, some)) = (time(&hits), time(&others));
    assert_eq!(all, 100, "who is on the list is found");
    println!(
        "{name:<16} listed {hit:>4} ns, others {other:>4} ns ({some}% listed too), {:>3} octets an entry, built in {built:?}",
        access.memory() / access.len(Subject::Client)
    );
}

/// Nanoseconds that this thread has run: what others on the machine take does not count.
fn on_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts that");
    let ran = text.split(' ').next().and_then(|ran| ran.parse().ok());
    ran.expect("the first number is the time on a CPU")
}

/// The first address of the network.
fn first(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from(ip.to_bits() & u32::MAX << (32 - bits)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(ip.to_bits() & u128::MAX << (128 - bits)).into(),
    }
}
