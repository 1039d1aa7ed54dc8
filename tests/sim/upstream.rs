//! Fake mail servers: strict about what they are sent, and as unreliable as they are told to be.
//!
//! A server notes in the ledger every end of data it sees and every message it says 250 to. What weir must never send (commands in the wrong
//! order, pipelining or parameters that were not offered, a recipient-less DATA) is noted as wrong.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use weir_smtp::time::Moment;

use crate::chance::Chance;
use crate::ledger::SharedLedger;
use crate::letters::{mend, unstuff};
use crate::net::End;
use crate::tasks::{Host, Over, Socket};

/// What a server offers.
#[derive(Clone, Debug)]
pub struct Offers {
    /// Without it the server knows only HELO.
    pub ehlo: bool,
    pub pipelining: bool,
    pub chunking: bool,
    pub binary: bool,
    pub eight_bit: bool,
    pub utf8: bool,
    pub dsn: bool,
    pub size: Option<u64>,
    pub enhanced: bool,
    /// Its clients are strangers, who may say anything at any time.
    pub takes_nonsense: bool,
}

impl Offers {
    pub fn everything() -> Offers {
        Offers {
            ehlo: true,
            pipelining: true,
            chunking: true,
            binary: true,
            eight_bit: true,
            utf8: true,
            dsn: true,
            size: Some(50_000_000),
            enhanced: true,
            takes_nonsense: false,
        }
    }

    pub fn by_chance(chance: &mut Chance) -> Offers {
        let chunking = chance.percent(60);
        Offers {
            ehlo: !chance.one_in(15),
            pipelining: chance.percent(75),
            chunking,
            binary: chunking && chance.percent(50),
            eight_bit: chance.percent(80),
            utf8: chance.percent(60),
            dsn: chance.percent(60),
            size: chance.percent(70).then_some(20_000_000),
            enhanced: chance.percent(70),
            takes_nonsense: false,
        }
    }

    fn keywords(&self) -> Vec<String> {
        let flags = [
            (self.pipelining, "PIPELINING"),
            (self.chunking, "CHUNKING"),
            (self.binary, "BINARYMIME"),
            (self.eight_bit, "8BITMIME"),
            (self.utf8, "smtputf8"),
            (self.dsn, "DSN"),
            (self.enhanced, "ENHANCEDSTATUSCODES"),
            (true, "X-UNHEARD-OF 1 2 3"),
        ];
        let flags = flags
            .into_iter()
            .filter(|(offered, _)| *offered)
            .map(|(_, word)| word.to_owned());
        flags
            .chain(self.size.map(|size| format!("SIZE {size}")))
            .collect()
    }
}

/// How unreliable a server is, in percent of its replies.
#[derive(Clone, Copy, Debug, Default)]
pub struct Temper {
    /// 4xx and 5xx.
    pub refuses: u64,
    /// 421, a closed or reset connection.
    pub leaves: u64,
    /// What is not SMTP, too much, or makes no sense.
    pub babbles: u64,
    /// Never answers.
    pub stalls: u64,
    /// Answers late, or in pieces.
    pub dawdles: u64,
    /// Refuses RSET, or answers it late or never.
    pub keeps: u64,
    /// After so long without a transaction it says 421 and leaves.
    pub patience: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Well,
    Defer,
    Reject,
    Bye,
    Close,
    Reset,
    Babble,
    Stall,
    Late,
    Pieces,
}

/// What comes instead of the 250 to a RSET.
const UNRESET: [Mood; 6] = [
    Mood::Bye,
    Mood::Defer,
    Mood::Reject,
    Mood::Close,
    Mood::Stall,
    Mood::Late,
];

pub struct Server {
    pub index: usize,
    pub offers: RefCell<Offers>,
    pub temper: RefCell<Temper>,
    chance: RefCell<Chance>,
    ledger: SharedLedger,
    tokens: RefCell<u32>,
}

impl Server {
    pub fn new(
        index: usize,
        offers: Offers,
        temper: Temper,
        chance: Chance,
        ledger: SharedLedger,
    ) -> Rc<Server> {
        Rc::new(Server {
            index,
            offers: RefCell::new(offers),
            temper: RefCell::new(temper),
            chance: RefCell::new(chance),
            ledger,
            tokens: RefCell::new(0),
        })
    }

    /// The story of one connection.
    pub fn serve(
        self: Rc<Server>,
        end: End,
    ) -> impl FnOnce(Host) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        move |host| {
            Box::pin(async move {
                let socket = host.adopt(end);
                let offers = self.offers.borrow().clone();
                let mut talk = Talk {
                    server: self,
                    socket,
                    offers,
                    hello: false,
                    envelope: None,
                    babbled: false,
                };
                let _over = talk.run().await;
                talk.socket.close();
            })
        }
    }

    fn token(&self) -> String {
        let mut tokens = self.tokens.borrow_mut();
        *tokens += 1;
        format!("u{}.{}", self.index, tokens)
    }

    /// What weir never says of its own accord.
    fn nonsense(&self, what: &str) {
        if !self.offers.borrow().takes_nonsense {
            self.wrong(what);
        }
    }

    fn wrong(&self, what: &str) {
        let index = self.index;
        self.ledger
            .borrow_mut()
            .wrong(format!("upstream {index} {what}"));
    }
}

struct Envelope {
    sender: String,
    recipients: Vec<String>,
    /// Chunks so far; the transaction is BDAT.
    content: Option<Vec<u8>>,
    binary: bool,
    spoilt: bool,
}

/// One connection.
struct Talk {
    server: Rc<Server>,
    socket: Socket,
    offers: Offers,
    hello: bool,
    envelope: Option<Envelope>,
    /// It has said what is no reply: nobody has to make sense of what follows.
    babbled: bool,
}

const SERVER_PATIENCE: Duration = Duration::from_secs(300);

impl Talk {
    async fn run(&mut self) -> Result<(), Over> {
        let greeting = if self.chance(4) {
            "220-sim\r\n220 sim ESMTP"
        } else {
            "220 sim ESMTP"
        };
        self.say(greeting, "greeting").await?;
        loop {
            let line = match self.socket.line(self.patience()).await {
                Err(Over::Late) => {
                    self.socket.send(b"421 4.4.2 idle for too long\r\n");
                    return Err(Over::Fin);
                }
                line => line?,
            };
            let Some(line) = line
                .strip_suffix(b"\r\n")
                .map(|line| String::from_utf8_lossy(line).into_owned())
            else {
                self.server.wrong(&format!(
                    "got a command without CRLF: {:?}",
                    String::from_utf8_lossy(&line)
                ));
                return Err(Over::Fin);
            };
            let word = line
                .split([' ', ':'])
                .next()
                .unwrap_or("")
                .to_ascii_uppercase();
            let alone = word != "BDAT"
                && (!self.offers.pipelining
                    || matches!(&word[..], "EHLO" | "HELO" | "DATA" | "QUIT"));
            if alone && self.socket.buffered() > 0 {
                self.server.wrong(&format!(
                    "got more behind {line:?} than it has offered to take"
                ));
            }
            self.command(&word, &line).await?;
        }
    }

    async fn command(&mut self, word: &str, line: &str) -> Result<(), Over> {
        match word {
            "EHLO" => self.ehlo().await,
            "HELO" => {
                self.hello = true;
                self.envelope = None;
                self.say("250 sim", "HELO").await
            }
            "MAIL" => self.mail(line).await,
            "RCPT" => self.rcpt(line).await,
            "DATA" => self.data().await,
            "BDAT" => self.bdat(line).await,
            "RSET" => {
                self.envelope = None;
                let mood = self.mood_at_reset();
                self.answer("250 2.0.0 reset", "RSET", mood).await
            }
            "NOOP" => self.say("250 2.0.0 well", "NOOP").await,
            "QUIT" => {
                self.say("221 2.0.0 bye", "QUIT").await?;
                Err(Over::Fin)
            }
            _ => {
                self.server.nonsense(&format!("got {line:?}"));
                self.say("500 5.5.2 what", "nonsense").await
            }
        }
    }

    async fn ehlo(&mut self) -> Result<(), Over> {
        if !self.offers.ehlo {
            return self.answer("502 5.5.1 what", "EHLO", Mood::Well).await;
        }
        self.hello = true;
        self.envelope = None;
        let mut reply = "250-sim".to_owned();
        for keyword in self.offers.keywords() {
            reply += &format!("\r\n250-{keyword}");
        }
        let last = reply.rfind("250-").expect("there is a line");
        reply.replace_range(last + 3..last + 4, " ");
        self.say(&reply, "EHLO").await
    }

    async fn mail(&mut self, line: &str) -> Result<(), Over> {
        if !self.hello || self.envelope.is_some() {
            self.server
                .nonsense(&format!("got {line:?} where MAIL has no place"));
        }
        let Some((sender, parameters)) = path(line, "MAIL FROM:") else {
            self.server.wrong(&format!("cannot read {line:?}"));
            return self.answer("501 5.5.4 what", "MAIL", Mood::Well).await;
        };
        self.check_parameters(line, parameters);
        let binary = parameters.to_ascii_uppercase().contains("BODY=BINARYMIME");
        let mood = self.mood();
        if matches!(mood, Mood::Well | Mood::Late | Mood::Pieces) {
            let sender = sender.to_owned();
            self.envelope = Some(Envelope {
                sender,
                recipients: Vec::new(),
                content: None,
                binary,
                spoilt: false,
            });
        }
        self.answer("250 2.1.0 sender fine", "MAIL", mood).await
    }

    fn check_parameters(&self, line: &str, parameters: &str) {
        let offers = &self.offers;
        for parameter in parameters.split_whitespace() {
            let upper = parameter.to_ascii_uppercase();
            let offered = match upper.split('=').next().unwrap_or("") {
                "SIZE" => offers.size.is_some(),
                "BODY" if upper == "BODY=BINARYMIME" => offers.binary,
                "BODY" => offers.eight_bit,
                "SMTPUTF8" => offers.utf8,
                "RET" | "ENVID" | "NOTIFY" | "ORCPT" => offers.dsn,
                _ => false,
            };
            if !offered || !offers.ehlo {
                self.server.wrong(&format!(
                    "got {parameter}, which it has not offered, in {line:?}"
                ));
            }
        }
    }

    async fn rcpt(&mut self, line: &str) -> Result<(), Over> {
        let Some((recipient, parameters)) = path(line, "RCPT TO:") else {
            self.server.wrong(&format!("cannot read {line:?}"));
            return self.answer("501 5.5.4 what", "RCPT", Mood::Well).await;
        };
        self.check_parameters(line, parameters);
        if self.envelope.is_none() {
            if !self.offers.pipelining {
                self.server.nonsense("got RCPT without MAIL");
            }
            return self
                .answer("503 5.5.1 MAIL first", "RCPT", Mood::Well)
                .await;
        }
        let mood = self.mood();
        if matches!(mood, Mood::Well | Mood::Late | Mood::Pieces)
            && let Some(envelope) = self.envelope.as_mut()
        {
            envelope.recipients.push(recipient.to_owned());
        }
        self.answer("250 2.1.5 recipient fine", "RCPT", mood).await
    }

    fn has_recipients(&self, verb: &str) -> bool {
        let some = self
            .envelope
            .as_ref()
            .is_some_and(|envelope| !envelope.recipients.is_empty());
        if !some {
            self.server
                .nonsense(&format!("got {verb} without a recipient"));
        }
        some
    }

    async fn data(&mut self) -> Result<(), Over> {
        if !self.has_recipients("DATA") {
            return self
                .answer("503 5.5.1 RCPT first", "DATA", Mood::Well)
                .await;
        }
        let mood = self.mood();
        if !matches!(mood, Mood::Well | Mood::Late | Mood::Pieces) {
            self.envelope = None;
            return self.answer("354 go", "DATA", mood).await;
        }
        self.answer("354 go", "DATA", mood).await?;
        self.leave_in_mid_body().await?;
        let empty = self.socket.exactly(3, self.patience()).await?;
        let mut wire = empty;
        if wire != b".\r\n" {
            // The end may begin in what was read already.
            while !ends_message(&wire) {
                wire.extend(self.socket.line(self.patience()).await?);
            }
        }
        wire.truncate(wire.len() - 3);
        let content = unstuff(&wire);
        if mend(&wire) != wire {
            self.server.wrong("got a bare newline by DATA");
        }
        self.message(content).await
    }

    /// Some connections end in the middle of a body.
    async fn leave_in_mid_body(&mut self) -> Result<(), Over> {
        let leaves = self.server.temper.borrow().leaves;
        if !self.server.chance.borrow_mut().percent(leaves) {
            return Ok(());
        }
        let octets = self.server.chance.borrow_mut().below(3000) as usize;
        let _came = self
            .socket
            .exactly(octets, self.socket.host.now() + Duration::from_secs(2))
            .await;
        match self.server.chance.borrow_mut().below(3) {
            0 => self.socket.reset(),
            1 => self.socket.send(b"421 4.3.0 gone\r\n"),
            _ => {}
        }
        Err(Over::Fin)
    }

    async fn bdat(&mut self, line: &str) -> Result<(), Over> {
        let mut words = line.split(' ').skip(1);
        let octets = words.next().and_then(|word| word.parse::<usize>().ok());
        let last = words.next();
        let (Some(octets), true) = (octets, last.is_none() || last == Some("LAST")) else {
            self.server.wrong(&format!("cannot read {line:?}"));
            return Err(Over::Fin);
        };
        if !self.offers.chunking {
            self.server.wrong("got BDAT, which it has not offered");
        }
        self.leave_in_mid_body().await?;
        let chunk = self.socket.exactly(octets, self.patience()).await?;
        if !self.has_recipients("BDAT") {
            return self
                .answer("503 5.5.1 RCPT first", "BDAT", Mood::Well)
                .await;
        }
        let Some(envelope) = self.envelope.as_mut() else {
            return Ok(());
        };
        let content = envelope.content.get_or_insert_default();
        content.extend_from_slice(&chunk);
        if envelope.spoilt {
            return self
                .answer("503 5.5.1 RSET first", "BDAT", Mood::Well)
                .await;
        }
        if last.is_some() {
            let content = std::mem::take(content);
            let binary = envelope.binary;
            if !binary && mend(&content) != content {
                self.server.wrong("got a bare newline by BDAT");
            }
            return self.message(content).await;
        }
        let mood = self.mood();
        if matches!(mood, Mood::Defer | Mood::Reject)
            && let Some(envelope) = self.envelope.as_mut()
        {
            envelope.spoilt = true;
        }
        self.answer("250 2.0.0 more", "BDAT", mood).await
    }

    /// A message is complete: what becomes of it.
    async fn message(&mut self, content: Vec<u8>) -> Result<(), Over> {
        let Some(envelope) = self.envelope.take() else {
            return Ok(());
        };
        let server = self.server.clone();
        let id = {
            let net = self.socket.host.net.borrow();
            server.ledger.borrow_mut().reached(
                server.index,
                &envelope.sender,
                &envelope.recipients,
                &content,
                &net,
            )
        };
        let mood = self.mood();
        if mood == Mood::Late {
            let wait = self.server.chance.borrow_mut().millis(0..700_000);
            self.wait(wait).await?;
        }
        if !matches!(mood, Mood::Well | Mood::Late | Mood::Pieces) {
            return self
                .answer("250 2.0.0 never said", "end of data", mood)
                .await;
        }
        let Some(id) = id else { return Err(Over::Fin) };
        let token = server.token();
        let reply = if self.chance(5) {
            format!("250-2.0.0 [u] long\r\n250 2.0.0 [u] kept as {token}")
        } else {
            format!("250 2.0.0 [u] kept as {token}")
        };
        let reply = self.plain(&reply) + "\r\n";
        // Behind what is no reply, the 250 need not be heard as one.
        let said_at = match self.babbled {
            true => u64::MAX,
            false => self.socket.written() + reply.len() as u64,
        };
        server.ledger.borrow_mut().accepted(
            server.index,
            id,
            envelope.recipients,
            &token,
            self.socket.end,
            said_at,
        );
        if mood == Mood::Pieces {
            self.in_pieces(reply.as_bytes()).await?;
        } else {
            self.socket.send(reply.as_bytes());
        }
        match self.server.temper.borrow().leaves {
            0 => {}
            leaves if !self.server.chance.borrow_mut().percent(leaves) => {}
            _ if self.chance(2) => return Err(Over::Fin),
            _ => self.socket.send(b"and another thing\r\n"),
        }
        Ok(())
    }

    async fn say(&mut self, text: &str, to: &str) -> Result<(), Over> {
        let mood = self.mood();
        self.answer(text, to, mood).await
    }

    /// Says `text`, or what the mood makes of it.
    async fn answer(&mut self, text: &str, to: &str, mood: Mood) -> Result<(), Over> {
        let text = match mood {
            Mood::Well | Mood::Late | Mood::Pieces => text.to_owned(),
            Mood::Defer => format!("450 4.2.0 [u] {to}: not now"),
            Mood::Reject => format!("550 5.7.1 [u] {to}: never"),
            Mood::Bye => format!("421 4.3.0 [u] {to}: leaving"),
            Mood::Close => return Err(Over::Fin),
            Mood::Reset => {
                self.socket.reset();
                return Err(Over::Reset);
            }
            Mood::Babble => {
                self.babbled = true;
                self.babble(to)
            }
            Mood::Stall => {
                let _gone = self
                    .socket
                    .through(b"what never comes", Moment::NEVER)
                    .await;
                return Err(Over::Fin);
            }
        };
        let text = self.plain(&text) + "\r\n";
        match mood {
            Mood::Late => {
                let wait = self.server.chance.borrow_mut().millis(0..90_000);
                self.wait(wait).await?;
                self.socket.send(text.as_bytes());
            }
            Mood::Pieces => self.in_pieces(text.as_bytes()).await?,
            _ => self.socket.send(text.as_bytes()),
        }
        if mood == Mood::Bye {
            Err(Over::Fin)
        } else {
            Ok(())
        }
    }

    async fn in_pieces(&mut self, text: &[u8]) -> Result<(), Over> {
        let cut = self.server.chance.borrow_mut().below(text.len() as u64) as usize;
        let wait = self.server.chance.borrow_mut().millis(0..8000);
        self.socket.send(&text[..cut]);
        self.wait(wait).await?;
        self.socket.send(&text[cut..]);
        Ok(())
    }

    /// Waits; a peer that has left in the meantime is not answered.
    async fn wait(&mut self, span: Duration) -> Result<(), Over> {
        let until = self.socket.host.now() + span;
        self.socket.host.sleep_until(until).await;
        match self.socket.over() {
            Some(Over::Reset) => Err(Over::Reset),
            _ => Ok(()),
        }
    }

    /// Without ENHANCEDSTATUSCODES replies have none.
    fn plain(&self, text: &str) -> String {
        if self.offers.enhanced {
            return text.to_owned();
        }
        let lines = text.split("\r\n").map(|line| match line.get(4..10) {
            Some(code) if code.as_bytes()[1] == b'.' && code.as_bytes()[3] == b'.' => {
                format!("{}{}", &line[..4], &line[10..])
            }
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\r\n")
    }

    fn babble(&mut self, to: &str) -> String {
        match self.server.chance.borrow_mut().below(7) {
            0 => "hello".into(),
            1 => "999 9.9.9 [u] what a code".into(),
            2 => "250-2.0.0 [u] one\r\n550 5.0.0 [u] two".into(),
            3 => format!("450 4.0.0 [u] {}", "x".repeat(3000)),
            4 => "450-4.0.0 [u] and\r\n".repeat(5000) + "450 4.0.0 [u] end",
            5 if to != "DATA" => "354 now".into(),
            // Where more commands are under way, nobody could tell which reply is the odd one.
            6 if matches!(to, "greeting" | "EHLO" | "end of data") => {
                "450 4.0.0 [u] one\r\n450 4.0.0 [u] too many".into()
            }
            _ => "\0\u{1}".into(),
        }
    }

    fn mood_at_reset(&mut self) -> Mood {
        let keeps = self.server.temper.borrow().keeps;
        if keeps > 0 && self.server.chance.borrow_mut().percent(keeps) {
            return *self.server.chance.borrow_mut().pick(&UNRESET);
        }
        self.mood()
    }

    fn mood(&mut self) -> Mood {
        let temper = *self.server.temper.borrow();
        let mut chance = self.server.chance.borrow_mut();
        let mut roll = chance.below(100);
        for (share, moods) in [
            (temper.refuses, &[Mood::Defer, Mood::Reject][..]),
            (temper.leaves, &[Mood::Bye, Mood::Close, Mood::Reset]),
            (temper.babbles, &[Mood::Babble]),
            (temper.stalls, &[Mood::Stall]),
            (temper.dawdles, &[Mood::Late, Mood::Pieces]),
        ] {
            if roll < share {
                return *chance.pick(moods);
            }
            roll -= share;
        }
        Mood::Well
    }

    fn chance(&self, one_in: u64) -> bool {
        self.server.chance.borrow_mut().one_in(one_in)
    }

    fn patience(&self) -> Moment {
        let idle = self.envelope.is_none();
        let short = self.server.temper.borrow().patience.filter(|_| idle);
        self.socket.host.now() + short.unwrap_or(SERVER_PATIENCE)
    }
}

fn ends_message(wire: &[u8]) -> bool {
    wire.ends_with(b"\r\n.\r\n")
}

/// The address in `<>` and what follows.
fn path<'a>(line: &'a str, verb: &str) -> Option<(&'a str, &'a str)> {
    let after = line.strip_prefix(verb)?;
    let inside = after.strip_prefix('<')?;
    let end = inside
        .rfind("> ")
        .or_else(|| inside.strip_suffix('>').map(str::len))?;
    Some((&inside[..end], &inside[end + 1..]))
}
