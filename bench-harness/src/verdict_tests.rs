//! Thresholds against an outcome made by hand.

use super::*;
use crate::grammar::samples::plan;
use crate::outcome::Second;

fn outcome() -> Outcome {
    let plan = plan(&["good: rate=10/s", "bots: profile=idle connections=5"]);
    let mut good = StreamOutcome::named("good");
    good.counts.starts = 9_998;
    good.counts.accepted = 100;
    good.counts.dropped = 2;
    good.seconds = vec![
        Second {
            accepted: 10,
            ..Second::default()
        };
        10
    ];
    for ms in 1..=100 {
        let times = good.stages.entry(Stage::Session).or_default();
        times.planned.record(Duration::from_millis(ms));
        times.service.record(Duration::from_millis(1));
        good.stages
            .entry(Stage::Final)
            .or_default()
            .planned
            .record(Duration::from_millis(2));
    }
    let mut bots = StreamOutcome::named("bots");
    bots.counts.dropped = 3;
    Outcome {
        integrity: Some(Integrity {
            arrived: 100,
            lost: 1,
            ..Integrity::default()
        }),
        ..Outcome::of(plan, vec![good, bots])
    }
}

#[test]
fn thresholds_judge_a_run() {
    let outcome = outcome();
    for (text, broken, measured) in [
        ("p99>5ms", true, "99.0 ms (good)"),
        ("p99>150ms", false, "99.0 ms (good)"),
        ("p50>51ms", false, "50.0 ms (good)"),
        ("max>99ms", true, "unknown: 2 starts were dropped (good)"),
        ("p99.99>1s", true, "unknown: 2 starts were dropped (good)"),
        ("max<1s", true, "100 ms (good)"),
        ("session.p99>1s", false, "99.0 ms (good)"),
        ("final.p99.9>2100us", false, "2.00 ms (good)"),
        ("good.final.p99.9>1ms", true, "2.00 ms (good)"),
        ("service.p99>5ms", false, "1.00 ms (good)"),
        ("good.session.service.max>5ms", false, "1.00 ms (good)"),
        ("bots.p99>5ms", true, "nothing was measured"),
        ("ehlo.p99>5ms", true, "nothing was measured"),
        ("lost>0", true, "1"),
        ("lost>1", false, "1"),
        ("duplicated>0", false, "0"),
        ("arrived<100", false, "100"),
        ("dropped>4", true, "5"),
        ("good.dropped>2", false, "2"),
        ("rate<11/s", true, "10.0/s"),
        ("rate < 540/m", false, "10.0/s"),
        ("good.rate<10/s", false, "10.0/s"),
    ] {
        let verdict = Threshold::parse(text).expect(text).judge(&outcome);
        assert_eq!(
            (verdict.broken, verdict.measured.as_str()),
            (broken, measured),
            "{text}"
        );
    }
}

#[test]
fn without_a_ledger_nothing_is_proved() {
    let mut outcome = outcome();
    outcome.integrity = None;
    assert!(Threshold::parse("lost>0").unwrap().judge(&outcome).broken);
    outcome.plan.ledger = None;
    for text in ["lost>0", "rate<5/s"] {
        assert!(
            Threshold::parse(text)
                .unwrap()
                .fits(&outcome.plan)
                .unwrap_err()
                .contains("--ledger"),
            "{text}"
        );
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for text in [
        "",
        "p99",
        "p99>",
        "p99>5",
        "p101>5ms",
        "p99x>5ms",
        ">5ms",
        "lost>x",
        "lost>0.5",
        "good.lost>0",
        "rate<5",
        "speed>5",
        "a.b.p99>5ms",
        "a.final.service.x.p99>1ms",
        "latency>5ms",
    ] {
        assert!(!Threshold::parse(text).expect_err(text).is_empty());
    }
    let unknown = Threshold::parse("nobody.p99>5ms")
        .unwrap()
        .fits(&outcome().plan);
    assert!(unknown.unwrap_err().contains("good, bots"));
}

#[test]
fn the_warm_up_does_not_count() {
    let mut outcome = outcome();
    outcome.plan.warmup = Duration::from_secs(5);
    for second in &mut outcome.streams[0].seconds[..5] {
        second.accepted = 1000;
    }
    assert_eq!(outcome.rate_of(&outcome.streams[0]), 10.0);
}

/// A second good stream that got nothing through was passed over as if it were made of bots.
#[test]
fn a_stream_without_samples_is_no_pass() {
    let mut outcome = outcome();
    outcome.plan = plan(&[
        "good: rate=10/s",
        "bots: profile=idle connections=5",
        "poor: rate=1/s",
    ]);
    let poor = StreamOutcome::named("poor");
    outcome.streams.push(poor);
    for (text, broken, measured) in [
        ("p99>150ms", true, "nothing was measured (poor)"),
        ("final.p50>1s", true, "nothing was measured (poor)"),
        ("good.p99>150ms", false, "99.0 ms (good)"),
    ] {
        let verdict = Threshold::parse(text).unwrap().judge(&outcome);
        assert_eq!(
            (verdict.broken, verdict.measured.as_str()),
            (broken, measured),
            "{text}"
        );
    }
}
