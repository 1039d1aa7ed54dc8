//! The content of a message as it comes: finds the end of data, takes the transparency dots away, notes newlines that lack a half, and shows
//! the rest to the checker where it lies.
//!
//! Written apart from `weir_smtp::body` on purpose: the proxy under test reads bodies with that one, and its mistakes must not be shared.
//!
//! ```text
//! LineStart --'.'--> Dot --CR--> DotCr --LF--> end of data
//! Dot, DotCr --else--> the dot was a doubled one; what was held back is content
//! Text: everything up to the next CRLF "." is content and is passed over by one search
//! ```

use memchr::memmem;

use crate::ledger::Checker;

/// Reads one message after the other.
#[derive(Default)]
pub struct Content {
    pub checker: Checker,
    state: State,
    /// The octet before the next one was a CR.
    after_cr: bool,
    bare_newline: bool,
    octets: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    Text,
    /// Everything but the LF of a line end.
    Cr,
    /// The dot is held back.
    Dot,
    /// Dot and CR are held back.
    DotCr,
}

impl Content {
    /// Forgets what it has read: a message begins.
    pub fn restart(&mut self) {
        self.checker.forget();
        self.state = State::LineStart;
        self.after_cr = false;
        self.bare_newline = false;
        self.octets = 0;
    }

    /// Octets of content so far.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// Whether a CR lacked its LF or an LF its CR.
    pub fn bare_newline(&self) -> bool {
        self.bare_newline
    }

    /// Takes octets that follow DATA. Returns how many are the message's, and whether it has ended.
    pub fn take_data(&mut self, octets: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while let Some(&octet) = octets.get(at) {
            match (self.state, octet) {
                (State::LineStart, b'.') => {
                    self.state = State::Dot;
                    at += 1;
                }
                (State::Dot, b'\r') => {
                    self.state = State::DotCr;
                    at += 1;
                }
                (State::DotCr, b'\n') => return (at + 1, true),
                (State::DotCr, _) => {
                    self.show(b"\r");
                    self.state = State::Text;
                }
                (State::Cr, b'\n') => {
                    self.show(&octets[at..at + 1]);
                    self.state = State::LineStart;
                    at += 1;
                }
                (State::LineStart | State::Dot | State::Cr, _) => self.state = State::Text,
                (State::Text, _) => at += self.take_text(&octets[at..]),
            }
        }
        (at, false)
    }

    /// Content up to where a line begins with a dot, or all there is.
    fn take_text(&mut self, octets: &[u8]) -> usize {
        let taken = match memmem::find(octets, b"\r\n.") {
            Some(at) => at + 2,
            None => octets.len(),
        };
        let text = &octets[..taken];
        self.show(text);
        self.state = match text {
            [.., b'\r', b'\n'] => State::LineStart,
            [.., b'\r'] => State::Cr,
            _ => State::Text,
        };
        taken
    }

    /// Takes octets of a chunk; all of them are the message's.
    pub fn take_chunk(&mut self, octets: &[u8], binary: bool) {
        if binary {
            self.octets += octets.len() as u64;
            self.checker.feed(octets);
        } else {
            self.show(octets);
        }
    }

    /// The message is complete.
    pub fn end(&mut self) {
        self.bare_newline |= self.after_cr;
    }

    fn show(&mut self, text: &[u8]) {
        let Some(&last) = text.last() else { return };
        self.bare_newline |= (text[0] == b'\n') != self.after_cr || half_newline(text);
        self.after_cr = last == b'\r';
        self.octets += text.len() as u64;
        self.checker.feed(text);
    }
}

/// Whether an LF stands here without CR, or a CR without LF, the ends left aside. No early exit: this is what makes it vector code.
fn half_newline(text: &[u8]) -> bool {
    let pairs = text.iter().zip(&text[1..]);
    pairs.fold(0u8, |any, (before, octet)| {
        any | (u8::from(*before == b'\r') ^ u8::from(*octet == b'\n'))
    }) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{MessageId, STAMP_OCTETS, Seen, stamp};

    const ID: MessageId = MessageId {
        run: 1,
        process: 2,
        number: 3,
    };

    /// The slow twin: what DATA octets say, by RFC 5321, 4.5.2, and how many they are.
    fn unstuffed(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
        let framed = [b"\r\n", wire].concat();
        let end = (0..framed.len()).find(|&at| framed[at..].starts_with(b"\r\n.\r\n"))?;
        let mut content = Vec::new();
        for at in 2..end + 2 {
            let dot = framed[at] == b'.' && framed[..at].ends_with(b"\r\n");
            if !dot {
                content.push(framed[at]);
            }
        }
        Some((content, end + 3))
    }

    fn stuffed(content: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (at, &octet) in content.iter().enumerate() {
            if octet == b'.' && (at == 0 || content[..at].ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.push(octet);
        }
        wire.extend_from_slice(b".\r\n");
        wire
    }

    /// What is seen of DATA octets in these pieces: octets taken, the verdict, bare newlines.
    fn take(pieces: &[&[u8]]) -> (usize, bool, Seen, bool, u64) {
        let mut content = Content::default();
        let (mut taken, mut ended) = (0, false);
        for piece in pieces {
            if ended {
                break;
            }
            let (more, end) = content.take_data(piece);
            taken += more;
            ended = end;
        }
        content.end();
        let seen = content.checker.finish();
        (taken, ended, seen, content.bare_newline(), content.octets())
    }

    #[test]
    fn dots_are_taken_away_at_every_split() {
        let rest = b"A: b\r\n\r\n.\r\n..\r\n.x\r\nx.\r\n\r\n...\r\n. \r\n";
        let mut message = Vec::new();
        stamp(&mut message, ID, rest);
        let wire = stuffed(&message);
        let after = [wire.as_slice(), b"QUIT\r\n"].concat();
        for first in STAMP_OCTETS - 3..=after.len() {
            for second in first..=after.len() {
                let pieces = [&after[..first], &after[first..second], &after[second..]];
                assert_eq!(
                    take(&pieces),
                    (
                        wire.len(),
                        true,
                        Seen::Whole(ID),
                        false,
                        message.len() as u64
                    ),
                    "{first} {second}"
                );
            }
        }
        let octets: Vec<&[u8]> = after.chunks(1).collect();
        assert_eq!(take(&octets).2, Seen::Whole(ID));
    }

    #[test]
    fn it_agrees_with_its_slow_twin() {
        let mut rng = fastrand::Rng::with_seed(11);
        let alphabet = [b'.', b'\r', b'\n', b'x', 0];
        for _ in 0..20_000 {
            let mut wire: Vec<u8> = (0..rng.usize(0..24))
                .map(|_| alphabet[rng.usize(0..alphabet.len())])
                .collect();
            wire.extend_from_slice(b"\r\n.\r\n");
            let (text, length) = unstuffed(&wire).unwrap();
            let at = rng.usize(0..=length);
            let (head, tail) = wire.split_at(at);
            let (taken, ended, _, bare, octets) = take(&[head, tail]);
            assert_eq!(
                (taken, ended, octets),
                (length, true, text.len() as u64),
                "{wire:?}"
            );
            let lone = (0..text.len()).any(|at| {
                let after_cr = at > 0 && text[at - 1] == b'\r';
                (text[at] == b'\n') != after_cr
            });
            assert_eq!(
                bare,
                lone || text.last() == Some(&b'\r'),
                "{wire:?} {text:?}"
            );
        }
    }

    #[test]
    fn one_flipped_bit_on_its_way_is_an_alteration() {
        let mut message = Vec::new();
        stamp(&mut message, ID, b"A: b\r\n\r\none.\r\n.two\r\nthree\r\n");
        let wire = stuffed(&message);
        for at in STAMP_OCTETS..wire.len() - 5 {
            for bit in 0..8 {
                let mut bad = wire.clone();
                bad[at] ^= 1 << bit;
                // a lost dot may be a transparency dot: RFC 5321 takes any first dot away, but then the next octet differs
                let (_, _, seen, _, _) = take(&[&bad, b"\r\n.\r\n"]);
                assert_eq!(seen, Seen::Altered(ID), "{at} {bit}");
            }
        }
    }

    #[test]
    fn chunks_are_taken_as_they_are() {
        let mut message = Vec::new();
        stamp(&mut message, ID, b"\r\n.\r\n\r\n.\r\nx\r\n");
        for at in 0..=message.len() {
            let mut content = Content::default();
            content.take_chunk(&message[..at], false);
            content.take_chunk(&message[at..], false);
            content.end();
            assert!(!content.bare_newline(), "{at}");
            assert_eq!(content.checker.finish(), Seen::Whole(ID));
        }
        for (text, bare) in [
            (b"a\nb\r\n".as_slice(), true),
            (b"a\rb\r\n", true),
            (b"\n", true),
            (b"a\r", true),
            (b"a\r\n", false),
            (b"", false),
        ] {
            let mut content = Content::default();
            content.take_chunk(text, false);
            content.end();
            assert_eq!(content.bare_newline(), bare, "{text:?}");
            content.restart();
            content.take_chunk(text, true);
            content.end();
            assert!(!content.bare_newline(), "{text:?}");
        }
    }
}
