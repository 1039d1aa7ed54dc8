//! The manuals say what the binary does: generated pages are current, flags and metrics named in
//! prose exist, links between pages resolve.
//!
//! Method: the binary prints its own reference (`weir docs flags`, `weir docs metrics`,
//! the hidden subcommand behind `just docs`); the files in docs/ must equal that byte for byte.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn generated_pages_are_current() {
    for (page, topic) in [("docs/FLAGS.md", "flags"), ("docs/METRICS.md", "metrics")] {
        let written = fs::read_to_string(page).unwrap_or_default();
        assert!(
            written == print(&["docs", topic]),
            "{page} is stale: run `just docs`"
        );
    }
}

#[test]
fn flags_named_in_prose_exist() {
    let help = print(&["--help"]) + &print(&["docs", "flags"]);
    let script = fs::read_to_string("tuning/transparent/weir-transparent").expect("it is there");
    let known: BTreeSet<&str> = flags(&help).into_iter().chain(flags(&script)).collect();
    assert!(
        known.contains("--listen"),
        "the help names no --listen: is it still the help?"
    );
    let mut wrong = Vec::new();
    // The harness has flags of its own, and a test of its own that they exist.
    for page in pages()
        .iter()
        .filter(|page| !page.starts_with("bench-harness"))
    {
        let text = fs::read_to_string(page).expect("pages are UTF-8");
        for line in text.lines().filter(|l| speaks_of_weir(l)) {
            let unknown = flags(line)
                .into_iter()
                .filter(|f| !known.contains(f) && !FOREIGN.contains(f));
            wrong.extend(unknown.map(|f| format!("{}: {f} is no flag of weir's", page.display())));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn metrics_named_in_prose_exist() {
    let reference = print(&["docs", "metrics"]);
    let known: BTreeSet<&str> = metrics(&reference).into_iter().collect();
    assert!(known.contains("weir_panics_total"), "{known:?}");
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("pages are UTF-8");
        let unknown = metrics(&text).into_iter().filter(|metric| {
            let whole = metric.strip_suffix("_bucket").unwrap_or(metric);
            match metric.strip_suffix('*') {
                Some(family) => !known.iter().any(|known| known.starts_with(family)),
                None => !known.contains(whole),
            }
        });
        wrong.extend(unknown.map(|m| format!("{}: there is no metric {m}", page.display())));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Flags of other programs that stand on a line which also speaks of weir.
const FOREIGN: &[&str] = &[
    "--release",
    "--bin",
    "--profile",
    "--to",
    "--server",
    "--from",
    "--size",
    "--threads",
    "--security-opt",
    "--now",
];

#[test]
fn every_flag_of_a_tuning_profile_is_accepted() {
    for profile in entries("tuning")
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "flags"))
    {
        let out = weir()
            .arg("check")
            .arg(format!("@{}", profile.display()))
            .args(["--upstream", "mx1.example:25"])
            .args(["--relay-domains", "example.org"])
            .output()
            .expect("weir runs");
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(
            out.status.success(),
            "{}: weir check says\n{words}",
            profile.display()
        );
    }
}

#[test]
fn links_between_pages_resolve() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).expect("pages are UTF-8");
        let folder = page.parent().expect("a page lies in a folder");
        for target in links(&text) {
            let file = target
                .split('#')
                .next()
                .expect("split gives one part at least");
            if !file.is_empty() && !folder.join(file).exists() {
                wrong.push(format!(
                    "{}: link to {target}, which is not there",
                    page.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn weir() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command
}

fn print(arguments: &[&str]) -> String {
    let out = weir().args(arguments).output().expect("weir runs");
    assert!(
        out.status.success(),
        "weir {arguments:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("manuals are UTF-8")
}

/// Lines of prose or of an example that are about weir's own command line.
fn speaks_of_weir(line: &str) -> bool {
    line.contains("weir ") || line.contains("`--") || line.contains("-- --")
}

fn flags(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("--") {
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let name = text[at + 2..]
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
            .next()
            .unwrap_or("");
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        if starts && !before.is_alphanumeric() && before != '-' {
            found.push(text[at..at + 2 + name.len()].trim_end_matches('-'));
        }
    }
    found
}

/// Names that begin as weir's metrics do; `weir_tls_*` is a family. What is set, as in `weir_port=25`, is another's variable.
fn metrics(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("weir_") {
        let rest = &text[at..];
        let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '*';
        let name = &rest[..rest.find(ends).unwrap_or(rest.len())];
        let before = text[..at].chars().next_back().unwrap_or(' ');
        let is_set = rest[name.len()..].starts_with('=');
        if !before.is_alphanumeric() && before != '_' && !is_set {
            found.push(name);
        }
    }
    found
}

/// Targets of `[text](target)` that are files of ours.
fn links(text: &str) -> Vec<&str> {
    let behind = text.split("](").skip(1);
    let targets = behind.filter_map(|t| t.split(')').next());
    targets
        .filter(|t| !t.contains("://") && !t.starts_with("mailto:"))
        .collect()
}

fn pages() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("README.md")];
    for folder in ["docs", "tuning", "bench-harness", "tests", "tests/e2e"] {
        found.extend(
            entries(folder)
                .into_iter()
                .filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    found
}

fn entries(folder: &str) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(Path::new(folder)) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = listing
        .map(|e| e.expect("a readable folder entry").path())
        .collect();
    found.sort();
    found
}
