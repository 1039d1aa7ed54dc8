//! What a filter did to a day of mail, as a row of a table.

use std::fmt;
use std::time::Duration;

use super::traffic::{BotKind, Errand, Whose};

const KINDS: [(BotKind, &str); 5] = [
    (BotKind::Forgets, "forget"),
    (BotKind::Retries, "retry"),
    (BotKind::Pregreets, "pregreet"),
    (BotKind::Snowshoe, "snowshoe"),
    (BotKind::Guesses, "guess"),
];

/// The counts of one filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub name: String,
    pub good: u32,
    /// Not taken at the first visit, each with how much later it was.
    delays: Vec<Duration>,
    /// Recipients of good mail who never got it.
    pub lost: u32,
    /// Longest connection of a good sender.
    longest_visit: Duration,
    pub bots: u32,
    /// Messages of bots that reached somebody, by kind.
    through: [u32; KINDS.len()],
    /// Time of bots in connections, one entry an errand.
    held: Vec<Duration>,
}

impl Row {
    pub fn of(name: &str, errands: &[Errand]) -> Row {
        let mut row = Row {
            name: name.to_owned(),
            ..Row::default()
        };
        errands.iter().for_each(|errand| row.add(errand));
        row.delays.sort();
        row.held.sort();
        row
    }

    fn add(&mut self, errand: &Errand) {
        let fate = &errand.fate;
        match errand.whose {
            Whose::Good => {
                self.good += 1;
                self.lost += fate.lost;
                self.longest_visit = self.longest_visit.max(fate.held_longest);
                if let Some(delivered) = fate.delivered.filter(|_| fate.tries > 1) {
                    self.delays.push(delivered.since(errand.begins));
                }
            }
            Whose::Bot(kind) => {
                self.bots += 1;
                self.held.push(fate.held);
                let nth = KINDS.iter().position(|(known, _)| *known == kind);
                self.through[nth.expect("every kind has a column")] += u32::from(fate.taken > 0);
            }
        }
    }

    pub fn delayed(&self) -> usize {
        self.delays.len()
    }

    pub fn let_through(&self) -> u32 {
        self.through.iter().sum()
    }

    pub fn held(&self) -> Duration {
        self.held.iter().sum()
    }

    pub fn heading() -> String {
        let kinds: String = KINDS.iter().map(|(_, word)| format!("{word:>9}")).collect();
        format!(
            "{:22} {:>8} {:>7} {:>7} {:>8} {:>5} {:>7}  {:>8} of them{kinds} {:>8} {:>7}",
            "", "delayed", "median", "p95", "longest", "lost", "visit", "through", "held", "median"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.delays.len() as f64 / f64::from(self.good.max(1));
        write!(
            f,
            "{:22} {:>7.1}% {:>7} {:>7} {:>8} {:>5} {:>7}  {:>8}        ",
            self.name,
            percent,
            short(share(&self.delays, 50)),
            short(share(&self.delays, 95)),
            short(share(&self.delays, 100)),
            self.lost,
            short(self.longest_visit),
            self.let_through(),
        )?;
        for through in self.through {
            write!(f, "{through:>9}")?;
        }
        let median = share(&self.held, 50);
        write!(
            f,
            " {:>7}h {:>7}",
            self.held().as_secs() / 3600,
            short(median)
        )
    }
}

/// The value at which so many percent of a sorted list are reached.
fn share(sorted: &[Duration], percent: usize) -> Duration {
    let nth = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(nth).copied().unwrap_or_default()
}

/// A span in the largest unit that says enough.
fn short(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    if seconds < 120.0 {
        format!("{seconds:.1}s")
    } else if seconds < 7200.0 {
        format!("{:.0}m", seconds / 60.0)
    } else {
        format!("{:.1}h", seconds / 3600.0)
    }
}
