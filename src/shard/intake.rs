//! A client's input between the socket and its relay: what waits, where it lies, and what is copied.
//!
//! A piece lies in the buffer it was received into until the relay takes it, and a body is sent on from there without a
//! copy. But receive buffers are few, and a shard whose buffers are all held by bodies that do not move reads nothing
//! from anybody. So the more of them are in use, the less a session may pin: many, a few, none; beyond that, and for
//! pieces so short that they would waste a buffer, the bytes are copied to chunks, which are the hold budget. What waits
//! for its turn under pressure is copied as well, several sessions to a chunk. When the budget is used up too, the
//! session that needs room is ended with 421.

use weir_smtp::gate::Verdict;
use weir_smtp::pieces::BufferId;
use weir_smtp::relay::Input;
use weir_smtp::texts;

use crate::metrics::{Ended, Way};
use crate::ring::{Group, Wire};

use super::slab::Key;
use super::world::World;

/// Received pieces that may wait to be read, before receiving stops: 16 KiB each. One under pressure.
const INTAKE_MAX: usize = 4;

/// Empty lists kept for reuse: 64 bytes each.
const INTAKES_KEPT: usize = 256;

/// Body input this short is copied out of its receive buffer: a quarter of one.
const COPY_BELOW: u32 = 4096;

/// Receive buffers that one body may pin while most are free, and while less than half are. Below a quarter: none.
const PINNED_MAX: u16 = 16;
const PINNED_FEW: u16 = 2;

/// Input that waits to be read: the session holds one reference of the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub buffer: BufferId,
    pub start: u32,
    pub len: u32,
    /// Lies in a chunk already.
    pub copied: bool,
}

/// How many receive buffers are left for clients.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Supply {
    /// Less than an eighth.
    Dry,
    /// Less than a quarter.
    Low,
    /// Less than half.
    Fair,
    Plenty,
}

impl<W: Wire> World<W> {
    fn supply(&self) -> Supply {
        self.supply_of(Group::Client)
    }

    pub(super) fn supply_of(&self, group: Group) -> Supply {
        let (held, all) = self.wire.buffers(group);
        let free = all - held;
        match () {
            () if free * 2 > all => Supply::Plenty,
            () if free * 4 > all => Supply::Fair,
            () if free * 8 > all => Supply::Low,
            () => Supply::Dry,
        }
    }

    /// Pieces that may wait before a session stops receiving.
    pub(super) fn intake_max(&self) -> usize {
        if self.supply() <= Supply::Low {
            1
        } else {
            INTAKE_MAX
        }
    }

    /// Whether clients have to wait because weir has no buffers for them.
    pub(super) fn is_short_of_buffers(&self) -> bool {
        self.supply() <= Supply::Low
    }

    /// Input of a client.
    pub(super) fn client_received(&mut self, key: Key, buffer: BufferId, len: u32) {
        let most = self.intake_max();
        let Some(session) = self.sessions.get_mut(key) else {
            return self.wire.release(buffer);
        };
        let first = session.bytes_in == 0;
        session.bytes_in += u64::from(len);
        session.flags.parking = false;
        self.counters.client_bytes.at(Way::In).add(u64::from(len));
        if session.flags.closing || session.slot.is_none() {
            return self.wire.release(buffer);
        }
        if session.secrecy.discards() {
            self.wire.release(buffer);
            return self.glued(key);
        }
        if session.intake.capacity() == 0 {
            session.intake = self
                .intakes
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(INTAKE_MAX));
        }
        session.intake.push(Pending {
            buffer,
            start: 0,
            len,
            copied: false,
        });
        if session.intake.len() >= most {
            self.pause_receiving(key);
        }
        self.charge_bytes(key, len);
        if first
            && let Verdict::Close(reply) | Verdict::Refuse(reply) = self.weigh_first_octets(key)
        {
            self.drop_intake(key);
            self.relay_call(key, |relay, cx| relay.refuse(cx, &reply));
            self.settle(key);
        }
        self.feed(key);
    }

    /// One call into the relay with the oldest piece.
    pub(super) fn read_some(&mut self, key: Key) {
        if !self.find_room(key) {
            return self.overrun(key);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let in_body = session.relay.body_octets().is_some();
        let piece = session.intake[0];
        let consumed = self.relay_reads(key, |relay, cx, wire| {
            let bytes = &wire.buffer(piece.buffer)[piece.start as usize..][..piece.len as usize];
            let input = Input {
                buffer: piece.buffer,
                start: piece.start,
                bytes,
            };
            relay.handle_input(cx, input)
        });
        let (Some(consumed), Some(session)) = (consumed, self.sessions.get_mut(key)) else {
            return;
        };
        if in_body
            && let Some(pace) = session
                .leg
                .and_then(|leg| self.legs.get_mut(leg))
                .and_then(|leg| leg.pace.as_mut())
        {
            pace.count(consumed.len as u64);
        }
        assert!(
            consumed.len <= piece.len as usize,
            "the relay took more than it was given"
        );
        if session.flags.paced && !in_body && consumed.len > 0 {
            session.hold_until = self.now + self.policy.config().temper.delay;
        }
        if consumed.kept > 0 && !piece.copied {
            session.pinned += 1;
        }
        let mut owed = consumed.kept;
        if consumed.len == piece.len as usize {
            session.intake.remove(0);
            if session.intake.is_empty() {
                let intake = std::mem::take(&mut session.intake);
                give_back(&mut self.intakes, intake);
            }
            // The session's own reference passes to the relay, or ends here.
            match owed {
                0 => self.wire.release(piece.buffer),
                _ => owed -= 1,
            }
        } else {
            session.intake[0].start += consumed.len as u32;
            session.intake[0].len -= consumed.len as u32;
        }
        for _ in 0..owed {
            self.wire.retain(piece.buffer);
        }
    }

    /// Sees to it that the oldest piece may stay where it lies if the relay keeps it. False: there is no room.
    fn find_room(&mut self, key: Key) -> bool {
        let supply = self.supply();
        let Some(session) = self.sessions.get_mut(key) else {
            return true;
        };
        let piece = session.intake[0];
        if piece.copied || session.relay.body_octets().is_none() {
            return true;
        }
        let allowed = match supply {
            Supply::Plenty => PINNED_MAX,
            Supply::Fair => PINNED_FEW,
            Supply::Low | Supply::Dry => 0,
        };
        let bytes = &self.wire.buffer(piece.buffer)[piece.start as usize..][..piece.len as usize];
        // Most likely the end of the message: it goes up at once.
        let short = piece.len < COPY_BELOW && !bytes.ends_with(b"\r\n.\r\n");
        if session.pinned < allowed && !short {
            return true;
        }
        self.copied.clear();
        self.copied.extend_from_slice(bytes);
        match Self::copy(&mut self.wire, &mut session.chunk, &self.copied) {
            Some(copy) => {
                session.intake[0].start += copy.len;
                session.intake[0].len -= copy.len;
                if session.intake[0].len == 0 {
                    session.intake[0] = copy;
                    self.wire.release(piece.buffer);
                } else {
                    session.intake.insert(0, copy);
                }
                true
            }
            // The budget is used up, but buffers are not all gone.
            None => supply > Supply::Dry,
        }
    }

    /// Copies what fits to `chunk`, or to a new one when it is full. The copy has a reference of its own.
    pub(super) fn copy(
        wire: &mut W,
        chunk: &mut Option<BufferId>,
        bytes: &[u8],
    ) -> Option<Pending> {
        loop {
            let fresh = chunk.is_none();
            let buffer = match *chunk {
                Some(buffer) => buffer,
                None => wire.chunk()?,
            };
            *chunk = Some(buffer);
            let (start, len) = wire.chunk_append(buffer, bytes);
            if len > 0 {
                wire.retain(buffer);
                return Some(Pending {
                    buffer,
                    start,
                    len,
                    copied: true,
                });
            }
            assert!(!fresh, "an empty chunk takes bytes");
            // Full: the pieces that lie in it keep it as long as they are needed.
            *chunk = None;
            wire.release(buffer);
        }
    }

    /// Input that has to wait (for a verdict, a connection, a delay) gives its receive buffers back while they are scarce.
    pub(super) fn put_aside(&mut self, key: Key) {
        let supply = self.supply();
        if supply == Supply::Plenty {
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.flags.queued {
            return;
        }
        let mut at = 0;
        while let Some(piece) = session.intake.get(at).copied() {
            if piece.copied || (piece.len >= COPY_BELOW && supply > Supply::Low) {
                at += 1;
                continue;
            }
            let bytes =
                &self.wire.buffer(piece.buffer)[piece.start as usize..][..piece.len as usize];
            self.copied.clear();
            self.copied.extend_from_slice(bytes);
            let Some(copy) = Self::copy(&mut self.wire, &mut self.aside, &self.copied) else {
                if supply == Supply::Dry {
                    self.overrun(key);
                    self.flush(key);
                }
                return;
            };
            session.intake[at].start += copy.len;
            session.intake[at].len -= copy.len;
            if session.intake[at].len == 0 {
                session.intake[at] = copy;
                self.wire.release(piece.buffer);
            } else {
                session.intake.insert(at, copy);
            }
            at += 1;
        }
    }

    /// What lies in this chunk keeps it; a quiet shard keeps none.
    pub(super) fn let_go_of_aside(&mut self) {
        if let Some(chunk) = self.aside.take() {
            self.wire.release(chunk);
        }
    }

    /// The octets that wait to be read.
    pub(super) fn copy_intake(&self, key: Key) -> Box<[u8]> {
        let Some(session) = self.sessions.get(key) else {
            return Box::default();
        };
        let pieces = session.intake.iter().map(|piece| {
            &self.wire.buffer(piece.buffer)[piece.start as usize..][..piece.len as usize]
        });
        pieces.collect::<Vec<_>>().concat().into()
    }

    /// What a client said before it was parked waits again, in a chunk that it shares with others.
    pub(super) fn read_again(&mut self, key: Key, mut octets: &[u8]) {
        while !octets.is_empty() {
            let Some(piece) = Self::copy(&mut self.wire, &mut self.aside, octets) else {
                return self.overrun(key);
            };
            octets = &octets[piece.len as usize..];
            match self.sessions.get_mut(key) {
                Some(session) => {
                    if session.intake.capacity() == 0 {
                        session.intake = self.intakes.pop().unwrap_or_default();
                    }
                    session.intake.push(piece);
                }
                None => return self.wire.release(piece.buffer),
            }
        }
    }

    /// No room is left for what this client sends.
    fn overrun(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.flags.closing {
            return;
        }
        session.ended = Ended::Overload;
        self.drop_intake(key);
        self.relay_call(key, |relay, cx| relay.refuse(cx, &texts::OVERLOAD));
        self.settle(key);
    }

    pub(super) fn drop_intake(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut intake = std::mem::take(&mut session.intake);
        for piece in intake.drain(..) {
            self.wire.release(piece.buffer);
        }
        give_back(&mut self.intakes, intake);
    }

    /// The body is over: nothing of it needs room any more.
    pub(super) fn forget_room(&mut self, key: Key) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.pinned = 0;
        if let Some(chunk) = session.chunk.take() {
            self.wire.release(chunk);
        }
    }
}

/// Keeps an emptied list for the next session that has input.
fn give_back(intakes: &mut Vec<Vec<Pending>>, intake: Vec<Pending>) {
    if intake.capacity() > 0 && intakes.len() < INTAKES_KEPT {
        intakes.push(intake);
    }
}
