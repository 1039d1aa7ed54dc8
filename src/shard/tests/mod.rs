//! A world over a network that always works at once, to be told stories to.
//!
//! The wire is a few vectors: what is sent is there, what is asked for happens in the next turn, time passes when the
//! test says so. Fragments, delays and resets are the simulation's business (tests/sim).

mod both_sides;
mod claimed;
mod dedicated;
mod drain;
mod explain;
mod forgone;
mod hearsay;
mod inquiry;
mod layer;
mod lists;
mod looked_up;
mod memory;
mod original;
mod parking;
mod pool;
mod probe;
mod proxied;
mod resolver;
mod secure;
mod secure_leg;
mod session;
mod told;
mod tunnel;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_smtp::body::BareNewline;
use weir_smtp::relay;
use weir_smtp::time::Moment;

use crate::maillog;
use crate::metrics::Counters;
use crate::policy;
use crate::ring::{BufferId, Close, Dial, Event, Group, Owner, Part, ReceiveEnd, SlotId, Wire};

use super::config::{
    LegConfig, PitConfig, ProbeConfig, ProxiedConfig, SessionConfig, WaitConfig, WorldConfig,
};
use super::mail::{Mail, To, UpstreamSpec};
use super::shared::Shared;
use super::world::{Setup, World};

const CHUNK: usize = 16 * 1024;

/// One socket.
struct Socket {
    owner: Owner,
    /// Everything the world has sent.
    sent: Vec<u8>,
    /// In so many sends.
    sends: usize,
    /// Of the last of them.
    flying: usize,
    sending: bool,
    armed: bool,
    closed: Option<Close>,
    /// Where the world connected to; None: a client.
    to: Option<SocketAddr>,
    /// Said, but no receive was armed.
    unread: Vec<u8>,
    /// Told that nothing more comes.
    finished: bool,
    /// How it was connected.
    dial: Option<Dial>,
    /// Each of its sends apart, where they are datagrams.
    datagrams: Option<Vec<Vec<u8>>>,
}

/// What waits to be handed out; owners are looked up then.
enum Due {
    Accepted(SlotId, SocketAddr, Option<SocketAddr>),
    Connected(SlotId, bool),
    Received(SlotId, Vec<u8>),
    Ended(SlotId, ReceiveEnd),
    Sent(SlotId, io::Result<usize>, Vec<u8>),
    Closed(SlotId),
    Extracted(SlotId),
}

pub struct FakeWire {
    sockets: Vec<Socket>,
    due: VecDeque<Due>,
    buffers: HashMap<u32, (Vec<u8>, u32)>,
    next_buffer: u32,
    /// Addresses that refuse connections.
    refusing: Vec<SocketAddr>,
    /// Addresses that never answer.
    silent: Vec<SocketAddr>,
    /// Sockets that take no bytes now.
    stuffed: Vec<SlotId>,
    /// Looks that find no buffer.
    blind_looks: usize,
    slots_max: usize,
    buffers_max: usize,
    /// The hold budget is used up.
    no_chunks: bool,
    /// Sockets cannot be taken out.
    holds_fast: bool,
    /// A send to this socket meets a defect.
    explosive: Option<SlotId>,
}

impl FakeWire {
    fn new() -> FakeWire {
        FakeWire {
            sockets: Vec::new(),
            due: VecDeque::new(),
            buffers: HashMap::new(),
            next_buffer: 0,
            refusing: Vec::new(),
            silent: Vec::new(),
            stuffed: Vec::new(),
            blind_looks: 0,
            slots_max: 1000,
            buffers_max: 1000,
            no_chunks: false,
            holds_fast: false,
            explosive: None,
        }
    }

    fn socket(&mut self, slot: SlotId) -> &mut Socket {
        &mut self.sockets[slot.0 as usize]
    }

    fn open(&mut self, to: Option<SocketAddr>, owner: Owner) -> SlotId {
        self.sockets.push(Socket {
            owner,
            sent: Vec::new(),
            sends: 0,
            flying: 0,
            sending: false,
            armed: false,
            closed: None,
            to,
            unread: Vec::new(),
            finished: false,
            dial: None,
            datagrams: None,
        });
        SlotId(self.sockets.len() as u32 - 1)
    }

    fn store(&mut self, bytes: Vec<u8>) -> BufferId {
        self.next_buffer += 1;
        self.buffers.insert(self.next_buffer, (bytes, 1));
        BufferId(self.next_buffer)
    }

    fn put(&mut self, slot: SlotId, bytes: &[u8], flight: Vec<u8>) {
        assert_ne!(self.explosive, Some(slot), "a defect for the test");
        let socket = self.socket(slot);
        assert!(socket.closed.is_none(), "{slot:?}: sent to after its close");
        assert!(!socket.finished, "{slot:?}: sent to after its end");
        assert!(!socket.sending, "{slot:?}: one send at a time");
        socket.sending = true;
        socket.sends += 1;
        socket.flying = bytes.len();
        match &mut socket.datagrams {
            Some(datagrams) => datagrams.push(bytes.to_vec()),
            None => socket.sent.extend_from_slice(bytes),
        }
        let mut flight = flight;
        flight.clear();
        if !self.stuffed.contains(&slot) {
            self.due.push_back(Due::Sent(slot, Ok(bytes.len()), flight));
        }
    }

    fn event(&mut self) -> Option<Event> {
        loop {
            let due = self.due.pop_front()?;
            let event = match due {
                Due::Accepted(slot, peer, destination) => Event::Accepted {
                    listener: 0,
                    slot,
                    peer,
                    destination,
                },
                Due::Extracted(slot) if self.socket(slot).closed.is_none() => {
                    self.socket(slot).closed = Some(Close::Now);
                    self.due.push_back(Due::Closed(slot));
                    let socket = std::fs::File::open("/dev/null").expect("a descriptor");
                    Event::Extracted {
                        slot,
                        owner: self.socket(slot).owner,
                        result: Ok(socket.into()),
                    }
                }
                Due::Closed(slot) => Event::Closed {
                    slot,
                    owner: self.socket(slot).owner,
                },
                Due::Received(slot, bytes) if self.socket(slot).closed.is_none() => {
                    let len = bytes.len() as u32;
                    let buffer = self.store(bytes);
                    Event::Received {
                        slot,
                        owner: self.socket(slot).owner,
                        buffer,
                        len,
                    }
                }
                Due::Ended(slot, why) if self.socket(slot).closed.is_none() => {
                    self.socket(slot).armed = false;
                    Event::ReceiveEnded {
                        slot,
                        owner: self.socket(slot).owner,
                        why,
                    }
                }
                Due::Connected(slot, works) if self.socket(slot).closed.is_none() => {
                    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
                    let result = works.then_some(()).ok_or_else(refused);
                    Event::Connected {
                        slot,
                        owner: self.socket(slot).owner,
                        result,
                    }
                }
                Due::Sent(slot, result, flight) if self.socket(slot).closed.is_none() => {
                    self.socket(slot).sending = false;
                    Event::Sent {
                        slot,
                        owner: self.socket(slot).owner,
                        result,
                        flight,
                    }
                }
                // A slot is silent between its close and its end.
                _ => continue,
            };
            return Some(event);
        }
    }
}

impl Wire for FakeWire {
    fn connect(&mut self, dial: &Dial, owner: Owner) -> io::Result<SlotId> {
        let to = &dial.to;
        if self.free_slots() == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let slot = self.open(Some(*to), owner);
        self.socket(slot).dial = Some(*dial);
        let works = !self.refusing.contains(to);
        if !self.silent.contains(to) {
            self.due.push_back(Due::Connected(slot, works));
        }
        Ok(slot)
    }

    fn connect_datagram(&mut self, to: SocketAddr, owner: Owner) -> io::Result<SlotId> {
        if self.free_slots() == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        let slot = self.open(Some(to), owner);
        self.socket(slot).datagrams = Some(Vec::new());
        Ok(slot)
    }

    fn extract(&mut self, slot: SlotId) -> io::Result<()> {
        let socket = self.socket(slot);
        assert!(!socket.armed && !socket.sending, "{slot:?} is busy");
        if self.holds_fast {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.due.push_back(Due::Extracted(slot));
        Ok(())
    }

    fn adopt(&mut self, _: OwnedFd, owner: Owner) -> io::Result<SlotId> {
        if self.free_slots() == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENFILE));
        }
        Ok(self.open(None, owner))
    }

    fn start_receive(&mut self, slot: SlotId, _: Group) {
        let socket = self.socket(slot);
        socket.armed = true;
        let unread = std::mem::take(&mut socket.unread);
        if !unread.is_empty() {
            self.due.push_back(Due::Received(slot, unread));
        }
    }

    fn stop_receive(&mut self, slot: SlotId) {
        if self.socket(slot).armed {
            self.due.push_back(Due::Ended(slot, ReceiveEnd::Stopped));
        }
    }

    fn receive_now(&mut self, slot: SlotId, _: Group) {
        if self.blind_looks > 0 {
            self.blind_looks -= 1;
            let blind = Due::Ended(slot, ReceiveEnd::NoBuffers);
            return self.due.push_back(blind);
        }
        let socket = self.socket(slot);
        assert!(!socket.armed, "not while a receive is armed");
        let unread = std::mem::take(&mut socket.unread);
        self.due.push_back(match unread.is_empty() {
            true => Due::Ended(slot, ReceiveEnd::Stopped),
            false => Due::Received(slot, unread),
        });
    }

    fn send(&mut self, slot: SlotId, bytes: Vec<u8>) {
        self.put(slot, &bytes.clone(), bytes);
    }

    fn send_spans(&mut self, slot: SlotId, head: Vec<u8>, parts: &[Part]) {
        let mut all = Vec::new();
        for part in parts {
            match *part {
                Part::Bytes { start, len } => {
                    all.extend_from_slice(&head[start as usize..][..len as usize])
                }
                Part::Span { buffer, start, len } => {
                    all.extend_from_slice(&self.buffer(buffer)[start as usize..][..len as usize]);
                }
            }
        }
        self.put(slot, &all, head);
    }

    fn send_now(&mut self, slot: SlotId, bytes: &[u8]) {
        if self.stuffed.contains(&slot) {
            self.socket(slot).sending = true;
            let full = Err(io::Error::from(io::ErrorKind::WouldBlock));
            return self.due.push_back(Due::Sent(slot, full, Vec::new()));
        }
        self.put(slot, bytes, Vec::new());
    }

    fn cancel_send(&mut self, _: SlotId) {}

    fn finish(&mut self, slot: SlotId) {
        let socket = self.socket(slot);
        assert!(!socket.sending, "{slot:?}: what is being sent comes first");
        socket.finished = true;
    }

    fn close(&mut self, slot: SlotId, how: Close) {
        let socket = self.socket(slot);
        assert!(socket.closed.is_none(), "{slot:?}: closed twice");
        socket.closed = Some(how);
        self.due.push_back(Due::Closed(slot));
    }

    fn set_owner(&mut self, slot: SlotId, owner: Owner) {
        self.socket(slot).owner = owner;
    }

    fn small_buffers(&mut self, _: SlotId) {}

    fn buffer(&self, id: BufferId) -> &[u8] {
        &self.buffers[&id.0].0
    }

    fn buffer_mut(&mut self, id: BufferId) -> &mut [u8] {
        &mut self.buffers.get_mut(&id.0).expect("a buffer in use").0
    }

    fn retain(&mut self, id: BufferId) {
        self.buffers.get_mut(&id.0).expect("a buffer in use").1 += 1;
    }

    fn release(&mut self, id: BufferId) {
        let references = &mut self.buffers.get_mut(&id.0).expect("a buffer in use").1;
        *references -= 1;
        if *references == 0 {
            self.buffers.remove(&id.0);
        }
    }

    fn chunk(&mut self) -> Option<BufferId> {
        (!self.no_chunks).then(|| self.store(Vec::with_capacity(CHUNK)))
    }

    fn chunk_append(&mut self, id: BufferId, bytes: &[u8]) -> (u32, u32) {
        let chunk = &mut self.buffers.get_mut(&id.0).expect("a chunk in use").0;
        let start = chunk.len();
        let taken = bytes.len().min(CHUNK - start);
        chunk.extend_from_slice(&bytes[..taken]);
        (start as u32, taken as u32)
    }

    fn free_slots(&self) -> usize {
        let open = self
            .sockets
            .iter()
            .filter(|socket| socket.closed.is_none())
            .count();
        self.slots_max - open
    }

    fn buffers(&self, _: Group) -> (usize, usize) {
        (self.buffers.len().min(self.buffers_max), self.buffers_max)
    }

    fn held_chunks(&self) -> usize {
        0
    }
}

/// A world, its clients and its mail servers.
pub struct Stage {
    pub world: World<FakeWire>,
    pub now: Moment,
    pub counters: Arc<Counters>,
    pub shared: Arc<Shared>,
    clients: u8,
    /// Defects the test has made.
    defects: u64,
}

/// What a test may want otherwise than usual.
pub fn settings() -> WorldConfig {
    WorldConfig {
        services: vec![Default::default()].into(),
        tls: None,
        identity: Default::default(),
        dedicated: Default::default(),
        proxied: Default::default(),
        hostname: Arc::from(&b"weir.example"[..]),
        smtp: relay::Config {
            hostname: b"weir.example".to_vec(),
            greeting: b"220 weir.example ESMTP\r\n".to_vec(),
            message_size_max: 1 << 20,
            recipients_max: 100,
            messages_max: 0,
            bare_newline: BareNewline::Reject,
            stream_window: 64 << 10,
            timeouts: relay::Timeouts::default(),
        },
        hold_max: 256 << 10,
        stream_share: 25,
        slots: 1000,
        reserve: 100,
        chunks_max: 100,
        policy: Arc::new(policy::Config::default()),
        health: crate::route::health::Config::default(),
        overload: policy::overload::Config::default(),
        session: SessionConfig::default(),
        leg: LegConfig::default(),
        wait: WaitConfig::default(),
        pit: PitConfig::default(),
        probe: ProbeConfig {
            interval: Duration::ZERO,
            relay_test: false,
        },
        resolver: Default::default(),
    }
}

/// Always the same numbers.
fn chance() -> crate::dns::Chance {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    Box::new(move || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        state ^ state >> 29
    })
}

/// The n-th mail server's address.
pub fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 25))
}

impl Stage {
    /// A shard that does not probe (it is not the first), in front of `servers` mail servers with `max` connections each.
    pub fn new(config: WorldConfig, servers: u8, max: u32) -> Stage {
        let shared = Arc::new(Shared::new(0));
        Stage::sharing(config, servers, max, shared, 1)
    }

    pub fn sharing(
        config: WorldConfig,
        servers: u8,
        max: u32,
        shared: Arc<Shared>,
        shard: usize,
    ) -> Stage {
        let log = maillog::Config {
            file: Some("/dev/null".into()),
            ..maillog::Config::default()
        };
        let writer = maillog::Writer::start(log, Instant::now()).expect("/dev/null can be opened");
        let counters = Arc::new(Counters::default());
        let upstreams = (1..=servers).map(|n| UpstreamSpec {
            name: format!("mx{n}.example:25"),
            weight: 1,
            max,
            addresses: vec![server(n)],
            tls: None,
        });
        let relay = policy::relay::Relay {
            domains: policy::relay::RelayDomains::parse("any").expect("a word it knows"),
            ..policy::relay::Relay::default()
        };
        let setup = Setup {
            config: Arc::new(config),
            access: Arc::default(),
            relay: Arc::new(relay),
            lore: Arc::default(),
            upstreams: upstreams.collect(),
            shard,
            shared: shared.clone(),
            counters: counters.clone(),
            log: writer.logs().buffer(shard, counters.clone()),
            unix: 1_800_000_000,
            chance: chance(),
        };
        let now = Moment::from_micros(1_000_000);
        Stage {
            world: World::new(setup, FakeWire::new(), now),
            now,
            counters,
            shared,
            clients: 0,
            defects: 0,
        }
    }

    /// Turns until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            while let Some(event) = self.world.wire.event() {
                self.world.handle(self.now, event);
            }
            self.world.tick(self.now);
            let quiet = self.world.wire.due.is_empty() && self.world.next_deadline() > self.now;
            if quiet {
                return self.check();
            }
        }
    }

    /// Time passes, from one deadline to the next.
    pub fn sleep(&mut self, span: Duration) {
        let end = self.now + span;
        self.settle();
        while self.world.next_deadline() <= end {
            self.now = self.world.next_deadline().max(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    /// What has to hold whenever the world rests.
    fn check(&mut self) {
        self.defects = self
            .defects
            .max(u64::from(self.world.wire.explosive.is_some()));
        assert!(
            self.counters.panics.value() <= self.defects,
            "no step panics"
        );
        assert!(
            self.world.acts.is_empty(),
            "acts are drained in the step that caused them"
        );
        self.world.check_asks();
        assert!(
            self.world.offers.is_empty(),
            "a free connection is given away in the step that freed it"
        );
    }

    /// A client connects and hears the greeting.
    pub fn client(&mut self) -> SlotId {
        let slot = self.arrive();
        self.settle();
        slot
    }

    /// The client that came last comes once more.
    pub fn arrive_again(&mut self) -> SlotId {
        self.clients -= 1;
        self.client()
    }

    /// A client connects.
    pub fn arrive(&mut self) -> SlotId {
        self.arrive_for(None)
    }

    /// A client connects that wanted to go elsewhere.
    pub fn arrive_for(&mut self, destination: Option<SocketAddr>) -> SlotId {
        self.clients += 1;
        let slot = self.world.wire.open(None, Owner::NONE);
        let peer = SocketAddr::from(([198, 51, 100, self.clients], 40_000));
        let accepted = Due::Accepted(slot, peer, destination);
        self.world.wire.due.push_back(accepted);
        slot
    }

    /// A peer says something.
    pub fn say(&mut self, slot: SlotId, text: &str) {
        self.say_octets(slot, text.as_bytes());
    }

    pub fn say_octets(&mut self, slot: SlotId, octets: &[u8]) {
        let socket = self.world.wire.socket(slot);
        if socket.armed {
            self.world
                .wire
                .due
                .push_back(Due::Received(slot, octets.to_vec()));
        } else {
            socket.unread.extend_from_slice(octets);
        }
        self.settle();
    }

    /// A peer stops taking what is sent to it.
    pub fn stuff(&mut self, slot: SlotId) {
        self.world.wire.stuffed.push(slot);
    }

    /// It takes everything again, first what is under way.
    pub fn unstuff(&mut self, slot: SlotId) {
        self.world.wire.stuffed.retain(|stuffed| *stuffed != slot);
        let taken = self.world.wire.socket(slot).flying;
        let taken = Due::Sent(slot, Ok(taken), Vec::new());
        self.world.wire.due.push_back(taken);
        self.settle();
    }

    /// A peer's connection ends.
    pub fn hang_up(&mut self, slot: SlotId) {
        self.world
            .wire
            .due
            .push_back(Due::Ended(slot, ReceiveEnd::Eof));
        self.settle();
    }

    pub fn reset(&mut self, slot: SlotId) {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        self.world
            .wire
            .due
            .push_back(Due::Ended(slot, ReceiveEnd::Reset(reset)));
        self.settle();
    }

    /// What a peer has heard since the last time it was asked.
    pub fn heard(&mut self, slot: SlotId) -> String {
        String::from_utf8(self.heard_octets(slot)).expect("tests speak ASCII")
    }

    pub fn heard_octets(&mut self, slot: SlotId) -> Vec<u8> {
        std::mem::take(&mut self.world.wire.socket(slot).sent)
    }

    /// The reply code a client heard last.
    pub fn code(&mut self, slot: SlotId) -> String {
        let heard = self.heard(slot);
        heard
            .lines()
            .last()
            .unwrap_or_default()
            .chars()
            .take(3)
            .collect()
    }

    pub fn closed(&mut self, slot: SlotId) -> Option<Close> {
        self.world.wire.socket(slot).closed
    }

    /// Open connections to the n-th mail server, oldest first.
    pub fn legs(&mut self, n: u8) -> Vec<SlotId> {
        let sockets = self.world.wire.sockets.iter().enumerate();
        let open =
            sockets.filter(|(_, socket)| socket.to == Some(server(n)) && socket.closed.is_none());
        open.map(|(slot, _)| SlotId(slot as u32)).collect()
    }

    /// The mail server at the other end of `slot` greets and answers EHLO.
    pub fn greet(&mut self, slot: SlotId) {
        self.say(slot, "220 mx.example ESMTP\r\n");
        assert_eq!(self.heard(slot), "EHLO weir.example\r\n");
        self.say(slot, "250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
    }

    /// A client goes as far as its first RCPT.
    pub fn ask(&mut self, client: SlotId) {
        self.say(client, "EHLO c.example\r\n");
        self.say(client, "MAIL FROM:<a@c.example>\r\n");
        self.heard(client);
        self.say(client, "RCPT TO:<b@d.example>\r\n");
    }

    /// A transaction that already has its connection is brought to its end.
    pub fn deliver(&mut self, client: SlotId, leg: SlotId) {
        assert_eq!(
            self.heard(leg),
            "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n"
        );
        self.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
        self.finish(client, leg);
    }

    /// The same from where the upstream has accepted the envelope.
    pub fn finish(&mut self, client: SlotId, leg: SlotId) {
        assert_eq!(self.code(client), "250");
        self.say(client, "DATA\r\n");
        assert_eq!(self.code(client), "354");
        self.say(client, "Subject: x\r\n\r\nbody\r\n.\r\n");
        assert_eq!(
            self.heard(leg),
            "BDAT 20 LAST\r\nSubject: x\r\n\r\nbody\r\n"
        );
        self.say(leg, "250 2.0.0 queued as 1\r\n");
        assert_eq!(self.heard(client), "250 2.0.0 queued as 1\r\n");
    }

    /// Mail for other shards.
    pub fn posted(&mut self) -> Vec<(To, Mail)> {
        std::iter::from_fn(|| self.world.take_mail()).collect()
    }

    /// Nothing is left behind: no buffer, no entry, no permit.
    pub fn assert_empty(&mut self) {
        assert!(self.world.sessions.is_empty(), "a session is left");
        assert!(self.world.pit.is_empty(), "a row is left");
        assert!(self.world.proxied.is_empty(), "an unknown client is left");
        assert!(self.world.inquiries.is_empty(), "an inquiry is left");
        assert!(self.world.wire.buffers.is_empty(), "buffers are left");
        assert_eq!(self.shared.clients(), 0, "a client is counted still");
    }
}
