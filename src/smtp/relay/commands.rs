//! What each command does: check, decide, proceed. RCPT is in `recipients.rs`, the body behind
//! DATA and BDAT in `message.rs`.

use alloc::boxed::Box;

use super::secure::is_for_plaintext;
use super::{Cx, LineVerdict, Phase, Relay, TlsOffer, Waiting};
use crate::body::BodyScanner;
use crate::command::{BodyType, Command, MailArgs, parse};
use crate::decimal;
use crate::gate::{Finding, Stage, Verdict};
use crate::line::Terminator;
use crate::reply::ReplyText;
use crate::texts;
use crate::violation::{Violation, looks_foreign, means_bdat};

/// HELO names are kept up to this length for the log and the upstream.
const HELO_KEPT: usize = 255;

impl Relay {
    /// Handles one command line. `more`: other bytes came behind it. `false`: it can not be
    /// handled yet and has to be offered again.
    pub(super) fn handle_line(
        &mut self,
        cx: &mut Cx<'_>,
        line: &[u8],
        terminator: Terminator,
        more: bool,
    ) -> bool {
        let allowed = match core::mem::replace(&mut self.line_verdict, LineVerdict::None) {
            LineVerdict::Refused(reply) => {
                self.stats.commands = self.stats.commands.saturating_add(1);
                self.stats.errors = self.stats.errors.saturating_add(1);
                self.say(cx, &reply);
                return true;
            }
            LineVerdict::Allowed => true,
            LineVerdict::None => false,
        };
        let parsed = match self.bare_lf_refused(cx, terminator) {
            // what is no SMTP at all need not end its lines as SMTP does
            true if looks_foreign(line) => Err(Violation::NonSmtpCommand),
            true => Err(Violation::BareLfInCommand),
            false => parse(line, self.announced, self.esmtp),
        };
        // only recipients overlap; everything else waits until they are answered
        let in_turn = matches!(parsed, Ok(Command::Rcpt(_)) if self.phase == Phase::Envelope);
        if !in_turn && self.awaits_recipients() {
            self.waiting = Waiting::Recipients;
            return false;
        }
        match parsed {
            Err(Violation::NonSmtpCommand) if !allowed => {
                self.ask_line(cx, Finding::NonSmtp);
                false
            }
            Err(violation) => {
                // passed as a finding, it is one more command that nobody knows
                let violation = match violation {
                    Violation::NonSmtpCommand => Violation::UnknownCommand,
                    other => other,
                };
                self.stats.commands = self.stats.commands.saturating_add(1);
                self.violation(cx, violation);
                if means_bdat(line) {
                    // its octets come whatever we answer, and nobody knows where commands begin again
                    self.close(cx, true);
                }
                true
            }
            Ok(command) => {
                if more && !allowed && self.is_premature(&command) {
                    self.ask_line(cx, Finding::Pipelining);
                    return false;
                }
                self.stats.commands = self.stats.commands.saturating_add(1);
                self.obey(cx, command, more)
            }
        }
    }

    /// A TLS client hello has no line end to wait for: it is asked about as soon as it is known.
    pub(super) fn notice_tls(&mut self, cx: &mut Cx<'_>) {
        let unasked = matches!(self.line_verdict, LineVerdict::None);
        if unasked && self.inbound.begins_with_tls() && !self.awaits_recipients() {
            self.ask_line(cx, Finding::NonSmtp);
        }
    }

    /// RFC 2920, 3.1: these end a group, and without PIPELINING every command does. What stands
    /// behind QUIT is nobody's business any more; what stands behind BDAT is its chunk.
    fn is_premature(&self, command: &Command<'_>) -> bool {
        match command {
            Command::Quit | Command::Bdat { .. } => false,
            Command::Ehlo(_) | Command::Helo(_) | Command::Data => true,
            _ => !self.esmtp,
        }
    }

    fn obey(&mut self, cx: &mut Cx<'_>, command: Command<'_>, more: bool) -> bool {
        if self.phase == Phase::Unwelcome && !matches!(command, Command::Quit) {
            self.violation(cx, Violation::BadSequence);
            if let Command::Bdat { size, .. } = command {
                self.swallow = size;
            }
            return true;
        }
        if cx.tls == TlsOffer::Require && !is_for_plaintext(&command) {
            self.violation(cx, Violation::TlsRequired);
            if let Command::Bdat { size, .. } = command {
                self.swallow = size;
            }
            return true;
        }
        match command {
            Command::Ehlo(name) => self.hello(cx, name, true),
            Command::Helo(name) => self.hello(cx, name, false),
            Command::Mail(args) => self.mail(cx, &args),
            Command::Rcpt(args) => return self.rcpt(cx, &args),
            Command::Data => self.data(cx, more),
            Command::Bdat { size, last } => self.bdat(cx, size, last),
            Command::Rset => {
                self.junk();
                self.abandon(cx);
                self.say(cx, &texts::RSET_OK);
            }
            Command::Noop => self.answer_junk(cx, &texts::NOOP_OK),
            Command::Help => self.answer_junk(cx, &texts::HELP),
            Command::Vrfy(_) => self.answer_junk(cx, &texts::VRFY_MAYBE),
            Command::Expn(_) => self.answer_junk(cx, &texts::EXPN_REFUSED),
            Command::Quit => {
                self.abandon(cx);
                self.say(cx, &texts::BYE);
                self.close(cx, false);
            }
            Command::StartTls => self.start_tls(cx),
            Command::Xclient(argument) => self.xclient(cx, argument),
            Command::Auth | Command::Etrn | Command::Turn | Command::Xforward => {
                self.violation(cx, Violation::NotImplemented)
            }
        }
        true
    }

    fn junk(&mut self) {
        self.stats.junk = self.stats.junk.saturating_add(1);
    }

    fn answer_junk(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        self.junk();
        self.say(cx, reply);
    }

    fn hello(&mut self, cx: &mut Cx<'_>, name: &[u8], esmtp: bool) {
        if self.phase != Phase::Greeted {
            self.junk();
        }
        self.abandon(cx);
        self.esmtp = esmtp;
        self.helo = Box::from(&name[..name.len().min(HELO_KEPT)]);
        let id = self.ask(cx, Stage::Helo);
        self.waiting = Waiting::Helo(id);
    }

    fn hello_passed(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Ready;
        if self.esmtp {
            self.announced = cx.announced.caps.set;
            cx.out.extend_from_slice(&cx.announced.text);
        } else {
            self.announced = Default::default();
            cx.out.extend_from_slice(b"250 ");
            cx.out.extend_from_slice(&cx.config.hostname);
            cx.out.extend_from_slice(b"\r\n");
        }
    }

    fn mail(&mut self, cx: &mut Cx<'_>, args: &MailArgs<'_>) {
        match self.phase {
            Phase::Greeted => return self.violation(cx, Violation::NeedHelo),
            Phase::Ready => {}
            _ => return self.violation(cx, Violation::NestedMail),
        }
        let messages = u32::from(self.stats.transactions);
        if cx.config.messages_max != 0 && messages >= cx.config.messages_max {
            return self.say_and_close(cx, &texts::TOO_MANY_MESSAGES);
        }
        let size_max = size_limit(cx);
        if size_max != 0 && args.size.is_some_and(|size| size > size_max) {
            return self.violation(cx, Violation::MessageTooBig);
        }
        let mut tx = cx.spare.take(cx.now);
        tx.envelope.set_mail(args);
        self.tx = Some(tx);
        self.phase = Phase::Envelope;
        let id = self.ask(cx, Stage::Mail);
        self.waiting = Waiting::Mail(id);
    }

    fn data(&mut self, cx: &mut Cx<'_>, more: bool) {
        if !self.may_begin_body(cx) {
            return;
        }
        if self.tx().envelope.body_type() == BodyType::BinaryMime {
            return self.violation(cx, Violation::BinaryNeedsBdat);
        }
        if more {
            // What follows DATA before its 354 must be neither message nor command: allowed as a
            // finding or not, this session can not go on (RFC 2920, 3.1; smtp-rules 21).
            self.stats.errors = self.stats.errors.saturating_add(1);
            return self.say_and_close(cx, &Violation::Pipelining.reply());
        }
        let id = self.ask(cx, Stage::Data);
        self.waiting = Waiting::Data(id);
    }

    fn bdat(&mut self, cx: &mut Cx<'_>, size: u64, last: bool) {
        match self.phase {
            Phase::BetweenChunks => return self.begin_chunk(cx, size, last),
            Phase::Envelope if self.esmtp && self.tx().envelope.accepted() > 0 => {}
            // The chunk's octets come whatever we answer, and must not be taken for commands.
            _ => return self.swallow_chunk(cx, size),
        }
        let bare_newline = cx.config.bare_newline;
        let tx = self.tx_mut();
        let binary = tx.envelope.body_type() == BodyType::BinaryMime;
        tx.scanner = BodyScanner::bdat(bare_newline, binary);
        tx.chunk_left = size;
        tx.chunk_last = last;
        let id = self.ask(cx, Stage::Data);
        self.waiting = Waiting::Chunk(id);
    }

    /// A chunk out of turn: refused, and its octets are read over (RFC 3030, 2).
    fn swallow_chunk(&mut self, cx: &mut Cx<'_>, size: u64) {
        self.swallow = size;
        if !self.esmtp {
            self.violation(cx, Violation::BadSequence);
        } else if self.may_begin_body(cx) {
            unreachable!("a chunk that may begin a body is not swallowed");
        }
    }

    /// Is there a recipient to send a body to? Answers the client if not.
    fn may_begin_body(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.phase == Phase::BetweenChunks {
            self.violation(cx, Violation::MixedDataBdat);
            return false;
        }
        if self.phase != Phase::Envelope {
            self.violation(cx, Violation::NeedMail);
            return false;
        }
        let tx = self.tx();
        if tx.envelope.accepted() > 0 {
            return true;
        }
        // An expected error of a group whose recipients all failed: not counted (smtp-rules 64).
        if tx.envelope.recipient_count() == 0 {
            self.violation(cx, Violation::NeedRcpt);
        } else if tx.mail_refusal.is_empty() {
            self.say(cx, &Violation::NoValidRecipients.reply());
        } else {
            cx.out.extend_from_slice(&tx.mail_refusal);
        }
        false
    }

    /// The verdict that `waiting` was waiting for.
    pub(super) fn resolve(&mut self, cx: &mut Cx<'_>, waiting: Waiting, verdict: Verdict) {
        let refused = match verdict {
            Verdict::Pass | Verdict::PassVia(_) => None,
            Verdict::Refuse(reply) => Some((reply, false)),
            Verdict::Close(reply) => Some((reply, true)),
        };
        match waiting {
            Waiting::EndOfHeaders(_) => return self.headers_judged(cx, refused),
            Waiting::End(_) => return self.end_judged(cx, refused),
            Waiting::FinalReply(_) => return self.final_reply_judged(cx, refused),
            _ => {}
        }
        match (refused, waiting) {
            (Some((reply, true)), _) => self.say_and_close(cx, &reply),
            (Some((reply, false)), waiting) => self.refused(cx, waiting, reply),
            (None, Waiting::Connect(_)) => self.greet(cx),
            (None, Waiting::Helo(_)) => self.hello_passed(cx),
            (None, Waiting::StartTls(_)) => self.begin_handshake(cx),
            (None, Waiting::Mail(_)) => {
                self.stats.transactions = self.stats.transactions.saturating_add(1);
                self.say(cx, &texts::MAIL_OK);
            }
            (None, Waiting::Data(_)) => self.begin_data(cx),
            (None, Waiting::Chunk(_)) => {
                let tx = self.tx();
                let (size, last) = (tx.chunk_left, tx.chunk_last);
                self.begin_chunk(cx, size, last);
            }
            (None, Waiting::Line(_)) => self.line_verdict = LineVerdict::Allowed,
            (None, _) => {}
        }
    }

    fn greet(&mut self, cx: &mut Cx<'_>) {
        self.phase = Phase::Greeted;
        cx.out.extend_from_slice(&cx.config.greeting);
    }

    fn refused(&mut self, cx: &mut Cx<'_>, waiting: Waiting, reply: ReplyText) {
        match waiting {
            Waiting::Line(_) => {
                self.line_verdict = LineVerdict::Refused(reply);
                return;
            }
            Waiting::Connect(_) => self.phase = Phase::Unwelcome,
            Waiting::Helo(_) => {
                self.phase = Phase::Greeted;
                self.announced = Default::default();
            }
            Waiting::Mail(_) => {
                self.tx_mut().note_refusal(reply.as_bytes());
                self.abandon(cx);
            }
            Waiting::Chunk(_) => {
                let (size, last) = (self.tx().chunk_left, self.tx().chunk_last);
                self.fail_message(cx, &reply);
                return self.begin_chunk(cx, size, last);
            }
            _ => {}
        }
        if reply.code() >= 500 {
            self.stats.errors = self.stats.errors.saturating_add(1);
        }
        self.say(cx, &reply);
    }

    /// `250 2.0.0 N octets received`, for a chunk that is not the last.
    pub(super) fn chunk_received(&mut self, cx: &mut Cx<'_>, octets: u64) {
        cx.out.extend_from_slice(b"250 2.0.0 ");
        decimal::push(cx.out, octets);
        cx.out.extend_from_slice(b" octets received\r\n");
    }
}

/// The size limit in force: our own, or a smaller one of an upstream.
pub(super) fn size_limit(cx: &Cx<'_>) -> u64 {
    match (cx.config.message_size_max, cx.announced.caps.size_max) {
        (0, limit) | (limit, 0) => limit,
        (own, theirs) => own.min(theirs),
    }
}
