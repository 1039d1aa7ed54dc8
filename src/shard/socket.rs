//! A client's socket: what goes out, what comes in, how it ends.
//!
//! Replies gather in `out` while a send is under way, a delay is running, or the next reply to the client's flight is still
//! to be made: then they leave in one send (RFC 2920, 3.2), a second later at most.

use std::io;

use weir_smtp::relay::Gone;

use crate::metrics::{Counters, Ended, ReplyClass, Way};
use crate::ring::{Close, Group, ReceiveEnd, Wire};

use super::slab::Key;
use super::who::Who;
use super::world::World;

impl<W: Wire> World<W> {
    /// Sends what has gathered, unless a send is under way, a delay is running, or it may wait for the next reply.
    pub(super) fn flush(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(slot) = session.slot else {
            session.out.clear();
            return self.flights.relieve(&mut session.out);
        };
        if session.out.is_empty() {
            return self.flights.relieve(&mut session.out);
        }
        if session.flags.sending
            || session.flags.parking
            || session.secrecy.is_shaking()
            || (session.hold_until > self.now && !session.flags.closing)
        {
            return;
        }
        if session.may_gather() {
            if !session.flags.gathering {
                session.flags.gathering = true;
                self.gathering.push(key);
            }
            return;
        }
        session.flags.prompt = false;
        let bytes = std::mem::take(&mut session.out);
        count_replies(&self.counters, &bytes);
        session.bytes_out += bytes.len() as u64;
        session.flags.sending = true;
        self.counters
            .client_bytes
            .at(Way::Out)
            .add(bytes.len() as u64);
        if session.flags.closing {
            // Inside TLS these words say themselves that they are the last.
            self.wire.send_last(slot, bytes);
        } else {
            self.wire.send(slot, bytes);
        }
    }

    /// Once a second: replies that wait for the next one have waited long enough. Most sessions on the list have gone on
    /// since; no timer is armed for any of them.
    pub(super) fn let_gathered_go(&mut self) {
        while let Some(key) = self.gathering.pop() {
            self.step(Who::Session(key));
            if let Some(session) = self.sessions.get_mut(key) {
                session.flags.gathering = false;
                session.flags.prompt = !session.out.is_empty();
                self.flush(key);
            }
        }
    }

    pub(super) fn client_sent(&mut self, key: Key, result: io::Result<usize>, flight: Vec<u8>) {
        self.flights.give_back(flight);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.flags.sending = false;
        match result {
            Ok(_) => {
                if session.secrecy.is_asked() && session.out.is_empty() {
                    self.begin_secrecy(key);
                }
                self.feed(key)
            }
            Err(_) => self.client_lost(key),
        }
    }

    pub(super) fn client_receive_ended(&mut self, key: Key, why: ReceiveEnd) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.flags.receiving = false;
        match why {
            // Armed again after `NoBuffers`, a receive waits until a buffer has come back.
            ReceiveEnd::Stopped | ReceiveEnd::NoBuffers => self.finish_step(key),
            ReceiveEnd::Eof => {
                session.flags.eof = true;
                self.finish_step(key);
            }
            ReceiveEnd::Reset(error) => {
                self.client_cut(key, &error);
                self.client_lost(key)
            }
        }
    }

    /// Nothing can be said to this client any more. A message whose end has gone up is waited for all the same.
    pub(super) fn client_lost(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(slot) = session.slot.take() else {
            return;
        };
        if !session.flags.closing {
            session.ended = Ended::ClientReset;
        }
        self.close_slot(slot, Close::Now);
        self.drop_intake(key);
        self.relay_step(key, |relay, cx| relay.handle_client_gone(cx, Gone::Reset));
    }

    pub(super) fn go_on_receiving(&mut self, key: Key) {
        let most = self.intake_max();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let flags = session.flags;
        if flags.receiving || flags.eof || flags.closing || flags.parking {
            return;
        }
        if session.intake.len() >= most || session.pause_until > self.now {
            return;
        }
        // What it has sent already will get a reply that stutters: to arm a receive now would be to cancel it then.
        if session.flags.stutter
            && !session.intake.is_empty()
            && session.relay.is_between_transactions()
        {
            return;
        }
        if let Some(slot) = session.slot {
            session.flags.receiving = true;
            self.wire.start_receive(slot, Group::Client);
        }
    }

    pub(super) fn pause_receiving(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(slot) = session.slot.filter(|_| session.flags.receiving) {
            self.wire.stop_receive(slot);
        }
    }

    /// Closes the socket once the last words are out, and forgets the session once its relay has nothing left to do.
    /// True if the session is gone.
    pub(super) fn dismiss_if_done(&mut self, key: Key) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return true;
        };
        // Who may still be sending must not lose our last words to a reset; who has ended its stream is simply closed.
        let linger = !session.flags.eof;
        // To close in the middle of a send would do as well, but the buffer of that flight would not come back.
        let over = !session.flags.sending || session.close_at <= self.now;
        if session.flags.closing
            && session.out.is_empty()
            && over
            && let Some(slot) = session.slot.take()
        {
            self.close_slot(slot, if linger { Close::Linger } else { Close::Now });
        }
        let Some(session) = self.sessions.get(key) else {
            return true;
        };
        if session.slot.is_some() || !session.relay.is_finished() {
            return false;
        }
        self.end_session(key);
        true
    }
}

/// Counts the replies of a flight by class.
fn count_replies(counters: &Counters, flight: &[u8]) {
    for line in flight.split_inclusive(|byte| *byte == b'\n') {
        let class = match line {
            [_, _, _, b'-', ..] => continue,
            [b'2', ..] => ReplyClass::Positive,
            [b'3', ..] => ReplyClass::Intermediate,
            [b'4', ..] => ReplyClass::Transient,
            _ => ReplyClass::Permanent,
        };
        counters.replies.at(class).inc();
    }
}
