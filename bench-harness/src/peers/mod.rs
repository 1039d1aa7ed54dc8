//! weir beside its peers: HAProxy, nginx and Postfix as they are in Debian, each with a configuration kept in bench-harness/peers/,
//! all in front of our own sink, all given the same plan, in rounds that take turns.
//!
//! CPU per message is user plus system time of all processes of a peer over the messages accepted. It does not show what the kernel
//! does in softirq on behalf of whoever was running, and source and sink compete for the same cores.
//!
//! Reading order: `workload` (what), `kind` (who), `rounds` (how), `ratio` and `table` (what came of it); `child`, `folder`,
//! `template`, `offers` are tools.

pub mod child;
mod config;
pub mod folder;
pub mod kind;
pub mod offers;
pub mod options;
mod ratio;
pub mod rounds;
pub mod sink;
mod table;
mod template;
pub mod weir;
pub mod workload;

use anyhow::{Context as _, Result};

use crate::crew;
use crate::exit::Exit;
use crate::outcome::Results;
use crate::progress::tell;
use crate::{machine, report};
use folder::Folder;
use kind::{Bench, Kind, Start};
pub use options::Options;
use rounds::{Course, Entrant, Ran};
use sink::Sink;
use weir::WeirOptions;
use workload::{Setting, WORKLOADS, Workload};

/// `weir-bench peers`. Mail that was lost or altered anywhere breaks the whole run, after everything has been written down.
pub fn command(options: &Options) -> Result<Exit> {
    let weir = match options.peers.contains(&Kind::Weir) {
        true => WeirOptions::new(options.common.weir.clone(), &options.common.weir_flags)?,
        false => WeirOptions::default(),
    };
    let mut results = Results {
        format: Results::FORMAT.to_owned(),
        ..Results::default()
    };
    let mut broken = Vec::new();
    for sink in &options.sinks {
        for setting in Setting::ALL {
            for ran in beside_sink(options, &weir, sink == "chunking", setting)? {
                broken.extend(ran.broken);
                results.comparisons.extend(ran.comparisons);
                results.runs.extend(ran.outcomes);
            }
        }
    }
    if let Some(into) = &options.common.into {
        report::write_all(&results, into, "peers")?;
    }
    Ok(exit(&broken))
}

/// How a command that ran to its end, or was told to stop, ends.
pub fn exit(broken: &[String]) -> Exit {
    if !broken.is_empty() {
        eprintln!("mail was harmed:\n{}", broken.join("\n"));
        return Exit::Broken;
    }
    match crew::interrupted() {
        true => Exit::Interrupted,
        false => Exit::Well,
    }
}

/// All workloads of one setting with one kind of sink; what each comes to is shown at once.
fn beside_sink(
    options: &Options,
    weir: &WeirOptions,
    chunking: bool,
    setting: Setting,
) -> Result<Vec<Ran>> {
    let workloads = workloads(options, setting);
    if workloads.is_empty() || crew::interrupted() {
        return Ok(Vec::new());
    }
    let folder = Folder::new("peers")?;
    let mut sink = Sink::start(&folder, chunking, setting)?;
    let bench = Bench {
        folder: &folder,
        sink: &sink,
        setting,
        threads: options.common.threads,
        weir,
    };
    let mut entrants = Vec::new();
    for kind in &options.peers {
        entrants.push(entrant(&bench, *kind)?);
    }
    let course = Course {
        rounds: options.rounds,
        load: options.load(),
        seed: options.seed,
        quiet: options.common.quiet,
        command: machine::command_line(),
    };
    let mut all = Vec::new();
    for workload in workloads {
        if crew::interrupted() {
            break;
        }
        let ran = course.run(workload, &mut sink, &mut entrants)?;
        show(&ran);
        all.push(ran);
    }
    Ok(all)
}

fn entrant(bench: &Bench<'_>, kind: Kind) -> Result<Entrant> {
    let (peer, offers) = match bench.start(kind)? {
        Start::Absent(why) => (Err(why), Vec::new()),
        Start::Ready(peer) => {
            let offers = match bench.setting {
                // nobody is asked in TLS, as no workload needs to know
                Setting::Tls => Vec::new(),
                _ => offers::ask(peer.smtp).with_context(|| kind.word())?,
            };
            (Ok(peer), offers)
        }
    };
    Ok(Entrant { kind, peer, offers })
}

fn workloads(options: &Options, setting: Setting) -> Vec<&'static Workload> {
    let wanted: Vec<&Workload> = match options.workloads.is_empty() {
        true => WORKLOADS.iter().collect(),
        false => options.workloads.clone(),
    };
    let wanted = wanted.into_iter();
    wanted
        .filter(|workload| workload.setting == setting)
        .collect()
}

fn show(ran: &Ran) {
    for (at, comparison) in ran.comparisons.iter().enumerate() {
        let text = match at {
            0 => table::table(comparison),
            _ => table::further(comparison),
        };
        if !text.is_empty() {
            tell(text.trim_end());
        }
    }
    for line in ran.broken.iter().chain(&ran.notes) {
        tell(format_args!("  ! {line}"));
    }
}
