//! The network between clients, weir and upstreams, in virtual time: connections whose bytes arrive late, in pieces, or not at all.
//!
//! A connection has two ends. What one end writes is cut into segments that arrive in order at the other, after a delay of their own; an end
//! that does not read fills its window, and then nothing more can be written to it. A [`Line`] says how a connection behaves and where it
//! breaks: at which octet it is reset, or falls silent. Everything that will happen stands in one queue; [`Net::advance`] lets it happen and
//! notes who has to look at his end.

mod datagrams;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use weir_smtp::time::Moment;

use crate::chance::Chance;

pub use datagrams::{Fate, Heard};

use datagrams::Port;

/// A connect that nobody answers is given up after this, as Linux does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(130);

pub type SharedNet = Rc<RefCell<Net>>;

/// One end of a connection; side 0 is who connected.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct End {
    pub conn: u32,
    pub side: u8,
}

impl End {
    pub fn other(self) -> End {
        End {
            conn: self.conn,
            side: 1 - self.side,
        }
    }
}

/// Who is told when something happens at an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    Task(usize),
    /// A slot of a shard's wire, in this life of it.
    Slot {
        shard: usize,
        slot: u32,
        life: u32,
    },
}

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct Line {
    pub latency: Duration,
    /// Added to a segment's latency, up to this.
    pub jitter: Duration,
    /// One segment in so many is held up for seconds; 0: none.
    pub stalls: u64,
    pub cut: Cut,
    /// Octets that may be under way or unread, in one direction.
    pub window: usize,
    /// Octets written by a side after which the connection is reset.
    pub breaks: [Option<u64>; 2],
    /// Octets written by a side after which nothing of it arrives any more.
    pub mutes: [Option<u64>; 2],
}

impl Line {
    pub fn smooth() -> Line {
        Line {
            latency: Duration::from_micros(200),
            jitter: Duration::ZERO,
            stalls: 0,
            cut: Cut::Whole,
            window: 256 * 1024,
            breaks: [None; 2],
            mutes: [None; 2],
        }
    }
}

/// Sizes of segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    Whole,
    Mss,
    Small,
    /// Octet by octet at first, which is where commands and chunk headers are.
    Tiny,
}

/// How an address takes connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Door {
    Open,
    Refuses,
    /// Packets get lost.
    Dead,
}

#[derive(Debug)]
pub enum Read {
    Bytes(Vec<u8>),
    Nothing,
    Fin,
    Reset,
}

/// Where a connection stands, seen from the side that opens it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    UnderWay,
    Open,
    Failed(io::ErrorKind),
}

/// A new connection at somebody who listens.
#[derive(Debug)]
pub struct Arrival {
    pub at: SocketAddr,
    pub from: SocketAddr,
    pub end: End,
}

#[derive(Debug, Default)]
struct Half {
    party: Option<Party>,
    /// Written by the party, not on the wire yet for want of window.
    outbox: VecDeque<u8>,
    fin_wanted: bool,
    fin_sent: bool,
    sent: u64,
    last_arrival: Moment,
    /// When the outbox was last emptied.
    flushed: Moment,
    /// A write was cut short: tell when there is room.
    blocked: bool,
    inbox: VecDeque<u8>,
    in_flight: usize,
    fin: bool,
    reset: bool,
    /// The party has closed it.
    closed: bool,
    /// Octets the party has acted on: for the wire, handed out to the world.
    heard: u64,
}

struct Conn {
    halves: [Half; 2],
    line: Line,
    opening: Opening,
    to: SocketAddr,
    from: SocketAddr,
    /// Something the network did keeps a peer from hearing the other.
    faulty: bool,
}

#[derive(Debug)]
enum Happening {
    Segment {
        to: End,
        bytes: Vec<u8>,
    },
    Fin {
        to: End,
    },
    Reset {
        to: End,
    },
    Connect {
        conn: u32,
    },
    Wake(Party),
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    /// Nobody takes datagrams at `by`.
    Refusal {
        to: SocketAddr,
        by: SocketAddr,
    },
}

struct Due {
    at: Moment,
    number: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct Net {
    now: Moment,
    chance: Chance,
    conns: Vec<Conn>,
    doors: BTreeMap<SocketAddr, Door>,
    queue: BinaryHeap<Reverse<Due>>,
    number: u64,
    told: VecDeque<Party>,
    arrivals: VecDeque<Arrival>,
    ports: BTreeMap<SocketAddr, Port>,
    ports_given: u16,
    fate: Fate,
}

impl Net {
    pub fn new(chance: Chance) -> Net {
        Net {
            now: Moment::from_micros(1),
            chance,
            conns: Vec::new(),
            doors: BTreeMap::new(),
            queue: BinaryHeap::new(),
            number: 0,
            told: VecDeque::new(),
            arrivals: VecDeque::new(),
            ports: BTreeMap::new(),
            ports_given: 0,
            fate: Fate::default(),
        }
    }

    pub fn now(&self) -> Moment {
        self.now
    }

    /// When something happens next.
    pub fn next(&self) -> Moment {
        if !self.told.is_empty() || !self.arrivals.is_empty() {
            return self.now;
        }
        self.queue.peek().map_or(Moment::NEVER, |due| due.0.at)
    }

    /// Lets time pass and everything happen that is due by then.
    pub fn advance(&mut self, to: Moment) {
        assert!(to >= self.now, "time does not run backwards");
        self.now = to;
        while self.queue.peek().is_some_and(|due| due.0.at <= to) {
            let Some(Reverse(due)) = self.queue.pop() else {
                break;
            };
            self.happen(due.what);
        }
    }

    pub fn take_told(&mut self) -> Option<Party> {
        self.told.pop_front()
    }

    pub fn take_arrival(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front()
    }

    pub fn wake(&mut self, party: Party, at: Moment) {
        self.schedule(at, Happening::Wake(party));
    }

    pub fn set_door(&mut self, at: SocketAddr, door: Door) {
        self.doors.insert(at, door);
    }

    /// Every connection of this address is reset, as when its machine is switched off and on.
    pub fn crash(&mut self, at: SocketAddr) {
        for conn in 0..self.conns.len() as u32 {
            let entry = &self.conns[conn as usize];
            if entry.to == at && entry.opening == Opening::Open {
                self.reset(End { conn, side: 1 });
            }
        }
    }

    pub fn connect(&mut self, from: SocketAddr, to: SocketAddr, line: Line, party: Party) -> End {
        let conn = self.conns.len() as u32;
        let latency = line.latency;
        let halves = [
            Half {
                party: Some(party),
                ..Half::default()
            },
            Half::default(),
        ];
        self.conns.push(Conn {
            halves,
            line,
            opening: Opening::UnderWay,
            to,
            from,
            faulty: false,
        });
        let wait = match self.door(to) {
            Door::Dead => CONNECT_TIMEOUT,
            Door::Open | Door::Refuses => latency * 2,
        };
        self.schedule(self.now + wait, Happening::Connect { conn });
        End { conn, side: 0 }
    }

    /// Takes an arrival over.
    pub fn adopt(&mut self, end: End, party: Party) {
        self.half(end).party = Some(party);
        self.told.push_back(party);
    }

    pub fn opening(&self, end: End) -> Opening {
        self.conns[end.conn as usize].opening
    }

    /// Puts on the wire what there is room for. An error: the connection is gone.
    pub fn write(&mut self, from: End, bytes: &[u8]) -> io::Result<usize> {
        let half = self.half(from);
        if half.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if half.fin_wanted {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let len = bytes.len().min(self.room(from));
        self.put(from, &bytes[..len]);
        if len < bytes.len() {
            self.half(from).blocked = true;
        }
        Ok(len)
    }

    /// Room for a write without blocking.
    pub fn room(&self, from: End) -> usize {
        let conn = &self.conns[from.conn as usize];
        let to = &conn.halves[from.other().side as usize];
        conn.line
            .window
            .saturating_sub(to.inbox.len() + to.in_flight)
    }

    /// Written whenever there is room: a peer's application with all the memory it wants.
    pub fn queue(&mut self, from: End, bytes: &[u8]) {
        let half = self.half(from);
        if !half.reset && !half.fin_wanted {
            half.outbox.extend(bytes);
            self.pump(from);
        }
    }

    pub fn read(&mut self, end: End, max: usize) -> Read {
        let half = self.half(end);
        if !half.inbox.is_empty() {
            let len = half.inbox.len().min(max);
            let bytes: Vec<u8> = half.inbox.drain(..len).collect();
            self.room_came(end.other());
            return Read::Bytes(bytes);
        }
        if half.reset {
            Read::Reset
        } else if half.fin {
            Read::Fin
        } else {
            Read::Nothing
        }
    }

    pub fn readable(&self, end: End) -> bool {
        let half = self.peek(end);
        !half.inbox.is_empty() || half.fin || half.reset
    }

    /// No more will be written at this end.
    pub fn shut_down(&mut self, end: End) {
        self.half(end).fin_wanted = true;
        self.pump(end);
    }

    /// As close(2): what was written still goes out, and whatever was or will be received unread is answered with a reset.
    pub fn close(&mut self, end: End) {
        if self.opening(end) != Opening::Open {
            self.half(end).closed = true;
            return;
        }
        let half = self.half(end);
        let unread = !half.inbox.is_empty();
        half.closed = true;
        half.party = None;
        half.inbox.clear();
        if unread {
            self.send_reset(end.other());
            self.half(end).reset = true;
        } else {
            self.shut_down(end);
        }
    }

    /// Abortive.
    pub fn reset(&mut self, end: End) {
        let half = self.half(end);
        half.closed = true;
        half.party = None;
        if half.reset {
            return;
        }
        half.reset = true;
        half.outbox.clear();
        if self.opening(end) == Opening::Open {
            self.send_reset(end.other());
        }
    }

    /// Octets this end has written so far, what waits in its outbox included.
    pub fn written(&self, end: End) -> u64 {
        let half = self.peek(end);
        half.sent + half.outbox.len() as u64
    }

    /// Octets the party at this end has acted on.
    pub fn heard(&self, end: End) -> u64 {
        self.peek(end).heard
    }

    pub fn add_heard(&mut self, end: End, octets: u64) {
        self.half(end).heard += octets;
    }

    /// When everything written at this end was last on its way; `None` while some still waits.
    pub fn flushed(&self, end: End) -> Option<Moment> {
        let half = self.peek(end);
        half.outbox.is_empty().then_some(half.flushed)
    }

    /// The network broke this connection, or lost part of it.
    pub fn is_faulty(&self, end: End) -> bool {
        self.conns[end.conn as usize].faulty
    }

    fn door(&self, at: SocketAddr) -> Door {
        self.doors.get(&at).copied().unwrap_or(Door::Refuses)
    }

    fn half(&mut self, end: End) -> &mut Half {
        &mut self.conns[end.conn as usize].halves[end.side as usize]
    }

    fn peek(&self, end: End) -> &Half {
        &self.conns[end.conn as usize].halves[end.side as usize]
    }

    fn tell(&mut self, end: End) {
        if let Some(party) = self.half(end).party {
            self.told.push_back(party);
        }
    }

    fn schedule(&mut self, at: Moment, what: Happening) {
        self.number += 1;
        let at = at.max(self.now);
        self.queue.push(Reverse(Due {
            at,
            number: self.number,
            what,
        }));
    }

    fn pump(&mut self, from: End) {
        let room = self.room(from);
        let half = self.half(from);
        if half.reset {
            return;
        }
        let len = room.min(half.outbox.len());
        let bytes: Vec<u8> = half.outbox.drain(..len).collect();
        self.put(from, &bytes);
        let now = self.now;
        let half = self.half(from);
        if !half.outbox.is_empty() || half.reset {
            return;
        }
        if len > 0 {
            half.flushed = now;
        }
        if half.fin_wanted && !half.fin_sent {
            half.fin_sent = true;
            let at = half.last_arrival.max(now + self.latency(from));
            self.schedule(at, Happening::Fin { to: from.other() });
        }
    }

    fn latency(&self, end: End) -> Duration {
        self.conns[end.conn as usize].line.latency
    }

    /// Cuts bytes into segments and sends them off.
    fn put(&mut self, from: End, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let sent = self.half(from).sent;
            let line = &self.conns[from.conn as usize].line;
            let (breaks, mutes) = (
                line.breaks[from.side as usize],
                line.mutes[from.side as usize],
            );
            if mutes.is_some_and(|at| sent >= at) {
                self.conns[from.conn as usize].faulty = true;
                self.half(from).sent += bytes.len() as u64;
                self.half(from.other()).in_flight += bytes.len();
                return;
            }
            let size = self.segment(from, sent).min(bytes.len());
            let ends = [breaks, mutes]
                .into_iter()
                .flatten()
                .filter(|&at| at > sent)
                .map(|at| (at - sent) as usize);
            let size = ends.fold(size, usize::min);
            let (segment, rest) = bytes.split_at(size);
            bytes = rest;
            let at = self.arrival(from);
            let half = self.half(from);
            half.sent += size as u64;
            half.last_arrival = at;
            let broken = breaks == Some(half.sent);
            let to = from.other();
            self.half(to).in_flight += size;
            self.schedule(
                at,
                Happening::Segment {
                    to,
                    bytes: segment.to_vec(),
                },
            );
            if broken {
                self.conns[from.conn as usize].faulty = true;
                self.schedule(at, Happening::Reset { to });
                let back = self.now + self.latency(from);
                self.schedule(back, Happening::Reset { to: from });
                return;
            }
        }
    }

    fn segment(&mut self, from: End, sent: u64) -> usize {
        match self.conns[from.conn as usize].line.cut {
            Cut::Whole => 64 * 1024,
            Cut::Mss => 1460,
            Cut::Small if sent < 8192 => self.chance.within(1..200) as usize,
            Cut::Tiny if sent < 600 => 1 + self.chance.below(3) as usize,
            Cut::Small | Cut::Tiny => self.chance.within(1..4000) as usize,
        }
    }

    fn arrival(&mut self, from: End) -> Moment {
        let line = &self.conns[from.conn as usize].line;
        let (latency, jitter, stalls) = (line.latency, line.jitter, line.stalls);
        let mut delay = latency + self.chance.micros(0..jitter.as_micros() as u64 + 1);
        if stalls > 0 && self.chance.one_in(stalls) {
            delay += self.chance.millis(500..4000);
        }
        self.half(from).last_arrival.max(self.now + delay)
    }

    /// A reset may overtake what was sent before it.
    fn send_reset(&mut self, to: End) {
        let soon = self.now + self.latency(to);
        let in_order = self.half(to.other()).last_arrival;
        let at = if self.chance.percent(50) {
            soon
        } else {
            soon.max(in_order)
        };
        self.schedule(at, Happening::Reset { to });
    }

    fn room_came(&mut self, writer: End) {
        if !self.half(writer).outbox.is_empty() {
            self.pump(writer);
        }
        let half = self.half(writer);
        if half.blocked {
            half.blocked = false;
            self.tell(writer);
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Segment { to, bytes } => self.arrived(to, &bytes),
            Happening::Fin { to } => {
                if !self.half(to).reset {
                    self.half(to).fin = true;
                    self.tell(to);
                }
            }
            Happening::Reset { to } => self.reset_arrived(to),
            Happening::Connect { conn } => self.connected(conn),
            Happening::Wake(party) => self.told.push_back(party),
            Happening::Datagram { from, to, bytes } => self.datagram_arrived(from, to, bytes),
            Happening::Refusal { to, by } => self.refusal_arrived(to, by),
        }
    }

    fn arrived(&mut self, to: End, bytes: &[u8]) {
        let half = self.half(to);
        half.in_flight -= bytes.len().min(half.in_flight);
        if half.reset {
            return;
        }
        if half.closed {
            half.reset = true;
            self.send_reset(to.other());
            return;
        }
        half.inbox.extend(bytes);
        self.tell(to);
    }

    fn reset_arrived(&mut self, to: End) {
        let forget = self.chance.percent(50);
        let half = self.half(to);
        if half.reset {
            return;
        }
        half.reset = true;
        half.outbox.clear();
        if forget {
            half.inbox.clear();
        }
        self.tell(to);
    }

    fn connected(&mut self, conn: u32) {
        let entry = &self.conns[conn as usize];
        let (to, from) = (entry.to, entry.from);
        let near = End { conn, side: 0 };
        let outcome = match self.door(to) {
            Door::Open => Opening::Open,
            Door::Refuses => Opening::Failed(io::ErrorKind::ConnectionRefused),
            Door::Dead => Opening::Failed(io::ErrorKind::TimedOut),
        };
        self.conns[conn as usize].opening = outcome;
        if outcome == Opening::Open {
            self.arrivals.push_back(Arrival {
                at: to,
                from,
                end: near.other(),
            });
            if self.half(near).closed {
                self.shut_down(near);
            }
        }
        self.tell(near);
    }
}
