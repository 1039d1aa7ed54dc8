//! The resolver's sockets: questions leave in datagrams, answers are heard, what fails fails alone, nothing stays open.

use std::net::Ipv4Addr;

use super::*;
use crate::dns::{Failure, Kind, Name, Outcome, Question, Records};
use crate::metrics::{DnsAnswer, DnsQuestion, DnsWay};
use crate::shard::lookups::Asker;

const ASKER: Asker = Asker::TestPoint(0, 0);

fn asked_at(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 53))
}

fn stage(servers: u8) -> Stage {
    let mut config = settings();
    config.resolver.servers = (1..=servers).map(asked_at).collect();
    Stage::new(config, 1, 10)
}

fn question(name: &str) -> Question {
    Question {
        name: Name::parse(name.as_bytes()).expect("a name"),
        kind: Kind::A,
    }
}

/// Sockets to DNS servers that are open.
fn lanes(stage: &mut Stage) -> Vec<SlotId> {
    let sockets = stage.world.wire.sockets.iter().enumerate();
    let open = sockets.filter(|(_, socket)| {
        socket.closed.is_none() && socket.to.is_some_and(|to| to.port() == 53)
    });
    open.map(|(index, _)| SlotId(index as u32)).collect()
}

/// Queries sent as datagrams, with their sockets, and not seen before.
fn queries(stage: &mut Stage) -> Vec<(SlotId, Vec<u8>)> {
    let mut found = Vec::new();
    for slot in lanes(stage) {
        let datagrams = stage.world.wire.socket(slot).datagrams.as_mut();
        let new = datagrams.map(std::mem::take).unwrap_or_default();
        found.extend(new.into_iter().map(|query| (slot, query)));
    }
    found
}

/// The query as an answer: its header and question, and an address, or with the flag of truncation none.
fn reply(query: &[u8], truncated: bool) -> Vec<u8> {
    let name = 12
        + query[12..]
            .iter()
            .position(|octet| *octet == 0)
            .expect("a name")
        + 1;
    let mut reply = query[..name + 4].to_vec();
    reply[2] = 0x81 | u8::from(truncated) << 1;
    reply[3] = 0x80;
    reply[4..12].copy_from_slice(&[0, 1, 0, u8::from(!truncated), 0, 0, 0, 0]);
    if !truncated {
        // A pointer to the name, A, IN, 60 seconds, four octets.
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 2]);
    }
    reply
}

fn hear(stage: &mut Stage, slot: SlotId, bytes: Vec<u8>) {
    stage.world.wire.due.push_back(Due::Received(slot, bytes));
    stage.settle();
}

/// What is known by now.
fn known(stage: &mut Stage, name: &str) -> Outcome {
    let answer = stage.world.look_up(&question(name), ASKER);
    answer.expect("it is known").outcome
}

fn listed() -> Outcome {
    Outcome::Records(Records::A([Ipv4Addr::new(127, 0, 0, 2)].into()))
}

#[test]
fn a_question_is_one_datagram_and_its_answer_is_remembered() {
    let mut stage = stage(1);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    stage.settle();
    let sent = queries(&mut stage);
    assert_eq!(sent.len(), 1, "two askers, one query");
    let (slot, query) = &sent[0];
    hear(&mut stage, *slot, reply(query, false));
    assert_eq!(known(&mut stage, "a.example"), listed());
    stage.settle();
    assert_eq!(queries(&mut stage), []);
    assert_eq!(stage.world.wire.buffers.len(), 0);
}

#[test]
fn what_is_asked_afresh_is_asked_although_it_is_known() {
    let mut stage = stage(1);
    for _ in 0..2 {
        let answer = stage.world.look_up_afresh(&question("a.example"), ASKER);
        assert_eq!(answer, None);
        stage.settle();
        let (slot, query) = queries(&mut stage).pop().expect("it is asked");
        hear(&mut stage, slot, reply(&query, false));
        assert_eq!(known(&mut stage, "a.example"), listed());
    }
}

#[test]
fn questions_that_share_a_socket_follow_each_other() {
    let mut stage = stage(1);
    for number in 0..200 {
        let name = format!("{number}.example");
        assert_eq!(stage.world.look_up(&question(&name), ASKER), None);
    }
    stage.settle();
    assert!(lanes(&mut stage).len() <= 16, "they share few sockets");
    let sent = queries(&mut stage);
    assert_eq!(sent.len(), 200);
    for (slot, query) in sent {
        hear(&mut stage, slot, reply(&query, false));
    }
    for number in 0..200 {
        assert_eq!(known(&mut stage, &format!("{number}.example")), listed());
    }
}

#[test]
fn a_server_that_is_not_there_is_left_for_the_next() {
    let mut stage = stage(2);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    stage.settle();
    // Of nobody is known yet who is there, so both are asked.
    let mut asked = queries(&mut stage);
    let to = |stage: &mut Stage, slot| stage.world.wire.socket(slot).to;
    asked.sort_by_key(|(slot, _)| to(&mut stage, *slot));
    assert_eq!(asked.len(), 2);
    let slot = asked[0].0;
    let refused = io::ErrorKind::ConnectionRefused;
    let ended = Due::Ended(slot, ReceiveEnd::Reset(refused.into()));
    stage.world.wire.due.push_back(ended);
    stage.settle();
    let (other, query) = asked.pop().expect("the next is asked");
    assert_eq!(to(&mut stage, other), Some(asked_at(2)));
    assert!(stage.world.wire.socket(slot).closed.is_some());
    hear(&mut stage, other, reply(&query, false));
    assert_eq!(known(&mut stage, "a.example"), listed());
}

#[test]
fn what_does_not_fit_a_datagram_comes_by_a_connection() {
    let mut stage = stage(1);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    stage.settle();
    let (slot, query) = queries(&mut stage).pop().expect("it is asked");
    hear(&mut stage, slot, reply(&query, true));
    let stream = *lanes(&mut stage).last().expect("a connection");
    assert!(stage.world.wire.socket(stream).datagrams.is_none());
    let sent = std::mem::take(&mut stage.world.wire.socket(stream).sent);
    let answer = reply(&sent[2..], false);
    let mut octets = (answer.len() as u16).to_be_bytes().to_vec();
    octets.extend(answer);
    let rest = octets.split_off(7);
    hear(&mut stage, stream, octets);
    hear(&mut stage, stream, rest);
    assert_eq!(known(&mut stage, "a.example"), listed());
    stage.sleep(Duration::from_secs(60));
    assert!(
        stage.world.wire.socket(stream).closed.is_some(),
        "it is idle"
    );
}

#[test]
fn what_it_does_is_counted_and_who_is_silent_is_told() {
    let mut stage = stage(2);
    for number in 0..5 {
        let name = format!("{number}.example");
        assert_eq!(stage.world.look_up(&question(&name), ASKER), None);
        assert_eq!(stage.world.look_up(&question(&name), ASKER), None);
        stage.sleep(Duration::from_secs(3));
        for (slot, query) in queries(&mut stage) {
            if stage.world.wire.socket(slot).to == Some(asked_at(2)) {
                hear(&mut stage, slot, reply(&query, false));
            }
        }
        assert_eq!(known(&mut stage, &name), listed());
    }
    stage.sleep(Duration::from_secs(2));
    let counters = &stage.counters;
    let questions = &counters.dns_questions;
    assert_eq!(questions.at(DnsQuestion::Asked).value(), 5);
    assert_eq!(questions.at(DnsQuestion::Joined).value(), 5);
    assert_eq!(questions.at(DnsQuestion::Known).value(), 5);
    assert_eq!(counters.dns_answers.at(DnsAnswer::Records).value(), 5);
    assert!(counters.dns_queries.at(DnsWay::Datagram).value() >= 8);
    assert!(counters.dns_missed.value() >= 3);
    let servers = (
        counters.dns_servers.value(),
        counters.dns_servers_up.value(),
    );
    assert_eq!(servers, (2, 1));
    assert_eq!(counters.dns_cached.value(), 5);
    assert_eq!(counters.dns_open.value(), 0);
}

#[test]
fn silence_is_no_answer_and_leaves_nothing_behind() {
    let mut stage = stage(2);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    stage.sleep(Duration::from_secs(6));
    assert!(queries(&mut stage).len() >= 2, "both were asked");
    let failed = Outcome::Failed(Failure::Timeout);
    assert_eq!(known(&mut stage, "a.example"), failed);
}

#[test]
fn without_slots_nothing_is_known() {
    let mut stage = stage(1);
    stage.world.wire.slots_max = 0;
    let answer = stage.world.look_up(&question("a.example"), ASKER);
    assert_eq!(answer, None);
    stage.sleep(Duration::from_secs(6));
    assert!(matches!(known(&mut stage, "a.example"), Outcome::Failed(_)));
    assert_eq!(lanes(&mut stage), []);
}

#[test]
fn other_servers_are_asked_as_soon_as_they_are_known() {
    let mut stage = stage(1);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    stage.settle();
    let (old, _) = queries(&mut stage)[0];
    let servers = Mail::Resolvers([asked_at(9)].into());
    stage.world.handle_mail(stage.now, servers);
    stage.settle();
    assert!(stage.world.wire.socket(old).closed.is_some());
    let (slot, query) = queries(&mut stage).pop().expect("it is asked again");
    assert_eq!(stage.world.wire.socket(slot).to, Some(asked_at(9)));
    hear(&mut stage, slot, reply(&query, false));
    assert_eq!(known(&mut stage, "a.example"), listed());
}

#[test]
fn a_defect_at_a_socket_costs_that_socket() {
    let mut stage = stage(1);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    // The socket that it will be sent from.
    stage.world.wire.explosive = Some(SlotId(stage.world.wire.sockets.len() as u32));
    stage.defects += 1;
    stage.settle();
    stage.world.wire.explosive = None;
    stage.sleep(Duration::from_secs(1));
    let (slot, query) = queries(&mut stage).pop().expect("it is asked again");
    hear(&mut stage, slot, reply(&query, false));
    assert_eq!(known(&mut stage, "a.example"), listed());
}

#[test]
fn a_drain_closes_what_is_open() {
    let mut stage = stage(1);
    assert_eq!(stage.world.look_up(&question("a.example"), ASKER), None);
    stage.settle();
    assert_eq!(lanes(&mut stage).len(), 1);
    let grace = Duration::from_secs(1);
    stage.world.handle_mail(stage.now, Mail::Drain { grace });
    stage.sleep(Duration::from_secs(2));
    assert_eq!(lanes(&mut stage), []);
    assert!(stage.world.is_over());
    stage
        .world
        .handle_mail(stage.now, Mail::Resolvers([asked_at(9)].into()));
    let answer = stage.world.look_up(&question("b.example"), ASKER);
    let answer = answer.expect("at once");
    assert_eq!(answer.outcome, Outcome::Failed(Failure::NoServer));
}
