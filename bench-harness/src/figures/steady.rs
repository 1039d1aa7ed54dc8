//! System calls and heap allocations per message, counted from outside: strace and perf.
//!
//! Both slow weir down, which makes its batches larger: the counts are those of a busy weir. Where a tool is missing or not allowed,
//! that is said, and nothing is counted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::stand::Stand;
use crate::peers::child::{Child, program};
use crate::peers::weir::Weir;
use crate::peers::workload::{Load, Workload, find};
use crate::progress::tell;

pub fn steady(stand: &mut Stand<'_>) -> Result<()> {
    let weir = stand.weir("")?;
    let persistent = find("persistent-4k")?;
    // What is made once: pool, buffers, sessions.
    let load = stand.load(None, Duration::from_secs(1));
    stand.good(&weir, persistent, &load, "warming up")?;
    syscalls(stand, &weir, persistent)?;
    allocations(stand, &weir, persistent)?;
    allocations(stand, &weir, find("new-4k")?)
}

fn syscalls(stand: &mut Stand<'_>, weir: &Weir, workload: &Workload) -> Result<()> {
    let Some(strace) = program("strace") else {
        tell("system calls were not counted: strace is not installed");
        return Ok(());
    };
    let log = stand.folder.path().join("strace.txt");
    let mut command = Command::new(strace);
    command
        .args(["-f", "-c", "-U", "name,calls", "-o"])
        .arg(&log);
    let load = stand.load(None, stand.options.lasts.min(Duration::from_secs(5)));
    let Some((messages, text)) = counted(stand, weir, workload, &load, command, &log)? else {
        return Ok(());
    };
    let mut calls = strace_rows(&text);
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let per_message = |count: u64| count as f64 / messages as f64;
    let most: Vec<String> = calls
        .iter()
        .take(5)
        .map(|(name, count)| format!("{name} {:.3}", per_message(*count)))
        .collect();
    let all = per_message(calls.iter().map(|(_, count)| count).sum());
    let title = format!("system calls per message, {}", workload.title);
    let note = format!("strace, {messages} messages: {}", most.join(", "));
    stand.figure(&title, all, "", None, &note);
    Ok(())
}

/// Functions of the allocator that is linked into weir.
const ALLOCATORS: [&str; 8] = [
    "mi_malloc",
    "mi_malloc_aligned",
    "mi_malloc_small",
    "mi_calloc",
    "mi_zalloc",
    "mi_zalloc_aligned",
    "mi_realloc",
    "mi_realloc_aligned",
];

/// Counted by uprobes; they are taken away again whatever happens.
fn allocations(stand: &mut Stand<'_>, weir: &Weir, workload: &Workload) -> Result<()> {
    let Some(perf) = program("perf") else {
        tell("heap allocations were not counted: perf is not installed");
        return Ok(());
    };
    let probes = Probes::make(&perf, stand.binary());
    if probes.events.is_empty() {
        tell(format_args!(
            "heap allocations were not counted: {}",
            probes.why
        ));
        return Ok(());
    }
    let log = stand.folder.path().join("allocations.txt");
    let mut command = Command::new(&perf);
    command.args(["stat", "-x", ",", "-e", &probes.events.join(","), "-o"]);
    command.arg(&log);
    let load = stand.load(None, stand.options.lasts.min(Duration::from_secs(5)));
    let Some((messages, text)) = counted(stand, weir, workload, &load, command, &log)? else {
        return Ok(());
    };
    let total = perf_total(&text);
    let title = format!("heap allocations per message, {}", workload.title);
    let note = format!("{total} in {messages} messages");
    stand.figure(&title, total as f64 / messages as f64, "", None, &note);
    Ok(())
}

/// Runs good clients with a counting tool attached to weir; the tool's log, and the messages meanwhile.
pub fn counted(
    stand: &mut Stand<'_>,
    weir: &Weir,
    workload: &Workload,
    load: &Load,
    mut tool: Command,
    log: &Path,
) -> Result<Option<(u64, String)>> {
    tool.args(["-p", &weir.child.pid().to_string()]);
    let mut tool = Child::spawn("counter", tool, stand.folder.path())?;
    std::thread::sleep(Duration::from_secs(1));
    if let Err(error) = tool.check() {
        tell(format_args!("nothing was counted: {error}"));
        return Ok(None);
    }
    let outcome = stand.good(weir, workload, load, "counted")?;
    tool.signal(libc::SIGINT)?;
    tool.wait_ended(Duration::from_secs(20))?;
    let text = fs::read_to_string(log)
        .with_context(|| format!("no counts in {}: {}", log.display(), tool.words()))?;
    Ok(Some((outcome.accepted(), text)))
}

struct Probes<'a> {
    perf: &'a Path,
    events: Vec<String>,
    /// The last thing perf said where it would not.
    why: String,
}

impl Probes<'_> {
    fn make<'a>(perf: &'a Path, binary: &Path) -> Probes<'a> {
        let mut probes = Probes {
            perf,
            events: Vec::new(),
            why: String::new(),
        };
        for name in ALLOCATORS {
            let event = format!("weir_{name}");
            let done = Command::new(perf)
                .args(["probe", "-q", "-x"])
                .arg(binary)
                .args(["--add", &format!("{event}={name}")])
                .output();
            match done {
                Ok(done) if done.status.success() => {
                    probes.events.push(format!("probe_weir:{event}"))
                }
                Ok(done) => probes.why = last_line(&done.stderr),
                Err(error) => probes.why = error.to_string(),
            }
        }
        probes
    }
}

impl Drop for Probes<'_> {
    fn drop(&mut self) {
        for event in &self.events {
            let done = Command::new(self.perf)
                .args(["probe", "-q", "--del", event])
                .output();
            if !done.is_ok_and(|done| done.status.success()) {
                eprintln!("the probe {event} is still there: perf probe --del {event}");
            }
        }
    }
}

fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines()
        .next_back()
        .unwrap_or("perf probe failed")
        .to_owned()
}

/// Rows `name calls` of `strace -c -U name,calls`, without the sum.
pub fn strace_rows(text: &str) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, calls) = (words.next()?, words.next()?.parse().ok()?);
            (name != "total" && words.next().is_none()).then(|| (name.to_owned(), calls))
        })
        .collect()
}

/// The sum of all counters of `perf stat -x ,`.
fn perf_total(text: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split(',').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_strace_are_read() {
        let text = "syscall     calls\n----------- ---------\nio_uring_enter   120\nfutex   4\n----------- ---------\ntotal   124\n";
        assert_eq!(
            strace_rows(text),
            [("io_uring_enter".to_owned(), 120), ("futex".to_owned(), 4)]
        );
    }

    #[test]
    fn counters_of_perf_add_up() {
        let text = "# started on x\n\n12,,probe_weir:a,1,100.00,,\n<not counted>,,probe_weir:b\n30,,probe_weir:c,1\n";
        assert_eq!(perf_total(text), 42);
    }
}
