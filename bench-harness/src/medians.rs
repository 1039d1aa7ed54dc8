//! What several rounds come to: the middle, the ends, the round that stands for all.

/// The middle one, or the mean of the middle two. None of nothing.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n.is_multiple_of(2) => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
        _ => Some(sorted[middle]),
    }
}

/// Smallest and largest. None of nothing.
pub fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .into_iter()
        .filter(|v| v.is_finite())
        .fold(None, |extent, v| match extent {
            None => Some((v, v)),
            Some((least, most)) => Some((f64::min(least, v), f64::max(most, v))),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_the_typical_one() {
        assert_eq!(least(&[3.0, 1.0, 2.0]), Some(1.0));
        assert_eq!(most(&[3.0, 1.0, 2.0]), Some(3.0));
        assert_eq!(typical(&[9.0, 1.0, 5.0]), Some(2));
        assert_eq!(typical(&[]), None);
    }

    #[test]
    fn the_median_is_the_middle() {
        for (values, want) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 2.0, 3.0], Some(2.5)),
            (&[f64::NAN, 1.0], Some(1.0)),
        ] {
            assert_eq!(median(values), want);
        }
    }
}
