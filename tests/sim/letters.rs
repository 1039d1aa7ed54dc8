//! Messages that clients send: their bytes on the wire, and what has to arrive of them, computed the slow and obvious way.

use crate::chance::Chance;

/// What weir is configured to do with bare CR and LF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Newlines {
    Reject,
    Normalize,
}

#[derive(Clone, Debug)]
pub struct Letter {
    /// What the message says: no transparency dots, no end.
    pub content: Vec<u8>,
    /// BODY=BINARYMIME: newlines mean nothing.
    pub binary: bool,
}

impl Letter {
    /// A message for DATA or BDAT: lines, many of which begin with dots.
    pub fn text(chance: &mut Chance, id: u32, octets: u64) -> Letter {
        let mut content =
            format!("Message-Id: <{id}@sim.example>\r\nSubject: number {id}\r\n").into_bytes();
        if chance.one_in(8) {
            content.extend_from_slice(b".dotted-field: yes\r\n");
        }
        if !chance.one_in(20) {
            content.extend_from_slice(b"\r\n");
        }
        while (content.len() as u64) < octets {
            line(chance, id, &mut content);
        }
        Letter {
            content,
            binary: false,
        }
    }

    /// No content at all.
    pub fn empty() -> Letter {
        Letter {
            content: Vec::new(),
            binary: false,
        }
    }

    pub fn binary(chance: &mut Chance, octets: u64) -> Letter {
        let content = (0..octets)
            .map(|_| *chance.pick(b"\r\n.\0aZ\xff"))
            .collect();
        Letter {
            content,
            binary: true,
        }
    }

    /// Puts CR or LF without its partner somewhere.
    pub fn break_a_line(&mut self, chance: &mut Chance) {
        let at = chance.below(self.content.len() as u64 + 1) as usize;
        let newline = *chance.pick(b"\r\n");
        self.content.insert(at, newline);
    }

    /// The last line is not ended: only BDAT can say that.
    pub fn cut_end(&mut self) {
        if self.content.ends_with(b"\r\n") {
            self.content.truncate(self.content.len() - 2);
        }
        if self.content.ends_with(b"\r") {
            self.content.push(b'x');
        }
    }

    pub fn has_bare_newline(&self) -> bool {
        !self.binary && mend(&self.content) != self.content
    }

    /// As DATA: stuffed, and with its end.
    pub fn stuffed(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.content.len() + 100);
        for line in lines(&self.content) {
            if line.first() == Some(&b'.') {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(b".\r\n");
        wire
    }

    /// Must weir refuse it?
    pub fn is_unacceptable(&self, newlines: Newlines) -> bool {
        newlines == Newlines::Reject && self.has_bare_newline()
    }

    /// Is this what has to arrive?
    pub fn arrives_as(&self, arrived: &[u8]) -> bool {
        let mended = if self.binary {
            self.content.clone()
        } else {
            mend(&self.content)
        };
        if arrived == mended {
            return true;
        }
        // BDAT that became DATA: the last line had to be ended.
        !mended.ends_with(b"\r\n") && arrived.strip_suffix(b"\r\n") == Some(&mended[..])
    }
}

/// Takes DATA's form away: `wire` is everything between the reply to DATA and the last dot.
pub fn unstuff(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(wire.len());
    for line in lines(wire) {
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    content
}

/// Every CR without LF and every LF without CR becomes CRLF.
pub fn mend(content: &[u8]) -> Vec<u8> {
    let mut mended = Vec::with_capacity(content.len());
    for (at, &byte) in content.iter().enumerate() {
        let paired = match byte {
            b'\r' => content.get(at + 1) == Some(&b'\n'),
            b'\n' => at > 0 && content[at - 1] == b'\r',
            _ => true,
        };
        if paired {
            mended.push(byte);
        } else {
            mended.extend_from_slice(b"\r\n");
        }
    }
    mended
}

/// Lines with their CRLF, and nothing else counts as a line end.
fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .windows(2)
            .position(|pair| pair == b"\r\n")
            .map_or(rest.len(), |at| at + 2);
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

fn line(chance: &mut Chance, id: u32, content: &mut Vec<u8>) {
    match chance.below(12) {
        0 => content.extend_from_slice(b".\r\n"),
        1 => content.extend_from_slice(b"..\r\n"),
        2 => content.extend_from_slice(b"\r\n"),
        3 => content.extend_from_slice(format!(".{id}\r\n").as_bytes()),
        4 => content.extend_from_slice(b"QUIT\r\n"),
        5 => {
            let len = chance.below(990) as usize;
            content.resize(content.len() + len, b'a' + (id % 26) as u8);
            content.extend_from_slice(b"\r\n");
        }
        6 => content.extend_from_slice("\u{e4}\u{df}\u{4e2d}\r\n".as_bytes()),
        _ => content.extend_from_slice(
            format!("{id} the quick brown fox {}\r\n", chance.below(1000)).as_bytes(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuffed_can_be_unstuffed() {
        for seed in 0..50 {
            let mut chance = Chance::new(seed);
            let letter = Letter::text(&mut chance, 7, 2000);
            let wire = letter.stuffed();
            assert_eq!(
                unstuff(wire.strip_suffix(b".\r\n").expect("its end")),
                letter.content
            );
        }
    }

    #[test]
    fn mending_touches_only_lone_newlines() {
        assert_eq!(
            mend(b"a\r\nb\nc\rd\r\r\n\n"),
            b"a\r\nb\r\nc\r\nd\r\n\r\n\r\n"
        );
    }
}
