//! The load source: sessions of every profile, started by the plan and counted.
//!
//! ```text
//!   schedule ──> starter ──> start ──> profiles ──> session ──> connection ──> target
//!    (when)     (alarm)        │       (story)      (steps)      (octets)
//!                              └──── tally, ledger <──┘
//! ```
//!
//! Open-loop: a start is made when the plan says so, whatever became of the ones before. All of it is one thread of a tokio runtime: tasks
//! share cells, not locks. It runs on the cores it measures, so it is cheap: one write per flight, one read per reply, one buffer for each,
//! bodies made in advance. What a client of a kept profile costs here is its task and its socket.

mod alarm;
mod connection;
mod mail;
mod profiles;
mod schedule;
mod session;
mod start;
mod starter;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod text;
mod waiting;

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::rc::Rc;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tokio::task::LocalSet;

use crate::ledger::Sent;
use crate::outcome::{Counts, StreamOutcome};
use crate::plan::Plan;
use crate::tls::client::Client;
use mail::Mail;
use starter::Starter;
use stream::{Process, Stream};

pub use mail::MADE_OCTETS_MIN;
pub use start::NOT_FROM_HERE;

/// What one process has done and seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceReport {
    /// In the order of the plan.
    pub streams: Vec<StreamOutcome>,
    /// The fate of every message of this process.
    pub sent: Sent,
}

/// The messages of every stream, ready to be sent, and whom to trust with them.
pub struct Cargo {
    mail: Vec<Mail>,
    tls: Option<Client>,
}

/// Reads and makes what a plan sends. It may take seconds, so it comes before the plan's clock starts: all processes begin together.
pub fn load(plan: &Plan) -> anyhow::Result<Cargo> {
    let loaded = plan.streams.iter().map(|stream| {
        let mail = Mail::load(&stream.bodies);
        mail.with_context(|| format!("stream {} has no mail", stream.name))
    });
    Ok(Cargo {
        mail: loaded.collect::<anyhow::Result<_>>()?,
        tls: plan.tls.as_ref().map(Client::new).transpose()?,
    })
}

/// Drives all streams of this process's share of a plan to the end.
///
/// `on_second` gets the counts of every stream since the beginning, once a second. Where it says Break, nothing more is started, and
/// sessions under way have their grace. Clients of kept profiles stay until all others have ended; they then are cut off and counted as
/// unfinished.
pub async fn run(
    plan: &Plan,
    cargo: Cargo,
    on_second: &mut dyn FnMut(&[Counts]) -> ControlFlow<()>,
) -> anyhow::Result<SourceReport> {
    let process = Rc::new(Process::new(plan, cargo.tls));
    let streams = cargo.mail.into_iter().enumerate();
    let streams: Vec<Rc<Stream>> = streams
        .map(|(number, mail)| Rc::new(Stream::new(plan, number, &process, mail)))
        .collect();
    let sessions = LocalSet::new();
    let mut starter = Starter::new(plan, &process, &streams, on_second)?;
    let ended = sessions.run_until(poll_fn(|cx| starter.poll(cx))).await;
    // cuts what is still open, which then counts itself
    drop(sessions);
    drop(starter);
    ended?;
    let streams = streams.iter().map(|stream| stream.outcome());
    Ok(SourceReport {
        streams: streams.collect(),
        sent: process.sent.take(),
    })
}
