//! The relay under random treatment: any bytes, replies, verdicts, losses and times in any order.
//! Goal: it never panics, never says 2xx to a message that no upstream took, never ends a message
//! upstream that the client has not ended, and gives back every buffer it kept.
//! Method: a seeded generator drives `Pair`; a failure prints its seed.

use alloc::vec::Vec;

use super::pair::{BARE, FULL, PLAIN, Pair};
use super::*;

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

const SAYINGS: &[&str] = &[
    "EHLO c\r\n",
    "HELO c\r\n",
    "MAIL FROM:<a@b>\r\n",
    "MAIL FROM:<> SIZE=10\r\n",
    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n",
    "RCPT TO:<c@d>\r\n",
    "RCPT TO:<c@d> NOTIFY=NEVER\r\n",
    "RCPT TO:<c@d>\r\nRSET\r\n",
    "DATA\r\n",
    "Subject: x\r\n\r\nbody\r\n.\r\n",
    "..\r\n.x\r\n.\r\n",
    "a\nb\r\n.\r\n",
    ".\r\n",
    "\r\n",
    "BDAT 6\r\nabc\r\n\r",
    "BDAT 5 LAST\r\n.\r\nab",
    "BDAT 0 LAST\r\n",
    "BDAT x\r\n",
    "BDAT 40000\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "STARTTLS\r\n",
    "XCLIENT ADDR=192.0.2.1 NAME=[UNAVAILABLE]\r\n",
    "XCLIENT HELO=x\r\nEHLO y\r\n",
    "XCLIENT PORT=x\r\n",
    "STARTTLS\r\nNOOP\r\nMAIL FROM:<evil@b>\r\n",
    "VRFY x\r\n",
    "QUIT\r\n",
    "GET / HTTP/1.0\r\n",
    "MAIL FROM:<a@b",
    "garbage",
];

const REPLIES: &[&str] = &[
    "250 ok\r\n",
    "250-2.1.0 two\r\n250 2.1.0 lines\r\n",
    "250 ok\r\n250 ok\r\n",
    "354 go\r\n",
    "450 later\r\n",
    "550 5.1.1 no\r\n",
    "421 bye\r\n",
    "25",
    "garbage\r\n",
];

fn judge(stage: Stage, chance: &mut Chance) -> Verdict {
    match (chance.below(12), stage) {
        (0, _) => Verdict::Refuse(ReplyText::fixed("450 4.7.1 later\r\n")),
        (1, _) => Verdict::Refuse(ReplyText::fixed("550 5.7.1 no\r\n")),
        (2, Stage::Rcpt { .. }) => Verdict::PassVia(RouteId(1)),
        (3, Stage::Mail | Stage::Rcpt { .. }) => {
            Verdict::Close(ReplyText::fixed("521 5.7.1 go\r\n"))
        }
        _ => Verdict::Pass,
    }
}

/// What a peer in its right mind would do next.
fn sensible(pair: &mut Pair, chance: &mut Chance) {
    let relay = &pair.relay;
    if relay.waiting == Waiting::Handshake {
        return shake_hands(pair);
    }
    let owed_by_upstream = pair.leg.as_ref().is_some_and(|(_, leg)| leg.is_owed());
    if owed_by_upstream && relay.waiting == Waiting::Final {
        let committed = relay.tx().committed;
        return pair.reply(if committed {
            "250 took it\r\n"
        } else {
            "354 go\r\n"
        });
    }
    if owed_by_upstream {
        return pair.reply("250 fine\r\n");
    }
    let saying: &str = match relay.phase {
        Phase::Greeted => "EHLO c\r\n",
        Phase::Ready if pair.tls == TlsOffer::Require => "STARTTLS\r\n",
        Phase::Ready => "MAIL FROM:<a@b>\r\n",
        Phase::Envelope if chance.below(2) == 0 => "RCPT TO:<c@d>\r\n",
        Phase::Envelope if chance.below(2) == 0 => "DATA\r\n",
        Phase::Envelope => "BDAT 5\r\nab\r\n.",
        Phase::BetweenChunks => "BDAT 3 LAST\r\n.\r\n",
        Phase::Data => "text\r\n.\r\n",
        _ => "NOOP\r\n",
    };
    pair.say(saying);
}

/// As a driver does it: what is left of the plaintext goes first.
fn shake_hands(pair: &mut Pair) {
    pair.backlog.clear();
    assert!(pair.relay.plaintext_drained(0).is_some());
    pair.tls = TlsOffer::Active;
    pair.call(|relay, cx| relay.handle_secured(cx));
    assert!(pair.relay.helo().is_empty() && pair.relay.envelope().is_none());
}

fn run(seed: u64) -> Vec<Outcome> {
    let mut chance = Chance(seed);
    let ehlo = *chance.pick(&[FULL, PLAIN, BARE]);
    let step = *chance.pick(&[usize::MAX, 1, 5, 100]);
    let mut pair = Pair::greeted(ehlo, step);
    pair.xforward = chance.pick::<&[u8]>(&[
        b"",
        b"",
        b"",
        b"XFORWARD ADDR=192.0.2.1\r\nXFORWARD HELO=c\r\n",
    ]);
    pair.field = chance.pick::<&[u8]>(&[b"", b"Received: x\r\n"]);
    pair.trusted = chance.below(2) == 0;
    pair.tls = *chance.pick(&[TlsOffer::Off, TlsOffer::May, TlsOffer::Require]);
    pair.late = chance.below(2) == 0;
    pair.attach = chance.below(4) != 0;
    pair.hold_max = *chance.pick(&[0, 100, 50_000]);
    pair.config.bare_newline = *chance.pick(&[
        BareNewline::Reject,
        BareNewline::Normalize,
        BareNewline::Pass,
    ]);
    for _ in 0..60 {
        if chance.below(3) != 0 && pair.asked.is_empty() && pair.backlog.is_empty() {
            sensible(&mut pair, &mut chance);
            continue;
        }
        match chance.below(20) {
            0..8 => {
                let saying = *chance.pick::<&str>(SAYINGS);
                pair.say(saying);
            }
            8 => pair.say(&"long line of a body that has to stream\r\n".repeat(400)),
            9..14 => {
                let text = *chance.pick::<&str>(REPLIES);
                pair.reply(text);
            }
            14..17 => {
                if !pair.asked.is_empty() {
                    let at = chance.below(pair.asked.len() as u64) as usize;
                    let (id, stage) = pair.asked.remove(at);
                    let verdict = judge(stage, &mut chance);
                    pair.call(|relay, cx| relay.handle_verdict(cx, id, verdict));
                    pair.feed();
                }
            }
            17 => {
                if pair.leg.is_some() {
                    pair.lose_leg();
                } else if pair.relay.tx.as_ref().is_some_and(|tx| tx.leg().is_none()) {
                    let why = *chance.pick(&[AttachFailure::NoSlot, AttachFailure::NoUpstream]);
                    pair.call(|relay, cx| relay.handle_attach_failed(cx, why));
                    pair.feed();
                }
            }
            18 => {
                let due = pair.relay.deadline();
                if due != Moment::NEVER && chance.below(3) == 0 {
                    pair.now = pair.now.max(due);
                    pair.call(|relay, cx| relay.handle_timeout(cx));
                    assert!(pair.relay.deadline() > pair.now, "time moves on");
                    pair.feed();
                }
            }
            _ => {
                if chance.below(6) == 0 {
                    let gone = *chance.pick(&[Gone::Eof, Gone::Reset]);
                    if gone == Gone::Reset || pair.backlog.is_empty() {
                        pair.call(|relay, cx| relay.handle_client_gone(cx, gone));
                    }
                }
            }
        }
        pair.flush_leg();
    }
    pair.call(|relay, cx| relay.handle_client_gone(cx, Gone::Reset));
    if pair.leg.is_some() {
        pair.lose_leg();
    }
    let accepted = pair.outcomes.iter().filter(|&&o| o == Outcome::Accepted);
    assert!(
        accepted.count() <= pair.agreed,
        "a message was accepted that no upstream agreed to"
    );
    assert!(pair.relay.is_finished(), "{:?}", pair.relay);
    assert!(pair.relay.tx.is_none());
    pair.nothing_leaked();
    assert!(pair.tls != TlsOffer::Require || pair.outcomes.is_empty());
    pair.outcomes
}

#[test]
fn random_treatment_breaks_nothing() {
    let mut seen = [0; 5];
    for seed in 0..2600 {
        let told = Told(seed);
        for outcome in run(seed) {
            seen[outcome as usize] += 1;
        }
        core::mem::forget(told);
    }
    assert!(
        seen.iter().all(|&count| count > 100),
        "every ending is met often: {seen:?}"
    );
}

/// Names the seed when a run panics.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        std::eprintln!("relay chaos failed with seed {}", self.0);
    }
}
