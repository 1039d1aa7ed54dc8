//! Upstreams whose handshakes fail, where TLS is not a must: mail gets there without, and not for ever.

use std::time::Duration;

use rustls::version::TLS13;

use super::secure_leg::{asked_for_tls, dialled, stage, upstream};
use super::{Stage, server, settings};
use crate::metrics::{ClosedLeg, Probe};
use crate::ring::SlotId;
use crate::route::EndpointId;
use crate::shard::config::ProbeConfig;
use crate::shard::mail::{Mail, UpstreamSpec};
use crate::shard::who::Who;
use crate::tls::testing::client_config;
use crate::tls::{Failure, UpstreamMode};

/// What a server's handshake comes to.
#[derive(Clone, Copy, Debug)]
enum Break {
    Garbage,
    HangUp,
    Silence,
}

fn begin(mode: UpstreamMode) -> Stage {
    stage(upstream(mode, false, client_config(&[&TLS13])))
}

fn fail(stage: &mut Stage, leg: SlotId, how: Break) {
    asked_for_tls(stage, leg);
    stage.say(leg, "220 go\r\n");
    assert_eq!(stage.heard_octets(leg)[0], 22, "a hello");
    match how {
        Break::Garbage => stage.say(leg, "454 4.7.0 TLS not available\r\n"),
        Break::HangUp => stage.hang_up(leg),
        Break::Silence => stage.sleep(Duration::from_secs(61)),
    }
    assert!(stage.closed(leg).is_some());
}

/// The offer is there all the same, and is not taken up.
fn greet(stage: &mut Stage, leg: SlotId) {
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(leg), "EHLO weir.example\r\n");
    stage.say(
        leg,
        "250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-REQUIRETLS\r\n250 STARTTLS\r\n",
    );
}

fn forgone(stage: &Stage) -> u64 {
    stage.counters.upstream_tls_forgone.at(0).value()
}

#[test]
fn mail_goes_without_tls_after_a_handshake_that_failed() {
    for how in [Break::Garbage, Break::HangUp] {
        let mut stage = begin(UpstreamMode::May);
        let (client, leg) = dialled(&mut stage);
        let lines = stage.counters.log_lines.value();
        fail(&mut stage, leg, how);
        let again = stage.legs(1);
        assert_eq!(again.len(), 1, "at once, and on another connection");
        greet(&mut stage, again[0]);
        stage.deliver(client, again[0]);
        assert_eq!(forgone(&stage), 1);
        assert_eq!(stage.counters.upstream_ejections.at(0).value(), 0);
        let wrote = stage.counters.log_lines.value() - lines;
        assert_eq!(wrote, 3, "a failed handshake, TLS forgone, the transaction");
        let other = stage.client();
        stage.ask(other);
        let legs = stage.legs(1);
        assert_eq!(legs, again, "a connection without TLS is pooled like any");
    }
}

/// Clients can use up the memory for unfinished records, and so could have had all mail of the next ten minutes in the clear.
#[test]
fn trouble_of_weirs_own_is_no_reason_to_go_without() {
    for failure in [Failure::NoRoom, Failure::Internal] {
        let mut stage = begin(UpstreamMode::May);
        let (_, leg) = dialled(&mut stage);
        asked_for_tls(&mut stage, leg);
        stage.say(leg, "220 go\r\n");
        let key = match Who::from(stage.world.wire.socket(leg).owner) {
            Who::Leg(key) => key,
            other => panic!("{other:?} has it"),
        };
        stage.world.leg_secured(key, Err(failure.into()));
        assert!(stage.closed(leg).is_some());
        stage.sleep(Duration::from_secs(2));
        let again = stage.legs(1)[0];
        asked_for_tls(&mut stage, again);
        assert_eq!(forgone(&stage), 0);
    }
}

#[test]
fn a_handshake_that_hangs_is_one_that_failed() {
    let mut stage = begin(UpstreamMode::May);
    let (client, leg) = dialled(&mut stage);
    fail(&mut stage, leg, Break::Silence);
    assert_eq!(stage.code(client), "451");
    let (client, leg) = dialled(&mut stage);
    greet(&mut stage, leg);
    stage.deliver(client, leg);
}

#[test]
fn tls_is_tried_again_after_ten_minutes() {
    let mut stage = begin(UpstreamMode::May);
    let (client, leg) = dialled(&mut stage);
    fail(&mut stage, leg, Break::Garbage);
    let leg = stage.legs(1)[0];
    greet(&mut stage, leg);
    stage.deliver(client, leg);
    stage.sleep(Duration::from_secs(601));
    assert_eq!(stage.legs(1), [], "idle ones do not live that long");
    let (client, leg) = dialled(&mut stage);
    fail(&mut stage, leg, Break::Garbage);
    let leg = stage.legs(1)[0];
    greet(&mut stage, leg);
    stage.deliver(client, leg);
    assert_eq!(forgone(&stage), 2);
}

#[test]
fn who_requires_tls_waits_for_it() {
    for mode in [UpstreamMode::Require, UpstreamMode::Verify] {
        let mut stage = begin(mode);
        let (client, leg) = dialled(&mut stage);
        fail(&mut stage, leg, Break::Garbage);
        assert_eq!(stage.legs(1), [], "it is left alone for a while");
        stage.sleep(Duration::from_secs(2));
        let leg = stage.legs(1)[0];
        asked_for_tls(&mut stage, leg);
        assert_eq!(forgone(&stage), 0);
        assert_eq!(stage.heard(client), "");
    }
}

/// Without a configuration that works OpenSSL sends its alert at once, ahead of any hello. Who could put it there could as
/// well take STARTTLS out of the offer.
#[test]
fn an_alert_glued_to_the_220_is_a_handshake_that_failed() {
    let mut stage = begin(UpstreamMode::May);
    let (client, leg) = dialled(&mut stage);
    asked_for_tls(&mut stage, leg);
    stage.say(leg, "220 go\r\n\x15\x03\x01\x00\x02\x02\x46");
    let closes = stage.counters.upstream_closes.at(0, ClosedLeg::Injection);
    assert_eq!(closes.value(), 1);
    let leg = stage.legs(1)[0];
    greet(&mut stage, leg);
    stage.deliver(client, leg);
}

/// A server that begins with a handshake has no words for who does not.
#[test]
fn implicit_tls_is_never_left_off() {
    let tls = upstream(UpstreamMode::May, true, client_config(&[&TLS13]));
    let mut stage = stage(tls);
    let (_, leg) = dialled(&mut stage);
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert!(stage.closed(leg).is_some());
    stage.sleep(Duration::from_secs(2));
    let leg = stage.legs(1)[0];
    assert_eq!(stage.heard_octets(leg)[0], 22, "a hello");
}

#[test]
fn a_probe_finds_the_way_without_tls_and_ejects_nobody() {
    let mut config = settings();
    config.probe = ProbeConfig {
        interval: Duration::from_secs(10),
        relay_test: false,
    };
    let shared = super::Arc::new(super::Shared::new(0));
    let mut stage = Stage::sharing(config, 0, 10, shared, 0);
    let spec = UpstreamSpec {
        name: "mx1.example:25".into(),
        weight: 1,
        max: 10,
        addresses: vec![server(1)],
        tls: Some(upstream(UpstreamMode::May, false, client_config(&[&TLS13]))),
    };
    let mail = Mail::Upstreams(vec![spec].into());
    stage.world.handle_mail(stage.now, mail);
    stage.settle();
    let leg = stage.legs(1)[0];
    fail(&mut stage, leg, Break::Garbage);
    let leg = stage.legs(1)[0];
    greet(&mut stage, leg);
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    assert_eq!(stage.counters.upstream_ejections.at(0).value(), 0);
    let count = |word| stage.counters.upstream_probes.at(0, word).value();
    assert_eq!((count(Probe::Passed), count(Probe::Failed)), (1, 0));
    let known = stage.world.routes.get(EndpointId(0)).expect("planned");
    let caps = known.capabilities().expect("heard").set;
    use weir_smtp::extension::ExtensionSet;
    assert!(caps.contains(ExtensionSet::CHUNKING));
    assert!(
        !caps.contains(ExtensionSet::REQUIRETLS),
        "announced to nobody"
    );
}
