//! What a process costs, read from /proc: CPU time, memory, and the memory the kernel spends on its sockets.

pub mod tree;

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::outcome::Sample;
use crate::sys;

/// User plus system time of all threads of a process since it started, its io_uring workers included.
///
/// From the process's CPU clock, not from /proc/PID/stat: that one counts in hundredths of a second.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    sys::process_cpu_time(pid).with_context(|| format!("cannot read the CPU time of process {pid}"))
}

/// Octets of memory that a process has in RAM.
pub fn rss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = read(&path)?;
    // A process that is a zombie has no such line.
    kibibytes(&status, "VmRSS:").with_context(|| format!("{path} has no VmRSS: it has ended"))
}

/// TCP buffers and slab (sockets, dentries, inodes, timers) of the whole machine in octets, to be read against the values before a run.
pub fn kernel_memory() -> Result<(u64, u64)> {
    let sockets = read("/proc/net/sockstat")?;
    let pages = tcp_pages(&sockets).context("/proc/net/sockstat has no TCP mem")?;
    let memory = read("/proc/meminfo")?;
    let slab = kibibytes(&memory, "Slab:").context("/proc/meminfo has no Slab")?;
    Ok((pages * sys::page_octets(), slab))
}

/// A process and all that descend from it: a server that forks is charged as one. We are nobody's server, though somebody started us.
pub fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let children = children(family[at]);
        family.extend(
            children
                .into_iter()
                .filter(|child| *child != std::process::id()),
        );
        at += 1;
    }
    family
}

/// When a process started, in ticks since the machine did: another one with the same number started later.
pub fn born(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    started(&read(&path)?).with_context(|| format!("{path} is not as proc(5) has it"))
}

/// Field 22. The name in field 2 may have blanks and brackets: count from its end.
fn started(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    fields.nth(19)?.parse().ok()
}

/// One sample of a process with all that descend from it (a server may be the one that forks); the caller knows what time it is.
pub fn sample(pid: u32, at: Duration) -> Result<Sample> {
    let (tcp_octets, slab_octets) = kernel_memory()?;
    Ok(Sample {
        at,
        cpu: tree::cpu_time(pid)?,
        rss_octets: tree::rss(pid)?,
        tcp_octets,
        slab_octets,
    })
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|text| {
            text.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

pub(crate) fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

/// The value of a line `Name:   123 kB`, in octets.
pub(crate) fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let value = line.trim().strip_suffix("kB")?;
    Some(value.trim().parse::<u64>().ok()? * 1024)
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 6 mem 1`: the pages behind `mem`.
fn tcp_pages(sockstat: &str) -> Option<u64> {
    let line = sockstat
        .lines()
        .find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn this_process_costs_something() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let mut sum = 0u64;
        while cpu_time(me).unwrap() < before + Duration::from_millis(3) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(rss(me).unwrap() > 100 << 10);
        let (_, slab) = kernel_memory().unwrap();
        assert!(slab > 1 << 20);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_with_its_number() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        for error in [cpu_time(pid).unwrap_err(), rss(pid).unwrap_err()] {
            assert!(format!("{error:#}").contains(&pid.to_string()), "{error:#}");
        }
    }

    #[test]
    fn a_family_has_its_children() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 30 & wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut family = family(child.id());
        for _ in 0..200 {
            if family.len() == 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            family = super::family(child.id());
        }
        for pid in family.iter().skip(1) {
            Command::new("kill").arg(pid.to_string()).status().unwrap();
        }
        child.wait().unwrap();
        assert_eq!(family.len(), 2);
    }

    /// A watched nginx or haproxy was charged for its master alone, which does nothing.
    #[test]
    fn what_children_do_is_charged() {
        let busy = "sh -c 'while :; do :; done' & echo $!; read x; kill $!; wait";
        let mut server = Command::new("sh")
            .args(["-c", busy])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(30);
        let charged = || sample(server.id(), Duration::ZERO).unwrap();
        while charged().cpu < cpu_time(server.id()).unwrap() + Duration::from_millis(20) {
            assert!(
                std::time::Instant::now() < end,
                "the child's work is not charged"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(charged().rss_octets > rss(server.id()).unwrap());
        drop(server.stdin.take());
        server.wait().unwrap();
    }

    #[test]
    fn a_process_has_a_birth() {
        let me = std::process::id();
        assert_eq!(born(me).unwrap(), born(me).unwrap());
        assert!(born(me).unwrap() > born(1).unwrap());
        let stat = "7 (a) b (c) S 1 7 7 0 -1 0 1 2 3 4 50 60 11 22 20 0 1 0 99 5\n";
        assert_eq!(started(stat), Some(99));
        assert_eq!(started("7 (a) S 1"), None);
    }

    #[test]
    fn lines_of_proc_are_read() {
        assert_eq!(
            kibibytes("VmSize:\t  9 kB\nVmRSS:\t    12 kB\n", "VmRSS:"),
            Some(12 << 10)
        );
        assert_eq!(kibibytes("VmSize:\t  9 kB\n", "VmRSS:"), None);
        assert_eq!(
            tcp_pages(
                "sockets: used 1\nTCP: inuse 5 orphan 0 tw 0 alloc 6 mem 31\nUDP: inuse 0 mem 7\n"
            ),
            Some(31)
        );
        assert_eq!(tcp_pages("UDP: inuse 0 mem 7\n"), None);
    }
}
