//! The client's side: one session from accept to close. The only file that knows smtp, policy and route at once.
//!
//! A session is an entry of a slab, driven by completions. Each step works the same way: one call into the relay, its
//! acts drained (some lead to further calls), then [`World::finish_step`]: what was gathered for the upstream goes out
//! as one flight, what was gathered for the client as one flight, and the earliest deadline is armed.
//!
//! Input is `intake.rs`'s business, the socket `socket.rs`'s.

use std::time::Duration;

use weir_smtp::dialogue::Dialogue;
use weir_smtp::limits::REPLIES_GATHERED_MAX;
use weir_smtp::pieces::BufferId;
use weir_smtp::relay::{Act, Cx, Gone, Relay};
use weir_smtp::texts;
use weir_smtp::time::Moment;

use crate::metrics::Ended;
use crate::policy::errors::Errors;
use crate::policy::{Finding, Standing};
use crate::ring::{SlotId, Wire};
use crate::tls::Version;

use super::house::smtp_config;
use super::inquiry::Place;
use super::intake::Pending;
use super::introduction::Introduction;
use super::parking::last_reply;
use super::pit::Peer;
use super::replies::{SharedText, TEXT_MAX};
use super::secure::{self, Secrecy};
use super::slab::Key;
use super::want::Want;
use super::who::Who;
use super::world::World;

/// Calls into one relay per turn, so that a client with much to say cannot starve the others.
const CALLS_PER_TURN: usize = 32;

/// How long a last reply may take to be sent before the connection is closed over it.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A session that stutters is parked with its next reply, and leaves its timer behind for nobody: none further ahead
/// than this, or each parked client would pay for one.
const STUTTERER_LOOK: Duration = Duration::from_secs(2);

/// One client.
pub struct Session {
    pub relay: Dialogue,
    /// Its number in the log.
    pub number: u64,
    /// The listener it came by.
    pub listener: u8,
    pub introduction: Option<Box<Introduction>>,
    pub peer: Peer,
    pub accepted: Moment,
    /// None: the client is gone, and the relay lives on until the upstream has answered.
    pub slot: Option<SlotId>,
    /// The attached upstream connection.
    pub leg: Option<Key>,
    /// Replies gathered for the next send.
    pub out: Vec<u8>,
    /// Received and not read yet, oldest first.
    pub intake: Vec<Pending>,
    pub want: Want,
    /// Replies are held back until then.
    pub hold_until: Moment,
    /// Receiving is paused until then (byte rate).
    pub pause_until: Moment,
    /// The session ends then, whatever is still unsent.
    pub close_at: Moment,
    /// The earliest wheel entry of this session.
    pub armed: Moment,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// What policy knows of the client, and the session's own counts.
    pub standing: Standing,
    pub errors: Errors,
    /// How many of the relay's counts have been passed on to policy.
    pub errors_seen: u16,
    pub junk_seen: u16,
    /// Milliseconds of its life that it was parked.
    pub parked_millis: u32,
    /// Where pieces of the body are copied to.
    pub chunk: Option<BufferId>,
    /// Pieces of the body that are held in the very buffers they came in.
    pub pinned: u16,
    pub flags: Flags,
    pub secrecy: Secrecy,
    pub ended: Ended,
    /// What it was refused or ended for.
    pub why: Option<Finding>,
    /// The last reply of a session that weir ends, for the log.
    pub last_words: Option<SharedText>,
    /// What the client is slowed down for.
    pub blame: Option<Finding>,
    /// TLS of the upstream connection that it was attached to last.
    pub leg_tls: Option<Version>,
    /// What is inquired of its client.
    pub inquiry: Place,
}

/// What is going on with the client's socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    pub sending: bool,
    pub receiving: bool,
    /// The client has sent its last byte.
    pub eof: bool,
    pub eof_told: bool,
    /// The relay has asked to close.
    pub closing: bool,
    /// Stands on the list of those who have more input to read.
    pub queued: bool,
    /// Replies are delayed, one command at a time.
    pub paced: bool,
    /// To the pit as soon as no transaction is open.
    pub stutter: bool,
    /// About to be parked: nothing is sent and no receive armed any more.
    pub parking: bool,
    /// weir goes down: the session ends with its transaction.
    pub send_off: bool,
    /// Counted among those that stream.
    pub streams: bool,
    /// Counted among those that are between transactions.
    pub idle: bool,
    /// What has gathered waits for nothing more: a final reply is among it, or it has waited for long.
    pub prompt: bool,
    /// Stands on the list of those whose replies wait for the next one.
    pub gathering: bool,
    /// Its bytes pass unread.
    pub tunnelled: bool,
}

impl Session {
    pub fn new(now: Moment, number: u64, slot: SlotId, peer: Peer) -> Session {
        Session {
            relay: Dialogue::Multiplexed(Relay::new(now)),
            number,
            listener: 0,
            introduction: None,
            peer,
            accepted: now,
            slot: Some(slot),
            leg: None,
            out: Vec::new(),
            intake: Vec::new(),
            want: Want::default(),
            hold_until: Moment::ZERO,
            pause_until: Moment::ZERO,
            close_at: Moment::NEVER,
            armed: Moment::NEVER,
            bytes_in: 0,
            bytes_out: 0,
            standing: Standing::STRANGER,
            errors: Errors::default(),
            errors_seen: 0,
            junk_seen: 0,
            parked_millis: 0,
            chunk: None,
            pinned: 0,
            flags: Flags::default(),
            secrecy: Secrecy::Plain,
            ended: Ended::ClientClosed,
            why: None,
            last_words: None,
            blame: None,
            leg_tls: None,
            inquiry: Place::NONE,
        }
    }

    /// What has been received and not read yet.
    pub fn waiting_octets(&self) -> usize {
        self.intake.iter().map(|piece| piece.len as usize).sum()
    }

    /// Whether the relay may be given input now.
    fn may_read(&self, now: Moment) -> bool {
        !self.intake.is_empty()
            && !self.flags.closing
            && self.relay.wants_input()
            // Who does not take what it is owed asks for no more.
            && self.out.len() < REPLIES_GATHERED_MAX
            && (!self.flags.paced
                || (self.hold_until <= now && self.out.is_empty() && !self.flags.sending))
    }

    /// The next reply to what the client has sent comes from an upstream or from policy: what has gathered may go with it.
    pub(super) fn may_gather(&self) -> bool {
        let flags = self.flags;
        self.relay.owes_reply()
            && !(flags.prompt || flags.closing || flags.paced || flags.stutter)
            && self.out.len() < REPLIES_GATHERED_MAX
    }

    /// When something has to happen even if nothing else does.
    fn deadline(&self) -> Moment {
        if self.secrecy == Secrecy::First {
            return self.close_at;
        }
        let mut earliest = self.relay.deadline().min(self.close_at);
        if !self.want.ticket.is_none() {
            earliest = earliest.min(self.want.until());
        }
        if self.hold_until > Moment::ZERO && (!self.out.is_empty() || !self.intake.is_empty()) {
            earliest = earliest.min(self.hold_until);
        }
        if self.pause_until > Moment::ZERO && !self.flags.receiving {
            earliest = earliest.min(self.pause_until);
        }
        earliest
    }
}

impl<W: Wire> World<W> {
    /// One call into the relay of a session, with everything it may touch.
    pub(super) fn relay_call<R>(
        &mut self,
        key: Key,
        call: impl FnOnce(&mut Dialogue, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        self.relay_reads(key, |relay, cx, _| call(relay, cx))
    }

    /// The same for a call that reads from a buffer of the wire.
    pub(super) fn relay_reads<R>(
        &mut self,
        key: Key,
        call: impl FnOnce(&mut Dialogue, &mut Cx<'_>, &W) -> R,
    ) -> Option<R> {
        let session = self.sessions.get(key)?;
        let tls = secure::offer(&self.config.services, self.tls.is_some(), session);
        let trusted = self.may_introduce(session);
        let in_body = session.relay.body_octets().is_some();
        let may_stream = !in_body || self.may_stream(key);
        let session = self.sessions.get_mut(key)?;
        self.flights.equip(&mut session.out);
        let leg = session.leg.and_then(|leg| self.legs.get_mut(leg));
        let mut cx = Cx {
            now: self.now,
            config: smtp_config(&self.config, &self.stressed, &self.ladder),
            announced: self.announced.to(tls, trusted),
            out: &mut session.out,
            leg: leg.map(|leg| &mut leg.outbound),
            acts: &mut self.acts,
            spare: &mut self.spare,
            tls,
            hold_max: self.hold_max,
            may_stream,
        };
        Some(call(&mut session.relay, &mut cx, &self.wire))
    }

    /// A call into the relay and all that follows from it.
    pub(super) fn relay_step(&mut self, key: Key, call: impl FnOnce(&mut Dialogue, &mut Cx<'_>)) {
        if self.relay_call(key, call).is_some() {
            self.settle(key);
            self.finish_step(key);
        }
    }

    /// Does what the relay asked for, until it asks for nothing more.
    pub(super) fn settle(&mut self, key: Key) {
        while let Some(act) = self.acts.pop_front() {
            match act {
                Act::Ask { id, stage } => {
                    if let Some(verdict) = self.judge(key, id, stage) {
                        self.relay_call(key, |relay, cx| relay.handle_verdict(cx, id, verdict));
                    }
                }
                Act::Attach {
                    needs,
                    route,
                    prefer,
                } => self.attach(key, needs, route, prefer),
                Act::CancelAttach => self.cancel_attach(key),
                Act::Detach { how, .. } => self.detach(key, how),
                Act::Release(buffer) => self.release(buffer),
                Act::TransactionEnd => self.transaction_ended(key),
                Act::Violation(violation) => self.violated(violation),
                Act::StartTls => self.secure_next(key),
                Act::Tunnel => self.begin_tunnel(key),
                Act::Introduce => self.introduce(key),
                Act::Xclient(claim) => self.claimed(key, &claim),
                Act::Close { .. } => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        if session.ended == Ended::ClientClosed && !session.flags.eof_told {
                            session.ended = ended_by(&session.out);
                        }
                        session.flags.closing = true;
                        let last = &session.out[last_reply(&session.out)..];
                        let last = &last[..last.len().min(TEXT_MAX)];
                        session.last_words = Some(self.replies.share(last));
                        session.close_at = self.now + LAST_WORDS;
                    }
                }
            }
        }
    }

    /// The end of every step: flights go out, receiving goes on, the next deadline is armed, and who is done is dismissed.
    pub(super) fn finish_step(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        if session.flags.tunnelled {
            return;
        }
        if let Some(leg) = session.leg {
            self.keep_pace(key, leg);
            self.pump(leg);
        }
        self.hear_the_end(key);
        self.weigh_errors(key);
        self.leave_if_sent_off(key);
        self.part_from_offender(key);
        if self.park_if_due(key) {
            return;
        }
        self.flush(key);
        self.go_on_receiving(key);
        self.count_idleness(key);
        if !self.dismiss_if_done(key) {
            self.queue_if_readable(key);
            self.put_aside(key);
            self.arm_session(key);
        }
    }

    /// Lets the relay read, for a bounded number of calls.
    pub(super) fn feed(&mut self, key: Key) {
        for _ in 0..CALLS_PER_TURN {
            let Some(session) = self.sessions.get(key) else {
                return;
            };
            if !session.may_read(self.now) {
                break;
            }
            self.read_some(key);
            self.settle(key);
        }
        self.finish_step(key);
    }

    /// weir goes down and this session's transaction is over.
    fn leave_if_sent_off(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.flags.send_off
            && session.relay.is_between_transactions()
            && !session.flags.closing
        {
            session.ended = Ended::Drain;
            self.relay_call(key, |relay, cx| relay.refuse(cx, &texts::SHUTDOWN));
            self.settle(key);
        }
    }

    /// Keeps the number of sessions that are between transactions: to count them would mean to walk over all.
    fn count_idleness(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let idle = session.relay.is_between_transactions();
        if idle != session.flags.idle {
            session.flags.idle = idle;
            if idle {
                self.idle_sessions += 1
            } else {
                self.idle_sessions -= 1
            }
        }
    }

    /// The end of the client's stream is news for the relay only when everything before it has been read.
    fn hear_the_end(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.flags.eof && !session.flags.eof_told && session.intake.is_empty() {
            session.flags.eof_told = true;
            self.relay_call(key, |relay, cx| relay.handle_client_gone(cx, Gone::Eof));
            self.settle(key);
        }
    }

    /// More input than one turn's share: the rest is read in the next one.
    fn queue_if_readable(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.may_read(self.now) && !session.flags.queued {
            session.flags.queued = true;
            self.readable.push_back(key);
        }
    }

    pub(super) fn arm_session(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut deadline = session.deadline();
        if session.flags.stutter {
            deadline = deadline.min(self.now + STUTTERER_LOOK);
        }
        if deadline < session.armed {
            session.armed = deadline;
            self.wheel.insert(deadline, Who::Session(key).to_bits());
        }
    }

    /// A wheel entry of this session fired; perhaps its deadline has moved since.
    pub(super) fn session_timer(&mut self, key: Key) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if now < session.armed {
            return;
        }
        session.armed = Moment::NEVER;
        if session.close_at <= now {
            // It did not even take its last reply, or did not shake hands.
            return match session.secrecy {
                Secrecy::First => {
                    self.handshake_overdue(key);
                    self.drop_client(key, Ended::Timeout)
                }
                _ => self.client_lost(key),
            };
        }
        let waited_out = !session.want.ticket.is_none() && session.want.until() <= now;
        if session.hold_until <= now {
            session.hold_until = Moment::ZERO;
        }
        if session.pause_until <= now {
            session.pause_until = Moment::ZERO;
        }
        if waited_out {
            self.wait_is_over(key);
        }
        let overdue = self
            .sessions
            .get(key)
            .is_some_and(|session| session.deadline() <= now && session.relay.deadline() <= now);
        if overdue {
            let secrecy = self.sessions.get(key).map(|session| session.secrecy);
            if let Some(Secrecy::Shaking { .. }) = secrecy {
                self.handshake_overdue(key);
            }
            self.relay_call(key, |relay, cx| relay.handle_timeout(cx));
            self.settle(key);
        }
        self.feed(key);
    }
}

/// What ended a session, by its last reply: the relay closes for few reasons, and each has words of its own.
fn ended_by(out: &[u8]) -> Ended {
    let whole = out.strip_suffix(b"\r\n").unwrap_or(out);
    let last = whole
        .rsplit(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    match last {
        [b'2', b'2', b'1', ..] => Ended::Quit,
        _ if out.ends_with(texts::TIMEOUT.as_bytes()) => Ended::Timeout,
        _ if out.ends_with(texts::TOO_MANY_MESSAGES.as_bytes()) => Ended::Limit,
        _ => Ended::Dropped,
    }
}

const _: () = assert!(
    size_of::<Session>() <= 440,
    "an idle session costs 640 bytes with its slot, timer and address"
);
