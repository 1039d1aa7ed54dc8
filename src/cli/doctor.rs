//! Is this host fit? Each point with what was found and, where something is wrong, the remedy.
//!
//! With --upstream the mail servers are visited too: do they answer, what do they offer, and would they relay for weir's address
//! to a foreign domain. That last question is asked with MAIL and RCPT and then RSET; no mail is sent.

mod certificates;
mod intercept;
mod packet_rules;
mod privileges;
mod resolver;
mod state;
mod upstream;

use std::{
    fmt::{self, Write as _},
    fs, io,
};

use super::{config::Config, sizes, units::show_size};
use crate::net::{Bounds, Limit};
use crate::ring::{self, Support};
use crate::rt;
use crate::tls::UpstreamFiles;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Good,
    /// weir runs, but something is lost.
    Warning,
    /// weir does not run like this.
    Failure,
}

/// One point of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub level: Level,
    pub what: String,
    /// Empty where nothing is wrong.
    pub remedy: String,
}

/// The oldest kernel that has what the ring is built on (Debian 12).
const KERNEL_MIN: (u32, u32) = (6, 1);
/// glommio refuses to start below this.
pub const MEMLOCK_MIN: u64 = 512 << 10;
/// Files of the process besides the shards' sockets: logs, admin page, rings, eventfds.
const FILES_BESIDES: u64 = 256;

/// A receive buffer at the start that a hundred thousand clients may have.
const WINDOW_MAX: u64 = 32 << 10;

/// Looks at everything. `now`: seconds since 1970. Visits to upstreams take their time.
pub fn examine(config: &Config, cores: usize, now: i64) -> Vec<Point> {
    let shards = config.shards(cores);
    let mut points = vec![kernel(&read("/proc/sys/kernel/osrelease"))];
    points.extend(ring_points(
        ring::probe(),
        &read("/proc/sys/kernel/io_uring_disabled"),
    ));
    points.push(cores_point(cores, shards, &read("/sys/fs/cgroup/cpu.max")));
    points.push(files(Limit::OpenFiles.bounds(), config));
    let open_files = Limit::OpenFiles.bounds().map_or(0, |bounds| bounds.hard);
    points.push(memlock(
        Limit::LockedMemory.bounds(),
        config.locked_memory(shards, open_files),
    ));
    points.push(memory(
        &read("/proc/meminfo"),
        sizes::memory_max(config, shards),
    ));
    points.push(backlog(
        &read("/proc/sys/net/core/somaxconn"),
        u64::from(config.listening.backlog),
    ));
    points.push(ports(
        &read("/proc/sys/net/ipv4/ip_local_port_range"),
        config,
    ));
    points.extend(windows(&read("/proc/sys/net/ipv4/tcp_rmem"), config));
    points.extend(privileges::low_port(
        config,
        &read("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        rt::capabilities().unwrap_or_default(),
    ));
    points.extend(privileges::points(
        config,
        &read("/proc/sys/kernel/io_uring_disabled"),
    ));
    points.extend(intercept::points(config));
    if config.asks_names() {
        let lists = !config.dnsbl.zones.is_empty();
        points.extend(resolver::points(&config.resolving, lists));
    }
    points.extend(state::points(&config.lasting));
    let hostname = &config.listening.hostname;
    points.extend(certificates::points(&config.tls.settings, hostname, now));
    let files = UpstreamFiles::read(&config.tls.settings.upstream).ok();
    for target in &config.upstreams.upstreams {
        let wish = target.tls.as_ref();
        let tls = wish.map(|wish| files.as_ref().map(|files| files.upstream_tls(wish)));
        if let Some(None) = tls {
            continue; // what is wrong with the files has been told
        }
        points.extend(upstream::visit(
            target,
            hostname,
            tls.flatten().as_ref(),
            config.identifying.identity,
        ));
    }
    points
}

/// What is lost on this kernel, and what stands in the way of starting at all: for the plan, and before the start.
pub fn ring_troubles() -> Vec<Point> {
    let points = ring_points(ring::probe(), &read("/proc/sys/kernel/io_uring_disabled"));
    points
        .into_iter()
        .filter(|point| point.level > Level::Good)
        .collect()
}

pub use privileges::{files_of_the_user, kept};

/// The report, and whether weir can run here.
pub fn report(points: &[Point]) -> (String, bool) {
    let mut out = String::new();
    for point in points {
        let mark = match point.level {
            Level::Good => "ok     ",
            Level::Warning => "WARNING",
            Level::Failure => "FAILED ",
        };
        let _ = writeln!(out, "{mark}  {}", point.what);
        if !point.remedy.is_empty() {
            let _ = writeln!(out, "         -> {}", point.remedy);
        }
    }
    let worst = points
        .iter()
        .map(|point| point.level)
        .max()
        .unwrap_or(Level::Good);
    let verdict = match worst {
        Level::Good => "this host is fit",
        Level::Warning => "weir runs here; see the warnings",
        Level::Failure => "weir does not run like this; see what failed",
    };
    let _ = writeln!(out, "\n{verdict}");
    (out, worst < Level::Failure)
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl Point {
    fn good(what: impl Into<String>) -> Self {
        Self {
            level: Level::Good,
            what: what.into(),
            remedy: String::new(),
        }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    fn failure(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            level: Level::Failure,
            what: what.into(),
            remedy: remedy.into(),
        }
    }
}

fn kernel(release: &str) -> Point {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    let (major, minor) = KERNEL_MIN;
    match version {
        (Some(a), Some(b)) if (a, b) >= KERNEL_MIN => Point::good(format!("kernel {release}")),
        (Some(_), Some(_)) => Point::failure(
            format!("kernel {release} is too old"),
            format!("Linux {major}.{minor} or newer is needed: Debian 12, Ubuntu 24.04"),
        ),
        _ => Point::warning(
            format!("kernel {release:?} cannot be read"),
            format!("make sure it is Linux {major}.{minor} or newer"),
        ),
    }
}

fn ring_points(support: io::Result<Support>, disabled: &str) -> Vec<Point> {
    let support = match support {
        Ok(support) => support,
        Err(error) => {
            let remedy = match disabled {
                "1" | "2" => {
                    "sysctl kernel.io_uring_disabled=0 (1 allows it to root and the io_uring_group only)"
                }
                _ => {
                    "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile"
                }
            };
            return vec![Point::failure(
                format!("io_uring cannot be used: {error}"),
                remedy,
            )];
        }
    };
    let newer = "a newer kernel";
    let needed = [
        (support.operations, "operations of the ring"),
        (
            support.deferred_work,
            "SINGLE_ISSUER and DEFER_TASKRUN (6.1)",
        ),
        (support.buffer_rings, "provided buffer rings (5.19)"),
        (support.slot_ranges, "slot ranges for accept (6.0)"),
    ];
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(there, _)| !there)
        .map(|(_, what)| *what)
        .collect();
    let mut points = match missing.as_slice() {
        [] => vec![Point::good("io_uring with all that is needed")],
        missing => vec![Point::failure(
            format!("io_uring lacks {}", missing.join(", ")),
            newer,
        )],
    };
    if !support.prompt_close {
        points.push(Point::warning("closed sockets linger in io_uring (before 6.13): FINs come late, sockets pile up under churn", newer));
    }
    if !support.socket_options {
        points.push(Point::warning(
            "no socket options by io_uring (before 6.7): a parked client keeps its kernel buffers",
            newer,
        ));
    }
    if !support.descriptors {
        points.push(Point::warning(
            "no descriptors for io_uring's sockets (before 6.8): limits per client hold per shard behind a proxy",
            newer,
        ));
    }
    points
}

fn cores_point(cores: usize, shards: usize, quota: &str) -> Point {
    // "max 100000" or "150000 100000": microseconds of CPU per period.
    let mut words = quota
        .split_whitespace()
        .map(|word| word.parse::<f64>().ok());
    let quota = match (words.next().flatten(), words.next().flatten()) {
        (Some(quota), Some(period)) if period > 0.0 => Some(quota / period),
        _ => None,
    };
    match quota {
        Some(quota) if quota < shards as f64 => Point::warning(
            format!("{shards} shards, but the control group grants {quota:.1} cores"),
            format!(
                "--shards {}, or raise the quota: a throttled shard delays all its sessions",
                (quota.floor() as usize).max(1)
            ),
        ),
        _ if shards > cores => Point::warning(
            format!("{shards} shards on {cores} cores"),
            format!("--shards {cores}"),
        ),
        _ => Point::good(format!("{cores} cores, {shards} shards")),
    }
}

fn files(bounds: io::Result<Bounds>, config: &Config) -> Point {
    let Ok(bounds) = bounds else {
        return Point::warning("the open-file limit cannot be read", "see ulimit -n");
    };
    let wanted = sizes::slots_wanted(config) + FILES_BESIDES;
    let shown = if bounds.hard == u64::MAX {
        "unlimited".into()
    } else {
        bounds.hard.to_string()
    };
    let what = format!(
        "open files: at most {shown} (weir raises its own limit to that), counted per shard"
    );
    if bounds.hard >= wanted {
        return Point::good(what);
    }
    let remedy = format!(
        "LimitNOFILE={wanted} in the systemd unit (or ulimit -n), or a smaller --max-connections: one shard may have to hold them all"
    );
    Point::warning(what, remedy)
}

/// `wanted`: by all shards together.
fn memlock(bounds: io::Result<Bounds>, wanted: u64) -> Point {
    let hard = match bounds {
        Ok(bounds) => bounds.hard,
        Err(error) => {
            return Point::warning(
                format!("the limit of locked memory cannot be read: {error}"),
                "see ulimit -l",
            );
        }
    };
    let level = match hard {
        _ if hard < MEMLOCK_MIN => Level::Failure,
        _ if hard < wanted => Level::Warning,
        _ => return Point::good("locked memory (memlock): enough"),
    };
    Point {
        level,
        ..memlock_short(hard, wanted)
    }
}

/// What to say where it does not suffice.
pub fn memlock_short(hard: u64, wanted: u64) -> Point {
    let mib = wanted.div_ceil(1 << 20);
    Point::warning(
        format!(
            "locked memory (memlock): at most {} for all processes of an unprivileged user, the shards' rings take about {}",
            show_size(hard),
            show_size(wanted)
        ),
        format!(
            "LimitMEMLOCK={mib}M in the systemd unit, or ulimit -l {}, or fewer --shards",
            mib << 10
        ),
    )
}

fn memory(meminfo: &str, worst: u64) -> Point {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    let Some(available) = kib.map(|kib| kib << 10) else {
        return Point::warning(
            "free memory cannot be read",
            "see weir check for what may be needed",
        );
    };
    let what = format!(
        "memory: {} available, {} in the worst case (weir check)",
        show_size(available),
        show_size(worst)
    );
    if available > worst {
        Point::good(what)
    } else {
        Point::warning(
            what,
            "smaller --max-connections, --hold-memory or --clients-max, or more memory",
        )
    }
}

fn backlog(somaxconn: &str, wanted: u64) -> Point {
    match somaxconn.parse::<u64>() {
        Ok(max) if max < wanted => Point::warning(
            format!(
                "net.core.somaxconn is {max}, --backlog {wanted}: bursts of connections are cut"
            ),
            format!("sysctl net.core.somaxconn={wanted}"),
        ),
        Ok(max) => Point::good(format!("net.core.somaxconn is {max}")),
        Err(_) => Point::warning("net.core.somaxconn cannot be read", "is /proc mounted?"),
    }
}

/// What a client may send while weir does not read it lies in the kernel: in the greet wait that is as much as a window.
fn windows(tcp_rmem: &str, config: &Config) -> Option<Point> {
    let usual = tcp_rmem.split_whitespace().nth(1)?.parse::<u64>().ok()?;
    if config.tarpit.greet_wait.is_zero() || usual <= WINDOW_MAX {
        return None;
    }
    Some(Point::warning(
        format!(
            "net.ipv4.tcp_rmem starts with {usual}: clients that send before the greeting fill the kernel"
        ),
        "the tcp_rmem of tuning/sysctl.conf",
    ))
}

/// Each connection to one upstream address needs a local port of its own; closed ones keep theirs for a minute.
fn ports(range: &str, config: &Config) -> Point {
    let mut words = range
        .split_whitespace()
        .map(|word| word.parse::<u64>().ok());
    let (Some(low), Some(high)) = (words.next().flatten(), words.next().flatten()) else {
        return Point::warning(
            "net.ipv4.ip_local_port_range cannot be read",
            "is /proc mounted?",
        );
    };
    let ports = (high + 1).saturating_sub(low);
    let pool = config
        .upstreams
        .upstreams
        .iter()
        .map(|upstream| upstream.max.unwrap_or(config.upstreams.pool_max))
        .max()
        .unwrap_or(config.upstreams.pool_max);
    let wanted = u64::from(pool) * 4;
    let what = format!(
        "port range: {ports} local ports for connections to one upstream address, {pool} of them at a time"
    );
    if ports >= wanted {
        Point::good(what)
    } else {
        Point::warning(
            what,
            "sysctl net.ipv4.ip_local_port_range=\"1024 65535\", or a smaller --pool-max",
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Wanted, parse};
    use crate::cli::flags::Purpose;

    pub(super) fn config(words: &[&str]) -> Config {
        let (Some(Wanted::Run(flags)), wrong) = parse(words.iter().map(|w| (*w).to_owned())) else {
            panic!("{words:?}")
        };
        Config::read(&flags, Purpose::Doctor, "mx.example", wrong)
            .unwrap_or_else(|wrong| panic!("{wrong:?}"))
    }

    const ALL: Support = Support {
        operations: true,
        deferred_work: true,
        buffer_rings: true,
        slot_ranges: true,
        prompt_close: true,
        socket_options: true,
        descriptors: true,
    };

    #[test]
    fn kernels() {
        for (release, level) in [
            ("6.18.44-fc", Level::Good),
            ("6.1.0-28-amd64", Level::Good),
            ("7.0", Level::Good),
            ("6.0.19", Level::Failure),
            ("5.15.0-1-generic", Level::Failure),
            ("", Level::Warning),
        ] {
            assert_eq!(kernel(release).level, level, "{release}");
        }
    }

    #[test]
    fn what_io_uring_lacks_is_told_with_the_remedy() {
        assert_eq!(ring_points(Ok(ALL), "0").len(), 1);
        let old = ring_points(
            Ok(Support {
                slot_ranges: false,
                prompt_close: false,
                socket_options: false,
                ..ALL
            }),
            "0",
        );
        assert_eq!(
            old.iter().map(|point| point.level).collect::<Vec<_>>(),
            [Level::Failure, Level::Warning, Level::Warning]
        );
        let off = ring_points(Err(io::ErrorKind::PermissionDenied.into()), "2");
        assert!(
            off[0].level == Level::Failure && off[0].remedy.contains("kernel.io_uring_disabled")
        );
        assert!(
            ring_points(Err(io::ErrorKind::PermissionDenied.into()), "0")[0]
                .remedy
                .contains("seccomp")
        );
    }

    #[test]
    fn cores_and_quotas() {
        assert_eq!(cores_point(4, 4, "max 100000").level, Level::Good);
        assert_eq!(cores_point(4, 4, "").level, Level::Good);
        assert_eq!(cores_point(2, 4, "").level, Level::Warning);
        assert!(
            cores_point(4, 4, "150000 100000")
                .remedy
                .starts_with("--shards 1")
        );
    }

    #[test]
    fn limits_of_the_process() {
        let bounds = |hard| Ok(Bounds { soft: 1024, hard });
        let small = config(&["--max-connections", "1000"]);
        assert_eq!(files(bounds(524_288), &small).level, Level::Good);
        let point = files(bounds(1024), &small);
        assert!(
            point.level == Level::Warning && point.remedy.contains("LimitNOFILE="),
            "{point:?}"
        );
        assert_eq!(memlock(bounds(8 << 20), 4 << 20).level, Level::Good);
        let short = memlock(bounds(8 << 20), 9 << 20);
        assert!(short.level == Level::Warning && short.remedy.contains("LimitMEMLOCK=9M"));
        assert_eq!(memlock(bounds(64 << 10), 4 << 20).level, Level::Failure);
    }

    #[test]
    fn memory_backlog_and_ports() {
        assert_eq!(
            memory("MemTotal: 8 kB\nMemAvailable:    2048 kB\n", 1 << 20).level,
            Level::Good
        );
        assert_eq!(
            memory("MemAvailable:    2048 kB\n", 1 << 30).level,
            Level::Warning
        );
        assert_eq!(backlog("4096", 4096).level, Level::Good);
        assert_eq!(
            backlog("128", 4096).remedy,
            "sysctl net.core.somaxconn=4096"
        );
        let waiting = config(&["--greet-wait", "3s"]);
        assert!(windows("4096 131072 33554432", &waiting).is_some());
        assert!(windows("4096 16384 4194304", &waiting).is_none());
        assert!(windows("4096 131072 33554432", &config(&[])).is_none());
        assert_eq!(ports("32768\t60999", &config(&[])).level, Level::Good);
        assert_eq!(
            ports("32768\t60999", &config(&["--pool-max", "20000"])).level,
            Level::Warning
        );
    }

    #[test]
    fn the_report_ends_with_a_verdict() {
        let (text, fit) = report(&[Point::good("a"), Point::warning("b", "do c")]);
        assert!(
            fit && text.contains("ok       a\nWARNING  b\n         -> do c\n")
                && text.ends_with("see the warnings\n"),
            "{text}"
        );
        assert!(!report(&[Point::failure("a", "b")]).1);
    }

    #[test]
    fn this_host_can_be_examined() {
        let points = examine(&config(&["--max-connections", "100"]), 2, 1_800_000_000);
        assert!(points.len() >= 8 && points.iter().all(|point| !point.what.is_empty()));
    }
}
