//! weir's own figures: what clients cost that do nothing, what good ones notice of bad ones, what a message costs inside,
//! what it costs to know who is bad.
//!
//! Each figure has its target and what it rests on; none is asserted by a test. Numbers are flags, so that each can be tried small.

mod bots;
mod held;
mod lists;
mod memory;
mod options;
mod parked;
mod responder;
mod shards;
mod slow_bodies;
mod stand;
mod steady;

use anyhow::{Context as _, Result};

use crate::crew;
use crate::exit::Exit;
use crate::outcome::Results;
use crate::peers::exit;
use crate::report;
use options::Name;
pub use options::Options;
use stand::Stand;

/// `weir-bench figures`. Mail that was lost or altered anywhere breaks the whole run, after everything has been written down.
pub fn command(options: &Options) -> Result<Exit> {
    let mut stand = Stand::new(options)?;
    for name in options.names() {
        if !crew::interrupted() {
            measure(name, &mut stand).with_context(|| format!("figure {name:?}"))?;
        }
    }
    let results = Results {
        format: Results::FORMAT.to_owned(),
        runs: std::mem::take(&mut stand.runs),
        comparisons: Vec::new(),
        figures: std::mem::take(&mut stand.figures),
    };
    if let Some(into) = &options.common.into {
        report::write_all(&results, into, "figures")?;
    }
    Ok(exit(&stand.broken))
}

fn measure(name: Name, stand: &mut Stand<'_>) -> Result<()> {
    match name {
        Name::ParkedP99 => parked::p99(stand),
        Name::Pit => parked::pit(stand),
        Name::SlowBodies => slow_bodies::slow_bodies(stand),
        Name::Shards => shards::shards(stand),
        Name::Memory => memory::memory(stand),
        Name::TlsMemory => memory::tls(stand),
        Name::Idle => memory::idle(stand),
        Name::Steady => steady::steady(stand),
        Name::DnsblCached => lists::cached(stand),
        Name::DnsblUncached => lists::uncached(stand),
        Name::Bots => bots::held(stand),
    }
}
