//! The table of slots: what the ring knows about each socket, in 40 bytes, touched only where a socket ever lived.

use std::io;

use super::mapping::{Mapping, Zeroable};
use super::token::{GENERATION_MASK, Op, Token};
use super::wire::{Close, Group, Owner, SEND_NOW_MAX, SlotId};

/// No flight: index of none.
pub(super) const NO_FLIGHT: u32 = u32::MAX;

#[derive(Clone, Copy)]
pub(super) struct Slot {
    pub(super) owner: Owner,
    pub(super) generation: u32,
    /// What is being sent, in the table of flights.
    pub(super) flight: u32,
    flags: u32,
    /// Operations in flight; the slot outlives them.
    pub(super) ops: u8,
    /// The bytes of a drip: they need a place that stays, and are not worth an allocation.
    pub(super) drip: [u8; SEND_NOW_MAX],
}

// SAFETY: plain numbers.
unsafe impl Zeroable for Slot {}

const _: () = assert!(
    size_of::<Slot>() <= 32,
    "a parked client pays for its slot: 32 of its 256 bytes"
);

/// Facts about a slot that are true or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Flag {
    /// Between accept or connect and `Closed`.
    Live = 1 << 0,
    /// Taken from the range that accepts draw from.
    Accepted = 1 << 1,
    Connecting = 1 << 2,
    /// A multishot receive is in flight.
    Receiving = 1 << 3,
    /// Its cancellation has been submitted.
    Stopping = 1 << 4,
    /// In the queue of those that wait for a buffer before they are armed.
    Waiting = 1 << 5,
    Looking = 1 << 6,
    Discarding = 1 << 7,
    Sending = 1 << 8,
    ShuttingDown = 1 << 9,
    /// Our FIN is out.
    ShutDown = 1 << 10,
    /// The peer's FIN is in, or the connection is gone.
    PeerDone = 1 << 11,
    /// `close` has been called: silent from here.
    Closing = 1 << 12,
    Lingering = 1 << 13,
    Resetting = 1 << 14,
    /// The grace in which the peer could hang up first is over.
    GraceOver = 1 << 15,
    /// The receive draws from the upstreams' buffers.
    Upstream = 1 << 16,
    /// The close itself is in flight.
    ClosingDown = 1 << 17,
    Disconnected = 1 << 18,
    /// A socket for datagrams: an empty one is no end of a stream.
    Datagram = 1 << 19,
}

impl Slot {
    pub(super) fn has(&self, flag: Flag) -> bool {
        self.flags & flag as u32 != 0
    }

    pub(super) fn set(&mut self, flag: Flag) {
        self.flags |= flag as u32;
    }

    pub(super) fn clear(&mut self, flag: Flag) {
        self.flags &= !(flag as u32);
    }

    pub(super) fn group(&self) -> Group {
        if self.has(Flag::Upstream) {
            Group::Upstream
        } else {
            Group::Client
        }
    }

    pub(super) fn set_group(&mut self, group: Group) {
        match group {
            Group::Client => self.clear(Flag::Upstream),
            Group::Upstream => self.set(Flag::Upstream),
        }
    }

    /// How the slot is to end, once it is closing.
    pub(super) fn close(&self) -> Close {
        if self.has(Flag::Resetting) {
            Close::Reset
        } else if self.has(Flag::Lingering) {
            Close::Linger
        } else {
            Close::Now
        }
    }

    pub(super) fn set_close(&mut self, how: Close) {
        self.set(Flag::Closing);
        self.clear(Flag::Lingering);
        match how {
            Close::Now => {}
            Close::Linger => self.set(Flag::Lingering),
            Close::Reset => self.set(Flag::Resetting),
        }
    }
}

pub(super) struct Slots {
    table: Mapping<Slot>,
}

impl Slots {
    pub(super) fn new(len: usize) -> io::Result<Slots> {
        Ok(Slots {
            table: Mapping::new(len)?,
        })
    }

    /// The slot a call is about: it has to be one that lives.
    pub(super) fn live(&mut self, id: SlotId) -> &mut Slot {
        let slot = &mut self.table[id.0 as usize];
        assert!(
            slot.has(Flag::Live),
            "a call about slot {} after it closed",
            id.0
        );
        slot
    }

    /// The slot a completion is about, or nothing if it belongs to a former life.
    pub(super) fn named(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = &mut self.table[token.index as usize];
        (slot.has(Flag::Live) && slot.generation == token.generation).then_some(slot)
    }

    /// The slot as a deadline remembers it.
    pub(super) fn remembered(&mut self, id: SlotId, generation: u32) -> Option<&mut Slot> {
        let slot = &mut self.table[id.0 as usize];
        (slot.has(Flag::Live) && slot.generation == generation).then_some(slot)
    }

    pub(super) fn open(&mut self, id: SlotId, owner: Owner) -> &mut Slot {
        let slot = &mut self.table[id.0 as usize];
        assert!(
            !slot.has(Flag::Live),
            "the kernel handed out slot {} while it was in use",
            id.0
        );
        slot.owner = owner;
        slot.flight = NO_FLIGHT;
        slot.flags = Flag::Live as u32;
        slot.ops = 0;
        slot
    }

    pub(super) fn free(&mut self, id: SlotId) {
        let slot = &mut self.table[id.0 as usize];
        assert_eq!(slot.ops, 0, "slot {} freed under its own operations", id.0);
        slot.flags = 0;
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
    }

    pub(super) fn is_live(&self, id: SlotId) -> bool {
        self.table[id.0 as usize].has(Flag::Live)
    }

    pub(super) fn is_closing(&self, id: SlotId) -> bool {
        self.table[id.0 as usize].has(Flag::Closing)
    }

    pub(super) fn token(&self, id: SlotId, op: Op) -> Token {
        let slot = &self.table[id.0 as usize];
        Token {
            op,
            group: slot.group(),
            generation: slot.generation,
            index: id.0,
        }
    }

    pub(super) fn drip(&self, id: SlotId) -> *const u8 {
        self.table[id.0 as usize].drip.as_ptr()
    }
}
