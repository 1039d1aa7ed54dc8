//! SIGINT (Ctrl-C) and SIGTERM, counted once for the whole process: a run stops politely at the first, and gives up at the second.

use std::sync::OnceLock;
use std::thread;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// How many signals have come since the first run began. A handler cannot be taken back, so there is one for all runs.
static COUNT: OnceLock<watch::Receiver<u32>> = OnceLock::new();

/// Whether a signal has asked this process to end; whoever makes several runs stops then.
pub fn interrupted() -> bool {
    COUNT.get().is_some_and(|count| *count.borrow() > 0)
}

/// Starts to count, if nobody has yet; the receiver changes with every signal.
pub(super) fn watch() -> Result<watch::Receiver<u32>> {
    if let Some(count) = COUNT.get() {
        return Ok(count.clone());
    }
    let (sender, receiver) = watch::channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime for signals")?;
    let mut signals = {
        let _context = runtime.enter();
        (
            signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        )
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(count(&mut signals.0, &mut signals.1, &sender)))
        .context("cannot start a thread for signals")?;
    Ok(COUNT.get_or_init(|| receiver).clone())
}

async fn count(interrupt: &mut Signal, terminate: &mut Signal, sender: &watch::Sender<u32>) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_modify(|count| *count += 1);
    }
}
