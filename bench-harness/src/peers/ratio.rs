//! How two peers compare.

use crate::medians::median;
use crate::outcome::{Comparison, PeerRounds};

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
