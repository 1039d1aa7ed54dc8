//! What happened when: rates, open connections, latency, memory and CPU over the time of one run.
//!
//! A run of ten minutes has 600 seconds and a drawing some 800 pixels: seconds are gathered to at most [`POINTS_MAX`] points, rates by
//! their mean, latencies by the histogram of all of them.

use super::axis::{Axis, Steps};
use super::charts::{Chart, Line};
use super::svg::{Dash, Look};
use crate::outcome::{Latencies, Outcome, Sample, Second, StreamOutcome};
use crate::plan::{Arrivals, Plan};
use crate::{medians, units};

const POINTS_MAX: usize = 300;
const HEIGHT: u32 = 280;

/// Starts, accepted and failed of one stream.
pub fn rate(outcome: &Outcome, stream: &StreamOutcome) -> Option<Chart> {
    let buckets = buckets(&stream.seconds);
    if buckets.is_empty() {
        return None;
    }
    let mean = |of: fn(&Second) -> u64| -> Vec<(f64, f64)> {
        buckets
            .iter()
            .map(|b| {
                (
                    b.middle,
                    b.seconds.iter().map(of).sum::<u64>() as f64 / b.seconds.len() as f64,
                )
            })
            .collect()
    };
    let mut lines = Vec::new();
    if let Some(points) = planned(&outcome.plan, &stream.name) {
        lines.push(line("planned starts", 5, Dash::Dotted, points));
    }
    lines.push(line("starts made", 0, Dash::Dashed, mean(|s| s.starts)));
    // clients that only want to stay send nothing that could be accepted
    if !is_kept(&outcome.plan, &stream.name) || stream.counts.accepted > 0 {
        lines.push(line(
            "messages accepted",
            2,
            Dash::Solid,
            mean(|s| s.accepted),
        ));
    }
    lines.push(line("failed", 1, Dash::Solid, mean(|s| s.failed)));
    Some(over_time(
        format!("Rate, {}", stream.name),
        outcome,
        Axis::linear("Per second", most(&lines), Steps::Whole, units::short),
        lines,
        units::per_second,
    ))
}

fn is_kept(plan: &Plan, stream: &str) -> bool {
    let planned = plan.streams.iter().find(|s| s.name == stream);
    planned.is_some_and(|s| s.profile.is_kept())
}

/// p50, p99 and the largest of each second, from the planned start.
pub fn latency(outcome: &Outcome, stream: &StreamOutcome) -> Option<Chart> {
    let mut merged: Vec<(f64, Latencies)> = Vec::new();
    for bucket in buckets(&stream.seconds) {
        let mut all = Latencies::default();
        for second in bucket.seconds {
            all.merge(&second.session);
        }
        if !all.0.is_empty() {
            merged.push((bucket.middle, all));
        }
    }
    if merged.is_empty() {
        return None;
    }
    let at = |percentile: f64| -> Vec<(f64, f64)> {
        merged
            .iter()
            .map(|(x, all)| (*x, all.0.value_at_percentile(percentile) as f64))
            .collect()
    };
    let lines = vec![
        line("largest", 1, Dash::Dotted, at(100.0)),
        line("p99", 3, Dash::Dashed, at(99.0)),
        line("p50", 0, Dash::Solid, at(50.0)),
    ];
    let (least, most) = medians::extent(lines.iter().flat_map(|l| &l.points).map(|p| p.1))?;
    Some(over_time(
        format!("Latency from the planned start, {}", stream.name),
        outcome,
        Axis::latency("Latency", least, most),
        lines,
        units::micros,
    ))
}

/// Connections of every stream.
pub fn open(outcome: &Outcome) -> Option<Chart> {
    let lines: Vec<Line> = outcome
        .streams
        .iter()
        .enumerate()
        .filter(|(_, stream)| stream.seconds.iter().any(|s| s.open > 0))
        .map(|(number, stream)| {
            let points = buckets(&stream.seconds)
                .iter()
                .filter_map(|b| Some((b.middle, b.seconds.last()?.open as f64)))
                .collect();
            let dash = [Dash::Solid, Dash::Dashed, Dash::Dotted][number % 3];
            line(&stream.name, number, dash, points)
        })
        .collect();
    if lines.is_empty() {
        return None;
    }
    Some(over_time(
        "Connections open".to_owned(),
        outcome,
        Axis::linear("Connections", most(&lines), Steps::Whole, units::short),
        lines,
        |y| units::grouped(y as u64),
    ))
}

/// CPU of the watched process between samples, in hundredths of one core.
pub fn cpu(outcome: &Outcome) -> Option<Chart> {
    let points: Vec<_> = thinned(&outcome.samples)
        .windows(2)
        .filter(|pair| pair[1].at > pair[0].at)
        .map(|pair| {
            let (at, before) = (pair[1].at.as_secs_f64(), pair[0].at.as_secs_f64());
            let used = pair[1].cpu.saturating_sub(pair[0].cpu).as_secs_f64();
            ((at + before) / 2.0, 100.0 * used / (at - before))
        })
        .collect();
    if points.is_empty() {
        return None;
    }
    let lines = vec![line("user and system", 0, Dash::Solid, points)];
    Some(over_time(
        "CPU of the watched process".to_owned(),
        outcome,
        Axis::linear("Percent of one core", most(&lines), Steps::Decimal, percent),
        lines,
        percent,
    ))
}

/// Resident memory, and what the kernel holds more than before the run.
pub fn memory(outcome: &Outcome) -> Option<Chart> {
    let samples = thinned(&outcome.samples);
    let first = *samples.first()?;
    let more = |of: fn(&Sample) -> u64| -> Vec<(f64, f64)> {
        samples
            .iter()
            .map(|s| (s.at.as_secs_f64(), of(s) as f64 - of(&first) as f64))
            .collect()
    };
    let rss = samples
        .iter()
        .map(|s| (s.at.as_secs_f64(), s.rss_octets as f64))
        .collect();
    let lines = vec![
        line("resident, of the process", 0, Dash::Solid, rss),
        line(
            "TCP buffers, whole machine, since the start",
            3,
            Dash::Dashed,
            more(|s| s.tcp_octets),
        ),
        line(
            "kernel slab, whole machine, since the start",
            4,
            Dash::Dotted,
            more(|s| s.slab_octets),
        ),
    ];
    let (least, most) = medians::extent(lines.iter().flat_map(|l| &l.points).map(|p| p.1))?;
    Some(over_time(
        "Memory".to_owned(),
        outcome,
        Axis::spanning("Memory", least, most, Steps::Binary, units::octets),
        lines,
        units::octets,
    ))
}

fn percent(value: f64) -> String {
    format!("{}%", units::three_digits(value))
}

fn line(name: &str, number: usize, dash: Dash, points: Vec<(f64, f64)>) -> Line {
    // a single point is no line: it is shown by its marker
    let marks = if points.len() == 1 {
        points.clone()
    } else {
        Vec::new()
    };
    Line {
        name: name.to_owned(),
        look: Look::new(number, dash),
        points,
        marks,
    }
}

fn most(lines: &[Line]) -> f64 {
    medians::extent(lines.iter().flat_map(|l| &l.points).map(|p| p.1)).map_or(0.0, |(_, most)| most)
}

fn over_time(
    title: String,
    outcome: &Outcome,
    y: Axis,
    lines: Vec<Line>,
    unit: fn(f64) -> String,
) -> Chart {
    let ends = medians::extent(lines.iter().flat_map(|l| &l.points).map(|p| p.0));
    let ends = ends.map_or(0.0, |(_, last)| last);
    let warmup = outcome.plan.warmup.as_secs_f64();
    Chart {
        title,
        says: lines
            .iter()
            .map(|l| in_words(l, unit))
            .collect::<Vec<_>>()
            .join(" "),
        x: Axis::time(ends.max(outcome.plan.lasts.as_secs_f64())),
        y,
        lines,
        marks: [warmup, outcome.plan.lasts.as_secs_f64()]
            .into_iter()
            .filter(|at| *at > 0.0 && *at < ends - 1.0)
            .collect(),
        height: HEIGHT,
    }
}

fn in_words(line: &Line, unit: fn(f64) -> String) -> String {
    match medians::extent(line.points.iter().map(|p| p.1)) {
        Some((least, most)) => format!("{}: {} to {}.", line.name, unit(least), unit(most)),
        None => format!("{}: nothing.", line.name),
    }
}

/// Neighbouring seconds that become one point.
struct Bucket<'a> {
    middle: f64,
    seconds: &'a [Second],
}

fn buckets(seconds: &[Second]) -> Vec<Bucket<'_>> {
    let size = seconds.len().div_ceil(POINTS_MAX).max(1);
    seconds
        .chunks(size)
        .enumerate()
        .map(|(number, seconds)| Bucket {
            middle: (number * size) as f64 + seconds.len() as f64 / 2.0,
            seconds,
        })
        .collect()
}

/// Every n-th sample, and the last.
fn thinned(samples: &[Sample]) -> Vec<Sample> {
    let every = samples.len().div_ceil(POINTS_MAX).max(1);
    let mut thinned: Vec<_> = samples.iter().step_by(every).copied().collect();
    if let Some(last) = samples.last()
        && thinned.last() != Some(last)
    {
        thinned.push(*last);
    }
    thinned
}

/// The plan's own starts a second, where it has some.
fn planned(plan: &Plan, stream: &str) -> Option<Vec<(f64, f64)>> {
    let stream = plan.streams.iter().find(|s| s.name == stream)?;
    let Arrivals::Open { steps, .. } = &stream.arrivals else {
        return None;
    };
    let mut points = Vec::new();
    let (mut at, lasts) = (0.0, plan.lasts.as_secs_f64());
    for step in steps {
        let length = step.lasts.as_secs_f64();
        if length <= 0.0 || at >= lasts {
            continue;
        }
        let end = (at + length).min(lasts);
        points.push((at, step.from));
        points.push((end, step.from + (step.to - step.from) * (end - at) / length));
        at = end;
    }
    (!points.is_empty()).then_some(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_become_few_points() {
        let seconds = vec![Second::default(); 600];
        let buckets = buckets(&seconds);
        assert_eq!(buckets.len(), POINTS_MAX);
        assert_eq!(buckets[0].middle, 1.0);
        assert_eq!(buckets.iter().map(|b| b.seconds.len()).sum::<usize>(), 600);
        assert!(super::buckets(&[]).is_empty());
    }

    #[test]
    fn the_last_sample_is_kept() {
        let samples: Vec<_> = (0..1_000)
            .map(|n| Sample {
                rss_octets: n,
                ..Sample::default()
            })
            .collect();
        let thinned = thinned(&samples);
        assert!(thinned.len() <= POINTS_MAX + 1);
        assert_eq!(thinned[thinned.len() - 1].rss_octets, 999);
    }
}
