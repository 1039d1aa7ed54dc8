//! The flags, one file per help heading. In each: what is typed (the clap struct, whose doc comments are the manual), what it
//! means (`read`), and the parse tests.
//!
//! A flag's first line is its short help. Then: effect, unit, range and cost; the default is printed by clap. All values are
//! taken as text and read together, so that one run reports all that is wrong. Where `check` and `doctor` differ from a plain
//! start is decided in `config.rs`, not here.

pub mod clients;
pub mod dnsbl;
pub mod identity;
pub mod listen;
pub mod listener;
pub mod lists;
pub mod logs;
pub mod memory;
pub mod messages;
pub mod relay;
pub mod reputation;
pub mod resolver;
pub mod running;
pub mod state;
pub mod tarpit;
pub mod timeouts;
pub mod tls;
pub mod trust;
pub mod upstream_tls;
pub mod upstreams;

use clap::Args;

/// What the flags are read for: decides what may be left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To relay mail, or to print the plan of it.
    Relay,
    /// --demo: brings its own upstream and addresses.
    Demo,
    /// To look at the host: listeners and upstreams are welcome, not needed.
    Doctor,
}

/// Everything typed.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub struct Flags {
    #[command(flatten)]
    pub listen: listen::Flags,
    #[command(flatten)]
    pub upstreams: upstreams::Flags,
    #[command(flatten)]
    pub identity: identity::Flags,
    #[command(flatten)]
    pub trust: trust::Flags,
    #[command(flatten)]
    pub relay: relay::Flags,
    #[command(flatten)]
    pub tls: tls::Flags,
    #[command(flatten)]
    pub upstream_tls: upstream_tls::Flags,
    #[command(flatten)]
    pub messages: messages::Flags,
    #[command(flatten)]
    pub clients: clients::Flags,
    #[command(flatten)]
    pub lists: lists::Flags,
    #[command(flatten)]
    pub tarpit: tarpit::Flags,
    #[command(flatten)]
    pub reputation: reputation::Flags,
    #[command(flatten)]
    pub dnsbl: dnsbl::Flags,
    #[command(flatten)]
    pub memory: memory::Flags,
    #[command(flatten)]
    pub resolver: resolver::Flags,
    #[command(flatten)]
    pub state: state::Flags,
    #[command(flatten)]
    pub timeouts: timeouts::Flags,
    #[command(flatten)]
    pub logs: logs::Flags,
    #[command(flatten)]
    pub running: running::Flags,
}

/// For the parse tests: reads the flags of one group alone.
#[cfg(test)]
pub mod testing {
    use clap::{Args, FromArgMatches};

    use crate::cli::reader::{Reader, Wrong};

    pub fn typed<F: Args + FromArgMatches>(args: &[&str]) -> F {
        let command = F::augment_args(clap::Command::new("weir").no_binary_name(true));
        let matches = command
            .try_get_matches_from(args)
            .unwrap_or_else(|e| panic!("{args:?}: {e}"));
        F::from_arg_matches(&matches).unwrap()
    }

    pub fn read<F: Args + FromArgMatches, T>(
        args: &[&str],
        read: impl FnOnce(&F, &mut Reader) -> T,
    ) -> Result<T, Vec<Wrong>> {
        let mut reader = Reader::default();
        let meant = read(&typed::<F>(args), &mut reader);
        reader.finish().map(|()| meant)
    }

    /// The flags named by the errors, in order.
    pub fn blamed<T>(result: Result<T, Vec<Wrong>>) -> Vec<String> {
        result
            .err()
            .expect("errors were expected")
            .into_iter()
            .map(|wrong| wrong.flag)
            .collect()
    }
}
