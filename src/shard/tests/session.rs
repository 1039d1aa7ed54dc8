//! Sessions: one send per step, what ends them, what they leave behind.

use super::*;

#[test]
fn a_message_goes_through_and_nothing_is_left() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    assert_eq!(stage.heard(client), "220 weir.example ESMTP\r\n");
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    stage.say(client, "QUIT\r\n");
    assert_eq!(stage.heard(client), "221 2.0.0 Bye\r\n");
    assert_eq!(stage.closed(client), Some(Close::Linger));
    stage.assert_empty();
}

#[test]
fn a_client_that_leaves_after_the_dot_is_waited_for_by_the_log_only() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.say(client, "x\r\n.\r\n");
    stage.reset(client);
    assert_eq!(stage.closed(client), Some(Close::Now));
    assert_eq!(stage.world.sessions.len(), 1, "its message is on the way");
    stage.say(leg, "250 queued\r\n");
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
fn a_client_lost_in_a_body_leaves_no_message() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.say(client, "half a mess");
    stage.heard(leg);
    stage.reset(client);
    let said = stage.heard(leg);
    assert!(said.is_empty() || said == "RSET\r\n", "{said:?}");
    stage.assert_empty();
}

#[test]
fn half_closed_clients_hear_all_their_replies() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\nNOOP\r\n");
    stage.hang_up(client);
    assert!(stage.heard(client).ends_with("250 2.0.0 Ok\r\n"));
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn an_idle_client_is_told_and_closed() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\n");
    stage.heard(client);
    stage.sleep(Duration::from_secs(599));
    assert_eq!(stage.closed(client), None);
    stage.sleep(Duration::from_secs(2));
    assert_eq!(stage.code(client), "421");
    assert_eq!(stage.closed(client), Some(Close::Linger));
    stage.assert_empty();
}

#[test]
fn too_many_connections_are_turned_away_with_421() {
    let shared = Arc::new(Shared::new(2));
    let mut stage = Stage::sharing(settings(), 1, 10, shared, 1);
    let clients = [stage.client(), stage.client(), stage.client()];
    assert_eq!(stage.code(clients[1]), "220");
    assert_eq!(stage.code(clients[2]), "421");
    stage.hang_up(clients[0]);
    let next = stage.client();
    assert_eq!(stage.code(next), "220");
}

#[test]
fn errors_delay_first_and_end_the_session_then() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\n");
    stage.heard(client);
    for _ in 0..11 {
        stage.say(client, "BOGUS\r\n");
        stage.sleep(Duration::from_secs(2));
    }
    assert_eq!(stage.heard(client).lines().count(), 11);
    stage.say(client, "BOGUS\r\n");
    assert_eq!(stage.heard(client), "", "the reply waits");
    stage.sleep(Duration::from_secs(2));
    assert_eq!(stage.code(client), "500");
    for _ in 12..20 {
        stage.say(client, "BOGUS\r\n");
        stage.sleep(Duration::from_secs(2));
    }
    assert_eq!(stage.code(client), "421");
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn a_body_in_crumbs_is_gathered_in_copies() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "DATA\r\n");
    let line = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    for _ in 0..1000 {
        stage.say(client, line);
    }
    assert!(
        stage.world.wire.buffers.len() <= 6,
        "{} buffers for 72 KB",
        stage.world.wire.buffers.len()
    );
    stage.say(client, ".\r\n");
    let heard = stage.heard(leg);
    assert_eq!(heard.len(), "BDAT 72000 LAST\r\n".len() + 72_000);
    stage.say(leg, "250 Ok\r\n");
    stage.say(client, "QUIT\r\n");
    stage.assert_empty();
}

#[test]
fn a_streamed_body_that_comes_too_slowly_loses_its_connection_and_its_client() {
    let mut config = settings();
    config.hold_max = 1000;
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.heard(client);
    let line = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    for _ in 0..1000 {
        stage.say(client, line);
    }
    assert!(stage.heard(leg).contains("BDAT "), "it streams");
    stage.say(leg, "250 Ok\r\n");
    for _ in 0..50 {
        stage.say(client, "x\r\n");
        stage.sleep(Duration::from_secs(1));
    }
    assert!(stage.heard(client).starts_with("451 4.4.2"));
    assert!(stage.closed(client).is_some());
    assert!(
        stage.closed(leg).is_some(),
        "half a message is undone by closing only"
    );
    assert!(!stage.heard(leg).contains("LAST"));
    stage.assert_empty();
    assert_eq!(stage.shared.upstream_open(0), 0);
}

#[test]
fn bodies_that_wait_leave_receive_buffers_for_the_others() {
    let mut stage = Stage::new(settings(), 1, 100);
    stage.world.wire.buffers_max = 40;
    let mut slow = Vec::new();
    for _ in 0..10 {
        let client = stage.client();
        stage.ask(client);
        let leg = *stage.legs(1).last().expect("one each");
        stage.greet(leg);
        stage.say(leg, "250 Ok\r\n250 Ok\r\n");
        stage.say(client, "DATA\r\n");
        let line = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
        for _ in 0..8 {
            stage.say(client, &line.repeat(200));
        }
        slow.push((client, leg));
    }
    let (chunks, buffers): (Vec<_>, Vec<_>) = stage
        .world
        .wire
        .buffers
        .values()
        .partition(|(bytes, _)| bytes.capacity() >= CHUNK);
    assert!(
        buffers.len() <= 30,
        "{} receive buffers are pinned, {} chunks",
        buffers.len(),
        chunks.len()
    );
    for (client, leg) in slow {
        stage.heard(leg);
        stage.say(client, ".\r\n");
        assert_eq!(
            stage.heard(leg).len(),
            "BDAT 115200 LAST\r\n".len() + 115_200
        );
        stage.say(leg, "250 Ok\r\n");
        stage.say(client, "QUIT\r\n");
    }
    stage.assert_empty();
}

#[test]
fn the_time_an_upstream_takes_for_its_final_reply_is_not_the_clients() {
    let mut config = settings();
    config.hold_max = 1000;
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.say(client, &"x\r\n".repeat(10_000));
    stage.say(client, ".\r\n");
    stage.say(leg, "250 Ok\r\n");
    stage.heard(client);
    stage.sleep(Duration::from_secs(300));
    let replies = stage.heard(leg).matches("BDAT").count() - 1;
    stage.say(leg, &"250 2.0.0 queued\r\n".repeat(replies));
    assert_eq!(stage.heard(client), "250 2.0.0 queued\r\n");
    assert_eq!(stage.closed(client), None);
}

#[test]
fn a_full_table_is_told_to_whoever_still_comes() {
    let mut config = settings();
    (config.slots, config.reserve) = (32, 16);
    let mut stage = Stage::new(config, 1, 10);
    let clients: Vec<SlotId> = (0..20).map(|_| stage.client()).collect();
    let codes: Vec<String> = clients
        .into_iter()
        .map(|client| stage.code(client))
        .collect();
    let greeted = codes.iter().filter(|code| *code == "220").count();
    let told = codes.iter().filter(|code| *code == "421").count();
    assert_eq!((greeted + told, greeted > 12), (20, true), "{codes:?}");
}

#[test]
fn who_does_not_take_its_replies_is_not_read_any_further() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.heard(client);
    stage.stuff(client);
    // Chunks of nothing: each gets a reply, and none is an error or junk.
    for _ in 0..200 {
        stage.say(client, &"BDAT 0\r\n".repeat(2000));
    }
    let waiting: usize = stage
        .world
        .sessions
        .iter()
        .map(|(_, session)| session.out.len())
        .sum();
    assert!(waiting < 70_000, "{waiting} octets of replies wait");
    let held = stage.world.wire.buffers.len();
    assert!(held <= 5, "{held} receive buffers wait to be read");
    stage.unstuff(client);
    let replies = stage.heard(client).lines().count();
    assert_eq!(replies, 400_000, "none is lost");
    stage.say(client, "QUIT\r\n");
    stage.say(leg, "250 Ok\r\n");
    stage.assert_empty();
}

#[test]
fn a_defect_ends_its_own_session_only() {
    let mut stage = Stage::new(settings(), 1, 10);
    let (bystander, victim) = (stage.client(), stage.client());
    stage.heard(bystander);
    stage.ask(victim);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.world.wire.explosive = Some(leg);
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(victim, "DATA\r\n");
    stage.say(victim, "x\r\n.\r\n");
    assert_eq!(stage.counters.panics.value(), 1);
    assert_eq!(stage.closed(victim), Some(Close::Reset));
    assert!(
        stage.closed(leg).is_some(),
        "what it was attached to goes with it"
    );
    stage.world.wire.explosive = None;
    stage.ask(bystander);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(bystander, leg);
    stage.say(bystander, "QUIT\r\n");
    stage.assert_empty();
}

/// It had been ended at once and told nothing; ten seconds later its connection was closed.
#[test]
fn whose_input_finds_no_room_is_told_so() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    for _ in 0..4 {
        stage.say(client, "NOOP\r\n");
    }
    stage.world.wire.buffers_max = 1;
    stage.world.wire.no_chunks = true;
    stage.say(leg, "250 2.1.0 Ok\r\n");
    assert!(stage.heard(client).starts_with("421 4.3.2"));
    stage.hang_up(client);
    stage.assert_empty();
}
