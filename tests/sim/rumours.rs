//! Reputation in random scenarios: lists, names and thresholds by seed, and name servers that are dead, deaf, slow or talk nonsense.
//!
//! What is said of whom does not matter here, only that everything is said of somebody: listed and not, faults of lists, names that lead back
//! and names that lead elsewhere, null MX, answers that hold for ever and answers that hold for no time. Mail may be refused for it; what
//! was promised has to be kept all the same, and nothing may be left when everybody has gone.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weir::dns;
use weir::policy::dnsbl::{Spec, zones};
use weir::policy::{self, Finding, reputation};
use weir::shard::WorldConfig;
use weir_smtp::time::Moment;

use crate::chance::Chance;
use crate::names::{Data, Faults, Found, Kind, Lore, Record, address_of};
use crate::net::Fate;

const ZONES: u64 = 6;

/// The name servers of a scenario.
#[derive(Clone, Debug)]
pub struct NamesPlan {
    pub servers: Vec<SocketAddr>,
    /// Of these, so many of the first do not exist.
    pub dead: usize,
    pub faults: Faults,
    pub fate: Fate,
    pub lore: Rumours,
}

/// Reputation in this scenario, and who is asked for it.
pub fn inquire(config: &mut WorldConfig, chance: &mut Chance) -> NamesPlan {
    let mut policy = (*config.policy).clone();
    policy.reputation.on = true;
    policy.reputation.wait = chance.millis(100..10_000);
    for step in reputation::STEPS {
        if chance.one_in(2) {
            let score = chance.within(1..10) as i16;
            policy.reputation.thresholds.set(step, Some(score));
        }
    }
    // What names and lists are about comes last but for memory and the steps.
    for finding in Finding::all().filter(|finding| *finding >= Finding::Dnsbl) {
        let action = *chance.pick(finding.allowed());
        if chance.one_in(3) {
            set(
                &mut policy,
                &format!("{}={}", finding.word(), action.word()),
            );
        } else if chance.one_in(2) && !reputation::STEPS.contains(&finding) {
            let weight = chance.within(0..6) as i64 - 2;
            set(&mut policy, &format!("{}=score={weight}", finding.word()));
        }
    }
    let weight = |chance: &mut Chance| chance.within(0..9) as i64 - 3;
    let lists: Vec<Spec> = (0..ZONES)
        .map(|zone| {
            let txt = *chance.pick(&["", ",txt"]);
            let spec = format!("{}*{}{txt}", zone_name(zone), weight(chance));
            spec.parse().expect("a list")
        })
        .collect();
    policy.dnsbl.zones = zones(lists).expect("each list once");
    policy.dnsbl.recheck = *chance.pick(&[Duration::ZERO, Duration::from_secs(60)]);
    config.policy = Arc::new(policy);
    config.resolver = resolver(chance);
    NamesPlan {
        servers: config.resolver.servers.clone(),
        dead: chance.below(config.resolver.servers.len() as u64 + 1) as usize,
        faults: faults(chance),
        fate: fate(chance),
        lore: Rumours(chance.next()),
    }
}

fn resolver(chance: &mut Chance) -> dns::Config {
    let servers = 0..chance.within(1..4) as u8;
    let timeout = chance.millis(100..3000);
    dns::Config {
        servers: servers
            .map(|nth| SocketAddr::from(([10, 3, 0, nth], 53)))
            .collect(),
        timeout,
        patience: timeout * 3,
        cache: chance.within(16..1000) as usize,
        ttl_min: Duration::from_secs(*chance.pick(&[0, 0, 5, 60])),
        ttl_max: Duration::from_secs(*chance.pick(&[1, 60, 3600])),
        open_max: *chance.pick(&[1, 10, 4096]),
        ports: chance.within(1..4) as usize,
        mix_case: chance.one_in(2),
    }
}

/// Not every finding takes every word; those that do not keep what they have.
fn set(policy: &mut policy::Config, on: &str) {
    if let Ok(on) = on.parse() {
        policy.actions.set(on);
    }
}

fn faults(chance: &mut Chance) -> Faults {
    let mut share = |most| {
        if chance.one_in(2) {
            chance.below(most)
        } else {
            0
        }
    };
    Faults {
        silent: share(60),
        fails: share(30),
        garbage: share(30),
        mistaken: share(30),
        truncated: share(50),
        late: share(50),
    }
}

fn fate(chance: &mut Chance) -> Fate {
    if chance.one_in(2) {
        return Fate::default();
    }
    Fate {
        latency: chance.micros(50..300_000),
        jitter: chance.micros(0..200_000),
        lost: chance.below(40),
        doubled: chance.below(20),
        late: chance.below(20),
    }
}

/// Says of every name always the same, whatever comes to it.
#[derive(Clone, Copy, Debug)]
pub struct Rumours(u64);

impl Lore for Rumours {
    fn look_up(&self, name: &str, kind: Kind, _: Moment) -> Found {
        let mut hasher = DefaultHasher::new();
        (self.0, name).hash(&mut hasher);
        let mut chance = Chance::new(hasher.finish());
        let seconds = *chance.pick(&[0, 1, 60, 86_400, u32::MAX]);
        let found = match (kind, zone_of(name)) {
            (_, Some((zone, address))) => listing(zone, address, kind, &mut chance),
            (Kind::Ptr, None) => names(&mut chance),
            (Kind::Mx, None) => mail_servers(&mut chance),
            (Kind::A | Kind::Aaaa, None) => addresses(kind, &mut chance),
            (Kind::Txt | Kind::Other(_), None) => Vec::new(),
        };
        match found.is_empty() {
            true if chance.one_in(2) => Found::NoName,
            true => Found::NoData,
            false => {
                let record = |data| Record { seconds, data };
                Found::Records(found.into_iter().map(record).collect())
            }
        }
    }
}

pub fn zone_name(zone: u64) -> String {
    format!("zone{zone}.lists.test")
}

fn zone_of(name: &str) -> Option<(u64, IpAddr)> {
    (0..ZONES).find_map(|zone| Some((zone, address_of(name, &zone_name(zone))?)))
}

/// Zone 0 lists everybody, zone 1 nobody; the others keep to RFC 5782, most of the time.
fn listing(zone: u64, address: IpAddr, kind: Kind, chance: &mut Chance) -> Vec<Data> {
    let octets = match address {
        IpAddr::V4(four) => four.octets(),
        IpAddr::V6(_) => [127, 0, 0, chance.within(1..4) as u8],
    };
    let code = match (zone, octets) {
        (0, _) => [127, 0, 0, 2],
        (1, _) => return Vec::new(),
        (_, [127, 0, 0, 2]) => [127, 0, 0, 2],
        (_, [127, 0, 0, 1]) => return Vec::new(),
        _ => match chance.below(20) {
            0..=6 => [127, 0, 0, chance.within(2..12) as u8],
            7 => [127, 255, 255, 254],
            8 => [127, 0, 0, 1],
            9 => [192, 0, 2, 80],
            _ => return Vec::new(),
        },
    };
    match kind {
        Kind::A => vec![Data::Address(code.into())],
        Kind::Txt => vec![Data::Txt("no\r\n250 reason\x07 at all".to_owned())],
        _ => Vec::new(),
    }
}

fn names(chance: &mut Chance) -> Vec<Data> {
    let many = *chance.pick(&[0, 1, 1, 1, 2, 20]);
    let name = |nth| Data::Ptr(format!("host{nth}.clients.test"));
    (0..many).map(name).collect()
}

fn mail_servers(chance: &mut Chance) -> Vec<Data> {
    match chance.below(4) {
        0 => Vec::new(),
        1 => vec![Data::Mx(0, String::new())],
        _ => vec![Data::Mx(10, "mx.clients.test".to_owned())],
    }
}

/// Clients of scenarios are 10.2.0.0 and up.
fn addresses(kind: Kind, chance: &mut Chance) -> Vec<Data> {
    let many = *chance.pick(&[0, 1, 1, 5, 40]);
    let address = |_| match kind {
        Kind::A => Data::Address([10, 2, 0, chance.below(20) as u8].into()),
        _ => Data::Address([0x2001, 0xdb8, 0, 0, 0, 0, 0, chance.below(20) as u16].into()),
    };
    (0..many).map(address).collect()
}
