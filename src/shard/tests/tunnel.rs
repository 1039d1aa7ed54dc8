//! Tunnels: client and server talk TLS with each other, and what is said is none of weir's business.

use std::time::Duration;

use super::*;
use crate::metrics::Ended;
use crate::route::{Identity, Starttls};

fn tunnelling() -> WorldConfig {
    let mut config = settings();
    config.identity = Identity::ProxyV1;
    config.dedicated.starttls = Some(Starttls::Tunnel);
    config
}

/// A client and a server that have agreed on TLS, and what was counted by then.
fn agreed(config: WorldConfig) -> (Stage, SlotId, SlotId) {
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250-mx.example\r\n250 STARTTLS\r\n");
    assert!(stage.heard(client).contains("STARTTLS"));
    stage.say(client, "STARTTLS\r\n");
    stage.say(leg, "220 2.0.0 go\r\n");
    assert_eq!(stage.heard(client), "220 2.0.0 go\r\n");
    stage.heard(leg);
    (stage, client, leg)
}

#[test]
fn bytes_pass_both_ways_untouched() {
    let (mut stage, client, leg) = agreed(tunnelling());
    assert_eq!(stage.counters.tunnels.value(), 1);
    for text in ["QUIT\r\n", "\r\n.\r\n", "\u{16}\u{3}\u{1}"] {
        stage.say(client, text);
        assert_eq!(stage.heard(leg), text);
        assert_eq!(stage.heard(client), "");
        stage.say(leg, text);
        assert_eq!(stage.heard(client), text);
    }
    stage.hang_up(client);
    stage.sleep(Duration::from_millis(10));
    assert_eq!(stage.closed(client), None);
    stage.hang_up(leg);
    assert_eq!(stage.closed(client), Some(Close::Now));
    assert_eq!(stage.counters.sessions_ended.at(Ended::Tunnel).value(), 1);
    assert_eq!(stage.counters.tunnels.value(), 0);
    assert_eq!(
        stage
            .counters
            .tunnel_bytes
            .at(crate::metrics::Way::In)
            .value(),
        14
    );
    assert_eq!(stage.shared.upstream_open(0), 0);
    stage.assert_empty();
}

#[test]
fn what_came_in_one_turn_goes_on_in_one_send() {
    let (mut stage, client, leg) = agreed(tunnelling());
    for _ in 0..5 {
        let piece = vec![b'x'; CHUNK];
        stage.world.wire.due.push_back(Due::Received(client, piece));
    }
    while let Some(event) = stage.world.wire.event() {
        stage.world.handle(stage.now, event);
    }
    assert_eq!(stage.heard(leg).len(), 0, "until the turn is over");
    stage.world.tick(stage.now);
    assert_eq!(stage.heard(leg).len(), 5 * CHUNK);
    stage.settle();
}

#[test]
fn a_side_that_takes_nothing_stops_the_other_and_nothing_is_lost() {
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.stuff(leg);
    let mut said = 0;
    while said < 100 && stage.world.wire.socket(client).armed {
        stage.say(client, &"y".repeat(CHUNK));
        said += 1;
    }
    assert!((8..40).contains(&said), "{said} buffers wait");
    stage.say(client, "the end");
    stage.unstuff(leg);
    let heard = stage.heard(leg);
    assert_eq!(heard.len(), said * CHUNK + 7);
    assert!(heard.ends_with("the end"));
    assert!(stage.world.wire.buffers.is_empty());
}

#[test]
fn while_buffers_are_scarce_what_waits_is_copied() {
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.world.wire.buffers_max = 4;
    stage.stuff(leg);
    for _ in 0..4 {
        stage.say(client, &"y".repeat(CHUNK / 2));
    }
    stage.unstuff(leg);
    assert_eq!(stage.heard(leg).len(), 4 * CHUNK / 2);
    stage.world.wire.no_chunks = true;
    stage.world.wire.buffers_max = 1;
    stage.stuff(leg);
    for _ in 0..3 {
        let piece = vec![b'y'; CHUNK];
        stage.world.wire.due.push_back(Due::Received(client, piece));
        stage.settle();
    }
    assert!(stage.closed(client).is_some(), "no room is left for it");
    assert_eq!(stage.counters.sessions_ended.at(Ended::Overload).value(), 1);
}

#[test]
fn the_end_of_one_side_is_passed_on_and_the_other_is_heard_out() {
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.say(client, "last words");
    stage.hang_up(client);
    stage.sleep(Duration::from_millis(50));
    assert!(stage.world.wire.socket(leg).finished);
    stage.say(leg, "a reply");
    assert_eq!(stage.heard(client), "a reply");
    stage.sleep(Duration::from_secs(59));
    assert_eq!(stage.closed(client), None);
    stage.sleep(Duration::from_secs(2));
    assert!(stage.closed(client).is_some(), "but not for ever");
    stage.assert_empty();
}

#[test]
fn a_reset_ends_both_sides() {
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.reset(leg);
    assert_eq!(stage.closed(client), Some(Close::Reset));
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.reset(client);
    assert!(stage.closed(leg).is_some());
    stage.assert_empty();
}

#[test]
fn a_silent_tunnel_ends_and_a_busy_one_lives_for_some_hours() {
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.sleep(Duration::from_secs(599));
    stage.say(client, "still there");
    stage.sleep(Duration::from_secs(599));
    assert_eq!(stage.closed(client), None);
    stage.sleep(Duration::from_secs(2));
    assert!(stage.closed(client).is_some() && stage.closed(leg).is_some());
    assert_eq!(stage.counters.sessions_ended.at(Ended::Timeout).value(), 1);
    stage.assert_empty();

    let (mut stage, client, _) = agreed(tunnelling());
    for _ in 0..4 * 12 {
        assert_eq!(stage.closed(client), None);
        stage.say(client, "still there");
        stage.sleep(Duration::from_secs(300));
    }
    stage.sleep(Duration::from_secs(1));
    assert!(stage.closed(client).is_some());
}

#[test]
fn a_client_beyond_its_byte_rate_is_read_more_slowly() {
    let mut config = tunnelling();
    config.policy = Arc::new(policy::Config {
        rate_bytes: "16384/1s".parse().expect("a rate"),
        ..policy::Config::default()
    });
    let (mut stage, client, leg) = agreed(config);
    for _ in 0..4 {
        stage.say(client, &"z".repeat(CHUNK));
    }
    let at_once = stage.heard(leg).len();
    assert!(at_once < 4 * CHUNK, "{at_once}");
    stage.sleep(Duration::from_secs(5));
    assert_eq!(at_once + stage.heard(leg).len(), 4 * CHUNK);
}

#[test]
fn what_either_side_said_in_the_clear_behind_starttls_reaches_nobody() {
    let mut stage = Stage::new(tunnelling(), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250-mx.example\r\n250 STARTTLS\r\n");
    stage.say(client, "STARTTLS\r\nMAIL FROM:<evil@c.example>\r\n");
    stage.heard(leg);
    stage.say(leg, "220 2.0.0 go\r\n");
    stage.say(client, "hello");
    assert_eq!(stage.heard(leg), "hello");
    assert_eq!(stage.counters.plaintext_discarded.value(), 1);

    let mut stage = Stage::new(tunnelling(), 1, 10);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250-mx.example\r\n250 STARTTLS\r\n");
    stage.heard(client);
    stage.say(client, "STARTTLS\r\n");
    stage.say(leg, "220 2.0.0 go\r\n250 2.0.0 evil\r\n");
    assert!(!stage.heard(client).contains("evil"));
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn a_drain_lets_tunnels_finish_within_its_grace() {
    let (mut stage, client, leg) = agreed(tunnelling());
    let grace = Duration::from_secs(10);
    stage.world.handle_mail(stage.now, Mail::Drain { grace });
    stage.sleep(Duration::from_secs(9));
    stage.say(client, "still there");
    assert_eq!(stage.heard(leg), "still there");
    stage.sleep(Duration::from_secs(2));
    assert!(stage.closed(client).is_some() && stage.closed(leg).is_some());
    assert!(stage.world.is_over());
}

/// A tunnel that outlives its session knows slots that others may have by then, and would send its bytes there.
#[test]
fn a_defect_of_the_session_ends_its_tunnel() {
    let (mut stage, client, leg) = agreed(tunnelling());
    stage.stuff(leg);
    stage.say(client, "under way");
    stage.say(client, "waits");
    let key = stage.world.sessions.next_from(0).expect("a session");
    let leg_key = stage.world.abandon_session(key).expect("its leg");
    assert_eq!(stage.counters.tunnels.value(), 0);
    stage.world.close_leg(leg_key, None);
    assert!(stage.closed(client).is_some() && stage.closed(leg).is_some());
    assert!(stage.world.wire.buffers.is_empty());
    stage.sleep(Duration::from_secs(600));
    stage.assert_empty();
}

/// Where weir decides who may send where, a tunnel would go past it: the server saw weir's address, and an open relay.
#[test]
fn who_may_not_send_anywhere_gets_no_tunnel() {
    use crate::policy::relay::{Relay, RelayDomains};

    for (from, domains, way) in [
        ("198.51.100.0/24", "c.example", "STARTTLS\r\n"),
        ("192.0.2.0/24", "any", "STARTTLS\r\n"),
        ("192.0.2.0/24", "c.example", ""),
    ] {
        let mut stage = Stage::new(tunnelling(), 1, 10);
        let mut relay = Relay {
            domains: RelayDomains::parse(domains).expect("domains"),
            ..Relay::default()
        };
        relay.from = [from.parse().expect("a network")].into_iter().collect();
        stage
            .world
            .handle_mail(stage.now, Mail::Relay(Arc::new(relay)));
        let client = stage.client();
        let leg = stage.legs(1)[0];
        stage.say(leg, "220 mx.example ESMTP\r\n");
        stage.say(client, "EHLO c.example\r\n");
        stage.say(leg, "250-mx.example\r\n250 STARTTLS\r\n");
        stage.heard(leg);
        stage.heard(client);
        stage.say(client, "STARTTLS\r\n");
        assert_eq!(stage.heard(leg), way, "{from} {domains}");
        if way.is_empty() {
            assert!(stage.heard(client).starts_with("454 4.7.0"));
        }
    }
}

/// What is said inside is not judged: who could still be refused goes on in the clear.
#[test]
fn who_could_be_refused_by_reputation_or_lists_gets_no_tunnel() {
    use crate::policy::access::{AccessBuilder, Listed, Subject};
    use crate::policy::dossier::Mark;
    use crate::policy::greylist::{self, When};
    use crate::policy::{Actions, Finding, On, memory, reputation};

    let config = |on: &str, when| {
        let actions: Actions = [on.parse::<On>().expect("a finding and an action")]
            .into_iter()
            .collect();
        let mut reputation = reputation::Config {
            on: true,
            ..reputation::Config::default()
        };
        reputation.thresholds.set(Finding::ScoreReject, Some(5));
        let mut config = tunnelling();
        config.policy = Arc::new(policy::Config {
            actions,
            reputation,
            memory: memory::Config {
                on: true,
                greylist: greylist::Config {
                    when,
                    ..greylist::Config::default()
                },
                ..memory::Config::default()
            },
            ..policy::Config::default()
        });
        config
    };
    let mut lists = AccessBuilder::default();
    assert!(
        lists
            .read(Subject::Recipient, Listed::Deny, "ceo@d.example")
            .is_empty()
    );
    let lists = Arc::new(lists.build());
    let none = Arc::default();
    for (on, when, score, lists, may) in [
        ("score-reject=reject", When::Off, 5, &none, false),
        ("score-reject=reject", When::Off, 4, &none, true),
        ("score-reject=log", When::Off, 5, &none, true),
        ("greylist=defer", When::All, 0, &none, false),
        ("greylist=log", When::All, 0, &none, true),
        ("sender-unresolved=reject", When::Off, 0, &none, false),
        ("deny-recipient=reject", When::Off, 0, &lists, false),
        ("deny-recipient=log", When::Off, 0, &lists, true),
    ] {
        let mut stage = Stage::new(config(on, when), 1, 10);
        stage
            .world
            .handle_mail(stage.now, Mail::Access(Arc::clone(lists)));
        let client = stage.client();
        let leg = stage.legs(1)[0];
        stage.say(leg, "220 mx.example ESMTP\r\n");
        stage.say(client, "EHLO c.example\r\n");
        stage.say(leg, "250-mx.example\r\n250 STARTTLS\r\n");
        stage.heard(leg);
        stage.heard(client);
        let (session, _) = stage.world.sessions.iter().next().expect("a session");
        let inquiry = stage.world.inquiry_of(session).expect("it is inquired of");
        stage
            .world
            .mark(inquiry, Mark::lasting(Finding::Dnsbl, score));
        stage.say(client, "STARTTLS\r\n");
        let way = if may { "STARTTLS\r\n" } else { "" };
        assert_eq!(stage.heard(leg), way, "{on} {score}");
        assert_eq!(stage.heard(client).starts_with("454 4.7.0"), !may);
    }
}
