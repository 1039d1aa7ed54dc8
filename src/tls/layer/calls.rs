//! The calls of a shard: those for slots without TLS pass through after one look.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::ring::{BufferId, Close, Dial, Group, Owner, Part, ReceiveEnd, SlotId, Wire};
use crate::tls::Failure;

use super::channel::Phase;
use super::{Layer, News};

impl<W: Wire> Wire for Layer<W> {
    fn connect(&mut self, dial: &Dial, owner: Owner) -> io::Result<SlotId> {
        self.wire.connect(dial, owner)
    }

    fn connect_datagram(&mut self, to: SocketAddr, owner: Owner) -> io::Result<SlotId> {
        self.wire.connect_datagram(to, owner)
    }

    /// A slot inside TLS stays where it is.
    fn extract(&mut self, slot: SlotId) -> io::Result<()> {
        match self.channel(slot) {
            Some(_) => Err(io::ErrorKind::Unsupported.into()),
            None => self.wire.extract(slot),
        }
    }

    fn adopt(&mut self, socket: OwnedFd, owner: Owner) -> io::Result<SlotId> {
        self.wire.adopt(socket, owner)
    }

    fn start_receive(&mut self, slot: SlotId, group: Group) {
        let Some(channel) = self.channel(slot) else {
            return self.wire.start_receive(slot, group);
        };
        channel.wanted = true;
        channel.group = group;
        if channel.phase == Phase::Handshake {
            return;
        }
        if !channel.held.is_empty() && self.tell_held(slot, usize::MAX) > 0 {
            return self.fail(slot, Failure::NoRoom);
        }
        let Some(channel) = self.channel(slot) else {
            return;
        };
        if let Some(why) = channel.end.take() {
            channel.wanted = false;
            self.tell(slot, News::Ended(why));
        } else if channel.phase == Phase::Open {
            // Also if it is armed: a stop may be under way.
            channel.armed = true;
            self.wire.start_receive(slot, group);
        }
    }

    fn stop_receive(&mut self, slot: SlotId) {
        match self.channel(slot) {
            None => self.wire.stop_receive(slot),
            Some(channel) if channel.phase == Phase::Open => self.wire.stop_receive(slot),
            Some(channel) if channel.wanted => {
                channel.wanted = false;
                self.tell(slot, News::Ended(ReceiveEnd::Stopped));
            }
            Some(_) => {}
        }
    }

    fn receive_now(&mut self, slot: SlotId, group: Group) {
        let Some(channel) = self.channel(slot) else {
            return self.wire.receive_now(slot, group);
        };
        debug_assert!(!channel.wanted, "{slot:?}: not while a receive is armed");
        let held = channel.held.len();
        if held > 0 {
            if self.tell_held(slot, 1) == held {
                self.tell(slot, News::Ended(ReceiveEnd::NoBuffers));
            }
            return;
        }
        if let Some(why) = channel.end.take() {
            return self.tell(slot, News::Ended(why));
        }
        channel.looking = true;
        channel.group = group;
        if !channel.armed {
            self.wire.receive_now(slot, group);
        }
    }

    fn send(&mut self, slot: SlotId, bytes: Vec<u8>) {
        if self.place(slot).is_none() {
            return self.wire.send(slot, bytes);
        }
        self.encrypt(slot, bytes, |_, channel, _, bytes| {
            channel.connection.write(bytes, &mut channel.pending)?;
            Ok(bytes.len())
        });
    }

    fn send_spans(&mut self, slot: SlotId, head: Vec<u8>, parts: &[Part]) {
        if self.place(slot).is_none() {
            return self.wire.send_spans(slot, head, parts);
        }
        self.encrypt(slot, head, |wire, channel, record, head| {
            channel.write_parts(wire, record, head, parts)
        });
    }

    /// The bytes are taken at once, and their record is on its way while the shard thinks of something else; until it is out nothing more is taken.
    fn send_now(&mut self, slot: SlotId, bytes: &[u8]) {
        if self.place(slot).is_none() {
            return self.wire.send_now(slot, bytes);
        }
        let taken = self
            .channel(slot)
            .is_some_and(|channel| channel.drip(bytes));
        self.touch(slot);
        let result = match taken {
            true => Ok(bytes.len()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        };
        self.tell(slot, News::Sent(result, Vec::new()));
    }

    fn cancel_send(&mut self, slot: SlotId) {
        if self.peek(slot).is_none_or(|channel| channel.sending) {
            self.wire.cancel_send(slot);
        }
    }

    fn finish(&mut self, slot: SlotId) {
        let Some(channel) = self.channel(slot) else {
            return self.wire.finish(slot);
        };
        // Should that fail, the stream ends without it.
        let _ = channel.connection.close(&mut channel.pending);
        if channel.pending.is_empty() && !channel.sending {
            return self.wire.finish(slot);
        }
        channel.finishing = true;
        self.touch(slot);
    }

    fn close(&mut self, slot: SlotId, how: Close) {
        if self.place(slot).is_none() {
            return self.wire.close(slot, how);
        }
        self.forget_events(slot);
        if let Some(buffer) = self.at_work.take() {
            self.wire.release(buffer);
        }
        if let Some(channel) = self.take(slot) {
            let how = self.last_words(slot, *channel, how);
            self.wire.close(slot, how);
        }
    }

    fn set_owner(&mut self, slot: SlotId, owner: Owner) {
        if let Some(channel) = self.channel(slot) {
            channel.owner = owner;
        }
        self.wire.set_owner(slot, owner);
    }

    fn small_buffers(&mut self, slot: SlotId) {
        self.wire.small_buffers(slot);
    }

    fn buffer(&self, id: BufferId) -> &[u8] {
        self.wire.buffer(id)
    }

    fn buffer_mut(&mut self, id: BufferId) -> &mut [u8] {
        self.wire.buffer_mut(id)
    }

    fn retain(&mut self, id: BufferId) {
        self.wire.retain(id);
    }

    fn release(&mut self, id: BufferId) {
        self.wire.release(id);
    }

    fn chunk(&mut self) -> Option<BufferId> {
        self.wire.chunk()
    }

    fn chunk_append(&mut self, id: BufferId, bytes: &[u8]) -> (u32, u32) {
        self.wire.chunk_append(id, bytes)
    }

    fn free_slots(&self) -> usize {
        self.wire.free_slots()
    }

    fn buffers(&self, group: Group) -> (usize, usize) {
        self.wire.buffers(group)
    }

    fn held_chunks(&self) -> usize {
        self.wire.held_chunks()
    }
}
