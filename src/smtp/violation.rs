//! What a client can do wrong, by name, and what it hears for it: one table. Whether a session goes on, slows down or ends after a violation
//! is policy's business.

use crate::reply::ReplyText;

/// A named misbehaviour.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Violation {
    UnknownCommand,
    LineTooLong,
    NulInCommand,
    BareCrInCommand,
    BareLfInCommand,
    SyntaxError,
    BadSender,
    BadRecipient,
    BadHelo,
    /// Non-ASCII in a path without SMTPUTF8 in the MAIL.
    Utf8NotDeclared,
    ParameterNotAnnounced,
    BadParameter,
    BadSequence,
    NestedMail,
    NeedHelo,
    NeedMail,
    NeedRcpt,
    NoValidRecipients,
    /// HTTP, a header field, a TLS hello.
    NonSmtpCommand,
    NotImplemented,
    MessageTooBig,
    TooManyRecipients,
    BadChunk,
    MixedDataBdat,
    /// BODY=BINARYMIME and then DATA.
    BinaryNeedsBdat,
    BareNewlineInBody,
    NulInBody,
    TooManyHops,
    /// Bytes after a command that ends a group.
    Pipelining,
    /// Bytes before the greeting.
    Pregreet,
    /// Mail, or anything but a few harmless commands, before STARTTLS where that is required.
    TlsRequired,
    /// STARTTLS inside TLS.
    TlsActive,
    /// REQUIRETLS where not both legs can keep that promise.
    NoRequireTls,
    /// XCLIENT of a peer that is not trusted to speak for others.
    XclientRefused,
}

impl Violation {
    pub const ALL: [Violation; 34] = [
        Violation::UnknownCommand,
        Violation::LineTooLong,
        Violation::NulInCommand,
        Violation::BareCrInCommand,
        Violation::BareLfInCommand,
        Violation::SyntaxError,
        Violation::BadSender,
        Violation::BadRecipient,
        Violation::BadHelo,
        Violation::Utf8NotDeclared,
        Violation::ParameterNotAnnounced,
        Violation::BadParameter,
        Violation::BadSequence,
        Violation::NestedMail,
        Violation::NeedHelo,
        Violation::NeedMail,
        Violation::NeedRcpt,
        Violation::NoValidRecipients,
        Violation::NonSmtpCommand,
        Violation::NotImplemented,
        Violation::MessageTooBig,
        Violation::TooManyRecipients,
        Violation::BadChunk,
        Violation::MixedDataBdat,
        Violation::BinaryNeedsBdat,
        Violation::BareNewlineInBody,
        Violation::NulInBody,
        Violation::TooManyHops,
        Violation::Pipelining,
        Violation::Pregreet,
        Violation::TlsRequired,
        Violation::TlsActive,
        Violation::NoRequireTls,
        Violation::XclientRefused,
    ];

    /// What the client hears.
    pub fn reply(self) -> ReplyText {
        ReplyText::fixed(self.row().1)
    }

    /// For logs and metric labels.
    pub fn word(self) -> &'static str {
        self.row().0
    }

    fn row(self) -> (&'static str, &'static str) {
        match self {
            Violation::UnknownCommand => (
                "unknown_command",
                "500 5.5.2 Error: command not recognized\r\n",
            ),
            Violation::LineTooLong => ("line_too_long", "500 5.5.2 Error: line too long\r\n"),
            Violation::NulInCommand => ("nul_in_command", "500 5.5.2 Error: NUL in command\r\n"),
            Violation::BareCrInCommand => (
                "bare_cr_in_command",
                "500 5.5.2 Error: bare <CR> received\r\n",
            ),
            Violation::BareLfInCommand => (
                "bare_lf_in_command",
                "500 5.5.2 Error: bare <LF> received\r\n",
            ),
            Violation::SyntaxError => (
                "syntax_error",
                "501 5.5.2 Error: syntax error in arguments\r\n",
            ),
            Violation::BadSender => ("bad_sender", "501 5.1.7 Bad sender address syntax\r\n"),
            Violation::BadRecipient => (
                "bad_recipient",
                "501 5.1.3 Bad recipient address syntax\r\n",
            ),
            Violation::BadHelo => ("bad_helo", "501 5.5.2 Error: a hostname is expected\r\n"),
            Violation::Utf8NotDeclared => (
                "utf8_not_declared",
                "553 5.6.7 Error: non-ASCII address without SMTPUTF8\r\n",
            ),
            Violation::ParameterNotAnnounced => (
                "parameter_not_announced",
                "555 5.5.4 Unsupported option\r\n",
            ),
            Violation::BadParameter => ("bad_parameter", "501 5.5.4 Error: bad parameter\r\n"),
            Violation::BadSequence => (
                "bad_sequence",
                "503 5.5.1 Error: bad sequence of commands\r\n",
            ),
            Violation::NestedMail => ("nested_mail", "503 5.5.1 Error: nested MAIL command\r\n"),
            Violation::NeedHelo => ("need_helo", "503 5.5.1 Error: send HELO/EHLO first\r\n"),
            Violation::NeedMail => ("need_mail", "503 5.5.1 Error: need MAIL command\r\n"),
            Violation::NeedRcpt => ("need_rcpt", "503 5.5.1 Error: need RCPT command\r\n"),
            Violation::NoValidRecipients => (
                "no_valid_recipients",
                "554 5.5.1 Error: no valid recipients\r\n",
            ),
            Violation::NonSmtpCommand => (
                "non_smtp_command",
                "521 5.7.0 Error: this is a mail server\r\n",
            ),
            Violation::NotImplemented => (
                "not_implemented",
                "502 5.5.1 Error: command not implemented\r\n",
            ),
            Violation::MessageTooBig => ("message_too_big", "552 5.3.4 Error: message too big\r\n"),
            Violation::TooManyRecipients => (
                "too_many_recipients",
                "452 4.5.3 Error: too many recipients\r\n",
            ),
            Violation::BadChunk => (
                "bad_chunk",
                "501 5.5.4 Error: syntax is BDAT size [LAST]\r\n",
            ),
            Violation::MixedDataBdat => (
                "mixed_data_bdat",
                "503 5.5.1 Error: DATA and BDAT do not mix\r\n",
            ),
            Violation::BinaryNeedsBdat => (
                "binary_needs_bdat",
                "503 5.5.1 Error: BINARYMIME needs BDAT\r\n",
            ),
            Violation::BareNewlineInBody => (
                "bare_newline_in_body",
                "550 5.5.2 Error: bare <CR> or <LF> received\r\n",
            ),
            Violation::NulInBody => ("nul_in_body", "550 5.6.0 Error: NUL in message\r\n"),
            Violation::TooManyHops => ("too_many_hops", "554 5.4.6 Error: too many hops\r\n"),
            Violation::Pipelining => (
                "pipelining",
                "554 5.5.0 Error: SMTP protocol synchronization\r\n",
            ),
            Violation::Pregreet => ("pregreet", "521 5.5.1 Protocol error\r\n"),
            Violation::TlsRequired => (
                "tls_required",
                "530 5.7.0 Must issue a STARTTLS command first\r\n",
            ),
            Violation::NoRequireTls => (
                "no_requiretls",
                "550 5.7.30 REQUIRETLS support required\r\n",
            ),
            Violation::XclientRefused => (
                "xclient_refused",
                "550 5.7.0 Error: insufficient authorization\r\n",
            ),
            Violation::TlsActive => ("tls_active", "554 5.5.1 Error: TLS already active\r\n"),
        }
    }
}

/// Whether a line that is no SMTP command is another protocol's: HTTP, a header field of a message, TLS, SSH.
pub fn looks_foreign(line: &[u8]) -> bool {
    is_tls_hello(line) || line.starts_with(b"SSH-") || is_http(line) || is_header_field(line)
}

/// The record header of a TLS ClientHello (RFC 8446, 5.1): handshake, version 3.x.
fn is_tls_hello(line: &[u8]) -> bool {
    line.starts_with(&[0x16, 0x03])
}

/// The line means to be BDAT, however badly it is written.
pub(crate) fn means_bdat(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    let word = line
        .get(..4)
        .is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT"));
    word && !line.get(4).is_some_and(u8::is_ascii_alphanumeric)
}

fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 10] = [
        b"GET", b"POST", b"CONNECT", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"PATCH", b"TRACE",
        b"PRI",
    ];
    let end = line
        .iter()
        .position(|&byte| byte == b' ')
        .unwrap_or(line.len());
    end < line.len() && METHODS.contains(&&line[..end])
}

/// `Name: value`, as when a client goes on with its message after a refused DATA. A blank must follow: `MAILFROM:<a@b>` is a typing error.
fn is_header_field(line: &[u8]) -> bool {
    let in_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let end = line.iter().take_while(|byte| in_name(byte)).count();
    end > 0
        && line.get(end) == Some(&b':')
        && matches!(line.get(end + 1), None | Some(b' ' | b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_labels_and_different() {
        for (i, violation) in Violation::ALL.iter().enumerate() {
            let word = violation.word();
            assert!(
                word.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert!(
                Violation::ALL[..i].iter().all(|other| other.word() != word),
                "{word}"
            );
            assert_eq!(
                Violation::ALL[i] as usize,
                i,
                "ALL is complete and in order"
            );
        }
    }

    #[test]
    fn foreign_lines() {
        let foreign: &[&[u8]] = &[
            b"GET / HTTP/1.1",
            b"HEAD /",
            b"PRI * HTTP/2.0",
            b"CONNECT mx:25",
            b"Host: x",
            b"X-Foo_1:\tx",
            b"Subject:",
            b"SSH-2.0-x",
            b"\x16\x03\x01\x00",
        ];
        for line in foreign {
            assert!(looks_foreign(line), "{line:?}");
        }
        let ours: &[&[u8]] = &[
            b"",
            b"GET",
            b"get / x",
            b"GETX /",
            b"MAIL FROM:<a@b>",
            b"MAILFROM:<a@b>",
            b": x",
            b"a b: c",
            b"\x16",
            b"\x03\x16",
        ];
        for line in ours {
            assert!(!looks_foreign(line), "{line:?}");
        }
    }
}
