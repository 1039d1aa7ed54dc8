//! The command line: one file a command, one language for all their values, and the exit codes.

pub mod hold;
pub mod run;
pub mod sink;
pub mod source;
pub mod tls;

use clap::{Parser, Subcommand};

use crate::crew;
use crate::exit::Exit;
use crate::grammar::problem::Problems;

#[derive(Parser, Debug)]
#[command(
    name = "weir-bench",
    version,
    about = "SMTP load whose latencies are counted from the plan, and whose mail is counted at the other end"
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Source(Box<source::SourceFlags>),
    Sink(Box<sink::SinkFlags>),
    Hold(Box<hold::HoldFlags>),
    Peers(Box<crate::peers::Options>),
    Figures(Box<crate::figures::Options>),
    /// Makes the page and the .hgrm files of a result file again
    Report(crate::report::Options),
    /// Holds two result files against each other: figures, ratios, what differs in plan and machine
    Compare(crate::report::compare::Options),
    /// A process of the crew: started by the other commands
    #[command(hide = true)]
    Worker,
}

/// Bad usage, as sysexits.h has it.
const USAGE: u8 = 64;
/// Something the command needs was not there or broke down: target, sink, a worker, a file.
const ENVIRONMENT: u8 = 69;

/// Runs the command of this process and returns its exit code.
pub fn main() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output; if nobody reads, nobody misses it.
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    match run(cli.command) {
        Ok(Exit::Well) => 0,
        Ok(Exit::Broken) => 1,
        Ok(Exit::Interrupted) => 130,
        Err(error) => {
            eprintln!("weir-bench: {error:#}");
            code_of(&error)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Exit> {
    match command {
        Command::Source(flags) => source::command(&flags),
        Command::Sink(flags) => sink::command(&flags),
        Command::Hold(flags) => hold::command(&flags),
        Command::Peers(options) => crate::peers::command(&options),
        Command::Figures(options) => crate::figures::command(&options),
        Command::Report(options) => crate::report::command(&options).map(|()| Exit::Well),
        Command::Compare(options) => crate::report::compare::command(&options).map(|()| Exit::Well),
        Command::Worker => crew::worker::command().map(|()| Exit::Well),
    }
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<Problems>() {
        USAGE
    } else {
        ENVIRONMENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_flags_make_sense_to_clap() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_usage_has_its_own_code() {
        let mut problems = Problems::default();
        problems.add("--rate", "5", "2000/s");
        assert_eq!(code_of(&problems.into()), USAGE);
        assert_eq!(code_of(&anyhow::anyhow!("no sink")), ENVIRONMENT);
    }
}
