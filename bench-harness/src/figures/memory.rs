//! User memory per client of each kind that costs nothing else, and a weir that has nothing to do at all.

use std::time::Duration;

use anyhow::Result;

use super::held::{Held, Kind, pit_flags};
use super::stand::{Stand, cpu_share};
use crate::peers::workload::find;
use crate::proc::tree;

pub fn memory(stand: &mut Stand<'_>) -> Result<()> {
    let count = stand.options.held;
    let plain = format!(
        "--max-connections {} --timeout-idle 600s",
        (count * 2).max(20_000)
    );
    let waiting = format!("{plain} --greet-wait 60s");
    let stuttered = pit_flags(count, stand.options.common.threads);
    let rows = [
        (Kind::Idle, plain, "idle session after EHLO", 640.0),
        (
            Kind::Waiting,
            waiting,
            "client that waits for its greeting",
            256.0,
        ),
        (Kind::Stuttered, stuttered, "stuttered client", 256.0),
    ];
    for (kind, flags, words, target) in rows {
        let each = growth(stand, kind, &flags)?;
        let note = format!("RSS growth, {count} held");
        let title = format!("user memory per {words}");
        stand.figure(&title, each, "B", Some(target), &note);
    }
    Ok(())
}

/// Handshakes a second that weir and its clients can make on one core, with room to spare.
const HANDSHAKES: u32 = 400;

pub fn tls(stand: &mut Stand<'_>) -> Result<()> {
    let count = stand.options.held;
    let most = (count * 2).max(20_000);
    let flags = format!("--max-connections {most} --timeout-idle 600s");
    let each = growth(stand, Kind::Secured, &flags)?;
    let note = format!("RSS growth, {count} held, TLS 1.3");
    let title = "user memory per idle session in TLS, after EHLO";
    stand.figure(title, each, "B", Some(9.0 * 1024.0), &note);
    Ok(())
}

/// RSS growth per client; some that came and went before have paid for what is allocated once.
fn growth(stand: &Stand<'_>, kind: Kind, flags: &str) -> Result<f64> {
    let count = stand.options.held;
    let opening = match kind {
        Kind::Secured => stand.options.opening.min(HANDSHAKES),
        Kind::Idle | Kind::Waiting | Kind::Stuttered => stand.options.opening,
    };
    let mut weir = stand.weir_in(kind.setting(), flags)?;
    let open = |weir: &mut _, count| Held::open(&stand.folder, weir, kind, count, opening);
    open(&mut weir, (count / 15).max(10))?.close(&mut weir)?;
    let before = tree::rss(weir.child.pid())?;
    let held = open(&mut weir, count)?;
    let grown = tree::rss(weir.child.pid())?.saturating_sub(before) as f64;
    let each = grown / held.really(&weir)?;
    held.close(&mut weir)?;
    Ok(each)
}

pub fn idle(stand: &mut Stand<'_>) -> Result<()> {
    let weir = stand.weir("")?;
    let load = stand.load(Some(50.0), Duration::from_secs(2));
    stand.good(&weir, find("new-4k")?, &load, "before idling")?;
    std::thread::sleep(Duration::from_secs(2));
    let share = cpu_share(&weir, Duration::from_secs(20))? * 100.0;
    stand.figure(
        "CPU of an idle weir",
        share,
        "% of a core",
        Some(1.0),
        "over 20 s",
    );
    Ok(())
}
