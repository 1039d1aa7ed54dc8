//! When starts are due: constant or Poisson arrivals along a plan of rates.
//!
//! Both are made in the same way. Let `L(t)` be the number of starts the plan expects until `t`: a line where the rate is constant, a
//! parabola where it climbs. Places are laid out along `L` (one apart for constant arrivals, exponentially spread for Poisson) and led
//! back to times by the inverse of `L`. So a ramp is no stair of constant rates, and the number of starts is exact.
//! No clock in here: times count from the start of the plan.

use std::time::Duration;

use anyhow::ensure;

use crate::plan::{Pattern, Step};

/// Yields the time of every start, in order.
pub struct Schedule {
    pieces: Vec<Piece>,
    pattern: Pattern,
    chance: fastrand::Rng,
    /// Where on `L` the next start is.
    place: f64,
    /// Nothing starts from here on.
    lasts: Duration,
}

/// A step with what was before it.
struct Piece {
    step: Step,
    begins: f64,
    starts_before: f64,
}

/// Shares of a rate do not add up to the last bit: a start so near to the end of its piece belongs to the next.
const ROUNDING: f64 = 1e-6;

impl Schedule {
    /// Constant arrivals of several processes are set off by `process`, so that they do not all start at once.
    pub fn new(
        steps: &[Step],
        pattern: Pattern,
        lasts: Duration,
        process: u16,
        seed: u64,
    ) -> anyhow::Result<Schedule> {
        const GOLDEN: f64 = 0.618_033_988_749_895;
        let mut chance = fastrand::Rng::with_seed(seed);
        let place = match pattern {
            Pattern::Constant => (f64::from(process) * GOLDEN).fract(),
            Pattern::Poisson => exponential(&mut chance),
        };
        Ok(Schedule {
            pieces: pieces(steps)?,
            pattern,
            chance,
            place,
            lasts,
        })
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let piece = self
            .pieces
            .iter()
            .find(|piece| self.place + ROUNDING < piece.starts_before + piece.starts())?;
        let at = piece.begins + piece.time_of((self.place - piece.starts_before).max(0.0));
        self.place += match self.pattern {
            Pattern::Constant => 1.0,
            Pattern::Poisson => exponential(&mut self.chance),
        };
        Duration::try_from_secs_f64(at)
            .ok()
            .filter(|at| *at < self.lasts)
    }
}

fn pieces(steps: &[Step]) -> anyhow::Result<Vec<Piece>> {
    let (mut begins, mut starts_before) = (0.0, 0.0);
    let mut pieces = Vec::with_capacity(steps.len());
    for &step in steps {
        for rate in [step.from, step.to] {
            ensure!(
                rate.is_finite() && rate >= 0.0,
                "a rate of {rate} starts a second cannot be"
            );
        }
        let piece = Piece {
            step,
            begins,
            starts_before,
        };
        begins += step.lasts.as_secs_f64();
        starts_before += piece.starts();
        pieces.push(piece);
    }
    Ok(pieces)
}

impl Piece {
    /// How many starts are in it.
    fn starts(&self) -> f64 {
        (self.step.from + self.step.to) / 2.0 * self.step.lasts.as_secs_f64()
    }

    /// When its `place`-th start is due, in seconds from its begin: `from * t + slope / 2 * t^2 = place`, solved without cancellation.
    fn time_of(&self, place: f64) -> f64 {
        let Step { from, to, lasts } = self.step;
        let slope = (to - from) / lasts.as_secs_f64();
        let root = (from * from + 2.0 * slope * place).max(0.0).sqrt();
        if place > 0.0 {
            2.0 * place / (from + root)
        } else {
            0.0
        }
    }
}

/// A distance between Poisson arrivals, of mean 1.
fn exponential(chance: &mut fastrand::Rng) -> f64 {
    -(1.0 - chance.f64()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(from: f64, to: f64, seconds: u64) -> Step {
        Step {
            from,
            to,
            lasts: Duration::from_secs(seconds),
        }
    }

    fn times(steps: &[Step], pattern: Pattern, seed: u64) -> Vec<f64> {
        Schedule::new(steps, pattern, Duration::from_secs(1000), 0, seed)
            .unwrap()
            .map(|at| at.as_secs_f64())
            .collect()
    }

    fn within(times: &[f64], from: f64, to: f64) -> usize {
        times.iter().filter(|at| (from..to).contains(*at)).count()
    }

    #[test]
    fn constant_starts_are_a_period_apart() {
        let times = times(&[step(1000.0, 1000.0, 10)], Pattern::Constant, 1);
        assert_eq!(times.len(), 10_000);
        for (number, at) in times.iter().enumerate() {
            assert!((at - number as f64 / 1000.0).abs() < 1e-6, "{number} {at}");
        }
    }

    #[test]
    fn a_ramp_climbs_without_stairs() {
        let times = times(&[step(0.0, 1000.0, 10)], Pattern::Constant, 1);
        assert_eq!(times.len(), 5000);
        assert_eq!(within(&times, 0.0, 1.0), 50);
        assert_eq!(within(&times, 9.0, 10.0), 950);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.windows(2).all(|pair| pair[1] < pair[0] + 1e-9));
    }

    #[test]
    fn steps_follow_each_other_and_a_pause_is_one() {
        let steps = [
            step(100.0, 100.0, 2),
            step(0.0, 0.0, 3),
            step(400.0, 200.0, 2),
        ];
        let times = times(&steps, Pattern::Constant, 1);
        assert_eq!(times.len(), 800);
        assert_eq!(within(&times, 0.0, 2.0), 200);
        assert_eq!(within(&times, 2.0, 5.0), 0);
        assert_eq!(within(&times, 5.0, 6.0), 350);
        assert!(times.is_sorted());
    }

    #[test]
    fn poisson_starts_have_the_mean_and_the_spread_of_their_name() {
        let times = times(&[step(1000.0, 1000.0, 100)], Pattern::Poisson, 7);
        let count = times.len() as f64;
        assert!((count - 100_000.0).abs() < 4.0 * 100_000_f64.sqrt());
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        assert!((mean - 0.001).abs() < 0.000_02, "{mean}");
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.03, "{variance}");
    }

    #[test]
    fn a_seed_repeats_itself_and_no_other() {
        let steps = [step(10.0, 500.0, 5)];
        let first = times(&steps, Pattern::Poisson, 3);
        assert_eq!(first, times(&steps, Pattern::Poisson, 3));
        assert_ne!(first, times(&steps, Pattern::Poisson, 4));
    }

    #[test]
    fn processes_share_a_plan_and_do_not_start_together() {
        let share = [step(1000.0 / 3.0, 1000.0 / 3.0, 9)];
        let lasts = Duration::from_secs(9);
        let mut all: Vec<f64> = (0..3)
            .flat_map(|process| {
                Schedule::new(&share, Pattern::Constant, lasts, process, 1).unwrap()
            })
            .map(|at| at.as_secs_f64())
            .collect();
        all.sort_by(f64::total_cmp);
        assert_eq!(all.len(), 9000);
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] > 0.000_1));
    }

    #[test]
    fn nothing_starts_when_the_plan_is_over() {
        let lasts = Duration::from_secs(2);
        let schedule =
            Schedule::new(&[step(50.0, 50.0, 10)], Pattern::Constant, lasts, 0, 1).unwrap();
        assert_eq!(schedule.count(), 100);
    }

    #[test]
    fn rates_that_cannot_be_are_refused() {
        for rate in [-1.0, f64::NAN, f64::INFINITY] {
            let steps = [step(rate, 1.0, 1)];
            assert!(
                Schedule::new(&steps, Pattern::Constant, Duration::MAX, 0, 1).is_err(),
                "{rate}"
            );
        }
    }
}
