//! Command lines of `source`: the plan they make, and what is said about wrong ones.

use super::*;
use crate::plan::{Arrivals, Profile};
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: SourceFlags,
}

fn read(arguments: &[&str]) -> Result<Plan, Problems> {
    let line = std::iter::once("source").chain(arguments.iter().copied());
    Line::try_parse_from(line)
        .expect("clap takes it")
        .flags
        .plan()
}

#[test]
fn one_stream_needs_no_grammar() {
    let plan = read(&[
        "127.0.0.1:2525",
        "--sessions",
        "10",
        "--for",
        "3s",
        "--ledger",
        "127.0.0.1:2526",
    ])
    .unwrap();
    assert_eq!(plan.lasts, Duration::from_secs(3));
    assert_eq!(plan.streams.len(), 1);
    assert_eq!(plan.streams[0].profile, Profile::PerMessage);
    assert_eq!(plan.streams[0].arrivals, Arrivals::Closed { sessions: 10 });
    assert_eq!(plan.ledger, Some("127.0.0.1:2526".parse().unwrap()));
    assert_ne!(plan.run, 0);
}

#[test]
fn a_run_lasts_as_long_as_its_longest_ramp() {
    let ramp = read(&["127.0.0.1:1", "--rate", "1/s..9/s over 30s, 9/s over 10s"]).unwrap();
    assert_eq!(ramp.lasts, Duration::from_secs(40));
    let plain = read(&["127.0.0.1:1", "--rate", "9/s"]).unwrap();
    assert_eq!(plain.lasts, LASTS);
}

#[test]
fn every_flag_of_one_stream_is_a_key() {
    let flags = OneStream {
        profile: Some("idle".to_owned()),
        ..OneStream::default()
    };
    assert_eq!(flags.settings().name, "idle");
    for (key, _) in stream::KEYS {
        let arguments = ["source", "127.0.0.1:1", &format!("--{key}"), "x"].map(str::to_owned);
        let line = Line::try_parse_from(arguments).expect(key);
        assert_eq!(line.flags.one.values().keys().collect::<Vec<_>>(), [key]);
    }
}

#[test]
fn wrong_lines_are_told_flag_by_flag() {
    let target = "127.0.0.1:2525";
    for (arguments, flags) in [
        (vec!["192.0.2.1:25", "--sessions", "1"], vec!["TARGET"]),
        (vec!["localhost:25", "--sessions", "1"], vec!["TARGET"]),
        (vec![target], vec!["source"]),
        (vec![target, "--rate", "5"], vec!["--rate"]),
        (
            vec![target, "--sessions", "1", "--ledger", "192.0.2.1:2526"],
            vec!["--ledger"],
        ),
        (
            vec![
                target,
                "--sessions",
                "1",
                "--i-own-this-host",
                "mail.example",
            ],
            vec!["--i-own-this-host"],
        ),
        (
            vec![target, "--sessions", "1", "--for", "10"],
            vec!["--for"],
        ),
        (
            vec![target, "--sessions", "1", "--for", "25h"],
            vec!["--for"],
        ),
        (
            vec![target, "--sessions", "1", "--warmup", "10s"],
            vec!["--for"],
        ),
        (
            vec![target, "--sessions", "1", "--seed", "x"],
            vec!["--seed"],
        ),
        (
            vec![target, "--sessions", "1", "--stream", "a: sessions=1"],
            vec!["--sessions"],
        ),
        (
            vec![
                target,
                "--stream",
                "a: sessions=1",
                "--stream",
                "a: sessions=2",
            ],
            vec!["--stream"],
        ),
        (
            vec![
                "here:25", "--rate", "5", "--size", "1", "--for", "x", "--grace", "y",
            ],
            vec!["TARGET", "--for", "--grace", "--rate", "--size"],
        ),
    ] {
        let problems = read(&arguments).expect_err(&arguments.join(" "));
        let told: Vec<&str> = problems
            .0
            .iter()
            .map(|problem| problem.flag.as_str())
            .collect();
        assert_eq!(told, flags, "{problems}");
    }
}

#[test]
fn a_host_that_is_owned_may_be_loaded() {
    let arguments = [
        "192.0.2.1:25",
        "--sessions",
        "1",
        "--i-own-this-host",
        "192.0.2.1",
    ];
    assert_eq!(read(&arguments).unwrap().target.to_string(), "192.0.2.1:25");
}
