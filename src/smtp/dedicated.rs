//! The machine that binds a client to one upstream connection of its own, and passes the whole dialogue command by
//! command: for upstreams that are to know the client by its connection.
//!
//! ```text
//!   connect gate -> Attach -> the upstream's greeting passes -> EHLO passes, its reply filtered
//!     -> MAIL RCPT RSET NOOP VRFY EXPN HELP QUIT pass, so do their replies, in the order of the commands
//!     -> DATA BDAT: the upstream's 354, the body scanned on its way, its end only with the proof of it
//!     -> AUTH: line by line        -> STARTTLS: by the session's [`Way`]
//! ```
//!
//! The contract is that of [`crate::relay`]: `Cx` in, acts and bytes out, one question at a gate and one deadline per
//! reply; what a client does wrong is answered by weir, in its turn. The replies of the upstream pass as they are. While
//! replies are owed only commands that pass are read on; whatever weir answers itself waits until they are in, so
//! no queue of replies is needed.
//!
//! What differs: the leg is attached from before its greeting to the end of the session, and its replies all come here,
//! those to its own opening too, which mean only that it may now be ready. A leg that is lost ends the session.
//!
//! Safety rules, as in the relay: a positive final reply reaches the client only in `handle_reply(Owed::End)`; an end of
//! data or LAST goes up only with an [`crate::body::EndOfData`]; a body that ends in any other way closes the leg; a
//! command goes up only after weir's own parser has taken it, ended by CRLF.
//!
//! Memory of a session beside what `Cx::hold_max` and the stream window allow a body: the machine, the unfinished line
//! (4 KiB, or 12 KiB where the upstream offers AUTH), and from the first MAIL on the transaction: 1 KiB, its envelope,
//! of which at most 9 KiB stay for the next.
//!
//! Files: `dedicated/opening.rs` greeting and EHLO, `keywords.rs` what of an EHLO reply passes, `commands.rs` what each
//! command does, `envelope.rs` MAIL and RCPT, `message.rs` bodies, `chunks.rs` those that come by BDAT, `auth.rs`,
//! `claims.rs` XCLIENT, `starttls.rs`, `endings.rs` time, hang-ups and refusals, `state.rs` where a session stands,
//! `transaction.rs` what lives from MAIL to the final reply. `game.rs` is for tests and fuzzing.

mod auth;
mod chunks;
mod claims;
mod commands;
mod endings;
mod envelope;
mod keywords;
mod message;
mod opening;
mod starttls;
mod state;
mod transaction;

use alloc::boxed::Box;

use crate::body::BareNewline;
use crate::envelope::Envelope;
use crate::extension::ExtensionSet;
use crate::gate::{AskId, Finding, Stage};
use crate::inbound::{Began, Framed, Inbound};
use crate::limits::REPLIES_GATHERED_MAX;
use crate::line::Terminator;
use crate::outbound::{LegLost, Outbound, Owed};
use crate::relay::{
    Act, AttachFailure, Consumed, Cx, Detach, Input, LegId, LineVerdict, Parked, Summary,
    UpstreamId,
};
use crate::reply::{Reply, ReplyText};
use crate::stats::SessionStats;
use crate::texts;
use crate::time::Moment;
use crate::violation::Violation;

use state::{Leg, Phase, Waiting};
use transaction::Transaction;

/// What becomes of the client's STARTTLS.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum Way {
    /// Not shown to the client, and refused.
    #[default]
    Off,
    /// Weir offers it and ends it, as in [`crate::relay`]: the upstream hears nothing of it.
    Offer,
    /// Client and upstream come to terms themselves, and weir passes bytes from then on.
    Tunnel,
    /// Shown where the upstream offers it, and answered with 454.
    Refuse,
}

/// How a session is to be served.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Manner {
    pub starttls: Way,
    /// Before the client's first EHLO goes up the driver has something to say: see [`Act::Introduce`].
    pub introduces: bool,
}

/// A refusal of weir's own, and whether the session ends with it.
type Refusal = (ReplyText, bool);

/// One client session.
#[derive(Debug)]
pub struct Dedicated {
    phase: Phase,
    waiting: Waiting,
    manner: Manner,
    leg: Leg,
    upstream: Option<UpstreamId>,
    esmtp: bool,
    paced: bool,
    introduced: bool,
    /// QUIT went up.
    quitting: bool,
    authenticated: bool,
    /// The client's answers in this AUTH exchange.
    auth_lines: u8,
    /// The client's end of stream was seen, and there is still work.
    eof: bool,
    client_gone: bool,
    /// Close once the message has its reply.
    close_after: bool,
    /// What is said after the final reply that is owed, before closing.
    farewell: Option<Box<ReplyText>>,
    /// What is said once all replies that are owed are in.
    pending: Option<Box<Refusal>>,
    announced: ExtensionSet,
    asks: u32,
    /// Commands that went up and whose replies the client waits for.
    owed: u16,
    /// When the upstream last gave one of them, or was asked for the first; or when it was asked for itself.
    owed_since: Moment,
    /// Octets of a refused chunk that are still to be read over.
    swallow: u64,
    deadline: Moment,
    helo: Box<[u8]>,
    inbound: Inbound,
    line_verdict: LineVerdict,
    stats: SessionStats,
    tx: Option<Box<Transaction>>,
    ended: Option<Box<Transaction>>,
    /// The last transaction, for the next one.
    spare: Option<Box<Transaction>>,
}

impl Dedicated {
    pub fn new(now: Moment, manner: Manner) -> Self {
        Self {
            phase: Phase::Connecting,
            waiting: Waiting::Nothing,
            manner,
            leg: Leg::No,
            upstream: None,
            esmtp: false,
            paced: false,
            introduced: false,
            quitting: false,
            authenticated: false,
            auth_lines: 0,
            eof: false,
            client_gone: false,
            close_after: false,
            farewell: None,
            pending: None,
            announced: ExtensionSet::NONE,
            asks: 0,
            owed: 0,
            owed_since: now,
            swallow: 0,
            deadline: now,
            helo: Box::default(),
            inbound: Inbound::default(),
            line_verdict: LineVerdict::None,
            stats: SessionStats::default(),
            tx: None,
            ended: None,
            spare: None,
        }
    }

    pub fn set_paced(&mut self, paced: bool) {
        self.paced = paced;
    }

    /// Asks the connect gate; then an upstream connection is asked for.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        let id = self.ask(cx, Stage::Connect);
        self.waiting = Waiting::Connect(id);
        self.rearm(cx);
    }

    pub fn handle_input(&mut self, cx: &mut Cx<'_>, input: Input<'_>) -> Consumed {
        self.recycle_ended();
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

    pub fn wants_input(&self) -> bool {
        self.waiting == Waiting::Nothing
            && !matches!(
                self.phase,
                Phase::Connecting | Phase::Tunnel | Phase::Closing | Phase::Final
            )
    }

    pub fn handle_verdict(&mut self, cx: &mut Cx<'_>, id: AskId, verdict: crate::gate::Verdict) {
        self.recycle_ended();
        if self.waiting.asks() == Some(id) {
            let waiting = core::mem::replace(&mut self.waiting, Waiting::Nothing);
            self.resolve(cx, waiting, verdict);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// The connection asked for is on its way: it need not have said anything yet, nor be connected. From now on all its
    /// replies come to `handle_reply`.
    pub fn handle_attached(&mut self, cx: &mut Cx<'_>, leg: LegId, upstream: UpstreamId) {
        self.recycle_ended();
        if self.leg == Leg::Asked {
            self.leg = Leg::Yes(leg);
            self.upstream = Some(upstream);
        } else {
            let how = Detach::Close;
            cx.acts.push_back(Act::Detach { leg, how });
        }
        self.rearm(cx);
    }

    pub fn handle_attach_failed(&mut self, cx: &mut Cx<'_>, why: AttachFailure) {
        self.recycle_ended();
        self.no_leg(cx, why);
        self.rearm(cx);
    }

    /// The answer to [`Act::Introduce`]: XCLIENT was handed to the leg, or there is nothing to say.
    pub fn handle_introduced(&mut self, cx: &mut Cx<'_>) {
        self.recycle_ended();
        self.open_on(cx);
        self.rearm(cx);
    }

    pub fn handle_reply(&mut self, cx: &mut Cx<'_>, owed: Owed, reply: &Reply<'_>) {
        self.recycle_ended();
        match owed {
            Owed::Greeting => self.greeted(cx, reply),
            Owed::Ehlo | Owed::Helo | Owed::StartTls | Owed::Xclient => self.open_on(cx),
            Owed::Hello => self.hello_answered(cx, reply),
            Owed::Mail => self.mail_answered(cx, reply),
            Owed::Rcpt => self.recipient_answered(cx, reply),
            Owed::Auth => self.auth_answered(cx, reply),
            Owed::Tunnel => self.tunnel_answered(cx, reply),
            Owed::Passed => self.passed(cx, reply),
            Owed::Data => self.data_answered(cx, reply),
            Owed::Chunk => self.chunk_answered(cx, reply),
            Owed::Part => self.part_answered(cx, reply),
            Owed::End => self.message_answered(cx, reply),
            Owed::Quit => self.quit_answered(cx, reply),
            Owed::Farewell => self.farewell_heard(cx, reply),
            _ => {}
        }
        if reply.code == 421 && self.phase != Phase::Closing {
            self.upstream_closes(cx);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    pub fn handle_leg_lost(&mut self, cx: &mut Cx<'_>, why: LegLost) {
        self.recycle_ended();
        cx.leg = None;
        self.leg_lost(cx, why);
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    pub fn handle_leg_drained(&mut self, cx: &mut Cx<'_>) {
        self.recycle_ended();
        self.stream_on(cx);
        self.chunk_complete(cx);
        self.rearm(cx);
    }

    pub fn deadline(&self) -> Moment {
        self.deadline
    }

    pub fn helo(&self) -> &[u8] {
        &self.helo
    }

    /// The upstream has taken its word for who it is.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    pub fn is_esmtp(&self) -> bool {
        self.esmtp
    }

    pub fn stats(&self) -> &SessionStats {
        &self.stats
    }

    pub fn envelope(&self) -> Option<&Envelope> {
        self.tx.as_ref().map(|tx| &tx.envelope)
    }

    pub fn ended(&self) -> Option<Summary<'_>> {
        self.ended.as_ref().map(|tx| tx.summary(self.upstream))
    }

    pub fn leg(&self) -> Option<LegId> {
        match self.leg {
            Leg::Yes(leg) => Some(leg),
            _ => None,
        }
    }

    pub fn body_octets(&self) -> Option<u64> {
        match self.phase {
            Phase::Data | Phase::Chunk | Phase::BetweenChunks => {
                self.tx.as_ref().map(|tx| tx.octets)
            }
            _ => None,
        }
    }

    pub fn is_streaming(&self) -> bool {
        self.tx
            .as_ref()
            .is_some_and(|tx| tx.streamed && !tx.committed)
    }

    /// Its connection is its own: it streams when it has to.
    pub fn wants_to_stream(&self) -> bool {
        false
    }

    /// Its connection serves nobody else.
    pub fn could_give_back(
        &self,
        _now: Moment,
        _give_back: core::time::Duration,
        _after: core::time::Duration,
    ) -> bool {
        false
    }

    pub fn handle_shortage(&mut self, _cx: &mut Cx<'_>) {}

    /// What it is bound to can not be put aside.
    pub fn is_parkable(&self) -> bool {
        false
    }

    pub fn park(&mut self) -> Parked {
        unreachable!("a session with a connection of its own is never parkable")
    }

    fn take_line(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> usize {
        match self.inbound.frame_within(bytes, self.line_max()) {
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
                if self.has_to_wait() {
                    // the line's tail stays as the reminder
                    self.inbound.remember_overlong(began);
                    return 0;
                }
                if self.phase == Phase::Auth {
                    self.give_auth_up(cx);
                    return used;
                }
                self.count_command();
                self.violation(cx, Violation::LineTooLong);
                if began == Began::Bdat {
                    // how many octets follow it stood somewhere in the line
                    self.close(cx, true);
                }
                used
            }
        }
    }

    /// Replies are owed, and the next one would be weir's: it has to wait its turn.
    fn has_to_wait(&mut self) -> bool {
        if self.owed > 0 {
            self.waiting = Waiting::Replies;
        }
        self.owed > 0
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

    fn say(&self, cx: &mut Cx<'_>, reply: &[u8]) {
        if !self.client_gone {
            cx.out.extend_from_slice(reply);
        }
    }

    fn violation(&mut self, cx: &mut Cx<'_>, violation: Violation) {
        self.count_error();
        cx.acts.push_back(Act::Violation(violation));
        self.say(cx, violation.reply().as_bytes());
    }

    fn count_error(&mut self) {
        self.stats.errors = self.stats.errors.saturating_add(1);
    }

    /// Sends a command up whose reply the client waits for.
    fn send_up(&mut self, cx: &mut Cx<'_>, write: impl FnOnce(&mut Outbound)) {
        let Some(leg) = cx.leg.as_deref_mut() else {
            return self.say_and_close(cx, &texts::UPSTREAM_GONE);
        };
        if self.owed == 0 {
            self.owed_since = cx.now;
        }
        self.owed += 1;
        write(leg);
    }

    /// A reply to one of the commands that went up: it passes as it is.
    fn pass(&mut self, cx: &mut Cx<'_>, reply: &Reply<'_>) {
        self.owed -= 1;
        self.owed_since = cx.now;
        self.say(cx, reply.text);
    }

    /// All replies that were owed may be in: what waited for that goes on.
    fn replied(&mut self, cx: &mut Cx<'_>) {
        if self.owed > 0 || self.phase == Phase::Closing {
            return;
        }
        if self.waiting == Waiting::Replies {
            self.waiting = Waiting::Nothing;
        }
        if let Some(pending) = self.pending.take() {
            return self.refuse_command(cx, *pending);
        }
        // a command that is with policy goes up all the same, and is refused there
        let asked = self.waiting.asks().is_some();
        if !asked && self.tx.as_ref().is_some_and(|tx| tx.refused) {
            self.abandon(cx);
        }
    }

    fn recycle_ended(&mut self) {
        if let Some(mut tx) = self.ended.take() {
            tx.recycle();
            self.spare = Some(tx);
        }
    }

    fn bare_lf_refused(&self, cx: &Cx<'_>, terminator: Terminator) -> bool {
        terminator == Terminator::BareLf && cx.config.bare_newline == BareNewline::Reject
    }
}

const _: () = assert!(
    size_of::<Dedicated>() <= 384,
    "each session with an upstream of its own holds one"
);

#[cfg(any(test, fuzzing))]
pub mod game;
#[cfg(any(test, fuzzing))]
mod pair;
#[cfg(test)]
mod tests;
