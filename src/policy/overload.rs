//! The overload ladder: what is given up as the load rises, and when it comes back.
//!
//! Each rung has two watermarks. It is entered at the high one and left at the low one, so that a load
//! that hovers does not flap; every step is reported once, for the log.

/// How far up the ladder we are. Each rung includes what the lower ones do.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Default, Debug)]
#[repr(u8)]
pub enum Rung {
    #[default]
    Calm,
    /// Timeouts are shorter.
    Stress,
    /// Clients that never had a message accepted are not let in.
    KnownOnly,
    /// Parked clients are cut to make room; nobody new is let in but those of the allow list.
    Shed,
}

impl Rung {
    pub const COUNT: usize = Rung::Shed as usize + 1;

    pub const fn word(self) -> &'static str {
        match self {
            Rung::Calm => "calm",
            Rung::Stress => "stress",
            Rung::KnownOnly => "known-only",
            Rung::Shed => "shed",
        }
    }
}

const RUNGS: [Rung; Rung::COUNT] = [Rung::Calm, Rung::Stress, Rung::KnownOnly, Rung::Shed];

/// Watermarks of one rung, in thousandths of what there is (slots, buffers: whichever is scarcer).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Watermarks {
    /// The rung is entered at this load.
    pub high: u16,
    /// The rung is left below this load.
    pub low: u16,
}

/// One entry for each rung above `Calm`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Config(pub [Watermarks; Rung::COUNT - 1]);

impl Default for Config {
    fn default() -> Config {
        Config([
            Watermarks {
                high: 700,
                low: 550,
            },
            Watermarks {
                high: 850,
                low: 700,
            },
            Watermarks {
                high: 950,
                low: 850,
            },
        ])
    }
}

impl Config {
    /// Each low mark lies below its high one, and both rise with the rungs.
    pub fn is_sound(&self) -> bool {
        self.0.iter().all(|marks| marks.low < marks.high)
            && self
                .0
                .is_sorted_by(|lower, upper| lower.high <= upper.high && lower.low <= upper.low)
    }
}

/// The ladder of one shard.
#[derive(Clone, Debug, Default)]
pub struct Ladder {
    config: Config,
    rung: Rung,
}

/// A change, to be logged.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Step {
    pub from: Rung,
    pub to: Rung,
}

impl Ladder {
    pub fn new(config: Config) -> Ladder {
        assert!(
            config.is_sound(),
            "low watermarks lie below high ones, and both rise with the rungs"
        );
        Ladder {
            config,
            rung: Rung::Calm,
        }
    }

    pub const fn rung(&self) -> Rung {
        self.rung
    }

    /// Tells the load, in thousandths; says whether that changes the rung.
    pub fn update(&mut self, load: u16) -> Option<Step> {
        let from = self.rung;
        let entered = self
            .config
            .0
            .iter()
            .take_while(|marks| load >= marks.high)
            .count();
        let stays = self
            .config
            .0
            .iter()
            .take_while(|marks| load >= marks.low)
            .count();
        let to = RUNGS[(from as usize).min(stays).max(entered)];
        self.rung = to;
        (from != to).then_some(Step { from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_entered_high_and_left_low() {
        let mut ladder = Ladder::default();
        let story = [
            (699, Rung::Calm),
            (700, Rung::Stress),
            (560, Rung::Stress),
            (549, Rung::Calm),
            (960, Rung::Shed),
            (900, Rung::Shed),
            (849, Rung::KnownOnly),
            (850, Rung::KnownOnly),
            (100, Rung::Calm),
        ];
        for (load, want) in story {
            let before = ladder.rung();
            let step = ladder.update(load);
            assert_eq!(ladder.rung(), want, "at {load}");
            assert_eq!(step.is_some(), before != want, "at {load}");
        }
    }

    #[test]
    fn unsound_watermarks_are_noticed() {
        let mut config = Config::default();
        assert!(config.is_sound());
        config.0[1].low = config.0[1].high;
        assert!(!config.is_sound());
    }
}
