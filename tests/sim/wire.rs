//! The network as weir's shard sees it: [`Wire`] over the simulated network instead of io_uring.
//!
//! Completions come late, in any order between slots, and each of them only once. What the contract of `wire.rs` forbids the shard is checked
//! at each call and noted in [`SimWire::faults`]: a second send beside the first, a buffer used or released after its last reference, a
//! receive armed after the end of the stream, a slot used after its close. What the contract allows the ring is done by chance: events late,
//! sends in parts, receives that starve for buffers (told, or waited for in silence), slots reused at once.

mod calls;
mod datagrams;
mod flights;
mod receives;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use weir::ring::{BufferId, Close, Event, Group, Owner, Part, ReceiveEnd, SlotId};
use weir_smtp::time::Moment;

use crate::buffers::Buffers;
use crate::chance::Chance;
use crate::net::{Arrival, End, Line, Opening, Party, Read, SharedNet};

const GRACE: Duration = Duration::from_millis(30);
const LINGER: Duration = Duration::from_secs(2);

/// What is left to chance in a wire, and how large it is.
#[derive(Clone, Debug)]
pub struct WireOptions {
    pub slots: usize,
    /// Of these, kept for upstreams.
    pub reserve: usize,
    pub client_buffers: u32,
    pub upstream_buffers: u32,
    pub chunks: u32,
    /// Completions are up to so late.
    pub lag: Duration,
    /// Octets that a send moves before it rests for a moment; 0: all that fit.
    pub sips: usize,
    /// A receive that finds no buffer says so, instead of waiting for one.
    pub tells_starvation: bool,
    /// The source address of connections to upstreams.
    pub address: SocketAddr,
    pub shard: usize,
    pub sabotage: Sabotage,
}

/// A wire that does wrong, to see that the checks notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    None,
    /// Changes an octet of a long flight to an upstream.
    ChangesAnOctet,
    /// Tells clients 250 where 4xx was meant.
    ForgesAcceptance,
    /// Keeps a reference of a receive buffer for ever.
    LeaksABuffer,
    /// Loses a completion.
    LosesASent,
}

/// How many connections each upstream may have, and has: over all shards, and until weir closes them.
#[derive(Default)]
pub struct Caps {
    /// Endpoint to (upstream, most connections), 0 without limit. Probes do not count for the limit, one an endpoint.
    endpoints: BTreeMap<SocketAddr, (usize, u32)>,
    open: BTreeMap<usize, u32>,
    /// Of these, connections that have carried a client's transaction.
    busy: BTreeMap<usize, u32>,
    /// The most there ever were.
    pub most: u32,
}

pub type SharedCaps = Rc<RefCell<Caps>>;

impl Caps {
    pub fn set(&mut self, endpoint: SocketAddr, upstream: usize, max: u32) {
        self.endpoints.insert(endpoint, (upstream, max));
    }

    fn entered(&mut self, to: SocketAddr) -> Result<(), String> {
        let Some(&(upstream, max)) = self.endpoints.get(&to) else {
            return Err(format!("a connection to {to}, which is no upstream"));
        };
        let open = self.open.entry(upstream).or_default();
        *open += 1;
        self.most = self.most.max(*open);
        let probes = self
            .endpoints
            .values()
            .filter(|endpoint| endpoint.0 == upstream)
            .count() as u32;
        if max > 0 && *open > max + probes {
            return Err(format!(
                "{open} connections to upstream {upstream}, which may have {max}"
            ));
        }
        Ok(())
    }

    /// A transaction goes up on this connection for the first time: so it is no probe, and the limit holds to the letter.
    fn carries(&mut self, to: SocketAddr) -> Result<(), String> {
        let Some(&(upstream, max)) = self.endpoints.get(&to) else {
            return Ok(());
        };
        let busy = self.busy.entry(upstream).or_default();
        *busy += 1;
        if max > 0 && *busy > max {
            return Err(format!(
                "{busy} connections to upstream {upstream} carry mail, which may have {max}"
            ));
        }
        Ok(())
    }

    fn left(&mut self, to: SocketAddr, carried: bool) {
        let Some((upstream, _)) = self.endpoints.get(&to) else {
            return;
        };
        if let Some(open) = self.open.get_mut(upstream) {
            *open -= 1;
        }
        if let Some(busy) = self.busy.get_mut(upstream).filter(|_| carried) {
            *busy -= 1;
        }
    }
}

struct Slot {
    life: u32,
    end: End,
    /// A socket for datagrams: where it is, and whom it is connected to.
    port: Option<(SocketAddr, SocketAddr)>,
    owner: Owner,
    upstream: Option<SocketAddr>,
    /// A client's transaction has gone up here.
    carries: bool,
    connecting: bool,
    group: Group,
    receiving: bool,
    stopping: bool,
    looking: bool,
    /// Armed, and silently waiting for a buffer.
    thirsty: bool,
    /// Eof or Reset has been handed out.
    ended: bool,
    /// Until its `Sent` has been handed out.
    sending: bool,
    flight: Option<Flight>,
    closing: Option<Close>,
    grace_over: bool,
    closed_down: bool,
    /// The latest event queued for it: a slot's events come in order.
    latest: Moment,
}

struct Flight {
    head: Vec<u8>,
    parts: Vec<Part>,
    part: usize,
    offset: u32,
    sent: usize,
    resting: bool,
}

#[derive(Debug)]
enum Done {
    Accepted { peer: SocketAddr },
    Connected(io::Result<()>),
    Received { buffer: BufferId, len: u32 },
    Ended(ReceiveEnd),
    StopTakesEffect,
    LookTakesEffect,
    Sent(io::Result<usize>, Vec<u8>),
    Moves,
    GraceIsOver,
    LingerIsOver,
    Closed,
}

struct Completion {
    at: Moment,
    number: u64,
    slot: u32,
    life: u32,
    done: Done,
}

impl PartialEq for Completion {
    fn eq(&self, other: &Completion) -> bool {
        self.number == other.number
    }
}
impl Eq for Completion {}
impl PartialOrd for Completion {
    fn partial_cmp(&self, other: &Completion) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Completion {
    fn cmp(&self, other: &Completion) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct SimWire {
    net: SharedNet,
    chance: Chance,
    options: WireOptions,
    slots: Vec<Option<Slot>>,
    /// Last freed, first used.
    free: Vec<u32>,
    lives: u32,
    buffers: Buffers,
    queue: BinaryHeap<Reverse<Completion>>,
    number: u64,
    backlog: VecDeque<Arrival>,
    accepts: bool,
    caps: SharedCaps,
    /// How new connections to upstreams behave.
    lines: Box<dyn FnMut(SocketAddr) -> Line>,
    faults: Vec<String>,
    sabotaged: bool,
    /// Somebody has run out of buffers since they last came back.
    thirst: bool,
}

impl SimWire {
    pub fn new(
        net: SharedNet,
        chance: Chance,
        options: WireOptions,
        caps: SharedCaps,
        lines: impl FnMut(SocketAddr) -> Line + 'static,
    ) -> SimWire {
        let buffers = Buffers::new(
            options.client_buffers,
            options.upstream_buffers,
            options.chunks,
        );
        SimWire {
            net,
            chance,
            slots: (0..options.slots).map(|_| None).collect(),
            free: (0..options.slots as u32).rev().collect(),
            options,
            lives: 0,
            buffers,
            queue: BinaryHeap::new(),
            number: 0,
            backlog: VecDeque::new(),
            accepts: true,
            caps,
            lines: Box::new(lines),
            faults: Vec::new(),
            sabotaged: false,
            thirst: false,
        }
    }

    /// A client has connected; it is accepted when there is a slot for it.
    pub fn arrived(&mut self, arrival: Arrival) {
        if !self.accepts {
            self.net.borrow_mut().reset(arrival.end);
            return;
        }
        self.backlog.push_back(arrival);
        self.accept();
    }

    /// The listener is closed; who was not accepted yet is reset.
    pub fn stop_accepting(&mut self) {
        self.accepts = false;
        for arrival in self.backlog.drain(..) {
            self.net.borrow_mut().reset(arrival.end);
        }
    }

    /// When an event is due.
    pub fn next(&self) -> Moment {
        self.queue
            .peek()
            .map_or(Moment::NEVER, |completion| completion.0.at)
    }

    /// The next event that is due.
    pub fn next_event(&mut self) -> Option<Event> {
        let now = self.now();
        while self
            .queue
            .peek()
            .is_some_and(|completion| completion.0.at <= now)
        {
            let Reverse(completion) = self.queue.pop()?;
            if let Some(event) = self.hand_out(completion) {
                return Some(event);
            }
        }
        None
    }

    /// Something happened at a slot's end of its connection.
    pub fn poke(&mut self, index: u32, life: u32) {
        let Some(slot) = self.slots[index as usize].as_mut() else {
            return;
        };
        if slot.life != life || slot.closed_down {
            return;
        }
        if slot.connecting {
            let end = slot.end;
            let opening = self.net.borrow().opening(end);
            let result = match opening {
                Opening::UnderWay => return,
                Opening::Open => Ok(()),
                Opening::Failed(kind) => Err(kind.into()),
            };
            self.slot(index).connecting = false;
            self.complete(index, Done::Connected(result));
        }
        self.move_flight(index);
        self.receive(index);
        self.go_on_closing(index);
    }

    /// What the shard did that it must not do.
    pub fn faults(&mut self) -> Vec<String> {
        std::mem::take(&mut self.faults)
    }

    /// What is still held when everything is over.
    pub fn leftovers(&self) -> Vec<String> {
        let slots = self.slots.iter().flatten().map(|slot| {
            let side = if slot.port.is_some() {
                "resolver"
            } else if slot.upstream.is_some() {
                "upstream"
            } else {
                "client"
            };
            let state = if slot.closing.is_some() {
                "closing"
            } else {
                "open"
            };
            format!("a {side} slot is still {state}")
        });
        slots.chain(self.buffers.leftovers()).collect()
    }

    fn now(&self) -> Moment {
        self.net.borrow().now()
    }

    fn slot(&mut self, index: u32) -> &mut Slot {
        self.slots[index as usize]
            .as_mut()
            .expect("looked up before")
    }

    /// The slot of a call by the shard; a call on a slot that is no more is a fault.
    fn called(&mut self, slot: SlotId, call: &str) -> bool {
        match self.slots.get(slot.0 as usize) {
            Some(Some(_)) => true,
            _ => {
                self.faults
                    .push(format!("{call} on slot {} which is not open", slot.0));
                false
            }
        }
    }

    fn accept(&mut self) {
        while self.free.len() > self.options.reserve
            && let Some(arrival) = self.backlog.pop_front()
        {
            let index = self.open(arrival.end, Owner::NONE, None);
            let life = self.slot(index).life;
            self.net.borrow_mut().adopt(
                arrival.end,
                Party::Slot {
                    shard: self.options.shard,
                    slot: index,
                    life,
                },
            );
            self.complete(index, Done::Accepted { peer: arrival.from });
        }
    }

    fn open(&mut self, end: End, owner: Owner, upstream: Option<SocketAddr>) -> u32 {
        let index = self.free.pop().expect("a free slot was seen");
        self.lives += 1;
        let now = self.now();
        self.slots[index as usize] = Some(Slot {
            life: self.lives,
            end,
            port: None,
            owner,
            upstream,
            carries: false,
            connecting: upstream.is_some(),
            group: Group::Client,
            receiving: false,
            stopping: false,
            looking: false,
            thirsty: false,
            ended: false,
            sending: false,
            flight: None,
            closing: None,
            grace_over: false,
            closed_down: false,
            latest: now,
        });
        index
    }

    fn complete(&mut self, index: u32, done: Done) {
        let lag = self
            .chance
            .micros(0..self.options.lag.as_micros() as u64 + 1);
        let now = self.now();
        let slot = self.slot(index);
        let at = slot.latest.max(now + lag);
        slot.latest = at;
        let life = slot.life;
        self.queue_at(at, index, life, done);
    }

    fn queue_at(&mut self, at: Moment, slot: u32, life: u32, done: Done) {
        self.number += 1;
        self.queue.push(Reverse(Completion {
            at,
            number: self.number,
            slot,
            life,
            done,
        }));
    }

    /// The event of a completion, with the owner of this moment. Slots that close are silent.
    fn hand_out(&mut self, completion: Completion) -> Option<Event> {
        let index = completion.slot;
        let known = self.slots[index as usize]
            .as_ref()
            .is_some_and(|slot| slot.life == completion.life);
        if !known {
            assert!(
                matches!(
                    completion.done,
                    Done::Moves | Done::GraceIsOver | Done::LingerIsOver
                ),
                "a completion outlived its slot: {:?}",
                completion.done
            );
            return None;
        }
        let id = SlotId(index);
        let silent = self.slot(index).closing.is_some();
        let owner = self.slot(index).owner;
        match completion.done {
            Done::Moves => {
                if let Some(flight) = self.slot(index).flight.as_mut() {
                    flight.resting = false;
                }
                self.move_flight(index);
                self.go_on_closing(index);
                None
            }
            Done::GraceIsOver => {
                self.slot(index).grace_over = true;
                self.go_on_closing(index);
                None
            }
            Done::LingerIsOver => {
                self.slot(index).closing = Some(Close::Now);
                self.go_on_closing(index);
                None
            }
            Done::Closed => {
                self.slots[index as usize] = None;
                self.free.push(index);
                self.accept();
                Some(Event::Closed { slot: id, owner })
            }
            Done::Received { buffer, .. } if silent => {
                self.buffers.release(buffer, &mut self.faults);
                None
            }
            Done::Sent(..) => {
                self.slot(index).sending = false;
                let Done::Sent(result, flight) = completion.done else {
                    return None;
                };
                if silent {
                    self.go_on_closing(index);
                    return None;
                }
                if self.options.sabotage == Sabotage::LosesASent && self.saboteur(20) {
                    self.slot(index).sending = true;
                    return None;
                }
                Some(Event::Sent {
                    slot: id,
                    owner,
                    result,
                    flight,
                })
            }
            _ if silent => None,
            Done::Accepted { peer } => Some(Event::Accepted {
                listener: 0,
                slot: id,
                peer,
                destination: None,
            }),
            Done::Connected(result) => Some(Event::Connected {
                slot: id,
                owner,
                result,
            }),
            Done::Received { buffer, len } => {
                let slot = self.slot(index);
                if slot.port.is_none() {
                    let end = slot.end;
                    self.net.borrow_mut().add_heard(end, u64::from(len));
                }
                if self.options.sabotage == Sabotage::LeaksABuffer && self.saboteur(10) {
                    self.buffers.retain(buffer, &mut self.faults);
                }
                Some(Event::Received {
                    slot: id,
                    owner,
                    buffer,
                    len,
                })
            }
            Done::Ended(why) => {
                let slot = self.slot(index);
                let over = matches!(why, ReceiveEnd::Eof | ReceiveEnd::Reset(_));
                slot.ended |= over && slot.port.is_none();
                Some(Event::ReceiveEnded {
                    slot: id,
                    owner,
                    why,
                })
            }
            Done::StopTakesEffect => {
                let slot = self.slot(index);
                if !std::mem::take(&mut slot.stopping) {
                    return None;
                }
                slot.receiving = false;
                slot.thirsty = false;
                Some(Event::ReceiveEnded {
                    slot: id,
                    owner,
                    why: ReceiveEnd::Stopped,
                })
            }
            Done::LookTakesEffect => self.look(index),
        }
    }

    /// True once, by chance.
    fn saboteur(&mut self, one_in: u64) -> bool {
        if self.sabotaged || !self.chance.one_in(one_in) {
            return false;
        }
        self.sabotaged = true;
        true
    }

    fn go_on_closing(&mut self, index: u32) {
        let slot = self.slot(index);
        let (Some(how), false) = (slot.closing, slot.closed_down) else {
            return;
        };
        if let Some((port, _)) = slot.port {
            return self.close_datagrams(index, port);
        }
        let end = slot.end;
        if how == Close::Linger {
            let sending = slot.flight.is_some();
            let grace_over = slot.grace_over;
            let mut net = self.net.borrow_mut();
            let peer_done = loop {
                match net.read(end, usize::MAX) {
                    Read::Bytes(_) => {}
                    Read::Nothing => break false,
                    Read::Fin | Read::Reset => break true,
                }
            };
            if !peer_done {
                if grace_over && !sending {
                    net.shut_down(end);
                }
                return;
            }
            if sending {
                return;
            }
        }
        if let Some(flight) = self.slot(index).flight.take() {
            self.end_flight(index, flight, Err(io::ErrorKind::Interrupted.into()));
        }
        self.slot(index).closed_down = true;
        match how {
            Close::Reset => self.net.borrow_mut().reset(end),
            Close::Now | Close::Linger => self.net.borrow_mut().close(end),
        }
        self.complete(index, Done::Closed);
    }

    /// The connection counts no more for its upstream.
    fn leave(&mut self, index: u32) {
        let slot = self.slot(index);
        let carried = slot.carries;
        if let Some(endpoint) = slot.upstream {
            self.caps.borrow_mut().left(endpoint, carried);
        }
    }
}

fn ended(read: &Read) -> ReceiveEnd {
    match read {
        Read::Reset => ReceiveEnd::Reset(io::ErrorKind::ConnectionReset.into()),
        _ => ReceiveEnd::Eof,
    }
}
