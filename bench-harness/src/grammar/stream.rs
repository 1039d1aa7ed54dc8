//! One stream from its settings: `--stream 'good: profile=persistent rate=2000/s size=4k'`, or the same keys as flags of their own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::grammar::problem::Problems;
use crate::grammar::{self, Parsed, Piece};
use crate::plan::{Arrivals, Bodies, Pattern, Profile, Sources, Step, Stream};

/// Every key of a stream, and what it says. The flags of `source` have the same names.
pub const KEYS: &[(&str, &str)] = &[
    (
        "profile",
        "per-message, persistent, pipelined, bdat, slow-body, hang-up; kept: pregreet, slow-loris, idle, silent, spambot",
    ),
    (
        "rate",
        "starts planned: 2000/s, or 100/s..2000/s over 30s, 2000/s over 1m",
    ),
    (
        "pattern",
        "how planned starts are spread: constant, poisson",
    ),
    (
        "sessions",
        "instead of a rate: so many in a circle, the next start being the end of the last",
    ),
    (
        "connections",
        "instead of a rate: so many opened once, kept, and replaced when lost (kept profiles)",
    ),
    ("opening", "how fast kept connections are opened: 2000/s"),
    (
        "size",
        "octets of a message: 4k, or a mix 4k*9,100k*1, or @FILE with a size and a weight a line",
    ),
    (
        "mail",
        "real messages instead: a folder of .eml, a Maildir, an mbox",
    ),
    (
        "messages",
        "messages a kept connection carries (persistent, pipelined, bdat)",
    ),
    ("recipients", "recipients of a message"),
    (
        "from",
        "source addresses: 127.4.0.1+50, 127.4.0.1-127.4.0.50, any",
    ),
    ("starts", "never more starts than this"),
    (
        "open",
        "starts that find so many sessions open are dropped, and counted",
    ),
    ("helo", "name in EHLO"),
    ("sender", "reverse-path; {} becomes the number of the start"),
    (
        "recipient",
        "forward-path; {} becomes the number of the start",
    ),
    ("patience", "how long a reply may take"),
    ("speed", "octets of a body a second (slow-body): 1k/s"),
    ("every", "time between two octets (slow-loris): 10s"),
];

/// Connections a second at which kept clients are opened.
const OPENING: u32 = 2000;
const MESSAGES: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// Of closed-loop streams: so many that no run of sensible length meets it, and still an end.
const STARTS_CLOSED: u64 = 10_000_000;
/// Ids count in 32 bits.
const STARTS_MAX: u64 = u32::MAX as u64;

/// A stream as it was written: nothing is parsed yet but its name and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub name: String,
    /// What a problem calls the place: `--` for flags, `--stream good: ` for keys.
    pub place: String,
    pub values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// `NAME: key=value key=value`; a word without `=` belongs to the value before it.
    pub fn parse(text: &str, problems: &mut Problems) -> Option<Settings> {
        let before = problems.0.len();
        let named = text.split_once(':');
        let Some((name, rest)) = named.filter(|(name, _)| is_name(name.trim())) else {
            problems.add(
                "--stream",
                text,
                "NAME: key=value ..., as 'good: profile=persistent rate=2000/s size=4k'",
            );
            return None;
        };
        let mut settings = Settings {
            name: name.trim().to_owned(),
            place: format!("--stream {}: ", name.trim()),
            values: BTreeMap::new(),
        };
        let mut last = None;
        for word in rest.split_ascii_whitespace() {
            match (word.split_once('='), last) {
                (Some((key, value)), _) => last = settings.put(key, value, problems),
                (None, Some(key)) => settings.put_behind(key, word),
                (None, None) => problems.add(settings.place.trim_end(), word, "key=value"),
            }
        }
        (problems.0.len() == before).then_some(settings)
    }

    /// Takes one value. The key, if it is one.
    fn put(&mut self, key: &str, value: &str, problems: &mut Problems) -> Option<&'static str> {
        let place = format!("{}{key}", self.place);
        let Some(key) = known(key) else {
            let keys: Vec<&str> = KEYS.iter().map(|(key, _)| *key).collect();
            problems.add(place, value, format!("one of {}", keys.join(", ")));
            return None;
        };
        if self.values.insert(key, value.to_owned()).is_some() {
            problems.add(place, value, "is said twice: keep one");
        }
        Some(key)
    }

    fn put_behind(&mut self, key: &str, word: &str) {
        let value = self.values.get_mut(key);
        let value = value.expect("the key before a word has its value");
        value.push(' ');
        value.push_str(word);
    }

    /// What a problem calls the stream as a whole.
    fn whole(&self) -> &str {
        match self.place.trim_end_matches([':', ' ', '-']) {
            "" => "source",
            place => place,
        }
    }

    /// How long its planned rate says it lasts; none without one, or where its last piece is open.
    pub fn lasts(&self) -> Option<Duration> {
        let pieces = grammar::pieces(self.values.get("rate")?).ok()?;
        Some(grammar::pieces_last(&pieces)).filter(|lasts| !lasts.is_zero())
    }

    /// The stream, or problems.
    pub fn build(
        &self,
        target: SocketAddr,
        lasts: Duration,
        problems: &mut Problems,
    ) -> Option<Stream> {
        let before = problems.0.len();
        let mut reader = Reader {
            settings: self,
            problems,
        };
        let profile = reader.profile();
        let arrivals = profile.and_then(|profile| reader.arrivals(profile, lasts));
        let bodies = reader.bodies();
        let messages = reader.messages(profile);
        let recipients = reader.take("recipients", recipients).unwrap_or(1);
        let from = reader.take("from", grammar::sources);
        let starts = reader.take("starts", grammar::count);
        let open = reader.take("open", grammar::count32);
        let helo = reader.take("helo", grammar::word);
        let sender = reader.take("sender", grammar::word);
        let recipient = reader.take("recipient", grammar::word);
        let patience = reader
            .take("patience", grammar::duration_some)
            .unwrap_or(PATIENCE);
        let (profile, arrivals) = (profile?, arrivals?);
        let open_max = open.unwrap_or_else(|| open_default(&arrivals));
        let starts_max = starts
            .unwrap_or_else(|| starts_default(&arrivals, lasts))
            .min(STARTS_MAX);
        let sources = from.unwrap_or_else(|| sources_default(target, open_max));
        if sources.first.is_ipv4() != target.is_ipv4() && !sources.first.is_unspecified() {
            reader.wrong(
                "from",
                format!(
                    "the target is {}: take addresses of its family",
                    target.ip()
                ),
            );
        }
        (reader.problems.0.len() == before).then(|| Stream {
            name: self.name.clone(),
            profile,
            arrivals,
            starts_max,
            open_max,
            messages,
            recipients,
            bodies,
            sources,
            helo: helo.unwrap_or_else(|| "client.test".to_owned()),
            sender: sender.unwrap_or_else(|| "sender{}@client.test".to_owned()),
            recipient: recipient.unwrap_or_else(|| "recipient@weir.test".to_owned()),
            patience,
        })
    }
}

struct Reader<'a> {
    settings: &'a Settings,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn has(&self, key: &str) -> bool {
        self.settings.values.contains_key(key)
    }

    fn take<T>(&mut self, key: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let value = self.settings.values.get(key)?;
        let flag = format!("{}{key}", self.settings.place);
        self.problems.take(&flag, value, parse(value))
    }

    fn wrong(&mut self, key: &str, remedy: impl Into<String>) {
        let value = self.settings.values.get(key).cloned().unwrap_or_default();
        self.problems
            .add(format!("{}{key}", self.settings.place), value, remedy);
    }

    fn profile(&mut self) -> Option<Profile> {
        let speed = self.take("speed", grammar::rate_of_octets);
        let every = self.take("every", grammar::duration_some);
        if !self.has("profile") {
            self.refuse_parameters(Profile::PerMessage);
            return Some(Profile::PerMessage);
        }
        let profile = self.take("profile", |text| {
            Ok(match text {
                "per-message" => Profile::PerMessage,
                "persistent" => Profile::Persistent,
                "pipelined" => Profile::Pipelined,
                "bdat" => Profile::Bdat,
                "slow-body" => Profile::SlowBody {
                    bytes_per_second: speed.unwrap_or(1024),
                },
                "pregreet" => Profile::Pregreet,
                "slow-loris" => Profile::SlowLoris {
                    every: every.unwrap_or(Duration::from_secs(10)),
                },
                "idle" => Profile::Idle,
                "silent" => Profile::Silent,
                "spambot" => Profile::Spambot,
                "hang-up" => Profile::HangUp,
                _ => return Err(format!("one of {}", KEYS[0].1)),
            })
        })?;
        self.refuse_parameters(profile);
        Some(profile)
    }

    fn refuse_parameters(&mut self, profile: Profile) {
        if self.has("speed") && !matches!(profile, Profile::SlowBody { .. }) {
            self.wrong("speed", "only the profile slow-body has a speed");
        }
        if self.has("every") && !matches!(profile, Profile::SlowLoris { .. }) {
            self.wrong("every", "only the profile slow-loris has a rhythm");
        }
    }

    fn arrivals(&mut self, profile: Profile, lasts: Duration) -> Option<Arrivals> {
        self.refuse_what_lacks_its_way();
        let ways: Vec<&str> = ["rate", "sessions", "connections"]
            .into_iter()
            .filter(|key| self.has(key))
            .collect();
        match ways.as_slice() {
            ["rate"] => self.open(lasts),
            ["connections"] if profile.is_kept() => self.held(),
            ["connections"] => {
                self.wrong(
                    "connections",
                    "this profile comes and goes: give rate=N/s or sessions=N",
                );
                None
            }
            [sessions] if profile.is_kept() => {
                self.wrong(
                    sessions,
                    "this profile stays: give connections=N, or a rate",
                );
                None
            }
            [sessions] => self
                .take(sessions, grammar::count32)
                .map(|sessions| Arrivals::Closed { sessions }),
            [] => {
                self.problems.add(
                    self.settings.whole(),
                    "",
                    match profile.is_kept() {
                        true => "say how many: connections=N",
                        false => "say how many: rate=N/s (planned) or sessions=N (in a circle)",
                    },
                );
                None
            }
            [one, other, ..] => {
                self.wrong(other, format!("{one} says it already: keep one of the two"));
                None
            }
        }
    }

    fn refuse_what_lacks_its_way(&mut self) {
        if self.has("pattern") && !self.has("rate") {
            self.wrong("pattern", "only a rate has a pattern: give rate=2000/s");
        }
        if self.has("opening") && !self.has("connections") {
            self.wrong(
                "opening",
                "only kept connections are opened at a speed: give connections=1000",
            );
        }
    }

    fn open(&mut self, lasts: Duration) -> Option<Arrivals> {
        let steps = self.take("rate", |text| {
            let pieces: Vec<Piece> = grammar::pieces(text)?;
            grammar::fit(&pieces, lasts)
        });
        let pattern = match self.has("pattern") {
            true => self.take("pattern", grammar::pattern),
            false => Some(Pattern::Poisson),
        };
        Some(Arrivals::Open {
            pattern: pattern?,
            steps: steps?,
        })
    }

    fn held(&mut self) -> Option<Arrivals> {
        let opening = match self.has("opening") {
            true => self.take("opening", grammar::opening),
            false => Some(OPENING),
        };
        let connections = self.take("connections", grammar::count32);
        Some(Arrivals::Held {
            connections: connections?,
            per_second: opening?,
        })
    }

    fn bodies(&mut self) -> Bodies {
        if self.has("mail") && self.has("size") {
            self.wrong(
                "mail",
                "size says what messages are made of: keep one of the two",
            );
        }
        let mail = self.take("mail", grammar::mail);
        let sizes = self.take("size", grammar::sizes);
        mail.or(sizes).unwrap_or(Bodies::Sizes {
            weights: vec![(4096, 1)],
        })
    }

    fn messages(&mut self, profile: Option<Profile>) -> u32 {
        let keeps = matches!(
            profile,
            Some(Profile::Persistent | Profile::Pipelined | Profile::Bdat)
        );
        if self.has("messages") && !keeps && profile.is_some() {
            self.wrong(
                "messages",
                "only persistent, pipelined and bdat carry more than one",
            );
        }
        self.take("messages", grammar::count32)
            .unwrap_or(if keeps { MESSAGES } else { 1 })
    }
}

/// An envelope is written in one flight.
fn recipients(text: &str) -> Parsed<u32> {
    match grammar::count32(text)? {
        some @ ..=10_000 => Ok(some),
        _ => Err("at most 10,000 recipients of a message".to_owned()),
    }
}

fn known(key: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|(known, _)| *known)
        .find(|known| *known == key)
}

/// Names stand in thresholds (`good.p99>5ms`) and file names.
fn is_name(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Five seconds' worth of a planned rate: whoever is that far behind is better counted than waited for.
fn open_default(arrivals: &Arrivals) -> u32 {
    match arrivals {
        Arrivals::Open { steps, .. } => {
            let peak = steps
                .iter()
                .fold(0.0, |peak: f64, step| peak.max(step.from).max(step.to));
            (peak * 5.0).clamp(100.0, 10_000.0) as u32
        }
        Arrivals::Closed { sessions } => *sessions,
        Arrivals::Held { connections, .. } => *connections,
    }
}

/// What the plan asks for and some, so that chance never meets it.
fn starts_default(arrivals: &Arrivals, lasts: Duration) -> u64 {
    match arrivals {
        Arrivals::Open { steps, .. } => (planned(steps) * 1.2) as u64 + 1000,
        Arrivals::Closed { .. } => STARTS_CLOSED,
        Arrivals::Held {
            connections,
            per_second,
        } => u64::from(*connections) + u64::from(*per_second) * lasts.as_secs().max(1),
    }
}

/// Starts that these steps plan.
pub fn planned(steps: &[Step]) -> f64 {
    steps
        .iter()
        .map(|step| (step.from + step.to) / 2.0 * step.lasts.as_secs_f64())
        .sum()
}

/// An address for every sixteen clients, so that limits per client address do not meet the load; one elsewhere.
fn sources_default(target: SocketAddr, open_max: u32) -> Sources {
    match target {
        SocketAddr::V4(v4) if v4.ip().is_loopback() => Sources {
            first: std::net::IpAddr::from([127, 64, 0, 1]),
            count: (open_max / 16).clamp(16, 65_000),
        },
        SocketAddr::V4(_) => Sources {
            first: std::net::IpAddr::from([0, 0, 0, 0]),
            count: 1,
        },
        SocketAddr::V6(_) => Sources {
            first: std::net::IpAddr::from([0u16; 8]),
            count: 1,
        },
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
