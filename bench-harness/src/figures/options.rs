//! The flags of `weir-bench figures`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use crate::grammar;

/// One figure, or some that are measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// p99 of good clients at half the maximum rate, with and without parked clients beside them
    ParkedP99,
    /// Memory and CPU of parked clients by the hundred thousand
    Pit,
    /// Slow bodies through a small pool: refusals, memory, p99 of good clients with and without
    SlowBodies,
    /// CPU per message with two shards and with one
    Shards,
    /// User memory per idle session, per client that waits for its greeting, per stuttered client
    Memory,
    /// CPU of a weir that has nothing to do
    Idle,
    /// System calls and heap allocations per message
    Steady,
}

/// weir's own figures: what many bad clients cost, and what good ones notice of them
#[derive(Debug, Args)]
pub struct Options {
    /// Which figures; all, if none is named
    #[arg(value_name = "NAME")]
    pub names: Vec<Name>,

    /// Rounds of every comparison, both sides in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// How long each round sends
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub lasts: Duration,

    /// Good clients that go round in a circle, or addresses they come from
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub sessions: u32,

    /// Messages of good clients, as in 500/s; without it half of what a short run in a circle reaches
    #[arg(long, value_name = "RATE", value_parser = grammar::rate)]
    pub rate: Option<f64>,

    /// parked-p99: clients that are stuttered to meanwhile
    #[arg(long, value_name = "N", default_value = "60k", value_parser = grammar::count32)]
    pub parked: u32,

    /// pit: clients that are stuttered to
    #[arg(long, value_name = "N", default_value = "100k", value_parser = grammar::count32)]
    pub pit: u32,

    /// memory: clients held of each kind
    #[arg(long, value_name = "N", default_value = "15k", value_parser = grammar::count32)]
    pub held: u32,

    /// How many held clients connect in a second
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub opening: u32,

    /// slow-bodies: clients that send slowly at any time
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub slow: u32,

    /// slow-bodies: octets a second of each of them
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub slow_speed: u32,

    /// slow-bodies: octets of their messages
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = clap::value_parser!(u32).range(512..))]
    pub slow_octets: u32,

    /// slow-bodies: --pool-max of weir
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub pool_max: u32,

    /// Shards of weir where nothing asks for more
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,

    /// The weir to run; the one beside this program, if none is named
    #[arg(long, value_name = "FILE")]
    pub weir: Option<PathBuf>,

    /// Further flags for weir, as one word
    #[arg(
        long,
        value_name = "FLAGS",
        default_value = "",
        allow_hyphen_values = true
    )]
    pub weir_flags: String,

    /// Folder to write figures.json, figures.html and histograms (.hgrm) to
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,

    /// No live progress
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

impl Options {
    pub fn names(&self) -> Vec<Name> {
        match self.names.is_empty() {
            true => Name::value_variants().to_vec(),
            false => self.names.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn figures_have_names_and_all_is_the_default() {
        let read = |line: &str| Alone::try_parse_from(line.split(' ')).map(|alone| alone.options);
        let some = read("x parked-p99 slow-bodies --parked 200").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(some.names(), [Name::ParkedP99, Name::SlowBodies]);
        assert_eq!(some.parked, 200);
        let all = read("x").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(all.names().len(), 7);
        assert!(read("x speed").is_err());
    }
}
