//! What rounds come to: median, least, most, and the ratio of two peers.

use crate::outcome::{Comparison, PeerRounds};

/// The middle of the values, the mean of the two middle ones where their number is even; None without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[half]),
        _ => Some((sorted[half - 1] + sorted[half]) / 2.0),
    }
}

pub fn least(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

pub fn most(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

/// Which round is nearest to the median: it stands for the others where only one can be shown.
pub fn typical(values: &[f64]) -> Option<usize> {
    let middle = median(values)?;
    let distance = |at: &usize| (values[*at] - middle).abs();
    (0..values.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

/// CPU per message of a peer to that of another, medians of both.
pub fn cpu_ratio(comparison: &Comparison, of: &str, to: &str) -> Option<f64> {
    let median_of = |name: &str| median(&peer(comparison, name)?.cpu_us);
    let (of, to) = (median_of(of)?, median_of(to)?);
    (to > 0.0).then(|| of / to)
}

pub fn peer<'a>(comparison: &'a Comparison, name: &str) -> Option<&'a PeerRounds> {
    comparison.peers.iter().find(|peer| peer.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_rounds() {
        for (values, want) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 5.0], Some(5.0)),
            (&[4.0, 1.0, 3.0, 100.0], Some(3.5)),
        ] {
            assert_eq!(median(values), want, "{values:?}");
        }
        assert_eq!(least(&[3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(most(&[3.0, 1.0, 2.0]), Some(3.0));
        assert_eq!(typical(&[9.0, 1.0, 5.0]), Some(2));
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn ratios_are_of_medians_and_only_where_both_have_some() {
        let rounds = |name: &str, cpu_us: &[f64]| PeerRounds {
            name: name.to_owned(),
            cpu_us: cpu_us.to_vec(),
            ..PeerRounds::default()
        };
        let comparison = Comparison {
            peers: vec![
                rounds("haproxy", &[100.0, 120.0, 80.0]),
                rounds("weir", &[50.0, 40.0, 900.0]),
                rounds("direct", &[]),
            ],
            ..Comparison::default()
        };
        assert_eq!(cpu_ratio(&comparison, "weir", "haproxy"), Some(0.5));
        assert_eq!(cpu_ratio(&comparison, "direct", "haproxy"), None);
        assert_eq!(cpu_ratio(&comparison, "weir", "postfix"), None);
    }
}
