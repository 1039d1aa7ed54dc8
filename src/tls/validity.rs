//! From when to when a certificate is valid: read from its DER, because the TLS library checks this of others and does
//! not tell it of one's own (RFC 5280, 4.1.2.5).

/// Seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// None: this is no certificate.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut certificate = Der(Der(certificate).content(SEQUENCE)?);
    let mut signed = Der(certificate.content(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.content(VERSION)?;
    }
    signed.content(INTEGER)?; // serial number
    signed.content(SEQUENCE)?; // algorithm
    signed.content(SEQUENCE)?; // issuer
    let mut validity = Der(signed.content(SEQUENCE)?);
    Some(Validity {
        not_before: validity.time()?,
        not_after: validity.time()?,
    })
}

/// What is left to read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element, which must have this tag.
    fn content(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content) = self.element()?;
        (found == tag).then_some(content)
    }

    fn element(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // two octets of length reach 64 KiB, three 16 MiB: longer than any file that is read
            0x81..=0x83 => {
                let (octets, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = octets
                    .iter()
                    .fold(0, |length, octet| length << 8 | usize::from(*octet));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn time(&mut self) -> Option<i64> {
        let (tag, text) = self.element()?;
        let digits = text.strip_suffix(b"Z")?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = digits.split_at_checked(2)?;
                let year = number(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = digits.split_at_checked(4)?;
                (number(year)?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 {
            return None;
        }
        let mut pairs = rest.chunks(2).map(number);
        let mut next = || pairs.next().flatten();
        let (month, day) = (next()?, next()?);
        let (hour, minute, second) = (next()?, next()?, next()?);
        let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
        let is_time = hour < 24 && minute < 60 && second < 61;
        (is_date && is_time)
            .then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// Days since 1970-01-01. The year begins with March here, so that the leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let of_years = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    const UNTIL_1970: i64 = 719_468;
    of_years + (153 * month + 2) / 5 + day - 1 - UNTIL_1970
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixtures::ecdsa_until;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, want) in [
            ((1970, 1, 1), 0),
            ((1970, 3, 1), 59),
            ((1999, 12, 31), 10_956),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 22), 20_779),
            ((9999, 12, 31), 2_932_896),
        ] {
            assert_eq!(days(date.0, date.1, date.2), want, "{date:?}");
        }
    }

    #[test]
    fn both_forms_of_time_are_read() {
        // before 2050 it is UTCTime, from then on GeneralizedTime
        for (year, want) in [(2049, 2_493_072_000), (2051, 2_556_144_000)] {
            let made = ecdsa_until(&["mx.example"], year);
            let read = validity(&made.certificate_der()).expect("a certificate");
            assert_eq!(read.not_after, want, "{year}");
            assert!(read.not_before < read.not_after);
        }
    }

    #[test]
    fn damaged_certificates_are_none_and_no_panic() {
        let der = ecdsa_until(&["mx.example"], 2049).certificate_der();
        for cut in 0..der.len() {
            assert_eq!(validity(&der[..cut]), None, "cut at {cut}");
        }
        for at in 0..der.len().min(200) {
            let mut wrong = der.clone();
            wrong[at] ^= 0xff;
            let _ = validity(&wrong); // any answer will do
        }
    }
}
