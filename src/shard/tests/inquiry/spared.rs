//! Who is spared from being refused for the score, and from waiting for it.

use super::*;
use crate::policy::access::{AccessBuilder, Listed, Subject};
use crate::policy::{greylist, memory};

/// Mail to postmaster is always taken.
fn allow(stage: &mut Stage) {
    allow_also(stage, Subject::Recipient, "postmaster@");
}

fn allow_also(stage: &mut Stage, subject: Subject, whom: &str) {
    let mut lists = AccessBuilder::default();
    let errors = lists.read(subject, Listed::Allow, whom);
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

/// Who has a point is greylisted.
fn greylisting() -> WorldConfig {
    let mut config = asking(&["greylist=defer"], &[]);
    let mut policy = (*config.policy).clone();
    policy.reputation.greylist_from = Some(1);
    policy.memory = memory::Config {
        on: true,
        greylist: greylist::Config {
            when: greylist::When::Score,
            ..greylist::Config::default()
        },
        ..memory::Config::default()
    };
    config.policy = Arc::new(policy);
    config
}

/// A client with a score of 3, and a list that may speak for it with a single point.
fn doubted(stage: &mut Stage) -> (SlotId, Asker) {
    let client = stage.client();
    let bad = ask(stage, 0, 0, 3);
    answer(stage, bad, Some(3));
    let about = inquiry(stage);
    let question = Question {
        name: Name::parse(b"good.example").expect("a name"),
        kind: Kind::A,
    };
    let actions = stage.world.policy.config().actions.clone();
    let stakes = Stakes::of(Finding::Dnswl, -1, &actions);
    stage
        .world
        .inquire(about, About::Zone(1), &question, stakes);
    let asked = stage.world.asked.as_ref().expect("questions stay open");
    let (_, asker) = asked.last().expect("it was asked");
    (client, *asker)
}

#[test]
fn greylisting_waits_for_a_list_of_good_ones_whatever_it_weighs() {
    for vouched in [true, false] {
        let mut stage = open(greylisting());
        let (client, asker) = doubted(&mut stage);
        stage.ask(client);
        assert_eq!(stage.heard(client), "", "it waits");
        assert!(stage.legs(1).is_empty());
        if vouched {
            let about = inquiry(&stage);
            let mark = Mark {
                detail: Detail::Zone(1),
                ..Mark::lasting(Finding::Dnswl, -1)
            };
            stage.world.mark(about, mark);
        }
        answer(&mut stage, asker, None);
        let code = stage.code(client);
        assert_eq!(code, if vouched { "" } else { "451" });
        assert_eq!(stage.legs(1).len(), usize::from(vouched));
        stage.reset(client);
        stage.assert_empty();
    }
}

#[test]
fn greylisting_waits_no_longer_for_it_than_for_others() {
    let mut stage = open(greylisting());
    let (client, _) = doubted(&mut stage);
    stage.ask(client);
    stage.sleep(Duration::from_millis(3100));
    assert_eq!(stage.code(client), "451");
    stage.reset(client);
    stage.assert_empty();
}

#[test]
fn a_sender_that_is_spared_from_greylisting_does_not_wait_for_it() {
    let mut stage = open(greylisting());
    allow_also(&mut stage, Subject::Sender, "@c.example");
    let (client, _) = doubted(&mut stage);
    stage.ask(client);
    assert_eq!(stage.legs(1).len(), 1);
    stage.reset(client);
    stage.assert_empty();
}
