//! Clients behind proxies: headers whole, cut, missing and forged, and the way to the shard that owns the client.

use super::*;
use crate::metrics::{Ended, Introduced};
use crate::net::{ClientPrefix, Service, shard_of};
use crate::policy::Finding;

const LINE: &str = "PROXY TCP4 203.0.113.9 192.0.2.25 54321 25\r\n";
const TIMEOUT: Duration = Duration::from_secs(5);

/// All of the stage's peers may speak for others, on a listener where they have to.
fn trusting(owners: usize) -> WorldConfig {
    let trust: policy::access::Networks<()> = ["198.51.100.0/24".parse().expect("a network")]
        .into_iter()
        .collect();
    let service = Service {
        proxy: true,
        ..Service::default()
    };
    WorldConfig {
        services: vec![service].into(),
        proxied: ProxiedConfig {
            trust: Arc::new(trust),
            wait: TIMEOUT,
            owners,
        },
        ..settings()
    }
}

fn stage() -> Stage {
    Stage::new(trusting(1), 1, 10)
}

fn introduced(stage: &Stage, how: Introduced) -> u64 {
    stage.counters.introductions.at(how).value()
}

/// The clients of all sessions.
fn clients(stage: &Stage) -> Vec<SocketAddr> {
    let sessions = stage.world.sessions.iter();
    sessions.map(|(_, session)| session.peer.into()).collect()
}

fn found(stage: &Stage, finding: Finding) -> u64 {
    let actions = policy::Action::ALL.iter();
    let of = |action: &policy::Action| {
        stage
            .counters
            .findings
            .at(finding as usize, *action as usize)
            .value()
    };
    actions.map(of).sum()
}

#[test]
fn the_client_is_whom_the_header_names() {
    let mut stage = stage();
    let slot = stage.client();
    assert_eq!(stage.heard(slot), "", "nobody is greeted before");
    stage.say(slot, LINE);
    assert_eq!(stage.heard(slot), "220 weir.example ESMTP\r\n");
    assert_eq!(clients(&stage), ["203.0.113.9:54321".parse().unwrap()]);
    let (_, session) = stage.world.sessions.iter().next().expect("one");
    let told = session.introduction.as_ref().expect("it was introduced");
    assert_eq!(told.by, Some("198.51.100.1:40000".parse().unwrap()));
    assert_eq!(told.destination, Some("192.0.2.25:25".parse().unwrap()));
    stage.ask(slot);
    let leg = stage.legs(1)[0];
    stage.greet(leg);
    stage.deliver(slot, leg);
    stage.say(slot, "QUIT\r\n");
    stage.assert_empty();
    assert_eq!(introduced(&stage, Introduced::Client), 1);
}

#[test]
fn a_header_is_read_at_every_cut() {
    for cut in 1..LINE.len() {
        let mut stage = stage();
        let slot = stage.client();
        stage.say(slot, &LINE[..cut]);
        assert_eq!(stage.heard(slot), "", "at {cut}");
        stage.say(slot, &LINE[cut..]);
        assert_eq!(stage.heard(slot), "220 weir.example ESMTP\r\n", "at {cut}");
        stage.say(slot, "QUIT\r\n");
        assert_eq!(stage.code(slot), "221");
        stage.assert_empty();
    }
}

#[test]
fn a_header_that_came_with_the_connection_needs_no_armed_receive() {
    let mut stage = stage();
    let slot = stage.arrive();
    stage.world.wire.socket(slot).unread = LINE.into();
    stage.settle();
    assert_eq!(stage.heard(slot), "220 weir.example ESMTP\r\n");
}

#[test]
fn limits_are_the_clients_own() {
    let config = policy::Config {
        concurrency: policy::concurrency::Limit(1),
        ..policy::Config::default()
    };
    let mut stage = Stage::new(
        WorldConfig {
            policy: Arc::new(config),
            ..trusting(1)
        },
        1,
        10,
    );
    let (first, second, other) = (stage.client(), stage.client(), stage.client());
    stage.say(first, LINE);
    stage.say(second, LINE);
    stage.say(other, &LINE.replace("203.0.113.9", "203.0.113.10"));
    assert_eq!(stage.code(first), "220");
    assert_eq!(stage.code(second), "421", "the same client again");
    assert_eq!(stage.code(other), "220", "not the proxy's count");
}

#[test]
fn a_proxy_that_speaks_for_itself_is_a_client() {
    let mut stage = stage();
    let slot = stage.client();
    stage.say(slot, "PROXY UNKNOWN\r\n");
    assert_eq!(stage.heard(slot), "220 weir.example ESMTP\r\n");
    assert_eq!(clients(&stage), ["198.51.100.1:40000".parse().unwrap()]);
    assert_eq!(introduced(&stage, Introduced::Itself), 1);
}

#[test]
fn who_brings_no_header_is_dropped() {
    let mut stage = stage();
    let silent = stage.client();
    stage.sleep(TIMEOUT - Duration::from_millis(20));
    assert_eq!(stage.closed(silent), None);
    stage.sleep(Duration::from_millis(40));
    assert_eq!(stage.closed(silent), Some(Close::Now));
    let slow = stage.client();
    stage.say(slow, &LINE[..20]);
    stage.sleep(TIMEOUT + Duration::from_millis(20));
    assert_eq!(stage.closed(slow), Some(Close::Now));
    assert_eq!(introduced(&stage, Introduced::Timeout), 2);
    for text in [
        "EHLO there\r\n",
        "PROXY TCP4 nobody\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let slot = stage.client();
        stage.say(slot, text);
        assert_eq!(stage.heard(slot), "");
        assert_eq!(stage.closed(slot), Some(Close::Now), "{text:?}");
    }
    assert_eq!(introduced(&stage, Introduced::Malformed), 3);
    let check = stage.client();
    stage.hang_up(check);
    assert_eq!(introduced(&stage, Introduced::Closed), 1);
    stage.assert_empty();
}

#[test]
fn a_client_introduced_in_time_is_not_dropped_later() {
    let mut stage = stage();
    let slot = stage.client();
    stage.sleep(TIMEOUT - Duration::from_millis(20));
    stage.say(slot, LINE);
    stage.sleep(TIMEOUT);
    assert_eq!(stage.closed(slot), None);
    assert_eq!(introduced(&stage, Introduced::Timeout), 0);
}

#[test]
fn commands_behind_the_header_are_early_talk() {
    let mut config = trusting(1);
    config.session.greet_wait = Duration::from_secs(2);
    let mut stage = Stage::new(config, 1, 10);
    let early = stage.client();
    stage.say(early, &format!("{LINE}EHLO early.example\r\n"));
    assert_eq!(found(&stage, Finding::Pregreet), 1);
    assert!(
        stage
            .heard(early)
            .starts_with("220 weir.example ESMTP\r\n250")
    );
    let polite = stage.client();
    stage.say(polite, LINE);
    assert_eq!(stage.heard(polite), "220-weir.example ESMTP weir\r\n");
    stage.sleep(Duration::from_millis(2100));
    assert_eq!(stage.heard(polite), "220 weir.example ESMTP\r\n");
    assert_eq!(found(&stage, Finding::Pregreet), 1);
    let peer = "203.0.113.9:54321".parse().unwrap();
    assert_eq!(clients(&stage), [peer, peer]);
    let sessions: Vec<_> = stage.world.sessions.iter().collect();
    assert!(
        sessions
            .iter()
            .all(|(_, session)| session.introduction.is_some())
    );
}

#[test]
fn headers_of_those_who_may_not_send_one_are_refused() {
    let untrusted = || Stage::new(settings(), 1, 10);
    for header in [LINE, "\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{c}aaaabbbbccdd"] {
        let mut stage = untrusted();
        let slot = stage.client();
        stage.heard(slot);
        stage.say(slot, header);
        assert!(stage.heard(slot).starts_with("554 5.7.0 "), "{header:?}");
        assert_eq!(stage.closed(slot), Some(Close::Linger));
        assert_eq!(found(&stage, Finding::ForgedProxy), 1);
        let ended = stage.counters.sessions_ended.at(Ended::Dropped).value();
        assert_eq!(ended, 1);
        stage.assert_empty();
    }
    // Later it is an unknown command.
    let mut stage = untrusted();
    let slot = stage.client();
    stage.say(slot, "EHLO c.example\r\n");
    stage.heard(slot);
    stage.say(slot, LINE);
    assert!(stage.code(slot).starts_with('5'));
    assert_eq!(stage.closed(slot), None);
    assert_eq!(found(&stage, Finding::ForgedProxy), 0);
}

#[test]
fn a_second_header_is_forged() {
    let mut stage = stage();
    let slot = stage.client();
    stage.say(slot, &LINE.repeat(2));
    assert!(stage.heard(slot).starts_with("554 5.7.0 "));
    let later = stage.client();
    stage.say(later, LINE);
    stage.heard(later);
    stage.say(later, LINE);
    assert!(stage.heard(later).starts_with("554 5.7.0 "));
    assert_eq!(found(&stage, Finding::ForgedProxy), 2);
    stage.world.let_go_of_aside();
    stage.assert_empty();
}

/// A client's address that this shard of two owns, or the other.
fn line_of(owner: usize) -> String {
    let own =
        |host: &u8| shard_of([203, 0, 113, *host].into(), 2, ClientPrefix::default()) == owner;
    let host = (1..=254).find(own).expect("both own some");
    LINE.replace("113.9", &format!("113.{host}"))
}

fn two_shards() -> [Stage; 2] {
    let shared = Arc::new(Shared::new(0));
    [0, 1].map(|shard| Stage::sharing(trusting(2), 1, 10, shared.clone(), shard))
}

#[test]
fn a_client_moves_to_the_shard_that_owns_it() {
    let [mut first, mut second] = two_shards();
    for cut in [0, 9] {
        let slot = first.client();
        let line = line_of(1) + "EHLO early.example\r\n";
        if cut > 0 {
            first.say(slot, &line[..cut]);
        }
        first.say(slot, &line[cut..]);
        assert_eq!(first.heard(slot), "", "another shard greets");
        assert_eq!(first.closed(slot), Some(Close::Now));
        assert!(first.world.sessions.is_empty() && first.world.proxied.is_empty());
        let mut letters = first.posted();
        let (to, letter) = letters.pop().expect("one");
        assert!(letters.is_empty() && to == To::Shard(1));
        assert_eq!(first.shared.clients(), 1, "on the way it is counted");
        second.world.handle_mail(second.now, letter);
        second.settle();
        let slot = SlotId(second.world.wire.sockets.len() as u32 - 1);
        assert!(
            second
                .heard(slot)
                .starts_with("220 weir.example ESMTP\r\n250")
        );
        second.say(slot, "QUIT\r\n");
        assert_eq!(second.code(slot), "221");
        second.world.let_go_of_aside();
        second.assert_empty();
    }
    assert_eq!(first.counters.handed_over.value(), 2);
    let slot = first.client();
    first.say(slot, &line_of(0));
    assert_eq!(first.code(slot), "220", "at home");
}

#[test]
fn a_client_that_cannot_move_stays() {
    let [mut first, _] = two_shards();
    first.world.wire.holds_fast = true;
    let slot = first.client();
    first.say(slot, &line_of(1));
    assert_eq!(first.code(slot), "220");
    assert!(first.posted().is_empty());
}

#[test]
fn a_lost_letter_gives_up_its_place() {
    let [mut first, mut second] = two_shards();
    let slot = first.client();
    first.say(slot, &line_of(1));
    drop(first.posted());
    first.assert_empty();
    // No slot is left there.
    second.world.wire.slots_max = 0;
    let slot = first.client();
    first.say(slot, &line_of(1));
    for (_, letter) in first.posted() {
        second.world.handle_mail(second.now, letter);
    }
    second.assert_empty();
}

#[test]
fn a_drain_tells_those_who_are_not_known_yet() {
    let [mut first, mut second] = two_shards();
    let waiting = first.client();
    let moving = first.client();
    first.say(moving, &line_of(1));
    let drain = Mail::Drain {
        grace: Duration::from_secs(1),
    };
    first.world.handle_mail(first.now, drain.clone());
    first.settle();
    assert_eq!(first.code(waiting), "421");
    assert!(first.world.is_over());
    second.world.handle_mail(second.now, drain);
    for (_, letter) in first.posted() {
        second.world.handle_mail(second.now, letter);
    }
    second.settle();
    assert_eq!(second.code(SlotId(0)), "421");
    second.assert_empty();
}
