//! The tables of a page.

use super::group::{self, Row, Workload};
use super::html::{Cell, Html, Table};
use crate::outcome::{
    Comparison, Counts, Figure, Integrity, Latencies, PeerRounds, Stage, StageTimes, StreamOutcome,
};
use crate::{medians, units};

/// Every name and stream that comes and goes, in a line each: the rate, the latencies that matter, what went wrong.
pub fn glance(workload: &Workload<'_>) -> Table {
    let mut table = Table::new(
        "At a glance: whole sessions (for kept connections, transactions)",
        &[
            "",
            "accepted",
            "p50",
            "p99",
            "p99.9",
            "largest",
            "p99",
            "late",
            "dropped",
            "not accepted",
        ],
    );
    table.groups = vec![
        ("", 2),
        ("from the planned start", 4),
        ("service", 1),
        ("starts", 2),
        ("", 1),
    ];
    for row in &workload.rows {
        for stream in row.streams.iter().filter(|s| group::session(s).is_some()) {
            table.rows.push(glance_row(row, stream));
        }
    }
    table
}

fn glance_row(row: &Row<'_>, stream: &StreamOutcome) -> Vec<Cell> {
    let counts = &stream.counts;
    let times = group::session(stream).cloned().unwrap_or_default();
    let accepted = match row.integrity() {
        None => "not counted".to_owned(),
        Some(_) => units::grouped(counts.accepted),
    };
    let mut cells = vec![
        Cell::text(format!("{}: {}", row.name, stream.name)),
        Cell::number(accepted),
    ];
    cells.extend([50.0, 99.0, 99.9, 100.0].map(|p| at(&times.planned, p)));
    cells.extend([
        at(&times.service, 99.0),
        Cell::number(units::grouped(counts.late)),
        Cell::number(units::grouped(counts.dropped)),
        Cell::number(units::grouped(not_accepted(counts))),
    ]);
    cells
}

fn not_accepted(counts: &Counts) -> u64 {
    counts.deferred + counts.rejected + counts.unanswered + counts.not_sent
}

fn at(latencies: &Latencies, percentile: f64) -> Cell {
    Cell::number(if latencies.0.is_empty() {
        "–".to_owned()
    } else {
        units::duration(latencies.at(percentile))
    })
}

const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

/// Every stage of one stream, counted both ways.
pub fn stages(name: &str, stream: &StreamOutcome) -> Table {
    let mut table = Table::new(
        format!("{name}: {}, by stage", stream.name),
        &[
            "stage", "times", "p50", "p90", "p99", "p99.9", "largest", "p50", "p90", "p99",
            "p99.9", "largest",
        ],
    );
    table.groups = vec![("", 2), ("from the planned start", 5), ("service time", 5)];
    for stage in Stage::ALL {
        let Some(StageTimes { planned, service }) = stream.stages.get(&stage) else {
            continue;
        };
        let times = planned.0.len().max(service.0.len());
        let mut cells = vec![
            Cell::text(stage.word()),
            Cell::number(units::grouped(times)),
        ];
        cells.extend(PERCENTILES.map(|p| at(planned, p)));
        cells.extend(PERCENTILES.map(|p| at(service, p)));
        table.rows.push(cells);
    }
    table
}

/// How long clients that want to stay were kept.
pub fn kept(workload: &Workload<'_>) -> Table {
    let mut table = Table::new(
        "Kept clients: how long they stayed until the other side ended it",
        &[
            "",
            "opened",
            "open at the end",
            "ended",
            "p50",
            "p90",
            "p99",
            "longest",
            "turned away",
        ],
    );
    for row in &workload.rows {
        for stream in row.streams.iter().filter(|s| is_kept(workload, s)) {
            let open = row.rounds.last().and_then(|run| {
                let last = run.streams.iter().find(|s| s.name == stream.name)?;
                Some(last.seconds.last()?.open)
            });
            let mut cells = vec![
                Cell::text(format!("{}: {}", row.name, stream.name)),
                Cell::number(units::grouped(stream.counts.starts)),
                Cell::number(open.map_or("–".to_owned(), units::grouped)),
                Cell::number(units::grouped(stream.kept.0.len())),
            ];
            cells.extend([50.0, 90.0, 99.0, 100.0].map(|p| at(&stream.kept, p)));
            cells.push(Cell::number(units::grouped(stream.counts.turned_away)));
            table.rows.push(cells);
        }
    }
    table
}

fn is_kept(workload: &Workload<'_>, stream: &StreamOutcome) -> bool {
    let planned = workload.plan.streams.iter().find(|s| s.name == stream.name);
    planned.is_some_and(|s| s.profile.is_kept())
}

/// Counts a reader wants even where they are 0, then those that should be.
type CountColumn = (&'static str, fn(&Counts) -> u64);
const COUNTS: [CountColumn; 17] = [
    ("starts", |c| c.starts),
    ("accepted", |c| c.accepted),
    ("late", |c| c.late),
    ("dropped", |c| c.dropped),
    ("deferred (4xx)", |c| c.deferred),
    ("rejected (5xx)", |c| c.rejected),
    ("unanswered", |c| c.unanswered),
    ("not sent", |c| c.not_sent),
    ("turned away", |c| c.turned_away),
    ("connect failed", |c| c.connect_failed),
    ("handshakes", |c| c.handshakes),
    ("resumed", |c| c.resumed),
    ("handshakes failed", |c| c.handshakes_failed),
    ("resets", |c| c.resets),
    ("closed early", |c| c.closed_early),
    ("timed out", |c| c.timed_out),
    ("unfinished", |c| c.unfinished),
];
/// `accepted` and what stands before it.
const COUNTS_ALWAYS: usize = 2;

/// Counts of every name and stream. Columns that are 0 everywhere are left out, and named below.
pub fn counts(workload: &Workload<'_>, into: &mut Html) {
    let streams: Vec<_> = workload
        .rows
        .iter()
        .flat_map(|row| row.streams.iter().map(move |stream| (row, stream)))
        .collect();
    let (shown, zero): (Vec<_>, Vec<_>) = COUNTS
        .iter()
        .chain([&("garbled", (|c| c.garbled) as fn(&Counts) -> u64)])
        .enumerate()
        .partition(|(n, (_, of))| {
            *n < COUNTS_ALWAYS || streams.iter().any(|(_, s)| of(&s.counts) > 0)
        });
    let mut table = Table::new("Counts", &[""]);
    table.heads.extend(shown.iter().map(|(_, (head, _))| *head));
    table.heads.push("body octets");
    for (row, stream) in streams {
        let mut cells = vec![Cell::text(format!("{}: {}", row.name, stream.name))];
        cells.extend(
            shown
                .iter()
                .map(|(_, (_, of))| Cell::number(units::grouped(of(&stream.counts)))),
        );
        cells.push(Cell::number(units::octets(
            stream.counts.body_octets as f64,
        )));
        table.rows.push(cells);
    }
    table.write(into);
    if !zero.is_empty() {
        let zero: Vec<_> = zero.iter().map(|(_, (head, _))| *head).collect();
        into.raw("<p class=\"note\">0 everywhere: ")
            .text(zero.join(", "))
            .raw(".</p>\n");
    }
}

/// Replies nobody wanted, in the words of whoever gave them.
pub fn words(workload: &Workload<'_>) -> Table {
    let mut table = Table::new("Unwanted replies", &["", "times", "words"]);
    for row in &workload.rows {
        for stream in &row.streams {
            let mut words: Vec<_> = stream.words.iter().collect();
            words.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
            for (said, times) in words {
                table.rows.push(vec![
                    Cell::text(format!("{}: {}", row.name, stream.name)),
                    Cell::number(units::grouped(*times)),
                    Cell::text(said),
                ]);
            }
        }
    }
    table
}

/// What was sent against what arrived, name by name.
pub fn integrity(workload: &Workload<'_>) -> Table {
    let mut table = Table::new(
        "Integrity: what was sent against what arrived",
        &[
            "",
            "messages/s",
            "arrived",
            "lost",
            "duplicated",
            "altered",
            "invented",
            "unknown",
            "unanswered, arrived",
        ],
    );
    for row in &workload.rows {
        let mut cells = vec![Cell::text(row.name)];
        match (row.messages_per_second(), row.integrity()) {
            (Some(rate), Some(found)) => cells.extend(integrity_cells(rate, &found)),
            _ => {
                cells.push(Cell::text("not counted"));
                cells.extend((0..7).map(|_| Cell::number("–")));
            }
        }
        table.rows.push(cells);
    }
    table
}

fn integrity_cells(rate: f64, found: &Integrity) -> [Cell; 8] {
    [
        Cell::number(units::per_second(rate)),
        Cell::number(units::grouped(found.arrived)),
        Cell::fault(found.lost),
        Cell::fault(found.duplicated),
        Cell::fault(found.altered),
        Cell::fault(found.invented),
        Cell::fault(found.unknown),
        Cell::number(units::grouped(found.unanswered_arrived)),
    ]
}

/// CPU per message of every peer, its ratio, and what else they reached.
pub fn comparison(comparison: &Comparison) -> Table {
    let mut table = Table::new(
        &comparison.title,
        &[
            "",
            "median",
            "min to max",
            "",
            "ratio",
            "target",
            "messages/s",
            "p50",
            "p99",
            "p99.9",
        ],
    );
    table.groups = vec![
        ("", 1),
        ("CPU per message", 3),
        ("against the peer", 2),
        ("medians of rounds", 4),
    ];
    let against = comparison
        .peers
        .iter()
        .find(|p| p.name == comparison.against);
    let against = against.and_then(|p| medians::median(&p.cpu_us));
    let most = medians::extent(
        comparison
            .peers
            .iter()
            .flat_map(|p| p.cpu_us.iter().copied()),
    );
    let most = most.map_or(0.0, |(_, most)| most);
    for peer in &comparison.peers {
        table.rows.push(peer_row(comparison, peer, against, most));
    }
    table
}

fn peer_row(
    comparison: &Comparison,
    peer: &PeerRounds,
    against: Option<f64>,
    most: f64,
) -> Vec<Cell> {
    let mut cells = vec![Cell::text(&peer.name)];
    match (
        medians::median(&peer.cpu_us),
        medians::extent(peer.cpu_us.iter().copied()),
    ) {
        (Some(median), Some((least, largest))) => {
            let (from, to) = (units::micros(least), units::micros(largest));
            cells.push(Cell::number(units::micros(median)));
            cells.push(Cell::number(format!("{from} to {to}")));
            cells.push(Cell::Made(bar(median, least, largest, most)));
            let ratio = against.filter(|a| *a > 0.0).map(|a| median / a);
            cells.push(Cell::number(ratio.map_or("–".to_owned(), units::ratio)));
            cells.push(target_of(comparison, peer, ratio));
        }
        _ => {
            let mut why = Html::new();
            why.raw("<span class=\"why\">")
                .text(match &peer.absent {
                    Some(why) => format!("absent: {why}"),
                    None => "no rounds".to_owned(),
                })
                .raw("</span>");
            cells.push(Cell::Made(why));
            cells.extend((0..4).map(|_| Cell::text("")));
        }
    }
    let rate = medians::median(&peer.messages_per_second);
    cells.push(Cell::number(rate.map_or("–".to_owned(), units::per_second)));
    for times in [&peer.p50_us, &peer.p99_us, &peer.p999_us] {
        cells.push(Cell::number(
            medians::median(times).map_or("–".to_owned(), units::micros),
        ));
    }
    cells
}

/// The target is weir's own.
fn target_of(comparison: &Comparison, peer: &PeerRounds, ratio: Option<f64>) -> Cell {
    match (comparison.target, ratio) {
        (Some(target), Some(ratio)) if peer.name == "weir" => judged(ratio, target, units::ratio),
        _ => Cell::text(""),
    }
}

fn judged(value: f64, target: f64, unit: fn(f64) -> String) -> Cell {
    if value <= target {
        Cell::Good(format!("✓ at most {}: met", unit(target)))
    } else {
        Cell::Bad(format!("✗ at most {}: missed", unit(target)))
    }
}

/// The median as a bar, smallest to largest as a thin line on it. The numbers stand beside it, so readers of text miss nothing.
fn bar(median: f64, least: f64, largest: f64, most: f64) -> Html {
    let share = |us: f64| format!("{:.1}%", 100.0 * us / most.max(f64::MIN_POSITIVE));
    let mut bar = Html::new();
    bar.raw("<span class=\"bar\" aria-hidden=\"true\"><i style=\"width:")
        .text(share(median))
        .raw("\"></i><b style=\"left:")
        .text(share(least))
        .raw(";width:")
        .text(share(largest - least))
        .raw("\"></b></span>");
    bar
}

/// Single figures with their targets.
pub fn figures(figures: &[Figure]) -> Table {
    let mut table = Table::new("Figures", &["", "value", "target", "rests on"]);
    for figure in figures {
        table.rows.push(vec![
            Cell::text(&figure.title),
            Cell::number(format!("{} {}", units::figure(figure.value), figure.unit)),
            match figure.target {
                None => Cell::text(""),
                Some(target) => judged(figure.value, target, units::figure),
            },
            Cell::text(&figure.note),
        ]);
    }
    table
}
