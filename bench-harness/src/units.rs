//! Numbers as people read them: three digits that matter, a unit, no more. For the terminal, pages and warnings alike.

use std::time::Duration;

/// Microseconds: `850 µs`, `1.24 ms`, `12.4 s`, `5 min`.
pub fn micros(us: f64) -> String {
    match us {
        us if us < 999.5 => format!("{} µs", three_digits(us)),
        us if us < 999_500.0 => format!("{} ms", three_digits(us / 1e3)),
        us if us < 120e6 => format!("{} s", three_digits(us / 1e6)),
        us if us < 7_200e6 => format!("{} min", three_digits(us / 60e6)),
        us => format!("{} h", three_digits(us / 3_600e6)),
    }
}

pub fn duration(duration: Duration) -> String {
    micros(duration.as_secs_f64() * 1e6)
}

/// `980/s`, `2,000/s`: whole, because a rate is read against its plan.
pub fn per_second(rate: f64) -> String {
    if rate < 10.0 {
        format!("{}/s", three_digits(rate))
    } else {
        format!("{}/s", grouped(rate.round() as u64))
    }
}

/// `2k`, `1.5M`: for the ticks of an axis.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{}G", three_digits(value / 1e9)),
        v if v >= 1e6 => format!("{}M", three_digits(value / 1e6)),
        v if v >= 1e3 => format!("{}k", three_digits(value / 1e3)),
        _ => three_digits(value),
    }
}

/// `12.5 MiB`.
pub fn octets(octets: f64) -> String {
    let mut value = octets;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 1024.0 {
            return format!("{} {unit}", three_digits(value));
        }
        value /= 1024.0;
    }
    format!("{} TiB", three_digits(value))
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A bare number of any size.
pub fn figure(value: f64) -> String {
    if value >= 1000.0 {
        grouped(value.round() as u64)
    } else {
        three_digits(value)
    }
}

/// `0.52`: a ratio keeps its second place even where it is 0, so that a column of them lines up.
pub fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Without zeros that say nothing: `1.24`, `12.4`, `124`, `2`.
pub fn three_digits(value: f64) -> String {
    let places = match value.abs() {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.places$}");
    if !text.contains('.') {
        return text;
    }
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// For columns, which want all three digits: `45 µs`, `1.23 ms`, `99.0 ms`, `2.31 s`, `12 min`.
pub fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 999_500.0 => format!("{} ms", all_three_digits(us / 1e3)),
        us if us < 300e6 => format!("{} s", all_three_digits(us / 1e6)),
        us => format!("{:.1} min", us / 60e6),
    }
}

fn all_three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (text, want) in [
            (micros(1.0), "1 µs"),
            (micros(999.0), "999 µs"),
            (micros(999.7), "1 ms"),
            (micros(999_700.0), "1 s"),
            (micros(1_240.0), "1.24 ms"),
            (micros(40_000.0), "40 ms"),
            (micros(99_960.0), "100 ms"),
            (micros(12_400_000.0), "12.4 s"),
            (micros(300e6), "5 min"),
            (per_second(0.5), "0.5/s"),
            (per_second(2000.4), "2,000/s"),
            (short(1500.0), "1.5k"),
            (short(60_000.0), "60k"),
            (octets(0.0), "0 B"),
            (octets(12.5 * 1024.0 * 1024.0), "12.5 MiB"),
            (octets(-2048.0), "-2 KiB"),
            (grouped(0), "0"),
            (grouped(999), "999"),
            (grouped(1_234_567), "1,234,567"),
            (ratio(0.5), "0.50"),
            (three_digits(-0.001), "0"),
        ] {
            assert_eq!(text, want);
        }
    }

    #[test]
    fn times_in_columns_have_three_digits() {
        for (us, words) in [
            (0, "0 µs"),
            (45, "45 µs"),
            (999, "999 µs"),
            (1_000, "1.00 ms"),
            (9_999, "10.0 ms"),
            (99_000, "99.0 ms"),
            (999_999, "1.00 s"),
            (123_000_000, "123 s"),
            (600_000_000, "10.0 min"),
        ] {
            assert_eq!(time(Duration::from_micros(us)), words);
        }
    }
}
