//! A list of pieces reads as what was put into it, in both forms. The input is a list of operations, one byte each and one or two of operands,
//! done to two lists of which the second is now and then appended to the first; a pair of strings is the model.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_smtp::pieces::{BufferId, Form, Piece, Pieces};

#[derive(Default)]
struct Model {
    content: Vec<u8>,
    wire: Vec<u8>,
    kept: usize,
}

impl Model {
    fn push(&mut self, bytes: &[u8]) {
        self.content.extend_from_slice(bytes);
        self.wire.extend_from_slice(bytes);
    }
}

fuzz_target!(|data: &[u8]| {
    let (mut first, mut first_model) = (Pieces::new(), Model::default());
    let (mut list, mut model) = (Pieces::new(), Model::default());
    let mut input = data.iter().copied();
    while let Some(op) = input.next() {
        let mut operand = || input.next().unwrap_or(0);
        match op % 9 {
            0 => {
                let (start, len) = (operand(), operand() % 50);
                list.push_span(BufferId(u32::from(op & 1)), start.into(), len.into());
                model.push(&span(u32::from(op & 1), start.into(), len.into()));
            }
            1 => {
                let (start, len) = (operand(), operand() % 50);
                let bytes = span(2, start.into(), len.into());
                list.push_content(BufferId(2), start.into(), &bytes);
                model.push(&bytes);
            }
            2 => {
                let byte = [operand()];
                list.insert(&byte);
                model.push(&byte);
            }
            3 => {
                let bytes = [operand(), operand()];
                list.insert_front(&bytes);
                model.content.splice(0..0, bytes);
                model.wire.splice(0..0, bytes);
            }
            4 => {
                list.push_dot();
                model.wire.push(b'.');
            }
            // a doubled dot as the scanner leaves it: the dot is the byte between two spans
            5 => {
                let at = operand();
                list.push_span(BufferId(3), at.into(), 3);
                list.push_dot_in_place();
                list.push_span(BufferId(3), u32::from(at) + 4, 3);
                model.push(&span(3, at.into(), 3));
                model.wire.push(b'.');
                model.push(&span(3, u32::from(at) + 4, 3));
            }
            6 => {
                list.keep(BufferId(op.into()));
                model.kept += 1;
            }
            7 => {
                first.append(&mut list);
                first_model.content.append(&mut model.content);
                first_model.wire.append(&mut model.wire);
                first_model.kept += std::mem::take(&mut model.kept);
            }
            _ => {
                let form = if op & 16 == 0 { Form::Data } else { Form::Bdat };
                let concrete = if form == Form::Data {
                    &model.wire
                } else {
                    &model.content
                };
                first_model.push(concrete);
                first_model.kept += model.kept;
                model = Model::default();
                first.append_in(form, &mut list);
            }
        }
        check(&list, &model);
    }
    check(&first, &first_model);
    assert_eq!(first.release().count(), first_model.kept);
    assert_eq!(list.release().count(), model.kept);
    first.clear();
    assert!(first.is_empty() && first.memory() == 0);
});

fn check(list: &Pieces, model: &Model) {
    assert_eq!(list.content_len(), model.content.len() as u64);
    assert_eq!(list.wire_len(Form::Data), model.wire.len() as u64);
    assert_eq!(list.kept().len(), model.kept);
    assert_eq!(read(list, Form::Bdat), model.content);
    assert_eq!(read(list, Form::Data), model.wire);
}

/// Bytes of a buffer. Buffer 3 is all dots, so that whichever byte a dot in place stands for is one.
fn span(buffer: u32, start: u32, len: u32) -> Vec<u8> {
    (start..start + len)
        .map(|at| {
            if buffer == 3 {
                b'.'
            } else {
                (buffer * 85 + at) as u8
            }
        })
        .collect()
}

fn read(list: &Pieces, form: Form) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in list.iter(form) {
        match piece {
            Piece::Insert(bytes) => out.extend_from_slice(bytes),
            Piece::Span { buffer, start, len } => out.extend(span(buffer.0, start, len)),
        }
    }
    out
}
