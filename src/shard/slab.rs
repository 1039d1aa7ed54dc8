//! A slab that grows and shrinks by chunks: the home of sessions, upstream legs and parked clients.
//!
//! A `Vec` doubles: at a million entries one insert copies the whole, and what a burst took never
//! comes back. Here entries live in chunks of [`CHUNK_BYTES`]; a new chunk moves nothing, and a chunk
//! that runs empty is freed (one is kept, so that a count that hovers at a boundary does not
//! allocate). Inserts fill the lowest chunk with room, so that the high ones run empty.
//!
//! A [`Key`] carries a generation: a key of an entry that is gone finds nothing, also after its
//! place was taken again. Timers and completions may thus outlive what they were meant for.

/// A chunk has as many entries as fit: an even size wastes nothing in the allocator, and however large the entries are,
/// a chunk of them runs empty soon enough.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// Names an entry. Fits in 56 bits ([`Key::to_bits`]), so that an owner may add a tag of its own in the top byte.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Key {
    index: u32,
    generation: u32,
}

/// Generations count to 2^24 and start over: a key would have to be kept over 16 million reuses of its place to be mistaken.
const GENERATION_MASK: u32 = 0x00ff_ffff;
/// Ends a list of free places.
const NOWHERE: u32 = u32::MAX;

impl Key {
    /// The place alone, for tables that run beside the slab.
    pub const fn index(self) -> u32 {
        self.index
    }

    /// The key as a number below 2^56.
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.index as u64
    }

    /// What [`Key::to_bits`] made; the top byte is ignored.
    pub const fn from_bits(bits: u64) -> Key {
        Key {
            index: bits as u32,
            generation: (bits >> 32) as u32 & GENERATION_MASK,
        }
    }
}

/// The slab. Holds at most `capacity` entries; memory follows the number of entries in use.
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks that have room, one bit each, so that the lowest is found fast.
    open: Vec<u64>,
    /// One empty chunk that is kept for the next need.
    spare: Option<Box<[Entry<T>]>>,
    len: u32,
    capacity: u32,
}

struct Chunk<T> {
    /// None: nothing in it, memory given back.
    entries: Option<Box<[Entry<T>]>>,
    used: u32,
    /// Head of the list of free places (indices within the chunk).
    free: u32,
    /// Where generations go on when the chunk comes back.
    generation: u32,
}

struct Entry<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// An empty slab for at most `capacity` entries. Allocates nothing yet.
    pub const fn new(capacity: u32) -> Self {
        Slab {
            chunks: Vec::new(),
            open: Vec::new(),
            spare: None,
            len: 0,
            capacity,
        }
    }

    /// Stores a value, or gives it back when the slab is full.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        let mut value = Some(value);
        let key = self.insert_with(|_| value.take().expect("called once"));
        key.ok_or_else(|| value.take().expect("not called when full"))
    }

    /// Stores what `make` builds, which gets to know its own key; None when the slab is full (`make` is not called then).
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if self.is_full() {
            return None;
        }
        let number = self.chunk_with_room();
        let chunk = &mut self.chunks[number];
        let entries = chunk.entries.as_mut().expect("an open chunk has memory");
        let within = chunk.free as usize;
        let entry = &mut entries[within];
        let key = Key {
            index: (number * Self::CHUNK + within) as u32,
            generation: entry.generation,
        };
        debug_assert!(entry.value.is_none());
        chunk.free = entry.next_free;
        chunk.used += 1;
        self.len += 1;
        if chunk.free == NOWHERE {
            self.open[number / 64] &= !(1 << (number % 64));
        }
        entry.value = Some(make(key));
        Some(key)
    }

    /// Takes an entry out. None if it is gone already.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (number, within) = Self::split(key.index);
        let chunk = self.chunks.get_mut(number)?;
        let entry = chunk.entries.as_mut()?.get_mut(within)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = following(entry.generation);
        entry.next_free = chunk.free;
        chunk.free = within as u32;
        chunk.used -= 1;
        self.len -= 1;
        self.open[number / 64] |= 1 << (number % 64);
        if chunk.used == 0 {
            self.empty_out(number);
        }
        Some(value)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let (number, within) = Self::split(key.index);
        let entry = self.chunks.get(number)?.entries.as_ref()?.get(within)?;
        (entry.generation == key.generation).then_some(entry.value.as_ref())?
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (number, within) = Self::split(key.index);
        let entry = self
            .chunks
            .get_mut(number)?
            .entries
            .as_mut()?
            .get_mut(within)?;
        (entry.generation == key.generation).then_some(entry.value.as_mut())?
    }

    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    pub const fn len(&self) -> usize {
        self.len as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub const fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    pub const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// All entries, in order of place.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let entries = chunk.entries.iter().flat_map(|entries| entries.iter());
            entries.enumerate().filter_map(move |(within, entry)| {
                let key = Key {
                    index: (number * Self::CHUNK + within) as u32,
                    generation: entry.generation,
                };
                entry.value.as_ref().map(|value| (key, value))
            })
        })
    }

    /// The first entry at place `from` or higher: lets a walk over everything stop and go on later,
    /// while entries come and go. Go on at `key.index() + 1`.
    pub fn next_from(&self, from: u32) -> Option<Key> {
        let (first, mut within) = Self::split(from);
        for number in first..self.chunks.len() {
            if let Some(entries) = &self.chunks[number].entries
                && let Some(step) = entries[within..]
                    .iter()
                    .position(|entry| entry.value.is_some())
            {
                let within = within + step;
                return Some(Key {
                    index: (number * Self::CHUNK + within) as u32,
                    generation: entries[within].generation,
                });
            }
            within = 0;
        }
        None
    }

    /// The key of whatever lives at a place now.
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let (number, within) = Self::split(index);
        let entry = self.chunks.get(number)?.entries.as_ref()?.get(within)?;
        let generation = entry.generation;
        entry.value.is_some().then_some(Key { index, generation })
    }

    /// Bytes of memory in use, without what the values own elsewhere.
    pub fn memory(&self) -> usize {
        let chunks = self
            .chunks
            .iter()
            .filter(|chunk| chunk.entries.is_some())
            .count()
            + usize::from(self.spare.is_some());
        chunks * Self::CHUNK * size_of::<Entry<T>>()
            + self.chunks.capacity() * size_of::<Chunk<T>>()
            + self.open.capacity() * size_of::<u64>()
    }

    /// Entries of one chunk.
    const CHUNK: usize = {
        let entries = CHUNK_BYTES / size_of::<Entry<T>>();
        assert!(entries >= 8, "entries this large belong into boxes");
        entries
    };

    /// Chunk and place in it.
    const fn split(index: u32) -> (usize, usize) {
        let index = index as usize;
        (index / Self::CHUNK, index % Self::CHUNK)
    }

    /// Bytes one entry takes, a value of `T` included.
    pub const ENTRY_BYTES: usize = size_of::<Entry<T>>();

    /// The lowest chunk with a free place; makes one if there is none.
    fn chunk_with_room(&mut self) -> usize {
        let word = self.open.iter().position(|bits| *bits != 0);
        let number = match word {
            Some(word) => word * 64 + self.open[word].trailing_zeros() as usize,
            None => self.chunks.len(),
        };
        if number == self.chunks.len() {
            self.chunks.push(Chunk {
                entries: None,
                used: 0,
                free: NOWHERE,
                generation: 0,
            });
            if self.open.len() * 64 <= number {
                self.open.push(0);
            }
            self.open[number / 64] |= 1 << (number % 64);
        }
        if self.chunks[number].entries.is_none() {
            self.fill_in(number);
        }
        number
    }

    /// Gives a chunk its memory, with generations that go on where they ended.
    fn fill_in(&mut self, number: usize) {
        let chunk = &mut self.chunks[number];
        let mut entries = self.spare.take().unwrap_or_else(|| {
            let empty = || Entry {
                generation: 0,
                next_free: NOWHERE,
                value: None,
            };
            std::iter::repeat_with(empty).take(Self::CHUNK).collect()
        });
        for (within, entry) in entries.iter_mut().enumerate() {
            entry.generation = chunk.generation;
            entry.next_free = if within + 1 < Self::CHUNK {
                within as u32 + 1
            } else {
                NOWHERE
            };
        }
        chunk.entries = Some(entries);
        chunk.free = 0;
    }

    /// Takes the memory of an empty chunk: kept as the spare one, or given back.
    fn empty_out(&mut self, number: usize) {
        let chunk = &mut self.chunks[number];
        let entries = chunk.entries.take().expect("it had entries");
        // One generation for all places, beyond each one ever given out. Generations wrap; "beyond" is
        // then by distance from where the chunk began, which a chunk cannot outrun in one life.
        let began = chunk.generation;
        let furthest = entries
            .iter()
            .map(|entry| entry.generation.wrapping_sub(began) & GENERATION_MASK)
            .max();
        chunk.generation = began.wrapping_add(furthest.unwrap_or(0)) & GENERATION_MASK;
        chunk.free = NOWHERE;
        self.spare.get_or_insert(entries);
    }
}

fn following(generation: u32) -> u32 {
    generation.wrapping_add(1) & GENERATION_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_slab_gives_the_value_back() {
        let mut slab = Slab::new(2);
        let first = slab.insert('a').expect("room");
        slab.insert('b').expect("room");
        assert!(slab.is_full());
        assert_eq!(slab.insert('c'), Err('c'));
        assert_eq!(
            slab.insert_with(|_| unreachable!("not called when full")),
            None
        );
        assert_eq!(slab.remove(first), Some('a'));
        assert!(slab.insert('c').is_ok());
    }

    #[test]
    fn an_entry_may_know_its_key() {
        let mut slab = Slab::new(10);
        let key = slab.insert_with(|key| key.to_bits()).expect("room");
        assert_eq!(slab.get(key), Some(&key.to_bits()));
    }

    #[test]
    fn a_key_leaves_the_top_byte_to_others() {
        let key = Key {
            index: u32::MAX,
            generation: GENERATION_MASK,
        };
        assert_eq!(key.to_bits() >> 56, 0);
        assert_eq!(Key::from_bits(key.to_bits() | 0xab << 56), key);
    }

    #[test]
    fn chunks_that_run_empty_are_given_back_and_old_keys_stay_void() {
        let mut slab = Slab::new(100_000);
        let mut old: Vec<Key> = (0..100_000u32)
            .map(|n| slab.insert(n).expect("room"))
            .collect();
        let full = slab.memory();
        for _ in 0..3 {
            assert!(old.iter().all(|key| slab.remove(*key).is_some()));
            assert!(slab.memory() < full / 20, "{} of {full}", slab.memory());
            let new: Vec<Key> = (0..100_000u32)
                .map(|n| slab.insert(n).expect("room"))
                .collect();
            assert!(old.iter().all(|key| !slab.contains(*key)));
            old = new;
        }
    }

    #[test]
    fn a_count_that_hovers_at_a_boundary_keeps_its_memory() {
        let mut slab = Slab::new(1000);
        assert!((0..Slab::<usize>::CHUNK).all(|n| slab.insert(n).is_ok()));
        let key = slab.insert(0).expect("room");
        let before = slab.memory();
        slab.remove(key);
        assert_eq!(slab.memory(), before);
    }

    #[test]
    fn generations_wrap_without_two_equal_ones_in_a_row() {
        let mut slab = Slab::new(1);
        slab.chunks.push(Chunk {
            entries: None,
            used: 0,
            free: NOWHERE,
            generation: GENERATION_MASK - 1,
        });
        slab.open.push(1);
        let mut last = slab.insert(0).expect("room");
        for n in 1..5 {
            slab.remove(last);
            let key = slab.insert(n).expect("room");
            assert_ne!(key, last);
            assert!(!slab.contains(last));
            last = key;
        }
    }

    proptest! {
        /// Against a list of pairs; keys are never given twice.
        #[test]
        fn it_does_what_a_naive_list_does(steps in prop::collection::vec((0u8..5, any::<prop::sample::Index>()), 1..800)) {
            // Wide enough that there are several chunks.
            let wide = |step: usize| [step; 24];
            let mut slab = Slab::new(400);
            let mut list: Vec<(Key, usize)> = Vec::new();
            let mut gone: Vec<Key> = Vec::new();
            for (step, (kind, index)) in steps.into_iter().enumerate() {
                if kind < 3 && list.len() < 400 {
                    let key = slab.insert(wide(step)).expect("room");
                    prop_assert!(!gone.contains(&key) && !list.iter().any(|(other, _)| *other == key));
                    list.push((key, step));
                } else if kind == 3 && !list.is_empty() {
                    let (key, value) = list.swap_remove(index.index(list.len()));
                    prop_assert_eq!(slab.remove(key), Some(wide(value)));
                    gone.push(key);
                } else if !gone.is_empty() {
                    let key = gone[index.index(gone.len())];
                    prop_assert!(slab.get(key).is_none() && slab.remove(key).is_none());
                }
                prop_assert_eq!(slab.len(), list.len());
            }
            list.sort_unstable();
            prop_assert!(list.iter().all(|(key, value)| slab.get(*key) == Some(&wide(*value))));
            prop_assert_eq!(slab.iter().map(|(key, value)| (key, value[0])).collect::<Vec<_>>(), list.clone());
            let walk = std::iter::successors(slab.next_from(0), |key| slab.next_from(key.index() + 1));
            prop_assert_eq!(walk.collect::<Vec<_>>(), list.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        }
    }
}
