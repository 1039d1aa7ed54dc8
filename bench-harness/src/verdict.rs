//! Thresholds (`p99>5ms`, `good.final.p99.9>20ms`, `lost>0`, `rate<1900/s`) and whether a run has broken them.
//!
//! A threshold names what is *wrong*. One that cannot be decided (nothing was measured, nobody counted) is broken: silence is no pass.

use std::fmt;
use std::time::Duration;

use crate::grammar;
use crate::outcome::{Counts, Integrity, Outcome, Stage, StreamOutcome};
use crate::plan::{Plan, Profile};
use crate::units;

/// One `--fail-if`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    text: String,
    /// None: latencies of every stream for itself, counts of all together.
    stream: Option<String>,
    metric: Metric,
    above: bool,
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    /// None as percentile is the maximum.
    Latency {
        stage: Stage,
        service: bool,
        percentile: Option<f64>,
    },
    Count(&'static str),
    Ledger(&'static str),
    /// Accepted messages a second, after the warm-up.
    Rate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    Time(Duration),
    Number(u64),
    Rate(f64),
}

/// What came out of one threshold.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub threshold: String,
    pub measured: String,
    pub broken: bool,
}

type Count = fn(&Counts) -> u64;
const COUNTS: &[(&str, Count)] = &[
    ("starts", |c| c.starts),
    ("late", |c| c.late),
    ("dropped", |c| c.dropped),
    ("accepted", |c| c.accepted),
    ("deferred", |c| c.deferred),
    ("rejected", |c| c.rejected),
    ("unanswered", |c| c.unanswered),
    ("not_sent", |c| c.not_sent),
    ("turned_away", |c| c.turned_away),
    ("connect_failed", |c| c.connect_failed),
    ("handshakes_failed", |c| c.handshakes_failed),
    ("resets", |c| c.resets),
    ("closed_early", |c| c.closed_early),
    ("garbled", |c| c.garbled),
    ("timed_out", |c| c.timed_out),
    ("unfinished", |c| c.unfinished),
];

type Entry = fn(&Integrity) -> u64;
const ENTRIES: &[(&str, Entry)] = &[
    ("arrived", |i| i.arrived),
    ("lost", |i| i.lost),
    ("duplicated", |i| i.duplicated),
    ("altered", |i| i.altered),
    ("invented", |i| i.invented),
    ("unknown", |i| i.unknown),
];

impl Threshold {
    /// Reads `[STREAM.][STAGE.][service.]pN>TIME`, `[STREAM.]COUNT>N`, `LEDGER>N`, `[STREAM.]rate<N/s`.
    pub fn parse(text: &str) -> Result<Threshold, String> {
        let at = text
            .find(['<', '>'])
            .ok_or("what would be wrong, as 'p99>5ms', 'lost>0' or 'rate<1900/s'")?;
        let (name, above, limit) = (
            text[..at].trim(),
            text[at..].starts_with('>'),
            text[at + 1..].trim(),
        );
        let (name, percentile) = split_percentile(name)?;
        let mut words: Vec<&str> = name.split('.').filter(|word| !word.is_empty()).collect();
        let metric = match percentile {
            Some(percentile) => latency(&mut words, percentile),
            None => plain(words.pop().unwrap_or(""))?,
        };
        let stream = match words.as_slice() {
            [] => None,
            [stream] => Some((*stream).to_owned()),
            _ => {
                return Err(format!(
                    "'{}' is neither a stage nor a stream",
                    words.join(".")
                ));
            }
        };
        if stream.is_some() && matches!(metric, Metric::Ledger(_)) {
            return Err("the ledger counts all streams together: leave the stream out".to_owned());
        }
        let limit = match metric {
            Metric::Latency { .. } => Limit::Time(grammar::duration(limit)?),
            Metric::Count(_) | Metric::Ledger(_) => Limit::Number(
                limit
                    .parse()
                    .map_err(|_| format!("'{limit}' is no whole number"))?,
            ),
            Metric::Rate => Limit::Rate(grammar::rate(limit)?),
        };
        Ok(Threshold {
            text: text.to_owned(),
            stream,
            metric,
            above,
            limit,
        })
    }

    /// What this threshold asks about and the plan does not have, told before the run.
    pub fn fits(&self, plan: &Plan) -> Result<(), String> {
        let names: Vec<&str> = plan
            .streams
            .iter()
            .map(|known| known.name.as_str())
            .collect();
        let is_known = |stream: &String| names.contains(&stream.as_str());
        if let Some(stream) = self.stream.as_ref().filter(|stream| !is_known(stream)) {
            return Err(format!(
                "no stream is called {stream}; there is {}",
                names.join(", ")
            ));
        }
        match self.metric {
            Metric::Ledger(_) | Metric::Rate if plan.ledger.is_none() => Err(
                "nobody counts what arrives: name the sink's control port with --ledger".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    pub fn judge(&self, outcome: &Outcome) -> Verdict {
        let (measured, broken) = match self.metric {
            Metric::Latency { .. } => self.judge_latency(outcome),
            Metric::Count(name) => self.judge_number(Some(self.sum(outcome, count_named(name)))),
            Metric::Ledger(name) => {
                self.judge_number(outcome.integrity.as_ref().map(entry_named(name)))
            }
            Metric::Rate => self.judge_rate(outcome),
        };
        Verdict {
            threshold: self.text.clone(),
            measured,
            broken,
        }
    }

    /// Every stream for itself; the worst one is told. One that should have been measured and was not is the worst there is.
    fn judge_latency(&self, outcome: &Outcome) -> (String, bool) {
        let Metric::Latency {
            stage,
            service,
            percentile,
        } = self.metric
        else {
            unreachable!("only latencies are judged here")
        };
        let Limit::Time(limit) = self.limit else {
            unreachable!("a latency is read with a time")
        };
        let percentile = percentile.unwrap_or(100.0);
        let mut measured = Vec::new();
        for stream in self.streams(outcome) {
            let times = stream.stages.get(&stage);
            let latencies = times.map(|times| match service {
                true => &times.service,
                false => &times.planned,
            });
            let latencies = latencies.filter(|latencies| !latencies.0.is_empty());
            let unknown = self.above && !service && is_dropped(stream, percentile);
            let words = match latencies {
                Some(_) if unknown => {
                    format!("unknown: {} starts were dropped", stream.counts.dropped)
                }
                Some(latencies) => {
                    measured.push((latencies.at(percentile), &stream.name));
                    continue;
                }
                None if has_to_have(outcome, stream, stage) => "nothing was measured".to_owned(),
                None => continue,
            };
            return (format!("{words} ({})", stream.name), true);
        }
        let worst = match self.above {
            true => measured.into_iter().max(),
            false => measured.into_iter().min(),
        };
        let Some((time, name)) = worst else {
            return ("nothing was measured".to_owned(), true);
        };
        let words = format!("{} ({name})", units::time(time));
        (words, self.is_beyond(time, limit))
    }

    fn judge_number(&self, measured: Option<u64>) -> (String, bool) {
        let Limit::Number(limit) = self.limit else {
            unreachable!("a count is read with a number")
        };
        match measured {
            Some(number) => (number.to_string(), self.is_beyond(number, limit)),
            None => ("nobody counted".to_owned(), true),
        }
    }

    fn judge_rate(&self, outcome: &Outcome) -> (String, bool) {
        let Limit::Rate(limit) = self.limit else {
            unreachable!("a rate is read with a rate")
        };
        let rate: f64 = self
            .streams(outcome)
            .map(|stream| outcome.rate_of(stream))
            .sum();
        (format!("{rate:.1}/s"), self.is_beyond(rate, limit))
    }

    fn is_beyond<T: PartialOrd>(&self, measured: T, limit: T) -> bool {
        if self.above {
            measured > limit
        } else {
            measured < limit
        }
    }

    fn streams<'a>(&'a self, outcome: &'a Outcome) -> impl Iterator<Item = &'a StreamOutcome> {
        outcome
            .streams
            .iter()
            .filter(|stream| self.stream.as_ref().is_none_or(|name| *name == stream.name))
    }

    fn sum(&self, outcome: &Outcome, count: Count) -> u64 {
        self.streams(outcome)
            .map(|stream| count(&stream.counts))
            .sum()
    }
}

/// Whether so many starts were dropped that one of them stands at this percentile of all. How long they would have taken nobody knows, but
/// that it was longer than those that were made.
fn is_dropped(stream: &StreamOutcome, percentile: f64) -> bool {
    let (made, dropped) = (stream.counts.starts as f64, stream.counts.dropped as f64);
    dropped > 0.0 && made < (made + dropped) * percentile / 100.0
}

/// Whether a stream that has no latency of this stage lacks it: clients that come and go end their messages and their sessions.
fn has_to_have(outcome: &Outcome, stream: &StreamOutcome, stage: Stage) -> bool {
    let planned = outcome
        .plan
        .streams
        .iter()
        .find(|planned| planned.name == stream.name);
    let comes_and_goes = planned
        .is_some_and(|planned| !planned.profile.is_kept() && planned.profile != Profile::HangUp);
    comes_and_goes && matches!(stage, Stage::Final | Stage::Session)
}

/// Takes `p99.9` or `max` off the end of a dotted name. Outer none: no percentile; inner none: the maximum.
type Percentile = Option<Option<f64>>;
fn split_percentile(name: &str) -> Result<(&str, Percentile), String> {
    if let Some(rest) = name
        .strip_suffix("max")
        .filter(|rest| rest.is_empty() || rest.ends_with('.'))
    {
        return Ok((rest, Some(None)));
    }
    let start = match name.rfind(".p") {
        Some(at) => at + 1,
        None => 0,
    };
    let digits = match name[start..].strip_prefix('p') {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => digits,
        _ => return Ok((name, None)),
    };
    match digits.parse::<f64>() {
        Ok(percentile) if (0.0..=100.0).contains(&percentile) => {
            Ok((&name[..start], Some(Some(percentile))))
        }
        _ => Err(format!(
            "'p{digits}' is no percentile: p50, p99, p99.9, max"
        )),
    }
}

fn latency(words: &mut Vec<&str>, percentile: Option<f64>) -> Metric {
    let service = words.last() == Some(&"service");
    if service {
        words.pop();
    }
    let stage = words
        .last()
        .and_then(|word| Stage::ALL.into_iter().find(|stage| stage.word() == *word));
    if stage.is_some() {
        words.pop();
    }
    Metric::Latency {
        stage: stage.unwrap_or(Stage::Session),
        service,
        percentile,
    }
}

fn plain(name: &str) -> Result<Metric, String> {
    if name == "rate" {
        return Ok(Metric::Rate);
    }
    let count = COUNTS.iter().find(|(known, _)| *known == name);
    let entry = ENTRIES.iter().find(|(known, _)| *known == name);
    match (count, entry) {
        (Some((name, _)), _) => Ok(Metric::Count(name)),
        (None, Some((name, _))) => Ok(Metric::Ledger(name)),
        (None, None) => Err(format!(
            "'{name}' is nothing that is measured; take pN, max, rate, {}",
            names()
        )),
    }
}

fn names() -> String {
    let counts = COUNTS.iter().map(|(name, _)| *name);
    let entries = ENTRIES.iter().map(|(name, _)| *name);
    counts.chain(entries).collect::<Vec<_>>().join(", ")
}

fn count_named(name: &str) -> Count {
    let found = COUNTS.iter().find(|(known, _)| *known == name);
    found.expect("a metric has a name of the table").1
}

fn entry_named(name: &str) -> Entry {
    let found = ENTRIES.iter().find(|(known, _)| *known == name);
    found.expect("a metric has a name of the table").1
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.broken { "BROKEN" } else { "kept" };
        write!(
            f,
            "{word:<7} {} (measured {})",
            self.threshold, self.measured
        )
    }
}

#[cfg(test)]
#[path = "verdict_tests.rs"]
mod tests;
