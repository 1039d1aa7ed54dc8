//! What the sink has seen, as plain numbers. Read as JSON through the control port.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of all threads, since the sink was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    pub connections: u64,
    /// Open now, and the most that were ever open at once.
    pub open: u64,
    pub open_max: u64,
    /// Connections that ended without QUIT, and those of them within a message.
    pub hung_up: u64,
    pub hung_up_in_message: u64,
    /// Octets received, and reads it took.
    pub octets: u64,
    pub reads: u64,
    /// How often a client spoke after it had been answered: the round trips it waited for, connection and greeting left aside.
    pub turns: u64,
    pub commands: u64,
    /// Messages answered 250, and their octets without transparency dots.
    pub accepted: u64,
    pub accepted_octets: u64,
    /// Messages whose end was seen and that were not accepted.
    pub refused: u64,
    /// Recipients answered 250.
    pub recipients: u64,
    pub rsets: u64,
    /// Connections that came to be in TLS, those of them that resumed a session, and those that failed to.
    pub handshakes: u64,
    pub resumed: u64,
    pub handshakes_failed: u64,
    /// Connections that began with a PROXY header.
    pub proxied: u64,
    /// Accepted messages whose length or checksum was wrong, and those without a stamp.
    pub altered: u64,
    pub unstamped: u64,
    /// What clients did that SMTP or our EHLO reply forbids, by name.
    pub violations: BTreeMap<String, u64>,
    /// What we did on purpose, by name.
    pub faults: BTreeMap<String, u64>,
}

impl Counters {
    pub fn violation(&mut self, word: &str) {
        count(&mut self.violations, word, 1);
    }

    pub fn fault(&mut self, word: &str) {
        count(&mut self.faults, word, 1);
    }

    /// Adds what another thread has seen. `open` and `open_max` are not a thread's: the sink sets them.
    pub fn merge(&mut self, other: &Counters) {
        for (mine, theirs) in [
            (&mut self.connections, other.connections),
            (&mut self.hung_up, other.hung_up),
            (&mut self.hung_up_in_message, other.hung_up_in_message),
            (&mut self.octets, other.octets),
            (&mut self.reads, other.reads),
            (&mut self.turns, other.turns),
            (&mut self.commands, other.commands),
            (&mut self.accepted, other.accepted),
            (&mut self.accepted_octets, other.accepted_octets),
            (&mut self.refused, other.refused),
            (&mut self.recipients, other.recipients),
            (&mut self.rsets, other.rsets),
            (&mut self.handshakes, other.handshakes),
            (&mut self.resumed, other.resumed),
            (&mut self.handshakes_failed, other.handshakes_failed),
            (&mut self.proxied, other.proxied),
            (&mut self.altered, other.altered),
            (&mut self.unstamped, other.unstamped),
        ] {
            *mine += theirs;
        }
        for (word, number) in &other.violations {
            count(&mut self.violations, word, *number);
        }
        for (word, number) in &other.faults {
            count(&mut self.faults, word, *number);
        }
    }
}

/// Words are ours, so there are few of them.
fn count(words: &mut BTreeMap<String, u64>, word: &str, number: u64) {
    match words.get_mut(word) {
        Some(sum) => *sum += number,
        None => {
            words.insert(word.to_owned(), number);
        }
    }
}
