//! Stories of one session, told by `Pair`, with the client's bytes whole and cut in several ways.

use alloc::vec;

use super::pair::{BARE, FULL, PLAIN, Pair};
use super::*;

fn whole_and_split(story: impl Fn(usize)) {
    for step in [usize::MAX, 1, 2, 3, 7] {
        story(step);
    }
}

fn envelope(pair: &mut Pair) {
    pair.say("MAIL FROM:<a@b>\r\n");
    pair.say("RCPT TO:<c@d>\r\n");
    assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    pair.reply("250 ok\r\n250 2.1.5 yes\r\n");
    assert_eq!(pair.heard(), "250 2.1.0 Ok\r\n250 2.1.5 yes\r\n");
}

#[test]
fn a_message_travels_as_bdat_in_one_flight() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        envelope(&mut pair);
        pair.say("DATA\r\n");
        assert_eq!(pair.heard(), "354 End data with <CR><LF>.<CR><LF>\r\n");
        assert_eq!(pair.sent_up(), "");
        pair.say("Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n");
        assert_eq!(
            pair.sent_up(),
            "BDAT 25 LAST\r\nSubject: x\r\n\r\n.dot\r\nend\r\n"
        );
        assert_eq!(pair.heard(), "");
        pair.reply("250 2.6.0 queued as 1\r\n");
        assert_eq!(pair.heard(), "250 2.6.0 queued as 1\r\n");
        assert_eq!(pair.detached, [Detach::Clean]);
        assert_eq!(pair.outcomes, [Outcome::Accepted]);
        pair.say("QUIT\r\n");
        assert_eq!(pair.heard(), "221 2.0.0 Bye\r\n");
        assert_eq!(pair.closed, Some(false));
        pair.nothing_leaked();
    });
}

#[test]
fn a_message_travels_as_data_where_chunking_is_missing() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(PLAIN, step);
        envelope(&mut pair);
        pair.say("DATA\r\n");
        pair.heard();
        pair.say("Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n");
        assert_eq!(pair.sent_up(), "DATA\r\n");
        pair.reply("354 go\r\n");
        assert_eq!(pair.sent_up(), "Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n");
        pair.reply("250 queued\r\n");
        assert_eq!(pair.heard(), "250 2.0.0 queued\r\n");
        pair.nothing_leaked();
    });
}

#[test]
fn bdat_becomes_data_with_dots_and_a_last_crlf() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(PLAIN, step);
        envelope(&mut pair);
        pair.say("BDAT 14\r\nSubject: x\r\n\r\n");
        assert_eq!(pair.heard(), "250 2.0.0 14 octets received\r\n");
        pair.say("BDAT 5 LAST\r\n.\r\n.e");
        assert_eq!(pair.sent_up(), "DATA\r\n");
        pair.reply("354 go\r\n");
        assert_eq!(pair.sent_up(), "Subject: x\r\n\r\n..\r\n..e\r\n.\r\n");
        pair.reply("250 queued\r\n");
        assert_eq!(pair.heard(), "250 2.0.0 queued\r\n");
        pair.nothing_leaked();
    });
}

#[test]
fn a_pipelined_group_is_answered_in_order() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n");
        assert_eq!(
            pair.sent_up(),
            "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n"
        );
        pair.reply("250 ok\r\n550 5.1.1 no\r\n250 2.1.5 yes\r\n");
        assert_eq!(
            pair.heard(),
            "250 2.1.0 Ok\r\n550 5.1.1 no\r\n250 2.1.5 yes\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
        );
    });
}

#[test]
fn late_verdicts_in_any_order_change_nothing_for_the_client() {
    whole_and_split(|step| {
        for backwards in [false, true] {
            let mut pair = Pair::greeted(FULL, step);
            pair.late = true;
            pair.verdicts = |stage| match stage {
                Stage::Rcpt { index: 1 } => {
                    Verdict::Refuse(ReplyText::fixed("550 5.7.1 not you\r\n"))
                }
                _ => Verdict::Pass,
            };
            pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<x@y>\r\nRCPT TO:<e@f>\r\n");
            assert_eq!(pair.heard(), "");
            for _ in 0..4 {
                pair.answer_all(backwards);
                pair.feed();
            }
            assert_eq!(
                pair.sent_up(),
                "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n"
            );
            pair.reply("250 ok\r\n250 2.1.5 one\r\n250 2.1.5 three\r\n");
            assert_eq!(
                pair.heard(),
                "250 2.1.0 Ok\r\n250 2.1.5 one\r\n550 5.7.1 not you\r\n250 2.1.5 three\r\n"
            );
        }
    });
}

#[test]
fn a_refused_mail_answers_every_recipient() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\nDATA\r\n");
        pair.reply("550-5.7.1 bad\r\n550 5.7.1 sender\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n");
        let refusal = "550-5.7.1 bad\r\n550 5.7.1 sender\r\n";
        assert_eq!(
            pair.heard(),
            ["250 2.1.0 Ok\r\n", refusal, refusal, refusal].concat()
        );
        assert_eq!(pair.detached, [Detach::Reset]);
        pair.say("RCPT TO:<g@h>\r\n");
        assert_eq!(pair.heard(), refusal);
        pair.say("RSET\r\n");
        assert_eq!(pair.outcomes, [Outcome::Rejected]);
    });
}

#[test]
fn a_connection_lost_unheard_is_replaced_and_one_heard_is_not() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        pair.heard();
        pair.sent_up();
        pair.reply("421 closing\r\n");
        assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        assert_eq!(pair.preferred, [None, None]);
        pair.reply("250 ok\r\n250 2.1.5 yes\r\n");
        assert_eq!(pair.heard(), "250 2.1.5 yes\r\n");
        pair.say("RCPT TO:<e@f>\r\n");
        pair.lose_leg();
        assert!(pair.heard().starts_with("451 4.4.2"));
        pair.say("DATA\r\n");
        assert!(pair.heard().starts_with("354"));
        pair.say("x\r\n.\r\n");
        assert!(pair.heard().starts_with("451 4.4.2"));
        assert_eq!(pair.outcomes, [Outcome::Deferred]);
        pair.nothing_leaked();
    });
}

#[test]
fn a_connection_lost_in_the_replay_is_replaced() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    envelope(&mut pair);
    pair.now = pair.relay.deadline();
    pair.call(|relay, cx| relay.handle_timeout(cx));
    pair.say("RCPT TO:<e@f>\r\n");
    let again = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n";
    assert_eq!(pair.sent_up(), again);
    pair.lose_leg();
    assert_eq!(pair.sent_up(), again);
    pair.reply("250 ok\r\n250 again\r\n550 5.1.1 no\r\n");
    assert_eq!(pair.heard(), "550 5.1.1 no\r\n", "the replay is not told");
    pair.say("DATA\r\n");
    pair.heard();
    pair.say("x\r\n.\r\n");
    assert_eq!(pair.sent_up(), "BDAT 3 LAST\r\nx\r\n");
    pair.reply("250 ok\r\n");
    assert_eq!(pair.heard(), "250 2.0.0 ok\r\n");
    pair.nothing_leaked();
}

#[test]
fn a_connection_lost_too_often_is_451() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    pair.heard();
    for _ in 0..8 {
        pair.lose_leg();
    }
    assert!(pair.heard().starts_with("451 4.4.2"));
    assert_eq!(pair.legs_made, 8);
}

#[test]
fn a_silent_client_gives_its_connection_back_and_the_envelope_is_replayed() {
    whole_and_split(|step| {
        for in_body in [false, true] {
            let mut pair = Pair::greeted(PLAIN, step);
            envelope(&mut pair);
            if in_body {
                pair.say("DATA\r\n");
                pair.say("half a bo");
            }
            pair.heard();
            let due = pair.relay.deadline();
            assert_eq!(due.since(pair.now), Duration::from_secs(1));
            pair.now = due;
            pair.call(|relay, cx| relay.handle_timeout(cx));
            assert_eq!(pair.detached, [Detach::Reset]);
            assert!(pair.relay.deadline().since(pair.now) > Duration::from_secs(100));
            if !in_body {
                pair.say("DATA\r\n");
                pair.heard();
                pair.say("half a bo");
            }
            pair.say("dy\r\n.\r\n");
            assert_eq!(pair.preferred[1], Some(UpstreamId(0)));
            assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
            pair.reply("250 ok\r\n250 ok\r\n");
            assert_eq!(pair.sent_up(), "DATA\r\n");
            pair.reply("354 go\r\n");
            assert_eq!(pair.sent_up(), "half a body\r\n.\r\n");
            assert_eq!(pair.heard(), "");
            pair.reply("250 taken\r\n");
            assert_eq!(pair.heard(), "250 2.0.0 taken\r\n");
            pair.nothing_leaked();
        }
    });
}

#[test]
fn a_recipient_refused_in_the_replay_defers_the_message() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    envelope(&mut pair);
    pair.now = pair.relay.deadline();
    pair.call(|relay, cx| relay.handle_timeout(cx));
    pair.say("DATA\r\n");
    pair.heard();
    pair.say("x\r\n.\r\n");
    pair.sent_up();
    pair.reply("250 ok\r\n550 5.1.1 gone meanwhile\r\n");
    assert!(pair.heard().starts_with("451 4.3.0"));
    assert_eq!(pair.outcomes, [Outcome::Deferred]);
    assert!(!pair.sent_up().contains("BDAT"));
    pair.nothing_leaked();
}

#[test]
fn an_upstream_lost_after_the_dot_is_451_never_250() {
    whole_and_split(|step| {
        for ehlo in [FULL, PLAIN] {
            let mut pair = Pair::greeted(ehlo, step);
            envelope(&mut pair);
            pair.say("DATA\r\n");
            pair.say("x\r\n.\r\n");
            if ehlo == PLAIN {
                pair.reply("354 go\r\n");
            }
            pair.heard();
            pair.lose_leg();
            assert!(pair.heard().starts_with("451 4.4.2"));
            pair.nothing_leaked();
        }
    });
}

#[test]
fn a_body_over_the_hold_streams_and_arrives_whole() {
    for ehlo in [FULL, PLAIN] {
        let mut pair = Pair::greeted(ehlo, 5000);
        pair.hold_max = 10_000;
        envelope(&mut pair);
        pair.say("DATA\r\n");
        pair.heard();
        pair.sent_up();
        let body = "0123456789abcdef\r\n".repeat(4000);
        pair.say(&body[..30_000]);
        if ehlo == PLAIN {
            assert_eq!(pair.sent_up(), "DATA\r\n");
            pair.reply("354 go\r\n");
        }
        pair.say(&body[30_000..]);
        pair.say(".\r\n");
        while pair.relay.owes_final() && pair.outcomes.is_empty() && pair.leg.is_some() {
            let up = pair.sent_up();
            let chunks = up.matches("BDAT ").count();
            if ehlo == FULL {
                let payload: usize = up
                    .split("BDAT ")
                    .skip(1)
                    .map(|c| {
                        c.split(['\r', ' '])
                            .next()
                            .unwrap()
                            .parse::<usize>()
                            .unwrap()
                    })
                    .sum();
                assert_eq!(payload, body.len());
                pair.reply(&"250 ok\r\n".repeat(chunks));
            } else {
                assert_eq!(up, [&body, ".\r\n"].concat());
                pair.reply("250 ok\r\n");
            }
        }
        assert_eq!(pair.heard(), "250 2.0.0 ok\r\n");
        pair.nothing_leaked();
    }
}

/// A sender counts its ten minutes from the moment its end of data left. It lay unread here while the body waited for a connection to stream
/// to, our nine minutes began when it was read, and the sender was gone before the 451.
#[test]
fn the_time_of_the_final_reply_begins_when_the_end_may_have_come() {
    let mut pair = Pair::greeted(FULL, 5000);
    pair.hold_max = 10_000;
    envelope(&mut pair);
    pair.now = pair.relay.deadline();
    pair.call(|relay, cx| relay.handle_timeout(cx));
    assert_eq!(pair.detached.len(), 1, "given back");
    pair.attach = false;
    pair.say("DATA\r\n");
    pair.say(&"0123456789abcdef\r\n".repeat(1000));
    let unread = pair.now;
    assert!(pair.relay.wants_to_stream());
    pair.say(".\r\n");
    pair.now = pair.now + Duration::from_secs(21);
    pair.attach_now();
    let envelope = pair.sent_up();
    pair.reply(&"250 ok\r\n".repeat(envelope.lines().count()));
    assert!(pair.relay.owes_final());
    assert_eq!(
        pair.relay.deadline(),
        unread + pair.config.timeouts.final_reply
    );
}

#[test]
fn a_client_lost_in_a_streaming_body_closes_the_upstream() {
    for (ehlo, how) in [(FULL, Detach::Close), (PLAIN, Detach::Close)] {
        let mut pair = Pair::greeted(ehlo, 5000);
        pair.hold_max = 10_000;
        envelope(&mut pair);
        pair.say("DATA\r\n");
        pair.say(&"0123456789abcdef\r\n".repeat(2000));
        pair.reply(if ehlo == PLAIN { "354 go\r\n" } else { "" });
        pair.call(|relay, cx| relay.handle_client_gone(cx, Gone::Reset));
        assert_eq!(pair.detached, [how]);
        assert_eq!(pair.outcomes, [Outcome::Lost]);
        assert!(pair.relay.is_finished());
        assert!(!pair.sent_up().contains("LAST"));
        pair.nothing_leaked();
    }
}

#[test]
fn a_client_lost_in_a_held_body_costs_the_upstream_a_reset() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        envelope(&mut pair);
        pair.say("DATA\r\n");
        pair.say("half a mess");
        pair.call(|relay, cx| relay.handle_client_gone(cx, Gone::Eof));
        assert_eq!(pair.detached, [Detach::Reset]);
        assert_eq!(pair.sent_up(), "");
        assert!(pair.relay.is_finished());
        pair.nothing_leaked();
    });
}

#[test]
fn a_client_gone_after_its_dot_leaves_the_message_to_the_upstream() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    envelope(&mut pair);
    pair.say("DATA\r\n");
    pair.say("x\r\n.\r\n");
    pair.heard();
    pair.call(|relay, cx| relay.handle_client_gone(cx, Gone::Reset));
    assert!(!pair.relay.is_finished());
    pair.reply("250 ok\r\n");
    assert_eq!(pair.heard(), "");
    assert_eq!(pair.outcomes, [Outcome::Accepted]);
    assert!(pair.relay.is_finished());
}

#[test]
fn a_half_closed_client_still_gets_its_reply() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    envelope(&mut pair);
    pair.say("DATA\r\n");
    pair.say("x\r\n.\r\n");
    pair.heard();
    pair.call(|relay, cx| relay.handle_client_gone(cx, Gone::Eof));
    pair.reply("250 ok\r\n");
    assert_eq!(pair.heard(), "250 2.0.0 ok\r\n");
    assert!(pair.relay.is_finished());
}

#[test]
fn bare_newlines_are_refused_after_the_true_end() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        envelope(&mut pair);
        pair.say("DATA\r\n");
        pair.heard();
        pair.say("a\n.\nMAIL FROM:<evil@x>\r\n.\r\n");
        assert!(pair.heard().starts_with("550 5.5.2"));
        assert_eq!(pair.sent_up(), "");
        assert_eq!(pair.detached, [Detach::Reset]);
        assert_eq!(pair.outcomes, [Outcome::Rejected]);
        pair.nothing_leaked();
    });
}

#[test]
fn a_refused_chunk_is_read_over() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        pair.say("BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
        let heard = pair.heard();
        assert!(heard.starts_with("503 5.5.1"), "{heard}");
        assert!(heard.ends_with("250 2.0.0 Ok\r\n"), "{heard}");
        assert_eq!(pair.closed, None);
    });
}

#[test]
fn an_overlong_bdat_ends_the_session() {
    whole_and_split(|step| {
        let mut pair = Pair::greeted(FULL, step);
        pair.say(&["BDAT 6 LAST", &" ".repeat(5000), "\r\nQUIT\r\n"].concat());
        assert_eq!(pair.heard(), "500 5.5.2 Error: line too long\r\n");
        assert_eq!(pair.closed, Some(true));
        let mut pair = Pair::greeted(FULL, step);
        pair.say(&["NOOP ", &" ".repeat(5000), "\r\nNOOP\r\n"].concat());
        let heard = pair.heard();
        assert!(heard.ends_with("too long\r\n250 2.0.0 Ok\r\n"), "{heard}");
    });
}

#[test]
fn a_chunk_after_an_unwelcoming_greeting_is_read_over() {
    let mut pair = Pair::new(FULL, usize::MAX);
    pair.heard();
    pair.relay = Relay::new(pair.now);
    pair.verdicts = |_| Verdict::Refuse(ReplyText::fixed("554 5.7.1 no\r\n"));
    pair.call(|relay, cx| relay.start(cx));
    pair.heard();
    pair.say("BDAT 6 LAST\r\nQUIT\r\nHELP\r\n");
    assert_eq!(pair.heard().matches("503").count(), 2);
    assert_eq!(pair.closed, None);
}

#[test]
fn text_behind_data_is_neither_message_nor_command() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    envelope(&mut pair);
    pair.say("DATA\r\nMAIL FROM:<evil@x>\r\n.\r\n");
    assert!(pair.heard().starts_with("554 5.5.0"));
    assert_eq!(pair.closed, Some(true));
    assert_eq!(pair.outcomes, [Outcome::Lost]);
}

#[test]
fn a_tls_hello_is_noticed_without_a_line_end() {
    whole_and_split(|step| {
        let mut pair = Pair::new(FULL, step);
        pair.heard();
        pair.verdicts = |_| Verdict::Close(ReplyText::fixed("521 5.7.0 no\r\n"));
        pair.say_bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc");
        assert_eq!(pair.heard(), "521 5.7.0 no\r\n");
        assert_eq!(pair.closed, Some(true));

        let mut pair = Pair::new(FULL, step);
        pair.heard();
        pair.verdicts = |_| Verdict::Close(ReplyText::fixed("521 5.7.0 no\r\n"));
        pair.say_bytes(b"\x16\x03\x01\n\x00\x01\n");
        assert_eq!(pair.heard(), "521 5.7.0 no\r\n");
    });
}

#[test]
fn deadlines_answer_with_451_and_close_the_upstream() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    pair.heard();
    let due = pair.relay.deadline();
    assert_eq!(due.since(pair.now), Duration::from_secs(240));
    pair.now = due;
    pair.call(|relay, cx| relay.handle_timeout(cx));
    assert!(pair.heard().starts_with("451 4.4.2"));
    assert_eq!(pair.detached, [Detach::Close]);

    let mut pair = Pair::greeted(FULL, usize::MAX);
    envelope(&mut pair);
    pair.say("DATA\r\n");
    pair.say("x\r\n.\r\n");
    pair.heard();
    let due = pair.relay.deadline();
    assert_eq!(due.since(pair.now), Duration::from_secs(540));
    pair.now = due;
    pair.call(|relay, cx| relay.handle_timeout(cx));
    assert!(pair.heard().starts_with("451 4.4.2"));
    assert_eq!(pair.detached, [Detach::Close]);
    pair.nothing_leaked();
}

#[test]
fn no_leg_is_a_temporary_refusal() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.attach = false;
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n");
    pair.heard();
    pair.call(|relay, cx| relay.handle_attach_failed(cx, AttachFailure::NoSlot));
    let heard = pair.heard();
    assert_eq!(heard.matches("451 4.3.2").count(), 2, "{heard}");
    assert_eq!(pair.wanted.len(), 1);
}

#[test]
fn limits_are_kept() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b> SIZE=100001\r\n");
    assert!(pair.heard().starts_with("552 5.3.4"));
    envelope(&mut pair);
    pair.heard();
    pair.say("RCPT TO:<1@d>\r\nRCPT TO:<2@d>\r\nRCPT TO:<3@d>\r\n");
    pair.reply("250 ok\r\n250 ok\r\n");
    let heard = pair.heard();
    assert!(
        heard.ends_with("452 4.5.3 Error: too many recipients\r\n"),
        "{heard}"
    );
    pair.sent_up();
    pair.say("DATA\r\n");
    pair.heard();
    pair.hold_max = 1_000_000;
    pair.say(&"0123456789abcdef\r\n".repeat(6000));
    pair.say(".\r\n");
    assert!(pair.heard().starts_with("552 5.3.4"));
    assert_eq!(pair.sent_up(), "");
    envelope(&mut pair);
    pair.say("RSET\r\n");
    pair.heard();
    pair.say("MAIL FROM:<a@b>\r\n");
    assert!(pair.heard().starts_with("421"));
    assert!(pair.closed.is_some());
    pair.nothing_leaked();
}

#[test]
fn upstreams_without_pipelining_get_one_command_at_a_time() {
    let mut pair = Pair::greeted(BARE, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n");
    assert_eq!(pair.sent_up(), "MAIL FROM:<a@b>\r\n");
    pair.reply("250 ok\r\n");
    assert_eq!(pair.sent_up(), "RCPT TO:<c@d>\r\n");
    pair.reply("250 ok\r\n");
    assert_eq!(pair.sent_up(), "RCPT TO:<e@f>\r\n");
    pair.reply("250 ok\r\n");
    assert_eq!(
        pair.heard(),
        "250 2.1.0 Ok\r\n250 2.0.0 ok\r\n250 2.0.0 ok\r\n"
    );
}

#[test]
fn parking_keeps_what_the_session_was() {
    let mut pair = Pair::greeted(FULL, usize::MAX);
    pair.say("NOOP\r\n");
    pair.heard();
    let parked = pair.relay.park();
    assert_eq!(parked.helo(), b"client");
    pair.relay = Relay::resume(parked, pair.now, Duration::from_secs(300));
    assert_eq!(pair.relay.stats().junk, 1);
    envelope(&mut pair);
    pair.say("RSET\r\n");
    let before = *pair.relay.stats();
    assert_eq!((before.transactions, before.recipients), (1, 1));
    let parked = pair.relay.park();
    assert_eq!(parked.stats(), before);
    pair.relay = Relay::resume(parked, pair.now, Duration::from_secs(300));
    assert_eq!(*pair.relay.stats(), before);
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Relay>() <= 256, "{}", size_of::<Relay>());
    assert!(size_of::<Parked>() <= 40, "{}", size_of::<Parked>());
    let kinds = vec![size_of::<Transaction>()];
    assert!(kinds[0] <= 1024, "{kinds:?}");
}

#[test]
fn a_chunk_refused_by_the_data_gate_lets_the_upstream_go_at_once() {
    for step in [1, usize::MAX] {
        let mut pair = Pair::greeted(FULL, step);
        pair.say("MAIL FROM:<a@b.c>\r\nRCPT TO:<d@e.f>\r\n");
        pair.reply("250 ok\r\n250 ok\r\n");
        pair.verdicts = |stage| match stage {
            Stage::Data => Verdict::Refuse(crate::texts::INTERNAL),
            _ => Verdict::Pass,
        };
        pair.say("BDAT 100 LAST\r\nnot all");
        assert_eq!(pair.detached, [Detach::Reset]);
    }
}
