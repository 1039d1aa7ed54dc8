//! What has been found out about one client: marks, each with its weight, and their sum.
//!
//! A mark is put by whoever found it (a list, a name, the memory of networks, the session itself) and stays until it is
//! put anew, taken back, or its time is over. The score is the sum of all marks, so it falls as well as it rises.

use weir_smtp::time::Moment;

use super::dnsbl::ZONES_MAX;
use super::finding::{Finding, FindingSet};

/// Marks of one client: more findings than there are, and all the lists that may be configured, would have to meet in one.
pub const MARKS_MAX: usize = 128;
const _: () = assert!(
    Finding::COUNT + ZONES_MAX + 2 <= MARKS_MAX,
    "each finding once, each list, a provider and a country"
);

/// What is particular about a mark, beyond its finding.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum Detail {
    #[default]
    None,
    /// The list, by its number in the configuration.
    Zone(u16),
    /// The autonomous system.
    Asn(u32),
    /// The country, two letters.
    Country([u8; 2]),
}

/// One thing that was found.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Mark {
    pub finding: Finding,
    /// Below zero: it speaks for the client.
    pub weight: i16,
    pub detail: Detail,
    /// It holds until then; [`Moment::NEVER`]: as long as the session.
    pub until: Moment,
}

const _: () = assert!(size_of::<Mark>() <= 24, "a client may have many");

impl Mark {
    /// One for the rest of the session.
    pub const fn lasting(finding: Finding, weight: i16) -> Mark {
        Mark {
            finding,
            weight,
            detail: Detail::None,
            until: Moment::NEVER,
        }
    }
}

/// All marks of one client. Allocates with the first; at most [`MARKS_MAX`].
#[derive(Clone, Debug, Default)]
pub struct Dossier {
    marks: Vec<Mark>,
}

impl Dossier {
    /// Puts a mark, in the place of one for the same. True: it was not known before.
    pub fn put(&mut self, mark: Mark) -> bool {
        let same = |known: &&mut Mark| (known.finding, known.detail) == (mark.finding, mark.detail);
        if let Some(known) = self.marks.iter_mut().find(same) {
            *known = mark;
            return false;
        }
        if self.marks.len() < MARKS_MAX {
            self.marks.push(mark);
            return true;
        }
        false
    }

    /// Takes a mark back: it is known now that it is not so. True: there was one.
    pub fn take_back(&mut self, finding: Finding, detail: Detail) -> bool {
        let before = self.marks.len();
        self.marks
            .retain(|mark| (mark.finding, mark.detail) != (finding, detail));
        before != self.marks.len()
    }

    /// Forgets what holds no more, and tells what that was.
    pub fn expire(&mut self, now: Moment) -> FindingSet {
        let over = self.marks.extract_if(.., |mark| mark.until <= now);
        over.map(|mark| mark.finding).collect()
    }

    pub fn score(&self) -> i32 {
        self.marks.iter().map(|mark| i32::from(mark.weight)).sum()
    }

    /// What of the score is held against the client for its network's sake: others may have done it.
    pub fn neighbours(&self) -> i32 {
        let by_others = |mark: &&Mark| matches!(mark.finding, Finding::History | Finding::Trapped);
        let weights = self.marks.iter().filter(by_others).map(|mark| mark.weight);
        weights.map(|weight| i32::from(weight.max(0))).sum()
    }

    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub fn findings(&self) -> FindingSet {
        self.marks.iter().map(|mark| mark.finding).collect()
    }

    /// Findings that may take an action. What speaks for the client never does: only its weight counts.
    pub fn against(&self) -> FindingSet {
        let against = self.marks.iter().filter(|mark| mark.weight >= 0);
        against.map(|mark| mark.finding).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(zone: u16, weight: i16, until: u64) -> Mark {
        Mark {
            finding: Finding::Dnsbl,
            weight,
            detail: Detail::Zone(zone),
            until: Moment::from_micros(until),
        }
    }

    #[test]
    fn the_score_rises_and_falls_with_its_marks() {
        let mut dossier = Dossier::default();
        assert_eq!(dossier.score(), 0);
        assert!(dossier.put(listed(0, 3, 100)));
        assert!(dossier.put(listed(1, 4, 200)));
        assert!(dossier.put(Mark::lasting(Finding::NoReverse, 2)));
        assert_eq!(dossier.score(), 9);
        assert!(!dossier.put(listed(1, -1, 200)), "the same list again");
        assert_eq!(dossier.score(), 4);
        assert!(dossier.take_back(Finding::Dnsbl, Detail::Zone(1)));
        assert!(!dossier.take_back(Finding::Dnsbl, Detail::Zone(1)));
        assert!(dossier.expire(Moment::from_micros(99)).is_empty());
        let over = dossier.expire(Moment::from_micros(100));
        assert!(over.contains(Finding::Dnsbl));
        assert_eq!((dossier.score(), dossier.marks().len()), (2, 1));
        assert!(dossier.findings().contains(Finding::NoReverse));
        assert!(!dossier.findings().contains(Finding::Dnsbl));
        assert_eq!(dossier.neighbours(), 0);
        dossier.put(Mark::lasting(Finding::History, 3));
        dossier.put(Mark::lasting(Finding::Trapped, 1));
        assert_eq!((dossier.score(), dossier.neighbours()), (6, 4));
        dossier.put(Mark::lasting(Finding::History, -3));
        assert_eq!(dossier.neighbours(), 1, "what is good is its own");
        assert!(dossier.findings().contains(Finding::History));
        assert!(!dossier.against().contains(Finding::History));
    }

    #[test]
    fn a_dossier_does_not_grow_without_bound() {
        let mut dossier = Dossier::default();
        let put = (0..1000)
            .filter(|zone| dossier.put(listed(*zone, 1, 1)))
            .count();
        assert_eq!((put, dossier.score()), (MARKS_MAX, MARKS_MAX as i32));
    }
}
