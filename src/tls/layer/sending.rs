//! What goes out: a send of the shard is encrypted at once and leaves with the next flush; last words leave with the close.

use std::io;

use crate::ring::{Close, SlotId, Wire};
use crate::tls::Failure;

use super::channel::{Channel, Owed};
use super::{Layer, News, equip};

impl<W: Wire> Layer<W> {
    /// Encrypts one send of the shard; it leaves with the next flush.
    pub(super) fn encrypt(
        &mut self,
        slot: SlotId,
        head: Vec<u8>,
        write: impl FnOnce(&W, &mut Channel, &mut Vec<u8>, &[u8]) -> Result<usize, Failure>,
    ) {
        let Some(place) = self.place(slot) else {
            return;
        };
        let Some(channel) = self.channels[place].as_deref_mut() else {
            return;
        };
        debug_assert!(
            channel.owed == Owed::Nothing,
            "{slot:?}: one send at a time"
        );
        equip(&mut channel.pending, &mut self.spare);
        self.plain.clear();
        match write(&self.wire, channel, &mut self.plain, &head) {
            Ok(octets) if !channel.broken => {
                channel.owed = Owed::Pending(octets);
                self.touch(slot);
                self.recycle(head);
            }
            _ => self.tell(
                slot,
                News::Sent(Err(io::ErrorKind::BrokenPipe.into()), head),
            ),
        }
        self.plain.clear();
    }

    pub(super) fn sent(&mut self, slot: SlotId, result: io::Result<usize>, flight: Vec<u8>) {
        let Some(channel) = self.channel(slot) else {
            return;
        };
        let cipher = std::mem::take(&mut channel.flying);
        let whole = matches!(result, Ok(octets) if octets == cipher);
        channel.sending = false;
        channel.broken |= !whole;
        let owed = channel.owed;
        match owed {
            Owed::Flying(octets) => {
                channel.owed = Owed::Nothing;
                // Of a record that was cut the peer can read nothing.
                let result = result.map(|_| if whole { octets } else { 0 });
                self.tell(slot, News::Sent(result, flight));
            }
            Owed::Pending(_) if !whole => {
                channel.owed = Owed::Nothing;
                channel.pending.clear();
                self.tell(
                    slot,
                    News::Sent(Err(io::ErrorKind::BrokenPipe.into()), flight),
                );
            }
            Owed::Nothing | Owed::Pending(_) => self.recycle(flight),
        }
        self.touch(slot);
        if let Some(channel) = self.channel(slot)
            && channel.finishing
            && channel.pending.is_empty()
        {
            channel.finishing = false;
            self.wire.finish(slot);
        }
    }

    pub(super) fn last_words(&mut self, slot: SlotId, mut channel: Channel, how: Close) -> Close {
        let can = !channel.sending && !channel.broken;
        if how == Close::Linger && can {
            // Should that fail, the stream ends without it.
            let _ = channel.connection.close(&mut channel.pending);
        }
        // An alert is said also to those whose connection is closed at once.
        let says = how == Close::Linger || (how == Close::Now && channel.failed);
        if !can || !says || channel.pending.is_empty() {
            return how;
        }
        self.wire.send(slot, std::mem::take(&mut channel.pending));
        Close::Linger
    }

    /// A closed slot is silent.
    pub(super) fn forget_events(&mut self, slot: SlotId) {
        for at in (0..self.events.len()).rev() {
            if self.events[at].0 == slot
                && let Some((_, News::Received(buffer, _))) = self.events.remove(at)
            {
                self.wire.release(buffer);
            }
        }
    }
}
