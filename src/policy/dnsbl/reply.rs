//! What a client is told that is refused for being on a list.
//!
//! The form is the one that mail systems on the other side know to read: address and list, so that whoever gets the bounce can
//! ask to be taken off. The list's own reason (its TXT record) is a stranger's text: printable ASCII on one line, and cut.

use std::net::IpAddr;

use weir_smtp::reply::ReplyText;

use crate::policy::Action;

/// Octets of a reason that are passed on. A whole line of a reply has 512 (RFC 5321, 4.5.3.1.5).
const REASON_MAX: usize = 240;

/// The reply to a client that the list of this name speaks against. None: the action refuses nothing.
pub fn reply(action: Action, ip: IpAddr, list: &str, reason: Option<&str>) -> Option<ReplyText> {
    let codes = match action {
        Action::Defer => "450 4.7.1",
        Action::Reject => "550 5.7.1",
        Action::Drop => "521 5.7.1",
        Action::Off | Action::Log | Action::Delay | Action::Stutter => return None,
    };
    let ip = ip.to_canonical();
    let mut line = format!("{codes} Service unavailable; client [{ip}] blocked using {list}");
    if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
        line.push_str("; ");
        line.push_str(reason);
    }
    line.push_str("\r\n");
    Some(ReplyText::built(line.into_bytes()))
}

/// A TXT record as part of a line: what is not printable ASCII becomes a blank, blanks in a row become one.
pub fn clean(txt: &[u8]) -> String {
    let mut reason = String::with_capacity(txt.len().min(REASON_MAX));
    for &octet in txt {
        let blank = !octet.is_ascii_graphic();
        if reason.len() == REASON_MAX {
            break;
        }
        match blank {
            true if reason.is_empty() || reason.ends_with(' ') => {}
            true => reason.push(' '),
            false => reason.push(octet.into()),
        }
    }
    reason.truncate(reason.trim_end().len());
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(action: Action, ip: &str, list: &str, reason: Option<&str>) -> Option<String> {
        let reply = reply(action, ip.parse().unwrap(), list, reason)?;
        Some(String::from_utf8(reply.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_reply_names_address_list_and_reason() {
        assert_eq!(
            text(
                Action::Reject,
                "192.0.2.1",
                "bl.example",
                Some("see https://bl.example/192.0.2.1")
            )
            .unwrap(),
            "550 5.7.1 Service unavailable; client [192.0.2.1] blocked using bl.example; see https://bl.example/192.0.2.1\r\n"
        );
        assert_eq!(
            text(Action::Defer, "::ffff:192.0.2.1", "bl.example", None).unwrap(),
            "450 4.7.1 Service unavailable; client [192.0.2.1] blocked using bl.example\r\n"
        );
        assert_eq!(
            text(Action::Drop, "2001:db8::1", "bl.example", Some("")).unwrap(),
            "521 5.7.1 Service unavailable; client [2001:db8::1] blocked using bl.example\r\n"
        );
        for action in [Action::Off, Action::Log, Action::Delay, Action::Stutter] {
            assert_eq!(text(action, "192.0.2.1", "bl.example", None), None);
        }
    }

    #[test]
    fn a_reason_never_breaks_the_line() {
        let table: &[(&[u8], &str)] = &[
            (b"", ""),
            (b" \r\n ", ""),
            (b"listed", "listed"),
            (b"a\r\n250 OK\r\n", "a 250 OK"),
            (b"\x00\xff\xc3\xa9 x\ty", "x y"),
            (b"  two  blanks ", "two blanks"),
        ];
        for (txt, want) in table {
            assert_eq!(clean(txt), *want, "{txt:?}");
        }
        let long = clean(&[b'x'; 4096]);
        assert_eq!(long.len(), REASON_MAX);
        let line = text(
            Action::Reject,
            "2001:db8:1111:2222:3333:4444:5555:6666",
            &"l".repeat(64),
            Some(&long),
        );
        assert!(line.unwrap().len() <= 512);
    }
}
