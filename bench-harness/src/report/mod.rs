//! What is left of a run when it is over: a page to read, histograms for other tools, and the JSON both are made of.
//!
//! ```text
//! NAME.json ──> page (html: escapes) ──> NAME.html         one file, no network, no script, dark and light
//!         │       ├ group     runs of the same plan stand together
//!         │       ├ tables    at a glance, integrity, stages, counts, peers, figures
//!         │       └ latency, timeline ──> charts (axis: ticks) ──> svg (inks become classes)
//!         ├────> hgrm  ──> NAME-STREAM-STAGE.hgrm
//!         └────> compare A.json B.json
//! ```

pub mod axis;
pub mod charts;
pub mod compare;
pub mod differences;
pub mod group;
pub mod hgrm;
pub mod html;
pub mod latency;
pub mod page;
pub mod svg;
pub mod tables;
pub mod timeline;
pub mod words;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::outcome::{Latencies, Results, Stage};

/// `weir-bench report`: makes the page and the histograms of a result file again.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Result file (JSON) of an earlier run
    pub results: PathBuf,
    /// Folder to write to; by default that of the result file
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
}

/// Writes the page and the histograms beside a result file, or where told to.
pub fn command(options: &Options) -> Result<()> {
    let results = read(&options.results)?;
    let into = match &options.into {
        Some(into) => into.as_path(),
        None => options.results.parent().unwrap_or(Path::new(".")),
    };
    let name = options
        .results
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let written = write_derived(&results, into, &file_word(&name))?;
    for path in written {
        println!("{}", path.display());
    }
    Ok(())
}

/// Writes `NAME.json`, `NAME.html` and the `.hgrm` files to `folder`, which is made if it is not there. Says which files it wrote.
pub fn write_all(results: &Results, folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let name = file_word(name);
    make(folder)?;
    let json = folder.join(format!("{name}.json"));
    let text = serde_json::to_string(results).context("results cannot be written as JSON")?;
    write(&json, &text)?;
    let mut written = vec![json];
    written.extend(write_derived(results, folder, &name)?);
    Ok(written)
}

/// A result file larger than this was not written by us.
const RESULT_OCTETS_MAX: u64 = 1 << 30;

/// Reads what [`write_all`] wrote.
pub fn read(path: &Path) -> Result<Results> {
    let shown = path.display();
    let file =
        fs::File::open(path).with_context(|| format!("cannot open the result file {shown}"))?;
    let length = file
        .metadata()
        .with_context(|| format!("cannot look at {shown}"))?
        .len();
    ensure!(
        length <= RESULT_OCTETS_MAX,
        "{shown} has {length} octets: more than a result file can have"
    );
    let results: Results = serde_json::from_reader(BufReader::new(file))
        .with_context(|| format!("{shown} is no result file of weir-bench"))?;
    ensure!(
        results.format == Results::FORMAT,
        "{shown} has the format {:?}, this weir-bench reads {:?}",
        results.format,
        Results::FORMAT
    );
    Ok(results)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

/// The page and the histograms. The folder is made if it is not there.
fn write_derived(results: &Results, folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    make(folder)?;
    let html = folder.join(format!("{name}.html"));
    write(&html, &page::of(results, name))?;
    let mut written = vec![html];
    for (word, latencies) in histograms(results) {
        let path = folder.join(format!("{name}-{word}.hgrm"));
        write(&path, &hgrm::text(&latencies))?;
        written.push(path);
    }
    Ok(written)
}

/// Histograms worth a file: of a single run every stage, both ways; of several the whole session of each, rounds together.
fn histograms(results: &Results) -> Vec<(String, Latencies)> {
    let workloads = group::workloads(&results.runs);
    let is_single = results.runs.len() == 1;
    let mut histograms = Vec::new();
    for (number, workload) in workloads.iter().enumerate() {
        for row in &workload.rows {
            let run = match (is_single, workloads.len()) {
                (true, _) => String::new(),
                (_, 1) => format!("{}-", file_word(row.name)),
                _ => format!("{}-{}-", number + 1, file_word(row.name)),
            };
            for stream in &row.streams {
                for (stage, times) in &stream.stages {
                    if !is_single && *stage != Stage::Session {
                        continue;
                    }
                    let word = format!("{run}{}-{}", file_word(&stream.name), stage.word());
                    histograms.push((format!("{word}-service"), times.service.clone()));
                    histograms.push((word, times.planned.clone()));
                }
            }
        }
    }
    histograms.retain(|(_, latencies)| !latencies.0.is_empty());
    histograms
}

/// A name as a part of a file name: it cannot leave its folder, nor hide.
fn file_word(name: &str) -> String {
    let word: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '-'
            }
        })
        .take(100)
        .collect();
    match word.trim_start_matches(['.', '-']) {
        "" => "unnamed".to_owned(),
        word => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        for (name, want) in [
            ("2026-11-22-peers", "2026-11-22-peers"),
            ("../../etc/passwd", "etc-passwd"),
            (".hidden", "hidden"),
            ("", "unnamed"),
            ("a b/ä", "a-b--"),
        ] {
            assert_eq!(file_word(name), want);
        }
    }
}
