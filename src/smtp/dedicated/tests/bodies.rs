//! Stories of a message: by DATA, by BDAT, lost on its way, refused.

use alloc::format;
use alloc::string::String;

use super::super::pair::{FULL, PLAIN};
use super::*;

#[test]
fn an_upstream_lost_in_a_message_is_451_at_its_end_never_250() {
    whole_and_split(|step| {
        for after_dot in [false, true] {
            let mut pair = greeted(FULL, step);
            in_data(&mut pair);
            pair.say("half a mess");
            if after_dot {
                pair.say("age\r\n.\r\n");
            }
            pair.lose_leg();
            if !after_dot {
                assert_eq!(pair.heard(), "");
                pair.say("age\r\n.\r\n");
            }
            let heard = pair.heard();
            assert!(heard.starts_with("451 4.4.2") && heard.contains("\r\n421 4.4.2"));
            assert_eq!(pair.outcomes, [Outcome::Deferred]);
            assert!(pair.relay.is_finished());
            pair.nothing_leaked();
        }
    });
}

#[test]
fn a_client_lost_in_a_body_closes_the_upstream_without_a_dot() {
    for gone in [Gone::Eof, Gone::Reset] {
        let mut pair = greeted(FULL, usize::MAX);
        in_data(&mut pair);
        pair.say("half a mess\r\n");
        pair.client_gone(gone);
        assert_eq!(pair.detached, [Detach::Close]);
        assert_eq!(pair.outcomes, [Outcome::Lost]);
        assert_eq!(pair.sent_up(), "half a mess\r\n");
        assert!(pair.relay.is_finished());
        pair.nothing_leaked();
    }
}

#[test]
fn a_client_gone_after_its_dot_leaves_the_message_to_the_upstream() {
    for (gone, heard) in [(Gone::Eof, "250 ok\r\n"), (Gone::Reset, "")] {
        let mut pair = greeted(FULL, usize::MAX);
        in_data(&mut pair);
        pair.say("x\r\n.\r\n");
        pair.client_gone(gone);
        assert!(!pair.relay.is_finished());
        pair.reply("250 ok\r\n");
        assert_eq!(pair.heard(), heard);
        assert_eq!(pair.outcomes, [Outcome::Accepted]);
        assert!(pair.relay.is_finished());
    }
}

#[test]
fn chunks_pass_one_by_one_with_the_upstreams_replies() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        envelope(&mut pair);
        pair.say("BDAT 14\r\nSubject: x\r\n\r\n");
        assert_eq!(pair.sent_up(), "BDAT 14\r\nSubject: x\r\n\r\n");
        pair.say("BDAT 5 LAST\r\n.\r\n.e");
        assert_eq!(pair.sent_up(), "", "the chunk before is not answered yet");
        pair.reply("250 first\r\n");
        assert_eq!(pair.heard(), "250 first\r\n");
        assert_eq!(pair.sent_up(), "BDAT 5 LAST\r\n.\r\n.e");
        pair.reply("250 all\r\n");
        assert_eq!(pair.heard(), "250 all\r\n");
        assert_eq!(pair.outcomes, [Outcome::Accepted]);
        assert_eq!(pair.tales[0].1, 19);
        pair.nothing_leaked();
    });
}

#[test]
fn a_group_with_a_chunk_behind_it_goes_up_once_its_recipients_are_answered() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nBDAT 3 LAST\r\nx\r\nMAIL FROM:<>\r\n");
        assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        pair.reply("250 m\r\n250 r\r\n");
        assert_eq!(pair.sent_up(), "BDAT 3 LAST\r\nx\r\n");
        pair.reply("250 all\r\n");
        assert_eq!(pair.sent_up(), "MAIL FROM:<>\r\n");
        assert_eq!(pair.heard(), "250 m\r\n250 r\r\n250 all\r\n");
        pair.nothing_leaked();
    });
}

#[test]
fn a_chunk_too_big_to_be_held_goes_up_in_parts_and_is_answered_once() {
    for pipelining in [false, true] {
        let ehlo = [
            "250-mx\r\n",
            if pipelining { "250-PIPELINING\r\n" } else { "" },
            "250 CHUNKING\r\n",
        ]
        .concat();
        let mut pair = greeted(&ehlo, 5000);
        pair.hold_max = 10_000;
        envelope(&mut pair);
        let body = "0123456789abcdef\r\n".repeat(4000);
        pair.say(&["BDAT 72000\r\n", &body].concat());
        let mut up = String::new();
        loop {
            let more = pair.sent_up();
            let parts = more.matches("BDAT ").count();
            up += &more;
            if parts == 0 {
                break;
            }
            assert!(pipelining || parts == 1);
            pair.reply(&"250 part\r\n".repeat(parts));
        }
        let counts = up.split("BDAT ").skip(1);
        let counted: usize = counts
            .map(|c| c.split('\r').next().unwrap().parse::<usize>().unwrap())
            .sum();
        assert_eq!(counted, body.len());
        assert!(!up.contains("LAST") && up.matches("BDAT").count() > 2);
        assert_eq!(
            pair.heard(),
            "250 part\r\n",
            "only the last of them is the chunk's"
        );
        pair.say("BDAT 0 LAST\r\n");
        assert_eq!(pair.sent_up(), "BDAT 0 LAST\r\n");
        pair.reply("250 all\r\n");
        assert_eq!(pair.tales[0].1, 72_000);
        pair.nothing_leaked();
    }
}

#[test]
fn a_part_that_is_refused_refuses_the_chunk_at_its_end() {
    let mut pair = greeted(FULL, 5000);
    pair.hold_max = 10_000;
    envelope(&mut pair);
    let body = "0123456789abcdef\r\n".repeat(4000);
    pair.say(&["BDAT 72000\r\n", &body[..60_000]].concat());
    pair.sent_up();
    pair.reply("552 enough\r\n");
    assert_eq!(
        (pair.heard().as_str(), &pair.detached[..]),
        ("", &[Detach::Close][..])
    );
    pair.say(&body[60_000..]);
    assert!(pair.heard().starts_with("552 enough\r\n421 4.4.2"));
    assert_eq!(pair.outcomes, [Outcome::Rejected]);
    pair.nothing_leaked();
}

#[test]
fn a_chunk_out_of_turn_is_read_over() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        pair.say("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
        assert!(pair.heard().starts_with("503 5.5.1 Error: need MAIL"));
        assert_eq!(pair.sent_up(), "NOOP\r\n");
        pair.reply("250 n\r\n");
        let mut pair = greeted(PLAIN, step);
        envelope(&mut pair);
        pair.say("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
        assert!(pair.heard().starts_with("502 5.5.1"), "not offered");
        assert_eq!(pair.sent_up(), "NOOP\r\n");
    });
}

#[test]
fn bare_newlines_end_message_and_session_without_an_end_of_data() {
    whole_and_split(|step| {
        for (body, chunked) in [
            ("a\n.\nMAIL FROM:<evil@x>\r\n.\r\n", false),
            ("BDAT 4\r\na\nb\n", true),
            ("BDAT 4 LAST\r\na\nb\n", true),
        ] {
            let mut pair = greeted(FULL, step);
            match chunked {
                true => envelope(&mut pair),
                false => in_data(&mut pair),
            }
            pair.say(body);
            let up = pair.sent_up();
            assert!(
                !up.contains("BDAT") && !up.contains('\n') && !up.contains("MAIL"),
                "{up:?}"
            );
            let heard = pair.heard();
            assert!(heard.starts_with("550 5.5.2") && heard.contains("\r\n421 4.4.2"));
            assert_eq!(pair.detached, [Detach::Close]);
            assert_eq!(pair.outcomes, [Outcome::Rejected]);
            pair.nothing_leaked();
        }
    });
}

#[test]
fn normalised_newlines_are_counted_as_they_go_up() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        pair.config.bare_newline = BareNewline::Normalize;
        envelope(&mut pair);
        pair.say("BDAT 4 LAST\r\na\nb\n");
        assert_eq!(pair.sent_up(), "BDAT 6 LAST\r\na\r\nb\r\n");
        pair.reply("250 ok\r\n");
        pair.nothing_leaked();
    });
}

#[test]
fn a_message_that_grows_too_big_is_refused_at_its_end() {
    let mut pair = greeted(FULL, 5000);
    in_data(&mut pair);
    pair.say(&"0123456789abcdef\r\n".repeat(6000));
    assert_eq!(
        (pair.heard().as_str(), &pair.detached[..]),
        ("", &[Detach::Close][..])
    );
    pair.say("more\r\n.\r\n");
    let heard = pair.heard();
    assert!(heard.starts_with("552 5.3.4") && heard.contains("\r\n421 "));
    pair.nothing_leaked();
    let mut pair = greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b> SIZE=100001\r\n");
    assert!(pair.heard().starts_with("552 5.3.4"));
    assert_eq!(pair.sent_up(), "");
}

#[test]
fn a_body_waits_for_the_leg_to_take_it() {
    let mut pair = greeted(FULL, usize::MAX);
    pair.config.stream_window = 10_000;
    pair.hold_flights = true;
    in_data(&mut pair);
    let body = "0123456789abcdef\r\n".repeat(4000);
    for part in body.as_bytes().chunks(5000) {
        pair.say(core::str::from_utf8(part).unwrap());
    }
    assert!(!pair.relay.wants_input() && pair.relay.is_streaming());
    assert!(pair.backlog.len() > 50_000, "it lies where it was received");
    pair.hold_flights = false;
    pair.say(".\r\n");
    assert_eq!(pair.sent_up(), [&body, ".\r\n"].concat());
    pair.reply("250 ok\r\n");
    pair.nothing_leaked();
}

#[test]
fn what_follows_a_refused_chunk_is_no_message_of_its_own() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        envelope(&mut pair);
        pair.say(&format!("BDAT 100001\r\n{}", "x".repeat(100_001)));
        assert!(pair.heard().starts_with("552 5.3.4"));
        pair.say("BDAT 5 LAST\r\nrest.");
        assert!(pair.heard().starts_with("503 5.5.1"));
        assert_eq!(pair.sent_up(), "");
        pair.say("RSET\r\n");
        pair.reply("250 ok\r\n");
        assert_eq!(pair.heard(), "250 ok\r\n");
        assert_eq!(pair.outcomes, [Outcome::Abandoned]);
        pair.nothing_leaked();
    });
}
