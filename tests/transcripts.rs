//! Plays tests/corpus/transcripts against the protocol core alone.
//!
//! Goal: what weir says to whom does not depend on how bytes are cut into segments or on when verdicts arrive.
//! Method: a transcript is a list of stimuli (bytes from either side, events) and of what must have happened by the
//! next stimulus, exactly. `Stage` below is the driver that a shard is in production: it feeds `Relay` and `Outbound`,
//! carries out acts, resolves pieces to bytes and counts buffer references. Each transcript is played whole, octet by
//! octet, and cut in two at every offset of every flight, with prompt verdicts and with late ones in reverse order.
//!
//! `WEIR_TRANSCRIPTS="a b"` plays only transcripts whose names contain one of these words.

#[path = "transcripts/script.rs"]
mod script;
#[path = "transcripts/stage.rs"]
mod stage;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use script::{Script, Step};
use stage::{Cut, Stage};

#[test]
fn transcripts_play_the_same_however_they_are_cut() {
    let paths = corpus();
    let mut wrong = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).expect("transcripts are UTF-8");
        let name = path
            .file_stem()
            .expect("a file has a name")
            .to_string_lossy();
        match Script::parse(&text) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(script) => wrong.extend(play_all(&script).map(|error| format!("{name}: {error}"))),
        }
    }
    println!("{} transcripts, {} wrong", paths.len(), wrong.len());
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n\n"));
}

#[test]
fn each_transcript_says_what_it_shows() {
    for path in corpus() {
        let text = fs::read_to_string(&path).expect("transcripts are UTF-8");
        assert!(
            text.starts_with("# "),
            "{}: no sentence in the first line",
            path.display()
        );
    }
}

/// A runner that never fails proves nothing.
#[test]
fn a_wrong_transcript_is_noticed() {
    let wrong = [
        "S: 220 other.test *\n",
        "S: 220 weir.test *\nC: QUIT\nS: 221 2.0.0 *\n",
        "S: 220 weir.test *\nC: NOOP\nS: 250 2.0.0 *\nS: 250 2.0.0 *\n",
        "!after rcpt\nC: DATA\nS: 354 *\nC: x\nC: .\nU> BDAT 4 LAST\nU> x\n",
        "!after rcpt\nC: RSET\nS: 250 2.0.0 *\nD: clean\n",
    ];
    for text in wrong {
        let script = Script::parse(text).expect("these are well-formed");
        assert!(
            play_all(&script).is_some(),
            "this should have failed:\n{text}"
        );
    }
}

/// The first failure over all ways of cutting, and which way that was.
fn play_all(script: &Script) -> Option<String> {
    for late in [false, true] {
        for cut in cuts(script) {
            let played = catch_unwind(AssertUnwindSafe(|| play(script, cut, late)));
            let result = played.unwrap_or_else(|panic| Err(words(&*panic)));
            if let Err(error) = result {
                let verdicts = if late { "late" } else { "prompt" };
                return Some(format!("{error}\n    ({cut:?}, {verdicts} verdicts)"));
            }
        }
    }
    None
}

/// What a panic said: an assertion in the core fails one transcript, not the run.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    format!("panic: {}", text.unwrap_or_default())
}

/// Whole, octet by octet, and one cut at every offset of every flight (of long ones a sample).
fn cuts(script: &Script) -> Vec<Cut> {
    let mut all = vec![Cut::Nowhere, Cut::Everywhere];
    for (number, step) in script.steps.iter().enumerate() {
        let (Step::Client(bytes) | Step::Upstream(bytes)) = step else {
            continue;
        };
        let stride = 1 + bytes.len() / 2000;
        let offsets = (1..bytes.len())
            .filter(|at| at % stride == 0 || *at < 300 / stride || at + 100 / stride > bytes.len());
        all.extend(offsets.map(|offset| Cut::At {
            step: number,
            offset,
        }));
    }
    all
}

fn play(script: &Script, cut: Cut, late: bool) -> Result<(), String> {
    let mut stage = Stage::new(script, cut, late);
    for (number, step) in script.steps.iter().enumerate() {
        stage
            .perform(number, step)
            .map_err(|error| format!("line {}: {error}", script.lines[number]))?;
    }
    stage.leave_nothing_behind()
}

fn corpus() -> Vec<PathBuf> {
    let wanted = std::env::var("WEIR_TRANSCRIPTS").unwrap_or_default();
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let mut found: Vec<PathBuf> = fs::read_dir("tests/corpus/transcripts")
        .expect("the corpus is there: tests run in the top folder")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "smtp"))
        .filter(|path| words.is_empty() || words.iter().any(|w| path.to_string_lossy().contains(w)))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no transcript is named like {wanted:?}");
    found
}
