//! What reputation leads to: thresholds of the score, and whether what is known suffices to act.
//!
//! Each threshold is a finding of its own (`score-delay` to `score-drop`), so what it leads to is said by `--on`, and with
//! `log` metrics tell what would have been. Open questions have stakes: the least and the most that their answers can add.
//! Where the least and the most lead to the same, nobody has to wait for the answers.

use std::time::Duration;

use super::actions::Actions;
use super::finding::{Action, Finding, FindingSet};

/// Part of [`super::Config`]. Each check adds what it goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether clients are inquired of at all.
    pub on: bool,
    pub thresholds: Thresholds,
    /// How long RCPT waits for an answer, from when it was asked for.
    pub wait: Duration,
    /// Who has at least this score is greylisted; None: everybody or nobody, without regard to the score.
    pub greylist_from: Option<i16>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            on: false,
            thresholds: Thresholds::default(),
            wait: Duration::from_secs(3),
            greylist_from: None,
        }
    }
}

/// The findings of the score, mildest first.
pub const STEPS: [Finding; 5] = [
    Finding::ScoreDelay,
    Finding::ScoreStutter,
    Finding::ScoreDefer,
    Finding::ScoreReject,
    Finding::ScoreDrop,
];

/// From which score on each of [`STEPS`] is noticed.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub struct Thresholds([Option<i16>; STEPS.len()]);

impl Thresholds {
    pub fn set(&mut self, step: Finding, score: Option<i16>) {
        let place = STEPS.iter().position(|known| *known == step);
        self.0[place.expect("one of STEPS")] = score;
    }

    pub fn of(&self, step: Finding) -> Option<i16> {
        let place = STEPS.iter().position(|known| *known == step);
        place.and_then(|place| self.0[place])
    }

    pub fn are_none(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// What a score amounts to.
    pub fn reached(&self, score: i32) -> FindingSet {
        let mut set = FindingSet::EMPTY;
        for (step, from) in STEPS.iter().zip(self.0) {
            if from.is_some_and(|from| score >= i32::from(from)) {
                set.insert(*step);
            }
        }
        set
    }
}

/// What an answer that is still open can change.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Stakes {
    /// The least it can add to the score: 0, or below where it may speak for the client.
    pub least: i16,
    /// The most.
    pub most: i16,
    /// The most severe action among the findings it can bring.
    pub worst: Action,
    /// It may speak for the client in so many words: then greylisting does not ask it, whatever its score.
    pub vouches: bool,
}

impl Stakes {
    pub const NONE: Stakes = Stakes {
        least: 0,
        most: 0,
        worst: Action::Off,
        vouches: false,
    };

    /// Of a question that brings this finding with this weight, or nothing.
    pub fn of(finding: Finding, weight: i16, actions: &Actions) -> Stakes {
        match actions.of(finding) {
            Action::Off => Stakes::NONE,
            worst => Stakes {
                least: weight.min(0),
                most: weight.max(0),
                worst,
                vouches: finding == Finding::Dnswl,
            },
        }
    }

    /// Of several of which one may come.
    #[must_use]
    pub fn or(self, other: Stakes) -> Stakes {
        Stakes {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            worst: self.worst.max(other.worst),
            vouches: self.vouches || other.vouches,
        }
    }

    /// Of several that may all come.
    #[must_use]
    pub fn and(self, other: Stakes) -> Stakes {
        Stakes {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
            worst: self.worst.max(other.worst),
            vouches: self.vouches || other.vouches,
        }
    }
}

/// What findings and a score come to for a recipient.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Outlook {
    /// The most severe refusal; None: none.
    pub refusal: Option<(Finding, Action)>,
    /// The score alone asks for greylisting.
    pub greylist: bool,
}

impl Config {
    /// For the plan.
    pub fn describe(&self, actions: &Actions) -> String {
        if !self.on {
            return "nobody is inquired of (--reputation)".into();
        }
        let steps = STEPS.iter().filter_map(|step| {
            let from = self.thresholds.of(*step)?;
            Some(match actions.of(*step) {
                Action::Log => format!("from {from} on: {step}, which is only logged"),
                action => format!("from {from} on: {action}"),
            })
        });
        let steps: Vec<String> = steps.collect();
        let steps = match steps.is_empty() {
            true => "leads to nothing (--score-delay and its like)".into(),
            false => steps.join("; "),
        };
        match self.wait.is_zero() {
            true => format!("{steps}; recipients wait for no answer"),
            false => format!("{steps}; recipients wait up to {:?} for answers", self.wait),
        }
    }

    /// What this comes to. Of findings that lead to the same, one of the score's is named last: the others say more.
    pub fn outlook(&self, found: FindingSet, score: i32, actions: &Actions) -> Outlook {
        let reached = self.thresholds.reached(score);
        let refusing = |finding: Finding| {
            let action = actions.of(finding);
            action.refuses().then_some((finding, action))
        };
        let all = reached.iter().chain(found.iter());
        Outlook {
            refusal: all.filter_map(refusing).max_by_key(|(_, action)| *action),
            greylist: self
                .greylist_from
                .is_some_and(|from| score >= i32::from(from)),
        }
    }

    /// What a recipient is refused for. A score that reaches its threshold only by what the network is remembered for
    /// (`neighbours`, a part of it) refuses for now: others may have done it, and it fades.
    pub fn refusal(
        &self,
        found: FindingSet,
        score: i32,
        neighbours: i32,
        actions: &Actions,
    ) -> Option<(Finding, Action)> {
        let (finding, action) = self.outlook(found, score, actions).refusal?;
        let own = self.outlook(found, score - neighbours, actions).refusal;
        let own = own.filter(|(_, own)| *own >= action.min(Action::Reject));
        own.or(Some((finding, action.min(Action::Defer))))
    }

    /// Whether what is known suffices, whatever the open questions bring.
    /// `spared`: greylisting does not ask this client, whatever its score is.
    pub fn suffices(
        &self,
        found: FindingSet,
        score: i32,
        open: Stakes,
        spared: bool,
        actions: &Actions,
    ) -> bool {
        let least = self.outlook(found, score + i32::from(open.least), actions);
        let most = self.outlook(found, score + i32::from(open.most), actions);
        let (mild, severe) = (least.severity(), most.severity().max(open.worst));
        // Who is refused for good hears so; whether in other words would not be worth the wait.
        if mild >= Action::Reject {
            return true;
        }
        let same_refusal = mild == severe || !severe.refuses();
        // The best that may come is a word for the client, or the least score.
        let asked_in_any_case = least.greylist && !open.vouches;
        same_refusal && (mild.refuses() || spared || !most.greylist || asked_in_any_case)
    }
}

impl Outlook {
    pub fn severity(&self) -> Action {
        self.refusal.map_or(Action::Off, |(_, action)| action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(reject: i16, drop: i16) -> (Config, Actions) {
        let mut config = Config {
            on: true,
            ..Config::default()
        };
        config.thresholds.set(Finding::ScoreDefer, Some(5));
        config.thresholds.set(Finding::ScoreReject, Some(reject));
        config.thresholds.set(Finding::ScoreDrop, Some(drop));
        let actions = ["score-defer=defer", "score-reject=reject"];
        let actions = actions.map(|on| on.parse().expect("an action that is allowed"));
        (config, actions.into_iter().collect())
    }

    #[test]
    fn a_score_comes_to_the_most_severe_that_is_enforced() {
        let (config, actions) = config(10, 15);
        let table = [
            (-3, Action::Off),
            (4, Action::Off),
            (5, Action::Defer),
            (9, Action::Defer),
            (10, Action::Reject),
            // The threshold is reached, and only logged.
            (20, Action::Reject),
        ];
        for (score, want) in table {
            let outlook = config.outlook(FindingSet::EMPTY, score, &actions);
            assert_eq!(outlook.severity(), want, "{score}");
        }
        assert!(config.thresholds.reached(20).contains(Finding::ScoreDrop));
        let mut listed = FindingSet::EMPTY;
        listed.insert(Finding::Dnsbl);
        let actions = ["dnsbl=reject", "score-reject=reject"];
        let actions: Actions = actions.map(|on| on.parse().unwrap()).into_iter().collect();
        let refusal = config.outlook(listed, 10, &actions).refusal;
        assert_eq!(refusal, Some((Finding::Dnsbl, Action::Reject)));
    }

    #[test]
    fn what_neighbours_did_refuses_for_now_only() {
        let (config, mut actions) = config(10, 15);
        actions.set("score-drop=drop".parse().expect("an allowed action"));
        let table = [
            (4, 4, None),
            (5, 5, Some((Finding::ScoreDefer, Action::Defer))),
            (9, 9, Some((Finding::ScoreDefer, Action::Defer))),
            (10, 0, Some((Finding::ScoreReject, Action::Reject))),
            (10, 1, Some((Finding::ScoreReject, Action::Defer))),
            (14, 4, Some((Finding::ScoreReject, Action::Reject))),
            (15, 0, Some((Finding::ScoreDrop, Action::Drop))),
            (15, 5, Some((Finding::ScoreReject, Action::Reject))),
            (15, 6, Some((Finding::ScoreDrop, Action::Defer))),
        ];
        for (score, neighbours, want) in table {
            let got = config.refusal(FindingSet::EMPTY, score, neighbours, &actions);
            assert_eq!(got, want, "{score}, {neighbours} of it by neighbours");
        }
        // Who wants networks refused for what they did says so.
        let mut trapped = FindingSet::EMPTY;
        trapped.insert(Finding::Trapped);
        actions.set("trapped=reject".parse().expect("an allowed action"));
        let got = config.refusal(trapped, 12, 12, &actions);
        assert_eq!(got, Some((Finding::Trapped, Action::Reject)));
    }

    #[test]
    fn nobody_waits_for_answers_that_change_nothing() {
        let (config, actions) = config(10, 15);
        let stakes = |least, most| Stakes {
            least,
            most,
            worst: Action::Log,
            vouches: false,
        };
        let table = [
            ("nothing can be reached", 0, stakes(0, 4), true),
            ("a deferral can", 0, stakes(0, 5), false),
            ("deferred, and may be spared", 5, stakes(-1, 0), false),
            ("deferred, and may be rejected", 5, stakes(0, 5), false),
            ("deferred in any case", 5, stakes(0, 4), true),
            ("rejected in any case", 12, stakes(-2, 90), true),
            ("rejected, and may be spared", 12, stakes(-3, 0), false),
            ("no question is open", 7, Stakes::NONE, true),
        ];
        for (label, score, open, want) in table {
            let got = config.suffices(FindingSet::EMPTY, score, open, false, &actions);
            assert_eq!(got, want, "{label}");
        }
        let refuses = Stakes::of(
            Finding::Dnsbl,
            0,
            &"dnsbl=reject".parse().into_iter().collect(),
        );
        assert!(!config.suffices(FindingSet::EMPTY, 0, refuses, false, &actions));
        let logged = Actions::default();
        assert!(config.suffices(FindingSet::EMPTY, 0, stakes(-50, 50), false, &logged));
    }

    #[test]
    fn the_plan_tells_what_is_only_logged() {
        let (config, actions) = config(10, 15);
        assert_eq!(
            config.describe(&actions),
            "from 5 on: defer; from 10 on: reject; from 15 on: score-drop, which is only logged; recipients wait up to 3s for answers"
        );
        assert!(Config::default().describe(&actions).contains("nobody"));
    }

    #[test]
    fn greylisting_by_score_is_worth_a_wait() {
        let (mut config, actions) = config(10, 15);
        config.greylist_from = Some(1);
        let mut open = Stakes {
            least: -1,
            most: 1,
            worst: Action::Log,
            vouches: false,
        };
        assert!(!config.suffices(FindingSet::EMPTY, 0, open, false, &actions));
        assert!(
            config.suffices(FindingSet::EMPTY, 0, open, true, &actions),
            "nor is a proven network asked"
        );
        assert!(config.suffices(FindingSet::EMPTY, 2, open, false, &actions));
        assert!(config.suffices(FindingSet::EMPTY, -2, open, false, &actions));
        open.vouches = true;
        assert!(
            !config.suffices(FindingSet::EMPTY, 4, open, false, &actions),
            "a list of good ones spares whatever it weighs"
        );
        assert!(
            config.suffices(FindingSet::EMPTY, -2, open, false, &actions),
            "who is not asked needs nobody's word"
        );
        assert!(
            config.suffices(FindingSet::EMPTY, 8, open, false, &actions),
            "who is deferred in any case neither"
        );
    }
}
