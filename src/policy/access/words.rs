//! A set of words, each with what is said of it: all their octets in one piece of memory, so that a million of them are
//! given back at once.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// Octets of all words together. Offsets have 32 bits.
const OCTETS_MAX: usize = u32::MAX as usize;

#[derive(Clone, Debug)]
pub(super) struct Words<T> {
    octets: Vec<u8>,
    index: HashTable<Word<T>>,
    hasher: RandomState,
}

#[derive(Clone, Debug)]
struct Word<T> {
    start: u32,
    len: u16,
    value: T,
}

impl<T> Default for Words<T> {
    fn default() -> Words<T> {
        Words {
            octets: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<T: Copy> Words<T> {
    /// Of two entries for the same word the later counts. False: there is no room for it.
    pub(super) fn insert(&mut self, word: &[u8], value: T) -> bool {
        let Words {
            octets,
            index,
            hasher,
        } = self;
        let hash = hasher.hash_one(word);
        if let Some(found) = index.find_mut(hash, |entry| entry.octets(octets) == word) {
            found.value = value;
            return true;
        }
        let (Ok(start), Ok(len)) = (u32::try_from(octets.len()), u16::try_from(word.len())) else {
            return false;
        };
        if octets.len() + word.len() > OCTETS_MAX {
            return false;
        }
        octets.extend_from_slice(word);
        index.insert_unique(hash, Word { start, len, value }, |entry| {
            hasher.hash_one(entry.octets(octets))
        });
        true
    }

    pub(super) fn get(&self, word: &[u8]) -> Option<T> {
        if self.index.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(word);
        let found = self
            .index
            .find(hash, |entry| entry.octets(&self.octets) == word);
        found.map(|entry| entry.value)
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.octets.capacity() + self.index.allocation_size()
    }
}

impl<T> Word<T> {
    fn octets<'a>(&self, all: &'a [u8]) -> &'a [u8] {
        &all[self.start as usize..self.start as usize + usize::from(self.len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_and_the_last_word_counts() {
        let mut words = Words::default();
        assert_eq!(words.get(b""), None);
        for (word, value) in [("a", 1), ("", 2), ("ab", 3), ("a", 4)] {
            assert!(words.insert(word.as_bytes(), value));
        }
        assert_eq!(
            ["", "a", "ab", "b"].map(|word| words.get(word.as_bytes())),
            [Some(2), Some(4), Some(3), None]
        );
        assert_eq!(words.len(), 3);
        assert!(!words.insert(&[b'x'; 1 << 16], 5));
    }
}
