//! How things end: time, hang-ups, refusals from outside, and the rest of a session in the pit.

use alloc::boxed::Box;
use core::mem;
use core::time::Duration;

use super::transaction::{Outcome, Transaction};
use super::{Act, Cx, Detach, LineVerdict, Phase, Relay, Waiting};
use crate::extension::ExtensionSet;
use crate::gate::Verdict;
use crate::reply::ReplyText;
use crate::stats::SessionStats;
use crate::texts;
use crate::time::Moment;

/// How the client's side ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Gone {
    /// End of stream, after all bytes before it have been fed: it may still be reading.
    Eof,
    /// Reset, or closed by us: nothing can be said to it any more.
    Reset,
}

/// What must be remembered of a session between two commands. Small, since it may sit in the pit
/// by the hundred thousand: what most of those have not is on the heap.
#[derive(Debug)]
pub struct Parked {
    /// None: it has not said HELO.
    more: Option<Box<More>>,
    commands: u32,
    asks: u32,
    errors: u16,
    junk: u16,
    announced: ExtensionSet,
    phase: Phase,
    esmtp: bool,
}

/// What is remembered of a session that has said HELO.
#[derive(Debug)]
struct More {
    helo: Box<[u8]>,
    /// All counts, of a session that has opened a transaction. Few of those who are parked ever have.
    worked: Option<Box<SessionStats>>,
}

const _: () = assert!(
    size_of::<Parked>() <= 24,
    "it lies in the row of each parked client"
);

impl Parked {
    /// HELO name as the client gave it; empty before.
    pub fn helo(&self) -> &[u8] {
        self.more.as_ref().map_or(&[], |more| &more.helo)
    }

    pub fn stats(&self) -> SessionStats {
        match self.more.as_ref().and_then(|more| more.worked.as_ref()) {
            Some(stats) => **stats,
            None => SessionStats {
                commands: self.commands,
                errors: self.errors,
                junk: self.junk,
                ..SessionStats::default()
            },
        }
    }
}

impl Relay {
    /// The client's side ended. With the end of the message on its way up, the relay lives on
    /// without it until the upstream has answered (see `is_finished`); a client that only stopped
    /// sending still gets the replies it is owed.
    pub fn handle_client_gone(&mut self, cx: &mut Cx<'_>, gone: Gone) {
        self.recycle_ended(cx);
        match gone {
            Gone::Eof => self.eof = true,
            Gone::Reset => {
                self.client_gone = true;
                self.eof = true;
                if !self.is_committed() {
                    self.close(cx, false);
                }
            }
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// A deadline has passed. Calls before it do nothing.
    pub fn handle_timeout(&mut self, cx: &mut Cx<'_>) {
        if cx.now < self.deadline() {
            return;
        }
        self.recycle_ended(cx);
        if cx.now < self.deadline {
            self.give_back_at = Moment::NEVER;
            return self.give_back(cx);
        }
        if matches!(self.waiting, Waiting::Final | Waiting::Stream) {
            self.message_overdue(cx);
        } else if self.waiting.asks().is_some() {
            // a decision of ours that did not come is our trouble, never the client's
            let waiting = mem::replace(&mut self.waiting, Waiting::Nothing);
            let verdict = match waiting {
                Waiting::Connect(_) => Verdict::Close(texts::OVERLOAD),
                Waiting::FinalReply(_) => Verdict::Pass,
                Waiting::StartTls(_) => Verdict::Refuse(texts::TLS_UNAVAILABLE),
                _ => Verdict::Refuse(texts::INTERNAL),
            };
            self.resolve(cx, waiting, verdict);
        } else if self.waiting == Waiting::Handshake {
            // nothing can be said in the middle of it
            self.close(cx, false);
        } else if self.awaits_recipients() {
            self.recipients_overdue(cx);
        } else {
            self.say_and_close(cx, &texts::TIMEOUT);
        }
        self.finish_if_drained(cx);
        self.rearm(cx);
    }

    /// Whether an attached connection has waited long enough for this client, and could serve others meanwhile: `after`
    /// for each recipient, since those accepted go up again. Else a client that takes its time between its RCPTs
    /// would make a hundred of them five thousand.
    pub fn could_give_back(&self, now: Moment, give_back: Duration, after: Duration) -> bool {
        let recipients = self
            .tx
            .as_ref()
            .map_or(0, |tx| tx.envelope.recipient_count());
        let after = give_back.min(after.saturating_mul(recipients as u32));
        self.give_back_at != Moment::NEVER && now + give_back >= self.give_back_at + after
    }

    /// Connections are short: one that waits for the client is given back before its time.
    pub fn handle_shortage(&mut self, cx: &mut Cx<'_>) {
        if self.give_back_at == Moment::NEVER {
            return;
        }
        self.recycle_ended(cx);
        self.give_back_at = Moment::NEVER;
        self.give_back(cx);
    }

    /// Ends the session with `reply` on a line of its own. A final reply that is owed is waited
    /// for, and goes down before it; so is a handshake, during which nothing can be said.
    pub fn refuse(&mut self, cx: &mut Cx<'_>, reply: &ReplyText) {
        self.recycle_ended(cx);
        if self.owes_final() || self.waiting == Waiting::Handshake {
            self.farewell = Some(Box::new(reply.clone()));
        } else if self.phase != Phase::Closing {
            self.say_and_close(cx, reply);
        }
        self.rearm(cx);
    }

    /// Nothing more will come of this session: its slot may be closed and forgotten.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Closing && self.tx.is_none()
    }

    /// No transaction is open and no question either: it may be closed or parked.
    pub fn is_between_transactions(&self) -> bool {
        self.tx.is_none() && self.waiting == Waiting::Nothing && self.phase != Phase::Closing
    }

    /// The end of data was read and its reply is owed.
    pub fn owes_final(&self) -> bool {
        self.phase == Phase::Final
    }

    /// A command has been read whose reply is still to be made, and it takes nothing more of the client to make it: the
    /// replies before it may wait and go with it. Not so inside a body: clients that send a chunk's command with their
    /// recipients want to hear of those before they send its octets (Exim does).
    pub fn owes_reply(&self) -> bool {
        match self.waiting {
            Waiting::Nothing => self.awaits_recipients(),
            Waiting::Handshake | Waiting::Stream | Waiting::EndOfHeaders(_) => false,
            _ => true,
        }
    }

    /// The end of the message is on its way up: only the upstream can say what becomes of it.
    fn is_committed(&self) -> bool {
        self.owes_final() && self.tx.as_ref().is_some_and(|tx| tx.committed)
    }

    /// Takes the session out of service to be parked; only between transactions, and between two
    /// lines.
    pub fn park(&mut self) -> Parked {
        assert!(
            self.is_between_transactions() && !self.inbound.is_mid_line() && self.swallow == 0,
            "a client is parked only between transactions"
        );
        let stats = self.stats;
        let worked = (stats.transactions > 0).then(|| Box::new(stats));
        let helo = mem::take(&mut self.helo);
        let more = (worked.is_some() || !helo.is_empty()).then(|| Box::new(More { helo, worked }));
        Parked {
            more,
            commands: stats.commands,
            errors: stats.errors,
            junk: stats.junk,
            asks: self.asks,
            announced: self.announced,
            phase: self.phase,
            esmtp: self.esmtp,
        }
    }

    /// May `park` be called? Not while the octets of a refused chunk are still to come: they would be read as commands.
    /// Nor when a verdict on the next line has been given: it would be asked for again.
    pub fn is_parkable(&self) -> bool {
        self.is_between_transactions()
            && matches!(self.line_verdict, LineVerdict::None)
            && !self.inbound.is_mid_line()
            && self.swallow == 0
            && self.ended.is_none()
    }

    /// A parked session comes back as it was.
    pub fn resume(parked: Parked, now: Moment, timeout: Duration) -> Self {
        let mut relay = Self::new(now);
        relay.stats = parked.stats();
        relay.helo = parked.more.map(|more| more.helo).unwrap_or_default();
        relay.asks = parked.asks;
        relay.announced = parked.announced;
        relay.phase = parked.phase;
        relay.esmtp = parked.esmtp;
        relay.deadline = now + timeout;
        relay
    }

    /// Gives up the open transaction, if there is one: RSET, a new EHLO, QUIT.
    pub(super) fn abandon(&mut self, cx: &mut Cx<'_>) {
        self.drop_transaction(cx, Outcome::Abandoned);
        if self.phase != Phase::Greeted && self.phase != Phase::Unwelcome {
            self.phase = Phase::Ready;
        }
    }

    pub(super) fn close(&mut self, cx: &mut Cx<'_>, linger: bool) {
        if self.phase == Phase::Closing {
            return;
        }
        self.drop_transaction(cx, Outcome::Lost);
        self.waiting = Waiting::Nothing;
        self.line_verdict = LineVerdict::None;
        self.phase = Phase::Closing;
        cx.acts.push_back(Act::Close { linger });
    }

    fn drop_transaction(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.let_go(cx);
        let outcome = match tx.mail_refusal.first() {
            Some(b'4') => Outcome::Deferred,
            Some(_) => Outcome::Rejected,
            None => outcome,
        };
        if tx.reply.is_empty() {
            let last = match tx.refusal.is_empty() {
                false => &tx.refusal,
                true => &tx.mail_refusal,
            };
            tx.reply.extend_from_slice(last);
        }
        self.end_transaction(cx, outcome);
    }

    pub(super) fn end_transaction(&mut self, cx: &mut Cx<'_>, outcome: Outcome) {
        let Some(mut tx) = self.tx.take() else { return };
        tx.let_go(cx);
        tx.outcome = outcome;
        match outcome {
            Outcome::Deferred => self.stats.deferred = self.stats.deferred.saturating_add(1),
            Outcome::Rejected => self.stats.rejected = self.stats.rejected.saturating_add(1),
            Outcome::Accepted | Outcome::Abandoned | Outcome::Lost => {}
        }
        self.stats.octets = self.stats.octets.saturating_add(tx.octets);
        self.ended = Some(tx);
        cx.acts.push_back(Act::TransactionEnd);
    }

    /// The client has closed its side, everything it said has been dealt with: so do we.
    pub(super) fn finish_if_drained(&mut self, cx: &mut Cx<'_>) {
        // a client that has ended its stream can not finish a handshake either
        let idle = matches!(self.waiting, Waiting::Nothing | Waiting::Handshake)
            && !self.awaits_recipients();
        if self.eof && idle && self.phase != Phase::Closing {
            self.close(cx, false);
        }
    }

    fn recipients_overdue(&mut self, cx: &mut Cx<'_>) {
        let Some(tx) = self.tx.as_mut() else { return };
        tx.detach(cx, Detach::Close);
        tx.refuse_untold(&texts::UPSTREAM_TIMEOUT);
        tx.fail(&texts::UPSTREAM_TIMEOUT);
        self.pump(cx);
    }

    /// Sets the deadline that is next, the client's time counting from now.
    pub(super) fn rearm(&mut self, cx: &Cx<'_>) {
        let timeouts = &cx.config.timeouts;
        let tx = self.tx.as_deref();
        self.deadline = match (self.waiting, self.phase) {
            (_, Phase::Closing) => Moment::NEVER,
            (_, Phase::Final) => {
                let from = tx.and_then(|tx| tx.end_of_data).unwrap_or(cx.now);
                from + timeouts.final_reply
            }
            (Waiting::Handshake, _) => cx.now + timeouts.handshake,
            (Waiting::Recipients, _) => recipients_due(tx, timeouts.rcpt_reply, cx.now),
            (Waiting::Claim, _) => cx.now + timeouts.verdict,
            (Waiting::Data(_) | Waiting::Chunk(_), _) => cx.now + timeouts.data_reply,
            (Waiting::Stream, _) => cx.now + timeouts.data_reply,
            (waiting, _) if waiting.asks().is_some() => cx.now + timeouts.verdict,
            _ if self.awaits_recipients() => recipients_due(tx, timeouts.rcpt_reply, cx.now),
            (_, Phase::Data | Phase::Chunk) => cx.now + timeouts.body,
            (_, Phase::Ready) => cx.now + timeouts.idle,
            _ => cx.now + timeouts.command,
        };
        self.rearm_give_back(cx, Moment::NEVER);
    }

    /// `latest`: when the client's time runs out that was running already.
    fn rearm_give_back(&mut self, cx: &Cx<'_>, latest: Moment) {
        let after = cx.config.timeouts.give_back;
        let client_owes = self.waiting == Waiting::Nothing
            && matches!(
                self.phase,
                Phase::Envelope | Phase::Data | Phase::Chunk | Phase::BetweenChunks
            );
        let idle = client_owes && self.tx.as_ref().is_some_and(|tx| tx.may_give_back());
        self.give_back_at = if idle && !after.is_zero() {
            latest.min(cx.now + after)
        } else {
            Moment::NEVER
        };
    }

    /// As `rearm`, but a client that sends a line octet by octet gains no time by it; nor does one keep an upstream
    /// connection from others by a body in drops or by commands that lead nowhere.
    pub(super) fn rearm_after_input(&mut self, cx: &Cx<'_>, lines_read: bool) {
        let body = matches!(self.phase, Phase::Data | Phase::Chunk);
        let idle = self.waiting == Waiting::Nothing && !self.awaits_recipients();
        let give_back_at = self.give_back_at;
        if lines_read || body || !idle || self.phase == Phase::Closing {
            self.rearm(cx);
        }
        self.rearm_give_back(cx, give_back_at);
    }
}

fn recipients_due(tx: Option<&Transaction>, within: Duration, now: Moment) -> Moment {
    let since = tx.and_then(|tx| tx.envelope.recipients.get(tx.told).map(|row| row.since));
    since.unwrap_or(now) + within
}
