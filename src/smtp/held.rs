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
