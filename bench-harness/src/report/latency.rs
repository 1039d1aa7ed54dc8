//! Latency by percentile: the curve of HdrHistogram, as the planned start and as the step itself see it.
//!
//! Both are in one drawing, because what lies between them is the wait that a closed-loop tool does not see (coordinated omission).

use super::axis::Axis;
use super::charts::{Chart, Line};
use super::svg::{Dash, Look};
use crate::outcome::{Latencies, StageTimes};
use crate::{medians, units};

/// One run or peer.
pub struct Seen<'a> {
    pub name: &'a str,
    /// Stays with the name through all charts of a page.
    pub number: usize,
    pub times: &'a StageTimes,
}

/// Points for each halving of what is left.
const POINTS_PER_HALVING: u32 = 6;
/// Where markers stand, in percent.
const MARKED: [f64; 6] = [50.0, 90.0, 99.0, 99.9, 99.99, 99.999];

/// None where nothing was measured.
pub fn chart(title: String, seen: &[Seen<'_>]) -> Option<Chart> {
    let measured: Vec<_> = seen
        .iter()
        .filter(|s| !s.times.planned.0.is_empty() || !s.times.service.0.is_empty())
        .collect();
    let samples = measured
        .iter()
        .map(|s| s.times.planned.0.len().max(s.times.service.0.len()))
        .max()?;
    let lines: Vec<Line> = measured.iter().flat_map(|s| lines_of(s)).collect();
    let (least, most) =
        medians::extent(lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y))?;
    Some(Chart {
        title,
        says: measured
            .iter()
            .map(|s| in_words(s))
            .collect::<Vec<_>>()
            .join(" "),
        x: Axis::percentiles(samples),
        y: Axis::latency("Latency", least, most),
        lines,
        marks: Vec::new(),
        height: 420,
    })
}

fn lines_of(seen: &Seen<'_>) -> Vec<Line> {
    [
        (&seen.times.planned, Dash::Solid, "from the planned start"),
        (&seen.times.service, Dash::Dashed, "service time"),
    ]
    .into_iter()
    .filter(|(latencies, _, _)| !latencies.0.is_empty())
    .map(|(latencies, dash, how)| Line {
        name: format!("{}: {how}", seen.name),
        look: Look::new(seen.number, dash),
        points: curve(latencies),
        marks: marks(latencies),
    })
    .collect()
}

/// Pairs of 1/(1-p) and microseconds, from the smallest to the largest value seen.
pub fn curve(latencies: &Latencies) -> Vec<(f64, f64)> {
    let histogram = &latencies.0;
    let tail = (histogram.len() as f64).max(1.0);
    histogram
        .iter_quantiles(POINTS_PER_HALVING)
        .map(|step| {
            let left = (1.0 - step.quantile_iterated_to()).max(1.0 / tail);
            (
                1.0 / left,
                step.value_iterated_to().min(histogram.max()) as f64,
            )
        })
        .collect()
}

fn marks(latencies: &Latencies) -> Vec<(f64, f64)> {
    let samples = latencies.0.len() as f64;
    MARKED
        .into_iter()
        .map(|percentile| (percentile, 1.0 / (1.0 - percentile / 100.0)))
        .filter(|(_, x)| *x <= samples.max(2.0))
        .map(|(percentile, x)| (x, latencies.0.value_at_percentile(percentile) as f64))
        .collect()
}

fn in_words(seen: &Seen<'_>) -> String {
    let of = |latencies: &Latencies| {
        format!(
            "p50 {}, p99 {}, largest {}",
            units::duration(latencies.at(50.0)),
            units::duration(latencies.at(99.0)),
            units::micros(latencies.0.max() as f64)
        )
    };
    format!(
        "{}: {} from the planned start, {} as service time.",
        seen.name,
        of(&seen.times.planned),
        of(&seen.times.service)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_rises_and_ends_at_the_largest() {
        for samples in [1u64, 2, 10, 5_000] {
            let mut latencies = Latencies::default();
            for n in 1..=samples {
                latencies.0.record(n * 37).unwrap();
            }
            let curve = curve(&latencies);
            assert!(
                curve
                    .windows(2)
                    .all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1)
            );
            let (x, y) = curve[curve.len() - 1];
            assert_eq!(x, samples as f64);
            assert_eq!(y, latencies.0.max() as f64);
        }
    }

    #[test]
    fn nothing_measured_is_no_chart() {
        let times = StageTimes::default();
        let seen = Seen {
            name: "a",
            number: 0,
            times: &times,
        };
        assert!(chart(String::new(), &[seen]).is_none());
    }
}
