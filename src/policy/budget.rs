//! Rates that hosts keep together: what a client spends here is told, and what it has spent everywhere comes back.
//!
//! A lease, taken without asking: within a second a client may spend its whole rate on each host; then all of them know, and
//! hold it to one rate. So nothing waits, and without the others each host keeps the rate by itself. What comes back is one
//! moment per client and kind, as [`super::rate`] has it: until when the allowance of all hosts is used up.

use std::collections::HashMap;
use std::time::Duration;

use super::clients::{Client, ClientKey};
use super::rate::{Rate, Tat};

/// Clients and kinds of one second. Whose spending finds no room is held to the rate by each host alone.
const SPENT_MAX: usize = 16_384;

/// What is counted over all hosts.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Kind {
    Connections,
    Messages,
    Recipients,
}

impl Kind {
    /// Where this is written down for a client.
    pub fn tat(self, client: &mut Client) -> &mut Tat {
        match self {
            Kind::Connections => &mut client.connections,
            Kind::Messages => &mut client.messages,
            Kind::Recipients => &mut client.recipients,
        }
    }
}

/// What a client has had here since it was last told.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Spent {
    pub client: ClientKey,
    pub kind: Kind,
    pub count: u32,
    pub rate: Rate,
}

/// How far ahead of now a client's allowance is used up, over all hosts.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Owed {
    pub client: ClientKey,
    pub kind: Kind,
    pub ahead: Duration,
}

/// What is to be told.
#[derive(Debug, Default)]
pub struct Ledger {
    is_kept: bool,
    spent: HashMap<(ClientKey, Kind), u32>,
}

impl Ledger {
    /// Not kept: nothing is written down, for there is nobody to tell.
    pub fn new(is_kept: bool) -> Ledger {
        Ledger {
            is_kept,
            spent: HashMap::new(),
        }
    }

    /// One more, which was within the rate.
    pub fn note(&mut self, client: ClientKey, kind: Kind, rate: Rate) {
        if !self.is_kept || rate.is_unlimited() {
            return;
        }
        let has_room = self.spent.len() < SPENT_MAX;
        match self.spent.get_mut(&(client, kind)) {
            Some(count) => *count = count.saturating_add(1),
            None if has_room => drop(self.spent.insert((client, kind), 1)),
            None => {}
        }
    }

    /// All since the last time. `rate`: what each kind is held to.
    pub fn take(&mut self, rate: impl Fn(Kind) -> Rate) -> Vec<Spent> {
        let spent = self.spent.drain();
        spent
            .map(|((client, kind), count)| Spent {
                client,
                kind,
                count,
                rate: rate(kind),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_added_up_and_bounded() {
        let rate: Rate = "30/m".parse().unwrap();
        let client = |number: usize| ClientKey::from_bits(number as u64);
        let mut ledger = Ledger::new(true);
        for number in 0..SPENT_MAX + 10 {
            ledger.note(client(number), Kind::Messages, rate);
        }
        ledger.note(client(3), Kind::Messages, rate);
        ledger.note(client(3), Kind::Recipients, Rate::UNLIMITED);
        let spent = ledger.take(|_| rate);
        assert_eq!(spent.len(), SPENT_MAX);
        let third = spent.iter().find(|spent| spent.client == client(3));
        assert_eq!(third.unwrap().count, 2);
        assert!(ledger.take(|_| rate).is_empty());
    }

    #[test]
    fn nothing_is_written_down_for_nobody() {
        let mut ledger = Ledger::new(false);
        ledger.note(
            ClientKey::from_bits(1),
            Kind::Messages,
            "1/s".parse().unwrap(),
        );
        assert!(ledger.take(|_| Rate::UNLIMITED).is_empty());
    }
}
