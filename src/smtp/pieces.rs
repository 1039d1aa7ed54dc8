//! A body, or one flight of bytes, as a list of pieces: spans of the driver's buffers, bytes inserted between them, and transparency dots.
//! Nothing is copied to add a header, to remove or add a stuffed dot, or to repair a line end.
//!
//! **Dots.** The content of a message is the same whether it came by DATA or by BDAT; only DATA doubles the dot that begins a line. So a
//! list holds the *content* plus a marker wherever a content line begins with a dot. [`Form::Data`] reads a marker as ".", [`Form::Bdat`]
//! as nothing. When the content came by DATA, the dot mostly still stands in the buffer, in the gap between two spans; such a marker is
//! *in place* and lets both spans be read as one.
//!
//! **Buffers** are opaque numbers. A list that keeps a reference to one says so by [`Pieces::keep`]; whoever empties the list takes the
//! references out by [`Pieces::release`] and gives them back to the driver.

use alloc::vec::Vec;

/// Names a buffer of the driver. `u32::MAX` and `u32::MAX - 1` are reserved.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BufferId(pub u32);

/// How a body travels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// Ended by a dot; dots that begin a line are doubled.
    Data,
    /// Counted chunks, verbatim.
    Bdat,
}

/// One piece as it goes to the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    Span {
        buffer: BufferId,
        start: u32,
        len: u32,
    },
    Insert(&'a [u8]),
}

/// The list. Memory: 12 bytes a part, the inserted bytes, 4 bytes a kept buffer; [`Pieces::memory`] tells how much.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    parts: Vec<Part>,
    inserted: Vec<u8>,
    kept: Vec<BufferId>,
    content: u64,
    dots: u64,
}

/// `id` is a buffer, or [`INSERT`]: `start` and `len` are a range of `inserted`; or [`DOT`]: `start` is 1 if the dot is in place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Part {
    id: u32,
    start: u32,
    len: u32,
}

const INSERT: u32 = u32::MAX;
const DOT: u32 = u32::MAX - 1;

/// Content shorter than this is copied rather than referred to: a part costs twelve bytes itself, and a peer that forces many splits
/// (a bare LF every other byte) must not make the list outgrow the body by much.
const SPAN_MIN: usize = 32;

impl Pieces {
    pub const fn new() -> Pieces {
        Pieces {
            parts: Vec::new(),
            inserted: Vec::new(),
            kept: Vec::new(),
            content: 0,
            dots: 0,
        }
    }

    /// Appends a range of a buffer. Joins the last span where it continues it.
    pub fn push_span(&mut self, buffer: BufferId, start: u32, len: u32) {
        assert!(
            buffer.0 < DOT,
            "the two highest buffer numbers are reserved"
        );
        debug_assert!(start.checked_add(len).is_some(), "a span ends within u32");
        if len == 0 {
            return;
        }
        self.content += u64::from(len);
        match self.parts.last_mut() {
            Some(last) if last.id == buffer.0 && last.start + last.len == start => last.len += len,
            _ => self.parts.push(Part {
                id: buffer.0,
                start,
                len,
            }),
        }
    }

    /// Appends `bytes`, which are the content of `buffer` from `start` on: as a span, or as a copy if they are few and continue nothing.
    pub fn push_content(&mut self, buffer: BufferId, start: u32, bytes: &[u8]) {
        let continues = self
            .parts
            .last()
            .is_some_and(|last| last.id == buffer.0 && last.start + last.len == start);
        if bytes.len() < SPAN_MIN && !continues {
            return self.insert(bytes);
        }
        self.push_span(buffer, start, part_len(bytes));
    }

    /// Appends bytes of one's own.
    pub fn insert(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = part_len(&self.inserted);
        self.inserted.extend_from_slice(bytes);
        let len = part_len(bytes);
        self.content += u64::from(len);
        match self.parts.last_mut() {
            Some(last) if last.id == INSERT && last.start + last.len == start => last.len += len,
            _ => self.parts.push(Part {
                id: INSERT,
                start,
                len,
            }),
        }
    }

    /// Puts bytes before everything else. Costs a move of the part list, so: headers only.
    pub fn insert_front(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let start = part_len(&self.inserted);
        self.inserted.extend_from_slice(bytes);
        let len = part_len(bytes);
        self.content += u64::from(len);
        self.parts.insert(
            0,
            Part {
                id: INSERT,
                start,
                len,
            },
        );
    }

    /// Marks that the content that follows begins a line with a dot.
    pub fn push_dot(&mut self) {
        self.dots += 1;
        self.parts.push(Part {
            id: DOT,
            start: 0,
            len: 0,
        });
    }

    /// The same, where the doubled dot is the one byte that the spans before and after leave out.
    pub fn push_dot_in_place(&mut self) {
        self.dots += 1;
        self.parts.push(Part {
            id: DOT,
            start: 1,
            len: 0,
        });
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Octets of the content: what BDAT counts and SIZE means.
    pub fn content_len(&self) -> u64 {
        self.content
    }

    pub fn wire_len(&self, form: Form) -> u64 {
        match form {
            Form::Data => self.content + self.dots,
            Form::Bdat => self.content,
        }
    }

    /// Bytes that the list itself holds, buffers aside. Counts against the budget of whoever holds a body.
    pub fn memory(&self) -> usize {
        self.parts.len() * size_of::<Part>()
            + self.inserted.len()
            + self.kept.len() * size_of::<BufferId>()
    }

    /// Moves everything of `other` to the end of this list, markers and kept buffers too. `other` is empty afterwards and keeps its capacities.
    pub fn append(&mut self, other: &mut Pieces) {
        self.copy_markers(other);
        self.take_kept(other);
        other.forget();
    }

    /// As [`Pieces::append`], with the markers made concrete: afterwards this list reads the same in both forms.
    pub fn append_in(&mut self, form: Form, other: &mut Pieces) {
        self.copy_in(form, other);
        self.take_kept(other);
        other.forget();
    }

    /// Copies the list, markers too, but no claim on buffers: `other` must outlive what is done with the copy.
    pub fn copy(&mut self, other: &Pieces) {
        self.copy_markers(other);
    }

    /// As [`Pieces::copy`], with the markers made concrete.
    pub fn copy_in(&mut self, form: Form, other: &Pieces) {
        for piece in other.iter(form) {
            match piece {
                Piece::Span { buffer, start, len } => self.push_span(buffer, start, len),
                Piece::Insert(bytes) => self.insert(bytes),
            }
        }
    }

    pub fn iter(&self, form: Form) -> Iter<'_> {
        Iter {
            parts: &self.parts,
            inserted: &self.inserted,
            form,
        }
    }

    /// Notes one reference to a buffer of the driver.
    pub fn keep(&mut self, buffer: BufferId) {
        self.kept.push(buffer);
    }

    pub fn kept(&self) -> &[BufferId] {
        &self.kept
    }

    /// Empties the list; capacities stay.
    pub fn clear(&mut self) {
        assert!(
            self.kept.is_empty(),
            "a list that still claims buffers must not be cleared: they would never return to the driver"
        );
        self.forget();
    }

    /// Empties the list and hands out its claims on buffers; capacities stay.
    pub fn release(&mut self) -> impl Iterator<Item = BufferId> + '_ {
        self.forget();
        self.kept.drain(..)
    }

    /// Gives memory back beyond what an ordinary message needs.
    pub fn shrink(&mut self, parts_max: usize, inserted_max: usize) {
        self.parts.shrink_to(parts_max);
        self.inserted.shrink_to(inserted_max);
        self.kept.shrink_to(parts_max);
    }

    fn forget(&mut self) {
        self.parts.clear();
        self.inserted.clear();
        self.content = 0;
        self.dots = 0;
    }

    fn take_kept(&mut self, other: &mut Pieces) {
        self.kept.append(&mut other.kept);
    }

    fn copy_markers(&mut self, other: &Pieces) {
        let shift = part_len(&self.inserted);
        self.inserted.extend_from_slice(&other.inserted);
        assert!(
            self.inserted.len() <= u32::MAX as usize,
            "inserted bytes are bounded by the hold budget"
        );
        self.parts.reserve(other.parts.len());
        for part in &other.parts {
            let mut part = *part;
            if part.id == INSERT {
                part.start += shift;
            }
            match self.parts.last_mut() {
                Some(last)
                    if last.id == part.id
                        && part.id != DOT
                        && last.start + last.len == part.start =>
                {
                    last.len += part.len
                }
                _ => self.parts.push(part),
            }
        }
        self.content += other.content;
        self.dots += other.dots;
    }
}

fn part_len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a list of pieces is bounded far below 4 GiB")
}

/// Reads a list in one of its forms.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    parts: &'a [Part],
    inserted: &'a [u8],
    form: Form,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        loop {
            let (part, rest) = self.parts.split_first()?;
            self.parts = rest;
            match (part.id, self.form) {
                (DOT, Form::Bdat) => {}
                (DOT, Form::Data) => return Some(Piece::Insert(b".")),
                (INSERT, _) => {
                    let start = part.start as usize;
                    return Some(Piece::Insert(
                        &self.inserted[start..start + part.len as usize],
                    ));
                }
                _ => return Some(self.span(*part)),
            }
        }
    }
}

impl<'a> Iter<'a> {
    /// A span and, in DATA form, all spans that follow it over dots in place.
    fn span(&mut self, mut span: Part) -> Piece<'a> {
        while let (Form::Data, [dot, next, rest @ ..]) = (self.form, self.parts) {
            let joined = dot.id == DOT
                && dot.start == 1
                && next.id == span.id
                && next.start == span.start + span.len + 1;
            if !joined {
                break;
            }
            span.len += 1 + next.len;
            self.parts = rest;
        }
        Piece::Span {
            buffer: BufferId(span.id),
            start: span.start,
            len: span.len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const A: BufferId = BufferId(1);
    const B: BufferId = BufferId(2);

    fn span(buffer: BufferId, start: u32, len: u32) -> Piece<'static> {
        Piece::Span { buffer, start, len }
    }

    fn list(pieces: &Pieces, form: Form) -> Vec<Piece<'_>> {
        pieces.iter(form).collect()
    }

    #[test]
    fn neighbours_join() {
        let mut pieces = Pieces::new();
        pieces.push_span(A, 10, 5);
        pieces.push_span(A, 15, 5);
        pieces.push_span(A, 21, 1);
        pieces.push_span(B, 22, 1);
        pieces.push_span(B, 23, 0);
        pieces.insert(b"x");
        pieces.insert(b"");
        pieces.insert(b"y");
        let want = [
            span(A, 10, 10),
            span(A, 21, 1),
            span(B, 22, 1),
            Piece::Insert(b"xy"),
        ];
        assert_eq!(list(&pieces, Form::Data), want);
        assert_eq!(pieces.content_len(), 14);
    }

    #[test]
    fn a_dot_in_place_joins_its_neighbours_in_data_form_only() {
        let mut pieces = Pieces::new();
        pieces.push_span(A, 0, 40);
        pieces.push_dot_in_place();
        pieces.push_span(A, 41, 40);
        pieces.push_dot_in_place();
        pieces.push_span(A, 82, 40);
        pieces.push_dot();
        pieces.push_span(A, 123, 7);
        let data = [span(A, 0, 122), Piece::Insert(b"."), span(A, 123, 7)];
        assert_eq!(list(&pieces, Form::Data), data);
        let bdat = [
            span(A, 0, 40),
            span(A, 41, 40),
            span(A, 82, 40),
            span(A, 123, 7),
        ];
        assert_eq!(list(&pieces, Form::Bdat), bdat);
        assert_eq!(
            (pieces.wire_len(Form::Data), pieces.wire_len(Form::Bdat)),
            (130, 127)
        );

        let mut concrete = Pieces::new();
        concrete.append_in(Form::Data, &mut pieces);
        assert_eq!(
            list(&concrete, Form::Bdat),
            data,
            "concrete reads the same in both forms"
        );
        assert!(pieces.is_empty() && pieces.wire_len(Form::Data) == 0);
    }

    #[test]
    fn a_dot_in_place_across_buffers_is_written() {
        let mut pieces = Pieces::new();
        pieces.push_span(A, 0, 40);
        pieces.push_dot_in_place();
        pieces.push_span(B, 1, 40);
        assert_eq!(
            list(&pieces, Form::Data),
            [span(A, 0, 40), Piece::Insert(b"."), span(B, 1, 40)]
        );
    }

    #[test]
    fn little_content_is_copied_unless_it_continues_a_span() {
        let mut pieces = Pieces::new();
        pieces.push_content(A, 0, &[b'a'; SPAN_MIN]);
        pieces.push_content(A, SPAN_MIN as u32, b"bc");
        pieces.push_content(A, 100, b"de");
        pieces.push_content(B, 0, b"fg");
        assert_eq!(
            list(&pieces, Form::Data),
            [span(A, 0, SPAN_MIN as u32 + 2), Piece::Insert(b"defg")]
        );
    }

    #[test]
    fn a_header_goes_before_everything() {
        let mut pieces = Pieces::new();
        pieces.insert(b"body");
        pieces.insert_front(b"two\r\n");
        pieces.insert_front(b"one\r\n");
        pieces.insert(b"!");
        let text: Vec<u8> = list(&pieces, Form::Bdat)
            .into_iter()
            .flat_map(|piece| match piece {
                Piece::Insert(bytes) => bytes,
                Piece::Span { .. } => unreachable!("nothing but inserts"),
            })
            .copied()
            .collect();
        assert_eq!(text, b"one\r\ntwo\r\nbody!");
    }

    #[test]
    fn kept_buffers_move_with_the_list_and_come_out() {
        let (mut one, mut other) = (Pieces::new(), Pieces::new());
        other.push_span(A, 0, 1);
        other.keep(A);
        one.keep(B);
        one.append(&mut other);
        assert!(other.kept().is_empty() && other.is_empty());
        assert_eq!(one.kept(), [B, A]);
        let mut copy = Pieces::new();
        copy.copy(&one);
        assert!(copy.kept().is_empty() && copy.content_len() == 1);
        assert_eq!(one.release().collect::<Vec<_>>(), [B, A]);
        assert!(one.is_empty() && one.kept().is_empty());
    }

    #[test]
    #[should_panic(expected = "still claims buffers")]
    fn clearing_a_list_that_claims_buffers_is_a_mistake() {
        let mut pieces = Pieces::new();
        pieces.keep(A);
        pieces.clear();
    }

    #[derive(Clone, Debug)]
    enum Op {
        Span(u32, u32, u32),
        Insert(Vec<u8>),
        Front(Vec<u8>),
        Dot,
        Keep(u32),
        /// Build what follows in a second list and append it at the end.
        Append,
        AppendIn(bool),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (0u32..3, 0u32..40, 0u32..10).prop_map(|(id, start, len)| Op::Span(id, start, len)),
            3 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Op::Insert),
            1 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Op::Front),
            3 => Just(Op::Dot),
            1 => (0u32..3).prop_map(Op::Keep),
            1 => Just(Op::Append),
            1 => any::<bool>().prop_map(Op::AppendIn),
        ]
    }

    /// The same list as two strings and a count.
    #[derive(Default)]
    struct Model {
        content: Vec<u8>,
        wire: Vec<u8>,
        kept: usize,
    }

    /// Byte `at` of buffer `id`.
    fn byte(id: u32, at: u32) -> u8 {
        (id * 64 + at) as u8
    }

    fn read(pieces: &Pieces, form: Form) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces.iter(form) {
            match piece {
                Piece::Insert(bytes) => out.extend_from_slice(bytes),
                Piece::Span { buffer, start, len } => {
                    out.extend((start..start + len).map(|at| byte(buffer.0, at)))
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_list_is_what_was_put_into_it(ops in prop::collection::vec(op(), 0..40)) {
            let mut lists = vec![(Pieces::new(), Model::default())];
            let mut joins = Vec::new();
            for op in ops {
                let (pieces, model) = lists.last_mut().expect("never empty");
                match op {
                    Op::Span(id, start, len) => {
                        pieces.push_span(BufferId(id), start, len);
                        let bytes: Vec<u8> = (start..start + len).map(|at| byte(id, at)).collect();
                        model.content.extend_from_slice(&bytes);
                        model.wire.extend_from_slice(&bytes);
                    }
                    Op::Insert(bytes) => {
                        pieces.insert(&bytes);
                        model.content.extend_from_slice(&bytes);
                        model.wire.extend_from_slice(&bytes);
                    }
                    Op::Front(bytes) => {
                        pieces.insert_front(&bytes);
                        model.content.splice(0..0, bytes.iter().copied());
                        model.wire.splice(0..0, bytes.iter().copied());
                    }
                    Op::Dot => {
                        pieces.push_dot();
                        model.wire.push(b'.');
                    }
                    Op::Keep(id) => {
                        pieces.keep(BufferId(id));
                        model.kept += 1;
                    }
                    Op::Append | Op::AppendIn(_) => {
                        joins.push(op);
                        lists.push((Pieces::new(), Model::default()));
                    }
                }
            }
            while let Some(join) = joins.pop() {
                let (mut pieces, model) = lists.pop().expect("a list for each join");
                let (below, under) = lists.last_mut().expect("one more list than joins");
                under.kept += model.kept;
                let form = match join {
                    Op::AppendIn(true) => Some(Form::Data),
                    Op::AppendIn(false) => Some(Form::Bdat),
                    _ => None,
                };
                under.content.extend_from_slice(if form == Some(Form::Data) { &model.wire } else { &model.content });
                under.wire.extend_from_slice(if form == Some(Form::Bdat) { &model.content } else { &model.wire });
                match form {
                    Some(form) => below.append_in(form, &mut pieces),
                    None => below.append(&mut pieces),
                }
                prop_assert!(pieces.is_empty() && pieces.kept().is_empty() && pieces.memory() == 0);
            }
            let (pieces, model) = &lists[0];
            prop_assert_eq!(read(pieces, Form::Bdat), &model.content[..]);
            prop_assert_eq!(read(pieces, Form::Data), &model.wire[..]);
            prop_assert_eq!(pieces.content_len(), model.content.len() as u64);
            prop_assert_eq!(pieces.wire_len(Form::Data), model.wire.len() as u64);
            prop_assert_eq!(pieces.kept().len(), model.kept);
        }
    }
}
