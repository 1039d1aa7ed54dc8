//! Timers: a hierarchical wheel for hundreds of thousands of deadlines.
//!
//! Lazy: there is no cancel. An entry is a moment and an opaque key; when it fires, its owner looks at
//! the deadline it has *now* and inserts again if that lies later. Deadlines of sessions move with
//! every command but fire almost never, so a timer is touched once in minutes and not once a command.
//! For the same reason an owner should keep at most one entry in the wheel: remember what is armed,
//! insert only for something earlier.
//!
//! Five levels of 64 slots; a slot of level n spans 64^n ticks of [`TICK_MICROS`]. An entry sits at the
//! level of the highest digit in which its tick differs from the present, moves down as its time comes
//! near (at most four times), and never fires early. Entries are nodes in lists, 16 bytes each, from
//! pages that are reused: in a steady state nothing is allocated. [`Wheel::next`] is the exact tick of
//! the earliest entry, not a bound: a shard with nothing to do sleeps through.

use weir_smtp::time::Moment;

/// The grain: 2^14 microseconds, about 16 ms. An entry fires up to one tick late, never early.
pub const TICK_MICROS: u64 = 1 << 14;

const LEVELS: usize = 5;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = SLOTS.trailing_zeros();
/// What lies further away than this (200 days) fires there and is put on by its owner, who looks at the real deadline.
/// One slot short of a full turn, so that the last slot of the top level cannot be taken for the present one.
const HORIZON: u64 = (SLOTS as u64 - 1) * (SLOTS as u64).pow(LEVELS as u32 - 1);
const PAGE: usize = 1024;
/// Ends a list.
const NOWHERE: u32 = u32::MAX;

/// The wheel of one shard.
pub struct Wheel {
    /// Everything up to and including this tick has been handed out, or waits in `due`.
    tick: u64,
    /// The latest tick that a round was about; ahead of `tick` while a round catches up.
    present: u64,
    levels: Box<[Level; LEVELS]>,
    /// Head of the list of entries whose time has come.
    due: u32,
    nodes: Nodes,
}

struct Level {
    /// One bit for each slot with entries.
    occupied: u64,
    slots: [Slot; SLOTS],
}

#[derive(Copy, Clone)]
struct Slot {
    head: u32,
    /// The earliest tick in the list (low 32 bits; as in [`Node`]).
    first: u32,
}

/// 16 bytes an entry. The tick is cut to 32 bits and read relative to the present: all entries lie within the horizon.
#[derive(Copy, Clone)]
struct Node {
    key: u64,
    tick: u32,
    next: u32,
}

const _: () = assert!(size_of::<Node>() == 16);
const _: () = assert!(
    HORIZON < (1 << 31),
    "a tick cut to 32 bits must be readable from the present"
);

impl Wheel {
    /// A wheel that starts at `now`. Moments before that are due at once.
    pub fn new(now: Moment) -> Wheel {
        let slot = Slot {
            head: NOWHERE,
            first: 0,
        };
        let level = || Level {
            occupied: 0,
            slots: [slot; SLOTS],
        };
        Wheel {
            tick: now.as_micros() / TICK_MICROS,
            present: now.as_micros() / TICK_MICROS,
            levels: Box::new([level(), level(), level(), level(), level()]),
            due: NOWHERE,
            nodes: Nodes::new(),
        }
    }

    /// Fires `key` at `at` or up to a tick later. What is already past fires with the next tick, never
    /// in the same round: who inserts from within a round cannot keep it going for ever.
    ///
    /// [`Moment::NEVER`] is not stored.
    pub fn insert(&mut self, at: Moment, key: u64) {
        if at == Moment::NEVER {
            return;
        }
        let wanted = at.as_micros().div_ceil(TICK_MICROS);
        let tick = wanted.max(self.present + 1).min(self.tick + HORIZON);
        let node = self.nodes.take(Node {
            key,
            tick: tick as u32,
            next: NOWHERE,
        });
        self.link(node, tick);
    }

    /// One key whose time has come, in order of ticks; None when there is no more.
    pub fn pop(&mut self, now: Moment) -> Option<u64> {
        self.present = self.present.max(now.as_micros() / TICK_MICROS);
        while self.due == NOWHERE {
            match self.next_slot() {
                Some((level, slot, start)) if start <= self.present => {
                    self.open_slot(level, slot, start)
                }
                _ => {
                    self.tick = self.present;
                    return None;
                }
            }
        }
        let node = self.nodes.give_back(self.due);
        self.due = node.next;
        if self.due == NOWHERE && self.nodes.is_sparse() {
            self.repack();
        }
        Some(node.key)
    }

    /// Hands out every key whose time has come.
    pub fn expire(&mut self, now: Moment, mut fire: impl FnMut(u64)) {
        while let Some(key) = self.pop(now) {
            fire(key);
        }
    }

    /// When the earliest entry fires; None if there is none.
    pub fn next(&self) -> Option<Moment> {
        if self.due != NOWHERE {
            return Some(moment(self.tick));
        }
        let (level, slot, _) = self.next_slot()?;
        Some(moment(self.whole(self.levels[level].slots[slot].first)))
    }

    /// Entries, stale ones included.
    pub const fn len(&self) -> usize {
        self.nodes.used as usize
    }

    pub const fn is_empty(&self) -> bool {
        self.nodes.used == 0
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        size_of::<[Level; LEVELS]>() + self.nodes.pages.len() * PAGE * size_of::<Node>()
    }

    /// The slot whose time comes first, and the tick at which its span begins.
    ///
    /// Slots of a lower level all end before the next slot of a higher one begins, so the lowest level with entries has it.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let shift = SLOT_BITS * level as u32;
        let here = (self.tick >> shift) as u32 % SLOTS as u32;
        let ahead = self.levels[level]
            .occupied
            .rotate_right(here)
            .trailing_zeros();
        let slot = (here + ahead) as usize % SLOTS;
        let start = ((self.tick >> shift) + u64::from(ahead)) << shift;
        Some((level, slot, start))
    }

    /// Moves the present to the start of a slot: entries of level 0 become due, others move down.
    fn open_slot(&mut self, level: usize, slot: usize, start: u64) {
        debug_assert!(start >= self.tick, "time went back");
        let mut list = self.levels[level].slots[slot].head;
        self.levels[level].slots[slot].head = NOWHERE;
        self.levels[level].occupied &= !(1 << slot);
        self.tick = start;
        if level == 0 {
            self.due = list;
            return;
        }
        while list != NOWHERE {
            let node = *self.nodes.get(list);
            let tick = self.whole(node.tick);
            if tick <= self.tick {
                self.nodes.get_mut(list).next = self.due;
                self.due = list;
            } else {
                self.link(list, tick);
            }
            list = node.next;
        }
    }

    /// Puts a node where its tick belongs, seen from the present.
    fn link(&mut self, node: u32, tick: u64) {
        let level = level_of(self.tick, tick);
        let number = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let level = &mut self.levels[level];
        let slot = &mut level.slots[number];
        if level.occupied & 1 << number == 0 || (tick as u32).wrapping_sub(slot.first) as i32 <= 0 {
            slot.first = tick as u32;
        }
        level.occupied |= 1 << number;
        self.nodes.get_mut(node).next = slot.head;
        slot.head = node;
    }

    /// The whole tick of one cut to 32 bits.
    fn whole(&self, cut: u32) -> u64 {
        let distance = cut.wrapping_sub(self.tick as u32) as i32;
        self.tick.saturating_add_signed(i64::from(distance))
    }

    /// Moves what is left after a burst into fresh pages and gives the old ones back.
    fn repack(&mut self) {
        debug_assert!(
            self.due == NOWHERE,
            "a list outside the levels would be lost"
        );
        let mut fresh = Nodes::new();
        for slot in self.levels.iter_mut().flat_map(|level| &mut level.slots) {
            let mut list = std::mem::replace(&mut slot.head, NOWHERE);
            while list != NOWHERE {
                let node = *self.nodes.get(list);
                list = node.next;
                slot.head = fresh.take(Node {
                    next: slot.head,
                    ..node
                });
            }
        }
        debug_assert_eq!(fresh.used, self.nodes.used);
        self.nodes = fresh;
    }
}

/// The level of the highest digit in which two ticks differ.
fn level_of(present: u64, tick: u64) -> usize {
    let differing = (present ^ tick) | 1;
    (differing.ilog2() / SLOT_BITS).min(LEVELS as u32 - 1) as usize
}

fn moment(tick: u64) -> Moment {
    Moment::from_micros(tick * TICK_MICROS)
}

/// Where entries live: pages that never move, and a list of free places.
struct Nodes {
    pages: Vec<Box<[Node]>>,
    free: u32,
    used: u32,
}

impl Nodes {
    /// Pages that are kept however few entries there are.
    const PAGES_KEPT: usize = 4;

    const fn new() -> Nodes {
        Nodes {
            pages: Vec::new(),
            free: NOWHERE,
            used: 0,
        }
    }

    fn get(&self, at: u32) -> &Node {
        &self.pages[at as usize / PAGE][at as usize % PAGE]
    }

    fn get_mut(&mut self, at: u32) -> &mut Node {
        &mut self.pages[at as usize / PAGE][at as usize % PAGE]
    }

    fn take(&mut self, node: Node) -> u32 {
        if self.free == NOWHERE {
            self.add_page();
        }
        let at = self.free;
        let place = self.get_mut(at);
        let next_free = place.next;
        *place = node;
        self.free = next_free;
        self.used += 1;
        at
    }

    fn give_back(&mut self, at: u32) -> Node {
        let free = self.free;
        let node = *self.get(at);
        self.get_mut(at).next = free;
        self.free = at;
        self.used -= 1;
        node
    }

    fn add_page(&mut self) {
        let first = (self.pages.len() * PAGE) as u32;
        let page = (1..=PAGE as u32).map(|n| Node {
            key: 0,
            tick: 0,
            next: if n < PAGE as u32 { first + n } else { NOWHERE },
        });
        self.pages.push(page.collect());
        self.free = first;
    }

    fn is_sparse(&self) -> bool {
        self.pages.len() > Self::PAGES_KEPT && (self.used as usize) < self.pages.len() * PAGE / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    fn fired(wheel: &mut Wheel, now: Moment) -> Vec<u64> {
        let mut keys = Vec::new();
        wheel.expire(now, |key| keys.push(key));
        keys
    }

    #[test]
    fn an_entry_fires_not_early_and_at_most_a_tick_late() {
        for millis in [
            1,
            16,
            17,
            1000,
            1048,
            4194,
            60_000,
            300_000,
            3_600_000,
            10_000_000_000,
        ] {
            let mut wheel = Wheel::new(at(5));
            wheel.insert(at(millis + 5), 7);
            let next = wheel.next().expect("one entry");
            assert!(
                next >= at(millis + 5)
                    && next.since(at(millis + 5)).as_micros() < u128::from(TICK_MICROS),
                "{millis}"
            );
            let early = fired(&mut wheel, Moment::from_micros(next.as_micros() - 1));
            assert!(early.is_empty(), "{millis}");
            assert_eq!(
                wheel.next(),
                Some(next),
                "exact however often it is looked at: {millis}"
            );
            assert_eq!(fired(&mut wheel, next), [7], "{millis}");
            assert_eq!((wheel.next(), wheel.len()), (None, 0));
        }
    }

    #[test]
    fn what_is_due_already_fires_in_the_next_round() {
        let mut wheel = Wheel::new(at(0));
        fired(&mut wheel, at(1000));
        wheel.insert(at(10), 1);
        assert_eq!(wheel.pop(at(1000)), None);
        // After a long sleep too: an owner that inserts the past from within a round does not see it again in it.
        wheel.insert(at(1500), 2);
        let mut seen = Vec::new();
        while let Some(key) = wheel.pop(at(60_000)) {
            seen.push(key);
            wheel.insert(at(1200), key + 10);
        }
        assert_eq!(seen, [1, 2]);
        assert_eq!(fired(&mut wheel, at(60_020)).len(), 2);
    }

    #[test]
    fn never_is_not_stored_and_the_far_future_waits_at_the_horizon() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert(Moment::NEVER, 1);
        assert!(wheel.is_empty());
        wheel.insert(at(0) + Duration::from_secs(400 * 86400), 2);
        assert!(wheel.next().expect("stored") > at(0) + Duration::from_secs(190 * 86400));
    }

    #[test]
    fn a_steady_state_takes_no_memory_and_a_burst_gives_it_back() {
        let mut wheel = Wheel::new(at(0));
        for round in 0..5000u64 {
            for key in 0..10 {
                wheel.insert(at(round * 20 + 1000 + key * 7), key);
            }
            fired(&mut wheel, at(round * 20));
        }
        assert_eq!(wheel.nodes.pages.len(), 1);
        (0..100_000).for_each(|key| wheel.insert(at(200_000 + key % 100), key));
        let full = wheel.memory();
        wheel.insert(at(900_000), 1);
        fired(&mut wheel, at(300_000));
        assert_eq!(wheel.len(), 1);
        assert!(wheel.memory() < full / 10, "{} of {full}", wheel.memory());
        assert_eq!(fired(&mut wheel, at(900_010)), [1]);
    }

    proptest! {
        /// Against a list that is searched whole.
        #[test]
        fn it_does_what_a_naive_list_does(start in 0u64..1 << 50, steps in prop::collection::vec((0u64..3, 0u32..42, any::<u64>()), 1..300)) {
            let mut now = start;
            let mut wheel = Wheel::new(Moment::from_micros(now));
            let mut list: Vec<(u64, u64)> = Vec::new();
            for (step, (kind, magnitude, noise)) in steps.into_iter().enumerate() {
                let span = noise % (1 << magnitude);
                if kind > 0 {
                    // As documented: rounded up to a tick, at least the next one.
                    let tick = (now + span).div_ceil(TICK_MICROS).max(now / TICK_MICROS + 1);
                    wheel.insert(Moment::from_micros(now + span), step as u64);
                    list.push((tick * TICK_MICROS, step as u64));
                } else {
                    now += span;
                    let mut keys = fired(&mut wheel, Moment::from_micros(now));
                    keys.sort_unstable();
                    let mut want: Vec<_> = list.extract_if(.., |(at, _)| *at <= now).map(|(_, key)| key).collect();
                    want.sort_unstable();
                    prop_assert_eq!(keys, want);
                }
                prop_assert_eq!(wheel.len(), list.len());
                prop_assert_eq!(wheel.next(), list.iter().map(|(at, _)| Moment::from_micros(*at)).min());
            }
        }
    }
}
