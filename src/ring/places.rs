//! Plain descriptors into the table, at a place that the kernel chooses among those of the accepts.
//!
//! A place taken by number could be one that an accept has filled meanwhile, which we had not heard of yet.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::opcode;

use super::Ring;
use super::token::{Op, Token};
use super::wire::SlotId;

/// IORING_FILE_INDEX_ALLOC: the kernel chooses.
const ANY_PLACE: i32 = -1;

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

    /// The result of [`Op::Place`], taken out of this turn's completions.
    fn placed(&mut self) -> Option<i32> {
        let wanted = Token::plain(Op::Place, 0).pack();
        let mut left = self.batch[self.position..].iter();
        let at = left.rposition(|completion| completion.user_data() == wanted)?;
        Some(self.batch.remove(self.position + at).result())
    }
}
