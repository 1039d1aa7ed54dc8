//! Axes with ticks a reader expects: 50 %, 90 %, 99 %; 1, 2, 5; 30 s, 1 min. Each says its unit.

use crate::units;

/// One axis: its title with the unit, how values become positions, and where the ticks are.
#[derive(Debug, Clone)]
pub struct Axis {
    pub title: String,
    pub scale: Scale,
    /// Positions (not values) of both ends.
    pub from: f64,
    pub to: f64,
    /// Positions with their labels.
    pub ticks: Vec<(f64, String)>,
    /// Positions of lighter lines without a label.
    pub light: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    Linear,
    Logarithmic,
}

/// Beyond a millionth the curve is one session.
const TAIL_MAX: f64 = 1e6;
/// So much apart and a linear axis would press the smaller values flat.
const LINEAR_SPAN_MAX: f64 = 20.0;
/// Percentiles shown, as 1/(1-p).
const PERCENTILES: [(f64, &str); 8] = [
    (1.0, "0%"),
    (2.0, "50%"),
    (10.0, "90%"),
    (100.0, "99%"),
    (1e3, "99.9%"),
    (1e4, "99.99%"),
    (1e5, "99.999%"),
    (1e6, "99.9999%"),
];

impl Axis {
    /// Where a value is. What lies outside is drawn at the edge.
    pub fn at(&self, value: f64) -> f64 {
        let position = match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.max(f64::MIN_POSITIVE).log10(),
        };
        position.clamp(self.from, self.to)
    }

    /// 1/(1-p), logarithmic, up to where `samples` can say something.
    pub fn percentiles(samples: u64) -> Axis {
        let most = (samples as f64).clamp(10.0, TAIL_MAX);
        Axis {
            title: "Share of sessions within this latency (scale: 1/(1−p))".to_owned(),
            scale: Scale::Logarithmic,
            from: 0.0,
            to: most.log10(),
            ticks: PERCENTILES
                .iter()
                .filter(|(at, _)| *at <= most)
                .map(|(at, label)| (at.log10(), (*label).to_owned()))
                .collect(),
            light: decades(0.0, most.log10()),
        }
    }

    /// Microseconds: from zero where all are alike, logarithmic where they are decades apart.
    pub fn latency(title: &str, least: f64, most: f64) -> Axis {
        let (least, most) = (least.max(1.0), most.max(least).max(1.0));
        if most / least <= LINEAR_SPAN_MAX {
            return Axis::linear(title, most, Steps::Decimal, units::micros);
        }
        let (from, to) = (least.log10().floor(), most.log10().max(least.log10() + 1.0));
        let to = next_of_1_2_5(to);
        let parts: &[f64] = if to - from <= 3.0 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let mut ticks = Vec::new();
        for decade in from as i32..=to.ceil() as i32 {
            for part in parts {
                let position = (part * 10f64.powi(decade)).log10();
                if position <= to + 1e-9 {
                    ticks.push((position, units::micros(10f64.powf(position).round())));
                }
            }
        }
        Axis {
            title: format!("{title}, logarithmic"),
            scale: Scale::Logarithmic,
            from,
            to,
            ticks,
            light: decades(from, to),
        }
    }

    /// From zero to at least `most`, which is a tick.
    pub fn linear(title: &str, most: f64, steps: Steps, label: fn(f64) -> String) -> Axis {
        Axis::spanning(title, 0.0, most, steps, label)
    }

    /// From at most `least` and at most zero.
    pub fn spanning(
        title: &str,
        least: f64,
        most: f64,
        steps: Steps,
        label: fn(f64) -> String,
    ) -> Axis {
        let (least, most) = (least.min(0.0), most.max(0.0));
        let step = steps.step(most - least);
        let (first, last) = (
            (least / step).floor() as i64,
            ((most / step).ceil() as i64).max(1),
        );
        Axis {
            title: title.to_owned(),
            scale: Scale::Linear,
            from: first as f64 * step,
            to: last as f64 * step,
            ticks: (first..=last)
                .map(|n| (n as f64 * step, label(n as f64 * step)))
                .collect(),
            light: Vec::new(),
        }
    }

    /// Seconds since the run began; ends where the run ends, not at a round number.
    pub fn time(seconds: f64) -> Axis {
        let seconds = seconds.max(1.0);
        let mut axis = Axis::linear(
            "Time since the run began",
            seconds,
            Steps::Time,
            time_of_axis,
        );
        axis.to = seconds;
        axis.ticks.retain(|(at, _)| *at <= seconds);
        axis
    }
}

/// Which steps between ticks look round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    Decimal,
    /// Not below 1.
    Whole,
    Binary,
    Time,
}

const TICKS_WISHED: f64 = 6.0;

impl Steps {
    fn step(self, span: f64) -> f64 {
        // of nothing, one
        let span = if span > 0.0 { span } else { TICKS_WISHED };
        let wished = span / TICKS_WISHED;
        match self {
            Steps::Decimal => decimal_step(wished),
            Steps::Whole => decimal_step(wished).max(1.0),
            // powers of two: 1, 2, 4, … 512 of a unit
            Steps::Binary => wished.max(1.0).log2().ceil().exp2(),
            Steps::Time => [
                1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0,
            ]
            .into_iter()
            .find(|step| span / step <= 10.0)
            .unwrap_or_else(|| 3600.0 * (span / 36_000.0).ceil()),
        }
    }
}

fn decimal_step(wished: f64) -> f64 {
    let decade = 10f64.powf(wished.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|part| part * decade)
        .find(|step| *step >= wished * 0.999)
        .unwrap_or(10.0 * decade)
}

fn time_of_axis(seconds: f64) -> String {
    match seconds as u64 {
        s if s < 60 || s < 120 && !s.is_multiple_of(60) => format!("{s} s"),
        s if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{}:{:02} min", s / 60, s % 60),
    }
}

/// The lines at 2 to 9 between decades.
fn decades(from: f64, to: f64) -> Vec<f64> {
    (from.floor() as i32..=to.ceil() as i32)
        .flat_map(|decade| (2..10).map(move |part| f64::from(decade) + f64::from(part).log10()))
        .filter(|at| (from..=to).contains(at))
        .collect()
}

/// The next position of 1, 2 or 5 times a power of ten.
fn next_of_1_2_5(position: f64) -> f64 {
    let decade = position.floor();
    [1f64, 2.0, 5.0]
        .into_iter()
        .map(|part| decade + part.log10())
        .find(|at| *at >= position - 1e-9)
        .unwrap_or(decade + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> String {
        axis.ticks
            .iter()
            .map(|(_, label)| label.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn ticks_are_round() {
        let linear = |most| Axis::linear("", most, Steps::Decimal, units::short);
        for (axis, want) in [
            (Axis::percentiles(0), "0% 50% 90%"),
            (Axis::percentiles(20_000), "0% 50% 90% 99% 99.9% 99.99%"),
            (Axis::time(0.0), "0 s 1 s"),
            (Axis::time(60.0), "0 s 10 s 20 s 30 s 40 s 50 s 1 min"),
            (
                Axis::time(600.0),
                "0 s 1 min 2 min 3 min 4 min 5 min 6 min 7 min 8 min 9 min 10 min",
            ),
            (linear(0.0), "0 1"),
            (linear(2000.0), "0 500 1k 1.5k 2k"),
            (
                Axis::linear("", 40e6, Steps::Binary, units::octets),
                "0 B 8 MiB 16 MiB 24 MiB 32 MiB 40 MiB",
            ),
            (
                Axis::latency("", 300.0, 4_000.0),
                "0 µs 1 ms 2 ms 3 ms 4 ms",
            ),
            (
                Axis::latency("", 300.0, 40_000.0),
                "100 µs 200 µs 500 µs 1 ms 2 ms 5 ms 10 ms 20 ms 50 ms",
            ),
            (
                Axis::latency("", 5.0, 9e6),
                "1 µs 10 µs 100 µs 1 ms 10 ms 100 ms 1 s 10 s",
            ),
        ] {
            assert_eq!(labels(&axis), want);
        }
    }

    #[test]
    fn ticks_are_within_their_axis_and_few() {
        for exponent in 0..30 {
            let most = 1.7f64.powi(exponent);
            for axis in [
                Axis::latency("", 1.0, most),
                Axis::time(most),
                Axis::percentiles(most as u64),
                Axis::linear("", most, Steps::Whole, units::short),
                Axis::spanning("", -most / 3.0, most, Steps::Binary, units::octets),
            ] {
                assert!((2..=14).contains(&axis.ticks.len()), "{axis:?}");
                for (at, _) in &axis.ticks {
                    assert!((axis.from - 1e-9..=axis.to + 1e-9).contains(at), "{axis:?}");
                }
                assert_eq!(axis.at(f64::MAX), axis.to);
            }
        }
    }
}
