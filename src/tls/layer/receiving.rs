//! What comes in: records from the network, plaintext for the shard, and the ways in which a stream ends.

use std::io;

use crate::ring::{BufferId, ReceiveEnd, SlotId, Wire};
use crate::tls::Failure;
use crate::tls::connection::PLAIN_MAX;

use super::channel::Phase;
use super::{HELD_MAX, Layer, News, equip};

impl<W: Wire> Layer<W> {
    pub(super) fn received(&mut self, slot: SlotId, buffer: BufferId, len: u32) {
        let Some(place) = self.place(slot) else {
            return;
        };
        let Some(channel) = self.channels[place].as_deref_mut() else {
            return;
        };
        if channel.phase == Phase::Over {
            return self.wire.release(buffer);
        }
        equip(&mut channel.pending, &mut self.spare);
        let queued = channel.pending.len();
        let mut plain = std::mem::take(&mut self.plain);
        self.at_work = Some(buffer);
        let input = &mut self.wire.buffer_mut(buffer)[..len as usize];
        let before = channel.counted;
        let begun = (channel.phase == Phase::Handshake).then(&self.meter);
        let read = channel
            .connection
            .read(input, &mut plain, &mut channel.pending);
        if let Some(begun) = begun {
            self.shaking += (self.meter)().since(begun);
        }
        self.at_work = None;
        let carries = channel.connection.carried();
        channel.counted = carries;
        self.carried = self.carried + carries - before;
        let group = channel.group;
        if channel.pending.len() > queued && !channel.is_lazy(&read) {
            self.touch(slot);
        }
        let waits_for_too_much = carries > before && self.carries_too_much(group);
        self.relieve(slot);
        if let Ok(progress) = read
            && progress.secured
        {
            self.secured(slot);
        }
        if read.is_err() && !self.is_open(slot) {
            // The handshake and the failure came in one: then there was no handshake.
            plain.clear();
        }
        let stored = self.store(slot, buffer, &plain);
        plain.clear();
        plain.shrink_to(2 * PLAIN_MAX);
        self.plain = plain;
        match read {
            Err(failure) => self.fail(slot, failure),
            Ok(_) if !stored || waits_for_too_much => self.fail(slot, Failure::NoRoom),
            Ok(progress) if progress.closed => self.end(slot, ReceiveEnd::Eof),
            Ok(_) => self.answer_look(slot),
        }
    }

    fn is_open(&mut self, slot: SlotId) -> bool {
        self.channel(slot)
            .is_some_and(|channel| channel.phase == Phase::Open)
    }

    /// What was received before the handshake began and belongs to it.
    pub(super) fn received_before(&mut self, slot: SlotId, mut unread: &[u8]) {
        while !unread.is_empty() {
            let Some(chunk) = self.wire.chunk() else {
                return self.fail(slot, Failure::NoRoom);
            };
            let (_, taken) = self.wire.chunk_append(chunk, unread);
            unread = &unread[taken as usize..];
            self.received(slot, chunk, taken);
        }
    }

    /// Takes an allocation back that nothing was written to.
    pub(super) fn relieve(&mut self, slot: SlotId) {
        if let Some(channel) = self.channel(slot)
            && channel.pending.is_empty()
        {
            let spare = std::mem::take(&mut channel.pending);
            self.recycle(spare);
        }
    }

    pub(super) fn secured(&mut self, slot: SlotId) {
        let Some(channel) = self.channel(slot) else {
            return;
        };
        channel.phase = Phase::Open;
        if !channel.wanted && channel.armed {
            self.wire.stop_receive(slot);
        }
        self.tell(slot, News::Secured(Ok(())));
    }

    /// Puts plaintext where the shard can have it: into the buffer that it came in, and beyond that into copy buffers. What nobody has asked for yet is
    /// held apart, so that no buffer is held with it. False: there is no room.
    pub(super) fn store(&mut self, slot: SlotId, buffer: BufferId, plain: &[u8]) -> bool {
        let Some(channel) = self.channel(slot).filter(|_| !plain.is_empty()) else {
            self.wire.release(buffer);
            return true;
        };
        if !channel.wanted && !channel.looking {
            self.wire.release(buffer);
            return self.hold(slot, plain);
        }
        let room = self.wire.buffer_mut(buffer);
        let (here, rest) = plain.split_at(plain.len().min(room.len()));
        room[..here.len()].copy_from_slice(here);
        self.tell(slot, News::Received(buffer, here.len() as u32));
        let looked = self
            .channel(slot)
            .is_some_and(|channel| std::mem::take(&mut channel.looking));
        if looked {
            self.hold(slot, rest)
        } else {
            self.store_in_chunks(slot, rest, usize::MAX).is_empty()
        }
    }

    pub(super) fn hold(&mut self, slot: SlotId, plain: &[u8]) -> bool {
        let Some(channel) = self.channel(slot) else {
            return true;
        };
        channel.held.extend_from_slice(plain);
        let fits = channel.held.len() <= HELD_MAX;
        let group = channel.group;
        self.carried += plain.len();
        fits && !self.carries_too_much(group)
    }

    /// Tells of plaintext in copy buffers, so many of them at most. Returns what found no room.
    pub(super) fn store_in_chunks<'a>(
        &mut self,
        slot: SlotId,
        mut plain: &'a [u8],
        most: usize,
    ) -> &'a [u8] {
        for _ in 0..most {
            if plain.is_empty() {
                break;
            }
            let Some(chunk) = self.wire.chunk() else {
                break;
            };
            let (_, taken) = self.wire.chunk_append(chunk, plain);
            plain = &plain[taken as usize..];
            self.tell(slot, News::Received(chunk, taken));
        }
        plain
    }

    /// Tells of plaintext that was held. Returns how much is held still.
    pub(super) fn tell_held(&mut self, slot: SlotId, most: usize) -> usize {
        let Some(channel) = self.channel(slot) else {
            return 0;
        };
        let mut held = std::mem::take(&mut channel.held);
        let left = self.store_in_chunks(slot, &held, most).len();
        let told = held.len() - left;
        self.carried -= told;
        if left > 0
            && let Some(channel) = self.channel(slot)
        {
            held.drain(..told);
            channel.held = held;
        }
        left
    }

    /// What was received held nothing whole: whoever looked has seen nothing.
    pub(super) fn answer_look(&mut self, slot: SlotId) {
        if let Some(channel) = self.channel(slot)
            && channel.looking
            && !channel.armed
        {
            channel.looking = false;
            self.tell(slot, News::Ended(ReceiveEnd::Stopped));
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self, slot: SlotId, why: ReceiveEnd) {
        let Some(channel) = self.channel(slot) else {
            return;
        };
        channel.phase = Phase::Over;
        let armed = channel.armed;
        if channel.wanted || channel.looking {
            channel.wanted = false;
            channel.looking = false;
            self.tell(slot, News::Ended(why));
        } else {
            channel.end = Some(why);
        }
        if armed {
            self.wire.stop_receive(slot);
        }
    }

    pub(super) fn fail(&mut self, slot: SlotId, failure: Failure) {
        self.touch(slot);
        let Some(channel) = self.channel(slot) else {
            return;
        };
        channel.failed = true;
        let error = failure.into();
        if channel.phase == Phase::Handshake {
            channel.phase = Phase::Over;
            self.tell(slot, News::Secured(Err(error)));
        } else {
            self.end(slot, ReceiveEnd::Reset(error));
        }
    }

    pub(super) fn receive_ended(&mut self, slot: SlotId, why: ReceiveEnd) {
        let Some(channel) = self.channel(slot) else {
            return;
        };
        let armed = std::mem::replace(&mut channel.armed, false);
        match (channel.phase, why) {
            (Phase::Over, _) => {}
            // The peer's FIN came without its close_notify.
            (_, ReceiveEnd::Eof) => self.cut(slot, Failure::Truncated.into()),
            (_, ReceiveEnd::Reset(error)) => self.cut(slot, error),
            (Phase::Handshake, ReceiveEnd::Stopped | ReceiveEnd::NoBuffers) => {
                channel.armed = true;
                let group = channel.group;
                self.wire.start_receive(slot, group);
            }
            // The receive that was armed before has stopped: now there can be looked.
            (Phase::Open, ReceiveEnd::Stopped) if channel.looking && armed => {
                let group = channel.group;
                self.wire.receive_now(slot, group);
            }
            (Phase::Open, why) => {
                if channel.wanted || channel.looking {
                    channel.wanted = false;
                    channel.looking = false;
                    self.tell(slot, News::Ended(why));
                }
            }
        }
    }

    /// The stream has ended and was not closed.
    pub(super) fn cut(&mut self, slot: SlotId, error: io::Error) {
        let Some(channel) = self.channel(slot) else {
            return;
        };
        if channel.phase == Phase::Handshake {
            channel.phase = Phase::Over;
            self.tell(slot, News::Secured(Err(error)));
        } else {
            self.end(slot, ReceiveEnd::Reset(error));
        }
    }
}
