//! Numbers as people read them: times with three digits and a unit, counts in groups, octets in their multiples.

use std::time::Duration;

/// Three digits and a unit: `45 µs`, `1.23 ms`, `99.0 ms`, `2.31 s`, `12 min`.
pub fn time(time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    match us {
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 999_500.0 => format!("{} ms", three_digits(us / 1e3)),
        us if us < 300e6 => format!("{} s", three_digits(us / 1e6)),
        us => format!("{:.1} min", us / 60e6),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 99.95 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// `12,345,678`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `12.3 MiB`.
pub fn octets(octets: u64) -> String {
    bytesize::ByteSize::b(octets).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
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
        for (number, words) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), words);
        }
    }
}
