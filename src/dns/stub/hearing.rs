//! What comes from the servers, and whether it is an answer to what was asked.
//!
//! A message is believed that comes where it was asked (the socket is connected, so nobody else's gets that far), has the id
//! and repeats the question to the letter. Everything else is counted and changes nothing: the answer may still come. When so much of it
//! comes to one socket that somebody must be guessing, or when the letters have another case, the question goes by TCP, which nobody can join unseen.

use weir_smtp::time::Moment;

use super::super::answer::Failure;
use super::super::flights::{Lane, Number, Try};
use super::super::ports::{PortId, Unknown};
use super::super::query::{self, Echo};
use super::super::reply::{self, Reading};
use super::super::servers::bit;
use super::super::streams::{Stream, StreamId};
use super::{Act, Stub};

impl<T: Copy> Stub<T> {
    /// A datagram has come to the port, of whatever length.
    pub fn datagram(&mut self, port: PortId, message: &[u8], now: Moment) {
        if let Some(server) = self.ports.server_of(port) {
            self.hear(Lane::Port(port), server, message, now);
        }
    }

    /// The connection is there.
    pub fn connected(&mut self, stream: StreamId) {
        if let Some(open) = self.stream_mut(stream) {
            open.connected();
            self.flush(stream);
        }
    }

    /// What [`Act::SendStream`] carried is sent.
    pub fn sent(&mut self, stream: StreamId) {
        if let Some(open) = self.stream_mut(stream) {
            open.sent();
            self.flush(stream);
        }
    }

    /// Octets have come on the connection, in whatever pieces.
    pub fn bytes(&mut self, stream: StreamId, mut octets: &[u8], now: Moment) {
        while let Some(open) = self.stream_mut(stream) {
            let Some(message) = open.message(&mut octets) else {
                return;
            };
            self.hear(Lane::Stream(stream), stream.number(), &message, now);
        }
    }

    /// The connection could not be made, has failed or has ended; the shard has closed it.
    pub fn stream_over(&mut self, stream: StreamId, now: Moment) {
        self.lose_stream(stream, now);
    }

    pub(super) fn flush(&mut self, stream: StreamId) {
        if let Some(octets) = self.stream_mut(stream).and_then(Stream::flush) {
            self.acts.push_back(Act::SendStream { stream, octets });
        }
    }

    pub(super) fn stream_mut(&mut self, stream: StreamId) -> Option<&mut Stream> {
        let known = self.streams.get_mut(stream.number())?.as_mut();
        known.filter(|known| known.id == stream)
    }

    fn hear(&mut self, lane: Lane, server: usize, message: &[u8], now: Moment) {
        let Some(head) = reply::head(message) else {
            self.stats.garbage += 1;
            return self.mismatch(lane, now);
        };
        let Some(number) = self.flights.by_id(lane, head.id) else {
            return self.unknown(lane, head.id, server, now);
        };
        let Some(open) = self.flights.open_try(number, lane, head.id) else {
            return;
        };
        if head.bare_refusal {
            return self.not_understood(number, open, now);
        }
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        match query::echo(message, &flight.question, open.case) {
            Echo::Exact => {}
            Echo::OtherCase if self.may_change_case(lane, server) => {}
            Echo::OtherCase => return self.other_case(number, open, now),
            Echo::Other => {
                self.stats.strays += 1;
                return self.mismatch(lane, now);
            }
        }
        let Some(flight) = self.flights.get(number) else {
            return;
        };
        let reading = reply::read(message, &flight.question);
        self.take(number, open, reading, now);
    }

    /// A server is known to change case once it has done so by TCP.
    fn may_change_case(&mut self, lane: Lane, server: usize) -> bool {
        let server = self.servers.at_mut(server);
        if matches!(lane, Lane::Stream(_)) {
            server.keeps_case = false;
        }
        !server.keeps_case
    }

    /// The message is about the question.
    fn take(&mut self, number: Number, open: Try, reading: Reading, now: Moment) {
        let by_stream = match open.lane {
            Lane::Stream(stream) => {
                if let Some(stream) = self.stream_mut(stream) {
                    stream.answers += 1;
                }
                true
            }
            Lane::Port(_) => false,
        };
        match reading {
            Reading::Answer(outcome, ttl) => {
                self.heard(&open, now);
                self.finish(number, outcome, ttl, now);
            }
            Reading::Truncated if !by_stream => {
                self.stats.truncated += 1;
                self.heard(&open, now);
                self.by_stream(number, open, now);
            }
            Reading::NotUnderstood => self.not_understood(number, open, now),
            Reading::Garbage if !by_stream => {
                self.stats.garbage += 1;
                self.mismatch(open.lane, now);
            }
            Reading::Failure | Reading::Truncated | Reading::Garbage => {
                self.heard(&open, now);
                self.failed_at(number, open, now);
            }
        }
    }

    fn heard(&mut self, open: &Try, now: Moment) {
        let server = self.servers.at_mut(open.server.into());
        server.heard(Some(now.since(open.sent)));
        server.edns &= open.edns;
    }

    /// The server has said that it cannot tell.
    fn failed_at(&mut self, number: Number, open: Try, now: Moment) {
        self.give_up(number, &open, now);
        if let Some(flight) = self.flights.get_mut(number) {
            flight.failed |= bit(open.server.into());
            flight.failure = Failure::Server;
        }
        self.after_loss(number, now);
    }

    /// An old server: once more without EDNS; if that helps, so from now on.
    fn not_understood(&mut self, number: Number, open: Try, now: Moment) {
        if !open.edns {
            return self.failed_at(number, open, now);
        }
        self.give_up(number, &open, now);
        if let Some(flight) = self.flights.get_mut(number) {
            flight.plain |= bit(open.server.into());
        }
        self.again(number, open.server.into(), now);
    }

    fn other_case(&mut self, number: Number, open: Try, now: Moment) {
        self.stats.other_case += 1;
        if let Some(flight) = self.flights.get_mut(number) {
            flight.suspect |= bit(open.server.into());
        }
        self.by_stream(number, open, now);
    }

    /// What was asked by datagram is asked again by TCP.
    fn by_stream(&mut self, number: Number, open: Try, now: Moment) {
        self.give_up(number, &open, now);
        if let Some(flight) = self.flights.get_mut(number) {
            flight.by_stream |= bit(open.server.into());
        }
        self.again(number, open.server.into(), now);
    }

    fn give_up(&mut self, number: Number, open: &Try, now: Moment) {
        if let Some(open) = self.flights.take_try(number, open.lane, open.id) {
            self.release(open, now);
        }
    }

    /// Nobody waits for this id.
    fn unknown(&mut self, lane: Lane, id: u16, server: usize, now: Moment) {
        let what = match lane {
            Lane::Port(port) => self.ports.unknown(port, id),
            // Nobody can guess here.
            Lane::Stream(_) => Unknown::Late,
        };
        if what == Unknown::Late {
            self.stats.late += 1;
            self.servers.at_mut(server).heard(None);
            return;
        }
        self.stats.strays += 1;
        self.unasked(lane, what, now);
    }

    fn mismatch(&mut self, lane: Lane, now: Moment) {
        let what = match lane {
            Lane::Port(port) => self.ports.mismatch(port),
            Lane::Stream(stream) => self.stream_mut(stream).map_or(Unknown::Late, Stream::stray),
        };
        self.unasked(lane, what, now);
    }

    fn unasked(&mut self, lane: Lane, what: Unknown, now: Moment) {
        if what != Unknown::Flood {
            return;
        }
        self.stats.floods += 1;
        match lane {
            Lane::Port(port) => self.flooded(port, now),
            Lane::Stream(stream) => {
                self.acts.push_back(Act::CloseStream { stream });
                self.lose_stream(stream, now);
            }
        }
    }

    /// Somebody is guessing: what was asked there goes by TCP.
    fn flooded(&mut self, port: PortId, now: Moment) {
        let lane = Lane::Port(port);
        let waiting = self.flights.on_lane(lane);
        self.ports.abandon(port);
        self.acts.push_back(Act::Close { port });
        for (number, id) in waiting {
            if let Some(open) = self.flights.open_try(number, lane, id) {
                self.by_stream(number, open, now);
            }
        }
    }

    /// The connection is gone. Whoever waits on it asks again; if it has not answered anything, not this server by TCP.
    pub(super) fn lose_stream(&mut self, stream: StreamId, now: Moment) {
        let known = self.streams.get_mut(stream.number());
        let Some(gone) = known.and_then(|known| known.take_if(|known| known.id == stream)) else {
            return;
        };
        let fruitless = gone.answers == 0;
        self.stats.streams_failed += u64::from(fruitless);
        let lane = Lane::Stream(stream);
        for (number, id) in self.flights.on_lane(lane) {
            self.flights.take_try(number, lane, id);
            if fruitless {
                self.no_stream(number, stream.number());
            }
            self.after_loss(number, now);
        }
    }

    fn no_stream(&mut self, number: Number, server: usize) {
        let Some(flight) = self.flights.get_mut(number) else {
            return;
        };
        if flight.suspect & bit(server) == 0 {
            flight.failed |= bit(server);
            flight.failure = Failure::Server;
            return;
        }
        // It cannot be asked whether it was the one who changed the case. Who has guessed id and port once has gained no more than
        // that both have to be guessed once more.
        flight.suspect &= !bit(server);
        flight.by_stream &= !bit(server);
        self.servers.at_mut(server).keeps_case = false;
    }
}
