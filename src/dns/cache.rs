//! What is known, until when.
//!
//! Two queues, after S3-FIFO (Yang et al., SOSP 2023): what is new stands in the short one, a tenth of the room, and whatever was not
//! asked for again by the time it comes to its end is thrown out. What was moves to the long one, where it goes around as long as it is asked
//! for. So a flood of names that nobody asks for twice, which any client can cause, only ever passes through the short queue.
//!
//! A hit is one probe of one table and allocates nothing. Room is counted twice, in answers and in octets, since whoever owns a
//! zone decides how long its records are.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use weir_smtp::time::Moment;

use super::answer::{Answer, Outcome, Records};
use super::name::Question;

/// Octets that an answer may take on average.
const OCTETS_EACH: usize = 256;
/// What an entry costs besides its name and records.
const OCTETS_BARE: usize = 112;
/// Of the room, what is for the new.
const NEW_SHARE: usize = 10;
/// How many rounds a hit is worth, at most.
const HITS_MAX: u8 = 3;

#[derive(Debug)]
pub struct Cache {
    index: HashTable<u32>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    new: VecDeque<u32>,
    old: VecDeque<u32>,
    /// Octets of all, and of the new alone.
    octets: usize,
    new_octets: usize,
    max: usize,
    evicted: u64,
    hasher: RandomState,
}

#[derive(Debug)]
struct Entry {
    question: Question,
    answer: Answer,
    octets: u32,
    hits: u8,
    is_new: bool,
}

impl Cache {
    pub fn new(max: usize) -> Cache {
        Cache {
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            new: VecDeque::new(),
            old: VecDeque::new(),
            octets: 0,
            new_octets: 0,
            max,
            evicted: 0,
            hasher: RandomState::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Those that left before their time.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    pub fn find(&mut self, question: &Question, now: Moment) -> Option<&Answer> {
        let hash = self.hasher.hash_one(question);
        let number = *self.index.find(hash, same(&self.entries, question))?;
        let entry = self.entries[number as usize].as_mut()?;
        if entry.answer.until <= now {
            return None;
        }
        entry.hits = (entry.hits + 1).min(HITS_MAX);
        Some(&entry.answer)
    }

    /// Takes the place of what was known about the question.
    pub fn insert(&mut self, question: Question, answer: Answer, now: Moment) {
        if self.max == 0 {
            return;
        }
        let octets = octets(&question, &answer.outcome);
        let hash = self.hasher.hash_one(&question);
        if let Some(&number) = self.index.find(hash, same(&self.entries, &question)) {
            let entry = self.entries[number as usize].as_mut();
            let entry = entry.expect("the index leads to entries only");
            let before = entry.octets as usize;
            entry.octets = octets as u32;
            entry.answer = answer;
            self.octets = self.octets - before + octets;
            if entry.is_new {
                self.new_octets = self.new_octets - before + octets;
            }
        } else {
            let entry = Entry {
                question,
                answer,
                octets: octets as u32,
                hits: 0,
                is_new: true,
            };
            self.add(hash, entry);
        }
        while self.is_over() {
            self.evict(now);
        }
    }

    fn add(&mut self, hash: u64, entry: Entry) {
        self.octets += entry.octets as usize;
        self.new_octets += entry.octets as usize;
        let number = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        self.entries[number as usize] = Some(entry);
        self.new.push_back(number);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.index.insert_unique(hash, number, |&number| {
            let entry = entries[number as usize].as_ref();
            hasher.hash_one(&entry.expect("the index leads to entries only").question)
        });
    }

    fn octets_max(&self) -> usize {
        self.max.saturating_mul(OCTETS_EACH)
    }

    fn is_over(&self) -> bool {
        self.len() > self.max || (self.octets > self.octets_max() && self.len() > 1)
    }

    /// Whether the new have more than their share, in answers or in octets: then one of them goes.
    fn is_new_over(&self) -> bool {
        self.new.len() > self.max / NEW_SHARE || self.new_octets > self.octets_max() / NEW_SHARE
    }

    /// Throws one out. Ends: whoever goes around has lost a hit by then.
    fn evict(&mut self, now: Moment) {
        loop {
            let from_new = self.is_new_over() || self.old.is_empty();
            let queue = if from_new {
                &mut self.new
            } else {
                &mut self.old
            };
            let Some(number) = queue.pop_front() else {
                return;
            };
            let entry = self.entries[number as usize].as_mut();
            let entry = entry.expect("a queue holds entries only");
            if entry.is_new {
                self.new_octets -= entry.octets as usize;
            }
            if entry.hits == 0 || entry.answer.until <= now {
                return self.remove(number, now);
            }
            // From the new one all hits are spent at once: to have got to the other is worth one round.
            entry.hits = if from_new { 0 } else { entry.hits - 1 };
            entry.is_new = false;
            self.old.push_back(number);
        }
    }

    fn remove(&mut self, number: u32, now: Moment) {
        let entry = self.entries[number as usize].take();
        let entry = entry.expect("a queue holds entries only");
        let hash = self.hasher.hash_one(&entry.question);
        if let Ok(found) = self.index.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        self.octets -= entry.octets as usize;
        self.evicted += u64::from(entry.answer.until > now);
        self.free.push(number);
    }
}

fn same<'a>(entries: &'a [Option<Entry>], question: &'a Question) -> impl Fn(&u32) -> bool + 'a {
    |&number| {
        let entry = entries[number as usize].as_ref();
        entry.is_some_and(|entry| entry.question == *question)
    }
}

fn octets(question: &Question, outcome: &Outcome) -> usize {
    let name = |name: &super::Name| 16 + name.as_wire().len();
    let records = match outcome {
        Outcome::Records(Records::A(records)) => records.len() * 4,
        Outcome::Records(Records::Aaaa(records)) => records.len() * 16,
        Outcome::Records(Records::Ptr(records)) => records.iter().map(name).sum(),
        Outcome::Records(Records::Mx(records)) => records.iter().map(|(_, at)| 8 + name(at)).sum(),
        Outcome::Records(Records::Txt(records)) => records.iter().map(|text| 16 + text.len()).sum(),
        Outcome::NoData | Outcome::NoName | Outcome::Failed(_) => 0,
    };
    OCTETS_BARE + question.name.as_wire().len() + records
}

#[cfg(test)]
mod tests;
