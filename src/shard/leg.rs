//! One upstream connection: from connect to close, attached to a session or not.
//!
//! The machine is [`Outbound`]; here are its socket, its duty and its deadlines. A connection is always listening, also
//! when idle, so that a FIN or a 421 is seen when it comes and not when the next transaction needs it. What the machine
//! has gathered goes out as one flight when no send is under way.

use std::io;
use std::net::{IpAddr, SocketAddr};

use weir_smtp::outbound::{LegLost, Outbound, Owed};
use weir_smtp::reply::Reply;
use weir_smtp::time::Moment;

use crate::metrics::{ClosedLeg, Ended, Outcome, ReplyClass, TlsLeg, Way};
use crate::policy::pace::Pace;
use crate::ring::{BufferId, Close, Group, ReceiveEnd, SlotId, Wire};
use crate::route::{EndpointId, Failure};
use crate::tls::{UpstreamMode, UpstreamTls};

use super::config::LegConfig;
use super::flights::{COPY_FLIGHT, gather};
use super::probe::Errand;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

/// What a connection is there for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Duty {
    /// TCP connection, greeting, EHLO.
    Opening,
    /// Free; this step decides what for.
    Offered,
    /// In the pool.
    Idle,
    /// Serves this session.
    Attached(Key),
    /// Its last transaction was broken off: RSET is out.
    Resetting,
    /// QUIT is out.
    Quitting,
    /// Not for mail: asks an endpoint how it is.
    Probing(Errand),
}

/// What is left of a transaction that was broken off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reset {
    /// Nothing.
    No,
    /// RSET has not gone up yet.
    Due,
    /// It went up in front of the transaction that is served now, and was not answered yet.
    Ahead,
}

pub struct Leg {
    pub outbound: Outbound,
    pub slot: SlotId,
    pub endpoint: EndpointId,
    /// Where it goes to: one of the endpoint's, or where its client wanted to go.
    pub address: SocketAddr,
    pub duty: Duty,
    /// It serves one client, from its beginning to its end.
    pub own: bool,
    /// How it is spoken to; None: in plaintext.
    pub tls: Option<UpstreamTls>,
    /// What it says before anything else, outside of TLS as well.
    pub preface: Option<Vec<u8>>,
    /// TLS, which comes first here, waits for the preface to be out.
    pub prefacing: bool,
    /// The client that is counted as unanswered at its host.
    pub asking: Option<IpAddr>,
    pub connected: bool,
    pub sending: bool,
    /// A send failed: nothing more goes out, and what is still to be read does not take long.
    pub broken: bool,
    pub born: Moment,
    pub uses: u32,
    /// The deadline of the present duty.
    pub due: Moment,
    /// Whether RSET undoes its last transaction before it serves the next.
    pub reset: Reset,
    /// The earliest wheel entry.
    pub armed: Moment,
    /// The rate of a body that goes up while it comes in.
    pub pace: Option<Pace>,
}

impl Leg {
    pub fn new(
        outbound: Outbound,
        slot: SlotId,
        endpoint: EndpointId,
        address: SocketAddr,
        duty: Duty,
        now: Moment,
        due: Moment,
    ) -> Leg {
        Leg {
            outbound,
            slot,
            endpoint,
            address,
            duty,
            own: false,
            tls: None,
            preface: None,
            prefacing: false,
            asking: None,
            connected: false,
            sending: false,
            broken: false,
            born: now,
            uses: 0,
            due,
            reset: Reset::No,
            armed: Moment::NEVER,
            pace: None,
        }
    }

    /// The session it serves.
    pub fn session(&self) -> Option<Key> {
        match self.duty {
            Duty::Attached(session) => Some(session),
            _ => None,
        }
    }

    /// The handshake comes before the greeting.
    pub fn begins_with_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.implicit)
    }

    /// Lost for this reason, it is lost in a handshake, or just ahead of one, that mail does not depend on.
    pub fn may_forgo_tls(&self, why: LegLost) -> bool {
        let may = |tls: &UpstreamTls| tls.mode == UpstreamMode::May;
        let failed = match why {
            LegLost::Injection => true,
            // It says nothing of the server's TLS.
            LegLost::Closed => false,
            _ => self.outbound.wants_tls(),
        };
        failed && self.tls.as_ref().is_some_and(may)
    }

    /// Why it may not serve another transaction, although it could.
    pub fn worn_out(&self, config: &LegConfig, now: Moment) -> Option<ClosedLeg> {
        if now.since(self.born) >= config.age_max {
            Some(ClosedLeg::Age)
        } else if config.uses_max > 0 && self.uses >= config.uses_max {
            Some(ClosedLeg::Uses)
        } else if self.outbound.failures() >= config.failures_max {
            Some(ClosedLeg::Retired)
        } else {
            None
        }
    }
}

impl<W: Wire> World<W> {
    pub(super) fn leg_connected(&mut self, key: Key, result: io::Result<()>) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        match result {
            Ok(()) => {
                leg.connected = true;
                leg.due = self.now + self.config.leg.handshake;
                self.arm_leg(key);
                self.greet_leg(key);
            }
            Err(_) => self.lose_leg(key, LegLost::Closed, ClosedLeg::ConnectFailed),
        }
    }

    /// Replies: each goes to whom it is owed; then what they led to goes out as one flight.
    pub(super) fn leg_received(&mut self, key: Key, buffer: BufferId, len: u32) {
        let mut at = 0;
        let mut lost = None;
        // A final reply ends the attachment; its session has a step to finish all the same.
        let served = self.legs.get(key).and_then(Leg::session);
        while let Some(leg) = self.legs.get_mut(key) {
            let mut rest = &self.wire.buffer(buffer)[at..len as usize];
            let before = rest.len();
            let read = leg.outbound.handle_input(&mut rest);
            let taken = before - rest.len();
            let heard = match read {
                Ok(None) => break,
                Ok(Some((owed, reply))) => {
                    // The reply lies in the machine or in the buffer, and both are needed to act on it.
                    self.reply.clear();
                    self.reply.extend_from_slice(reply.text);
                    (owed, reply.code)
                }
                Err(why) => {
                    lost = Some(why);
                    break;
                }
            };
            at += taken;
            self.leg_replied(key, heard.0, heard.1);
        }
        self.release(buffer);
        self.counters.upstream_bytes.at(Way::In).add(u64::from(len));
        match lost {
            Some(why) => {
                if why == LegLost::NoTls {
                    self.log_no_tls(key);
                }
                self.lose_leg(key, why, closed_by(why));
            }
            None => self.leg_settled(key),
        }
        if let Some(session) = served {
            self.step(Who::Session(session));
            self.feed(session);
        }
    }

    /// One reply, its text in `self.reply`.
    fn leg_replied(&mut self, key: Key, owed: Owed, code: u16) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        if owed == Owed::Rset && leg.reset == Reset::Ahead {
            leg.reset = Reset::No;
            leg.due = Moment::NEVER;
        }
        let (duty, endpoint) = (leg.duty, leg.endpoint);
        if owed == Owed::Greeting {
            self.host_answered(key);
        }
        let upstream = self.upstream_of(endpoint);
        self.counters
            .upstream_replies
            .at(upstream, ReplyClass::of(code))
            .inc();
        if owed == Owed::End {
            self.counters
                .upstream_messages
                .at(upstream, outcome_of(code))
                .inc();
        }
        match duty {
            Duty::Attached(session) => {
                let text = std::mem::take(&mut self.reply);
                let reply = Reply { code, text: &text };
                let mut told = false;
                if let Some(session) = self.sessions.get_mut(session) {
                    match owed {
                        // A final reply is never delayed.
                        Owed::End => {
                            session.hold_until = Moment::ZERO;
                            session.flags.prompt = true;
                        }
                        // In a replay the client hears nothing of it.
                        Owed::Rcpt
                            if session.relay.body_octets().is_none()
                                && !session.relay.owes_final() =>
                        {
                            self.counters.recipients.at(outcome_of(code)).inc();
                            told = true;
                        }
                        _ => {}
                    }
                }
                self.step(Who::Session(session));
                if told {
                    self.remember_recipient(session, code, &text);
                }
                self.relay_call(session, |relay, cx| relay.handle_reply(cx, owed, &reply));
                self.reply = text;
                self.settle(session);
                self.step(Who::Leg(key));
            }
            Duty::Probing(errand) => self.probe_replied(key, errand, owed, code),
            Duty::Opening | Duty::Offered | Duty::Idle | Duty::Resetting | Duty::Quitting => {}
        }
    }

    /// After a batch of replies: who is ready, and what goes out.
    fn leg_settled(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        match leg.duty {
            Duty::Opening if leg.outbound.is_ready() => self.leg_opened(key),
            Duty::Resetting if leg.outbound.is_reusable() => self.offer_later(key),
            Duty::Quitting if !leg.outbound.is_owed() => self.close_leg(key, None),
            _ => {}
        }
        self.pump(key);
        self.secure_leg_if_due(key);
    }

    fn leg_opened(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        self.counters
            .upstream_connect_seconds
            .observe(self.now.since(leg.born));
        let caps = *leg.outbound.capabilities();
        if self.routes.heard(leg.endpoint, caps) {
            self.announce();
        }
        self.offer_later(key);
    }

    /// Sends what the machine has gathered, as one flight.
    pub(super) fn pump(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        if leg.sending || leg.broken || !leg.connected || leg.outbound.poll_output().is_empty() {
            return;
        }
        let form = leg.outbound.form();
        let pieces = leg.outbound.poll_output();
        let octets = pieces.wire_len(form);
        let mut head = self.flights.take(octets.min(COPY_FLIGHT) as usize);
        gather(&self.wire, pieces, form, &mut head, &mut self.parts);
        if self.parts.is_empty() {
            self.wire.send(leg.slot, head);
        } else {
            self.wire.send_spans(leg.slot, head, &self.parts);
        }
        leg.sending = true;
        for buffer in pieces.release() {
            self.wire.release(buffer);
        }
        self.counters.upstream_bytes.at(Way::Out).add(octets);
    }

    pub(super) fn leg_sent(&mut self, key: Key, result: io::Result<usize>, flight: Vec<u8>) {
        self.flights.give_back(flight);
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        leg.sending = false;
        if result.is_err() {
            // The reason may still lie unread before us: a 421, or the final reply. The receive tells.
            leg.broken = true;
            leg.due = leg.due.min(self.now + self.config.leg.quit);
            return self.arm_leg(key);
        }
        if std::mem::take(&mut leg.prefacing) {
            self.listen_to_leg(key);
        }
        self.pump(key);
        self.secure_leg_if_due(key);
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        if let Duty::Attached(session) = leg.duty
            && !leg.sending
        {
            self.step(Who::Session(session));
            self.relay_call(session, |relay, cx| relay.handle_leg_drained(cx));
            self.settle(session);
            self.feed(session);
        }
    }

    pub(super) fn leg_receive_ended(&mut self, key: Key, why: ReceiveEnd) {
        match why {
            // Armed again, the receive waits until a buffer has come back.
            ReceiveEnd::NoBuffers | ReceiveEnd::Stopped => {
                if let Some(leg) = self.legs.get(key) {
                    self.wire.start_receive(leg.slot, Group::Upstream);
                }
            }
            ReceiveEnd::Eof | ReceiveEnd::Reset(_) => {
                if let ReceiveEnd::Reset(error) = &why {
                    self.count_cut(TlsLeg::Upstream, error);
                }
                self.lose_leg(key, LegLost::Closed, ClosedLeg::Peer)
            }
        }
    }

    /// The connection can not be used any more: the session it served is told, the endpoint is judged, the socket closed.
    pub(super) fn lose_leg(&mut self, key: Key, why: LegLost, reason: ClosedLeg) {
        let Some(leg) = self.legs.get(key) else {
            return;
        };
        if leg.own && !leg.connected {
            return self.own_leg_failed(key, reason);
        }
        if let Some(tunnel) = leg.session().and_then(|one| self.tunnels.of_session(one)) {
            // What came glued behind the 220 was said in the clear: nobody is to take it for protected.
            self.counters.plaintext_discarded.inc();
            return self.end_tunnel(tunnel, Ended::Tunnel, Close::Reset);
        }
        let (duty, endpoint, address) = (leg.duty, leg.endpoint, leg.address);
        // One that had served before and ends just when it is needed again says nothing of its server: nor of the
        // transaction, if it will not even have the one before undone.
        let ended = matches!(why, LegLost::Closed | LegLost::Refused421);
        let stale = leg.uses > 1 && (ended || leg.reset == Reset::Ahead);
        if why == LegLost::Injection {
            self.log_injection(address);
        }
        let forgone = self.forgo_tls(key, why);
        self.close_leg(key, Some(reason));
        match duty {
            Duty::Attached(session) => {
                if why == LegLost::Refused421 && !stale {
                    self.endpoint_failed(endpoint, Failure::Refused);
                }
                self.leave_streams(session);
                if let Some(session) = self.sessions.get_mut(session) {
                    session.leg = None;
                    if !stale {
                        session.want.tried.insert(endpoint);
                    }
                }
                self.step(Who::Session(session));
                self.relay_call(session, |relay, cx| relay.handle_leg_lost(cx, why));
                self.settle(session);
                let again =
                    |session: &Session| session.leg.is_some() || !session.want.ticket.is_none();
                if self.sessions.get(session).is_some_and(again) {
                    self.counters.retries.inc();
                }
                self.feed(session);
            }
            Duty::Opening => {
                let upstream = self.upstream_of(endpoint);
                self.counters.upstream_connect_failures.at(upstream).inc();
                if !forgone {
                    self.endpoint_failed(endpoint, failure_by(why));
                }
                self.open_for_waiters();
            }
            Duty::Probing(errand) if forgone => self.probe_again(endpoint, errand),
            Duty::Probing(errand) => self.probe_lost(endpoint, errand, why, reason),
            Duty::Offered | Duty::Idle | Duty::Resetting | Duty::Quitting => {}
        }
    }

    /// Closes the socket and forgets the connection. `None`: it ended as it should, after QUIT.
    pub(super) fn close_leg(&mut self, key: Key, reason: Option<ClosedLeg>) {
        self.host_answered(key);
        let Some(mut leg) = self.legs.remove(key) else {
            return;
        };
        for buffer in leg.outbound.poll_output().release() {
            self.wire.release(buffer);
        }
        // Inside TLS the end is said before it comes.
        let last_words = reason.is_none() && self.wire.is_secure(leg.slot);
        let how = if last_words {
            Close::Linger
        } else {
            Close::Now
        };
        self.close_slot(leg.slot, how);
        self.leg_left(key, &leg);
        if let Some(reason) = reason {
            let upstream = self.upstream_of(leg.endpoint);
            self.counters.upstream_closes.at(upstream, reason).inc();
        }
    }

    /// Nobody needs this connection any more: QUIT, and its reply awaited a little.
    pub(super) fn dismiss_leg(&mut self, key: Key, reason: ClosedLeg) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        if leg.broken || !leg.outbound.is_reusable() {
            return self.close_leg(key, Some(reason));
        }
        if leg.duty == Duty::Idle {
            self.pools.leave(key, leg.endpoint);
        }
        leg.duty = Duty::Quitting;
        leg.outbound.quit();
        leg.due = self.now + self.config.leg.quit;
        let endpoint = leg.endpoint;
        self.counters
            .upstream_closes
            .at(self.upstream_of(endpoint), reason)
            .inc();
        self.pump(key);
        self.arm_leg(key);
    }

    pub(super) fn arm_leg(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        if leg.due < leg.armed {
            leg.armed = leg.due;
            self.wheel.insert(leg.due, Who::Leg(key).to_bits());
        }
    }

    pub(super) fn leg_timer(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        if self.now < leg.armed {
            return;
        }
        leg.armed = Moment::NEVER;
        if self.now < leg.due {
            return self.arm_leg(key);
        }
        match leg.duty {
            _ if leg.broken => self.lose_leg(key, LegLost::Closed, ClosedLeg::Peer),
            Duty::Opening | Duty::Attached(_) if !leg.connected => {
                self.lose_leg(key, LegLost::Timeout, ClosedLeg::ConnectFailed)
            }
            Duty::Opening | Duty::Probing(_) => {
                self.lose_leg(key, LegLost::Timeout, ClosedLeg::Timeout)
            }
            Duty::Resetting => self.close_leg(key, Some(ClosedLeg::Timeout)),
            Duty::Quitting => self.close_leg(key, None),
            Duty::Idle => {
                let reason = leg
                    .worn_out(&self.config.leg, self.now)
                    .unwrap_or(ClosedLeg::Idle);
                self.dismiss_leg(key, reason);
            }
            Duty::Attached(_) if leg.reset == Reset::Ahead => {
                self.lose_leg(key, LegLost::Timeout, ClosedLeg::Timeout)
            }
            Duty::Attached(_) if leg.outbound.wants_tls() => {
                self.lose_leg(key, LegLost::Timeout, ClosedLeg::Timeout)
            }
            Duty::Attached(session) => self.check_body_pace(key, session),
            Duty::Offered => {}
        }
    }
}

pub(super) fn outcome_of(code: u16) -> Outcome {
    match ReplyClass::of(code) {
        ReplyClass::Positive => Outcome::Accepted,
        ReplyClass::Permanent => Outcome::Rejected,
        _ => Outcome::Deferred,
    }
}

/// What an endpoint is judged by whose connection did not come to anything.
fn failure_by(why: LegLost) -> Failure {
    match why {
        LegLost::Refused421 | LegLost::Unwelcome => Failure::Refused,
        LegLost::NoTls => Failure::Tls,
        LegLost::Closed | LegLost::Protocol | LegLost::Timeout | LegLost::Injection => {
            Failure::Connect
        }
    }
}

fn closed_by(why: LegLost) -> ClosedLeg {
    match why {
        LegLost::Closed => ClosedLeg::Peer,
        LegLost::Protocol => ClosedLeg::Protocol,
        LegLost::Injection => ClosedLeg::Injection,
        LegLost::Timeout => ClosedLeg::Timeout,
        LegLost::NoTls => ClosedLeg::Tls,
        LegLost::Refused421 | LegLost::Unwelcome => ClosedLeg::Refused421,
    }
}
