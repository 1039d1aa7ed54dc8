//! How fast a client address may send message data: a leaking bucket of bytes.
//!
//! What was read fills the bucket, time drains it at the rate; it holds one second's worth. While more is
//! in it than that, reading pauses: the kernel's receive window does the rest, and nobody is refused.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::rate;

/// Bytes per second. Text form `SIZE/UNIT` as in `64K/s`, `10M/m`; `0` lifts the limit.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct ByteRate {
    per_second: u32,
}

/// The bucket of one client: 8 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Bucket {
    bytes: u32,
    /// Milliseconds, cut to 32 bits (49 days): up to when it has drained.
    drained: u32,
}

impl Bucket {
    pub const fn is_empty(self) -> bool {
        self.bytes == 0
    }

    /// Drops what has drained; keeps the time up to date, so that it cannot wrap unseen.
    pub fn settle(&mut self, rate: ByteRate, now: Moment) {
        let present = millis(now);
        let elapsed = present.wrapping_sub(self.drained);
        let drained = u64::from(elapsed) * u64::from(rate.per_second) / 1000;
        match u64::from(self.bytes).checked_sub(drained) {
            Some(left) if left > 0 && rate.per_second > 0 => {
                self.bytes = left as u32;
                // Only the time of whole bytes is used up: at a low rate, many short looks drain as much as one long one.
                self.drained = self
                    .drained
                    .wrapping_add((drained * 1000).div_ceil(u64::from(rate.per_second)) as u32);
            }
            _ => {
                *self = Bucket {
                    bytes: 0,
                    drained: present,
                }
            }
        }
    }
}

impl ByteRate {
    pub const UNLIMITED: ByteRate = ByteRate { per_second: 0 };

    /// 0 lifts the limit.
    pub const fn new(per_second: u32) -> ByteRate {
        ByteRate { per_second }
    }

    pub const fn is_unlimited(self) -> bool {
        self.per_second == 0
    }

    /// Counts bytes that were read; says how long reading has to pause now (zero: go on).
    pub fn take(self, bucket: &mut Bucket, bytes: u32, now: Moment) -> Duration {
        if self.per_second == 0 {
            return Duration::ZERO;
        }
        bucket.settle(self, now);
        bucket.bytes = bucket.bytes.saturating_add(bytes);
        let over = u64::from(bucket.bytes.saturating_sub(self.per_second));
        Duration::from_millis((over * 1000).div_ceil(u64::from(self.per_second)))
    }
}

fn millis(now: Moment) -> u32 {
    (now.as_micros() / 1000) as u32
}

impl fmt::Display for ByteRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.per_second {
            0 => f.write_str("0"),
            bytes => write!(f, "{bytes}/s"),
        }
    }
}

impl FromStr for ByteRate {
    type Err = ByteRateError;

    fn from_str(text: &str) -> Result<ByteRate, ByteRateError> {
        if text == "0" {
            return Ok(ByteRate::UNLIMITED);
        }
        let parts = text
            .split_once('/')
            .and_then(|(size, unit)| Some((parse_size(size)?, rate::parse_unit(unit)?)));
        let (size, unit) = parts.ok_or(ByteRateError)?;
        let per_second = size.checked_div(unit.as_secs()).ok_or(ByteRateError)?;
        match u32::try_from(per_second) {
            Ok(per_second @ 1..) => Ok(ByteRate { per_second }),
            _ => Err(ByteRateError),
        }
    }
}

/// Digits with K, M or G (of 1024), each with `B` or `iB` or without.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let shift = match suffix.trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Why a byte rate could not be read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ByteRateError;

impl std::error::Error for ByteRateError {}

impl fmt::Display for ByteRateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte rate is SIZE/UNIT, as in 64K/s or 10M/m, from 1 byte to 4 GiB a second; 0 lifts the limit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    #[test]
    fn byte_rates_are_read() {
        let table = [
            ("64K/s", Ok("65536/s")),
            ("64KiB/s", Ok("65536/s")),
            ("60MB/m", Ok("1048576/s")),
            ("100/s", Ok("100/s")),
            ("0", Ok("0")),
            ("10/m", Err(ByteRateError)),
            ("4G/s", Err(ByteRateError)),
            ("64K", Err(ByteRateError)),
            ("K/s", Err(ByteRateError)),
            ("1T/s", Err(ByteRateError)),
            ("1/0s", Err(ByteRateError)),
        ];
        for (text, want) in table {
            let got = text.parse::<ByteRate>().map(|rate| rate.to_string());
            assert_eq!(got, want.map(String::from), "{text}");
        }
    }

    #[test]
    fn a_second_s_worth_is_free_then_reading_pauses() {
        let rate = ByteRate::new(1000);
        let mut bucket = Bucket::default();
        assert_eq!(rate.take(&mut bucket, 1000, at(0)), Duration::ZERO);
        assert_eq!(
            rate.take(&mut bucket, 500, at(0)),
            Duration::from_millis(500)
        );
        assert_eq!(
            rate.take(&mut bucket, 0, at(400)),
            Duration::from_millis(100)
        );
        assert_eq!(rate.take(&mut bucket, 0, at(500)), Duration::ZERO);
        bucket.settle(rate, at(10_000));
        assert!(bucket.is_empty());
    }

    #[test]
    fn zero_lifts_the_limit() {
        let mut bucket = Bucket::default();
        assert_eq!(
            ByteRate::UNLIMITED.take(&mut bucket, u32::MAX, at(0)),
            Duration::ZERO
        );
    }

    proptest! {
        /// Who pauses as told reads at the rate in the long run, in pieces of whatever size.
        #[test]
        fn pieces_do_not_matter(per_second in 1u32..10_000_000, pieces in prop::collection::vec(1u32..20_000, 1..400)) {
            let rate = ByteRate::new(per_second);
            let mut bucket = Bucket::default();
            let mut now = at(0);
            let mut total = 0u64;
            for piece in pieces {
                total += u64::from(piece);
                now = now + rate.take(&mut bucket, piece, now);
                let exact = (total.saturating_sub(u64::from(per_second))) as f64 / f64::from(per_second);
                let spent = now.as_micros() as f64 / 1e6;
                // A millisecond of rounding for each pause, never to the client's advantage.
                prop_assert!(spent >= exact - 0.002 && spent <= exact + 0.5, "{} instead of {}", spent, exact);
            }
        }
    }
}
