//! Hosts that clients want to go to themselves, spoken to inside TLS: each under its own address.

use std::time::Duration;

use rustls::ServerConnection;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;

use super::Stage;
use super::dedicated::{host, in_path_with, intercepting, to};
use super::secure::Client as Peer;
use super::secure_leg::asked_for_tls;
use crate::metrics::ClosedLeg;
use crate::ring::SlotId;
use crate::route::Starttls;
use crate::tls::testing::server_config;
use crate::tls::{Material, Settings, UpstreamMode, UpstreamWish};

fn begin(mode: UpstreamMode) -> Stage {
    let material = Material::read(Settings::default()).expect("no files are named");
    let tls = material.upstream_tls(&UpstreamWish::anywhere(mode));
    let mut config = intercepting();
    config.dedicated.starttls = Some(Starttls::Refuse);
    in_path_with(config, Some(tls))
}

/// A client that wants to go to the n-th host, and weir's connection there.
fn arrive(stage: &mut Stage, n: u8) -> (SlotId, SlotId) {
    let client = stage.arrive_for(Some(host(n)));
    stage.settle();
    (client, to(stage, host(n))[0])
}

/// The same client as before comes once more, to the first host.
fn come_again(stage: &mut Stage) -> (SlotId, SlotId) {
    stage.clients -= 1;
    arrive(stage, 1)
}

/// The dialogue without TLS, in which weir says nothing of its own.
fn greet(stage: &mut Stage, client: SlotId, leg: SlotId) {
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(leg), "");
    assert_eq!(stage.heard(client), "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    assert_eq!(stage.heard(leg), "EHLO c.example\r\n");
}

/// The 220 to STARTTLS, and the hello that it leads to.
fn agree(stage: &mut Stage, leg: SlotId) {
    asked_for_tls(stage, leg);
    stage.say(leg, "220 go\r\n");
    assert_eq!(stage.heard_octets(leg)[0], 22, "a hello");
}

#[test]
fn the_whole_dialogue_goes_up_inside_tls() {
    let mut stage = begin(UpstreamMode::Require);
    let (client, leg) = arrive(&mut stage, 1);
    let here = stage.world.legs.iter().next().expect("it is dialled").1;
    let name = here.tls.as_ref().map(|tls| tls.name.clone());
    assert_eq!(name, Some(ServerName::from(host(1).ip())));
    asked_for_tls(&mut stage, leg);
    stage.say(leg, "220 go\r\n");
    let tls = ServerConnection::new(server_config(&[&TLS13])).expect("a server");
    let mut peer = Peer::of(leg, tls.into());
    assert_eq!(peer.heard(&mut stage), "EHLO weir.example\r\n");
    peer.say(&mut stage, "250-mx.example\r\n250 PIPELINING\r\n");
    stage.say(client, "EHLO c.example\r\n");
    assert_eq!(peer.heard(&mut stage), "EHLO c.example\r\n");
    peer.say(&mut stage, "250-mx.example\r\n250 PIPELINING\r\n");
    stage.heard(client);
    stage.say(client, "MAIL FROM:<a@c.example>\r\n");
    assert_eq!(peer.heard(&mut stage), "MAIL FROM:<a@c.example>\r\n");
    let (_, session) = stage.world.sessions.iter().next().expect("it is there");
    assert!(session.leg_tls.is_some(), "for the log");
}

#[test]
fn a_host_without_tls_has_no_mail_where_it_is_a_must() {
    let mut stage = begin(UpstreamMode::Require);
    let (client, leg) = arrive(&mut stage, 1);
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(leg, "250 mx.example\r\n");
    assert!(stage.closed(leg).is_some());
    assert!(stage.heard(client).contains("421 4.4."));
}

#[test]
fn a_host_whose_handshake_fails_is_spoken_to_without_and_the_others_are_not() {
    let mut stage = begin(UpstreamMode::May);
    let (client, leg) = arrive(&mut stage, 1);
    agree(&mut stage, leg);
    stage.say(leg, "454 4.7.0 TLS not available\r\n");
    assert!(stage.closed(leg).is_some());
    assert!(stage.heard(client).contains("421 4.4."));
    let (client, leg) = come_again(&mut stage);
    greet(&mut stage, client, leg);
    let (_, leg) = arrive(&mut stage, 2);
    asked_for_tls(&mut stage, leg);
    // What the host has against this client it need not have against others.
    stage.arrive_for(Some(host(1)));
    stage.settle();
    let others = to(&mut stage, host(1))[1];
    asked_for_tls(&mut stage, others);
    assert_eq!(stage.counters.upstream_tls_forgone.at(0).value(), 1);
}

#[test]
fn a_host_that_falls_silent_in_the_handshake_is_given_up() {
    let mut stage = begin(UpstreamMode::May);
    let (client, leg) = arrive(&mut stage, 1);
    agree(&mut stage, leg);
    stage.sleep(Duration::from_secs(61));
    assert!(stage.heard(client).contains("421 4.4."));
    let closes = stage.counters.upstream_closes.at(0, ClosedLeg::Timeout);
    assert_eq!(closes.value(), 1);
    let (client, leg) = come_again(&mut stage);
    greet(&mut stage, client, leg);
}

/// Else any client could take TLS from all others.
#[test]
fn a_client_that_leaves_in_the_handshake_says_nothing_of_the_host() {
    let mut stage = begin(UpstreamMode::May);
    let (client, leg) = arrive(&mut stage, 1);
    agree(&mut stage, leg);
    stage.reset(client);
    assert!(stage.closed(leg).is_some());
    let (_, leg) = arrive(&mut stage, 1);
    asked_for_tls(&mut stage, leg);
}
