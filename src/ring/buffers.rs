//! The shard's buffers: what receives land in, a group each for clients and upstreams, and the copy buffers of the hold budget.
//!
//! All are counted by reference, because a body is sent on from the very buffer it arrived in.
//! The kernel takes provided buffers in the order they were offered. Offering all of them would walk through megabytes for a few busy sessions,
//! so only a window is on offer and the one given back last is offered next: the same few stay in the cache. A window that proves too small doubles.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::mapping::{Mapping, Zeroable};
use super::wire::{BufferId, Group};

/// What a group offers the kernel at first.
const WINDOW_MIN: usize = 32;

/// The largest group the kernel takes.
pub(super) const GROUP_MAX: usize = 1 << 15;

pub(super) struct Buffers {
    storage: Mapping<u8>,
    size: usize,
    groups: [Offered; 2],
    references: Vec<u16>,
    chunks: Chunks,
}

/// A group of provided buffers and the queue they are offered through.
struct Offered {
    queue: Mapping<QueueEntry>,
    /// The first buffer's id.
    first: u32,
    count: usize,
    tail: u16,
    /// In the queue, as far as completions have told.
    offered: usize,
    window: usize,
    spare: Vec<u16>,
}

/// An entry of the queue that kernel and process share; only ever written through raw pointers.
#[repr(C, align(16))]
struct QueueEntry([u8; 16]);

// SAFETY: bytes.
unsafe impl Zeroable for QueueEntry {}

const _: () = assert!(size_of::<QueueEntry>() == size_of::<BufRingEntry>());

/// Buffers that bytes are copied to when they have to wait. Storage is touched as it is first used.
struct Chunks {
    first: u32,
    max: usize,
    /// Used at least once; beyond this the storage is fresh.
    begun: usize,
    spare: Vec<u32>,
    /// Bytes filled, per chunk begun.
    filled: Vec<u32>,
}

impl Buffers {
    pub(super) fn new(
        uring: &IoUring,
        size: usize,
        counts: [usize; 2],
        chunks: usize,
    ) -> io::Result<Buffers> {
        let provided = counts[0] + counts[1];
        let groups = [
            Offered::new(0, counts[0])?,
            Offered::new(counts[0] as u32, counts[1])?,
        ];
        for (group, offered) in groups.iter().enumerate() {
            let entries = offered.queue.len() as u16;
            // SAFETY: the queue is page-aligned, has this many entries, and outlives the ring: `Ring` drops its buffers after it.
            unsafe {
                uring.submitter().register_buf_ring_with_flags(
                    offered.queue.base() as u64,
                    entries,
                    group as u16,
                    0,
                )?;
            }
        }
        let mut buffers = Buffers {
            storage: Mapping::new((provided + chunks) * size)?,
            size,
            groups,
            references: vec![0; provided + chunks],
            chunks: Chunks {
                first: provided as u32,
                max: chunks,
                begun: 0,
                spare: Vec::new(),
                filled: Vec::new(),
            },
        };
        buffers.offer();
        Ok(buffers)
    }

    /// Tops up what is on offer. Once a turn, before the kernel is entered.
    pub(super) fn offer(&mut self) {
        for offered in &mut self.groups {
            offered.top_up(self.storage.base(), self.size);
        }
    }

    /// The kernel has put input into this buffer: the first reference is its reader's.
    pub(super) fn taken(&mut self, group: Group, index: u16) -> BufferId {
        let offered = &mut self.groups[group as usize];
        offered.offered -= 1;
        let id = offered.first + u32::from(index);
        debug_assert_eq!(self.references[id as usize], 0);
        self.references[id as usize] = 1;
        BufferId(id)
    }

    /// Whether a receive that is armed now could find a buffer.
    pub(super) fn has_some(&self, group: Group) -> bool {
        let offered = &self.groups[group as usize];
        offered.offered > 0 || !offered.spare.is_empty()
    }

    pub(super) fn on_offer(&self, group: Group) -> usize {
        self.groups[group as usize].offered
    }

    /// A receive found nothing on offer: offer more from now on, if there is more.
    pub(super) fn widen(&mut self, group: Group) {
        let offered = &mut self.groups[group as usize];
        offered.window = (offered.window * 2).min(offered.count);
    }

    pub(super) fn bytes(&self, id: BufferId) -> &[u8] {
        let start = id.0 as usize * self.size;
        assert!(
            self.references[id.0 as usize] > 0,
            "buffer {} read after its last release",
            id.0
        );
        // SAFETY: inside the storage, which is zeroed at first. A buffer that is referenced is not on offer, so the kernel does not write to it.
        unsafe { std::slice::from_raw_parts(self.storage.base().add(start), self.size) }
    }

    pub(super) fn bytes_mut(&mut self, id: BufferId) -> &mut [u8] {
        let start = id.0 as usize * self.size;
        assert!(
            self.references[id.0 as usize] == 1,
            "buffer {} written to while others read it",
            id.0
        );
        // SAFETY: as above, and this reference is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.storage.base().add(start), self.size) }
    }

    pub(super) fn retain(&mut self, id: BufferId) {
        let count = &mut self.references[id.0 as usize];
        assert!(
            *count > 0,
            "buffer {} retained after its last release",
            id.0
        );
        *count = count
            .checked_add(1)
            .expect("a buffer is never held by more than 65535 spans");
    }

    pub(super) fn release(&mut self, id: BufferId) {
        let count = &mut self.references[id.0 as usize];
        assert!(*count > 0, "buffer {} released once too often", id.0);
        *count -= 1;
        if *count > 0 {
            return;
        }
        if id.0 >= self.chunks.first {
            self.chunks.spare.push(id.0 - self.chunks.first);
        } else {
            let offered = &mut self.groups[usize::from(id.0 >= self.groups[1].first)];
            offered.spare.push((id.0 - offered.first) as u16);
        }
    }

    pub(super) fn chunk(&mut self) -> Option<BufferId> {
        let chunks = &mut self.chunks;
        let index = match chunks.spare.pop() {
            Some(index) => index,
            None if chunks.begun < chunks.max => {
                chunks.begun += 1;
                chunks.filled.push(0);
                chunks.begun as u32 - 1
            }
            None => return None,
        };
        chunks.filled[index as usize] = 0;
        let id = chunks.first + index;
        self.references[id as usize] = 1;
        Some(BufferId(id))
    }

    pub(super) fn chunk_append(&mut self, id: BufferId, bytes: &[u8]) -> (u32, u32) {
        assert!(
            id.0 >= self.chunks.first && self.references[id.0 as usize] > 0,
            "buffer {} is no copy buffer in use",
            id.0
        );
        let filled = &mut self.chunks.filled[(id.0 - self.chunks.first) as usize];
        let start = *filled;
        let taken = bytes.len().min(self.size - start as usize);
        *filled += taken as u32;
        let at = id.0 as usize * self.size + start as usize;
        // SAFETY: inside the chunk and behind what was filled before, which a send may be reading at this moment.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.storage.base().add(at), taken);
        }
        (start, taken as u32)
    }

    pub(super) fn held_chunks(&self) -> usize {
        self.chunks.begun - self.chunks.spare.len()
    }

    /// All provided buffers of a group.
    pub(super) fn count(&self, group: Group) -> usize {
        self.groups[group as usize].count
    }

    /// Provided buffers that somebody holds a reference to.
    pub(super) fn held(&self, group: Group) -> usize {
        let offered = &self.groups[group as usize];
        offered.count - offered.offered - offered.spare.len()
    }
}

impl Offered {
    fn new(first: u32, count: usize) -> io::Result<Offered> {
        assert!(
            (1..=GROUP_MAX).contains(&count),
            "a group has 1 to {GROUP_MAX} buffers"
        );
        Ok(Offered {
            queue: Mapping::new(count.next_power_of_two())?,
            first,
            count,
            tail: 0,
            offered: 0,
            window: WINDOW_MIN.min(count),
            spare: (0..count as u16).rev().collect(),
        })
    }

    fn top_up(&mut self, storage: *mut u8, size: usize) {
        if self.offered >= self.window || self.spare.is_empty() {
            return;
        }
        let base: *mut BufRingEntry = self.queue.base().cast();
        while self.offered < self.window
            && let Some(index) = self.spare.pop()
        {
            let at = self.tail as usize & (self.queue.len() - 1);
            let start = (self.first as usize + index as usize) * size;
            // SAFETY: `at` is inside the queue; the entry is not on offer, so the kernel does not read it, and the fields written are not the tail.
            unsafe {
                let entry = &mut *base.add(at);
                entry.set_addr(storage.add(start) as u64);
                entry.set_len(size as u32);
                entry.set_bid(index);
            }
            self.tail = self.tail.wrapping_add(1);
            self.offered += 1;
        }
        // SAFETY: the tail lies in the first entry, two bytes aligned to two; the kernel reads it with acquire.
        unsafe {
            let tail = BufRingEntry::tail(base).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}
