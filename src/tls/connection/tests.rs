//! The driver against rustls' own buffered connections: any split of the ciphertext gives the same plaintext, and whatever a peer does wrong ends in a
//! named failure with bounded memory.

use std::io::{Read, Write};

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, ServerConnection, SupportedProtocolVersion};

use super::*;
use crate::tls::facts::{Shown, Version};
use crate::tls::testing::{client_config, name, server_config};

/// A reference peer.
pub(super) enum Peer {
    Client(ClientConnection),
    Server(ServerConnection),
}

impl Peer {
    /// One that speaks with a connection of ours, which is of the other side.
    pub(super) fn of(
        version: &'static SupportedProtocolVersion,
        ours_serves: bool,
    ) -> (Connection, Peer) {
        let (server, client) = (server_config(&[version]), client_config(&[version]));
        if ours_serves {
            let peer = ClientConnection::new(client, name()).expect("a client");
            (
                Connection::server(server).expect("a server"),
                Peer::Client(peer),
            )
        } else {
            let peer = ServerConnection::new(server).expect("a server");
            let ours = Connection::client(client, name()).expect("a client");
            (ours, Peer::Server(peer))
        }
    }

    pub(super) fn say(&mut self, plain: &[u8]) {
        let written = match self {
            Peer::Client(peer) => peer.writer().write(plain),
            Peer::Server(peer) => peer.writer().write(plain),
        };
        assert_eq!(written.expect("room"), plain.len());
    }

    fn close(&mut self) {
        match self {
            Peer::Client(peer) => peer.send_close_notify(),
            Peer::Server(peer) => peer.send_close_notify(),
        }
    }

    /// Takes ciphertext; returns what is inside.
    fn hear(&mut self, mut cipher: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        while !cipher.is_empty() {
            match self {
                Peer::Client(peer) => {
                    peer.read_tls(&mut cipher).expect("room");
                    peer.process_new_packets().expect("what we send is right");
                }
                Peer::Server(peer) => {
                    peer.read_tls(&mut cipher).expect("room");
                    peer.process_new_packets().expect("what we send is right");
                }
            }
            let mut read = |reader: &mut dyn Read| {
                let mut some = [0; 4096];
                while let Ok(n @ 1..) = reader.read(&mut some) {
                    plain.extend_from_slice(&some[..n]);
                }
            };
            match self {
                Peer::Client(peer) => read(&mut peer.reader()),
                Peer::Server(peer) => read(&mut peer.reader()),
            }
        }
        plain
    }

    /// Takes what may be an alert, or nonsense to it. False: it has failed.
    pub(super) fn hear_if_it_can(&mut self, mut cipher: &[u8]) -> bool {
        let mut hears = true;
        while hears && !cipher.is_empty() {
            let (read, state) = match self {
                Peer::Client(peer) => (peer.read_tls(&mut cipher), peer.process_new_packets()),
                Peer::Server(peer) => (peer.read_tls(&mut cipher), peer.process_new_packets()),
            };
            hears = read.is_ok_and(|len| len > 0) && state.is_ok();
        }
        hears
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Peer::Client(peer) => peer.is_handshaking(),
            Peer::Server(peer) => peer.is_handshaking(),
        }
    }

    /// What it wants on the wire.
    pub(super) fn speak(&mut self) -> Vec<u8> {
        let mut cipher = Vec::new();
        match self {
            Peer::Client(peer) => while peer.write_tls(&mut cipher).expect("a vector") > 0 {},
            Peer::Server(peer) => while peer.write_tls(&mut cipher).expect("a vector") > 0 {},
        }
        cipher
    }

    fn saw_close(&mut self) -> bool {
        let state = match self {
            Peer::Client(peer) => peer.process_new_packets(),
            Peer::Server(peer) => peer.process_new_packets(),
        };
        state.expect("a working peer").peer_has_closed()
    }
}

/// Both, and what became of it.
struct Pair {
    ours: Connection,
    peer: Peer,
    /// For us, for the peer: in plaintext.
    heard: Vec<u8>,
    told: Vec<u8>,
    secured: usize,
    closed: usize,
    /// Sizes of the pieces in which we hear the peer, again and again.
    pieces: Vec<usize>,
    next: usize,
}

impl Pair {
    fn new(
        version: &'static SupportedProtocolVersion,
        ours_serves: bool,
        pieces: &[usize],
    ) -> Pair {
        let (mut ours, mut peer) = Peer::of(version, ours_serves);
        let mut hello = Vec::new();
        if !ours_serves {
            ours.start(&mut hello).expect("a first flight");
        }
        peer.hear(&hello);
        Pair {
            ours,
            peer,
            heard: Vec::new(),
            told: Vec::new(),
            secured: 0,
            closed: 0,
            pieces: pieces.to_vec(),
            next: 0,
        }
    }

    /// Until nobody has anything to say.
    fn exchange(&mut self) -> Result<(), Failure> {
        loop {
            let mut cipher = self.peer.speak();
            if cipher.is_empty() {
                return Ok(());
            }
            let mut rest = &mut cipher[..];
            while !rest.is_empty() {
                let len = self.pieces[self.next % self.pieces.len()].min(rest.len());
                self.next += 1;
                let (piece, behind) = rest.split_at_mut(len);
                self.feed(piece)?;
                rest = behind;
            }
        }
    }

    fn feed(&mut self, piece: &mut [u8]) -> Result<(), Failure> {
        let mut out = Vec::new();
        let read = self.ours.read(piece, &mut self.heard, &mut out);
        if let Ok(progress) = read {
            self.secured += usize::from(progress.secured);
            self.closed += usize::from(progress.closed);
            self.told.extend(self.peer.hear(&out));
        }
        read.map(drop)
    }

    fn shaken(version: &'static SupportedProtocolVersion, ours_serves: bool) -> Pair {
        let mut pair = Pair::new(version, ours_serves, &[usize::MAX]);
        pair.exchange().expect("a handshake");
        assert_eq!(pair.secured, 1);
        pair
    }

    fn write(&mut self, plain: &[u8]) {
        let mut out = Vec::new();
        self.ours
            .write(plain, &mut out)
            .expect("an open connection");
        self.told.extend(self.peer.hear(&out));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn any_split_of_the_ciphertext_gives_the_same_plaintext_and_events(
        newest: bool,
        ours_serves: bool,
        pieces in proptest::collection::vec(prop_oneof![1usize..8, 1usize..600, 1usize..40_000], 1..12),
        ours in proptest::collection::vec(0usize..40_000, 0..6),
        theirs in proptest::collection::vec(1usize..40_000, 0..6),
    ) {
        let version = if newest { &TLS13 } else { &TLS12 };
        let mut pair = Pair::new(version, ours_serves, &pieces);
        pair.exchange().expect("a handshake");
        prop_assert_eq!(pair.secured, 1);
        let facts = pair.ours.facts().expect("facts after the handshake");
        prop_assert_eq!(facts.version, if newest { Version::Tls13 } else { Version::Tls12 });
        prop_assert_eq!(facts.certificate == Shown::Nothing, ours_serves);

        let (mut said, mut meant) = (Vec::new(), Vec::new());
        for round in 0..ours.len().max(theirs.len()) {
            if let Some(len) = ours.get(round) {
                let text: Vec<u8> = (0..*len).map(|at| (at * 7 + round) as u8).collect();
                pair.write(&text);
                meant.extend(text);
            }
            if let Some(len) = theirs.get(round) {
                let text: Vec<u8> = (0..*len).map(|at| (at * 3 + round) as u8).collect();
                pair.peer.say(&text);
                pair.exchange().expect("records");
                said.extend(text);
            }
            // What a client said last may still be on its way to us: nothing is lost between the two.
            prop_assert_eq!(pair.ours.carried(), 0);
        }
        prop_assert!(pair.heard == said, "what we heard");
        prop_assert!(pair.told == meant, "what the peer heard");

        pair.peer.close();
        pair.exchange().expect("close_notify");
        prop_assert_eq!(pair.closed, 1);
        // The way back is still open.
        pair.write(b"221 Bye\r\n");
        let mut out = Vec::new();
        pair.ours.close(&mut out).expect("close_notify");
        pair.ours.close(&mut out).expect("nothing more");
        pair.told.extend(pair.peer.hear(&out));
        prop_assert!(pair.peer.saw_close());
        prop_assert!(pair.told.ends_with(b"221 Bye\r\n"));
    }

    /// A changed octet is found before anything of its record comes out.
    #[test]
    fn a_changed_octet_ends_the_connection(newest: bool, at: prop::sample::Index, bit in 0u8..8) {
        let mut pair = Pair::shaken(if newest { &TLS13 } else { &TLS12 }, true);
        pair.peer.say(b"MAIL FROM:<a@c.example>\r\n");
        let mut cipher = pair.peer.speak();
        let at = at.index(cipher.len());
        cipher[at] ^= 1 << bit;
        let result = pair.feed(&mut cipher);
        if !pair.heard.is_empty() {
            // Type and version in front of a record say nothing any more, and are not part of it (RFC 8446, 5.1 and 5.2).
            prop_assert!(newest && at < 3);
            prop_assert_eq!(pair.heard, b"MAIL FROM:<a@c.example>\r\n");
            return Ok(());
        }
        // A longer length only makes it wait for what will never fit.
        prop_assert!(result.is_err() || pair.ours.carried() > 0);
    }

    #[test]
    fn whatever_comes_instead_of_a_hello_is_bounded_and_harmless(
        noise in proptest::collection::vec(any::<u8>(), 0..70_000),
        piece in 1usize..20_000,
    ) {
        let (mut ours, _) = Peer::of(&TLS13, true);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        for piece in noise.clone().chunks_mut(piece) {
            if ours.read(piece, &mut plain, &mut out).is_err() {
                break;
            }
        }
        prop_assert!(plain.is_empty() && !ours.is_secured());
        prop_assert!(ours.carried() <= CARRY_MAX + RECORD_MAX + HEADER);
        prop_assert!(out.len() <= 16, "an alert at most");
    }
}

#[test]
fn plaintext_is_answered_with_an_alert() {
    for text in [
        &b"EHLO c.example\r\n"[..],
        b"\x80\x2e\x01\x03\x01",
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        let (mut ours, _) = Peer::of(&TLS13, true);
        let mut out = Vec::new();
        let read = ours.read(&mut text.to_vec(), &mut Vec::new(), &mut out);
        assert_eq!(read, Err(Failure::Garbage));
        assert_eq!(out[..5], [21, 3, 3, 0, 2], "one alert record");
        let again = ours.read(&mut text.to_vec(), &mut Vec::new(), &mut out);
        assert_eq!(again, Err(Failure::Internal));
        assert_eq!(out.len(), 7, "and nothing more");
    }
}

#[test]
fn versions_that_do_not_meet_are_told_so() {
    let server = server_config(&[&TLS13]);
    let mut client = ClientConnection::new(client_config(&[&TLS12]), name()).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector");
    let mut out = Vec::new();
    let mut ours = Connection::server(server).expect("a server");
    let read = ours.read(&mut hello, &mut Vec::new(), &mut out);
    assert_eq!(read, Err(Failure::Incompatible));
    client.read_tls(&mut &out[..]).expect("an alert");
    let error = client.process_new_packets().expect_err("an alert");
    assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error}");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let server = server_config(&[&TLS13]);
    let other = rustls::pki_types::ServerName::try_from("other.example").expect("a name");
    let mut ours = Connection::client(client_config(&[&TLS13]), other).expect("a client");
    let mut peer = Peer::Server(ServerConnection::new(server).expect("a server"));
    let mut hello = Vec::new();
    ours.start(&mut hello).expect("a first flight");
    peer.hear(&hello);
    let mut out = Vec::new();
    let read = ours.read(&mut peer.speak(), &mut Vec::new(), &mut out);
    assert_eq!(read, Err(Failure::Certificate));
    assert!(!out.is_empty(), "an alert says so");
}

#[test]
fn a_peers_alert_ends_the_connection() {
    let (mut ours, _) = Peer::of(&TLS13, true);
    let mut alert = [21, 3, 3, 0, 2, 2, 40];
    let read = ours.read(&mut alert, &mut Vec::new(), &mut Vec::new());
    assert_eq!(read, Err(Failure::Alert));
}

/// A ClientHello of 60,000 octets in records of one octet each: who says so costs no more than the measure.
#[test]
fn a_hello_without_end_is_cut() {
    let (mut ours, _) = Peer::of(&TLS13, true);
    let mut failed = None;
    let mut record = |octets: &[u8]| {
        let mut wire = vec![22, 3, 1, 0, octets.len() as u8];
        wire.extend_from_slice(octets);
        failed = ours.read(&mut wire, &mut Vec::new(), &mut Vec::new()).err();
        assert!(ours.carried() <= CARRY_MAX + RECORD_MAX);
        failed.is_some()
    };
    if !record(&[1, 0, 0xea, 0x60]) {
        for _ in 0..60_000 {
            if record(&[0]) {
                break;
            }
        }
    }
    assert_eq!(failed, Some(Failure::TooLong));
}

/// Each asks for an answer and for new keys: after a few in a row that is enough.
#[test]
fn a_flood_of_key_updates_ends_the_connection() {
    let mut pair = Pair::shaken(&TLS13, true);
    let mut updates = 0;
    let ended = loop {
        updates += 1;
        assert!(updates < 100, "a flood is endless");
        if let Peer::Client(peer) = &mut pair.peer {
            peer.refresh_traffic_keys().expect("a new key");
        }
        let mut cipher = pair.peer.speak();
        let mut out = Vec::new();
        let read = pair.ours.read(&mut cipher, &mut pair.heard, &mut out);
        assert!(out.len() < 100, "at most an answer or an alert");
        if let Err(failure) = read {
            break failure;
        }
    };
    assert_eq!(ended, Failure::Misbehaved);
    assert!(updates > 8, "some are in order");
}

#[test]
fn key_updates_between_data_are_answered_and_harmless() {
    let mut pair = Pair::shaken(&TLS13, true);
    for round in 0..200u32 {
        if let Peer::Client(peer) = &mut pair.peer {
            peer.refresh_traffic_keys().expect("a new key");
        }
        pair.peer.say(b"NOOP\r\n");
        pair.exchange().expect("records");
        pair.write(b"250 Ok\r\n");
        assert_eq!(pair.heard.len() as u32, (round + 1) * 6);
        assert_eq!(pair.told.len() as u32, (round + 1) * 8);
    }
}

#[test]
fn a_second_connection_is_resumed() {
    for version in [&TLS13, &TLS12] {
        let (server, client) = (server_config(&[version]), client_config(&[version]));
        for round in 0..2 {
            let mut pair = Pair::new(version, true, &[usize::MAX]);
            pair.ours = Connection::server(server.clone()).expect("a server");
            pair.peer =
                Peer::Client(ClientConnection::new(client.clone(), name()).expect("a client"));
            pair.exchange().expect("a handshake");
            pair.write(b"220 weir.example ESMTP\r\n");
            let facts = pair.ours.facts().expect("facts");
            assert_eq!(facts.resumed, round == 1, "{version:?}");
        }
    }
}

/// After the handshake nothing counts that is not encrypted.
#[test]
fn a_hello_in_the_clear_ends_an_open_connection() {
    for version in [&TLS13, &TLS12] {
        let mut pair = Pair::shaken(version, true);
        let (_, mut other) = Peer::of(version, true);
        let failed = pair.feed(&mut other.speak());
        assert_eq!(failed, Err(Failure::Misbehaved));
    }
}

/// Whether this process runs one test alone; if not, another one does it here and now. nextest gives each test a process,
/// `cargo test` does not, and memory is counted by process.
fn is_alone(test: &str) -> bool {
    const MARK: &str = "WEIR_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let own = std::env::current_exe().expect("a test has a binary");
    let mut alone = std::process::Command::new(own);
    let words = [test, "--exact", "--nocapture", "--test-threads=1"];
    let ended = alone.args(words).env(MARK, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&ended.stdout);
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}{told}");
    assert!(said.contains("1 passed"), "no such test: {said}");
    false
}

/// Resident memory of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a Linux process");
    let pages = statm.split_whitespace().nth(1).expect("a second field");
    pages.parse::<usize>().expect("a number") * 4096
}

/// An idle session has at most 9 KiB altogether; this is its largest part.
#[test]
fn an_idle_connection_owns_its_keys_and_little_else() {
    const MANY: usize = 1000;
    if !is_alone("tls::connection::tests::an_idle_connection_owns_its_keys_and_little_else") {
        return;
    }
    let mut kept = Vec::new();
    for version in [&TLS13, &TLS12] {
        let server = server_config(&[version]);
        let client = client_config(&[version]);
        let shaken = || {
            let mut pair = Pair::new(version, true, &[usize::MAX]);
            pair.ours = Connection::server(server.clone()).expect("a server");
            pair.peer =
                Peer::Client(ClientConnection::new(client.clone(), name()).expect("a client"));
            pair.exchange().expect("a handshake");
            pair.write(b"220 weir.example ESMTP\r\n");
            pair.ours
        };
        let warm: Vec<Connection> = (0..100).map(|_| shaken()).collect();
        let before = resident();
        let idle: Vec<Connection> = (0..MANY).map(|_| shaken()).collect();
        let each = (resident() - before) / MANY;
        assert!(each <= 6 * 1024, "{version:?}: {each} octets each");
        kept.extend(warm.into_iter().chain(idle));
    }
}
