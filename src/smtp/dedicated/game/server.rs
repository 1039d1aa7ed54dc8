//! The server of the game: it reads octet by octet what goes up, and knows nothing of weir.

use alloc::vec::Vec;

use super::Tape;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Reading {
    Commands,
    Data,
    Chunk { left: usize, last: bool },
    Auth,
    Nothing,
}

/// A server that knows nothing of weir.
pub(super) struct Server {
    pub(super) ehlo: &'static str,
    pub(super) reading: Reading,
    pub(super) unread: Vec<u8>,
    /// What it took for the body, as it came.
    pub(super) body: Vec<u8>,
    pub(super) recipients: usize,
    pub(super) greeted: bool,
}

impl Server {
    /// Reads all that has come, and answers. `said`: all that the client has sent so far.
    pub(super) fn work(&mut self, said: &[u8], tape: &mut Tape<'_>) -> Vec<u8> {
        let mut replies = Vec::new();
        if !self.greeted {
            self.greeted = true;
            replies.extend_from_slice(tape.pick(&[&b"220 mx\r\n"[..], b"220-m\r\n220 x\r\n"]));
        }
        let unread = core::mem::take(&mut self.unread);
        let mut at = 0;
        while at < unread.len() && self.reading != Reading::Nothing {
            let rest = &unread[at..];
            let taken = match self.reading {
                Reading::Data => self.read_data(rest, said, tape, &mut replies),
                Reading::Chunk { left, last } => {
                    let len = left.min(rest.len());
                    assert!(holds(said, &rest[..len]), "octets that nobody sent");
                    self.chunk(left - len, last, tape, &mut replies);
                    Some(len)
                }
                _ => self.read_line(rest, said, tape, &mut replies),
            };
            let Some(taken) = taken else { break };
            at += taken;
        }
        self.unread = unread[at..].to_vec();
        replies
    }

    fn read_data(
        &mut self,
        rest: &[u8],
        said: &[u8],
        tape: &mut Tape<'_>,
        replies: &mut Vec<u8>,
    ) -> Option<usize> {
        // what it keeps unread begins at a line's start
        let end = match rest.starts_with(b".\r\n") {
            true => 3,
            false => rest.windows(5).position(|five| five == b"\r\n.\r\n")? + 5,
        };
        self.body.extend_from_slice(&rest[..end]);
        let mut sent = b"\r\n".to_vec();
        sent.append(&mut self.body);
        assert!(
            holds(&canonical(said), &sent),
            "a message that nobody sent, or not to its end"
        );
        self.finish(tape, replies);
        Some(end)
    }

    fn chunk(&mut self, left: usize, last: bool, tape: &mut Tape<'_>, replies: &mut Vec<u8>) {
        self.reading = Reading::Chunk { left, last };
        if left > 0 {
            return;
        }
        self.reading = Reading::Commands;
        if last {
            return self.finish(tape, replies);
        }
        replies.extend_from_slice(tape.pick(&[
            &b"250 chunk\r\n"[..],
            b"250 c\r\n",
            b"552 full\r\n",
        ]));
    }

    fn finish(&mut self, tape: &mut Tape<'_>, replies: &mut Vec<u8>) {
        self.reading = Reading::Commands;
        self.recipients = 0;
        let answers = [
            &b"250 taken\r\n"[..],
            b"250 t\r\n",
            b"250 2.0.0 queued\r\n",
            b"550 no\r\n",
            b"451 later\r\n",
        ];
        replies.extend_from_slice(tape.pick(&answers));
    }

    fn read_line(
        &mut self,
        rest: &[u8],
        said: &[u8],
        tape: &mut Tape<'_>,
        replies: &mut Vec<u8>,
    ) -> Option<usize> {
        let end = rest.iter().position(|&byte| byte == b'\n')? + 1;
        let line = rest[..end]
            .strip_suffix(b"\r\n")
            .expect("lines end by CRLF");
        assert!(
            !line.contains(&0) && !line.contains(&b'\r'),
            "read in two ways"
        );
        if self.reading == Reading::Auth {
            assert!(
                line == b"*" || holds(said, line),
                "an answer that nobody gave"
            );
            replies.extend_from_slice(self.authenticate(tape));
            return Some(end);
        }
        let (verb, argument) = line.split_at(line.len().min(5));
        let argument = argument.strip_prefix(b"FROM:").unwrap_or(argument);
        let ours = line.starts_with(b"BDAT ") || line == b"STARTTLS";
        assert!(
            ours || holds(said, argument),
            "a command that nobody sent: {line:?}"
        );
        assert!(!holds(line, b"evil"), "a body was read as a command");
        self.obey(verb, line, tape, replies);
        Some(end)
    }

    fn authenticate(&mut self, tape: &mut Tape<'_>) -> &'static [u8] {
        let reply = tape.pick(&[&b"334 more\r\n"[..], b"235 in\r\n", b"535 no\r\n"]);
        self.reading = match reply[0] {
            b'3' => Reading::Auth,
            _ => Reading::Commands,
        };
        reply
    }

    fn obey(&mut self, verb: &[u8], line: &[u8], tape: &mut Tape<'_>, replies: &mut Vec<u8>) {
        let fine = &[
            &b"250 ok\r\n"[..],
            b"250-o\r\n250 k\r\n",
            b"250 o\r\n",
            b"250 fine\r\n",
            b"250 k\r\n",
            b"252 perhaps\r\n",
            b"550 no\r\n",
            b"450 later\r\n",
        ];
        match &verb.to_ascii_uppercase()[..] {
            b"EHLO " => replies.extend_from_slice(self.ehlo.as_bytes()),
            b"RCPT " => {
                let reply = tape.pick(fine);
                self.recipients += usize::from(reply[0] == b'2');
                replies.extend_from_slice(reply);
            }
            b"DATA" if self.recipients > 0 || tape.below(8) == 1 => {
                self.reading = Reading::Data;
                self.body.clear();
                replies.extend_from_slice(b"354 go\r\n");
            }
            b"DATA" => replies.extend_from_slice(b"503 no recipients\r\n"),
            b"BDAT " => {
                let text = core::str::from_utf8(&line[5..]).expect("a number");
                let (count, last) = match text.strip_suffix(" LAST") {
                    Some(count) => (count, true),
                    None => (text, false),
                };
                self.chunk(count.parse().expect("a number"), last, tape, replies);
            }
            b"AUTH " => replies.extend_from_slice(self.authenticate(tape)),
            b"START" => {
                let reply = tape.pick(&[&b"220 go\r\n"[..], b"454 no\r\n"]);
                if reply[0] == b'2' {
                    self.reading = Reading::Nothing;
                }
                replies.extend_from_slice(reply);
            }
            b"RSET" => {
                self.recipients = 0;
                replies.extend_from_slice(b"250 reset\r\n");
            }
            b"QUIT" => replies.extend_from_slice(b"221 bye\r\n"),
            b"MAIL " | b"NOOP" | b"NOOP " | b"VRFY " | b"EXPN " | b"HELP" | b"HELP " | b"HELO " => {
                replies.extend_from_slice(tape.pick(fine));
            }
            other => panic!("no command that passes: {other:?}"),
        }
    }
}

/// A dot that begins a line, and is neither doubled nor the end, means nothing and is left out on the way up.
fn canonical(said: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(said.len());
    for (at, &byte) in said.iter().enumerate() {
        let rest = &said[at..];
        let idle = byte == b'.' && said[..at].ends_with(b"\r\n");
        if !(idle && !rest.starts_with(b"..") && !rest.starts_with(b".\r\n")) {
            out.push(byte);
        }
    }
    out
}

fn holds(all: &[u8], part: &[u8]) -> bool {
    part.is_empty() || memchr::memmem::find(all, part).is_some()
}
