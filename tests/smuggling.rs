//! Runs tests/corpus/smuggling: every byte sequence that some server takes for an end of data, and what weir makes of it.
//! Method: each case under all three policies, whole, cut in two at every byte, and byte by byte; how it was cut must not matter.

use std::fs;
use std::path::{Path, PathBuf};

use weir_smtp::body::{BareNewline, BodyFindings, BodyScanner};
use weir_smtp::pieces::{BufferId, Form, Piece, Pieces};

#[test]
fn look_alikes_end_nothing_and_the_end_ends() {
    let cases = cases();
    assert!(cases.len() >= 50, "the corpus was not found");
    let wrong: Vec<String> = cases.iter().filter_map(|case| case.check().err()).collect();
    assert!(
        wrong.is_empty(),
        "{} cases differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_case_has_both_files() {
    for path in corpus() {
        let twin = match path.extension().and_then(|kind| kind.to_str()) {
            Some("raw") => path.with_extension("want"),
            Some("want") => path.with_extension("raw"),
            _ => continue,
        };
        assert!(twin.exists(), "{} is missing", twin.display());
    }
}

struct Case {
    name: String,
    raw: Vec<u8>,
    want: String,
}

fn corpus() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/smuggling");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the corpus")
        .map(|entry| entry.expect("readable").path())
        .collect();
    paths.sort();
    paths
}

fn cases() -> Vec<Case> {
    let raw = corpus()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "raw"));
    raw.map(|path| Case {
        name: path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned(),
        raw: fs::read(&path).expect("readable"),
        want: fs::read_to_string(path.with_extension("want")).expect("expected outcome"),
    })
    .collect()
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let (why, want) = self.want.split_once('\n').ok_or("empty")?;
        if !why.starts_with("why: ") {
            return Err(format!("{}: does not open with why:", self.name));
        }
        let everywhere = (1..self.raw.len()).collect::<Vec<_>>();
        let halves = everywhere.iter().map(|at| vec![*at]);
        for cuts in [vec![], everywhere.clone()].into_iter().chain(halves) {
            let got = self.outcome(&cuts);
            if got != want {
                return Err(format!(
                    "{} cut at {cuts:?}\nwant\n{want}got\n{got}",
                    self.name
                ));
            }
        }
        Ok(())
    }

    fn outcome(&self, cuts: &[usize]) -> String {
        let reject = self.scan(BareNewline::Reject, cuts);
        let normalize = self.scan(BareNewline::Normalize, cuts);
        let pass = self.scan(BareNewline::Pass, cuts);
        let rest = reject
            .taken
            .map_or("none".to_owned(), |taken| quote(&self.raw[taken..]));
        assert_eq!(
            (reject.taken, reject.taken),
            (normalize.taken, pass.taken),
            "{}: the end does not depend on policy",
            self.name
        );
        assert_eq!(
            words(&reject.findings),
            words(&normalize.findings),
            "{}",
            self.name
        );
        assert_eq!(
            words(&reject.findings),
            words(&pass.findings),
            "{}",
            self.name
        );
        let verdict = if reject.findings.bare_newline() {
            "refused"
        } else {
            "passes"
        };
        if verdict == "passes" {
            assert_eq!(
                (&reject.data, &reject.bdat),
                (&normalize.data, &normalize.bdat),
                "{}: nothing to normalise",
                self.name
            );
        }
        let mut line = b"\r\n".to_vec();
        line.extend_from_slice(&normalize.data);
        assert!(
            !line.windows(5).any(|window| window == b"\r\n.\r\n"),
            "{}: an end inside of what leaves",
            self.name
        );
        format!(
            "rest: {rest}\nfindings: {}\nreject: {verdict}\nnormalize: {}\npass: {}\n",
            words(&reject.findings),
            quote(&normalize.data),
            quote(&pass.bdat)
        )
    }

    fn scan(&self, policy: BareNewline, cuts: &[usize]) -> Scanned {
        let chunked = self.name.starts_with("bdat_");
        let mut scanner = if chunked {
            BodyScanner::bdat(policy, false)
        } else {
            BodyScanner::data(policy)
        };
        let mut pieces = Pieces::new();
        let mut taken = None;
        let mut from = 0;
        for &to in cuts.iter().chain([&self.raw.len()]) {
            let part = &self.raw[from..to];
            // the bytes stand in the buffer where they stand in the case
            if chunked {
                scanner.scan_chunk(BUFFER, from as u32, part, &mut pieces);
            } else {
                let (len, end) = scanner.scan_data(BUFFER, from as u32, part, &mut pieces);
                taken = end.map(|_| from + len);
            }
            if taken.is_some() {
                break;
            }
            from = to;
        }
        if chunked {
            scanner.finish_bdat(&mut pieces);
            taken = Some(self.raw.len());
        }
        Scanned {
            taken,
            findings: scanner.findings(),
            data: self.read(&pieces, Form::Data),
            bdat: self.read(&pieces, Form::Bdat),
        }
    }

    fn read(&self, pieces: &Pieces, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces.iter(form) {
            match piece {
                Piece::Insert(bytes) => out.extend_from_slice(bytes),
                Piece::Span { start, len, .. } => {
                    out.extend_from_slice(&self.raw[start as usize..(start + len) as usize])
                }
            }
        }
        out
    }
}

const BUFFER: BufferId = BufferId(1);

struct Scanned {
    /// Bytes up to and with the end.
    taken: Option<usize>,
    findings: BodyFindings,
    data: Vec<u8>,
    bdat: Vec<u8>,
}

fn words(findings: &BodyFindings) -> String {
    let all = [
        ("bare_lf", findings.bare_lf),
        ("bare_cr", findings.bare_cr),
        ("nul", findings.nul),
        ("long_line", findings.long_line),
    ];
    let found: Vec<&str> = all.iter().filter(|row| row.1).map(|row| row.0).collect();
    if found.is_empty() {
        "-".to_owned()
    } else {
        found.join(" ")
    }
}

fn quote(bytes: &[u8]) -> String {
    format!("\"{}\"", bytes.escape_ascii())
}
