//! CPU per message of two shards to that of one: what it costs that there are several.

use anyhow::Result;

use super::stand::{Stand, cpu_while};
use crate::medians::median;
use crate::peers::workload::find;

pub fn shards(stand: &mut Stand<'_>) -> Result<()> {
    for name in ["new-4k", "persistent-4k"] {
        let workload = find(name)?;
        let weirs = [stand.weir("--shards 1")?, stand.weir("--shards 2")?];
        let load = stand.load(stand.options.rate, stand.options.lasts);
        let mut cpu_us = [Vec::new(), Vec::new()];
        // Round 0 warms up.
        for round in 0..=stand.options.rounds {
            for (at, weir) in weirs.iter().enumerate() {
                let title = format!("{}, {} shards, round {round}", workload.title, at + 1);
                let (outcome, cpu) = cpu_while(weir, || stand.good(weir, workload, &load, &title))?;
                if round > 0 {
                    cpu_us[at].push(cpu.as_secs_f64() * 1e6 / outcome.accepted() as f64);
                }
            }
        }
        if let (Some(one), Some(two)) = (median(&cpu_us[0]), median(&cpu_us[1])) {
            let title = format!("CPU per message of two shards to one, {}", workload.title);
            let note = format!(
                "medians of {} rounds: {two:.1} and {one:.1} µs",
                cpu_us[0].len()
            );
            stand.figure(&title, two / one, "", Some(1.05), &note);
        }
    }
    Ok(())
}
