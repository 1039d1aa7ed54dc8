//! What clients have said ahead before they were parked: commands that are answered when the reply before them is out.
//!
//! Most who talk before the greeting send their whole dialogue at once. Input that waits keeps a session alive, and with
//! it a receive buffer; so it is copied here, and its client is a row like any other. Few parked clients have said anything
//! ahead, so it lies beside the pit and not in its rows.

use hashbrown::HashMap;

use crate::ring::SlotId;

/// Input that is worth copying. Who has said more than this ahead is not parked before it is answered: a session, and with
/// receive buffers scarce its input is in the hold budget.
pub const AHEAD_MAX: usize = 1024;

/// By slot, of which a parked client has one: at most [`AHEAD_MAX`] octets and some 40 bytes for each that has any.
#[derive(Debug, Default)]
pub struct Ahead(HashMap<SlotId, Box<[u8]>, foldhash::fast::RandomState>);

impl Ahead {
    pub fn put(&mut self, slot: SlotId, octets: Box<[u8]>) {
        assert!(
            octets.len() <= AHEAD_MAX,
            "who is parked has said little ahead"
        );
        if !octets.is_empty() {
            self.0.insert(slot, octets);
        }
    }

    /// Takes it out: to read it, or because the client is parked no more.
    pub fn take(&mut self, slot: SlotId) -> Option<Box<[u8]>> {
        let octets = self.0.remove(&slot);
        // A burst is not paid for when it is over.
        if self.0.is_empty() && self.0.capacity() > 1024 {
            self.0 = HashMap::default();
        }
        octets
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_there_once_and_costs_nothing_afterwards() {
        let mut ahead = Ahead::default();
        for slot in 0..5000 {
            ahead.put(SlotId(slot), Box::from(*b"NOOP\r\n"));
        }
        ahead.put(SlotId(9000), Box::from(*b""));
        for slot in 0..5000 {
            assert_eq!(ahead.take(SlotId(slot)).as_deref(), Some(&b"NOOP\r\n"[..]));
            assert_eq!(ahead.take(SlotId(slot)), None);
        }
        assert!(ahead.is_empty() && ahead.0.capacity() <= 1024);
    }
}
