//! What held connections cost: memory of the watched process and of the kernel for each, and the share of a core while all were open.

use std::time::Duration;

use crate::outcome::{Outcome, Sample, StreamOutcome};
use crate::units::{grouped, octets, time};

/// What a held client costs, from the samples of the watched process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub connections: u64,
    /// Growth of RSS for each.
    pub rss_octets: f64,
    /// Growth of TCP buffers and slab of the whole machine for each: both ends, where both are here.
    pub kernel_octets: f64,
    /// CPU time while all were open, as a share of one core.
    pub cpu_share: f64,
    /// How long all were open.
    pub kept_for: Duration,
}

/// None without a watched process, or where the connections were not all open for two samples.
pub fn cost(outcome: &Outcome) -> Option<Cost> {
    let before = outcome.samples.first()?;
    let (from, to, connections) = plateau(outcome)?;
    let all_open: Vec<&Sample> = outcome
        .samples
        .iter()
        .filter(|sample| (from..to).contains(&sample.at))
        .collect();
    let (first, last) = (all_open.first()?, all_open.last()?);
    let kept_for = last
        .at
        .checked_sub(first.at)
        .filter(|time| !time.is_zero())?;
    let kernel = |sample: &Sample| (sample.tcp_octets + sample.slab_octets) as f64;
    let each = |growth: f64| growth / connections as f64;
    Some(Cost {
        connections,
        rss_octets: each(last.rss_octets as f64 - before.rss_octets as f64),
        kernel_octets: each(kernel(last) - kernel(before)),
        cpu_share: (last.cpu.saturating_sub(first.cpu)).as_secs_f64() / kept_for.as_secs_f64(),
        kept_for,
    })
}

/// From when to when at least nineteen in twenty of the most that were ever open were open, and how many that is.
///
/// Clients that a server turns away are replaced, so that a number is never quite held; the last second is torn down in.
fn plateau(outcome: &Outcome) -> Option<(Duration, Duration, u64)> {
    let open = open_by_second(&outcome.streams);
    let most = open.iter().copied().max().filter(|most| *most > 0)?;
    let is_full = |open: &u64| *open * 20 >= most * 19;
    let first = open.iter().position(is_full)?;
    let last = open.iter().rposition(is_full)?;
    // `open` is counted at the end of a second.
    let second = |at: usize| Duration::from_secs(at as u64 + 1);
    Some((second(first), second(last).min(outcome.plan.lasts), most))
}

fn open_by_second(streams: &[StreamOutcome]) -> Vec<u64> {
    let length = streams
        .iter()
        .map(|stream| stream.seconds.len())
        .max()
        .unwrap_or(0);
    (0..length)
        .map(|at| {
            streams
                .iter()
                .filter_map(|stream| stream.seconds.get(at))
                .map(|second| second.open)
                .sum()
        })
        .collect()
}

/// What `hold` prints.
pub fn text(outcome: &Outcome) -> String {
    let open = open_by_second(&outcome.streams);
    let planned_seconds = outcome.plan.lasts.as_secs() as usize;
    let alive = open
        .get(planned_seconds.clamp(1, open.len().max(1)) - 1)
        .copied()
        .unwrap_or(0);
    let most = open.iter().copied().max().unwrap_or(0);
    let mut text = format!(
        "{} · {} · {}\n{} alive at the end, {} at most\n",
        outcome.name,
        outcome.plan.target,
        time(outcome.lasted),
        grouped(alive),
        grouped(most)
    );
    for warning in &outcome.machine.warnings {
        text += &format!("warning: {warning}\n");
    }
    for stream in &outcome.streams {
        text += &stream_text(stream);
    }
    text += &match cost(outcome) {
        Some(cost) => cost_text(&cost),
        None if outcome.samples.is_empty() => {
            "nobody was watched: name the process with --watch PID\n".to_owned()
        }
        None => "they were not all open long enough to say what they cost: make --for longer\n"
            .to_owned(),
    };
    text
}

fn stream_text(stream: &StreamOutcome) -> String {
    let counts = &stream.counts;
    let mut text = format!(
        "{}: {} opened, {} dropped · {} refused by TCP, {} turned away, {} reset, {} closed by the other side\n",
        stream.name,
        grouped(counts.starts),
        grouped(counts.dropped),
        grouped(counts.connect_failed),
        grouped(counts.turned_away),
        grouped(counts.resets),
        grouped(counts.closed_early),
    );
    if !stream.kept.0.is_empty() {
        text += &format!(
            "{} were let go by the other side, after {} (p50), {} (p99), {} (max)\n",
            grouped(stream.kept.0.len()),
            time(stream.kept.at(50.0)),
            time(stream.kept.at(99.0)),
            time(stream.kept.at(100.0))
        );
    }
    for (words, count) in &stream.words {
        text += &format!("heard {} × {words}\n", grouped(*count));
    }
    text
}

fn cost_text(cost: &Cost) -> String {
    let whole = (cost.rss_octets * cost.connections as f64).max(0.0);
    format!(
        "the watched process pays for each of {}: {:.0} octets of RSS ({} together), {:.0} octets of kernel memory (both ends), {:.2} % of a core for all, over {}\n",
        grouped(cost.connections),
        cost.rss_octets,
        octets(whole),
        cost.kernel_octets,
        cost.cpu_share * 100.0,
        time(cost.kept_for)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::samples::plan;
    use crate::outcome::Second;

    /// Opened within two seconds, kept for six, gone after the eighth.
    fn outcome() -> Outcome {
        let mut plan = plan(&["bots: profile=idle connections=1000"]);
        plan.lasts = Duration::from_secs(8);
        let open = [500, 1000, 990, 1000, 1000, 1000, 1000, 1000, 0];
        let bots = StreamOutcome {
            name: "bots".to_owned(),
            seconds: open
                .map(|open| Second {
                    open,
                    ..Second::default()
                })
                .to_vec(),
            ..StreamOutcome::default()
        };
        // While opening a second of CPU, then a hundredth of a second every second.
        let samples = (0..=9)
            .map(|second| Sample {
                at: Duration::from_secs(second),
                cpu: Duration::from_millis(if second < 2 {
                    500 * second
                } else {
                    1000 + 10 * (second - 2)
                }),
                rss_octets: 1_000_000
                    + if (1..=8).contains(&second) {
                        256_000
                    } else {
                        0
                    },
                tcp_octets: 0,
                slab_octets: 5_000_000
                    + if (1..=8).contains(&second) {
                        3_000_000
                    } else {
                        0
                    },
            })
            .collect();
        Outcome {
            samples,
            ..Outcome::of(plan, vec![bots])
        }
    }

    #[test]
    fn opening_and_closing_are_not_charged() {
        let cost = cost(&outcome()).unwrap();
        assert_eq!(
            (cost.connections, cost.rss_octets, cost.kernel_octets),
            (1000, 256.0, 3000.0)
        );
        assert!((cost.cpu_share - 0.01).abs() < 1e-9, "{cost:?}");
        assert_eq!(cost.kept_for, Duration::from_secs(5));
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let mut unwatched = outcome();
        unwatched.samples.clear();
        assert_eq!(cost(&unwatched), None);
        assert!(text(&unwatched).contains("--watch"));
        let mut refused = outcome();
        refused.streams[0]
            .seconds
            .iter_mut()
            .for_each(|second| second.open = 0);
        assert_eq!(cost(&refused), None);
        assert!(text(&refused).contains("0 alive"));
    }

    #[test]
    fn the_text_tells_who_lives_and_what_it_costs() {
        let text = text(&outcome());
        for words in [
            "1,000 alive at the end",
            "256 octets of RSS",
            "3000 octets of kernel",
            "1.00 % of a core",
        ] {
            assert!(text.contains(words), "{words} is missing in {text}");
        }
    }
}
