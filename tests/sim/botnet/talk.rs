//! A visit as real SMTP: what a good sender or a bot says over the simulated network, and when it has had enough.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use weir_smtp::time::Moment;

use super::traffic::{Answer, Errand, Outcome, Visit};
use crate::net::Line;
use crate::tasks::{Host, Over, Socket};

/// All errands of a run, and how many are not over.
pub struct Errands {
    pub list: Vec<RefCell<Errand>>,
    pub open: Cell<usize>,
}

/// An errand from its first visit to its end.
pub fn run(
    errands: Rc<Errands>,
    number: usize,
    server_of: impl Fn(&Visit) -> SocketAddr + 'static,
) -> impl FnOnce(Host) -> Pin<Box<dyn Future<Output = ()>>> {
    move |host| {
        Box::pin(async move {
            let mut next = Some(errands.list[number].borrow().begins);
            while let Some(at) = next {
                host.sleep_until(at).await;
                let visit = errands.list[number].borrow_mut().visit(at);
                let outcome = pay(&host, number, &visit, server_of(&visit)).await;
                next = errands.list[number].borrow_mut().hears(at, &outcome);
            }
            errands.open.set(errands.open.get() - 1);
        })
    }
}

async fn pay(host: &Host, number: usize, visit: &Visit, server: SocketAddr) -> Outcome {
    // A port for each visit, as far as they go.
    let port = 1024 + (number % 60_000) as u16;
    let from = SocketAddr::new(visit.from, port);
    let mut answers = vec![Answer::Deferred; visit.recipients.len()];
    if let Ok(socket) = host.connect(from, server, Line::smooth()).await {
        let mut talk = Talk {
            visit,
            socket,
            number,
            answers: &mut answers,
        };
        let over = talk.play().await;
        talk.leave(over.is_ok()).await;
    }
    let ended = host.now();
    Outcome { answers, ended }
}

struct Talk<'a> {
    visit: &'a Visit,
    socket: Socket,
    number: usize,
    answers: &'a mut [Answer],
}

/// Nothing more will be said: a farewell, a lost connection, or no patience left.
struct Gone;

impl Talk<'_> {
    async fn play(&mut self) -> Result<(), Gone> {
        let manner = self.visit.manner;
        if let Some(after) = manner.speaks_after {
            self.socket.host.sleep(after).await;
            self.say_hello();
        }
        let greeting = self.reply().await?;
        if greeting.code != 220 {
            self.answers.fill(greeting.answer());
            return Err(Gone);
        }
        if manner.speaks_after.is_none() {
            self.say_hello();
        }
        if manner.hurries {
            self.say_envelope();
        }
        let hello = self.reply().await?;
        if hello.code != 250 {
            self.answers.fill(hello.answer());
            return if manner.hurries { Err(Gone) } else { Ok(()) };
        }
        if manner.hurries {
            self.hear_envelope().await
        } else if manner.pipelines && hello.text.contains("PIPELINING") {
            self.say_envelope();
            self.hear_envelope().await
        } else {
            self.step_by_step().await
        }
    }

    fn say(&self, line: &str) {
        self.socket.send(line.as_bytes());
        self.socket.send(b"\r\n");
    }

    fn say_hello(&self) {
        self.say(&format!("EHLO {}", self.visit.helo));
    }

    fn say_envelope(&self) {
        self.say(&format!("MAIL FROM:<{}>", self.visit.sender));
        for recipient in &self.visit.recipients {
            self.say(&format!("RCPT TO:<{recipient}>"));
        }
        self.say("DATA");
    }

    async fn hear_envelope(&mut self) -> Result<(), Gone> {
        let mail = self.reply().await?;
        let mut taken = Vec::new();
        for nth in 0..self.answers.len() {
            let reply = self.reply().await?;
            if mail.code == 250 {
                self.hear_recipient(nth, &reply, &mut taken);
            } else {
                self.answers[nth] = mail.answer();
            }
        }
        let data = self.reply().await?;
        self.body(&data, &taken).await
    }

    async fn step_by_step(&mut self) -> Result<(), Gone> {
        self.say(&format!("MAIL FROM:<{}>", self.visit.sender));
        let mail = self.reply().await?;
        if mail.code != 250 {
            self.answers.fill(mail.answer());
            return Ok(());
        }
        let mut taken = Vec::new();
        for (nth, recipient) in self.visit.recipients.iter().enumerate() {
            self.say(&format!("RCPT TO:<{recipient}>"));
            let reply = self.reply().await?;
            self.hear_recipient(nth, &reply, &mut taken);
        }
        if taken.is_empty() {
            return Ok(());
        }
        self.say("DATA");
        let data = self.reply().await?;
        self.body(&data, &taken).await
    }

    fn hear_recipient(&mut self, nth: usize, reply: &Reply, taken: &mut Vec<usize>) {
        match reply.answer() {
            Answer::Taken => taken.push(nth),
            answer => self.answers[nth] = answer,
        }
    }

    /// After the reply to DATA. A recipient counts as served only when the message was taken.
    async fn body(&mut self, data: &Reply, taken: &[usize]) -> Result<(), Gone> {
        let end = if data.code != 354 {
            data.answer()
        } else if taken.is_empty() {
            self.say(".");
            self.reply().await?.answer()
        } else {
            self.say(&format!("Errand: {}\r\n\r\nHello\r\n.", self.number));
            self.reply().await?.answer()
        };
        taken.iter().for_each(|&nth| self.answers[nth] = end);
        Ok(())
    }

    async fn leave(&self, polite: bool) {
        if polite && self.visit.manner.quits {
            self.say("QUIT");
            _ = self.reply().await;
        }
        self.socket.close();
    }

    async fn reply(&self) -> Result<Reply, Gone> {
        let patience = self.visit.manner.patience;
        let asked = self.socket.host.now();
        let most = patience.renewed.unwrap_or(patience.reply);
        let mut text = String::new();
        loop {
            let line = self.line(asked + most).await?;
            let line = String::from_utf8_lossy(&line).into_owned();
            text += &line;
            if line.as_bytes().get(3) != Some(&b'-') {
                let code = line.get(..3).and_then(|code| code.parse().ok());
                return code.map(|code| Reply { code, text }).ok_or(Gone);
            }
        }
    }

    /// A line, listened for as long as octets of it keep coming.
    async fn line(&self, until: Moment) -> Result<Vec<u8>, Gone> {
        let patience = self.visit.manner.patience;
        let mut seen = self.socket.buffered();
        loop {
            let bored = self.socket.host.now() + patience.reply;
            match self.socket.line(bored.min(until)).await {
                Ok(line) => return Ok(line),
                Err(Over::Late) => {}
                Err(Over::Fin | Over::Reset) => return Err(Gone),
            }
            let more = self.socket.buffered();
            if more == seen || self.socket.host.now() >= until {
                return Err(Gone);
            }
            seen = more;
        }
    }
}

struct Reply {
    code: u16,
    text: String,
}

impl Reply {
    fn answer(&self) -> Answer {
        match self.code / 100 {
            2 => Answer::Taken,
            5 => Answer::Refused,
            _ => Answer::Deferred,
        }
    }
}
