//! When connections are short: those that wait for a client are given back before `--give-back` is over.
//!
//! A client that has had its RCPT answered owes the next bytes, and its upstream connection waits for them. With many of
//! them free that saves a replay. With few left it makes others wait: 20 connections let 20 slow clients a second through.
//! So each attach that leaves few free asks for one back, from a client that has been silent for a moment; its transaction
//! is replayed at the end of its body.

use std::time::Duration;

use crate::ring::Wire;
use crate::route::EndpointId;

use super::leg::Duty;
use super::slab::Key;
use super::who::{Chore, Who};
use super::world::World;

/// For each recipient. Clients on a fast network answer within this, and keep their connection.
const SILENCE: Duration = Duration::from_millis(10);

/// While sessions wait, it is looked for silent clients this often.
const LOOK: Duration = Duration::from_millis(20);

/// Connections are short when fewer than this part of an upstream's are free.
const SPARE_PART: u32 = 4;

/// Connections looked at for each that is wanted back; the next look goes on behind them.
const SCAN_MAX: usize = 32;

/// Who is asked next, and how many connections are wanted back.
#[derive(Debug, Default)]
pub struct Shortage {
    wanted: usize,
    cursor: u32,
    armed: bool,
}

impl<W: Wire> World<W> {
    /// A session has taken a connection to this endpoint: few may be left.
    pub(super) fn count_spare(&mut self, endpoint: EndpointId) {
        let upstream = self.upstream_of(endpoint);
        let Some(max) = self.shared.upstream_max(upstream) else {
            return;
        };
        let unopened = max.saturating_sub(self.shared.upstream_open(upstream));
        let spare = unopened + self.pools.idle_at(endpoint).len() as u32;
        if spare * SPARE_PART < max {
            self.shortage.wanted += 1;
        }
    }

    /// A session waits, here or in another shard.
    pub(super) fn want_one_back(&mut self) {
        self.shortage.wanted += 1;
    }

    /// Asks silent clients for their connections, as many as are wanted; true if one gave its back. Not from within a
    /// session's step.
    pub(super) fn relieve_shortage(&mut self) -> bool {
        let wanted = std::mem::take(&mut self.shortage.wanted);
        if wanted == 0 {
            return false;
        }
        let mut missing = wanted;
        for _ in 0..self.legs.len().min(wanted * SCAN_MAX) {
            let Some(key) = self.next_leg() else { break };
            if let Some(session) = self.silent_client(key) {
                self.counters.reclaims.inc();
                self.step(Who::Session(session));
                self.relay_step(session, |relay, cx| relay.handle_shortage(cx));
                missing -= 1;
                if missing == 0 {
                    return true;
                }
            }
        }
        self.look_again();
        missing < wanted
    }

    /// While somebody waits.
    pub(super) fn shortage_timer(&mut self) {
        self.shortage.armed = false;
        self.shortage.wanted += self.waiters.len();
    }

    fn look_again(&mut self) {
        if self.waiters.is_empty() || self.shortage.armed {
            return;
        }
        self.shortage.armed = true;
        self.wheel
            .insert(self.now + LOOK, Who::Chore(Chore::Shortage).to_bits());
    }

    fn next_leg(&mut self) -> Option<Key> {
        let from = self.shortage.cursor;
        let key = self.legs.next_from(from).or_else(|| self.legs.next_from(0));
        self.shortage.cursor = key.map_or(0, |key| key.index() + 1);
        key
    }

    /// The client that this connection waits for, if it has been silent for long enough.
    fn silent_client(&self, leg: Key) -> Option<Key> {
        let Duty::Attached(key) = self.legs.get(leg)?.duty else {
            return None;
        };
        let give_back = self.config.smtp.timeouts.give_back;
        let relay = &self.sessions.get(key)?.relay;
        relay
            .could_give_back(self.now, give_back, SILENCE)
            .then_some(key)
    }
}
