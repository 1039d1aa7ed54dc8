//! The Prometheus text format (version 0.0.4) of all shards' counters, and docs/METRICS.md.
//!
//! Written by hand: the numbers live in plain cells that no registry may own, and the format is a page long.

use std::{collections::HashMap, fmt::Write as _};

use super::{
    cell::{HISTOGRAM_BUCKETS, Names, Reading},
    certificates, state,
    table::{Counters, Row, Spread, TABLE},
};

/// The whole table over `shards`, in shard order.
pub fn render<'a>(shards: impl Iterator<Item = &'a Counters> + Clone, names: &Names) -> String {
    let mut out = String::with_capacity(32 << 10);
    for row in TABLE {
        render_row(&mut out, row, shards.clone(), names);
    }
    out
}

fn render_row<'a>(
    out: &mut String,
    row: &Row,
    shards: impl Iterator<Item = &'a Counters>,
    names: &Names,
) {
    let mut lines: Vec<(String, Reading)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut kind = "counter";
    for (shard, counters) in shards.enumerate() {
        let series = (row.series)(counters);
        kind = series.kind();
        let keys = series.labels();
        series.read(names, &mut |values, reading| {
            let mut labels = String::new();
            if row.spread == Spread::Shard {
                push_label(&mut labels, "shard", &shard.to_string());
            }
            for (key, value) in keys.iter().zip(values) {
                push_label(&mut labels, key, value);
            }
            match places.get(&labels) {
                Some(place) => lines[*place].1.merge(&reading),
                None => {
                    places.insert(labels.clone(), lines.len());
                    lines.push((labels, reading));
                }
            }
        });
    }
    head(out, row.name, kind, row.help);
    for (labels, reading) in &lines {
        match reading {
            Reading::Number(n) => sample(out, row.name, labels, n),
            Reading::Buckets(buckets, sum_micros) => {
                histogram(out, row.name, labels, buckets, *sum_micros)
            }
        }
    }
}

/// The two comment lines before a metric.
pub fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// One line: name, labels as made by [`push_label`], value.
pub fn sample(out: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(out, "{name} {value}"),
        _ => writeln!(out, "{name}{{{labels}}} {value}"),
    };
}

/// Appends `key="value"`, the value escaped.
pub fn push_label(labels: &mut String, key: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    let _ = write!(labels, "{key}=\"{value}\"");
}

fn histogram(
    out: &mut String,
    name: &str,
    labels: &str,
    buckets: &[u64; HISTOGRAM_BUCKETS],
    sum_micros: u64,
) {
    let mut total = 0;
    for (i, count) in buckets.iter().enumerate() {
        total += count;
        let limit = match i {
            _ if i == HISTOGRAM_BUCKETS - 1 => "+Inf".to_owned(),
            _ => (f64::from(1u32 << i) / 1000.0).to_string(),
        };
        let mut with_limit = labels.to_owned();
        push_label(&mut with_limit, "le", &limit);
        sample(out, &format!("{name}_bucket"), &with_limit, total);
    }
    sample(out, &format!("{name}_sum"), labels, sum_micros as f64 / 1e6);
    sample(out, &format!("{name}_count"), labels, total);
}

/// What is told of the process beside the table.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Seconds since 1970.
    pub started_at: f64,
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub log_errors: u64,
}

/// Name, kind, labels, help: the process's own metrics, under the names every Prometheus client library gives them.
const PROCESS: [(&str, &str, &str, &str); 6] = [
    (
        "weir_build_info",
        "gauge",
        "version",
        "Always 1; the label tells the version.",
    ),
    (
        "weir_log_write_errors_total",
        "counter",
        "",
        "Writes to the log that failed; their lines are lost.",
    ),
    (
        "process_start_time_seconds",
        "gauge",
        "",
        "When the process started, in seconds since 1970.",
    ),
    (
        "process_cpu_seconds_total",
        "counter",
        "",
        "CPU time of all threads. By messages: CPU per message.",
    ),
    (
        "process_resident_memory_bytes",
        "gauge",
        "",
        "Memory in use; weir check tells the worst case.",
    ),
    (
        "process_open_fds",
        "gauge",
        "",
        "Open descriptors of the process; the shards' sockets are not among them (weir_slots_free).",
    ),
];

/// Appends the process's own metrics; what /proc did not tell is left out.
pub fn render_process(out: &mut String, process: &Process) {
    let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
    let values = [
        Some(1.0),
        Some(process.log_errors as f64),
        Some(process.started_at),
        process.cpu_seconds,
        process.resident_bytes.map(|n| n as f64),
        process.open_files.map(|n| n as f64),
    ];
    for ((name, kind, labels, help), value) in PROCESS.iter().zip(values) {
        if let Some(value) = value {
            head(out, name, kind, help);
            sample(
                out,
                name,
                if labels.is_empty() { "" } else { version },
                value,
            );
        }
    }
}

/// docs/METRICS.md: one table row per metric.
pub fn markdown() -> String {
    let mut out = String::from(
        "# Metrics\n\nGenerated by `weir docs metrics`; a test compares. Served in the Prometheus text format at `/metrics` of the admin address.\n\
         Histograms have buckets of 1 ms, 2 ms, 4 ms ... 17.5 min. Label values are bounded; `shard` is shown where an uneven spread tells something.\n\n\
         | metric | kind | labels | how to read it |\n|---|---|---|---|\n",
    );
    let counters = Counters::default();
    for row in TABLE {
        let series = (row.series)(&counters);
        let mut labels = series.labels();
        if row.spread == Spread::Shard {
            labels.insert(0, "shard");
        }
        let help = row.help.replace('|', "\\|");
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {help} |",
            row.name,
            series.kind(),
            labels.join(", ")
        );
    }
    let others = certificates::ROWS.into_iter().chain(state::ROWS);
    for (name, kind, labels, help) in others.chain(PROCESS) {
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {help} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::metrics::{Outcome, Way};

    /// A small reader of the format: sample name with labels -> value; fails on anything the format does not know.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        let mut typed = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (what, name) = (words.next().unwrap(), words.next().unwrap());
                assert!(["HELP", "TYPE"].contains(&what), "{line}");
                if what == "TYPE" {
                    assert!(
                        ["counter", "gauge", "histogram"].contains(&words.next().unwrap()),
                        "{line}"
                    );
                    assert!(typed.insert(name.to_owned()), "TYPE twice: {line}");
                }
                continue;
            }
            let (key, value) = line
                .rsplit_once(' ')
                .unwrap_or_else(|| panic!("no value: {line}"));
            let name = key.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|s| name.strip_suffix(s).filter(|b| typed.contains(*b)));
            assert!(
                typed.contains(name) || base.is_some(),
                "no TYPE before: {line}"
            );
            assert!(
                samples
                    .insert(key.to_owned(), value.parse().unwrap())
                    .is_none(),
                "twice: {line}"
            );
        }
        samples
    }

    fn names() -> Names {
        Names {
            findings: vec!["pregreet", "pipelining"],
            actions: vec!["off", "log"],
            violations: vec!["unknown_command"],
            upstreams: vec!["mx1.example:25".into(), "odd\"name\\:25".into()],
            lists: vec!["bl.example".into()],
        }
    }

    #[test]
    fn shards_are_shown_apart_or_added_up() {
        let shards = [Counters::default(), Counters::default()];
        shards[0].sessions_accepted.add(3);
        shards[1].sessions_accepted.add(4);
        shards[0].messages.at(Outcome::Accepted).inc();
        shards[1].messages.at(Outcome::Accepted).inc();
        shards[1].client_bytes.at(Way::In).add(9);
        shards[1].findings.at(1, 1).inc();
        shards[0].pool_idle.at(1).set(5);
        shards[0].wait_seconds.observe(Duration::from_millis(3));
        shards[1].wait_seconds.observe(Duration::from_secs(3000));

        let samples = parse(&render(shards.iter(), &names()));

        for (key, want) in [
            ("weir_sessions_accepted_total{shard=\"0\"}", 3.0),
            ("weir_sessions_accepted_total{shard=\"1\"}", 4.0),
            ("weir_messages_total{outcome=\"accepted\"}", 2.0),
            ("weir_messages_total{outcome=\"rejected\"}", 0.0),
            ("weir_client_bytes_total{shard=\"1\",way=\"in\"}", 9.0),
            (
                "weir_findings_total{finding=\"pipelining\",action=\"log\"}",
                1.0,
            ),
            ("weir_pool_idle{upstream=\"odd\\\"name\\\\:25\"}", 5.0),
            ("weir_wait_seconds_bucket{le=\"0.002\"}", 0.0),
            ("weir_wait_seconds_bucket{le=\"0.004\"}", 1.0),
            ("weir_wait_seconds_bucket{le=\"1048.576\"}", 1.0),
            ("weir_wait_seconds_bucket{le=\"+Inf\"}", 2.0),
            ("weir_wait_seconds_count", 2.0),
            ("weir_wait_seconds_sum", 3000.003),
        ] {
            assert_eq!(samples.get(key), Some(&want), "{key}");
        }
        assert!(
            !samples.contains_key("weir_findings_total{finding=\"pregreet\",action=\"log\"}"),
            "unused pairs are not shown"
        );
        assert_eq!(
            samples
                .keys()
                .filter(|k| k.starts_with("weir_pool_idle"))
                .count(),
            2,
            "places without a name are not shown"
        );
    }

    #[test]
    fn the_reference_names_every_metric() {
        let page = markdown();
        assert!(
            TABLE
                .iter()
                .all(|row| page.contains(&format!("`{}`", row.name)))
        );
    }
}
