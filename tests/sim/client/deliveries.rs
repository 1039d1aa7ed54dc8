//! One message from MAIL to its final reply, in each of the styles a client may have.

use super::{COMMAND, FINAL, RCPT, Style, Talk};
use crate::ledger::sender;
use crate::letters::Letter;
use crate::tasks::Over;

impl Talk {
    /// One message, in the client's style.
    pub(super) async fn deliver(&mut self) -> Result<(), Over> {
        let mut style = self.client.plan.style;
        if matches!(style, Style::Chunks | Style::ChunksPipelined) && !self.offers("CHUNKING") {
            style = Style::Lockstep;
        }
        if style == Style::Pipelined && !self.offers("PIPELINING") {
            style = Style::Lockstep;
        }
        let letter = self.write_letter(style);
        self.octets = letter.content.len() as u64;
        let id = self.client.ledger.borrow().next_id();
        let count = 1 + self.client.chance.below(self.client.plan.recipients);
        let recipients: Vec<String> = (0..count)
            .map(|nth| format!("r{nth}.m{id}@sim.example"))
            .collect();
        let parameters = self.parameters(&letter);
        self.client
            .ledger
            .borrow_mut()
            .enter(self.socket.end, letter.clone(), &recipients);
        self.open = Some(id);
        let outcome = match style {
            Style::Lockstep => self.lockstep(id, &letter, &recipients, &parameters).await,
            Style::Pipelined => self.pipelined(id, &letter, &recipients, &parameters).await,
            Style::Chunks => self.chunks(id, &letter, &recipients, &parameters).await,
            Style::ChunksPipelined => {
                self.chunks_pipelined(id, &letter, &recipients, &parameters)
                    .await
            }
        };
        outcome?;
        self.open = None;
        if self.client.ledger.borrow().is_accepted(id) {
            return Ok(());
        }
        // The transaction may still be open.
        self.say("RSET\r\n")?;
        self.reply("RSET", COMMAND).await.map(drop)
    }

    pub(super) fn write_letter(&mut self, style: Style) -> Letter {
        let plan = &self.client.plan;
        let chance = &mut self.client.chance;
        let id = self.client.ledger.borrow().next_id();
        let chunked = matches!(style, Style::Chunks | Style::ChunksPipelined);
        if chance.one_in(30) {
            return Letter::empty();
        }
        let octets = if chance.one_in(3) {
            chance.below(200)
        } else {
            chance.below(plan.octets + 1)
        };
        if chunked && chance.one_in(6) && self.keywords.iter().any(|word| word == "BINARYMIME") {
            return Letter::binary(chance, octets);
        }
        let mut letter = Letter::text(chance, id, octets);
        if chunked && chance.one_in(4) {
            letter.cut_end();
        }
        if chance.percent(plan.bare_newlines) {
            letter.break_a_line(chance);
            if !chunked && !letter.content.ends_with(b"\r\n") {
                letter.content.extend_from_slice(b"\r\n");
            }
        }
        letter
    }

    pub(super) fn parameters(&mut self, letter: &Letter) -> String {
        let mut parameters = String::new();
        if self.offers("SIZE") && self.client.chance.one_in(2) {
            parameters += &format!(" SIZE={}", letter.content.len());
        }
        if letter.binary {
            parameters += " BODY=BINARYMIME";
        } else if self.offers("8BITMIME") && self.client.chance.one_in(2) {
            parameters += " BODY=8BITMIME";
        }
        if self.offers("SMTPUTF8") && self.client.chance.one_in(4) {
            parameters += " SMTPUTF8";
        }
        if self.offers("DSN") && self.client.chance.one_in(4) {
            parameters += " RET=HDRS ENVID=x+2Dy";
        }
        parameters
    }

    pub(super) fn envelope(
        &mut self,
        id: u32,
        recipients: &[String],
        parameters: &str,
    ) -> Vec<String> {
        let notify = if parameters.contains("RET=") {
            " NOTIFY=SUCCESS,FAILURE"
        } else {
            ""
        };
        let mail = format!("MAIL FROM:<{}>{parameters}\r\n", sender(id));
        let rcpts = recipients
            .iter()
            .map(|recipient| format!("RCPT TO:<{recipient}>{notify}\r\n"));
        std::iter::once(mail).chain(rcpts).collect()
    }

    async fn lockstep(
        &mut self,
        id: u32,
        letter: &Letter,
        recipients: &[String],
        parameters: &str,
    ) -> Result<(), Over> {
        let commands = self.envelope(id, recipients, parameters);
        self.say(&commands[0])?;
        let mail = self.reply("MAIL", COMMAND).await?;
        if !mail.is_positive() {
            return self.not_now("MAIL", &mail);
        }
        let mut accepted = 0;
        for (recipient, command) in recipients.iter().zip(&commands[1..]) {
            self.say(command)?;
            accepted += u32::from(self.rcpt_reply(id, recipient).await?);
        }
        if accepted == 0 {
            return Ok(());
        }
        self.dawdle().await?;
        self.say("DATA\r\n")?;
        let reply = self.reply("DATA", COMMAND).await?;
        if reply.code != 354 {
            return self.not_now("DATA", &reply);
        }
        self.body(id, letter).await
    }

    async fn pipelined(
        &mut self,
        id: u32,
        letter: &Letter,
        recipients: &[String],
        parameters: &str,
    ) -> Result<(), Over> {
        let mut flight = self.envelope(id, recipients, parameters).concat();
        let dawdles = !self.client.plan.dawdles.is_zero();
        if !dawdles {
            flight += "DATA\r\n";
        }
        self.say(&flight)?;
        let accepted = self.envelope_replies(id, recipients).await?;
        if dawdles {
            self.dawdle().await?;
            self.say("DATA\r\n")?;
        }
        let reply = self.reply("DATA", COMMAND).await?;
        match reply.code {
            354 if accepted == 0 => {
                self.ends_after(id, 3);
                self.say(".\r\n")?;
                let reply = self.reply("the empty message", FINAL).await?;
                self.client
                    .ledger
                    .borrow_mut()
                    .told(id, reply.code, &reply.text);
                Ok(())
            }
            354 => self.body(id, letter).await,
            _ if accepted == 0 => Ok(()),
            _ => self.not_now("DATA", &reply),
        }
    }

    async fn body(&mut self, id: u32, letter: &Letter) -> Result<(), Over> {
        let wire = letter.stuffed();
        self.ends_after(id, wire.len());
        self.dribble(&wire).await?;
        self.final_reply(id, letter).await
    }

    /// The message is complete with the next so many octets.
    pub(super) fn ends_after(&self, id: u32, octets: usize) {
        let end = self.socket.written() + octets as u64;
        self.client.ledger.borrow_mut().letter_ended(id, end);
    }

    async fn chunks(
        &mut self,
        id: u32,
        letter: &Letter,
        recipients: &[String],
        parameters: &str,
    ) -> Result<(), Over> {
        let flight = self.envelope(id, recipients, parameters).concat();
        self.say(&flight)?;
        let accepted = self.envelope_replies(id, recipients).await?;
        if accepted == 0 {
            return Ok(());
        }
        self.dawdle().await?;
        let mut rest = &letter.content[..];
        while self.client.chance.one_in(2) && !rest.is_empty() {
            let (chunk, after) =
                rest.split_at(self.client.chance.below(rest.len() as u64 + 1) as usize);
            rest = after;
            self.say(&format!("BDAT {}\r\n", chunk.len()))?;
            self.dribble(chunk).await?;
            let reply = self.reply("BDAT", FINAL).await?;
            if !reply.is_positive() {
                if !letter.has_bare_newline() {
                    self.not_now("BDAT", &reply)?;
                }
                return Ok(());
            }
        }
        self.say(&format!("BDAT {} LAST\r\n", rest.len()))?;
        self.ends_after(id, rest.len());
        self.dribble(rest).await?;
        self.final_reply(id, letter).await
    }

    async fn chunks_pipelined(
        &mut self,
        id: u32,
        letter: &Letter,
        recipients: &[String],
        parameters: &str,
    ) -> Result<(), Over> {
        let chunks = self.say_all(id, letter, recipients, parameters)?;
        self.replies_to_all(id, letter, recipients, chunks).await
    }

    /// A whole BDAT transaction at once; how many chunks that are not the last it has.
    pub(super) fn say_all(
        &mut self,
        id: u32,
        letter: &Letter,
        recipients: &[String],
        parameters: &str,
    ) -> Result<u32, Over> {
        let mut flight = self
            .envelope(id, recipients, parameters)
            .concat()
            .into_bytes();
        let mut rest = &letter.content[..];
        let mut chunks = 0;
        while self.client.chance.one_in(2) && !rest.is_empty() {
            let (chunk, after) =
                rest.split_at(self.client.chance.below(rest.len() as u64 + 1) as usize);
            rest = after;
            chunks += 1;
            flight.extend_from_slice(format!("BDAT {}\r\n", chunk.len()).as_bytes());
            flight.extend_from_slice(chunk);
        }
        flight.extend_from_slice(format!("BDAT {} LAST\r\n", rest.len()).as_bytes());
        flight.extend_from_slice(rest);
        self.ends_after(id, flight.len());
        self.send(&flight)?;
        Ok(chunks)
    }

    pub(super) async fn replies_to_all(
        &mut self,
        id: u32,
        letter: &Letter,
        recipients: &[String],
        chunks: u32,
    ) -> Result<(), Over> {
        let accepted = self.envelope_replies(id, recipients).await?;
        for _ in 0..chunks {
            let reply = self.reply("BDAT", FINAL).await?;
            if !reply.is_positive()
                && accepted > 0
                && !letter.has_bare_newline()
                && !reply.text.contains("503")
            {
                self.not_now("BDAT", &reply)?;
            }
        }
        if accepted == 0 {
            let reply = self.reply("BDAT LAST", FINAL).await?;
            self.client
                .ledger
                .borrow_mut()
                .told(id, reply.code, &reply.text);
            return Ok(());
        }
        if chunks > 0 {
            // A chunk that failed makes the last one fail with 503.
            let reply = self.reply("BDAT LAST", FINAL).await?;
            self.client
                .ledger
                .borrow_mut()
                .told(id, reply.code, &reply.text);
            return Ok(());
        }
        self.final_reply(id, letter).await
    }

    async fn envelope_replies(&mut self, id: u32, recipients: &[String]) -> Result<u32, Over> {
        let mail = self.reply("MAIL", COMMAND).await?;
        if !mail.is_positive() {
            self.not_now("MAIL", &mail)?;
            for _ in recipients {
                self.reply("RCPT", RCPT).await?;
            }
            return Ok(0);
        }
        let mut accepted = 0;
        for recipient in recipients {
            accepted += u32::from(self.rcpt_reply(id, recipient).await?);
        }
        Ok(accepted)
    }

    async fn rcpt_reply(&mut self, id: u32, recipient: &str) -> Result<bool, Over> {
        let reply = self.reply("RCPT", RCPT).await?;
        self.client
            .ledger
            .borrow_mut()
            .recipient_told(id, recipient, reply.is_positive());
        if !reply.is_positive() {
            self.not_now("RCPT", &reply)?;
        }
        Ok(reply.is_positive())
    }

    async fn final_reply(&mut self, id: u32, letter: &Letter) -> Result<(), Over> {
        let reply = self.reply("the message", FINAL).await?;
        self.client
            .ledger
            .borrow_mut()
            .told(id, reply.code, &reply.text);
        if !reply.is_positive() && !letter.has_bare_newline() {
            self.not_now("the message", &reply)?;
        }
        Ok(())
    }

    async fn dawdle(&mut self) -> Result<(), Over> {
        let dawdles = self.client.plan.dawdles;
        if dawdles.is_zero() {
            Ok(())
        } else {
            self.pause(dawdles).await
        }
    }

    async fn dribble(&mut self, bytes: &[u8]) -> Result<(), Over> {
        let Some((octets, pause)) = self.client.plan.dribble else {
            return self.send(bytes);
        };
        let mut left = bytes.len();
        for piece in bytes.chunks(octets) {
            self.send(piece)?;
            left -= piece.len();
            if left == 0 {
                break;
            }
            self.socket.host.sleep(pause).await;
            if matches!(self.socket.over(), Some(Over::Reset)) {
                return self.ended(Over::Reset, "the body");
            }
            if self.socket.buffered() > 0 {
                // Weir has given up on it: that reply ends the session.
                self.reply("the body", COMMAND).await?;
                return Err(Over::Fin);
            }
        }
        Ok(())
    }
}
