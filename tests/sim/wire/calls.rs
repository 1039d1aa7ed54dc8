//! What the shard asks of the simulated wire.

use std::io;
use std::net::SocketAddr;

use weir::ring::wire::SEND_NOW_MAX;
use weir::ring::{BufferId, Close, Dial, Group, Owner, Part, SlotId, Wire};

use super::{Done, GRACE, LINGER, SimWire, Slot};
use crate::net::Party;

impl Wire for SimWire {
    fn connect(&mut self, dial: &Dial, owner: Owner) -> io::Result<SlotId> {
        let to = &dial.to;
        if self.free.is_empty() {
            return Err(io::Error::other("no slot is left"));
        }
        let line = (self.lines)(*to);
        let life = self.lives + 1;
        let party = Party::Slot {
            shard: self.options.shard,
            slot: *self.free.last().expect("not empty"),
            life,
        };
        let end = self.net.borrow_mut().connect(
            dial.from.unwrap_or(self.options.address),
            *to,
            line,
            party,
        );
        let index = self.open(end, owner, Some(*to));
        self.slot(index).group = Group::Upstream;
        if let Err(fault) = self.caps.borrow_mut().entered(*to) {
            self.faults.push(fault);
        }
        Ok(SlotId(index))
    }

    fn connect_datagram(&mut self, to: SocketAddr, owner: Owner) -> io::Result<SlotId> {
        self.open_datagrams(to, owner)
    }

    fn start_receive(&mut self, slot: SlotId, group: Group) {
        if !self.called(slot, "start_receive") {
            return;
        }
        let entry = self.slot(slot.0);
        if entry.closing.is_some() {
            return;
        }
        if entry.ended || entry.looking || entry.connecting {
            let state = if entry.ended {
                "ended"
            } else {
                "not ready for it"
            };
            self.faults.push(format!(
                "a receive armed on slot {} whose stream is {state}",
                slot.0
            ));
            return;
        }
        if entry.receiving {
            entry.stopping = false;
            return;
        }
        entry.group = group;
        entry.receiving = true;
        // Who arms while there is no buffer waits for one; only a receive that runs dry says so.
        let dry = !self.buffers.has_some(group);
        self.slot(slot.0).thirsty = dry;
        self.thirst |= dry;
        self.receive(slot.0);
    }

    fn stop_receive(&mut self, slot: SlotId) {
        if !self.called(slot, "stop_receive") {
            return;
        }
        let entry = self.slot(slot.0);
        if entry.closing.is_none() && entry.receiving && !entry.stopping {
            entry.stopping = true;
            self.complete(slot.0, Done::StopTakesEffect);
        }
    }

    fn receive_now(&mut self, slot: SlotId, group: Group) {
        if !self.called(slot, "receive_now") || self.sends_datagrams(slot, "receive_now") {
            return;
        }
        let entry = self.slot(slot.0);
        if entry.closing.is_some() {
            return;
        }
        if entry.receiving || entry.looking {
            self.faults.push(format!(
                "a look at slot {} beside its armed receive",
                slot.0
            ));
            return;
        }
        entry.looking = true;
        entry.group = group;
        self.complete(slot.0, Done::LookTakesEffect);
    }

    fn send(&mut self, slot: SlotId, bytes: Vec<u8>) {
        if bytes.is_empty() {
            self.faults.push("an empty send".into());
            return;
        }
        let datagram = |slot: &Slot| slot.port.is_some();
        if self.slots[slot.0 as usize].as_ref().is_some_and(datagram) {
            return self.send_datagram(slot, bytes);
        }
        let len = bytes.len() as u32;
        self.begin_flight(slot, bytes, vec![Part::Bytes { start: 0, len }]);
    }

    fn send_spans(&mut self, slot: SlotId, head: Vec<u8>, parts: &[Part]) {
        if !self.sends_datagrams(slot, "send_spans") {
            self.begin_flight(slot, head, parts.to_vec());
        }
    }

    fn send_now(&mut self, slot: SlotId, bytes: &[u8]) {
        if !self.called(slot, "send_now") || self.sends_datagrams(slot, "send_now") {
            return;
        }
        let entry = self.slot(slot.0);
        if entry.closing.is_some() {
            return;
        }
        if entry.sending || bytes.is_empty() || bytes.len() > SEND_NOW_MAX {
            let octets = bytes.len();
            self.faults.push(format!(
                "a drip of {octets} octets on slot {}, or beside a send",
                slot.0
            ));
            return;
        }
        entry.sending = true;
        let end = entry.end;
        let room = self.net.borrow().room(end);
        let result = match room {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            room => self
                .net
                .borrow_mut()
                .write(end, &bytes[..bytes.len().min(room)]),
        };
        self.complete(slot.0, Done::Sent(result, Vec::new()));
    }

    fn cancel_send(&mut self, slot: SlotId) {
        if !self.called(slot, "cancel_send") {
            return;
        }
        let entry = self.slot(slot.0);
        if entry.closing.is_some() {
            return;
        }
        if let Some(flight) = entry.flight.take() {
            let sent = flight.sent;
            let result = if sent > 0 {
                Ok(sent)
            } else {
                Err(io::ErrorKind::Interrupted.into())
            };
            self.end_flight(slot.0, flight, result);
        }
    }

    fn finish(&mut self, slot: SlotId) {
        if !self.called(slot, "finish") || self.sends_datagrams(slot, "finish") {
            return;
        }
        if self.slot(slot.0).closing.is_some() {
            return;
        }
        if self.slot(slot.0).flight.is_some() {
            self.faults
                .push(format!("slot {} finished in the middle of a send", slot.0));
            return;
        }
        let end = self.slot(slot.0).end;
        self.net.borrow_mut().shut_down(end);
    }

    fn close(&mut self, slot: SlotId, how: Close) {
        if !self.called(slot, "close") {
            return;
        }
        let now = self.now();
        let entry = self.slot(slot.0);
        let harsher = match entry.closing {
            None => true,
            Some(Close::Linger) => how != Close::Linger,
            Some(Close::Now) => how == Close::Reset,
            Some(Close::Reset) => false,
        };
        if !harsher || entry.closed_down {
            return;
        }
        let how = if entry.connecting { Close::Now } else { how };
        let first = entry.closing.is_none();
        entry.closing = Some(how);
        entry.thirsty = false;
        let life = entry.life;
        if first {
            self.leave(slot.0);
        }
        if how == Close::Linger {
            self.queue_at(now + GRACE, slot.0, life, Done::GraceIsOver);
            self.queue_at(now + LINGER, slot.0, life, Done::LingerIsOver);
        }
        self.go_on_closing(slot.0);
    }

    fn set_owner(&mut self, slot: SlotId, owner: Owner) {
        if self.called(slot, "set_owner") {
            self.slot(slot.0).owner = owner;
        }
    }

    fn small_buffers(&mut self, slot: SlotId) {
        self.called(slot, "small_buffers");
    }

    fn buffer(&self, id: BufferId) -> &[u8] {
        self.buffers.peek(id)
    }

    fn buffer_mut(&mut self, id: BufferId) -> &mut [u8] {
        self.buffers.write(id, &mut self.faults)
    }

    fn retain(&mut self, id: BufferId) {
        self.buffers.retain(id, &mut self.faults);
    }

    fn release(&mut self, id: BufferId) {
        if self.buffers.release(id, &mut self.faults) {
            self.quench();
        }
    }

    fn chunk(&mut self) -> Option<BufferId> {
        self.buffers.chunk()
    }

    fn chunk_append(&mut self, id: BufferId, bytes: &[u8]) -> (u32, u32) {
        self.buffers.append(id, bytes, &mut self.faults)
    }

    fn free_slots(&self) -> usize {
        self.free.len()
    }

    fn buffers(&self, group: Group) -> (usize, usize) {
        self.buffers.held(group)
    }

    fn held_chunks(&self) -> usize {
        self.buffers.held_chunks()
    }
}
