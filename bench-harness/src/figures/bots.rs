//! How long bots are kept that are dripped to, and wait for it.

use std::time::Duration;

use anyhow::Result;

use super::stand::Stand;
use crate::crew;
use crate::outcome::Outcome;
use crate::peers::workload::{Load, find, good_clients};
use crate::plan::{Arrivals, Profile};

/// How many; each from its own address, opened within some seconds.
const BOTS: u32 = 100;

/// The median time from connect to the end of those that weir has let go; if it was fewer than half, at least how long the run lasted.
pub fn held(stand: &mut Stand<'_>) -> Result<()> {
    for (profile, words) in [
        (Profile::Spambot, "sends all at once and reads no reply"),
        (
            Profile::Pregreet,
            "speaks too early, then waits for every reply",
        ),
    ] {
        let weir = stand.weir("--greet-wait 2s --on pregreet=stutter")?;
        let lasts = stand.options.bots_for;
        let load = Load {
            sessions: BOTS,
            rate: None,
            lasts,
            starts_max: u64::from(BOTS),
        };
        let mut plan = find("new-4k")?.plan(&load, weir.smtp, stand.sink.control, 1);
        let mut bots = good_clients(profile, 4096, &load);
        bots.name = "bots".to_owned();
        // Longer than the run: this bot never tires.
        bots.patience = lasts + Duration::from_secs(60);
        bots.arrivals = Arrivals::Held {
            connections: BOTS,
            per_second: 50,
        };
        plan.streams = vec![bots];
        plan.grace = Duration::from_secs(5);
        let outcome = crew::run(&plan, &stand.crew_options(&weir, words))?;
        let (kept, ended) = kept(&outcome, lasts);
        let title = format!("median time of a stuttered bot that {words}");
        let note = format!("{ended} of {BOTS} had ended after {} s", lasts.as_secs());
        stand.figure(&title, kept.as_secs_f64(), "s", None, &note);
    }
    Ok(())
}

fn kept(outcome: &Outcome, lasts: Duration) -> (Duration, u64) {
    let stream = outcome.streams.iter().find(|stream| stream.name == "bots");
    let ended = stream.map_or(0, |stream| stream.kept.0.len());
    // Those still held belong to the upper end.
    let percentile = 50.0 * f64::from(BOTS) / ended.max(1) as f64;
    match stream {
        Some(stream) if percentile <= 100.0 => (stream.kept.at(percentile), ended),
        _ => (lasts, ended),
    }
}
