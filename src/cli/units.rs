//! Values with units, as typed: durations, sizes, counts, rates. Each parser says what is wrong and what would be right.

use std::time::Duration;

/// What is wrong with a value, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub why: String,
    pub remedy: String,
}

impl Fault {
    pub fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

/// `300s`, `10m`, `1h30m`, `250ms`; a bare 0 needs no unit.
pub fn duration(typed: &str) -> Result<Duration, Fault> {
    if typed == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(typed).map_err(|_| {
        Fault::new(
            "is no duration",
            "write a number and a unit, as in 250ms, 30s, 10m or 1h",
        )
    })
}

/// `64KiB`, `10MB`, `52428800`.
pub fn size(typed: &str) -> Result<u64, Fault> {
    let parsed = typed.parse::<bytesize::ByteSize>();
    parsed.map(|size| size.as_u64()).map_err(|_| {
        Fault::new(
            "is no size",
            "write bytes, or a number and a unit, as in 10MB or 64KiB",
        )
    })
}

pub fn count(typed: &str) -> Result<u64, Fault> {
    typed
        .parse()
        .map_err(|_| Fault::new("is no whole number", "write digits only, as in 100"))
}

/// `SIZE/UNIT` or plain `SIZE` (a second): bytes per second.
pub fn byte_rate(typed: &str) -> Result<u64, Fault> {
    let (bytes, per) = typed.split_once('/').unwrap_or((typed, "s"));
    let seconds = match per {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => {
            return Err(Fault::new(
                "has an unknown unit of time",
                "write SIZE/s, SIZE/m or SIZE/h, as in 64KiB/s",
            ));
        }
    };
    Ok(size(bytes)?.div_ceil(seconds))
}

/// How a duration is printed in a plan: the shortest exact form.
pub fn show(duration: Duration) -> String {
    match duration {
        Duration::ZERO => "0".into(),
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// How a size is printed in a plan.
pub fn show_size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (typed, millis) in [
            ("0", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("4m", 240_000),
            ("1h 30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(
                duration(typed),
                Ok(Duration::from_millis(millis)),
                "{typed}"
            );
        }
        for typed in [
            "",
            "300",
            "-1s",
            "soon",
            "1 fortnight",
            "99999999999999999999y",
        ] {
            assert!(duration(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn sizes() {
        for (typed, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("10MB", 10_000_000),
            ("64KiB", 65_536),
            ("1 GiB", 1 << 30),
        ] {
            assert_eq!(size(typed), Ok(bytes), "{typed}");
        }
        for typed in ["", "-1", "ten", "10 parsecs"] {
            assert!(size(typed).is_err(), "{typed}");
        }
    }

    #[test]
    fn byte_rates() {
        for (typed, rate) in [("0", 0), ("500", 500), ("64KiB/s", 65_536), ("1KB/m", 17)] {
            assert_eq!(byte_rate(typed), Ok(rate), "{typed}");
        }
        assert!(byte_rate("1KB/fortnight").is_err());
    }

    #[test]
    fn what_is_shown_reads_back() {
        for seconds in [0, 1, 100, 540, 86_400] {
            let value = Duration::from_secs(seconds);
            assert_eq!(duration(&show(value)), Ok(value));
        }
        assert_eq!(show_size(256 << 10), "256.0 KiB");
    }
}
