//! Guard rails: whom a load test may be pointed at, where it ends, and what its operator is warned of.

use std::net::IpAddr;
use std::time::Duration;

use crate::outcome::{Machine, StreamOutcome};
use crate::plan::{Arrivals, Plan, Profile, Stream};
use crate::source::NOT_FROM_HERE;

/// Longer runs are a service, not a test.
pub const LASTS_MAX: Duration = Duration::from_secs(24 * 3600);
/// For sessions that are slow on purpose.
pub const GRACE_MAX: Duration = Duration::from_secs(12 * 3600);
/// More than one machine can hold; a slip of the keyboard.
const OPEN_MAX: u64 = 10_000_000;
/// Descriptors of a process that are no sessions: pipes, epoll, timers, and some air.
pub const DESCRIPTORS_SPARE: u64 = 64;

/// A load test may go to loopback, or exactly where its operator says that the host is his.
pub fn allowed(target: IpAddr, owned: &[IpAddr]) -> Result<(), String> {
    let target = target.to_canonical();
    if target.is_loopback() || owned.iter().any(|address| address.to_canonical() == target) {
        return Ok(());
    }
    Err(format!(
        "is not this machine: load only hosts of your own, with --i-own-this-host {target}"
    ))
}

/// Everything in a plan that has no end or no measure, in words.
pub fn bounds(plan: &Plan) -> Result<(), String> {
    if plan.lasts > LASTS_MAX {
        return Err(format!("at most {}", humantime::format_duration(LASTS_MAX)));
    }
    if plan.grace > GRACE_MAX {
        return Err(format!(
            "a --grace of at most {}",
            humantime::format_duration(GRACE_MAX)
        ));
    }
    if plan.warmup >= plan.lasts {
        return Err("the warm-up is as long as the run: nothing would be counted".to_owned());
    }
    let open = open_sessions(plan);
    if open > OPEN_MAX {
        return Err(format!("{open} open sessions are more than {OPEN_MAX}"));
    }
    Ok(())
}

/// Sessions of all streams that may be open at once.
pub fn open_sessions(plan: &Plan) -> u64 {
    plan.streams
        .iter()
        .map(|stream| u64::from(stream.open_max))
        .sum()
}

/// Processes that `open` sessions need where one may have so many files open.
pub fn processes_needed(open: u64, open_files_max: u64) -> u32 {
    let each = open_files_max.saturating_sub(DESCRIPTORS_SPARE).max(1);
    open.div_ceil(each).clamp(1, u64::from(u16::MAX)) as u32
}

/// What may spoil the figures, each with its remedy.
pub fn warnings(plan: &Plan, machine: &Machine, processes: u32) -> Vec<String> {
    let mut warnings = Vec::new();
    if machine.debug_build {
        warnings
            .push("this is a debug build, several times slower: cargo build --release".to_owned());
    }
    if processes > machine.cores.max(1) {
        warnings.push(format!(
            "{processes} processes on {} cores, because one may open only {} files: raise the limit (ulimit -Hn)",
            machine.cores, machine.open_files_max
        ));
    }
    if machine.load_before > f64::from(machine.cores) * 0.5 {
        warnings.push(format!(
            "the host is busy (load {:.1} on {} cores): latencies are those of a busy host",
            machine.load_before, machine.cores
        ));
    }
    if let Ok(range) = crate::proc::read("/proc/sys/net/ipv4/ip_local_port_range") {
        warnings.extend(ports(plan, &range));
    }
    warnings.extend(circles(plan));
    warnings
}

/// What a run itself shows of the side that made the load.
pub fn afterthoughts(plan: &Plan, streams: &[StreamOutcome]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (planned, stream) in plan.streams.iter().zip(streams) {
        let counts = &stream.counts;
        warnings.extend(limits_met(planned, stream));
        if counts.late * 100 > counts.starts {
            warnings.push(format!(
                "{}: {} of {} starts were made more than a millisecond late: the load side was busy (more --processes, fewer neighbours)",
                stream.name, counts.late, counts.starts
            ));
        }
        if counts.dropped > 0 {
            warnings.push(format!(
                "{}: {} starts were dropped, so the latency is worse than it says: the other side is too slow for this rate, or open=N too small",
                stream.name, counts.dropped
            ));
        }
    }
    warnings
}

/// Starts that this side did not make or could not, and those that came to nothing.
fn limits_met(planned: &Stream, stream: &StreamOutcome) -> Vec<String> {
    let (name, counts) = (&stream.name, &stream.counts);
    let mut warnings = Vec::new();
    if counts.starts + counts.dropped >= planned.starts_max {
        warnings.push(format!(
            "{name}: all of its {} starts were made, and no more: its rate is that of the whole run, which may have been idle for a part of it (starts=N)",
            planned.starts_max
        ));
    } else if counts.starts == 0 {
        warnings.push(format!("{name}: nothing was started, so nothing was tried"));
    }
    let sends = !planned.profile.is_kept() && planned.profile != Profile::HangUp;
    if sends && counts.accepted * 100 < counts.starts * 99 {
        warnings.push(format!(
            "{name}: only {} of {} starts got a message through; those that were refused or broken off are in no percentile",
            counts.accepted, counts.starts
        ));
    }
    let here = stream
        .words
        .iter()
        .filter(|(word, _)| word.starts_with(NOT_FROM_HERE));
    let failed: u64 = here.map(|(_, count)| count).sum();
    if failed > 0 {
        warnings.push(format!(
            "{name}: {failed} connections failed on this side, and tell nothing of the other: ports or files ran out (more of from=ADDR+N, ulimit -n)"
        ));
    }
    warnings
}

/// Every source address has so many ports towards one target; connections just closed keep theirs for a minute.
fn ports(plan: &Plan, range: &str) -> Vec<String> {
    let mut words = range
        .split_ascii_whitespace()
        .filter_map(|word| word.parse::<u64>().ok());
    let (Some(low), Some(high)) = (words.next(), words.next()) else {
        return Vec::new();
    };
    let each = high.saturating_sub(low) + 1;
    plan.streams
        .iter()
        .filter(|stream| u64::from(stream.open_max) > each * u64::from(stream.sources.count))
        .map(|stream| {
            format!(
                "{}: {} sessions do not fit into {} source addresses with {each} ports each: more of from=ADDR+N",
                stream.name, stream.open_max, stream.sources.count
            )
        })
        .collect()
}

fn circles(plan: &Plan) -> Vec<String> {
    plan.streams
        .iter()
        .filter(|stream| matches!(stream.arrivals, Arrivals::Closed { .. }))
        .map(|stream| {
            format!(
                "{}: sessions in a circle wait for the server before they start again: its latencies leave out what users would have waited (coordinated omission); plan a rate for those",
                stream.name
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::samples::plan;

    #[test]
    fn only_this_machine_and_hosts_said_to_be_owned() {
        let owned: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap()];
        for (target, fine) in [
            ("127.0.0.1", true),
            ("127.99.3.4", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.2.8", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            let answer = allowed(target.parse().unwrap(), &owned);
            assert_eq!(answer.is_ok(), fine, "{target}");
            if let Err(words) = answer {
                assert!(
                    words.contains(&format!("--i-own-this-host {}", target)),
                    "{words}"
                );
            }
        }
    }

    #[test]
    fn processes_follow_the_open_file_limit() {
        for (open, limit, processes) in [
            (1, 1024, 1),
            (960, 1024, 1),
            (961, 1024, 2),
            (60_000, 20_000, 4),
            (0, 20_000, 1),
            (10, 0, 10),
        ] {
            assert_eq!(
                processes_needed(open, limit),
                processes,
                "{open} of {limit}"
            );
        }
    }

    #[test]
    fn runs_have_an_end() {
        let mut long = plan(&["good: rate=1/s"]);
        assert!(bounds(&long).is_ok());
        long.warmup = long.lasts;
        assert!(bounds(&long).is_err());
        long.warmup = Duration::ZERO;
        long.lasts = LASTS_MAX + Duration::from_secs(1);
        assert!(bounds(&long).is_err());
        assert!(bounds(&plan(&["bots: profile=idle connections=11m"])).is_err());
    }

    #[test]
    fn the_operator_is_warned_of_what_spoils_figures() {
        let plan = plan(&[
            "bots: profile=idle connections=60k from=127.1.0.1",
            "loop: sessions=5",
        ]);
        let machine = Machine {
            cores: 2,
            load_before: 1.5,
            open_files_max: 20_000,
            debug_build: true,
            ..Machine::default()
        };
        let told = warnings(&plan, &machine, 4).join("\n");
        for word in [
            "debug build",
            "4 processes on 2 cores",
            "busy",
            "coordinated omission",
        ] {
            assert!(told.contains(word), "{word} is missing in {told}");
        }
        assert!(ports(&plan, "32768\t60999\n")[0].contains("60000 sessions"));
        assert!(
            ports(&plan, "1 65535").is_empty(),
            "60,000 fit into one address with all ports"
        );
    }

    #[test]
    fn a_busy_load_side_is_told_of() {
        let mut stream = StreamOutcome::named("good");
        (stream.counts.starts, stream.counts.accepted) = (1000, 1000);
        stream.counts.late = 10;
        let plan = plan(&["good: rate=100/s"]);
        assert_eq!(
            afterthoughts(&plan, std::slice::from_ref(&stream)),
            Vec::<String>::new()
        );
        stream.counts.late = 11;
        stream.counts.dropped = 1;
        let told = afterthoughts(&plan, &[stream]);
        assert!(
            told[0].contains("11 of 1000") && told[1].contains("1 starts were dropped"),
            "{told:?}"
        );
    }

    #[test]
    fn starts_that_were_not_made_are_told_of() {
        let plan = plan(&["good: rate=100/s starts=50"]);
        let mut stream = StreamOutcome::named("good");
        assert!(
            afterthoughts(&plan, std::slice::from_ref(&stream))[0].contains("nothing was started")
        );
        (stream.counts.starts, stream.counts.accepted) = (50, 50);
        assert!(
            afterthoughts(&plan, std::slice::from_ref(&stream))[0].contains("all of its 50 starts")
        );
        (stream.counts.starts, stream.counts.accepted) = (40, 40);
        assert!(afterthoughts(&plan, std::slice::from_ref(&stream)).is_empty());
        stream.counts.accepted = 39;
        assert!(afterthoughts(&plan, std::slice::from_ref(&stream))[0].contains("only 39 of 40"));
        stream.counts.accepted = 40;
        stream.words.insert(
            format!("{NOT_FROM_HERE}: Cannot assign requested address"),
            7,
        );
        assert!(afterthoughts(&plan, &[stream])[0].contains("7 connections failed on this side"));
    }

    #[test]
    fn grace_has_an_end() {
        let mut long = plan(&["good: rate=1/s"]);
        long.grace = GRACE_MAX + Duration::from_secs(1);
        assert!(bounds(&long).is_err());
    }

    #[test]
    fn a_quiet_machine_and_a_planned_rate_need_no_warning() {
        let machine = Machine {
            cores: 8,
            open_files_max: 20_000,
            ..Machine::default()
        };
        assert_eq!(
            warnings(&plan(&["good: rate=100/s"]), &machine, 1),
            Vec::<String>::new()
        );
    }
}
