//! Tests of what is told of a transaction when it has ended: its reply and its size, for the log.

use alloc::format;
use alloc::string::String;

use super::pair::{FULL, Pair};
use super::*;
use crate::texts;

/// The tale of a transaction that the client gives up after `said`, to which the upstream answers `answered`.
fn tale(verdicts: fn(Stage) -> Verdict, said: &str, answered: &str) -> (String, u64) {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.verdicts = verdicts;
    pair.say(said);
    pair.reply(answered);
    pair.say("RSET\r\n");
    assert_eq!(pair.tales.len(), 1);
    pair.tales.remove(0)
}

const ENVELOPE: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n";

fn words(reply: &ReplyText) -> String {
    String::from_utf8_lossy(reply.as_bytes()).into_owned()
}

#[test]
fn a_transaction_that_was_given_up_tells_what_was_refused_last() {
    let pass: fn(Stage) -> Verdict = |_| Verdict::Pass;
    let mail: fn(Stage) -> Verdict = |stage| match stage {
        Stage::Mail => Verdict::Refuse(texts::DENIED_FOR_NOW),
        _ => Verdict::Pass,
    };
    let rcpt: fn(Stage) -> Verdict = |stage| match stage {
        Stage::Rcpt { .. } => Verdict::Refuse(texts::DENIED_FOR_NOW),
        _ => Verdict::Pass,
    };
    let denied = &words(&texts::DENIED_FOR_NOW);
    let table = [
        (
            "nothing",
            pass,
            ENVELOPE,
            "250 ok\r\n250 ok\r\n250 ok\r\n",
            "",
        ),
        ("MAIL by weir", mail, "MAIL FROM:<a@b>\r\n", "", denied),
        ("RCPT by weir", rcpt, ENVELOPE, "", denied),
        (
            "MAIL by the upstream",
            pass,
            ENVELOPE,
            "550 who?\r\n503 no\r\n503 no\r\n250 ok\r\n",
            "550 5.0.0 who?\r\n",
        ),
        (
            "the first of two by the upstream",
            pass,
            ENVELOPE,
            "250 ok\r\n550 5.1.1 who?\r\n250 ok\r\n",
            "550 5.1.1 who?\r\n",
        ),
        (
            "both by the upstream",
            pass,
            ENVELOPE,
            "250 ok\r\n550 5.1.1 who?\r\n450 later\r\n",
            "450 4.0.0 later\r\n",
        ),
    ];
    for (label, verdicts, said, answered, want) in table {
        assert_eq!(tale(verdicts, said, answered).0, want, "{label}");
    }
}

#[test]
fn an_accepted_message_tells_its_own_reply_and_no_refusal() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say(ENVELOPE);
    pair.reply("250 ok\r\n550 5.1.1 who?\r\n250 ok\r\n");
    pair.say("BDAT 6 LAST\r\nx: y\r\n");
    pair.reply("250 2.0.0 mine\r\n");
    assert_eq!(pair.tales, [("250 2.0.0 mine\r\n".into(), 6)]);
}

#[test]
fn a_session_that_is_closed_tells_with_what() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\n");
    pair.now = pair.relay.deadline();
    pair.call(|relay, cx| relay.handle_timeout(cx));
    assert_eq!(pair.tales, [(words(&texts::TIMEOUT), 0)]);
}

/// Such a body was logged with size=0: nothing of it was put into the list.
#[test]
fn a_body_refused_for_its_newlines_has_a_size() {
    for step in [usize::MAX, 1, 7] {
        let mut pair = Pair::greeted(FULL, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        pair.reply("250 ok\r\n250 ok\r\n");
        pair.say("DATA\r\n");
        let content = format!("one\ntwo\r\n{}\r\n", "x".repeat(500));
        pair.say(&format!("{content}.\r\n"));
        let (reply, octets) = pair.tales.remove(0);
        assert!(reply.starts_with("550 5.5.2"), "{reply}");
        let came = content.len() as u64;
        assert!((came..=came + 3).contains(&octets), "{octets} of {came}");
    }
}
