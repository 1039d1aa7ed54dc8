//! What is being sent: bytes, the list of their pieces, and the references to the buffers they lie in, at a place that stays until the send is over.
//!
//! Flights are recycled with their allocations, so a session in steady state allocates nothing to send.

use super::address::RawAddress;
use super::wire::{BufferId, Part};

/// The kernel's IOV_MAX: a longer list goes out in several sends, one after the other.
const PIECES_PER_SEND: usize = 1024;

pub(super) struct Flight {
    head: Vec<u8>,
    pieces: Vec<libc::iovec>,
    message: libc::msghdr,
    held: Vec<BufferId>,
    /// The first piece that has not been sent.
    next: usize,
    sent: usize,
    /// Where a connect goes; not a send, but it needs a place that stays as well.
    to: RawAddress,
}

pub(super) struct Flights {
    // Boxed, because the kernel has their addresses while the table grows.
    #[expect(clippy::vec_box)]
    table: Vec<Box<Flight>>,
    spare: Vec<u32>,
}

impl Flights {
    pub(super) fn new() -> Flights {
        Flights {
            table: Vec::new(),
            spare: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self) -> u32 {
        self.spare.pop().unwrap_or_else(|| {
            self.table.push(Box::new(Flight::empty()));
            self.table.len() as u32 - 1
        })
    }

    pub(super) fn get(&mut self, index: u32) -> &mut Flight {
        &mut self.table[index as usize]
    }

    /// The flight is over: gives back its bytes' allocation, empty, and the buffers it held.
    pub(super) fn end(&mut self, index: u32, mut release: impl FnMut(BufferId)) -> Vec<u8> {
        let flight = &mut self.table[index as usize];
        flight.held.drain(..).for_each(&mut release);
        flight.pieces.clear();
        let mut head = std::mem::take(&mut flight.head);
        head.clear();
        self.spare.push(index);
        head
    }
}

impl Flight {
    fn empty() -> Flight {
        Flight {
            head: Vec::new(),
            pieces: Vec::new(),
            // SAFETY: all-zero is the empty message: no name, no pieces, no control data.
            message: unsafe { std::mem::zeroed() },
            held: Vec::new(),
            next: 0,
            sent: 0,
            to: RawAddress::empty(),
        }
    }

    /// One buffer, no list.
    pub(super) fn load(&mut self, bytes: Vec<u8>) -> (*const u8, u32) {
        self.head = bytes;
        let len = u32::try_from(self.head.len()).expect("a flight is far below 4 GiB");
        (self.head.as_ptr(), len)
    }

    /// Lists the parts. `span` resolves a span to its address, and has taken a reference for us.
    pub(super) fn gather(
        &mut self,
        head: Vec<u8>,
        parts: &[Part],
        mut span: impl FnMut(BufferId, u32, u32) -> *const u8,
    ) {
        self.head = head;
        self.next = 0;
        self.sent = 0;
        for part in parts {
            let (base, len) = match *part {
                Part::Bytes { start, len } => {
                    let bytes = &self.head[start as usize..][..len as usize];
                    (bytes.as_ptr(), bytes.len())
                }
                Part::Span { buffer, start, len } => {
                    self.held.push(buffer);
                    (span(buffer, start, len), len as usize)
                }
            };
            if len > 0 {
                self.pieces.push(libc::iovec {
                    iov_base: base.cast_mut().cast(),
                    iov_len: len,
                });
            }
        }
    }

    /// The message for the next send of a gathered flight.
    pub(super) fn message(&mut self) -> *const libc::msghdr {
        let pieces = &mut self.pieces[self.next..];
        self.message.msg_iovlen = pieces.len().min(PIECES_PER_SEND) as _;
        self.message.msg_iov = pieces.as_mut_ptr();
        &raw const self.message
    }

    /// A send of [`Flight::message`] has brought `count` bytes on their way. True if more is to be sent and can be.
    pub(super) fn advance(&mut self, count: usize) -> bool {
        let end = (self.next + PIECES_PER_SEND).min(self.pieces.len());
        let tried: usize = self.pieces[self.next..end].iter().map(|p| p.iov_len).sum();
        self.next = end;
        self.sent += count;
        count == tried && end < self.pieces.len()
    }

    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    pub(super) fn connect_to(&mut self, to: RawAddress) -> &RawAddress {
        self.to = to;
        &self.to
    }
}
