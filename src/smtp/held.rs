//! A body that waits: received, not yet sent on. It is appended to, sealed by the proof of its end, edited at the top, and then moved on,
//! or replayed when an upstream is lost before it took the message.

use crate::body::EndOfData;
use crate::pieces::{BufferId, Form, Pieces};

/// A body and, once it has ended, the proof of that. Without the proof nothing may end the message upstream.
#[derive(Debug, Default)]
pub struct Held {
    pieces: Pieces,
    end: Option<EndOfData>,
    sealed: bool,
    /// The body has ended, its last line has not: DATA needs a CRLF.
    line_open: bool,
}

impl Held {
    pub const fn new() -> Held {
        Held {
            pieces: Pieces::new(),
            end: None,
            sealed: false,
            line_open: false,
        }
    }

    /// Where the scanner puts content.
    pub fn pieces_mut(&mut self) -> &mut Pieces {
        assert!(!self.sealed, "a sealed body takes no more content");
        &mut self.pieces
    }

    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Notes that the body is whole.
    pub fn seal(&mut self, end: EndOfData, ends_with_crlf: bool) {
        assert!(!self.sealed, "a body ends once");
        self.end = Some(end);
        self.sealed = true;
        self.line_open = !ends_with_crlf;
    }

    pub fn is_sealed(&self) -> bool {
        self.sealed
    }

    pub fn content_len(&self) -> u64 {
        self.pieces.content_len()
    }

    pub fn memory(&self) -> usize {
        self.pieces.memory()
    }

    /// Puts a whole header field above everything else.
    pub fn insert_header(&mut self, field: &[u8]) {
        assert!(
            field.ends_with(b"\r\n") && field[0] != b'.',
            "a header field is whole lines and begins with its name"
        );
        self.pieces.insert_front(field);
    }

    /// Moves the content to `out` as DATA sends it: dots doubled, the last line ended (once sealed; a streamed body calls this several
    /// times). The dot that ends the message is not written here.
    pub fn forward_data(&mut self, out: &mut Pieces) {
        out.append_in(Form::Data, &mut self.pieces);
        if self.line_open {
            out.insert(b"\r\n");
            self.line_open = false;
        }
    }

    /// Moves the content to `out` as BDAT sends it: verbatim.
    pub fn forward_bdat(&mut self, out: &mut Pieces) {
        out.append_in(Form::Bdat, &mut self.pieces);
    }

    /// Copies the content to `out`, markers included. The buffers stay claimed here: this body must be released after the copy was sent.
    pub fn replay(&self, out: &mut Pieces) {
        out.copy(&self.pieces);
    }

    /// Copies the content to `out` in one form, concrete, the last line ended where DATA needs it.
    pub fn replay_in(&self, form: Form, out: &mut Pieces) {
        out.copy_in(form, &self.pieces);
        if form == Form::Data && self.line_open {
            out.insert(b"\r\n");
        }
    }

    /// Empties the body for the next message and hands out its claims on buffers.
    pub fn release(&mut self) -> impl Iterator<Item = BufferId> + '_ {
        self.end = None;
        self.sealed = false;
        self.line_open = false;
        self.pieces.release()
    }

    /// The proof that the body ended; whoever takes it may end the message upstream, once.
    pub fn take_end(&mut self) -> Option<EndOfData> {
        self.end.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{BareNewline, BodyScanner};
    use crate::pieces::Piece;
    use alloc::vec::Vec;

    const BUFFER: BufferId = BufferId(3);

    /// A body that came by BDAT.
    fn held(content: &[u8]) -> Held {
        let mut held = Held::new();
        let mut scanner = BodyScanner::bdat(BareNewline::Reject, false);
        scanner.scan_chunk(BUFFER, 0, content, held.pieces_mut());
        held.pieces_mut().keep(BUFFER);
        let end = scanner.finish_bdat(held.pieces_mut());
        held.seal(end, scanner.findings().ends_with_crlf);
        held
    }

    fn read(pieces: &Pieces, form: Form, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces.iter(form) {
            match piece {
                Piece::Insert(bytes) => out.extend_from_slice(bytes),
                Piece::Span { start, len, .. } => {
                    out.extend_from_slice(&content[start as usize..(start + len) as usize])
                }
            }
        }
        out
    }

    #[test]
    fn data_gets_dots_and_a_last_newline_and_bdat_neither() {
        let content = b"Subject: a line long enough to stay in its buffer\r\n\r\n.dot\r\nopen end";
        let (mut data, mut bdat) = (Pieces::new(), Pieces::new());
        held(content).forward_data(&mut data);
        held(content).forward_bdat(&mut bdat);
        let want =
            b"Subject: a line long enough to stay in its buffer\r\n\r\n..dot\r\nopen end\r\n";
        assert_eq!(read(&data, Form::Data, content), want);
        assert_eq!(read(&bdat, Form::Bdat, content), content);
        assert_eq!((data.kept(), bdat.kept()), (&[BUFFER][..], &[BUFFER][..]));
    }

    #[test]
    fn an_ended_line_and_an_empty_body_get_no_newline() {
        for content in [&b"a\r\n"[..], b""] {
            let mut out = Pieces::new();
            held(content).forward_data(&mut out);
            assert_eq!(read(&out, Form::Data, content), content);
        }
    }

    #[test]
    fn a_header_goes_on_top_and_counts() {
        let mut held = held(b".x\r\n");
        held.insert_header(b"Received: by us\r\n");
        assert_eq!(held.content_len(), 21);
        let mut out = Pieces::new();
        held.forward_data(&mut out);
        assert_eq!(read(&out, Form::Data, b""), b"Received: by us\r\n..x\r\n");
    }

    #[test]
    fn replay_says_the_same_again_and_claims_nothing() {
        let content = [b'a'; 100];
        let held = held(&content);
        for form in [Form::Data, Form::Bdat] {
            let (mut first, mut second) = (Pieces::new(), Pieces::new());
            held.replay_in(form, &mut first);
            held.replay_in(form, &mut second);
            assert_eq!(read(&first, form, &content), read(&second, form, &content));
            assert!(first.kept().is_empty());
        }
        let mut marked = Pieces::new();
        held.replay(&mut marked);
        assert_eq!(read(&marked, Form::Bdat, &content), content);
    }

    #[test]
    fn a_streamed_body_ends_its_last_line_once() {
        let content = b"0123456789";
        let mut held = Held::new();
        let mut scanner = BodyScanner::bdat(BareNewline::Reject, false);
        let mut out = Pieces::new();
        for at in [0, 5] {
            scanner.scan_chunk(
                BUFFER,
                at,
                &content[at as usize..at as usize + 5],
                held.pieces_mut(),
            );
            held.forward_data(&mut out);
        }
        let end = scanner.finish_bdat(held.pieces_mut());
        held.seal(end, scanner.findings().ends_with_crlf);
        held.forward_data(&mut out);
        held.forward_data(&mut out);
        assert_eq!(read(&out, Form::Data, content), b"0123456789\r\n");
    }

    #[test]
    fn the_end_is_taken_once_and_released_with_the_rest() {
        let mut held = held(b"a");
        assert!(held.take_end().is_some() && held.take_end().is_none() && held.is_sealed());
        assert_eq!(held.release().collect::<Vec<_>>(), [BUFFER]);
        assert!(!held.is_sealed() && held.content_len() == 0 && held.memory() == 0);
        held.pieces_mut().insert(b"next message");
    }
}
