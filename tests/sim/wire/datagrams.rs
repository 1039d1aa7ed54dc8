//! A shard's sockets for datagrams: whole ones or none, in whatever order they come.

use std::io;
use std::net::SocketAddr;

use weir::ring::{Owner, ReceiveEnd, SlotId};

use super::{Done, SimWire};
use crate::net::{End, Heard, Party};

/// Who has a port has no end of a connection.
const NOWHERE: End = End {
    conn: u32::MAX,
    side: 0,
};

impl SimWire {
    pub(super) fn open_datagrams(&mut self, to: SocketAddr, owner: Owner) -> io::Result<SlotId> {
        if self.free.is_empty() {
            return Err(io::Error::other("no slot is left"));
        }
        let index = self.open(NOWHERE, owner, None);
        let party = Party::Slot {
            shard: self.options.shard,
            slot: index,
            life: self.slot(index).life,
        };
        let mut net = self.net.borrow_mut();
        let port = net.fresh_port(self.options.address.ip());
        net.open_port(port, party, Some(to));
        drop(net);
        self.slot(index).port = Some((port, to));
        Ok(SlotId(index))
    }

    /// True: it is one for datagrams, which nothing else is done to.
    pub(super) fn sends_datagrams(&mut self, slot: SlotId, call: &str) -> bool {
        let sends =
            matches!(self.slots.get(slot.0 as usize), Some(Some(slot)) if slot.port.is_some());
        if sends {
            self.faults
                .push(format!("{call} on slot {}, which sends datagrams", slot.0));
        }
        sends
    }

    pub(super) fn send_datagram(&mut self, slot: SlotId, bytes: Vec<u8>) {
        let entry = self.slot(slot.0);
        let Some((from, to)) = entry.port.filter(|_| entry.closing.is_none()) else {
            return;
        };
        if entry.sending {
            self.faults
                .push(format!("a second send in flight on slot {}", slot.0));
            return;
        }
        entry.sending = true;
        self.net.borrow_mut().send_datagram(from, to, &bytes);
        let len = bytes.len();
        let mut flight = bytes;
        flight.clear();
        self.complete(slot.0, Done::Sent(Ok(len), flight));
    }

    pub(super) fn receive_datagrams(&mut self, index: u32, port: SocketAddr) {
        loop {
            let slot = self.slot(index);
            if !slot.receiving || slot.closing.is_some() || !self.net.borrow().has_datagram(port) {
                return;
            }
            let group = self.slot(index).group;
            let Some(buffer) = self.buffers.take(group) else {
                return self.starve(index);
            };
            let heard = self.net.borrow_mut().take_datagram(port);
            match heard {
                Some(Heard::Datagram { bytes, .. }) if !bytes.is_empty() => {
                    let len = bytes.len().min(self.buffers.size());
                    self.slot(index).thirsty = false;
                    self.buffers.fill(buffer, &bytes[..len]);
                    let len = len as u32;
                    self.complete(index, Done::Received { buffer, len });
                }
                Some(Heard::Refused) => {
                    self.buffers.release(buffer, &mut self.faults);
                    let slot = self.slot(index);
                    slot.receiving = false;
                    slot.stopping = false;
                    let error = io::ErrorKind::ConnectionRefused.into();
                    return self.complete(index, Done::Ended(ReceiveEnd::Reset(error)));
                }
                _ => {
                    self.buffers.release(buffer, &mut self.faults);
                }
            }
        }
    }

    pub(super) fn close_datagrams(&mut self, index: u32, port: SocketAddr) {
        self.net.borrow_mut().close_port(port);
        self.slot(index).closed_down = true;
        self.complete(index, Done::Closed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use weir::ring::{Close, Event, Group, Wire};

    use super::*;
    use crate::chance::Chance;
    use crate::net::{Fate, Line, Net, SharedNet};
    use crate::scenario::Scenario;
    use crate::wire::SharedCaps;

    const SERVER: SocketAddr = SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 3, 0, 1)),
        53,
    );

    fn stage(fate: Fate) -> (SharedNet, SimWire, SlotId) {
        let mut chance = Chance::new(5);
        let net = Rc::new(RefCell::new(Net::new(chance.fork())));
        net.borrow_mut().set_fate(fate);
        net.borrow_mut().open_port(SERVER, Party::Task(0), None);
        let options = Scenario::from_seed(1).wire;
        let caps = SharedCaps::default();
        let mut wire = SimWire::new(net.clone(), chance, options, caps, |_| Line::smooth());
        let slot = wire.connect_datagram(SERVER, Owner(9)).expect("a slot");
        wire.start_receive(slot, Group::Upstream);
        (net, wire, slot)
    }

    /// Lets everything happen, and returns the datagrams that came and whether a refusal did.
    fn settle(net: &SharedNet, wire: &mut SimWire) -> (Vec<Vec<u8>>, bool) {
        let (mut heard, mut refused) = (Vec::new(), false);
        let end = net.borrow().now() + Duration::from_secs(20);
        loop {
            while let Some(event) = wire.next_event() {
                match event {
                    Event::Received { buffer, len, .. } => {
                        heard.push(wire.buffer(buffer)[..len as usize].to_vec());
                        wire.release(buffer);
                    }
                    Event::ReceiveEnded { slot, why, .. } => {
                        refused |= matches!(why, ReceiveEnd::Reset(_));
                        wire.start_receive(slot, Group::Upstream);
                    }
                    _ => {}
                }
            }
            let due = net.borrow().next().min(wire.next());
            if due > end {
                return (heard, refused);
            }
            net.borrow_mut().advance(due);
            loop {
                let told = net.borrow_mut().take_told();
                match told {
                    Some(Party::Slot { slot, life, .. }) => wire.poke(slot, life),
                    Some(Party::Task(_)) => {}
                    None => break,
                }
            }
        }
    }

    /// Sends a question, and returns the port it came from; None: it was lost.
    fn ask(net: &SharedNet, wire: &mut SimWire, slot: SlotId) -> Option<SocketAddr> {
        wire.send(slot, b"question".to_vec());
        settle(net, wire);
        match net.borrow_mut().take_datagram(SERVER)? {
            Heard::Datagram { from, bytes } => {
                assert_eq!(bytes, b"question");
                Some(from)
            }
            Heard::Refused => None,
        }
    }

    #[test]
    fn a_connected_port_hears_its_peer_alone_and_believes_who_claims_to_be_it() {
        let (net, mut wire, slot) = stage(Fate::default());
        let port = ask(&net, &mut wire, slot).expect("it arrives");
        let elsewhere = "10.9.9.9:53".parse().expect("an address");
        for (from, bytes) in [(elsewhere, &b"other"[..]), (SERVER, b""), (SERVER, b"true")] {
            net.borrow_mut().send_datagram(from, port, bytes);
        }
        assert_eq!(settle(&net, &mut wire), (vec![b"true".to_vec()], false));
        assert!(wire.faults().is_empty());
    }

    #[test]
    fn datagrams_are_lost_and_doubled_by_chance() {
        let fate = Fate {
            lost: 20,
            doubled: 30,
            late: 10,
            jitter: Duration::from_millis(5),
            ..Fate::default()
        };
        let (net, mut wire, slot) = stage(fate);
        let port = (0..100)
            .find_map(|_| ask(&net, &mut wire, slot))
            .expect("one arrives");
        for number in 0..100u8 {
            net.borrow_mut().send_datagram(SERVER, port, &[number]);
        }
        let (heard, _) = settle(&net, &mut wire);
        let mut sorted = heard.clone();
        sorted.sort();
        assert_ne!(heard, sorted, "some overtake others");
        sorted.dedup();
        assert!(sorted.len() < heard.len(), "some come twice");
        assert!((50..95).contains(&sorted.len()), "{} came", sorted.len());
    }

    #[test]
    fn a_refusal_is_told_and_the_port_closes_without_a_trace() {
        let (net, mut wire, slot) = stage(Fate::default());
        net.borrow_mut().close_port(SERVER);
        wire.send(slot, b"question".to_vec());
        assert_eq!(settle(&net, &mut wire), (vec![], true));
        wire.close(slot, Close::Linger);
        settle(&net, &mut wire);
        assert_eq!(wire.leftovers(), Vec::<String>::new());
        wire.send(slot, b"late".to_vec());
        assert_eq!(wire.faults().len(), 1, "the slot is no more");
    }
}
