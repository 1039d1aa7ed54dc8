//! One command line to one [`Command`]: spans of the line, nothing copied. Whether a command is in order is not decided here but in `inbound`.

use crate::decimal;
use crate::extension::ExtensionSet;
use crate::limits::HELO_MAX;
use crate::param::{self, Place};
use crate::path::{self, Path};
use crate::verb::Verb;
use crate::violation::{Violation, looks_foreign};

pub use crate::param::BodyType;

/// A command as the client wrote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command<'a> {
    Ehlo(&'a [u8]),
    Helo(&'a [u8]),
    Mail(MailArgs<'a>),
    Rcpt(RcptArgs<'a>),
    Data,
    Bdat {
        size: u64,
        last: bool,
    },
    Rset,
    Noop,
    Vrfy(&'a [u8]),
    Expn(&'a [u8]),
    Help,
    Quit,
    StartTls,
    Auth,
    Etrn,
    Turn,
    /// All behind the verb, for [`crate::xclient::parse`].
    Xclient(&'a [u8]),
    Xforward,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MailArgs<'a> {
    /// All after `MAIL FROM:`, blanks around it cut: passes on verbatim.
    pub argument: &'a [u8],
    pub path: Path<'a>,
    pub size: Option<u64>,
    pub body: BodyType,
    pub smtputf8: bool,
    /// Extensions an upstream must have for this MAIL. Never SIZE: that parameter can be left out ([`param::without`]).
    pub uses: ExtensionSet,
    /// All after the path.
    pub params: &'a [u8],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RcptArgs<'a> {
    /// All after `RCPT TO:`, blanks around it cut: passes on verbatim.
    pub argument: &'a [u8],
    pub path: Path<'a>,
    /// Extensions an upstream must have for this RCPT. SMTPUTF8 in here is only legal if the MAIL said SMTPUTF8.
    pub uses: ExtensionSet,
    /// All after the path.
    pub params: &'a [u8],
}

/// Parses one line without its terminator. `announced` is what the EHLO reply offered, `esmtp` whether the client said EHLO.
pub fn parse<'a>(
    line: &'a [u8],
    announced: ExtensionSet,
    esmtp: bool,
) -> Result<Command<'a>, Violation> {
    refuse_controls(line)?;
    let line = trim_end(line);
    let word_end = line
        .iter()
        .position(|&byte| is_blank(byte))
        .unwrap_or(line.len());
    let (word, argument) = (&line[..word_end], trim_start(&line[word_end..]));
    let verb = Verb::parse(word).ok_or_else(|| unknown(line))?;
    let announced = if esmtp { announced } else { ExtensionSet::NONE };
    match verb {
        Verb::Rcpt => rcpt(argument, announced, esmtp),
        Verb::Mail => mail(argument, announced, esmtp),
        Verb::Data => bare(argument, Command::Data),
        Verb::Bdat => bdat(argument),
        Verb::Ehlo => helo(argument).map(Command::Ehlo),
        Verb::Helo => helo(argument).map(Command::Helo),
        Verb::Rset => bare(argument, Command::Rset),
        Verb::Vrfy => required(argument).map(Command::Vrfy),
        Verb::Expn => required(argument).map(Command::Expn),
        Verb::StartTls => bare(argument, Command::StartTls),
        // RFC 5321, 4.1.1.9 and 4.1.1.8 let NOOP and HELP have an argument; after QUIT nobody cares
        Verb::Noop => Ok(Command::Noop),
        Verb::Help => Ok(Command::Help),
        Verb::Quit => Ok(Command::Quit),
        Verb::Auth => Ok(Command::Auth),
        Verb::Etrn => Ok(Command::Etrn),
        Verb::Turn => Ok(Command::Turn),
        Verb::Xclient => Ok(Command::Xclient(argument)),
        Verb::Xforward => Ok(Command::Xforward),
    }
}

/// NUL and bare CR are never legal in a command; both are ways to make two parsers disagree.
fn refuse_controls(line: &[u8]) -> Result<(), Violation> {
    match memchr::memchr2(0, b'\r', line) {
        None => Ok(()),
        Some(_) if looks_foreign(line) => Err(Violation::NonSmtpCommand),
        Some(at) if line[at] == 0 => Err(Violation::NulInCommand),
        Some(_) => Err(Violation::BareCrInCommand),
    }
}

fn unknown(line: &[u8]) -> Violation {
    if looks_foreign(line) {
        Violation::NonSmtpCommand
    } else {
        Violation::UnknownCommand
    }
}

fn bare<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, Violation> {
    if argument.is_empty() {
        Ok(command)
    } else {
        Err(Violation::SyntaxError)
    }
}

fn required(argument: &[u8]) -> Result<&[u8], Violation> {
    if argument.is_empty() {
        Err(Violation::SyntaxError)
    } else {
        Ok(argument)
    }
}

/// A name for the log and for policy. Clients put all sorts of things here; only what is empty, huge or not printable is refused.
fn helo(argument: &[u8]) -> Result<&[u8], Violation> {
    let printable = argument.iter().all(|&byte| byte >= b' ' && byte != 0x7f);
    if argument.is_empty() || argument.len() > HELO_MAX || !printable {
        return Err(Violation::BadHelo);
    }
    Ok(argument)
}

fn mail(argument: &[u8], announced: ExtensionSet, esmtp: bool) -> Result<Command<'_>, Violation> {
    let argument = after_label(argument, b"FROM:").ok_or(Violation::SyntaxError)?;
    let (path, params) = path::parse(argument).map_err(|_| Violation::BadSender)?;
    let said = parameters(params, Place::Mail, announced, esmtp)?;
    if !path.is_ascii() && !said.smtputf8 {
        return Err(Violation::Utf8NotDeclared);
    }
    Ok(Command::Mail(MailArgs {
        argument,
        path,
        size: said.size,
        body: said.body,
        smtputf8: said.smtputf8,
        uses: said.uses,
        params,
    }))
}

fn rcpt(argument: &[u8], announced: ExtensionSet, esmtp: bool) -> Result<Command<'_>, Violation> {
    let argument = after_label(argument, b"TO:").ok_or(Violation::SyntaxError)?;
    let (path, params) = path::parse(argument).map_err(|_| Violation::BadRecipient)?;
    if path.null {
        return Err(Violation::BadRecipient);
    }
    let mut uses = parameters(params, Place::Rcpt, announced, esmtp)?.uses;
    if !path.is_ascii() {
        if !announced.contains(ExtensionSet::SMTPUTF8) {
            return Err(Violation::Utf8NotDeclared);
        }
        uses.insert(ExtensionSet::SMTPUTF8);
    }
    Ok(Command::Rcpt(RcptArgs {
        argument,
        path,
        uses,
        params,
    }))
}

/// What follows "FROM:" or "TO:". Blanks after the colon are not legal but common, and harmless.
fn after_label<'a>(argument: &'a [u8], label: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = argument.split_at_checked(label.len())?;
    head.eq_ignore_ascii_case(label).then(|| trim_start(rest))
}

fn parameters(
    params: &[u8],
    place: Place,
    announced: ExtensionSet,
    esmtp: bool,
) -> Result<param::Params, Violation> {
    match params.first() {
        None => Ok(param::Params::default()),
        Some(b' ') if esmtp => param::parse(params, place, announced),
        Some(b' ') => Err(Violation::ParameterNotAnnounced),
        Some(_) => Err(Violation::SyntaxError),
    }
}

/// `BDAT size [LAST]` (RFC 3030, 2). Also where it was not announced: its octets come all the same,
/// and whoever refuses it has to know how many there are.
fn bdat<'a>(argument: &[u8]) -> Result<Command<'a>, Violation> {
    let mut words = argument
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let size = words
        .next()
        .and_then(decimal::read)
        .filter(|&size| size < u64::MAX)
        .ok_or(Violation::BadChunk)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => true,
        Some(_) => return Err(Violation::BadChunk),
    };
    match words.next() {
        None => Ok(Command::Bdat { size, last }),
        Some(_) => Err(Violation::BadChunk),
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn trim_start(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|&byte| !is_blank(byte))
        .unwrap_or(text.len());
    &text[start..]
}

fn trim_end(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|&byte| !is_blank(byte))
        .map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: ExtensionSet = ExtensionSet::OWN.union(ExtensionSet::SHARED);

    fn esmtp(line: &[u8]) -> Result<Command<'_>, Violation> {
        parse(line, ALL, true)
    }

    fn mail_args(line: &str) -> MailArgs<'_> {
        match esmtp(line.as_bytes()) {
            Ok(Command::Mail(args)) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn rcpt_args(line: &str) -> RcptArgs<'_> {
        match esmtp(line.as_bytes()) {
            Ok(Command::Rcpt(args)) => args,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands() {
        let table = [
            ("EHLO mx.example", Command::Ehlo(b"mx.example")),
            ("ehlo [192.0.2.1]", Command::Ehlo(b"[192.0.2.1]")),
            ("HELO  two words ", Command::Helo(b"two words")),
            ("DATA", Command::Data),
            ("data \t", Command::Data),
            ("RSET", Command::Rset),
            ("NOOP", Command::Noop),
            ("NOOP whatever", Command::Noop),
            ("HELP MAIL", Command::Help),
            ("QUIT", Command::Quit),
            ("quit now", Command::Quit),
            ("VRFY postmaster", Command::Vrfy(b"postmaster")),
            ("EXPN staff", Command::Expn(b"staff")),
            ("STARTTLS", Command::StartTls),
            ("AUTH PLAIN", Command::Auth),
            ("ETRN x", Command::Etrn),
            ("TURN", Command::Turn),
            ("XCLIENT ADDR=1", Command::Xclient(b"ADDR=1")),
            ("XFORWARD ADDR=1", Command::Xforward),
            (
                "BDAT 0 LAST",
                Command::Bdat {
                    size: 0,
                    last: true,
                },
            ),
            (
                "bdat 86400 last",
                Command::Bdat {
                    size: 86400,
                    last: true,
                },
            ),
            (
                "BDAT 5",
                Command::Bdat {
                    size: 5,
                    last: false,
                },
            ),
        ];
        for (line, want) in table {
            assert_eq!(esmtp(line.as_bytes()), Ok(want), "{line}");
        }
    }

    #[test]
    fn misbehaviour_has_a_name() {
        use Violation::*;
        let table: &[(&[u8], Violation)] = &[
            (b"", UnknownCommand),
            (b"HLO x", UnknownCommand),
            (b"MAILFROM:<a@b.example>", UnknownCommand),
            (b" NOOP", UnknownCommand),
            (b"EHLO", BadHelo),
            (b"HELO  ", BadHelo),
            (b"EHLO a\x01b", BadHelo),
            (b"DATA now", SyntaxError),
            (b"RSET x", SyntaxError),
            (b"STARTTLS x", SyntaxError),
            (b"VRFY", SyntaxError),
            (b"EXPN ", SyntaxError),
            (b"MAIL", SyntaxError),
            (b"MAIL <a@b.example>", SyntaxError),
            (b"MAIL TO:<a@b.example>", SyntaxError),
            (b"RCPT FROM:<a@b.example>", SyntaxError),
            (b"MAIL FROM <a@b.example>", SyntaxError),
            (b"MAIL FROM:", BadSender),
            (b"MAIL FROM:a@b.example", BadSender),
            (b"MAIL FROM:<a@b.example", BadSender),
            (b"MAIL FROM:<a@b.example>SIZE=1", SyntaxError),
            (b"MAIL FROM:<a@b.example>\tSIZE=1", SyntaxError),
            (b"RCPT TO:<>", BadRecipient),
            (b"RCPT TO:<a b@c.example>", BadRecipient),
            (b"RCPT TO:<a@b.example> SIZE=1", ParameterNotAnnounced),
            (
                b"MAIL FROM:<a@b.example> NOTIFY=NEVER",
                ParameterNotAnnounced,
            ),
            (b"MAIL FROM:<a@b.example> AUTH=<>", ParameterNotAnnounced),
            (
                b"MAIL FROM:<a@b.example> MT-PRIORITY=3",
                ParameterNotAnnounced,
            ),
            (b"MAIL FROM:<a@b.example> SIZE=1 size=2", BadParameter),
            (b"MAIL FROM:<a@b.example> SIZE", BadParameter),
            (b"MAIL FROM:<a@b.example> SIZE=", BadParameter),
            (b"MAIL FROM:<a@b.example> SIZE=-1", BadParameter),
            (
                b"MAIL FROM:<a@b.example> SIZE=123456789012345678901",
                BadParameter,
            ),
            (b"MAIL FROM:<a@b.example> BODY=9BIT", BadParameter),
            (b"MAIL FROM:<a@b.example> SMTPUTF8=yes", BadParameter),
            (b"MAIL FROM:<a@b.example> RET=ALL", BadParameter),
            (b"MAIL FROM:<a@b.example> ENVID=a+2", BadParameter),
            (b"MAIL FROM:<a@b.example> ENVID=a=b", BadParameter),
            (b"MAIL FROM:<a@b.example> =x", BadParameter),
            (b"MAIL FROM:<a@b.example> (x)", BadParameter),
            (b"MAIL FROM:<\xc3\xa4@b.example>", Utf8NotDeclared),
            (b"MAIL FROM:<\xc3@b.example> SMTPUTF8", BadSender),
            (b"RCPT TO:<a@b.example> NOTIFY=SUCCESS,NEVER", BadParameter),
            (b"RCPT TO:<a@b.example> NOTIFY=", BadParameter),
            (b"RCPT TO:<a@b.example> ORCPT=a@b.example", BadParameter),
            (b"RCPT TO:<a@b.example> ORCPT=;a@b.example", BadParameter),
            (
                b"RCPT TO:<a@b.example> ORCPT=rfc822;\xc3\xa4@b.example",
                BadParameter,
            ),
            (b"BDAT", BadChunk),
            (b"BDAT LAST", BadChunk),
            (b"BDAT -1", BadChunk),
            (b"BDAT 1 LAST x", BadChunk),
            (b"BDAT 1 FIRST", BadChunk),
            (b"BDAT 99999999999999999999", BadChunk),
            (b"NO\0OP", NulInCommand),
            (b"NOOP\rQUIT", BareCrInCommand),
            (b"GET / HTTP/1.1", NonSmtpCommand),
            (b"POST http://x/ HTTP/1.0", NonSmtpCommand),
            (b"CONNECT mx.example:25 HTTP/1.1", NonSmtpCommand),
            (b"Subject: hello", NonSmtpCommand),
            (b"HELO: hello", NonSmtpCommand),
            (b"SSH-2.0-OpenSSH", NonSmtpCommand),
            (b"\x16\x03\x01\x02\0\x01\0", NonSmtpCommand),
        ];
        for (line, want) in table {
            assert_eq!(
                esmtp(line),
                Err(*want),
                "{:?}",
                alloc::string::String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn mail_passes_on_verbatim_with_all_it_needs() {
        let args = mail_args(
            "mail from:  <a@b.example>  size=2000 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314 ",
        );
        assert_eq!(
            args.argument,
            b"<a@b.example>  size=2000 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314"
        );
        assert_eq!(
            args.params,
            b"  size=2000 BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314"
        );
        assert_eq!(
            (args.size, args.body, args.smtputf8),
            (Some(2000), BodyType::EightBitMime, true)
        );
        let needs = ExtensionSet::EIGHTBITMIME
            .union(ExtensionSet::SMTPUTF8)
            .union(ExtensionSet::DSN);
        assert_eq!(args.uses, needs, "SIZE can be left out");
        let kept: alloc::vec::Vec<_> = param::without(args.params, "SIZE").collect();
        assert_eq!(
            kept.join(&b' '),
            b"BODY=8bitmime SMTPUTF8 RET=hdrs ENVID=QQ+2B314"
        );
    }

    #[test]
    fn mail_without_parameters_needs_nothing() {
        let args = mail_args("MAIL FROM:<>");
        assert!(args.path.null && args.uses.is_empty() && args.params.is_empty());
        assert_eq!(
            mail_args("MAIL FROM:<a@b.example> BODY=7BIT").uses,
            ExtensionSet::EIGHTBITMIME
        );
        let binary = mail_args("MAIL FROM:<a@b.example> BODY=BINARYMIME");
        assert_eq!(
            binary.uses,
            ExtensionSet::BINARYMIME.union(ExtensionSet::CHUNKING)
        );
        assert_eq!(
            mail_args("MAIL FROM:<a@b.example> SIZE=99999999999999999999").size,
            Some(u64::MAX)
        );
    }

    #[test]
    fn rcpt_says_what_it_needs() {
        assert!(rcpt_args("RCPT TO:<a@b.example>").uses.is_empty());
        let args =
            rcpt_args("rcpt to: <a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bx@b.example");
        assert_eq!(args.uses, ExtensionSet::DSN);
        assert_eq!(
            args.argument,
            b"<a@b.example> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bx@b.example"
        );
        assert_eq!(
            rcpt_args("RCPT TO:<ä@b.example>").uses,
            ExtensionSet::SMTPUTF8
        );
        let utf8 = rcpt_args("RCPT TO:<a@b.example> ORCPT=utf-8;ä@b.example");
        assert_eq!(utf8.uses, ExtensionSet::DSN.union(ExtensionSet::SMTPUTF8));
    }

    #[test]
    fn what_was_not_announced_is_refused() {
        let table = [
            ("MAIL FROM:<a@b.example> SIZE=1", ExtensionSet::SIZE),
            (
                "MAIL FROM:<a@b.example> BODY=7BIT",
                ExtensionSet::EIGHTBITMIME,
            ),
            (
                "MAIL FROM:<a@b.example> BODY=8BITMIME",
                ExtensionSet::EIGHTBITMIME,
            ),
            (
                "MAIL FROM:<a@b.example> BODY=BINARYMIME",
                ExtensionSet::BINARYMIME,
            ),
            (
                "MAIL FROM:<a@b.example> BODY=BINARYMIME",
                ExtensionSet::CHUNKING,
            ),
            ("MAIL FROM:<a@b.example> SMTPUTF8", ExtensionSet::SMTPUTF8),
            ("MAIL FROM:<a@b.example> RET=FULL", ExtensionSet::DSN),
            ("MAIL FROM:<a@b.example> ENVID=x", ExtensionSet::DSN),
            ("RCPT TO:<a@b.example> NOTIFY=NEVER", ExtensionSet::DSN),
            (
                "RCPT TO:<a@b.example> ORCPT=rfc822;a@b.example",
                ExtensionSet::DSN,
            ),
            (
                "RCPT TO:<a@b.example> ORCPT=utf-8;ä@b.example",
                ExtensionSet::SMTPUTF8,
            ),
        ];
        for (line, missing) in table {
            let line = line.as_bytes();
            assert!(parse(line, ALL, true).is_ok());
            assert_eq!(
                parse(line, ALL.without(missing), true),
                Err(Violation::ParameterNotAnnounced),
                "{missing}"
            );
            assert_eq!(
                parse(line, ALL, false),
                Err(Violation::ParameterNotAnnounced),
                "after HELO nothing is announced"
            );
        }
        assert!(parse(b"BDAT 1", ALL.without(ExtensionSet::CHUNKING), true).is_ok());
        let utf8 = "RCPT TO:<ä@b.example>".as_bytes();
        assert_eq!(parse(utf8, ALL, false), Err(Violation::Utf8NotDeclared));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_line_is_a_command_or_a_violation(line in prop::collection::vec(any::<u8>(), 0..80), set in any::<bool>()) {
            let _ = parse(&line, ALL, set);
        }

        #[test]
        fn any_argument_is_a_command_or_a_violation(
            verb in prop::sample::select(alloc::vec!["MAIL FROM:", "RCPT TO:", "BDAT ", "EHLO ", "MAIL FROM:<a@b> "]),
            argument in "[<>@a-c.:\"\\\\ \\[\\]IPv6=0-9+;,ä-]{0,40}",
        ) {
            let line = [verb.as_bytes(), argument.as_bytes()].concat();
            let (argument, path, params) = match parse(&line, ALL, true) {
                Ok(Command::Mail(mail)) => (mail.argument, mail.path, mail.params),
                Ok(Command::Rcpt(rcpt)) => (rcpt.argument, rcpt.path, rcpt.params),
                _ => return Ok(()),
            };
            prop_assert_eq!([path.whole, params].concat(), argument);
            prop_assert!(path.whole.starts_with(b"<") && path.whole.ends_with(b">"));
            prop_assert!(path.null || path.domain.is_empty() || path.mailbox == [path.local, b"@", path.domain].concat());
        }
    }
}
