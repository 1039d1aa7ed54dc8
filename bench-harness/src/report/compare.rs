//! `weir-bench compare A.json B.json`: the same figures of two result files side by side, and whether they may stand so.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::differences::{self, Difference};
use super::group::{self, Row};
use super::html::{self, Cell, Html, Table};
use super::latency::{self, Seen};
use crate::outcome::{Integrity, Outcome, Results};
use crate::{medians, units};

/// `weir-bench compare`
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Result file that is the measure
    pub first: PathBuf,
    /// Result file that is held against it
    pub second: PathBuf,
    /// Write the comparison, with charts, to this HTML file too
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Prints the comparison, and writes it as a page where one is asked for.
pub fn command(options: &Options) -> Result<()> {
    let (first, second) = (super::read(&options.first)?, super::read(&options.second)?);
    let comparison = Compared::of(&first, &second);
    let names = [&options.first, &options.second].map(|path| path.display().to_string());
    print!("{}", comparison.text(&names));
    if let Some(path) = &options.html {
        let page = comparison.page(&names);
        fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// One figure of both.
#[derive(Debug, Clone)]
pub struct Line {
    pub what: String,
    pub first: Option<f64>,
    pub second: Option<f64>,
    unit: fn(f64) -> String,
}

impl Line {
    /// Second by first; None where one is missing or the first is 0.
    pub fn ratio(&self) -> Option<f64> {
        match (self.first, self.second) {
            (Some(first), Some(second)) if first != 0.0 => Some(second / first),
            _ => None,
        }
    }

    fn texts(&self) -> [String; 4] {
        let shown = |value: Option<f64>| value.map_or("–".to_owned(), self.unit);
        [
            self.what.clone(),
            shown(self.first),
            shown(self.second),
            self.ratio().map_or("–".to_owned(), units::ratio),
        ]
    }
}

/// Rows of both files that belong together.
pub struct Pair<'a> {
    first: Row<'a>,
    second: Row<'a>,
    pub objections: Vec<String>,
    pub differences: Vec<Difference>,
    pub lines: Vec<Line>,
}

/// Two result files.
pub struct Compared<'a> {
    pub pairs: Vec<Pair<'a>>,
    /// Medians against peers and single figures.
    pub lines: Vec<Line>,
    /// What only one of the two has.
    pub alone: Vec<String>,
}

impl<'a> Compared<'a> {
    pub fn of(first: &'a Results, second: &'a Results) -> Compared<'a> {
        let mut rest = rows(second);
        let ones = rows(first);
        // one run each: they are meant, whatever they are called
        let is_single = ones.len() == 1 && rest.len() == 1;
        let (mut pairs, mut alone) = (Vec::new(), Vec::new());
        for one in ones {
            let with_plan =
                |r: &Row<'_>| r.name == one.name && group::same_work(plan_of(r), plan_of(&one));
            let partner = rest
                .iter()
                .position(with_plan)
                .or_else(|| rest.iter().position(|r| is_single || r.name == one.name));
            match partner {
                Some(at) => pairs.push(Pair::of(one, rest.remove(at))),
                None => alone.push(format!("{} is in the first only", one.name)),
            }
        }
        alone.extend(
            rest.iter()
                .map(|r| format!("{} is in the second only", r.name)),
        );
        Compared {
            pairs,
            lines: figures(first, second),
            alone,
        }
    }

    /// For the terminal.
    pub fn text(&self, names: &[String; 2]) -> String {
        let mut text = format!(
            "first   {}\nsecond  {}\n",
            printable(&names[0]),
            printable(&names[1])
        );
        for pair in &self.pairs {
            put(&mut text, format_args!("\n{}\n", pair.title()));
            for objection in &pair.objections {
                put(&mut text, format_args!("  NOT COMPARABLE: {objection}\n"));
            }
            for difference in &pair.differences {
                put(
                    &mut text,
                    format_args!(
                        "  differs: {}: {} | {}\n",
                        printable(&difference.what),
                        printable(&difference.first),
                        printable(&difference.second)
                    ),
                );
            }
            put_lines(&mut text, &pair.lines);
        }
        if !self.lines.is_empty() {
            text.push_str("\nagainst peers, and single figures\n");
            put_lines(&mut text, &self.lines);
        }
        for alone in &self.alone {
            put(&mut text, format_args!("\n{}\n", printable(alone)));
        }
        if self.pairs.is_empty() && self.lines.is_empty() {
            text.push_str("\nthe two have nothing in common\n");
        }
        text
    }

    /// As a page.
    pub fn page(&self, names: &[String; 2]) -> String {
        let mut body = Html::new();
        body.raw("<h1>Two results side by side</h1>\n<dl><dt>First</dt>")
            .wrap("<dd>", &names[0], "</dd>\n<dt>Second</dt>")
            .wrap("<dd>", &names[1], "</dd></dl>\n");
        for pair in &self.pairs {
            pair.write(&mut body);
        }
        if !self.lines.is_empty() {
            body.raw("<h2>Against peers, and single figures</h2>\n");
            table("Figures", &self.lines).write(&mut body);
        }
        for alone in &self.alone {
            body.wrap("<p class=\"note\">", alone, "</p>\n");
        }
        if self.pairs.is_empty() && self.lines.is_empty() {
            body.raw("<p>The two have nothing in common.</p>\n");
        }
        html::page("Two results · weir-bench", &body)
    }
}

fn rows(results: &Results) -> Vec<Row<'_>> {
    group::workloads(&results.runs)
        .into_iter()
        .flat_map(|w| w.rows)
        .collect()
}

fn plan_of<'r>(row: &'r Row<'_>) -> &'r crate::plan::Plan {
    &row.rounds[0].plan
}

impl<'a> Pair<'a> {
    fn of(first: Row<'a>, second: Row<'a>) -> Pair<'a> {
        let (one, other) = (first.rounds[0], second.rounds[0]);
        Pair {
            objections: differences::objections(one, other),
            differences: differences::list(one, other),
            lines: lines(&first, &second),
            first,
            second,
        }
    }

    fn title(&self) -> String {
        let plan = super::words::title(plan_of(&self.first));
        let name = if self.first.name == self.second.name {
            self.first.name.to_owned()
        } else {
            format!("{} and {}", self.first.name, self.second.name)
        };
        printable(&format!("{name}: {plan}"))
    }

    fn write(&self, body: &mut Html) {
        body.wrap("<h2>", self.title(), "</h2>\n");
        if !self.objections.is_empty() {
            body.raw("<div class=\"verdict broken\"><strong>✗ Not comparable:</strong> ")
                .text(self.objections.join("; "))
                .raw(".</div>\n");
        }
        table("Figures", &self.lines).write(body);
        for stream in &self.first.streams {
            let seen: Vec<_> = [(&self.first, "first", 0), (&self.second, "second", 1)]
                .into_iter()
                .filter_map(|(row, name, number)| {
                    let times = group::session(row.stream(&stream.name)?)?;
                    Some(Seen {
                        name,
                        number,
                        times,
                    })
                })
                .collect();
            if let Some(chart) =
                latency::chart(format!("Latency by percentile, {}", stream.name), &seen)
            {
                chart.write("", body);
            }
        }
        if !self.differences.is_empty() {
            let mut table = Table::new("What differs", &["", "first", "second"]);
            for d in &self.differences {
                table.rows.push(
                    [&d.what, &d.first, &d.second]
                        .map(|t| Cell::text(t.as_str()))
                        .into(),
                );
            }
            body.raw("<div class=\"words\">");
            table.write(body);
            body.raw("</div>\n");
        }
    }
}

fn table(caption: &str, lines: &[Line]) -> Table {
    let mut table = Table::new(caption, &["", "first", "second", "second / first"]);
    for line in lines {
        let [what, first, second, ratio] = line.texts();
        table.rows.push(vec![
            Cell::text(what),
            Cell::number(first),
            Cell::number(second),
            Cell::number(ratio),
        ]);
    }
    table
}

/// What is shown even where both have none of it.
type VerdictLine = (&'static str, fn(&Integrity) -> u64);
const VERDICT: [VerdictLine; 5] = [
    ("lost", |i| i.lost),
    ("duplicated", |i| i.duplicated),
    ("altered", |i| i.altered),
    ("invented", |i| i.invented),
    ("unknown", |i| i.unknown),
];

fn lines(first: &Row<'_>, second: &Row<'_>) -> Vec<Line> {
    let both = |what: String, unit: fn(f64) -> String, of: &dyn Fn(&Row<'_>) -> Option<f64>| Line {
        what,
        first: of(first),
        second: of(second),
        unit,
    };
    let whole = |value: f64| units::grouped(value as u64);
    let mut lines = vec![both(
        "messages/s, counted".to_owned(),
        units::per_second,
        &|row| row.messages_per_second(),
    )];
    for (what, of) in VERDICT {
        lines.push(both(what.to_owned(), whole, &|row| {
            row.integrity().map(|i| of(&i) as f64)
        }));
    }
    lines.push(both(
        "CPU per message".to_owned(),
        units::micros,
        &cpu_per_message,
    ));
    lines.push(both(
        "resident memory, largest".to_owned(),
        units::octets,
        &memory_max,
    ));
    for stream in &first.streams {
        let name = &stream.name;
        for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
            let word = match percentile {
                100.0 => "largest".to_owned(),
                p => format!("p{p}"),
            };
            lines.push(both(
                format!("{name}: {word} from the planned start"),
                units::micros,
                &|row| {
                    let times = group::session(row.stream(name)?)?;
                    (!times.planned.0.is_empty())
                        .then(|| times.planned.0.value_at_percentile(percentile) as f64)
                },
            ));
        }
        lines.push(both(
            format!("{name}: p99 service time"),
            units::micros,
            &|row| {
                let times = group::session(row.stream(name)?)?;
                (!times.service.0.is_empty())
                    .then(|| times.service.0.value_at_percentile(99.0) as f64)
            },
        ));
        for (what, of) in [
            (
                "late starts",
                (|c| c.late) as fn(&crate::outcome::Counts) -> u64,
            ),
            ("dropped starts", |c| c.dropped),
            ("deferred or rejected", |c| c.deferred + c.rejected),
            ("turned away", |c| c.turned_away),
        ] {
            lines.push(both(format!("{name}: {what}"), whole, &|row| {
                Some(of(&row.stream(name)?.counts) as f64)
            }));
        }
    }
    // what neither has, and what is nought in both, says nothing (but for the verdict, which is to be read)
    lines.retain(|line| {
        VERDICT.iter().any(|(what, _)| line.what == *what)
            || [line.first, line.second]
                .iter()
                .any(|v| v.is_some_and(|v| v != 0.0))
    });
    lines
}

/// Of the watched process, median of the rounds, microseconds. None where it was not watched or not counted.
fn cpu_per_message(row: &Row<'_>) -> Option<f64> {
    let of = |run: &&Outcome| {
        run.integrity.as_ref()?;
        let used = run
            .samples
            .last()?
            .cpu
            .checked_sub(run.samples.first()?.cpu)?;
        let accepted: u64 = run.streams.iter().map(|s| s.counts.accepted).sum();
        (accepted > 0 && run.samples.len() > 1).then(|| used.as_secs_f64() * 1e6 / accepted as f64)
    };
    let each: Option<Vec<f64>> = row.rounds.iter().map(of).collect();
    medians::median(&each?)
}

fn memory_max(row: &Row<'_>) -> Option<f64> {
    let samples = row.rounds.iter().flat_map(|run| &run.samples);
    samples
        .map(|s| s.rss_octets)
        .max()
        .map(|octets| octets as f64)
}

fn figures(first: &Results, second: &Results) -> Vec<Line> {
    let mut lines = Vec::new();
    for one in &first.comparisons {
        let Some(other) = second.comparisons.iter().find(|c| c.title == one.title) else {
            continue;
        };
        for peer in &one.peers {
            let theirs = other.peers.iter().find(|p| p.name == peer.name);
            lines.push(Line {
                what: format!("{}: {}, CPU per message", one.title, peer.name),
                first: medians::median(&peer.cpu_us),
                second: theirs.and_then(|p| medians::median(&p.cpu_us)),
                unit: units::micros,
            });
        }
    }
    for one in &first.figures {
        if let Some(other) = second
            .figures
            .iter()
            .find(|f| f.title == one.title && f.unit == one.unit)
        {
            lines.push(Line {
                what: format!("{} ({})", one.title, one.unit),
                first: Some(one.value),
                second: Some(other.value),
                unit: units::figure,
            });
        }
    }
    lines
}

fn put_lines(text: &mut String, lines: &[Line]) {
    let texts: Vec<_> = lines.iter().map(Line::texts).collect();
    let width = |column: usize| {
        texts
            .iter()
            .map(|t| t[column].chars().count())
            .max()
            .unwrap_or(0)
            .max(8)
    };
    let (w0, w1, w2) = (width(0), width(1), width(2));
    put(
        text,
        format_args!(
            "  {:w0$}  {:>w1$}  {:>w2$}  second/first\n",
            "", "first", "second"
        ),
    );
    for [what, first, second, ratio] in &texts {
        put(
            text,
            format_args!(
                "  {:w0$}  {first:>w1$}  {second:>w2$}  {ratio:>12}\n",
                printable(what)
            ),
        );
    }
}

/// Without control characters, which a terminal would obey.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}
