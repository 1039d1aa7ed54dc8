//! The control port: a line protocol, for `ledger::fetch` and for `nc`.
//!
//! ```text
//! ledger RUN      ok {what arrived of the run, and messages of no run that came since the sink began, see ledger::Arrived}
//! forget RUN      ok
//! counters        ok {Counters as JSON}
//! faults          ok <the faults in force>
//! faults SPEC     ok <the faults in force from the next reply on>, see `fault` for the grammar; `faults none` takes them all back
//! ```
//! Every line gets one line: `ok ...` or `error ...`. Runs are decimal numbers. The connection is closed when the client closes its side.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::counters::Counters;
use super::fault::Faults;
use super::thread::Thread;
use crate::ledger::Arrived;

const LINE_OCTETS_MAX: u64 = 8192;
const PATIENCE: Duration = Duration::from_secs(60);
const CONNECTIONS_MAX: usize = 64;

pub async fn serve(listener: TcpListener, threads: Arc<[Arc<Thread>]>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let threads = Arc::clone(&threads);
                tokio::spawn(async move {
                    // who asks is told by the end of the stream that something went wrong
                    let _answered: std::io::Result<()> = answer_lines(stream, &threads).await;
                    drop(place);
                });
            }
            Err(error) => {
                eprintln!("sink: cannot take a connection to the control port: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer_lines(mut stream: TcpStream, threads: &[Arc<Thread>]) -> std::io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(LINE_OCTETS_MAX);
        let read = limited.read_line(&mut line);
        if tokio::time::timeout(PATIENCE, read).await?? == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') && line.len() as u64 == LINE_OCTETS_MAX {
            return writer.write_all(b"error the line is too long\n").await;
        }
        let text = match answer(line.trim(), threads) {
            Ok(text) if text.is_empty() => "ok\n".to_owned(),
            Ok(text) => format!("ok {text}\n"),
            Err(error) => format!("error {error:#}\n"),
        };
        tokio::time::timeout(PATIENCE, writer.write_all(text.as_bytes())).await??;
    }
}

fn answer(line: &str, threads: &[Arc<Thread>]) -> anyhow::Result<String> {
    let (word, argument) = line.split_once(' ').unwrap_or((line, ""));
    match (word, argument.trim()) {
        ("ledger", run) => {
            let arrived = arrived(threads, number(run)?);
            serde_json::to_string(&arrived).context("the ledger cannot be written as JSON")
        }
        ("forget", run) => {
            let run = number(run)?;
            for thread in threads {
                thread.shared().ledgers.forget(run);
            }
            Ok(String::new())
        }
        ("counters", "") => serde_json::to_string(&counters(threads))
            .context("the counters cannot be written as JSON"),
        ("faults", "") => Ok(threads[0].shared().faults.to_string()),
        ("faults", text) => {
            let faults: Arc<Faults> = Arc::new(text.parse()?);
            for thread in threads {
                thread.shared().faults = Arc::clone(&faults);
            }
            Ok(faults.to_string())
        }
        _ => bail!("`{line}` is none of ledger RUN, forget RUN, counters, faults, faults SPEC"),
    }
}

fn number(run: &str) -> anyhow::Result<u64> {
    run.parse()
        .with_context(|| format!("`{run}` is no number of a run"))
}

pub fn arrived(threads: &[Arc<Thread>], run: u64) -> Arrived {
    let mut all = Arrived::default();
    for thread in threads {
        let shared = thread.shared();
        if let Some(arrived) = shared.ledgers.of(run) {
            all.merge(arrived);
        }
        all.add_strays(shared.ledgers.strays());
    }
    all
}

pub fn counters(threads: &[Arc<Thread>]) -> Counters {
    let mut all = Counters::default();
    for thread in threads {
        all.merge(&thread.shared().counters);
        all.open = thread.open.now();
        all.open_max = thread.open.most();
    }
    all
}
