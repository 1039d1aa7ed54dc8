//! The switch to TLS with a twin: whatever was said in plaintext, what follows is as if it had not been.
//!
//! Client's side: a session with octets glued behind its STARTTLS, one without, and one that was inside TLS from its first octet. Upstream's side: a connection that was asked for STARTTLS
//! after any EHLO reply, and one that was inside TLS from its first octet; and no octet behind the 220 passes. All by bytes that a test or a
//! fuzzer makes up, and in segments of any size.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::body::BareNewline;
use crate::extension::{Capabilities, OwnLimits, announce};
use crate::gate::Verdict;
use crate::outbound::{LegLost, Outbound, Owed, TlsWanted};
use crate::pieces::{BufferId, Form, Piece};
use crate::relay::{
    Act, Acts, Announced, AttachFailure, Config, Cx, Input, Relay, SparePool, Timeouts, TlsOffer,
};
use crate::stats::SessionStats;
use crate::time::Moment;

/// What a client may have said before, to an end where STARTTLS is in order.
const BEFORE: [&[u8]; 6] = [
    b"EHLO c\r\n",
    b"EHLO c\r\nMAIL FROM:<a@b>\r\nRSET\r\n",
    b"HELO h\r\nEHLO evil.example\r\nNOOP\r\n",
    b"MAIL FROM:<a@b>\r\nEHLO c\r\nBDAT 5\r\nabcdeRSET\r\n",
    b"EHLO c\r\nXCLIENT ADDR=192.0.2.1\r\nSTARTTLS x\r\n",
    b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\n",
];

/// Plays both sides by `moves`: three octets of choice, then text.
pub fn play(moves: &[u8]) {
    let [choice, at, size, text @ ..] = moves else {
        return;
    };
    let (glued, after) = text.split_at(text.len().min(usize::from(*at)));
    let segment = usize::from(*size).max(1);
    client_side(usize::from(*choice), glued, after, segment);
    upstream_side(*choice >= 128, glued, after, segment);
}

fn client_side(choice: usize, glued: &[u8], after: &[u8], segment: usize) {
    let before = BEFORE[choice % BEFORE.len()];
    let offer = if choice & 64 == 0 {
        TlsOffer::May
    } else {
        TlsOffer::Require
    };
    let one = Client::new(offer).live(before, glued, after, segment);
    let other = Client::new(offer).live(before, b"", after, 4096);
    assert_eq!(one, other, "what was glued behind STARTTLS has been heard");
    let mut twin = Client::new(TlsOffer::Active);
    twin.out.clear();
    let (said, helo, _) = twin.go_on(after, segment);
    assert_eq!(
        (one.0, one.1),
        (said, helo),
        "what was said before it counts"
    );
}

/// What is heard, the name, the counts.
type Life = (Vec<u8>, Vec<u8>, SessionStats);

struct Client {
    relay: Relay,
    config: Config,
    announced: Announced,
    tls: TlsOffer,
    acts: Acts,
    spare: SparePool,
    out: Vec<u8>,
    backlog: Vec<u8>,
    handshake: bool,
    closed: bool,
}

impl Client {
    fn new(tls: TlsOffer) -> Self {
        let mut client = Self {
            relay: Relay::new(Moment::ZERO),
            config: Config {
                hostname: b"weir.example".to_vec(),
                greeting: b"220 weir.example\r\n".to_vec(),
                message_size_max: 0,
                recipients_max: 0,
                messages_max: 0,
                bare_newline: BareNewline::Reject,
                stream_window: 65_536,
                timeouts: Timeouts::default(),
            },
            announced: Announced::new(b"weir.example", caps(), tls),
            tls,
            acts: Acts::new(),
            spare: SparePool::default(),
            out: Vec::new(),
            backlog: Vec::new(),
            handshake: false,
            closed: false,
        };
        client.call(Relay::start);
        client
    }

    /// A life with a handshake in it; what is heard and known after that.
    fn live(mut self, before: &[u8], glued: &[u8], after: &[u8], segment: usize) -> Life {
        let plaintext = [before, b"STARTTLS\r\n", glued].concat();
        for part in plaintext.chunks(segment) {
            self.hear(part);
        }
        assert!(self.handshake, "{:?}", self.out.escape_ascii());
        assert!(self.relay.plaintext_drained(1).is_none());
        assert!(self.relay.plaintext_drained(0).is_some());
        self.handshake = false;
        self.tls = TlsOffer::Active;
        self.announced = Announced::new(b"weir.example", caps(), self.tls);
        self.out.clear();
        self.call(Relay::handle_secured);
        self.go_on(after, segment)
    }

    fn go_on(mut self, after: &[u8], segment: usize) -> Life {
        for part in after.chunks(segment) {
            self.hear(part);
        }
        let stats = *self.relay.stats();
        (self.out, self.relay.helo().to_vec(), stats)
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        while !self.backlog.is_empty() && !self.closed {
            if self.handshake {
                self.backlog.clear();
            }
            if !self.relay.wants_input() {
                break;
            }
            let backlog = core::mem::take(&mut self.backlog);
            let input = Input {
                buffer: BufferId(0),
                start: 0,
                bytes: &backlog,
            };
            let mut taken = 0;
            self.call(|relay, cx| taken = relay.handle_input(cx, input).len);
            self.backlog = backlog[taken..].to_vec();
        }
    }

    fn call(&mut self, call: impl FnOnce(&mut Relay, &mut Cx<'_>)) {
        self.step(call);
        while let Some(act) = self.acts.pop_front() {
            match act {
                Act::Ask { id, .. } => {
                    self.step(|relay, cx| relay.handle_verdict(cx, id, Verdict::Pass));
                }
                Act::Attach { .. } => {
                    self.step(|relay, cx| relay.handle_attach_failed(cx, AttachFailure::NoUpstream))
                }
                Act::Xclient(_) => self.step(|relay, cx| relay.handle_claim(cx, None)),
                Act::StartTls => self.handshake = true,
                Act::Close { .. } => self.closed = true,
                _ => {}
            }
        }
    }

    fn step(&mut self, call: impl FnOnce(&mut Relay, &mut Cx<'_>)) {
        let mut cx = Cx {
            now: Moment::ZERO,
            config: &self.config,
            announced: &self.announced,
            out: &mut self.out,
            leg: None,
            acts: &mut self.acts,
            spare: &mut self.spare,
            tls: self.tls,
            hold_max: 65_536,
            may_stream: true,
        };
        call(&mut self.relay, &mut cx);
    }
}

fn caps() -> Capabilities {
    announce(&OwnLimits::default(), core::iter::empty())
}

fn upstream_side(verified: bool, glued: &[u8], after: &[u8], segment: usize) {
    let line: Vec<u8> = glued
        .iter()
        .map(|byte| if byte.is_ascii_graphic() { *byte } else { b' ' })
        .collect();
    let mut leg = Outbound::new(Arc::from(&b"w"[..]));
    leg.set_tls(TlsWanted::May);
    assert!(hear(&mut leg, b"220 mx\r\n", segment).1.is_ok());
    leg.poll_output().clear();
    let ehlo = [b"250-mx\r\n250-", &line[..], b"\r\n250 STARTTLS\r\n"].concat();
    // too long a line is no reply
    if hear(&mut leg, &ehlo, segment).1.is_err() {
        return;
    }
    leg.poll_output().clear();
    if !after.is_empty() {
        let mut glued_to = Outbound::new(Arc::from(&b"w"[..]));
        glued_to.set_tls(TlsWanted::Require);
        for said in [&b"220 mx\r\n"[..], &ehlo] {
            assert!(hear(&mut glued_to, said, segment).1.is_ok());
            glued_to.poll_output().clear();
        }
        let injected = [b"220 go\r\n", after].concat();
        let (_, end) = hear(&mut glued_to, &injected, segment);
        assert_eq!(end, Err(LegLost::Injection), "plaintext has been heard");
        assert!(!glued_to.wants_tls() && glued_to.plaintext_drained(0).is_none());
    }
    assert!(hear(&mut leg, b"220 go\r\n", segment).1.is_ok());
    assert!(leg.wants_tls() && leg.plaintext_drained(0).is_some());
    leg.handle_secured(verified);

    let mut twin = Outbound::new(Arc::from(&b"w"[..]));
    twin.set_tls(TlsWanted::May);
    twin.handle_secured(verified);
    assert!(hear(&mut twin, b"220 mx\r\n", segment).1.is_ok());
    assert_eq!(written(&mut leg), written(&mut twin));
    let (one, other) = (hear(&mut leg, after, segment), hear(&mut twin, after, 4096));
    assert_eq!(one, other, "what was said in plaintext has been remembered");
    assert_eq!(leg.capabilities(), twin.capabilities());
    assert_eq!(written(&mut leg), written(&mut twin));
    assert_eq!(leg.is_reusable(), twin.is_reusable());
}

type Heard = (Vec<(Owed, Vec<u8>)>, Result<(), LegLost>);

fn hear(leg: &mut Outbound, bytes: &[u8], segment: usize) -> Heard {
    let mut heard = Vec::new();
    for mut part in bytes.chunks(segment) {
        loop {
            match leg.handle_input(&mut part) {
                Ok(Some((owed, reply))) => heard.push((owed, reply.text.to_vec())),
                Ok(None) => break,
                Err(lost) => return (heard, Err(lost)),
            }
        }
    }
    (heard, Ok(()))
}

fn written(leg: &mut Outbound) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in leg.poll_output().iter(Form::Data) {
        match piece {
            Piece::Insert(insert) => bytes.extend_from_slice(insert),
            Piece::Span { .. } => panic!("no message is on its way"),
        }
    }
    leg.poll_output().clear();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn some_lives() {
        let glued =
            b"EHLO evil\r\nMAIL FROM:<evil@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nRCPT TO:<";
        let after = b"c@d>\r\nEHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nQUIT\r\n";
        let replies = b"250-mx\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n";
        for choice in 0..=255 {
            for size in [1, 2, 3, 7, 255] {
                let at = glued.len() as u8;
                play(&[&[choice, at, size][..], glued, after].concat());
                play(&[&[choice, 5, size][..], b"SIZE ", replies].concat());
                play(&[&[choice, 0, size][..], replies].concat());
            }
        }
    }

    proptest! {
        #[test]
        fn any_life(moves in proptest::collection::vec(any::<u8>(), 3..400)) {
            play(&moves);
        }

        #[test]
        fn lives_of_lines(
            choices in any::<(u8, u8, u8)>(),
            lines in proptest::collection::vec(
                proptest::sample::select(&[
                    "EHLO x\r\n", "MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "DATA\r\n", ".\r\n", "BDAT 9\r\n", "STARTTLS\r\n",
                    "\n", "\r", "EH", "250 ok\r\n", "250-a\r\n", "220 go\r\n", "454 no\r\n", "421 bye\r\n", "XCLIENT ADDR=192.0.2.9\r\n", "\x16\x03\x01",
                ][..]),
                0..30,
            ),
        ) {
            let text = lines.concat();
            play(&[&[choices.0, choices.1, choices.2][..], text.as_bytes()].concat());
        }
    }
}
