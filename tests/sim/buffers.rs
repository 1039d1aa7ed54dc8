//! The wire's buffers, with reference counts that are checked: what nobody holds is poisoned, and to touch it is a fault.

use std::cell::Cell;

use weir::ring::{BufferId, Group};

/// As in the ring: a receive buffer and a copy buffer are equally large.
const SIZE: usize = 16 * 1024;

const POISON: u8 = 0xdd;

#[derive(Default)]
struct Buffer {
    storage: Vec<u8>,
    references: u32,
    filled: usize,
}

pub struct Buffers {
    all: Vec<Buffer>,
    /// Client, upstream.
    spare: [Vec<u32>; 2],
    first_upstream: u32,
    first_chunk: u32,
    spare_chunks: Vec<u32>,
    chunks: u32,
    /// A read through a shared reference that should not have been; reported with the next checked call.
    stale_read: Cell<Option<u32>>,
}

impl Buffers {
    pub fn new(client: u32, upstream: u32, chunks: u32) -> Buffers {
        let all = client + upstream + chunks;
        Buffers {
            all: (0..all).map(|_| Buffer::default()).collect(),
            spare: [
                (0..client).rev().collect(),
                (client..client + upstream).rev().collect(),
            ],
            first_upstream: client,
            first_chunk: client + upstream,
            spare_chunks: (client + upstream..all).rev().collect(),
            chunks,
            stale_read: Cell::new(None),
        }
    }

    pub fn size(&self) -> usize {
        SIZE
    }

    pub fn take(&mut self, group: Group) -> Option<BufferId> {
        let index = self.spare[group as usize].pop()?;
        Some(self.first_reference(index))
    }

    pub fn has_some(&self, group: Group) -> bool {
        !self.spare[group as usize].is_empty()
    }

    pub fn fill(&mut self, id: BufferId, bytes: &[u8]) {
        let buffer = &mut self.all[id.0 as usize];
        buffer.storage[..bytes.len()].copy_from_slice(bytes);
        buffer.filled = bytes.len();
    }

    pub fn peek(&self, id: BufferId) -> &[u8] {
        let buffer = &self.all[id.0 as usize];
        if buffer.references == 0 {
            self.stale_read.set(Some(id.0));
        }
        &buffer.storage
    }

    /// To be written to by the holder of its only reference.
    pub fn write(&mut self, id: BufferId, faults: &mut Vec<String>) -> &mut [u8] {
        let buffer = &mut self.all[id.0 as usize];
        if buffer.references != 1 {
            faults.push(format!(
                "buffer {} with {} references written to",
                id.0, buffer.references
            ));
        }
        buffer.filled = buffer.storage.len();
        &mut buffer.storage
    }

    pub fn read(&self, id: BufferId, faults: &mut Vec<String>) -> &[u8] {
        if self.all[id.0 as usize].references == 0 {
            faults.push(format!("a flight reads buffer {} after its release", id.0));
        }
        &self.all[id.0 as usize].storage
    }

    pub fn retain(&mut self, id: BufferId, faults: &mut Vec<String>) {
        let buffer = &mut self.all[id.0 as usize];
        if buffer.references == 0 {
            faults.push(format!("buffer {} retained after its release", id.0));
        }
        buffer.references += 1;
    }

    /// True if the buffer is free now.
    pub fn release(&mut self, id: BufferId, faults: &mut Vec<String>) -> bool {
        if let Some(stale) = self.stale_read.take() {
            faults.push(format!("buffer {stale} read after its release"));
        }
        let buffer = &mut self.all[id.0 as usize];
        if buffer.references == 0 {
            faults.push(format!("buffer {} released once too often", id.0));
            return false;
        }
        buffer.references -= 1;
        if buffer.references > 0 {
            return false;
        }
        buffer.storage[..buffer.filled].fill(POISON);
        buffer.filled = 0;
        if id.0 >= self.first_chunk {
            self.spare_chunks.push(id.0);
        } else {
            self.spare[usize::from(id.0 >= self.first_upstream)].push(id.0);
        }
        true
    }

    pub fn chunk(&mut self) -> Option<BufferId> {
        let index = self.spare_chunks.pop()?;
        Some(self.first_reference(index))
    }

    pub fn append(&mut self, id: BufferId, bytes: &[u8], faults: &mut Vec<String>) -> (u32, u32) {
        let buffer = &mut self.all[id.0 as usize];
        if id.0 < self.first_chunk || buffer.references == 0 {
            faults.push(format!("buffer {} is no copy buffer in use", id.0));
            return (0, 0);
        }
        let start = buffer.filled;
        let taken = bytes.len().min(SIZE - start);
        buffer.storage[start..start + taken].copy_from_slice(&bytes[..taken]);
        buffer.filled += taken;
        (start as u32, taken as u32)
    }

    /// Receive buffers of a group in use, and all of them.
    pub fn held(&self, group: Group) -> (usize, usize) {
        let all = match group {
            Group::Client => self.first_upstream,
            Group::Upstream => self.first_chunk - self.first_upstream,
        };
        (
            all as usize - self.spare[group as usize].len(),
            all as usize,
        )
    }

    pub fn held_chunks(&self) -> usize {
        self.chunks as usize - self.spare_chunks.len()
    }

    pub fn leftovers(&self) -> impl Iterator<Item = String> + '_ {
        let held = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, buffer)| buffer.references > 0);
        let stale = self
            .stale_read
            .get()
            .map(|id| format!("buffer {id} read after its release"));
        held.map(|(id, buffer)| {
            let kind = if id >= self.first_chunk as usize {
                "copy"
            } else {
                "receive"
            };
            format!(
                "{kind} buffer {id} still has {} references",
                buffer.references
            )
        })
        .chain(stale)
    }

    fn first_reference(&mut self, index: u32) -> BufferId {
        let buffer = &mut self.all[index as usize];
        buffer.references = 1;
        if buffer.storage.is_empty() {
            buffer.storage = vec![POISON; SIZE];
        }
        BufferId(index)
    }
}
