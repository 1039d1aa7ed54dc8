//! Shelves: byte vectors that one thread fills and the writer takes away, without the filler ever waiting.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, OnceLock, TryLockError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::Thread,
};

/// Bytes a shelf may hold before lines are dropped. The writer comes every 10 ms: 25 MB of log a second and shard.
/// Worst case memory: 3 vectors (two shelves, one with the writer) of this size per shard.
pub const PENDING_MAX: usize = 256 << 10;

/// One filler's shelves.
pub struct Shelves {
    shelves: Box<[Mutex<Vec<u8>>]>,
    bell: &'static Bell,
}

/// Wakes the writer when it sleeps; costs one load when it does not.
///
/// Lives as long as the process (one per log): the writer thread may still be looking at it while everything else goes down.
#[derive(Default)]
pub struct Bell {
    asleep: AtomicBool,
    writer: OnceLock<Thread>,
}

impl Shelves {
    /// A single filler needs two shelves, so that the one the writer does not hold is free; more fillers, more shelves.
    pub fn new(count: usize, bell: &'static Bell) -> Self {
        assert!(
            count >= 2,
            "with one shelf a filler would have to wait for the writer"
        );
        Self {
            shelves: (0..count).map(|_| Mutex::default()).collect(),
            bell,
        }
    }

    /// A shelf with room for a line, or None: the reader of the log is too slow.
    pub fn open(&self) -> Option<MutexGuard<'_, Vec<u8>>> {
        let free = self.shelves.iter().find_map(try_lock)?;
        (free.len() < PENDING_MAX).then_some(free)
    }

    /// To be called after a line was put on a shelf and the shelf was let go.
    pub fn filled(&self) {
        self.bell.ring();
    }

    /// Takes everything away: `each` gets the bytes of every shelf in turn, `spare` goes round as the empty vector.
    pub fn take(&self, spare: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
        for shelf in &self.shelves {
            spare.clear();
            {
                let mut pending = shelf
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner());
                if pending.is_empty() {
                    continue;
                }
                mem::swap(&mut *pending, spare);
            }
            each(spare);
        }
    }

    pub fn is_empty(&self) -> bool {
        let lock = |shelf: &Mutex<Vec<u8>>| {
            shelf
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .is_empty()
        };
        self.shelves.iter().all(lock)
    }
}

/// A poisoned shelf (a panic while formatting) holds whole lines and perhaps half of one: still worth reading.
fn try_lock(shelf: &Mutex<Vec<u8>>) -> Option<MutexGuard<'_, Vec<u8>>> {
    match shelf.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Bell {
    /// The writer is about to sleep; it looks at the shelves once more before it does.
    /// A filler that comes after that look sees the flag, because the shelf's lock orders the two.
    pub fn going_to_sleep(&self) {
        self.writer.get_or_init(std::thread::current);
        self.asleep.store(true, SeqCst);
    }

    pub fn awake(&self) {
        self.asleep.store(false, SeqCst);
    }

    pub fn ring(&self) {
        if self.asleep.load(SeqCst)
            && self.asleep.swap(false, SeqCst)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelves() -> Shelves {
        Shelves::new(2, Box::leak(Box::default()))
    }

    #[test]
    fn one_shelf_is_free_while_the_other_is_taken() {
        let shelves = shelves();
        let taken = shelves.open().unwrap();
        shelves
            .open()
            .expect("the second shelf")
            .extend_from_slice(b"line\n");
        assert!(shelves.shelves[1].lock().is_ok_and(|s| s.len() == 5));
        drop(taken);
    }

    #[test]
    fn a_full_shelf_takes_no_more_until_it_was_emptied() {
        let shelves = shelves();
        shelves.open().unwrap().resize(PENDING_MAX, b'x');
        assert!(shelves.open().is_none());
        let mut bytes = 0;
        shelves.take(&mut Vec::new(), |batch| bytes += batch.len());
        assert_eq!(bytes, PENDING_MAX);
        assert!(shelves.open().is_some() && shelves.is_empty());
    }

    #[test]
    fn vectors_go_round_without_new_ones() {
        let shelves = shelves();
        let mut spare = Vec::with_capacity(1 << 10);
        for _ in 0..100 {
            shelves.open().unwrap().extend_from_slice(&[b'x'; 500]);
            shelves.take(&mut spare, |_| {});
        }
        assert!(
            spare.capacity() <= 1 << 10,
            "no vector grew beyond what a round needs"
        );
    }
}
