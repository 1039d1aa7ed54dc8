//! A seeded simulation of clients, weir's shards and upstream servers in virtual time.
//!
//! Goal: no message is lost, doubled, mixed up, cut or falsely promised, whatever clients, upstreams and the network do, and nothing leaks,
//! spins or panics. Method: the shard's whole world (`weir::shard::World`) runs unchanged over a simulated wire; a seed decides who takes
//! part, how they behave and what breaks; ledger, upstreams, clients and wire each check what they can see. A run depends on nothing but
//! its seed, so a failure is replayed with
//!
//! ```text
//! WEIR_SIM_SEED=17 cargo test --test sim -- --nocapture        (or: just sim 17)
//! ```
//! which also prints weir's own log. `WEIR_SIM_SEEDS=N` runs N seeds from a start that differs from day to day.
//!
//! `botnet` is a world of its own: a day of mail from good senders and bots, through weir and through models of others.
//!
//! `net` the network · `wire` and `buffers` what the shard sees of it · `tasks` peers as futures · `names` a name server · `rumours` what it says · `client`, `upstream` the peers ·
//! `letters`, `ledger` what was sent and what arrived · `scenario` from seed to set-up · `run` the loop.

mod botnet;
mod buffers;
mod chance;
mod client;
mod ledger;
mod letters;
mod names;
mod net;
mod rumours;
mod run;
mod scenario;
mod tasks;
mod upstream;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use run::Outcome;
use scenario::Scenario;
use wire::Sabotage;

/// Seeds of the default run.
const SEEDS: u64 = 300;

/// How many failures are shown.
const SHOWN: usize = 5;

#[test]
fn nothing_is_lost_doubled_mixed_or_leaked() {
    if let Some(seed) = number("WEIR_SIM_SEED") {
        return replay(seed);
    }
    let (first, count) = match number("WEIR_SIM_SEEDS") {
        Some(count) => (number("WEIR_SIM_FIRST").unwrap_or(1), count),
        None => (1, SEEDS),
    };
    let started = Instant::now();
    let outcomes = run_all(first, count);
    let mut total = Outcome::default();
    let mut failed = Vec::new();
    for (seed, outcome) in &outcomes {
        total.add(outcome);
        if !outcome.wrong.is_empty() {
            failed.push((seed, outcome));
        }
    }
    println!(
        "{count} seeds in {:.1?}: {:?}, {} turns",
        started.elapsed(),
        total.counts,
        total.turns
    );
    let mut kinds: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (seed, outcome) in &failed {
        let shapes: BTreeSet<String> = outcome.wrong.iter().map(|wrong| shape(wrong)).collect();
        for shape in shapes {
            kinds.entry(shape).or_default().push(**seed);
        }
    }
    for (shape, seeds) in &kinds {
        println!(
            "{:4} seeds, such as {:?}: {shape}",
            seeds.len(),
            &seeds[..seeds.len().min(SHOWN)]
        );
    }
    for (seed, outcome) in failed.iter().take(SHOWN) {
        println!(
            "\nseed {seed}, replay with: WEIR_SIM_SEED={seed} cargo test --test sim -- --nocapture"
        );
        outcome.wrong.iter().for_each(|wrong| println!("  {wrong}"));
    }
    let seeds: Vec<_> = failed.iter().map(|(seed, _)| **seed).collect();
    assert!(
        failed.is_empty(),
        "{} of {count} seeds fail: {seeds:?}",
        failed.len()
    );
    assert!(
        total.counts.accepted > total.counts.sent / 4,
        "so few messages arrive that nothing is proven: {:?}",
        total.counts
    );
}

/// The peers are held to the same rules when they talk to each other directly: so what they complain of later is weir's doing.
#[test]
fn peers_understand_each_other_without_weir() {
    for seed in 1..20 {
        let outcome = run::run_without_weir(seed);
        assert!(
            outcome.wrong.is_empty(),
            "seed {seed}: {:#?}",
            outcome.wrong
        );
        assert_eq!(outcome.counts.accepted, outcome.counts.sent, "seed {seed}");
    }
}

#[test]
fn a_seed_is_always_the_same_run() {
    for seed in [3, 5] {
        let scenario = Scenario::from_seed(seed);
        let [first, second] = [(); 2].map(|()| run::run(seed, &scenario, false));
        assert_eq!(first.turns, second.turns, "seed {seed}");
        assert_eq!(first.ended, second.ended, "seed {seed}");
    }
}

/// A check that cannot fail checks nothing: each kind of broken wire has to be noticed, by the words that fit it.
#[test]
fn a_broken_wire_is_noticed() {
    let broken = [
        (Sabotage::ChangesAnOctet, "another message"),
        (Sabotage::ForgesAcceptance, "which no upstream has said"),
        (Sabotage::LeaksABuffer, "still has 1 references"),
        (Sabotage::LosesASent, "heard nothing"),
    ];
    for (sabotage, words) in broken {
        let noticed = (1..40).any(|seed| {
            let mut scenario = Scenario::from_seed(seed);
            scenario.wire.sabotage = sabotage;
            let outcome = run::run(seed, &scenario, false);
            outcome.wrong.iter().any(|wrong| wrong.contains(words))
        });
        assert!(noticed, "{sabotage:?} goes unnoticed");
    }
}

fn replay(seed: u64) {
    let scenario = Scenario::from_seed(seed);
    println!("{scenario}");
    let outcome = run::run(seed, &scenario, true);
    println!("seed {seed}: {outcome:?}");
    outcome.wrong.iter().for_each(|wrong| println!("  {wrong}"));
    assert!(outcome.wrong.is_empty(), "seed {seed} fails");
}

fn run_all(first: u64, count: u64) -> Vec<(u64, Outcome)> {
    let next = AtomicU64::new(first);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes: Vec<(u64, Outcome)> = thread::scope(|scope| {
        let work = || {
            let mut done = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    return done;
                }
                done.push((seed, run::run(seed, &Scenario::from_seed(seed), false)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers
            .into_iter()
            .map(|worker| worker.join().expect("a run catches its panics"));
        done.flatten().collect()
    });
    outcomes.sort_by_key(|(seed, _)| *seed);
    outcomes
}

/// What is alike in failures of one kind.
fn shape(wrong: &str) -> String {
    let first = wrong.lines().next().unwrap_or("");
    let shape: String = first.chars().filter(|c| !c.is_ascii_digit()).collect();
    shape.chars().take(150).collect()
}

/// A number from the environment; unset or empty is none.
fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.trim().is_empty())?;
    Some(
        text.trim()
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text:?} is no number")),
    )
}
