//! A run: worker processes with a share of the plan each, merged into one outcome, and held against the sink's ledger.
//!
//! ```text
//! parent                                   worker (a copy of this program: `weir-bench worker`)
//!   plan share, one line of JSON  ──────>    reads it, and loads the mail
//!   waits for all                 <──────    "ready"
//!   "go" to all                   ──────>    starts the plan's clock
//!   progress                      <──────    {"second": [counts so far, stream by stream]}, once a second
//!   "stop", after Ctrl-C          ──────>    starts nothing more, reports
//!   merge                         <──────    {"report": ...}, and its end
//! ```
//!
//! A worker that dies or says nonsense fails the run with its last words: a smaller result would look like a slower server.
//! Workers have process groups of their own, so that Ctrl-C meets the parent alone; they end when their input ends.

mod member;
mod signals;
mod wire;
pub mod worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::mpsc;

use crate::ledger::{self, Arrived, Sent};
use crate::outcome::{Counts, Integrity, Outcome, Sample, StreamOutcome};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::source::SourceReport;
use crate::{machine, proc, rails, sys, units};
use member::{Event, Member};
pub use signals::interrupted;
use wire::FromWorker;

/// How a run is carried out; the plan says what it does.
#[derive(Debug, Clone, Default)]
pub struct CrewOptions {
    /// None: as many as the open-file limit asks for.
    pub processes: Option<u32>,
    /// A process whose CPU time and memory are sampled.
    pub watch: Option<u32>,
    pub quiet: bool,
    /// What the outcome is called: `weir`, `haproxy`, `direct`.
    pub name: String,
    /// The command line, for the record.
    pub command: String,
}

const SAMPLE_EVERY: Duration = Duration::from_millis(250);
const TARGET_WITHIN: Duration = Duration::from_secs(5);
/// From the first process to the last `ready`, the loading of mail between.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What workers may take after the plan and its grace are over: to write their report.
const REPORT_WITHIN: Duration = Duration::from_secs(60);
/// What may still be on its way when the last sender has heard its reply: messages that are missing, second copies of others, and some that
/// were refused. So the sink is asked until it has said the same for a while: a short one where nothing is missing, a long one where
/// something is.
const QUIET: Duration = Duration::from_millis(600);
const QUIET_WITH_LOST: Duration = Duration::from_secs(3);
/// A queue that still comes in after this long is counted as it is.
const LATE_ARRIVALS: Duration = Duration::from_secs(60);
const LATE_PAUSE: Duration = Duration::from_millis(150);

/// Carries out a plan and blocks until it is over. Not to be called inside an async runtime.
pub fn run(plan: &Plan, options: &CrewOptions) -> Result<Outcome> {
    run_program(Path::new("/proc/self/exe"), plan, options)
}

fn run_program(program: &Path, plan: &Plan, options: &CrewOptions) -> Result<Outcome> {
    signals::watch()?;
    ensure!(!interrupted(), TOO_EARLY);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an async runtime")?;
    runtime.block_on(Run::new(program, plan, options)?.carry_out())
}

/// What workers say, with their numbers; it ends when all of them have.
type Inbox = mpsc::Receiver<(u32, Event)>;

const TOO_EARLY: &str = "interrupted before the run began";

/// One run under way.
struct Run<'a> {
    program: PathBuf,
    plan: &'a Plan,
    options: &'a CrewOptions,
    processes: u32,
    machine: crate::outcome::Machine,
    progress: Progress,
    /// By process: the counts it told last, its report.
    totals: Vec<Vec<Counts>>,
    reports: Vec<Option<SourceReport>>,
    samples: Vec<Sample>,
    /// When the watched process was born.
    watched: Option<u64>,
    /// When a signal ended the plan early.
    stopped: Option<Duration>,
    /// What the sink said before the first message.
    before: Arrived,
}

impl<'a> Run<'a> {
    fn new(program: &Path, plan: &'a Plan, options: &'a CrewOptions) -> Result<Run<'a>> {
        let open_files_max =
            sys::raise_open_files().context("cannot raise the limit of open files")?;
        let needed = rails::processes_needed(rails::open_sessions(plan), open_files_max);
        let processes = options.processes.unwrap_or(needed);
        ensure!(
            processes >= needed,
            "{} sessions need {needed} processes where each may open {open_files_max} files, not {processes}: leave --processes out, or raise ulimit -Hn",
            rails::open_sessions(plan)
        );
        let mut machine = machine::describe();
        machine.warnings = rails::warnings(plan, &machine, processes);
        Ok(Run {
            program: program.to_owned(),
            plan,
            options,
            processes,
            machine,
            progress: Progress::new(plan, options.quiet),
            totals: vec![Vec::new(); processes as usize],
            reports: (0..processes).map(|_| None).collect(),
            samples: Vec::new(),
            watched: None,
            stopped: None,
            before: Arrived::default(),
        })
    }

    async fn carry_out(mut self) -> Result<Outcome> {
        self.progress.warn(&self.machine.warnings);
        let asked = unless_signalled(1, self.ask_both_ends()).await;
        asked.context(TOO_EARLY)??;
        let (mut members, mut inbox) = self.muster().await?;
        let (clock, began) = (Instant::now(), SystemTime::now());
        self.sample(clock)?;
        for member in &mut members {
            member.tell("go").await?;
        }
        self.drive(&mut members, &mut inbox, clock).await?;
        let lasted = clock.elapsed().min(self.plan.lasts + self.plan.grace);
        self.tick(clock);
        self.progress.end();
        let (streams, sent) = merge(self.plan, self.reports)?;
        let afterthoughts = rails::afterthoughts(self.plan, &streams);
        self.machine.warnings.extend(afterthoughts);
        let integrity = match self.plan.ledger {
            Some(control) => {
                let counting = count_arrivals(control, self.plan.run, &sent, &self.before);
                let counted = unless_signalled(2, counting).await;
                Some(counted.context("interrupted twice: nothing is reported")??)
            }
            None => None,
        };
        Ok(Outcome {
            name: self.options.name.clone(),
            command: self.options.command.clone(),
            began: humantime::format_rfc3339_seconds(began).to_string(),
            lasted,
            machine: self.machine,
            plan: Plan {
                // Rates are those of the time there was.
                lasts: self.stopped.unwrap_or(self.plan.lasts).min(self.plan.lasts),
                ..self.plan.clone()
            },
            streams,
            integrity,
            samples: self.samples,
        })
    }

    /// Starts all workers and waits until they are ready.
    async fn muster(&mut self) -> Result<(Vec<Member>, Inbox)> {
        let (events, mut inbox) = mpsc::channel(64);
        let mut members = Vec::new();
        for index in 0..self.processes {
            let share = self.plan.share(index, self.processes);
            members.push(Member::spawn(&self.program, index, &share, events.clone()).await?);
        }
        drop(events);
        let ready = tokio::time::timeout(READY_WITHIN, self.all_ready(&mut inbox));
        let ready = unless_signalled(1, ready).await.context(TOO_EARLY)?;
        let seconds = READY_WITHIN.as_secs();
        ready.with_context(|| format!("the workers were not ready within {seconds} s"))??;
        Ok((members, inbox))
    }

    /// That nobody is there is better told now than after the run.
    async fn ask_both_ends(&mut self) -> Result<()> {
        let target = self.plan.target;
        tokio::time::timeout(TARGET_WITHIN, tokio::net::TcpStream::connect(target))
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .with_context(|| format!("nobody accepts connections at {target}"))?;
        if let Some(control) = self.plan.ledger {
            self.before = ledger::fetch(control, self.plan.run).await?;
            ensure!(
                self.before.total() == 0,
                "the sink at {control} has seen messages of run {} before: a run has a number of its own",
                self.plan.run
            );
        }
        Ok(())
    }

    async fn all_ready(&mut self, inbox: &mut Inbox) -> Result<()> {
        let mut ready = 0;
        while ready < self.processes {
            let (index, event) = inbox.recv().await.context("all workers have gone")?;
            match event {
                Event::Said(FromWorker::Ready) => ready += 1,
                Event::Said(_) => bail!("worker {index} speaks before it was told to go"),
                Event::Ended(end) => return Err(end.into_error(index)),
            }
        }
        Ok(())
    }

    /// From `go` until every worker has reported and ended well.
    async fn drive(
        &mut self,
        members: &mut [Member],
        inbox: &mut Inbox,
        clock: Instant,
    ) -> Result<()> {
        let mut signals = signals::watch()?;
        ensure!(*signals.borrow_and_update() == 0, TOO_EARLY);
        let mut ticks = tokio::time::interval(SAMPLE_EVERY);
        let last = tokio::time::sleep(self.plan.lasts + self.plan.grace + REPORT_WITHIN);
        tokio::pin!(last);
        loop {
            tokio::select! {
                event = inbox.recv() => match event {
                    Some((index, event)) => self.note(index, event)?,
                    // Every member's task has ended, and none of them badly.
                    None => return Ok(()),
                },
                _ = ticks.tick() => self.tick(clock),
                Ok(()) = signals.changed() => {
                    ensure!(self.stopped.is_none(), "interrupted twice: the workers are ended, and nothing is reported");
                    self.stopped = Some(clock.elapsed());
                    self.machine.warnings.push(format!("ended early, by a signal, after {}", units::time(clock.elapsed())));
                    last.as_mut().reset(tokio::time::Instant::now() + self.plan.grace + REPORT_WITHIN);
                    for member in members.iter_mut() {
                        member.tell("stop").await?;
                    }
                }
                () = &mut last => bail!("workers were still busy {} s after the end of the plan and its grace", REPORT_WITHIN.as_secs()),
            }
        }
    }

    fn note(&mut self, index: u32, event: Event) -> Result<()> {
        let at = index as usize;
        match event {
            Event::Said(FromWorker::Second(counts)) => {
                self.totals[at] = counts;
                self.progress.update(&self.totals);
            }
            Event::Said(FromWorker::Report(report)) => {
                ensure!(
                    self.reports[at].is_none(),
                    "worker {index} has reported twice"
                );
                ensure!(
                    report.streams.len() == self.plan.streams.len(),
                    "worker {index} reports {} streams of {}",
                    report.streams.len(),
                    self.plan.streams.len()
                );
                self.reports[at] = Some(*report);
            }
            Event::Said(FromWorker::Ready) => bail!("worker {index} is ready a second time"),
            Event::Ended(end) if end.is_good() => {
                ensure!(
                    self.reports[at].is_some(),
                    "worker {index} has ended without a report"
                );
            }
            Event::Ended(end) => return Err(end.into_error(index)),
        }
        Ok(())
    }

    /// The first sample has to be there; what goes wrong later is worth a warning, not the run.
    fn sample(&mut self, clock: Instant) -> Result<()> {
        if let Some(pid) = self.options.watch {
            let sample = proc::sample(pid, clock.elapsed())?;
            let born = proc::born(pid)?;
            ensure!(
                *self.watched.get_or_insert(born) == born,
                "{pid} is the number of another process now"
            );
            self.samples.push(sample);
        }
        Ok(())
    }

    fn tick(&mut self, clock: Instant) {
        self.progress.tick(clock.elapsed());
        let lost = |warning: &String| warning.starts_with(Outcome::WATCH_LOST);
        if self.machine.warnings.iter().any(lost) {
            return;
        }
        if let Err(error) = self.sample(clock) {
            self.machine
                .warnings
                .push(format!("{}: {error:#}", Outcome::WATCH_LOST));
        }
    }
}

/// Streams of all processes added up, and what each process sent.
type Merged = (Vec<StreamOutcome>, Vec<(u16, Sent)>);

fn merge(plan: &Plan, reports: Vec<Option<SourceReport>>) -> Result<Merged> {
    let mut streams = vec![StreamOutcome::default(); plan.streams.len()];
    let mut sent = Vec::new();
    for (index, report) in reports.into_iter().enumerate() {
        let report =
            report.with_context(|| format!("worker {index} has ended without a report"))?;
        for (mine, theirs) in streams.iter_mut().zip(&report.streams) {
            mine.merge(theirs);
        }
        sent.push((u16::try_from(index)?, report.sent));
    }
    for (stream, planned) in streams.iter_mut().zip(&plan.streams) {
        stream.name.clone_from(&planned.name);
        stream.profile = planned.profile.word().to_owned();
    }
    Ok((streams, sent))
}

/// An error once so many signals have come in all: whoever does not answer is not to keep the operator waiting.
async fn unless_signalled<T>(signals_max: u32, work: impl Future<Output = T>) -> Result<T> {
    let mut signals = signals::watch()?;
    tokio::select! {
        done = work => Ok(done),
        Ok(_) = signals.wait_for(|count| *count >= signals_max) => bail!("a signal asked for the end"),
    }
}

/// Asks the sink what arrived, until nothing more seems to come.
async fn count_arrivals(
    control: std::net::SocketAddr,
    run: u64,
    sent: &[(u16, Sent)],
    before: &Arrived,
) -> Result<Integrity> {
    let end = Instant::now() + LATE_ARRIVALS;
    let mut counted = Integrity::default();
    let mut since = Instant::now();
    loop {
        let arrived = ledger::fetch(control, run).await?.since(before);
        let integrity = ledger::reconcile(sent, &arrived);
        let now = Instant::now();
        if integrity != counted {
            (counted, since) = (integrity, now);
        }
        let quiet = if counted.lost == 0 {
            QUIET
        } else {
            QUIET_WITH_LOST
        };
        if now >= (since + quiet).min(end) {
            break;
        }
        tokio::time::sleep(LATE_PAUSE).await;
    }
    ledger::forget(control, run).await?;
    Ok(counted)
}

#[cfg(test)]
#[path = "crew/crew_tests.rs"]
mod tests;
