//! For tests: replies as octets, and a stub with time, chance and servers in hand.

use std::net::SocketAddr;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::{Act, Answer, Config, Kind, Name, PortId, Question, StreamId, Stub};

pub fn question(name: &str, kind: Kind) -> Question {
    Question {
        name: Name::parse(name.as_bytes()).unwrap(),
        kind,
    }
}

/// One record, in text as far as it goes.
#[derive(Clone, Debug)]
pub struct Record {
    pub owner: String,
    pub code: u16,
    pub class: u16,
    pub ttl: u32,
    pub data: Vec<u8>,
}

pub fn record(owner: &str, ttl: u32, code: u16, data: Vec<u8>) -> Record {
    Record {
        owner: owner.to_owned(),
        code,
        class: 1,
        ttl,
        data,
    }
}

pub fn a(owner: &str, ttl: u32, ip: [u8; 4]) -> Record {
    record(owner, ttl, 1, ip.to_vec())
}

pub fn ns(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, 2, wire(target))
}

pub fn cname(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, 5, wire(target))
}

pub fn ptr(owner: &str, ttl: u32, target: &str) -> Record {
    record(owner, ttl, 12, wire(target))
}

pub fn mx(owner: &str, ttl: u32, preference: u16, target: &str) -> Record {
    let data = [&preference.to_be_bytes()[..], &wire(target)].concat();
    record(owner, ttl, 15, data)
}

pub fn txt(owner: &str, ttl: u32, strings: &[&[u8]]) -> Record {
    let mut data = Vec::new();
    for string in strings {
        data.push(string.len() as u8);
        data.extend_from_slice(string);
    }
    record(owner, ttl, 16, data)
}

pub fn soa(owner: &str, ttl: u32, minimum: u32) -> Record {
    let mut data = [wire("ns.example"), wire("host.example")].concat();
    for number in [1, 2, 3, 4, minimum] {
        data.extend(u32::to_be_bytes(number));
    }
    record(owner, ttl, 6, data)
}

pub fn wire(name: &str) -> Vec<u8> {
    Name::parse(name.as_bytes()).unwrap().as_wire().to_vec()
}

/// What a server says to a query.
#[derive(Clone, Debug)]
pub struct Reply {
    /// QR, AA, TC, RD and RA, without the code.
    pub flags: u16,
    pub code: u16,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

pub const QR: u16 = 0x8000;
pub const TC: u16 = 0x0200;
pub const RA: u16 = 0x0080;

impl Reply {
    pub fn with(answer: Vec<Record>) -> Reply {
        Reply {
            flags: QR | RA,
            code: 0,
            answer,
            authority: Vec::new(),
            additional: Vec::new(),
        }
    }

    pub fn code(code: u16) -> Reply {
        Reply {
            code,
            ..Reply::with(Vec::new())
        }
    }

    pub fn truncated() -> Reply {
        Reply {
            flags: QR | RA | TC,
            ..Reply::with(Vec::new())
        }
    }

    pub fn authority(mut self, record: Record) -> Reply {
        self.authority.push(record);
        self
    }

    pub fn additional(mut self, record: Record) -> Reply {
        self.additional.push(record);
        self
    }

    /// As octets, with the id and the question of `query`.
    pub fn to(&self, query: &[u8]) -> Vec<u8> {
        let name = query[12..].iter().scan(0, |left, &octet| {
            let end = *left == 0 && octet == 0;
            *left = if *left == 0 { octet } else { *left - 1 };
            Some(end)
        });
        let question = 12 + name.take_while(|end| !end).count() + 5;
        let mut octets = query[..2].to_vec();
        octets.extend((self.flags | self.code).to_be_bytes());
        octets.extend([0, 1]);
        let sections = [&self.answer, &self.authority, &self.additional];
        for section in sections {
            octets.extend((section.len() as u16).to_be_bytes());
        }
        octets.extend_from_slice(&query[12..question]);
        for record in sections.into_iter().flatten() {
            octets.extend(wire(&record.owner));
            octets.extend(record.code.to_be_bytes());
            octets.extend(record.class.to_be_bytes());
            octets.extend(record.ttl.to_be_bytes());
            octets.extend((record.data.len() as u16).to_be_bytes());
            octets.extend_from_slice(&record.data);
        }
        octets
    }
}

/// Messages behind their lengths.
pub fn frames(mut octets: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((len, rest)) = octets.split_first_chunk::<2>() {
        let (frame, rest) = rest.split_at(u16::from_be_bytes(*len).into());
        frames.push(frame.to_vec());
        octets = rest;
    }
    frames
}

/// A query that the stub has sent.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Sent {
    pub port: PortId,
    pub server: SocketAddr,
    pub query: Vec<u8>,
}

/// A stub and what it has asked for.
pub struct Bench {
    pub stub: Stub<u32>,
    pub now: Moment,
    pub sent: Vec<Sent>,
    pub answered: Vec<(u32, Answer)>,
    pub ports: Vec<(PortId, SocketAddr)>,
    pub streams: Vec<(StreamId, SocketAddr)>,
    pub stream_sent: Vec<(StreamId, Vec<u8>)>,
}

pub const FIRST: &str = "192.0.2.1:53";
pub const SECOND: &str = "192.0.2.2:53";

impl Bench {
    pub fn new(servers: &[&str]) -> Bench {
        Bench::with(Config {
            servers: servers.iter().map(|addr| addr.parse().unwrap()).collect(),
            ..Config::default()
        })
    }

    /// Each server has answered once, and quickly.
    pub fn known(servers: &[&str]) -> Bench {
        let mut bench = Bench::new(servers);
        while bench.stub.servers().any(|server| server.latency.is_none()) {
            bench.ask(&format!("{}.example", bench.now), Kind::A, 0);
            bench.wait(Duration::from_millis(1));
            // The copy comes first, and its answer ends the question.
            for sent in std::mem::take(&mut bench.sent) {
                bench.datagram(sent.port, &Reply::code(3).to(&sent.query));
            }
        }
        bench.answered.clear();
        bench
    }

    pub fn with(config: Config) -> Bench {
        Bench::by(config, 1)
    }

    pub fn by(config: Config, seed: u64) -> Bench {
        let mut state = seed;
        let chance = move || {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            state ^ state.rotate_left(32)
        };
        Bench {
            stub: Stub::new(config, Box::new(chance)),
            now: Moment::from_micros(1),
            sent: Vec::new(),
            answered: Vec::new(),
            ports: Vec::new(),
            streams: Vec::new(),
            stream_sent: Vec::new(),
        }
    }

    pub fn ask(&mut self, name: &str, kind: Kind, asker: u32) -> Option<Answer> {
        let answer = self.stub.ask(&question(name, kind), asker, self.now);
        self.turn();
        answer
    }

    /// The last query goes back to where it came from, as `reply`.
    pub fn reply(&mut self, reply: &Reply) {
        let last = self.sent.last().unwrap().clone();
        self.datagram(last.port, &reply.to(&last.query));
    }

    pub fn datagram(&mut self, port: PortId, message: &[u8]) {
        self.stub.datagram(port, message, self.now);
        self.turn();
    }

    pub fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while self.stub.deadline() <= end {
            self.now = self.stub.deadline().max(self.now);
            self.stub.timeout(self.now);
            self.turn();
        }
        self.now = end;
    }

    /// Does what the stub says, and holds it to what it has promised.
    pub fn turn(&mut self) {
        while let Some(act) = self.stub.poll() {
            match act {
                Act::Open { port, server } => {
                    assert!(port.number() < self.stub.ports_max());
                    let taken = |(other, _): &(PortId, _)| other.number() == port.number();
                    assert!(!self.ports.iter().any(taken), "a number names one port");
                    self.ports.push((port, server));
                }
                Act::Send { port, message } => {
                    let known = self.ports.iter().find(|(open, _)| *open == port);
                    let server = known.expect("sent from an open port").1;
                    let query = message.clone();
                    self.sent.push(Sent {
                        port,
                        server,
                        query,
                    });
                    self.stub.give_back(message);
                }
                Act::Close { port } => {
                    let at = self.ports.iter().position(|(open, _)| *open == port);
                    self.ports.swap_remove(at.expect("closed once"));
                }
                Act::Connect { stream, server } => {
                    let taken = |(other, _): &(StreamId, _)| other.number() == stream.number();
                    assert!(!self.streams.iter().any(taken), "one stream for a server");
                    self.streams.push((stream, server));
                }
                Act::SendStream { stream, octets } => {
                    assert!(self.streams.iter().any(|(open, _)| *open == stream));
                    self.stream_sent.push((stream, octets));
                }
                Act::CloseStream { stream } => {
                    let at = self.streams.iter().position(|(open, _)| *open == stream);
                    self.streams.swap_remove(at.expect("closed once"));
                }
                Act::Answered { asker, answer } => self.answered.push((asker, answer)),
            }
        }
    }

    /// The queries on the connections, without their lengths.
    pub fn stream_queries(&mut self) -> Vec<Vec<u8>> {
        let sent = std::mem::take(&mut self.stream_sent);
        sent.iter().flat_map(|(_, octets)| frames(octets)).collect()
    }

    /// The only connection is made.
    pub fn connected(&mut self) -> StreamId {
        let [(stream, _)] = self.streams[..] else {
            panic!("{} connections", self.streams.len());
        };
        self.stub.connected(stream);
        self.turn();
        stream
    }

    pub fn stream_reply(&mut self, stream: StreamId, message: &[u8]) {
        let len = (message.len() as u16).to_be_bytes();
        self.stub
            .bytes(stream, &[&len[..], message].concat(), self.now);
        self.turn();
    }

    /// The outcome that the only asker was told, in a few words.
    pub fn told(&mut self) -> String {
        let told = std::mem::take(&mut self.answered);
        let told: Vec<String> = told
            .iter()
            .map(|(asker, answer)| format!("{asker} {:?}", answer.outcome))
            .collect();
        told.join("; ")
    }
}
