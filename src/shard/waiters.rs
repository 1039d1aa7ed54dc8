//! Sessions that wait for an upstream connection: a bounded queue, first come first served within its class.
//!
//! New transactions, those whose body is complete and those that stream take turns: a thousand slow clients that end
//! together have minutes for their replays, and nobody's next message is to wait behind all of them. Nor behind bodies that
//! may not stream yet, whose clients have their share of the pool.
//!
//! An entry is left in place when its session stops waiting (client gone, deadline over): the session's own ticket is
//! the truth, and a stale entry is dropped when it reaches the front. So leaving the queue costs nothing and the queue
//! needs no index. Deadlines are the sessions' own; nothing here looks at the time.

use std::collections::VecDeque;

/// Who is served in turn, beginning with the first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// A transaction that has its body complete, or an upstream that failed it once already.
    Committed,
    /// Everybody else.
    Normal,
    /// A body that has outgrown what may be held.
    Stream,
}

impl Class {
    const ALL: [Class; CLASSES] = [Class::Committed, Class::Normal, Class::Stream];

    /// All of them, this one first.
    fn and_others(self) -> impl Iterator<Item = Class> {
        (0..CLASSES).map(move |skipped| Class::ALL[(self as usize + skipped) % CLASSES])
    }

    fn next(self) -> Class {
        Class::ALL[(self as usize + 1) % CLASSES]
    }
}

const CLASSES: usize = 3;

/// How many live entries of a class that do not fit are looked past for one upstream connection. Keeps one turn bounded.
const SCAN_MAX: usize = 256;

/// One place in the queue. Zero is never given out, so a session can keep 0 for "does not wait".
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ticket(u32);

impl Ticket {
    pub const NONE: Ticket = Ticket(0);

    pub fn is_none(self) -> bool {
        self == Ticket::NONE
    }
}

/// The queue is full: the session gets 451 4.3.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Full;

#[derive(Clone, Copy, Debug)]
struct Waiter<K> {
    session: K,
    ticket: Ticket,
}

/// The queue of one shard. At most `max` sessions wait; 16 bytes each.
#[derive(Debug)]
pub struct Waiters<K> {
    classes: [VecDeque<Waiter<K>>; CLASSES],
    live: usize,
    max: usize,
    last: u32,
    /// The class whose turn is next.
    turn: Class,
}

impl<K: Copy> Waiters<K> {
    pub fn new(max: usize) -> Self {
        Waiters {
            classes: [const { VecDeque::new() }; CLASSES],
            live: 0,
            max,
            last: 0,
            turn: Class::Committed,
        }
    }

    /// Sessions that wait now.
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub fn push(&mut self, session: K, class: Class) -> Result<Ticket, Full> {
        if self.live >= self.max {
            return Err(Full);
        }
        self.last = self.last.checked_add(1).unwrap_or(1);
        let ticket = Ticket(self.last);
        self.live += 1;
        self.classes[class as usize].push_back(Waiter { session, ticket });
        Ok(ticket)
    }

    /// A session gave up its place (it forgets its ticket itself).
    pub fn forget(&mut self) {
        assert!(
            self.live > 0,
            "a session left a queue in which nobody waits"
        );
        self.live -= 1;
        if self.live == 0 {
            self.classes.iter_mut().for_each(VecDeque::clear);
        }
    }

    /// The session that `skipped` others stand before. `waits` tells who still does; few lookups where few have left.
    pub fn nth(&self, skipped: usize, waits: impl Fn(K, Ticket) -> bool) -> Option<K> {
        let all = self.classes.iter().flatten();
        let live = all.filter(|waiter| waits(waiter.session, waiter.ticket));
        live.map(|waiter| waiter.session).nth(skipped)
    }

    /// The first live session that `judge` wants. Stale entries met on the way are dropped.
    pub fn take(&mut self, mut judge: impl FnMut(K, Ticket) -> Judgement) -> Option<K> {
        for class in self.turn.and_others() {
            let mut scanned = 0;
            let queue = &mut self.classes[class as usize];
            let mut at = 0;
            while at < queue.len() && scanned < SCAN_MAX {
                let waiter = queue[at];
                match judge(waiter.session, waiter.ticket) {
                    Judgement::Gone => {
                        queue.remove(at);
                    }
                    Judgement::Unfit => {
                        at += 1;
                        scanned += 1;
                    }
                    Judgement::Take => {
                        queue.remove(at);
                        self.live -= 1;
                        self.turn = class.next();
                        return Some(waiter.session);
                    }
                }
            }
        }
        None
    }
}

/// What the owner of the sessions says about one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Judgement {
    /// The session does not hold this ticket any more.
    Gone,
    /// It waits, but this connection is not for it.
    Unfit,
    Take,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_in_order_and_the_classes_in_turn() {
        let mut waiters = Waiters::new(10);
        waiters.push(1, Class::Stream).unwrap();
        waiters.push(2, Class::Normal).unwrap();
        waiters.push(3, Class::Normal).unwrap();
        waiters.push(4, Class::Committed).unwrap();
        let order: Vec<i32> = std::iter::from_fn(|| waiters.take(|_, _| Judgement::Take)).collect();
        assert_eq!(order, [4, 2, 1, 3]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn nobody_waits_behind_all_who_end_together() {
        let mut waiters = Waiters::new(100);
        for session in 0..50 {
            waiters.push(session, Class::Committed).unwrap();
        }
        for session in 50..53 {
            waiters.push(session, Class::Normal).unwrap();
        }
        let served: Vec<i32> =
            std::iter::from_fn(|| waiters.take(|_, _| Judgement::Take)).collect();
        assert_eq!(served[..8], [0, 50, 1, 51, 2, 52, 3, 4]);
        assert_eq!(served.len(), 53);
    }

    #[test]
    fn streams_that_have_to_wait_hide_nobody() {
        let mut waiters = Waiters::new(1000);
        for session in 0..500 {
            waiters.push(session, Class::Stream).unwrap();
        }
        waiters.push(500, Class::Normal).unwrap();
        waiters.push(501, Class::Committed).unwrap();
        assert_eq!(waiters.nth(0, |_, _| true), Some(501));
        assert_eq!(waiters.nth(1, |_, _| true), Some(500));
        let mut take = || {
            waiters.take(|session, _| match session < 500 {
                true => Judgement::Unfit,
                false => Judgement::Take,
            })
        };
        assert_eq!([take(), take(), take()], [Some(501), Some(500), None]);
    }

    #[test]
    fn the_bound_counts_only_those_who_still_wait() {
        let mut waiters = Waiters::new(2);
        let first = waiters.push(1, Class::Normal).unwrap();
        waiters.push(2, Class::Normal).unwrap();
        assert_eq!(waiters.push(3, Class::Normal), Err(Full));
        waiters.forget(); // session 1 went away
        waiters.push(3, Class::Normal).unwrap();
        let served = waiters.take(|_, ticket| {
            if ticket == first {
                Judgement::Gone
            } else {
                Judgement::Take
            }
        });
        assert_eq!(served, Some(2));
        assert_eq!(waiters.len(), 1);
    }

    #[test]
    fn who_does_not_fit_keeps_his_place() {
        let mut waiters = Waiters::new(10);
        for session in 1..=3 {
            waiters.push(session, Class::Normal).unwrap();
        }
        let even = |session: i32, _| {
            if session % 2 == 0 {
                Judgement::Take
            } else {
                Judgement::Unfit
            }
        };
        assert_eq!(waiters.take(even), Some(2));
        assert_eq!(waiters.take(even), None);
        assert_eq!(waiters.take(|_, _| Judgement::Take), Some(1));
    }

    #[test]
    fn an_emptied_queue_forgets_stale_entries() {
        let mut waiters = Waiters::new(1000);
        for round in 0..100 {
            waiters.push(round, Class::Normal).unwrap();
            waiters.forget();
        }
        assert!(waiters.classes.iter().all(VecDeque::is_empty));
    }
}
