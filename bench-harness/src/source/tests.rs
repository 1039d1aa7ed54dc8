//! The source against a small scripted server: what goes over the wire, what is counted, and that nothing the other side does breaks it.

mod bad_servers;
mod counting;
mod server;
mod sink;
mod tls;
mod wire;

use std::ops::ControlFlow;
use std::time::Duration;

use super::SourceReport;
use crate::ledger::reconcile;
use crate::outcome::{Integrity, StreamOutcome};
use crate::plan::{Arrivals, Bodies, Pattern, Plan, Profile, Sources, Step, Stream};
use server::{Script, Server};

const RUN: u64 = 0x5eed;

/// A stream of `starts` sessions at `rate` a second.
fn stream(profile: Profile, rate: f64, starts: u64) -> Stream {
    let lasts = Duration::from_secs_f64(starts as f64 / rate);
    Stream {
        name: "test".into(),
        profile,
        arrivals: Arrivals::Open {
            pattern: Pattern::Constant,
            steps: vec![Step {
                from: rate,
                to: rate,
                lasts,
            }],
        },
        starts_max: starts,
        open_max: 10_000,
        messages: 100,
        recipients: 1,
        bodies: Bodies::Sizes {
            weights: vec![(1024, 1)],
        },
        sources: Sources {
            first: "127.9.0.1".parse().unwrap(),
            count: 3,
        },
        helo: "client.example".into(),
        sender: "s{}@client.example".into(),
        recipient: "r{}@server.example".into(),
        patience: Duration::from_secs(5),
    }
}

fn plan(server: &Server, lasts: Duration, streams: Vec<Stream>) -> Plan {
    Plan {
        target: server.address,
        ledger: None,
        lasts,
        warmup: Duration::ZERO,
        grace: Duration::from_secs(5),
        streams,
        seed: 42,
        run: RUN,
        process: 0,
        tls: None,
    }
}

fn run(plan: &Plan) -> SourceReport {
    run_watched(plan, &mut |_| ControlFlow::Continue(()))
}

fn run_watched(
    plan: &Plan,
    on_second: &mut dyn FnMut(&[crate::outcome::Counts]) -> ControlFlow<()>,
) -> SourceReport {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(super::run(plan, super::load(plan).unwrap(), on_second))
        .unwrap()
}

/// Runs one stream of `starts` sessions for half a second.
fn run_one(server: &Server, profile: Profile, starts: u64) -> SourceReport {
    let stream = stream(profile, starts as f64 * 2.0, starts);
    run(&plan(server, Duration::from_millis(500), vec![stream]))
}

fn integrity(report: &SourceReport, server: &Server) -> Integrity {
    reconcile(&[(0, report.sent.clone())], &server.arrived())
}

/// Every message has one fate, for profiles whose every start is about one.
fn assert_books_add_up(outcome: &StreamOutcome) {
    let counts = &outcome.counts;
    let fates =
        counts.accepted + counts.deferred + counts.rejected + counts.unanswered + counts.not_sent;
    assert_eq!(fates, counts.starts, "{counts:?}");
    let failed: u64 = outcome.seconds.iter().map(|second| second.failed).sum();
    let accepted: u64 = outcome.seconds.iter().map(|second| second.accepted).sum();
    let starts: u64 = outcome.seconds.iter().map(|second| second.starts).sum();
    assert_eq!(accepted, counts.accepted);
    assert_eq!(accepted + failed, fates);
    assert_eq!(starts, counts.starts);
}

const SENDING: [Profile; 5] = [
    Profile::PerMessage,
    Profile::Persistent,
    Profile::Pipelined,
    Profile::Bdat,
    Profile::SlowBody {
        bytes_per_second: 10_000,
    },
];
