//! What is done about findings: an action and a weight for each, as `--on FINDING=ACTION[,score=N]` sets them.

use std::fmt;
use std::str::FromStr;

use super::finding::{Action, Finding, TABLE};

/// The action for each finding, and what it adds to the score.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Actions {
    actions: [Action; Finding::COUNT],
    weights: [i8; Finding::COUNT],
}

impl Actions {
    pub const fn of(&self, finding: Finding) -> Action {
        self.actions[finding as usize]
    }

    /// What a finding adds to its client's score. 0 where another flag says so ([`Finding::has_weight`]).
    pub const fn weight(&self, finding: Finding) -> i16 {
        self.weights[finding as usize] as i16
    }

    /// Whether anything is wanted of a finding that only comes of what is inquired of clients.
    pub fn speak_of_reputation(&self) -> bool {
        let only = Finding::Dnsbl as usize..=Finding::ScoreDrop as usize;
        TABLE[only]
            .iter()
            .any(|row| self.of(row.finding) > row.default || self.weight(row.finding) != 0)
    }

    pub const fn set(&mut self, on: On) {
        self.actions[on.finding as usize] = on.action;
        if let Some(weight) = on.weight {
            self.weights[on.finding as usize] = weight;
        }
    }
}

impl Default for Actions {
    fn default() -> Actions {
        Actions {
            actions: TABLE.each_ref().map(|row| row.default),
            weights: [0; Finding::COUNT],
        }
    }
}

impl FromIterator<On> for Actions {
    /// The defaults, changed by each in turn; the last word on a finding counts.
    fn from_iter<I: IntoIterator<Item = On>>(wanted: I) -> Actions {
        let mut actions = Actions::default();
        for on in wanted {
            actions.set(on);
        }
        actions
    }
}

/// Bounds of a weight.
pub const WEIGHT_MAX: i8 = 100;

/// One `--on FINDING=ACTION[,score=N]`, or `FINDING=score=N`: log and weigh. Only made by parsing: the action is allowed for
/// the finding, and so is the weight.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct On {
    finding: Finding,
    action: Action,
    /// None: not spoken of.
    weight: Option<i8>,
}

impl FromStr for On {
    type Err = OnError;

    fn from_str(text: &str) -> Result<On, OnError> {
        let (finding, action) = text
            .split_once('=')
            .ok_or_else(|| OnError::NoEqualsSign(text.into()))?;
        let finding: Finding = finding.trim().parse()?;
        let action = action.trim();
        let (word, score) = match action.split_once(',') {
            Some((word, score)) => (word.trim(), Some(score.trim())),
            None if action.starts_with(SCORE) => (Action::Log.word(), Some(action)),
            None => (action, None),
        };
        let allowed = finding.allowed().iter();
        let Some(&action) = allowed.clone().find(|action| action.word() == word) else {
            return Err(OnError::NotAllowed {
                finding,
                action: word.into(),
            });
        };
        let weight = score.map(|score| weight(finding, score)).transpose()?;
        Ok(On {
            finding,
            action,
            weight,
        })
    }
}

const SCORE: &str = "score=";

fn weight(finding: Finding, text: &str) -> Result<i8, OnError> {
    if !finding.has_weight() {
        return Err(OnError::NoWeight(finding));
    }
    let number = text.strip_prefix(SCORE).and_then(|n| n.trim().parse().ok());
    let within = number.filter(|number| (-WEIGHT_MAX..=WEIGHT_MAX).contains(number));
    within.ok_or_else(|| OnError::BadWeight(text.into()))
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.finding, self.action)?;
        match self.weight {
            Some(weight) => write!(f, ",{SCORE}{weight}"),
            None => Ok(()),
        }
    }
}

/// Why `--on` could not be read; says what can be.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum OnError {
    NoEqualsSign(String),
    UnknownFinding(String),
    NotAllowed { finding: Finding, action: String },
    NoWeight(Finding),
    BadWeight(String),
}

impl std::error::Error for OnError {}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnError::NoEqualsSign(text) => {
                write!(f, "\"{text}\" is not FINDING=ACTION, as in pregreet=drop")
            }
            OnError::UnknownFinding(word) => {
                let words: Vec<_> = Finding::all().map(Finding::word).collect();
                write!(
                    f,
                    "there is no finding \"{word}\"; findings are {}",
                    words.join(", ")
                )
            }
            OnError::NotAllowed { finding, action } => {
                let words: Vec<_> = finding
                    .allowed()
                    .iter()
                    .map(|action| action.word())
                    .collect();
                write!(
                    f,
                    "\"{action}\" is no action for {finding}; allowed are {} (default {})",
                    words.join(", "),
                    finding.default_action()
                )
            }
            OnError::NoWeight(finding) => write!(
                f,
                "{finding} has no weight here: lists, history and origin have theirs from their own flags, and what the score leads to has none"
            ),
            OnError::BadWeight(text) => write!(
                f,
                "\"{text}\" is not score=N with N from -{WEIGHT_MAX} to {WEIGHT_MAX}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_reads_what_is_allowed_and_says_what_is() {
        let table = [
            ("pregreet=drop", Ok("pregreet=drop")),
            (" pregreet = off ", Ok("pregreet=off")),
            ("rate-messages=stutter", Ok("rate-messages=stutter")),
            (
                "pregreet",
                Err("\"pregreet\" is not FINDING=ACTION, as in pregreet=drop"),
            ),
            (
                "relay=log",
                Err(
                    "\"log\" is no action for relay; allowed are defer, reject, drop (default reject)",
                ),
            ),
            ("no-reverse=score=2", Ok("no-reverse=log,score=2")),
            (
                "helo-ours=reject, score=-100",
                Ok("helo-ours=reject,score=-100"),
            ),
            (
                "no-reverse=log,score=101",
                Err("\"score=101\" is not score=N with N from -100 to 100"),
            ),
            (
                "no-reverse=log,weight=1",
                Err("\"weight=1\" is not score=N with N from -100 to 100"),
            ),
            (
                "dnsbl=score=1",
                Err(
                    "dnsbl has no weight here: lists, history and origin have theirs from their own flags, and what the score leads to has none",
                ),
            ),
            (
                "overload=",
                Err("\"\" is no action for overload; allowed are defer, drop (default defer)"),
            ),
        ];
        for (text, want) in table {
            let got = text
                .parse::<On>()
                .map(|on| on.to_string())
                .map_err(|error| error.to_string());
            assert_eq!(got, want.map(String::from).map_err(String::from), "{text}");
        }
        let unknown = "pregret=drop".parse::<On>().unwrap_err().to_string();
        assert!(
            unknown.contains("no finding \"pregret\"") && unknown.contains("bare-newline"),
            "{unknown}"
        );
    }

    #[test]
    fn the_last_word_counts() {
        let on = |text: &str| text.parse::<On>().unwrap();
        let actions: Actions = [on("pregreet=off"), on("pregreet=reject")]
            .into_iter()
            .collect();
        assert_eq!(actions.of(Finding::Pregreet), Action::Reject);
        assert_eq!(actions.of(Finding::NonSmtp), Action::Drop);
        let weighed = ["pregreet=score=3", "pregreet=delay", "nul=log,score=-2"];
        let actions: Actions = weighed.into_iter().map(on).collect();
        // An action without a weight leaves the weight as it was.
        assert_eq!(actions.of(Finding::Pregreet), Action::Delay);
        assert_eq!(actions.weight(Finding::Pregreet), 3);
        assert_eq!(actions.weight(Finding::Nul), -2);
        assert!(!actions.speak_of_reputation());
        for wanted in ["no-reverse=defer", "helo-ours=score=1"] {
            let actions: Actions = [on(wanted)].into_iter().collect();
            assert!(actions.speak_of_reputation(), "{wanted}");
        }
    }
}
