//! The worker's side: reads its share, waits for `go`, drives the source, reports.

use std::io::{BufRead as _, Write as _};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};

use crate::crew::wire::FromWorker;
use crate::plan::Plan;
use crate::source;

/// Set by `stop`, looked at once a second.
static STOP: AtomicBool = AtomicBool::new(false);
/// The parent is gone: nobody would read a report.
const EXIT_ORPHAN: i32 = 70;

/// `weir-bench worker`: not for people.
pub fn command() -> Result<()> {
    let plan =
        next_line()?.context("a worker is started by weir-bench source, which hands it a plan")?;
    let plan: Plan = serde_json::from_str(&plan).context("the plan cannot be read")?;
    let cargo = source::load(&plan)?;
    say(&FromWorker::Ready)?;
    let go = next_line()?.context("the run was given up before it began")?;
    ensure!(go == "go", "told '{go}' instead of go");
    std::thread::spawn(obey);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime")?;
    let mut broken = None;
    let mut on_second = |counts: &[crate::outcome::Counts]| {
        broken = say(&FromWorker::Second(counts.to_vec())).err();
        match STOP.load(Ordering::Relaxed) || broken.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let report = runtime.block_on(source::run(&plan, cargo, &mut on_second))?;
    match broken {
        Some(error) => Err(error),
        None => say(&FromWorker::Report(Box::new(report))),
    }
}

/// Hears what the parent says during the run; the end of input is the end of the parent.
fn obey() {
    loop {
        match next_line() {
            Ok(Some(line)) if line == "stop" => STOP.store(true, Ordering::Relaxed),
            // Blank lines and whatever a later parent may say: nothing that a run depends on.
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => std::process::exit(EXIT_ORPHAN),
        }
    }
}

fn next_line() -> Result<Option<String>> {
    let mut line = String::new();
    let count = std::io::stdin()
        .lock()
        .read_line(&mut line)
        .context("cannot hear the parent")?;
    Ok((count > 0).then(|| line.trim_end().to_owned()))
}

fn say(what: &FromWorker) -> Result<()> {
    let mut line = serde_json::to_vec(what).context("cannot write a line down")?;
    line.push(b'\n');
    let mut output = std::io::stdout().lock();
    output
        .write_all(&line)
        .and_then(|()| output.flush())
        .context("cannot speak to the parent")
}
