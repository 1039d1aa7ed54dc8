//! Accepting: a few dozen single accepts per listener, each with its own place for the peer's address (multishot accept gives none).
//!
//! No more accepts are armed than slots are left for them: one that finds the table full would lose its connection.
//! What is not accepted waits in the kernel's queue.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, squeue, types};
use weir_smtp::time::Moment;

use crate::net::Intercept;

use super::Ring;
use super::address::RawAddress;
use super::destination::destination;
use super::slots::Flag;
use super::token::{Op, Token};
use super::wire::{Event, Owner, SlotId};

/// Accepts in flight per listener.
pub(super) const ACCEPTS: usize = 32;

/// How long accepting rests after the kernel ran out of something that no slot of ours gives back.
const REST: Duration = Duration::from_millis(100);

pub(super) struct Listener {
    /// Closed when accepting has stopped and its last accept is over.
    socket: Option<OwnedFd>,
    /// Its connections were meant for others.
    intercept: Option<Intercept>,
    /// Where the accepts in flight write their peers' addresses; boxed, because the kernel has the places.
    peers: Box<[RawAddress; ACCEPTS]>,
    armed: u32,
    stopping: bool,
}

const _: () = assert!(ACCEPTS == u32::BITS as usize, "a bit for each");

/// The state of accepting, all listeners together.
pub(super) struct Accepting {
    pub(super) listeners: Vec<Listener>,
    /// Slots that accepts may fill, and how many of them are filled or about to be.
    pub(super) room: usize,
    pub(super) taken: usize,
    pub(super) armed: usize,
    /// Above the place where the next socket is put that was not accepted into one.
    pub(super) next_place: u32,
    /// Told the shard that the table is full; once per time it fills.
    told_full: bool,
    rest_until: Option<Moment>,
    /// A try that finds nobody makes a file and drops it again. Before 6.10 there is no other way to begin.
    poll_first: bool,
}

impl Accepting {
    pub(super) fn new(room: usize, poll_first: bool) -> Accepting {
        Accepting {
            listeners: Vec::new(),
            room,
            taken: 0,
            armed: 0,
            next_place: room as u32,
            told_full: false,
            rest_until: None,
            poll_first,
        }
    }

    pub(super) fn room_left(&self) -> usize {
        self.room - self.taken
    }

    pub(super) fn deadline(&self) -> Moment {
        self.rest_until.unwrap_or(Moment::NEVER)
    }
}

impl Ring {
    /// Accepts from a listening socket from the next turn on. Its number names it in events.
    pub fn listen(&mut self, socket: OwnedFd) -> usize {
        self.listen_for(socket, None)
    }

    /// The same on a listener that takes connections meant for other hosts: its events tell where to.
    ///
    /// A slot cannot be asked for that. So these connections are accepted as descriptors, asked, and moved into the table: two or three
    /// syscalls more for each, and one entry of the kernel.
    pub fn listen_for(&mut self, socket: OwnedFd, intercept: Option<Intercept>) -> usize {
        let listeners = &mut self.accepting.listeners;
        listeners.push(Listener {
            socket: Some(socket),
            intercept,
            peers: Box::new([RawAddress::empty(); ACCEPTS]),
            armed: 0,
            stopping: false,
        });
        listeners.len() - 1
    }

    /// Whether no connection waits in any listener's queue. To close a listener before that resets those that wait.
    pub fn accept_queues_empty(&self) -> bool {
        let sockets = self.accepting.listeners.iter().flat_map(|l| &l.socket);
        sockets.into_iter().all(|socket| !has_waiting(socket))
    }

    /// Ends accepting for good. Connections that were accepted meanwhile still come as events; the listeners close when their last accept is over.
    pub fn stop_accepting(&mut self) {
        for number in 0..self.accepting.listeners.len() {
            let listener = &mut self.accepting.listeners[number];
            listener.stopping = true;
            let armed = listener.armed;
            for index in (0..ACCEPTS as u32).filter(|index| armed >> index & 1 == 1) {
                self.cancel(accept_token(number, index));
            }
            self.close_idle_listener(number);
        }
    }

    /// Whether [`Ring::stop_accepting`] has run its course.
    pub fn has_stopped_accepting(&self) -> bool {
        let mut listeners = self.accepting.listeners.iter();
        listeners.all(|listener| listener.socket.is_none())
    }

    /// Arms as many accepts as there is room for, in turn over the listeners. Once a turn.
    pub(super) fn arm_accepts(&mut self) {
        if self.accepting.rest_until.is_some() {
            return;
        }
        let mut number = 0;
        let mut passed = 0;
        while passed < self.accepting.listeners.len() {
            let left = self.accepting.room - self.accepting.taken - self.accepting.armed;
            if left == 0 {
                break;
            }
            passed = if self.arm_accept(number) {
                0
            } else {
                passed + 1
            };
            number = (number + 1) % self.accepting.listeners.len();
        }
        self.tell_if_full();
    }

    fn arm_accept(&mut self, number: usize) -> bool {
        let listener = &mut self.accepting.listeners[number];
        let index = (!listener.armed).trailing_zeros();
        let Some(socket) = &listener.socket else {
            return false;
        };
        if listener.stopping || index == u32::BITS {
            return false;
        }
        listener.armed |= 1 << index;
        self.accepting.armed += 1;
        let peer = &mut listener.peers[index as usize];
        let len = peer.len_mut_ptr();
        let accept = opcode::Accept::new(types::Fd(socket.as_raw_fd()), peer.as_mut_ptr(), len);
        let accept = match listener.intercept {
            None => accept.file_index(Some(types::DestinationSlot::auto_target())),
            Some(_) => accept.flags(libc::SOCK_CLOEXEC),
        };
        let accept = accept.build();
        let accept = match self.accepting.poll_first {
            true => poll_first(accept),
            false => accept,
        };
        self.push(accept, accept_token(number, index));
        true
    }

    fn tell_if_full(&mut self) {
        let accepting = &mut self.accepting;
        let full = accepting.taken == accepting.room && !accepting.listeners.is_empty();
        if full && !accepting.told_full {
            self.made.push_back(Event::AcceptFailed {
                listener: 0,
                error: io::Error::from_raw_os_error(libc::ENFILE),
            });
        }
        accepting.told_full = full;
    }

    pub(super) fn accept_done(&mut self, token: Token, result: i32) -> Option<Event> {
        let number = token.index as usize / ACCEPTS;
        let index = token.index % ACCEPTS as u32;
        let listener = &mut self.accepting.listeners[number];
        listener.armed &= !(1 << index);
        self.accepting.armed -= 1;
        let peer = listener.peers[index as usize].get();
        let intercept = listener.intercept;
        self.close_idle_listener(number);
        let accepted = match intercept {
            _ if result < 0 => Err(io::Error::from_raw_os_error(-result)),
            None => Ok((SlotId(result as u32), None)),
            Some(how) => self.intercepted(result, how),
        };
        let error = match accepted {
            Ok((slot, destination)) => {
                return Some(self.accepted(number, slot, peer, destination));
            }
            Err(error) => error,
        };
        match error.raw_os_error().unwrap_or_default() {
            // The peer left before it was accepted, or we do not want to accept any more.
            libc::ECANCELED | libc::ECONNABORTED | libc::EINTR | libc::EPROTO => None,
            // All accepts in flight fail alike: told once.
            _ if self.accepting.rest_until.is_some() => None,
            _ => {
                self.accepting.rest_until = Some(self.now + REST);
                Some(Event::AcceptFailed {
                    listener: number,
                    error,
                })
            }
        }
    }

    /// A connection that was meant for another host, as a descriptor.
    fn intercepted(
        &mut self,
        descriptor: i32,
        how: Intercept,
    ) -> io::Result<(SlotId, Option<SocketAddr>)> {
        // SAFETY: the accept has just made this descriptor, and nobody else has heard of it.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let destination = destination(&socket, how)?;
        Ok((self.place(socket)?, Some(destination)))
    }

    /// Whether the accept of this token takes a slot by itself.
    pub(super) fn accepts_into_slots(&self, token: Token) -> bool {
        let listener = &self.accepting.listeners[token.index as usize / ACCEPTS];
        listener.intercept.is_none()
    }

    fn accepted(
        &mut self,
        listener: usize,
        id: SlotId,
        peer: SocketAddr,
        destination: Option<SocketAddr>,
    ) -> Event {
        self.accepting.taken += 1;
        self.stats.accepted += 1;
        self.slots.open(id, Owner::NONE).set(Flag::Accepted);
        Event::Accepted {
            listener,
            slot: id,
            peer,
            destination,
        }
    }

    /// A slot that accepts may fill has come free: also a reason to try again before the rest is over.
    pub(super) fn accepted_slot_free(&mut self) {
        self.accepting.taken -= 1;
        self.accepting.rest_until = None;
    }

    pub(super) fn end_rest(&mut self) {
        if self.accepting.deadline() <= self.now {
            self.accepting.rest_until = None;
        }
    }

    fn close_idle_listener(&mut self, number: usize) {
        let listener = &mut self.accepting.listeners[number];
        if listener.stopping && listener.armed == 0 {
            listener.socket = None;
        }
    }
}

/// Makes an accept wait for a connection before its first try (IORING_ACCEPT_POLL_FIRST).
fn poll_first(mut accept: squeue::Entry) -> squeue::Entry {
    const IOPRIO: usize = 1;
    const POLL_FIRST: u16 = 1 << 2;
    let words = (&raw mut accept).cast::<u16>();
    // SAFETY: an entry is the kernel's io_uring_sqe, whose bytes 2 and 3 are `ioprio`; the crate has no call for it.
    unsafe { *words.add(IOPRIO) |= POLL_FIRST };
    accept
}

const _: () = assert!(size_of::<squeue::Entry>() == 64);

fn accept_token(listener: usize, index: u32) -> Token {
    Token::plain(Op::Accept, (listener * ACCEPTS) as u32 + index)
}

fn has_waiting(socket: &OwnedFd) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd, and no time to wait.
    let ready = unsafe { libc::poll(&mut poll, 1, 0) };
    ready > 0 && poll.revents & libc::POLLIN != 0
}
