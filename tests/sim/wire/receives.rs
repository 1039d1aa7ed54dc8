//! Bytes from the network to the shard: receives that stay armed, looks, and the wait for buffers.

use weir::ring::{Event, ReceiveEnd, SlotId};

use super::{Done, SimWire, ended};
use crate::net::Read;

impl SimWire {
    pub(super) fn look(&mut self, index: u32) -> Option<Event> {
        let slot = self.slot(index);
        slot.looking = false;
        let (end, owner, group) = (slot.end, slot.owner, slot.group);
        let id = SlotId(index);
        if !self.net.borrow().readable(end) {
            return Some(Event::ReceiveEnded {
                slot: id,
                owner,
                why: ReceiveEnd::Stopped,
            });
        }
        let Some(buffer) = self.buffers.take(group) else {
            return Some(Event::ReceiveEnded {
                slot: id,
                owner,
                why: ReceiveEnd::NoBuffers,
            });
        };
        let read = self.net.borrow_mut().read(end, self.buffers.size());
        match read {
            Read::Bytes(bytes) => {
                self.buffers.fill(buffer, &bytes);
                self.net.borrow_mut().add_heard(end, bytes.len() as u64);
                Some(Event::Received {
                    slot: id,
                    owner,
                    buffer,
                    len: bytes.len() as u32,
                })
            }
            end => {
                self.buffers.release(buffer, &mut self.faults);
                self.slot(index).ended = true;
                Some(Event::ReceiveEnded {
                    slot: id,
                    owner,
                    why: ended(&end),
                })
            }
        }
    }

    pub(super) fn receive(&mut self, index: u32) {
        if let Some((port, _)) = self.slot(index).port {
            return self.receive_datagrams(index, port);
        }
        loop {
            let slot = self.slot(index);
            if !slot.receiving || slot.closing.is_some() || slot.connecting {
                return;
            }
            let (end, group) = (slot.end, slot.group);
            if !self.net.borrow().readable(end) {
                return;
            }
            let Some(buffer) = self.buffers.take(group) else {
                return self.starve(index);
            };
            let read = self.net.borrow_mut().read(end, self.buffers.size());
            match read {
                Read::Bytes(bytes) => {
                    self.slot(index).thirsty = false;
                    self.buffers.fill(buffer, &bytes);
                    self.complete(
                        index,
                        Done::Received {
                            buffer,
                            len: bytes.len() as u32,
                        },
                    );
                }
                end => {
                    self.buffers.release(buffer, &mut self.faults);
                    let slot = self.slot(index);
                    slot.receiving = false;
                    slot.stopping = false;
                    self.complete(index, Done::Ended(ended(&end)));
                    return;
                }
            }
        }
    }

    /// No buffer is left for an armed receive.
    pub(super) fn starve(&mut self, index: u32) {
        if self.options.tells_starvation && !self.slot(index).thirsty {
            let slot = self.slot(index);
            slot.receiving = false;
            slot.stopping = false;
            self.complete(index, Done::Ended(ReceiveEnd::NoBuffers));
        } else {
            self.slot(index).thirsty = true;
            self.thirst = true;
        }
    }

    /// Buffers have come back: who waits in silence goes on.
    pub(super) fn quench(&mut self) {
        if !std::mem::take(&mut self.thirst) {
            return;
        }
        for index in 0..self.slots.len() as u32 {
            if self.slots[index as usize]
                .as_ref()
                .is_some_and(|slot| slot.thirsty)
            {
                self.receive(index);
            }
        }
    }
}
