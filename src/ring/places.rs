//! Sockets into the table and out of it, as descriptors of the process.
//!
//! In, the place is one of those of the accepts, and we choose it: the kernel's own choice could be one that a close has just
//! emptied, and its completion, still on its way to us, would be taken for that of the newcomer. What accepts have filled
//! by themselves stands in completions: they run in no other moment than inside our own calls. Out, the descriptor is a
//! second name of the socket, and the slot closes without the peer noticing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{Probe, Submitter, opcode, types};

use super::Ring;
use super::slots::Flag;
use super::token::{Op, Token};
use super::wire::{Close, Event, Owner, SlotId};

/// Whether a slot can be given a descriptor (6.8).
pub(super) fn gives_descriptors(submitter: &Submitter<'_>) -> bool {
    let mut known = Probe::new();
    submitter.register_probe(&mut known).is_ok() && known.is_supported(opcode::FixedFdInstall::CODE)
}

impl Ring {
    /// Puts a socket into the table, among those that were accepted, and closes its descriptor. Never while the table is full.
    pub(super) fn place(&mut self, socket: OwnedFd) -> io::Result<SlotId> {
        // What was accepted by now has to be known, or its place would be taken from it.
        while self.uring.submission().cq_overflow() {
            self.submit_early();
        }
        self.collect();
        let id = self.empty_place()?;
        self.uring
            .submitter()
            .register_files_update(id.0, &[socket.as_raw_fd()])?;
        Ok(id)
    }

    /// A place that nobody has. The kernel fills them from the lowest for accepts, so we begin at the highest.
    fn empty_place(&mut self) -> io::Result<SlotId> {
        let room = self.accepting.room as u32;
        for _ in 0..room {
            let index = self.accepting.next_place.checked_sub(1).unwrap_or(room - 1);
            self.accepting.next_place = index;
            let id = SlotId(index);
            if !self.slots.is_live(id) && !self.is_just_accepted(id) {
                return Ok(id);
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENFILE))
    }

    /// Whether this slot is the result of an accept that nobody has looked at yet.
    fn is_just_accepted(&self, id: SlotId) -> bool {
        let mut left = self.batch[self.position..].iter();
        left.any(|completion| {
            let token = Token::unpack(completion.user_data());
            token.op == Op::Accept
                && completion.result() == id.0 as i32
                && self.accepts_into_slots(token)
        })
    }

    /// Asks for a descriptor of the slot's socket.
    pub(super) fn begin_extract(&mut self, id: SlotId) -> io::Result<()> {
        if !self.gives_descriptors {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let slot = self.slots.live(id);
        let busy = [
            Flag::Receiving,
            Flag::Waiting,
            Flag::Looking,
            Flag::Sending,
            Flag::Connecting,
            Flag::Closing,
        ];
        assert!(
            !busy.into_iter().any(|flag| slot.has(flag)),
            "slot {} taken out in the middle of something",
            id.0
        );
        let install = opcode::FixedFdInstall::new(types::Fixed(id.0), 0).build();
        self.push_for(id, Op::Extract, install);
        Ok(())
    }

    pub(super) fn extract_done(&mut self, id: SlotId, result: i32) -> Event {
        let owner = self.slots.live(id).owner;
        let result = if result < 0 {
            Err(io::Error::from_raw_os_error(-result))
        } else {
            // SAFETY: the operation has just made this descriptor, and nobody else has heard of it.
            Ok(unsafe { OwnedFd::from_raw_fd(result) })
        };
        if result.is_ok() {
            self.begin_close(id, Close::Now);
        }
        Event::Extracted {
            slot: id,
            owner,
            result,
        }
    }

    /// A slot for a socket that another ring has given up. What is kept for accepts in flight is not to be had.
    pub(super) fn take_in(&mut self, socket: OwnedFd, owner: Owner) -> io::Result<SlotId> {
        if self.accepting.room_left() <= self.accepting.armed {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let id = self.place(socket)?;
        self.accepting.taken += 1;
        self.slots.open(id, owner).set(Flag::Accepted);
        Ok(id)
    }
}
