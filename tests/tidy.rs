//! House rules that a machine can check: the arrows between modules, who may name
//! glommio, io-uring, the clock and `unsafe`, and what every file must have or must not have.
//!
//! Method: read the sources as text, blank out comments and literals, look at the words
//! that are left. No compiler is asked, so a rule can be wrong in theory; in practice it
//! names file and line, and a reader decides. The rules come from docs/ARCHITECTURE.md.

use std::fs;
use std::path::{Path, PathBuf};

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

struct Source {
    path: PathBuf,
    text: String,
    /// The text with comments and literals blanked out, line for line.
    code: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.to_owned(),
            code: blank(text),
        }
    }

    /// Every module named behind `crate::` (or `weir::` in the binary), with its line.
    fn crate_uses(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let root = if self.path.ends_with("src/main.rs") {
            "weir::"
        } else {
            "crate::"
        };
        for (at, _) in self.code.match_indices(root) {
            if self.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            let rest = &self.code[at + root.len()..];
            found.extend(heads(rest).into_iter().map(|name| (line, name)));
        }
        found
    }

    fn lines_with_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code
            .lines()
            .enumerate()
            .filter(move |(_, l)| has_word(l, word))
            .map(|(i, _)| i + 1)
    }

    /// Lines before the file's own tests.
    fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .lines()
            .enumerate()
            .map(|(i, l)| (i + 1, l))
            .take_while(|(_, l)| !l.trim_start().starts_with("#[cfg(test)]"))
    }
}

/// `net::A` gives net; `{net::A, rt}` gives net and rt. A macro or a bare item of the root gives nothing.
fn heads(rest: &str) -> Vec<String> {
    let word = |s: &str| {
        s.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let Some(inside) = rest.strip_prefix('{') else {
        let name = word(rest);
        return if rest[name.len()..].starts_with('!') {
            Vec::new()
        } else {
            vec![name]
        };
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut fresh = true;
    for (i, c) in inside.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && (c.is_alphabetic() || c == '_') => {
                names.push(word(&inside[i..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn has_word(line: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(inner) && !line[at + word.len()..].starts_with(inner))
}

/// Blanks comments, strings and characters, keeping the line structure.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < bytes.len() {
        let rest = &text[i..];
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |n| n + 2)
        } else if let Some(n) = raw_string(rest) {
            n
        } else if rest.starts_with('"') {
            quoted(rest)
        } else if let Some(n) = character(rest) {
            n
        } else {
            let c = rest.chars().next().expect("i is inside the text");
            out.push(c);
            i += c.len_utf8();
            continue;
        };
        out.extend(
            rest[..length]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        i += length;
    }
    out
}

fn raw_string(rest: &str) -> Option<usize> {
    let body = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r'))?;
    let hashes = body.chars().take_while(|c| *c == '#').count();
    let prefix = rest.len() - body.len() + hashes + 1;
    if !body[hashes..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(
        rest[prefix..]
            .find(&close)
            .map_or(rest.len(), |n| prefix + n + close.len()),
    )
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// A character literal, told from a lifetime by its closing quote.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices();
    if chars.next()?.1 != '\'' {
        return None;
    }
    let (_, first) = chars.next()?;
    if first == '\\' {
        return rest[2..].find('\'').map(|n| {
            if n == 0 {
                rest[3..].find('\'').map_or(4, |m| m + 4)
            } else {
                n + 3
            }
        });
    }
    let (at, next) = chars.next()?;
    (next == '\'').then_some(at + 1)
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

fn is_test_file(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests")
        || path
            .file_stem()
            .is_some_and(|s| s.to_string_lossy().ends_with("tests"))
}

fn sources(root: &str) -> Vec<Source> {
    let mut found: Vec<Source> = walk(Path::new(root))
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .map(|p| {
            let text = fs::read_to_string(&p).expect("sources are UTF-8");
            Source::new(p, &text)
        })
        .collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(
        !found.is_empty(),
        "no sources below {root}: are the tests run from the top folder?"
    );
    found
}

fn all_rust() -> Vec<Source> {
    let mut found = sources("src");
    found.extend(sources("tests"));
    found
}

fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = files(root);
    for folder in folders(root) {
        if !folder.ends_with("target") {
            found.extend(walk(&folder));
        }
    }
    found
}

fn files(root: &Path) -> Vec<PathBuf> {
    entries(root).into_iter().filter(|p| p.is_file()).collect()
}

fn folders(root: impl AsRef<Path>) -> Vec<PathBuf> {
    entries(root.as_ref())
        .into_iter()
        .filter(|p| p.is_dir())
        .collect()
}

fn entries(root: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(root) else {
        return Vec::new();
    };
    listing
        .map(|e| e.expect("a readable folder entry").path())
        .collect()
}

fn report(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
