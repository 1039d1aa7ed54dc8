//! Relays messages core to core, without sockets: what the protocol core itself costs. Made to be counted:
//!
//! ```text
//! cargo build --release -p weir-smtp --example relay_many
//! valgrind --tool=callgrind target/release/examples/relay_many 10000 4096
//! ```
//! Arguments: messages (10000), octets of a body (4096), `patient` or `pipelined` (patient), `shared` or `dedicated` (shared).
//! One client keeps its session, one upstream its connection; the client sends by DATA, the upstream takes BDAT, or DATA
//! where the connection is the client's own. A receive brings 16 KiB at most, and flights are copied to one buffer, as the
//! shard does with small ones.

use std::env;
use std::sync::Arc;

use weir_smtp::body::BareNewline;
use weir_smtp::dedicated::{Dedicated, Manner};
use weir_smtp::dialogue::Dialogue;
use weir_smtp::extension::{OwnLimits, announce, parse_ehlo_reply, write_ehlo};
use weir_smtp::gate::Verdict;
use weir_smtp::outbound::{Opening, Outbound, Owed};
use weir_smtp::pieces::{BufferId, Form, Piece};
use weir_smtp::relay::{
    Act, Acts, Announced, Config, Cx, Input, LegId, Outcome, Relay, SparePool, Timeouts, UpstreamId,
};
use weir_smtp::reply::Reply;
use weir_smtp::time::Moment;

const EHLO: &[u8] = b"250-mx\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n";
const RECEIVE_MAX: usize = 16 * 1024;

/// The driver of one session.
struct Driver {
    now: Moment,
    config: Config,
    announced: Announced,
    acts: Acts,
    spare: SparePool,
    relay: Dialogue,
    leg: Outbound,
    attached: bool,
    out: Vec<u8>,
    flight: Vec<u8>,
    reply: Vec<u8>,
    accepted: u64,
    bytes_up: u64,
}

impl Driver {
    fn new(dedicated: bool) -> Driver {
        let own = OwnLimits {
            message_size_max: 0,
            recipients_max: 100,
            messages_max: 0,
        };
        let caps = announce(&own, [parse_ehlo_reply(EHLO)].into_iter());
        let mut text = Vec::new();
        write_ehlo(&mut text, b"weir.example", &caps);
        let now = Moment::from_micros(1_000_000);
        let hostname = Arc::from(&b"weir.example"[..]);
        let leg = match dedicated {
            true => Outbound::dedicated(hostname, Opening::Silent),
            false => ready(hostname),
        };
        Driver {
            now,
            config: Config {
                hostname: b"weir.example".to_vec(),
                greeting: b"220 weir.example ESMTP\r\n".to_vec(),
                message_size_max: 0,
                recipients_max: 100,
                messages_max: 0,
                bare_newline: BareNewline::Reject,
                stream_window: 256 * 1024,
                timeouts: Timeouts::default(),
            },
            announced: Announced { caps, text },
            acts: Acts::new(),
            spare: SparePool::default(),
            relay: match dedicated {
                true => Dialogue::Dedicated(Box::new(Dedicated::new(now, Manner::default()))),
                false => Dialogue::Multiplexed(Relay::new(now)),
            },
            leg,
            attached: false,
            out: Vec::with_capacity(512),
            flight: Vec::with_capacity(64 * 1024),
            reply: Vec::with_capacity(512),
            accepted: 0,
            bytes_up: 0,
        }
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Dialogue, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            now: self.now,
            config: &self.config,
            announced: &self.announced,
            out: &mut self.out,
            leg: self.attached.then_some(&mut self.leg),
            acts: &mut self.acts,
            spare: &mut self.spare,
            tls: Default::default(),
            hold_max: 1 << 20,
            may_stream: true,
        };
        call(&mut self.relay, &mut cx)
    }

    fn settle(&mut self) {
        while let Some(act) = self.acts.pop_front() {
            match act {
                Act::Ask { id, .. } => {
                    self.call(|relay, cx| relay.handle_verdict(cx, id, Verdict::Pass));
                }
                Act::Attach { .. } => {
                    self.attached = true;
                    self.call(|relay, cx| relay.handle_attached(cx, LegId(1), UpstreamId(0)));
                }
                Act::Detach { .. } => self.attached = false,
                Act::TransactionEnd => {
                    let ended = self.relay.ended().expect("a transaction has ended");
                    self.accepted += u64::from(ended.outcome == Outcome::Accepted);
                }
                _ => {}
            }
        }
    }

    /// The client sends; what comes of it goes up. `wire` is a part of `bytes`, which lie in one buffer.
    fn client_says(&mut self, bytes: &[u8]) {
        for (nth, received) in bytes.chunks(RECEIVE_MAX).enumerate() {
            let mut at = 0;
            while at < received.len() {
                let input = Input {
                    buffer: BufferId(0),
                    start: (nth * RECEIVE_MAX + at) as u32,
                    bytes: &received[at..],
                };
                let taken = self.call(|relay, cx| relay.handle_input(cx, input));
                at += taken.len;
                self.settle();
                if !self.relay.wants_input() && at < received.len() {
                    self.serve(bytes);
                }
            }
        }
        self.serve(bytes);
        self.out.clear();
    }

    /// The upstream gets what is due, and answers, until nothing more is.
    fn serve(&mut self, bytes: &[u8]) {
        while !self.leg.poll_output().is_empty() {
            self.flight.clear();
            let pieces = self.leg.poll_output();
            for piece in pieces.iter(Form::Bdat) {
                self.flight.extend_from_slice(match piece {
                    Piece::Insert(insert) => insert,
                    Piece::Span { start, len, .. } => &bytes[start as usize..][..len as usize],
                });
            }
            pieces.release().for_each(drop);
            self.bytes_up += self.flight.len() as u64;
            let answer = self.answer();
            self.upstream_says(answer);
        }
    }

    /// What an upstream says to the flight.
    fn answer(&self) -> &'static [u8] {
        const QUEUED: &[u8] = b"250 2.0.0 Ok: queued as 4F3A2B1C0D\r\n";
        let ends = |end: &[u8]| self.flight.ends_with(end);
        match &self.flight[..] {
            [b'E', b'H', ..] => EHLO,
            [b'B', ..] => QUEUED,
            _ if ends(b"\r\n.\r\n") => QUEUED,
            [b'D', b'A', b'T', b'A', ..] => b"354 go\r\n",
            [b'M', ..] if ends(b"DATA\r\n") => b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go\r\n",
            [b'M', ..] if memchr::memmem::find(&self.flight, b"RCPT").is_some() => {
                b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
            }
            [b'M', ..] | [b'R', ..] => b"250 2.1.0 Ok\r\n",
            _ => b"",
        }
    }

    fn upstream_says(&mut self, mut bytes: &[u8]) {
        while let Some((owed, reply)) = self.leg.handle_input(&mut bytes).expect("it is SMTP") {
            self.reply.clear();
            self.reply.extend_from_slice(reply.text);
            let code = reply.code;
            self.hear(owed, code);
        }
    }

    fn hear(&mut self, owed: Owed, code: u16) {
        let text = std::mem::take(&mut self.reply);
        let reply = Reply { code, text: &text };
        self.call(|relay, cx| relay.handle_reply(cx, owed, &reply));
        self.reply = text;
        self.settle();
    }
}

/// A connection that has been opened.
fn ready(hostname: Arc<[u8]>) -> Outbound {
    let mut leg = Outbound::new(hostname);
    for mut bytes in [&b"220 mx\r\n"[..], EHLO] {
        while let Ok(Some(_)) = leg.handle_input(&mut bytes) {}
        leg.poll_output().clear();
    }
    leg
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).map_or(default, |word| {
            word.parse().unwrap_or_else(|_| panic!("{word}: no number"))
        })
    };
    let (messages, octets) = (number(1, 10_000), number(2, 4096));
    let pipelined = arguments.get(3).is_some_and(|word| word == "pipelined");
    let envelope: &[&[u8]] = if pipelined {
        &[b"MAIL FROM:<sender@client.example> SIZE=4096\r\nRCPT TO:<someone@weir.example>\r\nDATA\r\n"]
    } else {
        &[
            b"MAIL FROM:<sender@client.example> SIZE=4096\r\n",
            b"RCPT TO:<someone@weir.example>\r\n",
            b"DATA\r\n",
        ]
    };
    let body = body(octets);
    let dedicated = arguments.get(4).is_some_and(|word| word == "dedicated");
    let mut driver = Driver::new(dedicated);
    driver.call(|relay, cx| relay.start(cx));
    driver.settle();
    if dedicated {
        driver.upstream_says(b"220 mx\r\n");
    }
    driver.client_says(b"EHLO client.example\r\n");
    for _ in 0..messages {
        for flight in envelope {
            driver.client_says(flight);
        }
        driver.client_says(&body);
    }
    assert_eq!(
        driver.accepted, messages as u64,
        "every message is accepted"
    );
    println!("{messages} messages, {} octets up", driver.bytes_up);
}

/// A header and lines of text, ended by the dot.
fn body(octets: usize) -> Vec<u8> {
    let mut body =
        b"From: <sender@client.example>\r\nTo: <someone@weir.example>\r\nSubject: counted\r\n\r\n"
            .to_vec();
    while body.len() < octets {
        body.extend_from_slice(
            b"The quick brown fox jumps over the lazy dog, and over again; so it goes on.\r\n",
        );
    }
    body.extend_from_slice(b".\r\n");
    body
}
