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

/// The server of --state redis://.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Shared {
    pub is_up: bool,
    pub sent: u64,
    pub received: u64,
    pub dropped: u64,
    pub unreadable: u64,
    pub losses: u64,
    /// What clients have spent of their rates, by client and kind: counted over all hosts; given up.
    pub settled: u64,
    pub unsettled: u64,
}

/// Name, kind, label, help.
pub const ROWS: [(&str, &str, &str, &str); 15] = [
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
    (
        "weir_state_shared_up",
        "gauge",
        "",
        "1 while the server of --state redis:// answers. 0: this host goes by what it knows itself; mail goes on.",
    ),
    (
        "weir_state_shared_losses_total",
        "counter",
        "",
        "Times that server was lost, or not there at the start.",
    ),
    (
        "weir_state_shared_news_total",
        "counter",
        "way",
        "Things learnt: told to the other hosts (out), and heard from them (in).",
    ),
    (
        "weir_state_shared_dropped_total",
        "counter",
        "",
        "Things learnt that the other hosts did not hear of, because the server was away for long.",
    ),
    (
        "weir_state_shared_unreadable_total",
        "counter",
        "",
        "Entries that were passed over: of another version or --network-prefix, damaged, or not written by weir.",
    ),
    (
        "weir_state_shared_rates_total",
        "counter",
        "",
        "Times that a client's spending of a rate was added to that of all hosts: once a second per client and kind of rate at most.",
    ),
    (
        "weir_state_shared_rates_dropped_total",
        "counter",
        "",
        "Seconds of a shard whose spending was not added, because the server was too slow: each host held its clients to the rates alone.",
    ),
];

/// How many of them are about the file.
const FILE_ROWS: usize = 8;

fn render_shared(out: &mut String, shared: Option<Shared>) {
    let Some(shared) = shared else { return };
    for (name, kind, _, help) in &ROWS[FILE_ROWS..] {
        head(out, name, kind, help);
        let value = match *name {
            "weir_state_shared_up" => u64::from(shared.is_up),
            "weir_state_shared_losses_total" => shared.losses,
            "weir_state_shared_dropped_total" => shared.dropped,
            "weir_state_shared_unreadable_total" => shared.unreadable,
            "weir_state_shared_rates_total" => shared.settled,
            "weir_state_shared_rates_dropped_total" => shared.unsettled,
            _ => {
                sample(out, name, "way=\"in\"", shared.received);
                sample(out, name, "way=\"out\"", shared.sent);
                continue;
            }
        };
        sample(out, name, "", value);
    }
}

/// Appends them; nothing where nothing is kept or shared.
pub fn render(out: &mut String, file: Option<File>, shared: Option<Shared>) {
    render_file(out, file);
    render_shared(out, shared);
}

fn render_file(out: &mut String, file: Option<File>) {
    let Some(file) = file else { return };
    let labelled = |key: &str, value: &str| {
        let mut labels = String::new();
        push_label(&mut labels, key, value);
        labels
    };
    for (name, kind, label, help) in &ROWS[..FILE_ROWS] {
        head(out, name, kind, help);
        let values: &[(&str, u64)] = match *name {
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
            match *label {
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
        render(&mut out, None, None);
        assert_eq!(out, "");
        let shared = Shared {
            is_up: true,
            sent: 11,
            received: 12,
            dropped: 13,
            unreadable: 14,
            losses: 15,
            settled: 16,
            unsettled: 17,
        };
        render(&mut out, Some(file), Some(shared));
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
            "weir_state_shared_up 1",
            "weir_state_shared_news_total{way=\"in\"} 12",
            "weir_state_shared_news_total{way=\"out\"} 11",
            "weir_state_shared_dropped_total 13",
            "weir_state_shared_unreadable_total 14",
            "weir_state_shared_losses_total 15",
            "weir_state_shared_rates_total 16",
            "weir_state_shared_rates_dropped_total 17",
        ] {
            assert!(out.lines().any(|shown| shown == line), "{line} in {out}");
        }
        assert_eq!(out.matches("# TYPE").count(), ROWS.len());
    }
}
