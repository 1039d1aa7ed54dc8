//! What commands that make a run share: its flags, its summary, its files, its verdict.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cli::Exit;
use crate::cli::grammar;
use crate::cli::problem::Problems;
use crate::crew::{self, CrewOptions};
use crate::outcome::{Outcome, Results};
use crate::plan::Plan;
use crate::verdict::Threshold;
use crate::{rails, summary, sys};

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
    /// No progress and no warnings
    #[arg(long, short)]
    pub quiet: bool,
}

/// The flags understood.
pub struct Wishes {
    pub crew: CrewOptions,
    thresholds: Vec<Threshold>,
    json: Option<PathBuf>,
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
                command: command_line(),
            },
            thresholds,
            json: self.json.clone(),
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
    /// Writes the files, prints the verdict.
    pub fn finish(&self, outcome: Outcome) -> Result<Exit> {
        let verdicts: Vec<_> = self
            .thresholds
            .iter()
            .map(|threshold| threshold.judge(&outcome))
            .collect();
        for verdict in &verdicts {
            println!("{verdict}");
        }
        let unclean = outcome
            .integrity
            .as_ref()
            .is_some_and(|integrity| !integrity.is_clean());
        if unclean {
            println!("BROKEN  mail was lost, duplicated, altered or invented");
        }
        self.write(outcome)?;
        Ok(match () {
            () if crew::interrupted() => Exit::Interrupted,
            () if unclean || verdicts.iter().any(|verdict| verdict.broken) => Exit::Broken,
            () => Exit::Well,
        })
    }

    fn write(&self, outcome: Outcome) -> Result<()> {
        let results = Results {
            format: Results::FORMAT.to_owned(),
            runs: vec![outcome],
            ..Results::default()
        };
        if let Some(path) = &self.json {
            let text =
                serde_json::to_string_pretty(&results).context("cannot write results down")?;
            std::fs::write(path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// A plan, or its problems and those of the run's flags together.
pub fn command(plan: Result<Plan, Problems>, flags: &RunFlags) -> Result<Exit> {
    let (plan, mut problems) = match plan {
        Ok(plan) => (Some(plan), Problems::default()),
        Err(problems) => (None, problems),
    };
    let wishes = flags.wishes(plan.as_ref(), &mut problems);
    let plan = problems.end(plan)?;
    let outcome = crew::run(&plan, &wishes.crew)?;
    print!("{}", summary::text(&outcome));
    wishes.finish(outcome)
}

/// As it was typed, for the record; words with spaces are quoted.
pub fn command_line() -> String {
    std::env::args()
        .map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@{}".contains(c);
            match word.chars().all(plain) && !word.is_empty() {
                true => word,
                false => format!("'{}'", word.replace('\'', r"'\''")),
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::source::tests::plan;

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
    fn a_plan_with_problems_is_not_run() {
        let mut problems = Problems::default();
        problems.add("--rate", "5", "2000/s");
        let flags = RunFlags {
            watch: Some("x".to_owned()),
            ..RunFlags::default()
        };
        let error = command(Err(problems), &flags).unwrap_err();
        let told = error.downcast::<Problems>().expect("it is bad usage");
        assert_eq!(told.0.len(), 2);
    }
}
