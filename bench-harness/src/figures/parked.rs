//! Good clients beside parked ones: p99 of their whole sessions, and the cost of the pit alone.

use std::time::Duration;

use anyhow::Result;

use super::held::{Held, Kind, pit_flags};
use super::stand::{Stand, cpu_share, session_ms};
use crate::medians::median;
use crate::peers::weir::Weir;
use crate::peers::workload::find;
use crate::proc::{kernel_memory, tree};
use crate::progress::tell;

/// p99 with so many stuttered clients to p99 without, at half the rate that good clients reach in a circle.
///
/// The same weir serves both sides of a round; the parked come and go, so that "without" has none of their packets on the machine.
pub fn p99(stand: &mut Stand<'_>) -> Result<()> {
    let parked = stand.options.parked;
    let mut weir = stand.weir(&flags(stand, parked)?)?;
    let rate = half_of_maximum(stand, &weir)?;
    let (mut without, mut beside) = (Vec::new(), Vec::new());
    for round in 1..=stand.options.rounds {
        without.push(good(stand, &weir, rate, "without parked", round)?);
        let held = open(stand, &mut weir, parked)?;
        let name = format!("beside {parked} parked");
        beside.push(good(stand, &weir, rate, &name, round)?);
        held.close(&mut weir)?;
    }
    let (Some(without_ms), Some(beside_ms)) = (median(&without), median(&beside)) else {
        return Ok(());
    };
    let note = format!(
        "medians of {} rounds: {beside_ms:.2} ms beside, {without_ms:.2} ms without, at {rate:.0} new connections with a message a second",
        without.len()
    );
    let title = format!("p99 of whole sessions beside {parked} parked, to that without");
    stand.figure(&title, beside_ms / without_ms, "", Some(1.2), &note);
    Ok(())
}

/// Memory and CPU of parked clients with nothing else to do, then good clients beside them.
pub fn pit(stand: &mut Stand<'_>) -> Result<()> {
    let count = stand.options.pit;
    let mut weir = stand.weir(&flags(stand, count)?)?;
    // What is allocated once is no client's.
    open(stand, &mut weir, (count / 50).max(100))?.close(&mut weir)?;
    let before = tree::rss(weir.child.pid())?;
    let (tcp, slab) = kernel_memory()?;
    let held = open(stand, &mut weir, count)?;
    let really = held.really(&weir)?;
    let each = (tree::rss(weir.child.pid())?.saturating_sub(before)) as f64 / really;
    let (tcp_now, slab_now) = kernel_memory()?;
    let kernel = (tcp_now + slab_now).saturating_sub(tcp + slab) as f64 / really;
    let note = format!("RSS growth over {really:.0} stuttered clients");
    stand.figure(
        "user memory per parked client",
        each,
        "B",
        Some(256.0),
        &note,
    );
    let note = "TCP buffers and slab of the whole machine, both ends of each connection";
    stand.figure("kernel memory per parked client", kernel, "B", None, note);
    let share = cpu_share(&weir, Duration::from_secs(20))? * 100.0;
    let note = format!("{really:.0} parked, one octet each in 10 s, over 20 s");
    stand.figure("CPU of the parked", share, "% of a core", Some(10.0), &note);
    let rate = stand.options.rate.unwrap_or(200.0);
    let p99 = good(
        stand,
        &weir,
        rate,
        &format!("good clients beside {count} parked"),
        1,
    )?;
    let note = format!("{rate:.0} new connections with a message a second");
    let title = format!("p99 of good clients beside {count} parked");
    stand.figure(&title, p99, "ms", None, &note);
    held.close(&mut weir)
}

/// Good clients are known: the greet wait and the limits are for the others.
fn flags(stand: &Stand<'_>, parked: u32) -> Result<String> {
    let allow = stand.folder.write("allow", "127.4.0.0/16\n")?;
    let pit = pit_flags(parked, stand.options.common.threads);
    Ok(format!("{pit} --allow-list {}", allow.display()))
}

fn open(stand: &Stand<'_>, weir: &mut Weir, count: u32) -> Result<Held> {
    let opening = stand.options.opening;
    Held::open(&stand.folder, weir, Kind::Stuttered, count, opening)
}

/// Half of what good clients reach in a circle, or what the operator says.
pub fn half_of_maximum(stand: &mut Stand<'_>, weir: &Weir) -> Result<f64> {
    if let Some(rate) = stand.options.rate {
        return Ok(rate);
    }
    let load = stand.load(None, stand.options.lasts.min(Duration::from_secs(5)));
    let outcome = stand.good(weir, find("new-4k")?, &load, "maximum rate")?;
    let most = outcome.rate();
    tell(format_args!(
        "good clients reach {most:.0} messages a second in a circle"
    ));
    Ok((most / 2.0).floor().max(1.0))
}

/// p99 in milliseconds of one round.
pub fn good(stand: &mut Stand<'_>, weir: &Weir, rate: f64, name: &str, round: u32) -> Result<f64> {
    let load = stand.load(Some(rate), stand.options.lasts);
    let outcome = stand.good(weir, find("new-4k")?, &load, name)?;
    let p99 = session_ms(&outcome, 99.0);
    tell(format_args!(
        "  {name}, round {round}: p50 {:.2} ms, p99 {p99:.2} ms",
        session_ms(&outcome, 50.0)
    ));
    stand.runs.push(outcome);
    Ok(p99)
}
