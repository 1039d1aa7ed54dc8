//! What each kind of client does, from greeting to the end of its connection.

use std::time::Duration;

use super::{COMMAND, Kind, RCPT, Style, Talk};
use crate::ledger::RUDE;
use crate::tasks::Over;

/// The longest of weir's timeouts, and some for what it is busy with before that runs.
const FROZEN_MAX: Duration = Duration::from_secs(600 + 240 + 60);

impl Talk {
    pub(super) async fn proper(&mut self) -> Result<(), Over> {
        let hasty = matches!(self.client.plan.kind, Kind::Hasty);
        if hasty {
            self.say("EHLO hasty.example\r\n")?;
        }
        self.greeting().await?;
        if hasty {
            self.ehlo_reply().await?;
        } else if matches!(self.client.plan.kind, Kind::Old) {
            self.say("HELO old.example\r\n")?;
            self.reply("HELO", COMMAND).await?;
        } else {
            self.say("EHLO client.example\r\n")?;
            self.ehlo_reply().await?;
        }
        for nth in 0..self.client.plan.messages {
            if nth > 0 && !self.client.plan.gap.is_zero() {
                let gap = self.client.plan.gap;
                self.pause(gap).await?;
            }
            if self.client.chance.percent(self.client.plan.detours) {
                self.detour().await?;
            }
            self.deliver().await?;
        }
        self.say("QUIT\r\n")?;
        self.reply("QUIT", COMMAND).await?;
        self.farewell = true;
        Ok(())
    }

    /// What is allowed between messages and leads nowhere.
    pub(super) async fn detour(&mut self) -> Result<(), Over> {
        let detours: &[&[&str]] = &[
            &["RSET"],
            &["NOOP"],
            &["EHLO again.example"],
            &["VRFY someone"],
            &["HELP"],
            &["MAIL FROM:<>", "RSET"],
            &[
                "MAIL FROM:<\"q@q\"@client.example>",
                "RCPT TO:<Postmaster>",
                "RSET",
            ],
            &[
                "MAIL FROM:<>",
                "RCPT TO:<nobody@sim.example>",
                "EHLO again.example",
            ],
        ];
        for command in *self.client.chance.pick(detours) {
            let command = match *command {
                command if command.starts_with("EHLO") && !self.esmtp => "RSET",
                command => command,
            };
            self.say(&format!("{command}\r\n"))?;
            let allowed = if command.starts_with("RCPT") {
                RCPT
            } else {
                COMMAND
            };
            if command.starts_with("EHLO") {
                self.ehlo_reply().await?;
            } else {
                self.reply(command, allowed).await?;
            }
        }
        Ok(())
    }

    /// Everything at once, and no look at any reply.
    pub(super) async fn deaf(&mut self) -> Result<(), Over> {
        self.say("EHLO deaf.example\r\n")?;
        for _ in 0..self.client.plan.messages {
            let letter = self.write_letter(Style::Lockstep);
            let id = self.client.ledger.borrow().next_id();
            let recipients = vec![format!("r0.m{id}@sim.example")];
            self.client
                .ledger
                .borrow_mut()
                .enter(self.socket.end, letter.clone(), &recipients);
            self.client.ledger.borrow_mut().client_gone(id);
            let envelope = self.envelope(id, &recipients, "").concat();
            let mut flight = format!("RSET\r\n{envelope}").into_bytes();
            flight.extend_from_slice(b"DATA\r\n");
            flight.extend(letter.stuffed());
            self.ends_after(id, flight.len());
            self.send(&flight)?;
        }
        let wait = self.client.chance.millis(0..400_000);
        self.socket.host.sleep(wait).await;
        Err(Over::Late)
    }

    pub(super) async fn silent(&mut self) -> Result<(), Over> {
        self.greeting().await?;
        self.reply("silence", Duration::from_secs(700)).await?;
        Err(Over::Fin)
    }

    /// A session of chunks as RFC 3030 and 2920 allow it, whose sending side is closed before the first reply is read.
    pub(super) async fn half_closing(&mut self) -> Result<(), Over> {
        self.greeting().await?;
        self.say("EHLO half.example\r\n")?;
        self.ehlo_reply().await?;
        let mut sent = Vec::new();
        for _ in 0..self.client.plan.messages {
            let letter = self.write_letter(Style::ChunksPipelined);
            let id = self.client.ledger.borrow().next_id();
            let recipients = vec![
                format!("r0.m{id}@sim.example"),
                format!("r1.m{id}@sim.example"),
            ];
            let parameters = self.parameters(&letter);
            self.say("RSET\r\n")?;
            self.client
                .ledger
                .borrow_mut()
                .enter(self.socket.end, letter.clone(), &recipients);
            let chunks = self.say_all(id, &letter, &recipients, &parameters)?;
            sent.push((id, letter, recipients, chunks));
        }
        self.socket.shut_down();
        for (id, letter, recipients, chunks) in sent {
            self.open = Some(id);
            self.octets = letter.content.len() as u64;
            self.reply("RSET", COMMAND).await?;
            self.replies_to_all(id, &letter, &recipients, chunks)
                .await?;
            self.open = None;
        }
        self.farewell = true;
        Err(Over::Fin)
    }

    pub(super) async fn rude(&mut self) -> Result<(), Over> {
        if self.client.chance.one_in(2) {
            self.greeting().await?;
        }
        for _ in 0..self.client.chance.within(1..30) {
            let long = "x".repeat(self.client.chance.within(1..9000) as usize);
            let mail = format!("MAIL FROM:<{RUDE}>\r\n");
            let mail_foo = format!("MAIL FROM:<{RUDE}> FOO=BAR\r\n");
            let noise: &[&str] = &[
                "GET / HTTP/1.1\r\n",
                "Subject: hello\r\n",
                "DATA\r\n",
                "BDAT 10 LAST\r\n0123456789",
                "BDAT 5\r\nabc\r\n",
                "BDAT 99999999999999999999 LAST\r\n",
                "BDAT 3000\r\n",
                "RCPT TO:<a@sim.example>\r\n",
                &mail,
                &mail_foo,
                "MAIL FROM:rude\r\n",
                "EHLO rude.example\r\n",
                "HELO rude.example\r\n",
                "NOOP\n",
                "NOOP\r\r\n",
                "NO\0OP\r\n",
                "\r\n",
                "STARTTLS\r\n",
                "AUTH PLAIN AAAA\r\n",
                "XCLIENT NAME=a\r\n",
                ".\r\n",
                "\r\n.\r\n",
                &long,
            ];
            let noise = (*self.client.chance.pick(noise)).to_owned();
            self.say(&noise)?;
            if self.client.chance.one_in(3) {
                let wait = self.client.chance.millis(0..3000);
                self.socket.host.sleep(wait).await;
            }
            let _heard = self.socket.drain();
        }
        let wait = self.client.chance.millis(0..30_000);
        self.socket.host.sleep(wait).await;
        Err(Over::Late)
    }

    /// Says nothing more, and sees whether weir gets rid of it.
    pub(super) async fn freeze(&mut self) {
        if let Some(id) = self.open {
            self.client.ledger.borrow_mut().client_gone(id);
        }
        let until = self.socket.host.now() + FROZEN_MAX;
        let over = self.socket.through(b"what never comes", until).await;
        if over == Err(Over::Late) && !self.socket.is_faulty() && !self.client.bears.lateness {
            self.wrong("has been silent for long, and is still connected");
        }
    }
}
