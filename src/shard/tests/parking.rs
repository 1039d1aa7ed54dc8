//! Parking: the greet wait, stutter, and the way back.

use super::*;
use crate::metrics::PitEnd;
use crate::policy::Actions;
use crate::shard::parking::LOOKS_PER_TURN;
use crate::shard::pit::Overflow;

fn waiting(span: u64) -> Stage {
    let mut config = settings();
    config.session.greet_wait = Duration::from_secs(span);
    Stage::new(config, 1, 10)
}

/// A world in which `on` says what a finding leads to.
fn minding(on: &str) -> WorldConfig {
    let mut config = settings();
    let actions: Actions = [on.parse().expect("a finding and an action for it")]
        .into_iter()
        .collect();
    config.policy = Arc::new(policy::Config {
        actions,
        ..policy::Config::default()
    });
    config
}

#[test]
fn who_waits_for_the_greeting_gets_it() {
    let mut stage = waiting(5);
    let client = stage.client();
    assert_eq!(stage.heard(client), "220-weir.example ESMTP weir\r\n");
    assert_eq!((stage.world.sessions.len(), stage.world.pit.len()), (0, 1));
    stage.sleep(Duration::from_secs(4));
    assert_eq!(stage.heard(client), "");
    stage.sleep(Duration::from_secs(2));
    assert_eq!(stage.heard(client), "220 weir.example ESMTP\r\n");
    stage.say(client, "QUIT\r\n");
    assert_eq!(stage.code(client), "221");
    stage.assert_empty();
}

#[test]
fn who_speaks_first_is_noticed_and_still_served() {
    let mut stage = waiting(5);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\n");
    stage.sleep(Duration::from_secs(6));
    let heard = stage.heard(client);
    assert!(
        heard.starts_with("220 weir.example ESMTP\r\n250-weir.example"),
        "{heard}"
    );
    let finding = crate::policy::Finding::Pregreet as usize;
    let action = crate::policy::Action::Log as usize;
    assert_eq!(stage.counters.findings.at(finding, action).value(), 1);
}

#[test]
fn who_speaks_first_is_noticed_when_buffers_were_short() {
    let mut stage = waiting(5);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\n");
    stage.world.wire.blind_looks = 2;
    stage.sleep(Duration::from_millis(5500));
    assert_eq!(stage.heard(client), "", "not seen yet");
    stage.sleep(Duration::from_secs(2));
    assert!(stage.heard(client).starts_with("220 weir.example ESMTP"));
    let finding = crate::policy::Finding::Pregreet as usize;
    let action = crate::policy::Action::Log as usize;
    assert_eq!(stage.counters.findings.at(finding, action).value(), 1);
}

#[test]
fn many_greet_waits_end_a_few_looks_at_a_time() {
    let mut stage = waiting(5);
    let clients: Vec<_> = (0..100).map(|_| stage.client()).collect();
    for client in &clients {
        stage.heard(*client);
        stage.say(*client, "QUIT\r\n");
    }
    stage.sleep(Duration::from_secs(6));
    for client in clients {
        assert!(stage.heard(client).starts_with("220 "));
    }
    assert!(stage.world.intakes.len() <= LOOKS_PER_TURN);
    stage.assert_empty();
}

#[test]
fn who_leaves_before_the_greeting_is_forgotten() {
    let mut stage = waiting(5);
    let client = stage.client();
    stage.hang_up(client);
    assert_eq!(stage.counters.pit_ended.at(PitEnd::Left).value(), 1);
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn a_full_pit_drops_the_oldest() {
    let mut config = settings();
    config.session.greet_wait = Duration::from_secs(5);
    config.pit.rows_max = 2;
    let mut stage = Stage::new(config, 1, 10);
    let clients = [stage.client(), stage.client(), stage.client()];
    assert_eq!(stage.code(clients[0]), "421");
    assert!(stage.closed(clients[0]).is_some());
    assert_eq!(stage.world.pit.len(), 2);
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.code(clients[2]), "220");
}

#[test]
fn a_full_pit_that_refuses_says_so_at_once() {
    let mut config = settings();
    config.session.greet_wait = Duration::from_secs(5);
    config.pit.rows_max = 2;
    config.pit.overflow = Overflow::Refuse;
    let mut stage = Stage::new(config, 1, 10);
    let clients = [stage.client(), stage.client(), stage.client()];
    assert_eq!(stage.code(clients[2]), "421");
    assert!(stage.closed(clients[2]).is_some());
    assert_eq!(stage.world.sessions.len(), 0);
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.code(clients[0]), "220");
}

#[test]
fn a_stuttering_client_hears_its_reply_byte_by_byte_and_is_a_session_again() {
    let mut stage = Stage::new(minding("non-smtp=stutter"), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "GET / HTTP/1.1\r\n");
    assert_eq!(
        (stage.world.sessions.len(), stage.world.pit.len()),
        (0, 1),
        "parked"
    );
    assert_eq!(stage.heard(client), "");
    stage.sleep(Duration::from_millis(1500));
    assert_eq!(stage.heard(client).len(), 1, "a byte a second");
    stage.sleep(Duration::from_secs(240));
    assert!(stage.heard(client).ends_with("\r\n"));
    assert_eq!(
        (stage.world.sessions.len(), stage.world.pit.len()),
        (1, 0),
        "promoted"
    );
    stage.say(client, "EHLO c\r\n");
    assert_eq!(
        (stage.world.sessions.len(), stage.world.pit.len()),
        (0, 1),
        "parked again"
    );
    stage.sleep(Duration::from_secs(241));
    stage.say(client, "QUIT\r\n");
    stage.sleep(Duration::from_secs(241));
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn a_half_dripped_line_is_completed_before_the_421() {
    let mut stage = Stage::new(minding("non-smtp=stutter"), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "GET / HTTP/1.1\r\n");
    stage.sleep(Duration::from_millis(3500));
    stage.world.handle_mail(
        stage.now,
        Mail::Drain {
            grace: Duration::from_secs(5),
        },
    );
    stage.settle();
    let heard = stage.heard(client);
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines.len(), 2, "{heard}");
    assert!(
        lines[0].starts_with('5') && lines[1].starts_with("421 "),
        "{heard}"
    );
    stage.assert_empty();
}

#[test]
fn a_stuttering_client_opens_no_transaction() {
    let mut stage = Stage::new(minding("pipelining=stutter"), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\nNOOP\r\n");
    stage.sleep(Duration::from_secs(300));
    stage.heard(client);
    stage.say(client, "MAIL FROM:<a@b>\r\n");
    stage.sleep(Duration::from_secs(300));
    assert_eq!(stage.code(client), "450");
    assert!(stage.legs(1).is_empty());
}

#[test]
fn a_parked_client_that_left_is_noticed_by_a_drip() {
    let mut stage = Stage::new(minding("non-smtp=stutter"), 1, 10);
    let client = stage.client();
    stage.say(client, "GET / HTTP/1.1\r\n");
    assert_eq!(stage.world.pit.len(), 1);
    let gone = io::Error::from(io::ErrorKind::BrokenPipe);
    stage.sleep(Duration::from_millis(900));
    stage.world.wire.stuffed.push(client);
    stage.sleep(Duration::from_millis(200));
    stage
        .world
        .wire
        .due
        .push_back(Due::Sent(client, Err(gone), Vec::new()));
    stage.settle();
    assert_eq!(stage.counters.pit_ended.at(PitEnd::Left).value(), 1);
    stage.assert_empty();
}

#[test]
fn of_several_replies_only_the_last_one_stutters() {
    let mut stage = Stage::new(minding("non-smtp=stutter"), 1, 10);
    let client = stage.client();
    stage.heard(client);
    stage.say(client, "EHLO c\r\nNOOP\r\nGET / HTTP/1.1\r\n");
    let heard = stage.heard(client);
    assert!(heard.ends_with("250 2.0.0 Ok\r\n"), "{heard}");
    assert_eq!(stage.world.pit.len(), 1);
    stage.sleep(Duration::from_secs(241));
    assert!(stage.heard(client).starts_with('5'));
}

/// Who talked early and went on talking was delayed, reply by reply, and never parked: a session and a receive buffer each.
#[test]
fn who_says_its_whole_dialogue_at_once_is_parked_with_what_it_said() {
    let mut config = minding("pregreet=stutter");
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    stage.say(client, "NOOP\r\nRSET\r\nVRFY x\r\nQUIT\r\n");
    stage.sleep(Duration::from_secs(6));
    let greeting = "220-weir.example ESMTP weir\r\n220 weir.example ESMTP\r\n";
    let mut heard = stage.heard(client);
    for _ in 0..3 {
        assert_eq!((stage.world.sessions.len(), stage.world.pit.len()), (0, 1));
        let (buffers, _) = stage.world.wire.buffers(Group::Client);
        assert_eq!(buffers, 0, "a parked client holds no buffer");
        stage.sleep(Duration::from_secs(20));
        heard += &stage.heard(client);
    }
    stage.sleep(Duration::from_secs(120));
    heard += &stage.heard(client);
    let replies = "250 2.0.0 Ok\r\n250 2.0.0 Ok\r\n252 ";
    assert!(heard.starts_with(greeting), "{heard}");
    assert!(heard[greeting.len()..].starts_with(replies), "{heard}");
    assert!(heard.ends_with("221 2.0.0 Bye\r\n"), "{heard}");
    assert!(stage.world.ahead.is_empty());
    stage.assert_empty();
}

#[test]
fn who_is_displaced_with_bytes_under_way_hears_421_behind_them() {
    let mut config = settings();
    config.session.greet_wait = Duration::from_secs(5);
    config.pit.rows_max = 1;
    let mut stage = Stage::new(config, 1, 10);
    let first = stage.arrive();
    let second = stage.arrive();
    stage.settle();
    let heard = stage.heard(first);
    assert!(
        heard.starts_with("220-") && heard.contains("\r\n421 "),
        "{heard}"
    );
    assert!(stage.closed(first).is_some());
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.code(second), "220");
}

#[test]
fn who_still_owes_a_refused_chunk_is_not_parked() {
    let mut stage = Stage::new(minding("pipelining=stutter"), 1, 10);
    let client = stage.client();
    stage.say(client, "EHLO c\r\nNOOP\r\n");
    stage.sleep(Duration::from_secs(300));
    stage.heard(client);
    stage.say(client, "BDAT 20 LAST\r\n");
    stage.sleep(Duration::from_secs(250));
    assert!(stage.heard(client).starts_with("503 "));
    stage.say(client, "VRFY forged\r\nQUIT\r\n\n");
    stage.sleep(Duration::from_secs(250));
    assert_eq!(stage.heard(client), "", "octets of a chunk are no commands");
    assert_eq!(stage.closed(client), None);
}
