//! House rules that a machine can check: the arrows between modules, who may name
//! glommio, io-uring, the clock and `unsafe`, and what every file must have or must not have.
//!
//! Method: read the sources as text, blank out comments and literals, look at the words
//! that are left. No compiler is asked, so a rule can be wrong in theory; in practice it
//! names file and line, and a reader decides. The rules come from docs/ARCHITECTURE.md.

#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::path::Path;

use source::{Source, all_rust, files, folders, is_test_file, sources};

/// Modules from the top of the house to its cellar. A module may use what stands on a
/// lower floor (a higher number), never its own neighbours or anything above.
const FLOORS: &[(&str, u8)] = &[
    ("main", 0),
    ("cli", 1),
    ("control", 1),
    ("demo", 1),
    ("shard", 2),
    ("policy", 3),
    ("route", 3),
    ("metrics", 3),
    ("maillog", 3),
    ("net", 4),
    ("ring", 4),
    ("rt", 4),
];

/// Neighbours that may know each other all the same, each with its reason.
const NEIGHBOURS: &[(&str, &str, &str)] = &[
    (
        "ring",
        "net",
        "an accepted or dialled socket has an address type of net's",
    ),
    (
        "rt",
        "ring",
        "the executor lends the hot ring its background descriptors",
    ),
    ("cli", "control", "cli fills control's configuration"),
    ("maillog", "metrics", "a dropped log line is counted"),
    (
        "maillog",
        "policy",
        "log words of findings are written once, in policy",
    ),
    (
        "metrics",
        "policy",
        "labels of findings are written once, in policy",
    ),
];

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        let Some(from) = module_of(&file.path) else {
            continue;
        };
        for (line, to) in file.crate_uses() {
            let (Some(above), Some(below)) = (floor(from), floor(&to)) else {
                wrong.push(format!(
                    "{}:{line}: module `{to}` has no floor in tests/tidy.rs",
                    file.path.display()
                ));
                continue;
            };
            let allowed = from == to
                || below > above
                || NEIGHBOURS.iter().any(|(a, b, _)| *a == from && *b == to);
            if !allowed {
                wrong.push(format!(
                    "{}:{line}: {from} -> {to} points up or sideways",
                    file.path.display()
                ));
            }
        }
    }
    report(wrong);
}

#[test]
fn only_rt_names_glommio_and_only_ring_names_io_uring() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        for (word, home) in [("glommio", "src/rt"), ("io_uring", "src/ring")] {
            if !file.path.starts_with(home) {
                wrong.extend(file.lines_with_word(word).map(|l| {
                    format!(
                        "{}:{l}: names {word}, which is {home}'s",
                        file.path.display()
                    )
                }));
            }
        }
    }
    report(wrong);
}

#[test]
fn the_clock_is_read_in_one_file_and_off_the_data_path() {
    const MAY: &[&str] = &[
        "src/shard/clock.rs",
        "src/control",
        "src/demo.rs",
        "src/maillog.rs",
        "src/maillog",
        "src/main.rs",
    ];
    let mut wrong = Vec::new();
    for file in sources("src") {
        if MAY.iter().any(|m| file.path.starts_with(m)) || is_test_file(&file.path) {
            continue;
        }
        for (number, line) in file.shipped_lines() {
            if ["Instant::now", "SystemTime::now", "clock_gettime"]
                .iter()
                .any(|w| line.contains(w))
            {
                wrong.push(format!(
                    "{}:{number}: reads the clock; `now` is an argument here",
                    file.path.display()
                ));
            }
        }
    }
    report(wrong);
}

#[test]
fn unsafe_lives_on_its_island() {
    let mut wrong = Vec::new();
    for file in sources("src") {
        if ["src/ring", "src/rt", "src/net"]
            .iter()
            .any(|h| file.path.starts_with(h))
        {
            continue;
        }
        wrong.extend(file.lines_with_word("unsafe").map(|l| {
            format!(
                "{}:{l}: unsafe outside ring, rt and net",
                file.path.display()
            )
        }));
    }
    for (lib, lint) in [
        ("src/smtp/lib.rs", "#![forbid(unsafe_code)]"),
        ("src/policy/mod.rs", "#![forbid(unsafe_code)]"),
    ] {
        if !fs::read_to_string(lib).expect(lib).contains(lint) {
            wrong.push(format!("{lib}: lost its {lint}"));
        }
    }
    report(wrong);
}

#[test]
fn every_file_opens_with_its_purpose() {
    let mut wrong = Vec::new();
    for file in all_rust() {
        let purpose = file.text.lines().next().unwrap_or("");
        if !purpose.starts_with("//! ") || purpose.len() < 16 {
            wrong.push(format!(
                "{}: does not open with //! and a purpose",
                file.path.display()
            ));
        }
    }
    report(wrong);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut wrong = Vec::new();
    for file in all_rust() {
        for (number, line) in file.code.lines().enumerate() {
            let words = ["todo!", "unimplemented!", "#[ignore", "dbg!"];
            wrong.extend(
                words
                    .iter()
                    .filter(|w| line.contains(**w))
                    .map(|w| format!("{}:{}: {w}", file.path.display(), number + 1)),
            );
        }
    }
    report(wrong);
}

#[test]
fn every_corpus_is_read_by_a_test() {
    let readers: String = all_rust()
        .into_iter()
        .filter(|f| !f.path.ends_with("tidy.rs"))
        .map(|f| f.text)
        .collect();
    let mut wrong = Vec::new();
    for folder in folders("tests/corpus") {
        let name = folder
            .file_name()
            .expect("a folder has a name")
            .to_string_lossy()
            .into_owned();
        if !readers.contains(&format!("corpus/{name}")) {
            wrong.push(format!("{}: no test reads this corpus", folder.display()));
        }
        if !folder.join("README.md").exists() {
            wrong.push(format!("{}: has no README.md", folder.display()));
        }
        let mut kinds: Vec<String> = files(&folder)
            .iter()
            .filter(|f| !f.ends_with("README.md"))
            .map(|f| {
                f.extension()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            if !readers.contains(&format!("\"{kind}\"")) && !readers.contains(&format!(".{kind}")) {
                wrong.push(format!(
                    "{}: no test reads files named *.{kind}",
                    folder.display()
                ));
            }
        }
    }
    report(wrong);
}

/// The rules above are only worth something if they can fail.
#[test]
fn the_rules_can_fail() {
    let file = Source::new(
        "src/policy/x.rs",
        "//! A purpose long enough.\nuse crate::shard::World; // unsafe\nfn f() { let s = \"unsafe\"; crate::{net::A, smtp::B} }\n#[cfg(test)]\nmod tests { fn g() { Instant::now(); } }\n",
    );
    let uses: Vec<String> = file.crate_uses().into_iter().map(|(_, to)| to).collect();
    assert_eq!(uses, ["shard", "net", "smtp"]);
    assert_eq!(file.lines_with_word("unsafe").count(), 0);
    assert!(!file.shipped_lines().any(|(_, l)| l.contains("Instant")));
    assert_eq!(module_of(Path::new("src/policy/x.rs")), Some("policy"));
    assert_eq!(module_of(Path::new("src/maillog.rs")), Some("maillog"));
    assert!(floor("policy") > floor("shard"));
}

fn module_of(path: &Path) -> Option<&'static str> {
    let inside = path.strip_prefix("src").ok()?;
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    FLOORS.iter().map(|(m, _)| *m).find(|m| *m == name)
}

/// The core is the cellar; `lib.rs` and the binary's own items are above everything.
fn floor(module: &str) -> Option<u8> {
    if module == "smtp" {
        return Some(5);
    }
    FLOORS.iter().find(|(m, _)| *m == module).map(|(_, n)| *n)
}

fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
