//! What the terminal prints after a run: counts, percentiles, and the rate only beside lost, duplicated and altered.

use std::fmt::Write as _;

use crate::outcome::{Counts, Integrity, Latencies, Outcome, Stage, StageTimes, StreamOutcome};
use crate::plan::{self, Arrivals, Plan};
use crate::units::{grouped, octets, time};

const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

/// The whole of it, lines ending in newlines.
pub fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "{} · {} · {} · {}\n",
        outcome.name,
        outcome.plan.target,
        time(outcome.lasted),
        outcome.began
    );
    for warning in &outcome.machine.warnings {
        writeln!(text, "warning: {warning}").expect("a String takes everything");
    }
    for stream in &outcome.streams {
        text += &stream_text(stream, &outcome.plan);
    }
    text += "\n";
    text += &arrived(outcome);
    text += &watched(outcome);
    text
}

fn stream_text(stream: &StreamOutcome, plan: &Plan) -> String {
    let planned = plan
        .streams
        .iter()
        .find(|planned| planned.name == stream.name);
    let is_kept = planned.is_some_and(|planned| planned.profile.is_kept());
    let counts = &stream.counts;
    let mut text = format!("\n{} · {}\n", stream.name, stream.profile);
    text += &row(
        "starts",
        &[
            (counts.starts, "made"),
            (counts.late, "late"),
            (counts.dropped, "dropped"),
            (
                counts.unfinished,
                if is_kept {
                    "kept to the end"
                } else {
                    "unfinished"
                },
            ),
        ],
    );
    text += &messages(counts, is_kept);
    text += &handshakes(counts);
    text += &trouble(counts);
    text += &stages(stream, planned);
    text += &kept(stream);
    for (words, count) in &stream.words {
        writeln!(text, "  heard       {} × {words}", grouped(*count))
            .expect("a String takes everything");
    }
    text
}

/// Clients that are kept need not send any.
fn messages(counts: &Counts, is_kept: bool) -> String {
    let cells = [
        (counts.accepted, "accepted"),
        (counts.deferred, "deferred"),
        (counts.rejected, "rejected"),
        (counts.unanswered, "unanswered"),
        (counts.not_sent, "not sent"),
    ];
    match is_kept && cells.iter().all(|(count, _)| *count == 0) {
        true => String::new(),
        false => row("messages", &cells),
    }
}

fn row(name: &str, cells: &[(u64, &str)]) -> String {
    let cells: Vec<String> = cells
        .iter()
        .map(|(count, word)| format!("{} {word}", grouped(*count)))
        .collect();
    format!("  {name:<12}{}\n", cells.join(" · "))
}

/// Of clients in TLS.
fn handshakes(counts: &Counts) -> String {
    match counts.handshakes {
        0 => String::new(),
        all => row(
            "tls",
            &[(all, "handshakes"), (counts.resumed, "resumed sessions")],
        ),
    }
}

/// Only what happened: a healthy run has no such line.
fn trouble(counts: &Counts) -> String {
    let cells: Vec<(u64, &str)> = [
        (counts.turned_away, "turned away"),
        (counts.connect_failed, "connections refused"),
        (counts.handshakes_failed, "handshakes failed"),
        (counts.resets, "resets"),
        (counts.closed_early, "closed early"),
        (counts.garbled, "garbled replies"),
        (counts.timed_out, "timed out"),
    ]
    .into_iter()
    .filter(|(count, _)| *count > 0)
    .collect();
    if cells.is_empty() {
        String::new()
    } else {
        row("trouble", &cells)
    }
}

fn stages(stream: &StreamOutcome, planned: Option<&plan::Stream>) -> String {
    let measured: Vec<(Stage, &StageTimes)> = Stage::ALL
        .into_iter()
        .filter_map(|stage| Some((stage, stream.stages.get(&stage)?)))
        .filter(|(_, times)| !times.planned.0.is_empty())
        .collect();
    if measured.is_empty() {
        return String::new();
    }
    let head: String = ["p50", "p90", "p99", "p99.9", "max"]
        .iter()
        .map(|word| format!("{word:>9}"))
        .collect();
    // a circle and what is kept start when something else has ended: nobody planned when
    let is_planned =
        planned.is_none_or(|planned| matches!(planned.arrivals, Arrivals::Open { .. }));
    let from = match is_planned {
        true => "from the planned start of the session",
        false => "from the start of the session (not planned)",
    };
    let mut text = format!(
        "  {:<12}{from:<45}   {}\n",
        "latency", "service time of the step"
    );
    writeln!(text, "  {:<12}{head}   {head}", "").expect("a String takes everything");
    for (stage, times) in measured {
        let (planned, service) = (percentiles(&times.planned), percentiles(&times.service));
        writeln!(text, "  {:<12}{planned}   {service}", stage.word())
            .expect("a String takes everything");
    }
    text
}

fn percentiles(latencies: &Latencies) -> String {
    PERCENTILES
        .iter()
        .map(|percentile| match latencies.0.is_empty() {
            true => format!("{:>9}", "–"),
            false => format!("{:>9}", time(latencies.at(*percentile))),
        })
        .collect()
}

fn kept(stream: &StreamOutcome) -> String {
    let open = stream
        .seconds
        .iter()
        .map(|second| second.open)
        .max()
        .unwrap_or(0);
    if stream.kept.0.is_empty() {
        return match stream.stages.is_empty() && open > 0 {
            true => format!(
                "  kept        up to {} at once; the other side ended none\n",
                grouped(open)
            ),
            false => String::new(),
        };
    }
    format!(
        "  kept        up to {} at once; the other side ended {} of them, after {} (p50), {} (max)\n",
        grouped(open),
        grouped(stream.kept.0.len()),
        time(stream.kept.at(50.0)),
        time(stream.kept.at(100.0))
    )
}

/// A rate never stands alone.
fn arrived(outcome: &Outcome) -> String {
    let accepted = outcome.accepted();
    match &outcome.integrity {
        Some(integrity) => format!(
            "{} accepted · {:.1} msg/s · {}\n",
            grouped(accepted),
            outcome.rate(),
            integrity_text(integrity)
        ),
        None => format!(
            "{} accepted; nobody counted what arrived, so no rate is told (name the sink's control port with --ledger)\n",
            grouped(accepted)
        ),
    }
}

pub fn integrity_text(integrity: &Integrity) -> String {
    let mut text = format!(
        "{} arrived · {} lost · {} duplicated · {} altered",
        grouped(integrity.arrived),
        grouped(integrity.lost),
        grouped(integrity.duplicated),
        grouped(integrity.altered)
    );
    for (count, words) in [
        (
            integrity.invented,
            "refused or never sent, and arrived all the same",
        ),
        (integrity.unanswered_arrived, "unanswered, and arrived"),
        (integrity.unknown, "without an id that can be read"),
    ] {
        if count > 0 {
            text += &format!(" · {} {words}", grouped(count));
        }
    }
    text
}

/// What the watched process used from the first sample to the last.
fn watched(outcome: &Outcome) -> String {
    let (Some(first), Some(last)) = (outcome.samples.first(), outcome.samples.last()) else {
        return String::new();
    };
    let wall = (last.at.saturating_sub(first.at)).as_secs_f64().max(1e-9);
    let cpu = last.cpu.saturating_sub(first.cpu);
    let accepted = outcome.accepted();
    let rss_max = outcome
        .samples
        .iter()
        .map(|sample| sample.rss_octets)
        .max()
        .unwrap_or(0);
    let mut text = format!(
        "watched process: CPU {} ({:.1} % of a core), RSS {} before, {} at most",
        time(cpu),
        cpu.as_secs_f64() / wall * 100.0,
        octets(first.rss_octets as f64),
        octets(rss_max as f64)
    );
    if accepted > 0 && outcome.integrity.is_some() && !outcome.is_watch_lost() {
        text += &format!(
            ", {:.1} µs of CPU an accepted message",
            cpu.as_secs_f64() * 1e6 / accepted as f64
        );
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::grammar::samples::plan;
    use crate::outcome::Sample;

    fn outcome() -> Outcome {
        let plan = plan(&["good: profile=pipelined rate=10/s"]);
        let mut good = StreamOutcome::named("good");
        good.counts.starts = 12_345;
        good.counts.accepted = 12_000;
        good.counts.resets = 3;
        good.seconds = vec![
            crate::outcome::Second {
                accepted: 1200,
                ..Default::default()
            };
            10
        ];
        good.words.insert("450 4.3.2 later".to_owned(), 7);
        for us in [100, 2_500, 1_500_000] {
            let times = good.stages.entry(Stage::Final).or_default();
            times.planned.record(Duration::from_micros(us));
            times.service.record(Duration::from_micros(us / 2));
        }
        Outcome {
            integrity: Some(Integrity {
                arrived: 12_000,
                lost: 1,
                ..Integrity::default()
            }),
            ..Outcome::of(plan, vec![good])
        }
    }

    #[test]
    fn a_rate_stands_beside_what_arrived() {
        let text = text(&outcome());
        let line = text
            .lines()
            .find(|line| line.contains("msg/s"))
            .expect("a rate is told");
        for word in [
            "12,000 accepted",
            "1200.0 msg/s",
            "1 lost",
            "0 duplicated",
            "0 altered",
        ] {
            assert!(line.contains(word), "{word} is missing in {line}");
        }
    }

    #[test]
    fn without_a_ledger_no_rate_is_told() {
        let mut outcome = outcome();
        outcome.integrity = None;
        let text = text(&outcome);
        assert!(
            !text.contains("msg/s") && text.contains("nobody counted"),
            "{text}"
        );
    }

    #[test]
    fn columns_stand_below_their_heads() {
        let text = text(&outcome());
        let at = |line: &str, word: &str| {
            line.find(word)
                .map(|at| line[..at + word.len()].chars().count())
        };
        let head = text.lines().find(|line| line.contains("p99.9")).unwrap();
        let row = text
            .lines()
            .find(|line| line.trim_start().starts_with("final"))
            .unwrap();
        assert_eq!(at(head, "p50"), at(row, "2.50 ms"), "{text}");
        assert_eq!(at(head, "p90"), at(row, "1.50 s"), "{text}");
        assert_eq!(head.chars().count(), row.chars().count(), "{text}");
    }

    #[test]
    fn trouble_is_told_only_where_there_is_some() {
        let mut outcome = outcome();
        assert!(text(&outcome).contains("trouble     3 resets\n"));
        outcome.streams[0].counts.resets = 0;
        assert!(!text(&outcome).contains("trouble"));
        assert!(text(&outcome).contains("7 × 450 4.3.2 later"));
    }

    #[test]
    fn the_watched_process_is_charged_for_the_run_only() {
        let mut outcome = outcome();
        let sample = |at, cpu, mib: u64| Sample {
            at: Duration::from_secs(at),
            cpu: Duration::from_secs(cpu),
            rss_octets: mib << 20,
            ..Sample::default()
        };
        outcome.samples = vec![sample(0, 5, 10), sample(5, 6, 40), sample(10, 8, 20)];
        let text = text(&outcome);
        for word in [
            "CPU 3.00 s (30.0 % of a core)",
            "10 MiB before",
            "40 MiB at most",
            "250.0 µs",
        ] {
            assert!(text.contains(word), "{word} is missing in {text}");
        }
    }

    /// It died in mid run, and its CPU time till then was divided by the messages of the whole run.
    #[test]
    fn a_watched_process_that_was_lost_has_no_price_a_message() {
        let mut outcome = outcome();
        outcome.samples = vec![
            Sample::default(),
            Sample {
                cpu: Duration::from_secs(1),
                at: Duration::from_secs(1),
                ..Sample::default()
            },
        ];
        assert!(text(&outcome).contains("an accepted message"));
        outcome
            .machine
            .warnings
            .push(format!("{}: no such process", Outcome::WATCH_LOST));
        assert!(!text(&outcome).contains("an accepted message"));
        assert!(text(&outcome).contains("CPU 1.00 s"));
    }

    #[test]
    fn a_circle_has_no_plan_to_count_from() {
        let mut outcome = outcome();
        assert!(text(&outcome).contains("from the planned start"));
        outcome.plan = plan(&["good: profile=pipelined sessions=3"]);
        assert!(
            !text(&outcome).contains("from the planned start"),
            "{}",
            text(&outcome)
        );
    }
}
