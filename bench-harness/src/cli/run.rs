//! What commands that make a run share: its flags, its summary, its files, its verdict.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::crew::{self, CrewOptions};
use crate::exit::Exit;
use crate::grammar;
use crate::grammar::problem::Problems;
use crate::outcome::{Outcome, Results};
use crate::plan::Plan;
use crate::verdict::Threshold;
use crate::{machine, rails, report, sys};

#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Run and results")]
pub struct RunFlags {
    /// What would be wrong, as 'p99>5ms', 'good.final.p99.9>20ms', 'lost>0', 'rate<1900/s'; repeat it. Broken: exit code 1
    #[arg(long = "fail-if", value_name = "THRESHOLD")]
    pub fail_if: Vec<String>,
    /// Worker processes [default: as many as the open-file limit asks for]
    #[arg(long, value_name = "N")]
    pub processes: Option<String>,
    /// A process (weir, a peer) whose CPU time and memory are sampled
    #[arg(long, value_name = "PID")]
    pub watch: Option<String>,
    /// What the run is called in results
    #[arg(long, default_value = "run")]
    pub name: String,
    /// Writes the results as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the report (HTML), the results (JSON) and .hgrm files into a folder, under --name
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// No progress and no warnings
    #[arg(long, short)]
    pub quiet: bool,
}

/// The flags understood.
pub struct Wishes {
    pub crew: CrewOptions,
    thresholds: Vec<Threshold>,
    json: Option<PathBuf>,
    into: Option<PathBuf>,
}

impl RunFlags {
    /// Adds to `problems` what is wrong; thresholds are held against the plan, where there is one.
    pub fn wishes(&self, plan: Option<&Plan>, problems: &mut Problems) -> Wishes {
        let mut thresholds = Vec::new();
        for text in &self.fail_if {
            let parsed = Threshold::parse(text).and_then(|threshold| {
                plan.map_or(Ok(()), |plan| threshold.fits(plan))?;
                Ok(threshold)
            });
            thresholds.extend(problems.take("--fail-if", text, parsed));
        }
        self.enough_processes(plan, problems);
        if let Some(path) = &self.json {
            problems.take("--json", &path.display().to_string(), writable(path));
        }
        let mut number = |flag: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            problems.take(flag, text, grammar::count32(text))
        };
        Wishes {
            crew: CrewOptions {
                processes: number("--processes", &self.processes),
                watch: number("--watch", &self.watch),
                quiet: self.quiet,
                name: self.name.clone(),
                command: machine::command_line(),
            },
            thresholds,
            json: self.json.clone(),
            into: self.into.clone(),
        }
    }
}

impl RunFlags {
    /// A number that is no number is told elsewhere.
    fn enough_processes(&self, plan: Option<&Plan>, problems: &mut Problems) {
        let given = self
            .processes
            .as_deref()
            .and_then(|text| Some((text, grammar::count32(text).ok()?)));
        let (Some(plan), Some((text, given)), Ok(files)) = (plan, given, sys::raise_open_files())
        else {
            return;
        };
        let open = rails::open_sessions(plan);
        let needed = rails::processes_needed(open, files);
        if given < needed {
            problems.add("--processes", text, format!("{open} sessions need {needed} where each may open {files} files: leave it out, or raise ulimit -Hn"));
        }
    }
}

impl Wishes {
    /// Writes the files, prints `text` and the verdict. Files first: whoever closes the pipe or fills the disk of the one loses not the other.
    pub fn finish(&self, mut text: String, outcome: Outcome) -> Result<Exit> {
        let verdicts: Vec<_> = self
            .thresholds
            .iter()
            .map(|threshold| threshold.judge(&outcome))
            .collect();
        for verdict in &verdicts {
            text += &format!("{verdict}\n");
        }
        let unclean = outcome
            .integrity
            .as_ref()
            .is_some_and(|integrity| !integrity.is_clean());
        if unclean {
            text +=
                "BROKEN  mail was lost, duplicated, altered or invented, or came without an id\n";
        }
        let written = self.write(outcome);
        for path in written.iter().flatten() {
            text += &format!("{}\n", path.display());
        }
        let printed = print(&text);
        written?;
        printed?;
        Ok(match () {
            () if crew::interrupted() => Exit::Interrupted,
            () if unclean || verdicts.iter().any(|verdict| verdict.broken) => Exit::Broken,
            () => Exit::Well,
        })
    }

    /// The files of a report.
    fn write(&self, outcome: Outcome) -> Result<Vec<PathBuf>> {
        let results = Results {
            format: Results::FORMAT.to_owned(),
            runs: vec![outcome],
            ..Results::default()
        };
        let files = match &self.into {
            Some(folder) => report::write_all(&results, folder, &self.crew.name)?,
            None => Vec::new(),
        };
        if let Some(path) = &self.json {
            let text =
                serde_json::to_string_pretty(&results).context("cannot write results down")?;
            replace(path, &(text + "\n"))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(files)
    }
}

/// Makes one run and tells of it in the words of `text`. Problems of the plan and of the run's flags are told together.
pub fn command(
    plan: Result<Plan, Problems>,
    flags: &RunFlags,
    text: fn(&Outcome) -> String,
) -> Result<Exit> {
    let (plan, mut problems) = match plan {
        Ok(plan) => (Some(plan), Problems::default()),
        Err(problems) => (None, problems),
    };
    let wishes = flags.wishes(plan.as_ref(), &mut problems);
    let plan = problems.end(plan)?;
    let outcome = crew::run(&plan, &wishes.crew)?;
    wishes.finish(text(&outcome), outcome)
}

/// Not `print!`, which panics where nobody reads.
fn print(text: &str) -> Result<()> {
    let mut output = std::io::stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .context("cannot print the summary")
}

/// A whole file, or the one that was there before. What is no file (a pipe, a device) is written to as it is.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if path.exists() && !path.is_file() {
        return std::fs::write(path, text);
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let renamed = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path));
    if renamed.is_err() {
        // what is left of it is nobody's results; the error told is the first one
        let _ = std::fs::remove_file(&part);
    }
    renamed
}

/// Found out before the run: results that cannot be written are a run for nothing.
fn writable(path: &Path) -> Result<(), String> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        _ if path.is_dir() => Err("it is a folder: name a file".to_owned()),
        Some(folder) if !folder.is_dir() => Err(format!("there is no folder {}", folder.display())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::samples::plan;
    use crate::summary;

    #[test]
    fn wrong_flags_of_a_run_are_told_with_those_of_the_plan() {
        let flags = RunFlags {
            fail_if: vec!["p99>5".to_owned(), "lost>0".to_owned(), "p50>1s".to_owned()],
            processes: Some("0".to_owned()),
            watch: Some("weir".to_owned()),
            ..RunFlags::default()
        };
        let mut problems = Problems::default();
        let wishes = flags.wishes(Some(&plan(&["good: rate=1/s"])), &mut problems);
        assert_eq!(wishes.thresholds.len(), 1);
        let told: Vec<&str> = problems
            .0
            .iter()
            .map(|problem| problem.value.as_str())
            .collect();
        assert_eq!(told, ["p99>5", "lost>0", "0", "weir"]);
    }

    #[test]
    fn too_few_processes_are_bad_usage() {
        let flags = RunFlags {
            processes: Some("1".to_owned()),
            ..RunFlags::default()
        };
        let mut problems = Problems::default();
        let crowd = plan(&["bots: profile=idle connections=9m"]);
        flags.wishes(Some(&crowd), &mut problems);
        assert_eq!(problems.0.len(), 1);
        assert!(problems.0[0].remedy.contains("ulimit"), "{problems}");
    }

    #[test]
    fn results_are_whole_or_those_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.json");
        replace(&path, "one").unwrap();
        replace(&path, "other").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "other");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(replace(Path::new("/dev/full"), "x").is_err());
        assert!(writable(&path).is_ok() && writable(Path::new("run.json")).is_ok());
        assert!(writable(folder.path()).is_err());
        assert!(writable(&folder.path().join("none/run.json")).is_err());
    }

    #[test]
    fn a_plan_with_problems_is_not_run() {
        let mut problems = Problems::default();
        problems.add("--rate", "5", "2000/s");
        let flags = RunFlags {
            watch: Some("x".to_owned()),
            ..RunFlags::default()
        };
        let error = command(Err(problems), &flags, summary::text).unwrap_err();
        let told = error.downcast::<Problems>().expect("it is bad usage");
        assert_eq!(told.0.len(), 2);
    }
}
