//! `Pair` plays the driver of one session for the tests of the relay: a client, the relay and an upstream connection
//! joined without sockets, buffers counted, verdicts prompt or late.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::*;
use crate::extension::{OwnLimits, announce, parse_ehlo_reply};
use crate::pieces::{Form, Piece};
use crate::xclient::Claim;

pub(super) const FULL: &[u8] = b"250-mx\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-CHUNKING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n";
pub(super) const PLAIN: &[u8] = b"250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n";
pub(super) const BARE: &[u8] = b"250 mx\r\n";

/// The driver of one session, with one upstream connection at a time.
pub(super) struct Pair {
    pub(super) now: Moment,
    pub(super) config: Config,
    pub(super) announced: Announced,
    pub(super) acts: Acts,
    pub(super) spare: SparePool,
    pub(super) tls: TlsOffer,
    /// Handshakes that were to begin.
    pub(super) handshakes: usize,
    /// Whether what it claims by XCLIENT is answered, and counts; and all that was claimed.
    pub(super) answers_claims: bool,
    pub(super) trusted: bool,
    pub(super) claims: Vec<Claim>,
    /// XFORWARD commands for each connection, and a field for each body.
    pub(super) xforward: &'static [u8],
    pub(super) field: &'static [u8],
    pub(super) hold_max: u64,
    pub(super) may_stream: bool,
    pub(super) relay: Relay,
    pub(super) leg: Option<(LegId, Outbound)>,
    pub(super) legs_made: u32,
    pub(super) ehlo: &'static [u8],
    pub(super) buffers: Vec<Vec<u8>>,
    pub(super) references: Vec<i32>,
    pub(super) backlog: Vec<u8>,
    pub(super) step: usize,
    pub(super) client: Vec<u8>,
    pub(super) upstream: Vec<u8>,
    pub(super) verdicts: fn(Stage) -> Verdict,
    pub(super) late: bool,
    pub(super) asked: Vec<(AskId, Stage)>,
    pub(super) attach: bool,
    pub(super) wanted: Vec<ExtensionSet>,
    pub(super) preferred: Vec<Option<UpstreamId>>,
    pub(super) detached: Vec<Detach>,
    pub(super) outcomes: Vec<Outcome>,
    /// The reply and the octets of each transaction that ended.
    pub(super) tales: Vec<(String, u64)>,
    pub(super) closed: Option<bool>,
    /// Messages the upstream answered with 2xx.
    pub(super) agreed: usize,
}

impl Pair {
    pub(super) fn new(ehlo: &'static [u8], step: usize) -> Self {
        let own = OwnLimits {
            message_size_max: 100_000,
            recipients_max: 3,
            messages_max: 2,
        };
        let caps = announce(&own, [parse_ehlo_reply(ehlo)].into_iter());
        let mut pair = Self {
            now: Moment::from_micros(1_000_000),
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
            announced: Announced::new(b"weir.example", caps, TlsOffer::Off),
            acts: Acts::new(),
            spare: SparePool::default(),
            tls: TlsOffer::Off,
            handshakes: 0,
            answers_claims: true,
            trusted: false,
            claims: Vec::new(),
            xforward: b"",
            field: b"",
            hold_max: 50_000,
            may_stream: true,
            relay: Relay::new(Moment::from_micros(1_000_000)),
            leg: None,
            legs_made: 0,
            ehlo,
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
            wanted: Vec::new(),
            preferred: Vec::new(),
            detached: Vec::new(),
            outcomes: Vec::new(),
            tales: Vec::new(),
            closed: None,
            agreed: 0,
        };
        pair.call(|relay, cx| relay.start(cx));
        pair
    }

    pub(super) fn greeted(ehlo: &'static [u8], step: usize) -> Self {
        let mut pair = Self::new(ehlo, step);
        assert_eq!(pair.heard(), "220 weir.example ESMTP\r\n");
        pair.say("EHLO client\r\n");
        pair.heard();
        pair
    }

    pub(super) fn call<T>(&mut self, f: impl FnOnce(&mut Relay, &mut Cx<'_>) -> T) -> T {
        let result = self.step_in(f);
        self.drain();
        result
    }

    /// The call alone: what the relay wants done waits in `acts`.
    fn step_in<T>(&mut self, f: impl FnOnce(&mut Relay, &mut Cx<'_>) -> T) -> T {
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
            may_stream: self.may_stream,
        };
        f(&mut self.relay, &mut cx)
    }

    pub(super) fn drain(&mut self) {
        while let Some(act) = self.acts.pop_front() {
            match act {
                Act::Ask { id, stage } => {
                    self.asked.push((id, stage));
                    if stage == Stage::Data && !self.field.is_empty() {
                        self.relay.stamp(self.field);
                    }
                    if !self.late {
                        self.answer_all(false);
                    }
                }
                Act::Attach { needs, prefer, .. } => {
                    self.wanted.push(needs);
                    self.preferred.push(prefer);
                    if self.attach {
                        self.attach_now();
                    }
                }
                Act::CancelAttach => {}
                Act::Detach { leg, how } => {
                    let (id, mut leg_machine) = self.leg.take().expect("a leg is attached");
                    assert_eq!(id, leg);
                    self.take_output(&mut leg_machine);
                    self.detached.push(how);
                }
                Act::Release(buffer) => self.references[buffer.0 as usize] -= 1,
                Act::TransactionEnd => {
                    let ended = self.relay.ended().expect("a transaction ended");
                    self.outcomes.push(ended.outcome);
                    let reply = String::from_utf8_lossy(ended.reply).into_owned();
                    self.tales.push((reply, ended.octets));
                }
                Act::StartTls => self.handshakes += 1,
                Act::Xclient(claim) => {
                    if self.answers_claims {
                        let answer = self.trusted.then_some(&*claim);
                        self.call(|relay, cx| relay.handle_claim(cx, answer));
                    }
                    if self.trusted {
                        self.claims.push(*claim);
                    }
                }
                Act::Tunnel | Act::Introduce | Act::Violation(_) => {}
                Act::Close { linger } => self.closed = Some(linger),
            }
        }
    }

    pub(super) fn answer_all(&mut self, backwards: bool) {
        while !self.asked.is_empty() {
            let at = if backwards { self.asked.len() - 1 } else { 0 };
            let (id, stage) = self.asked.remove(at);
            let verdict = (self.verdicts)(stage);
            self.call(|relay, cx| relay.handle_verdict(cx, id, verdict));
        }
    }

    pub(super) fn attach_now(&mut self) {
        let mut leg = Outbound::new(Arc::from(&b"weir.example"[..]));
        let mut greeting: &[u8] = b"220 mx\r\n";
        while leg.handle_input(&mut greeting).unwrap().is_some() {}
        leg.poll_output().clear();
        let mut ehlo = self.ehlo;
        while leg.handle_input(&mut ehlo).unwrap().is_some() {}
        leg.poll_output().clear();
        if !self.xforward.is_empty() {
            leg.xforward(self.xforward);
        }
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
            self.backlog.drain(..taken.len);
            self.drain();
        }
        self.flush_leg();
    }

    pub(super) fn flush_leg(&mut self) {
        if let Some((id, mut leg)) = self.leg.take() {
            self.take_output(&mut leg);
            self.leg = Some((id, leg));
        }
    }

    pub(super) fn take_output(&mut self, leg: &mut Outbound) {
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
        let bytes = text.as_bytes().to_vec();
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
                        for buffer in leg.poll_output().release() {
                            self.references[buffer.0 as usize] -= 1;
                        }
                        self.call(|relay, cx| relay.handle_leg_lost(cx, lost));
                    }
                }
            }
            self.feed();
        }
    }

    pub(super) fn lose_leg(&mut self) {
        let (_, mut leg) = self.leg.take().expect("a leg is attached");
        for buffer in leg.poll_output().release() {
            self.references[buffer.0 as usize] -= 1;
        }
        self.call(|relay, cx| relay.handle_leg_lost(cx, LegLost::Closed));
        self.feed();
    }

    pub(super) fn heard(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.client)).unwrap()
    }

    pub(super) fn sent_up(&mut self) -> String {
        self.flush_leg();
        String::from_utf8(core::mem::take(&mut self.upstream)).unwrap()
    }

    pub(super) fn nothing_leaked(&self) {
        assert!(
            self.references.iter().all(|&count| count == 0),
            "every kept buffer was released once"
        );
    }
}
