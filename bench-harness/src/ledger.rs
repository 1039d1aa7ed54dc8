//! What was sent held against what arrived, message by message.
//!
//! Every message carries a line ([`stamp()`]) that says which one it is and what its content must be. Both ends keep two bits a message:
//! the source its fate ([`Sent`]), the sink how often it was seen ([`Arrived`]); [`reconcile`] makes an [`Integrity`] of the two.
//! Numbers of one process are dense, from 0, so that ten million messages cost 2.5 MB at either end.

mod stamp;
mod wire;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::outcome::Integrity;

pub use stamp::{Checker, MessageId, STAMP_OCTETS, Seen, stamp};
pub use wire::{ask, fetch, forget};

/// Messages of one process of a run: 64 MiB of fates.
pub const NUMBERS_MAX: u32 = 1 << 28;

/// What became of a message, as its sender knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its end of data never left.
    NotSent,
    /// 2xx.
    Accepted,
    /// 4xx or 5xx.
    Refused,
    /// The end of data may have left, and no reply was heard.
    Unanswered,
}

const FATES: [Fate; 4] = [
    Fate::NotSent,
    Fate::Accepted,
    Fate::Refused,
    Fate::Unanswered,
];

/// The fates of one process's messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "wire::SentText", try_from = "wire::SentText")]
pub struct Sent {
    /// Four fates an octet, the first in the low bits.
    octets: Vec<u8>,
}

impl Sent {
    /// Panics from [`NUMBERS_MAX`] on: whoever makes up numbers has to stop before.
    pub fn set(&mut self, number: u32, fate: Fate) {
        assert!(
            number < NUMBERS_MAX,
            "a process sends at most {NUMBERS_MAX} messages in a run"
        );
        let at = (number / 4) as usize;
        if at >= self.octets.len() {
            self.octets.resize(at + 1, 0);
        }
        put(&mut self.octets[at], number, fate as u8);
    }

    /// NotSent for numbers that were never set.
    pub fn fate(&self, number: u32) -> Fate {
        let octet = self.octets.get((number / 4) as usize).copied();
        FATES[usize::from(bits(octet.unwrap_or(0), number))]
    }

    /// No fate was set from here on.
    fn end(&self) -> u32 {
        self.octets.len() as u32 * 4
    }
}

/// How often one message was seen by the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    Never,
    Once,
    Many,
    /// At least once, and at least one copy had a wrong length or checksum.
    Altered,
}

const SIGHTINGS: [Sighting; 4] = [
    Sighting::Never,
    Sighting::Once,
    Sighting::Many,
    Sighting::Altered,
];

/// Sightings of this many following numbers are kept together.
const PAGE_NUMBERS: u32 = 1 << 14;
const PAGE_OCTETS: usize = PAGE_NUMBERS as usize / 4;
/// Pages of one run: 256 MiB, enough for 1,000 million messages with dense numbers. A message that makes its number up costs one page.
pub const PAGES_MAX: usize = 1 << 16;

type Page = [u8; PAGE_OCTETS];

/// What arrived of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "wire::ArrivedText", try_from = "wire::ArrivedText")]
pub struct Arrived {
    /// By process and number of the page.
    pages: BTreeMap<(u16, u32), Box<Page>>,
    /// All copies of all messages of the run.
    total: u64,
    /// Messages that carry no id, whatever their run, and those whose number found no room.
    unknown: u64,
}

impl Arrived {
    /// Counts one message that was accepted. Which run an id belongs to is the caller's business.
    pub fn count(&mut self, seen: Seen) {
        self.total += 1;
        let (id, now) = match seen {
            Seen::Whole(id) => (id, Sighting::Once),
            Seen::Altered(id) => (id, Sighting::Altered),
            Seen::Unknown => return self.unknown += 1,
        };
        let key = (id.process, id.number / PAGE_NUMBERS);
        let full = self.pages.len() >= PAGES_MAX;
        if id.number >= NUMBERS_MAX || full && !self.pages.contains_key(&key) {
            self.unknown += 1;
            return;
        }
        let page = self.pages.entry(key).or_insert_with(new_page);
        let octet = &mut page[octet_of(id.number)];
        let before = SIGHTINGS[usize::from(bits(*octet, id.number))];
        put(octet, id.number, together(before, now) as u8);
    }

    pub fn sighting(&self, process: u16, number: u32) -> Sighting {
        let octet = self
            .pages
            .get(&(process, number / PAGE_NUMBERS))
            .map_or(0, |page| page[octet_of(number)]);
        SIGHTINGS[usize::from(bits(octet, number))]
    }

    /// Adds what another thread of the sink counted of the same run.
    pub fn merge(&mut self, other: &Arrived) {
        self.total += other.total;
        self.unknown += other.unknown;
        for (key, theirs) in &other.pages {
            let mine = self.pages.entry(*key).or_insert_with(new_page);
            for (mine, theirs) in mine.iter_mut().zip(theirs.iter()) {
                for slot in 0..4 {
                    let both = together(
                        SIGHTINGS[usize::from(bits(*mine, slot))],
                        SIGHTINGS[usize::from(bits(*theirs, slot))],
                    );
                    put(mine, slot, both as u8);
                }
            }
        }
    }

    /// The sink cannot tell whose messages without an id are: whoever asks sees how many more they have become.
    pub fn add_strays(&mut self, strays: u64) {
        self.unknown += strays;
    }

    /// Leaves out messages without an id that had come `before`.
    pub fn since(mut self, before: &Arrived) -> Arrived {
        self.unknown = self.unknown.saturating_sub(before.unknown);
        self
    }

    /// All copies of all messages of the run.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Messages without an id, and those whose number found no room.
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Pages of 4 KiB in use.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Every message seen at least once.
    fn sightings(&self) -> impl Iterator<Item = (u16, u32, Sighting)> {
        self.pages.iter().flat_map(|(&(process, page), octets)| {
            (0..PAGE_NUMBERS).filter_map(move |slot| {
                let sighting = SIGHTINGS[usize::from(bits(octets[octet_of(slot)], slot))];
                (sighting != Sighting::Never).then_some((
                    process,
                    page * PAGE_NUMBERS + slot,
                    sighting,
                ))
            })
        })
    }
}

fn new_page() -> Box<Page> {
    Box::new([0; PAGE_OCTETS])
}

fn octet_of(number: u32) -> usize {
    (number % PAGE_NUMBERS / 4) as usize
}

/// The two bits of `number` in the octet that holds it.
fn bits(octet: u8, number: u32) -> u8 {
    octet >> (number % 4 * 2) & 3
}

fn put(octet: &mut u8, number: u32, value: u8) {
    let shift = number % 4 * 2;
    *octet = *octet & !(3 << shift) | value << shift;
}

fn together(one: Sighting, other: Sighting) -> Sighting {
    match (one, other) {
        (Sighting::Never, sighting) | (sighting, Sighting::Never) => sighting,
        (Sighting::Altered, _) | (_, Sighting::Altered) => Sighting::Altered,
        _ => Sighting::Many,
    }
}

/// Holds the fates of every process against what arrived.
///
/// What a message is counted for: arrived though it was refused, or though its end never left, or though nobody had sent it: invented.
/// A message can be counted for two things (refused, and seen twice).
pub fn reconcile(sent: &[(u16, Sent)], arrived: &Arrived) -> Integrity {
    let mut integrity = Integrity {
        arrived: arrived.total,
        unknown: arrived.unknown,
        ..Integrity::default()
    };
    for (process, fates) in sent {
        for number in 0..fates.end() {
            let never = arrived.sighting(*process, number) == Sighting::Never;
            integrity.lost += u64::from(never && fates.fate(number) == Fate::Accepted);
        }
    }
    for (process, number, sighting) in arrived.sightings() {
        integrity.duplicated += u64::from(sighting == Sighting::Many);
        integrity.altered += u64::from(sighting == Sighting::Altered);
        let fates = sent.iter().find(|(of, _)| *of == process);
        match fates.map_or(Fate::NotSent, |(_, fates)| fates.fate(number)) {
            Fate::Accepted => {}
            Fate::Unanswered => integrity.unanswered_arrived += 1,
            Fate::Refused | Fate::NotSent => integrity.invented += 1,
        }
    }
    integrity
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(process: u16, number: u32) -> MessageId {
        MessageId {
            run: 9,
            process,
            number,
        }
    }

    #[test]
    fn fates_are_kept_apart() {
        let mut sent = Sent::default();
        for number in 0..1000 {
            sent.set(number, FATES[(number % 4) as usize]);
        }
        for number in 0..1000 {
            assert_eq!(sent.fate(number), FATES[(number % 4) as usize], "{number}");
        }
        assert_eq!(sent.fate(1000), Fate::NotSent);
        sent.set(2, Fate::Accepted);
        assert_eq!(sent.fate(1), Fate::Accepted);
        assert_eq!(sent.fate(2), Fate::Accepted);
        assert_eq!(sent.fate(3), Fate::Unanswered);
    }

    #[test]
    fn sightings_add_up() {
        let mut arrived = Arrived::default();
        arrived.count(Seen::Whole(id(0, 5)));
        arrived.count(Seen::Whole(id(0, 6)));
        arrived.count(Seen::Whole(id(0, 6)));
        arrived.count(Seen::Whole(id(1, 40_000)));
        arrived.count(Seen::Altered(id(1, 40_000)));
        arrived.count(Seen::Whole(id(1, 40_000)));
        arrived.count(Seen::Unknown);
        assert_eq!(arrived.sighting(0, 4), Sighting::Never);
        assert_eq!(arrived.sighting(0, 5), Sighting::Once);
        assert_eq!(arrived.sighting(0, 6), Sighting::Many);
        assert_eq!(arrived.sighting(1, 5), Sighting::Never);
        assert_eq!(arrived.sighting(1, 40_000), Sighting::Altered);
        assert_eq!((arrived.total(), arrived.unknown()), (7, 1));
    }

    #[test]
    fn threads_of_a_sink_add_up() {
        let (mut one, mut other) = (Arrived::default(), Arrived::default());
        one.count(Seen::Whole(id(0, 1)));
        one.count(Seen::Whole(id(0, 2)));
        other.count(Seen::Whole(id(0, 2)));
        other.count(Seen::Altered(id(0, 3)));
        other.count(Seen::Whole(id(7, 90_000)));
        one.merge(&other);
        assert_eq!(one.total(), 5);
        assert_eq!(one.sighting(0, 1), Sighting::Once);
        assert_eq!(one.sighting(0, 2), Sighting::Many);
        assert_eq!(one.sighting(0, 3), Sighting::Altered);
        assert_eq!(one.sighting(7, 90_000), Sighting::Once);
    }

    #[test]
    fn made_up_numbers_cost_a_page_each_and_no_more() {
        let mut arrived = Arrived::default();
        arrived.count(Seen::Whole(id(0, u32::MAX)));
        assert_eq!((arrived.pages(), arrived.unknown()), (0, 1));
        for process in 0..100 {
            arrived.count(Seen::Whole(id(process, NUMBERS_MAX - 1)));
        }
        assert_eq!((arrived.pages(), arrived.unknown()), (100, 1));
    }

    #[test]
    fn pages_have_an_end() {
        let mut arrived = Arrived::default();
        for process in 0..=u16::MAX {
            arrived.count(Seen::Whole(id(process, 0)));
        }
        arrived.count(Seen::Whole(id(0, PAGE_NUMBERS)));
        assert_eq!((arrived.pages(), arrived.unknown()), (PAGES_MAX, 1));
        // what has a page is still counted
        arrived.count(Seen::Whole(id(3, 1)));
        assert_eq!(arrived.sighting(3, 1), Sighting::Once);
    }

    #[test]
    fn a_clean_run_is_clean() {
        let (mut sent, mut arrived) = (Sent::default(), Arrived::default());
        for number in 0..50_000 {
            sent.set(number, Fate::Accepted);
            arrived.count(Seen::Whole(id(3, number)));
        }
        let integrity = reconcile(&[(3, sent)], &arrived);
        assert!(integrity.is_clean());
        assert_eq!(integrity.arrived, 50_000);
    }

    #[test]
    fn every_kind_of_damage_is_counted() {
        use Fate::*;
        type Row = (&'static str, Fate, &'static [Seen], Integrity);
        const WHOLE: Seen = Seen::Whole(MessageId {
            run: 9,
            process: 0,
            number: 0,
        });
        const ALTERED: Seen = Seen::Altered(MessageId {
            run: 9,
            process: 0,
            number: 0,
        });
        let counts = |arrived, lost, duplicated, altered, invented, unanswered_arrived| Integrity {
            arrived,
            lost,
            duplicated,
            altered,
            invented,
            unanswered_arrived,
            unknown: 0,
        };
        let table: &[Row] = &[
            ("fine", Accepted, &[WHOLE], counts(1, 0, 0, 0, 0, 0)),
            ("lost", Accepted, &[], counts(0, 1, 0, 0, 0, 0)),
            ("twice", Accepted, &[WHOLE, WHOLE], counts(2, 0, 1, 0, 0, 0)),
            ("altered", Accepted, &[ALTERED], counts(1, 0, 0, 1, 0, 0)),
            ("refused", Refused, &[], counts(0, 0, 0, 0, 0, 0)),
            ("invented", Refused, &[WHOLE], counts(1, 0, 0, 0, 1, 0)),
            ("never ended", NotSent, &[WHOLE], counts(1, 0, 0, 0, 1, 0)),
            ("unheard", Unanswered, &[], counts(0, 0, 0, 0, 0, 0)),
            (
                "unheard, there",
                Unanswered,
                &[WHOLE],
                counts(1, 0, 0, 0, 0, 1),
            ),
            (
                "unheard, twice",
                Unanswered,
                &[WHOLE, WHOLE],
                counts(2, 0, 1, 0, 0, 1),
            ),
        ];
        for (label, fate, seen, want) in table {
            let (mut sent, mut arrived) = (Sent::default(), Arrived::default());
            sent.set(0, *fate);
            seen.iter().for_each(|seen| arrived.count(*seen));
            assert_eq!(reconcile(&[(0, sent)], &arrived), *want, "{label}");
        }
    }

    #[test]
    fn what_nobody_sent_is_invented() {
        let (mut sent, mut arrived) = (Sent::default(), Arrived::default());
        sent.set(0, Fate::Accepted);
        arrived.count(Seen::Whole(id(0, 0)));
        arrived.count(Seen::Whole(id(0, 77)));
        arrived.count(Seen::Whole(id(1, 0)));
        assert_eq!(reconcile(&[(0, sent)], &arrived).invented, 2);
    }

    #[test]
    fn messages_without_an_id_count_from_the_beginning_of_the_run() {
        let mut before = Arrived::default();
        before.add_strays(5);
        let mut arrived = Arrived::default();
        arrived.count(Seen::Whole(id(0, 0)));
        arrived.add_strays(7);
        let mut sent = Sent::default();
        sent.set(0, Fate::Accepted);
        let integrity = reconcile(&[(0, sent)], &arrived.since(&before));
        assert_eq!((integrity.unknown, integrity.arrived), (2, 1));
        assert!(!integrity.is_clean());
    }
}
