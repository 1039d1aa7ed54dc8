//! What the kernel answers, and the event it becomes.

use std::io;

use io_uring::{cqueue, opcode, types};

use super::Ring;
use super::slots::{Flag, NO_FLIGHT};
use super::token::{Op, Token};
use super::wire::{Close, Event, Group, ReceiveEnd, SlotId};

impl Ring {
    /// Whether the shard is to hear an event that the ring made earlier: a slot that is closing is silent.
    pub(super) fn is_heard(&self, event: &Event) -> bool {
        match event {
            Event::ReceiveEnded { slot, .. } | Event::Connected { slot, .. } => {
                !self.slots.is_closing(*slot)
            }
            _ => true,
        }
    }

    pub(super) fn complete(&mut self, completion: &cqueue::Entry) -> Option<Event> {
        let token = Token::unpack(completion.user_data());
        let result = completion.result();
        match token.op {
            Op::Cancel => None,
            Op::Accept => self.accept_done(token, result),
            Op::Doorbell => {
                self.doorbell_armed = false;
                self.doorbell.heard();
                (result >= 0).then_some(Event::Doorbell)
            }
            Op::Background => {
                self.watched[token.index as usize].armed = false;
                Some(Event::Background)
            }
            _ => self.complete_slot(token, result, completion.flags()),
        }
    }

    fn complete_slot(&mut self, token: Token, result: i32, flags: u32) -> Option<Event> {
        let id = SlotId(token.index);
        let more = cqueue::more(flags);
        let Some(slot) = self.slots.named(token) else {
            self.stats.stale += 1;
            self.give_back(token.group, flags);
            debug_assert!(false, "a completion of {token:?} outlived its slot");
            return None;
        };
        slot.ops -= u8::from(!more);
        let closing = slot.has(Flag::Closing);
        if token.op == Op::Close {
            return self.close_done(token, result);
        }
        let event = match token.op {
            Op::Receive => self.receive_done(id, result, flags),
            Op::Look => self.look_done(id, result, flags),
            Op::Send | Op::Drip => self.send_done(id, result),
            Op::Gather => self.gather_done(id, result),
            Op::Connect => Some(self.connect_done(id, result)),
            Op::Discard => {
                self.discard_done(id, result);
                None
            }
            Op::Shutdown => {
                self.shutdown_done(id, result);
                None
            }
            Op::Option => {
                self.small_buffers &= result >= 0;
                None
            }
            Op::Disconnect => None,
            Op::Extract => Some(self.extract_done(id, result)),
            Op::Accept | Op::Close | Op::Cancel | Op::Doorbell | Op::Background => {
                unreachable!("handled before")
            }
        };
        if !closing {
            return event;
        }
        self.swallow(event);
        self.go_on_closing(id);
        None
    }

    /// An event that a closing slot does not tell: what it carries is given back.
    fn swallow(&mut self, event: Option<Event>) {
        if let Some(Event::Received { buffer, .. }) = event {
            self.buffers.release(buffer);
        }
    }

    fn give_back(&mut self, group: Group, flags: u32) {
        if let Some(index) = cqueue::buffer_select(flags) {
            let buffer = self.buffers.taken(group, index);
            self.buffers.release(buffer);
        }
    }

    fn receive_done(&mut self, id: SlotId, result: i32, flags: u32) -> Option<Event> {
        let over = !cqueue::more(flags);
        let slot = self.slots.live(id);
        let group = slot.group();
        let stopping = slot.has(Flag::Stopping);
        if over {
            slot.clear(Flag::Receiving);
            slot.clear(Flag::Stopping);
        }
        if result > 0 {
            let received = self.received(id, group, result, flags);
            if over && stopping {
                let ended = self.ended(id, ReceiveEnd::Stopped);
                self.made.push_back(ended);
            } else if over {
                // The kernel's own reasons, such as a full completion queue.
                self.arm_receive(id);
            }
            return received;
        }
        let datagram = slot.has(Flag::Datagram);
        self.give_back(group, flags);
        match -result {
            // It says nothing, and the kernel takes it for an end.
            0 if datagram && stopping && over => Some(self.ended(id, ReceiveEnd::Stopped)),
            0 if datagram => {
                if over {
                    self.arm_receive(id);
                }
                None
            }
            0 => Some(self.peer_done(id, ReceiveEnd::Eof)),
            libc::ENOBUFS => self.starve(id, group, stopping),
            libc::ECANCELED | libc::EINTR if stopping => Some(self.ended(id, ReceiveEnd::Stopped)),
            // A stop that was taken back before it took effect.
            libc::ECANCELED | libc::EINTR => {
                self.arm_receive(id);
                None
            }
            error => {
                let error = io::Error::from_raw_os_error(error);
                Some(self.peer_done(id, ReceiveEnd::Reset(error)))
            }
        }
    }

    /// Nothing was on offer. If the group has more than was offered that is our affair, and the receive is armed again at the end of the turn.
    fn starve(&mut self, id: SlotId, group: Group, stopping: bool) -> Option<Event> {
        self.buffers.widen(group);
        if stopping {
            return Some(self.ended(id, ReceiveEnd::Stopped));
        }
        if self.buffers.has_some(group) {
            self.queue_for_buffer(id);
            return None;
        }
        self.stats.no_buffers += 1;
        Some(self.ended(id, ReceiveEnd::NoBuffers))
    }

    pub(super) fn look_done(&mut self, id: SlotId, result: i32, flags: u32) -> Option<Event> {
        let slot = self.slots.live(id);
        slot.clear(Flag::Looking);
        let group = slot.group();
        if result > 0 {
            return self.received(id, group, result, flags);
        }
        self.give_back(group, flags);
        Some(match -result {
            0 => self.peer_done(id, ReceiveEnd::Eof),
            libc::EAGAIN | libc::EINTR | libc::ECANCELED => self.ended(id, ReceiveEnd::Stopped),
            libc::ENOBUFS => {
                self.stats.no_buffers += 1;
                self.ended(id, ReceiveEnd::NoBuffers)
            }
            error => {
                let error = io::Error::from_raw_os_error(error);
                self.peer_done(id, ReceiveEnd::Reset(error))
            }
        })
    }

    fn received(&mut self, id: SlotId, group: Group, result: i32, flags: u32) -> Option<Event> {
        self.stats.receives += 1;
        self.stats.received_bytes += result as u64;
        let index = cqueue::buffer_select(flags).expect("input lies in a provided buffer");
        let buffer = self.buffers.taken(group, index);
        Some(Event::Received {
            slot: id,
            owner: self.slots.live(id).owner,
            buffer,
            len: result as u32,
        })
    }

    fn peer_done(&mut self, id: SlotId, why: ReceiveEnd) -> Event {
        self.slots.live(id).set(Flag::PeerDone);
        self.ended(id, why)
    }

    pub(super) fn ended(&mut self, id: SlotId, why: ReceiveEnd) -> Event {
        Event::ReceiveEnded {
            slot: id,
            owner: self.slots.live(id).owner,
            why,
        }
    }

    fn send_done(&mut self, id: SlotId, result: i32) -> Option<Event> {
        Some(self.sent(id, result, result.max(0) as usize))
    }

    fn gather_done(&mut self, id: SlotId, result: i32) -> Option<Event> {
        let slot = self.slots.live(id);
        let closing = slot.has(Flag::Closing) && slot.close() != Close::Linger;
        let flight = self.flights.get(slot.flight);
        let more = flight.advance(result.max(0) as usize);
        let sent = flight.sent();
        if result >= 0 && more && !closing {
            self.push_gather(id);
            return None;
        }
        Some(self.sent(id, result, sent))
    }

    /// The send is over. An error after a part was sent is told as an error: the flight did not arrive.
    fn sent(&mut self, id: SlotId, result: i32, count: usize) -> Event {
        let slot = self.slots.live(id);
        slot.clear(Flag::Sending);
        let owner = slot.owner;
        let flight = std::mem::replace(&mut slot.flight, NO_FLIGHT);
        self.stats.sent_bytes += count as u64;
        Event::Sent {
            slot: id,
            owner,
            result: if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(count)
            },
            flight: self.end_flight(flight),
        }
    }

    fn connect_done(&mut self, id: SlotId, result: i32) -> Event {
        let slot = self.slots.live(id);
        slot.clear(Flag::Connecting);
        let owner = slot.owner;
        let flight = std::mem::replace(&mut slot.flight, NO_FLIGHT);
        self.end_flight(flight);
        Event::Connected {
            slot: id,
            owner,
            result: if result < 0 {
                Err(io::Error::from_raw_os_error(-result))
            } else {
                Ok(())
            },
        }
    }

    fn end_flight(&mut self, flight: u32) -> Vec<u8> {
        if flight == NO_FLIGHT {
            return Vec::new();
        }
        let buffers = &mut self.buffers;
        self.flights.end(flight, |id| buffers.release(id))
    }

    pub(super) fn arm_receive(&mut self, id: SlotId) {
        let slot = self.slots.live(id);
        if slot.has(Flag::Closing) {
            return;
        }
        slot.set(Flag::Receiving);
        let group = slot.group();
        if !self.buffers.has_some(group) {
            self.slots.live(id).clear(Flag::Receiving);
            self.queue_for_buffer(id);
            return;
        }
        let receive = opcode::RecvMulti::new(types::Fixed(id.0), group as u16).build();
        self.push_for(id, Op::Receive, receive);
    }

    fn queue_for_buffer(&mut self, id: SlotId) {
        let slot = self.slots.live(id);
        if !slot.has(Flag::Closing) && !slot.has(Flag::Waiting) {
            slot.set(Flag::Waiting);
            let entry = (id, slot.generation);
            let group = slot.group() as usize;
            self.starved[group].push_back(entry);
        }
    }

    /// Arms the receives that waited for buffers, one for each buffer on offer. Once a turn.
    pub(super) fn arm_starved(&mut self) {
        for group in [Group::Client, Group::Upstream] {
            let mut left = self.buffers.on_offer(group);
            while left > 0
                && let Some((id, generation)) = self.starved[group as usize].pop_front()
            {
                let Some(slot) = self.slots.remembered(id, generation) else {
                    continue;
                };
                if slot.has(Flag::Waiting) {
                    slot.clear(Flag::Waiting);
                    self.arm_receive(id);
                    left -= 1;
                }
            }
        }
    }
}
