//! The score: whether clients are inquired of, from which score on what happens, how long RCPT waits to know it.

use std::time::Duration;

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use crate::policy::reputation::{self, STEPS, Thresholds};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Reputation")]
pub struct Flags {
    /// Whether clients are inquired of: auto, on or off
    ///
    /// On: the address of each client is looked up in the lists of --dnsbl, and so are its names (of the address, in HELO, of the
    /// sender's domain), unless all findings that could come of it are off by --on. auto: on if any flag asks for it: --dnsbl,
    /// --greylist, --spamtraps, --origin, a --score-*, or --on with a finding that only comes of inquiries. Clients of --allow-list,
    /// of --relay-from, and those that a server has authenticated are not inquired of.
    ///
    /// Range: auto, on, off. Cost: off: none. On: some 200 bytes per session, and a question per list and name, unless the answer is cached.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub reputation: String,

    /// Score from which replies wait (finding score-delay)
    ///
    /// The score of a client is the sum of the weights of all that is found of it: lists (--dnsbl), findings with a weight
    /// (--on FINDING=log,score=N), history, origin. It falls as well as it rises, and treatment follows at once. A score that is
    /// reached is logged and counted; what it leads to is --on score-delay=delay, and only then.
    ///
    /// Range: -10000 to 10000. Default: none. Cost: none.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub score_delay: Option<String>,

    /// Score from which replies go out byte by byte (finding score-stutter)
    ///
    /// Enforced by --on score-stutter=stutter.
    ///
    /// Range: -10000 to 10000. Default: none. Cost: none.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub score_stutter: Option<String>,

    /// Score from which recipients are deferred (finding score-defer)
    ///
    /// Enforced by --on score-defer=defer.
    ///
    /// Range: -10000 to 10000. Default: none. Cost: RCPT waits for answers that could decide it, up to --lookup-wait.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub score_defer: Option<String>,

    /// Score from which recipients are rejected (finding score-reject)
    ///
    /// Enforced by --on score-reject=reject. It is done as soon as no answer that is still open could lower the score below it.
    /// A score that gets there only by what neighbours did (findings trapped and history) defers instead: 450.
    ///
    /// Range: -10000 to 10000. Default: none. Cost: RCPT waits for answers that could decide it, up to --lookup-wait.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub score_reject: Option<String>,

    /// Score from which clients are dropped (finding score-drop)
    ///
    /// Enforced by --on score-drop=drop: 521 and the end, at the greeting or at any command, as soon as no answer that is still open
    /// could lower the score below it. A score that gets there only by what neighbours did (findings trapped and history) defers
    /// recipients instead: 450.
    ///
    /// Range: -10000 to 10000. Default: none. Cost: RCPT waits for answers that could decide it, up to --lookup-wait.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub score_drop: Option<String>,

    /// How long a recipient waits for answers
    ///
    /// From when the question was asked, mostly at the greeting; nothing else of a session waits. A recipient waits only while an
    /// answer could change what becomes of it. What comes later still counts for the recipients that follow.
    ///
    /// Range: 100ms to 30s, or 0: what is not known by then does not count. Cost: a session lasts so much longer where resolvers are silent.
    #[arg(long, value_name = "DURATION", default_value = "3s")]
    pub lookup_wait: String,
}

#[derive(Clone, Debug)]
pub struct Reputation {
    /// None: if there is a reason to.
    pub wanted: Option<bool>,
    pub thresholds: Thresholds,
    pub wait: Duration,
}

const BOUND: i16 = 10_000;

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Reputation {
        Reputation {
            wanted: reader.choice(
                "--reputation",
                &self.reputation,
                &[("auto", None), ("on", Some(true)), ("off", Some(false))],
            ),
            thresholds: self.thresholds(reader),
            wait: reader.duration(
                "--lookup-wait",
                &self.lookup_wait,
                Duration::from_millis(100)..=Duration::from_secs(30),
                Zero::Lifts,
            ),
        }
    }

    fn thresholds(&self, reader: &mut Reader) -> Thresholds {
        let typed = [
            ("--score-delay", &self.score_delay),
            ("--score-stutter", &self.score_stutter),
            ("--score-defer", &self.score_defer),
            ("--score-reject", &self.score_reject),
            ("--score-drop", &self.score_drop),
        ];
        let mut thresholds = Thresholds::default();
        for (step, (flag, typed)) in STEPS.into_iter().zip(typed) {
            let typed = typed.as_deref().filter(|typed| !typed.is_empty());
            let score = typed.and_then(|typed| reader.parse(flag, typed, score));
            thresholds.set(step, score);
        }
        thresholds
    }
}

impl Reputation {
    /// What shards go by. `reason`: something else asks for it.
    pub fn config(&self, reason: bool) -> reputation::Config {
        reputation::Config {
            on: self.wanted.unwrap_or(reason || !self.thresholds.are_none()),
            thresholds: self.thresholds,
            wait: self.wait,
            ..reputation::Config::default()
        }
    }
}

fn score(typed: &str) -> Result<i16, Fault> {
    let number = typed.parse().ok();
    let within = number.filter(|number| (-BOUND..=BOUND).contains(number));
    within.ok_or_else(|| {
        Fault::new(
            "is no score",
            format!("write a number from -{BOUND} to {BOUND}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::testing;
    use crate::policy::Finding;

    fn read(args: &[&str]) -> Result<Reputation, Vec<crate::cli::reader::Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn nobody_is_inquired_of_until_something_asks_for_it() {
        let meant = read(&[]).unwrap();
        assert!(meant.thresholds.are_none() && !meant.config(false).on && meant.config(true).on);
        assert_eq!(meant.wait, Duration::from_secs(3));
        assert!(read(&["--score-drop", "9"]).unwrap().config(false).on);
        let off = read(&["--score-drop", "9", "--reputation", "off"]).unwrap();
        assert!(!off.config(true).on);
        assert!(read(&["--reputation=on"]).unwrap().config(false).on);
    }

    #[test]
    fn steps_have_scores_of_their_own() {
        let words = "--score-delay -2 --score-stutter=3 --score-reject 10000 --lookup-wait 0";
        let words: Vec<&str> = words.split(' ').collect();
        let meant = read(&words).unwrap();
        let scores: Vec<Option<i16>> = STEPS.map(|step| meant.thresholds.of(step)).into();
        assert_eq!(scores, [Some(-2), Some(3), None, Some(10_000), None]);
        assert_eq!(meant.wait, Duration::ZERO);
        assert_eq!(meant.thresholds.of(Finding::Dnsbl), None);
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let words = "--reputation perhaps --score-defer 10001 --score-drop high --lookup-wait 31s";
        let words: Vec<&str> = words.split(' ').collect();
        assert_eq!(
            testing::blamed(read(&words)),
            [
                "--reputation",
                "--score-defer",
                "--score-drop",
                "--lookup-wait"
            ]
        );
    }
}
