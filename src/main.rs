//! Flags to configuration to shards to exit code; no decisions.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use weir::cli::{
    args::{self, Page, Wanted},
    check,
    config::Config,
    flags::Flags,
    manual,
    reader::Wrong,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// sysexits.h: the command line is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let (wanted, wrong) = args::parse(
        std::env::args_os()
            .skip(1)
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    match wanted {
        None => refuse(&wrong),
        Some(Wanted::Show(text)) => print(&text),
        Some(Wanted::Page(Page::Flags)) => print(&manual::flags()),
        Some(Wanted::Page(Page::Metrics)) => print(&weir::metrics::expose::markdown()),
        Some(Wanted::Check(flags)) => with_config(&flags, wrong, |config| {
            print(&check::plan(&config, cores()))
        }),
        Some(Wanted::Doctor(_) | Wanted::Run(_)) => refuse(&wrong),
    }
}

fn with_config(flags: &Flags, wrong: Vec<Wrong>, run: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::read(flags, &host_name(), wrong) {
        Ok(config) => run(config),
        Err(wrong) => refuse(&wrong),
    }
}

fn refuse(wrong: &[Wrong]) -> ExitCode {
    for wrong in wrong {
        eprintln!("weir: {wrong}");
    }
    eprintln!("weir: nothing was opened; weir --help explains the flags");
    ExitCode::from(USAGE)
}

/// Prints and is content if the reader has seen enough (`weir docs flags | head`).
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Cores this process may run on.
fn cores() -> usize {
    core_affinity::get_core_ids().map_or(1, |cores| cores.len().max(1))
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
