//! A tunnel's state: two pipes, what waits in them, and when the next thing is due.

use std::collections::VecDeque;
use std::time::Duration;

use weir_smtp::time::Moment;

use crate::ring::{BufferId, Group, SlotId};
use crate::shard::slab::Key;
use crate::shard::who::Side;

/// How long one side may be silent after the other has ended.
const HALF_OPEN: Duration = Duration::from_secs(60);

/// Both directions, named by where their bytes come from.
pub(super) struct Tunnel {
    pub(super) session: Key,
    pub(super) client: Pipe,
    pub(super) server: Pipe,
    /// When something moved last.
    pub(super) moved: Moment,
    pub(super) ends_at: Moment,
    /// The earliest wheel entry.
    pub(super) armed: Moment,
}

/// One direction.
pub(super) struct Pipe {
    pub(super) from: SlotId,
    pub(super) to: SlotId,
    pub(super) group: Group,
    pub(super) waiting: VecDeque<Piece>,
    /// Said before the tunnel began, and not sent yet.
    pub(super) head: Vec<u8>,
    pub(super) octets: u64,
    pub(super) sending: bool,
    pub(super) receiving: bool,
    /// Stands on the list of those that have something to send on.
    pub(super) ready: bool,
    /// The last byte has come.
    pub(super) ended: bool,
    /// The end has been passed on, or will be then.
    pub(super) fin: Fin,
    pub(super) pause_until: Moment,
}

#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) buffer: BufferId,
    pub(super) start: u32,
    pub(super) len: u32,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fin {
    No,
    At(Moment),
    Passed,
}

impl Tunnel {
    pub(super) fn pipe(&mut self, side: Side) -> &mut Pipe {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    pub(super) fn deadline(&self, idle: Duration) -> Moment {
        let half_open = self.client.ended || self.server.ended;
        let patience = if half_open { HALF_OPEN.min(idle) } else { idle };
        let mut earliest = self.ends_at.min(self.moved + patience);
        for pipe in [&self.client, &self.server] {
            if let Fin::At(at) = pipe.fin {
                earliest = earliest.min(at);
            }
            if pipe.pause_until > Moment::ZERO {
                earliest = earliest.min(pipe.pause_until);
            }
        }
        earliest
    }
}

impl Pipe {
    pub(super) fn new(from: SlotId, to: SlotId, group: Group) -> Pipe {
        Pipe {
            from,
            to,
            group,
            waiting: VecDeque::new(),
            head: Vec::new(),
            octets: 0,
            sending: false,
            receiving: true,
            ready: false,
            ended: false,
            fin: Fin::No,
            pause_until: Moment::ZERO,
        }
    }

    /// Everything that came has been taken.
    pub(super) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.head.is_empty() && !self.sending
    }
}
