//! From a seed to a scenario: who takes part, how weir is set up, what goes wrong.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir::policy;
use weir::shard::WorldConfig;
use weir::shard::config::{LegConfig, PitConfig, ProbeConfig, SessionConfig, WaitConfig};
use weir::shard::mail::UpstreamSpec;
use weir_smtp::body::BareNewline;
use weir_smtp::relay;
use weir_smtp::time::Moment;

use crate::chance::Chance;
use crate::client::{Bears, Kind, Plan, Style};
use crate::letters::Newlines;
use crate::net::{Cut, Line};
use crate::rumours::{self, NamesPlan};
use crate::upstream::{Offers, Temper};
use crate::wire::{Sabotage, WireOptions};

pub const SLOTS: usize = 64;

/// An upstream and what it does over time.
#[derive(Clone, Debug)]
pub struct UpstreamPlan {
    pub spec: UpstreamSpec,
    pub offers: Offers,
    pub temper: Temper,
    /// Down from and until.
    pub crash: Option<(Moment, Moment)>,
    /// What it offers after that.
    pub offers_later: Option<Offers>,
    /// Its address is silent meanwhile, instead of refusing.
    pub dead: bool,
}

#[derive(Clone)]
pub struct Scenario {
    pub shards: usize,
    pub config: WorldConfig,
    pub newlines: Newlines,
    pub wire: WireOptions,
    pub upstreams: Vec<UpstreamPlan>,
    pub clients: Vec<Plan>,
    pub clients_max: u32,
    /// How rough the network is.
    pub weather: Weather,
    pub bears: Bears,
    /// When weir is told to drain, if not at the end.
    pub drain: Option<(Moment, Duration)>,
    /// So long after the drain has begun nobody is waited for any more.
    pub second_signal: Option<Duration>,
    /// When the table of upstreams is read again, with some addresses gone or back.
    pub reloads: Vec<Moment>,
    /// Who is asked about clients.
    pub names: Option<NamesPlan>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Weather {
    /// No faults, little delay.
    Fair,
    /// Fragments and delays.
    Rough,
    /// Resets and silence as well.
    Foul,
}

/// What a replay shows first.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (weather, drain, newlines) = (self.weather, self.drain, self.newlines);
        writeln!(
            f,
            "{} shards, {weather:?}, drain {drain:?}, bare newlines {newlines:?}",
            self.shards
        )?;
        writeln!(f, "  wire: {:?}", self.wire)?;
        writeln!(
            f,
            "  second signal {:?}, reloads {:?}",
            self.second_signal, self.reloads
        )?;
        if self.bears.policy {
            writeln!(f, "  {:?}", self.config.policy)?;
        }
        if let Some(names) = &self.names {
            writeln!(f, "  {names:?}")?;
        }
        let config = &self.config;
        writeln!(f, "  give_back {:?}", config.smtp.timeouts.give_back)?;
        writeln!(
            f,
            "  hold_max {}, window {}",
            config.hold_max, config.smtp.stream_window
        )?;
        writeln!(
            f,
            "  {:?} {:?} {:?} {:?}",
            config.leg, config.wait, config.pit, config.probe
        )?;
        self.upstreams
            .iter()
            .try_for_each(|upstream| writeln!(f, "  {upstream:?}"))?;
        let mut clients = self.clients.iter().enumerate();
        clients.try_for_each(|(nth, plan)| writeln!(f, "  client 10.2.0.{nth}: {plan:?}"))
    }
}

impl Scenario {
    pub fn from_seed(seed: u64) -> Scenario {
        let mut chance = Chance::new(seed);
        let weather = *chance.pick(&[Weather::Fair, Weather::Rough, Weather::Rough, Weather::Foul]);
        let newlines = if chance.percent(60) {
            Newlines::Reject
        } else {
            Newlines::Normalize
        };
        let upstreams = upstreams(&mut chance);
        let clients: Vec<Plan> = (0..chance.within(2..14))
            .map(|_| client(&mut chance))
            .collect();
        let config = config(&mut chance, newlines);
        let wire = wire(&mut chance);
        let mut scenario = Scenario {
            bears: Bears {
                lateness: false,
                slowness: weather != Weather::Fair,
                policy: false,
            },
            shards: if chance.one_in(3) { 2 } else { 1 },
            config,
            newlines,
            wire,
            upstreams,
            clients,
            clients_max: if chance.one_in(8) { 3 } else { 0 },
            weather,
            drain: chance.one_in(4).then(|| {
                let at = Moment::ZERO + chance.millis(1000..120_000);
                (at, chance.millis(0..60_000))
            }),
            second_signal: None,
            reloads: Vec::new(),
            names: None,
        };
        scenario.sharpen(&mut Chance::new(seed ^ 0x5a5a));
        let chance = &mut Chance::new(seed ^ 0x7171);
        if chance.one_in(5) {
            scenario.squeeze(chance);
        }
        if Chance::new(seed ^ 0x3d3d).one_in(5) {
            scenario.dedicate();
        }
        let chance = &mut Chance::new(seed ^ 0x6e6e);
        if chance.one_in(4) {
            scenario.inquire(chance);
        }
        scenario
    }

    /// Clients are looked up in lists and by their names, and treated accordingly.
    fn inquire(&mut self, chance: &mut Chance) {
        self.names = Some(rumours::inquire(&mut self.config, chance));
        self.bears.policy = true;
        self.bears.slowness = true;
    }

    /// Each client has an upstream connection of its own, under its own address. What it says out of order goes up as it
    /// is, and it waits for an upstream's reply where weir would have given one itself.
    fn dedicate(&mut self) {
        self.config.identity = weir::route::Identity::Transparent;
        self.bears.lateness = true;
        self.bears.policy = true;
        for upstream in &mut self.upstreams {
            let later = upstream.offers_later.iter_mut();
            for offers in later.chain([&mut upstream.offers]) {
                offers.takes_nonsense = true;
            }
        }
    }

    /// Fewer connections than clients, who say much at once; and servers that do not like to begin anew.
    fn squeeze(&mut self, chance: &mut Chance) {
        for upstream in &mut self.upstreams {
            upstream.spec.max = chance.within(1..4) as u32;
            upstream.temper.keeps = *chance.pick(&[0, 0, 5, 50]);
        }
        self.config.hold_max = *chance.pick(&[300, 1024, 16 * 1024]);
        self.config.stream_share = *chance.pick(&[0, 1, 25]);
        self.config.wait.time = chance.millis(10_000..60_000);
        self.config.wait.max = *chance.pick(&[1, 3, 10_000, 10_000]);
        self.config.leg.failures_max = *chance.pick(&[1, 5, 100]);
        let all_pipeline = chance.one_in(2);
        let more = chance.below(8);
        for _ in 0..more {
            self.clients.push(client(chance));
        }
        for plan in &mut self.clients {
            if all_pipeline || chance.one_in(2) {
                plan.style = *chance.pick(&[Style::Pipelined, Style::ChunksPipelined]);
                plan.messages = chance.within(2..9) as u32;
                plan.gap = Duration::ZERO;
            }
            if chance.one_in(4) {
                plan.dawdles = chance.millis(5..3000);
            }
            plan.begins = Moment::ZERO + chance.millis(1..500);
            if chance.one_in(6) {
                plan.kind = Kind::HangsUp {
                    after: chance.within(60..20_000),
                    resets: chance.one_in(2),
                };
            }
        }
    }

    /// What was thought of later, from a stream of its own: older seeds keep their meaning for the rest.
    fn sharpen(&mut self, chance: &mut Chance) {
        if chance.one_in(5) {
            self.set_policy(chance);
        }
        if chance.one_in(6) {
            self.wire.slots = chance.within(10..24) as usize;
            self.wire.reserve = chance.within(2..6) as usize;
            self.config.slots = self.wire.slots as u32;
            self.config.reserve = self.wire.reserve as u32;
            self.bears.lateness = true;
        }
        if chance.one_in(4) {
            let reloads = chance.within(1..6);
            self.reloads = (0..reloads)
                .map(|_| Moment::ZERO + chance.millis(1..100_000))
                .collect();
            self.reloads.sort();
        }
        for plan in &mut self.clients {
            match chance.below(30) {
                0 => plan.gap = chance.millis(400_000..800_000),
                1 => {
                    plan.kind = Kind::Freezes {
                        after: hang_up(chance),
                    }
                }
                _ => {}
            }
        }
        if chance.one_in(6) {
            self.wire.chunks = 1 + chance.below(8) as u32;
            self.config.chunks_max = self.wire.chunks;
        }
        if chance.one_in(8) {
            self.config.smtp.message_size_max = chance.within(200..30_000);
        }
        self.config.smtp.timeouts.give_back = *chance.pick(&[
            Duration::from_millis(50),
            Duration::from_secs(1),
            Duration::from_secs(1),
            Duration::from_secs(20),
        ]);
        if chance.one_in(8) {
            self.config.smtp.recipients_max = 1 + chance.below(100) as u32;
        }
        for upstream in &mut self.upstreams {
            if chance.one_in(4) {
                upstream.temper.patience = Some(chance.millis(500..20_000));
            }
            if chance.one_in(3) {
                upstream.offers_later = Some(Offers::by_chance(chance));
            }
        }
        if self.drain.is_some() && chance.one_in(4) {
            self.second_signal = Some(chance.millis(1..20_000));
        }
    }

    /// Limits, delays and drips.
    fn set_policy(&mut self, chance: &mut Chance) {
        let mut policy = (*self.config.policy).clone();
        let limit = |chance: &mut Chance| *chance.pick(&[0, 1, 3, 10]);
        policy.errors = policy::errors::Limits {
            soft: limit(chance),
            hard: limit(chance),
            junk: limit(chance),
        };
        for finding in policy::Finding::all().filter(|finding| *finding != policy::Finding::Relay) {
            if chance.one_in(3) {
                let action = *chance.pick(finding.allowed());
                let on = format!("{}={}", finding.word(), action.word());
                policy.actions.set(on.parse().expect("an allowed action"));
            }
        }
        let rate = |chance: &mut Chance| *chance.pick(&["0", "0", "2/m", "20/s"]);
        policy.rate_connections = rate(chance).parse().expect("a rate");
        policy.rate_messages = rate(chance).parse().expect("a rate");
        policy.rate_recipients = rate(chance).parse().expect("a rate");
        policy.rate_bytes = chance
            .pick(&["0", "4K/s", "100K/s"])
            .parse()
            .expect("a rate");
        self.config.policy = Arc::new(policy);
        self.bears.policy = true;
        self.bears.slowness = true;
    }

    pub fn specs(&self) -> Arc<[UpstreamSpec]> {
        self.upstreams
            .iter()
            .map(|upstream| upstream.spec.clone())
            .collect()
    }
}

impl Weather {
    /// A connection between a client and weir, or weir and an upstream.
    pub fn line(self, chance: &mut Chance) -> Line {
        let mut line = Line::smooth();
        if self == Weather::Fair {
            line.latency = chance.micros(50..2000);
            return line;
        }
        line.latency = chance.micros(50..150_000);
        line.jitter = chance.micros(0..60_000);
        line.stalls = if chance.one_in(3) {
            chance.within(5..200)
        } else {
            0
        };
        line.cut = *chance.pick(&[Cut::Whole, Cut::Mss, Cut::Small, Cut::Tiny]);
        line.window = *chance.pick(&[2048, 8192, 65_536, 262_144]);
        if self == Weather::Foul && chance.one_in(4) {
            let side = chance.below(2) as usize;
            let at = if chance.one_in(2) {
                chance.within(1..600)
            } else {
                chance.within(1..40_000)
            };
            if chance.one_in(4) {
                line.mutes[side] = Some(at);
            } else {
                line.breaks[side] = Some(at);
            }
        }
        line
    }
}

fn config(chance: &mut Chance, newlines: Newlines) -> WorldConfig {
    let plain = plain_config();
    let smtp = relay::Config {
        messages_max: if chance.one_in(5) { 3 } else { 100 },
        bare_newline: match newlines {
            Newlines::Reject => BareNewline::Reject,
            Newlines::Normalize => BareNewline::Normalize,
        },
        stream_window: *chance.pick(&[16 * 1024, 64 * 1024, 256 * 1024]),
        ..plain.smtp
    };
    let mut policy = policy::Config::default();
    if chance.percent(75) {
        policy.errors = policy::errors::Limits {
            soft: 0,
            hard: 0,
            junk: 0,
        };
    }
    policy.clients_max = 64;
    let greet_wait = if chance.one_in(6) {
        chance.millis(100..6000)
    } else {
        Duration::ZERO
    };
    WorldConfig {
        smtp,
        hold_max: *chance.pick(&[1024, 16 * 1024, 128 * 1024, 1024 * 1024]),
        stream_share: *chance.pick(&[0, 1, 25, 100]),
        policy: Arc::new(policy),
        session: SessionConfig {
            greet_wait,
            greet_wait_stressed: greet_wait.min(Duration::from_secs(1)),
        },
        leg: LegConfig {
            uses_max: *chance.pick(&[0, 1, 2, 100]),
            age_max: chance.millis(5_000..600_000),
            idle_max: chance.millis(1_000..60_000),
            failures_max: *chance.pick(&[1, 5, 100]),
            ..LegConfig::default()
        },
        wait: WaitConfig {
            time: chance.millis(2_000..60_000),
            max: *chance.pick(&[2, 100, 10_000]),
        },
        pit: PitConfig {
            rows_max: *chance.pick(&[1, 100]),
            ..PitConfig::default()
        },
        resolver: Default::default(),
        probe: ProbeConfig {
            interval: *chance.pick(&[
                Duration::ZERO,
                Duration::from_secs(10),
                Duration::from_secs(60),
            ]),
            relay_test: chance.one_in(2),
        },
        ..plain
    }
}

/// Nothing left to chance: weir as it is set up by default.
pub fn plain_config() -> WorldConfig {
    let smtp = relay::Config {
        greeting: b"220 weir.example ESMTP weir\r\n".to_vec(),
        hostname: b"weir.example".to_vec(),
        message_size_max: 10_000_000,
        recipients_max: 1000,
        messages_max: 100,
        bare_newline: BareNewline::Reject,
        stream_window: 64 * 1024,
        timeouts: relay::Timeouts::default(),
    };
    WorldConfig {
        services: vec![Default::default()].into(),
        tls: None,
        identity: Default::default(),
        dedicated: Default::default(),
        proxied: Default::default(),
        hostname: Arc::from(&b"weir.example"[..]),
        smtp,
        hold_max: 128 * 1024,
        stream_share: 25,
        slots: SLOTS as u32,
        reserve: 0,
        chunks_max: 64,
        policy: Arc::default(),
        health: weir::route::health::Config::default(),
        overload: policy::overload::Config::default(),
        session: SessionConfig {
            greet_wait: Duration::ZERO,
            greet_wait_stressed: Duration::ZERO,
        },
        leg: LegConfig::default(),
        wait: WaitConfig {
            time: Duration::from_secs(30),
            max: 10_000,
        },
        pit: PitConfig::default(),
        resolver: Default::default(),
        probe: ProbeConfig {
            interval: Duration::ZERO,
            relay_test: false,
        },
    }
}

fn wire(chance: &mut Chance) -> WireOptions {
    WireOptions {
        slots: SLOTS,
        reserve: 16,
        client_buffers: *chance.pick(&[4, 20, 182, 182]),
        upstream_buffers: *chance.pick(&[2, 8, 32]),
        chunks: 64,
        lag: *chance.pick(&[
            Duration::ZERO,
            Duration::from_micros(30),
            Duration::from_millis(5),
        ]),
        sips: *chance.pick(&[0, 0, 1, 700, 5000]),
        tells_starvation: chance.one_in(2),
        address: SocketAddr::from(([10, 0, 0, 1], 0)),
        shard: 0,
        sabotage: Sabotage::None,
    }
}

fn upstreams(chance: &mut Chance) -> Vec<UpstreamPlan> {
    let count = chance.within(1..4);
    let alike = chance.one_in(2).then(|| Offers::by_chance(chance));
    (0..count as u8)
        .map(|index| {
            let endpoints = 1 + chance.below(2) as u8;
            let address = |nth| SocketAddr::from(([10, 1, index, nth], 25));
            let crashes = chance.one_in(4);
            let from = Moment::ZERO + chance.millis(0..60_000);
            UpstreamPlan {
                spec: UpstreamSpec {
                    name: format!("mx{index}.example:25"),
                    weight: 1 + chance.below(3) as u32,
                    max: *chance.pick(&[0, 1, 2, 5, 20]),
                    addresses: (0..endpoints).map(address).collect(),
                    tls: None,
                },
                offers: alike.clone().unwrap_or_else(|| Offers::by_chance(chance)),
                temper: temper(chance),
                offers_later: None,
                crash: crashes.then(|| (from, from + chance.millis(100..120_000))),
                dead: chance.one_in(3),
            }
        })
        .collect()
}

fn temper(chance: &mut Chance) -> Temper {
    if chance.one_in(2) {
        return Temper::default();
    }
    let mut share = |most| {
        if chance.one_in(2) {
            chance.below(most)
        } else {
            0
        }
    };
    Temper {
        refuses: share(30),
        leaves: share(10),
        babbles: share(6),
        stalls: share(5),
        dawdles: share(25),
        patience: None,
        keeps: 0,
    }
}

fn client(chance: &mut Chance) -> Plan {
    let kind = match chance.below(20) {
        0 => Kind::Hasty,
        1 => Kind::Deaf,
        2 => Kind::HalfCloses,
        3 => Kind::Rude,
        4 => Kind::Silent,
        5 => Kind::Old,
        6..=8 => Kind::HangsUp {
            after: hang_up(chance),
            resets: chance.one_in(2),
        },
        _ => Kind::Proper,
    };
    let octets = *chance.pick(&[500, 3000, 20_000, 20_000, 150_000]);
    let dribble = chance.one_in(8).then(|| {
        let octets = chance.within(1..3000) as usize;
        (octets, chance.millis(1..800))
    });
    let spread = if chance.one_in(2) { 200 } else { 60_000 };
    Plan {
        kind,
        style: *chance.pick(&[
            Style::Lockstep,
            Style::Pipelined,
            Style::Chunks,
            Style::ChunksPipelined,
        ]),
        messages: if chance.one_in(3) {
            1
        } else {
            chance.within(1..7) as u32
        },
        recipients: if chance.one_in(8) { 150 } else { 4 },
        octets: if dribble.is_some() {
            octets.min(20_000)
        } else {
            octets
        },
        gap: if chance.one_in(3) {
            chance.millis(0..90_000)
        } else {
            Duration::ZERO
        },
        dawdles: if chance.one_in(5) {
            chance.millis(500..40_000)
        } else {
            Duration::ZERO
        },
        dribble,
        bare_newlines: if chance.one_in(4) { 30 } else { 0 },
        begins: Moment::ZERO + chance.millis(1..spread),
        detours: 10,
    }
}

fn hang_up(chance: &mut Chance) -> u64 {
    if chance.one_in(2) {
        chance.within(1..400)
    } else {
        chance.within(1..30_000)
    }
}
