//! Tests of flights: what leaves together, to the upstream and to the client.
//!
//! Method: a pair whose upstream answers as one far away does, each flight when all of it is there; the flights are counted.

use alloc::string::String;
use alloc::vec::Vec;

use super::pair::{BARE, FULL, PLAIN, Pair};

const GROUP: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n";
const BODY: &str = "Subject: x\r\n\r\n..dot\r\n.\r\n";
const WHOLE: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 6 LAST\r\nx: y\r\n";

/// Answers one flight, each of its commands. Lines of a body are none.
fn answer(pair: &mut Pair) -> String {
    let flight = pair.sent_up();
    let replies: String = match flight.as_str() {
        "DATA\r\n" => "354 go\r\n".into(),
        body if body.ends_with("\r\n.\r\n") => "250 queued\r\n".into(),
        commands => commands.lines().filter_map(reply_to).collect(),
    };
    pair.reply(&replies);
    flight
}

fn reply_to(command: &str) -> Option<&'static str> {
    let verbs = ["MAIL ", "RCPT ", "BDAT ", "RSET"];
    verbs
        .iter()
        .any(|verb| command.starts_with(verb))
        .then_some("250 ok\r\n")
}

/// Answers until nothing more is sent; the verbs of each flight.
fn flights(pair: &mut Pair) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let flight = answer(pair);
        if flight.is_empty() {
            return seen;
        }
        let verbs = flight.lines().filter_map(|line| line.get(..4));
        seen.push(verbs.collect::<Vec<_>>().join(" "));
    }
}

#[test]
fn two_round_trips_with_chunking_and_three_without() {
    for (ehlo, body) in [
        (FULL, &["BDAT Subj .dot"][..]),
        (PLAIN, &["DATA", "Subj ..do"][..]),
    ] {
        let mut pair = Pair::greeted(ehlo, usize::MAX);
        pair.say(GROUP);
        assert_eq!(flights(&mut pair), ["MAIL RCPT RCPT"]);
        pair.say(BODY);
        let seen = flights(&mut pair);
        assert_eq!(seen.len(), body.len(), "{seen:?}");
        assert_eq!(pair.agreed, 1);
        pair.nothing_leaked();
    }
}

#[test]
fn a_transaction_behind_another_costs_no_more() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say(&[WHOLE, WHOLE].concat());
    let seen = flights(&mut pair);
    assert_eq!(seen, ["MAIL RCPT", "BDAT x: y", "MAIL RCPT", "BDAT x: y"]);
    assert_eq!(pair.agreed, 2);
}

#[test]
fn a_replayed_envelope_is_one_flight() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say(GROUP);
    flights(&mut pair);
    pair.now = pair.relay.deadline();
    pair.call(|relay, cx| relay.handle_timeout(cx));
    assert_eq!(pair.sent_up(), "", "given back; RSET is the driver's");
    pair.say(BODY);
    assert_eq!(flights(&mut pair).len(), 2);
    assert_eq!(pair.agreed, 1);
}

#[test]
fn without_pipelining_each_command_is_a_flight() {
    let mut pair = Pair::greeted(BARE, usize::MAX);
    pair.say(GROUP);
    assert_eq!(flights(&mut pair), ["MAIL", "RCPT", "RCPT"]);
}

#[test]
fn a_reply_is_owed_while_the_upstream_has_to_make_one() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\n");
    assert!(!pair.relay.owes_reply(), "MAIL is answered");
    pair.say("RCPT TO:<c@d>\r\n");
    assert!(pair.relay.owes_reply());
    answer(&mut pair);
    assert!(!pair.relay.owes_reply(), "the client is next");
    pair.say("RCPT TO:<e@f>\r\nBDAT 6 LAST\r\n");
    assert!(pair.relay.owes_reply());
    answer(&mut pair);
    assert!(!pair.relay.owes_reply(), "the chunk has not come");
    pair.say("x: y\r\n");
    assert!(pair.relay.owes_reply());
    answer(&mut pair);
    assert!(!pair.relay.owes_reply());
}

#[test]
fn a_closed_session_owes_nothing() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    pair.call(|relay, cx| relay.refuse(cx, &crate::texts::SHUTDOWN));
    assert!(!pair.relay.owes_reply());
}
