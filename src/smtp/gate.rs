//! Gates: the points where a session waits for a decision that the core does not make.
//!
//! The relay emits [`crate::relay::Act::Ask`] with an [`AskId`] and a [`Stage`], and goes on when
//! [`crate::relay::Relay::handle_verdict`] brings the answer, at once or much later, in any order.
//! What the decision is based on stays with the relay (`helo()`, `envelope()`): an `Ask` carries no
//! copies. Who decides, and how long that takes, is none of the core's business.

use crate::reply::ReplyText;

/// Names one question of one session. Never reused within a session; answers to unknown or
/// already answered ids are ignored, so a late answer does no harm.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct AskId(pub u32);

/// A set of upstreams, chosen per recipient. 0 is the default set.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug, Default)]
pub struct RouteId(pub u16);

/// Where in the dialogue the question arises.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Stage {
    /// The connection is there, no greeting has been sent.
    Connect,
    /// HELO or EHLO was read; `Relay::helo` has the name.
    Helo,
    /// MAIL was read and is well-formed; the envelope has the reverse-path.
    Mail,
    /// RCPT number `index` of this transaction (from 0) was read and is well-formed. Several of
    /// these may be open at once in a pipelined group; they are answered in any order.
    Rcpt { index: u16 },
    /// STARTTLS was read, is offered and in order. A refusal is 454, and the session goes on without.
    StartTls,
    /// DATA or the first BDAT was read and at least one recipient was accepted.
    Data,
    /// The empty line that ends the header was read.
    EndOfHeaders,
    /// The whole body was read; nothing of its end has gone up.
    /// A refusal here ends the message without the upstream ever seeing an end of data.
    EndOfData,
    /// The upstream answered 4xx or 5xx to the message and the reply is about to go down.
    /// (A 2xx is sacred: it goes down without a question.)
    FinalReply { code: u16 },
    /// Something misbehaved; what that means is the policy's to say. `Pass` goes on as if nothing
    /// had happened.
    Finding(Finding),
}

/// Misbehaviour that the core notices while parsing. What it leads to is decided by the verdict.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Finding {
    /// The client spoke before the greeting was complete.
    Pregreet,
    /// More bytes behind a command that has to be the last of its group (RFC 2920, 3.1), or
    /// several commands in one flight without PIPELINING.
    Pipelining,
    /// A command of another protocol, or header text in place of a command.
    NonSmtp,
    /// A bare LF or CR inside a body (with policy `reject`, or `pass` before an upstream
    /// without CHUNKING).
    BareNewline,
    /// A NUL octet inside a text body.
    Nul,
    /// A hundred or more Received fields.
    Loop,
}

/// The answer to a question.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Verdict {
    /// Go on.
    Pass,
    /// Go on, by this set of upstreams (`Stage::Rcpt` only; `Pass` there means the default set).
    PassVia(RouteId),
    /// Answer the command with this reply; the session goes on.
    Refuse(ReplyText),
    /// Answer with this reply and close.
    Close(ReplyText),
}
