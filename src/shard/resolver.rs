//! The resolver at work: its sockets, its time, its acts.
//!
//! [`Stub`] knows what to ask and whom to believe; here it gets what it has not: sockets on the shard's ring, one send in flight on
//! each, and the shard's clock. Once a turn, after all sessions have had theirs, its acts are done: so questions of one turn
//! leave with the turn's one syscall, and each answer reaches its asker in a step of its own, where a panic ends
//! nobody else.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use weir_smtp::time::Moment;

use crate::dns::{Act, Answer, Chance, Config, PortId, Question, StreamId, Stub};
use crate::maillog::Value;
use crate::metrics::{DnsAnswer, DnsOdd, DnsQuestion, DnsSocket, DnsWay};
use crate::ring::{BufferId, Close, Dial, Group, ReceiveEnd, SlotId, Wire};

use super::lookups::{About, Asker};
use super::who::{Lane, Who};
use super::world::World;

/// Datagrams that wait for the one in flight on their socket. The kernel takes each at once, so hardly ever does any wait
/// longer than a turn; what does not fit is lost as datagrams are, and asked again.
const WAITING_MAX: usize = 64;

pub(super) struct Resolver {
    stub: Stub<Asker>,
    /// By their numbers.
    ports: Vec<Option<Port>>,
    streams: Vec<Option<Stream>>,
    /// Sockets that are open.
    open: usize,
    /// It has heard something since its acts were last done.
    stirred: bool,
    deadline: Moment,
    /// Which servers spoke when they were last looked at.
    seen: Vec<(SocketAddr, bool)>,
}

/// A socket for datagrams.
struct Port {
    id: PortId,
    slot: SlotId,
    sending: bool,
    waiting: VecDeque<Vec<u8>>,
}

/// A connection.
struct Stream {
    id: StreamId,
    slot: SlotId,
}

impl Resolver {
    pub(super) fn new(config: Config, chance: Chance) -> Resolver {
        let stub = Stub::new(config, chance);
        Resolver {
            ports: (0..stub.ports_max()).map(|_| None).collect(),
            streams: Vec::new(),
            stub,
            open: 0,
            stirred: false,
            deadline: Moment::NEVER,
            seen: Vec::new(),
        }
    }

    /// When its next turn is due.
    pub(super) fn deadline(&self, now: Moment) -> Moment {
        match self.stirred {
            true => now,
            false => self.deadline,
        }
    }

    /// It has no socket.
    pub(super) fn is_at_rest(&self) -> bool {
        self.open == 0
    }

    pub(super) fn ask(&mut self, question: &Question, asker: Asker, now: Moment) -> Option<Answer> {
        let answer = match asker {
            Asker::Inquiry(_, About::Name(_), _) => self.stub.ask_for_client(question, asker, now),
            Asker::Inquiry(..) | Asker::TestPoint(..) => self.stub.ask(question, asker, now),
        };
        self.stirred |= answer.is_none();
        answer
    }

    pub(super) fn ask_afresh(
        &mut self,
        question: &Question,
        asker: Asker,
        now: Moment,
    ) -> Option<Answer> {
        let answer = self.stub.ask_afresh(question, asker, now);
        self.stirred |= answer.is_none();
        answer
    }

    /// Whom to ask from now on.
    pub(super) fn set_servers(&mut self, servers: &[SocketAddr], now: Moment) {
        self.stub.set_servers(servers, now);
        self.stirred = true;
    }

    fn port(&mut self, number: usize) -> Option<&mut Port> {
        self.ports.get_mut(number)?.as_mut()
    }

    fn stream(&mut self, number: usize) -> Option<&mut Stream> {
        self.streams.get_mut(number)?.as_mut()
    }

    fn take_port(&mut self, number: usize) -> Option<Port> {
        let port = self.ports.get_mut(number)?.take();
        self.open -= usize::from(port.is_some());
        port
    }

    fn take_stream(&mut self, number: usize) -> Option<Stream> {
        let stream = self.streams.get_mut(number)?.take();
        self.open -= usize::from(stream.is_some());
        stream
    }
}

impl<W: Wire> World<W> {
    /// What the resolver has to do, and what it has to tell. True: there was something.
    pub(super) fn mind_resolver(&mut self) -> bool {
        if self.resolver.deadline(self.now) > self.now {
            return false;
        }
        self.resolver.stirred = false;
        if self.resolver.deadline <= self.now {
            self.guarded(|world| world.resolver.stub.timeout(world.now));
        }
        while let Some(act) = self.resolver.stub.poll() {
            self.guarded(|world| {
                world.resolver_act(act);
                world.serve_offers();
            });
        }
        self.resolver.stirred = false;
        self.resolver.deadline = self.resolver.stub.deadline();
        true
    }

    fn resolver_act(&mut self, act: Act<Asker>) {
        match act {
            Act::Answered { asker, answer } => self.heard(asker, &answer),
            Act::Open { port, server } => self.open_port(port, server),
            Act::Send { port, message } => self.send_query(port.number(), message),
            Act::Close { port } => self.close_port(port.number()),
            Act::Connect { stream, server } => self.open_stream(stream, server),
            Act::SendStream { stream, octets } => {
                self.step(Who::Resolver(stream_lane(stream.number())));
                if let Some(open) = self.resolver.stream(stream.number()) {
                    let slot = open.slot;
                    self.wire.send(slot, octets);
                }
            }
            Act::CloseStream { stream } => self.close_stream(stream.number()),
        }
    }

    fn open_port(&mut self, port: PortId, server: SocketAddr) {
        let who = self.step(Who::Resolver(port_lane(port.number())));
        let slot = match self.wire.connect_datagram(server, who.owner()) {
            Ok(slot) => slot,
            Err(error) => {
                log::debug!("no socket to ask {server} for names: {error}");
                return self.resolver.stub.port_failed(port, self.now);
            }
        };
        self.wire.start_receive(slot, Group::Upstream);
        self.resolver.open += 1;
        self.resolver.ports[port.number()] = Some(Port {
            id: port,
            slot,
            sending: false,
            waiting: VecDeque::new(),
        });
    }

    fn send_query(&mut self, number: usize, message: Vec<u8>) {
        self.step(Who::Resolver(port_lane(number)));
        let Some(port) = self.resolver.port(number) else {
            return;
        };
        if !port.sending {
            port.sending = true;
            let slot = port.slot;
            self.wire.send(slot, message);
        } else if port.waiting.len() < WAITING_MAX {
            port.waiting.push_back(message);
        }
    }

    fn close_port(&mut self, number: usize) {
        if let Some(port) = self.resolver.take_port(number) {
            self.close_slot(port.slot, Close::Now);
        }
    }

    fn open_stream(&mut self, stream: StreamId, server: SocketAddr) {
        let number = stream.number();
        let who = self.step(Who::Resolver(stream_lane(number)));
        match self.wire.connect(&Dial::from(server), who.owner()) {
            Ok(slot) => {
                let streams = &mut self.resolver.streams;
                if streams.len() <= number {
                    streams.resize_with(number + 1, || None);
                }
                streams[number] = Some(Stream { id: stream, slot });
                self.resolver.open += 1;
            }
            Err(error) => {
                log::debug!("no connection to ask {server} for names: {error}");
                self.resolver.stub.stream_over(stream, self.now);
            }
        }
    }

    fn close_stream(&mut self, number: usize) {
        if let Some(stream) = self.resolver.take_stream(number) {
            self.close_slot(stream.slot, Close::Now);
        }
    }

    pub(super) fn resolver_connected(&mut self, lane: Lane, result: &io::Result<()>) {
        let Lane::Stream(number) = lane else {
            return;
        };
        let Some(stream) = self.resolver.stream(number as usize) else {
            return;
        };
        let (id, slot) = (stream.id, stream.slot);
        if result.is_err() {
            return self.lose_lane(lane);
        }
        self.wire.start_receive(slot, Group::Upstream);
        self.resolver.stub.connected(id);
        self.resolver.stirred = true;
    }

    pub(super) fn resolver_received(&mut self, lane: Lane, buffer: BufferId, len: u32) {
        let World { resolver, wire, .. } = self;
        let bytes = &wire.buffer(buffer)[..len as usize];
        match lane {
            Lane::Port(number) => {
                if let Some(id) = resolver.port(number as usize).map(|port| port.id) {
                    resolver.stub.datagram(id, bytes, self.now);
                }
            }
            Lane::Stream(number) => {
                if let Some(id) = resolver.stream(number as usize).map(|stream| stream.id) {
                    resolver.stub.bytes(id, bytes, self.now);
                }
            }
        }
        resolver.stirred = true;
        self.release(buffer);
    }

    pub(super) fn resolver_receive_ended(&mut self, lane: Lane, why: &ReceiveEnd) {
        match why {
            ReceiveEnd::Eof | ReceiveEnd::Reset(_) => self.lose_lane(lane),
            ReceiveEnd::Stopped | ReceiveEnd::NoBuffers => {
                if let Some(slot) = self.resolver.slot_of(lane) {
                    self.wire.start_receive(slot, Group::Upstream);
                }
            }
        }
    }

    pub(super) fn resolver_sent(
        &mut self,
        lane: Lane,
        result: &io::Result<usize>,
        flight: Vec<u8>,
    ) {
        self.resolver.stub.give_back(flight);
        if result.is_err() {
            return self.lose_lane(lane);
        }
        match lane {
            Lane::Stream(number) => {
                if let Some(id) = self
                    .resolver
                    .stream(number as usize)
                    .map(|stream| stream.id)
                {
                    self.resolver.stub.sent(id);
                    self.resolver.stirred = true;
                }
            }
            Lane::Port(number) => {
                let Some(port) = self.resolver.port(number as usize) else {
                    return;
                };
                let slot = port.slot;
                let next = port.waiting.pop_front();
                port.sending = next.is_some();
                if let Some(message) = next {
                    self.wire.send(slot, message);
                }
            }
        }
    }

    /// Of no more use: nobody is there, the connection has ended, or a step for it has panicked.
    pub(super) fn lose_lane(&mut self, lane: Lane) {
        self.resolver.stirred = true;
        match lane {
            Lane::Port(number) => {
                let port = self.resolver.take_port(number as usize);
                if let Some(port) = port {
                    self.close_slot(port.slot, Close::Now);
                    self.resolver.stub.port_failed(port.id, self.now);
                }
            }
            Lane::Stream(number) => {
                let stream = self.resolver.take_stream(number as usize);
                if let Some(stream) = stream {
                    self.close_slot(stream.slot, Close::Now);
                    self.resolver.stub.stream_over(stream.id, self.now);
                }
            }
        }
    }

    /// Other servers, unless nobody is going to ask any more.
    pub(super) fn set_resolvers(&mut self, servers: &[SocketAddr]) {
        if !self.drain.is_on() {
            self.resolver.set_servers(servers, self.now);
        }
    }

    /// Nobody is left who could ask: the sockets are closed.
    pub(super) fn rest_resolver(&mut self) {
        if !self.resolver.is_at_rest() {
            self.resolver.set_servers(&[], self.now);
        }
    }
}

/// What it tells the operator.
impl<W: Wire> World<W> {
    /// Once a second.
    pub(super) fn count_resolver(&mut self) {
        let World {
            resolver, counters, ..
        } = self;
        let stub = &resolver.stub;
        let stats = stub.stats();
        for (how, count) in [
            (DnsQuestion::Known, stats.hits),
            (DnsQuestion::Joined, stats.joined),
            (DnsQuestion::Refused, stats.busy),
            (
                DnsQuestion::Asked,
                stats.asked - stats.hits - stats.joined - stats.busy,
            ),
        ] {
            counters.dns_questions.at(how).mirror(count);
        }
        for (outcome, count) in [
            (DnsAnswer::Records, stats.records),
            (DnsAnswer::NoData, stats.no_data),
            (DnsAnswer::NoName, stats.no_name),
            (DnsAnswer::Timeout, stats.timed_out),
            (DnsAnswer::Failed, stats.failed),
        ] {
            counters.dns_answers.at(outcome).mirror(count);
        }
        for (what, count) in [
            (DnsOdd::Late, stats.late),
            (DnsOdd::Stray, stats.strays),
            (DnsOdd::Garbage, stats.garbage),
            (DnsOdd::OtherCase, stats.other_case),
            (DnsOdd::Truncated, stats.truncated),
            (DnsOdd::Flood, stats.floods),
        ] {
            counters.dns_odd.at(what).mirror(count);
        }
        for (kind, count) in [
            (DnsSocket::Port, stats.ports_opened),
            (DnsSocket::PortFailed, stats.ports_failed),
            (DnsSocket::Stream, stats.streams_opened),
            (DnsSocket::StreamFailed, stats.streams_failed),
        ] {
            counters.dns_sockets.at(kind).mirror(count);
        }
        let queries = &counters.dns_queries;
        queries.at(DnsWay::Datagram).mirror(stats.datagrams);
        queries.at(DnsWay::Stream).mirror(stats.over_tcp);
        counters.dns_repeats.mirror(stats.repeated);
        counters.dns_missed.mirror(stats.missed);
        counters.dns_evicted.mirror(stats.evicted);
        counters.dns_open.set(stub.open() as u64);
        counters.dns_cached.set(stub.cached() as u64);
        self.note_servers();
    }

    /// A server has fallen silent, or speaks again.
    fn note_servers(&mut self) {
        let World {
            resolver,
            counters,
            log,
            ..
        } = self;
        let up: Vec<(SocketAddr, bool)> = resolver
            .stub
            .servers()
            .map(|server| (server.addr, server.up))
            .collect();
        let living = up.iter().filter(|(_, up)| *up).count();
        counters.dns_servers.set(up.len() as u64);
        counters.dns_servers_up.set(living as u64);
        for (address, up) in up.iter().filter(|now| {
            resolver
                .seen
                .iter()
                .any(|was| was.0 == now.0 && was.1 != now.1)
        }) {
            let event = if *up {
                "resolver_returned"
            } else {
                "resolver_silent"
            };
            log.event(self.now, event, &[("address", Value::Address(*address))]);
        }
        resolver.seen = up;
    }
}

impl Resolver {
    fn slot_of(&mut self, lane: Lane) -> Option<SlotId> {
        match lane {
            Lane::Port(number) => self.port(number as usize).map(|port| port.slot),
            Lane::Stream(number) => self.stream(number as usize).map(|stream| stream.slot),
        }
    }
}

fn port_lane(number: usize) -> Lane {
    Lane::Port(number as u32)
}

fn stream_lane(number: usize) -> Lane {
    Lane::Stream(number as u32)
}
