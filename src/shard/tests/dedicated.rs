//! Upstream connections that serve one client only: opened for it, introduced, given up with it.

use std::time::Duration;

use super::*;
use crate::net::{Intercept, Service};
use crate::route::Identity;
use crate::tls::UpstreamTls;

fn speaking(identity: Identity) -> WorldConfig {
    WorldConfig {
        identity,
        ..settings()
    }
}

pub fn intercepting() -> WorldConfig {
    let mut config = speaking(Identity::Transparent);
    let service = Service {
        intercept: Some(Intercept::Tproxy),
        ..Service::default()
    };
    config.services = vec![service].into();
    config.dedicated.own = vec![host(99)].into();
    config.dedicated.mark = 37;
    config
}

/// A host that clients want to go to.
pub fn host(n: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, n], 25))
}

/// In front of all hosts there are.
pub fn in_path(config: WorldConfig) -> Stage {
    in_path_with(config, None)
}

pub fn in_path_with(config: WorldConfig, tls: Option<UpstreamTls>) -> Stage {
    let mut stage = Stage::new(config, 1, 0);
    let anywhere = UpstreamSpec {
        name: "original".into(),
        weight: 1,
        max: 0,
        tls,
        addresses: vec![SocketAddr::from(([0, 0, 0, 0], 0))],
    };
    let mail = Mail::Upstreams(vec![anywhere].into());
    stage.world.handle_mail(stage.now, mail);
    stage
}

pub fn to(stage: &mut Stage, address: SocketAddr) -> Vec<SlotId> {
    let sockets = stage.world.wire.sockets.iter().enumerate();
    let open = sockets.filter(|(_, one)| one.to == Some(address) && one.closed.is_none());
    open.map(|(slot, _)| SlotId(slot as u32)).collect()
}

/// The dialogue up to the reply to the client's EHLO.
fn hello(stage: &mut Stage, client: SlotId, leg: SlotId) {
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(client), "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    assert!(stage.heard(leg).ends_with("EHLO c.example\r\n"));
    stage.say(
        leg,
        "250-mx.example\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n",
    );
    stage.heard(client);
}

#[test]
fn a_client_has_its_own_connection_from_its_first_to_its_last_word() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    assert_eq!(
        stage.heard(leg),
        "PROXY TCP4 198.51.100.1 198.51.100.1 40000 40000\r\n"
    );
    assert_eq!(stage.heard(client), "", "the greeting is the server's");
    hello(&mut stage, client, leg);
    stage.say(
        client,
        "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n",
    );
    assert_eq!(
        stage.heard(leg),
        "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n"
    );
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(client, "DATA\r\n");
    assert_eq!(stage.heard(leg), "DATA\r\n");
    stage.say(leg, "354 go\r\n");
    stage.say(client, "Subject: x\r\n\r\nbody\r\n.\r\n");
    assert_eq!(stage.heard(leg), "Subject: x\r\n\r\nbody\r\n.\r\n");
    stage.heard(client);
    stage.say(leg, "250 2.0.0 queued as 7\r\n");
    assert_eq!(stage.heard(client), "250 2.0.0 queued as 7\r\n");
    stage.say(client, "QUIT\r\n");
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    stage.say(leg, "221 2.0.0 Bye\r\n");
    assert_eq!(stage.heard(client), "221 2.0.0 Bye\r\n");
    assert!(stage.legs(1).is_empty(), "nobody else is served by it");
    assert_eq!(stage.shared.upstream_open(0), 0);
    assert_eq!(
        stage
            .counters
            .messages
            .at(crate::metrics::Outcome::Accepted)
            .value(),
        1
    );
    stage.assert_empty();
}

#[test]
fn the_binary_header_comes_first_too() {
    let mut stage = Stage::new(speaking(Identity::ProxyV2), 1, 10);
    stage.client();
    let leg = stage.legs(1)[0];
    let sent = stage.world.wire.socket(leg).sent.clone();
    let header = ppp::v2::Header::try_from(sent.as_slice()).expect("whole");
    let addresses = "198.51.100.1:40000".parse::<SocketAddr>().unwrap();
    assert_eq!(header.addresses, (addresses, addresses).into());
}

#[test]
fn a_server_is_told_by_xclient_before_the_clients_ehlo() {
    let mut stage = Stage::new(speaking(Identity::Xclient), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(client), "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(leg), "EHLO weir.example\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250-mx.example\r\n250 XCLIENT NAME ADDR PORT HELO\r\n");
    assert_eq!(
        stage.heard(leg),
        "XCLIENT NAME=[UNAVAILABLE] HELO=c.example PORT=40000 ADDR=198.51.100.1\r\n"
    );
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(leg), "EHLO c.example\r\n");
    stage.say(leg, "250 mx.example\r\n");
    assert_eq!(stage.code(client), "250");
}

#[test]
fn a_server_that_takes_no_xclient_is_not_used() {
    for reply in [
        "250 mx.example\r\n",
        "250-mx.example\r\n250 XCLIENT NAME\r\n",
    ] {
        let mut stage = Stage::new(speaking(Identity::Xclient), 1, 10);
        let client = stage.client();
        let leg = stage.legs(1)[0];
        stage.say(leg, "220 mx.example ESMTP\r\n");
        stage.say(client, "EHLO c.example\r\n");
        stage.say(leg, reply);
        assert_eq!(stage.code(client), "421", "{reply}");
        assert!(stage.legs(1).is_empty());
        stage.assert_empty();
    }
}

#[test]
fn a_refused_xclient_ends_the_session() {
    let mut stage = Stage::new(speaking(Identity::Xclient), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250-mx.example\r\n250 XCLIENT ADDR\r\n");
    stage.say(leg, "550 5.7.0 not you\r\n");
    assert_eq!(stage.code(client), "421");
    stage.assert_empty();
}

#[test]
fn another_address_is_tried_while_the_client_knows_of_none() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 3, 10);
    stage.world.wire.refusing = vec![server(1), server(2)];
    let client = stage.client();
    let leg = stage.legs(3)[0];
    hello(&mut stage, client, leg);
    stage.world.wire.refusing.push(server(3));
    let other = stage.client();
    assert_eq!(
        stage.heard(other),
        "421 4.4.1 No mail server answers, try again later\r\n"
    );
    assert_eq!(stage.shared.upstream_open(0), 0);
    assert_eq!(stage.shared.upstream_open(1), 0);
}

#[test]
fn a_refusing_greeting_passes_and_the_connection_goes() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "554 5.7.1 not from there\r\n");
    assert_eq!(stage.heard(client), "554 5.7.1 not from there\r\n");
    assert!(stage.legs(1).is_empty());
    stage.say(client, "QUIT\r\n");
    assert_eq!(stage.code(client), "221");
    stage.assert_empty();
}

#[test]
fn who_finds_no_permit_waits_for_one() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 1);
    let first = stage.client();
    let leg = stage.legs(1)[0];
    hello(&mut stage, first, leg);
    let (second, third) = (stage.client(), stage.client());
    assert_eq!(stage.legs(1).len(), 1);
    stage.reset(second);
    stage.say(first, "QUIT\r\n");
    stage.say(leg, "221 2.0.0 Bye\r\n");
    stage.sleep(Duration::from_millis(20));
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    assert_eq!(stage.heard(third), "220 mx.example ESMTP\r\n");
    let fourth = stage.client();
    stage.sleep(Duration::from_secs(31));
    assert_eq!(stage.code(fourth), "421", "nobody waits for ever");
}

#[test]
fn a_client_that_leaves_before_its_connection_is_there_takes_it_along() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 10);
    let client = stage.arrive();
    while stage.world.wire.sockets.len() < 2 {
        let event = stage.world.wire.event().expect("the client comes");
        stage.world.handle(stage.now, event);
    }
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    stage
        .world
        .wire
        .due
        .push_front(Due::Ended(client, ReceiveEnd::Reset(reset)));
    stage.settle();
    assert!(stage.legs(1).is_empty());
    assert_eq!(stage.shared.upstream_open(0), 0);
    stage.assert_empty();
}

#[test]
fn a_server_that_is_never_reached_costs_the_connect_timeout() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 10);
    stage.world.wire.silent.push(server(1));
    let client = stage.client();
    stage.sleep(Duration::from_secs(29));
    assert_eq!(stage.heard(client), "");
    stage.sleep(Duration::from_secs(2));
    assert_eq!(stage.code(client), "421");
    stage.assert_empty();
}

#[test]
fn the_greet_wait_is_silent_and_comes_before_the_connection() {
    let mut config = speaking(Identity::ProxyV1);
    config.session.greet_wait = Duration::from_secs(6);
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    stage.sleep(Duration::from_secs(5));
    assert_eq!(stage.heard(client), "");
    assert!(stage.legs(1).is_empty());
    stage.sleep(Duration::from_secs(2));
    let leg = stage.legs(1)[0];
    hello(&mut stage, client, leg);
}

#[test]
fn auth_passes_and_is_the_servers_business() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    hello(&mut stage, client, leg);
    stage.heard(leg);
    stage.say(client, "AUTH PLAIN\r\n");
    assert_eq!(stage.heard(leg), "AUTH PLAIN\r\n");
    stage.say(leg, "334 \r\n");
    assert_eq!(stage.heard(client), "334 \r\n");
    stage.say(client, "AGEAYg==\r\n");
    assert_eq!(stage.heard(leg), "AGEAYg==\r\n");
    stage.say(leg, "235 2.7.0 welcome\r\n");
    assert_eq!(stage.heard(client), "235 2.7.0 welcome\r\n");
}

#[test]
fn probes_speak_for_nobody() {
    let mut config = speaking(Identity::ProxyV1);
    config.dedicated.mark = 5;
    config.probe.relay_test = true;
    let shared = Arc::new(Shared::new(0));
    let mut stage = Stage::sharing(config, 1, 10, shared, 0);
    stage.settle();
    let probe = stage.legs(1)[0];
    assert_eq!(stage.heard(probe), "PROXY UNKNOWN\r\n");
    assert_eq!(
        stage.world.wire.socket(probe).dial.map(|dial| dial.mark),
        Some(5)
    );
    stage.say(probe, "220 mx.example ESMTP\r\n");
    stage.say(probe, "250 mx.example\r\n");
    assert_eq!(
        stage.heard(probe),
        "EHLO weir.example\r\nQUIT\r\n",
        "who it relays for is a question of the client's address"
    );
}

#[test]
fn an_intercepted_client_goes_where_it_wanted_to_under_its_own_address() {
    let mut stage = in_path(intercepting());
    let client = stage.arrive_for(Some(host(1)));
    stage.settle();
    let leg = to(&mut stage, host(1))[0];
    let dial = stage.world.wire.socket(leg).dial.expect("dialled");
    let from = SocketAddr::from(([198, 51, 100, 1], 0));
    assert_eq!((dial.from, dial.mark), (Some(from), 37));
    hello(&mut stage, client, leg);
    stage.hang_up(client);
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    stage.say(leg, "221 2.0.0 Bye\r\n");
    assert!(to(&mut stage, host(1)).is_empty());
    assert_eq!(stage.shared.upstream_open(0), 0);
    stage.assert_empty();
}

#[test]
fn a_dead_host_costs_one_client_its_time() {
    let mut config = intercepting();
    config.identity = Identity::None;
    let mut stage = in_path(config);
    stage.world.wire.silent.push(host(1));
    let first = stage.arrive_for(Some(host(1)));
    stage.sleep(Duration::from_secs(31));
    assert_eq!(stage.code(first), "421");
    let second = stage.arrive_for(Some(host(1)));
    let elsewhere = stage.arrive_for(Some(host(2)));
    stage.settle();
    assert_eq!(stage.code(second), "421", "at once");
    assert_eq!(stage.counters.destinations_spared.value(), 1);
    let leg = to(&mut stage, host(2))[0];
    hello(&mut stage, elsewhere, leg);
    stage.world.wire.silent.clear();
    stage.sleep(Duration::from_secs(6));
    let third = stage.arrive_for(Some(host(1)));
    stage.settle();
    let leg = to(&mut stage, host(1))[0];
    hello(&mut stage, third, leg);
}

#[test]
fn a_host_that_is_shut_to_one_clients_address_is_open_to_another() {
    let mut stage = in_path(intercepting());
    stage.world.wire.silent.push(host(1));
    let listed = stage.arrive_for(Some(host(1)));
    stage.sleep(Duration::from_secs(31));
    assert_eq!(stage.code(listed), "421");
    stage.world.wire.silent.clear();
    let client = stage.arrive_for(Some(host(1)));
    stage.settle();
    assert_eq!(stage.counters.destinations_spared.value(), 0);
    let leg = to(&mut stage, host(1))[0];
    hello(&mut stage, client, leg);
}

#[test]
fn weir_does_not_talk_to_itself() {
    let mut stage = in_path(intercepting());
    let client = stage.arrive_for(Some(host(99)));
    stage.settle();
    assert_eq!(
        stage.heard(client),
        "421 4.4.6 This connection leads back to where it came from\r\n"
    );
    let unknown = stage.arrive_for(None);
    stage.settle();
    assert_eq!(stage.code(unknown), "421");
    stage.assert_empty();
}

#[test]
fn a_drain_tells_idle_clients_and_closes_their_connections() {
    let mut stage = Stage::new(speaking(Identity::ProxyV1), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    hello(&mut stage, client, leg);
    let grace = Duration::from_secs(10);
    stage.world.handle_mail(stage.now, Mail::Drain { grace });
    stage.settle();
    assert_eq!(stage.code(client), "421");
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    stage.say(leg, "221 2.0.0 Bye\r\n");
    stage.sleep(Duration::from_secs(1));
    assert!(stage.world.is_over());
}

#[test]
fn who_has_earned_a_stutter_holds_no_server() {
    let mut config = speaking(Identity::ProxyV1);
    let on = "non-smtp=stutter"
        .parse()
        .expect("a finding and its action");
    let actions = [on].into_iter().collect();
    config.policy = Arc::new(policy::Config {
        actions,
        ..policy::Config::default()
    });
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    hello(&mut stage, client, leg);
    stage.say(client, "GET / HTTP/1.1\r\n");
    stage.sleep(Duration::from_secs(20));
    assert!(stage.heard(client).contains("421 4.3.2 "));
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    stage.say(leg, "221 2.0.0 Bye\r\n");
    assert!(stage.legs(1).is_empty());

    // It comes again, and speaks with weir alone.
    stage.clients -= 1;
    let again = stage.client();
    stage.sleep(Duration::from_secs(60));
    assert!(stage.legs(1).is_empty());
    assert!(stage.heard(again).starts_with("220"));
    stage.say(again, "EHLO c.example\r\n");
    stage.sleep(Duration::from_secs(300));
    assert!(stage.heard(again).contains("250"), "byte by byte");
    assert!(stage.legs(1).is_empty());
}

fn trusting(mut config: WorldConfig) -> WorldConfig {
    let trust: policy::access::Networks<()> = ["198.51.100.0/24".parse().expect("a network")]
        .into_iter()
        .collect();
    config.proxied.trust = Arc::new(trust);
    config
}

#[test]
fn a_trusted_peer_speaks_for_a_client_over_a_new_connection() {
    for identity in [Identity::ProxyV1, Identity::Xclient] {
        let mut stage = Stage::new(trusting(speaking(identity)), 1, 10);
        let client = stage.client();
        let first = stage.legs(1)[0];
        stage.say(first, "220 mx.example ESMTP\r\n");
        stage.say(client, "EHLO peer.example\r\n");
        if identity == Identity::Xclient {
            stage.say(first, "250-mx.example\r\n250 XCLIENT ADDR\r\n");
            stage.say(first, "220 mx.example ESMTP\r\n");
        }
        stage.say(first, "250-mx.example\r\n250 PIPELINING\r\n");
        assert!(stage.heard(client).contains("XCLIENT NAME ADDR PORT"));
        stage.heard(first);
        stage.say(client, "XCLIENT ADDR=203.0.113.7 PORT=4711\r\n");
        assert_eq!(stage.heard(first), "QUIT\r\n");
        stage.say(first, "221 2.0.0 Bye\r\n");
        let second = stage.legs(1)[0];
        stage.say(second, "220 mx.example again\r\n");
        assert_eq!(stage.heard(client), "220 mx.example again\r\n");
        stage.say(client, "EHLO c.example\r\n");
        match identity {
            Identity::Xclient => {
                stage.say(second, "250-mx.example\r\n250 XCLIENT ADDR\r\n");
                assert!(
                    stage
                        .heard(second)
                        .ends_with("XCLIENT ADDR=203.0.113.7\r\n")
                );
                stage.say(second, "220 mx.example ESMTP\r\n");
                assert_eq!(stage.heard(second), "EHLO c.example\r\n");
            }
            _ => {
                let told = stage.heard(second);
                assert!(told.starts_with("PROXY TCP4 203.0.113.7 "), "{told}");
                assert!(told.ends_with("EHLO c.example\r\n"), "{told}");
            }
        }
        stage.reset(client);
        assert!(stage.legs(1).is_empty());
        assert_eq!(stage.shared.upstream_open(0), 0);
        stage.assert_empty();
    }
}

#[test]
fn a_claim_does_not_lead_an_intercepted_connection_elsewhere() {
    let mut stage = in_path(trusting(intercepting()));
    let client = stage.arrive_for(Some(host(1)));
    stage.settle();
    let leg = to(&mut stage, host(1))[0];
    hello(&mut stage, client, leg);
    stage.say(client, "XCLIENT DESTADDR=203.0.113.2 ADDR=192.0.2.77\r\n");
    assert!(to(&mut stage, host(2)).is_empty());
    let second = to(&mut stage, host(1));
    let dial = second.last().map(|leg| stage.world.wire.socket(*leg).dial);
    let from = dial.flatten().and_then(|dial| dial.from);
    assert_eq!(from, Some(SocketAddr::from(([192, 0, 2, 77], 0))));
}
