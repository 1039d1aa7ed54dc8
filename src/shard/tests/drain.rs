//! Going down: who is told what, and when it is over.

use super::*;

fn drain(stage: &mut Stage, grace: u64) {
    let grace = Duration::from_secs(grace);
    stage.world.handle_mail(stage.now, Mail::Drain { grace });
    stage.settle();
}

#[test]
fn idle_clients_hear_421_at_once_and_transactions_finish() {
    let mut stage = Stage::new(settings(), 1, 10);
    let (idle, busy) = (stage.client(), stage.client());
    stage.heard(idle);
    stage.ask(busy);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    drain(&mut stage, 30);
    assert!(stage.heard(idle).starts_with("421 4.3.2"));
    assert!(!stage.world.is_over());
    assert_eq!(
        stage.heard(leg),
        "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n"
    );
    stage.say(leg, "250 Ok\r\n250 Ok\r\n");
    stage.say(busy, "DATA\r\n");
    stage.say(busy, "x\r\n.\r\n");
    stage.say(leg, "250 2.0.0 queued\r\n");
    assert!(
        stage
            .heard(busy)
            .ends_with("250 2.0.0 queued\r\n421 4.3.2 Service shutting down\r\n")
    );
    assert_eq!(stage.heard(leg), "BDAT 3 LAST\r\nx\r\nQUIT\r\n");
    stage.say(leg, "221 bye\r\n");
    assert!(stage.world.is_over());
    stage.assert_empty();
}

#[test]
fn nobody_new_comes_in() {
    let mut stage = Stage::new(settings(), 1, 10);
    let busy = stage.client();
    stage.ask(busy);
    drain(&mut stage, 30);
    let late = stage.client();
    assert!(stage.heard(late).starts_with("421 4.3.2"));
    assert_eq!(stage.closed(late), Some(Close::Linger));
}

#[test]
fn after_the_grace_only_final_replies_are_waited_for() {
    let mut stage = Stage::new(settings(), 1, 10);
    let (slow, last) = (stage.client(), stage.client());
    stage.ask(slow);
    stage.ask(last);
    let legs = stage.legs(1);
    for leg in &legs {
        stage.greet(*leg);
        stage.say(*leg, "250 Ok\r\n250 Ok\r\n");
    }
    stage.say(last, "DATA\r\n");
    stage.say(last, "x\r\n.\r\n");
    stage.heard(last);
    drain(&mut stage, 5);
    stage.heard(slow);
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.code(slow), "421");
    assert_eq!(stage.heard(last), "", "its final reply is owed");
    assert!(!stage.world.is_over());
    let leg = legs
        .into_iter()
        .find(|leg| stage.closed(*leg).is_none() && stage.heard(*leg).contains("BDAT"));
    let leg = leg.expect("one has the message");
    stage.say(leg, "250 2.0.0 queued\r\n");
    assert!(stage.heard(last).starts_with("250 2.0.0 queued\r\n421"));
    stage.sleep(Duration::from_secs(6));
    assert!(stage.world.is_over());
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut stage = Stage::new(settings(), 1, 10);
    let busy = stage.client();
    stage.ask(busy);
    drain(&mut stage, 30);
    stage.world.handle_mail(stage.now, Mail::End);
    stage.settle();
    assert_eq!(stage.code(busy), "421");
    assert!(stage.world.is_ending());
}

#[test]
fn parked_clients_hear_421_on_a_line_of_its_own() {
    let mut config = settings();
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = Stage::new(config, 1, 10);
    let client = stage.client();
    assert_eq!(stage.heard(client), "220-weir.example ESMTP weir\r\n");
    drain(&mut stage, 30);
    assert!(stage.heard(client).starts_with("421 4.3.2"));
    assert!(stage.world.is_over());
    stage.assert_empty();
}

#[test]
fn a_connection_that_nobody_waits_for_does_not_hold_the_end_up() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    assert_eq!(stage.legs(1).len(), 1, "its greeting is awaited");
    stage.reset(client);
    drain(&mut stage, 30);
    assert!(stage.world.is_over());
}

#[test]
fn a_drain_leaves_no_chunk_behind() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.ask(client);
    stage.world.wire.buffers_max = 2;
    stage.say(client, "DATA\r\n");
    assert!(stage.world.aside.is_some(), "buffers are scarce");
    stage.reset(client);
    stage.world.handle_mail(
        stage.now,
        Mail::Drain {
            grace: Duration::ZERO,
        },
    );
    stage.settle();
    stage.assert_empty();
}
