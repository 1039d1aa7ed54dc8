//! The line that makes a message known: written by the source, looked for by the sink.
//!
//! ```text
//! X-Weir-Bench: RRRRRRRRRRRRRRRR PPPPNNNNNNNN LLLLLLLL HHHHHHHHHHHHHHHH CCCCCCCC
//! ```
//! All hexadecimal: run, process and number, octets that follow the line, their XXH3, and a check of the line itself, so that an id
//! that was damaged on its way is not taken for another one. Header fields that a proxy puts in front of the line are none of the message;
//! anything else there (the tail of another message, say) is an alteration.

use std::io::Write as _;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Which message it is. Numbers of one process begin at 0 and leave nothing out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    pub run: u64,
    pub process: u16,
    pub number: u32,
}

const LABEL: &[u8] = b"X-Weir-Bench: ";
/// Up to the check.
const CHECKED_OCTETS: usize = LABEL.len() + 16 + 1 + 12 + 1 + 8 + 1 + 16;
/// The line with its CRLF.
pub const STAMP_OCTETS: usize = CHECKED_OCTETS + 1 + 8 + 2;

/// Writes the line, then `rest`: further header fields, the empty line, the body. `rest` ends in CRLF and is not dot-stuffed.
///
/// Panics on 4 GiB and more.
pub fn stamp(message: &mut Vec<u8>, id: MessageId, rest: &[u8]) {
    let length = u32::try_from(rest.len()).expect("a message of the bench is smaller than 4 GiB");
    let start = message.len();
    message.reserve(STAMP_OCTETS + rest.len());
    message.extend_from_slice(LABEL);
    let hash = xxh3_64(rest);
    write!(
        message,
        "{:016x} {:04x}{:08x} {length:08x} {hash:016x}",
        id.run, id.process, id.number
    )
    .expect("a Vec takes everything");
    let check = xxh3_64(&message[start..]) as u32;
    write!(message, " {check:08x}\r\n").expect("a Vec takes everything");
    message.extend_from_slice(rest);
}

/// What the sink makes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// As it was stamped.
    Whole(MessageId),
    /// Wrong length or checksum.
    Altered(MessageId),
    /// No stamp in its header, or a damaged one.
    Unknown,
}

/// Reads messages, one after the other, in pieces as they come, and copies nothing but a line that comes in two pieces.
///
/// A message that lies whole in one piece is hashed at once; one in several pieces costs a hash state of half a kilobyte, kept for the next.
#[derive(Default)]
pub struct Checker {
    phase: Phase,
    /// The start of a header line that has not ended yet, at most a stamp's length of it.
    line: Vec<u8>,
    /// What came before the stamp.
    front: Front,
    hash: Option<Box<Xxh3>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Front {
    #[default]
    Nothing,
    Fields,
    /// Something that is no header field.
    Foreign,
}

#[derive(Debug, Clone, Copy, Default)]
enum Phase {
    /// At or in a header line before the stamp.
    #[default]
    Searching,
    /// Nothing of the content yet.
    Stamped(Claim),
    /// All of the content was one piece.
    Hashed(Claim, u64),
    /// Several pieces: so many octets are in `hash`.
    Hashing(Claim, u64),
    /// The header ended, or its stamp is damaged.
    Unknown,
}

/// What the stamp says.
#[derive(Debug, Clone, Copy)]
struct Claim {
    id: MessageId,
    length: u64,
    hash: u64,
}

impl Checker {
    /// The next octets of the message, dots taken away.
    pub fn feed(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Phase::Searching = self.phase {
            let Some(lf) = memchr::memchr(b'\n', rest) else {
                let room = STAMP_OCTETS - self.line.len();
                self.line.extend_from_slice(&rest[..rest.len().min(room)]);
                return;
            };
            let (line, after) = rest.split_at(lf + 1);
            rest = after;
            self.phase = self.read_line(line);
        }
        self.read_content(rest);
    }

    /// `line` ends a header line, whose start may have come before.
    fn read_line(&mut self, line: &[u8]) -> Phase {
        if self.line.is_empty() {
            return self.judge(line);
        }
        let room = (STAMP_OCTETS + 1).saturating_sub(self.line.len());
        let mut whole = std::mem::take(&mut self.line);
        whole.extend_from_slice(&line[..line.len().min(room)]);
        let phase = self.judge(&whole);
        whole.clear();
        self.line = whole;
        phase
    }

    /// What one header line, with its LF, leads to.
    fn judge(&mut self, line: &[u8]) -> Phase {
        match line {
            b"\r\n" | b"\n" => Phase::Unknown,
            _ if line.starts_with(LABEL) => read_stamp(line).map_or(Phase::Unknown, Phase::Stamped),
            _ => {
                self.front = self.front.and(line);
                Phase::Searching
            }
        }
    }

    fn read_content(&mut self, piece: &[u8]) {
        let length = piece.len() as u64;
        if length == 0 {
            return;
        }
        match self.phase {
            Phase::Searching | Phase::Unknown => {}
            Phase::Stamped(claim) if length == claim.length => {
                self.phase = Phase::Hashed(claim, xxh3_64(piece));
            }
            Phase::Stamped(claim) => {
                let hash = self.hash.get_or_insert_default();
                hash.reset();
                hash.update(piece);
                self.phase = Phase::Hashing(claim, length);
            }
            // more than was stamped: no hash makes that good
            Phase::Hashed(claim, _) => self.phase = Phase::Hashing(claim, u64::MAX),
            Phase::Hashing(claim, before) => {
                if let Some(hash) = &mut self.hash {
                    hash.update(piece);
                }
                self.phase = Phase::Hashing(claim, before.saturating_add(length));
            }
        }
    }

    /// The message is complete; the next one may follow.
    pub fn finish(&mut self) -> Seen {
        let seen = match self.phase {
            Phase::Searching | Phase::Unknown => Seen::Unknown,
            Phase::Stamped(claim) => claim.against(0, xxh3_64(b"")),
            Phase::Hashed(claim, hash) => claim.against(claim.length, hash),
            Phase::Hashing(claim, length) => {
                let hash = self.hash.as_ref().map_or(0, |hash| hash.digest());
                claim.against(length, hash)
            }
        };
        let front = self.front;
        self.forget();
        match seen {
            Seen::Whole(id) if front == Front::Foreign => Seen::Altered(id),
            seen => seen,
        }
    }

    /// The message was given up.
    pub fn forget(&mut self) {
        self.phase = Phase::Searching;
        self.front = Front::Nothing;
        self.line.clear();
    }
}

impl Front {
    /// One more line before the stamp: a field, a folded piece of one (RFC 5322, 2.2), or neither.
    fn and(self, line: &[u8]) -> Front {
        // as much of a line as is kept of one that comes in pieces
        let start = &line[..line.len().min(STAMP_OCTETS)];
        let name = start.iter().position(|&octet| octet == b':');
        let is_field =
            name.is_some_and(|end| end > 0 && start[..end].iter().all(u8::is_ascii_graphic));
        let is_folded = self == Front::Fields && matches!(start.first(), Some(b' ' | b'\t'));
        match self {
            Front::Foreign => Front::Foreign,
            _ if is_field || is_folded => Front::Fields,
            _ => Front::Foreign,
        }
    }
}

impl Claim {
    fn against(&self, length: u64, hash: u64) -> Seen {
        if length == self.length && hash == self.hash {
            Seen::Whole(self.id)
        } else {
            Seen::Altered(self.id)
        }
    }
}

fn read_stamp(line: &[u8]) -> Option<Claim> {
    if line.len() != STAMP_OCTETS || !line.ends_with(b"\r\n") {
        return None;
    }
    let (checked, check) = line.split_at(CHECKED_OCTETS);
    if hexadecimal(&check[1..9])? != u64::from(xxh3_64(checked) as u32) || check[0] != b' ' {
        return None;
    }
    let field = |from: usize, to: usize| hexadecimal(&checked[LABEL.len()..][from..to]);
    Some(Claim {
        id: MessageId {
            run: field(0, 16)?,
            process: field(17, 21)? as u16,
            number: field(21, 29)? as u32,
        },
        length: field(30, 38)?,
        hash: field(39, 55)?,
    })
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |sum: u64, digit| {
        Some(sum << 4 | u64::from(char::from(*digit).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId {
        run: 0x0123_4567_89ab_cdef,
        process: 3,
        number: 77,
    };
    const REST: &[u8] = b"Subject: x\r\n\r\n.one\r\n\r\ntwo\r\n";

    fn stamped(rest: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        stamp(&mut message, ID, rest);
        message
    }

    fn seen(pieces: &[&[u8]]) -> Seen {
        let mut checker = Checker::default();
        pieces.iter().for_each(|piece| checker.feed(piece));
        checker.finish()
    }

    #[test]
    fn the_line_is_as_long_as_it_says() {
        let message = stamped(b"\r\n");
        assert_eq!(message.len(), STAMP_OCTETS + 2);
        assert_eq!(STAMP_OCTETS, 80, "78 and CRLF, as RFC 5322, 2.1.1 has it");
        assert!(message.starts_with(b"X-Weir-Bench: 0123456789abcdef 00030000004d 00000002 "));
    }

    #[test]
    fn a_message_is_whole_at_every_split() {
        let mut message = b"Received: by proxy\r\n\tid 7\r\nReturn-Path: <>\r\n".to_vec();
        stamp(&mut message, ID, REST);
        for first in 0..=message.len() {
            for second in first..=message.len() {
                let pieces = [
                    &message[..first],
                    &message[first..second],
                    &message[second..],
                ];
                assert_eq!(seen(&pieces), Seen::Whole(ID), "{first} {second}");
            }
        }
        let octets: Vec<&[u8]> = message.chunks(1).collect();
        assert_eq!(seen(&octets), Seen::Whole(ID));
    }

    #[test]
    fn one_flipped_bit_of_the_content_is_an_alteration() {
        let message = stamped(REST);
        for at in STAMP_OCTETS..message.len() {
            for bit in 0..8 {
                let mut bad = message.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(seen(&[&bad]), Seen::Altered(ID), "{at} {bit}");
                let (one, two) = bad.split_at(at);
                assert_eq!(seen(&[one, two]), Seen::Altered(ID), "{at} {bit}");
            }
        }
    }

    #[test]
    fn one_flipped_bit_of_the_stamp_is_no_other_message() {
        let message = stamped(REST);
        for at in 0..STAMP_OCTETS {
            for bit in 0..8 {
                let mut bad = message.clone();
                bad[at] ^= 1 << bit;
                // letters of the check may change their case and mean the same
                let same = (bad[at] ^ message[at] == 0x20) && at >= CHECKED_OCTETS;
                let want = if same && message[at].is_ascii_alphabetic() {
                    Seen::Whole(ID)
                } else {
                    Seen::Unknown
                };
                assert_eq!(seen(&[&bad]), want, "{at} {bit}");
            }
        }
    }

    #[test]
    fn octets_left_out_or_put_in_are_an_alteration() {
        let message = stamped(REST);
        for at in STAMP_OCTETS..message.len() {
            let mut short = message.clone();
            short.remove(at);
            assert_eq!(seen(&[&short]), Seen::Altered(ID), "{at}");
            let mut long = message.clone();
            long.insert(at, b'!');
            assert_eq!(seen(&[&long]), Seen::Altered(ID), "{at}");
            assert_eq!(seen(&[&message[..at]]), Seen::Altered(ID), "{at}");
        }
        assert_eq!(seen(&[&message, b"\r\n"]), Seen::Altered(ID));
        assert_eq!(seen(&[&message, b"x", b"y"]), Seen::Altered(ID));
        let (head, tail) = message.split_at(STAMP_OCTETS + 4);
        assert_eq!(seen(&[head, tail, b"\r\n"]), Seen::Altered(ID));
    }

    #[test]
    fn what_carries_no_stamp_is_unknown() {
        let body_only = [b"Subject: x\r\n\r\n".to_vec(), stamped(REST)].concat();
        let long = vec![b'x'; 100_000];
        for message in [
            b"".as_slice(),
            b"\r\n",
            b"X-Weir-Bench: \r\n\r\n",
            b"X-Weir-Bench: 1\r\n",
            &body_only,
            &long,
        ] {
            assert_eq!(seen(&[message]), Seen::Unknown);
            let octets: Vec<&[u8]> = message.chunks(1).collect();
            assert_eq!(seen(&octets), Seen::Unknown);
        }
    }

    #[test]
    fn one_message_says_nothing_about_the_next() {
        let message = stamped(REST);
        let mut checker = Checker::default();
        checker.feed(&message[..60]);
        assert_eq!(checker.finish(), Seen::Unknown);
        checker.feed(&message[..90]);
        checker.feed(&message[90..]);
        assert_eq!(checker.finish(), Seen::Whole(ID));
        checker.feed(&message[..90]);
        checker.forget();
        checker.feed(&message);
        assert_eq!(checker.finish(), Seen::Whole(ID));
        assert_eq!(checker.finish(), Seen::Unknown);
    }

    /// A proxy that mixed up its buffers put the end of another body before a message that was whole, and the message counted as whole.
    #[test]
    fn only_header_fields_may_stand_before_the_stamp() {
        let message = stamped(REST);
        for (front, want) in [
            (b"Received: by x\r\n\tfor y\r\n".as_slice(), Seen::Whole(ID)),
            (b"X: 1\r\nReceived: by a host with a very long name that goes on behind what is kept of a line that comes in pieces\r\n", Seen::Whole(ID)),
            (b"the tail of another body.\r\n", Seen::Altered(ID)),
            (b"the tail: of another body.\r\n", Seen::Altered(ID)),
            (b": no name\r\n", Seen::Altered(ID)),
            (b" folded from nothing\r\n", Seen::Altered(ID)),
            (b"==\r\nReceived: by x\r\n", Seen::Altered(ID)),
            (b"Received: by x\r\n=====================================================================================================\r\n", Seen::Altered(ID)),
        ] {
            let whole = [front, &message].concat();
            for at in 0..=whole.len() {
                let (one, two) = whole.split_at(at);
                assert_eq!(seen(&[one, two]), want, "{at} {}", front.escape_ascii());
            }
            let octets: Vec<&[u8]> = whole.chunks(1).collect();
            assert_eq!(seen(&octets), want);
        }
    }

    #[test]
    fn an_endless_header_line_costs_no_memory() {
        let mut checker = Checker::default();
        for _ in 0..1000 {
            checker.feed(&[b'x'; 4096]);
        }
        assert!(checker.line.capacity() <= 2 * STAMP_OCTETS);
        assert_eq!(checker.finish(), Seen::Unknown);
    }

    #[test]
    fn an_empty_rest_is_whole() {
        assert_eq!(seen(&[&stamped(b"")]), Seen::Whole(ID));
    }
}
