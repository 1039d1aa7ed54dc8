//! Clients that come to TLS, by STARTTLS and before the greeting: rustls itself at the other end.

use std::cell::Cell;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion};

use weir_smtp::time::Moment;

use super::{Stage, settings};
use crate::metrics::{Handshake, TlsFailure, TlsLeg};
use crate::net::{ClientTls, Service};
use crate::policy::{self, Action, Finding};
use crate::ring::{Close, SlotId};
use crate::shard::config::WorldConfig;
use crate::shard::mail::Mail;
use crate::tls::ServerTls;
use crate::tls::testing::{client_config, name, server_config};

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

pub fn with_tls(tls: ClientTls) -> WorldConfig {
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

/// A handshake after STARTTLS held up a drain for as long as handshakes may last, whatever its grace.
#[test]
fn a_handshake_that_outlasts_the_grace_of_a_drain_is_not_waited_for() {
    for how in [ClientTls::Implicit, ClientTls::May] {
        let mut stage = Stage::new(with_tls(how), 1, 10);
        let slot = stage.client();
        if how == ClientTls::May {
            stage.say(slot, "EHLO c.example\r\n");
            stage.say(slot, "STARTTLS\r\n");
        }
        stage.settle();
        let drain = Mail::Drain {
            grace: Duration::from_secs(5),
        };
        stage.world.handle_mail(stage.now, drain);
        stage.settle();
        assert_eq!(stage.closed(slot), None, "it may end in time");
        stage.sleep(Duration::from_secs(6));
        assert!(stage.closed(slot).is_some());
        stage.assert_empty();
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
    assert_eq!(stage.counters.tls_injections.value(), 1);
    assert_eq!(found(&stage, Finding::TlsInjection, Action::Log), 1);
}

fn found(stage: &Stage, finding: Finding, action: Action) -> u64 {
    let cell = stage
        .counters
        .findings
        .at(finding as usize, action as usize);
    cell.value()
}

/// What comes while the 220 is on its way out is no hello either.
#[test]
fn octets_ahead_of_the_220_are_thrown_away_and_cost_the_session_where_that_is_wanted() {
    let mut config = with_tls(ClientTls::May);
    config.policy = minding("tls-injection=drop");
    let mut stage = Stage::new(config, 1, 10);
    let slot = stage.client();
    stage.say(slot, "EHLO c.example\r\n");
    stage.heard(slot);
    stage.stuff(slot);
    stage.say(slot, "STARTTLS\r\n");
    stage.say(slot, "RSET\r\n");
    stage.say(slot, "RSET\r\n");
    stage.unstuff(slot);
    assert_eq!(stage.heard(slot), "220 2.0.0 Ready to start TLS\r\n");
    assert_eq!(found(&stage, Finding::TlsInjection, Action::Drop), 1);
    let mut client = Client::new(slot, client_config(&[&TLS13]));
    let heard = client.heard(&mut stage);
    assert!(heard.starts_with("421 4.7.0 "), "inside TLS: {heard}");
    assert!(client.has_been_told_the_end());
}

fn minding(on: &str) -> Arc<policy::Config> {
    let on = on.parse().expect("a finding and an action for it");
    Arc::new(policy::Config {
        actions: std::iter::once(on).collect(),
        ..policy::Config::default()
    })
}

#[test]
fn handshakes_beyond_the_rate_are_put_off() {
    let mut config = with_tls(ClientTls::May);
    config.policy = Arc::new(policy::Config {
        rate_handshakes: "1/h".parse().expect("a rate"),
        ..policy::Config::default()
    });
    let mut stage = Stage::new(config.clone(), 1, 10);
    upgraded(&mut stage, client_config(&[&TLS13]));
    let again = stage.arrive_again();
    stage.say(again, "EHLO c.example\r\n");
    stage.heard(again);
    stage.say(again, "STARTTLS\r\n");
    assert!(stage.heard(again).starts_with("454 4.7.0 "));
    stage.say(again, "NOOP\r\n");
    assert_eq!(stage.code(again), "250", "the session goes on");
    assert_eq!(found(&stage, Finding::RateHandshakes, Action::Defer), 1);

    config.services = with_tls(ClientTls::Implicit).services;
    let mut stage = Stage::new(config, 1, 10);
    let first = stage.client();
    let again = stage.arrive_again();
    assert_eq!(stage.closed(first), None);
    assert!(stage.closed(again).is_some(), "not worth a handshake");
    assert!(stage.heard_octets(again).is_empty());
}

/// Who begins with a handshake is not told in the clear that weir goes down, and who is in one hears it inside TLS.
#[test]
fn a_drain_says_nothing_in_the_clear() {
    let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
    let slot = stage.client();
    let drain = Mail::Drain {
        grace: Duration::from_secs(60),
    };
    stage.world.handle_mail(stage.now, drain);
    let late = stage.client();
    assert!(stage.closed(late).is_some() && stage.heard_octets(late).is_empty());
    assert!(stage.heard_octets(slot).is_empty());
    let mut client = Client::new(slot, client_config(&[&TLS13]));
    let heard = client.heard(&mut stage);
    assert!(heard.starts_with("421 "), "{heard}");
    assert!(client.has_been_told_the_end());
    stage.settle();
    stage.assert_empty();
}

/// The end of the handshake took the deadline of the last words away: one client that read nothing held up the whole drain.
#[test]
fn who_does_not_take_the_news_of_a_drain_is_not_waited_for() {
    let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
    let slot = stage.client();
    let mut client = Client::new(slot, client_config(&[&TLS12]));
    let mut hello = Vec::new();
    client.tls.write_tls(&mut hello).expect("a vector");
    stage.say_octets(slot, &hello);
    let drain = Mail::Drain {
        grace: Duration::from_secs(60),
    };
    stage.world.handle_mail(stage.now, drain);
    stage.settle();
    let flight = stage.heard_octets(slot);
    stage.stuff(slot);
    client.tls.read_tls(&mut &flight[..]).expect("room");
    client.tls.process_new_packets().expect("weir speaks TLS");
    let mut finished = Vec::new();
    client.tls.write_tls(&mut finished).expect("a vector");
    stage.say_octets(slot, &finished);
    assert_eq!(stage.closed(slot), None, "its last words are on their way");
    stage.sleep(Duration::from_secs(11));
    assert!(stage.closed(slot).is_some());
    stage.assert_empty();
}

/// Records leave at the end of the step, where nobody's step was running: such a defect ended the shard.
#[test]
fn a_defect_in_sending_a_record_ends_its_own_session_only() {
    let mut stage = Stage::new(with_tls(ClientTls::May), 1, 10);
    let mut bystander = upgraded(&mut stage, client_config(&[&TLS13]));
    let mut victim = upgraded(&mut stage, client_config(&[&TLS13]));
    stage.world.wire.explosive = Some(victim.slot);
    victim.say(&mut stage, "EHLO c.example\r\n");
    assert_eq!(stage.counters.panics.value(), 1);
    assert_eq!(stage.closed(victim.slot), Some(Close::Reset));
    assert!(!stage.world.wire.is_secure(victim.slot));
    stage.world.wire.explosive = None;
    bystander.say(&mut stage, "EHLO c.example\r\n");
    deliver(&mut stage, &mut bystander);
    bystander.say(&mut stage, "QUIT\r\n");
    stage.assert_empty();
}

/// The layer works before it is known whose step follows, and a handshake begins in the step of an arrival, which is nobody's.
#[test]
fn a_defect_in_a_handshake_ends_its_own_session_only() {
    for begun in [false, true] {
        let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
        let defect = || -> Moment { panic!("a defect for the test") };
        stage.defects = 1;
        let slot = match begun {
            true => stage.client(),
            false => stage.arrive(),
        };
        stage.world.wire.measure_by(defect);
        stage.say_octets(slot, b"\x16\x03\x01\x00\x05hello");
        assert_eq!(stage.counters.panics.value(), 1);
        assert_eq!(stage.closed(slot), Some(Close::Reset));
        assert!(!stage.world.wire.is_secure(slot));
        stage.assert_empty();
    }
}

#[test]
fn handshakes_are_counted_by_version_and_resumption() {
    let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
    let config = client_config(&[&TLS13]);
    for _ in 0..2 {
        let slot = stage.client();
        let mut client = Client::new(slot, config.clone());
        client.say(&mut stage, "QUIT\r\n");
        assert!(client.heard(&mut stage).contains("221 "));
    }
    for kind in [Handshake::Tls13, Handshake::Tls13Resumed] {
        let count = stage.counters.tls_handshakes.at(TlsLeg::Client, kind);
        assert_eq!(count.value(), 1, "{}", kind.word());
    }
}

#[test]
fn the_time_of_handshakes_is_measured_and_no_other() {
    let mut stage = Stage::new(with_tls(ClientTls::Implicit), 1, 10);
    let looks = Cell::new(0);
    stage.world.wire.measure_by(move || {
        looks.set(looks.get() + 1000);
        Moment::from_micros(looks.get())
    });
    let slot = stage.client();
    let mut client = Client::new(slot, client_config(&[&TLS13]));
    client.heard(&mut stage);
    stage.sleep(Duration::from_secs(2));
    // Its beginning, the hello, the client's last flight.
    assert_eq!(stage.counters.tls_handshake_micros.value(), 3000);
    client.say(&mut stage, "EHLO c.example\r\n");
    stage.sleep(Duration::from_secs(2));
    assert_eq!(stage.counters.tls_handshake_micros.value(), 3000);
}

/// A client that stutters keeps its TLS in the pit, and is closed where too many do.
#[test]
fn who_is_parked_keeps_tls_while_there_is_room() {
    for room in [1, 0] {
        let mut config = with_tls(ClientTls::May);
        config.policy = minding("non-smtp=stutter");
        config.pit.secure_max = room;
        let mut stage = Stage::new(config, 1, 10);
        let mut client = upgraded(&mut stage, client_config(&[&TLS13]));
        client.say(&mut stage, "EHLO c.example\r\n");
        client.heard(&mut stage);
        client.say(&mut stage, "GET / HTTP/1.0\r\n");
        if room == 0 {
            let heard = client.heard(&mut stage);
            assert!(heard.contains("421 4.3.2 "), "{heard}");
            assert!(stage.closed(client.slot).is_some());
            continue;
        }
        assert_eq!(stage.world.pit.len(), 1);
        let begun = client.heard(&mut stage);
        assert!(begun.len() < 20, "a byte at a time: {begun}");
        stage.sleep(Duration::from_secs(300));
        let reply = begun + &client.heard(&mut stage);
        assert!(
            reply.starts_with("500 ") && reply.ends_with("\r\n"),
            "{reply}"
        );
        assert_eq!(stage.world.parked_secure, stage.world.pit.len() as u32);
        client.say(&mut stage, "QUIT\r\n");
        stage.sleep(Duration::from_secs(300));
        assert!(client.heard(&mut stage).starts_with("221 "));
    }
}

/// A parked client that takes nothing: its row goes on waiting, and nothing piles up for it.
#[test]
fn a_parked_client_that_takes_nothing_holds_one_record() {
    let mut config = with_tls(ClientTls::May);
    config.policy = minding("non-smtp=stutter");
    let mut stage = Stage::new(config, 1, 10);
    let mut client = upgraded(&mut stage, client_config(&[&TLS13]));
    client.say(&mut stage, "EHLO c.example\r\n");
    client.heard(&mut stage);
    client.say(&mut stage, "GET / HTTP/1.0\r\n");
    client.heard(&mut stage);
    stage.stuff(client.slot);
    stage.sleep(Duration::from_secs(60));
    assert_eq!(stage.world.pit.len(), 1);
    assert!(stage.heard_octets(client.slot).len() < 64);
    stage.reset(client.slot);
    stage.sleep(Duration::from_secs(600));
    assert_eq!(stage.world.pit.len(), 0);
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
        let failures = &stage.counters.tls_failures;
        let garbage = failures.at(TlsLeg::Client, TlsFailure::Garbage);
        assert_eq!(garbage.value(), 1);
        assert_eq!(found(&stage, Finding::TlsFailed, Action::Log), 1);
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
        let failures = &stage.counters.tls_failures;
        let overdue = failures.at(TlsLeg::Client, TlsFailure::Timeout);
        assert_eq!(overdue.value(), 1);
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
            let cut = stage.counters.tls_cut.at(TlsLeg::Client);
            assert_eq!(cut.value(), u64::from(!close));
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
        let noticed = found(&stage, Finding::Pregreet, Action::Log);
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
