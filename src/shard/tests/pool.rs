//! Upstream connections: which one serves whom, and what becomes of it.

use super::*;
use crate::metrics::ClosedLeg;

#[test]
fn a_connection_is_used_again() {
    let mut stage = Stage::new(settings(), 1, 10);
    let first = stage.client();
    stage.ask(first);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(first, leg);
    let second = stage.client();
    stage.ask(second);
    assert_eq!(stage.legs(1), [leg]);
    stage.deliver(second, leg);
    assert_eq!(stage.counters.upstream_reuses.at(0).value(), 1);
}

#[test]
fn load_spreads_over_the_upstreams() {
    let mut stage = Stage::new(settings(), 2, 10);
    let clients: Vec<SlotId> = (0..4).map(|_| stage.client()).collect();
    for client in clients {
        stage.ask(client);
    }
    assert_eq!((stage.legs(1).len(), stage.legs(2).len()), (2, 2));
}

#[test]
fn who_comes_too_late_waits_and_is_served_when_one_comes_free() {
    let mut stage = Stage::new(settings(), 1, 1);
    let (first, second) = (stage.client(), stage.client());
    stage.ask(first);
    stage.ask(second);
    let legs = stage.legs(1);
    assert_eq!(legs.len(), 1, "the only permit");
    stage.greet(legs[0]);
    stage.deliver(first, legs[0]);
    stage.deliver(second, legs[0]);
}

#[test]
fn who_waits_is_not_served_by_an_address_that_has_left_the_table() {
    let mut stage = Stage::new(settings(), 1, 1);
    let (first, second) = (stage.client(), stage.client());
    stage.ask(first);
    stage.ask(second);
    let old = stage.legs(1)[0];
    stage.greet(old);
    let moved = UpstreamSpec {
        name: "mx1.example:25".into(),
        weight: 1,
        max: 1,
        addresses: vec![server(2)],
        tls: None,
    };
    let mail = Mail::Upstreams(vec![moved].into());
    stage.world.handle_mail(stage.now, mail);
    stage.deliver(first, old);
    assert_eq!(stage.heard(old), "QUIT\r\n");
    stage.say(old, "221 bye\r\n");
    stage.sleep(Duration::from_secs(2));
    let new = stage.legs(2)[0];
    stage.greet(new);
    stage.deliver(second, new);
}

#[test]
fn a_wait_ends_with_451() {
    let mut stage = Stage::new(settings(), 1, 1);
    let (first, second) = (stage.client(), stage.client());
    stage.ask(first);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.ask(second);
    stage.sleep(Duration::from_secs(31));
    assert!(stage.heard(second).starts_with("451 4.3.2"));
    assert_eq!(stage.counters.waits_expired.value(), 1);
    assert!(stage.world.waiters.is_empty());
}

#[test]
fn a_full_queue_refuses_at_once() {
    let mut config = settings();
    config.wait.max = 1;
    let mut stage = Stage::new(config, 1, 1);
    let clients = [stage.client(), stage.client(), stage.client()];
    for client in clients {
        stage.ask(client);
    }
    assert!(stage.heard(clients[2]).starts_with("451 4.3.2"));
    assert_eq!(
        stage.counters.waits_refused.value(),
        2,
        "the first one waits"
    );
}

#[test]
fn all_upstreams_down_is_451_after_a_wait_and_they_come_back() {
    let mut stage = Stage::new(settings(), 2, 10);
    stage.world.wire.refusing = vec![server(1), server(2)];
    let client = stage.client();
    stage.ask(client);
    assert_eq!(stage.heard(client), "");
    stage.sleep(Duration::from_secs(31));
    assert!(
        stage.heard(client).starts_with("451 4.4.1"),
        "nobody answers"
    );
    let waited: u32 = stage
        .world
        .sessions
        .iter()
        .map(|(_, s)| s.want.waited)
        .sum();
    assert!(
        (10_000..12_000).contains(&waited),
        "{waited} ms for the log"
    );
    stage.world.wire.refusing.clear();
    stage.sleep(Duration::from_secs(60));
    stage.say(client, "RSET\r\n");
    stage.ask(client);
    let leg = [stage.legs(1), stage.legs(2)].concat()[0];
    stage.greet(leg);
    stage.deliver(client, leg);
}

#[test]
fn a_421_before_anything_was_said_is_tried_elsewhere() {
    let mut stage = Stage::new(settings(), 2, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = [stage.legs(1), stage.legs(2)].concat()[0];
    let other = if stage.legs(1).is_empty() { 1 } else { 2 };
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "421 4.3.2 going down\r\n");
    assert_eq!(stage.heard(client), "", "the client does not notice");
    let next = stage.legs(other)[0];
    stage.greet(next);
    stage.deliver(client, next);
}

#[test]
fn idle_connections_are_watched_and_end() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    stage.say(leg, "421 timeout\r\n");
    assert!(stage.legs(1).is_empty(), "a word out of turn");
    assert_eq!(
        stage
            .counters
            .upstream_closes
            .at(0, ClosedLeg::Refused421)
            .value(),
        1
    );

    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    stage.sleep(Duration::from_secs(61));
    assert_eq!(stage.heard(leg), "QUIT\r\n");
    stage.say(leg, "221 bye\r\n");
    assert!(stage.legs(1).is_empty());
    assert_eq!(stage.shared.upstream_open(0), 0, "its permit is given back");
}

#[test]
fn a_broken_off_transaction_is_reset_before_reuse() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "RSET\r\n");
    assert_eq!(stage.heard(leg), "RSET\r\n");
    let second = stage.client();
    stage.ask(second);
    assert_eq!(stage.heard(leg), "", "not before its 250");
    stage.say(leg, "250 Ok\r\n");
    stage.deliver(second, leg);
}

#[test]
fn an_unanswered_reset_costs_the_connection() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "RSET\r\n");
    stage.sleep(Duration::from_secs(6));
    assert!(stage.closed(leg).is_some());
}

/// One connection, and two clients: the first has undone its transaction, and its RSET has gone up in front of that of the second.
/// What is returned is the second and the connection.
fn reset_ahead() -> (Stage, SlotId, SlotId) {
    let mut stage = Stage::new(settings(), 1, 1);
    let (slow, quick) = (stage.client(), stage.client());
    stage.ask(slow);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.ask(quick);
    stage.heard(leg);
    stage.say(slow, "RSET\r\n");
    assert!(stage.heard(leg).starts_with("RSET\r\nMAIL "));
    (stage, quick, leg)
}

/// RSET alone had cost the connection and nobody's message. In one flight with the next transaction, its refusal had counted as
/// that transaction's: the only server had been tried, and the client heard 451.
#[test]
fn a_reset_that_is_refused_costs_nobody_but_the_connection() {
    for refusal in [
        "421 4.7.0 too many errors\r\n",
        "500 5.5.1 what\r\n",
        "hello\r\n",
    ] {
        let (mut stage, quick, leg) = reset_ahead();
        stage.say(leg, refusal);
        stage.sleep(Duration::from_millis(1100));
        assert_eq!(stage.heard(quick), "", "{refusal}");
        let fresh = stage.legs(1)[0];
        stage.greet(fresh);
        stage.deliver(quick, fresh);
    }
}

/// The client had waited for its RCPT's whole deadline, and heard 451.
#[test]
fn a_reset_that_is_not_answered_is_not_waited_for_long() {
    let (mut stage, quick, leg) = reset_ahead();
    stage.sleep(Duration::from_secs(32));
    assert!(stage.closed(leg).is_some());
    let fresh = stage.legs(1)[0];
    stage.greet(fresh);
    stage.deliver(quick, fresh);
}

/// Servers say 421 to a connection that has served enough messages.
#[test]
fn a_421_to_a_connection_used_again_is_no_word_about_its_server() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    stage.ask(client);
    stage.heard(leg);
    stage.say(leg, "421 4.7.0 enough for one connection\r\n");
    assert_eq!(stage.heard(client), "", "the client does not notice");
    let fresh = stage.legs(1)[0];
    stage.greet(fresh);
    stage.deliver(client, fresh);
}

#[test]
fn errors_retire_a_connection() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n550 5.1.1 no\r\n");
    for _ in 0..5 {
        stage.say(client, "RCPT TO:<b@d.example>\r\n");
        stage.say(leg, "550 5.1.1 no\r\n");
    }
    stage.say(client, "RSET\r\n");
    let heard = stage.heard(leg);
    assert!(heard.ends_with("\r\nQUIT\r\n"), "{heard}");
    assert!(!heard.contains("RSET"), "nobody will use it again");
    assert_eq!(
        stage
            .counters
            .upstream_closes
            .at(0, ClosedLeg::Retired)
            .value(),
        1
    );
}

#[test]
fn a_starving_shard_gets_a_permit_from_another() {
    let shared = Arc::new(Shared::new(0));
    let mut rich = Stage::sharing(settings(), 1, 1, shared.clone(), 0);
    let mut poor = Stage::sharing(settings(), 1, 1, shared, 1);
    // Shard 0 probes; its probe has no use of a permit.
    rich.settle();
    let client = rich.client();
    rich.ask(client);
    let leg = *rich.legs(1).last().expect("opened");
    rich.greet(leg);
    rich.deliver(client, leg);

    let client = poor.client();
    poor.ask(client);
    assert!(poor.legs(1).is_empty());
    let mail = poor.posted();
    assert!(matches!(
        mail[..],
        [(To::Others, Mail::Starving { upstream: 0 })]
    ));
    let now = rich.now;
    rich.world.handle_mail(now, Mail::Starving { upstream: 0 });
    rich.settle();
    assert_eq!(rich.heard(leg), "QUIT\r\n");
    rich.say(leg, "221 bye\r\n");
    let told = rich.posted();
    assert!(
        told.iter()
            .any(|(to, mail)| *to == To::Shard(1)
                && matches!(mail, Mail::PermitFree { upstream: 0 }))
    );
    poor.world
        .handle_mail(poor.now, Mail::PermitFree { upstream: 0 });
    poor.settle();
    let leg = poor.legs(1)[0];
    poor.greet(leg);
    poor.deliver(client, leg);
}

/// The shard that had them all passed each on to its own that waited: clients of another heard 451, one after the other.
#[test]
fn a_shard_with_waiters_of_its_own_leaves_others_their_part() {
    let shared = Arc::new(Shared::new(0));
    let mut rich = Stage::sharing(settings(), 1, 2, shared.clone(), 1);
    let mut poor = Stage::sharing(settings(), 1, 2, shared, 2);
    let clients = [rich.client(), rich.client(), rich.client()];
    clients.iter().for_each(|client| rich.ask(*client));
    let legs = rich.legs(1);
    legs.iter().for_each(|leg| rich.greet(*leg));
    assert_eq!((legs.len(), rich.world.waiters.len()), (2, 1));
    let client = poor.client();
    poor.ask(client);
    rich.world
        .handle_mail(rich.now, Mail::Starving { upstream: 0 });
    rich.settle();

    rich.deliver(clients[0], legs[0]);
    assert_eq!(rich.heard(legs[0]), "QUIT\r\n", "it has more than its half");
    rich.say(legs[0], "221 bye\r\n");
    let permit = Mail::PermitFree { upstream: 0 };
    rich.world.handle_mail(rich.now, permit.clone());
    rich.settle();
    assert_eq!(rich.legs(1), legs[1..], "nor does it take it back");
    poor.world.handle_mail(poor.now, permit);
    poor.settle();
    let leg = poor.legs(1)[0];
    poor.greet(leg);
    poor.deliver(client, leg);
    rich.deliver(clients[1], legs[1]);
    rich.deliver(clients[2], legs[1]);
}

#[test]
fn a_stale_connection_is_replaced_by_a_fresh_one_to_the_same_server() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    stage.ask(client);
    stage.hang_up(leg);
    assert_eq!(stage.heard(client), "", "the client does not notice");
    let fresh = stage.legs(1)[0];
    stage.greet(fresh);
    stage.deliver(client, fresh);
}

#[test]
fn a_connection_that_takes_nothing_more_is_given_up_soon() {
    let mut stage = Stage::new(settings(), 2, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = [stage.legs(1), stage.legs(2)].concat()[0];
    stage.greet(leg);
    stage.heard(leg);
    let broken = io::Error::from(io::ErrorKind::BrokenPipe);
    let sent = Due::Sent(leg, Err(broken), Vec::new());
    stage.world.wire.due.push_back(sent);
    stage.sleep(Duration::from_secs(6));
    assert!(stage.closed(leg).is_some());
    let next = [stage.legs(1), stage.legs(2)].concat()[0];
    stage.greet(next);
    stage.deliver(client, next);
}

#[test]
fn who_waits_for_one_upstream_keeps_nobody_from_another() {
    let mut stage = Stage::new(settings(), 2, 1);
    let (a, b, c, d) = (
        stage.client(),
        stage.client(),
        stage.client(),
        stage.client(),
    );
    stage.ask(a);
    let (x, y) = if stage.legs(1).is_empty() {
        (2, 1)
    } else {
        (1, 2)
    };
    let first = stage.legs(x)[0];
    stage.greet(first);
    stage.say(first, "250 Ok\r\n250 Ok\r\n");
    stage.say(a, "DATA\r\n");
    stage.sleep(Duration::from_millis(1100));
    stage.say(first, "250 given back\r\n");
    stage.ask(b);
    assert!(
        stage.heard(first).ends_with("RCPT TO:<b@d.example>\r\n"),
        "the idle one"
    );
    stage.ask(d);
    let second = stage.legs(y)[0];
    stage.greet(second);
    assert!(stage.heard(second).ends_with("RCPT TO:<b@d.example>\r\n"));
    // Both are busy: A waits for its own upstream, C behind it for any.
    stage.say(a, "body\r\n.\r\n");
    stage.ask(c);
    assert_eq!(stage.world.waiters.len(), 2);
    stage.hang_up(second);
    stage.sleep(Duration::from_millis(1100));
    let fresh = stage.legs(y)[0];
    stage.greet(fresh);
    stage.deliver(c, fresh);
}

/// Slow clients had each upstream connection to themselves for the whole of `--give-back`: with 20 of them, 20 such clients
/// a second came through, and everybody else heard 451.
#[test]
fn a_silent_client_gives_its_connection_to_one_that_waits() {
    let mut config = settings();
    config.smtp.timeouts.give_back = Duration::from_secs(10);
    let mut stage = Stage::new(config, 1, 1);
    let (slow, quick) = (stage.client(), stage.client());
    stage.ask(slow);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(slow, "DATA\r\n");
    assert!(
        stage
            .heard(slow)
            .ends_with("354 End data with <CR><LF>.<CR><LF>\r\n")
    );
    stage.ask(quick);
    assert_eq!(stage.heard(leg), "", "it may be on its way");
    stage.sleep(Duration::from_millis(60));
    let envelope = "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n";
    assert_eq!(stage.heard(leg), format!("RSET\r\n{envelope}"));
    stage.say(leg, "250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.finish(quick, leg);
    assert_eq!(stage.counters.reclaims.value(), 1);
    stage.say(slow, "Subject: x\r\n\r\nbody\r\n.\r\n");
    assert_eq!(stage.heard(leg), envelope);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.heard(leg);
    stage.say(leg, "250 2.0.0 queued as 2\r\n");
    assert_eq!(stage.heard(slow), "250 2.0.0 queued as 2\r\n");
}

/// With 10 ms for everybody, a client that sent a RCPT each 20 ms had all that came before replayed for each.
#[test]
fn who_has_many_recipients_may_be_silent_for_longer() {
    let mut config = settings();
    config.smtp.timeouts.give_back = Duration::from_secs(10);
    let mut stage = Stage::new(config, 1, 1);
    let (slow, quick) = (stage.client(), stage.client());
    stage.ask(slow);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(slow, &"RCPT TO:<b@d.example>\r\n".repeat(19));
    stage.say(leg, &"250 2.1.5 Ok\r\n".repeat(19));
    stage.heard(leg);
    stage.ask(quick);
    stage.sleep(Duration::from_millis(150));
    assert_eq!(stage.heard(leg), "");
    stage.sleep(Duration::from_millis(100));
    assert!(stage.heard(leg).starts_with("RSET\r\nMAIL "));
}

/// As many clients as there were connections could hold the whole pool with large bodies at the minimum data rate.
#[test]
fn one_client_streams_to_its_share_of_the_pool_and_no_further() {
    let mut config = settings();
    config.hold_max = 20_000;
    config.wait.time = Duration::from_secs(15);
    let mut stage = Stage::new(config, 1, 4);
    let first = stage.client();
    stage.clients = 0;
    let second = stage.client(); // of the same address
    for client in [first, second] {
        stage.ask(client);
        let leg = *stage.legs(1).last().expect("a connection each");
        stage.greet(leg);
        stage.heard(leg);
        stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
        stage.heard(client);
        stage.say(client, "DATA\r\n");
        stage.heard(client);
        stage.say(
            client,
            &"many octets in a row, again and again\r\n".repeat(600),
        );
    }
    let legs = stage.legs(1);
    assert!(stage.heard(legs[0]).starts_with("BDAT "), "it streams");
    assert!(
        stage.heard(legs[1]) == "RSET\r\n",
        "one in four is its share"
    );
    stage.say(legs[1], "250 2.0.0 Ok\r\n");
    let counters = &stage.counters;
    assert_eq!(
        (counters.streams.value(), counters.streams_put_off.value()),
        (1, 1)
    );
    let third = stage.client();
    stage.ask(third);
    stage.deliver(third, legs[1]);

    stage.hang_up(first);
    stage.sleep(Duration::from_secs(2));
    let envelope = "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n";
    assert_eq!(stage.heard(legs[1]), envelope, "its turn has come");
    stage.say(legs[1], "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    assert!(stage.heard(legs[1]).starts_with("BDAT "));
    stage.hang_up(second);
    assert_eq!(
        (stage.counters.streams.value(), stage.shared.streams()),
        (0, 0)
    );
}

#[test]
fn who_waits_for_its_share_too_long_hears_451() {
    let mut config = settings();
    config.hold_max = 20_000;
    config.wait.time = Duration::from_secs(15);
    let mut stage = Stage::new(config, 1, 1);
    let body = "many octets in a row, again and again\r\n".repeat(600);
    let (first, second) = (stage.client(), stage.client());
    stage.ask(first);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(first, "DATA\r\n");
    stage.say(first, &body[..1000]);
    stage.ask(second);
    stage.sleep(Duration::from_millis(100));
    assert!(stage.heard(leg).starts_with("RSET\r\nMAIL "));
    stage.say(leg, "250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.heard(second);
    stage.say(second, "DATA\r\n");
    stage.say(second, &body);
    assert!(stage.heard(leg).starts_with("BDAT "));
    stage.heard(first);
    stage.say(first, &body);
    stage.sleep(Duration::from_secs(2));
    stage.say(second, &body);
    stage.sleep(Duration::from_secs(14));
    stage.say(first, "\r\n.\r\n");
    assert!(stage.heard(first).starts_with("451 4.3.2"));
}

/// When buffers were scarce a body of 16 KiB had to stream; if they no longer were when its connection came, it was neither
/// read nor sent on, and held the connection until the client heard 451 after 100 s.
#[test]
fn a_body_that_need_not_stream_any_more_is_read_on() {
    let mut stage = Stage::new(settings(), 1, 4);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.sleep(Duration::from_secs(2));
    assert_eq!(stage.heard(leg), "RSET\r\n");
    stage.say(leg, "250 2.0.0 Ok\r\n");
    stage.world.hold_max = 100;
    stage.say(client, &"many octets in a row\r\n".repeat(10));
    assert!(stage.heard(leg).starts_with("MAIL "), "it is to stream");
    stage.world.hold_max = 20_000;
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.heard(client);
    stage.say(client, "the end\r\n.\r\n");
    assert!(stage.heard(leg).starts_with("BDAT 229 LAST\r\n"));
    stage.say(leg, "250 2.0.0 queued as 1\r\n");
    assert_eq!(stage.heard(client), "250 2.0.0 queued as 1\r\n");
}
