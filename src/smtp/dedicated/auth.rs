//! AUTH (RFC 4954), between the client and its upstream: line by line, untouched, and never written down.

use super::{Dedicated, Phase, Waiting};
use crate::body::BareNewline;
use crate::extension::ExtensionSet;
use crate::limits::{AUTH_LINE_MAX, AUTH_LINES_MAX, COMMAND_LINE_MAX};
use crate::line::Terminator;
use crate::outbound::Owed;
use crate::relay::{Act, Cx};
use crate::reply::Reply;
use crate::violation::Violation;

impl Dedicated {
    /// How long a line may be: longer where it may be part of an exchange.
    pub(super) fn line_max(&self) -> usize {
        match self.announced.contains(ExtensionSet::AUTH) {
            true => AUTH_LINE_MAX,
            false => COMMAND_LINE_MAX,
        }
    }

    pub(super) fn auth(&mut self, cx: &mut Cx<'_>, line: &[u8]) {
        let violation = match self.phase {
            Phase::Greeted => Violation::NeedHelo,
            _ if !self.announced.contains(ExtensionSet::AUTH) => Violation::NotImplemented,
            Phase::Ready if !self.authenticated => {
                self.auth_lines = 0;
                self.waiting = Waiting::Reply;
                return self.send_up(cx, |leg| leg.pass(line, Owed::Auth));
            }
            // RFC 4954, 4: once, and not inside of a transaction
            _ => Violation::BadSequence,
        };
        self.violation(cx, violation);
    }

    /// The client's answer to a challenge. One that can not be passed on gives the exchange up, for the upstream to say so.
    pub(super) fn auth_line(&mut self, cx: &mut Cx<'_>, line: &[u8], terminator: Terminator) {
        let ended = terminator == Terminator::CrLf || cx.config.bare_newline != BareNewline::Reject;
        let legal = line.iter().all(|&byte| is_base64(byte)) || line == b"*";
        if !ended || !legal || self.auth_lines == AUTH_LINES_MAX {
            return self.give_auth_up(cx);
        }
        self.count_command();
        self.auth_lines += 1;
        self.waiting = Waiting::Reply;
        self.send_up(cx, |leg| leg.pass(line, Owed::Auth));
    }

    pub(super) fn give_auth_up(&mut self, cx: &mut Cx<'_>) {
        self.count_command();
        self.count_error();
        cx.acts.push_back(Act::Violation(Violation::SyntaxError));
        self.waiting = Waiting::Reply;
        self.send_up(cx, |leg| leg.pass(b"*", Owed::Auth));
    }

    pub(super) fn auth_answered(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.waiting = Waiting::Nothing;
        self.pass(cx, reply);
        self.phase = match reply.is_intermediate() {
            true => Phase::Auth,
            false => Phase::Ready,
        };
        self.authenticated |= reply.is_positive();
        if reply.is_permanent() {
            self.count_error();
        }
        self.replied(cx);
    }
}

/// RFC 4648, 4; an empty line is an empty answer.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
