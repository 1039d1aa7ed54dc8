//! One connection to the sink, without its socket: octets in, replies out.
//!
//! The commands are judged strictly, and what is out of order is counted under the name of its [`Violation`] or one of [`own`]: a proxy
//! that sends such a thing has a fault. After refusals that were ours (a fault, a full message) what was pipelined behind them is refused
//! too, and not counted.

mod answer;
mod message;
#[cfg(test)]
mod tests;

use std::time::Duration;

use weir_smtp::command::{self, Command, MailArgs, RcptArgs};
use weir_smtp::extension::ExtensionSet;
use weir_smtp::limits::COMMAND_LINE_MAX;
use weir_smtp::line::{Terminator, split_line};
use weir_smtp::param::BodyType;
use weir_smtp::violation::Violation;

use super::announce::Texts;
use super::content::Content;
use super::counters::Counters;
use super::fault::{Deed, Faults, Place};
use super::ledgers::Ledgers;

/// Violations that only a receiver of mail can see.
pub mod own {
    /// Octets behind a command, before its reply, though PIPELINING was not offered.
    pub const PIPELINING: &str = "pipelining_not_offered";
    /// Octets behind EHLO, HELO, VRFY, EXPN, NOOP or QUIT before its reply (RFC 2920, 3.1: they end a group).
    pub const GROUP: &str = "group_not_ended";
    /// Octets behind DATA before the 354.
    pub const EARLY_BODY: &str = "body_before_354";
    /// Octets before the greeting.
    pub const PREGREET: &str = "pregreet";
    /// What follows an end of data is no command: the message was not meant to end there.
    pub const AFTER_END: &str = "octets_after_end_of_data";
    /// A CR or LF alone in a message.
    pub const BARE_NEWLINE: &str = "bare_newline_in_body";
    /// Octets behind STARTTLS in the same read: whoever gets them into the TLS session has injected them.
    pub const BEHIND_STARTTLS: &str = "octets_behind_starttls";
    /// No PROXY header where one has to come, or a damaged one.
    pub const NO_PROXY_HEADER: &str = "no_proxy_header";
    /// BDAT though CHUNKING was not offered, and so on.
    pub const NOT_OFFERED: &str = "command_not_offered";
}

/// What a session works with, shared by those of a thread.
pub struct Desk<'a> {
    pub texts: &'a Texts,
    pub faults: &'a Faults,
    pub counters: &'a mut Counters,
    pub ledgers: &'a mut Ledgers,
}

/// Replies to one flight of commands.
#[derive(Default)]
pub struct Replies {
    pub octets: Vec<u8>,
    /// How long they take.
    pub delay: Duration,
}

impl Replies {
    /// Forgets those of the flight before.
    pub fn restart(&mut self) {
        self.octets.clear();
        self.delay = Duration::ZERO;
    }
}

/// What is to be done with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    GoOn,
    /// Once the replies have left.
    Close,
    /// At once, by RST.
    Reset,
    /// Nothing more is read.
    StopReading,
    /// TLS, once the replies have left.
    StartTls,
}

pub struct Session {
    rng: fastrand::Rng,
    phase: Phase,
    hello: Hello,
    transaction: Transaction,
    content: Content,
    /// The start of a command line.
    line: Vec<u8>,
    /// Octets before the replies are out mean this violation.
    must_wait: Option<&'static str>,
    /// The next line is the first after an end of data.
    after_end: bool,
    /// What is to happen at which octet of the message.
    trap: Option<(u64, Deed)>,
    quit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Commands,
    Data,
    Chunk {
        left: u64,
        last: bool,
        taken: bool,
    },
    /// Stalled: whatever comes is passed over.
    Deaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hello {
    None,
    Helo,
    Ehlo,
}

#[derive(Debug, Default)]
struct Transaction {
    mail: Mail,
    recipients: u32,
    /// An RCPT was seen that was in order, taken or not.
    tried: bool,
    chunked: bool,
    binary: bool,
    utf8: bool,
    stated: Option<u64>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Mail {
    #[default]
    None,
    /// We refused it, or a chunk: what follows up to the next RSET or MAIL is refused, and nobody's fault.
    Refused,
    Open,
}

impl Session {
    pub fn new(seed: u64) -> Session {
        Session {
            rng: fastrand::Rng::with_seed(seed),
            phase: Phase::Commands,
            hello: Hello::None,
            transaction: Transaction::default(),
            content: Content::default(),
            line: Vec::new(),
            must_wait: Some(own::PREGREET),
            after_end: false,
            trap: None,
            quit: false,
        }
    }

    /// The connection is open.
    pub fn greet(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        self.delay_flight(desk, out);
        let (next, _) = self.answer_with(Place::Greeting, desk, out, |desk, out| {
            out.extend_from_slice(&desk.texts.greeting)
        });
        next
    }

    /// TLS has begun: nothing that was said before it counts.
    pub fn secured(&mut self) {
        self.hello = Hello::None;
        self.transaction = Transaction::default();
        self.must_wait = None;
    }

    /// The replies so far have left.
    pub fn heard(&mut self) {
        self.must_wait = None;
    }

    pub fn has_quit(&self) -> bool {
        self.quit
    }

    pub fn is_within_message(&self) -> bool {
        matches!(self.phase, Phase::Data | Phase::Chunk { .. })
    }

    /// Takes what one read brought, all of it unless the connection is to end.
    pub fn take(&mut self, input: &[u8], desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        let before = out.octets.len();
        let mut rest = input;
        let mut next = Next::GoOn;
        while !rest.is_empty() && next == Next::GoOn {
            if let Some(word) = self.must_wait.take() {
                desk.counters.violation(word);
            }
            next = match self.phase {
                Phase::Commands => self.take_line(&mut rest, desk, out),
                Phase::Data => self.take_data(&mut rest, desk, out),
                Phase::Chunk { left, last, taken } => {
                    self.take_chunk(&mut rest, left, last, taken, desk, out)
                }
                Phase::Deaf => return Next::GoOn,
            };
        }
        if next == Next::StartTls && !rest.is_empty() {
            desk.counters.violation(own::BEHIND_STARTTLS);
        }
        if out.octets.len() > before {
            self.delay_flight(desk, out);
        }
        next
    }

    fn delay_flight(&mut self, desk: &Desk<'_>, out: &mut Replies) {
        if let Some(delay) = desk.faults.flight_delay() {
            out.delay = out.delay.max(delay.draw(&mut self.rng));
        }
    }

    fn take_line(&mut self, rest: &mut &[u8], desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        let room = COMMAND_LINE_MAX - self.line.len();
        let Some((length, taken, terminator)) = split_line(&rest[..rest.len().min(room)]) else {
            if rest.len() >= room {
                return self.end_with(Violation::LineTooLong, desk, out);
            }
            self.line.extend_from_slice(rest);
            *rest = &[];
            return Next::GoOn;
        };
        let (head, tail) = rest.split_at(taken);
        *rest = tail;
        if self.line.is_empty() {
            return self.execute(&head[..length], terminator, desk, out);
        }
        let mut line = std::mem::take(&mut self.line);
        line.extend_from_slice(head);
        let next = match split_line(&line) {
            Some((length, _, terminator)) => self.execute(&line[..length], terminator, desk, out),
            None => Next::GoOn,
        };
        line.clear();
        self.line = line;
        next
    }

    /// Judges and answers one command.
    fn execute(
        &mut self,
        line: &[u8],
        terminator: Terminator,
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        desk.counters.commands += 1;
        let announced = desk.texts.capabilities.set;
        if !announced.contains(ExtensionSet::PIPELINING) {
            self.must_wait = Some(own::PIPELINING);
        }
        let after_end = std::mem::take(&mut self.after_end);
        if terminator == Terminator::BareLf {
            return self.refuse(Violation::BareLfInCommand, desk, out);
        }
        let command = match command::parse(line, announced, self.hello == Hello::Ehlo) {
            Ok(command) => command,
            Err(violation) => {
                if after_end {
                    desk.counters.violation(own::AFTER_END);
                }
                return self.refuse(violation, desk, out);
            }
        };
        match command {
            Command::Rcpt(rcpt) => self.rcpt(&rcpt, desk, out),
            Command::Mail(mail) => self.mail(&mail, desk, out),
            Command::Data => self.data(desk, out),
            Command::Bdat { size, last } => self.bdat(size, last, desk, out),
            Command::Ehlo(_) => self.hello(Hello::Ehlo, desk, out),
            Command::Helo(_) => self.hello(Hello::Helo, desk, out),
            Command::Rset => self.rset(desk, out),
            Command::Noop => {
                self.must_wait.get_or_insert(own::GROUP);
                self.answer(Place::Noop, b"250 2.0.0 Ok\r\n", desk, out)
            }
            Command::Vrfy(_) => {
                self.must_wait.get_or_insert(own::GROUP);
                desk.texts
                    .push(&mut out.octets, b"252 2.1.5 Send some mail\r\n");
                Next::GoOn
            }
            Command::Help => {
                desk.texts.push(&mut out.octets, b"214 2.0.0 RFC 5321\r\n");
                Next::GoOn
            }
            Command::Quit => self.quit(desk, out),
            Command::StartTls if desk.texts.starttls => self.starttls(desk, out),
            Command::StartTls => self.offered(
                ExtensionSet::STARTTLS,
                b"454 4.7.0 TLS not available\r\n",
                desk,
                out,
            ),
            Command::Xforward => {
                self.offered(ExtensionSet::XFORWARD, b"250 2.0.0 Ok\r\n", desk, out)
            }
            Command::Xclient(_) => self.xclient(desk, out),
            Command::Auth => self.offered(
                ExtensionSet::AUTH,
                b"535 5.7.8 Nobody has an account here\r\n",
                desk,
                out,
            ),
            Command::Expn(_) | Command::Etrn | Command::Turn => {
                self.refuse(Violation::NotImplemented, desk, out)
            }
        }
    }

    fn hello(&mut self, hello: Hello, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        self.must_wait.get_or_insert(own::GROUP);
        let text = |desk: &Desk<'_>, out: &mut Vec<u8>| {
            out.extend_from_slice(match hello {
                Hello::Ehlo => &desk.texts.ehlo,
                _ => &desk.texts.helo,
            })
        };
        let (next, answered) = self.answer_with(Place::Ehlo, desk, out, text);
        if answered {
            self.hello = hello;
            self.transaction = Transaction::default();
        }
        next
    }

    fn starttls(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        if self.transaction.mail != Mail::None {
            return self.refuse(Violation::BadSequence, desk, out);
        }
        desk.texts.push(&mut out.octets, b"220 2.0.0 Go ahead\r\n");
        Next::StartTls
    }

    fn xclient(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        if !desk.texts.capabilities.set.contains(ExtensionSet::XCLIENT) {
            return self.not_offered(desk, out);
        }
        if self.transaction.mail != Mail::None {
            return self.refuse(Violation::BadSequence, desk, out);
        }
        // the session begins anew, with a greeting (Postfix XCLIENT_README)
        self.must_wait.get_or_insert(own::GROUP);
        self.hello = Hello::None;
        out.octets.extend_from_slice(&desk.texts.greeting);
        Next::GoOn
    }

    fn mail(&mut self, mail: &MailArgs<'_>, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        if self.hello == Hello::None {
            return self.refuse(Violation::NeedHelo, desk, out);
        }
        if self.transaction.mail == Mail::Open {
            return self.refuse(Violation::NestedMail, desk, out);
        }
        let size_max = desk.texts.capabilities.size_max;
        if size_max != 0 && mail.size.is_some_and(|size| size > size_max) {
            return self.refuse(Violation::MessageTooBig, desk, out);
        }
        self.transaction = Transaction {
            mail: Mail::Refused,
            binary: mail.body == BodyType::BinaryMime,
            utf8: mail.smtputf8,
            stated: mail.size,
            ..Transaction::default()
        };
        let (next, taken) = self.answer_at(Place::Mail, b"250 2.1.0 Ok\r\n", desk, out);
        if taken {
            self.transaction.mail = Mail::Open;
        }
        next
    }

    fn rcpt(&mut self, rcpt: &RcptArgs<'_>, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        match self.transaction.mail {
            Mail::None => return self.refuse(Violation::NeedMail, desk, out),
            Mail::Refused => return self.follow_up(Violation::NeedMail, desk, out),
            Mail::Open => {}
        }
        if self.transaction.chunked {
            return self.refuse(Violation::BadSequence, desk, out);
        }
        if rcpt.uses.contains(ExtensionSet::SMTPUTF8) && !self.transaction.utf8 {
            return self.refuse(Violation::Utf8NotDeclared, desk, out);
        }
        self.transaction.tried = true;
        let (next, taken) = self.answer_at(Place::Rcpt, b"250 2.1.5 Ok\r\n", desk, out);
        if taken {
            self.transaction.recipients = self.transaction.recipients.saturating_add(1);
            desk.counters.recipients += 1;
        }
        next
    }

    fn rset(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        desk.counters.rsets += 1;
        self.transaction = Transaction::default();
        self.answer(Place::Rset, b"250 2.0.0 Ok\r\n", desk, out)
    }

    fn quit(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        self.must_wait = Some(own::GROUP);
        self.quit = true;
        match self.answer(Place::Quit, b"221 2.0.0 Bye\r\n", desk, out) {
            Next::GoOn if self.phase != Phase::Deaf => Next::Close,
            next => next,
        }
    }

    fn offered(
        &mut self,
        extension: ExtensionSet,
        reply: &[u8],
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        if !desk.texts.capabilities.set.contains(extension) {
            return self.not_offered(desk, out);
        }
        desk.texts.push(&mut out.octets, reply);
        Next::GoOn
    }

    fn not_offered(&mut self, desk: &mut Desk<'_>, out: &mut Replies) -> Next {
        desk.counters.violation(own::NOT_OFFERED);
        self.follow_up(Violation::NotImplemented, desk, out)
    }
}
