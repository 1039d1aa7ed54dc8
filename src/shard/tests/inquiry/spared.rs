//! Who is spared from being refused for the score, and from waiting for it.

use super::*;
use crate::policy::access::{AccessBuilder, Listed, Subject};

/// Mail to postmaster is always taken.
fn allow(stage: &mut Stage) {
    let mut lists = AccessBuilder::default();
    let errors = lists.read(Subject::Recipient, Listed::Allow, "postmaster@\n");
    assert!(errors.is_empty(), "{errors:?}");
    let lists = Mail::Access(Arc::new(lists.build()));
    stage.world.handle_mail(stage.now, lists);
}

/// What is heard to a group of commands, as codes.
fn codes(stage: &mut Stage, client: SlotId, commands: &str) -> String {
    stage.say(client, commands);
    let heard = stage.heard(client);
    heard.lines().map(|line| line[..4].to_owned()).collect()
}

const POSTMASTER: &str = "RCPT TO:<postmaster@weir.example>\r\n";

#[test]
fn a_recipient_that_gets_all_mail_is_spared_and_no_other() {
    let by_score = rejecting as fn() -> WorldConfig;
    let by_list = || asking(&["dnsbl=reject"], &[]);
    for config in [by_score, by_list] {
        let mut stage = open(config());
        allow(&mut stage);
        let client = stage.client();
        let asker = ask(&mut stage, 0, 0, 5);
        answer(&mut stage, asker, Some(5));
        stage.say(client, "EHLO c\r\nMAIL FROM:<a@c.example>\r\n");
        stage.heard(client);
        assert_eq!(
            codes(&mut stage, client, "RCPT TO:<b@d.example>\r\n"),
            "550 "
        );
        assert!(stage.legs(1).is_empty());
        assert_eq!(codes(&mut stage, client, POSTMASTER), "");
        let leg = stage.legs(1)[0];
        stage.greet(leg);
        assert!(stage.heard(leg).contains("RCPT TO:<postmaster@"));
        stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
        assert_eq!(stage.code(client), "250");
        assert_eq!(
            codes(&mut stage, client, "RCPT TO:<e@d.example>\r\n"),
            "550 ",
            "others are refused as before"
        );
        stage.hang_up(client);
        stage.assert_empty();
    }
}

#[test]
fn a_recipient_that_gets_all_mail_waits_for_no_answer() {
    let mut stage = open(rejecting());
    allow(&mut stage);
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 5);
    stage.say(client, "EHLO c\r\nMAIL FROM:<a@c.example>\r\n");
    stage.heard(client);
    stage.say(client, POSTMASTER);
    assert_eq!(stage.legs(1).len(), 1);
    stage.say(client, "RCPT TO:<b@d.example>\r\n");
    answer(&mut stage, asker, Some(5));
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    assert!(!stage.heard(leg).contains("b@d.example"));
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    let heard = stage.heard(client);
    let codes: Vec<&str> = heard.lines().map(|line| &line[..3]).collect();
    assert_eq!(codes, ["250", "550"]);
    stage.hang_up(client);
    stage.assert_empty();
}

#[test]
fn mail_to_who_gets_all_mail_is_let_in_before_its_client_is_dropped() {
    let mut stage = open(asking(&["score-drop=drop"], &[(Finding::ScoreDrop, 5)]));
    allow(&mut stage);
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 5);
    stage.say(client, "EHLO c\r\nMAIL FROM:<a@c.example>\r\n");
    stage.heard(client);
    stage.say(client, POSTMASTER);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.heard(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    assert_eq!(stage.code(client), "250");
    answer(&mut stage, asker, Some(5));
    assert_eq!(codes(&mut stage, client, "DATA\r\n"), "354 ");
    stage.say(client, "Subject: x\r\n\r\nx\r\n.\r\n");
    assert!(stage.heard(leg).contains("BDAT"));
    stage.say(leg, "250 2.0.0 Ok\r\n");
    assert_eq!(stage.code(client), "250");
    assert_eq!(
        codes(&mut stage, client, "MAIL FROM:<a@c.example>\r\n"),
        "521 "
    );
    stage.assert_empty();
}
