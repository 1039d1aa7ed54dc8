//! Runs of the same plan stand together: one [`Workload`] has a [`Row`] for each name, and a row all rounds of that name.

use crate::outcome::{Integrity, Outcome, Stage, StageTimes, StreamOutcome};
use crate::plan::Plan;

use crate::medians;

/// Runs that differ in their target and their round only.
pub struct Workload<'a> {
    pub plan: &'a Plan,
    pub rows: Vec<Row<'a>>,
}

/// All rounds of one name.
pub struct Row<'a> {
    pub name: &'a str,
    /// Of the name, the same all over a page: its colour and marker.
    pub number: usize,
    pub rounds: Vec<&'a Outcome>,
    /// The streams of all rounds together.
    pub streams: Vec<StreamOutcome>,
}

/// In the order they ran.
pub fn workloads(runs: &[Outcome]) -> Vec<Workload<'_>> {
    let mut names: Vec<&str> = Vec::new();
    let mut workloads: Vec<Workload<'_>> = Vec::new();
    for run in runs {
        let number = names
            .iter()
            .position(|n| *n == run.name)
            .unwrap_or_else(|| {
                names.push(&run.name);
                names.len() - 1
            });
        let at = workloads
            .iter()
            .position(|w| same_work(w.plan, &run.plan))
            .unwrap_or_else(|| {
                workloads.push(Workload {
                    plan: &run.plan,
                    rows: Vec::new(),
                });
                workloads.len() - 1
            });
        workloads[at].add(run, number);
    }
    workloads
}

/// Whether two plans ask for the same, be it of other peers, in other rounds.
pub fn same_work(one: &Plan, other: &Plan) -> bool {
    let bare = |plan: &Plan| Plan {
        target: one.target,
        ledger: one.ledger,
        run: one.run,
        seed: one.seed,
        ..plan.clone()
    };
    bare(one) == bare(other)
}

impl<'a> Workload<'a> {
    fn add(&mut self, run: &'a Outcome, number: usize) {
        match self.rows.iter_mut().find(|row| row.name == run.name) {
            None => self.rows.push(Row {
                name: &run.name,
                number,
                rounds: vec![run],
                streams: run.streams.clone(),
            }),
            Some(row) => {
                row.rounds.push(run);
                for stream in &run.streams {
                    match row.streams.iter_mut().find(|s| s.name == stream.name) {
                        Some(mine) => mine.merge(stream),
                        None => row.streams.push(stream.clone()),
                    }
                }
            }
        }
    }
}

impl Row<'_> {
    /// Median of the rounds; None where one of them was not counted.
    pub fn messages_per_second(&self) -> Option<f64> {
        let rates: Option<Vec<f64>> = self
            .rounds
            .iter()
            .map(|run| messages_per_second(run))
            .collect();
        medians::median(&rates?)
    }

    pub fn stream(&self, name: &str) -> Option<&StreamOutcome> {
        self.streams.iter().find(|s| s.name == name)
    }

    pub fn integrity(&self) -> Option<Integrity> {
        sum(self.rounds.iter().copied())
    }
}

/// [`Outcome::rate`], where somebody counted what arrived. Where nobody did, no rate is claimed.
pub fn messages_per_second(run: &Outcome) -> Option<f64> {
    run.integrity.as_ref().map(|_| run.rate())
}

/// What was found of all runs; None where one was not counted, or there is none.
pub fn sum<'a>(runs: impl Iterator<Item = &'a Outcome>) -> Option<Integrity> {
    let mut all = None;
    for run in runs {
        let found = run.integrity.as_ref()?;
        let sum: &mut Integrity = all.get_or_insert_default();
        sum.arrived += found.arrived;
        sum.lost += found.lost;
        sum.duplicated += found.duplicated;
        sum.altered += found.altered;
        sum.invented += found.invented;
        sum.unknown += found.unknown;
        sum.unanswered_arrived += found.unanswered_arrived;
    }
    all
}

/// The whole session, if one was measured.
pub fn session(stream: &StreamOutcome) -> Option<&StageTimes> {
    stream
        .stages
        .get(&Stage::Session)
        .filter(|times| !times.planned.0.is_empty() || !times.service.0.is_empty())
}
