//! What the plan says, and what it warns of.

use super::*;
use crate::cli::args::{Wanted, parse};
use crate::cli::flags::Purpose;

fn plan_of(words: &[&str]) -> String {
    let (Some(Wanted::Run(flags)), wrong) = parse(words.iter().map(|w| (*w).to_owned())) else {
        panic!("{words:?}")
    };
    let config = Config::read(&flags, Purpose::Relay, "mx.example", wrong)
        .unwrap_or_else(|wrong| panic!("{wrong:?}"));
    plan(&config, 4)
}

#[test]
fn the_plan_names_what_is_in_force() {
    let plan = plan_of(&[
        "--listen",
        "0.0.0.0:25",
        "--upstream",
        "mx1:25,weight=2",
        "--relay-domains",
        "a.example,b.example",
        "--on",
        "pregreet=stutter",
    ]);
    for words in [
        "multiplexed",
        "0.0.0.0:25 as mx.example",
        "4 on 4 cores",
        "mx1:25 weight 2, at most 100 connections",
        "anybody to 2 domains",
        "pregreet=stutter",
        "reject",
    ] {
        assert!(plan.contains(words), "{words} in\n{plan}");
    }
    assert!(!plan.contains("warning"), "{plan}");
}

#[test]
fn the_plan_names_lists_and_hides_their_keys() {
    let plan = plan_of(&[
        "--listen",
        "0.0.0.0:25",
        "--upstream",
        "mx1:25",
        "--relay-domains",
        "a.example",
        "--dnsbl",
        "abcdefghijklmnopqrs123.zen.example=127.0.0.[2..11]*3,txt",
    ]);
    assert!(
        plan.contains("zen.example =127.0.0.[2..11]*3, reasons told"),
        "{plan}"
    );
    assert!(
        plan.contains("tested at start and every 30m") && !plan.contains("qrs123"),
        "{plan}"
    );
}

#[test]
fn the_plan_tells_what_is_remembered() {
    let base = ["--listen", "127.0.0.1:25", "--upstream", "mx1:25"];
    let off = plan_of(&base);
    assert!(off.contains("history    off (--greylist"), "{off}");
    let score = ["--greylist", "score", "--greylist-delay", "7m"];
    let plan = plan_of(&[&base[..], &score].concat());
    assert!(
            plan.contains("greylisting (log) of who has a score of 1 or more: a retry passes after 7m and within 1d, its network is proven for 36d"),
            "{plan}"
        );
    assert!(
        plan.contains("1000000 networks (/24, /64) per shard, half of it gone in 7d"),
        "{plan}"
    );
}

#[test]
fn the_plan_names_the_mode() {
    let shown = [
        "--listen",
        "0.0.0.0:25",
        "--upstream",
        "mx1:25",
        "--identity",
        "proxy-v2",
    ];
    let plan = plan_of(&shown);
    for words in [
        "dedicated: ",
        "a PROXY header (v2)",
        "the mail servers decide",
    ] {
        assert!(plan.contains(words), "{words} in\n{plan}");
    }
    let path = [
        "--listen",
        "0.0.0.0:25",
        "--transparent",
        "tproxy",
        "--identity",
        "transparent",
        "--transparent-mark",
        "37",
    ];
    let plan = plan_of(&path);
    for words in [
        "wanted to go (tproxy)",
        "see the client's address",
        "STARTTLS is between client and server",
        "marked 0x25",
        "where each client wanted to go",
    ] {
        assert!(plan.contains(words), "{words} in\n{plan}");
    }
}

#[test]
fn the_plan_names_the_memory() {
    let plan = plan_of(&["--demo", "--shards", "2", "--hold-memory", "1GiB"]);
    assert!(
        plan.contains("8.0 MiB  client receive buffers (2 shards x 256 x 16 KiB)"),
        "{plan}"
    );
    assert!(
        plan.contains("1.0 GiB  held bodies (--hold-memory)"),
        "{plan}"
    );
}

#[test]
fn doubtful_choices_are_warned_about() {
    let plan = plan_of(&[
        "--listen",
        "0.0.0.0:25",
        "--upstream",
        "mx1",
        "--relay-domains",
        "any",
        "--steer",
        "kernel",
        "--shards",
        "8",
        "--hostname",
        "box",
        "--max-connections",
        "0",
    ]);
    assert_eq!(plan.matches("warning: ").count(), 5, "{plan}");
}
