//! Source files as text, for the house rules: comments and literals blanked out, the modules they name, the lines that ship.

use std::fs;
use std::path::{Path, PathBuf};

pub struct Source {
    pub path: PathBuf,
    pub text: String,
    /// The text with comments and literals blanked out, line for line.
    pub code: String,
}

impl Source {
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.to_owned(),
            code: blank(text),
        }
    }

    /// Every module named behind `root`, which is `crate::` or the name of a library, with its line.
    pub fn uses_of(&self, root: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
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

    pub fn lines_with_word<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code
            .lines()
            .enumerate()
            .filter(move |(_, l)| has_word(l, word))
            .map(|(i, _)| i + 1)
    }

    /// Lines before the file's own tests.
    pub fn shipped_lines(&self) -> impl Iterator<Item = (usize, &str)> {
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

pub fn is_test_file(path: &Path) -> bool {
    path.components().any(|c| c.as_os_str() == "tests")
        || path
            .file_stem()
            .is_some_and(|s| s.to_string_lossy().ends_with("tests"))
}

pub fn sources(root: &str) -> Vec<Source> {
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

pub fn all_rust() -> Vec<Source> {
    let mut found = sources("src");
    found.extend(sources("tests"));
    found.extend(sources("bench-harness"));
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

pub fn files(root: &Path) -> Vec<PathBuf> {
    entries(root).into_iter().filter(|p| p.is_file()).collect()
}

pub fn folders(root: impl AsRef<Path>) -> Vec<PathBuf> {
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
