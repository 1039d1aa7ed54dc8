//! What is inquired of clients: late answers, what waits for them, and what becomes of those who do not wait.

mod game;
mod spared;

use super::*;
use crate::dns::{Answer, Failure, Kind, Name, Outcome, Question};
use crate::policy::dossier::{Detail, Mark};
use crate::policy::reputation::{self, Stakes};
use crate::policy::{Action, Actions, Finding, On};
use crate::shard::lookups::{About, Asker};
use crate::shard::slab::Key;

/// A world that inquires: `on` says what findings lead to, `steps` where the score's begin.
fn asking(on: &[&str], steps: &[(Finding, i16)]) -> WorldConfig {
    let on = on
        .iter()
        .map(|on| on.parse::<On>().expect("a finding and an action"));
    let actions: Actions = on.collect();
    let mut reputation = reputation::Config {
        on: true,
        ..reputation::Config::default()
    };
    for (step, from) in steps {
        reputation.thresholds.set(*step, Some(*from));
    }
    WorldConfig {
        policy: Arc::new(policy::Config {
            actions,
            reputation,
            ..policy::Config::default()
        }),
        ..settings()
    }
}

/// With a score of 5 a recipient is rejected.
fn rejecting() -> WorldConfig {
    asking(&["score-reject=reject"], &[(Finding::ScoreReject, 5)])
}

/// A stage whose questions stay open until the test answers them.
fn open(config: WorldConfig) -> Stage {
    let mut stage = Stage::new(config, 1, 10);
    stage.world.asked = Some(Vec::new());
    stage
}

fn inquiry(stage: &Stage) -> Key {
    let (key, _) = stage.world.sessions.iter().next().expect("a session");
    stage.world.inquiry_of(key).expect("it is inquired of")
}

/// A question that may bring so much is asked about the client.
fn ask(stage: &mut Stage, zone: u16, least: i16, most: i16) -> Asker {
    let inquiry = inquiry(stage);
    ask_about(stage, inquiry, zone, least, most)
}

fn ask_about(stage: &mut Stage, inquiry: Key, zone: u16, least: i16, most: i16) -> Asker {
    let question = Question {
        name: Name::parse(b"list.example").expect("a name"),
        kind: Kind::A,
    };
    let stakes = Stakes {
        least,
        most,
        worst: Action::Log,
        vouches: false,
    };
    stage
        .world
        .inquire(inquiry, About::Zone(zone), &question, stakes);
    let asked = stage.world.asked.as_ref().expect("questions stay open");
    asked.last().expect("it was asked").1
}

/// The answer comes: with this weight, or nothing was found.
fn answer(stage: &mut Stage, asker: Asker, weight: Option<i16>) {
    let Asker::Inquiry(inquiry, About::Zone(zone), _) = asker else {
        panic!("asked about something else");
    };
    if let Some(weight) = weight {
        let mark = Mark {
            finding: Finding::Dnsbl,
            weight,
            detail: Detail::Zone(zone),
            until: stage.now + Duration::from_secs(60),
        };
        stage.world.mark(inquiry, mark);
    }
    let answer = Answer {
        outcome: Outcome::Failed(Failure::Timeout),
        until: stage.now,
    };
    stage.world.now = stage.now;
    stage.world.heard(asker, &answer);
    stage.settle();
}

fn found(stage: &Stage, finding: Finding, action: Action) -> u64 {
    let cell = stage
        .counters
        .findings
        .at(finding as usize, action as usize);
    cell.value()
}

#[test]
fn a_recipient_waits_for_an_answer_that_could_refuse_it() {
    for (weight, code) in [(Some(5), "550"), (Some(4), ""), (None, "")] {
        let mut stage = open(rejecting());
        let client = stage.client();
        let asker = ask(&mut stage, 0, 0, 5);
        stage.ask(client);
        assert_eq!(stage.heard(client), "", "it waits");
        assert!(stage.legs(1).is_empty(), "and takes no connection");
        stage.sleep(Duration::from_secs(1));
        answer(&mut stage, asker, weight);
        assert_eq!(stage.code(client), code);
        assert_eq!(stage.legs(1).len(), usize::from(code.is_empty()));
        if code.is_empty() {
            let leg = stage.legs(1)[0];
            stage.greet(leg);
            stage.deliver(client, leg);
        }
        stage.say(client, "QUIT\r\n");
        assert_eq!(stage.code(client), "221");
        stage.assert_empty();
    }
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_longer_than_that() {
    let mut stage = open(rejecting());
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 5);
    stage.sleep(Duration::from_secs(1));
    stage.ask(client);
    stage.sleep(Duration::from_millis(1900));
    assert!(
        stage.legs(1).is_empty(),
        "three seconds from the question on"
    );
    stage.sleep(Duration::from_millis(200));
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(client, leg);
    // It comes after all: the next transaction knows it at once.
    answer(&mut stage, asker, Some(5));
    assert_eq!(found(&stage, Finding::Dnsbl, Action::Log), 1);
    let told = found(&stage, Finding::ScoreReject, Action::Reject);
    assert_eq!(told, 0, "nobody is refused yet");
    stage.say(
        client,
        "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n",
    );
    assert_eq!(stage.code(client), "550");
    assert_eq!(found(&stage, Finding::ScoreReject, Action::Reject), 1);
}

#[test]
fn what_is_only_logged_is_not_waited_for() {
    let mut stage = open(asking(&[], &[(Finding::ScoreReject, 5)]));
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 5);
    stage.ask(client);
    assert_eq!(stage.legs(1).len(), 1);
    answer(&mut stage, asker, Some(5));
    assert_eq!(
        found(&stage, Finding::ScoreReject, Action::Log),
        1,
        "what would have been is told when it is known"
    );
}

#[test]
fn a_partial_score_acts_when_it_suffices() {
    let mut stage = open(rejecting());
    let client = stage.client();
    let first = ask(&mut stage, 0, 0, 9);
    ask(&mut stage, 1, -2, 0);
    stage.ask(client);
    answer(&mut stage, first, Some(6));
    assert_eq!(stage.heard(client), "", "the other list may speak for it");
    let mut stage = open(rejecting());
    let client = stage.client();
    let first = ask(&mut stage, 0, 0, 9);
    ask(&mut stage, 1, -2, 0);
    stage.ask(client);
    answer(&mut stage, first, Some(7));
    assert_eq!(stage.code(client), "550");
}

#[test]
fn a_pipelined_group_is_answered_in_order() {
    let mut stage = open(rejecting());
    let client = stage.client();
    stage.say(client, "EHLO c\r\n");
    stage.heard(client);
    let asker = ask(&mut stage, 0, 0, 5);
    stage.say(
        client,
        "MAIL FROM:<a@c>\r\nRCPT TO:<b@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n",
    );
    stage.sleep(Duration::from_secs(1));
    answer(&mut stage, asker, Some(9));
    let codes: String = stage
        .heard(client)
        .lines()
        .map(|line| line[..4].to_owned())
        .collect();
    assert_eq!(codes, "250 550 550 554 ");
    stage.hang_up(client);
    stage.assert_empty();
}

#[test]
fn who_leaves_while_it_waits_leaves_nothing_behind() {
    type Leave = fn(&mut Stage, SlotId);
    let ways: [Leave; 3] = [
        |stage, client| stage.reset(client),
        |stage, client| stage.hang_up(client),
        |stage, client| stage.say(client, "RSET\r\nQUIT\r\n"),
    ];
    for leave in ways {
        let mut stage = open(rejecting());
        let client = stage.client();
        let asker = ask(&mut stage, 0, 0, 5);
        stage.ask(client);
        leave(&mut stage, client);
        stage.sleep(Duration::from_secs(1));
        answer(&mut stage, asker, Some(9));
        assert!(stage.closed(client).is_some());
        stage.assert_empty();
    }
}

#[test]
fn the_score_moves_a_client_both_ways() {
    let mut stage = open(asking(&["score-delay=delay"], &[(Finding::ScoreDelay, 3)]));
    let client = stage.client();
    stage.heard(client);
    let bad = ask(&mut stage, 0, 0, 3);
    let other = ask(&mut stage, 2, -1, 0);
    answer(&mut stage, bad, Some(3));
    stage.say(client, "EHLO c\r\n");
    assert_eq!(stage.code(client), "250", "another may speak for it");
    answer(&mut stage, other, None);
    stage.say(client, "EHLO c\r\n");
    assert_eq!(stage.heard(client), "", "its replies wait");
    stage.sleep(Duration::from_millis(1100));
    assert_eq!(stage.code(client), "250");
    let good = ask(&mut stage, 1, -5, 0);
    answer(&mut stage, good, Some(-5));
    stage.say(client, "NOOP\r\n");
    assert_eq!(stage.code(client), "250", "at once");
    assert_eq!(found(&stage, Finding::ScoreDelay, Action::Delay), 1);
}

#[test]
fn a_client_to_be_dropped_is_dropped_at_the_next_command() {
    let config = || asking(&["score-drop=drop"], &[(Finding::ScoreDrop, 8)]);
    let mut stage = open(config());
    let client = stage.client();
    let first = ask(&mut stage, 0, 0, 9);
    let second = ask(&mut stage, 1, -1, 0);
    stage.heard(client);
    answer(&mut stage, first, Some(8));
    stage.say(client, "EHLO c\r\n");
    assert_eq!(stage.code(client), "250", "the other list may speak for it");
    answer(&mut stage, second, None);
    stage.say(client, "MAIL FROM:<a@b>\r\n");
    assert_eq!(stage.code(client), "521");
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn nobody_is_inquired_of_who_is_beyond_doubt_or_when_nothing_is_asked_for() {
    let mut stage = Stage::new(settings(), 1, 10);
    stage.client();
    assert!(stage.world.inquiries.is_empty(), "--reputation off");
    let mut stage = open(rejecting());
    let relay = policy::relay::Relay {
        from: "198.51.100.0/24"
            .parse()
            .map(|net| [net].into_iter().collect())
            .expect("a network"),
        ..policy::relay::Relay::default()
    };
    stage
        .world
        .handle_mail(stage.now, Mail::Relay(Arc::new(relay)));
    stage.client();
    assert!(stage.world.inquiries.is_empty(), "--relay-from");
}

#[test]
fn findings_of_the_session_count_as_well() {
    let on = ["pregreet=score=4", "score-reject=reject"];
    let mut config = asking(&on, &[(Finding::ScoreReject, 4)]);
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = open(config);
    let client = stage.client();
    assert_eq!(stage.world.inquiries.len(), 1, "it begins with the row");
    stage.say(client, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.code(client), "550");
    stage.hang_up(client);
    stage.assert_empty();
}

#[test]
fn a_parked_stutterer_keeps_what_counts_and_no_inquiry() {
    let on = ["pregreet=score=4", "score-stutter=stutter"];
    let mut config = asking(&on, &[(Finding::ScoreStutter, 4)]);
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = open(config);
    let client = stage.client();
    stage.say(client, "EHLO c\r\n");
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.world.pit.len(), 1, "its reply stutters");
    assert_eq!(stage.world.inquiries.len(), 0);
    stage.sleep(Duration::from_secs(300));
    assert_eq!((stage.world.pit.len(), stage.world.inquiries.len()), (0, 1));
    stage.say(client, "NOOP\r\n");
    assert_eq!(stage.world.pit.len(), 1, "it is treated as before");
    assert_eq!(stage.world.inquiries.len(), 0);
    stage.sleep(Duration::from_secs(60));
    assert_eq!(found(&stage, Finding::ScoreStutter, Action::Stutter), 1);
    assert_eq!(found(&stage, Finding::Pregreet, Action::Log), 1);
    stage.hang_up(client);
    stage.assert_empty();
}

#[test]
fn who_is_cut_in_mid_drip_is_counted_with_what_was_found_of_it() {
    let on = ["pregreet=score=4", "score-stutter=stutter"];
    let mut config = asking(&on, &[(Finding::ScoreStutter, 4)]);
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = open(config);
    let client = stage.client();
    stage.say(client, "EHLO c\r\n");
    stage.sleep(Duration::from_secs(6));
    let (id, row) = stage.world.pit.iter().next().expect("its reply stutters");
    assert!(row.tenant.slot == client);
    let row = stage.world.pit.take(id).expect("it is there");
    let key = stage
        .world
        .session_of(row, crate::metrics::PitEnd::Cut)
        .expect("a session");
    let kept = stage.world.inquiries.take_parting(key).expect("findings");
    assert!(kept.noted.contains(Finding::Pregreet));
    assert_eq!(kept.score, Some(4));
    stage.world.inquiries.part_with(key, Some(kept));
    stage.world.relay_step(key, |relay, cx| {
        relay.refuse(cx, &weir_smtp::texts::SHUTDOWN);
    });
    stage.settle();
    stage.reset(client);
    let scored = crate::metrics::ScoreRange::of(4);
    assert_eq!(stage.counters.scores.at(scored).value(), 1);
    stage.assert_empty();
}

#[test]
fn a_client_with_its_own_connection_waits_as_well() {
    for (weight, code) in [(Some(5), "550"), (None, "")] {
        let mut config = rejecting();
        config.identity = crate::route::Identity::ProxyV1;
        let mut stage = open(config);
        let client = stage.client();
        let leg = stage.legs(1)[0];
        stage.say(leg, "220 mx.example ESMTP\r\n");
        stage.say(client, "EHLO c.example\r\n");
        stage.say(leg, "250-mx.example\r\n250 PIPELINING\r\n");
        stage.heard(leg);
        let asker = ask(&mut stage, 0, 0, 5);
        stage.say(
            client,
            "MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\nDATA\r\n",
        );
        stage.say(leg, "250 2.1.0 Ok\r\n");
        stage.heard(client);
        assert_eq!(stage.heard(leg), "MAIL FROM:<a@c.example>\r\n");
        stage.sleep(Duration::from_secs(1));
        answer(&mut stage, asker, weight);
        let heard = stage.heard(client);
        assert_eq!(heard.contains(code) && !heard.is_empty(), !code.is_empty());
        let passed = stage.heard(leg).contains("RCPT TO:<b@d.example>");
        assert_eq!(passed, code.is_empty(), "{heard}");
        stage.reset(client);
        stage.assert_empty();
    }
}

#[test]
fn a_server_that_goes_away_takes_the_wait_with_it() {
    let mut config = rejecting();
    config.identity = crate::route::Identity::ProxyV1;
    let mut stage = open(config);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250 mx.example\r\n");
    let asker = ask(&mut stage, 0, 0, 5);
    stage.say(client, "MAIL FROM:<a@c.example>\r\n");
    stage.say(leg, "250 2.1.0 Ok\r\n");
    stage.say(client, "RCPT TO:<b@d.example>\r\n");
    stage.heard(client);
    stage.reset(leg);
    answer(&mut stage, asker, Some(5));
    stage.sleep(Duration::from_secs(5));
    assert_eq!(stage.code(client), "421");
    stage.assert_empty();
}

#[test]
fn a_drain_does_not_wait_longer_than_its_grace() {
    let mut stage = open(rejecting());
    let (waits, idle) = (stage.client(), stage.client());
    let inquiries: Vec<Key> = stage.world.sessions.iter().map(|(key, _)| key).collect();
    assert_eq!(inquiries.len(), 2);
    ask(&mut stage, 0, 0, 5);
    stage.ask(waits);
    stage.heard(idle);
    let grace = Duration::from_secs(1);
    stage.world.handle_mail(stage.now, Mail::Drain { grace });
    stage.settle();
    assert_eq!(stage.code(idle), "421");
    assert_eq!(stage.heard(waits), "", "its transaction goes on");
    stage.sleep(Duration::from_millis(1100));
    assert_eq!(stage.code(waits), "421", "until the grace is over");
    stage.sleep(Duration::from_secs(5));
    assert!(stage.world.is_over());
    stage.assert_empty();
}

#[test]
fn a_defect_ends_its_own_session_and_its_inquiry() {
    let mut stage = open(rejecting());
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 5);
    ask(&mut stage, 1, -9, 0);
    answer(&mut stage, asker, Some(9));
    stage.ask(client);
    stage.world.wire.explosive = Some(client);
    stage.sleep(Duration::from_secs(4));
    assert_eq!(stage.counters.panics.value(), 1);
    assert!(stage.closed(client).is_some());
    stage.assert_empty();
}

#[test]
fn answers_to_what_is_not_asked_any_more_find_nobody() {
    let mut stage = open(rejecting());
    let client = stage.client();
    let first = ask(&mut stage, 0, 0, 5);
    let inquiry = inquiry(&stage);
    let entry = stage.world.inquiries.get_mut(inquiry).expect("it is open");
    assert!(entry.awaits(About::Zone(0)));
    entry.drop_question(About::Zone(0));
    let second = ask(&mut stage, 0, 0, 5);
    assert_ne!(first, second);
    stage.ask(client);
    answer(&mut stage, first, None);
    assert!(stage.legs(1).is_empty(), "it was another question");
    answer(&mut stage, second, None);
    assert_eq!(stage.legs(1).len(), 1);
    // Whoever is gone is not found either.
    stage.reset(client);
    answer(&mut stage, second, None);
    stage.assert_empty();
}

#[test]
fn what_a_session_outlives_is_looked_into_again() {
    let mut stage = open(rejecting());
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 9);
    answer(&mut stage, asker, Some(9));
    stage.ask(client);
    assert_eq!(stage.code(client), "550");
    stage.sleep(Duration::from_secs(61));
    stage.say(client, "RSET\r\nMAIL FROM:<a@c.example>\r\n");
    stage.heard(client);
    stage.say(client, "RCPT TO:<b@d.example>\r\n");
    assert_eq!(
        stage.heard(client),
        "",
        "not listed any more, as far as is known"
    );
    assert_eq!(stage.legs(1).len(), 1);
}

#[test]
fn a_session_that_is_another_clients_is_inquired_of_anew() {
    let network = "198.51.100.0/24".parse().expect("a network");
    let trust = [network].into_iter().collect();
    let config = WorldConfig {
        proxied: ProxiedConfig {
            trust: Arc::new(trust),
            ..ProxiedConfig::default()
        },
        ..rejecting()
    };
    let mut stage = open(config);
    let client = stage.client();
    let of_proxy = ask(&mut stage, 0, 0, 9);
    answer(&mut stage, of_proxy, Some(9));
    stage.say(client, "EHLO proxy.example\r\nXCLIENT ADDR=203.0.113.9\r\n");
    stage.heard(client);
    let inquiry = inquiry(&stage);
    let entry = stage.world.inquiries.get(inquiry).expect("a new one");
    assert_eq!(entry.ip.to_string(), "203.0.113.9");
    assert_eq!((entry.dossier.score(), stage.world.inquiries.len()), (0, 1));
    answer(&mut stage, of_proxy, None);
    stage.ask(client);
    assert_eq!(stage.legs(1).len(), 1, "what the proxy is does not matter");
}

#[test]
fn an_inquiry_survives_the_greet_wait_behind_a_handshake() {
    use crate::tls::testing::{client_config, name};
    let tls = super::secure::with_tls(crate::net::ClientTls::Implicit);
    let mut config = WorldConfig {
        services: tls.services,
        tls: tls.tls,
        ..rejecting()
    };
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = open(config);
    let slot = stage.client();
    let asker = ask(&mut stage, 0, 0, 9);
    let client = rustls::ClientConnection::new(client_config(&[&rustls::version::TLS13]), name());
    let mut client = super::secure::Client::of(slot, client.expect("a client").into());
    client.turn(&mut stage);
    assert_eq!((stage.world.pit.len(), stage.world.inquiries.len()), (1, 1));
    answer(&mut stage, asker, Some(9));
    assert_eq!(found(&stage, Finding::Dnsbl, Action::Log), 0, "to whom?");
    stage.sleep(Duration::from_secs(6));
    assert_eq!(found(&stage, Finding::Dnsbl, Action::Log), 1);
    client.say(&mut stage, "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    assert!(client.heard(&mut stage).contains("550 5.7.1"));
    stage.reset(slot);
    stage.assert_empty();
}

#[test]
fn who_leaves_in_its_greet_wait_is_counted_with_its_score() {
    let mut config = rejecting();
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = open(config);
    let client = stage.client();
    stage.hang_up(client);
    let zero = crate::metrics::ScoreRange::Zero;
    assert_eq!(stage.counters.scores.at(zero).value(), 1);
    stage.assert_empty();
}

#[test]
fn waits_are_counted_by_how_they_ended() {
    use crate::metrics::Waited;
    let mut stage = open(rejecting());
    let waits = |stage: &Stage| {
        [Waited::Answered, Waited::Expired, Waited::Left]
            .map(|end| stage.counters.recipient_waits.at(end).value())
    };
    let client = stage.client();
    let asker = ask(&mut stage, 0, 0, 5);
    stage.ask(client);
    answer(&mut stage, asker, Some(5));
    assert_eq!(waits(&stage), [1, 0, 0]);
    stage.reset(client);
    let client = stage.client();
    ask(&mut stage, 0, 0, 5);
    stage.ask(client);
    stage.sleep(Duration::from_secs(4));
    assert_eq!(waits(&stage), [1, 1, 0]);
    stage.reset(client);
    let client = stage.client();
    ask(&mut stage, 0, 0, 5);
    stage.ask(client);
    stage.reset(client);
    assert_eq!(waits(&stage), [1, 1, 1]);
    stage.assert_empty();
}

#[test]
fn what_is_found_of_an_address_is_told_after_the_greet_wait() {
    for on in [true, false] {
        let mut config = asking(&["deny-list=log,score=2"], &[(Finding::ScoreDelay, 2)]);
        let mut policy = policy::Config::clone(&config.policy);
        policy.reputation.on = on;
        config.policy = Arc::new(policy);
        config.session.greet_wait = Duration::from_secs(5);
        let mut stage = open(config);
        let lists = policy::access::Access::of_clients("", "198.51.100.0/24");
        let lists = Mail::Access(Arc::new(lists));
        stage.world.handle_mail(stage.now, lists);
        let (stays, leaves) = (stage.client(), stage.client());
        stage.hang_up(leaves);
        assert_eq!(found(&stage, Finding::DenyList, Action::Log), 0);
        stage.sleep(Duration::from_secs(6));
        assert_eq!(found(&stage, Finding::DenyList, Action::Log), 1);
        let steps = found(&stage, Finding::ScoreDelay, Action::Log);
        assert_eq!(steps, u64::from(on));
        stage.reset(stays);
        stage.assert_empty();
    }
}

#[test]
fn who_is_to_be_dropped_hears_so_instead_of_a_greeting() {
    let mut config = asking(&["score-drop=drop"], &[(Finding::ScoreDrop, 8)]);
    config.session.greet_wait = Duration::from_secs(5);
    let mut stage = open(config);
    let client = stage.client();
    let key = stage.world.inquiries.keys().next().expect("one");
    let asker = ask_about(&mut stage, key, 0, 0, 9);
    answer(&mut stage, asker, Some(8));
    stage.heard(client);
    stage.sleep(Duration::from_secs(6));
    assert_eq!(stage.code(client), "521");
    stage.hang_up(client);
    stage.assert_empty();
}

#[test]
fn who_has_authenticated_is_not_judged_by_its_address() {
    let mut config = asking(
        &["score-reject=reject", "score-delay=delay"],
        &[(Finding::ScoreReject, 5), (Finding::ScoreDelay, 5)],
    );
    config.identity = crate::route::Identity::ProxyV1;
    let mut stage = open(config);
    let client = stage.client();
    let leg = stage.legs(1)[0];
    stage.say(leg, "220 mx.example ESMTP\r\n");
    stage.say(client, "EHLO c.example\r\n");
    stage.say(leg, "250-mx.example\r\n250 AUTH PLAIN\r\n");
    let asker = ask(&mut stage, 0, 0, 9);
    ask(&mut stage, 1, -9, 9);
    answer(&mut stage, asker, Some(9));
    stage.say(client, "AUTH PLAIN AGpvAHNlY3JldA==\r\n");
    stage.sleep(Duration::from_secs(2));
    stage.say(leg, "235 2.7.0 Authentication successful\r\n");
    stage.sleep(Duration::from_secs(2));
    stage.say(client, "MAIL FROM:<a@c.example>\r\n");
    stage.sleep(Duration::from_millis(1100));
    stage.say(leg, "250 2.1.0 Ok\r\n");
    stage.sleep(Duration::from_millis(1100));
    stage.heard(leg);
    stage.heard(client);
    stage.say(client, "RCPT TO:<b@d.example>\r\n");
    stage.sleep(Duration::from_millis(1100));
    assert_eq!(stage.heard(leg), "RCPT TO:<b@d.example>\r\n");
    stage.reset(client);
    stage.assert_empty();
}

#[test]
fn who_may_have_to_be_rejected_only_is_not_dropped() {
    let mut stage = open(asking(
        &["score-drop=drop", "score-reject=reject"],
        &[(Finding::ScoreReject, 8), (Finding::ScoreDrop, 12)],
    ));
    let client = stage.client();
    let bad = ask(&mut stage, 0, 0, 12);
    let good = ask(&mut stage, 1, -3, 0);
    answer(&mut stage, bad, Some(12));
    stage.ask(client);
    assert_eq!(stage.code(client), "550", "in any case, and at once");
    // Its score is one to be dropped for; what is told is what was done.
    for step in [Finding::ScoreReject, Finding::ScoreDrop] {
        let told = Action::ALL.map(|action| found(&stage, step, action));
        assert_eq!(told[Action::Reject as usize], 1, "{step}");
        assert_eq!(told.iter().sum::<u64>(), 1, "{step}");
    }
    stage.say(client, "RSET\r\n");
    assert_eq!(stage.code(client), "250");
    answer(&mut stage, good, None);
    stage.say(client, "MAIL FROM:<a@c.example>\r\n");
    assert_eq!(stage.code(client), "521");
}
