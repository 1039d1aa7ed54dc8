//! What every figure stands on: a folder, a sink, weirs with the flags of the figure, good clients, and the list of what was found.

use std::time::Duration;

use anyhow::{Result, bail};

use super::options::Options;
use crate::crew::{self, CrewOptions};
use crate::machine;
use crate::outcome::{Figure, Outcome, Stage};
use crate::peers::folder::Folder;
use crate::peers::rounds;
use crate::peers::sink::Sink;
use crate::peers::weir::{Weir, WeirOptions};
use crate::peers::workload::{Load, Setting, Workload};
use crate::proc::tree;
use crate::progress::tell;

pub struct Stand<'a> {
    pub options: &'a Options,
    pub folder: Folder,
    pub sink: Sink,
    weir: WeirOptions,
    command: String,
    pub figures: Vec<Figure>,
    pub runs: Vec<Outcome>,
    /// Mail that was lost or altered: the command fails.
    pub broken: Vec<String>,
}

impl Stand<'_> {
    pub fn new(options: &Options) -> Result<Stand<'_>> {
        let folder = Folder::new("figures")?;
        let sink = Sink::start(&folder, true, Setting::Plain)?;
        Ok(Stand {
            options,
            weir: WeirOptions::new(options.common.weir.clone(), &options.common.weir_flags)?,
            folder,
            sink,
            command: machine::command_line(),
            figures: Vec::new(),
            runs: Vec::new(),
            broken: Vec::new(),
        })
    }

    /// A weir before the sink; `flags` in addition to bench-harness/peers/weir.flags.
    pub fn weir(&self, flags: &str) -> Result<Weir> {
        self.weir_in(Setting::Plain, flags)
    }

    pub fn weir_in(&self, setting: Setting, flags: &str) -> Result<Weir> {
        let options = self.weir.with(flags);
        Weir::start(
            &self.folder,
            &self.sink,
            setting,
            self.options.common.threads,
            &options,
        )
    }

    pub fn binary(&self) -> &std::path::Path {
        &self.weir.binary
    }

    /// Good clients in a circle, or by a plan if there is a rate.
    pub fn load(&self, rate: Option<f64>, lasts: Duration) -> Load {
        Load {
            sessions: self.options.common.sessions,
            rate,
            lasts,
            starts_max: 10_000_000,
        }
    }

    /// One run of good clients; what it harms or is refused is told.
    pub fn good(
        &mut self,
        weir: &Weir,
        workload: &Workload,
        load: &Load,
        name: &str,
    ) -> Result<Outcome> {
        let plan = workload.plan(load, weir.smtp, self.sink.control, 1);
        let outcome = crew::run(&plan, &self.crew_options(weir, name))?;
        self.judge(name, &outcome);
        if outcome.accepted() == 0 {
            bail!(
                "{name}: not one message was accepted\n{}",
                weir.child.words()
            );
        }
        Ok(outcome)
    }

    pub fn crew_options(&self, weir: &Weir, name: &str) -> CrewOptions {
        CrewOptions {
            processes: None,
            watch: Some(weir.child.pid()),
            quiet: self.options.common.quiet,
            name: name.to_owned(),
            command: self.command.clone(),
        }
    }

    pub fn judge(&mut self, name: &str, outcome: &Outcome) {
        if let Some(line) = rounds::refused(name, outcome) {
            tell(format_args!("  ! {line}"));
        }
        if let Some(line) = rounds::broken(name, outcome) {
            tell(format_args!("  ! {line}"));
            self.broken.push(line);
        }
    }

    /// Shows a figure at once and keeps it for the report.
    pub fn figure(&mut self, title: &str, value: f64, unit: &str, target: Option<f64>, note: &str) {
        let verdict = match target {
            Some(target) if value <= target => format!(", target {target}: met"),
            Some(target) => format!(", target {target}: MISSED"),
            None => String::new(),
        };
        tell(format_args!("{title}: {value:.2} {unit}{verdict} ({note})"));
        self.figures.push(Figure {
            title: title.to_owned(),
            value,
            unit: unit.to_owned(),
            target,
            note: note.to_owned(),
        });
    }
}

/// Percentile of whole sessions from their planned start, in milliseconds.
pub fn session_ms(outcome: &Outcome, percentile: f64) -> f64 {
    let stream = outcome.streams.iter().find(|stream| stream.name == "good");
    let times = stream.and_then(|stream| stream.stages.get(&Stage::Session));
    times.map_or(f64::NAN, |times| {
        times.planned.at(percentile).as_secs_f64() * 1e3
    })
}

/// CPU time of a weir while `work` is done.
pub fn cpu_while<T>(weir: &Weir, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let pid = weir.child.pid();
    let before = tree::cpu_time(pid)?;
    let done = work()?;
    std::thread::sleep(Duration::from_millis(300));
    Ok((done, tree::cpu_time(pid)? - before))
}

/// Share of a core a weir takes over a time in which we do nothing.
pub fn cpu_share(weir: &Weir, over: Duration) -> Result<f64> {
    let pid = weir.child.pid();
    let (began, before) = (std::time::Instant::now(), tree::cpu_time(pid)?);
    std::thread::sleep(over);
    Ok((tree::cpu_time(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}
