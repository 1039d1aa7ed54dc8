//! The questions that are open, what was sent for each, and when each is looked at again.

use std::collections::BTreeSet;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::{HashMap, HashTable};
use weir_smtp::time::Moment;

use super::answer::Failure;
use super::name::Question;
use super::ports::PortId;
use super::servers::Mask;
use super::streams::StreamId;

/// Who may wait for one question.
pub const ASKERS_MAX: usize = 8192;
/// Who may wait for one that anybody can cause: a session can do so again and again, and wait once.
pub const ASKERS_OF_CLIENTS_MAX: usize = 256;

/// By what a query went.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum Lane {
    Port(PortId),
    Stream(StreamId),
}

/// One query that was sent, until its answer or the end of the question. A later one does not replace it: a slow answer is as good.
#[derive(Copy, Clone, Debug)]
pub struct Try {
    pub lane: Lane,
    pub id: u16,
    pub server: u8,
    pub edns: bool,
    /// The server has had its time, and this was held against it.
    pub missed: bool,
    /// In what case it was asked.
    pub case: u64,
    pub sent: Moment,
}

/// A question that is open.
#[derive(Debug)]
pub struct Flight<T> {
    pub question: Question,
    pub askers: Vec<T>,
    pub tries: Vec<Try>,
    /// Queries sent, in all.
    pub sent: u8,
    /// Servers that were asked, that have failed at it, and that must be asked by TCP.
    pub tried: Mask,
    pub failed: Mask,
    pub by_stream: Mask,
    /// Servers that could not read it with EDNS.
    pub plain: Mask,
    /// Servers that changed the question's case: by TCP it shows whether that was them.
    pub suspect: Mask,
    /// Why it fails, if it fails now.
    pub failure: Failure,
    /// When the next try is due, and the end.
    pub next: Moment,
    pub over: Moment,
    timer: Moment,
}

/// Which question, while it is open.
pub type Number = u32;

#[derive(Debug)]
pub struct Flights<T> {
    all: Vec<Option<Flight<T>>>,
    free: Vec<Number>,
    by_question: HashTable<Number>,
    by_id: HashMap<(Lane, u16), Number, RandomState>,
    timers: BTreeSet<(Moment, Number)>,
    hasher: RandomState,
}

impl<T> Flights<T> {
    pub fn new() -> Flights<T> {
        Flights {
            all: Vec::new(),
            free: Vec::new(),
            by_question: HashTable::new(),
            by_id: HashMap::default(),
            timers: BTreeSet::new(),
            hasher: RandomState::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.by_question.len()
    }

    pub fn find(&self, question: &Question) -> Option<Number> {
        let hash = self.hasher.hash_one(question);
        let same = |number: &Number| self.question(*number) == Some(question);
        self.by_question.find(hash, same).copied()
    }

    fn question(&self, number: Number) -> Option<&Question> {
        let flight = self.all[number as usize].as_ref();
        flight.map(|flight| &flight.question)
    }

    /// Opens a question that is not open.
    pub fn open(&mut self, question: &Question, asker: T, over: Moment) -> Number {
        let number = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            (self.all.len() - 1) as Number
        });
        self.all[number as usize] = Some(Flight {
            question: question.clone(),
            askers: vec![asker],
            tries: Vec::with_capacity(2),
            sent: 0,
            tried: 0,
            failed: 0,
            by_stream: 0,
            plain: 0,
            suspect: 0,
            failure: Failure::Timeout,
            next: over,
            over,
            timer: over,
        });
        self.timers.insert((over, number));
        let hash = self.hasher.hash_one(question);
        let (all, hasher) = (&self.all, &self.hasher);
        self.by_question.insert_unique(hash, number, |&number| {
            let flight = all[number as usize].as_ref();
            hasher.hash_one(&flight.expect("only what is open is found").question)
        });
        number
    }

    /// Closes it. Its tries are the caller's to give up, before.
    pub fn close(&mut self, number: Number) -> Option<Flight<T>> {
        let flight = self.all.get_mut(number as usize)?.take()?;
        debug_assert!(flight.tries.is_empty(), "a try outlives its question");
        self.timers.remove(&(flight.timer, number));
        let hash = self.hasher.hash_one(&flight.question);
        if let Ok(found) = self.by_question.find_entry(hash, |&other| other == number) {
            found.remove();
        }
        self.free.push(number);
        Some(flight)
    }

    pub fn get(&self, number: Number) -> Option<&Flight<T>> {
        self.all.get(number as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, number: Number) -> Option<&mut Flight<T>> {
        self.all.get_mut(number as usize)?.as_mut()
    }

    pub fn by_id(&self, lane: Lane, id: u16) -> Option<Number> {
        self.by_id.get(&(lane, id)).copied()
    }

    pub fn is_open(&self, lane: Lane, id: u16) -> bool {
        self.by_id.contains_key(&(lane, id))
    }

    pub fn add_try(&mut self, number: Number, added: Try) {
        if let Some(flight) = self.get_mut(number) {
            flight.tries.push(added);
            self.by_id.insert((added.lane, added.id), number);
        }
    }

    pub fn open_try(&self, number: Number, lane: Lane, id: u16) -> Option<Try> {
        let mut tries = self.get(number)?.tries.iter();
        tries.find(|t| t.lane == lane && t.id == id).copied()
    }

    pub fn take_try(&mut self, number: Number, lane: Lane, id: u16) -> Option<Try> {
        let flight = self.get_mut(number)?;
        let at = flight
            .tries
            .iter()
            .position(|t| t.lane == lane && t.id == id)?;
        let taken = flight.tries.swap_remove(at);
        self.by_id.remove(&(lane, id));
        Some(taken)
    }

    /// The newest that waits for an answer.
    pub fn pop_try(&mut self, number: Number) -> Option<Try> {
        let popped = self.get_mut(number)?.tries.pop()?;
        self.by_id.remove(&(popped.lane, popped.id));
        Some(popped)
    }

    /// Questions that have a try on this lane. Goes through all: for what seldom happens.
    pub fn on_lane(&self, lane: Lane) -> Vec<(Number, u16)> {
        let here = self.by_id.iter().filter(|((at, _), _)| *at == lane);
        let mut here: Vec<_> = here.map(|((_, id), &number)| (number, *id)).collect();
        here.sort_unstable();
        here
    }

    pub fn numbers(&self) -> Vec<Number> {
        let open = self
            .all
            .iter()
            .enumerate()
            .filter(|(_, flight)| flight.is_some());
        open.map(|(number, _)| number as Number).collect()
    }

    /// Looks at the question again at `next`, or at its end, if that is sooner.
    pub fn set_timer(&mut self, number: Number, next: Moment) {
        let Some(flight) = self.all.get_mut(number as usize).and_then(Option::as_mut) else {
            return;
        };
        self.timers.remove(&(flight.timer, number));
        flight.next = next;
        flight.timer = next.min(flight.over);
        self.timers.insert((flight.timer, number));
    }

    pub fn deadline(&self) -> Moment {
        self.timers.first().map_or(Moment::NEVER, |(at, _)| *at)
    }

    /// Somebody whose time has come.
    pub fn due(&self, now: Moment) -> Option<Number> {
        let (at, number) = self.timers.first()?;
        (*at <= now).then_some(*number)
    }
}
