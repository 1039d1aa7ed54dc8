//! Many slow senders through a small pool: is anybody refused, what does it cost in memory, do good clients notice?

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::parked::{good, half_of_maximum};
use super::stand::Stand;
use crate::crew;
use crate::medians::{median, most};
use crate::outcome::Outcome;
use crate::peers::weir::Weir;
use crate::peers::workload::good_clients;
use crate::plan::{Arrivals, Pattern, Plan, Profile, Sources, Step};
use crate::proc::tree;

/// What the rounds have found so far.
#[derive(Default)]
struct Found {
    /// p99 of good clients, in milliseconds, a value a round.
    without_ms: Vec<f64>,
    beside_ms: Vec<f64>,
    /// Messages of slow clients.
    refused: u64,
    accepted: u64,
    /// Octets of RSS above those at rest, at the height of each round.
    growth: Vec<f64>,
}

pub fn slow_bodies(stand: &mut Stand<'_>) -> Result<()> {
    let weir = stand.weir(&format!("--pool-max {}", stand.options.pool_max))?;
    let rate = half_of_maximum(stand, &weir)?;
    let resting = tree::rss(weir.child.pid())?;
    let mut found = Found::default();
    for round in 1..=stand.options.rounds {
        let without = good(stand, &weir, rate, "without slow bodies", round)?;
        let (beside, slow) = beside_slow(stand, &weir, rate, round)?;
        found.without_ms.push(without);
        found.beside_ms.push(beside);
        found.refused += not_accepted(&slow);
        found.accepted += slow.accepted();
        let peak = slow.samples.iter().map(|sample| sample.rss_octets).max();
        let growth = peak.unwrap_or(resting).saturating_sub(resting);
        found.growth.push(growth as f64);
        stand.runs.push(slow);
    }
    found.figures(stand, rate);
    Ok(())
}

impl Found {
    fn figures(&self, stand: &mut Stand<'_>, rate: f64) {
        let (slow, pool) = (stand.options.slow, stand.options.pool_max);
        let note = format!(
            "{} messages of {slow} slow clients at a time were accepted, --pool-max {pool}",
            self.accepted
        );
        let (title, refused) = ("slow bodies refused or lost", self.refused as f64);
        stand.figure(title, refused, "messages", Some(0.0), &note);
        if let Some(growth) = most(&self.growth) {
            let each = growth / f64::from(slow) / 1024.0;
            let mib = growth / 1_048_576.0;
            let note = format!("RSS at its height {mib:.1} MiB above that at rest");
            stand.figure("user memory per slow body", each, "KiB", None, &note);
        }
        let medians = (median(&self.without_ms), median(&self.beside_ms));
        if let (Some(without), Some(beside)) = medians {
            let note = format!(
                "medians of {} rounds: {beside:.2} ms beside, {without:.2} ms without, at {rate:.0} messages a second",
                self.without_ms.len()
            );
            let title = format!("p99 of whole sessions beside {slow} slow bodies, to that without");
            stand.figure(&title, beside / without, "", Some(1.5), &note);
        }
    }
}

/// The slow ones have a crew of their own, so that their work does not delay the clock of the good ones; those start when all
/// slow ones are there.
fn beside_slow(
    stand: &mut Stand<'_>,
    weir: &Weir,
    rate: f64,
    round: u32,
) -> Result<(f64, Outcome)> {
    let name = "slow bodies";
    let plan = slow_plan(stand, weir);
    let mut options = stand.crew_options(weir, name);
    options.quiet = true;
    let (p99, slow) = std::thread::scope(|scope| {
        let slow = scope.spawn(|| crew::run(&plan, &options));
        std::thread::sleep(body_lasts(stand) + Duration::from_secs(2));
        let p99 = good(stand, weir, rate, "beside slow bodies", round);
        let slow = slow
            .join()
            .map_err(|_| anyhow!("the slow clients' thread fell"));
        (p99, slow)
    });
    let slow = slow??;
    stand.judge(name, &slow);
    Ok((p99?, slow))
}

fn body_lasts(stand: &Stand<'_>) -> Duration {
    let options = stand.options;
    Duration::from_secs_f64(f64::from(options.slow_size) / f64::from(options.slow_speed))
}

/// As many begin as end: after one body's time there are `slow` of them at any moment, until the good clients are done.
fn slow_plan(stand: &Stand<'_>, weir: &Weir) -> Plan {
    let options = stand.options;
    let body = body_lasts(stand);
    let lasts = body + options.lasts + Duration::from_secs(4);
    let per_second = f64::from(options.slow) / body.as_secs_f64();
    let profile = Profile::SlowBody {
        bytes_per_second: options.slow_speed,
    };
    let mut slow = good_clients(profile, options.slow_size, &stand.load(None, lasts));
    slow.name = "slow".to_owned();
    slow.arrivals = Arrivals::Open {
        pattern: Pattern::Constant,
        steps: vec![Step {
            from: per_second,
            to: per_second,
            lasts,
        }],
    };
    slow.open_max = options.slow * 2;
    slow.sources = Sources {
        first: IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1)),
        count: options.slow.div_ceil(20),
    };
    Plan {
        target: weir.smtp,
        ledger: Some(stand.sink.control),
        lasts,
        warmup: Duration::ZERO,
        grace: body + Duration::from_secs(30),
        streams: vec![slow],
        seed: 1,
        run: fastrand::u64(1..),
        process: 0,
        tls: None,
    }
}

/// Everything that started and was not accepted.
fn not_accepted(outcome: &Outcome) -> u64 {
    outcome
        .streams
        .iter()
        .map(|stream| stream.counts.starts.saturating_sub(stream.counts.accepted))
        .sum()
}
