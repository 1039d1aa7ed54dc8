//! The byte pump: client and server talk TLS with each other, and weir moves what it cannot read.
//!
//! A tunnel begins behind the server's 220 to the client's own STARTTLS. Its session and its leg stay in their slabs, for
//! the books and the log; their sockets have the tunnel as their owner, so no byte takes the way of a dialogue. What
//! arrives is sent on from the very buffers it arrived in, all that came in a turn in one send. A side whose peer does not
//! take it is not read any more; when buffers are scarce, sooner, and what waits is copied to the hold budget.
//!
//! Limits of connections hold as for any session, the byte rate as for a body. A tunnel in which nothing moves ends after
//! `--timeout-idle`, and any after [`LIFE_MAX`]. Whoever ends its side is heard no more, but hears the other out.

mod pipe;

use std::io;
use std::time::Duration;

use hashbrown::HashMap;
use weir_smtp::relay::Gone;
use weir_smtp::time::Moment;

use crate::metrics::{Ended, Way};
use crate::ring::{BufferId, Close, Group, Part, ReceiveEnd, Wire};

use super::flights::{COPY_FLIGHT, PARTS_MAX};
use super::intake::Supply;
use super::slab::{Key, Slab};
use super::who::{Side, Who};
use super::world::World;
use pipe::{Fin, Piece, Pipe, Tunnel};

/// A tunnel ends after this, however busy it is.
const LIFE_MAX: Duration = Duration::from_secs(4 * 3600);

/// The end of one side is passed on after this: mostly the other side ends as well by then, and both are just closed.
const FIN_GRACE: Duration = Duration::from_millis(30);

/// Buffers that may wait for a peer before its other side is not read any more: 16 KiB each. Fewer when they are scarce.
const WAITING_MAX: usize = 16;
const WAITING_FEW: usize = 4;

/// The tunnels of one shard.
pub struct Tunnels {
    slab: Slab<Tunnel>,
    by_session: HashMap<Key, Key, foldhash::fast::RandomState>,
    /// Sides that have something to send on at the end of the turn.
    ready: Vec<(Key, Side)>,
}

impl Tunnels {
    pub fn new(slots: u32) -> Tunnels {
        Tunnels {
            slab: Slab::new(slots),
            by_session: HashMap::default(),
            ready: Vec::new(),
        }
    }

    pub fn of_session(&self, session: Key) -> Option<Key> {
        self.by_session.get(&session).copied()
    }

    /// Something waits for the end of the turn.
    pub fn has_work(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl<W: Wire> World<W> {
    /// The upstream has said 220 to the client's own STARTTLS. What else came before it was said in the clear and is
    /// thrown away: neither side may take it for something that TLS protects.
    pub(super) fn begin_tunnel(&mut self, key: Key) {
        let unread = self.sessions.get(key).map_or(0, |one| one.waiting_octets());
        if unread > 0 {
            self.counters.plaintext_discarded.inc();
            self.drop_intake(key);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (slot, leg_key) = (session.slot, session.leg);
        let leg = leg_key.and_then(|leg| self.legs.get(leg));
        let (Some(client), Some(leg)) = (slot, leg) else {
            return self.client_lost(key);
        };
        let mut up = Pipe::new(client, leg.slot, Group::Client);
        let mut down = Pipe::new(leg.slot, client, Group::Upstream);
        up.receiving = session.flags.receiving;
        up.sending = leg.sending;
        down.sending = session.flags.sending;
        down.head = std::mem::take(&mut session.out);
        session.bytes_out += down.head.len() as u64;
        let tunnel = Tunnel {
            session: key,
            client: up,
            server: down,
            moved: self.now,
            ends_at: self.now + LIFE_MAX,
            armed: Moment::NEVER,
        };
        let Ok(id) = self.tunnels.slab.insert(tunnel) else {
            unreachable!("there are no more tunnels than sockets");
        };
        session.flags.tunnelled = true;
        self.tunnels.by_session.insert(key, id);
        let slots = [(client, Side::Client), (leg.slot, Side::Server)];
        for (slot, side) in slots {
            self.wire.set_owner(slot, Who::Tunnel(id, side).owner());
        }
        self.counters.tunnels_begun.inc();
        self.counters.tunnels.inc();
        self.get_ready(id, Side::Server);
        self.receive_on(id, Side::Client);
        self.arm_tunnel(id);
    }

    pub(super) fn tunnel_received(&mut self, id: Key, side: Side, buffer: BufferId, len: u32) {
        let most = self.waiting_max(side);
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return self.release(buffer);
        };
        tunnel.moved = self.now;
        let session = tunnel.session;
        let pipe = tunnel.pipe(side);
        pipe.octets += u64::from(len);
        let (start, stuck) = (0, pipe.sending);
        pipe.waiting.push_back(Piece { buffer, start, len });
        if pipe.waiting.len() >= most && pipe.receiving {
            self.wire.stop_receive(pipe.from);
        }
        match side {
            Side::Client => {
                self.counters.client_bytes.at(Way::In).add(len.into());
                self.charge_tunnel(id, session, len);
            }
            Side::Server => self.counters.upstream_bytes.at(Way::In).add(len.into()),
        }
        if stuck && most == 1 {
            return self.put_piece_aside(id, side);
        }
        self.get_ready(id, side);
    }

    /// The client's share of its byte rate is used up: it is not read for a while.
    fn charge_tunnel(&mut self, id: Key, session: Key, len: u32) {
        let Some(pause) = self.charge(session, len) else {
            return;
        };
        if let Some(tunnel) = self.tunnels.slab.get_mut(id) {
            tunnel.client.pause_until = self.now + pause;
            if tunnel.client.receiving {
                self.wire.stop_receive(tunnel.client.from);
            }
            self.arm_tunnel(id);
        }
    }

    /// A receive buffer that would wait is copied, while there are few. Without room for that the tunnel ends: a shard whose
    /// buffers all wait for peers that do not read serves nobody.
    fn put_piece_aside(&mut self, id: Key, side: Side) {
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        let Some(piece) = tunnel.pipe(side).waiting.pop_back() else {
            return;
        };
        let bytes = &self.wire.buffer(piece.buffer)[piece.start as usize..][..piece.len as usize];
        let mut rest = bytes.to_vec();
        self.release(piece.buffer);
        while !rest.is_empty() {
            let Some(copy) = Self::copy(&mut self.wire, &mut self.aside, &rest) else {
                return self.end_tunnel(id, Ended::Overload, Close::Reset);
            };
            rest.drain(..copy.len as usize);
            if let Some(tunnel) = self.tunnels.slab.get_mut(id) {
                tunnel.pipe(side).waiting.push_back(Piece {
                    buffer: copy.buffer,
                    start: copy.start,
                    len: copy.len,
                });
            }
        }
    }

    fn waiting_max(&self, side: Side) -> usize {
        let group = match side {
            Side::Client => Group::Client,
            Side::Server => Group::Upstream,
        };
        match self.supply_of(group) {
            Supply::Plenty => WAITING_MAX,
            Supply::Fair => WAITING_FEW,
            Supply::Low | Supply::Dry => 1,
        }
    }

    fn get_ready(&mut self, id: Key, side: Side) {
        if let Some(tunnel) = self.tunnels.slab.get_mut(id) {
            let pipe = tunnel.pipe(side);
            if !pipe.ready && !pipe.sending {
                pipe.ready = true;
                self.tunnels.ready.push((id, side));
            }
        }
    }

    /// The end of a turn: what came in it goes on, each side's in one send.
    pub(super) fn pump_tunnels(&mut self) {
        // One that panics leaves the others on the list.
        while let Some((id, side)) = self.tunnels.ready.pop() {
            self.step(Who::Tunnel(id, side));
            self.send_on(id, side);
        }
    }

    fn send_on(&mut self, id: Key, side: Side) {
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        let pipe = tunnel.pipe(side);
        pipe.ready = false;
        if pipe.sending {
            return;
        }
        if pipe.head.is_empty() && pipe.waiting.is_empty() {
            return self.pass_end_on(id, side);
        }
        pipe.sending = true;
        let to = pipe.to;
        let mut flight = std::mem::take(&mut pipe.head);
        let pieces: &[Piece] = {
            let most = pipe.waiting.len().min(PARTS_MAX);
            &pipe.waiting.make_contiguous()[..most]
        };
        let octets: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
        let way = match side {
            Side::Client => &self.counters.upstream_bytes,
            Side::Server => &self.counters.client_bytes,
        };
        way.at(Way::Out).add(octets);
        if octets <= COPY_FLIGHT || !flight.is_empty() {
            // A gathered send is dearer than the copy of a page or two.
            if flight.capacity() == 0 {
                flight = self.flights.take(octets as usize);
            }
            for piece in pieces {
                let bytes = &self.wire.buffer(piece.buffer)[piece.start as usize..];
                flight.extend_from_slice(&bytes[..piece.len as usize]);
            }
            self.wire.send(to, flight);
        } else {
            self.parts.clear();
            self.parts.extend(pieces.iter().map(|piece| Part::Span {
                buffer: piece.buffer,
                start: piece.start,
                len: piece.len,
            }));
            let head = self.flights.take(0);
            self.wire.send_spans(to, head, &self.parts);
        }
        // A gathered send has references of its own.
        for piece in pieces {
            self.wire.release(piece.buffer);
        }
        let sent = pieces.len();
        pipe.waiting.drain(..sent);
    }

    pub(super) fn tunnel_sent(
        &mut self,
        id: Key,
        to: Side,
        result: io::Result<usize>,
        flight: Vec<u8>,
    ) {
        self.flights.give_back(flight);
        // What was sent to one side had come from the other.
        let from = to.other();
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        tunnel.moved = self.now;
        tunnel.pipe(from).sending = false;
        if result.is_err() {
            return self.end_tunnel(id, Ended::Tunnel, Close::Reset);
        }
        self.get_ready(id, from);
        self.receive_on(id, from);
    }

    pub(super) fn tunnel_receive_ended(&mut self, id: Key, side: Side, why: ReceiveEnd) {
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        let pipe = tunnel.pipe(side);
        pipe.receiving = false;
        match why {
            ReceiveEnd::Stopped | ReceiveEnd::NoBuffers => self.receive_on(id, side),
            ReceiveEnd::Eof => {
                pipe.ended = true;
                tunnel.moved = self.now;
                self.get_ready(id, side);
            }
            ReceiveEnd::Reset(_) => self.end_tunnel(id, Ended::Tunnel, Close::Reset),
        }
    }

    /// Reads a side on, unless it has ended, has to pause, or its peer takes too little.
    fn receive_on(&mut self, id: Key, side: Side) {
        let most = self.waiting_max(side);
        let now = self.now;
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        let pipe = tunnel.pipe(side);
        if pipe.receiving || pipe.ended || pipe.pause_until > now || pipe.waiting.len() >= most {
            return;
        }
        pipe.receiving = true;
        let (from, group) = (pipe.from, pipe.group);
        self.wire.start_receive(from, group);
    }

    /// All that this side had to say has been passed on: so is its end, if it has come.
    fn pass_end_on(&mut self, id: Key, side: Side) {
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        let over = |pipe: &Pipe| pipe.ended && pipe.is_drained();
        if over(&tunnel.client) && over(&tunnel.server) {
            return self.end_tunnel(id, Ended::Tunnel, Close::Now);
        }
        let pipe = tunnel.pipe(side);
        if over(pipe) && pipe.fin == Fin::No {
            pipe.fin = Fin::At(self.now + FIN_GRACE);
            self.arm_tunnel(id);
        }
    }

    pub(super) fn tunnel_timer(&mut self, id: Key) {
        let (now, idle) = (self.now, self.config.smtp.timeouts.idle);
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        if now < tunnel.armed {
            return;
        }
        tunnel.armed = Moment::NEVER;
        let mut paused = false;
        for pipe in [&mut tunnel.client, &mut tunnel.server] {
            if matches!(pipe.fin, Fin::At(at) if at <= now) {
                pipe.fin = Fin::Passed;
                self.wire.finish(pipe.to);
            }
            if pipe.pause_until > Moment::ZERO && pipe.pause_until <= now {
                pipe.pause_until = Moment::ZERO;
                paused = true;
            }
        }
        if tunnel.deadline(idle) <= now {
            return self.end_tunnel(id, Ended::Timeout, Close::Reset);
        }
        if paused {
            self.receive_on(id, Side::Client);
        }
        self.arm_tunnel(id);
    }

    fn arm_tunnel(&mut self, id: Key) {
        let idle = self.config.smtp.timeouts.idle;
        let Some(tunnel) = self.tunnels.slab.get_mut(id) else {
            return;
        };
        let deadline = tunnel.deadline(idle);
        if deadline < tunnel.armed {
            tunnel.armed = deadline;
            let who = Who::Tunnel(id, Side::Client);
            self.wheel.insert(deadline, who.to_bits());
        }
    }

    /// Takes the tunnel out; the session ends with both its connections. `how`: the client's connection is closed.
    pub(super) fn end_tunnel(&mut self, id: Key, ended: Ended, how: Close) {
        let Some(tunnel) = self.take_tunnel(id) else {
            return;
        };
        let key = tunnel.session;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.flags.tunnelled = false;
        session.bytes_in += tunnel.client.octets;
        session.bytes_out += tunnel.server.octets;
        session.ended = ended;
        session.flags.closing = true;
        if let Some(slot) = session.slot.take() {
            self.close_slot(slot, how);
        }
        if let Some(leg) = self.sessions.get_mut(key).and_then(|one| one.leg.take()) {
            self.close_leg(leg, None);
        }
        self.step(Who::Session(key));
        self.relay_step(key, |relay, cx| relay.handle_client_gone(cx, Gone::Reset));
    }

    /// After a panic: the tunnel is forgotten, its session ends like any other.
    pub(super) fn abandon_tunnel(&mut self, id: Key) -> Option<Key> {
        let session = self.tunnels.slab.get_mut(id)?.session;
        self.abandon_session(session)
    }

    /// The session is being abandoned. Its tunnel must not outlive it: the slots that it knows may soon be others'.
    pub(super) fn forget_tunnel_of(&mut self, session: Key) {
        if let Some(id) = self.tunnels.of_session(session) {
            self.take_tunnel(id);
        }
    }

    /// Takes it out of all books, and gives back what waits in it.
    fn take_tunnel(&mut self, id: Key) -> Option<Tunnel> {
        let tunnel = self.tunnels.slab.remove(id)?;
        self.tunnels.by_session.remove(&tunnel.session);
        self.counters.tunnels.dec();
        let octets = &self.counters.tunnel_bytes;
        octets.at(Way::In).add(tunnel.client.octets);
        octets.at(Way::Out).add(tunnel.server.octets);
        for piece in tunnel.client.waiting.iter().chain(&tunnel.server.waiting) {
            self.wire.release(piece.buffer);
        }
        Some(tunnel)
    }
}
