//! How long a reply takes: a distribution, and a draw from it.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// No reply takes longer; what does not answer at all is a stall.
pub const DELAY_MAX: Duration = Duration::from_secs(600);

/// A distribution of delays. Draws are cut at 0 and at [`DELAY_MAX`]; tokio's timer makes steps of a millisecond of them, rounded up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Delay {
    Constant(Duration),
    Uniform(Duration, Duration),
    Normal { mean: Duration, deviation: Duration },
    Exponential { mean: Duration },
    LogNormal { median: Duration, sigma: f64 },
}

impl Delay {
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Duration {
        let seconds = match *self {
            Delay::Constant(delay) => return delay,
            Delay::Uniform(from, to) => from.as_secs_f64() + rng.f64() * (to - from).as_secs_f64(),
            Delay::Normal { mean, deviation } => {
                mean.as_secs_f64() + deviation.as_secs_f64() * normal(rng)
            }
            // 1 - f64() is never 0
            Delay::Exponential { mean } => -mean.as_secs_f64() * (1.0 - rng.f64()).ln(),
            Delay::LogNormal { median, sigma } => {
                median.as_secs_f64() * (sigma * normal(rng)).exp()
            }
        };
        Duration::from_secs_f64(seconds.clamp(0.0, DELAY_MAX.as_secs_f64()))
    }
}

/// One draw of the standard normal distribution (Box and Muller).
fn normal(rng: &mut fastrand::Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.f64()).cos()
}

/// `50ms`, `uniform(10ms..20ms)`, `normal(50ms,5ms)`, `exponential(20ms)`, `lognormal(20ms,0.5)`.
impl FromStr for Delay {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Delay> {
        let Some((name, rest)) = text.split_once('(') else {
            return Ok(Delay::Constant(duration(text)?));
        };
        let inner = rest
            .strip_suffix(')')
            .with_context(|| format!("`{text}` lacks its closing bracket"))?;
        Ok(match name {
            "constant" => Delay::Constant(duration(inner)?),
            "uniform" => {
                let (from, to) = pair(inner, "..", "uniform(10ms..20ms)")?;
                let (from, to) = (duration(from)?, duration(to)?);
                ensure!(from <= to, "`{text}` ends before it begins");
                Delay::Uniform(from, to)
            }
            "normal" => {
                let (mean, deviation) = pair(inner, ",", "normal(50ms,5ms)")?;
                Delay::Normal {
                    mean: duration(mean)?,
                    deviation: duration(deviation)?,
                }
            }
            "exponential" => Delay::Exponential {
                mean: duration(inner)?,
            },
            "lognormal" => {
                let (median, sigma) = pair(inner, ",", "lognormal(20ms,0.5)")?;
                let sigma: f64 = sigma
                    .parse()
                    .with_context(|| format!("`{sigma}` is no number"))?;
                ensure!((0.0..=10.0).contains(&sigma), "a sigma is 0 to 10");
                Delay::LogNormal {
                    median: duration(median)?,
                    sigma,
                }
            }
            _ => bail!("`{name}` is none of constant, uniform, normal, exponential, lognormal"),
        })
    }
}

fn pair<'a>(text: &'a str, separator: &str, example: &str) -> anyhow::Result<(&'a str, &'a str)> {
    text.split_once(separator)
        .with_context(|| format!("`{text}` should be two values, as in {example}"))
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)
        .with_context(|| format!("`{text}` is no time, as 50ms or 2s"))?;
    ensure!(duration <= DELAY_MAX, "`{text}` is more than {DELAY_MAX:?}");
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and median of many draws, in milliseconds.
    fn shape(text: &str) -> (f64, f64) {
        let delay: Delay = text.parse().unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut draws: Vec<f64> = (0..20_001)
            .map(|_| delay.draw(&mut rng).as_secs_f64() * 1000.0)
            .collect();
        draws.sort_by(f64::total_cmp);
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        (mean, draws[draws.len() / 2])
    }

    #[test]
    fn draws_have_the_shape_of_their_distribution() {
        // expected mean and median, milliseconds
        let table = [
            ("50ms", 50.0, 50.0),
            ("constant(50ms)", 50.0, 50.0),
            ("uniform(10ms..20ms)", 15.0, 15.0),
            ("normal(50ms,5ms)", 50.0, 50.0),
            ("exponential(20ms)", 20.0, 20.0 * std::f64::consts::LN_2),
            ("lognormal(20ms,0.5)", 20.0 * 0.125f64.exp(), 20.0),
        ];
        for (text, mean, median) in table {
            let (seen_mean, seen_median) = shape(text);
            assert!(
                (seen_mean - mean).abs() < mean * 0.03,
                "{text}: {seen_mean}"
            );
            assert!(
                (seen_median - median).abs() < median * 0.03,
                "{text}: {seen_median}"
            );
        }
    }

    #[test]
    fn draws_are_never_negative_and_have_an_end() {
        let mut rng = fastrand::Rng::with_seed(1);
        for text in [
            "normal(1ms,500ms)",
            "lognormal(600s,10)",
            "exponential(600s)",
        ] {
            let delay: Delay = text.parse().unwrap();
            for _ in 0..5000 {
                assert!(delay.draw(&mut rng) <= DELAY_MAX);
            }
        }
    }

    #[test]
    fn what_is_no_delay_says_why() {
        for (text, want) in [
            ("50", "no time"),
            ("soon", "no time"),
            ("2h", "more than"),
            ("uniform(10ms)", "two values"),
            ("uniform(20ms..10ms)", "ends before"),
            ("uniform(10ms..20ms", "closing bracket"),
            ("lognormal(1ms,x)", "no number"),
            ("lognormal(1ms,-1)", "0 to 10"),
            ("lognormal(1ms,NaN)", "0 to 10"),
            ("pareto(1ms)", "none of"),
        ] {
            let error = format!("{:#}", text.parse::<Delay>().unwrap_err());
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
