//! The flags of `weir-bench figures`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::grammar;
use crate::peers::options::Common;

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
    /// User memory per idle session in TLS
    TlsMemory,
    /// CPU of a weir that has nothing to do
    Idle,
    /// System calls and heap allocations per message
    Steady,
    /// CPU of a connection whose client is looked up in six DNS lists, answers remembered, to one without
    DnsblCached,
    /// Datagrams and system calls per answer of a DNS list, nothing remembered
    DnsblUncached,
    /// How long bots are kept that are stuttered to and do not tire
    Bots,
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
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = grammar::duration_some)]
    pub lasts: Duration,

    /// Starts of good clients; without it half of what a short run in a circle reaches
    #[arg(long, value_name = "RATE", value_parser = grammar::rate)]
    pub rate: Option<f64>,

    /// parked-p99: clients that are stuttered to meanwhile
    #[arg(long, value_name = "N", default_value = "60k", value_parser = grammar::count32)]
    pub parked: u32,

    /// pit: clients that are stuttered to
    #[arg(long, value_name = "N", default_value = "100k", value_parser = grammar::count32)]
    pub pit: u32,

    /// memory, tls-memory: clients held of each kind
    #[arg(long, value_name = "N", default_value = "15k", value_parser = grammar::count32)]
    pub held: u32,

    /// How fast held clients are opened
    #[arg(long, value_name = "RATE", default_value = "4000/s", value_parser = grammar::opening)]
    pub opening: u32,

    /// slow-bodies: clients that send slowly at any time
    #[arg(long, value_name = "N", default_value = "5k", value_parser = grammar::count32)]
    pub slow: u32,

    /// slow-bodies: octets a second of each of them
    #[arg(long, value_name = "SPEED", default_value = "1000/s", value_parser = grammar::rate_of_octets)]
    pub slow_speed: u32,

    /// slow-bodies: octets of their messages
    #[arg(long, value_name = "SIZE", default_value = "32k", value_parser = grammar::size)]
    pub slow_size: u32,

    /// slow-bodies: --pool-max of weir
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub pool_max: u32,

    /// bots: how long they are waited for
    #[arg(long, value_name = "TIME", default_value = "6m", value_parser = grammar::duration_some)]
    pub bots_for: Duration,

    #[command(flatten)]
    pub common: Common,
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
        let some = read("x parked-p99 slow-bodies --parked 200 --opening 60k/m")
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(some.names(), [Name::ParkedP99, Name::SlowBodies]);
        assert_eq!((some.parked, some.opening), (200, 1000));
        let all = read("x").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(all.names().len(), 11);
        assert!(read("x speed").is_err());
    }
}
