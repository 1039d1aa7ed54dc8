//! What this shard has learnt goes to the others, and what others have learnt comes in.
//!
//! Both by the control thread, about once a second. Letters are short or long as they come; what is in them is taken in a few
//! at a time between the clients' turns, so that a flood of news elsewhere is no pause here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::policy::budget::Spent;
use crate::policy::news::News;
use crate::ring::Wire;

use super::world::World;

/// News taken in during one turn: some 50 microseconds.
const PER_TURN: usize = 256;
/// News that wait at most, over all letters; the letters are shared with the other shards.
const WAITING_MAX: usize = 1 << 18;

/// Letters that are being read.
#[derive(Default)]
pub struct Hearsay {
    letters: VecDeque<Arc<[News]>>,
    /// How far the first one is read.
    read: usize,
    /// News in all of them, read ones of the first included.
    waiting: usize,
    /// News of this shard that nobody had room for.
    unheard: u64,
}

impl Hearsay {
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// False: there is no room for it.
    fn put(&mut self, letter: Arc<[News]>) -> bool {
        let has_room = self.waiting + letter.len() <= WAITING_MAX;
        if has_room && !letter.is_empty() {
            self.waiting += letter.len();
            self.letters.push_back(letter);
        }
        has_room
    }

    fn next(&mut self) -> Option<News> {
        let letter = self.letters.front()?;
        let news = letter[self.read];
        self.read += 1;
        if self.read == letter.len() {
            self.waiting -= self.read;
            self.read = 0;
            self.letters.pop_front();
        }
        Some(news)
    }
}

impl<W: Wire> World<W> {
    /// What the others should know, since the last time.
    pub fn take_news(&mut self) -> Vec<News> {
        let news = self.memory.take_news();
        let counters = &self.counters;
        counters.news_told.add(news.len() as u64);
        let dropped = self.memory.news_dropped() + self.hearsay.unheard;
        counters.news_dropped.mirror(dropped);
        news
    }

    /// What clients have spent of their rates since the last time; nothing where no other host counts them.
    pub fn take_spent(&mut self) -> Vec<Spent> {
        self.policy.take_spent()
    }

    /// News that were taken, and that nobody had room for.
    pub fn note_unheard(&mut self, news: u64) {
        self.hearsay.unheard += news;
    }

    /// A letter of what others know.
    pub(super) fn hear_news(&mut self, letter: Arc<[News]>) {
        let news = letter.len() as u64;
        if !self.hearsay.put(letter) {
            self.counters.news_missed.add(news);
        }
    }

    /// This turn's part of what there is to read.
    pub(super) fn learn_some(&mut self) {
        if self.hearsay.is_empty() {
            return;
        }
        let now = self.wall();
        for _ in 0..PER_TURN {
            let Some(news) = self.hearsay.next() else {
                return;
            };
            self.memory.learn(&news, now);
            self.counters.news_learnt.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::news::TupleKey;

    fn letter(from: u64, news: u64) -> Arc<[News]> {
        let tuple = |key| News::Tuple {
            key: TupleKey(key),
            first: 1,
        };
        (from..from + news).map(tuple).collect()
    }

    #[test]
    fn letters_are_read_in_order_and_let_go_of() {
        let mut hearsay = Hearsay::default();
        let (one, two) = (letter(0, 3), letter(3, 2));
        assert!(hearsay.put(one.clone()) && hearsay.put(letter(9, 0)) && hearsay.put(two.clone()));
        let all: Vec<News> = std::iter::from_fn(|| hearsay.next()).collect();
        assert_eq!(all, [&one[..], &two].concat());
        assert!(hearsay.is_empty());
        assert_eq!(
            (Arc::strong_count(&one), Arc::strong_count(&two)),
            (1, 1),
            "whoever sends them goes by that"
        );
        assert_eq!((hearsay.waiting, hearsay.read), (0, 0));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut hearsay = Hearsay::default();
        let letter = letter(0, WAITING_MAX as u64 / 2);
        assert!(hearsay.put(letter.clone()) && hearsay.put(letter.clone()));
        assert!(!hearsay.put(letter.clone()));
        assert!((0..letter.len()).all(|_| hearsay.next().is_some()));
        assert!(hearsay.put(letter));
    }
}
