//! Stories of one session with an upstream of its own, told by `Pair`, with the client's and the upstream's bytes whole
//! and cut in several ways.

use super::pair::{FULL, PLAIN, Pair};
use super::*;
use crate::gate::Verdict;
use crate::outbound::{Opening, TlsWanted};
use crate::relay::{Gone, Outcome};
use crate::texts;

mod bodies;
mod secrets;

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
fn a_client_that_is_introduced_gets_another_connection_and_its_greeting() {
    whole_and_split(|step| {
        let mut pair = Pair::started(Manner::default(), step);
        pair.trusted = true;
        pair.announced.caps.set = ExtensionSet::XCLIENT;
        pair.say("EHLO front\r\n");
        pair.reply("250 mx\r\n");
        assert!(pair.heard().contains("\r\n250 XCLIENT NAME ADDR "));
        pair.sent_up();
        pair.say("XCLIENT ADDR=192.0.2.1 HELO=told.example\r\n");
        assert_eq!(
            (&pair.detached[..], pair.legs_made),
            (&[Detach::Clean][..], 2)
        );
        assert_eq!(
            (pair.heard().as_str(), pair.relay.helo()),
            ("", &b"told.example"[..])
        );
        pair.reply("220 for you\r\n");
        assert_eq!(pair.heard(), "220 for you\r\n");
        pair.say("EHLO told.example\r\n");
        assert_eq!(pair.sent_up(), "EHLO told.example\r\n");
        pair.reply("250 mx\r\n");
        pair.trusted = false;
        pair.heard();
        pair.say("XCLIENT ADDR=192.0.2.2\r\n");
        assert!(pair.heard().starts_with("550 5.7.0"));
        pair.say("MAIL FROM:<a@b>\r\n");
        pair.reply("250 ok\r\n");
        pair.heard();
        pair.say("XCLIENT ADDR=192.0.2.2\r\n");
        assert!(pair.heard().starts_with("503 5.5.1"));
    });
}

/// Weir took the transaction for ended while the server waited for a body: the client's next commands would have been that.
#[test]
fn a_354_behind_a_refused_mail_ends_the_session() {
    let mut pair = greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    pair.reply("550 m\r\n250 r\r\n354 go\r\n");
    let heard = pair.heard();
    assert!(heard.starts_with("550 m\r\n250 r\r\n421 4.4.2"));
    assert_eq!(pair.detached, [Detach::Close]);
    assert_eq!(pair.outcomes, [Outcome::Rejected]);
}

#[test]
fn a_command_with_policy_is_answered_even_if_its_mail_is_refused_meanwhile() {
    for last in ["RCPT TO:<c@d>\r\n", "DATA\r\n"] {
        let mut pair = greeted(FULL, usize::MAX);
        pair.late = true;
        pair.say("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
        pair.answer_all();
        pair.feed();
        pair.answer_all();
        pair.say(last);
        assert_eq!(pair.asked.len(), 1);
        pair.sent_up();
        pair.reply("550 m\r\n503 r\r\n");
        assert!(pair.outcomes.is_empty());
        pair.answer_all();
        assert_eq!(pair.sent_up(), last);
        pair.reply("503 nor that\r\n");
        assert_eq!(pair.heard(), "550 m\r\n503 r\r\n503 nor that\r\n");
        assert_eq!(pair.outcomes, [Outcome::Rejected]);
    }
}

#[test]
fn a_demand_for_tls_waits_for_the_replies_before_it() {
    let mut pair = greeted(FULL, usize::MAX);
    pair.tls = crate::relay::TlsOffer::Require;
    pair.say("NOOP\r\nMAIL FROM:<a@b>\r\n");
    assert_eq!(pair.heard(), "");
    pair.reply("250 noop\r\n");
    assert!(pair.heard().starts_with("250 noop\r\n530 5.7.0"));
}

#[test]
fn the_time_of_a_reply_begins_with_its_command() {
    let manner = Manner {
        introduces: true,
        ..Manner::default()
    };
    let mut pair = Pair::started(manner, usize::MAX);
    pair.trusted = true;
    let within = pair.config.timeouts.rcpt_reply;
    let later = core::time::Duration::from_secs(299);
    pair.now = pair.now + later;
    pair.introduction = b"XCLIENT ADDR=192.0.2.1\r\n".to_vec();
    pair.say("EHLO c\r\n");
    assert_eq!(pair.relay.deadline(), pair.now + within);
    pair.reply("220 mx\r\n");
    pair.reply("250 mx\r\n");
    pair.now = pair.now + later;
    pair.say("XCLIENT ADDR=192.0.2.2\r\n");
    assert_eq!(
        (pair.legs_made, pair.relay.deadline()),
        (2, pair.now + within)
    );
}

#[test]
fn a_violation_is_answered_in_its_turn() {
    whole_and_split(|step| {
        for (line, code) in [
            ("FOO\r\n", "500 5.5.2"),
            ("RCPT TO:<>\r\n", "501 5.1.3"),
            ("MAIL FROM:<b@c>\r\n", "503 5.5.1"),
            ("ETRN x\r\n", "502 5.5.1"),
            ("NOOP\n", "500 5.5.2"),
        ] {
            let mut pair = greeted(FULL, step);
            pair.say(&["MAIL FROM:<a@b>\r\n", line, "RCPT TO:<c@d>\r\n"].concat());
            assert_eq!(
                (pair.heard().as_str(), pair.sent_up().as_str()),
                ("", "MAIL FROM:<a@b>\r\n")
            );
            pair.reply("250 ok\r\n");
            let heard = pair.heard();
            assert!(
                heard.starts_with("250 ok\r\n") && heard[8..].starts_with(code),
                "{heard}"
            );
            assert_eq!(pair.sent_up(), "RCPT TO:<c@d>\r\n");
        }
    });
}

/// A NOOP went up behind weir's own STARTTLS: the handshake was never begun, or the command lost the connection in the middle of it.
#[test]
fn what_passes_waits_until_weir_has_said_its_own() {
    whole_and_split(|step| {
        for command in ["NOOP\r\n", "RSET\r\n", "VRFY x\r\n"] {
            for early in [true, false] {
                let mut pair = Pair::new(Manner::default(), step);
                pair.opening = Opening::Hello;
                pair.start();
                let leg = |pair: &mut Pair, call: fn(&mut Outbound)| {
                    call(&mut pair.leg.as_mut().expect("a leg").1);
                };
                leg(&mut pair, |leg| leg.set_tls(TlsWanted::Require));
                pair.reply("220 mx\r\n");
                assert_eq!(pair.sent_up(), "EHLO weir.example\r\n");
                if early {
                    pair.say(command);
                }
                pair.reply("250-mx\r\n250 STARTTLS\r\n");
                if !early {
                    pair.say(command);
                }
                assert_eq!(pair.sent_up(), "STARTTLS\r\n");
                pair.reply("220 go\r\n");
                leg(&mut pair, |leg| {
                    assert!(leg.wants_tls() && leg.plaintext_drained(0).is_some());
                    leg.handle_secured(true);
                });
                assert_eq!(pair.sent_up(), "EHLO weir.example\r\n");
                pair.reply("250 mx\r\n");
                assert_eq!(pair.sent_up(), command);
                pair.reply("252 ok\r\n");
                assert!(pair.heard().ends_with("252 ok\r\n"));
            }
        }
        let mut pair = Pair::new(Manner::default(), step);
        pair.opening = Opening::Hello;
        pair.start();
        pair.reply("220 mx\r\n");
        pair.say("NOOP\r\n");
        pair.heard();
        pair.time_out();
        assert!(pair.heard().starts_with("421 4.4.2"), "not for ever");
    });
}
