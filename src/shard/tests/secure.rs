//! Clients that come to TLS, by STARTTLS and before the greeting: rustls itself at the other end.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};

use super::{Stage, settings};
use crate::net::{ClientTls, Service};
use crate::ring::{Close, SlotId};
use crate::shard::config::WorldConfig;
use crate::tls::ServerTls;
use crate::tls::testing::{client_config, name, server_config};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

fn with_tls(tls: ClientTls) -> WorldConfig {
    let service = Service {
        tls,
        ..Service::default()
    };
    WorldConfig {
        services: vec![service].into(),
        tls: Some(Arc::new(ServerTls::new(server_config(&[&TLS13, &TLS12])))),
        ..settings()
    }
}

/// Somebody who speaks TLS over one socket of the stage.
pub struct Client {
    pub slot: SlotId,
    pub tls: rustls::Connection,
    /// Its bytes are said in pieces of this size.
    piece: usize,
    heard: Vec<u8>,
}

impl Client {
    fn new(slot: SlotId, config: Arc<ClientConfig>) -> Client {
        let tls = ClientConnection::new(config, name()).expect("a client");
        Client::of(slot, tls.into())
    }

    pub fn of(slot: SlotId, tls: rustls::Connection) -> Client {
        Client {
            slot,
            tls,
            piece: usize::MAX,
            heard: Vec::new(),
        }
    }

    /// Until nobody has anything to say.
    pub fn turn(&mut self, stage: &mut Stage) {
        loop {
            let cipher = stage.heard_octets(self.slot);
            let mut rest = &cipher[..];
            while !rest.is_empty() && self.tls.read_tls(&mut rest).expect("room") > 0 {
                self.tls.process_new_packets().expect("weir speaks TLS");
                let mut some = [0; 4096];
                while let Ok(n @ 1..) = self.tls.reader().read(&mut some) {
                    self.heard.extend_from_slice(&some[..n]);
                }
            }
            let mut out = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut out).expect("a vector");
            }
            if out.is_empty() && cipher.is_empty() {
                return;
            }
            for piece in out.chunks(self.piece) {
                stage.say_octets(self.slot, piece);
            }
        }
    }

    pub fn say(&mut self, stage: &mut Stage, text: &str) {
        self.tls.writer().write_all(text.as_bytes()).expect("room");
        self.turn(stage);
    }

    pub fn heard(&mut self, stage: &mut Stage) -> String {
        self.turn(stage);
        String::from_utf8(std::mem::take(&mut self.heard)).expect("tests speak ASCII")
    }

    fn code(&mut self, stage: &mut Stage) -> String {
        let heard = self.heard(stage);
        let last = heard.lines().last().unwrap_or_default();
        last.chars().take(3).collect()
    }

    fn has_been_told_the_end(&mut self) -> bool {
        let state = self.tls.process_new_packets().expect("weir speaks TLS");
        state.peer_has_closed()
    }
}

/// A client that went as far as the handshake by STARTTLS.
fn upgraded(stage: &mut Stage, config: Arc<ClientConfig>) -> Client {
    let slot = stage.client();
    stage.heard(slot);
    stage.say(slot, "EHLO c.example\r\n");
    assert!(stage.heard(slot).contains("STARTTLS\r\n"));
    stage.say(slot, "STARTTLS\r\n");
    assert_eq!(stage.heard(slot), "220 2.0.0 Ready to start TLS\r\n");
    let mut client = Client::new(slot, config);
    client.turn(stage);
    assert!(!client.tls.is_handshaking());
    client
}

#[test]
fn a_message_goes_through_inside_tls_and_what_was_said_before_is_forgotten() {
    for version in BOTH {
        let mut stage = Stage::new(with_tls(ClientTls::May), 1, 10);
        let mut client = upgraded(&mut stage, client_config(&[version]));
        client.say(&mut stage, "MAIL FROM:<a@c.example>\r\n");
        assert_eq!(client.code(&mut stage), "503", "EHLO is said again");
        client.say(&mut stage, "EHLO c.example\r\n");
        assert!(!client.heard(&mut stage).contains("STARTTLS"));
        client.say(&mut stage, "STARTTLS\r\n");
        assert_eq!(client.code(&mut stage), "554");
        deliver(&mut stage, &mut client);
        client.say(&mut stage, "QUIT\r\n");
        assert!(client.heard(&mut stage).starts_with("221 "));
        assert!(client.has_been_told_the_end(), "with the last words");
        assert_eq!(stage.closed(client.slot), Some(Close::Linger));
    }
}

/// From MAIL to the final reply.
fn deliver(stage: &mut Stage, client: &mut Client) {
    client.say(stage, "MAIL FROM:<a@c.example>\r\n");
    assert_eq!(client.code(stage), "250");
    client.say(stage, "RCPT TO:<b@d.example>\r\n");
    let leg = stage.legs(1)[0];
    if stage.world.wire.socket(leg).sent.is_empty() {
        stage.greet(leg);
    }
    assert_eq!(
        stage.heard(leg),
        "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n"
    );
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    assert_eq!(client.code(stage), "250");
    client.say(stage, "DATA\r\n");
    assert_eq!(client.code(stage), "354");
    client.say(stage, "Subject: x\r\n\r\nbody\r\n.\r\n");
    assert_eq!(
        stage.heard(leg),
        "BDAT 20 LAST\r\nSubject: x\r\n\r\nbody\r\n"
    );
    stage.say(leg, "250 2.0.0 queued as 1\r\n");
    assert_eq!(client.heard(stage), "250 2.0.0 queued as 1\r\n");
}

#[test]
fn records_split_at_every_octet_are_read_like_whole_ones() {
    for version in BOTH {
        for piece in [1, 2, 5, 7, 100] {
            let mut stage = Stage::new(with_tls(ClientTls::May), 1, 10);
            let slot = stage.client();
            stage.say(slot, "EHLO c.example\r\n");
            stage.say(slot, "STARTTLS\r\n");
            stage.heard(slot);
            let mut client = Client::new(slot, client_config(&[version]));
            client.piece = piece;
            client.say(&mut stage, "EHLO c.example\r\n");
            client.heard(&mut stage);
            deliver(&mut stage, &mut client);
        }
    }
}

#[test]
fn implicit_tls_shakes_hands_before_the_greeting() {
    for version in BOTH {
        let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
        let slot = stage.arrive();
        stage.settle();
        assert!(
            stage.heard_octets(slot).is_empty(),
            "not a word in the clear"
        );
        let mut client = Client::new(slot, client_config(&[version]));
        assert!(client.heard(&mut stage).starts_with("220 weir.example"));
        client.say(&mut stage, "EHLO c.example\r\n");
        assert!(!client.heard(&mut stage).contains("STARTTLS"));
        deliver(&mut stage, &mut client);
    }
}

/// Server flight, then tickets and greeting, each reply: nothing costs a send of its own.
#[test]
fn tickets_and_the_greeting_are_one_send() {
    let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
    let slot = stage.arrive();
    stage.settle();
    let mut client = Client::new(slot, client_config(&[&TLS13]));
    client.heard(&mut stage);
    assert_eq!(stage.world.wire.socket(slot).sends, 2);
    client.say(&mut stage, "QUIT\r\n");
    client.heard(&mut stage);
    assert!(client.has_been_told_the_end());
    assert_eq!(stage.world.wire.socket(slot).sends, 3);
}

#[test]
fn what_is_glued_behind_starttls_is_thrown_away() {
    let mut stage = Stage::new(with_tls(ClientTls::May), 1, 10);
    let slot = stage.client();
    stage.say(slot, "EHLO c.example\r\n");
    stage.heard(slot);
    stage.say(slot, "STARTTLS\r\nMAIL FROM:<evil@c.example>\r\n");
    assert_eq!(stage.heard(slot), "220 2.0.0 Ready to start TLS\r\n");
    let mut client = Client::new(slot, client_config(&[&TLS13]));
    assert_eq!(client.heard(&mut stage), "", "nobody answers it");
    client.say(&mut stage, "EHLO c.example\r\n");
    client.heard(&mut stage);
    deliver(&mut stage, &mut client);
}

#[test]
fn garbage_instead_of_a_hello_gets_an_alert_and_the_end() {
    for tls in [ClientTls::May, ClientTls::Implicit] {
        let mut stage = Stage::new(with_tls(tls), 1, 10);
        let slot = stage.client();
        if tls == ClientTls::May {
            stage.say(slot, "EHLO c.example\r\n");
            stage.say(slot, "STARTTLS\r\n");
            stage.heard(slot);
        }
        stage.say(slot, "EHLO c.example\r\n");
        let heard = stage.heard_octets(slot);
        assert_eq!(heard[..5], [21, 3, 3, 0, 2], "one alert");
        assert_eq!(stage.closed(slot), Some(Close::Linger));
        stage.settle();
        stage.assert_empty();
    }
}

#[test]
fn a_handshake_that_does_not_come_is_not_waited_for_forever() {
    for tls in [ClientTls::May, ClientTls::Implicit] {
        let mut stage = Stage::new(with_tls(tls), 1, 10);
        let slot = stage.client();
        if tls == ClientTls::May {
            stage.say(slot, "EHLO c.example\r\n");
            stage.say(slot, "STARTTLS\r\n");
            stage.heard(slot);
        }
        stage.say_octets(slot, &[22, 3, 1]);
        stage.sleep(Duration::from_secs(29));
        assert_eq!(stage.closed(slot), None);
        stage.sleep(Duration::from_secs(2));
        assert!(stage.closed(slot).is_some());
        assert!(stage.heard_octets(slot).is_empty(), "without a word");
        stage.assert_empty();
    }
}

#[test]
fn a_client_that_hangs_up_in_the_handshake_leaves_nothing_behind() {
    for tls in [ClientTls::May, ClientTls::Implicit] {
        for reset in [false, true] {
            let mut stage = Stage::new(with_tls(tls), 1, 10);
            let slot = stage.client();
            if tls == ClientTls::May {
                stage.say(slot, "EHLO c.example\r\n");
                stage.say(slot, "STARTTLS\r\n");
            }
            stage.say_octets(slot, &[22, 3, 1, 2, 0, 1]);
            if reset {
                stage.reset(slot);
            } else {
                stage.hang_up(slot);
            }
            assert!(stage.closed(slot).is_some());
            stage.assert_empty();
            assert_eq!(stage.world.wire.secure_slots(), 0);
        }
    }
}

/// A stream that ends without close_notify may have been cut by anybody: what came of a message so far is not a message.
#[test]
fn a_body_that_ends_by_truncation_is_no_message() {
    for body in ["DATA\r\n", "BDAT 40\r\n"] {
        for close in [false, true] {
            let mut stage = Stage::new(with_tls(ClientTls::May), 1, 10);
            let mut client = upgraded(&mut stage, client_config(&[&TLS13]));
            client.say(&mut stage, "EHLO c.example\r\n");
            client.say(&mut stage, "MAIL FROM:<a@c.example>\r\n");
            client.say(&mut stage, "RCPT TO:<b@d.example>\r\n");
            let leg = stage.legs(1)[0];
            stage.greet(leg);
            stage.heard(leg);
            stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
            client.say(&mut stage, body);
            client.say(&mut stage, "Subject: x\r\n\r\nhalf a mess");
            if close {
                client.tls.send_close_notify();
                client.turn(&mut stage);
            }
            stage.hang_up(client.slot);
            assert!(!stage.heard(leg).contains("LAST"));
            let accepted = stage
                .counters
                .messages
                .at(crate::metrics::Outcome::Accepted);
            assert_eq!(accepted.value(), 0);
            assert!(stage.closed(client.slot).is_some());
        }
    }
}

#[test]
fn the_greet_wait_comes_after_the_handshake_and_hears_early_talkers() {
    for early in [false, true] {
        let mut config = with_tls(ClientTls::Implicit);
        config.session.greet_wait = Duration::from_secs(6);
        let mut stage = Stage::new(config, 1, 10);
        let slot = stage.arrive();
        stage.settle();
        let mut client = Client::new(slot, client_config(&[&TLS13]));
        if early {
            // With the client's last flight.
            client
                .tls
                .writer()
                .write_all(b"EHLO c.example\r\n")
                .expect("room");
        }
        assert!(client.heard(&mut stage).starts_with("220-"));
        assert_eq!(stage.world.pit.len(), 1);
        stage.sleep(Duration::from_secs(7));
        assert_eq!(stage.world.pit.len(), 0);
        let heard = client.heard(&mut stage);
        assert!(heard.starts_with("220 "), "{heard}");
        assert_eq!(heard.contains("250 "), early, "{heard}");
        let finding = crate::policy::Finding::Pregreet as usize;
        let action = crate::policy::Action::Log as usize;
        let noticed = stage.counters.findings.at(finding, action).value();
        assert_eq!(noticed, u64::from(early));
        if !early {
            client.say(&mut stage, "EHLO c.example\r\n");
        }
        client.heard(&mut stage);
        deliver(&mut stage, &mut client);
    }
}

#[test]
fn large_bodies_arrive_whole() {
    let mut config = with_tls(ClientTls::May);
    config.hold_max = 16 << 10;
    let mut stage = Stage::new(config, 1, 10);
    let mut client = upgraded(&mut stage, client_config(&[&TLS13]));
    client.piece = 16 * 1024;
    client.say(&mut stage, "EHLO c.example\r\n");
    client.say(&mut stage, "MAIL FROM:<a@c.example>\r\n");
    client.say(&mut stage, "RCPT TO:<b@d.example>\r\n");
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    let body: String = (0..6000)
        .map(|n| format!("line number {n:>6}\r\n"))
        .collect();
    client.say(&mut stage, &format!("BDAT {} LAST\r\n", body.len()));
    let mut sent = String::new();
    for piece in body.as_bytes().chunks(40_000) {
        let text = std::str::from_utf8(piece).expect("ASCII");
        client.say(&mut stage, text);
        sent += &stage.heard(leg);
    }
    sent += &stage.heard(leg);
    let mut octets = String::new();
    let mut rest = &sent[..];
    while let Some(command) = rest.strip_prefix("BDAT ") {
        let (line, behind) = command.split_once("\r\n").expect("a line");
        let size = line.split(' ').next().expect("a size");
        let (chunk, behind) = behind.split_at(size.parse().expect("a number"));
        octets += chunk;
        rest = behind;
    }
    assert!(octets == body, "{} octets of {}", octets.len(), body.len());
}
