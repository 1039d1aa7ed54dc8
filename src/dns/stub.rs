//! The resolver: a machine that a shard drives.
//!
//! Calls come in as things happen ([`Stub::ask`], [`Stub::datagram`], [`Stub::port_failed`], [`Stub::connected`], [`Stub::bytes`],
//! [`Stub::sent`], [`Stub::stream_over`], and [`Stub::timeout`] once [`Stub::deadline`] is reached); after any of them [`Stub::poll`] is called
//! until it says None, and what it says is done in that order. Each question that is not answered at once is answered exactly once, within the
//! configuration's patience, whatever servers do.
//!
//! A question goes to one server. It goes to the next one when that has had its time, fails or is not there, and whoever answers
//! first has answered: what was sent stays open until then. Same questions asked meanwhile wait for the same answer.

#[cfg(test)]
mod chaos_tests;
mod hearing;
mod sending;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod spoofing_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::answer::{Answer, Failure, Outcome};
use super::cache::Cache;
use super::config::{Config, SERVERS_MAX};
use super::flights::{ASKERS_MAX, ASKERS_OF_CLIENTS_MAX, Flights, Number};
use super::name::Question;
use super::ports::{PortId, Ports};
use super::servers::{ServerState, Servers};
use super::stats::Stats;
use super::streams::{Stream, StreamId};

/// Bits that nobody can foresee, for ids, ports and case.
pub type Chance = Box<dyn FnMut() -> u64>;

/// What the shard has to do.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Act<T> {
    /// Open a datagram socket connected to `server`, its own port drawn by the kernel. If that fails: [`Stub::port_failed`].
    Open { port: PortId, server: SocketAddr },
    /// One datagram. It may follow its `Open` at once. The vector may come back by [`Stub::give_back`].
    Send { port: PortId, message: Vec<u8> },
    /// Close it; nothing more is said of it on either side.
    Close { port: PortId },
    /// Connect by TCP; then [`Stub::connected`], or [`Stub::stream_over`].
    Connect {
        stream: StreamId,
        server: SocketAddr,
    },
    /// Send these octets; the next ones come only after [`Stub::sent`].
    SendStream { stream: StreamId, octets: Vec<u8> },
    /// Close it; nothing more is said of it on either side.
    CloseStream { stream: StreamId },
    /// What was asked is known.
    Answered { asker: T, answer: Answer },
}

/// A failure is remembered that long, so that a broken zone does not cost a query for each client (RFC 9520, 3.2).
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// For a "no" that does not say how long it holds.
const NO_TTL_SECONDS: u32 = 60;
/// A connection on which nothing is open stays that long.
const STREAM_IDLE: Duration = Duration::from_secs(10);
/// Questions open at a time, whatever is configured: their ids must fit one connection.
const OPEN_MAX: usize = 16_384;
/// Of those, one in so many is not for what clients ask by the names they give: a flood of names whose servers are dead is to leave
/// room for what others say of these clients.
const KEPT_SHARE: usize = 4;
const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// Vectors kept for the next queries.
const SPARE_MAX: usize = 64;

/// How many questions may be open for one more to find room, and how many may wait for the same.
#[derive(Clone, Copy)]
struct Room {
    open: usize,
    askers: usize,
}

pub struct Stub<T> {
    config: Config,
    chance: Chance,
    cache: Cache,
    flights: Flights<T>,
    servers: Servers,
    ports: Ports,
    /// By server.
    streams: [Option<Stream>; SERVERS_MAX],
    stream_lives: u32,
    acts: VecDeque<Act<T>>,
    spare: Vec<Vec<u8>>,
    stats: Stats,
}

impl<T: Copy> Stub<T> {
    pub fn new(mut config: Config, chance: Chance) -> Stub<T> {
        config.timeout = config.timeout.max(TIMEOUT_MIN);
        config.patience = config.patience.max(config.timeout);
        config.open_max = config.open_max.min(OPEN_MAX);
        config.ttl_max = config.ttl_max.max(config.ttl_min);
        Stub {
            chance,
            cache: Cache::new(config.cache),
            flights: Flights::new(),
            servers: Servers::new(&config.servers),
            ports: Ports::new(config.ports),
            streams: [const { None }; SERVERS_MAX],
            stream_lives: 0,
            acts: VecDeque::new(),
            spare: Vec::new(),
            stats: Stats::default(),
            config,
        }
    }

    /// Some: known already, or not to be known; None: [`Act::Answered`] will tell, once.
    pub fn ask(&mut self, question: &Question, asker: T, now: Moment) -> Option<Answer> {
        self.known(question, now)
            .or_else(|| self.put(question, asker, now, self.room()))
    }

    /// As [`Stub::ask`], for a question whose name is the client's choice: it finds less room.
    pub fn ask_for_client(&mut self, question: &Question, asker: T, now: Moment) -> Option<Answer> {
        let all = self.room();
        let room = Room {
            open: all.open - all.open / KEPT_SHARE,
            askers: ASKERS_OF_CLIENTS_MAX,
        };
        self.known(question, now)
            .or_else(|| self.put(question, asker, now, room))
    }

    fn known(&mut self, question: &Question, now: Moment) -> Option<Answer> {
        self.stats.asked += 1;
        let answer = self.cache.find(question, now)?;
        self.stats.hits += 1;
        Some(answer.clone())
    }

    fn room(&self) -> Room {
        Room {
            open: self.config.open_max,
            askers: ASKERS_MAX,
        }
    }

    /// As [`Stub::ask`], past what is known: for who wants to see whether it still holds. What comes takes the place of it.
    pub fn ask_afresh(&mut self, question: &Question, asker: T, now: Moment) -> Option<Answer> {
        self.stats.asked += 1;
        self.put(question, asker, now, self.room())
    }

    fn put(&mut self, question: &Question, asker: T, now: Moment, room: Room) -> Option<Answer> {
        if self.servers.is_empty() {
            return Some(failed(Failure::NoServer, now));
        }
        if let Some(flight) = self.flights.find(question) {
            return self.join(flight, asker, now, room);
        }
        if self.flights.len() >= room.open {
            self.stats.busy += 1;
            return Some(failed(Failure::Busy, now));
        }
        let over = now + self.config.patience;
        let number = self.flights.open(question, asker, over);
        self.try_next(number, now);
        None
    }

    fn join(&mut self, number: Number, asker: T, now: Moment, room: Room) -> Option<Answer> {
        let flight = self.flights.get_mut(number)?;
        if flight.askers.len() >= room.askers {
            self.stats.busy += 1;
            return Some(failed(Failure::Busy, now));
        }
        flight.askers.push(asker);
        self.stats.joined += 1;
        None
    }

    /// What the shard has to do next.
    pub fn poll(&mut self) -> Option<Act<T>> {
        self.acts.pop_front()
    }

    /// When [`Stub::timeout`] is due; [`Moment::NEVER`]: nothing is open.
    pub fn deadline(&self) -> Moment {
        let streams = self.streams.iter().flatten();
        let idle = streams.map(|stream| stream.idle_at).min();
        self.flights.deadline().min(idle.unwrap_or(Moment::NEVER))
    }

    /// Other servers than before. What is known stays known, what is open is asked again.
    pub fn set_servers(&mut self, addrs: &[SocketAddr], now: Moment) {
        if self.servers.addrs().eq(addrs.iter().copied()) {
            return;
        }
        for port in self.ports.abandon_all() {
            self.acts.push_back(Act::Close { port });
        }
        for stream in self.streams.iter_mut().filter_map(Option::take) {
            let stream = stream.id;
            self.acts.push_back(Act::CloseStream { stream });
        }
        self.servers.replace(addrs);
        for number in self.flights.numbers() {
            self.start_over(number, now);
        }
    }

    fn start_over(&mut self, number: Number, now: Moment) {
        // Where they went is closed: there is nothing to give up.
        while self.flights.pop_try(number).is_some() {}
        if let Some(flight) = self.flights.get_mut(number) {
            (flight.sent, flight.tried, flight.failed) = (0, 0, 0);
            (flight.by_stream, flight.plain, flight.suspect) = (0, 0, 0);
        }
        match self.servers.is_empty() {
            true => self.finish(number, Outcome::Failed(Failure::NoServer), None, now),
            false => self.try_next(number, now),
        }
    }

    /// A vector that an [`Act::Send`] carried.
    pub fn give_back(&mut self, mut message: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            message.clear();
            self.spare.push(message);
        }
    }

    pub fn stats(&self) -> Stats {
        Stats {
            evicted: self.cache.evicted(),
            ..self.stats
        }
    }

    /// Questions that wait for an answer.
    pub fn open(&self) -> usize {
        self.flights.len()
    }

    /// Answers in the cache.
    pub fn cached(&self) -> usize {
        self.cache.len()
    }

    pub fn servers(&self) -> impl Iterator<Item = ServerState> + '_ {
        self.servers.states()
    }

    /// Above every [`PortId::number`].
    pub fn ports_max(&self) -> usize {
        Ports::max(self.config.ports)
    }

    /// The question's end: everybody who has asked is told.
    fn finish(&mut self, number: Number, outcome: Outcome, ttl: Option<u32>, now: Moment) {
        while let Some(open) = self.flights.pop_try(number) {
            self.release(open, now);
        }
        let Some(flight) = self.flights.close(number) else {
            return;
        };
        self.count(&outcome);
        let answer = match outcome {
            Outcome::Failed(failure) => failed(failure, now),
            outcome => Answer {
                outcome,
                until: now + self.bounded(ttl),
            },
        };
        if !matches!(answer.outcome, Outcome::Failed(Failure::NoServer)) {
            self.cache.insert(flight.question, answer.clone(), now);
        }
        let told = flight.askers.into_iter().map(|asker| Act::Answered {
            asker,
            answer: answer.clone(),
        });
        self.acts.extend(told);
    }

    fn bounded(&self, ttl: Option<u32>) -> Duration {
        let ttl = Duration::from_secs(ttl.unwrap_or(NO_TTL_SECONDS).into());
        ttl.clamp(self.config.ttl_min, self.config.ttl_max)
    }

    fn count(&mut self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Records(_) => &mut self.stats.records,
            Outcome::NoData => &mut self.stats.no_data,
            Outcome::NoName => &mut self.stats.no_name,
            Outcome::Failed(Failure::Timeout) => &mut self.stats.timed_out,
            Outcome::Failed(_) => &mut self.stats.failed,
        };
        *counter += 1;
    }
}

/// Holds for a moment only when it was not asked for at all.
fn failed(failure: Failure, now: Moment) -> Answer {
    let until = match failure {
        Failure::Timeout | Failure::Server => now + FAILURE_TTL,
        Failure::Busy | Failure::NoServer => now,
    };
    Answer {
        outcome: Outcome::Failed(failure),
        until,
    }
}
