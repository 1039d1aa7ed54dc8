//! A day of mail before filters: 200 senders of good mail who retry as mail servers do, and 10,000 bots.
//!
//! Goal: no good message is lost, and it is known what the filtering costs: how many good messages are late and how long, what bots get
//! through, how long they are held. Method: the same traffic, made from a seed, meets weir's own world and models of what others do; one
//! table is printed. `WEIR_BOTNET_SEED=N` runs another seed, `WEIR_BOTNET_LOG=FILE` keeps weir's log of the day:
//!
//! ```text
//! cargo test --test sim botnet -- --nocapture        (or: just botnet)
//! ```
//!
//! `population` who there is · `places` what DNS knows of them · `traffic` their messages · `retries` when they try again · `models` the
//! rules of others · `table` the figures.

mod day;
mod mailbox;
mod models;
mod places;
mod population;
mod retries;
mod table;
mod talk;
mod traffic;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use std::thread;

use weir::shard::WorldConfig;
use weir_smtp::time::Moment;

use crate::names::Faults;

use models::{Model, Nothing, Postscreen, Spamd};
use population::{BOTS, Population, SENDERS};
use table::Row;

/// A name server as they are: now and then an answer is lost, late or an error.
const FAULTS: Faults = Faults {
    silent: 1,
    fails: 1,
    garbage: 0,
    mistaken: 0,
    truncated: 1,
    late: 1,
};

#[test]
fn botnet() {
    let seed = crate::number("WEIR_BOTNET_SEED").unwrap_or(1);
    let population = Population::from_seed(seed, SENDERS, BOTS);
    let models: [&mut dyn Model; 4] = [
        &mut Nothing,
        &mut Spamd::default(),
        &mut Postscreen::new(false),
        &mut Postscreen::new(true),
    ];
    let rows = models.map(|model| meet(model, &population));
    println!(
        "{} good messages of {SENDERS} senders, {} errands of {BOTS} bots, seed {seed}",
        rows[0].good, rows[0].bots
    );
    println!("{}", Row::heading());
    rows.iter().for_each(|row| println!("{row}"));
    let [nothing, spamd, ..] = &rows;
    assert_eq!((nothing.lost, nothing.delayed()), (0, 0));
    let weirs = [
        ("weir, protocol only", day::protocol_only as fn() -> _),
        ("weir", day::reputation),
    ];
    let evenings = thread::scope(|scope| {
        let pass = |(name, config): (&'static str, fn() -> WorldConfig)| {
            scope.spawn(move || {
                let population = Population::from_seed(seed, SENDERS, BOTS);
                day::pass(name, &population, &config(), FAULTS, seed)
            })
        };
        let days = weirs.map(pass);
        days.map(|day| day.join().expect("panics are contained"))
    });
    for evening in &evenings {
        let (row, name) = (&evening.row, &evening.row.name);
        println!("{row}");
        println!(
            "{:22} {} questions, {} turns",
            "", evening.questions, evening.turns
        );
        assert!(
            evening.wrong.is_empty(),
            "{name}: {:#?}",
            first(&evening.wrong)
        );
        assert!(
            evening.lost.is_empty(),
            "{name} has lost good mail: {:#?}",
            first(&evening.lost)
        );
        assert!(
            row.let_through() < nothing.let_through(),
            "{name} does nothing"
        );
        assert!(
            row.delayed() <= spamd.delayed(),
            "{name} delays more good mail than spamd"
        );
    }
}

/// So that a failure can be looked at again.
#[test]
fn a_day_is_always_the_same() {
    let [first, second] = [(); 2].map(|()| {
        let population = Population::from_seed(7, SENDERS / 10, BOTS / 40);
        let evening = day::pass("weir", &population, &day::reputation(), FAULTS, 7);
        (evening.row, evening.turns)
    });
    assert_eq!(first, second);
}

/// As many as one can read.
fn first(wrong: &[String]) -> &[String] {
    &wrong[..wrong.len().min(10)]
}

/// All errands against one model.
fn meet(model: &mut dyn Model, population: &Population) -> Row {
    let mut errands = population.errands.clone();
    let mut queue: BinaryHeap<Reverse<(Moment, usize)>> = errands
        .iter()
        .enumerate()
        .map(|(index, errand)| Reverse((errand.begins, index)))
        .collect();
    while let Some(Reverse((at, index))) = queue.pop() {
        let visit = errands[index].visit(at);
        let outcome = model.meet(&population.places, &visit);
        if let Some(again) = errands[index].hears(at, &outcome) {
            queue.push(Reverse((again, index)));
        }
    }
    Row::of(model.name(), &errands)
}
