//! What one process sees of one stream: counts, histograms, seconds.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::{Duration, Instant};

use crate::outcome::{Counts, Latencies, Second, Stage, StageTimes, StreamOutcome};

pub struct Tally {
    begun: Instant,
    /// Starts planned for earlier are warmup.
    counted_from: Instant,
    pub counts: Counts,
    stages: [StageTimes; Stage::ALL.len()],
    kept: Latencies,
    seconds: Vec<Second>,
    /// Seconds after this one cannot be: a bound for memory.
    second_last: usize,
    words: BTreeMap<String, u64>,
}

/// Different words that are kept, and how long they may be.
const WORDS_MAX: usize = 32;
const WORD_OCTETS_MAX: usize = 120;

/// The times one stage of a session is counted from.
#[derive(Clone, Copy)]
pub struct Since {
    pub planned: Instant,
    /// The end of the stage before.
    pub last: Instant,
}

impl Tally {
    /// `lasts` includes the grace.
    pub fn new(begun: Instant, warmup: Duration, lasts: Duration) -> Tally {
        Tally {
            begun,
            counted_from: begun + warmup,
            counts: Counts::default(),
            stages: Default::default(),
            kept: Latencies::default(),
            seconds: Vec::new(),
            second_last: lasts.as_secs() as usize,
            words: BTreeMap::new(),
        }
    }

    pub fn stage(&mut self, stage: Stage, since: Since, at: Instant) {
        if since.planned < self.counted_from {
            return;
        }
        let times = &mut self.stages[stage as usize];
        times
            .planned
            .record(at.saturating_duration_since(since.planned));
        times
            .service
            .record(at.saturating_duration_since(since.last));
    }

    /// A whole session, or as much of it as there was.
    pub fn session(&mut self, since: Since, at: Instant) {
        self.stage(Stage::Session, since, at);
        if since.planned >= self.counted_from {
            let lasted = at.saturating_duration_since(since.planned);
            self.second(at).session.record(lasted);
        }
    }

    pub fn started(&mut self, at: Instant) {
        self.counts.starts += 1;
        self.second(at).starts += 1;
    }

    pub fn accepted(&mut self, octets: u64, at: Instant) {
        self.counts.accepted += 1;
        self.counts.body_octets += octets;
        self.second(at).accepted += 1;
    }

    pub fn failed(&mut self, at: Instant) {
        self.second(at).failed += 1;
    }

    pub fn kept(&mut self, since: Instant, at: Instant) {
        if since >= self.counted_from {
            self.kept.record(at.saturating_duration_since(since));
        }
    }

    pub fn open(&mut self, at: Instant, connections: u64) {
        self.second(at).open = connections;
    }

    /// The first line of an unwanted reply, or what went wrong instead of one.
    pub fn words(&mut self, line: &[u8]) {
        let line = &line[..line.len().min(WORD_OCTETS_MAX)];
        let word = line.escape_ascii().to_string();
        if let Some(count) = self.words.get_mut(&word) {
            *count += 1;
        } else if self.words.len() < WORDS_MAX {
            self.words.insert(word, 1);
        }
    }

    fn second(&mut self, at: Instant) -> &mut Second {
        let number = at.saturating_duration_since(self.begun).as_secs() as usize;
        let number = number.min(self.second_last);
        if number >= self.seconds.len() {
            self.seconds.resize(number + 1, Second::default());
        }
        &mut self.seconds[number]
    }

    /// Hands out what was seen; what comes later is lost.
    pub fn outcome(&mut self, name: &str, profile: &str) -> StreamOutcome {
        let stages = Stage::ALL.into_iter().zip(take(&mut self.stages));
        StreamOutcome {
            name: name.to_owned(),
            profile: profile.to_owned(),
            counts: self.counts,
            stages: stages
                .filter(|(_, times)| !times.service.0.is_empty())
                .collect(),
            kept: take(&mut self.kept),
            seconds: take(&mut self.seconds),
            words: take(&mut self.words),
        }
    }
}
