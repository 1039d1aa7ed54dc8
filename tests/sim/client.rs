//! Fake mail clients: patient ones that do everything by the book, and all the others.
//!
//! A client knows what it may expect: a reply to every command, in order, in time and well formed, temporary where weir or the network is to
//! blame, and never a hang-up without a word. What it does not get is noted as wrong, unless the network took it or the client asked for it.

mod deliveries;
mod stories;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use weir_smtp::time::Moment;

use crate::chance::Chance;
use crate::ledger::SharedLedger;
use crate::net::Line;
use crate::tasks::{Host, Over, Socket};

/// What a reply may take beyond weir's own deadline: the network's delays, both ways.
const SLACK: Duration = Duration::from_secs(15);

/// What a byte rate adds: so long the end of a message may lie unread in the socket.
const PAUSES: Duration = Duration::from_secs(40);

const COMMAND: Duration = Duration::from_secs(100);
const RCPT: Duration = Duration::from_secs(240);
const FINAL: Duration = Duration::from_secs(540);

/// How a client puts its transactions on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// A command, a reply.
    Lockstep,
    /// MAIL to DATA in one flight.
    Pipelined,
    /// Chunks, each awaited.
    Chunks,
    /// The whole transaction in one flight.
    ChunksPipelined,
}

/// What a client is like.
#[derive(Clone, Debug)]
pub enum Kind {
    Proper,
    /// Leaves after it has written so many octets: with a FIN, or with a reset.
    HangsUp {
        after: u64,
        resets: bool,
    },
    /// Stops in the middle, and stays.
    Freezes {
        after: u64,
    },
    /// Speaks before the greeting.
    Hasty,
    /// Never reads a reply.
    Deaf,
    /// Says everything, then sends FIN, then reads.
    HalfCloses,
    /// Commands in any order, and much that is no SMTP.
    Rude,
    /// Says nothing.
    Silent,
    /// Says HELO.
    Old,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub style: Style,
    pub messages: u32,
    pub recipients: u64,
    pub octets: u64,
    /// Between messages.
    pub gap: Duration,
    /// Between the last RCPT and the body.
    pub dawdles: Duration,
    /// The body comes in pieces of so many octets with pauses.
    pub dribble: Option<(usize, Duration)>,
    /// Percent of messages with a bare newline.
    pub bare_newlines: u64,
    pub begins: Moment,
    /// Percent of messages before which it does something else.
    pub detours: u64,
}

pub struct Client {
    pub plan: Plan,
    pub address: SocketAddr,
    pub server: SocketAddr,
    pub line: Line,
    pub chance: Chance,
    pub ledger: SharedLedger,
    pub bears: Bears,
}

/// What a client has to bear in this scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bears {
    /// Weir has so few slots that clients wait in the kernel's queue for one.
    pub lateness: bool,
    /// Weir limits, delays and refuses by policy.
    pub policy: bool,
    /// The network, or policy, may make its messages come slowly.
    pub slowness: bool,
}

impl Client {
    pub fn run(self) -> impl FnOnce(Host) -> Pin<Box<dyn Future<Output = ()>>> {
        move |host| {
            Box::pin(async move {
                host.sleep_until(self.plan.begins).await;
                let Ok(socket) = host
                    .connect(self.address, self.server, self.line.clone())
                    .await
                else {
                    return;
                };
                self.ledger.borrow_mut().counts.connections += 1;
                let left = match self.plan.kind {
                    Kind::HangsUp { after, .. } | Kind::Freezes { after } => Some(after),
                    _ => None,
                };
                let mut talk = Talk {
                    client: self,
                    socket,
                    left,
                    keywords: Vec::new(),
                    esmtp: false,
                    octets: 0,
                    last_reply: Moment::ZERO,
                    last_text: String::new(),
                    farewell: false,
                    open: None,
                };
                let over = talk.play().await;
                if matches!(talk.client.plan.kind, Kind::Freezes { .. }) && talk.left == Some(0) {
                    talk.freeze().await;
                }
                talk.part(over);
            })
        }
    }
}

struct Reply {
    code: u16,
    text: String,
}

impl Reply {
    fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }
}

/// One connection of a client.
struct Talk {
    client: Client,
    socket: Socket,
    /// Octets until it hangs up.
    left: Option<u64>,
    keywords: Vec<String>,
    esmtp: bool,
    /// Of the message under way.
    octets: u64,
    last_reply: Moment,
    last_text: String,
    /// 421 or 221 was heard, or a greeting that refuses: the connection may be closed.
    farewell: bool,
    /// The message whose reply is not heard yet.
    open: Option<u32>,
}

impl Talk {
    async fn play(&mut self) -> Result<(), Over> {
        match self.client.plan.kind {
            Kind::Deaf => self.deaf().await,
            Kind::Silent => self.silent().await,
            Kind::Rude => self.rude().await,
            Kind::HalfCloses => self.half_closing().await,
            _ => self.proper().await,
        }
    }

    async fn greeting(&mut self) -> Result<(), Over> {
        let greeting = self.reply("greeting", COMMAND).await?;
        if greeting.code != 220 {
            self.farewell = true;
            return Err(Over::Fin);
        }
        Ok(())
    }

    async fn ehlo_reply(&mut self) -> Result<(), Over> {
        let reply = self.reply("EHLO", COMMAND).await?;
        if !reply.is_positive() {
            return Err(Over::Fin);
        }
        self.esmtp = true;
        let keywords = reply.text.lines().skip(1).filter_map(|line| line.get(4..));
        self.keywords = keywords
            .map(|keyword| keyword.trim_end().to_owned())
            .collect();
        Ok(())
    }

    fn offers(&self, keyword: &str) -> bool {
        self.keywords
            .iter()
            .any(|word| word.split(' ').next() == Some(keyword))
    }

    /// A refusal of something that is in order: permanent only if an upstream said so.
    fn not_now(&mut self, what: &str, reply: &Reply) -> Result<(), Over> {
        let oversized =
            reply.text.contains(" 5.3.4 ") && self.size_max().is_none_or(|max| self.octets > max);
        let foreign = reply.text.contains("[u]") || self.client.bears.policy || oversized;
        if reply.code / 100 == 5 && !foreign && self.is_proper() {
            self.wrong(&format!(
                "heard {:?} to {what}, and no upstream has said so",
                reply.text
            ));
        }
        Ok(())
    }

    /// What weir takes, as far as this client knows.
    fn size_max(&self) -> Option<u64> {
        let size = self
            .keywords
            .iter()
            .find_map(|word| word.strip_prefix("SIZE "));
        size.and_then(|size| size.parse().ok())
    }

    fn is_proper(&self) -> bool {
        !matches!(self.client.plan.kind, Kind::Rude | Kind::Hasty)
    }

    /// Waits, unless weir has something to say: between two commands that can only be a farewell.
    async fn pause(&mut self, span: Duration) -> Result<(), Over> {
        let until = self.socket.host.now() + span;
        match self.socket.stirs(until).await {
            Err(Over::Late) => Ok(()),
            Err(over) => self.ended(over, "a pause"),
            Ok(()) => {
                let reply = self.reply("nothing", COMMAND).await?;
                if !self.farewell {
                    self.wrong(&format!("heard {:?} without having asked", reply.text));
                }
                Err(Over::Fin)
            }
        }
    }

    fn say(&mut self, text: &str) -> Result<(), Over> {
        self.send(text.as_bytes())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Over> {
        if let Some(left) = self.left {
            let now = left.min(bytes.len() as u64);
            self.socket.send(&bytes[..now as usize]);
            self.left = Some(left - now);
            if left == now {
                return Err(Over::Late);
            }
            return Ok(());
        }
        self.socket.send(bytes);
        Ok(())
    }

    /// The next reply, which has to come in time.
    async fn reply(&mut self, to: &str, allowed: Duration) -> Result<Reply, Over> {
        let asked = self.socket.host.now();
        let mut text = String::new();
        loop {
            let line = match self.socket.line(self.due(asked, allowed)).await {
                Ok(line) => line,
                Err(Over::Late) if self.due(asked, allowed) > self.socket.host.now() => continue,
                Err(over) => return self.ended(over, to),
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            self.check_line(&line, &text, to);
            text += &line;
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        self.last_reply = self.socket.host.now();
        self.last_text.clone_from(&text);
        let code = text
            .lines()
            .last()
            .and_then(|line| line.get(..3)?.parse().ok())
            .unwrap_or(0);
        if code == 421 {
            self.farewell = true;
            return Err(Over::Fin);
        }
        // The one refusal of a message after which weir hangs up.
        if text.contains("too slowly") {
            self.farewell = true;
            if self.client.plan.dribble.is_none() && !self.client.bears.slowness {
                self.wrong(&format!("heard {text:?}, and never paused"));
            }
        }
        Ok(Reply { code, text })
    }

    /// A reply is late when its time has passed since it was asked for, since the reply before it, and since the question was on its way.
    fn due(&self, asked: Moment, allowed: Duration) -> Moment {
        let net = self.socket.host.net.borrow();
        let flushed = net.flushed(self.socket.end).unwrap_or_else(|| net.now());
        // A stuttered reply may take as long as the slowest of the others.
        let allowed = if self.client.bears.policy {
            allowed.max(RCPT) + PAUSES
        } else {
            allowed
        };
        asked.max(flushed).max(self.last_reply) + allowed + SLACK
    }

    fn check_line(&self, line: &str, before: &str, to: &str) {
        let code = line
            .get(..3)
            .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        let well = match code {
            None => false,
            Some(code) => {
                // A greeting that began with a teaser may end as a refusal, as postscreen's does.
                let same = before.is_empty() || before.starts_with(code) || to == "greeting";
                let bare = matches!(to, "EHLO" | "HELO" | "greeting")
                    || code.starts_with('3')
                    || !self.offers("ENHANCEDSTATUSCODES");
                let enhanced =
                    bare || line[4.min(line.len())..].starts_with(&format!("{}.", &code[..1]));
                same && enhanced
                    && line.ends_with("\r\n")
                    && matches!(line.as_bytes()[3], b' ' | b'-')
            }
        };
        if !well {
            self.wrong(&format!("heard {line:?} to {to}"));
        }
    }

    /// Nothing more comes: is that in order?
    fn ended<T>(&mut self, over: Over, waiting_for: &str) -> Result<T, Over> {
        let net_fault = self.socket.is_faulty();
        if self.is_proper() && !net_fault && !self.farewell {
            match over {
                Over::Late if self.client.bears.lateness => {}
                // What policy does to a client it may do with any refusal.
                Over::Fin if self.client.bears.policy && !self.last_text.starts_with('2') => {}
                Over::Late => self.wrong(&format!("heard nothing to {waiting_for} in time")),
                Over::Fin => self.wrong(&format!(
                    "was hung up on while waiting for a reply to {waiting_for}, after it had heard {:?}",
                    self.last_text
                )),
                Over::Reset => {}
            }
        }
        Err(over)
    }

    fn wrong(&self, what: &str) {
        let kind = &self.client.plan.kind;
        let address = self.client.address;
        let message = self
            .open
            .map_or(String::new(), |id| format!(", message {id},"));
        let now = self.socket.host.now();
        self.client.ledger.borrow_mut().wrong(format!(
            "at {now} client {address} ({kind:?}){message} {what}"
        ));
    }

    /// The end of the story: whoever leaves a message behind will not hear of it.
    fn part(&mut self, over: Result<(), Over>) {
        let unheard = over.is_err() && !(self.farewell || self.socket.over() == Some(Over::Fin));
        if let Some(id) = self.open.filter(|_| unheard) {
            self.client.ledger.borrow_mut().client_gone(id);
        }
        match self.client.plan.kind {
            Kind::HangsUp { resets: true, .. } => self.socket.reset(),
            _ => self.socket.close(),
        }
    }
}
