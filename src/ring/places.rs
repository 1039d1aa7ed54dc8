//! Sockets into the table and out of it, as descriptors of the process.
//!
//! In, the kernel chooses the place among those of the accepts: one taken by number could be one that an accept has filled
//! meanwhile, which we had not heard of yet. Out, the descriptor is a second name of the socket, and the slot closes
//! without the peer noticing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{Probe, Submitter, opcode, types};

use super::Ring;
use super::slots::Flag;
use super::token::{Op, Token};
use super::wire::{Close, Event, Owner, SlotId};

/// IORING_FILE_INDEX_ALLOC: the kernel chooses.
const ANY_PLACE: i32 = -1;

/// Whether a slot can be given a descriptor (6.8).
pub(super) fn gives_descriptors(submitter: &Submitter<'_>) -> bool {
    let mut known = Probe::new();
    submitter.register_probe(&mut known).is_ok() && known.is_supported(opcode::FixedFdInstall::CODE)
}

impl Ring {
    /// Puts a socket into the table and closes its descriptor. Enters the kernel once.
    pub(super) fn place(&mut self, socket: OwnedFd) -> io::Result<SlotId> {
        *self.placing = socket.as_raw_fd();
        let place = opcode::FilesUpdate::new(&raw mut *self.placing, 1)
            .offset(ANY_PLACE)
            .build();
        self.push(place, Token::plain(Op::Place, 0));
        let placed = loop {
            // Runs within the call: only a full completion queue can make it take more than one.
            self.submit_early();
            if let Some(result) = self.placed() {
                break result;
            }
        };
        if placed < 0 {
            return Err(io::Error::from_raw_os_error(-placed));
        }
        // The number of the slot stands where the number of the descriptor was.
        let slot = u32::try_from(*self.placing).expect("a slot has a number");
        Ok(SlotId(slot))
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

    /// The result of [`Op::Place`], taken out of this turn's completions.
    fn placed(&mut self) -> Option<i32> {
        let wanted = Token::plain(Op::Place, 0).pack();
        let mut left = self.batch[self.position..].iter();
        let at = left.rposition(|completion| completion.user_data() == wanted)?;
        Some(self.batch.remove(self.position + at).result())
    }
}
