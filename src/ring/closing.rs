//! How slots end.
//!
//! A close is submitted only when nothing else of the slot is in flight: then no completion can outlive its slot, and no shutdown, which a kernel
//! worker runs at its leisure, can hit the next connection. To wait costs nothing under load: the cancelled receive completes in the turn that the
//! close is submitted in anyway.
//!
//! A lingering slot discards its input and waits for the peer's FIN. Our own FIN needs a kernel worker, so the peer gets a short grace to hang up
//! first, as clients do after QUIT; then its close is one operation, and nothing has to be cancelled.

use std::collections::VecDeque;
use std::time::Duration;

use io_uring::{opcode, types};
use weir_smtp::time::Moment;

use super::Ring;
use super::slots::Flag;
use super::token::{Op, Token};
use super::wire::{Close, Event, Owner, SlotId};

/// How long the peer may take to hang up before we do.
const GRACE: Duration = Duration::from_millis(30);

/// How long a lingering slot may last.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// The most input one discarding receive takes away.
const DISCARD_MAX: u32 = 1 << 20;

/// Slots that have to be looked at again, in the order of their deadlines: all have waited for the same time.
#[derive(Default)]
pub(super) struct Deadlines {
    queue: VecDeque<(Moment, SlotId, u32)>,
}

impl Deadlines {
    fn push(&mut self, at: Moment, id: SlotId, generation: u32) {
        self.queue.push_back((at, id, generation));
    }

    fn first(&self) -> Option<(Moment, SlotId, u32)> {
        self.queue.front().copied()
    }
}

impl Ring {
    pub(super) fn begin_close(&mut self, id: SlotId, how: Close) {
        let now = self.now;
        let slot = self.slots.live(id);
        // There is nobody to wait for.
        let how = if slot.has(Flag::Datagram) {
            Close::Now
        } else {
            how
        };
        let harsher = match (slot.has(Flag::Closing), slot.close()) {
            (false, _) => true,
            (true, Close::Linger) => how != Close::Linger,
            (true, Close::Now) => how == Close::Reset,
            (true, Close::Reset) => false,
        };
        if !harsher || slot.has(Flag::ClosingDown) {
            return;
        }
        slot.set_close(how);
        slot.clear(Flag::Waiting);
        let generation = slot.generation;
        match how {
            Close::Linger => {
                self.graces.push(now + GRACE, id, generation);
                self.lingers.push(now + LINGER, id, generation);
            }
            Close::Now | Close::Reset => self.cancel_all(id),
        }
        self.go_on_closing(id);
    }

    /// The next step of a closing slot; called after each of its completions.
    pub(super) fn go_on_closing(&mut self, id: SlotId) {
        let slot = self.slots.live(id);
        debug_assert!(slot.has(Flag::Closing));
        if slot.has(Flag::ClosingDown) {
            return;
        }
        if slot.close() == Close::Linger {
            let sending = slot.has(Flag::Sending);
            let shutting = slot.has(Flag::ShuttingDown);
            let hears = slot.has(Flag::Receiving) || slot.has(Flag::Discarding);
            if !slot.has(Flag::PeerDone) {
                if !hears && !slot.has(Flag::Connecting) {
                    self.discard(id);
                }
                let slot = self.slots.live(id);
                let ended = shutting || slot.has(Flag::ShutDown);
                if slot.has(Flag::GraceOver) && !sending && !ended {
                    self.shut_down(id);
                }
                return;
            }
            if sending || shutting {
                return;
            }
        }
        let slot = self.slots.live(id);
        if slot.ops > 0 {
            return;
        }
        if slot.close() == Close::Reset && !slot.has(Flag::Disconnected) {
            self.disconnect(id);
        } else {
            self.close_down(id);
        }
    }

    /// Looks at the lingering slots whose time has come.
    pub(super) fn expire_lingers(&mut self) {
        while let Some((at, id, generation)) = self.graces.first()
            && at <= self.now
        {
            self.graces.queue.pop_front();
            if let Some(slot) = self.slots.remembered(id, generation) {
                slot.set(Flag::GraceOver);
                self.go_on_closing(id);
            }
        }
        while let Some((at, id, generation)) = self.lingers.first()
            && at <= self.now
        {
            self.lingers.queue.pop_front();
            if self.slots.remembered(id, generation).is_some() {
                self.begin_close(id, Close::Now);
            }
        }
    }

    /// When [`Ring::expire_lingers`] has something to do. Those who have gone by themselves are forgotten here.
    pub(super) fn linger_deadline(&mut self) -> Moment {
        let mut earliest = Moment::NEVER;
        for deadlines in [&mut self.graces, &mut self.lingers] {
            while let Some((at, id, generation)) = deadlines.first() {
                if self.slots.remembered(id, generation).is_some() {
                    earliest = earliest.min(at);
                    break;
                }
                deadlines.queue.pop_front();
            }
        }
        earliest
    }

    /// Gives up on everything in flight that can be given up. A shutdown cannot; it is short.
    fn cancel_all(&mut self, id: SlotId) {
        let slot = *self.slots.live(id);
        let cancellable = [
            (Flag::Receiving, Op::Receive),
            (Flag::Looking, Op::Look),
            (Flag::Discarding, Op::Discard),
            (Flag::Connecting, Op::Connect),
        ];
        for (_, op) in cancellable.into_iter().filter(|(flag, _)| slot.has(*flag)) {
            let token = self.slots.token(id, op);
            self.cancel(token);
        }
        if slot.has(Flag::Sending) {
            self.cancel_sending(id);
        }
    }

    fn discard(&mut self, id: SlotId) {
        self.slots.live(id).set(Flag::Discarding);
        // With MSG_TRUNC TCP throws the input away without writing it anywhere; the scratch page is only an address.
        let receive = opcode::Recv::new(
            types::Fixed(id.0),
            self.scratch.base(),
            DISCARD_MAX.min(self.scratch.len() as u32),
        )
        .flags(libc::MSG_TRUNC)
        .build();
        self.push_for(id, Op::Discard, receive);
    }

    pub(super) fn shut_down(&mut self, id: SlotId) {
        self.slots.live(id).set(Flag::ShuttingDown);
        let shutdown = opcode::Shutdown::new(types::Fixed(id.0), libc::SHUT_WR).build();
        self.push_for(id, Op::Shutdown, shutdown);
    }

    /// A connect to nowhere dissolves the connection with RST: the one way that needs no descriptor and no newer kernel.
    fn disconnect(&mut self, id: SlotId) {
        self.slots.live(id).set(Flag::Disconnected);
        let nowhere = &self.nowhere;
        let connect =
            opcode::Connect::new(types::Fixed(id.0), nowhere.as_ptr(), nowhere.len()).build();
        self.push_for(id, Op::Disconnect, connect);
    }

    fn close_down(&mut self, id: SlotId) {
        self.slots.live(id).set(Flag::ClosingDown);
        self.at_once += 1;
        let close = opcode::Close::new(types::Fixed(id.0)).build();
        self.push_for(id, Op::Close, close);
    }

    pub(super) fn discard_done(&mut self, id: SlotId, result: i32) {
        let slot = self.slots.live(id);
        slot.clear(Flag::Discarding);
        let stays = result > 0 || result == -libc::EINTR || result == -libc::ECANCELED;
        if !stays {
            slot.set(Flag::PeerDone);
        }
    }

    pub(super) fn shutdown_done(&mut self, id: SlotId, result: i32) {
        let slot = self.slots.live(id);
        slot.clear(Flag::ShuttingDown);
        slot.set(Flag::ShutDown);
        if result < 0 && slot.has(Flag::Closing) {
            slot.set(Flag::PeerDone);
        }
    }

    pub(super) fn close_done(&mut self, token: Token, result: i32) -> Option<Event> {
        let id = SlotId(token.index);
        assert_eq!(result, 0, "the close of a slot in use cannot fail");
        let slot = self.slots.live(id);
        let (owner, accepted): (Owner, bool) = (slot.owner, slot.has(Flag::Accepted));
        self.slots.free(id);
        if accepted {
            self.accepted_slot_free();
        } else {
            self.free.push(id);
        }
        Some(Event::Closed { slot: id, owner })
    }
}
