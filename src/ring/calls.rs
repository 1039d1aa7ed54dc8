//! What the shard asks: the ring as a [`Wire`].

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, types};

use super::Ring;
use super::address::RawAddress;
use super::dialing;
use super::slots::Flag;
use super::token::Op;
use super::wire::{
    BufferId, Close, Dial, Group, Owner, Part, ReceiveEnd, SEND_NOW_MAX, SlotId, Wire,
};

/// A send up to this size finds room in an ordinary socket's buffer, so it completes at once, and
/// hardly ever is anything waiting for that.
const SHORT_SEND: u32 = 16 * 1024;

/// What a parked socket's buffers shrink to; the kernel has a floor of its own.
static SMALL_BUFFER: libc::c_int = 2048;

impl Wire for Ring {
    /// The socket is made by syscalls and moved into the table: four of them per connection, which is then used for many messages,
    /// and every kernel since 6.1 can set TCP_NODELAY that way.
    fn connect(&mut self, dial: &Dial, owner: Owner) -> io::Result<SlotId> {
        let Some(&id) = self.free.last() else {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        };
        let socket = dialing::socket_for(dial)?;
        self.uring
            .submitter()
            .register_files_update(id.0, &[socket.as_raw_fd()])?;
        self.free.pop();
        let flight = self.flights.begin();
        let slot = self.slots.open(id, owner);
        slot.set(Flag::Connecting);
        slot.flight = flight;
        let to = self
            .flights
            .get(flight)
            .connect_to(RawAddress::new(&dial.to));
        let connect = opcode::Connect::new(types::Fixed(id.0), to.as_ptr(), to.len()).build();
        self.push_for(id, Op::Connect, connect);
        self.stats.connects += 1;
        Ok(id)
    }

    /// As above, and the connect is a syscall too. Who sends datagrams uses a socket for many.
    fn connect_datagram(&mut self, to: SocketAddr, owner: Owner) -> io::Result<SlotId> {
        let Some(&id) = self.free.last() else {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        };
        let socket = dialing::datagram_socket_for(to)?;
        self.uring
            .submitter()
            .register_files_update(id.0, &[socket.as_raw_fd()])?;
        self.free.pop();
        self.slots.open(id, owner).set(Flag::Datagram);
        Ok(id)
    }

    fn extract(&mut self, slot: SlotId) -> io::Result<()> {
        self.begin_extract(slot)
    }

    fn adopt(&mut self, socket: OwnedFd, owner: Owner) -> io::Result<SlotId> {
        self.take_in(socket, owner)
    }

    fn start_receive(&mut self, slot: SlotId, group: Group) {
        let entry = self.slots.live(slot);
        assert!(
            !entry.has(Flag::Looking),
            "a receive armed beside a look at slot {}",
            slot.0
        );
        if entry.has(Flag::Closing) || entry.has(Flag::Waiting) {
            return;
        }
        if entry.has(Flag::Receiving) {
            entry.clear(Flag::Stopping);
            return;
        }
        entry.set_group(group);
        self.arm_receive(slot);
    }

    fn stop_receive(&mut self, slot: SlotId) {
        let entry = self.slots.live(slot);
        if entry.has(Flag::Closing) {
            return;
        }
        if entry.has(Flag::Waiting) {
            entry.clear(Flag::Waiting);
            let ended = self.ended(slot, ReceiveEnd::Stopped);
            self.made.push_back(ended);
            return;
        }
        if entry.has(Flag::Receiving) && !entry.has(Flag::Stopping) {
            entry.set(Flag::Stopping);
            let token = self.slots.token(slot, Op::Receive);
            self.cancel(token);
        }
    }

    fn receive_now(&mut self, slot: SlotId, group: Group) {
        let entry = self.slots.live(slot);
        if entry.has(Flag::Closing) {
            return;
        }
        let armed = [Flag::Receiving, Flag::Waiting, Flag::Looking];
        assert!(
            !armed.into_iter().any(|flag| entry.has(flag)),
            "a look at slot {} beside its armed receive",
            slot.0
        );
        entry.set(Flag::Looking);
        entry.set_group(group);
        let look = opcode::Recv::new(types::Fixed(slot.0), std::ptr::null_mut(), 0)
            .flags(libc::MSG_DONTWAIT)
            .buf_group(group as u16)
            .build()
            .flags(io_uring::squeue::Flags::BUFFER_SELECT);
        self.push_for(slot, Op::Look, look);
    }

    fn send(&mut self, slot: SlotId, bytes: Vec<u8>) {
        if !self.begin_send(slot) {
            return;
        }
        let flight = self.flights.begin();
        self.slots.live(slot).flight = flight;
        let (base, len) = self.flights.get(flight).load(bytes);
        self.at_once += u32::from(len <= SHORT_SEND);
        let send = opcode::Send::new(types::Fixed(slot.0), base, len)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push_for(slot, Op::Send, send);
    }

    fn send_spans(&mut self, slot: SlotId, head: Vec<u8>, parts: &[Part]) {
        if !self.begin_send(slot) {
            return;
        }
        let flight = self.flights.begin();
        self.slots.live(slot).flight = flight;
        let buffers = &mut self.buffers;
        self.flights
            .get(flight)
            .gather(head, parts, |id, start, len| {
                buffers.retain(id);
                buffers.bytes(id)[start as usize..][..len as usize].as_ptr()
            });
        self.push_gather(slot);
    }

    fn send_now(&mut self, slot: SlotId, bytes: &[u8]) {
        assert!(
            (1..=SEND_NOW_MAX).contains(&bytes.len()),
            "a drip of {} bytes",
            bytes.len()
        );
        if !self.begin_send(slot) {
            return;
        }
        self.slots.live(slot).drip[..bytes.len()].copy_from_slice(bytes);
        let base = self.slots.drip(slot);
        let send = opcode::Send::new(types::Fixed(slot.0), base, bytes.len() as u32)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .build();
        self.push_for(slot, Op::Drip, send);
    }

    fn cancel_send(&mut self, slot: SlotId) {
        let entry = self.slots.live(slot);
        if entry.has(Flag::Sending) && !entry.has(Flag::Closing) {
            self.cancel_sending(slot);
        }
    }

    fn finish(&mut self, slot: SlotId) {
        let entry = self.slots.live(slot);
        assert!(
            !entry.has(Flag::Sending),
            "what is still being sent on slot {} would be lost",
            slot.0
        );
        let over = [Flag::Closing, Flag::ShuttingDown, Flag::ShutDown];
        if !over.into_iter().any(|flag| entry.has(flag)) {
            self.shut_down(slot);
        }
    }

    fn close(&mut self, slot: SlotId, how: Close) {
        self.stats.closes += 1;
        self.begin_close(slot, how);
    }

    fn set_owner(&mut self, slot: SlotId, owner: Owner) {
        self.slots.live(slot).owner = owner;
    }

    fn small_buffers(&mut self, slot: SlotId) {
        if !self.small_buffers || self.slots.live(slot).has(Flag::Closing) {
            return;
        }
        for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
            let shrink = opcode::SetSockOpt::new(
                types::Fixed(slot.0),
                libc::SOL_SOCKET as u32,
                option as u32,
                (&raw const SMALL_BUFFER).cast(),
                size_of::<libc::c_int>() as u32,
            )
            .build();
            self.push_for(slot, Op::Option, shrink);
        }
    }

    fn buffer(&self, id: BufferId) -> &[u8] {
        self.buffers.bytes(id)
    }

    fn buffer_mut(&mut self, id: BufferId) -> &mut [u8] {
        self.buffers.bytes_mut(id)
    }

    fn retain(&mut self, id: BufferId) {
        self.buffers.retain(id);
    }

    fn release(&mut self, id: BufferId) {
        self.buffers.release(id);
    }

    fn chunk(&mut self) -> Option<BufferId> {
        self.buffers.chunk()
    }

    fn chunk_append(&mut self, id: BufferId, bytes: &[u8]) -> (u32, u32) {
        self.buffers.chunk_append(id, bytes)
    }

    fn free_slots(&self) -> usize {
        self.free.len()
    }

    fn buffers(&self, group: Group) -> (usize, usize) {
        (self.buffers.held(group), self.buffers.count(group))
    }

    fn held_chunks(&self) -> usize {
        self.buffers.held_chunks()
    }
}

impl Ring {
    /// Marks the slot's one send. False on a slot that is closing: nothing is sent there any more.
    fn begin_send(&mut self, id: SlotId) -> bool {
        let slot = self.slots.live(id);
        if slot.has(Flag::Closing) {
            return false;
        }
        assert!(
            !slot.has(Flag::Sending),
            "a second send in flight on slot {}",
            id.0
        );
        slot.set(Flag::Sending);
        self.stats.sends += 1;
        true
    }

    pub(super) fn push_gather(&mut self, id: SlotId) {
        let flight = self.slots.live(id).flight;
        let message = self.flights.get(flight).message();
        let send = opcode::SendMsg::new(types::Fixed(id.0), message)
            .flags((libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32)
            .build();
        self.push_for(id, Op::Gather, send);
    }

    /// Cancels whichever send is in flight: the tokens of those that are not name nothing.
    pub(super) fn cancel_sending(&mut self, id: SlotId) {
        for op in [Op::Send, Op::Gather, Op::Drip] {
            let token = self.slots.token(id, op);
            self.cancel(token);
        }
    }
}
