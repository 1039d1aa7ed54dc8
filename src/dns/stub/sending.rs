//! What is sent for a question, to whom, and what happens when nothing comes back.

use weir_smtp::time::Moment;

use super::super::answer::{Failure, Outcome};
use super::super::flights::{Lane, Number, Try};
use super::super::ports::PortId;
use super::super::query;
use super::super::servers::bit;
use super::super::streams::{Stream, StreamId};
use super::{Act, STREAM_IDLE, Stub};

/// Queries for one question, all servers and both ways together.
const SENT_MAX: u8 = 8;
/// With nobody else to ask, a server that is not there is asked again after this part of a try's time: it may be starting.
const REFUSED_SHARE: u32 = 4;

impl<T: Copy> Stub<T> {
    /// Asks the next server; if there is none that could know, and nothing is open, the question has failed.
    pub(super) fn try_next(&mut self, number: Number, now: Moment) {
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        let (failed, tried, over) = (flight.failed, flight.tried, flight.over);
        let (is_first, idle) = (flight.sent == 0, flight.tries.is_empty());
        let chosen = match flight.sent < SENT_MAX {
            true => self.servers.choose(failed, tried),
            false => None,
        };
        match chosen {
            Some(server) => {
                if is_first && let Some(suspect) = self.servers.probe(server, now) {
                    self.send(number, suspect, now);
                }
                self.send(number, server, now);
                self.flights.set_timer(number, now + self.config.timeout);
            }
            None if idle => self.fail(number, now),
            None => self.flights.set_timer(number, over),
        }
    }

    fn fail(&mut self, number: Number, now: Moment) {
        let failure = self.flights.get(number).map(|flight| flight.failure);
        let failure = failure.unwrap_or(Failure::Timeout);
        self.finish(number, Outcome::Failed(failure), None, now);
    }

    /// A try has come to nothing, and was given up: if it was the last one open, another is made.
    pub(super) fn after_loss(&mut self, number: Number, now: Moment) {
        let flight = self.flights.get(number);
        if flight.is_some_and(|flight| flight.tries.is_empty()) {
            self.try_next(number, now);
        }
    }

    /// The same server once more, in another way.
    pub(super) fn again(&mut self, number: Number, server: usize, now: Moment) {
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        if flight.sent >= SENT_MAX {
            return self.after_loss(number, now);
        }
        self.send(number, server, now);
        self.flights.set_timer(number, now + self.config.timeout);
    }

    fn send(&mut self, number: Number, server: usize, now: Moment) {
        let Some(flight) = self.flights.get_mut(number) else {
            return;
        };
        self.stats.repeated += u64::from(flight.sent > 0);
        flight.sent += 1;
        flight.tried |= bit(server);
        match flight.by_stream & bit(server) {
            0 => self.send_datagram(number, server, now),
            _ => self.send_on_stream(number, server, now),
        }
    }

    fn send_datagram(&mut self, number: Number, server: usize, now: Moment) {
        let lots = (self.chance)();
        let drawn = self.ports.draw(server, (lots >> 48) as usize, now);
        if let Some(port) = drawn.close {
            self.acts.push_back(Act::Close { port });
        }
        let port = drawn.port;
        if drawn.open {
            self.stats.ports_opened += 1;
            let server = self.servers.at(server).addr;
            self.acts.push_back(Act::Open { port, server });
        }
        let lane = Lane::Port(port);
        let is_open = |id| self.flights.is_open(lane, id);
        let id = self.ports.draw_id(port, lots as u32, is_open);
        let mut message = self.spare.pop().unwrap_or_default();
        self.write(&mut message, number, server, lane, id, now);
        self.stats.datagrams += 1;
        self.acts.push_back(Act::Send { port, message });
    }

    fn send_on_stream(&mut self, number: Number, server: usize, now: Moment) {
        let stream = self.stream_to(server);
        let lane = Lane::Stream(stream);
        // Fewer questions may be open than there are ids.
        let mut id = (self.chance)() as u16;
        while self.flights.is_open(lane, id) {
            id = id.wrapping_add(1);
        }
        let mut message = self.spare.pop().unwrap_or_default();
        self.write(&mut message, number, server, lane, id, now);
        self.stats.over_tcp += 1;
        if let Some(open) = self.stream_mut(stream) {
            open.open += 1;
            open.idle_at = Moment::NEVER;
            // What does not fit is not sent: its time will pass, and this connection's with it.
            open.push(&message);
        }
        self.give_back(message);
        self.flush(stream);
    }

    fn stream_to(&mut self, server: usize) -> StreamId {
        if let Some(stream) = &self.streams[server] {
            return stream.id;
        }
        self.stream_lives = self.stream_lives.wrapping_add(1);
        self.stats.streams_opened += 1;
        let stream = Stream::new(server, self.stream_lives);
        let id = stream.id;
        self.streams[server] = Some(stream);
        self.acts.push_back(Act::Connect {
            stream: id,
            server: self.servers.at(server).addr,
        });
        id
    }

    /// The query as octets; it is open from now on.
    fn write(
        &mut self,
        message: &mut Vec<u8>,
        number: Number,
        server: usize,
        lane: Lane,
        id: u16,
        now: Moment,
    ) {
        let told = self.servers.at(server);
        let plain = self.flights.get(number).map_or(0, |flight| flight.plain);
        let edns = told.edns && plain & bit(server) == 0;
        let case = match self.config.mix_case && told.keeps_case {
            true => (self.chance)(),
            false => 0,
        };
        if let Some(flight) = self.flights.get(number) {
            query::write(message, id, &flight.question, case, edns);
        }
        let added = Try {
            lane,
            id,
            server: server as u8,
            edns,
            missed: false,
            case,
            sent: now,
        };
        self.flights.add_try(number, added);
    }

    /// A try is no longer open.
    pub(super) fn release(&mut self, open: Try, now: Moment) {
        match open.lane {
            Lane::Port(port) => {
                if let Some(port) = self.ports.release(port) {
                    self.acts.push_back(Act::Close { port });
                }
            }
            Lane::Stream(stream) => {
                if let Some(stream) = self.stream_mut(stream) {
                    stream.open -= 1;
                    if stream.open == 0 {
                        stream.idle_at = now + STREAM_IDLE;
                    }
                }
            }
        }
    }

    /// [`Stub::deadline`] is reached.
    pub fn timeout(&mut self, now: Moment) {
        while let Some(number) = self.flights.due(now) {
            self.overdue(number, now);
        }
        for server in 0..self.streams.len() {
            if self.streams[server]
                .as_ref()
                .is_some_and(|stream| stream.idle_at <= now)
                && let Some(stream) = self.streams[server].take()
            {
                let stream = stream.id;
                self.acts.push_back(Act::CloseStream { stream });
            }
        }
    }

    fn overdue(&mut self, number: Number, now: Moment) {
        if let Some(stream) = self.hold_against(number, now) {
            // A connection that lets a question pass is not waited for by the others.
            self.acts.push_back(Act::CloseStream { stream });
            return self.lose_stream(stream, now);
        }
        let over = self.flights.get(number).map(|flight| flight.over);
        match over {
            Some(over) if over <= now => {
                self.finish(number, Outcome::Failed(Failure::Timeout), None, now);
            }
            _ => self.try_next(number, now),
        }
    }

    /// Notes which servers have let their time pass. Some: on this connection.
    fn hold_against(&mut self, number: Number, now: Moment) -> Option<StreamId> {
        let mut on = None;
        let timeout = self.config.timeout;
        for open in &mut self.flights.get_mut(number)?.tries {
            if open.missed || open.sent + timeout > now {
                continue;
            }
            open.missed = true;
            self.stats.missed += 1;
            let server = self.servers.at_mut(open.server.into());
            server.missed(now);
            if let Lane::Stream(stream) = open.lane {
                on = Some(stream);
            }
        }
        on
    }

    /// The socket does not work: it could not be opened, or its server's host says that nobody listens.
    pub fn port_failed(&mut self, port: PortId, now: Moment) {
        let Some(server) = self.ports.server_of(port) else {
            return;
        };
        self.stats.ports_failed += 1;
        self.servers.at_mut(server).refused(now);
        let waiting = self.flights.on_lane(Lane::Port(port));
        self.ports.abandon(port);
        self.acts.push_back(Act::Close { port });
        for (number, id) in waiting {
            self.flights.take_try(number, Lane::Port(port), id);
            self.after_refusal(number, server, now);
        }
    }

    fn after_refusal(&mut self, number: Number, server: usize, now: Moment) {
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        if self.servers.has_other(server, flight.failed) {
            return self.after_loss(number, now);
        }
        if flight.tries.is_empty() {
            let next = now + self.config.timeout / REFUSED_SHARE;
            self.flights.set_timer(number, next);
        }
    }
}
