//! The flags of `weir-bench peers`, and those that it has in common with `figures`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::kind::Kind;
use super::workload::{Load, Workload, find};
use crate::grammar;

/// Compare weir with its peers: the same mail through each, in interleaved rounds, CPU time per message and latency
#[derive(Debug, Args)]
pub struct Options {
    /// Workloads: new-4k, persistent-4k, pipelined-4k, persistent-100k, bdat-4k, tls-new-4k, tls-persistent-4k, dedicated-4k, tunnel-1m; all, if none is named
    #[arg(value_name = "WORKLOAD", value_parser = find)]
    pub workloads: Vec<&'static Workload>,

    /// Rounds that count; one more is run before them to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Who takes part, in this order in every round; direct is the sink without a proxy
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "direct,haproxy,nginx-mail,nginx-stream,postfix,weir",
        value_parser = str::parse::<Kind>
    )]
    pub peers: Vec<Kind>,

    /// Which sinks: one that announces CHUNKING (today's mail servers do), one that does not, or both
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "chunking,plain", value_parser = ["chunking", "plain"])]
    pub sinks: Vec<String>,

    /// How long each round sends
    #[arg(long = "for", value_name = "TIME", default_value = "3s", value_parser = grammar::duration_some)]
    pub lasts: Duration,

    /// Never more starts in a round than this
    #[arg(long, value_name = "N", default_value = "1m", value_parser = grammar::count)]
    pub starts: u64,

    /// Starts of an open-loop plan in place of a circle: latency is comparable then, if every peer carries it
    #[arg(long, value_name = "RATE", value_parser = grammar::rate)]
    pub rate: Option<f64>,

    /// Seed of the arrivals and bodies
    #[arg(long, value_name = "N", default_value = "1", value_parser = grammar::count)]
    pub seed: u64,

    #[command(flatten)]
    pub common: Common,
}

/// The flags that `peers` and `figures` have in common.
#[derive(Debug, Args)]
pub struct Common {
    /// Good clients that go round in a circle, or the addresses they come from
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub sessions: u32,

    /// Threads, workers or shards of each server (Postfix has a process for each session)
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

    /// Folder to write results (.json), report (.html) and histograms (.hgrm) to, under the command's name
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,

    /// No live progress
    #[arg(long, short, action = ArgAction::SetTrue)]
    pub quiet: bool,
}

impl Options {
    pub fn load(&self) -> Load {
        Load {
            sessions: self.common.sessions,
            rate: self.rate,
            lasts: self.lasts,
            starts_max: self.starts,
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
    fn flags_are_read() {
        let line = "x new-4k bdat-4k --peers haproxy,weir --sinks plain --rounds 2 --for 500ms --weir-flags --gather=0";
        let options = Alone::try_parse_from(line.split(' '))
            .unwrap_or_else(|e| panic!("{e}"))
            .options;
        assert_eq!(options.workloads.len(), 2);
        assert_eq!(options.peers, [Kind::Haproxy, Kind::Weir]);
        assert_eq!(options.load().lasts, Duration::from_millis(500));
        assert_eq!(options.common.weir_flags, "--gather=0");
    }

    #[test]
    fn wrong_flags_are_refused() {
        for line in [
            "x imap",
            "x --peers exim",
            "x --rounds 0",
            "x --for 0s",
            "x --sinks deep",
        ] {
            assert!(Alone::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
