//! What each command does: may it go up while replies are owed, is it in order, what does policy say; then it passes.

use alloc::boxed::Box;

use super::{Dedicated, Phase, Refusal, Waiting};
use crate::command::{Command, parse};
use crate::extension::ExtensionSet;
use crate::gate::{Finding, Stage, Verdict};
use crate::limits::{AUTH_LINE_MAX, COMMAND_LINE_MAX, SHORT_LINE_MAX};
use crate::line::Terminator;
use crate::outbound::Owed;
use crate::relay::{Cx, Detach, LineVerdict, TlsOffer, is_for_plaintext};
use crate::reply::Reply;
use crate::texts;
use crate::violation::{Violation, looks_foreign, means_bdat};

impl Dedicated {
    /// Handles one command line. `more`: other bytes came behind it. `false`: it can not be handled yet and has to be
    /// offered again.
    pub(super) fn handle_line(
        &mut self,
        cx: &mut Cx<'_>,
        line: &[u8],
        terminator: Terminator,
        more: bool,
    ) -> bool {
        if self.phase == Phase::Auth {
            self.auth_line(cx, line, terminator);
            return true;
        }
        let allowed = match core::mem::replace(&mut self.line_verdict, LineVerdict::None) {
            LineVerdict::Refused(reply) => {
                self.count_command();
                self.count_error();
                self.say(cx, reply.as_bytes());
                return true;
            }
            LineVerdict::Allowed => true,
            LineVerdict::None => false,
        };
        let parsed = match self.bare_lf_refused(cx, terminator) {
            // what is no SMTP at all need not end its lines as SMTP does
            true if looks_foreign(line) => Err(Violation::NonSmtpCommand),
            true => Err(Violation::BareLfInCommand),
            false => parse(line, self.announced, self.esmtp).and_then(|command| {
                match line.len() > length_max(&command) {
                    true => Err(Violation::LineTooLong),
                    false => Ok(command),
                }
            }),
        };
        match parsed {
            Err(_) if self.has_to_wait() => false,
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
                self.count_command();
                self.violation(cx, violation);
                if means_bdat(line) {
                    // its octets come whatever we answer, and nobody knows where commands begin again
                    self.close(cx, true);
                }
                true
            }
            Ok(command) => {
                let premature = more && !allowed && self.is_premature(&command);
                if premature && self.has_to_wait() {
                    return false;
                }
                if premature {
                    self.ask_line(cx, Finding::Pipelining);
                    return false;
                }
                if self.is_too_early(cx, &command) {
                    self.owed_since = cx.now;
                    self.waiting = Waiting::Replies;
                    return false;
                }
                if !self.may_go_on(cx, &command) {
                    self.waiting = Waiting::Replies;
                    return false;
                }
                self.count_command();
                self.obey(cx, line, &command, more);
                true
            }
        }
    }

    /// A TLS client hello has no line end to wait for: it is asked about as soon as it is known.
    pub(super) fn notice_tls(&mut self, cx: &mut Cx<'_>) {
        let unasked = matches!(self.line_verdict, LineVerdict::None);
        if unasked && self.inbound.begins_with_tls() && !self.has_to_wait() {
            self.ask_line(cx, Finding::NonSmtp);
        }
    }

    /// RFC 2920, 3.1: these end a group, and without PIPELINING every command does. What stands behind QUIT is nobody's
    /// business any more; what stands behind BDAT is its chunk.
    fn is_premature(&self, command: &Command<'_>) -> bool {
        match command {
            // what stands behind STARTTLS is thrown away, and found by whoever does
            Command::Quit | Command::Bdat { .. } | Command::StartTls => false,
            Command::Ehlo(_) | Command::Helo(_) | Command::Data | Command::Auth => true,
            _ => !self.announced.contains(ExtensionSet::PIPELINING),
        }
    }

    /// It would pass, but weir has to say something itself first: between STARTTLS and the handshake it would be plaintext where
    /// the server expects TLS.
    fn is_too_early(&self, cx: &Cx<'_>, command: &Command<'_>) -> bool {
        let passes = matches!(
            command,
            Command::Rset | Command::Noop | Command::Help | Command::Vrfy(_) | Command::Expn(_)
        );
        passes && self.owed == 0 && cx.leg.as_ref().is_some_and(|leg| !leg.is_ready())
    }

    /// Nothing is owed, or the command will pass, its reply coming after those that are, and the upstream takes several.
    fn may_go_on(&self, cx: &Cx<'_>, command: &Command<'_>) -> bool {
        if self.owed == 0 {
            return true;
        }
        if cx.tls == TlsOffer::Require && !is_for_plaintext(command) {
            return false;
        }
        let tx = self.tx.as_deref();
        let passes = match command {
            Command::Mail(args) => {
                self.phase == Phase::Ready && self.refuses_mail(cx, args).is_none()
            }
            Command::Rcpt(args) => {
                tx.is_some_and(|tx| self.refuses_recipient(cx, tx, args).is_none())
            }
            Command::Data => {
                self.phase == Phase::Envelope
                    && tx.is_some_and(|tx| tx.may_have_recipients() && !tx.is_binary())
            }
            Command::Rset => tx.is_none() && self.phase == Phase::Ready,
            Command::Noop | Command::Help | Command::Vrfy(_) | Command::Expn(_) => true,
            _ => false,
        };
        passes && cx.leg.as_ref().is_some_and(|leg| leg.can_pipeline())
    }

    fn obey(&mut self, cx: &mut Cx<'_>, line: &[u8], command: &Command<'_>, more: bool) {
        if self.phase == Phase::Unwelcome && !matches!(command, Command::Quit) {
            self.violation(cx, Violation::BadSequence);
            if let Command::Bdat { size, .. } = *command {
                self.swallow = size;
            }
            return;
        }
        if cx.tls == TlsOffer::Require && !is_for_plaintext(command) {
            self.violation(cx, Violation::TlsRequired);
            if let Command::Bdat { size, .. } = *command {
                self.swallow = size;
            }
            return;
        }
        match *command {
            Command::Ehlo(name) => self.hello(cx, name, true),
            Command::Helo(name) => self.hello(cx, name, false),
            Command::Mail(args) => self.mail(cx, &args),
            Command::Rcpt(args) => self.rcpt(cx, &args),
            Command::Data => self.data(cx, more),
            Command::Rset => {
                self.abandon(cx);
                self.pass_junk(cx, line);
            }
            Command::Noop | Command::Help | Command::Vrfy(_) | Command::Expn(_) => {
                self.pass_junk(cx, line);
            }
            Command::Quit => self.quit(cx),
            Command::Bdat { size, last } => self.bdat(cx, size, last),
            Command::StartTls => self.start_tls(cx),
            Command::Auth => self.auth(cx, line),
            Command::Xclient(argument) => self.xclient(cx, argument),
            Command::Etrn | Command::Turn | Command::Xforward => {
                self.violation(cx, Violation::NotImplemented)
            }
        }
    }

    pub(super) fn count_command(&mut self) {
        self.stats.commands = self.stats.commands.saturating_add(1);
    }

    pub(super) fn junk(&mut self) {
        self.stats.junk = self.stats.junk.saturating_add(1);
    }

    fn pass_junk(&mut self, cx: &mut Cx<'_>, line: &[u8]) {
        self.junk();
        self.send_up(cx, |leg| leg.pass(line, Owed::Passed));
    }

    /// The reply to a command that changes nothing here.
    pub(super) fn passed(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.pass(cx, reply);
        self.replied(cx);
    }

    fn quit(&mut self, cx: &mut Cx<'_>) {
        self.abandon(cx);
        if cx.leg.as_ref().is_none_or(|leg| !leg.is_ready()) {
            self.say(cx, texts::BYE.as_bytes());
            return self.close(cx, false);
        }
        self.waiting = Waiting::Reply;
        self.quitting = true;
        self.send_up(cx, |leg| leg.quit());
    }

    pub(super) fn quit_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.pass(cx, reply);
        self.detach(cx, Detach::Clean);
        self.close(cx, false);
    }

    fn data(&mut self, cx: &mut Cx<'_>, more: bool) {
        if !self.may_begin_body(cx) {
            return;
        }
        if self.tx_mut().is_binary() {
            return self.violation(cx, Violation::BinaryNeedsBdat);
        }
        if more {
            // What follows DATA before its 354 must be neither message nor command: allowed as a finding or not, this
            // session can not go on (RFC 2920, 3.1; smtp-rules 21).
            self.count_error();
            return self.say_and_close(cx, &Violation::Pipelining.reply());
        }
        let id = self.ask(cx, Stage::Data);
        self.waiting = Waiting::Data(id);
    }

    /// Is there a recipient to send a body to, or may there be one? Answers the client if not.
    pub(super) fn may_begin_body(&mut self, cx: &mut Cx<'_>) -> bool {
        if self.phase == Phase::BetweenChunks {
            self.violation(cx, Violation::MixedDataBdat);
            return false;
        }
        let Some(tx) = self.tx.as_ref().filter(|_| self.phase == Phase::Envelope) else {
            self.violation(cx, Violation::NeedMail);
            return false;
        };
        if tx.chunk_refused {
            self.violation(cx, Violation::BadSequence);
            return false;
        }
        if tx.may_have_recipients() {
            return true;
        }
        // An expected error of a group whose recipients all failed: not counted (smtp-rules 64).
        if tx.envelope.recipient_count() == 0 {
            self.violation(cx, Violation::NeedRcpt);
        } else {
            self.say(cx, Violation::NoValidRecipients.reply().as_bytes());
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
        match (refused, waiting) {
            (refused, Waiting::EndOfHeaders(_)) => self.headers_judged(cx, refused),
            (refused, Waiting::ChunkNewline(_)) => self.chunk_newline_judged(cx, refused),
            (refused, Waiting::End(_)) => self.end_judged(cx, refused),
            (refused, Waiting::FinalReply(_)) => self.final_reply_judged(cx, refused),
            (Some(refusal), _) => self.refused(cx, waiting, refusal),
            (None, Waiting::Connect(_)) => self.attach(cx),
            (None, Waiting::Helo(_)) => self.hello_passed(cx),
            (None, Waiting::StartTls(_)) => self.starttls_passed(cx),
            (None, Waiting::Mail(_)) => self.mail_passed(cx),
            (None, Waiting::Rcpt(_, index)) => self.recipient_passed(cx, index),
            (None, Waiting::Data(_)) => {
                self.waiting = Waiting::Reply;
                self.send_up(cx, |leg| leg.data());
            }
            (None, Waiting::Chunk(_)) => self.chunks_passed(cx),
            (None, Waiting::Line(_)) => self.line_verdict = LineVerdict::Allowed,
            (None, _) => {}
        }
    }

    /// Policy refuses a command; the client hears of it when its turn comes.
    fn refused(&mut self, cx: &mut Cx<'_>, waiting: Waiting, refusal: Refusal) {
        match waiting {
            Waiting::Line(_) if !refusal.1 => {
                self.line_verdict = LineVerdict::Refused(refusal.0);
                return;
            }
            Waiting::Connect(_) => self.phase = Phase::Unwelcome,
            Waiting::Helo(_) => {
                self.phase = Phase::Greeted;
                self.esmtp = false;
            }
            Waiting::Mail(_) => self.tx_mut().refused = true,
            Waiting::Rcpt(_, index) => self.tx_mut().refuse(index),
            Waiting::Chunk(_) => self.chunk_refused(),
            _ => {}
        }
        if self.owed > 0 {
            self.pending = Some(Box::new(refusal));
            self.waiting = Waiting::Replies;
            return;
        }
        self.refuse_command(cx, refusal);
    }

    /// Says a refusal whose turn has come.
    pub(super) fn refuse_command(&mut self, cx: &mut Cx<'_>, (reply, close): Refusal) {
        if let Some(tx) = self.tx.as_mut() {
            tx.note_refusal(reply.as_bytes());
        }
        if close {
            return self.say_and_close(cx, &reply);
        }
        if reply.code() >= 500 {
            self.count_error();
        }
        self.say(cx, reply.as_bytes());
        if self.tx.as_ref().is_some_and(|tx| tx.refused) {
            self.abandon(cx);
        }
    }
}

/// How long the line of a command may be.
fn length_max(command: &Command<'_>) -> usize {
    match command {
        Command::Auth => AUTH_LINE_MAX,
        Command::Noop | Command::Help | Command::Vrfy(_) | Command::Expn(_) | Command::Rset => {
            SHORT_LINE_MAX
        }
        _ => COMMAND_LINE_MAX,
    }
}
