//! What arrived, run by run.

use crate::ledger::{Arrived, PAGES_MAX, Seen};

/// Runs that are remembered at once. The one not heard of for longest is dropped for a new one.
const RUNS_MAX: usize = 64;

#[derive(Default)]
pub struct Ledgers {
    /// The run last heard of is the last.
    runs: Vec<(u64, Arrived)>,
    pages: usize,
    /// Messages without a stamp that can be read: of which run they are, nobody knows.
    strays: u64,
}

impl Ledgers {
    /// Counts an accepted message for the run it belongs to. Without a stamp it belongs to none, and to all that are under way.
    pub fn count(&mut self, seen: Seen) {
        let (Seen::Whole(id) | Seen::Altered(id)) = seen else {
            self.strays += 1;
            return;
        };
        self.find(id.run);
        let Some((_, arrived)) = self.runs.last_mut() else {
            return;
        };
        let before = arrived.pages();
        arrived.count(seen);
        self.pages += arrived.pages() - before;
        while self.pages > PAGES_MAX && self.runs.len() > 1 {
            self.drop_at(0);
        }
    }

    /// Makes `run` the last one.
    fn find(&mut self, run: u64) {
        match self.position(run) {
            Some(at) if at + 1 == self.runs.len() => {}
            Some(at) => self.runs[at..].rotate_left(1),
            None => {
                if self.runs.len() == RUNS_MAX {
                    self.drop_at(0);
                }
                self.runs.push((run, Arrived::default()));
            }
        }
    }

    fn position(&self, run: u64) -> Option<usize> {
        self.runs.iter().rposition(|(of, _)| *of == run)
    }

    fn drop_at(&mut self, at: usize) {
        let (_, arrived) = self.runs.remove(at);
        self.pages -= arrived.pages();
    }

    pub fn of(&self, run: u64) -> Option<&Arrived> {
        self.position(run).map(|at| &self.runs[at].1)
    }

    pub fn strays(&self) -> u64 {
        self.strays
    }

    pub fn forget(&mut self, run: u64) {
        if let Some(at) = self.position(run) {
            self.drop_at(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{MessageId, Sighting};

    fn whole(run: u64, process: u16, number: u32) -> Seen {
        Seen::Whole(MessageId {
            run,
            process,
            number,
        })
    }

    #[test]
    fn runs_are_kept_apart() {
        let mut ledgers = Ledgers::default();
        for number in 0..10 {
            ledgers.count(whole(1, 0, number));
            ledgers.count(whole(2, 0, number + 5));
        }
        ledgers.count(Seen::Unknown);
        assert_eq!(ledgers.of(1).unwrap().total(), 10);
        assert_eq!(ledgers.of(2).unwrap().sighting(0, 0), Sighting::Never);
        assert_eq!(ledgers.of(2).unwrap().sighting(0, 14), Sighting::Once);
        assert!(ledgers.of(3).is_none());
        assert_eq!(ledgers.strays(), 1);
        ledgers.forget(1);
        ledgers.forget(3);
        assert!(ledgers.of(1).is_none());
        assert_eq!(ledgers.of(2).unwrap().total(), 10);
    }

    #[test]
    fn runs_and_their_memory_have_an_end() {
        let mut ledgers = Ledgers::default();
        for run in 0..1000 {
            ledgers.count(whole(run, 0, 0));
            ledgers.count(whole(7, 0, run as u32));
        }
        assert_eq!(ledgers.runs.len(), RUNS_MAX);
        assert_eq!(ledgers.of(7).unwrap().total(), 1001, "a run in use stays");
        for process in 0..u16::MAX {
            ledgers.count(whole(7, process, 0));
        }
        assert!(ledgers.pages <= PAGES_MAX);
        let kept: usize = ledgers.runs.iter().map(|(_, run)| run.pages()).sum();
        assert_eq!(kept, ledgers.pages);
    }
}
