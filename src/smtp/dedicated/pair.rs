//! `Pair` plays the driver of one session for the tests: a client, the machine and its upstream joined without sockets,
//! buffers counted, verdicts prompt or late.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::*;
use crate::gate::Verdict;
use crate::outbound::Opening;
use crate::pieces::{BufferId, Form, Piece};
use crate::relay::{Acts, Announced, Config, Gone, Outcome, SparePool, Timeouts, TlsOffer};

pub(super) const FULL: &str = "250-mx\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-CHUNKING\r\n250-STARTTLS\r\n250-AUTH PLAIN\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n";
pub(super) const PLAIN: &str = "250-mx\r\n250 8BITMIME\r\n";

pub(super) struct Pair {
    pub(super) now: Moment,
    pub(super) config: Config,
    pub(super) announced: Announced,
    acts: Acts,
    spare: SparePool,
    pub(super) tls: TlsOffer,
    pub(super) hold_max: u64,
    pub(super) relay: Dedicated,
    pub(super) opening: Opening,
    pub(super) introduction: Vec<u8>,
    pub(super) leg: Option<(LegId, Outbound)>,
    pub(super) legs_made: u32,
    pub(super) buffers: Vec<Vec<u8>>,
    references: Vec<i32>,
    pub(super) backlog: Vec<u8>,
    pub(super) step: usize,
    pub(super) client: Vec<u8>,
    upstream: Vec<u8>,
    pub(super) verdicts: fn(Stage) -> Verdict,
    pub(super) late: bool,
    pub(super) asked: Vec<(AskId, Stage)>,
    pub(super) attach: bool,
    pub(super) detached: Vec<Detach>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) tales: Vec<(String, u64)>,
    pub(super) violations: Vec<Violation>,
    pub(super) closed: Option<bool>,
    /// What the client claims by XCLIENT counts.
    pub(super) trusted: bool,
    pub(super) handshakes: usize,
    pub(super) tunnelled: bool,
    /// Messages the upstream answered with 2xx.
    pub(super) agreed: usize,
    /// A body's flights are not taken.
    pub(super) hold_flights: bool,
}

impl Pair {
    pub(super) fn new(manner: Manner, step: usize) -> Self {
        let now = Moment::from_micros(1_000_000);
        Self {
            now,
            config: Config {
                hostname: b"weir.example".to_vec(),
                greeting: b"220 weir.example ESMTP\r\n".to_vec(),
                message_size_max: 100_000,
                recipients_max: 3,
                messages_max: 2,
                bare_newline: BareNewline::Reject,
                stream_window: 65_536,
                timeouts: Timeouts::default(),
            },
            announced: Announced {
                caps: Default::default(),
                text: Vec::new(),
            },
            acts: Acts::new(),
            spare: SparePool::default(),
            tls: TlsOffer::Off,
            hold_max: 50_000,
            relay: Dedicated::new(now, manner),
            opening: Opening::Silent,
            introduction: Vec::new(),
            leg: None,
            legs_made: 0,
            buffers: Vec::new(),
            references: Vec::new(),
            backlog: Vec::new(),
            step,
            client: Vec::new(),
            upstream: Vec::new(),
            verdicts: |_| Verdict::Pass,
            late: false,
            asked: Vec::new(),
            attach: true,
            detached: Vec::new(),
            outcomes: Vec::new(),
            tales: Vec::new(),
            violations: Vec::new(),
            closed: None,
            trusted: false,
            handshakes: 0,
            tunnelled: false,
            agreed: 0,
            hold_flights: false,
        }
    }

    /// As far as the greeting.
    pub(super) fn started(manner: Manner, step: usize) -> Self {
        let mut pair = Self::new(manner, step);
        pair.start();
        pair.reply("220 mx.example ready\r\n");
        assert_eq!(pair.heard(), "220 mx.example ready\r\n");
        pair
    }

    /// As far as the reply to EHLO.
    pub(super) fn greeted(manner: Manner, ehlo: &str, step: usize) -> Self {
        let mut pair = Self::started(manner, step);
        pair.say("EHLO client.example\r\n");
        assert_eq!(pair.sent_up(), "EHLO client.example\r\n");
        pair.reply(ehlo);
        pair.heard();
        pair
    }

    pub(super) fn start(&mut self) {
        self.call(|relay, cx| relay.start(cx));
    }

    pub(super) fn call<T>(&mut self, f: impl FnOnce(&mut Dedicated, &mut Cx<'_>) -> T) -> T {
        let result = self.step_in(f);
        self.drain();
        result
    }

    /// The call alone: what is to be done waits in `acts`.
    fn step_in<T>(&mut self, f: impl FnOnce(&mut Dedicated, &mut Cx<'_>) -> T) -> T {
        let mut cx = Cx {
            now: self.now,
            config: &self.config,
            announced: &self.announced,
            out: &mut self.client,
            leg: self.leg.as_mut().map(|(_, leg)| leg),
            acts: &mut self.acts,
            spare: &mut self.spare,
            tls: self.tls,
            hold_max: self.hold_max,
            may_stream: true,
        };
        f(&mut self.relay, &mut cx)
    }

    fn drain(&mut self) {
        while let Some(act) = self.acts.pop_front() {
            match act {
                Act::Ask { id, stage } => {
                    self.asked.push((id, stage));
                    if !self.late {
                        self.answer_all();
                    }
                }
                Act::Attach { .. } if self.attach => self.attach_now(),
                Act::Attach { .. } | Act::CancelAttach => {}
                Act::Detach { leg, how } => {
                    let (id, mut machine) = self.leg.take().expect("a leg is attached");
                    assert_eq!(id, leg);
                    if how == Detach::Clean {
                        assert!(!machine.is_owed(), "a leg given back clean owes nothing");
                    }
                    self.take_output(&mut machine);
                    self.detached.push(how);
                }
                Act::Introduce => {
                    let commands = core::mem::take(&mut self.introduction);
                    let (_, leg) = self.leg.as_mut().expect("a leg to be introduced to");
                    leg.introduce(commands);
                    self.call(|relay, cx| relay.handle_introduced(cx));
                }
                Act::Release(buffer) => self.references[buffer.0 as usize] -= 1,
                Act::TransactionEnd => {
                    let ended = self.relay.ended().expect("a transaction ended");
                    self.outcomes.push(ended.outcome);
                    let reply = String::from_utf8_lossy(ended.reply).into_owned();
                    self.tales.push((reply, ended.octets));
                }
                Act::Xclient(claim) => {
                    let answer = self.trusted.then_some(&*claim);
                    self.call(|relay, cx| relay.handle_claim(cx, answer));
                }
                Act::StartTls => self.handshakes += 1,
                Act::Tunnel => self.tunnelled = true,
                Act::Violation(violation) => self.violations.push(violation),
                Act::Close { linger } => {
                    assert!(self.closed.is_none(), "closed once");
                    self.closed = Some(linger);
                }
            }
        }
    }

    pub(super) fn answer_all(&mut self) {
        while !self.asked.is_empty() {
            let (id, stage) = self.asked.remove(0);
            let verdict = (self.verdicts)(stage);
            self.call(|relay, cx| relay.handle_verdict(cx, id, verdict));
        }
    }

    pub(super) fn attach_now(&mut self) {
        let leg = Outbound::dedicated(Arc::from(&b"weir.example"[..]), self.opening);
        self.legs_made += 1;
        let id = LegId(self.legs_made);
        self.leg = Some((id, leg));
        self.call(|relay, cx| relay.handle_attached(cx, id, UpstreamId(0)));
    }

    /// The client sends, `step` octets at a time.
    pub(super) fn say(&mut self, text: &str) {
        self.say_bytes(text.as_bytes());
    }

    pub(super) fn say_bytes(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(self.step) {
            self.backlog.extend_from_slice(part);
            self.feed();
        }
    }

    pub(super) fn feed(&mut self) {
        while !self.backlog.is_empty() && self.relay.wants_input() {
            let bytes = self.backlog.clone();
            self.buffers.push(bytes.clone());
            self.references.push(0);
            let buffer = BufferId(self.buffers.len() as u32 - 1);
            let input = Input {
                buffer,
                start: 0,
                bytes: &bytes,
            };
            let taken = self.step_in(|relay, cx| relay.handle_input(cx, input));
            self.references[buffer.0 as usize] += taken.kept as i32;
            if taken.kept == 0 {
                self.buffers[buffer.0 as usize] = Vec::new();
            }
            self.backlog.drain(..taken.len);
            self.drain();
        }
        self.flush_leg();
    }

    pub(super) fn flush_leg(&mut self) {
        let Some((id, mut leg)) = self.leg.take() else {
            return;
        };
        if self.hold_flights && self.relay.is_streaming() {
            self.leg = Some((id, leg));
            return;
        }
        let moved = !leg.poll_output().is_empty();
        self.take_output(&mut leg);
        self.leg = Some((id, leg));
        if moved {
            self.call(|relay, cx| relay.handle_leg_drained(cx));
            self.feed();
        }
    }

    fn take_output(&mut self, leg: &mut Outbound) {
        let out = leg.poll_output();
        for piece in out.iter(Form::Bdat) {
            match piece {
                Piece::Insert(bytes) => self.upstream.extend_from_slice(bytes),
                Piece::Span { buffer, start, len } => {
                    let bytes = &self.buffers[buffer.0 as usize];
                    let range = start as usize..(start + len) as usize;
                    self.upstream.extend_from_slice(&bytes[range]);
                }
            }
        }
        for buffer in out.release() {
            self.references[buffer.0 as usize] -= 1;
        }
    }

    /// The upstream sends.
    pub(super) fn reply(&mut self, text: &str) {
        self.reply_bytes(text.as_bytes());
    }

    pub(super) fn reply_bytes(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(self.step) {
            let mut rest = part;
            while let Some((id, mut leg)) = self.leg.take() {
                let got = match leg.handle_input(&mut rest) {
                    Ok(Some((owed, reply))) => Ok(Some((owed, reply.code, reply.text.to_vec()))),
                    Ok(None) => Ok(None),
                    Err(lost) => Err(lost),
                };
                match got {
                    Ok(None) => {
                        self.leg = Some((id, leg));
                        break;
                    }
                    Ok(Some((owed, code, text))) => {
                        self.leg = Some((id, leg));
                        self.agreed += usize::from(owed == Owed::End && code < 300);
                        let reply = Reply { code, text: &text };
                        self.call(|relay, cx| relay.handle_reply(cx, owed, &reply));
                    }
                    Err(lost) => {
                        self.drop_output(leg);
                        self.call(|relay, cx| relay.handle_leg_lost(cx, lost));
                    }
                }
            }
            self.feed();
        }
    }

    pub(super) fn lose_leg(&mut self) {
        let (_, leg) = self.leg.take().expect("a leg is attached");
        self.drop_output(leg);
        self.call(|relay, cx| relay.handle_leg_lost(cx, LegLost::Closed));
        self.feed();
    }

    fn drop_output(&mut self, mut leg: Outbound) {
        for buffer in leg.poll_output().release() {
            self.references[buffer.0 as usize] -= 1;
        }
    }

    pub(super) fn time_out(&mut self) {
        self.now = self.now.max(self.relay.deadline());
        self.call(|relay, cx| relay.handle_timeout(cx));
        self.feed();
    }

    pub(super) fn client_gone(&mut self, gone: Gone) {
        self.call(|relay, cx| relay.handle_client_gone(cx, gone));
    }

    pub(super) fn heard(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.client)).unwrap()
    }

    pub(super) fn sent_up(&mut self) -> String {
        String::from_utf8(self.sent_up_bytes()).unwrap()
    }

    pub(super) fn sent_up_bytes(&mut self) -> Vec<u8> {
        self.flush_leg();
        core::mem::take(&mut self.upstream)
    }

    pub(super) fn nothing_leaked(&self) {
        assert!(
            self.references.iter().all(|&count| count == 0),
            "every kept buffer was released once"
        );
    }
}
