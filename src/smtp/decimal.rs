//! Decimal numbers in commands and replies, read and written without allocating.

use alloc::vec::Vec;

/// The digits of the largest number.
pub(crate) const DIGITS_MAX: usize = 20;

/// Digits as a number; too many of them are the highest one. None: something else.
pub(crate) fn read(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0u64, |sum, digit| {
        sum.saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    }))
}

/// The digits of `value`, which lie in `digits`.
pub(crate) fn write(mut value: u64, digits: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

pub(crate) fn push(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(write(value, &mut [0; DIGITS_MAX]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for value in [0, 9, 10, 65_535, u64::MAX] {
            let mut out = b"SIZE=".to_vec();
            push(&mut out, value);
            assert_eq!(read(&out[5..]), Some(value));
        }
    }

    #[test]
    fn too_large_is_the_highest_and_anything_else_is_none() {
        assert_eq!(read(b"99999999999999999999999"), Some(u64::MAX));
        assert_eq!(read(b"007"), Some(7));
        for junk in [&b""[..], b"+1", b"-1", b"1k", b" 1"] {
            assert_eq!(read(junk), None);
        }
    }
}
