//! Bytes from the shard to the network: flights that move in parts, and hold the buffers they are sent from.

use std::io;

use weir::ring::{Part, SlotId};

use super::{Done, Flight, Sabotage, SimWire};

impl SimWire {
    pub(super) fn begin_flight(&mut self, slot: SlotId, head: Vec<u8>, parts: Vec<Part>) {
        if !self.called(slot, "send") {
            return;
        }
        let entry = self.slot(slot.0);
        if entry.closing.is_some() {
            return;
        }
        if entry.sending {
            self.faults
                .push(format!("a second send in flight on slot {}", slot.0));
            return;
        }
        if entry.connecting {
            self.faults
                .push(format!("a send on slot {} which is not connected", slot.0));
            return;
        }
        entry.sending = true;
        let mut flight = Flight {
            head,
            parts,
            part: 0,
            offset: 0,
            sent: 0,
            resting: false,
        };
        for part in &flight.parts {
            match *part {
                Part::Span { buffer, start, len } => {
                    self.buffers.retain(buffer, &mut self.faults);
                    if start as usize + len as usize > self.buffers.size() {
                        self.faults.push("a span reaches beyond its buffer".into());
                    }
                }
                Part::Bytes { start, len } => {
                    if (start + len) as usize > flight.head.len() {
                        self.faults.push("a part reaches beyond its head".into());
                    }
                }
            }
        }
        self.count_carrier(slot.0, &flight.head);
        self.tamper(slot.0, &mut flight);
        self.slot(slot.0).flight = Some(flight);
        self.move_flight(slot.0);
    }

    /// Envelopes travel in heads; those of the start probe are weir's own.
    fn count_carrier(&mut self, index: u32, head: &[u8]) {
        let slot = self.slot(index);
        let Some(endpoint) = slot.upstream.filter(|_| !slot.carries) else {
            return;
        };
        if head.starts_with(b"MAIL FROM:") && !head.starts_with(b"MAIL FROM:<relay-test@") {
            slot.carries = true;
            if let Err(fault) = self.caps.borrow_mut().carries(endpoint) {
                self.faults.push(fault);
            }
        }
    }

    fn tamper(&mut self, index: u32, flight: &mut Flight) {
        let upward = self.slot(index).upstream.is_some();
        let sabotage = self.options.sabotage;
        match sabotage {
            Sabotage::ChangesAnOctet if upward && flight.head.len() > 400 && self.saboteur(1) => {
                let at = flight.head.len() - 20;
                flight.head[at] ^= 1;
            }
            Sabotage::ForgesAcceptance if !upward && flight.head.starts_with(b"4") => {
                flight.head[..3].copy_from_slice(b"250");
                if flight.head.get(4) == Some(&b'4') {
                    flight.head[4] = b'2';
                }
            }
            _ => {}
        }
    }

    pub(super) fn move_flight(&mut self, index: u32) {
        let slot = self.slot(index);
        let end = slot.end;
        let Some(mut flight) = slot.flight.take() else {
            return;
        };
        if flight.resting {
            slot.flight = Some(flight);
            return;
        }
        let mut sip = if self.options.sips == 0 {
            usize::MAX
        } else {
            self.options.sips
        };
        loop {
            let Some(part) = flight.parts.get(flight.part).copied() else {
                let sent = flight.sent;
                return self.end_flight(index, flight, Ok(sent));
            };
            let bytes: &[u8] = match part {
                Part::Bytes { start, len } => &flight.head[start as usize..][..len as usize],
                Part::Span { buffer, start, len } => {
                    &self.buffers.read(buffer, &mut self.faults)[start as usize..][..len as usize]
                }
            };
            let rest = &bytes[flight.offset as usize..];
            let rest = &rest[..rest.len().min(sip)];
            let written = self.net.borrow_mut().write(end, rest);
            match written {
                Err(error) => return self.end_flight(index, flight, Err(error)),
                Ok(taken) => {
                    flight.sent += taken;
                    flight.offset += taken as u32;
                    sip -= taken;
                    if flight.offset as usize == bytes.len() {
                        flight.part += 1;
                        flight.offset = 0;
                    } else if sip == 0 {
                        break;
                    } else if taken < rest.len() {
                        self.slot(index).flight = Some(flight);
                        return;
                    }
                }
            }
        }
        flight.resting = true;
        let at = self.now() + self.chance.micros(1..200);
        let slot = self.slot(index);
        slot.flight = Some(flight);
        let life = slot.life;
        self.queue_at(at, index, life, Done::Moves);
    }

    pub(super) fn end_flight(&mut self, index: u32, mut flight: Flight, result: io::Result<usize>) {
        for part in flight.parts.drain(..) {
            if let Part::Span { buffer, .. } = part {
                self.buffers.release(buffer, &mut self.faults);
            }
        }
        flight.head.clear();
        self.complete(index, Done::Sent(result, flight.head));
        self.quench();
    }
}
