//! Reads a transcript: the format is described in tests/corpus/transcripts/README.md.

use std::time::Duration;

use weir_smtp::body::BareNewline;
use weir_smtp::dedicated::{Manner, Way};
use weir_smtp::gate::{RouteId, Verdict};
use weir_smtp::outbound::{Opening, TlsWanted};
use weir_smtp::relay::{AttachFailure, TlsOffer};
use weir_smtp::reply::ReplyText;

#[derive(Clone, Debug)]
pub enum Step {
    Client(Vec<u8>),
    Upstream(Vec<u8>),
    ClientCloses,
    ClientResets,
    UpstreamCloses,
    /// The client's TLS handshake succeeds.
    ClientSecured,
    UpstreamSecured {
        verified: bool,
    },
    Pass(Duration),
    /// Everything that must have happened since the last stimulus.
    Expect(Expect),
}

#[derive(Clone, Debug, Default)]
pub struct Expect {
    pub client: Vec<Want>,
    pub upstream: Vec<u8>,
    pub marks: Vec<String>,
}

#[derive(Clone, Debug)]
pub enum Want {
    Line(Vec<u8>),
    /// A line that starts so.
    Prefix(Vec<u8>),
    /// A whole EHLO reply: keywords it has, keywords it lacks.
    Ehlo(Vec<String>, Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Begin {
    Connect,
    Ehlo,
    Rcpt,
}

#[derive(Clone, Debug)]
pub struct Script {
    pub steps: Vec<Step>,
    /// The line a step begins at.
    pub lines: Vec<usize>,
    pub begin: Begin,
    /// The upstream's EHLO reply.
    pub ehlo: Vec<u8>,
    pub attach: Result<(), AttachFailure>,
    pub handshake: bool,
    pub tls: TlsOffer,
    pub upstream_tls: TlsWanted,
    /// The client may speak for others.
    pub trusted: bool,
    /// The upstream is told of the client by XFORWARD, or by a Received field.
    /// The upstream connection is the client's own: how it is served, and what the connection says first itself.
    pub dedicated: Option<(Manner, Opening)>,
    /// XCLIENT commands of weir's.
    pub introduction: Vec<u8>,
    pub xforward: bool,
    pub received: bool,
    pub size_max: u64,
    pub recipients_max: u32,
    pub messages_max: u32,
    pub hold_max: u64,
    pub bare_newline: BareNewline,
    /// Answers to gates that are not simply passed, by the stage's word.
    pub verdicts: Vec<(String, Verdict)>,
}

const EXTENSIONS: &str = "PIPELINING SIZE 8BITMIME SMTPUTF8 DSN ENHANCEDSTATUSCODES CHUNKING";

impl Script {
    pub fn parse(text: &str) -> Result<Script, String> {
        let mut script = Script {
            steps: Vec::new(),
            lines: Vec::new(),
            begin: Begin::Connect,
            ehlo: ehlo_reply(EXTENSIONS),
            attach: Ok(()),
            handshake: false,
            tls: TlsOffer::Off,
            upstream_tls: TlsWanted::Off,
            trusted: false,
            dedicated: None,
            introduction: Vec::new(),
            xforward: false,
            received: false,
            size_max: 10_000_000,
            recipients_max: 100,
            messages_max: 100,
            hold_max: 1 << 20,
            bare_newline: BareNewline::Reject,
            verdicts: Vec::new(),
        };
        for (number, line) in text.lines().enumerate() {
            script
                .take(number + 1, line)
                .map_err(|error| format!("line {}: {error}", number + 1))?;
        }
        // A play ends with its expectations; where it ends with a stimulus nothing may follow it.
        if !matches!(script.steps.last(), Some(Step::Expect(_))) {
            script.push(text.lines().count(), Step::Expect(Expect::default()));
        }
        Ok(script)
    }

    fn take(&mut self, number: usize, line: &str) -> Result<(), String> {
        if line.starts_with('#') || line.trim().is_empty() {
            return Ok(());
        }
        if let Some(setting) = line.strip_prefix('!') {
            return self.set(setting);
        }
        if let Some(event) = line.strip_prefix("@ ") {
            self.stimulus(number);
            self.push(number, parse_event(event)?);
            return Ok(());
        }
        let (tag, rest) = split_tag(line)?;
        match tag {
            "C:" => self.add_client(number, &crlf(rest)?),
            "C|" => self.add_client(number, &unescape(rest)?),
            "U<" => self.add_upstream(number, &crlf(rest)?),
            "U<|" => self.add_upstream(number, &unescape(rest)?),
            "U>" => self.expect(number).upstream.extend(crlf(rest)?),
            "U>|" => self.expect(number).upstream.extend(unescape(rest)?),
            "S:" => {
                let want = match rest.strip_suffix('*').filter(|head| !head.ends_with('\\')) {
                    Some(head) => Want::Prefix(unescape(head)?),
                    None => Want::Line(unescape(rest)?),
                };
                self.expect(number).client.push(want);
            }
            "S~" => {
                let (lacks, has) = rest
                    .split_whitespace()
                    .map(String::from)
                    .partition::<Vec<_>, _>(|w| w.starts_with('-'));
                let lacks = lacks.iter().map(|w| w[1..].to_owned()).collect();
                self.expect(number).client.push(Want::Ehlo(has, lacks));
            }
            "T:" => self.expect(number).marks.push(format!("tls {rest}")),
            "D:" => self.expect(number).marks.push(format!("upstream {rest}")),
            "I:" => self.expect(number).marks.push("introduced".to_owned()),
            "X:" => self.expect(number).marks.push("client closed".to_owned()),
            _ => return Err(format!("what is {tag:?}?")),
        }
        Ok(())
    }

    fn add_client(&mut self, number: usize, bytes: &[u8]) {
        if let Some(Step::Client(flight)) = self.steps.last_mut() {
            return flight.extend_from_slice(bytes);
        }
        self.stimulus(number);
        self.push(number, Step::Client(bytes.to_vec()));
    }

    fn add_upstream(&mut self, number: usize, bytes: &[u8]) {
        if let Some(Step::Upstream(flight)) = self.steps.last_mut() {
            return flight.extend_from_slice(bytes);
        }
        self.stimulus(number);
        self.push(number, Step::Upstream(bytes.to_vec()));
    }

    /// A stimulus right behind another one: nothing may have happened in between.
    fn stimulus(&mut self, number: usize) {
        if !matches!(self.steps.last(), None | Some(Step::Expect(_))) {
            self.push(number, Step::Expect(Expect::default()));
        }
    }

    fn expect(&mut self, number: usize) -> &mut Expect {
        if !matches!(self.steps.last(), Some(Step::Expect(_))) {
            self.push(number, Step::Expect(Expect::default()));
        }
        match self.steps.last_mut() {
            Some(Step::Expect(expect)) => expect,
            _ => unreachable!("it was just pushed"),
        }
    }

    fn push(&mut self, number: usize, step: Step) {
        self.steps.push(step);
        self.lines.push(number);
    }

    fn set(&mut self, setting: &str) -> Result<(), String> {
        let (word, rest) = setting.split_once(' ').unwrap_or((setting, ""));
        match word {
            "after" if rest == "ehlo" => self.begin = Begin::Ehlo,
            "after" if rest == "rcpt" => self.begin = Begin::Rcpt,
            "tls" => {
                self.tls = match rest {
                    "may" => TlsOffer::May,
                    "require" => TlsOffer::Require,
                    "active" => TlsOffer::Active,
                    _ => return Err(format!("no such offer: {rest}")),
                }
            }
            "upstream-tls" => {
                self.upstream_tls = match rest {
                    "may" => TlsWanted::May,
                    "require" => TlsWanted::Require,
                    _ => return Err(format!("no such wish: {rest}")),
                }
            }
            "identity" if rest == "xforward" => self.xforward = true,
            "identity" if rest == "received" => self.received = true,
            "dedicated" => self.dedicated = Some(parse_manner(rest)?),
            "introduce" => {
                let (manner, _) = self.dedicated.as_mut().ok_or("!dedicated comes first")?;
                manner.introduces = true;
                self.introduction.extend(crlf(rest)?);
            }
            "trusted" => self.trusted = true,
            "handshake" => self.handshake = true,
            "upstream" => match rest {
                "none" => self.attach = Err(AttachFailure::NoUpstream),
                "busy" => self.attach = Err(AttachFailure::NoSlot),
                "unfit" => self.attach = Err(AttachFailure::Unqualified),
                words => self.ehlo = ehlo_reply(words),
            },
            "config" => rest
                .split_whitespace()
                .try_for_each(|pair| self.configure(pair))?,
            "verdict" => {
                let (stage, verdict) = rest
                    .split_once(' ')
                    .ok_or("a verdict needs a stage and an answer")?;
                self.verdicts
                    .push((stage.to_owned(), parse_verdict(verdict)?));
            }
            _ => return Err(format!("unknown setting !{setting}")),
        }
        Ok(())
    }

    fn configure(&mut self, pair: &str) -> Result<(), String> {
        let (key, value) = pair.split_once('=').ok_or("a setting is key=value")?;
        let number = || {
            value
                .parse::<u32>()
                .map_err(|error| format!("{pair}: {error}"))
        };
        match key {
            "size" => self.size_max = number()?.into(),
            "recipients" => self.recipients_max = number()?,
            "messages" => self.messages_max = number()?,
            "hold" => self.hold_max = number()?.into(),
            "bare" => {
                self.bare_newline = match value {
                    "reject" => BareNewline::Reject,
                    "normalize" => BareNewline::Normalize,
                    "pass" => BareNewline::Pass,
                    _ => return Err(format!("no such policy: {value}")),
                }
            }
            _ => return Err(format!("unknown key {key}")),
        }
        Ok(())
    }
}

fn parse_manner(words: &str) -> Result<(Manner, Opening), String> {
    let (mut manner, mut opening) = (Manner::default(), Opening::Silent);
    for word in words.split_whitespace() {
        match word {
            "hello" => opening = Opening::Hello,
            "offer" => manner.starttls = Way::Offer,
            "tunnel" => manner.starttls = Way::Tunnel,
            "refuse" => manner.starttls = Way::Refuse,
            _ => return Err(format!("no such manner: {word}")),
        }
    }
    Ok((manner, opening))
}

fn split_tag(line: &str) -> Result<(&str, &str), String> {
    for tag in [
        "U<|", "U>|", "C:", "C|", "S:", "S~", "U<", "U>", "D:", "T:", "I:", "X:",
    ] {
        if let Some(rest) = line.strip_prefix(tag) {
            return Ok((tag, rest.strip_prefix(' ').unwrap_or(rest)));
        }
    }
    Err(format!("not a line of a transcript: {line}"))
}

fn parse_event(event: &str) -> Result<Step, String> {
    Ok(match event {
        "client closes" => Step::ClientCloses,
        "client secured" => Step::ClientSecured,
        "upstream secured" => Step::UpstreamSecured { verified: false },
        "upstream verified" => Step::UpstreamSecured { verified: true },
        "client resets" => Step::ClientResets,
        "upstream closes" => Step::UpstreamCloses,
        _ => {
            let time = event
                .strip_suffix(" pass")
                .ok_or_else(|| format!("unknown event {event:?}"))?;
            let (digits, unit) = time.split_at(time.trim_end_matches(char::is_alphabetic).len());
            let count: u64 = digits.parse().map_err(|_| format!("{time:?} is no time"))?;
            let millis = match unit {
                "ms" => count,
                "s" => count * 1000,
                "m" => count * 60_000,
                _ => return Err(format!("{time:?} has no unit")),
            };
            Step::Pass(Duration::from_millis(millis))
        }
    })
}

fn parse_verdict(text: &str) -> Result<Verdict, String> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let reply = || crlf(rest).map(ReplyText::built);
    Ok(match word {
        "pass" => Verdict::Pass,
        "via" => Verdict::PassVia(RouteId(rest.parse().map_err(|_| "a route is a number")?)),
        "refuse" => Verdict::Refuse(reply()?),
        "close" => Verdict::Close(reply()?),
        _ => return Err(format!("unknown verdict {word}")),
    })
}

fn ehlo_reply(words: &str) -> Vec<u8> {
    // SIZE=900 stands for the keyword with a parameter.
    let rows: Vec<String> = words
        .split_whitespace()
        .map(|w| w.replace('=', " "))
        .collect();
    let mut text = String::new();
    for (at, row) in std::iter::once("mx.test")
        .chain(rows.iter().map(String::as_str))
        .enumerate()
    {
        let dash = if at == rows.len() { ' ' } else { '-' };
        text += &format!("250{dash}{row}\r\n");
    }
    text.into_bytes()
}

fn crlf(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = unescape(text)?;
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// `\r \n \t \0 \\ \* \xHH`, and `\{text*N}` for a repetition.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let kind = rest.chars().next().ok_or("a backslash at the end")?;
        rest = &rest[kind.len_utf8()..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '0' => bytes.push(0),
            '\\' | '*' => bytes.push(kind as u8),
            'x' => {
                let digits = rest.get(..2).ok_or("\\x needs two digits")?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?);
                rest = &rest[2..];
            }
            '{' => {
                let (inside, behind) = rest.split_once('}').ok_or("\\{ without }")?;
                let (what, count) = inside.rsplit_once('*').ok_or("\\{text*N}")?;
                let count = count.parse().map_err(|_| "the number of repetitions")?;
                bytes.extend(unescape(what)?.repeat(count));
                rest = behind;
            }
            other => return Err(format!("unknown escape \\{other}")),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}
