//! Stories of one session with an upstream of its own, told by `Pair`, with the client's and the upstream's bytes whole
//! and cut in several ways.

use alloc::string::String;

use super::pair::{FULL, PLAIN, Pair};
use super::*;
use crate::gate::Verdict;
use crate::outbound::Opening;
use crate::relay::{Gone, Outcome};
use crate::texts;

fn whole_and_split(story: impl Fn(usize)) {
    for step in [usize::MAX, 1, 2, 3, 7] {
        story(step);
    }
}

fn greeted(ehlo: &str, step: usize) -> Pair {
    Pair::greeted(Manner::default(), ehlo, step)
}

fn envelope(pair: &mut Pair) {
    pair.say("MAIL FROM:<a@b>\r\n");
    assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\n");
    pair.reply("250 sender fine\r\n");
    pair.say("RCPT TO:<c@d>\r\n");
    assert_eq!(pair.sent_up(), "RCPT TO:<c@d>\r\n");
    pair.reply("250-2.1.5 two\r\n250 2.1.5 lines\r\n");
    assert_eq!(
        pair.heard(),
        "250 sender fine\r\n250-2.1.5 two\r\n250 2.1.5 lines\r\n"
    );
}

fn in_data(pair: &mut Pair) {
    envelope(pair);
    pair.say("DATA\r\n");
    assert_eq!(pair.sent_up(), "DATA\r\n");
    pair.reply("354 go on\r\n");
    assert_eq!(pair.heard(), "354 go on\r\n");
}

#[test]
fn the_whole_dialogue_passes() {
    whole_and_split(|step| {
        for ehlo in [FULL, PLAIN] {
            let mut pair = greeted(ehlo, step);
            in_data(&mut pair);
            pair.say("Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n");
            assert_eq!(pair.sent_up(), "Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n");
            assert_eq!(pair.heard(), "");
            pair.reply("250 queued as 1\r\n");
            assert_eq!(pair.heard(), "250 queued as 1\r\n");
            assert_eq!(pair.outcomes, [Outcome::Accepted]);
            assert_eq!(pair.tales[0].1, 25);
            for command in ["NOOP hi", "HELP", "VRFY x", "EXPN y", "RSET"] {
                pair.say(&[command, "\r\n"].concat());
                assert_eq!(pair.sent_up(), [command, "\r\n"].concat());
                pair.reply("252-as\r\n252 they say\r\n");
                assert_eq!(pair.heard(), "252-as\r\n252 they say\r\n");
            }
            pair.say("QUIT\r\n");
            assert_eq!(pair.sent_up(), "QUIT\r\n");
            pair.reply("221 so long\r\n");
            assert_eq!(pair.heard(), "221 so long\r\n");
            assert_eq!(
                (pair.closed, &pair.detached[..]),
                (Some(false), &[Detach::Clean][..])
            );
            assert!(pair.relay.is_finished());
            pair.nothing_leaked();
        }
    });
}

#[test]
fn a_pipelined_group_goes_up_in_one_flight() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        pair.say("RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n");
        assert_eq!(
            pair.sent_up(),
            "RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n"
        );
        let replies = "250 r\r\n250 m\r\n550 5.1.1 no\r\n250 yes\r\n354 go\r\n";
        pair.reply(replies);
        assert_eq!(pair.heard(), replies);
        pair.say("x\r\n.\r\n");
        assert_eq!(pair.sent_up(), "x\r\n.\r\n");
        pair.reply("250 taken\r\n");
        assert_eq!(pair.heard(), "250 taken\r\n");
        assert_eq!(pair.relay.stats().recipients, 1);
        pair.nothing_leaked();
    });
}

#[test]
fn without_pipelining_each_command_waits_for_the_reply_before() {
    whole_and_split(|step| {
        let mut pair = greeted(PLAIN, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        for (command, reply) in [
            ("MAIL FROM:<a@b>\r\n", "250 m\r\n"),
            ("RCPT TO:<c@d>\r\n", "250 r\r\n"),
            ("DATA\r\n", "354 go\r\n"),
        ] {
            assert_eq!(pair.sent_up(), command);
            assert_eq!(pair.heard(), "");
            pair.reply(reply);
            assert_eq!(pair.heard(), reply);
        }
    });
}

#[test]
fn a_refusal_by_policy_waits_for_its_turn() {
    whole_and_split(|step| {
        for late in [false, true] {
            let mut pair = greeted(FULL, step);
            pair.late = late;
            pair.verdicts = |stage| match stage {
                Stage::Rcpt { index: 1 } => {
                    Verdict::Refuse(ReplyText::fixed("550 5.7.1 not you\r\n"))
                }
                _ => Verdict::Pass,
            };
            pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<x@y>\r\nRCPT TO:<e@f>\r\n");
            for _ in 0..4 {
                pair.answer_all();
                pair.feed();
            }
            assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
            assert_eq!(pair.heard(), "");
            pair.reply("250 m\r\n250 one\r\n");
            pair.answer_all();
            assert_eq!(pair.heard(), "250 m\r\n250 one\r\n550 5.7.1 not you\r\n");
            assert_eq!(pair.sent_up(), "RCPT TO:<e@f>\r\n");
        }
    });
}

#[test]
fn a_mail_refused_by_the_upstream_ends_its_transaction_once_its_group_is_answered() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
        let replies = "550-5.7.1 bad\r\n550 5.7.1 sender\r\n503 no\r\n503 nor that\r\n";
        pair.reply(replies);
        assert_eq!(pair.heard(), replies);
        assert_eq!(pair.outcomes, [Outcome::Rejected]);
        assert_eq!(pair.tales[0].0, "550-5.7.1 bad\r\n550 5.7.1 sender\r\n");
        assert_eq!(pair.relay.stats().errors, 1);
        pair.say("RCPT TO:<c@d>\r\n");
        assert!(pair.heard().starts_with("503 5.5.1"));
        assert_eq!(
            pair.sent_up(),
            "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"
        );
    });
}

#[test]
fn a_refusing_greeting_passes_and_ends_in_quit() {
    whole_and_split(|step| {
        let mut pair = Pair::new(Manner::default(), step);
        pair.start();
        pair.say("EHLO early\r\n");
        assert_eq!(pair.heard(), "", "nothing before the upstream's greeting");
        pair.reply("554-no\r\n554 mail here\r\n");
        assert_eq!(
            pair.heard(),
            "554-no\r\n554 mail here\r\n503 5.5.1 Error: bad sequence of commands\r\n"
        );
        assert_eq!(pair.detached, [Detach::Close]);
        pair.say("QUIT\r\n");
        assert_eq!(
            (pair.heard().as_str(), pair.closed),
            ("221 2.0.0 Bye\r\n", Some(false))
        );
    });
}

#[test]
fn without_an_upstream_the_greeting_is_421() {
    let mut pair = Pair::new(Manner::default(), usize::MAX);
    pair.attach = false;
    pair.start();
    pair.call(|relay, cx| relay.handle_attach_failed(cx, AttachFailure::NoUpstream));
    assert!(pair.heard().starts_with("421 4.4.1"));
    assert_eq!(pair.closed, Some(true));

    let mut pair = Pair::new(Manner::default(), usize::MAX);
    pair.start();
    pair.lose_leg();
    assert!(pair.heard().starts_with("421 4.4.1"));
    assert!(pair.relay.is_finished());
}

#[test]
fn an_upstream_lost_between_commands_is_421() {
    whole_and_split(|step| {
        for commands in ["", "MAIL FROM:<a@b>\r\n", "NOOP\r\nRSET\r\n"] {
            let mut pair = greeted(FULL, step);
            pair.say(commands);
            pair.lose_leg();
            assert_eq!(
                pair.heard(),
                core::str::from_utf8(texts::UPSTREAM_GONE.as_bytes()).unwrap()
            );
            assert_eq!(pair.closed, Some(true));
            assert!(pair.detached.is_empty() && pair.relay.is_finished());
        }
        let mut pair = greeted(FULL, step);
        pair.say("QUIT\r\n");
        pair.lose_leg();
        assert_eq!(pair.heard(), "221 2.0.0 Bye\r\n");
    });
}

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
fn an_upstream_that_says_421_ends_the_session_with_its_own_words() {
    whole_and_split(|step| {
        for asked in [false, true] {
            let mut pair = greeted(FULL, step);
            if asked {
                pair.say("NOOP\r\n");
                pair.sent_up();
            }
            pair.reply("421-4.3.2 going\r\n421 4.3.2 down\r\n");
            assert_eq!(pair.heard(), "421-4.3.2 going\r\n421 4.3.2 down\r\n");
            assert_eq!(
                (pair.closed, &pair.detached[..]),
                (Some(true), &[Detach::Close][..])
            );
        }
        let mut pair = greeted(FULL, step);
        in_data(&mut pair);
        pair.say("half");
        pair.sent_up();
        pair.reply("421 timeout\r\n");
        assert_eq!(
            (pair.heard().as_str(), &pair.detached[..]),
            ("", &[Detach::Close][..])
        );
        pair.say("\r\n.\r\n");
        assert!(pair.heard().starts_with("451 4.4.2"));
        let mut pair = greeted(FULL, step);
        in_data(&mut pair);
        pair.say("all\r\n.\r\n");
        pair.sent_up();
        pair.reply("421 too bad\r\n");
        assert_eq!(
            (pair.heard().as_str(), pair.closed),
            ("421 too bad\r\n", Some(true))
        );
        assert_eq!(pair.outcomes, [Outcome::Deferred]);
        pair.nothing_leaked();
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
fn an_upstream_that_does_not_answer_is_given_up() {
    let mut pair = greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\n");
    let due = pair.relay.deadline();
    assert_eq!(due.since(pair.now), pair.config.timeouts.rcpt_reply);
    pair.time_out();
    assert!(
        pair.heard()
            .starts_with("421 4.4.2 The mail server did not answer")
    );
    assert_eq!(pair.detached, [Detach::Close]);

    let mut pair = greeted(FULL, usize::MAX);
    in_data(&mut pair);
    pair.say("x\r\n.\r\n");
    let due = pair.relay.deadline();
    assert_eq!(due.since(pair.now), pair.config.timeouts.final_reply);
    pair.time_out();
    assert!(
        pair.heard()
            .starts_with("451 4.4.2 The mail server did not answer")
    );
    assert_eq!(pair.outcomes, [Outcome::Deferred]);
    assert_eq!(pair.closed, Some(true));
}

#[test]
fn the_legs_own_opening_is_not_the_clients_business() {
    whole_and_split(|step| {
        let manner = Manner {
            introduces: true,
            ..Manner::default()
        };
        let mut pair = Pair::new(manner, step);
        pair.opening = Opening::Hello;
        pair.introduction = b"XCLIENT NAME=c\r\nXCLIENT ADDR=192.0.2.1\r\n".to_vec();
        pair.start();
        pair.reply("220 mx\r\n");
        assert_eq!(pair.heard(), "220 mx\r\n");
        assert_eq!(pair.sent_up(), "EHLO weir.example\r\n");
        pair.say("EHLO client.example\r\n");
        assert_eq!(pair.sent_up(), "");
        pair.reply("250-mx\r\n250 XCLIENT NAME ADDR\r\n");
        assert_eq!(pair.sent_up(), "XCLIENT NAME=c\r\n");
        pair.reply("220 mx\r\n");
        assert_eq!(pair.sent_up(), "XCLIENT ADDR=192.0.2.1\r\n");
        pair.reply("220 mx again\r\n");
        assert_eq!(pair.sent_up(), "EHLO client.example\r\n");
        assert_eq!(pair.heard(), "");
        pair.reply("250-mx hello\r\n250-XCLIENT NAME ADDR\r\n250 DSN\r\n");
        assert_eq!(pair.heard(), "250-mx hello\r\n250 DSN\r\n");
        pair.say("HELO client.example\r\n");
        assert_eq!(pair.sent_up(), "HELO client.example\r\n", "introduced once");
        pair.reply("250 mx\r\n");
        assert_eq!(pair.heard(), "250 mx\r\n");
    });
}

#[test]
fn an_introduction_that_is_refused_ends_the_session() {
    let manner = Manner {
        introduces: true,
        ..Manner::default()
    };
    let mut pair = Pair::started(manner, usize::MAX);
    pair.introduction = b"XCLIENT ADDR=192.0.2.1\r\n".to_vec();
    pair.say("EHLO client.example\r\n");
    pair.reply("550 5.7.0 insufficient authorization\r\n");
    assert!(pair.heard().starts_with("421 4.4.2"));
    assert!(pair.relay.is_finished());
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
