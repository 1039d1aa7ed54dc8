//! The Received field that weir puts above a message (RFC 5321, 4.4): from whom it came, how, and when.
//!
//! What a client said is hostile text in a header field: whatever could end a comment, a line or a word becomes a question mark.

use alloc::vec::Vec;
use core::fmt::Display;
use core::net::IpAddr;

use crate::limits::ATTRIBUTE_MAX;
use crate::xclient::push_display;

/// What the field says.
#[derive(Copy, Clone, Debug)]
pub struct Trace<'a> {
    /// Our own name.
    pub by: &'a [u8],
    pub address: IpAddr,
    /// The client's host name, if somebody has found it.
    pub name: Option<&'a [u8]>,
    pub helo: &'a [u8],
    pub esmtp: bool,
    /// The message uses SMTPUTF8 (RFC 6531, 4.3).
    pub utf8: bool,
    /// The session is inside TLS: with this version and this suite, if they are known.
    pub tls: Option<Option<(&'a str, &'a str)>>,
    /// Seconds since 1970 in UTC.
    pub at: u64,
}

/// Writes the whole field, lines folded. `id`: by which our own log knows the message.
pub fn write(out: &mut Vec<u8>, trace: &Trace<'_>, id: &impl Display) {
    out.extend_from_slice(b"Received: from ");
    push_clean(out, trace.helo);
    out.extend_from_slice(b" (");
    push_clean(out, trace.name.unwrap_or_default());
    out.extend_from_slice(b" [");
    let address = trace.address.to_canonical();
    if address.is_ipv6() {
        out.extend_from_slice(b"IPv6:");
    }
    push_display(out, &address);
    out.extend_from_slice(b"])\r\n");
    if let Some(Some((version, suite))) = trace.tls {
        let line = format_args!("\t(using {version} with cipher {suite})\r\n");
        push_display(out, &line);
    }
    out.extend_from_slice(b"\tby ");
    push_clean(out, trace.by);
    push_display(
        out,
        &format_args!(" (weir) with {} id {id};\r\n\t", protocol(trace)),
    );
    push_date(out, trace.at);
    out.extend_from_slice(b"\r\n");
}

/// The registered name (RFC 3848, RFC 6531).
fn protocol(trace: &Trace<'_>) -> &'static str {
    match (trace.utf8, trace.esmtp, trace.tls.is_some()) {
        (true, _, true) => "UTF8SMTPS",
        (true, _, false) => "UTF8SMTP",
        (false, true, true) => "ESMTPS",
        (false, true, false) => "ESMTP",
        // SMTP inside TLS has no name of its own
        (false, false, _) => "SMTP",
    }
}

/// A host name or address literal, or what was said in its place.
fn push_clean(out: &mut Vec<u8>, name: &[u8]) {
    if name.is_empty() {
        return out.extend_from_slice(b"unknown");
    }
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let cut = &name[..name.len().min(ATTRIBUTE_MAX)];
    out.extend(
        cut.iter()
            .map(|byte| if legal(byte) { *byte } else { b'?' }),
    );
}

/// RFC 5322, 3.3, in UTC.
fn push_date(out: &mut Vec<u8>, at: u64) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, seconds) = (at / 86_400, at % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[month as usize];
    push_display(
        out,
        &format_args!("{weekday}, {day} {month} {year} {hour:02}:{minute:02}:{second:02} +0000"),
    );
}

/// Year, month (from 0) and day of the month of a day since 1970. Years are counted from March, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days / ERA, days % ERA);
    let year = (day - day / 1460 + day / 36_524 - day / (ERA - 1)) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = (month + 2) % 12;
    (era * 400 + year + u64::from(month < 2), month, of_month)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use proptest::prelude::*;

    fn trace<'a>() -> Trace<'a> {
        Trace {
            by: b"weir.example",
            address: "192.0.2.7".parse().unwrap(),
            name: None,
            helo: b"client.example",
            esmtp: true,
            utf8: false,
            tls: None,
            at: 1_795_340_462,
        }
    }

    fn written(trace: &Trace<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, trace, &"2a.1");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_field_says_from_whom_how_and_when() {
        assert_eq!(
            written(&trace()),
            "Received: from client.example (unknown [192.0.2.7])\r\n\tby weir.example (weir) with ESMTP id 2a.1;\r\n\tSun, 22 Nov 2026 09:41:02 +0000\r\n"
        );
        let full = Trace {
            address: "2001:db8::1".parse().unwrap(),
            name: Some(b"mail.example"),
            tls: Some(Some(("TLSv1.3", "TLS_AES_128_GCM_SHA256"))),
            ..trace()
        };
        assert_eq!(
            written(&full),
            "Received: from client.example (mail.example [IPv6:2001:db8::1])\r\n\t(using TLSv1.3 with cipher TLS_AES_128_GCM_SHA256)\r\n\tby weir.example (weir) with ESMTPS id 2a.1;\r\n\tSun, 22 Nov 2026 09:41:02 +0000\r\n"
        );
    }

    #[test]
    fn protocols_have_their_registered_names() {
        let table = [
            ((false, false, None), " SMTP "),
            ((false, false, Some(None)), " SMTP "),
            ((true, false, None), " ESMTP "),
            ((true, false, Some(None)), " ESMTPS "),
            ((true, true, None), " UTF8SMTP "),
            ((true, true, Some(None)), " UTF8SMTPS "),
        ];
        for ((esmtp, utf8, tls), want) in table {
            let text = written(&Trace {
                esmtp,
                utf8,
                tls,
                ..trace()
            });
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn dates() {
        let table = [
            (0, "Thu, 1 Jan 1970 00:00:00 +0000"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800, "Wed, 1 Mar 2000 00:00:00 +0000"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 +0000"),
            (4_107_542_400, "Mon, 1 Mar 2100 00:00:00 +0000"),
        ];
        for (at, want) in table {
            let mut out = Vec::new();
            push_date(&mut out, at);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }

    proptest! {
        /// Whatever the client said, it is three or four lines of one field.
        #[test]
        fn nothing_that_was_said_breaks_out_of_the_field(
            helo in proptest::collection::vec(any::<u8>(), 0..600),
            name in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..600)),
            at in 0u64..10_000_000_000,
        ) {
            let text = written(&Trace { helo: &helo, name: name.as_deref(), at, ..trace() });
            prop_assert!(text.ends_with(" +0000\r\n") && text.is_ascii());
            let lines: Vec<&str> = text.split_terminator("\r\n").collect();
            prop_assert_eq!(lines.len(), 3);
            prop_assert!(lines[1..].iter().all(|line| line.starts_with('\t')));
            prop_assert!(lines.iter().all(|line| line.len() <= 998 && !line.contains(['\r', '\n', '\0'])));
            prop_assert_eq!(text.matches(['(', ')']).count(), 4);
        }
    }
}
