//! Stories of AUTH and STARTTLS.

use super::super::pair::{FULL, PLAIN, Pair};
use super::*;
use crate::limits::{AUTH_LINE_MAX, AUTH_LINES_MAX};
use crate::relay::TlsOffer;

fn by(starttls: Way) -> Pair {
    let manner = Manner {
        starttls,
        ..Manner::default()
    };
    Pair::greeted(manner, FULL, usize::MAX)
}

#[test]
fn auth_passes_line_by_line() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        pair.say("AUTH LOGIN\r\n");
        assert_eq!(pair.sent_up(), "AUTH LOGIN\r\n");
        for line in ["dXNlcg==\r\n", "\r\n", "=\r\n"] {
            pair.reply("334 VXNlcm5hbWU6\r\n");
            assert_eq!(pair.heard(), "334 VXNlcm5hbWU6\r\n");
            pair.say(line);
            assert_eq!(pair.sent_up(), line);
        }
        pair.reply("235 2.7.0 welcome\r\n");
        assert_eq!(pair.heard(), "235 2.7.0 welcome\r\n");
        pair.say("AUTH PLAIN AGEAYg==\r\n");
        assert!(
            pair.heard().starts_with("503 5.5.1"),
            "one success is enough"
        );
        pair.say("MAIL FROM:<a@b> AUTH=<>\r\n");
        assert_eq!(pair.sent_up(), "MAIL FROM:<a@b> AUTH=<>\r\n");
    });
}

#[test]
fn a_failed_auth_may_be_tried_again() {
    whole_and_split(|step| {
        let mut pair = greeted(FULL, step);
        for _ in 0..2 {
            pair.say("AUTH PLAIN AGEAYg==\r\n");
            assert_eq!(pair.sent_up(), "AUTH PLAIN AGEAYg==\r\n");
            pair.reply("535 5.7.8 no\r\n");
            assert_eq!(pair.heard(), "535 5.7.8 no\r\n");
        }
        assert_eq!(pair.relay.stats().errors, 2);
        pair.say("AUTH PLAIN\r\n");
        pair.sent_up();
        pair.reply("334 \r\n");
        pair.say("*\r\n");
        assert_eq!(pair.sent_up(), "*\r\n");
        pair.reply("501 5.7.0 given up\r\n");
        pair.say("NOOP\r\n");
        assert_eq!(pair.sent_up(), "NOOP\r\n");
    });
}

#[test]
fn an_answer_that_can_not_pass_gives_the_exchange_up() {
    whole_and_split(|step| {
        let endless = ["x".repeat(AUTH_LINE_MAX + 1).as_str(), "\r\n"].concat();
        for line in [
            "RCPT TO:<a@b>\r\n",
            "a\0\r\n",
            "a\rb\r\n",
            "YQ==\n",
            &endless,
        ] {
            let mut pair = greeted(FULL, step);
            pair.say("AUTH PLAIN\r\n");
            pair.sent_up();
            pair.reply("334 \r\n");
            pair.heard();
            pair.say(line);
            assert_eq!(pair.sent_up(), "*\r\n");
            pair.reply("501 5.5.2 what?\r\n");
            assert_eq!(pair.heard(), "501 5.5.2 what?\r\n");
            assert_eq!(pair.violations, [Violation::SyntaxError]);
        }
    });
    let mut pair = greeted(FULL, usize::MAX);
    pair.say("AUTH X\r\n");
    for _ in 0..AUTH_LINES_MAX {
        pair.reply("334 \r\n");
        pair.say("YQ==\r\n");
    }
    assert!(!pair.sent_up().contains('*'));
    pair.reply("334 \r\n");
    pair.say("YQ==\r\n");
    assert_eq!(pair.sent_up(), "*\r\n", "no exchange goes on for ever");
}

#[test]
fn lines_of_an_exchange_may_be_long_and_no_others() {
    for step in [usize::MAX, 1000] {
        let mut pair = greeted(FULL, step);
        let initial = ["AUTH PLAIN ", &"x".repeat(12_000), "\r\n"].concat();
        pair.say(&initial);
        assert_eq!(pair.sent_up(), initial);
        pair.reply("334 \r\n");
        let long = ["x".repeat(AUTH_LINE_MAX).as_str(), "\r\n"].concat();
        pair.say(&long);
        assert_eq!(pair.sent_up(), long);
        pair.reply("535 no\r\n");
        pair.heard();
        for line in ["MAIL FROM:<a@b> ", "NOOP "] {
            pair.say(&[line, &"x".repeat(5000), "\r\n"].concat());
            assert_eq!(pair.sent_up(), "");
            assert!(pair.heard().starts_with('5'));
        }
    }
}

#[test]
fn auth_is_refused_where_it_has_no_place() {
    let mut pair = greeted(PLAIN, usize::MAX);
    pair.say("AUTH PLAIN\r\n");
    assert!(pair.heard().starts_with("502"), "not offered");
    let mut pair = greeted(FULL, usize::MAX);
    pair.say("MAIL FROM:<a@b>\r\nAUTH PLAIN\r\n");
    pair.reply("250 ok\r\n");
    assert!(
        pair.heard()
            .ends_with("503 5.5.1 Error: bad sequence of commands\r\n")
    );
}

#[test]
fn a_tunnel_begins_with_the_upstreams_220() {
    let mut pair = by(Way::Tunnel);
    pair.say("STARTTLS\r\nRCPT TO:<evil@x>\r\n");
    assert_eq!(pair.sent_up(), "STARTTLS\r\n");
    pair.reply("220 go ahead\r\n");
    assert_eq!(
        (pair.heard().as_str(), pair.tunnelled),
        ("220 go ahead\r\n", true)
    );
    assert!(!pair.relay.wants_input() && pair.relay.deadline() == Moment::NEVER);
    assert_eq!(
        pair.relay.plaintext_drained(pair.backlog.len()),
        None,
        "something was glued behind"
    );
    assert!(pair.relay.plaintext_drained(0).is_some());
    let (_, leg) = pair.leg.as_ref().expect("still attached");
    assert!(!leg.wants_tls(), "it is the client's handshake");
    pair.client_gone(Gone::Reset);
    assert_eq!(
        (pair.closed, &pair.detached[..]),
        (Some(false), &[Detach::Close][..])
    );
    assert!(pair.relay.is_finished());
}

#[test]
fn what_the_upstream_glues_behind_its_220_ends_the_session() {
    whole_and_split(|step| {
        let mut pair = by(Way::Tunnel);
        pair.step = step;
        pair.say("STARTTLS\r\n");
        pair.reply("220 go ahead\r\n250 injected\r\n");
        assert_eq!(
            (pair.heard().as_str(), pair.closed),
            ("220 go ahead\r\n", Some(false))
        );
        assert!(pair.relay.is_finished());
    });
}

#[test]
fn a_tunnel_that_is_refused_leaves_the_session_as_it_was() {
    let mut pair = by(Way::Tunnel);
    pair.say("STARTTLS\r\n");
    assert_eq!(pair.sent_up(), "STARTTLS\r\n");
    pair.reply("454 4.7.0 not now\r\n");
    assert_eq!(
        (pair.heard().as_str(), pair.tunnelled),
        ("454 4.7.0 not now\r\n", false)
    );
    envelope(&mut pair);
    pair.say("STARTTLS\r\n");
    assert!(
        pair.heard().starts_with("503"),
        "not inside of a transaction"
    );
}

#[test]
fn starttls_is_refused_or_unknown_by_its_way() {
    for (way, code) in [
        (Way::Refuse, "454 4.7.0"),
        (Way::Off, "502 5.5.1"),
        (Way::Offer, "502 5.5.1"),
    ] {
        let mut pair = by(way);
        pair.say("STARTTLS\r\n");
        assert!(pair.heard().starts_with(code), "{way:?}");
        assert_eq!(pair.sent_up(), "");
    }
    let mut pair = by(Way::Tunnel);
    pair.say("STARTTLS now\r\n");
    assert!(pair.heard().starts_with("501"));
}

#[test]
fn after_a_handshake_of_weirs_the_upstream_is_greeted_again() {
    whole_and_split(|step| {
        let manner = Manner {
            starttls: Way::Offer,
            introduces: true,
        };
        let mut pair = Pair::started(manner, step);
        pair.tls = TlsOffer::Require;
        pair.say("EHLO c\r\n");
        pair.reply("250-mx\r\n250 STARTTLS\r\n");
        assert_eq!(pair.heard(), "250-mx\r\n250 STARTTLS\r\n");
        pair.say("MAIL FROM:<a@b>\r\n");
        assert!(pair.heard().starts_with("530 5.7.0"));
        pair.say("STARTTLS\r\n");
        assert_eq!(
            (pair.heard().as_str(), pair.handshakes),
            ("220 2.0.0 Ready to start TLS\r\n", 1)
        );
        assert!(!pair.relay.wants_input());
        pair.tls = TlsOffer::Active;
        pair.sent_up();
        pair.call(|relay, cx| relay.handle_secured(cx));
        pair.say("MAIL FROM:<a@b>\r\n");
        assert!(
            pair.heard()
                .starts_with("503 5.5.1 Error: send HELO/EHLO first")
        );
        pair.say("EHLO c\r\n");
        assert_eq!(pair.sent_up(), "EHLO c\r\n");
        pair.reply("250-mx\r\n250 STARTTLS\r\n");
        assert_eq!(pair.heard(), "250 mx\r\n");
        pair.say("STARTTLS\r\n");
        assert!(pair.heard().starts_with("554 5.5.1"));
    });
}

/// It was an assertion that failed: the session was closing already when its handshake ended, and its last words had gone out in the clear.
#[test]
fn an_upstream_that_leaves_during_the_handshake_is_told_of_inside_tls() {
    let losses: [fn(&mut Pair); 3] = [
        Pair::lose_leg,
        |pair| pair.reply("421 4.3.2 down\r\n"),
        |pair| pair.reply("250 what?\r\n"),
    ];
    for lose in losses {
        let mut pair = by(Way::Offer);
        pair.tls = TlsOffer::May;
        pair.say("STARTTLS\r\n");
        assert_eq!(pair.heard(), "220 2.0.0 Ready to start TLS\r\n");
        lose(&mut pair);
        assert_eq!((pair.heard().as_str(), pair.closed), ("", None));
        assert!(!pair.relay.wants_input() && !pair.relay.is_finished());
        pair.tls = TlsOffer::Active;
        pair.call(|relay, cx| relay.handle_secured(cx));
        assert!(pair.heard().starts_with("421 4.4.2"));
        assert_eq!(pair.closed, Some(true));
        assert!(pair.relay.is_finished());
    }
}

/// A session fixed by somebody in between: his AUTH in plaintext, and the victim's handshake and mail behind it.
#[test]
fn who_was_authenticated_in_the_clear_gets_no_tls() {
    let mut pair = by(Way::Offer);
    pair.tls = TlsOffer::May;
    pair.say("AUTH PLAIN AGV2aWwAeA==\r\n");
    pair.reply("535 5.7.8 no\r\n");
    pair.say("AUTH PLAIN AGV2aWwAeQ==\r\n");
    pair.reply("235 2.7.0 welcome\r\n");
    pair.heard();
    pair.say("STARTTLS\r\n");
    assert!(pair.heard().starts_with("503 5.5.1"));
    assert_eq!(pair.handshakes, 0);

    let mut pair = by(Way::Offer);
    pair.tls = TlsOffer::May;
    pair.say("AUTH PLAIN AGV2aWwAeA==\r\n");
    pair.reply("535 5.7.8 no\r\n");
    pair.say("STARTTLS\r\n");
    assert_eq!(pair.handshakes, 1, "a failed one leaves nothing behind");
}
