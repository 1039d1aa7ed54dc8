//! The driver of one session: what a shard does in production, with bytes from a script.

use std::sync::Arc;

use weir_smtp::dedicated::Dedicated;
use weir_smtp::dialogue::Dialogue;
use weir_smtp::extension::{Capabilities, OwnLimits, announce, parse_ehlo_reply};
use weir_smtp::gate::{AskId, Finding, Stage as Gate, Verdict};
use weir_smtp::outbound::{LegLost, Outbound};
use weir_smtp::pieces::{BufferId, Form, Piece};
use weir_smtp::received::{self, Trace};
use weir_smtp::relay::{
    Act, Acts, Announced, Config, Cx, Detach, Gone, Input, LegId, Relay, SparePool, Timeouts,
    TlsOffer, UpstreamId,
};
use weir_smtp::reply::Reply;
use weir_smtp::texts;
use weir_smtp::time::Moment;
use weir_smtp::xclient::{ClientFacts, write_xforward};

use crate::script::{Begin, Expect, Script, Step, Want};

/// How flights are cut into segments.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Nowhere,
    Everywhere,
    At { step: usize, offset: usize },
}

pub struct Stage<'s> {
    script: &'s Script,
    cut: Cut,
    late: bool,
    now: Moment,
    config: Config,
    /// What is announced, whatever is said of TLS.
    caps: Capabilities,
    announced: Announced,
    tls: TlsOffer,
    /// The client's handshake is under way: what it sends is discarded.
    handshake: bool,
    discarded: usize,
    acts: Acts,
    spare: SparePool,
    relay: Dialogue,
    /// The attached connection, or the one whose handshake is under way.
    leg: Option<(LegId, Outbound)>,
    attached: bool,
    legs: u32,
    /// Storage of every buffer ever used, with its open references.
    buffers: Vec<(Vec<u8>, i64)>,
    backlog: Vec<u8>,
    asks: Vec<(AskId, Gate)>,
    attach_wanted: bool,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
    marks: Vec<String>,
}

impl<'s> Stage<'s> {
    pub fn new(script: &'s Script, cut: Cut, late: bool) -> Self {
        let own = OwnLimits {
            message_size_max: script.size_max,
            recipients_max: script.recipients_max,
            messages_max: script.messages_max,
        };
        let caps = announce(&own, [parse_ehlo_reply(&script.ehlo)].into_iter());
        let mut greeting = Vec::new();
        texts::write_greeting(&mut greeting, b"weir.test");
        let now = Moment::from_micros(1_000_000);
        let mut stage = Self {
            script,
            cut,
            late,
            now,
            config: Config {
                hostname: b"weir.test".to_vec(),
                greeting,
                message_size_max: script.size_max,
                recipients_max: script.recipients_max,
                messages_max: script.messages_max,
                bare_newline: script.bare_newline,
                stream_window: 65_536,
                timeouts: Timeouts::default(),
            },
            announced: Announced::new(b"weir.test", caps, script.tls),
            caps,
            tls: script.tls,
            handshake: false,
            discarded: 0,
            acts: Acts::new(),
            spare: SparePool::default(),
            relay: match script.dedicated {
                Some((manner, _)) => Dialogue::Dedicated(Box::new(Dedicated::new(now, manner))),
                None => Dialogue::Multiplexed(Relay::new(now)),
            },
            leg: None,
            attached: false,
            legs: 0,
            buffers: Vec::new(),
            backlog: Vec::new(),
            asks: Vec::new(),
            attach_wanted: false,
            to_client: Vec::new(),
            to_upstream: Vec::new(),
            marks: Vec::new(),
        };
        stage.call(Dialogue::start);
        stage.settle();
        stage.fast_forward();
        stage
    }

    /// Up to where the script begins, unseen.
    fn fast_forward(&mut self) {
        if self.script.begin == Begin::Connect {
            return;
        }
        if self.script.dedicated.is_some() {
            self.upstream_sends(b"220 mx.test\r\n");
        }
        self.client_sends(b"EHLO client.test\r\n");
        if self.script.dedicated.is_some() {
            self.upstream_sends(&self.script.ehlo);
        }
        if self.script.begin == Begin::Rcpt {
            self.client_sends(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@weir.test>\r\n");
            let pipelining = self.to_upstream.ends_with(b"RCPT TO:<b@weir.test>\r\n");
            assert!(pipelining, "!after rcpt needs an upstream with PIPELINING");
            self.upstream_sends(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n");
            assert!(
                self.to_client.ends_with(b"250 2.1.5 Ok\r\n"),
                "!after rcpt: the recipient was accepted"
            );
        }
        self.to_client.clear();
        self.to_upstream.clear();
        assert!(self.marks.is_empty(), "nothing ended yet");
    }

    pub fn perform(&mut self, number: usize, step: &Step) -> Result<(), String> {
        match step {
            Step::Client(bytes) => self
                .segments(number, bytes)
                .into_iter()
                .for_each(|part| self.client_sends(part)),
            Step::Upstream(bytes) => {
                let legs = self.legs;
                for part in self.segments(number, bytes) {
                    // a connection made in place of a lost one hears nothing of what that still had to say
                    if self.legs == legs {
                        self.upstream_sends(part);
                    }
                }
            }
            Step::ClientCloses => self.client_gone(Gone::Eof),
            Step::ClientResets => self.client_gone(Gone::Reset),
            Step::UpstreamCloses => {
                if self.leg.is_none() {
                    return Err("no upstream is attached that could close".to_owned());
                }
                self.lose_leg(LegLost::Closed);
            }
            Step::ClientSecured => self.client_secured()?,
            Step::UpstreamSecured { verified } => self.upstream_secured(*verified)?,
            Step::Pass(time) => self.pass(self.now + *time),
            Step::Expect(expect) => return self.compare(expect),
        }
        self.settle();
        Ok(())
    }

    /// At the end of a play no buffer is referenced, unless a transaction is still open.
    pub fn leave_nothing_behind(mut self) -> Result<(), String> {
        self.call(|relay, cx| relay.handle_client_gone(cx, Gone::Reset));
        self.settle();
        if let Some((_, mut leg)) = self.leg.take() {
            self.drop_output(&mut leg);
            self.attached = false;
            self.call(|relay, cx| relay.handle_leg_lost(cx, LegLost::Closed));
        }
        self.settle();
        let open = self
            .buffers
            .iter()
            .filter(|(_, references)| *references != 0)
            .count();
        if open != 0 {
            return Err(format!("{open} buffers are still referenced at the end"));
        }
        if !self.relay.is_finished() {
            return Err("both sides are gone, and the session is not finished".to_owned());
        }
        Ok(())
    }

    fn segments<'b>(&self, number: usize, bytes: &'b [u8]) -> Vec<&'b [u8]> {
        match self.cut {
            Cut::Everywhere => bytes.chunks(1).collect(),
            Cut::At { step, offset } if step == number => vec![&bytes[..offset], &bytes[offset..]],
            _ => vec![bytes],
        }
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        self.backlog.extend_from_slice(bytes);
        self.settle();
    }

    /// The client's handshake has succeeded.
    fn client_secured(&mut self) -> Result<(), String> {
        if !std::mem::take(&mut self.handshake) {
            return Err("no handshake is under way".to_owned());
        }
        assert!(
            self.relay.plaintext_drained(1).is_none(),
            "one octet is left"
        );
        let drained = self.relay.plaintext_drained(self.backlog.len());
        assert!(drained.is_some(), "plaintext is left over");
        self.tls = TlsOffer::Active;
        self.announced = Announced::new(b"weir.test", self.caps, self.tls);
        self.call(Dialogue::handle_secured);
        Ok(())
    }

    fn client_gone(&mut self, how: Gone) {
        self.call(|relay, cx| relay.handle_client_gone(cx, how));
    }

    fn upstream_sends(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((id, mut leg)) = self.leg.take() {
            match leg.handle_input(&mut rest) {
                Ok(None) => {
                    self.leg = Some((id, leg));
                    break;
                }
                Ok(Some((owed, reply))) => {
                    let (code, text) = (reply.code, reply.text.to_vec());
                    if leg.wants_tls() {
                        self.marks.push("tls upstream begins".to_owned());
                    }
                    self.leg = Some((id, leg));
                    if self.attached {
                        self.call(|relay, cx| {
                            relay.handle_reply(cx, owed, &Reply { code, text: &text })
                        });
                    }
                    self.settle();
                }
                Err(why) => {
                    // The rest of what it said is nobody's.
                    self.leg = Some((id, leg));
                    self.marks.push("upstream close".to_owned());
                    self.lose_leg(why);
                    break;
                }
            }
        }
        self.settle();
    }

    /// The handshake of the upstream connection has succeeded.
    fn upstream_secured(&mut self, verified: bool) -> Result<(), String> {
        match &mut self.leg {
            Some((_, leg)) if leg.plaintext_drained(0).is_some() => {
                leg.handle_secured(verified);
                Ok(())
            }
            _ => Err("no handshake of an upstream is under way".to_owned()),
        }
    }

    fn lose_leg(&mut self, why: LegLost) {
        let (_, mut leg) = self.leg.take().expect("a leg is there to be lost");
        self.drop_output(&mut leg);
        self.attached = false;
        self.call(|relay, cx| relay.handle_leg_lost(cx, why));
    }

    fn pass(&mut self, until: Moment) {
        for _ in 0..100 {
            if self.relay.deadline() > until {
                break;
            }
            self.now = self.now.max(self.relay.deadline());
            self.call(Dialogue::handle_timeout);
            self.settle();
        }
        self.now = until;
    }

    /// Until nothing moves any more: input, late verdicts, connections, output.
    fn settle(&mut self) {
        loop {
            self.feed();
            self.take_output();
            if let Some((id, gate)) = self.asks.pop() {
                let verdict = self.verdict(gate);
                self.call(|relay, cx| relay.handle_verdict(cx, id, verdict));
                continue;
            }
            if std::mem::take(&mut self.attach_wanted) {
                self.attach();
                continue;
            }
            if self.greet_upstream() {
                continue;
            }
            if self.backlog.is_empty() || !self.relay.wants_input() {
                return;
            }
        }
    }

    fn feed(&mut self) {
        if self.handshake {
            self.discarded += std::mem::take(&mut self.backlog).len();
        }
        let mut idle = 0;
        while !self.backlog.is_empty() && self.relay.wants_input() {
            let bytes = std::mem::take(&mut self.backlog);
            let buffer = self.buffers.len();
            self.buffers.push((bytes.clone(), 0));
            let input = Input {
                buffer: BufferId(buffer as u32),
                start: 0,
                bytes: &bytes,
            };
            let taken = self.call_undrained(|relay, cx| relay.handle_input(cx, input));
            self.buffers[buffer].1 += i64::from(taken.kept);
            self.backlog = bytes[taken.len..].to_vec();
            self.carry_out();
            self.take_output();
            // A line that is asked about stays in the input; taking nothing again and again is a fault.
            idle = if taken.len == 0 { idle + 1 } else { 0 };
            assert!(
                idle < 8,
                "the relay wants input and takes none of {}",
                show(&self.backlog)
            );
        }
    }

    fn call(&mut self, act: impl FnOnce(&mut Dialogue, &mut Cx<'_>)) {
        self.call_undrained(act);
        self.carry_out();
    }

    fn call_undrained<T>(&mut self, act: impl FnOnce(&mut Dialogue, &mut Cx<'_>) -> T) -> T {
        let leg = self
            .leg
            .as_mut()
            .filter(|_| self.attached)
            .map(|(_, leg)| leg);
        let mut cx = Cx {
            now: self.now,
            config: &self.config,
            announced: &self.announced,
            out: &mut self.to_client,
            leg,
            acts: &mut self.acts,
            spare: &mut self.spare,
            tls: self.tls,
            hold_max: self.script.hold_max,
            may_stream: true,
        };
        act(&mut self.relay, &mut cx)
    }

    fn carry_out(&mut self) {
        while let Some(act) = self.acts.pop_front() {
            match act {
                Act::Ask { id, stage } => {
                    if stage == Gate::Data && self.script.received {
                        self.stamp();
                    }
                    if self.late {
                        self.asks.push((id, stage));
                    } else {
                        let verdict = self.verdict(stage);
                        self.call_undrained(|relay, cx| relay.handle_verdict(cx, id, verdict));
                    }
                }
                Act::Attach { .. } => self.attach_wanted = true,
                Act::CancelAttach => self.attach_wanted = false,
                Act::Detach { leg, how } => self.give_back(leg, how),
                Act::Release(buffer) => self.buffers[buffer.0 as usize].1 -= 1,
                Act::TransactionEnd => assert!(self.relay.ended().is_some(), "a transaction ended"),
                Act::StartTls => {
                    self.handshake = true;
                    self.marks.push("tls begins".to_owned());
                }
                Act::Xclient(claim) => {
                    let claim = self.script.trusted.then_some(&*claim);
                    self.call_undrained(|relay, cx| relay.handle_claim(cx, claim));
                    if claim.is_some() {
                        self.marks.push("introduced".to_owned());
                    }
                }
                Act::Tunnel => self.marks.push("tls tunnel".to_owned()),
                Act::Introduce => {
                    let (_, leg) = self.leg.as_mut().expect("somebody to be introduced to");
                    leg.introduce(self.script.introduction.clone());
                    self.call_undrained(|relay, cx| relay.handle_introduced(cx));
                }
                Act::Violation(_) => {}
                Act::Close { .. } => self.marks.push("client closed".to_owned()),
            }
        }
    }

    fn verdict(&self, gate: Gate) -> Verdict {
        let word = gate_word(gate);
        let found = self
            .script
            .verdicts
            .iter()
            .find(|(stage, _)| *stage == word);
        match (found, gate) {
            (Some((_, verdict)), _) => verdict.clone(),
            // What the policy answers where nothing is configured: see `Finding` in src/policy.
            (None, Gate::Finding(Finding::BareNewline)) => {
                Verdict::Refuse(weir_smtp::violation::Violation::BareNewlineInBody.reply())
            }
            _ => Verdict::Pass,
        }
    }

    fn give_back(&mut self, id: LegId, how: Detach) {
        let (known, mut leg) = self.leg.take().expect("only an attached leg is given back");
        assert_eq!(known, id, "the relay names the leg it has");
        self.attached = false;
        self.collect_output(&mut leg);
        let word = match how {
            Detach::Clean => {
                let quit = self.script.dedicated.is_some() && !leg.is_owed();
                assert!(
                    leg.is_reusable() || quit,
                    "a leg given back clean owes and holds nothing"
                );
                "clean"
            }
            Detach::Reset => "reset",
            Detach::Close => "close",
        };
        self.drop_output(&mut leg);
        self.marks.push(format!("upstream {word}"));
    }

    fn attach(&mut self) {
        if let Err(why) = self.script.attach {
            return self.call(|relay, cx| relay.handle_attach_failed(cx, why));
        }
        let hostname = Arc::from(&b"weir.test"[..]);
        let mut leg = match self.script.dedicated {
            Some((_, opening)) => Outbound::dedicated(hostname, opening),
            None => Outbound::new(hostname),
        };
        leg.set_tls(self.script.upstream_tls);
        if !self.script.handshake && self.script.dedicated.is_none() {
            for text in [&b"220 mx.test\r\n"[..], &self.script.ehlo] {
                let mut rest = text;
                while leg
                    .handle_input(&mut rest)
                    .expect("the handshake is well-formed")
                    .is_some()
                {}
                leg.poll_output().clear();
            }
        }
        self.legs += 1;
        self.leg = Some((LegId(self.legs), leg));
    }

    /// Hands a connection over once its handshake is done, or at once to a client that it is made for.
    fn greet_upstream(&mut self) -> bool {
        let at_once = self.script.dedicated.is_some();
        match &self.leg {
            Some((id, leg)) if !self.attached && (at_once || leg.is_ready()) => {
                let id = *id;
                self.attached = true;
                self.tell_of_client();
                self.call(|relay, cx| relay.handle_attached(cx, id, UpstreamId(0)));
                true
            }
            _ => false,
        }
    }

    /// Who the client is, where the upstream wants to know.
    fn tell_of_client(&mut self) {
        let Some((_, leg)) = self.leg.as_mut() else {
            return;
        };
        let facts = ClientFacts {
            address: "192.0.2.1:1025".parse().expect("an address"),
            name: None,
            helo: self.relay.helo(),
            esmtp: self.relay.is_esmtp(),
            destination: None,
            login: None,
        };
        let mut commands = Vec::new();
        let understood = leg.capabilities().xforward;
        if self.script.xforward && write_xforward(&mut commands, &facts, understood) {
            leg.xforward(&commands);
        }
    }

    /// A field above the body.
    fn stamp(&mut self) {
        let trace = Trace {
            by: b"weir.test",
            address: "192.0.2.1".parse().expect("an address"),
            name: None,
            helo: self.relay.helo(),
            esmtp: self.relay.is_esmtp(),
            utf8: false,
            tls: (self.tls == TlsOffer::Active).then_some(None),
            at: 0,
        };
        let mut field = Vec::new();
        received::write(&mut field, &trace, &1);
        self.relay.stamp(&field);
    }

    fn take_output(&mut self) {
        let Some((id, mut leg)) = self.leg.take() else {
            return;
        };
        let moved = self.collect_output(&mut leg);
        self.leg = Some((id, leg));
        if moved && self.attached {
            self.call(Dialogue::handle_leg_drained);
            self.take_output();
        }
    }

    /// Moves the leg's flight into what the upstream has read; its spans are given up with it.
    fn collect_output(&mut self, leg: &mut Outbound) -> bool {
        let out = leg.poll_output();
        let moved = !out.is_empty();
        for piece in out.iter(Form::Bdat) {
            match piece {
                Piece::Insert(bytes) => self.to_upstream.extend_from_slice(bytes),
                Piece::Span { buffer, start, len } => {
                    let (bytes, references) = &self.buffers[buffer.0 as usize];
                    assert!(*references > 0, "a span of a buffer that was released");
                    self.to_upstream
                        .extend_from_slice(&bytes[start as usize..(start + len) as usize]);
                }
            }
        }
        self.drop_output(leg);
        moved
    }

    fn drop_output(&mut self, leg: &mut Outbound) {
        for buffer in leg.poll_output().release() {
            self.buffers[buffer.0 as usize].1 -= 1;
        }
    }

    fn compare(&mut self, expect: &Expect) -> Result<(), String> {
        let client = std::mem::take(&mut self.to_client);
        let upstream = std::mem::take(&mut self.to_upstream);
        let mut marks = std::mem::take(&mut self.marks);
        match std::mem::take(&mut self.discarded) {
            0 => {}
            octets => marks.push(format!("tls discarded {octets}")),
        }
        compare_client(&client, &expect.client)?;
        if upstream != expect.upstream {
            return Err(differ("to the upstream", &upstream, &expect.upstream));
        }
        if marks != expect.marks {
            return Err(format!(
                "happened: {marks:?}\n    expected: {:?}",
                expect.marks
            ));
        }
        Ok(())
    }
}

fn compare_client(got: &[u8], wants: &[Want]) -> Result<(), String> {
    let mut rest = got;
    for want in wants {
        let line = first_line(rest);
        let fits = match want {
            Want::Line(text) => line == text,
            Want::Prefix(head) => line.starts_with(head),
            Want::Ehlo(has, lacks) => {
                let (reply, behind) = whole_reply(rest);
                check_ehlo(reply, has, lacks)?;
                rest = behind;
                continue;
            }
        };
        if !fits || rest.len() < line.len() + 2 {
            return Err(format!(
                "to the client: {}\n    expected: {want:?}",
                show(rest)
            ));
        }
        rest = &rest[line.len() + 2..];
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(format!("to the client, and not expected: {}", show(rest)))
}

fn check_ehlo(reply: &[u8], has: &[String], lacks: &[String]) -> Result<(), String> {
    let text = String::from_utf8_lossy(reply);
    if !reply.starts_with(b"250-") {
        return Err(format!("not an EHLO reply: {}", show(reply)));
    }
    let rows: Vec<&str> = text.lines().skip(1).map(|row| &row[4..]).collect();
    let announced = |word: &String| {
        let row = word.replace('=', " ");
        rows.iter()
            .any(|r| *r == row || r.split(' ').next() == Some(&row))
    };
    if let Some(word) = has.iter().find(|word| !announced(word)) {
        return Err(format!("EHLO lacks {word}: {rows:?}"));
    }
    match lacks.iter().find(|word| announced(word)) {
        Some(word) => Err(format!("EHLO announces {word}: {rows:?}")),
        None => Ok(()),
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .unwrap_or(bytes.len());
    &bytes[..end]
}

fn whole_reply(bytes: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    loop {
        let line = first_line(&bytes[at..]);
        at = (at + line.len() + 2).min(bytes.len());
        if line.get(3) != Some(&b'-') || at == bytes.len() {
            return bytes.split_at(at);
        }
    }
}

fn gate_word(gate: Gate) -> String {
    match gate {
        Gate::Connect => "connect".to_owned(),
        Gate::StartTls => "starttls".to_owned(),
        Gate::Helo => "helo".to_owned(),
        Gate::Mail => "mail".to_owned(),
        Gate::Rcpt { index } => format!("rcpt:{index}"),
        Gate::Data => "data".to_owned(),
        Gate::EndOfHeaders => "end-of-headers".to_owned(),
        Gate::EndOfData => "end-of-data".to_owned(),
        Gate::FinalReply { .. } => "final-reply".to_owned(),
        Gate::Finding(finding) => match finding {
            Finding::Pregreet => "pregreet".to_owned(),
            Finding::Pipelining => "pipelining".to_owned(),
            Finding::NonSmtp => "non-smtp".to_owned(),
            Finding::BareNewline => "bare-newline".to_owned(),
            Finding::Nul => "nul".to_owned(),
            Finding::Loop => "loop".to_owned(),
        },
    }
}

fn differ(whither: &str, got: &[u8], want: &[u8]) -> String {
    format!("{whither}: {}\n    expected: {}", show(got), show(want))
}

fn show(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 600 {
        format!("{}… ({} octets)", &text[..600], bytes.len())
    } else {
        text
    }
}
