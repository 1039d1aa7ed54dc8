//! A bounded table of a shard's memory: small records by key, found with two looks into memory, given up when they are over.
//!
//! Records lie densely in chunks; the index holds their places, 5 bytes each, in many small parts. One index of a
//! million places takes tens of milliseconds to double, which every session of the shard would wait for; a part takes a
//! few hundred microseconds. A record that goes leaves its place to the last one.
//!
//! When the table is full, a few records from all over it are looked at, and the one that is worth least is given up. So
//! a flood of new keys costs the table what is worth little, and never what must stay. Neighbours would be a poor sample:
//! they came at the same time. What is over is found by a hand that goes around.

use std::hash::{BuildHasher, Hash};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// Records of one chunk.
const CHUNK: usize = 1024;
/// Parts of the index.
const PARTS: usize = 256;
/// Records looked at for one to give up.
const SAMPLE: u32 = 32;
/// Records the hand looks at in one sweep.
const SWEEP: u32 = 1024;

/// What would be lost with a record.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub enum Worth {
    /// Nothing: it is over.
    Nothing,
    /// The more, the later it goes.
    Some(u64),
    /// It is not to be given up.
    All,
}

struct Entry<K, V> {
    key: K,
    value: V,
}

/// The table.
pub struct Book<K, V> {
    parts: Box<[HashTable<u32>]>,
    hasher: RandomState,
    chunks: Vec<Vec<Entry<K, V>>>,
    len: u32,
    max: u32,
    hand: u32,
    /// Where the next sample is taken.
    dart: u64,
}

impl<K: Copy + Eq + Hash, V> Book<K, V> {
    /// Room for `max` records; memory comes as they do.
    pub fn new(max: u32) -> Book<K, V> {
        Book {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
            hasher: RandomState::default(),
            chunks: Vec::new(),
            len: 0,
            max,
            hand: 0,
            dart: 0,
        }
    }

    pub fn find(&self, key: K) -> Option<&V> {
        let place = self.place(key)?;
        Some(&entry(&self.chunks, place).value)
    }

    /// The record of `key`, or a new one. None: the table is full of records that stay.
    pub fn find_or_add(
        &mut self,
        key: K,
        new: impl FnOnce() -> V,
        worth: impl Fn(&V) -> Worth,
    ) -> Option<&mut V> {
        if let Some(place) = self.place(key) {
            return Some(&mut self.at(place).value);
        }
        if self.len >= self.max {
            let victim = self.least(worth)?;
            self.remove_at(victim);
        }
        let place = self.append(Entry { key, value: new() });
        Some(&mut self.at(place).value)
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        let place = self.place(key)?;
        Some(self.remove_at(place))
    }

    /// Moves the hand over some records and gives up those that are over: to be called now and then.
    pub fn sweep(&mut self, worth: impl Fn(&V) -> Worth) {
        for _ in 0..SWEEP.min(self.len) {
            if self.hand >= self.len {
                self.hand = 0;
            }
            match worth(&entry(&self.chunks, self.hand).value) {
                // The last record takes its place and is looked at next.
                Worth::Nothing => drop(self.remove_at(self.hand)),
                _ => self.hand += 1,
            }
        }
    }

    pub const fn len(&self) -> usize {
        self.len as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        let index: usize = self.parts.iter().map(HashTable::allocation_size).sum();
        index
            + self.parts.len() * size_of::<HashTable<u32>>()
            + self.chunks.len() * CHUNK * size_of::<Entry<K, V>>()
            + self.chunks.capacity() * size_of::<Vec<Entry<K, V>>>()
    }

    /// The record that is worth least of a few; one that is worth nothing is taken at once.
    fn least(&mut self, worth: impl Fn(&V) -> Worth) -> Option<u32> {
        let mut least = (Worth::All, 0);
        for _ in 0..SAMPLE {
            let place = self.throw()?;
            let here = worth(&entry(&self.chunks, place).value);
            if here == Worth::Nothing {
                return Some(place);
            }
            least = least.min((here, place));
        }
        let (worth, place) = least;
        (worth != Worth::All).then_some(place)
    }

    /// A place: one after the other, they lie evenly all over the table (multiples of the golden ratio).
    fn throw(&mut self) -> Option<u32> {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        self.dart = self.dart.wrapping_add(GOLDEN);
        let place = ((self.dart >> 32) * u64::from(self.len)) >> 32;
        (self.len > 0).then_some(place as u32)
    }

    fn place(&self, key: K) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.parts[part(hash)]
            .find(hash, |&place| entry(&self.chunks, place).key == key)
            .copied()
    }

    fn append(&mut self, new: Entry<K, V>) -> u32 {
        let Book {
            parts,
            hasher,
            chunks,
            len,
            ..
        } = self;
        let place = *len;
        if place as usize == chunks.len() * CHUNK {
            chunks.push(Vec::with_capacity(CHUNK));
        }
        let hash = hasher.hash_one(new.key);
        chunks[place as usize / CHUNK].push(new);
        parts[part(hash)].insert_unique(hash, place, |&other| {
            hasher.hash_one(entry(chunks, other).key)
        });
        *len += 1;
        place
    }

    fn remove_at(&mut self, place: u32) -> V {
        self.forget(place);
        let last = self.len - 1;
        if place != last {
            self.rename(last, place);
        }
        let chunk = self.chunks[last as usize / CHUNK].pop();
        let mut gone = chunk.expect("the last record is in its chunk");
        if place != last {
            std::mem::swap(self.at(place), &mut gone);
        }
        self.len = last;
        // One empty chunk stays, so that a record that comes and goes costs no memory each time.
        if self.chunks.len() > last as usize / CHUNK + 2 {
            self.chunks.pop();
        }
        gone.value
    }

    /// Takes a place out of the index.
    fn forget(&mut self, place: u32) {
        let hash = self.hasher.hash_one(entry(&self.chunks, place).key);
        let found = self.parts[part(hash)].find_entry(hash, |&other| other == place);
        found.expect("a record is in the index").remove();
    }

    /// A record moves.
    fn rename(&mut self, from: u32, to: u32) {
        let hash = self.hasher.hash_one(entry(&self.chunks, from).key);
        let found = self.parts[part(hash)].find_mut(hash, |&other| other == from);
        *found.expect("a record is in the index") = to;
    }

    fn at(&mut self, place: u32) -> &mut Entry<K, V> {
        &mut self.chunks[place as usize / CHUNK][place as usize % CHUNK]
    }
}

fn entry<K, V>(chunks: &[Vec<Entry<K, V>>], place: u32) -> &Entry<K, V> {
    &chunks[place as usize / CHUNK][place as usize % CHUNK]
}

/// Bits that the parts themselves do not look at until they are very large.
const fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// The value is its own worth; 0 nothing, 100 all.
    fn worth(value: &u64) -> Worth {
        match *value {
            0 => Worth::Nothing,
            100 => Worth::All,
            some => Worth::Some(some),
        }
    }

    #[test]
    fn a_full_book_gives_up_what_is_worth_least_and_keeps_what_must_stay() {
        let mut book = Book::new(4);
        for (key, value) in [(1u32, 100), (2, 7), (3, 5), (4, 100)] {
            book.find_or_add(key, || value, worth).expect("room");
        }
        assert!(book.find_or_add(5, || 100, worth).is_some());
        assert_eq!((book.find(3), book.find(2)), (None, Some(&7)));
        assert!(book.find_or_add(6, || 100, worth).is_some());
        assert!(book.find_or_add(7, || 1, worth).is_none(), "all stay");
        assert_eq!(book.len(), 4);
        *book.find_or_add(1, || 1, worth).expect("it stayed") = 0;
        assert!(book.find_or_add(7, || 1, worth).is_some());
        assert_eq!(book.find(1), None);
    }

    #[test]
    fn sweeping_frees_what_is_over_and_its_memory() {
        let mut book = Book::new(100_000);
        for key in 0..50_000u32 {
            let value = u64::from(key % 50 == 0);
            book.find_or_add(key, || value, worth).expect("room");
        }
        let before = book.memory();
        for _ in 0..100 {
            book.sweep(worth);
        }
        assert_eq!(book.len(), 1000);
        assert!((0..50_000).all(|key| book.find(key).is_some() == (key % 50 == 0)));
        assert!(book.memory() < before);
    }

    proptest! {
        /// Against a map.
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec((0u8..4, 0u32..60, 1u64..99), 1..400)) {
            let mut book = Book::new(40);
            let mut map = HashMap::new();
            for (what, key, value) in steps {
                match what {
                    0 | 1 => {
                        let is_new = !map.contains_key(&key);
                        let full = map.len() == 40;
                        *book.find_or_add(key, || value, worth).expect("something can go") = value;
                        map.insert(key, value);
                        if is_new && full {
                            map.retain(|key, _| book.find(*key).is_some());
                            prop_assert_eq!(map.len(), 40, "exactly one went");
                        }
                    }
                    2 => prop_assert_eq!(book.remove(key), map.remove(&key)),
                    _ => book.sweep(worth),
                }
                prop_assert_eq!(book.len(), map.len());
                for key in 0..60 {
                    prop_assert_eq!(book.find(key), map.get(&key));
                }
            }
        }
    }
}
