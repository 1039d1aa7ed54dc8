//! What a shard tells of an address: at once what it remembers, and what an inquiry finds when it is over.

use std::net::IpAddr;
use std::sync::Mutex;

use super::*;
use crate::dns::{Answer, Failure, Kind, Name, Outcome, Question};
use crate::policy::access::{Access, Listed};
use crate::policy::dossier::{Detail, Mark};
use crate::policy::reputation::{self, Stakes};
use crate::policy::{Action, Actions, Finding, On, Temper};
use crate::policy::{greylist, memory};
use crate::shard::explain::{Explain, Explanation, PATIENCE};
use crate::shard::lookups::{About, Asker};

type Told = Arc<Mutex<Vec<Explanation>>>;

fn question(ip: IpAddr) -> (Explain, Told) {
    let told = Told::default();
    let tells = told.clone();
    let tell = move |explanation| tells.lock().unwrap().push(explanation);
    let tell = Arc::new(tell);
    (Explain { ip, tell }, told)
}

fn ask(stage: &mut Stage, ip: &str) -> Told {
    let (asked, told) = question(ip.parse().expect("an address"));
    stage.world.handle_mail(stage.now, Mail::Explain(asked));
    told
}

fn only(told: &Told) -> Explanation {
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "each shard tells once");
    told[0].clone()
}

fn config(on: &[&str], reputation: bool) -> WorldConfig {
    let on = on
        .iter()
        .map(|on| on.parse::<On>().expect("a finding and an action"));
    let mut reputation = reputation::Config {
        on: reputation,
        ..reputation::Config::default()
    };
    reputation.thresholds.set(Finding::ScoreReject, Some(5));
    reputation.thresholds.set(Finding::ScoreDelay, Some(3));
    WorldConfig {
        policy: Arc::new(policy::Config {
            actions: on.collect::<Actions>(),
            reputation,
            rate_messages: "10/m".parse().expect("a rate"),
            ..policy::Config::default()
        }),
        ..settings()
    }
}

/// The shard that all addresses belong to.
fn home(config: WorldConfig) -> Stage {
    Stage::sharing(config, 1, 10, Arc::new(Shared::new(0)), 0)
}

#[test]
fn of_a_stranger_there_is_nothing_to_tell() {
    let mut stage = home(config(&[], false));
    let explanation = only(&ask(&mut stage, "203.0.113.9"));
    assert!(explanation.remembered.is_none() && explanation.sessions.is_empty());
    let home = explanation.home.expect("there is one shard");
    assert_eq!(
        (home.listed, home.reputation, home.found.score),
        (None, false, 0)
    );
    assert_eq!(
        (home.would.refuse, home.would.temper),
        (None, Temper::Normal)
    );
}

#[test]
fn limits_of_a_client_are_told_and_not_touched() {
    let mut stage = home(config(&[], false));
    let client = stage.client();
    stage.say(client, "EHLO c.example\r\nMAIL FROM:<a@c.example>\r\n");
    let (_, session) = stage.world.sessions.iter().next().expect("a session");
    let ip = SocketAddr::from(session.peer).ip().to_string();
    for _ in 0..3 {
        let remembered = only(&ask(&mut stage, &ip))
            .remembered
            .expect("it is connected");
        assert_eq!(remembered.connections, 1);
        let [(finding, _, left)] = remembered.rates[..] else {
            panic!("one rate is limited");
        };
        assert_eq!((finding, left), (Finding::RateMessages, 9));
    }
}

#[test]
fn who_is_on_a_list_is_not_let_in_or_let_through() {
    let mut stage = home(config(&[], false));
    let access = Access::of_clients("192.0.2.1", "192.0.2.0/24");
    stage
        .world
        .handle_mail(stage.now, Mail::Access(Arc::new(access)));
    for (ip, listed, refuse) in [
        ("192.0.2.1", Some(Listed::Allow), None),
        (
            "::ffff:192.0.2.7",
            Some(Listed::Deny),
            Some(("connect", Finding::DenyList, Action::Drop)),
        ),
        ("198.51.100.1", None, None),
    ] {
        let home = only(&ask(&mut stage, ip)).home.expect("there is one shard");
        assert_eq!((home.listed, home.would.refuse), (listed, refuse), "{ip}");
    }
}

/// An address is asked about, and this question of its inquiry stays open.
fn inquired(stage: &mut Stage) -> (Told, Asker) {
    let (asked, told) = question("203.0.113.9".parse().expect("an address"));
    let world = &mut stage.world;
    world.asked = Some(Vec::new());
    world.now = stage.now;
    let inquiry = world
        .begin_explained(asked.ip, stage.now + PATIENCE)
        .expect("there is room");
    world.explaining.add(inquiry, asked);
    let question = Question {
        name: Name::parse(b"list.example").expect("a name"),
        kind: Kind::A,
    };
    world.inquire(inquiry, About::Zone(7), &question, Stakes::NONE);
    let asker = world.asked.as_ref().expect("questions stay open").last();
    (told, asker.expect("it was asked").1)
}

/// A list says so much of the client for a minute, and what was asked last is answered.
fn list(stage: &mut Stage, asker: Asker, weight: i16) {
    let Asker::Inquiry(inquiry, ..) = asker else {
        panic!("an inquiry's question");
    };
    let mark = Mark {
        finding: Finding::Dnsbl,
        weight,
        detail: Detail::Zone(7),
        until: stage.now + Duration::from_secs(60),
    };
    stage.world.mark(inquiry, mark);
    let answer = Answer {
        outcome: Outcome::NoName,
        until: stage.now,
    };
    stage.world.heard(asker, &answer);
}

#[test]
fn answers_are_waited_for_and_then_it_is_told_what_would_be() {
    let on = ["score-reject=reject", "score-delay=delay"];
    let mut stage = home(config(&on, true));
    let (told, asker) = inquired(&mut stage);
    assert!(told.lock().unwrap().is_empty());
    list(&mut stage, asker, 5);
    let home = only(&told).home.expect("it was inquired of");
    assert_eq!((home.found.score, home.unanswered.len()), (5, 0));
    assert_eq!(home.found.marks[0].holds, Some(Duration::from_secs(60)));
    assert_eq!(
        home.would.refuse,
        Some(("rcpt", Finding::ScoreReject, Action::Reject))
    );
    assert_eq!(home.would.temper, Temper::Delayed);
    assert!(stage.world.inquiries.is_empty(), "nothing is left of it");
}

#[test]
fn what_is_only_logged_is_told() {
    let mut config = config(&["score-reject=log", "greylist=log"], true);
    let changed = policy::Config {
        memory: memory::Config {
            on: true,
            greylist: greylist::Config {
                when: greylist::When::All,
                ..greylist::Config::default()
            },
            ..memory::Config::default()
        },
        ..(*config.policy).clone()
    };
    config.policy = Arc::new(changed);
    let mut stage = home(config);
    let (told, asker) = inquired(&mut stage);
    list(&mut stage, asker, 6);
    let would = only(&told).home.expect("it was inquired of").would;
    let logged = [Finding::ScoreDelay, Finding::ScoreReject, Finding::Greylist];
    assert_eq!(would.logged, logged);
    assert_eq!(
        (would.refuse, would.greylist, would.temper),
        (None, false, Temper::Normal)
    );
}

#[test]
fn answers_that_do_not_come_are_named() {
    let mut stage = home(config(&[], true));
    let (told, asker) = inquired(&mut stage);
    stage.sleep(PATIENCE - Duration::from_millis(100));
    assert!(told.lock().unwrap().is_empty());
    stage.sleep(Duration::from_millis(200));
    let home = only(&told).home.expect("it was inquired of");
    assert_eq!((home.unanswered.len(), home.would.refuse), (1, None));
    let late = Answer {
        outcome: Outcome::Failed(Failure::Timeout),
        until: stage.now,
    };
    stage.world.heard(asker, &late);
    assert!(stage.world.inquiries.is_empty());
}

#[test]
fn an_answer_that_says_nothing_is_no_answer() {
    let mut stage = home(config(&[], true));
    let (told, asker) = inquired(&mut stage);
    let failed = Answer {
        outcome: Outcome::Failed(Failure::Server),
        until: stage.now,
    };
    stage.world.heard(asker, &failed);
    let home = only(&told).home.expect("it was inquired of");
    assert_eq!((home.unanswered.len(), home.found.score), (1, 0));
}

#[test]
fn so_many_are_inquired_of_and_no_more() {
    let mut stage = home(config(&[], true));
    let open: Vec<Told> = (0..16).map(|_| inquired(&mut stage).0).collect();
    let home = only(&ask(&mut stage, "203.0.113.9"))
        .home
        .expect("one shard");
    assert!(home.busy);
    stage.world.asked = None;
    stage.sleep(PATIENCE + Duration::from_millis(100));
    assert!(
        open.iter()
            .all(|told| !only(told).home.expect("one shard").busy)
    );
    let home = only(&ask(&mut stage, "203.0.113.9"))
        .home
        .expect("one shard");
    assert!(!home.busy);
}

#[test]
fn a_shard_that_the_address_does_not_belong_to_tells_what_it_remembers() {
    let mut stage = Stage::new(config(&[], true), 1, 10);
    let client = stage.client();
    stage.say(client, "EHLO c.example\r\n");
    let (_, session) = stage.world.sessions.iter().next().expect("a session");
    let ip = SocketAddr::from(session.peer).ip().to_string();
    let explanation = only(&ask(&mut stage, &ip));
    assert!(explanation.home.is_none() && explanation.remembered.is_some());
    assert_eq!(explanation.sessions.len(), 1);
}
