//! Byte buffers on their way to the kernel, and how the pieces of an upstream's flight become one write.
//!
//! A session or leg owns a buffer only while bytes wait in it or are under way; the rest of the time its buffer lies in
//! the shard's list. So the number of buffers follows the number of sends in flight, and a steady state allocates none.

use weir_smtp::pieces::{Form, Piece, Pieces};

use crate::ring::{Part, Wire};

/// Buffers kept for reuse, of each size, and the capacity beyond which one is cut: 256 × (512 B + 16 KiB) a shard.
const KEPT_MAX: usize = 256;
const KEPT_BYTES: usize = 16 * 1024;

/// What replies and commands fit into. Larger flights have buffers of their own: mixed, each would grow the small ones anew.
const SMALL: usize = 512;

/// Flights up to this size are copied into one buffer and sent as plain bytes. A gathered send costs the kernel the
/// import of its vector and two references per buffer, which is dearer than the copy of a page or two.
pub const COPY_FLIGHT: u64 = 8 * 1024;

/// Spans shorter than this are copied even into a large flight.
const COPY_SPAN: u32 = 1024;

/// Parts of one gathered send; the kernel takes 1024.
pub const PARTS_MAX: usize = 512;

/// The free lists of one shard.
#[derive(Debug, Default)]
pub struct Flights {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Flights {
    /// An empty buffer for about `len` bytes.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let (list, least) = match len {
            0..=SMALL => (&mut self.small, SMALL),
            _ => (&mut self.large, COPY_FLIGHT as usize + SMALL),
        };
        list.pop()
            .unwrap_or_else(|| Vec::with_capacity(least.max(len)))
    }

    pub fn give_back(&mut self, mut flight: Vec<u8>) {
        flight.clear();
        let list = match flight.capacity() {
            0..SMALL => return,
            capacity if capacity < COPY_FLIGHT as usize => &mut self.small,
            _ => &mut self.large,
        };
        if list.len() < KEPT_MAX {
            flight.shrink_to(KEPT_BYTES);
            list.push(flight);
        }
    }

    /// Makes sure `bytes` has memory to grow in, before somebody writes to it.
    pub fn equip(&mut self, bytes: &mut Vec<u8>) {
        if bytes.capacity() == 0 {
            *bytes = self.take(0);
        }
    }

    /// Takes the memory of an empty `bytes` back.
    pub fn relieve(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() && bytes.capacity() > 0 {
            self.give_back(std::mem::take(bytes));
        }
    }
}

/// Writes all of `pieces` into `head` and `parts`. Without parts the flight is `head` alone.
///
/// `parts` stays within [`PARTS_MAX`]: the larger a flight, the longer the spans that are still copied.
pub fn gather<W: Wire>(
    wire: &W,
    pieces: &Pieces,
    form: Form,
    head: &mut Vec<u8>,
    parts: &mut Vec<Part>,
) {
    head.clear();
    parts.clear();
    let total = pieces.wire_len(form);
    if total <= COPY_FLIGHT {
        for piece in pieces.iter(form) {
            head.extend_from_slice(bytes_of(wire, piece));
        }
        return;
    }
    let spans_min = u64::from(COPY_SPAN).max(total / (PARTS_MAX as u64 / 2 - 1) + 1);
    let mut from = 0;
    for piece in pieces.iter(form) {
        match piece {
            Piece::Span { buffer, start, len } if u64::from(len) >= spans_min => {
                close_bytes(head, &mut from, parts);
                parts.push(Part::Span { buffer, start, len });
            }
            small => head.extend_from_slice(bytes_of(wire, small)),
        }
    }
    if !parts.is_empty() {
        close_bytes(head, &mut from, parts);
    }
    assert!(
        parts.len() <= PARTS_MAX,
        "a flight has more parts than its size allows"
    );
}

fn bytes_of<'a, W: Wire>(wire: &'a W, piece: Piece<'a>) -> &'a [u8] {
    match piece {
        Piece::Insert(bytes) => bytes,
        Piece::Span { buffer, start, len } => {
            &wire.buffer(buffer)[start as usize..][..len as usize]
        }
    }
}

/// What was copied into `head` since `from` becomes one part.
fn close_bytes(head: &[u8], from: &mut usize, parts: &mut Vec<Part>) {
    if head.len() > *from {
        parts.push(Part::Bytes {
            start: *from as u32,
            len: (head.len() - *from) as u32,
        });
        *from = head.len();
    }
}
