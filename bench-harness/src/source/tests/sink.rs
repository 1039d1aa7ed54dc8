//! The source against the sink: what both have counted must agree, whatever goes wrong between them.

use super::*;
use crate::sink::{self, Config, Handle};

/// Enough of each to meet every fault.
const STARTS: u64 = 40;

fn sink_with(faults: &str) -> Handle {
    let config = Config {
        faults: faults.parse().unwrap(),
        ..Config::default()
    };
    sink::start(&config).unwrap()
}

/// One stream of each profile that sends, at the same time.
pub fn all_profiles(sink: &Handle, patience: Duration) -> Plan {
    let slow = Profile::SlowBody {
        bytes_per_second: 1_000_000,
    };
    let profiles = [
        Profile::PerMessage,
        Profile::Persistent,
        Profile::Pipelined,
        Profile::Bdat,
        slow,
        Profile::HangUp,
        Profile::Pregreet,
        Profile::Spambot,
    ];
    let streams = profiles.map(|profile| {
        let mut stream = stream(profile, STARTS as f64 * 2.0, STARTS);
        stream.messages = 7;
        stream.recipients = 2;
        stream.patience = patience;
        stream.bodies = Bodies::Sizes {
            weights: vec![(600, 3), (5000, 2), (70_000, 1)],
        };
        stream
    });
    Plan {
        target: sink.smtp[0],
        ledger: Some(sink.control),
        lasts: Duration::from_millis(500),
        warmup: Duration::ZERO,
        grace: Duration::from_secs(30),
        streams: streams.into(),
        seed: 9,
        run: RUN,
        process: 3,
        tls: None,
    }
}

#[test]
fn both_ends_agree_whatever_goes_wrong() {
    for faults in [
        "none",
        "all:delay=uniform(0ms..20ms)",
        "mail:451=20% rcpt:550=30% data:452=10% final:451=20% final:554=10%",
        "greeting:421=10% ehlo:close=10% mail:reset=10% final:421=20%",
        "final:reset=30% final:close=30%",
        "body:reset@random=30%",
        "data:garbage=20% final:garbage=20%",
        "rcpt:stall=5% final:stall=10%",
    ] {
        let sink = sink_with(faults);
        let patience = if faults == "none" { 20 } else { 1 };
        let report = run(&all_profiles(&sink, Duration::from_secs(patience)));
        // what was sent and not waited for may still be on its way
        std::thread::sleep(Duration::from_millis(100));
        let arrived = sink.arrived(RUN);
        let integrity = reconcile(&[(3, report.sent.clone())], &arrived);
        assert!(integrity.is_clean(), "{faults}: {integrity:?}");
        assert_eq!(arrived.unknown(), 0, "{faults}");
        let mut accepted = 0;
        for outcome in &report.streams {
            assert_books_add_up(outcome);
            accepted += outcome.counts.accepted;
            assert_eq!(
                outcome.counts.starts, STARTS,
                "{faults} {}",
                outcome.profile
            );
        }
        assert_eq!(
            integrity.arrived,
            accepted + integrity.unanswered_arrived,
            "{faults}"
        );
        assert!(accepted > STARTS / 2, "{faults}: {accepted}");
        if faults == "none" {
            let sent = report.streams[..5].iter();
            assert!(
                sent.clone()
                    .all(|outcome| outcome.counts.accepted == STARTS)
            );
            assert!(sent.clone().all(|outcome| outcome.words.is_empty()));
        }
    }
}

#[test]
fn a_long_way_shows_in_every_stage() {
    let sink = sink_with("all:delay=20ms");
    let mut plan = all_profiles(&sink, Duration::from_secs(5));
    plan.streams.truncate(4);
    for stream in &mut plan.streams {
        stream.starts_max = 10;
        stream.bodies = Bodies::Sizes {
            weights: vec![(1024, 1)],
        };
    }
    let report = run(&plan);
    for (outcome, round_trips) in report.streams.iter().zip([7, 5, 2, 1]) {
        let session = &outcome.stages[&crate::outcome::Stage::Session].service;
        let took = session.at(10.0).as_millis();
        let least = 20 * round_trips;
        assert!(
            (least..2 * least + 50).contains(&took),
            "{}: {took} ms for {round_trips} round trips",
            outcome.profile
        );
    }
}
