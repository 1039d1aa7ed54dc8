//! Weir's own replies, by situation. Trouble of ours and of the upstream is always 4xx; every 2xx, 4xx and 5xx carries an enhanced status
//! code, but for the greeting and the replies to EHLO and HELO (RFC 2034, 3). Replies to misbehaviour stand in `violation`.

use alloc::vec::Vec;

use crate::reply::ReplyText;

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: ReplyText = ReplyText::fixed(concat!($text, "\r\n"));)*

        #[cfg(test)]
        const ALL: &[(&str, ReplyText)] = &[$((stringify!($name), $name)),*];
    };
}

texts! {
    OK = "250 2.0.0 Ok";
    MAIL_OK = "250 2.1.0 Ok";
    RSET_OK = "250 2.0.0 Ok";
    NOOP_OK = "250 2.0.0 Ok";
    GO_AHEAD = "354 End data with <CR><LF>.<CR><LF>";
    VRFY_MAYBE = "252 2.1.5 Cannot VRFY user, but will accept message and attempt delivery";
    EXPN_REFUSED = "502 5.5.1 EXPN is not served here";
    HELP = "214 2.0.0 See RFC 5321";
    BYE = "221 2.0.0 Bye";

    /// No upstream could be reached in time.
    NO_UPSTREAM = "451 4.4.1 No mail server answers, try again later";
    /// Every upstream connection is in use.
    NO_SLOT = "451 4.3.2 System busy, try again later";
    /// No upstream offers what this transaction uses.
    NO_QUALIFIED = "451 4.3.0 No mail server offers what this message needs, try again later";
    /// The upstream went away, before or after the end of data.
    UPSTREAM_LOST = "451 4.4.2 Connection to the mail server lost, try again later";
    UPSTREAM_TIMEOUT = "451 4.4.2 The mail server did not answer in time, try again later";
    UPSTREAM_GARBLED = "451 4.3.0 The mail server gave no valid answer, try again later";
    /// A recipient that was accepted is refused when the envelope is replayed.
    REPLAY_REFUSED = "451 4.3.0 Envelope no longer accepted, try again later";
    /// The recipient belongs to another set of upstreams than the attached one.
    OTHER_ROUTE = "452 4.5.3 Send this recipient in another transaction";

    TLS_GO_AHEAD = "220 2.0.0 Ready to start TLS";
    /// No certificate, or no memory for a handshake.
    TLS_UNAVAILABLE = "454 4.7.0 TLS not available due to local problem";

    /// A session with an upstream of its own cannot begin, or cannot go on.
    NOBODY_THERE = "421 4.4.1 No mail server answers, try again later";
    UPSTREAM_GONE = "421 4.4.2 Connection to the mail server lost, try again later";
    UPSTREAM_SILENT = "421 4.4.2 The mail server did not answer in time, try again later";
    /// Where each client has a connection of its own: a client that is made to wait must not hold a server's.
    COME_AGAIN = "421 4.3.2 Service currently unavailable, try again later";

    TIMEOUT = "421 4.4.2 Error: timeout exceeded";
    SHUTDOWN = "421 4.3.2 Service shutting down";
    OVERLOAD = "421 4.3.2 All server ports are busy";
    TOO_MANY_MESSAGES = "421 4.7.0 Error: too many messages, reconnect";
    DENIED_FOR_NOW = "450 4.3.2 Service currently unavailable";
    /// Something of ours went wrong.
    INTERNAL = "451 4.3.0 Error: internal error, try again later";
}

/// The greeting; after a teaser it is the last line of the same reply.
pub fn write_greeting(out: &mut Vec<u8>, hostname: &[u8]) {
    write_line(out, b"220 ", hostname, b" ESMTP weir\r\n");
}

/// The first line of a greeting of several, sent early to find clients that do not wait for the end of it.
pub fn write_teaser(out: &mut Vec<u8>, hostname: &[u8]) {
    write_line(out, b"220-", hostname, b" ESMTP weir\r\n");
}

/// The reply to HELO.
pub fn write_helo(out: &mut Vec<u8>, hostname: &[u8]) {
    write_line(out, b"250 ", hostname, b"\r\n");
}

fn write_line(out: &mut Vec<u8>, code: &[u8], hostname: &[u8], rest: &[u8]) {
    out.extend_from_slice(code);
    out.extend_from_slice(hostname);
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ReplyReader;
    use crate::violation::Violation;

    #[test]
    fn every_reply_of_ours_is_one_reply_with_its_enhanced_code() {
        let ours = ALL.iter().cloned();
        let violations = Violation::ALL
            .iter()
            .map(|violation| (violation.word(), violation.reply()));
        for (name, text) in ours.chain(violations) {
            let mut input = text.as_bytes();
            let mut reader = ReplyReader::new();
            let reply = reader.next(&mut input).expect(name).expect(name);
            assert_eq!(reply.text, text.as_bytes(), "{name}");
            assert!(reply.text.len() <= 512, "{name}: RFC 5321, 4.5.3.1.5");
            if !reply.is_intermediate() {
                assert_eq!(
                    reply.enhanced().map(|code| code.0),
                    Some(reply.class()),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn trouble_of_ours_is_temporary() {
        let ours = [
            NO_UPSTREAM,
            NO_SLOT,
            NO_QUALIFIED,
            UPSTREAM_LOST,
            UPSTREAM_TIMEOUT,
            UPSTREAM_GARBLED,
            REPLAY_REFUSED,
            INTERNAL,
            OVERLOAD,
            TLS_UNAVAILABLE,
            COME_AGAIN,
        ];
        assert!(ours.iter().all(|text| text.as_reply().is_transient()));
    }

    #[test]
    fn greeting_and_helo_carry_no_enhanced_code() {
        let mut out = Vec::new();
        write_teaser(&mut out, b"mx.example");
        write_greeting(&mut out, b"mx.example");
        assert_eq!(
            out,
            b"220-mx.example ESMTP weir\r\n220 mx.example ESMTP weir\r\n"
        );
        out.clear();
        write_helo(&mut out, b"mx.example");
        assert_eq!(out, b"250 mx.example\r\n");
    }
}
