//! What the sessions of one stream share: plan, mail, tally, idle connections. One thread, so cells instead of locks.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::mail::Mail;
use super::start::Start;
use super::tally::Tally;
use super::text::Template;
use crate::ledger::{MessageId, NUMBERS_MAX, Sent};
use crate::outcome::StreamOutcome;
use crate::plan::{self, Arrivals, Plan};
use crate::tls::client::Client;

pub struct Stream {
    pub plan: plan::Stream,
    pub process: Rc<Process>,
    pub tally: RefCell<Tally>,
    pub mail: RefCell<Mail>,
    pub chance: RefCell<fastrand::Rng>,
    pub sender: Template,
    pub recipient: Template,
    /// Starts that have not ended.
    pub under_way: Cell<u32>,
    /// Connections that are open, idle ones included.
    pub connections: Cell<u32>,
    /// Connections that wait for a start, the longest idle first, so that none is idle for longer than need be.
    idle: RefCell<VecDeque<Rc<Seat>>>,
    connections_made: Cell<u64>,
}

/// What all streams of a process share.
pub struct Process {
    pub begun: Instant,
    pub target: SocketAddr,
    pub tls: Option<Client>,
    pub run: u64,
    pub process: u16,
    messages: Cell<u32>,
    pub sent: RefCell<Sent>,
    /// The flight that is being written. Taken out by who writes, put back after.
    pub flight: RefCell<Vec<u8>>,
    /// What was read last. Nobody keeps it across an await.
    pub input: RefCell<Box<[u8]>>,
    /// Whom to wake when a session has ended.
    pub starter: RefCell<Option<Waker>>,
    /// No more starts: idle connections may go.
    pub is_ending: Cell<bool>,
    /// A session panicked, which is an error of ours.
    pub is_broken: Cell<bool>,
}

/// Octets read at once.
const INPUT_OCTETS: usize = 64 * 1024;

impl Process {
    /// The plan begins now.
    pub fn new(plan: &Plan, tls: Option<Client>) -> Process {
        Process {
            begun: Instant::now(),
            target: plan.target,
            tls,
            run: plan.run,
            process: plan.process,
            messages: Cell::new(0),
            sent: RefCell::default(),
            flight: RefCell::default(),
            input: RefCell::new(vec![0; INPUT_OCTETS].into()),
            starter: RefCell::default(),
            is_ending: Cell::new(false),
            is_broken: Cell::new(false),
        }
    }

    /// Whether another message can have a number.
    pub fn has_numbers(&self) -> bool {
        self.messages.get() < NUMBERS_MAX
    }

    pub fn next_id(&self) -> MessageId {
        let number = self.messages.get();
        self.messages.set(number + 1);
        MessageId {
            run: self.run,
            process: self.process,
            number,
        }
    }

    /// An empty buffer to make a flight in.
    pub fn empty_flight(&self) -> Vec<u8> {
        let mut flight = self.flight.take();
        flight.clear();
        flight
    }

    pub fn wake_starter(&self) {
        if let Some(starter) = &*self.starter.borrow() {
            starter.wake_by_ref();
        }
    }
}

impl Stream {
    /// The stream of this number in the plan.
    pub fn new(plan: &Plan, number: usize, process: &Rc<Process>, mail: Mail) -> Stream {
        let stream = &plan.streams[number];
        let seed = plan.seed.wrapping_add(number as u64);
        let lasts = plan.lasts + plan.grace;
        Stream {
            plan: stream.clone(),
            process: process.clone(),
            tally: RefCell::new(Tally::new(process.begun, plan.warmup, lasts)),
            mail: RefCell::new(mail),
            chance: RefCell::new(fastrand::Rng::with_seed(seed)),
            sender: Template::new(&stream.sender),
            recipient: Template::new(&stream.recipient),
            under_way: Cell::new(0),
            connections: Cell::new(0),
            idle: RefCell::default(),
            connections_made: Cell::new(0),
        }
    }

    /// Whether the end of a session makes room for the next start.
    pub fn is_refilled(&self) -> bool {
        !matches!(self.plan.arrivals, Arrivals::Open { .. })
    }

    /// How long one reply may take. Clients of kept profiles have all the time of the plan.
    pub fn patience(&self) -> Option<Duration> {
        (!self.plan.profile.is_kept()).then_some(self.plan.patience)
    }

    /// The address the next connection comes from.
    pub fn next_source(&self) -> Option<IpAddr> {
        let number = self.connections_made.get();
        self.connections_made.set(number + 1);
        self.plan.sources.address(number)
    }

    /// Hands a start to an idle connection. Comes back where none is idle.
    pub fn seat(&self, start: Start) -> Result<(), Start> {
        let mut idle = self.idle.borrow_mut();
        while let Some(seat) = idle.pop_front() {
            if seat.is_gone.get() {
                continue;
            }
            seat.start.replace(Some(start));
            if let Some(waker) = seat.waker.take() {
                waker.wake();
            }
            return Ok(());
        }
        Err(start)
    }

    pub fn offer(&self, seat: Rc<Seat>) {
        self.idle.borrow_mut().push_back(seat);
    }

    pub fn outcome(&self) -> StreamOutcome {
        let mut tally = self.tally.borrow_mut();
        tally.outcome(&self.plan.name, self.plan.profile.word())
    }

    /// Lets idle connections end.
    pub fn dismiss(&self) {
        for seat in self.idle.borrow_mut().drain(..) {
            if let Some(waker) = seat.waker.take() {
                waker.wake();
            }
        }
    }
}

/// Where an idle connection waits for its next start.
#[derive(Default)]
pub struct Seat {
    start: RefCell<Option<Start>>,
    waker: RefCell<Option<Waker>>,
    is_gone: Cell<bool>,
}

impl Seat {
    pub fn poll(&self, waker: &Waker) -> Poll<Start> {
        if let Some(start) = self.start.take() {
            return Poll::Ready(start);
        }
        self.waker.replace(Some(waker.clone()));
        Poll::Pending
    }

    /// The connection has no more use for a start.
    pub fn leave(&self) {
        self.is_gone.set(true);
    }
}
