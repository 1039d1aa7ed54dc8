//! What a shard asks of the network, and what the network tells it: the seam between the world of sessions and the ring.
//!
//! [`Wire`] is implemented twice: by [`super::Ring`] over io_uring, and by the simulation over virtual time.
//! Calls only queue work and never block; their outcomes come back as [`Event`]s in a later turn.
//! Nothing here knows SMTP, and nothing here reads a clock.
//!
//! The life of a slot: `Accepted` (or [`Wire::connect`] and `Connected`, or [`Wire::connect_datagram`]), any number of receives and sends, [`Wire::close`], `Closed`.
//! Between `close` and `Closed` the slot is silent, and after `Closed` its number may come back in another life.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

pub use weir_smtp::pieces::BufferId;

/// One socket: an index into the ring's own table of open files. Valid until its [`Event::Closed`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SlotId(pub u32);

/// Whom the shard wants to hear a slot's events. Opaque to the ring, may be changed at any time; an event carries the owner of the moment it is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner(pub u64);

impl Owner {
    /// What a slot has before anybody claimed it.
    pub const NONE: Owner = Owner(u64::MAX);
}

/// Which provided buffers a receive draws from.
///
/// Apart from each other, so that a fast client behind a stalled upstream cannot eat the buffers of the replies that would free its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Client,
    Upstream,
}

/// A connection to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dial {
    pub to: SocketAddr,
    /// The address it comes from, which need not be one of this host's (IP_TRANSPARENT); port 0 takes a fresh one.
    pub from: Option<SocketAddr>,
    /// SO_MARK, for the host's packet rules; 0: none.
    pub mark: u32,
}

impl From<SocketAddr> for Dial {
    fn from(to: SocketAddr) -> Dial {
        Dial {
            to,
            from: None,
            mark: 0,
        }
    }
}

/// How a slot ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// What is in flight is cancelled, then the socket is closed. Input that nobody read makes the kernel send RST, which can overtake bytes already sent.
    Now,
    /// For a last reply that has to arrive: input is discarded until the peer's FIN, ours is sent after a short grace, and after two seconds the socket is closed anyway.
    /// With a peer that hangs up after its QUIT this is also the cheapest way. Bytes still being sent are finished inside the two seconds.
    Linger,
    /// Abortive: RST instead of FIN, nothing of what is queued is sent.
    Reset,
}

/// A piece of a gathered send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A range of the `head` handed over with the send.
    Bytes { start: u32, len: u32 },
    /// A range of a buffer; the send holds a reference of its own until it is over.
    Span {
        buffer: BufferId,
        start: u32,
        len: u32,
    },
}

/// Why an armed receive is over. It may be armed again at once, except after `Eof` and, of a connection, `Reset`.
#[derive(Debug)]
pub enum ReceiveEnd {
    /// The peer has sent its last byte; sending to it may still work.
    Eof,
    /// [`Wire::stop_receive`] took effect, or [`Wire::receive_now`] found nothing.
    Stopped,
    /// No buffer was left in the group. Armed again it waits for one.
    NoBuffers,
    /// The connection is gone; of a socket for datagrams: the far host has said that nobody is there.
    Reset(io::Error),
}

#[derive(Debug)]
pub enum Event {
    /// A client has connected; nothing is armed on it yet, and its owner is [`Owner::NONE`].
    Accepted {
        listener: usize,
        slot: SlotId,
        peer: SocketAddr,
        /// Where the client wanted to go; known on listeners that take connections meant for others.
        destination: Option<SocketAddr>,
    },
    /// An accept failed (table full, kernel out of memory). The ring tries again by itself when slots come free or a little later.
    AcceptFailed { listener: usize, error: io::Error },
    Connected {
        slot: SlotId,
        owner: Owner,
        result: io::Result<()>,
    },
    /// The shard owns one reference of `buffer`, of which the first `len` bytes are the input.
    Received {
        slot: SlotId,
        owner: Owner,
        buffer: BufferId,
        len: u32,
    },
    ReceiveEnded {
        slot: SlotId,
        owner: Owner,
        why: ReceiveEnd,
    },
    /// A send is over: whole, or with the error that ended it. `flight` is the allocation handed in, empty again, for the next flight.
    Sent {
        slot: SlotId,
        owner: Owner,
        result: io::Result<usize>,
        flight: Vec<u8>,
    },
    /// The slot is no more; its number may be reused from now on.
    Closed { slot: SlotId, owner: Owner },
    /// What [`Wire::extract`] was asked for. The slot is closing (no `Closed` was asked for, but it comes), or still open after an error.
    Extracted {
        slot: SlotId,
        owner: Owner,
        result: io::Result<OwnedFd>,
    },
    /// A handshake is over: from now on the slot carries what is inside TLS, or it is of no more use.
    Secured {
        slot: SlotId,
        owner: Owner,
        result: io::Result<()>,
    },
    /// Another thread rang.
    Doorbell,
    /// The executor's own rings have work: yield to it.
    Background,
}

impl Event {
    /// Whose step it leads to, where it is about a slot that may have somebody.
    pub fn owner(&self) -> Option<Owner> {
        match self {
            Event::Connected { owner, .. }
            | Event::Received { owner, .. }
            | Event::ReceiveEnded { owner, .. }
            | Event::Sent { owner, .. }
            | Event::Closed { owner, .. }
            | Event::Extracted { owner, .. }
            | Event::Secured { owner, .. } => Some(*owner),
            Event::Accepted { .. }
            | Event::AcceptFailed { .. }
            | Event::Doorbell
            | Event::Background => None,
        }
    }
}

/// The largest [`Wire::send_now`].
pub const SEND_NOW_MAX: usize = 11;

pub trait Wire {
    /// Opens a connection; `Connected` follows. Fails at once when no slot is left.
    fn connect(&mut self, dial: &Dial, owner: Owner) -> io::Result<SlotId>;

    /// Opens a socket for datagrams to and from this address alone, from a port of the kernel's choice; it is ready at once, without `Connected`.
    ///
    /// One send is one datagram, and one `Received` is one datagram, cut where it is longer than a buffer; empty ones are never told.
    /// It is not finished, extracted or looked at, and ends at once however it is closed.
    fn connect_datagram(&mut self, to: SocketAddr, owner: Owner) -> io::Result<SlotId>;

    /// Takes the connection out of this shard's table, for another shard: `Extracted` follows. Not while a receive is armed or a send is in flight.
    /// The default answers that this network cannot.
    fn extract(&mut self, slot: SlotId) -> io::Result<()> {
        let _ = slot;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes in a connection that another shard has extracted. Counts among the accepted.
    fn adopt(&mut self, socket: OwnedFd, owner: Owner) -> io::Result<SlotId> {
        let _ = (socket, owner);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Input arrives as `Received` until `ReceiveEnded`. Does nothing while a receive is armed already; takes back a stop whose `ReceiveEnded` has
    /// not come yet (then none comes). With no buffer left in the group the receive is armed as soon as one is released: starting it at once
    /// after `NoBuffers` is right.
    fn start_receive(&mut self, slot: SlotId, group: Group);

    /// Ends the armed receive: `ReceiveEnded(Stopped)` follows (or the end that came first), and input may still come before it.
    /// Does nothing when none is armed.
    fn stop_receive(&mut self, slot: SlotId);

    /// One look at what has arrived: `Received`, or `ReceiveEnded(Stopped)` when there is nothing. Not while a receive is armed.
    fn receive_now(&mut self, slot: SlotId, group: Group);

    /// Sends all of `bytes`, however long it takes; `Sent` follows. One send at a time on a slot.
    fn send(&mut self, slot: SlotId, bytes: Vec<u8>);

    /// Sends the parts in order, gathered into one operation. `head` holds the bytes of the `Part::Bytes`.
    fn send_spans(&mut self, slot: SlotId, head: Vec<u8>, parts: &[Part]);

    /// Sends at most [`SEND_NOW_MAX`] bytes if the socket takes them now; otherwise `Sent` carries `WouldBlock`. Counts as the slot's one send.
    fn send_now(&mut self, slot: SlotId, bytes: &[u8]);

    /// Gives up on the send in flight: its `Sent` follows soon, with an error or with what had been sent. Does nothing when none is in flight.
    fn cancel_send(&mut self, slot: SlotId);

    /// Tells the peer that nothing more is sent to it; what it still sends arrives as before. Not while a send is in flight.
    fn finish(&mut self, slot: SlotId);

    /// `Closed` follows, and nothing else of that slot before it. A second call may only make the end harsher.
    fn close(&mut self, slot: SlotId, how: Close);

    fn set_owner(&mut self, slot: SlotId, owner: Owner);

    /// Shrinks the kernel's buffers of a parked socket, where the kernel can do that (6.7).
    fn small_buffers(&mut self, slot: SlotId);

    /// The whole storage of a buffer; what is beyond the length of its `Received` is leftover.
    fn buffer(&self, id: BufferId) -> &[u8];

    /// The same, to be written to by the holder of its only reference.
    fn buffer_mut(&mut self, id: BufferId) -> &mut [u8];

    /// Takes one more reference.
    fn retain(&mut self, id: BufferId);

    /// Gives up one reference; the last one returns the buffer to where it came from.
    fn release(&mut self, id: BufferId);

    /// An empty copy buffer out of the hold budget, with one reference; `None` when the budget is used up.
    fn chunk(&mut self) -> Option<BufferId>;

    /// Appends what fits to a copy buffer: where it begins there, and how much was taken.
    fn chunk_append(&mut self, id: BufferId, bytes: &[u8]) -> (u32, u32);

    /// Slots that a new upstream connection could still take.
    fn free_slots(&self) -> usize;

    /// Receive buffers of a group that somebody holds, and how many the group has.
    fn buffers(&self, group: Group) -> (usize, usize);

    /// Copy buffers in use.
    fn held_chunks(&self) -> usize;
}
