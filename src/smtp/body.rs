//! The body scanner: finds the end of data, takes away dot transparency, and sees every line end that two parsers could read differently.
//!
//! **End of data** is CRLF "." CRLF in the bytes as they came, and nothing else (RFC 5321, 4.1.1.4); the first CRLF may be the one that
//! ended the DATA line. [`EndOfData`] is the proof: only this file can make one, and without it nothing may end a message upstream.
//!
//! **Content** is what the message says once DATA's doubled dots are taken away (see `pieces`). A marker goes before every content line that
//! begins with a dot. Since a line begins only after a CRLF (in the bytes, or made by [`BareNewline::Normalize`]), no content can read as
//! CRLF "." CRLF when it leaves by DATA.
//!
//! The machine, byte by byte; `Dot` and `DotCr` hold back what may turn out to be the end:
//! ```text
//!   LineStart --'.'--> Dot --CR--> DotCr --LF--> end of data          (DATA only)
//!   LineStart --CR--> Cr --LF--> LineStart,  LineStart --else--> Text --CR--> Cr
//!   any --LF--> bare LF,  Cr --not LF--> bare CR
//! ```
//! Most bytes never meet it: whole blocks in which no CR lacks its LF, no LF its CR, no line begins with a dot and no NUL stands are passed
//! over by comparisons that the compiler turns into vector code. Where any of it occurs, a smaller block around it goes through the machine.
//! The header is read a second time, line by line, for Received fields.

use memchr::{memchr, memrchr};

use crate::limits::TEXT_LINE_MAX;
use crate::pieces::{BufferId, Pieces};

/// What happens to CR without LF and LF without CR.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BareNewline {
    /// The message is refused; the scanner goes on to its true end and puts nothing more into the list.
    #[default]
    Reject,
    /// Each becomes CRLF.
    Normalize,
    /// Left as it is. Only for upstreams that take BDAT.
    Pass,
}

/// Proof that a body has ended: CRLF.CRLF was seen, or the LAST chunk is complete.
#[derive(Debug, Eq, PartialEq)]
pub struct EndOfData(());

/// What the scanner noticed so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BodyFindings {
    pub bare_lf: bool,
    pub bare_cr: bool,
    pub nul: bool,
    /// A line of more than 998 octets ([`TEXT_LINE_MAX`]).
    pub long_line: bool,
    /// The empty line after the header was seen.
    pub headers_ended: bool,
    /// Received fields in the header.
    pub received: u16,
    /// Octets of the header as they came, the empty line included.
    pub header_octets: u32,
    /// The content is empty or its last line is ended.
    pub ends_with_crlf: bool,
}

impl BodyFindings {
    /// Whether a line end was seen that parsers disagree about.
    pub fn bare_newline(&self) -> bool {
        self.bare_lf || self.bare_cr
    }
}

/// The scanner of one body.
#[derive(Clone, Debug)]
pub struct BodyScanner {
    state: State,
    policy: BareNewline,
    kind: Kind,
    bare_lf: bool,
    bare_cr: bool,
    nul: bool,
    long_line: bool,
    /// Octets since the last LF.
    line_octets: u32,
    header: Header,
}

const _: () = assert!(
    size_of::<BodyScanner>() <= 48,
    "every session in a transaction holds a scanner"
);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Data,
    Chunks,
    /// BODY=BINARYMIME: newlines mean nothing, there is no DATA form.
    Binary,
}

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// After CRLF, or at the very start.
    LineStart,
    /// After a line end that was normalised: a line of the content begins, but not one that DATA dots apply to.
    MendedStart,
    Text,
    /// After CR, which is content already.
    Cr,
    /// After CRLF ".": the dot is held back.
    Dot,
    /// After CRLF "." CR: both are held back.
    DotCr,
}

impl BodyScanner {
    /// For what follows the 354: at a line start, in the header.
    pub fn data(policy: BareNewline) -> BodyScanner {
        BodyScanner::new(policy, Kind::Data)
    }

    /// For the chunks of one message. `binary`: the transaction said BODY=BINARYMIME.
    pub fn bdat(policy: BareNewline, binary: bool) -> BodyScanner {
        BodyScanner::new(policy, if binary { Kind::Binary } else { Kind::Chunks })
    }

    fn new(policy: BareNewline, kind: Kind) -> BodyScanner {
        BodyScanner {
            state: State::LineStart,
            policy,
            kind,
            bare_lf: false,
            bare_cr: false,
            nul: false,
            long_line: false,
            line_octets: 0,
            header: Header::new(),
        }
    }

    /// Takes bytes of DATA up to and including CRLF.CRLF; `bytes` stand in `buffer` from `start` on. Returns how many were taken (all, unless
    /// the end was reached) and the proof of the end.
    pub fn scan_data(
        &mut self,
        buffer: BufferId,
        start: u32,
        bytes: &[u8],
        into: &mut Pieces,
    ) -> (usize, Option<EndOfData>) {
        assert!(
            self.kind == Kind::Data,
            "DATA and BDAT do not mix within a message"
        );
        let (taken, ended) = self.scan(buffer, start, bytes, into);
        (taken, ended.then_some(EndOfData(())))
    }

    /// Takes bytes of a chunk; all of them are the message's, the caller cuts at the chunk's end.
    pub fn scan_chunk(&mut self, buffer: BufferId, start: u32, bytes: &[u8], into: &mut Pieces) {
        assert!(
            self.kind != Kind::Data,
            "DATA and BDAT do not mix within a message"
        );
        if self.kind == Kind::Binary {
            return self.scan_binary(buffer, start, bytes, into);
        }
        let (taken, ended) = self.scan(buffer, start, bytes, into);
        debug_assert!(
            taken == bytes.len() && !ended,
            "a chunk ends by its count alone"
        );
    }

    /// The LAST chunk is complete.
    pub fn finish_bdat(&mut self, into: &mut Pieces) -> EndOfData {
        assert!(
            self.kind != Kind::Data,
            "only a counted body ends by its count"
        );
        if self.kind == Kind::Chunks && self.state == State::Cr {
            self.bare_cr(into);
        }
        EndOfData(())
    }

    pub fn findings(&self) -> BodyFindings {
        BodyFindings {
            bare_lf: self.bare_lf,
            bare_cr: self.bare_cr,
            nul: self.nul,
            long_line: self.long_line,
            headers_ended: self.header.ended,
            received: self.header.received,
            header_octets: self.header.octets,
            ends_with_crlf: matches!(
                self.state,
                State::LineStart | State::MendedStart | State::Dot | State::DotCr
            ),
        }
    }
}

/// The bytes of one call, where they stand, and from where on they have not been put into the list yet.
struct Run<'a> {
    buffer: BufferId,
    start: u32,
    bytes: &'a [u8],
    from: usize,
}

/// Bytes judged at once. Long enough to make up for the final "any of them?".
const BLOCK: usize = 128;

/// Bytes judged at once near an event or an end, and the bytes of one event that go through the machine: one vector.
const SMALL_BLOCK: usize = 16;

impl BodyScanner {
    fn scan(
        &mut self,
        buffer: BufferId,
        start: u32,
        bytes: &[u8],
        into: &mut Pieces,
    ) -> (usize, bool) {
        let mut run = Run {
            buffer,
            start,
            bytes,
            from: 0,
        };
        let mut at = 0;
        let mut ended = false;
        while at < bytes.len() && !ended {
            at = self.skip_clean(bytes, at);
            // The first byte has none before it to be judged by.
            let steps = if at == 0 { 1 } else { SMALL_BLOCK };
            let stop = bytes.len().min(at + steps);
            while at < stop && !ended {
                ended = self.step(&mut run, at, into);
                at += 1;
            }
        }
        self.flush(&mut run, at, into);
        self.measure_lines(&bytes[..at]);
        self.header.read(&bytes[..at]);
        (at, ended)
    }

    /// Passes over blocks in which nothing happens; `at` in, `at` out.
    fn skip_clean(&mut self, bytes: &[u8], at: usize) -> usize {
        if at == 0 || matches!(self.state, State::Dot | State::DotCr) {
            return at;
        }
        let clean = clean_until(bytes, at);
        if clean > at {
            self.state = match bytes[clean - 1] {
                b'\r' => State::Cr,
                b'\n' => State::LineStart,
                _ => State::Text,
            };
        }
        clean
    }

    /// The machine: one byte. True at the end of data. Bytes are content unless `run.from` is moved past them.
    fn step(&mut self, run: &mut Run<'_>, at: usize, into: &mut Pieces) -> bool {
        let byte = run.bytes[at];
        match (self.state, byte) {
            (State::LineStart, b'.') if self.kind == Kind::Data => {
                self.flush(run, at, into);
                run.from = at + 1;
                self.state = State::Dot;
                return false;
            }
            (State::LineStart | State::MendedStart, b'.') => {
                self.flush(run, at, into);
                if self.open() {
                    into.push_dot();
                }
                self.state = State::Text;
                return false;
            }
            (State::Dot, b'.') => {
                // In place only next to its twin: a dot that came with an earlier piece lies elsewhere, and the octet before
                // this one may be anybody's.
                match self.open() {
                    true if at > 0 => into.push_dot_in_place(),
                    true => into.push_dot(),
                    false => {}
                }
                self.state = State::Text;
                return false;
            }
            (State::Dot, b'\r') => {
                run.from = at + 1;
                self.state = State::DotCr;
                return false;
            }
            (State::DotCr, b'\n') => {
                run.from = at + 1;
                return true;
            }
            (State::DotCr, _) => {
                // not the end after all: the dot was a doubled one, the CR is content without its LF
                if self.open() {
                    into.insert(b"\r");
                }
                self.bare_cr(into);
                return self.step(run, at, into);
            }
            (State::Cr, b'\n') => {
                self.state = State::LineStart;
                return false;
            }
            (State::Cr, _) => {
                self.flush(run, at, into);
                self.bare_cr(into);
                return self.step(run, at, into);
            }
            (_, b'\n') => self.bare_lf(run, at, into),
            (_, b'\r') => self.state = State::Cr,
            (_, _) => self.state = State::Text,
        }
        self.nul |= byte == 0;
        false
    }

    /// A CR that is in the list already turns out to have no LF.
    fn bare_cr(&mut self, into: &mut Pieces) {
        self.bare_cr = true;
        self.state = State::Text;
        if self.policy == BareNewline::Normalize {
            into.insert(b"\n");
            self.state = State::MendedStart;
        }
    }

    fn bare_lf(&mut self, run: &mut Run<'_>, at: usize, into: &mut Pieces) {
        self.state = State::Text;
        if self.policy == BareNewline::Normalize {
            self.flush(run, at, into);
            into.insert(b"\r\n");
            run.from = at + 1;
            self.state = State::MendedStart;
        }
        self.bare_lf = true;
    }

    /// Puts the content before `to` into the list.
    fn flush(&self, run: &mut Run<'_>, to: usize, into: &mut Pieces) {
        if self.open() && run.from < to {
            into.push_content(
                run.buffer,
                run.start + run.from as u32,
                &run.bytes[run.from..to],
            );
        }
        run.from = to;
    }

    /// Whether the message may still be sent on.
    fn open(&self) -> bool {
        self.policy != BareNewline::Reject || !(self.bare_lf || self.bare_cr)
    }

    fn scan_binary(&mut self, buffer: BufferId, start: u32, bytes: &[u8], into: &mut Pieces) {
        let Some(&last) = bytes.last() else { return };
        self.nul |= memchr(0, bytes).is_some();
        let before = match bytes {
            [.., before, _] => *before == b'\r',
            _ => self.state == State::Cr,
        };
        self.state = match last {
            b'\r' => State::Cr,
            b'\n' if before => State::LineStart,
            _ => State::Text,
        };
        into.push_content(buffer, start, bytes);
        self.header.read(bytes);
    }

    /// Looks for a line that is too long by jumps: from each LF to the last one that a legal line could reach. Touches few of the bytes.
    fn measure_lines(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            let reach = (LINE_OCTETS_MAX - self.line_octets as usize).min(rest.len());
            match memrchr(b'\n', &rest[..reach]) {
                Some(lf) => {
                    rest = &rest[lf + 1..];
                    self.line_octets = 0;
                }
                None if reach < rest.len() => {
                    self.long_line = true;
                    rest = &rest[reach..];
                    self.line_octets = 0;
                }
                None => {
                    self.line_octets += reach as u32;
                    return;
                }
            }
        }
    }
}

/// A line with its CRLF and a doubled dot.
const LINE_OCTETS_MAX: usize = TEXT_LINE_MAX + 3;

/// From `at` on (at least 1: the byte before is looked at too), the end of the last whole block in which nothing happens.
fn clean_until(bytes: &[u8], at: usize) -> usize {
    let at = clean_blocks::<BLOCK>(bytes, at);
    clean_blocks::<SMALL_BLOCK>(bytes, at)
}

fn clean_blocks<const LEN: usize>(bytes: &[u8], mut at: usize) -> usize {
    let block_at = |at: usize| bytes.get(at..)?.first_chunk::<LEN>();
    while let (Some(before), Some(block)) = (block_at(at - 1), block_at(at)) {
        if eventful(before, block) {
            break;
        }
        at += LEN;
    }
    at
}

/// Whether any byte of `block` meets the machine; `before` is the block one byte earlier. No early exit: this is what makes it vector code.
fn eventful<const LEN: usize>(before: &[u8; LEN], block: &[u8; LEN]) -> bool {
    let mut any = 0u8;
    for (&before, &byte) in before.iter().zip(block) {
        let half_newline = u8::from(byte == b'\n') ^ u8::from(before == b'\r');
        let dot = u8::from(byte == b'.') & u8::from(before == b'\n');
        any |= half_newline | dot | u8::from(byte == 0);
    }
    any != 0
}

/// Reads the header as it comes, for its end and its Received fields. Lines end at LF here, bare or not: a loop must be seen in any case.
#[derive(Clone, Debug)]
struct Header {
    ended: bool,
    /// Letters of [`RECEIVED`] that the current line has begun with, or [`EMPTY`] or [`OTHER`].
    matched: u8,
    received: u16,
    octets: u32,
}

const RECEIVED: &[u8] = b"received:";
/// The line is a CR so far.
const EMPTY: u8 = 254;
/// The line is of no interest.
const OTHER: u8 = 255;

impl Header {
    fn new() -> Header {
        Header {
            ended: false,
            matched: 0,
            received: 0,
            octets: 0,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() && !self.ended {
            if self.matched == OTHER {
                let Some(lf) = memchr(b'\n', &bytes[at..]) else {
                    at = bytes.len();
                    break;
                };
                at += lf + 1;
                self.matched = 0;
                continue;
            }
            self.read_byte(bytes[at]);
            at += 1;
        }
        self.octets = self.octets.saturating_add(at as u32);
    }

    /// A byte near the start of a line.
    fn read_byte(&mut self, byte: u8) {
        match (self.matched, byte) {
            (0 | EMPTY, b'\n') => self.ended = true,
            (_, b'\n') => self.matched = 0,
            (0, b'\r') => self.matched = EMPTY,
            (EMPTY, _) => self.matched = OTHER,
            (matched, _) if RECEIVED[matched as usize] == byte.to_ascii_lowercase() => {
                self.matched += 1
            }
            _ => self.matched = OTHER,
        }
        if self.matched as usize == RECEIVED.len() {
            self.received = self.received.saturating_add(1);
            self.matched = OTHER;
        }
    }
}
