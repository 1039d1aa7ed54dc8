//! A stub among servers that do whatever servers do, and others that send whatever they like: everybody who asks is told once, in time, and
//! nothing but the truth or that it is not known.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::testing::*;
use super::super::{Config, Kind, Outcome, StreamId};

#[derive(Clone, Debug)]
enum Step {
    Ask(u8),
    /// A server tells the truth about one of the last queries, in the case that it was asked in or all in lower case.
    Answer(u8, bool),
    Twice(u8),
    Code(u8, u16),
    Truncated(u8),
    /// Somebody tells a lie, under another id or to another question.
    Lie(u8, u8),
    Garbage(u8, Vec<u8>),
    Wait(u16),
    PortFailed(u8),
    Connected(u8),
    Sent(u8),
    /// By TCP, in pieces of that size.
    StreamAnswer(u8, u8),
    StreamGarbage(u8, Vec<u8>),
    StreamOver(u8),
    Servers(u8),
}

fn a_step() -> impl Strategy<Value = Step> {
    let octets = || prop::collection::vec(any::<u8>(), 0..40);
    let any = any::<u8>;
    prop_oneof![
        8 => (0u8..12).prop_map(Step::Ask),
        6 => (any(), prop::bool::weighted(0.1)).prop_map(|(at, lower)| Step::Answer(at, lower)),
        1 => any().prop_map(Step::Twice),
        2 => (any(), 1u16..6).prop_map(|(at, code)| Step::Code(at, if code == 3 { 2 } else { code })),
        2 => any().prop_map(Step::Truncated),
        4 => (any(), any()).prop_map(|(at, how)| Step::Lie(at, how)),
        1 => (any(), octets()).prop_map(|(at, octets)| Step::Garbage(at, octets)),
        4 => (0u16..3000).prop_map(Step::Wait),
        1 => any().prop_map(Step::PortFailed),
        3 => any().prop_map(Step::Connected),
        3 => any().prop_map(Step::Sent),
        4 => (any(), 1u8..).prop_map(|(at, size)| Step::StreamAnswer(at, size)),
        1 => (any(), octets()).prop_map(|(at, octets)| Step::StreamGarbage(at, octets)),
        1 => any().prop_map(Step::StreamOver),
        1 => any().prop_map(Step::Servers),
    ]
}

const SERVERS: [&str; 3] = ["192.0.2.1:53", "192.0.2.2:53", "[2001:db8::1]:53"];

struct World {
    bench: Bench,
    open: HashSet<u32>,
    asked: u32,
    by_stream: Vec<(StreamId, Vec<u8>)>,
}

impl World {
    fn new(seed: u64) -> World {
        let config = Config {
            servers: SERVERS.iter().map(|addr| addr.parse().unwrap()).collect(),
            cache: 8,
            open_max: 6,
            ports: 2,
            ..Config::default()
        };
        World {
            bench: Bench::by(config, seed),
            open: HashSet::new(),
            asked: 0,
            by_stream: Vec::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask(name) => self.ask(name),
            Step::Answer(at, false) => self.say(at, truth),
            Step::Answer(at, true) => self.say(at, |query| {
                let mut query = query.to_vec();
                query[12..].make_ascii_lowercase();
                truth(&query)
            }),
            Step::Twice(at) => (0..2).for_each(|_| self.say(at, truth)),
            Step::Code(at, code) => self.say(at, |query| Reply::code(code).to(query)),
            Step::Truncated(at) => self.say(at, |query| Reply::truncated().to(query)),
            Step::Lie(at, how) => self.say(at, |query| lie(query, how)),
            Step::Garbage(at, octets) => self.say(at, |_| octets.clone()),
            Step::Wait(millis) => self.bench.wait(Duration::from_millis(millis.into())),
            Step::PortFailed(at) => {
                if let Some(&(port, _)) = pick(&self.bench.ports, at) {
                    self.bench.stub.port_failed(port, self.bench.now);
                }
            }
            Step::Connected(at) => self.on_stream(at, |bench, stream| bench.stub.connected(stream)),
            Step::Sent(at) => self.on_stream(at, |bench, stream| bench.stub.sent(stream)),
            Step::StreamAnswer(at, size) => self.say_on_stream(at, size),
            Step::StreamGarbage(at, octets) => self.on_stream(at, |bench, stream| {
                bench.stub.bytes(stream, &octets, bench.now);
            }),
            Step::StreamOver(at) => self.on_stream(at, |bench, stream| {
                bench.streams.retain(|(open, _)| *open != stream);
                bench.stub.stream_over(stream, bench.now);
            }),
            Step::Servers(which) => self.servers(which),
        }
        self.look();
    }

    fn ask(&mut self, name: u8) {
        self.asked += 1;
        let answer = self
            .bench
            .ask(&format!("n{name}.example"), Kind::A, self.asked);
        match answer {
            Some(answer) => is_true(&answer.outcome, name),
            None => assert!(self.open.insert(self.asked << 8 | u32::from(name))),
        }
    }

    /// One of the last queries is answered, if its socket is still open.
    fn say(&mut self, at: u8, message: impl FnOnce(&[u8]) -> Vec<u8>) {
        let last = &self.bench.sent[self.bench.sent.len().saturating_sub(16)..];
        if let Some(sent) = pick(last, at).cloned() {
            self.bench.datagram(sent.port, &message(&sent.query));
        }
    }

    fn on_stream(&mut self, at: u8, act: impl FnOnce(&mut Bench, StreamId)) {
        if let Some(&(stream, _)) = pick(&self.bench.streams, at) {
            act(&mut self.bench, stream);
        }
    }

    fn say_on_stream(&mut self, at: u8, size: u8) {
        if self.by_stream.is_empty() {
            return;
        }
        let (stream, query) = self
            .by_stream
            .remove(usize::from(at) % self.by_stream.len());
        let message = truth(&query);
        let octets = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
        for piece in octets.chunks(size.into()) {
            self.bench.stub.bytes(stream, piece, self.bench.now);
        }
    }

    fn servers(&mut self, which: u8) {
        let chosen = SERVERS.iter().enumerate();
        let chosen = chosen.filter(|(number, _)| which >> number & 1 == 1);
        let addrs: Vec<_> = chosen.map(|(_, addr)| addr.parse().unwrap()).collect();
        self.bench.stub.set_servers(&addrs, self.bench.now);
    }

    /// What has come of it.
    fn look(&mut self) {
        self.bench.turn();
        for (stream, octets) in std::mem::take(&mut self.bench.stream_sent) {
            let queries = frames(&octets).into_iter();
            self.by_stream.extend(queries.map(|query| (stream, query)));
        }
        for (asker, answer) in std::mem::take(&mut self.bench.answered) {
            let waiting = self.open.iter().find(|open| **open >> 8 == asker).copied();
            let waiting = waiting.expect("told once, and nobody else");
            self.open.remove(&waiting);
            is_true(&answer.outcome, waiting as u8);
            assert!(
                !matches!(&answer.outcome, Outcome::Records(_)) || answer.until > self.bench.now
            );
        }
        assert!(self.bench.stub.open() <= 6 && self.bench.stub.cached() <= 8);
        assert!(self.bench.ports.len() <= 3 * 2 * 2 && self.bench.streams.len() <= 3);
        assert!(self.bench.stub.deadline() > self.bench.now || self.bench.stub.open() > 0);
    }
}

fn pick<V>(from: &[V], at: u8) -> Option<&V> {
    from.get(usize::from(at) % from.len().max(1))
}

/// Of the names that are numbered, one in three has an address, one nothing, and one is none.
fn truth(query: &[u8]) -> Vec<u8> {
    let number = number(query);
    let name = format!("n{number}.example");
    match number % 3 {
        0 => Reply::with(vec![a(&name, 7, [10, 0, 0, number])]).to(query),
        1 => Reply::with(vec![])
            .authority(soa("example", 3, 9))
            .to(query),
        _ => Reply::code(3).authority(soa("example", 3, 9)).to(query),
    }
}

/// By whom the query asks.
fn number(query: &[u8]) -> u8 {
    let len = usize::from(query[12]);
    let label = std::str::from_utf8(&query[14..13 + len]).unwrap();
    label.parse().unwrap()
}

fn lie(query: &[u8], how: u8) -> Vec<u8> {
    let name = format!("n{}.example", number(query));
    let mut message = Reply::with(vec![a(&name, 4000, [203, 0, 113, 66])]).to(query);
    let last = 12 + usize::from(message[12]);
    match how % 4 {
        // Whoever has guessed another query's id has still the wrong name.
        0 => message[1] ^= how | 1,
        1 => message[last] = if message[last] == b'9' { b'8' } else { b'9' },
        2 => message[2] &= 0x7f,
        _ => message[5] = 0,
    }
    message
}

fn is_true(outcome: &Outcome, name: u8) {
    let want = match name % 3 {
        0 => format!("Records(A([10.0.0.{name}]))"),
        1 => "NoData".to_owned(),
        _ => "NoName".to_owned(),
    };
    let told = format!("{outcome:?}");
    assert!(
        told == want || matches!(outcome, Outcome::Failed(_)),
        "n{name}: {told}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn everybody_is_told_the_truth_once(seed: u64, steps in prop::collection::vec(a_step(), 1..150)) {
        let mut world = World::new(seed);
        for step in steps {
            world.take(step);
        }
        world.take(Step::Wait(5001));
        prop_assert_eq!((world.bench.stub.open(), world.open.len()), (0, 0));
        // Nothing is left to wait for, and no connection open for nothing.
        world.take(Step::Wait(15_001));
        prop_assert_eq!(world.bench.stub.deadline(), weir_smtp::time::Moment::NEVER);
        prop_assert!(world.bench.streams.is_empty());
    }
}
