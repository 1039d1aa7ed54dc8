//! Results as real runs give them, made from a seed: a queue that falls behind, bots that are kept, samples of a process.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use weir_bench::outcome::*;
use weir_bench::plan::*;

/// What a made run is like.
#[derive(Debug, Clone)]
pub struct Like {
    pub name: &'static str,
    pub seconds: u64,
    pub rate: u64,
    pub bots: u64,
    /// Median of a session's service time.
    pub median_us: f64,
    /// In one second of the run the proxy stands still so long.
    pub stall: Duration,
    pub seed: u64,
}

impl Default for Like {
    fn default() -> Like {
        Like {
            name: "weir",
            seconds: 60,
            rate: 500,
            bots: 0,
            median_us: 400.0,
            stall: Duration::ZERO,
            seed: 1,
        }
    }
}

pub fn plan(like: &Like) -> Plan {
    let mut streams = vec![stream(
        "good",
        Profile::PerMessage,
        Arrivals::Open {
            pattern: Pattern::Poisson,
            steps: vec![Step {
                from: like.rate as f64,
                to: like.rate as f64,
                lasts: Duration::from_secs(like.seconds),
            }],
        },
    )];
    if like.bots > 0 {
        streams.push(stream(
            "bots",
            Profile::SlowLoris {
                every: Duration::from_secs(10),
            },
            Arrivals::Held {
                connections: like.bots as u32,
                per_second: 5_000,
            },
        ));
    }
    Plan {
        target: "127.0.0.1:2525".parse().unwrap(),
        ledger: Some("127.0.0.1:2600".parse().unwrap()),
        lasts: Duration::from_secs(like.seconds),
        warmup: Duration::from_secs(like.seconds / 10),
        grace: Duration::from_secs(30),
        streams,
        seed: like.seed,
        run: like.seed,
        process: 0,
        tls: None,
    }
}

fn stream(name: &str, profile: Profile, arrivals: Arrivals) -> Stream {
    Stream {
        name: name.to_owned(),
        profile,
        arrivals,
        starts_max: 1_000_000,
        open_max: 100_000,
        messages: 1,
        recipients: 1,
        bodies: Bodies::Sizes {
            weights: vec![(4096, 9), (102_400, 1)],
        },
        sources: Sources {
            first: "127.1.0.1".parse().unwrap(),
            count: 200,
        },
        helo: "client.example".to_owned(),
        sender: "a{}@client.example".to_owned(),
        recipient: "b{}@server.example".to_owned(),
        patience: Duration::from_secs(30),
    }
}

pub fn outcome(like: &Like) -> Outcome {
    let mut rng = Rng::with_seed(like.seed);
    let plan = plan(like);
    let mut streams = vec![good(like, &mut rng)];
    if like.bots > 0 {
        streams.push(bots(like, &mut rng));
    }
    Outcome {
        name: like.name.to_owned(),
        command: format!(
            "weir-bench source --rate {}/s --for {}s 127.0.0.1:2525",
            like.rate, like.seconds
        ),
        began: "2026-11-22T05:12:09Z".to_owned(),
        lasted: Duration::from_secs(like.seconds + 1),
        machine: Machine {
            cpu: "AMD EPYC 9654".to_owned(),
            cores: 8,
            memory_octets: 32 << 30,
            kernel: "6.12.9-amd64".to_owned(),
            commit: "ab0c18e4f2d1".to_owned(),
            open_files_max: 20_000,
            load_before: 0.31,
            ..Machine::default()
        },
        integrity: Some(Integrity {
            arrived: streams.iter().map(|s| s.counts.accepted).sum(),
            ..Integrity::default()
        }),
        samples: samples(like, &mut rng),
        plan,
        streams,
    }
}

fn good(like: &Like, rng: &mut Rng) -> StreamOutcome {
    let mut outcome = StreamOutcome {
        name: "good".to_owned(),
        profile: "per-message".to_owned(),
        ..StreamOutcome::default()
    };
    let mut stages: BTreeMap<Stage, StageTimes> = BTreeMap::new();
    for second in 0..like.seconds {
        let mut seen = Second::default();
        let starts = like.rate * (95 + rng.u64(0..10)) / 100;
        for start in 0..starts {
            let into_second = Duration::from_micros(start * 1_000_000 / starts.max(1));
            let waits = match second == like.seconds * 2 / 3 {
                true => like.stall.saturating_sub(into_second),
                false => Duration::ZERO,
            };
            let session = session(like, waits, rng, &mut stages);
            record(&mut seen.session, session);
            seen.starts += 1;
            match rng.u32(0..2_000) {
                0 => seen.failed += 1,
                _ => seen.accepted += 1,
            }
        }
        seen.open = like.rate / 100 + rng.u64(0..5);
        outcome.counts.starts += seen.starts;
        outcome.counts.accepted += seen.accepted;
        outcome.counts.deferred += seen.failed;
        outcome.seconds.push(seen);
    }
    outcome.counts.body_octets = outcome.counts.accepted * 13_926;
    outcome.counts.late = outcome.counts.starts / 5_000;
    if outcome.counts.deferred > 0 {
        outcome.words.insert(
            "451 4.3.0 upstream not available".to_owned(),
            outcome.counts.deferred,
        );
    }
    outcome.stages = stages;
    outcome
}

/// Of all it takes, how much each stage does.
const PARTS: [(Stage, f64); 7] = [
    (Stage::Connect, 0.05),
    (Stage::Greeting, 0.1),
    (Stage::Ehlo, 0.1),
    (Stage::Mail, 0.1),
    (Stage::Rcpt, 0.1),
    (Stage::Data, 0.15),
    (Stage::Final, 0.4),
];

fn session(
    like: &Like,
    waits: Duration,
    rng: &mut Rng,
    stages: &mut BTreeMap<Stage, StageTimes>,
) -> Duration {
    let mut passed = waits;
    for (stage, part) in PARTS {
        // the sum of twelve dice is near enough to normal, its exponential to what networks do
        let normal: f64 = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        let step = Duration::from_secs_f64(like.median_us * part * (0.45 * normal).exp() / 1e6);
        passed += step;
        let times = stages.entry(stage).or_default();
        record(&mut times.planned, passed);
        record(&mut times.service, step);
    }
    let times = stages.entry(Stage::Session).or_default();
    record(&mut times.planned, passed);
    record(&mut times.service, passed - waits);
    passed
}

fn bots(like: &Like, rng: &mut Rng) -> StreamOutcome {
    let mut outcome = StreamOutcome {
        name: "bots".to_owned(),
        profile: "slow-loris".to_owned(),
        ..StreamOutcome::default()
    };
    for second in 0..like.seconds {
        outcome.seconds.push(Second {
            starts: if second * 5_000 < like.bots {
                5_000
            } else {
                20
            },
            failed: 20,
            open: (5_000 * (second + 1)).min(like.bots),
            ..Second::default()
        });
    }
    outcome.counts.starts = like.bots + 20 * like.seconds;
    outcome.counts.turned_away = 20 * like.seconds;
    for _ in 0..20 * like.seconds {
        record(
            &mut outcome.kept,
            Duration::from_millis(rng.u64(1_000..300_000)),
        );
    }
    outcome
}

fn samples(like: &Like, rng: &mut Rng) -> Vec<Sample> {
    let mut cpu = Duration::ZERO;
    (0..=like.seconds)
        .map(|second| {
            cpu +=
                Duration::from_micros(like.rate * (like.median_us as u64) / 8 + rng.u64(0..20_000));
            let held = (5_000 * second).min(like.bots);
            Sample {
                at: Duration::from_secs(second),
                cpu,
                rss_octets: (24 << 20) + held * 240 + rng.u64(0..200_000),
                tcp_octets: (3 << 20) + held * 64,
                slab_octets: (400 << 20) + held * 2_900 + rng.u64(0..3_000_000),
            }
        })
        .collect()
}

/// A comparison of `peers` peers and weir, in `rounds` rounds.
pub fn comparison(title: &str, peers: &[&str], rounds: usize, target: Option<f64>) -> Comparison {
    let mut rng = Rng::with_seed(7);
    let mut comparison = Comparison {
        title: title.to_owned(),
        against: "haproxy".to_owned(),
        target,
        ..Comparison::default()
    };
    for (number, name) in peers.iter().enumerate() {
        let base = 38.0 + 45.0 * number as f64;
        let mut of = |middle: f64| {
            (0..rounds)
                .map(|_| (4.0 * middle * (0.94 + 0.12 * rng.f64())).round() / 4.0)
                .collect()
        };
        comparison.peers.push(PeerRounds {
            name: (*name).to_owned(),
            cpu_us: of(base),
            messages_per_second: of(4_000.0 - 200.0 * number as f64),
            p50_us: of(420.0 + 80.0 * number as f64),
            p99_us: of(1_900.0 + 400.0 * number as f64),
            p999_us: of(6_000.0 + 900.0 * number as f64),
            absent: None,
        });
    }
    comparison.peers.push(PeerRounds {
        name: "postfix".to_owned(),
        absent: Some("/usr/sbin/postfix is not installed".to_owned()),
        ..PeerRounds::default()
    });
    comparison
}

pub fn results(runs: Vec<Outcome>) -> Results {
    Results {
        format: Results::FORMAT.to_owned(),
        runs,
        ..Results::default()
    }
}

fn record(latencies: &mut Latencies, latency: Duration) {
    let us = latency.as_micros() as u64;
    latencies.0.record(us.max(1)).unwrap();
}
