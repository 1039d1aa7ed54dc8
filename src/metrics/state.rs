//! What lasts and what hosts share, as the control thread sees it: no shard counts these.

use super::expose::{head, push_label, sample};

/// The file of --state FILE.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct File {
    pub tuples: u64,
    pub networks: u64,
    /// Entries that were passed to the shards at the start.
    pub loaded: u64,
    /// All that was in the file has been passed on.
    pub is_loaded: bool,
    /// Entries that are not written yet.
    pub pending: u64,
    pub dropped: u64,
    pub commits: u64,
    pub failures: u64,
    pub is_failing: bool,
    pub set_aside: u64,
}

/// Name, kind, label, help.
pub const ROWS: [(&str, &str, &str, &str); 8] = [
    (
        "weir_state_entries",
        "gauge",
        "table",
        "Entries in the file of --state: greylisted tuples, and networks with their history. Limits: --greylist-max, --history-max.",
    ),
    (
        "weir_state_loaded",
        "gauge",
        "",
        "1 once all that was in the file has been passed to the shards. Until then networks that have passed may be greylisted once more.",
    ),
    (
        "weir_state_loaded_entries_total",
        "counter",
        "",
        "Things that were read from the file at the start.",
    ),
    (
        "weir_state_pending",
        "gauge",
        "",
        "Entries that are not written yet. Rising for longer than seconds: the disk is slow, full, or the file is in use.",
    ),
    (
        "weir_state_dropped_total",
        "counter",
        "",
        "Things learnt that could not be kept for the next start, because the file could not be written for long.",
    ),
    (
        "weir_state_writes_total",
        "counter",
        "result",
        "Commits to the file: passed, or failed, after which what is learnt stays in memory and is tried again every 5s.",
    ),
    (
        "weir_state_failing",
        "gauge",
        "",
        "1 while the file cannot be written; the log says why. Alert on it: a restart would forget what is pending.",
    ),
    (
        "weir_state_set_aside_total",
        "counter",
        "",
        "Files that were damaged, of another version or of another program, and were put aside as FILE.aside. Above 0: what was in it is not known any more.",
    ),
];

/// Appends them; nothing where nothing is kept.
pub fn render(out: &mut String, file: Option<File>) {
    let Some(file) = file else { return };
    let labelled = |key: &str, value: &str| {
        let mut labels = String::new();
        push_label(&mut labels, key, value);
        labels
    };
    for (name, kind, label, help) in ROWS {
        head(out, name, kind, help);
        let values: &[(&str, u64)] = match name {
            "weir_state_entries" => &[("tuples", file.tuples), ("networks", file.networks)],
            "weir_state_loaded" => &[("", u64::from(file.is_loaded))],
            "weir_state_loaded_entries_total" => &[("", file.loaded)],
            "weir_state_pending" => &[("", file.pending)],
            "weir_state_dropped_total" => &[("", file.dropped)],
            "weir_state_writes_total" => &[("passed", file.commits), ("failed", file.failures)],
            "weir_state_failing" => &[("", u64::from(file.is_failing))],
            _ => &[("", file.set_aside)],
        };
        for (value, number) in values {
            match label {
                "" => sample(out, name, "", number),
                label => sample(out, name, &labelled(label, value), number),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_shown() {
        let file = File {
            tuples: 3,
            networks: 2,
            loaded: 4,
            is_loaded: true,
            pending: 1,
            dropped: 9,
            commits: 7,
            failures: 6,
            is_failing: true,
            set_aside: 5,
        };
        let mut out = String::new();
        render(&mut out, None);
        assert_eq!(out, "");
        render(&mut out, Some(file));
        for line in [
            "weir_state_entries{table=\"tuples\"} 3",
            "weir_state_entries{table=\"networks\"} 2",
            "weir_state_loaded 1",
            "weir_state_loaded_entries_total 4",
            "weir_state_pending 1",
            "weir_state_dropped_total 9",
            "weir_state_writes_total{result=\"passed\"} 7",
            "weir_state_writes_total{result=\"failed\"} 6",
            "weir_state_failing 1",
            "weir_state_set_aside_total 5",
        ] {
            assert!(out.lines().any(|shown| shown == line), "{line} in {out}");
        }
        assert_eq!(out.matches("# TYPE").count(), ROWS.len());
    }
}
