//! Where ranges begin, and what holds from there on: a sorted table that is read often and never changed.
//!
//! A look-up in a large table waits for memory and for little else, so each step reads one line of the cache: lines of keys
//! from the root down, each key the first of what lies below it, then one block that has starts and answers side by side.
//! The upper levels stay in the cache; of a million networks one or two reads miss it. In a sorted array that is halved again and
//! again the last five do, and the answer beside it.

/// Keys of an index, and starts and cells of a block. Chosen by who has the table: each fills a line of 64 bytes.
#[derive(Clone, Debug)]
pub struct Table<K, C, const KEYS: usize, const CELLS: usize> {
    /// All levels, the root's line first.
    lines: Box<[Line<K, KEYS>]>,
    levels: Box<[Level]>,
    blocks: Box<[Block<K, C, CELLS>]>,
}

/// A level of the index.
#[derive(Copy, Clone, Debug)]
struct Level {
    /// Its first line.
    first: u32,
    /// Keys, and so lines or blocks below.
    keys: u32,
}

/// The last key is repeated where there are no more.
#[derive(Copy, Clone, Debug)]
#[repr(align(64))]
struct Line<K, const KEYS: usize>([K; KEYS]);

/// The last start and its cell are repeated where there are no more.
#[derive(Copy, Clone, Debug)]
#[repr(align(64))]
struct Block<K, C, const CELLS: usize> {
    starts: [K; CELLS],
    cells: [C; CELLS],
}

impl<K, C, const KEYS: usize, const CELLS: usize> Default for Table<K, C, KEYS, CELLS> {
    fn default() -> Table<K, C, KEYS, CELLS> {
        Table {
            lines: Box::default(),
            levels: Box::default(),
            blocks: Box::default(),
        }
    }
}

impl<K: Copy + Ord, C: Copy, const KEYS: usize, const CELLS: usize> Table<K, C, KEYS, CELLS> {
    /// Of ranges in order. The first begins at the lowest key; an empty table holds nothing anywhere.
    pub fn new(ranges: impl Iterator<Item = (K, C)>) -> Table<K, C, KEYS, CELLS> {
        let ranges: Vec<(K, C)> = ranges.collect();
        let block = |ranges: &[(K, C)]| Block {
            starts: std::array::from_fn(|at| ranges[at.min(ranges.len() - 1)].0),
            cells: std::array::from_fn(|at| ranges[at.min(ranges.len() - 1)].1),
        };
        let blocks: Box<[Block<K, C, CELLS>]> = ranges.chunks(CELLS).map(block).collect();
        let mut keys: Vec<K> = blocks.iter().map(|block| block.starts[0]).collect();
        // From the blocks up, until one line is enough.
        let mut lowest_first: Vec<(u32, Vec<Line<K, KEYS>>)> = Vec::new();
        while keys.len() > 1 {
            let line = |keys: &[K]| Line(std::array::from_fn(|at| keys[at.min(keys.len() - 1)]));
            let lines: Vec<Line<K, KEYS>> = keys.chunks(KEYS).map(line).collect();
            let above = lines.iter().map(|line| line.0[0]).collect();
            lowest_first.push((keys.len() as u32, lines));
            keys = above;
        }
        let (mut lines, mut levels) = (Vec::new(), Vec::new());
        for (keys, of_level) in lowest_first.into_iter().rev() {
            let first = lines.len() as u32;
            levels.push(Level { first, keys });
            lines.extend(of_level);
        }
        Table {
            lines: lines.into(),
            levels: levels.into(),
            blocks,
        }
    }
}

impl<K: Copy + Ord, C, const KEYS: usize, const CELLS: usize> Table<K, C, KEYS, CELLS> {
    /// Where the range around a key begins, and what holds there.
    pub fn find(&self, key: K) -> Option<(K, &C)> {
        let mut at = 0;
        for level in &self.levels {
            let line = &self.lines[level.first as usize + at];
            let below = at * KEYS + last_begun(&line.0, key);
            // Behind the last key there are its repetitions.
            at = below.min(level.keys as usize - 1);
        }
        let block = self.blocks.get(at)?;
        let at = last_begun(&block.starts, key);
        Some((block.starts[at], &block.cells[at]))
    }
}

/// The last of the starts that is not behind the key. All are looked at: that is faster than to choose.
fn last_begun<K: Copy + Ord>(starts: &[K], key: K) -> usize {
    let begun: u32 = starts.iter().map(|start| u32::from(*start <= key)).sum();
    begun.saturating_sub(1) as usize
}

impl<K, C, const KEYS: usize, const CELLS: usize> Table<K, C, KEYS, CELLS> {
    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        let index = size_of_val(&*self.lines) + size_of_val(&*self.levels);
        index + size_of_val(&*self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_the_cache_is_full() {
        assert_eq!(size_of::<Line<u32, 16>>(), 64);
        assert_eq!(size_of::<Line<u64, 8>>(), 64);
        assert_eq!(size_of::<Block<u32, [u8; 2], 10>>(), 64);
        assert_eq!(size_of::<Block<u64, u64, 4>>(), 64);
    }

    /// Small lines, so that there are many levels: each number of ranges that makes a level full, or one more.
    #[test]
    fn every_key_is_found_whatever_the_number_of_ranges() {
        for count in 1..200u8 {
            let ranges = (0..count).map(|number| (number, number));
            let table = Table::<u8, u8, 2, 3>::new(ranges);
            for key in 0..=u8::MAX {
                let want = key.min(count - 1);
                assert_eq!(table.find(key), Some((want, &want)), "{count} ranges");
            }
        }
        assert_eq!(Table::<u8, u8, 2, 3>::default().find(0), None);
    }

    proptest! {
        /// Against the last of a sorted list.
        #[test]
        fn what_began_last_holds(
            starts in prop::collection::btree_set(any::<u16>(), 0..400),
            keys in prop::collection::vec(any::<u16>(), 100),
        ) {
            let starts: Vec<u16> = std::iter::once(0).chain(starts.into_iter().filter(|start| *start > 0)).collect();
            let table = Table::<u16, u16, 4, 3>::new(starts.iter().map(|start| (*start, *start)));
            let near = starts.iter().flat_map(|start| [*start, start.wrapping_sub(1)]);
            for key in near.chain(keys).chain([0, u16::MAX]) {
                let want = starts.iter().rfind(|start| **start <= key);
                prop_assert_eq!(table.find(key), want.map(|start| (*start, start)));
            }
        }
    }
}
