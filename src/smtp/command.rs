//! One command line to one [`Command`]: spans of the line, nothing copied. Whether a command is in order is not decided here but in `inbound`.

use crate::extension::{ExtensionSet, decimal};
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
    Bdat { size: u64, last: bool },
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
    Xclient,
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
    /// Extensions an upstream must have for this MAIL. Never SIZE: that parameter can be left out ([`param::write_without`]).
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
        Verb::Bdat => bdat(argument, announced),
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
        Verb::Xclient => Ok(Command::Xclient),
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

/// `BDAT size [LAST]` (RFC 3030, 2).
fn bdat<'a>(argument: &[u8], announced: ExtensionSet) -> Result<Command<'a>, Violation> {
    if !announced.contains(ExtensionSet::CHUNKING) {
        return Err(Violation::NotImplemented);
    }
    let mut words = argument
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty());
    let size = words
        .next()
        .and_then(decimal)
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
