//! What it costs to ask six lists about a client: CPU where all answers are remembered, datagrams and system calls where none is.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::responder::Responder;
use super::stand::{Stand, cpu_while};
use super::steady::{counted, strace_rows};
use crate::medians::median;
use crate::peers::child::program;
use crate::peers::weir::Weir;
use crate::peers::workload::{Load, find};
use crate::progress::tell;

const ZONES: u64 = 6;

/// Findings that rest on names of client, HELO and sender: nothing is asked for those that are off.
const NAMES_OFF: &str = "--on no-reverse=off --on reverse-mismatch=off --on helo-unresolved=off --on helo-mismatch=off --on sender-unresolved=off --on sender-null-mx=off";

/// Client addresses of a run in which nobody comes twice.
const STRANGERS: u32 = 60_000;

fn flags(responder: &Responder) -> String {
    let zones = (0..ZONES).map(|zone| format!(" --dnsbl zone{zone}.lists.test*1"));
    let zones: String = zones.collect();
    format!("--resolver {}{zones}", responder.at)
}

/// A connection whose client six lists are asked about, all answers remembered, to one without reputation. The same with all names looked up.
pub fn cached(stand: &mut Stand<'_>) -> Result<()> {
    let responder = Responder::start()?;
    let lists = flags(&responder);
    let weirs = [
        stand.weir("")?,
        stand.weir(&format!("{lists} {NAMES_OFF}"))?,
        stand.weir(&lists)?,
    ];
    let words = ["without reputation", "six lists", "six lists and names"];
    let workload = find("new-4k")?;
    let load = stand.load(stand.options.rate, stand.options.lasts);
    let mut cpu_us = [const { Vec::new() }; 3];
    // Round 0 warms up, and fills the caches.
    for round in 0..=stand.options.rounds {
        for (at, weir) in weirs.iter().enumerate() {
            let title = format!("{}, {}, round {round}", workload.title, words[at]);
            let (outcome, cpu) = cpu_while(weir, || stand.good(weir, workload, &load, &title))?;
            if round > 0 {
                cpu_us[at].push(cpu.as_secs_f64() * 1e6 / outcome.accepted() as f64);
            }
        }
    }
    let medians = cpu_us.each_ref().map(|rounds| median(rounds));
    let [Some(without), Some(lists), Some(names)] = medians else {
        return Ok(());
    };
    let asked = responder.asked();
    for (at, with, target) in [(1, lists, Some(1.1)), (2, names, None)] {
        let title = format!(
            "CPU per connection with {} from cache, to that without",
            words[at]
        );
        let note = format!(
            "medians of {} rounds: {with:.1} and {without:.1} µs; {} datagrams in all",
            stand.options.rounds, asked.datagrams
        );
        stand.figure(&title, with / without, "", target, &note);
    }
    Ok(())
}

/// Nobody comes twice: datagrams and ring enters for each answer, and all system calls where strace can count them.
pub fn uncached(stand: &mut Stand<'_>) -> Result<()> {
    let responder = Responder::start()?;
    let with = stand.weir(&format!("{} {NAMES_OFF}", flags(&responder)))?;
    let without = stand.weir("")?;
    let workload = find("new-4k")?;
    let load = Load {
        sessions: STRANGERS,
        ..stand.load(
            Some(stand.options.rate.unwrap_or(500.0)),
            stand.options.lasts,
        )
    };
    let enters = |weir: &Weir| weir.metric("weir_ring_enters_total");
    let (asked_before, enters_before) = (responder.asked(), enters(&with)?);
    let outcome = stand.good(&with, workload, &load, "strangers, six lists")?;
    let (asked, enters_after) = (responder.asked(), enters(&with)?);
    let datagrams = asked.datagrams - asked_before.datagrams;
    let questions = asked.questions - asked_before.questions;
    let connections = outcome.accepted();
    let note =
        format!("{datagrams} datagrams for {questions} questions of {connections} connections");
    let each = datagrams as f64 / questions.max(1) as f64;
    stand.figure(
        "datagrams per answer that is not remembered",
        each,
        "",
        Some(1.01),
        &note,
    );

    let plain_before = enters(&without)?;
    let plain = stand.good(&without, workload, &load, "strangers, without reputation")?;
    let plain_enters = (enters(&without)? - plain_before) / plain.accepted() as f64;
    let with_enters = (enters_after - enters_before) / connections as f64;
    let note = format!(
        "{with_enters:.2} per connection with six questions, {plain_enters:.2} without, at the same rate"
    );
    let each = (with_enters - plain_enters) / ZONES as f64;
    stand.figure(
        "ring enters per answer that is not remembered",
        each,
        "",
        None,
        &note,
    );
    calls(stand, &load, [&without, &with])
}

/// All system calls, told apart by name.
fn calls(stand: &mut Stand<'_>, load: &Load, weirs: [&Weir; 2]) -> Result<()> {
    let Some(strace) = program("strace") else {
        tell("system calls were not counted: strace is not installed");
        return Ok(());
    };
    let workload = find("new-4k")?;
    let mut each = Vec::new();
    for (weir, name) in weirs.into_iter().zip(["without", "with"]) {
        let log = stand.folder.path().join(format!("strace-{name}.txt"));
        let mut command = Command::new(&strace);
        let columns = ["-f", "-c", "-U", "name,calls", "-o"];
        command.args(columns).arg(&log);
        let short = Load {
            lasts: stand.options.lasts.min(Duration::from_secs(5)),
            ..*load
        };
        let Some((messages, text)) = counted(stand, weir, workload, &short, command, &log)? else {
            return Ok(());
        };
        let all: u64 = strace_rows(&text).iter().map(|(_, calls)| calls).sum();
        each.push(all as f64 / messages as f64);
    }
    let note = format!(
        "strace: {:.2} per connection with six questions, {:.2} without",
        each[1], each[0]
    );
    let title = "system calls per answer that is not remembered";
    stand.figure(
        title,
        (each[1] - each[0]) / ZONES as f64,
        "",
        Some(2.0),
        &note,
    );
    Ok(())
}
