//! What is done about findings, and how the pit treats who is parked.

use std::time::Duration;

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use crate::policy::{Actions, On, temper};
use crate::shard::pit::{self, Overflow};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Findings and tarpit")]
pub struct Flags {
    /// What a finding leads to (repeatable; the last word on a finding counts)
    ///
    /// Findings: deny-list, concurrency, rate-connections, rate-messages, rate-recipients, rate-bytes, rate-handshakes,
    /// pregreet, pipelining, non-smtp, bare-newline, nul, loop, errors-soft, errors-hard, junk, slow-body,
    /// tls-injection, tls-failed, relay, forged-proxy, forged-xclient, overload, intercept-loop, deny-helo, deny-sender,
    /// deny-recipient, dnsbl, dnswl, no-reverse, reverse-mismatch, helo-syntax, helo-literal, helo-unresolved, helo-ours,
    /// helo-mismatch, sender-unresolved, sender-null-mx, greylist, spamtrap, trapped, history, origin, score-delay,
    /// score-stutter, score-defer, score-reject, score-drop. Actions: off;
    /// log: counted and logged only; delay: replies wait --delay; stutter: replies drip byte by byte; defer: 4xx; reject: 5xx;
    /// drop: reply and close. score=N adds N to the client's score (--score-delay and its like), beside any action or, alone, beside
    /// log: no-reverse=score=2, pregreet=delay,score=3. delay and stutter hold for the address for --tarpit-time, then get better by a step.
    ///
    /// Range: N from -100 to 100; not every action fits every finding; weir check prints what is in force, weir tells what is allowed.
    /// Default: what nobody regrets is refused (relay, deny-list, limits, non-smtp, bare-newline, loop, forged-proxy, forged-xclient), the rest is logged.
    /// Weights: 5: helo-ours, spamtrap; 3: pregreet, non-smtp, sender-null-mx; 2: no-reverse, sender-unresolved; 1: pipelining,
    /// reverse-mismatch, helo-syntax, helo-literal, helo-unresolved, trapped; 0: the rest. dnsbl, dnswl, origin and history weigh what
    /// their lists, flags and points say.
    /// Cost: a parked client is a row of 256 bytes at most.
    #[arg(long, value_name = "FINDING=ACTION[,score=N]", value_delimiter = ' ')]
    pub on: Vec<String>,

    /// Time between accept and greeting
    ///
    /// The first line of a greeting of two (220-NAME) goes out at once, the second after this time; where the greeting is a
    /// mail server's (--identity xclient and its like) there is silence until then. A client that speaks before
    /// is a bot: finding pregreet. Who waits is a row in the pit.
    ///
    /// Range: 100ms to 60s, or 0: off. Cost: delays every session of everybody.
    #[arg(long, value_name = "DURATION", default_value = "0")]
    pub greet_wait: String,

    /// How long replies wait under the action delay
    ///
    /// Range: 100ms to 60s. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub delay: String,

    /// Time between the drips of a reply under the action stutter
    ///
    /// A reply ends within 4 minutes all the same: a drip is one byte, or up to 16 of a reply that would take longer; beyond
    /// that, drips come more often.
    ///
    /// Range: 100ms to 30s. Cost: one small packet per drip, sent in batches.
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub stutter_interval: String,

    /// How long delay and stutter hold after the last finding
    ///
    /// Then the treatment gets better by a step: stutter, delay, normal.
    ///
    /// Range: 1s to 7d. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub tarpit_time: String,

    /// Clients that may be parked, over all shards
    ///
    /// Range: 1 to 10000000, or 0: as many as there are connections. Cost: at most 256 bytes each, and the kernel's socket.
    #[arg(long, value_name = "N", default_value = "50000")]
    pub pit_max: String,

    /// What happens when the pit is full: drop-oldest or refuse
    ///
    /// drop-oldest: who is parked the longest is closed. refuse: who would be parked is closed with 421 instead.
    ///
    /// Range: drop-oldest, refuse. Cost: none.
    #[arg(long, value_name = "HOW", default_value = "drop-oldest")]
    pub pit_full: String,
}

#[derive(Clone, Debug)]
pub struct Tarpit {
    pub actions: Actions,
    /// Zero: off.
    pub greet_wait: Duration,
    pub temper: temper::Config,
    /// Over all shards; 0: no limit.
    pub pit_max: u32,
    pub pit_full: Overflow,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Tarpit {
        let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
        Tarpit {
            actions: self.actions(reader),
            greet_wait: reader.duration(
                "--greet-wait",
                &self.greet_wait,
                millis(100)..=seconds(60),
                Zero::Lifts,
            ),
            temper: temper::Config {
                delay: reader.duration(
                    "--delay",
                    &self.delay,
                    millis(100)..=seconds(60),
                    Zero::Plain,
                ),
                interval: reader.duration(
                    "--stutter-interval",
                    &self.stutter_interval,
                    pit::INTERVAL_MIN..=seconds(30),
                    Zero::Plain,
                ),
                hold: reader.duration(
                    "--tarpit-time",
                    &self.tarpit_time,
                    seconds(1)..=seconds(7 * 86_400),
                    Zero::Plain,
                ),
            },
            pit_max: reader.count("--pit-max", &self.pit_max, 1..=10_000_000, Zero::Lifts),
            pit_full: reader.choice(
                "--pit-full",
                &self.pit_full,
                &[
                    ("drop-oldest", Overflow::DropOldest),
                    ("refuse", Overflow::Refuse),
                ],
            ),
        }
    }

    fn actions(&self, reader: &mut Reader) -> Actions {
        let parse = |typed: &str| {
            typed
                .parse::<On>()
                .map_err(|why| Fault::new("cannot be used", why.to_string()))
        };
        let typed = self.on.iter().filter(|typed| !typed.is_empty());
        typed
            .filter_map(|typed| reader.parse("--on", typed, parse))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};
    use crate::policy::{Action, Finding, finding::FindingSet};

    fn read(args: &[&str]) -> Result<Tarpit, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn the_tarpit_is_off_until_asked_for() {
        let meant = read(&[]).unwrap();
        assert_eq!(meant.actions, Actions::default());
        assert_eq!(
            (meant.greet_wait, meant.pit_max, meant.pit_full),
            (Duration::ZERO, 50_000, Overflow::DropOldest)
        );
        assert_eq!(meant.temper, temper::Config::default());
    }

    #[test]
    fn each_finding_has_its_action() {
        let meant = read(&[
            "--on",
            "pregreet=stutter",
            "--on=pipelining=drop pregreet=reject",
            "--greet-wait",
            "6s",
            "--pit-full",
            "refuse",
        ])
        .unwrap();
        assert_eq!(
            (
                meant.actions.of(Finding::Pregreet),
                meant.actions.of(Finding::Pipelining)
            ),
            (Action::Reject, Action::Drop)
        );
        assert_eq!(
            (meant.greet_wait, meant.pit_full),
            (Duration::from_secs(6), Overflow::Refuse)
        );
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--on",
            "pregret=drop",
            "--on",
            "relay=off",
            "--greet-wait",
            "5m",
            "--delay",
            "0",
            "--stutter-interval",
            "1ms",
            "--pit-max",
            "x",
            "--pit-full",
            "grow",
        ];
        assert_eq!(
            testing::blamed(read(&args)),
            [
                "--on",
                "--on",
                "--greet-wait",
                "--delay",
                "--stutter-interval",
                "--pit-max",
                "--pit-full"
            ]
        );
    }

    #[test]
    fn the_manual_names_every_finding() {
        let command = <Flags as clap::Args>::augment_args(clap::Command::new("weir"));
        let on = command
            .get_arguments()
            .find(|arg| arg.get_id() == "on")
            .unwrap()
            .get_long_help()
            .unwrap()
            .to_string();
        for finding in Finding::all() {
            assert!(on.contains(finding.word()), "{finding}");
        }
        for action in Action::ALL {
            assert!(on.contains(action.word()), "{action}");
        }
        let (_, weights) = on.split_once("Weights: ").expect("told");
        for weight in [5, 3, 2, 1] {
            let (_, with) = weights.split_once(&format!("{weight}: ")).expect("told");
            let with = with.split(';').next().expect("findings");
            let told: FindingSet = with
                .split(", ")
                .map(|word| word.parse::<Finding>().expect("a finding"))
                .collect();
            let have: FindingSet = Finding::all()
                .filter(|finding| finding.default_weight() == weight)
                .collect();
            assert_eq!(told, have, "{weight}");
        }
        let told = Finding::all().filter(|finding| finding.default_weight() != 0);
        assert_eq!(told.count(), 13, "no other weight is left to tell");
    }
}
