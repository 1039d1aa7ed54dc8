//! The host, the build and the command line that a figure depends on.

use std::path::Path;
use std::process::Command;

use crate::outcome::Machine;
use crate::proc::{kibibytes, read};
use crate::sys;

/// Describes this machine; what cannot be found out stays empty, because a run is worth more than its label.
pub fn describe() -> Machine {
    Machine {
        cpu: cpu_model(&read("/proc/cpuinfo").unwrap_or_default()),
        cores: std::thread::available_parallelism().map_or(0, |cores| cores.get() as u32),
        memory_octets: read("/proc/meminfo")
            .ok()
            .and_then(|text| kibibytes(&text, "MemTotal:"))
            .unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        commit: commit(Path::new(".")),
        debug_build: cfg!(debug_assertions),
        open_files_max: sys::open_files().map_or(0, |(_, hard)| hard),
        load_before: load(&read("/proc/loadavg").unwrap_or_default()),
        warnings: Vec::new(),
    }
}

fn cpu_model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| matches!(name.trim(), "model name" | "Model" | "cpu"))
        .map_or_else(
            || std::env::consts::ARCH.to_owned(),
            |(_, model)| model.trim().to_owned(),
        )
}

fn load(loadavg: &str) -> f64 {
    loadavg
        .split_ascii_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0)
}

/// The commit of the checkout around `folder`, `+` behind it when a tracked file was changed; empty where there is none.
fn commit(folder: &Path) -> String {
    let Some(commit) = git(folder, &["rev-parse", "--short=12", "HEAD"]) else {
        return String::new();
    };
    match git(folder, &["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + "+",
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let done = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .ok()?;
    done.status
        .success()
        .then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// The command of this process as it was typed, for the record; words with spaces are quoted.
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

    #[test]
    fn this_machine_has_cores_memory_and_a_kernel() {
        let machine = describe();
        assert!(
            machine.cores > 0 && machine.memory_octets > 1 << 20,
            "{machine:?}"
        );
        assert!(
            !machine.kernel.is_empty() && machine.open_files_max > 0,
            "{machine:?}"
        );
    }

    #[test]
    fn a_model_is_found_on_several_kinds_of_machine() {
        for (cpuinfo, model) in [
            ("processor\t: 0\nmodel name\t: Xeon\n", "Xeon"),
            ("processor : 0\nModel : Raspberry Pi\n", "Raspberry Pi"),
            ("", std::env::consts::ARCH),
        ] {
            assert_eq!(cpu_model(cpuinfo), model);
        }
    }

    #[test]
    fn a_folder_without_a_checkout_has_no_commit() {
        assert_eq!(commit(tempfile::tempdir().unwrap().path()), "");
    }

    #[test]
    fn load_is_the_first_number() {
        assert_eq!(load("1.25 0.50 0.10 1/100 12345\n"), 1.25);
        assert_eq!(load(""), 0.0);
    }
}
