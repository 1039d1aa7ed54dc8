//! Tests of what upstreams are told of a client on connections that it shares: XFORWARD and Received.

use super::pair::{BARE, FULL, Pair};
use super::*;

#[test]
fn a_message_is_stamped_once_however_often_data_was_tried() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.field = b"Received: by weir\r\n";
    pair.verdicts = |stage| match stage {
        Stage::Data => Verdict::Refuse(crate::texts::INTERNAL),
        _ => Verdict::Pass,
    };
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    pair.reply("250 ok\r\n250 ok\r\n");
    pair.say("DATA\r\n");
    pair.verdicts = |_| Verdict::Pass;
    pair.say("DATA\r\n");
    pair.sent_up();
    pair.say("x\r\n.\r\n");
    assert_eq!(pair.sent_up(), "BDAT 22 LAST\r\nReceived: by weir\r\nx\r\n");
    pair.reply("250 ok\r\n");
    assert_eq!(pair.tales[0].1, 3, "the client sent three octets");
    pair.nothing_leaked();
}

#[test]
fn a_client_is_introduced_again_in_a_replay() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.xforward = b"XFORWARD ADDR=192.0.2.1\r\nXFORWARD HELO=c\r\n";
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    let flight =
        "XFORWARD ADDR=192.0.2.1\r\nXFORWARD HELO=c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
    assert_eq!(pair.sent_up(), flight);
    pair.reply("250 ok\r\n501 what?\r\n250 ok\r\n250 ok\r\n");
    assert!(
        pair.heard().ends_with("250 2.0.0 ok\r\n"),
        "a refused introduction is no news"
    );
    pair.now = pair.relay.deadline();
    pair.call(|relay, cx| relay.handle_timeout(cx));
    assert_eq!(pair.detached, [Detach::Reset], "lent to others");
    pair.say("DATA\r\n");
    pair.say("x\r\n.\r\n");
    assert_eq!((pair.legs_made, pair.sent_up().as_str()), (2, flight));
    pair.reply("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n");
    assert_eq!(pair.sent_up(), "BDAT 3 LAST\r\nx\r\n");
    pair.reply("250 ok\r\n");
    assert_eq!(pair.outcomes, [Outcome::Accepted]);
}

#[test]
fn an_introduction_without_a_transaction_is_undone() {
    for ehlo in [FULL, BARE] {
        let mut pair = Pair::greeted(ehlo, usize::MAX);
        pair.xforward = b"XFORWARD ADDR=192.0.2.1\r\nXFORWARD HELO=c\r\n";
        pair.attach = false;
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        pair.call(|relay, cx| relay.handle_client_gone(cx, Gone::Reset));
        pair.attach_now();
        assert_eq!(pair.detached, [Detach::Reset], "it came too late");
    }
}
