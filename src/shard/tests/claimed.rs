//! XCLIENT: from those who may, and from those who may not.

use super::*;
use crate::policy::{Action, Finding, access::Networks};

/// The stage's clients may speak for others.
fn trusting(policy: policy::Config) -> Stage {
    let trust: Networks<()> = ["198.51.100.0/24".parse().expect("a network")]
        .into_iter()
        .collect();
    let config = WorldConfig {
        proxied: ProxiedConfig {
            trust: Arc::new(trust),
            ..ProxiedConfig::default()
        },
        policy: Arc::new(policy),
        ..settings()
    };
    Stage::new(config, 1, 10)
}

fn claim(stage: &mut Stage, slot: SlotId, words: &str) -> String {
    stage.say(slot, &format!("XCLIENT {words}\r\n"));
    stage.heard(slot)
}

fn session(stage: &Stage) -> &super::super::session::Session {
    stage.world.sessions.iter().next().expect("one").1
}

fn found(stage: &Stage, action: Action) -> u64 {
    let cell = stage
        .counters
        .findings
        .at(Finding::ForgedXclient as usize, action as usize);
    cell.value()
}

#[test]
fn only_the_trusted_are_offered_it() {
    for (mut stage, offered) in [
        (trusting(policy::Config::default()), true),
        (Stage::new(settings(), 1, 10), false),
    ] {
        let slot = stage.client();
        stage.say(slot, "EHLO c.example\r\n");
        let ehlo = stage.heard(slot);
        assert_eq!(ehlo.contains("XCLIENT NAME ADDR PORT"), offered, "{ehlo}");
    }
}

#[test]
fn the_client_is_the_one_that_was_claimed() {
    let mut stage = trusting(policy::Config::default());
    let slot = stage.client();
    stage.say(slot, "EHLO proxy.example\r\n");
    stage.heard(slot);
    let heard = claim(
        &mut stage,
        slot,
        "ADDR=203.0.113.9 PORT=4711 NAME=c.example LOGIN=jo DESTADDR=192.0.2.25",
    );
    assert_eq!(heard, "220 weir.example ESMTP\r\n");
    let peer: SocketAddr = session(&stage).peer.into();
    assert_eq!(peer, "203.0.113.9:4711".parse().unwrap());
    let told = session(&stage).introduction.clone().expect("introduced");
    assert_eq!(told.by, Some("198.51.100.1:40000".parse().unwrap()));
    assert_eq!(told.destination, Some("192.0.2.25:25".parse().unwrap()));
    assert_eq!(told.name.as_deref(), Some(b"c.example".as_slice()));
    assert_eq!(told.login.as_deref(), Some(b"jo".as_slice()));
    // More about the same client, then the next one.
    claim(&mut stage, slot, "NAME=[UNAVAILABLE] DESTPORT=587");
    let told = session(&stage).introduction.clone().expect("introduced");
    assert_eq!((told.name, told.login.is_some()), (None, true));
    assert_eq!(told.destination, Some("192.0.2.25:587".parse().unwrap()));
    claim(&mut stage, slot, "ADDR=IPV6:2001:db8::9");
    let told = session(&stage).introduction.clone().expect("introduced");
    assert_eq!((told.login, told.destination), (None, None));
    assert_eq!(told.by, Some("198.51.100.1:40000".parse().unwrap()));
    let peer: SocketAddr = session(&stage).peer.into();
    assert_eq!(peer, "[2001:db8::9]:0".parse().unwrap());
    stage.ask(slot);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(slot, leg);
    stage.say(slot, "QUIT\r\n");
    stage.assert_empty();
}

#[test]
fn a_client_without_an_address_goes_by_its_speakers() {
    let mut stage = trusting(policy::Config::default());
    let slot = stage.client();
    claim(&mut stage, slot, "ADDR=203.0.113.9");
    claim(&mut stage, slot, "ADDR=[UNAVAILABLE]");
    let peer: SocketAddr = session(&stage).peer.into();
    assert_eq!(peer, "198.51.100.1:40000".parse().unwrap());
}

#[test]
fn limits_are_the_claimed_clients_own() {
    let mut stage = trusting(policy::Config {
        concurrency: policy::concurrency::Limit(1),
        ..policy::Config::default()
    });
    let (first, second) = (stage.client(), stage.client());
    stage.heard(first);
    stage.heard(second);
    assert!(claim(&mut stage, first, "ADDR=203.0.113.9").starts_with("220"));
    assert!(claim(&mut stage, second, "ADDR=203.0.113.9").starts_with("421 4.7.0"));
    // The one before gives its place up.
    assert!(claim(&mut stage, first, "ADDR=203.0.113.10").starts_with("220"));
    let third = stage.client();
    stage.heard(third);
    assert!(claim(&mut stage, third, "ADDR=203.0.113.9").starts_with("220"));
}

#[test]
fn it_is_the_speaker_who_is_trusted_whatever_it_has_claimed() {
    let mut stage = trusting(policy::Config::default());
    let slot = stage.client();
    stage.heard(slot);
    for client in ["198.51.100.77", "203.0.113.9"] {
        let heard = claim(&mut stage, slot, &format!("ADDR={client}"));
        assert!(heard.starts_with("220"), "{heard}");
    }
}

#[test]
fn strangers_are_refused() {
    for (action, reply) in [
        (Action::Reject, "550 5.7.0 "),
        (Action::Log, "550 5.7.0 "),
        (Action::Drop, "521 5.7.0 "),
    ] {
        let on = format!("forged-xclient={}", action.word());
        let policy = policy::Config {
            actions: [on.parse().expect("allowed")].into_iter().collect(),
            ..policy::Config::default()
        };
        let config = WorldConfig {
            policy: Arc::new(policy),
            ..settings()
        };
        let mut stage = Stage::new(config, 1, 10);
        let slot = stage.client();
        stage.heard(slot);
        let heard = claim(&mut stage, slot, "ADDR=203.0.113.9");
        assert!(
            heard.starts_with(reply) && heard.lines().count() == 1,
            "{heard}"
        );
        assert_eq!(stage.closed(slot).is_some(), action == Action::Drop);
        assert_eq!(found(&stage, action), 1);
        if action != Action::Drop {
            let peer: SocketAddr = session(&stage).peer.into();
            assert_eq!(peer, "198.51.100.1:40000".parse().unwrap());
            stage.say(slot, "QUIT\r\n");
        }
        stage.assert_empty();
    }
}

#[test]
fn who_came_through_a_proxy_is_trusted_for_its_own_sake() {
    let mut stage = trusting(policy::Config::default());
    let mut config = (*stage.world.config).clone();
    config.services = vec![crate::net::Service {
        proxy: true,
        ..Default::default()
    }]
    .into();
    stage.world.config = Arc::new(config);
    for (client, reply) in [("203.0.113.9", "550"), ("198.51.100.44", "220")] {
        let slot = stage.client();
        stage.say(slot, &format!("PROXY TCP4 {client} 192.0.2.25 1 25\r\n"));
        stage.heard(slot);
        let heard = claim(&mut stage, slot, "ADDR=203.0.113.77");
        assert!(heard.starts_with(reply), "{client}: {heard}");
    }
}
