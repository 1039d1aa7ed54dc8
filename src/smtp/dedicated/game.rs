//! A session under random treatment, for tests and fuzzing: any bytes, replies, verdicts, losses and times in any order.
//!
//! Goal: it never panics, never says 2xx to a message that no upstream took, gives back every buffer it kept; and what goes
//! up is understood by a server that knows nothing of weir. That server, naive on purpose, reads octet by octet: whatever
//! it takes for a command must be one that the client sent on a line of its own, and a message that it takes to have ended
//! must lie in what the client sent, end included.
//! Method: the moves of the game are the bytes of the input; when they are used up both sides leave.

mod server;

use alloc::vec::Vec;

use super::pair::{FULL, PLAIN, Pair};
use super::*;
use crate::gate::{RouteId, Verdict};
use crate::outbound::Opening;
use crate::relay::{Gone, Outcome, TlsOffer};

use server::{Reading, Server};

const SAYINGS: &[&str] = &[
    "EHLO c.example\r\n",
    "HELO c\r\n",
    "MAIL FROM:<a@b>\r\n",
    "MAIL FROM:<> SIZE=10\r\n",
    "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n",
    "RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<e@f>\r\n",
    "RCPT TO:<c@d>\r\n",
    "RCPT TO:<c@d> NOTIFY=NEVER\r\n",
    "DATA\r\n",
    "Subject: x\r\n\r\nbody\r\n.\r\n",
    "..\r\n.x\r\n.\r\n",
    ".\r\n",
    "\r\n",
    "BDAT 6\r\nabc\r\n\r",
    "BDAT 5 LAST\r\n.\r\nab",
    "BDAT 4\r\na\nb\n",
    "BDAT 0 LAST\r\n",
    "BDAT x\r\n",
    "BDAT 40000\r\n",
    "RSET\r\n",
    "NOOP\r\nVRFY x\r\n",
    "AUTH PLAIN\r\n",
    "AUTH PLAIN AGEAYg==\r\n",
    "YQ==\r\n",
    "*\r\n",
    "STARTTLS\r\n",
    "XCLIENT ADDR=192.0.2.1\r\n",
    "QUIT\r\n",
    "GET / HTTP/1.0\r\n",
    "MAIL FROM:<a@b",
];

/// Said only inside of DATA: there nothing of it is a command.
const BODIES: &[&[u8]] = &[
    b"text\r\n.\r\n",
    b"..\r\n",
    b".\r\n",
    b"a\n.\nRCPT TO:<evil@x>\r\n.\r\n",
    b"a\r\n.\rRCPT TO:<evil@x>\r\n.\r\n",
    b"\r\n.\nRCPT TO:<evil@x>\r\n.\r\n",
    b"\r\r\n.\r\r\nRCPT TO:<evil@x>\r\n.\r\n",
];

const WORDS: &[&str] = &[
    "250 ok\r\n",
    "354 go\r\n",
    "450 later\r\n",
    "550-5.1.1 no\r\n550 5.1.1 no\r\n",
    "421 bye\r\n",
    "25",
    "garbage\r\n",
];

/// The moves that are still to be made.
struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    fn below(&mut self, n: usize) -> usize {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        usize::from(first) % n
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        head
    }
}

fn judge(stage: Stage, tape: &mut Tape<'_>) -> Verdict {
    match (tape.below(30), stage) {
        (1, _) => Verdict::Refuse(ReplyText::fixed("450 4.7.1 later\r\n")),
        (2, _) => Verdict::Refuse(ReplyText::fixed("550 5.7.1 no\r\n")),
        (3, Stage::Rcpt { .. }) => Verdict::PassVia(RouteId(1)),
        (4, Stage::Mail | Stage::Rcpt { .. }) => {
            Verdict::Close(ReplyText::fixed("521 5.7.1 go\r\n"))
        }
        _ => Verdict::Pass,
    }
}

struct Game {
    pair: Pair,
    server: Server,
    /// All that the client has sent.
    said: Vec<u8>,
    /// Replies that the client has heard, and how many of them were a 354.
    heard: usize,
    invited: usize,
}

impl Game {
    fn new(tape: &mut Tape<'_>) -> Self {
        let starttls = tape.pick(&[Way::Off, Way::Offer, Way::Tunnel, Way::Refuse]);
        let step = tape.pick(&[usize::MAX, 1, 5, 100]);
        let manner = Manner {
            starttls,
            introduces: false,
        };
        let mut pair = Pair::new(manner, step);
        pair.opening = tape.pick(&[Opening::Silent, Opening::Hello]);
        pair.hold_max = tape.pick(&[0, 100, 50_000]);
        pair.config.stream_window = tape.pick(&[65_536, 100]);
        pair.late = tape.below(2) == 0;
        if starttls == Way::Offer {
            pair.tls = TlsOffer::May;
        }
        pair.start();
        let server = Server {
            ehlo: tape.pick(&[FULL, PLAIN]),
            reading: Reading::Commands,
            unread: Vec::new(),
            body: Vec::new(),
            recipients: 0,
            greeted: false,
        };
        Self {
            pair,
            server,
            // what the leg says of itself, and the end of the line before the first
            said: b"EHLO weir.example\r\n".to_vec(),
            heard: 0,
            invited: 0,
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
        self.pair.say_bytes(bytes);
    }

    fn server_works(&mut self, tape: &mut Tape<'_>) {
        let sent = self.pair.sent_up_bytes();
        self.server.unread.extend_from_slice(&sent);
        let replies = self.server.work(&self.said, tape);
        self.pair.reply_bytes(&replies);
        if self.server.reading == Reading::Data && self.pair.leg.is_some() {
            let phase = self.pair.relay.phase;
            assert!(
                matches!(phase, Phase::Data | Phase::Final),
                "the server reads a body, and weir is in {phase:?}"
            );
        }
    }

    /// What a client in its right mind would say next.
    fn sensible(&mut self, tape: &mut Tape<'_>) {
        let said: &[u8] = match self.pair.relay.phase {
            Phase::Greeted => b"EHLO c.example\r\n",
            Phase::Ready => b"MAIL FROM:<a@b>\r\n",
            Phase::Envelope => {
                tape.pick(&[&b"RCPT TO:<c@d>\r\n"[..], b"DATA\r\n", b"BDAT 5\r\nab\r\n."])
            }
            Phase::BetweenChunks => b"BDAT 3 LAST\r\n.\r\n",
            Phase::Data if self.pair.backlog.is_empty() => tape.pick(BODIES),
            Phase::Auth => b"YQ==\r\n",
            _ => b"",
        };
        self.say(said);
        self.answer(tape);
        self.server_works(tape);
    }

    fn answer(&mut self, tape: &mut Tape<'_>) {
        while !self.pair.asked.is_empty() {
            let at = tape.below(self.pair.asked.len());
            let (id, stage) = self.pair.asked.remove(at);
            let verdict = judge(stage, tape);
            self.pair
                .call(|relay, cx| relay.handle_verdict(cx, id, verdict));
            self.pair.feed();
        }
    }

    fn trouble(&mut self, tape: &mut Tape<'_>) {
        match tape.below(12) {
            0 if self.pair.leg.is_some() => self.pair.lose_leg(),
            1 if self.pair.relay.deadline() != Moment::NEVER => {
                self.pair.time_out();
                assert!(self.pair.relay.deadline() > self.pair.now, "time moves on");
            }
            2 => self.pair.client_gone(Gone::Reset),
            3 if self.pair.backlog.is_empty() => self.pair.client_gone(Gone::Eof),
            4 => self
                .pair
                .call(|relay, cx| relay.refuse(cx, &texts::SHUTDOWN)),
            5 | 6 => {
                let words = tape.pick(WORDS);
                self.pair.reply(words);
            }
            _ if self.pair.relay.waiting == Waiting::Handshake => {
                self.pair.backlog.clear();
                self.pair.tls = TlsOffer::Active;
                assert!(self.pair.relay.plaintext_drained(0).is_some());
                self.pair.call(|relay, cx| relay.handle_secured(cx));
            }
            _ => {}
        }
    }

    /// Counts what the client has heard.
    fn client_reads(&mut self) {
        for line in self.pair.client.split_inclusive(|&byte| byte == b'\n') {
            self.heard += usize::from(line[3] != b'-');
            self.invited += usize::from(line.starts_with(b"354"));
        }
        self.pair.client.clear();
    }

    /// With no verdict and no reply outstanding it is the client's turn, and it has had a reply to each of its commands
    /// and to each of its messages.
    fn nobody_waits_for_nothing(&self) {
        let relay = &self.pair.relay;
        let leg_is_idle = match &self.pair.leg {
            Some((_, leg)) => !leg.is_owed(),
            None => true,
        };
        let over = matches!(relay.phase, Phase::Closing | Phase::Tunnel);
        if self.pair.asked.is_empty() && leg_is_idle && !over && relay.waiting != Waiting::Handshake
        {
            assert!(relay.wants_input(), "a session that hangs: {relay:?}");
            let commands = relay.stats().commands as usize;
            let in_body = usize::from(matches!(relay.phase, Phase::Data | Phase::Chunk));
            assert_eq!(
                self.heard + in_body,
                1 + commands + self.invited,
                "{relay:?}"
            );
        }
    }

    fn end(mut self) -> Vec<Outcome> {
        self.pair.client_gone(Gone::Reset);
        if self.pair.leg.is_some() {
            self.pair.lose_leg();
        }
        self.pair.answer_all();
        let accepted = self.pair.outcomes.iter();
        let accepted = accepted.filter(|&&outcome| outcome == Outcome::Accepted);
        assert!(
            accepted.count() <= self.pair.agreed,
            "a message was accepted that no upstream agreed to"
        );
        assert!(self.pair.relay.is_finished(), "{:?}", self.pair.relay);
        assert!(self.pair.closed.is_some());
        self.pair.nothing_leaked();
        self.pair.outcomes
    }
}

/// Plays a whole game.
pub fn play(moves: &[u8]) -> Vec<Outcome> {
    let mut tape = Tape(moves);
    let mut game = Game::new(&mut tape);
    while !tape.0.is_empty() && !game.pair.relay.is_finished() {
        match tape.below(16) {
            0..4 => {
                let saying = tape.pick(SAYINGS);
                game.say(saying.as_bytes());
            }
            4 => {
                let len = tape.below(64);
                let bytes = tape.take(len);
                game.say(bytes);
            }
            5 if game.pair.relay.body_octets().is_some() => {
                game.say(&b"long line of a body that has to stream\r\n".repeat(500));
            }
            6..8 => game.server_works(&mut tape),
            8 => game.answer(&mut tape),
            9 => game.trouble(&mut tape),
            _ => game.sensible(&mut tape),
        }
        game.pair.flush_leg();
        game.client_reads();
        game.nobody_waits_for_nothing();
    }
    game.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// splitmix64
    fn moves(mut seed: u64) -> Vec<u8> {
        let mut moves = Vec::new();
        for _ in 0..40 {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            moves.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        moves
    }

    #[test]
    fn random_treatment_breaks_nothing() {
        let mut seen = [0; 5];
        for seed in 0..3000 {
            let told = Told(seed);
            for outcome in play(&moves(seed << 8)) {
                seen[outcome as usize] += 1;
            }
            core::mem::forget(told);
        }
        assert!(
            seen.iter().all(|&count| count > 100),
            "every ending is met often: {seen:?}"
        );
    }

    /// Names the seed when a game panics.
    struct Told(u64);

    impl Drop for Told {
        fn drop(&mut self) {
            std::eprintln!("the game failed with seed {}", self.0);
        }
    }
}
