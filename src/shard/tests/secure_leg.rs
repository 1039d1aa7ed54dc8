//! Upstreams that are spoken to inside TLS: rustls itself at the other end.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig, ServerConnection, SupportedProtocolVersion};

use super::secure::Client as Peer;
use super::{Stage, server, settings};
use crate::metrics::{ClosedLeg, Outcome};
use crate::ring::SlotId;
use crate::shard::mail::{Mail, UpstreamSpec};
use crate::tls::testing::{client_config, name, server_config};
use crate::tls::{UpstreamMode, UpstreamTls};

const ENVELOPE: &str = "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n";

pub fn upstream(mode: UpstreamMode, implicit: bool, config: Arc<ClientConfig>) -> UpstreamTls {
    UpstreamTls {
        mode,
        implicit,
        name: name(),
        config,
    }
}

/// One upstream that is spoken to so.
pub fn stage(tls: UpstreamTls) -> Stage {
    let mut stage = Stage::new(settings(), 1, 10);
    let spec = UpstreamSpec {
        name: "mx1.example:25".into(),
        weight: 1,
        max: 10,
        addresses: vec![server(1)],
        tls: Some(tls),
    };
    let mail = Mail::Upstreams(vec![spec].into());
    stage.world.handle_mail(stage.now, mail);
    stage.settle();
    stage
}

/// A client's transaction has made weir connect.
pub fn dialled(stage: &mut Stage) -> (SlotId, SlotId) {
    let client = stage.client();
    stage.ask(client);
    (client, stage.legs(1)[0])
}

fn serving(slot: SlotId, config: Arc<ServerConfig>) -> Peer {
    let tls = ServerConnection::new(config).expect("a server");
    Peer::of(slot, tls.into())
}

/// The dialogue of a mail server inside TLS, from EHLO to the envelope.
fn take_envelope(stage: &mut Stage, peer: &mut Peer) {
    assert_eq!(peer.heard(stage), "EHLO weir.example\r\n");
    peer.say(
        stage,
        "250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING\r\n",
    );
    assert_eq!(peer.heard(stage), ENVELOPE);
    peer.say(stage, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
}

fn finish(stage: &mut Stage, client: SlotId, peer: &mut Peer) {
    assert_eq!(stage.code(client), "250");
    stage.say(client, "DATA\r\n");
    assert_eq!(stage.code(client), "354");
    stage.say(client, "Subject: x\r\n\r\nbody\r\n.\r\n");
    assert_eq!(
        peer.heard(stage),
        "BDAT 20 LAST\r\nSubject: x\r\n\r\nbody\r\n"
    );
    peer.say(stage, "250 2.0.0 queued as 1\r\n");
    assert_eq!(stage.heard(client), "250 2.0.0 queued as 1\r\n");
}

/// As far as weir's hello.
pub fn asked_for_tls(stage: &mut Stage, leg: SlotId) {
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(leg), "EHLO weir.example\r\n");
    stage.say(leg, "250-mx.example\r\n250-SIZE 5\r\n250 STARTTLS\r\n");
    assert_eq!(stage.heard(leg), "STARTTLS\r\n");
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

#[test]
fn a_message_goes_up_inside_tls_by_starttls_and_the_next_one_finds_the_connection() {
    for version in VERSIONS {
        let tls = upstream(UpstreamMode::Verify, false, client_config(&[version]));
        let mut stage = stage(tls);
        let (client, leg) = dialled(&mut stage);
        asked_for_tls(&mut stage, leg);
        stage.say(leg, "220 go\r\n");
        let mut peer = serving(leg, server_config(&[version]));
        take_envelope(&mut stage, &mut peer);
        finish(&mut stage, client, &mut peer);
        let (_, session) = stage.world.sessions.iter().next().expect("it is there");
        assert!(session.leg_tls.is_some(), "for the log");
        stage.say(client, "MAIL FROM:<a@c.example>\r\n");
        assert_eq!(stage.code(client), "250");
        stage.say(client, "RCPT TO:<b@d.example>\r\n");
        assert_eq!(stage.legs(1), [leg], "a pooled connection keeps its TLS");
        assert_eq!(peer.heard(&mut stage), ENVELOPE);
        peer.say(&mut stage, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
        finish(&mut stage, client, &mut peer);
    }
}

#[test]
fn implicit_tls_comes_before_the_greeting() {
    for version in VERSIONS {
        let tls = upstream(UpstreamMode::Require, true, client_config(&[version]));
        let mut stage = stage(tls);
        let (client, leg) = dialled(&mut stage);
        let mut peer = serving(leg, server_config(&[version]));
        peer.say(&mut stage, "220 mx.example ESMTP\r\n");
        take_envelope(&mut stage, &mut peer);
        finish(&mut stage, client, &mut peer);
    }
}

/// Finished and EHLO, and nothing more: the handshake costs two sends.
#[test]
fn ehlo_goes_with_the_end_of_the_handshake() {
    let tls = upstream(UpstreamMode::Require, false, client_config(&[&TLS13]));
    let mut stage = stage(tls);
    let (_, leg) = dialled(&mut stage);
    asked_for_tls(&mut stage, leg);
    let before = stage.world.wire.socket(leg).sends;
    stage.say(leg, "220 go\r\n");
    let mut peer = serving(leg, server_config(&[&TLS13]));
    assert_eq!(peer.heard(&mut stage), "EHLO weir.example\r\n");
    assert_eq!(stage.world.wire.socket(leg).sends - before, 2);
}

#[test]
fn a_name_that_does_not_fit_is_not_spoken_to() {
    let mut tls = upstream(UpstreamMode::Verify, false, client_config(&[&TLS13]));
    tls.name = "other.example".try_into().expect("a name");
    let mut stage = stage(tls);
    let (client, leg) = dialled(&mut stage);
    asked_for_tls(&mut stage, leg);
    stage.say(leg, "220 go\r\n");
    let mut peer = ServerConnection::new(server_config(&[&TLS13])).expect("a server");
    let mut hello = &stage.heard_octets(leg)[..];
    peer.read_tls(&mut hello).expect("room");
    peer.process_new_packets().expect("a hello");
    let mut flight = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut flight).expect("a vector");
    }
    stage.say_octets(leg, &flight);
    let closes = stage.counters.upstream_closes.at(0, ClosedLeg::Tls);
    assert_eq!(closes.value(), 1);
    assert!(stage.closed(leg).is_some());
    let alert = stage.heard_octets(leg);
    assert!(!alert.is_empty(), "an alert says why");
    let accepted = stage.counters.messages.at(Outcome::Accepted);
    assert_eq!(accepted.value(), 0);
    assert!(!stage.heard(client).starts_with('2'));
}

#[test]
fn what_is_glued_behind_the_220_loses_the_connection() {
    let tls = upstream(UpstreamMode::May, false, client_config(&[&TLS13]));
    let mut stage = stage(tls);
    let (_, leg) = dialled(&mut stage);
    asked_for_tls(&mut stage, leg);
    stage.say(leg, "220 go\r\n250 evil\r\n");
    assert!(stage.closed(leg).is_some());
    assert!(stage.heard_octets(leg).is_empty(), "no handshake is begun");
    let closes = stage.counters.upstream_closes.at(0, ClosedLeg::Injection);
    assert_eq!(closes.value(), 1);
}

#[test]
fn a_server_without_starttls_is_no_upstream_where_tls_is_required_and_one_where_it_is_not() {
    for mode in [UpstreamMode::May, UpstreamMode::Require] {
        let mut stage = stage(upstream(mode, false, client_config(&[&TLS13])));
        let (_, leg) = dialled(&mut stage);
        stage.say(leg, "220 mx.example ESMTP\r\n");
        assert_eq!(stage.heard(leg), "EHLO weir.example\r\n");
        stage.say(leg, "250-mx.example\r\n250 PIPELINING\r\n");
        if mode == UpstreamMode::May {
            assert_eq!(stage.heard(leg), ENVELOPE);
        } else {
            assert!(stage.closed(leg).is_some());
            assert_eq!(stage.heard(leg), "");
        }
    }
}

#[test]
fn garbage_in_the_handshake_loses_the_connection() {
    for implicit in [false, true] {
        let tls = upstream(UpstreamMode::May, implicit, client_config(&[&TLS13]));
        let mut stage = stage(tls);
        let (_, leg) = dialled(&mut stage);
        if !implicit {
            asked_for_tls(&mut stage, leg);
            stage.say(leg, "220 go\r\n");
        }
        assert_eq!(stage.heard_octets(leg)[0], 22, "a hello");
        stage.say(leg, "220 mx.example ESMTP\r\n");
        assert!(stage.closed(leg).is_some());
        let closes = stage.counters.upstream_closes.at(0, ClosedLeg::Tls);
        assert_eq!(closes.value(), 1);
    }
}

/// The message went up whole, but its reply was cut: nobody may believe that it was refused or accepted.
#[test]
fn a_cut_stream_is_a_lost_connection() {
    let tls = upstream(UpstreamMode::Require, true, client_config(&[&TLS13]));
    let mut stage = stage(tls);
    let (client, leg) = dialled(&mut stage);
    let mut peer = serving(leg, server_config(&[&TLS13]));
    peer.say(&mut stage, "220 mx.example ESMTP\r\n");
    take_envelope(&mut stage, &mut peer);
    assert_eq!(stage.code(client), "250");
    stage.say(client, "DATA\r\n");
    stage.say(client, "Subject: x\r\n\r\nbody\r\n.\r\n");
    peer.heard(&mut stage);
    stage.heard(client);
    stage.hang_up(leg);
    assert_eq!(stage.code(client), "451");
}
