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

/// A crate whose modules stand on floors. A module may use what stands on a lower floor (a
/// higher number), never its own neighbours or anything above.
struct House {
    sources: &'static str,
    /// What its binary calls the library.
    name: &'static str,
    floors: &'static [(&'static str, u8)],
    neighbours: &'static [(&'static str, &'static str, &'static str)],
    /// Whether tests may look sideways.
    free_tests: bool,
}

const WEIR: House = House {
    sources: "src",
    name: "weir",
    floors: FLOORS,
    neighbours: NEIGHBOURS,
    free_tests: false,
};

/// Its tests may look sideways: the source is tried against the sink.
const BENCH: House = House {
    sources: "bench-harness/src",
    name: "weir_bench",
    floors: BENCH_FLOORS,
    neighbours: &[],
    free_tests: true,
};

/// weir's modules. The core is the cellar.
const FLOORS: &[(&str, u8)] = &[
    ("main", 0),
    ("cli", 1),
    ("control", 1),
    ("demo", 1),
    ("shard", 2),
    ("state", 2),
    ("policy", 3),
    ("route", 3),
    ("tls", 3),
    ("metrics", 3),
    ("maillog", 3),
    ("sandbox", 3),
    ("net", 4),
    ("ring", 4),
    ("rt", 4),
    ("dns", 4),
    ("smtp", 5),
];

/// weir-bench's: commands, what they are made of, a run and what is told of it, both ends of it,
/// what everybody talks about.
const BENCH_FLOORS: &[(&str, u8)] = &[
    ("main", 0),
    ("cli", 1),
    ("figures", 2),
    ("peers", 3),
    ("crew", 4),
    ("hold", 4),
    ("report", 4),
    ("summary", 4),
    ("verdict", 4),
    ("grammar", 5),
    ("machine", 5),
    ("progress", 5),
    ("rails", 5),
    ("sink", 6),
    ("source", 6),
    ("ledger", 7),
    ("proc", 7),
    ("tls", 7),
    ("exit", 8),
    ("medians", 8),
    ("outcome", 8),
    ("sys", 8),
    ("units", 8),
    ("plan", 9),
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
        "route",
        "tls",
        "how an upstream is spoken to is part of what it is",
    ),
    (
        "metrics",
        "policy",
        "labels of findings are written once, in policy",
    ),
];

#[test]
fn arrows_point_down() {
    report([WEIR, BENCH].iter().flat_map(wrong_arrows).collect());
}

fn wrong_arrows(house: &House) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources(house.sources) {
        let Some(from) = house.module_of(&file.path) else {
            continue;
        };
        for (line, to) in house.uses(&file) {
            let (Some(above), Some(below)) = (house.floor(&from), house.floor(&to)) else {
                wrong.push(format!(
                    "{}:{line}: module `{from}` or `{to}` has no floor in tests/tidy.rs",
                    file.path.display()
                ));
                continue;
            };
            if !(from == to || below > above || house.are_neighbours(&from, &to)) {
                wrong.push(format!(
                    "{}:{line}: {from} -> {to} points up or sideways",
                    file.path.display()
                ));
            }
        }
    }
    wrong
}

/// A harness that shared code with what it measures would share its mistakes; the protocol core is
/// the exception, and `sink::content` reads bodies without it.
#[test]
fn the_harness_does_not_depend_on_weir() {
    let path = "bench-harness/Cargo.toml";
    let manifest = fs::read_to_string(path).expect("a crate has a manifest");
    let is_weir = |line: &&str| {
        let name = line.split(['=', '.']).next().map(str::trim);
        name == Some("weir") || line.contains("package = \"weir\"")
    };
    let lines = manifest.lines().filter(is_weir);
    report(lines.map(|line| format!("{path}: {line}")).collect());
}

/// What a reader can keep in mind, tests and tables aside.
const LINES_MAX: usize = 500;

#[test]
fn files_of_the_harness_are_short() {
    let mut wrong = Vec::new();
    for file in sources("bench-harness/src") {
        let lines = file.shipped_lines().count();
        if lines > LINES_MAX && !is_test_file(&file.path) {
            wrong.push(format!(
                "{}: {lines} lines before its tests, more than {LINES_MAX}",
                file.path.display()
            ));
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
    for file in sources("bench-harness") {
        if file.path.ends_with("src/sys.rs") {
            continue;
        }
        let lines = file.lines_with_word("unsafe");
        wrong.extend(lines.map(|l| format!("{}:{l}: unsafe outside sys", file.path.display())));
    }
    for (lib, lint) in [
        ("src/smtp/lib.rs", "#![forbid(unsafe_code)]"),
        ("src/policy/mod.rs", "#![forbid(unsafe_code)]"),
        ("bench-harness/src/lib.rs", "#![deny(unsafe_code)]"),
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
    let uses: Vec<String> = WEIR.uses(&file).into_iter().map(|(_, to)| to).collect();
    assert_eq!(uses, ["shard", "net", "smtp"]);
    assert_eq!(file.lines_with_word("unsafe").count(), 0);
    assert!(!file.shipped_lines().any(|(_, l)| l.contains("Instant")));
    for (house, path, module) in [
        (WEIR, "src/policy/x.rs", Some("policy")),
        (WEIR, "src/maillog.rs", Some("maillog")),
        (WEIR, "src/lib.rs", None),
        (BENCH, "bench-harness/src/cli/hold.rs", Some("cli")),
        (BENCH, "bench-harness/src/verdict_tests.rs", Some("verdict")),
    ] {
        assert_eq!(house.module_of(Path::new(path)).as_deref(), module);
    }
    assert!(WEIR.floor("policy") > WEIR.floor("shard"));
    let file = Source::new(
        "bench-harness/src/sink/x.rs",
        "//! A purpose long enough.\nuse crate::cli::Exit;\n#[cfg(test)]\nmod tests { use crate::source::run; }\n",
    );
    assert_eq!(BENCH.uses(&file), [(2, "cli".to_owned())]);
}

impl House {
    /// None for `lib.rs`, which stands above all floors, and for the core, which is a crate of its own.
    fn module_of(&self, path: &Path) -> Option<String> {
        let inside = path.strip_prefix(self.sources).ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        let name = first.strip_suffix(".rs").unwrap_or(first);
        // Tests that lie in a file beside theirs.
        let name = name.strip_suffix("_tests").unwrap_or(name);
        (!matches!(name, "lib" | "smtp")).then(|| name.to_owned())
    }

    /// The modules that a file names, with the lines.
    fn uses(&self, file: &Source) -> Vec<(usize, String)> {
        let root = match file.path.ends_with("src/main.rs") {
            true => format!("{}::", self.name),
            false => "crate::".to_owned(),
        };
        let shipped = match is_test_file(&file.path) {
            true => 0,
            false => file.shipped_lines().count(),
        };
        let mut uses = file.uses_of(&root);
        uses.retain(|(line, _)| !self.free_tests || *line <= shipped);
        uses
    }

    fn floor(&self, module: &str) -> Option<u8> {
        let found = self.floors.iter().find(|(m, _)| *m == module);
        found.map(|(_, floor)| *floor)
    }

    fn are_neighbours(&self, from: &str, to: &str) -> bool {
        self.neighbours
            .iter()
            .any(|(a, b, _)| *a == from && *b == to)
    }
}

fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
