//! The machine that joins a client to an upstream connection: which reply answers which command.
//!
//! ```text
//!            bytes                     verdicts          replies (Owed, Reply)
//!   client ----------> handle_input --+   |   +-- handle_reply <---- Outbound <--- upstream
//!          <---------- Cx::out        |   v   |        Cx::leg ----> Outbound ---> upstream
//!                                   [ Relay ] ----> Acts: Ask, Attach, Detach, Release, Close ..
//! ```
//!
//! Contract. Every `handle_*` call gets a [`Cx`]: the time, the configuration, the place for bytes
//! to the client, the attached leg, the queue of acts. It never blocks, reads no clock, and does a
//! bounded amount of work. After each call the driver drains `acts` (an act may lead to another
//! call), sends what is in `out` as one flight, takes the leg's output as one flight, and arms
//! [`Relay::deadline`]. `handle_input` may return before the end of its input: if
//! [`Relay::wants_input`] then says yes, the rest is fed at once; otherwise it is kept and fed when
//! that changes, which only another `handle_*` call can do.
//!
//! Safety rules that the shape enforces:
//! * a positive final reply reaches the client only in `handle_reply(Owed::End)`, from the bytes
//!   of the upstream's own reply;
//! * an end of data goes up only with an [`crate::body::EndOfData`], which only the body scanner makes;
//! * a body that ends in any other way leads to `Detach(Close)` if a single octet of it went up.
//!
//! Files: `relay/commands.rs` what each command does, `relay/secure.rs` STARTTLS, `relay/claims.rs` XCLIENT, `relay/recipients.rs` RCPT in flight,
//! `relay/message.rs` body and final reply, `relay/endings.rs` time, hang-ups, refusals, parking.

mod claims;
mod commands;
mod endings;
mod message;
mod recipients;
mod secure;
mod transaction;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::body::BareNewline;
use crate::envelope::Envelope;
use crate::extension::{Capabilities, ExtensionSet, write_ehlo};
use crate::gate::{AskId, Finding, RouteId, Stage, Verdict};
use crate::inbound::{Began, Framed, Inbound};
use crate::limits::REPLIES_GATHERED_MAX;
use crate::line::Terminator;
use crate::outbound::{LegLost, Outbound, Owed};
use crate::pieces::BufferId;
use crate::reply::{Reply, ReplyText};
use crate::stats::SessionStats;
use crate::time::Moment;
use crate::violation::Violation;
use crate::xclient::Claim;

pub use endings::{Gone, Parked};
pub(crate) use secure::is_for_plaintext;
use transaction::Transaction;
pub use transaction::{Outcome, SparePool, Summary};

/// Names an upstream connection in the driver.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct LegId(pub u32);

/// Names an upstream of the configuration.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct UpstreamId(pub u16);

/// What the relay needs to know of the configuration. One per shard.
#[derive(Clone, Debug)]
pub struct Config {
    /// Said in the greeting and in replies.
    pub hostname: Vec<u8>,
    /// The whole greeting line: `220 ... CRLF`.
    pub greeting: Vec<u8>,
    /// Octets of a message; 0 lifts the limit.
    pub message_size_max: u64,
    /// Recipients of a message; 0 lifts the limit (up to 65,535).
    pub recipients_max: u32,
    /// Messages of a connection; 0 lifts the limit.
    pub messages_max: u32,
    pub bare_newline: BareNewline,
    /// Octets of a body that has been sent up but not taken by the socket, before reading from the
    /// client stops. Memory: this much per streaming session.
    pub stream_window: u64,
    pub timeouts: Timeouts,
}

/// How long the peers may take, and how long the client is let wait.
#[derive(Copy, Clone, Debug)]
pub struct Timeouts {
    /// An upstream connection is given back when the client owes the next bytes for so long; zero:
    /// never.
    pub give_back: Duration,
    /// For the next command inside a transaction, or before HELO (RFC 5321, 4.5.3.2.7: 5 min).
    pub command: Duration,
    /// For the next command between transactions.
    pub idle: Duration,
    /// For more body octets (RFC 5321, 4.5.3.2.5: 3 min).
    pub body: Duration,
    /// For a handshake, from the 220 to STARTTLS.
    pub handshake: Duration,
    /// For a verdict that is neither a recipient's nor at the end of data.
    pub verdict: Duration,
    /// The one deadline of a reply to RCPT: slot, connect, retry and answer come out of it.
    pub rcpt_reply: Duration,
    /// The one deadline of a reply to DATA.
    pub data_reply: Duration,
    /// The one deadline of the final reply, from the client's end of data.
    pub final_reply: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            give_back: Duration::from_secs(1),
            command: Duration::from_secs(300),
            idle: Duration::from_secs(600),
            body: Duration::from_secs(180),
            handshake: Duration::from_secs(30),
            verdict: Duration::from_secs(100),
            rcpt_reply: Duration::from_secs(240),
            data_reply: Duration::from_secs(100),
            final_reply: Duration::from_secs(540),
        }
    }
}

/// What EHLO is answered with at the moment.
#[derive(Clone, Debug)]
pub struct Announced {
    pub caps: Capabilities,
    /// The whole reply, all lines.
    pub text: Vec<u8>,
}

impl Announced {
    /// What `hostname` announces of `caps` to sessions that stand so to TLS: STARTTLS where it can be had, REQUIRETLS only inside TLS (RFC
    /// 8689, 2).
    pub fn new(hostname: &[u8], mut caps: Capabilities, tls: TlsOffer) -> Self {
        match tls {
            TlsOffer::Off | TlsOffer::Active => caps.set.remove(ExtensionSet::STARTTLS),
            TlsOffer::May | TlsOffer::Require => caps.set.insert(ExtensionSet::STARTTLS),
        }
        if tls != TlsOffer::Active {
            caps.set.remove(ExtensionSet::REQUIRETLS);
        }
        let mut text = Vec::new();
        write_ehlo(&mut text, hostname, &caps);
        Self { caps, text }
    }
}

/// What every call works on. Borrowed from the shard, so that an idle relay owns next to nothing.
pub struct Cx<'a> {
    pub now: Moment,
    pub config: &'a Config,
    pub announced: &'a Announced,
    /// Bytes for the client are appended here.
    pub out: &'a mut Vec<u8>,
    /// The attached upstream connection, if there is one.
    pub leg: Option<&'a mut Outbound>,
    pub acts: &'a mut Acts,
    pub spare: &'a mut SparePool,
    /// How this session stands to TLS.
    pub tls: TlsOffer,
    /// Octets of a body that may be held before it streams, at this moment. The driver lowers it
    /// when memory is scarce.
    pub hold_max: u64,
    /// Whether a body that has outgrown `hold_max` may stream now. If not, its connection is given back and another one
    /// asked for, which the driver grants when it may.
    pub may_stream: bool,
}

/// What the relay wants done, in order.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Act {
    /// Answer with `handle_verdict`.
    Ask { id: AskId, stage: Stage },
    /// Find an upstream connection that offers `needs`; answer with `handle_attached` or
    /// `handle_attach_failed`. Asked again when a connection was lost, or given back and needed
    /// again. `prefer`: this upstream has accepted recipients, and another will do only if it is
    /// ejected; without it, one that has not failed this transaction is to be preferred.
    Attach {
        needs: ExtensionSet,
        route: RouteId,
        prefer: Option<UpstreamId>,
    },
    /// The last `Attach` is not wanted any more.
    CancelAttach,
    /// The upstream connection is given back.
    Detach { leg: LegId, how: Detach },
    /// One reference that `Consumed::kept` announced is given up.
    Release(BufferId),
    /// A transaction is over: `Relay::ended` tells how, until the next call.
    TransactionEnd,
    /// The client broke a rule and has its reply.
    Violation(Violation),
    /// The 220 to STARTTLS is in `out`: once it has been sent, whatever else was received before the handshake is thrown
    /// away and the handshake begins, with the proof that `Relay::plaintext_drained` gives. Answer with `handle_secured`
    /// when it is over; if it fails, the client is gone.
    StartTls,
    /// A peer says by XCLIENT for whom it speaks. Whether it may is the driver's to know: answer with `handle_claim`.
    Xclient(Box<Claim>),
    /// The client's and the upstream's bytes pass untouched from now on, in both directions, once `out` has been sent.
    Tunnel,
    /// The client's EHLO is about to go up on its own connection, for the first time (`Dedicated` only): now is the time to
    /// tell the upstream of the client, by `Outbound::introduce`. Answer with `handle_introduced`.
    Introduce,
    /// Close the client's connection once `out` has been sent. `linger`: it may still be sending,
    /// and must not lose the reply to a reset.
    Close { linger: bool },
}

/// What is to become of a connection that is given back.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Detach {
    /// Its state is initial; it may serve the next transaction.
    Clean,
    /// RSET first: to be used again only after its 250 or, where nothing else is owed, with RSET in front of the next MAIL.
    Reset,
    /// In the middle of a message or past its deadline: only closing it undoes that.
    Close,
}

/// How a session stands to TLS.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum TlsOffer {
    /// STARTTLS is not offered.
    #[default]
    Off,
    May,
    /// No mail without it.
    Require,
    /// The session is inside TLS.
    Active,
}

/// Acts of one call, first in, first out. Kept by the driver and used for all sessions.
pub type Acts = VecDeque<Act>;

/// Why no upstream connection was found.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum AttachFailure {
    /// All candidates are down.
    NoUpstream,
    /// All slots stayed taken.
    NoSlot,
    /// No candidate offers what this transaction uses.
    Unqualified,
}

/// Bytes from the client, where they lie.
#[derive(Copy, Clone, Debug)]
pub struct Input<'a> {
    pub buffer: BufferId,
    /// Offset of `bytes` in the buffer.
    pub start: u32,
    pub bytes: &'a [u8],
}

/// What became of an [`Input`].
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Consumed {
    /// Octets taken from the front.
    pub len: usize,
    /// References to the buffer that are held from now on; each is given up by an
    /// `Act::Release`, or by the driver with the leg's flight that carries it. To be counted
    /// before the acts of the call are drained.
    pub kept: u32,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Phase {
    /// No greeting yet.
    Connecting,
    /// The greeting was a refusal: only QUIT is served (RFC 5321, 3.1).
    Unwelcome,
    /// Greeted, no HELO yet.
    Greeted,
    /// Between transactions.
    Ready,
    /// After MAIL.
    Envelope,
    /// Inside DATA.
    Data,
    /// After a BDAT chunk that was not the last.
    BetweenChunks,
    /// Inside a BDAT chunk.
    Chunk,
    /// The body is complete; its reply is owed.
    Final,
    /// Close has been asked for; nothing more is read.
    Closing,
}

/// What a verdict is awaited for, apart from recipients.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Waiting {
    Nothing,
    /// Until the recipients in flight are answered.
    Recipients,
    /// Until the leg's queue has drained or its chunks are answered.
    Stream,
    Connect(AskId),
    Helo(AskId),
    StartTls(AskId),
    /// The end of the handshake: nothing is read and nothing said until then.
    Handshake,
    /// Whether the last `Act::Xclient` counts.
    Claim,
    Mail(AskId),
    Data(AskId),
    /// The first BDAT: the chunk's size stays with the transaction.
    Chunk(AskId),
    EndOfHeaders(AskId),
    /// One of the questions at the end of the body.
    End(AskId),
    FinalReply(AskId),
    /// About the line that is next in the input.
    Line(AskId),
    /// The upstream's final reply.
    Final,
}

/// The answer about the line that is next in the input.
#[derive(Debug)]
pub(crate) enum LineVerdict {
    None,
    Allowed,
    Refused(ReplyText),
}

/// One client session.
#[derive(Debug)]
pub struct Relay {
    phase: Phase,
    waiting: Waiting,
    esmtp: bool,
    paced: bool,
    /// The client's end of stream was seen, and there is still work.
    eof: bool,
    client_gone: bool,
    /// Close once the open replies are out.
    close_after: bool,
    /// What is said after the final reply that is owed, before closing.
    farewell: Option<Box<ReplyText>>,
    announced: ExtensionSet,
    asks: u32,
    /// Octets of a refused chunk that are still to be read over.
    swallow: u64,
    deadline: Moment,
    /// When an upstream connection that waits for the client is given back; comes before `deadline`.
    give_back_at: Moment,
    helo: Box<[u8]>,
    inbound: Inbound,
    line_verdict: LineVerdict,
    stats: SessionStats,
    tx: Option<Box<Transaction>>,
    ended: Option<Box<Transaction>>,
}

impl Relay {
    pub fn new(now: Moment) -> Self {
        Self {
            phase: Phase::Connecting,
            waiting: Waiting::Nothing,
            esmtp: false,
            paced: false,
            eof: false,
            client_gone: false,
            close_after: false,
            farewell: None,
            announced: ExtensionSet::default(),
            asks: 0,
            swallow: 0,
            deadline: now,
            give_back_at: Moment::NEVER,
            helo: Box::default(),
            inbound: Inbound::default(),
            line_verdict: LineVerdict::None,
            stats: SessionStats::default(),
            tx: None,
            ended: None,
        }
    }

    /// One command per `handle_input` call, so that the driver can put a delay between them.
    pub fn set_paced(&mut self, paced: bool) {
        self.paced = paced;
    }

    /// Asks the connect gate; the greeting follows its verdict.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        let id = self.ask(cx, Stage::Connect);
        self.waiting = Waiting::Connect(id);
        self.rearm(cx);
    }

    /// Takes bytes from the client. May stop early: see the module's contract.
    pub fn handle_input(&mut self, cx: &mut Cx<'_>, input: Input<'_>) -> Consumed {
        self.recycle_ended(cx);
        let commands_before = self.stats.commands;
        let mut done = Consumed { len: 0, kept: 0 };
        while done.len < input.bytes.len() && self.wants_input() && self.ended.is_none() {
            let rest = &input.bytes[done.len..];
            if self.swallow > 0 {
                let taken = self.swallow.min(rest.len() as u64);
                self.swallow -= taken;
                done.len += taken as usize;
                continue;
            }
            if matches!(self.phase, Phase::Data | Phase::Chunk) {
                let start = input.start + done.len as u32;
                let taken = self.take_body(cx, input.buffer, start, rest);
                done.len += taken.len;
                done.kept += taken.kept;
                continue;
            }
            let commands = self.stats.commands;
            done.len += self.take_line(cx, rest);
            let paced = self.paced && self.stats.commands != commands;
            if paced || cx.out.len() >= REPLIES_GATHERED_MAX {
                break;
            }
        }
        let lines_read = self.stats.commands != commands_before;
        self.finish_if_drained(cx);
        self.rearm_after_input(cx, lines_read);
        done
    }

    /// May bytes be fed now?
    pub fn wants_input(&self) -> bool {
        self.waiting == Waiting::Nothing
            && !matches!(
                self.phase,
                Phase::Connecting | Phase::Closing | Phase::Final
            )
    }

    /// The answer to an `Act::Ask`, at any time and in any order.
    pub fn handle_verdict(&mut self, cx: &mut Cx<'_>, id: AskId, verdict: Verdict) {
        self.recycle_ended(cx);
        if self.waiting.asks() == Some(id) {
            let waiting = core::mem::replace(&mut self.waiting, Waiting::Nothing);
            self.resolve(cx, waiting, verdict);
        } else {
            self.resolve_recipient(cx, id, verdict);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// The leg asked for is there; `cx.leg` is it.
    pub fn handle_attached(&mut self, cx: &mut Cx<'_>, leg: LegId, upstream: UpstreamId) {
        self.recycle_ended(cx);
        if !self.accept_leg(cx, leg, upstream) {
            let how = unused(cx.leg.as_deref());
            cx.acts.push_back(Act::Detach { leg, how });
        }
        self.rearm(cx);
    }

    /// No leg is to be had.
    pub fn handle_attach_failed(&mut self, cx: &mut Cx<'_>, why: AttachFailure) {
        self.recycle_ended(cx);
        self.no_leg(cx, why);
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// A reply of the attached leg.
    pub fn handle_reply(&mut self, cx: &mut Cx<'_>, owed: Owed, reply: &Reply<'_>) {
        self.recycle_ended(cx);
        match owed {
            Owed::Mail => self.mail_answered(cx, reply),
            // MAIL may have waited for it
            Owed::Xforward => self.pump(cx),
            Owed::Rcpt => self.recipient_answered(cx, reply),
            Owed::Data => self.data_answered(cx, reply),
            Owed::Chunk => self.chunk_answered(cx, reply),
            Owed::End => self.message_answered(cx, reply),
            // The connection's own affairs, and those of one that serves a single client.
            _ => {}
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// The attached leg is lost; the driver has closed it already.
    pub fn handle_leg_lost(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        self.recycle_ended(cx);
        cx.leg = None;
        self.leg_lost(cx, why);
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// What was queued on the leg has been sent.
    pub fn handle_leg_drained(&mut self, cx: &mut Cx<'_>) {
        self.recycle_ended(cx);
        self.stream_on(cx);
        self.rearm(cx);
    }

    /// When `handle_timeout` is to be called; `Moment::NEVER` if no time is running.
    pub fn deadline(&self) -> Moment {
        self.deadline.min(self.give_back_at)
    }

    /// HELO name as the client gave it; empty before.
    pub fn helo(&self) -> &[u8] {
        &self.helo
    }

    /// The client said EHLO.
    pub fn is_esmtp(&self) -> bool {
        self.esmtp
    }

    pub fn stats(&self) -> &SessionStats {
        &self.stats
    }

    /// The open transaction's envelope.
    pub fn envelope(&self) -> Option<&Envelope> {
        self.tx.as_ref().map(|tx| &tx.envelope)
    }

    /// How the transaction of the last `Act::TransactionEnd` ended. Until the next call.
    pub fn ended(&self) -> Option<Summary<'_>> {
        self.ended.as_ref().map(|tx| tx.summary())
    }

    /// The leg this session is attached to.
    pub fn leg(&self) -> Option<LegId> {
        self.tx.as_ref().and_then(|tx| tx.leg())
    }

    /// The session is inside a body, and how many octets of it have come.
    pub fn body_octets(&self) -> Option<u64> {
        match self.phase {
            Phase::Data | Phase::Chunk | Phase::BetweenChunks => {
                self.tx.as_ref().map(|tx| tx.octets)
            }
            _ => None,
        }
    }

    /// The body goes up while it comes in, so this session holds its upstream connection for as
    /// long as the client takes.
    pub fn is_streaming(&self) -> bool {
        self.tx.as_ref().is_some_and(|tx| tx.is_streaming())
    }

    /// The body has outgrown what may be held, and waits for a connection to stream to.
    pub fn wants_to_stream(&self) -> bool {
        self.waiting == Waiting::Stream && !self.is_streaming()
    }

    fn take_line(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> usize {
        match self.inbound.frame(bytes) {
            Framed::Partial => {
                self.notice_tls(cx);
                bytes.len()
            }
            Framed::Here {
                len,
                used,
                terminator,
            } => {
                let more = used < bytes.len();
                if self.handle_line(cx, &bytes[..len], terminator, more) {
                    used
                } else {
                    0
                }
            }
            Framed::Carried { line, used } => {
                let more = used < bytes.len();
                if self.handle_line(cx, line.line(), line.terminator, more) {
                    used
                } else {
                    self.inbound.put_back(line);
                    0
                }
            }
            Framed::TooLong { used, began } => {
                if self.awaits_recipients() {
                    // the reply has to wait its turn; the line's tail stays as the reminder
                    self.inbound.remember_overlong(began);
                    self.waiting = Waiting::Recipients;
                    return 0;
                }
                self.stats.commands += 1;
                self.violation(cx, Violation::LineTooLong);
                if began == Began::Bdat {
                    // how many octets follow it stood somewhere in the line
                    self.close(cx, true);
                }
                used
            }
        }
    }

    fn tx(&self) -> &Transaction {
        self.tx
            .as_ref()
            .expect("this phase is inside a transaction")
    }

    fn tx_mut(&mut self) -> &mut Transaction {
        self.tx
            .as_mut()
            .expect("this phase is inside a transaction")
    }

    fn ask(&mut self, cx: &mut Cx<'_>, stage: Stage) -> AskId {
        self.asks = self.asks.wrapping_add(1);
        let id = AskId(self.asks);
        cx.acts.push_back(Act::Ask { id, stage });
        id
    }

    /// Asks about the line that is next in the input, which stays there.
    fn ask_line(&mut self, cx: &mut Cx<'_>, finding: Finding) {
        let id = self.ask(cx, Stage::Finding(finding));
        self.waiting = Waiting::Line(id);
    }

    fn say(&self, cx: &mut Cx<'_>, reply: &ReplyText) {
        if !self.client_gone {
            cx.out.extend_from_slice(reply.as_bytes());
        }
    }

    fn violation(&mut self, cx: &mut Cx<'_>, violation: Violation) {
        self.stats.errors = self.stats.errors.saturating_add(1);
        cx.acts.push_back(Act::Violation(violation));
        self.say(cx, &violation.reply());
    }

    /// Says `reply` and closes; whatever was open is given up.
    fn say_and_close(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        self.say(cx, reply);
        if let Some(tx) = self.tx.as_mut() {
            tx.note_refusal(reply.as_bytes());
        }
        self.close(cx, true);
    }

    fn recycle_ended(&mut self, cx: &mut Cx<'_>) {
        if let Some(tx) = self.ended.take() {
            cx.spare.put(tx);
        }
    }

    fn bare_lf_refused(&self, cx: &Cx<'_>, terminator: Terminator) -> bool {
        terminator == Terminator::BareLf && cx.config.bare_newline == BareNewline::Reject
    }
}

/// How a connection is given back on which no transaction has begun.
fn unused(leg: Option<&Outbound>) -> Detach {
    match leg {
        Some(leg) if !leg.is_reusable() => Detach::Reset,
        _ => Detach::Clean,
    }
}

impl Waiting {
    fn asks(self) -> Option<AskId> {
        match self {
            Self::Connect(id)
            | Self::Helo(id)
            | Self::StartTls(id)
            | Self::Mail(id)
            | Self::Data(id)
            | Self::Chunk(id)
            | Self::EndOfHeaders(id)
            | Self::End(id)
            | Self::FinalReply(id)
            | Self::Line(id) => Some(id),
            Self::Nothing
            | Self::Handshake
            | Self::Claim
            | Self::Recipients
            | Self::Stream
            | Self::Final => None,
        }
    }
}

#[cfg(test)]
mod chaos;
#[cfg(test)]
mod flights;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod tales;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod told;
