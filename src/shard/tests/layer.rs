//! The TLS layer at random: a shard that arms, stops, looks and sends as it likes, a network that takes and gives as it likes, and rustls itself as the
//! client. Whatever the order, both hear what the other said, and every call gets its one answer.

use std::io::{Read, Write};

use proptest::prelude::*;
use rustls::ClientConnection;
use rustls::version::{TLS12, TLS13};
use weir_smtp::starttls::PlaintextDrained;

use super::*;
use crate::tls::testing::{client_config, name, server_config};
use crate::tls::{Begin, Connection, Failure, Layer};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// The client says so many octets.
    Say(usize),
    /// So many octets of its records arrive.
    Arrive(usize),
    /// It reads what was sent to it.
    Hear,
    Start,
    Stop,
    Look,
    Send(usize),
    SendSpans(usize),
    Drip(usize),
    /// The socket takes nothing, or takes everything again.
    Stuff,
    Unstuff,
    /// The shard's step ends.
    Turn,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1usize..3000).prop_map(Op::Say),
        1 => (1usize..60_000).prop_map(Op::Say),
        4 => (1usize..50).prop_map(Op::Arrive),
        6 => (1usize..20_000).prop_map(Op::Arrive),
        3 => Just(Op::Hear),
        2 => Just(Op::Start),
        1 => Just(Op::Stop),
        1 => Just(Op::Look),
        2 => (1usize..2000).prop_map(Op::Send),
        1 => (1usize..50_000).prop_map(Op::SendSpans),
        1 => (1usize..11).prop_map(Op::Drip),
        1 => Just(Op::Stuff),
        2 => Just(Op::Unstuff),
        8 => Just(Op::Turn),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Blow {
    Nothing(Op),
    /// Copy buffers are used up, or there are some again.
    Chunks(bool),
    /// The send under way fails.
    CutSend,
    /// The client takes new keys, and wants weir to.
    NewKeys,
    /// The connection is reset.
    Gone,
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        20 => op().prop_map(Blow::Nothing),
        1 => any::<bool>().prop_map(Blow::Chunks),
        1 => Just(Blow::CutSend),
        2 => Just(Blow::NewKeys),
        1 => Just(Blow::Gone),
    ]
}

struct Bench {
    layer: Layer<FakeWire>,
    slot: SlotId,
    client: ClientConnection,
    /// Records of the client that have not arrived yet.
    under_way: Vec<u8>,
    said: Vec<u8>,
    heard: Vec<u8>,
    told: Vec<u8>,
    client_heard: Vec<u8>,
    secured: usize,
    armed: bool,
    stopping: bool,
    looking: bool,
    ended: Option<ReceiveEnd>,
    /// Plaintext of the send that is to be answered.
    sending: Option<usize>,
    /// An octet on its way to us is changed, counted from now.
    spoil_at: Option<usize>,
    spoiled: bool,
}

/// What nobody has asked for yet is held up to this; who says more before it is heard is cut, and rightly.
const SAID_MAX: usize = 64 * 1024;

impl Bench {
    fn new(newest: bool, receiving: bool) -> Bench {
        let mut layer = Layer::new(FakeWire::new());
        let slot = layer.open(None, Owner(7));
        Bench::on(layer, slot, newest, receiving)
    }

    /// The same slot in another life.
    fn again(self, newest: bool) -> Bench {
        let (mut layer, slot) = (self.layer, self.slot);
        layer.due.clear();
        layer.stuffed.clear();
        layer.no_chunks = false;
        let fresh = layer.open(None, Owner(7));
        layer.sockets.swap(slot.0 as usize, fresh.0 as usize);
        Bench::on(layer, slot, newest, true)
    }

    fn on(mut layer: Layer<FakeWire>, slot: SlotId, newest: bool, receiving: bool) -> Bench {
        let version = if newest { &TLS13 } else { &TLS12 };
        if receiving {
            layer.start_receive(slot, Group::Client);
        }
        let begin = Begin {
            slot,
            owner: Owner(7),
            group: Group::Client,
            receiving,
        };
        let connection = Connection::server(server_config(&[version])).expect("a server");
        let drained = PlaintextDrained::from_the_start();
        layer.begin(begin, connection, &[], drained);
        let client = ClientConnection::new(client_config(&[version]), name());
        Bench {
            layer,
            slot,
            client: client.expect("a client"),
            under_way: Vec::new(),
            said: Vec::new(),
            heard: Vec::new(),
            told: Vec::new(),
            client_heard: Vec::new(),
            secured: 0,
            armed: receiving,
            stopping: false,
            looking: false,
            ended: None,
            sending: None,
            spoil_at: None,
            spoiled: false,
        }
    }

    fn run(&mut self, op: Op) {
        let slot = self.slot;
        let idle = self.secured == 1 && self.sending.is_none();
        let deaf = !self.armed && !self.looking && self.ended.is_none();
        match op {
            Op::Say(len) => self.say(len),
            Op::Arrive(len) => self.arrive(len),
            Op::Hear => self.hear(),
            Op::Start if deaf => {
                self.armed = true;
                self.layer.start_receive(slot, Group::Client);
            }
            Op::Stop if self.armed && !self.stopping => {
                self.stopping = true;
                self.layer.stop_receive(slot);
            }
            Op::Look if deaf && self.secured == 1 => {
                self.looking = true;
                self.layer.receive_now(slot, Group::Client);
            }
            Op::Send(len) if idle => {
                let bytes = self.text(len);
                self.layer.send(slot, bytes);
            }
            Op::SendSpans(len) if idle => self.send_spans(len),
            Op::Drip(len) if idle => {
                let before = self.told.len();
                let bytes = self.text(len);
                self.layer.send_now(slot, &bytes);
                self.turn();
                assert!(self.sending.is_none(), "a drip is answered at once");
                assert!(self.told.len() == before || self.told.len() == before + len);
            }
            Op::Stuff if !self.layer.stuffed.contains(&slot) => self.layer.stuffed.push(slot),
            Op::Unstuff => self.unstuff(),
            Op::Turn => self.turn(),
            _ => {}
        }
    }

    /// Something that goes wrong, or that a peer does to make it go wrong.
    fn suffer(&mut self, blow: Blow) {
        let slot = self.slot;
        match blow {
            Blow::Nothing(op) => self.run(op),
            Blow::Chunks(some) => self.layer.no_chunks = !some,
            Blow::CutSend if self.layer.stuffed.contains(&slot) => {
                self.layer.stuffed.clear();
                if self.layer.socket(slot).sending {
                    let cut = Err(io::ErrorKind::ConnectionReset.into());
                    self.layer.due.push_back(Due::Sent(slot, cut, Vec::new()));
                }
            }
            Blow::NewKeys => {
                // Before the end of the handshake there are none.
                let _ = self.client.refresh_traffic_keys();
            }
            Blow::Gone if self.layer.socket(slot).armed => {
                let why = ReceiveEnd::Reset(io::ErrorKind::ConnectionReset.into());
                self.layer.due.push_back(Due::Ended(slot, why));
            }
            Blow::CutSend | Blow::Gone => {}
        }
    }

    fn say(&mut self, len: usize) {
        let len = len.min(SAID_MAX - self.said.len());
        let text: Vec<u8> = (0..len).map(|at| (at * 3) as u8).collect();
        // rustls takes what it has room for, and nothing after an alert.
        let taken = self.client.writer().write(&text);
        assert!(taken.is_ok() || self.spoiled, "{taken:?}");
        self.said.extend_from_slice(&text[..taken.unwrap_or(0)]);
    }

    /// The next octets for the client: not owed to it before they are answered for.
    fn text(&mut self, len: usize) -> Vec<u8> {
        let text: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        self.told.extend_from_slice(&text);
        self.sending = Some(len);
        text
    }

    fn send_spans(&mut self, len: usize) {
        let text = self.text(len);
        let (head, body) = text.split_at(len / 3);
        let buffer = self.layer.store(body.to_vec());
        let parts = [
            Part::Bytes {
                start: 0,
                len: head.len() as u32,
            },
            Part::Span {
                buffer,
                start: 0,
                len: body.len() as u32,
            },
        ];
        self.layer.send_spans(self.slot, head.to_vec(), &parts);
        self.layer.release(buffer);
    }

    fn arrive(&mut self, len: usize) {
        while self.client.wants_write() {
            self.client
                .write_tls(&mut self.under_way)
                .expect("a vector");
        }
        let len = len.min(self.under_way.len());
        let mut piece: Vec<u8> = self.under_way.drain(..len).collect();
        if let Some(at) = &mut self.spoil_at {
            if let Some(octet) = piece.get_mut(*at) {
                *octet ^= 0x55;
                self.spoiled = true;
                self.spoil_at = None;
            } else {
                *at -= piece.len();
            }
        }
        if piece.is_empty() {
            return;
        }
        let slot = self.slot;
        let socket = self.layer.socket(slot);
        if socket.armed {
            self.layer.due.push_back(Due::Received(slot, piece));
        } else {
            socket.unread.extend_from_slice(&piece);
        }
    }

    fn hear(&mut self) {
        let cipher = std::mem::take(&mut self.layer.socket(self.slot).sent);
        let mut rest = &cipher[..];
        while !rest.is_empty() && self.client.read_tls(&mut rest).expect("room") > 0 {
            let heard = self.client.process_new_packets();
            assert!(heard.is_ok() || self.spoiled, "weir speaks TLS: {heard:?}");
            if heard.is_err() {
                return;
            }
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = self.client.reader().read(&mut some) {
                self.client_heard.extend_from_slice(&some[..n]);
            }
        }
    }

    fn unstuff(&mut self) {
        let slot = self.slot;
        if self.layer.stuffed.contains(&slot) {
            self.layer.stuffed.clear();
            let socket = self.layer.socket(slot);
            if socket.sending {
                let taken = socket.flying;
                let sent = Due::Sent(slot, Ok(taken), Vec::new());
                self.layer.due.push_back(sent);
                self.turn();
            }
        }
    }

    fn turn(&mut self) {
        loop {
            while let Some(event) = self.layer.next_event() {
                self.take(event);
            }
            self.layer.flush(|_| {});
            let Some(event) = self.layer.event() else {
                if self.layer.has_events() {
                    continue;
                }
                return;
            };
            assert!(self.layer.admit(event).is_none(), "the slot has TLS");
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Secured { result, owner, .. } => {
                assert_eq!(owner, Owner(7));
                assert!(result.is_ok() || self.spoiled, "{result:?}");
                match result {
                    Ok(()) => self.secured += 1,
                    Err(_) => self.give_up(),
                }
            }
            Event::Received { buffer, len, .. } => {
                assert_eq!(self.secured, 1, "nothing comes before the handshake's end");
                assert!(self.armed || std::mem::take(&mut self.looking), "unasked");
                let octets = &self.layer.buffer(buffer)[..len as usize];
                self.heard.extend_from_slice(octets);
                self.layer.release(buffer);
            }
            Event::ReceiveEnded { why, .. } => {
                assert!(self.armed || self.looking, "nothing was armed: {why:?}");
                (self.armed, self.looking, self.stopping) = (false, false, false);
                if !matches!(why, ReceiveEnd::Stopped) {
                    self.ended = Some(why);
                }
            }
            Event::Sent { result, .. } => {
                let len = self.sending.take().expect("something was sent");
                match result {
                    Ok(octets) => assert_eq!(octets, len),
                    Err(_) if self.spoiled => {}
                    // A drip that found the socket full: as if it had not been tried.
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                        self.told.truncate(self.told.len() - len);
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The handshake has failed: nobody waits for anything.
    fn give_up(&mut self) {
        (self.armed, self.looking, self.stopping) = (false, false, false);
        self.ended = Some(ReceiveEnd::Stopped);
    }

    /// Everything that is still under way gets where it was going.
    fn come_to_rest(&mut self) {
        self.unstuff();
        for _ in 0..200 {
            self.run(Op::Start);
            self.turn();
            self.arrive(usize::MAX);
            self.turn();
            self.hear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn whatever_the_order_both_hear_what_the_other_said(
        newest: bool,
        receiving: bool,
        closes: bool,
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut bench = Bench::new(newest, receiving);
        ops.into_iter().for_each(|op| bench.run(op));
        bench.come_to_rest();
        prop_assert_eq!(bench.secured, 1);
        prop_assert!(bench.heard == bench.said, "{} of {}", bench.heard.len(), bench.said.len());
        prop_assert!(bench.client_heard == bench.told);
        prop_assert_eq!(bench.sending, None);

        if closes {
            bench.client.send_close_notify();
            bench.come_to_rest();
        } else {
            let slot = bench.slot;
            bench.layer.due.push_back(Due::Ended(slot, ReceiveEnd::Eof));
            bench.turn();
        }
        match bench.ended.take() {
            Some(ReceiveEnd::Eof) => prop_assert!(closes),
            Some(ReceiveEnd::Reset(error)) => {
                prop_assert!(!closes);
                prop_assert_eq!(Failure::of(&error), Some(Failure::Truncated));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        bench.layer.close(bench.slot, Close::Now);
        prop_assert_eq!(bench.layer.secure_slots(), 0);
        prop_assert_eq!(bench.layer.carried(), 0);
        prop_assert!(bench.layer.buffers.is_empty(), "buffers are left");
    }

    #[test]
    fn a_changed_octet_ends_the_stream_and_leaves_nothing_behind(
        newest: bool,
        receiving: bool,
        at in 0usize..5000,
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let mut bench = Bench::new(newest, receiving);
        bench.spoil_at = Some(at);
        ops.into_iter().for_each(|op| bench.run(op));
        bench.come_to_rest();
        prop_assert!(bench.said.starts_with(&bench.heard), "nothing that was not said");
        bench.layer.close(bench.slot, Close::Now);
        prop_assert_eq!(bench.layer.secure_slots(), 0);
        prop_assert_eq!(bench.layer.carried(), 0);
        prop_assert!(bench.layer.buffers.is_empty(), "buffers are left");
    }

    /// And whoever has the slot next notices nothing.
    #[test]
    fn whatever_goes_wrong_nothing_is_left_and_the_next_finds_a_clean_slot(
        newest: bool,
        receiving: bool,
        how in prop_oneof![Just(Close::Now), Just(Close::Linger), Just(Close::Reset)],
        at in proptest::option::of(0usize..20_000),
        blows in proptest::collection::vec(blow(), 1..120),
    ) {
        let mut bench = Bench::new(newest, receiving);
        bench.spoil_at = at;
        bench.spoiled = true;
        blows.into_iter().for_each(|blow| bench.suffer(blow));
        prop_assert!(bench.said.starts_with(&bench.heard), "nothing that was not said");
        bench.layer.close(bench.slot, how);
        prop_assert_eq!(bench.layer.secure_slots(), 0);
        prop_assert_eq!(bench.layer.carried(), 0);
        prop_assert!(bench.layer.buffers.is_empty(), "buffers are left");
        prop_assert!(!bench.layer.has_events());

        let mut next = bench.again(newest);
        next.come_to_rest();
        for op in [Op::Say(5000), Op::Send(500), Op::Turn] {
            next.run(op);
        }
        next.come_to_rest();
        prop_assert_eq!((next.secured, next.sending), (1, None));
        prop_assert!(next.heard == next.said && next.client_heard == next.told);
    }
}

/// A connection that has sent most of a record, and what it was told.
fn half_a_record(layer: &mut Layer<FakeWire>, group: Group) -> Option<Event> {
    let slot = layer.open(None, Owner(7));
    let begin = Begin {
        slot,
        owner: Owner(7),
        group,
        receiving: false,
    };
    let connection = Connection::server(server_config(&[&TLS13])).expect("a server");
    layer.begin(begin, connection, &[], PlaintextDrained::from_the_start());
    let mut record = vec![0; 16_000];
    record[..5].copy_from_slice(&[22, 3, 1, 0x40, 0]);
    layer.due.push_back(Due::Received(slot, record));
    while let Some(event) = layer.event() {
        assert!(layer.admit(event).is_none());
    }
    layer.next_event()
}

#[test]
fn clients_cannot_use_up_what_upstreams_may_carry() {
    let mut layer = Layer::new(FakeWire::new());
    let cut = (0..3000)
        .find_map(|_| half_a_record(&mut layer, Group::Client))
        .expect("there is a limit");
    let Event::Secured {
        result: Err(error), ..
    } = cut
    else {
        panic!("{cut:?}");
    };
    assert_eq!(Failure::of(&error), Some(Failure::NoRoom));
    assert!((20 << 20..32 << 20).contains(&layer.carried()));
    assert!(half_a_record(&mut layer, Group::Upstream).is_none());
}
