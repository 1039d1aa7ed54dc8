//! What a shard remembers of networks, by what sessions do; and what greylisting says at RCPT and DATA.

use super::*;
use crate::policy::greylist::{self, When};
use crate::policy::lore::Lore;
use crate::policy::memory;
use crate::policy::news::{Deed, News};
use crate::policy::reputation;
use crate::policy::spamtraps::Spamtraps;
use crate::policy::{Actions, On};

/// A world that remembers, and greylists everybody.
fn remembering(on: &[&str]) -> WorldConfig {
    let on = on
        .iter()
        .map(|on| on.parse::<On>().expect("a finding and an action"));
    let actions: Actions = on.collect();
    WorldConfig {
        policy: Arc::new(policy::Config {
            actions,
            reputation: reputation::Config {
                on: true,
                ..reputation::Config::default()
            },
            memory: memory::Config {
                on: true,
                trap_time: 600,
                greylist: greylist::Config {
                    when: When::All,
                    ..greylist::Config::default()
                },
                ..memory::Config::default()
            },
            ..policy::Config::default()
        }),
        ..settings()
    }
}

/// Such a world, with a spamtrap.
fn open(on: &[&str]) -> Stage {
    let mut stage = Stage::new(remembering(on), 1, 10);
    let lore = Lore {
        spamtraps: Spamtraps::parse("trap@weir.example").expect("a list"),
        ..Lore::default()
    };
    stage
        .world
        .handle_mail(stage.now, Mail::Lore(Arc::new(lore)));
    stage
}

/// What was done by now, over all networks.
fn deeds(stage: &mut Stage) -> [u16; Deed::COUNT] {
    let mut all = [0; Deed::COUNT];
    for news in stage.world.memory.take_news() {
        if let News::Deeds { counts, .. } = news {
            let sums = all.iter_mut().zip(counts);
            sums.for_each(|(sum, count)| *sum += count);
        }
    }
    all
}

/// What a client hears to a whole envelope.
fn envelope(stage: &mut Stage, client: SlotId, sender: &str, recipient: &str) -> String {
    stage.say(client, "EHLO c.example\r\n");
    stage.say(client, &format!("MAIL FROM:<{sender}>\r\n"));
    stage.heard(client);
    stage.say(client, &format!("RCPT TO:<{recipient}>\r\n"));
    stage.heard(client)
}

const GREYLISTED: &str = "451 4.7.1 Greylisted, please try again later\r\n";

#[test]
fn who_is_new_has_to_come_again_and_takes_no_connection_until_then() {
    let mut stage = open(&["greylist=defer"]);
    for late in [0, 299] {
        stage.sleep(Duration::from_secs(late));
        let client = stage.client();
        let heard = envelope(&mut stage, client, "a@c.example", "b@d.example");
        assert_eq!(heard, GREYLISTED);
        stage.say(client, "QUIT\r\n");
    }
    assert!(stage.legs(1).is_empty());
    stage.sleep(Duration::from_secs(1));
    // From another address of the network.
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    stage.say(client, "MAIL FROM:<x@c.example>\r\n");
    stage.say(client, "RCPT TO:<y@d.example>\r\n");
    assert!(
        stage.heard(leg).contains("RCPT TO:<y@d.example>"),
        "the network is proven"
    );
    assert_eq!(deeds(&mut stage), [1, 0, 0, 0, 0, 0]);
}

#[test]
fn the_null_sender_is_deferred_at_data_and_its_callouts_are_answered() {
    let mut stage = open(&["greylist=defer"]);
    let client = stage.client();
    assert_eq!(envelope(&mut stage, client, "", "b@d.example"), "");
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    assert_eq!(stage.code(client), "250");
    assert!(
        stage.world.memory.tuples().is_empty(),
        "a callout ends here"
    );
    stage.heard(leg);
    stage.say(client, "DATA\r\n");
    assert_eq!(stage.heard(client), GREYLISTED);
    stage.say(client, "QUIT\r\n");
    assert_eq!(stage.heard(client), "221 2.0.0 Bye\r\n");
    assert!(!stage.heard(leg).contains("BDAT"));
    stage.assert_empty();
}

#[test]
fn deeds_are_what_clients_do_and_not_what_weir_makes_of_it() {
    let mut stage = open(&[]);
    let client = stage.client();
    stage.hang_up(client);
    assert_eq!(deeds(&mut stage), [0, 0, 0, 0, 0, 1]);
    let client = stage.client();
    stage.say(client, "QUIT\r\n");
    assert_eq!(deeds(&mut stage), [0; Deed::COUNT], "it took its leave");
    let client = stage.client();
    stage.say(client, "GET / HTTP/1.1\r\n");
    assert_eq!(deeds(&mut stage), [0, 0, 0, 0, 1, 0]);

    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n550 5.1.1 Unknown\r\n");
    for reply in [
        "550-5.1.10 Null MX\r\n550 5.1.10 x\r\n",
        "550 5.7.1 No\r\n",
        "550 No\r\n",
    ] {
        stage.say(client, "RCPT TO:<b@d.example>\r\n");
        stage.say(leg, reply);
    }
    stage.hang_up(client);
    assert_eq!(deeds(&mut stage), [0, 0, 2, 0, 0, 0]);
}

#[test]
fn a_message_that_an_upstream_refuses_is_remembered() {
    let mut stage = open(&[]);
    let client = stage.client();
    stage.ask(client);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.say(leg, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
    stage.say(client, "DATA\r\n");
    stage.say(client, "Subject: x\r\n\r\nbody\r\n.\r\n");
    stage.say(leg, "554 5.7.1 Spam\r\n");
    assert_eq!(stage.code(client), "554");
    assert_eq!(deeds(&mut stage), [0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_trap_is_sprung_by_mail_and_not_by_bounces() {
    let mut stage = open(&["spamtrap=reject", "trapped=reject"]);
    let client = stage.client();
    let heard = envelope(&mut stage, client, "", "Trap@weir.example");
    assert_eq!(heard, "", "it goes to the server");
    let client = stage.client();
    let heard = envelope(&mut stage, client, "a@c.example", "trap@weir.example");
    assert!(heard.starts_with("550 5.7.1"), "{heard}");
    assert_eq!(deeds(&mut stage), [0, 0, 0, 1, 0, 0]);
    let client = stage.client();
    let heard = envelope(&mut stage, client, "a@c.example", "b@d.example");
    assert!(
        heard.starts_with("550 5.7.1"),
        "its network is held to it: {heard}"
    );
    stage.sleep(Duration::from_secs(600));
    let client = stage.client();
    let heard = envelope(&mut stage, client, "a@c.example", "b@d.example");
    assert_eq!(heard, "", "for its time");
}

#[test]
fn a_neighbour_of_who_sprang_a_trap_is_put_off_and_not_rejected() {
    let on = ["spamtrap=log", "trapped=score=5", "score-reject=reject"];
    let mut config = remembering(&on);
    let policy = Arc::make_mut(&mut config.policy);
    policy.memory.greylist.when = When::Off;
    let steps = &mut policy.reputation.thresholds;
    steps.set(policy::Finding::ScoreReject, Some(5));
    let mut stage = Stage::new(config, 1, 10);
    let lore = Lore {
        spamtraps: Spamtraps::parse("trap@weir.example").expect("a list"),
        ..Lore::default()
    };
    let lore = Mail::Lore(Arc::new(lore));
    stage.world.handle_mail(stage.now, lore);
    let client = stage.client();
    envelope(&mut stage, client, "a@c.example", "trap@weir.example");
    let neighbour = stage.client();
    let heard = envelope(&mut stage, neighbour, "a@c.example", "b@d.example");
    assert!(heard.starts_with("450 4.7.1"), "{heard}");
    stage.sleep(Duration::from_secs(600));
    let later = stage.client();
    let heard = envelope(&mut stage, later, "a@c.example", "b@d.example");
    assert_eq!(heard, "", "it goes to the server");
}

#[test]
fn memory_that_is_off_costs_nothing_and_asks_nobody() {
    let mut stage = Stage::new(settings(), 1, 10);
    let client = stage.client();
    stage.hang_up(client);
    let client = stage.client();
    assert_eq!(
        envelope(&mut stage, client, "a@c.example", "trap@weir.example"),
        ""
    );
    assert!(stage.world.memory.networks().is_empty() && deeds(&mut stage) == [0; Deed::COUNT]);
}

#[test]
fn what_is_only_logged_of_a_recipient_is_told_whatever_is_asked_after_it() {
    use crate::policy::access::{AccessBuilder, Listed, Subject};

    let mut stage = open(&["deny-recipient=log"]);
    let mut lists = AccessBuilder::default();
    let errors = lists.read(Subject::Recipient, Listed::Deny, "b@d.example");
    assert!(errors.is_empty());
    let lists = Arc::new(lists.build());
    stage.world.handle_mail(stage.now, Mail::Access(lists));
    let client = stage.client();
    assert_eq!(
        envelope(&mut stage, client, "a@c.example", "b@d.example"),
        ""
    );
    let (finding, action) = (policy::Finding::DenyRecipient, policy::Action::Log);
    let told = stage
        .counters
        .findings
        .at(finding as usize, action as usize);
    assert_eq!(told.value(), 1);
}
