//! One worker as its parent sees it: a child process, its lines, its last words.

use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, Result, anyhow};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use crate::crew::wire::FromWorker;
use crate::plan::Plan;

/// The fates of 2²⁸ messages as text, and histograms.
const LINE_MAX: u64 = 256 << 20;
/// As much of a worker's standard error as is worth reading.
const LAST_WORDS: usize = 4096;

pub(super) enum Event {
    Said(FromWorker),
    /// The last event of a worker.
    Ended(End),
}

/// How a worker ended.
pub(super) struct End {
    /// What was wrong with what it said, if anything was.
    nonsense: Option<anyhow::Error>,
    status: Result<ExitStatus>,
    last_words: String,
}

impl End {
    pub(super) fn is_good(&self) -> bool {
        self.nonsense.is_none() && self.status.as_ref().is_ok_and(|status| status.success())
    }

    pub(super) fn into_error(self, index: u32) -> anyhow::Error {
        let how = match (self.nonsense, self.status) {
            (Some(nonsense), _) => format!("said nonsense: {nonsense:#}"),
            (None, Ok(status)) => format!("has died ({status})"),
            (None, Err(error)) => format!("cannot be waited for: {error:#}"),
        };
        match self.last_words.trim() {
            "" => anyhow!("worker {index} {how}, without a word"),
            words => anyhow!("worker {index} {how}; its last words:\n{words}"),
        }
    }
}

pub(super) struct Member {
    index: u32,
    input: ChildStdin,
}

impl Member {
    /// Starts a worker and hands it its share; what it says arrives as events. It is killed when the run is given up.
    pub(super) async fn spawn(
        program: &Path,
        index: u32,
        share: &Plan,
        events: mpsc::Sender<(u32, Event)>,
    ) -> Result<Member> {
        let mut child = Command::new(program)
            .arg("worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start worker {index} ({})", program.display()))?;
        let input = child.stdin.take().context("a worker has no input")?;
        tokio::spawn(listen(index, child, events));
        let mut member = Member { index, input };
        let share = serde_json::to_string(share).context("cannot write a plan down")?;
        member.tell(&share).await?;
        Ok(member)
    }

    /// A worker that has gone is told of by its last event, which knows more than a broken pipe.
    pub(super) async fn tell(&mut self, line: &str) -> Result<()> {
        match self.input.write_all(format!("{line}\n").as_bytes()).await {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(error).with_context(|| format!("cannot speak to worker {}", self.index))
            }
            _ => Ok(()),
        }
    }
}

/// Turns what a worker says into events, to its end. A send fails only when the run was given up.
async fn listen(index: u32, mut child: Child, events: mpsc::Sender<(u32, Event)>) {
    let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were piped")
    };
    let speech = async {
        let nonsense = hear(index, output, &events).await.err();
        if nonsense.is_some() {
            // Its report is worth nothing any more, and it may never end.
            let _ = child.start_kill();
        }
        (nonsense, child.wait().await)
    };
    let ((nonsense, status), last_words) = tokio::join!(speech, last_words(errors));
    let end = End {
        nonsense,
        status: status.map_err(anyhow::Error::from),
        last_words,
    };
    let _ = events.send((index, Event::Ended(end))).await;
}

async fn hear(
    index: u32,
    output: impl AsyncRead + Unpin,
    events: &mpsc::Sender<(u32, Event)>,
) -> Result<()> {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader)
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)
            .await?
            == 0
        {
            return Ok(());
        }
        let said = serde_json::from_slice(&line).with_context(|| {
            let start = &line[..line.len().min(200)];
            format!("'{}'", String::from_utf8_lossy(start).trim_end())
        })?;
        if events.send((index, Event::Said(said))).await.is_err() {
            return Ok(());
        }
    }
}

/// Reads to the end and keeps the end. An error is an end, too: words are no result.
async fn last_words(mut errors: impl AsyncRead + Unpin) -> String {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = errors.read(&mut piece).await {
        kept.extend_from_slice(&piece[..count]);
        let over = kept.len().saturating_sub(LAST_WORDS);
        kept.drain(..over);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
