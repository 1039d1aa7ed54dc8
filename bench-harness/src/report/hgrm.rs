//! The percentile text of HdrHistogram (`.hgrm`), which its plotter and wrk2's users read. Milliseconds with three places.

use std::fmt::Write as _;

use crate::outcome::Latencies;

/// What the Java original uses.
const TICKS_PER_HALVING: u32 = 5;

/// The whole file.
pub fn text(latencies: &Latencies) -> String {
    let histogram = &latencies.0;
    let mut text = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALVING) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let value = milliseconds(step.value_iterated_to().min(histogram.max()) as f64);
        put(
            &mut text,
            format_args!("{value:12.3} {quantile:2.12} {total:10}"),
        );
        // the last line has no end to count to
        if quantile < 1.0 {
            put(&mut text, format_args!(" {:14.2}", 1.0 / (1.0 - quantile)));
        }
        text.push('\n');
    }
    put(
        &mut text,
        format_args!(
            "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n#[Buckets = {:12}, SubBuckets     = {:12}]\n",
            milliseconds(histogram.mean()),
            milliseconds(histogram.stdev()),
            milliseconds(histogram.max() as f64),
            histogram.len(),
            histogram.buckets(),
            // of three digits: the power of two that holds 2,000
            2048,
        ),
    );
    text
}

fn milliseconds(us: f64) -> f64 {
    us / 1e3
}

fn put(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_format_of_the_plotter() {
        let mut latencies = Latencies::default();
        for ms in 1..=4 {
            latencies.0.record(ms * 1_000).unwrap();
        }
        let text = text(&latencies);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "       Value     Percentile TotalCount 1/(1-Percentile)"
        );
        assert_eq!(lines[1], "");
        assert_eq!(
            lines[2],
            "       1.000 0.000000000000          1           1.00"
        );
        // the largest value that a histogram of three digits does not tell from 4,000 µs
        let last = lines.iter().rev().find(|l| !l.starts_with('#')).copied();
        assert_eq!(last, Some("       4.001 1.000000000000          4"));
        assert!(text.ends_with(
            "#[Max     =        4.001, Total count    =            4]\n#[Buckets =            2, SubBuckets     =         2048]\n"
        ), "{text}");
    }

    #[test]
    fn an_empty_histogram_is_a_file_too() {
        assert!(text(&Latencies::default()).contains("Total count    =            0]"));
    }
}
