//! A client and a mail server over one socket each, in the clear until STARTTLS and inside TLS from then on. What they hear and say moves
//! in any pieces, and only when they are given a turn.

use std::collections::VecDeque;
use std::io::{Read, Write};

use rustls::{ClientConnection, ServerConnection};

use super::super::{SlotId, Stage};
use crate::tls::testing::{client_config, name, server_config};

/// SplitMix64.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A beginning of so many octets: mostly a small one.
    fn piece(&mut self, len: usize) -> usize {
        let most = [8, 300, 5000, len][self.below(4)].min(len);
        if most == 0 { 0 } else { 1 + self.below(most) }
    }
}

/// A peer's socket and its TLS, once it has any.
pub struct End {
    pub slot: SlotId,
    tls: Option<rustls::Connection>,
    /// Sent by weir, and not taken yet.
    arriving: VecDeque<u8>,
    heard: Vec<u8>,
    /// Said, and not with weir yet.
    leaving: VecDeque<u8>,
    /// Nothing more is said or heard; weir is told as soon as it listens.
    ending: bool,
    pub gone: bool,
}

impl End {
    pub fn new(slot: SlotId) -> End {
        End {
            slot,
            tls: None,
            arriving: VecDeque::new(),
            heard: Vec::new(),
            leaving: VecDeque::new(),
            ending: false,
            gone: false,
        }
    }

    fn secure(&mut self, tls: impl Into<rustls::Connection>) {
        self.tls = Some(tls.into());
        self.flush();
    }

    fn flush(&mut self) {
        let Some(tls) = &mut self.tls else {
            return;
        };
        while tls.wants_write() {
            tls.write_tls(&mut self.leaving).expect("a queue");
        }
    }

    fn say(&mut self, mut text: &[u8]) {
        while let Some(tls) = self.tls.as_mut().filter(|_| !text.is_empty()) {
            let taken = tls.writer().write(text).expect("it is open");
            text = &text[taken..];
            self.flush();
        }
        self.leaving.extend(text);
    }

    /// Something moves, or nothing could.
    pub fn turn(&mut self, stage: &mut Stage, chance: &mut Chance) -> bool {
        if self.ending {
            return self.end(stage, chance);
        }
        match chance.below(8) {
            0..4 => self.arrive(stage, chance),
            4..7 => self.hear(stage, chance),
            _ => self.clog(stage),
        }
    }

    fn arrive(&mut self, stage: &mut Stage, chance: &mut Chance) -> bool {
        let len = chance.piece(self.leaving.len());
        if len == 0 || stage.closed(self.slot).is_some() {
            return false;
        }
        let piece: Vec<u8> = self.leaving.drain(..len).collect();
        stage.say_octets(self.slot, &piece);
        true
    }

    fn hear(&mut self, stage: &mut Stage, chance: &mut Chance) -> bool {
        // What is under way to a socket that is clogged is not there yet.
        let socket = stage.world.wire.socket(self.slot);
        let flying = if socket.sending { socket.flying } else { 0 };
        let there = socket.sent.len() - flying;
        self.arriving.extend(socket.sent.drain(..there));
        let len = chance.piece(self.arriving.len());
        if len == 0 {
            // Nothing more can come.
            self.gone |= stage.closed(self.slot).is_some();
            return false;
        }
        let piece: Vec<u8> = self.arriving.drain(..len).collect();
        let Some(tls) = &mut self.tls else {
            self.heard.extend(piece);
            return true;
        };
        let mut rest = &piece[..];
        while !rest.is_empty() && tls.read_tls(&mut rest).expect("room") > 0 {
            tls.process_new_packets().expect("weir speaks TLS");
            let mut some = [0; 4096];
            while let Ok(n @ 1..) = tls.reader().read(&mut some) {
                self.heard.extend_from_slice(&some[..n]);
            }
        }
        self.flush();
        true
    }

    fn clog(&mut self, stage: &mut Stage) -> bool {
        let wire = &mut stage.world.wire;
        if !wire.stuffed.contains(&self.slot) {
            wire.stuffed.push(self.slot);
        } else if wire.socket(self.slot).sending {
            stage.unstuff(self.slot);
        } else {
            let slot = self.slot;
            wire.stuffed.retain(|stuffed| *stuffed != slot);
        }
        false
    }

    /// It ends, with some of what it had to say.
    pub fn cut(&mut self, stage: &mut Stage, chance: &mut Chance) -> bool {
        if chance.one_in(4)
            && let Some(tls) = &mut self.tls
        {
            tls.send_close_notify();
            self.flush();
        } else {
            self.leaving.truncate(chance.piece(self.leaving.len()));
        }
        let last: Vec<u8> = self.leaving.drain(..).collect();
        if !last.is_empty() && stage.closed(self.slot).is_none() {
            stage.say_octets(self.slot, &last);
        }
        self.ending = true;
        self.end(stage, chance)
    }

    fn end(&mut self, stage: &mut Stage, chance: &mut Chance) -> bool {
        let clogged = stage.world.wire.stuffed.contains(&self.slot);
        if clogged {
            self.clog(stage);
        }
        if stage.closed(self.slot).is_none() {
            if !stage.world.wire.socket(self.slot).armed {
                return false;
            }
            match chance.one_in(2) {
                true => stage.hang_up(self.slot),
                false => stage.reset(self.slot),
            }
        }
        self.gone = true;
        true
    }

    /// The next line that was heard.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memmem::find(&self.heard, b"\r\n")? + 2;
        Some(self.heard.drain(..end).collect())
    }
}

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Due {
    Greeting,
    Ehlo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    Chunk,
    End,
    Rset,
}

/// Sends its messages one after the other.
pub struct Client {
    pub end: End,
    pub due: VecDeque<Due>,
    pub version: Version,
    /// Numbers and bodies, the present one first.
    pub left: VecDeque<(usize, Vec<u8>)>,
}

pub type Version = &'static rustls::SupportedProtocolVersion;

impl Client {
    pub fn connect(&mut self, stage: &mut Stage) {
        self.end = End::new(stage.client());
        self.due = [Due::Greeting].into();
    }

    fn expect(&mut self, text: &[u8], due: &[Due]) {
        self.end.say(text);
        self.due.extend(due);
    }

    pub fn work(&mut self, chance: &mut Chance, accepted: &mut Vec<usize>) {
        while let Some(line) = self.end.line() {
            if line[3] == b'-' {
                continue;
            }
            let good = matches!(line[0], b'2' | b'3');
            if line.starts_with(b"421") {
                self.end.gone = true;
                return;
            }
            let due = self.due.pop_front();
            let due = due.unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&line)));
            self.replied(due, good, chance, accepted);
        }
    }

    fn replied(&mut self, due: Due, good: bool, chance: &mut Chance, accepted: &mut Vec<usize>) {
        match due {
            Due::Greeting => self.expect(b"EHLO c.example\r\n", &[Due::Ehlo]),
            Due::Ehlo if self.end.tls.is_none() => {
                self.expect(b"STARTTLS\r\n", &[Due::StartTls]);
            }
            Due::StartTls => {
                assert!(good && self.end.heard.is_empty());
                let config = client_config(&[self.version]);
                self.end
                    .secure(ClientConnection::new(config, name()).expect("a client"));
                self.expect(b"EHLO c.example\r\n", &[Due::Ehlo]);
            }
            Due::Ehlo | Due::Rset => self.begin(chance),
            Due::Mail if good && self.due.is_empty() => {
                self.expect(b"RCPT TO:<b@d.example>\r\n", &[Due::Rcpt]);
            }
            Due::Rcpt if good && self.due.is_empty() => match chance.one_in(2) {
                true => self.expect(b"DATA\r\n", &[Due::Data]),
                false => self.chunks(chance),
            },
            Due::Data if good => {
                let mut text = Vec::new();
                for line in self.left[0].1.split_inclusive(|octet| *octet == b'\n') {
                    text.extend(line.starts_with(b".").then_some(b'.'));
                    text.extend(line);
                }
                text.extend(b".\r\n");
                self.expect(&text, &[Due::End]);
            }
            Due::End => {
                let (number, _) = self.left.pop_front().expect("it was sent");
                if good {
                    accepted.push(number);
                }
                self.expect(b"RSET\r\n", &[Due::Rset]);
            }
            // Refused for now: the next one, when all has been answered.
            _ if !good && self.due.is_empty() => {
                self.left.pop_front();
                self.expect(b"RSET\r\n", &[Due::Rset]);
            }
            _ => {}
        }
    }

    fn begin(&mut self, chance: &mut Chance) {
        if self.left.is_empty() {
            self.end.gone = true;
        } else if chance.one_in(2) {
            self.expect(b"MAIL FROM:<a@c.example>\r\n", &[Due::Mail]);
        } else {
            let envelope = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n";
            self.expect(envelope, &[Due::Mail, Due::Rcpt]);
            self.chunks(chance);
        }
    }

    fn chunks(&mut self, chance: &mut Chance) {
        let body = self.left[0].1.clone();
        let (first, last) = body.split_at(chance.below(body.len()));
        self.expect(
            format!("BDAT {}\r\n", first.len()).as_bytes(),
            &[Due::Chunk],
        );
        self.end.say(first);
        self.expect(
            format!("BDAT {} LAST\r\n", last.len()).as_bytes(),
            &[Due::End],
        );
        self.end.say(last);
    }
}

/// One connection of the mail server's.
pub struct Server {
    pub end: End,
    version: Version,
    extensions: &'static str,
    body: Vec<u8>,
    /// Octets of a chunk that are still to come, and whether it is the last.
    chunk: Option<(usize, bool)>,
    data: bool,
}

impl Server {
    pub fn new(slot: SlotId, implicit: bool, version: Version, extensions: &'static str) -> Server {
        let mut server = Server {
            end: End::new(slot),
            version,
            extensions,
            body: Vec::new(),
            chunk: None,
            data: false,
        };
        if implicit {
            server.secure();
        }
        server.end.say(b"220 mx.example ESMTP\r\n");
        server
    }

    fn secure(&mut self) {
        let config = server_config(&[self.version]);
        self.end
            .secure(ServerConnection::new(config).expect("a server"));
    }

    pub fn work(&mut self, queue: &mut Vec<Vec<u8>>) {
        loop {
            if let Some((left, last)) = self.chunk {
                let taken = left.min(self.end.heard.len());
                self.body.extend(self.end.heard.drain(..taken));
                self.chunk = Some((left - taken, last));
                if left > taken {
                    return;
                }
                self.chunk = None;
                if last {
                    queue.push(std::mem::take(&mut self.body));
                }
                self.end.say(b"250 2.0.0 Ok\r\n");
                continue;
            }
            let Some(line) = self.end.line() else {
                return;
            };
            match self.data {
                true => self.text(&line, queue),
                false => self.command(&String::from_utf8(line).expect("a command")),
            }
        }
    }

    fn text(&mut self, line: &[u8], queue: &mut Vec<Vec<u8>>) {
        if line == b".\r\n" {
            self.data = false;
            queue.push(std::mem::take(&mut self.body));
            self.end.say(b"250 2.0.0 Ok\r\n");
        } else {
            let line = line.strip_prefix(b".").unwrap_or(line);
            self.body.extend_from_slice(line);
        }
    }

    fn command(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        match words.next().unwrap_or_default() {
            "EHLO" => {
                let starttls = match self.end.tls {
                    Some(_) => "",
                    None => "250-STARTTLS\r\n",
                };
                let reply = format!("250-mx.example\r\n{starttls}{}250 DSN\r\n", self.extensions);
                self.end.say(reply.as_bytes());
            }
            "STARTTLS" => {
                self.end.say(b"220 go\r\n");
                assert!(self.end.heard.is_empty(), "nothing in the clear behind it");
                self.secure();
            }
            "BDAT" => {
                assert!(self.end.tls.is_some(), "no mail in the clear");
                let len = words.next().and_then(|len| len.parse().ok());
                self.chunk = Some((len.expect("a length"), words.next().is_some()));
            }
            "DATA" => {
                self.data = true;
                self.end.say(b"354 go\r\n");
            }
            "MAIL" | "RSET" => {
                self.body.clear();
                self.end.say(b"250 2.0.0 Ok\r\n");
            }
            "RCPT" => self.end.say(b"250 2.1.5 Ok\r\n"),
            "QUIT" => self.end.say(b"221 2.0.0 Bye\r\n"),
            other => panic!("{other:?} goes up"),
        }
    }
}
