//! What a run has seen. Outcomes of several processes merge into one; written as JSON, they are what reports are made of.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The steps of a session whose latency is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// TCP's own: SYN to SYN-ACK.
    Connect,
    /// The reply to STARTTLS.
    Starttls,
    /// TLS's own, from the first octet of ours to the last that is needed.
    Handshake,
    Greeting,
    /// Each, where STARTTLS makes it two.
    Ehlo,
    Mail,
    Rcpt,
    /// 354, where the client waits for one.
    Data,
    /// The reply to the end of data.
    Final,
    /// The whole of it: for profiles that keep connections, the transaction.
    Session,
}

impl Stage {
    pub const ALL: [Stage; 10] = [
        Stage::Connect,
        Stage::Starttls,
        Stage::Handshake,
        Stage::Greeting,
        Stage::Ehlo,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Final,
        Stage::Session,
    ];

    /// As in JSON, in the summary and in thresholds.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Starttls => "starttls",
            Stage::Handshake => "handshake",
            Stage::Greeting => "greeting",
            Stage::Ehlo => "ehlo",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Final => "final",
            Stage::Session => "session",
        }
    }
}

/// Microseconds, 1 µs to two days, three digits. Grows with what it has seen: one of short times is some kilobytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies(pub Histogram<u64>);

/// Longer than any run with its grace.
const LATENCY_MAX_US: u64 = 2 * 24 * 3_600_000_000;

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new(3).expect("three digits are allowed"))
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        // Not `saturating_record`: that one never grows a histogram, it cuts the value to what fits today.
        self.0
            .record((latency.as_micros() as u64).clamp(1, LATENCY_MAX_US))
            .expect("a histogram that grows takes every value");
    }

    pub fn merge(&mut self, other: &Latencies) {
        self.0
            .add(&other.0)
            .expect("a histogram that grows takes every other");
    }

    /// The latency that `percentile` (0 to 100) of all stay within.
    pub fn at(&self, percentile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_percentile(percentile))
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        V2DeflateSerializer::new()
            .serialize(&self.0, &mut bytes)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&hex(&bytes))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Latencies, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = unhex(&text)
            .ok_or_else(|| serde::de::Error::custom("a histogram is not hexadecimal"))?;
        let mut histogram: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .map_err(|e| serde::de::Error::custom(format!("a histogram cannot be read: {e:?}")))?;
        histogram.auto(true);
        Ok(Latencies(histogram))
    }
}

/// The same stage counted in two ways.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTimes {
    /// From the planned start of the session: what a user who comes by the plan would have waited until this stage was over.
    pub planned: Latencies,
    /// From the end of the stage before: what the step itself took.
    pub service: Latencies,
}

/// Plain counts of one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Starts of the plan that were made.
    pub starts: u64,
    /// Of them, made more than a millisecond after their time.
    pub late: u64,
    /// Starts of the plan that were not made, because `open_max` sessions were open.
    pub dropped: u64,
    /// Messages whose end of data got 2xx, 4xx, 5xx.
    pub accepted: u64,
    pub deferred: u64,
    pub rejected: u64,
    /// Messages whose last octet may have left, and whose reply was never heard.
    pub unanswered: u64,
    /// Messages that got no end of data: a command was refused, the connection was lost, the client meant to hang up.
    pub not_sent: u64,
    /// Replies 421 or 521, and greetings that are no welcome.
    pub turned_away: u64,
    /// Connections refused by TCP, and those that could not even be tried from here.
    pub connect_failed: u64,
    /// Connections that came to be in TLS, those of them that resumed a session, and those that failed to.
    #[serde(default)]
    pub handshakes: u64,
    #[serde(default)]
    pub resumed: u64,
    #[serde(default)]
    pub handshakes_failed: u64,
    pub resets: u64,
    /// Ends of a connection by the other side that no QUIT had asked for.
    pub closed_early: u64,
    /// Replies that are no SMTP, or of a kind that cannot be meant.
    pub garbled: u64,
    /// Sessions given up because a step took longer than the stream's patience.
    pub timed_out: u64,
    /// Sessions still open when the grace was over.
    pub unfinished: u64,
    /// Octets of message bodies of accepted messages.
    pub body_octets: u64,
}

impl Counts {
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in [
            (&mut self.starts, other.starts),
            (&mut self.late, other.late),
            (&mut self.dropped, other.dropped),
            (&mut self.accepted, other.accepted),
            (&mut self.deferred, other.deferred),
            (&mut self.rejected, other.rejected),
            (&mut self.unanswered, other.unanswered),
            (&mut self.not_sent, other.not_sent),
            (&mut self.turned_away, other.turned_away),
            (&mut self.connect_failed, other.connect_failed),
            (&mut self.handshakes, other.handshakes),
            (&mut self.resumed, other.resumed),
            (&mut self.handshakes_failed, other.handshakes_failed),
            (&mut self.resets, other.resets),
            (&mut self.closed_early, other.closed_early),
            (&mut self.garbled, other.garbled),
            (&mut self.timed_out, other.timed_out),
            (&mut self.unfinished, other.unfinished),
            (&mut self.body_octets, other.body_octets),
        ] {
            *mine += theirs;
        }
    }
}

/// What one second of a stream was like. Seconds count from the start of the plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    pub starts: u64,
    pub accepted: u64,
    /// Deferred, rejected, turned away, lost: everything that is not accepted.
    pub failed: u64,
    /// Connections open at its end.
    pub open: u64,
    /// Whole sessions (transactions) that ended in it, from their planned start.
    pub session: Latencies,
}

/// One stream, all processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamOutcome {
    pub name: String,
    pub profile: String,
    pub counts: Counts,
    pub stages: BTreeMap<Stage, StageTimes>,
    /// How long clients of a kept profile were kept before the other side ended it.
    pub kept: Latencies,
    pub seconds: Vec<Second>,
    /// How often each first line of an unwanted reply was heard; at most 32 different ones.
    pub words: BTreeMap<String, u64>,
}

impl StreamOutcome {
    /// Adds what another process saw of the same stream.
    pub fn merge(&mut self, other: &StreamOutcome) {
        self.counts.merge(&other.counts);
        for (stage, times) in &other.stages {
            let mine = self.stages.entry(*stage).or_default();
            mine.planned.merge(&times.planned);
            mine.service.merge(&times.service);
        }
        self.kept.merge(&other.kept);
        if self.seconds.len() < other.seconds.len() {
            self.seconds.resize(other.seconds.len(), Second::default());
        }
        for (mine, theirs) in self.seconds.iter_mut().zip(&other.seconds) {
            mine.starts += theirs.starts;
            mine.accepted += theirs.accepted;
            mine.failed += theirs.failed;
            mine.open += theirs.open;
            mine.session.merge(&theirs.session);
        }
        for (words, count) in &other.words {
            if self.words.len() < 32 || self.words.contains_key(words) {
                *self.words.entry(words.clone()).or_default() += count;
            }
        }
    }
}

/// What was sent held against what arrived, message by message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrity {
    /// Messages the sink counted for this run, all copies.
    pub arrived: u64,
    /// Accepted, and never seen by the sink.
    pub lost: u64,
    /// Seen more than once.
    pub duplicated: u64,
    /// Seen with a wrong length or checksum.
    pub altered: u64,
    /// Refused to the client, and still accepted by the sink: the client will send it again.
    pub invented: u64,
    /// Neither accepted nor refused (nobody heard the reply), and arrived: allowed, and worth knowing.
    pub unanswered_arrived: u64,
    /// Taken by the sink during the run, and without an id that can be read: pieces of messages, or not ours.
    #[serde(default)]
    pub unknown: u64,
}

impl Integrity {
    /// Nothing was lost, duplicated, altered or invented, and all that came is known.
    pub fn is_clean(&self) -> bool {
        let wrong = [
            self.lost,
            self.duplicated,
            self.altered,
            self.invented,
            self.unknown,
        ];
        wrong.iter().all(|&count| count == 0)
    }
}

/// What a watched process (weir, a peer) used, sampled from /proc. Times from the start of the plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at: Duration,
    /// User plus system time since the process started.
    pub cpu: Duration,
    pub rss_octets: u64,
    /// TCP and slab memory of the whole machine (/proc/net/sockstat, /proc/meminfo), to be read against its value before.
    pub tcp_octets: u64,
    pub slab_octets: u64,
}

/// The host and the build: what a figure depends on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: u32,
    pub memory_octets: u64,
    pub kernel: String,
    /// Commit of the checkout the command ran in, `+` behind it when files were changed; empty outside one.
    pub commit: String,
    pub debug_build: bool,
    pub open_files_max: u64,
    /// One-minute load average before the run.
    pub load_before: f64,
    /// What the operator was warned of.
    pub warnings: Vec<String>,
}

/// One run of one plan against one target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// `direct`, `weir`, `haproxy`, … or what `--name` says.
    pub name: String,
    /// The command line.
    pub command: String,
    /// RFC 3339, UTC.
    pub began: String,
    pub lasted: Duration,
    pub machine: Machine,
    pub plan: crate::plan::Plan,
    pub streams: Vec<StreamOutcome>,
    /// None where no sink was asked: then no rate is claimed.
    pub integrity: Option<Integrity>,
    /// Samples of the watched process, if one was named.
    pub samples: Vec<Sample>,
}

impl Outcome {
    /// Begins the warning of a watched process that ended before the run did: its samples are those of a part of it.
    pub const WATCH_LOST: &'static str = "the watched process has gone during the run";

    pub fn is_watch_lost(&self) -> bool {
        let mut warnings = self.machine.warnings.iter();
        warnings.any(|warning| warning.starts_with(Outcome::WATCH_LOST))
    }

    /// Messages of all streams, warm-up and grace included.
    pub fn accepted(&self) -> u64 {
        let streams = self.streams.iter();
        streams.map(|stream| stream.counts.accepted).sum()
    }

    /// Messages of all streams a second: see [`Outcome::rate_of`].
    pub fn rate(&self) -> f64 {
        self.streams.iter().map(|stream| self.rate_of(stream)).sum()
    }

    /// Accepted messages a second, from the end of the warm-up to the end of the plan: what comes in the grace is no rate.
    pub fn rate_of(&self, stream: &StreamOutcome) -> f64 {
        let (from, to) = (
            self.plan.warmup.as_secs_f64().ceil() as usize,
            self.plan.lasts.as_secs() as usize,
        );
        if to <= from {
            let lasted = self.lasted.as_secs_f64().max(f64::MIN_POSITIVE);
            return stream.counts.accepted as f64 / lasted;
        }
        let seconds = stream.seconds.iter().take(to).skip(from);
        seconds.map(|second| second.accepted).sum::<u64>() as f64 / (to - from) as f64
    }
}

/// CPU time of a proxy per accepted message, and how it compares: one workload of `peers`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The workload: `new connection per message, 4 KiB`.
    pub title: String,
    /// In the order they took part.
    pub peers: Vec<PeerRounds>,
    /// The peer the ratios are against.
    pub against: String,
    /// What weir wants to reach against it, if there is a target.
    pub target: Option<f64>,
}

/// One peer's rounds, a value each.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerRounds {
    pub name: String,
    /// CPU time per accepted message, microseconds; empty where there is no proxy.
    pub cpu_us: Vec<f64>,
    /// Accepted while the plan sends.
    pub messages_per_second: Vec<f64>,
    /// p50, p99 and p99.9 of the whole session from the planned start, per round, microseconds.
    pub p50_us: Vec<f64>,
    pub p99_us: Vec<f64>,
    pub p999_us: Vec<f64>,
    /// Why a peer could not take part (it offers no such thing, it is not installed).
    pub absent: Option<String>,
}

/// What a result file holds: runs, and comparisons made of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Always [`Results::FORMAT`].
    pub format: String,
    pub runs: Vec<Outcome>,
    pub comparisons: Vec<Comparison>,
    /// Single figures with their unit and target: bytes per parked client, CPU beside them.
    pub figures: Vec<Figure>,
}

impl Results {
    pub const FORMAT: &'static str = "weir-bench/1";
}

/// A single number, such as the bytes of a parked client.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub title: String,
    pub value: f64,
    pub unit: String,
    /// At most this, if there is a target.
    pub target: Option<f64>,
    /// What it rests on: the two medians of a ratio, the number held.
    pub note: String,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
impl StreamOutcome {
    /// One that has seen nothing yet.
    pub(crate) fn named(name: &str) -> StreamOutcome {
        StreamOutcome {
            name: name.to_owned(),
            ..StreamOutcome::default()
        }
    }
}

#[cfg(test)]
impl Outcome {
    /// A run of a plan that nobody watched, and whose mail nobody counted.
    pub(crate) fn of(plan: crate::plan::Plan, streams: Vec<StreamOutcome>) -> Outcome {
        Outcome {
            name: "weir".to_owned(),
            command: String::new(),
            began: "2026-01-01T00:00:00Z".to_owned(),
            lasted: plan.lasts,
            machine: Machine::default(),
            plan,
            streams,
            integrity: None,
            samples: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_survives_its_text() {
        let mut latencies = Latencies::default();
        for us in [1, 40, 900, 1_000_000] {
            latencies.record(Duration::from_micros(us));
        }
        let text = serde_json::to_string(&latencies).unwrap();
        assert_eq!(serde_json::from_str::<Latencies>(&text).unwrap(), latencies);
    }

    #[test]
    fn long_latencies_are_not_cut() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_micros(100));
        latencies.record(Duration::from_secs(7 * 3600));
        assert!(
            latencies.at(100.0).abs_diff(Duration::from_secs(7 * 3600)) < Duration::from_secs(60)
        );
        latencies.record(Duration::from_secs(90 * 3600));
        let longest = latencies.at(100.0);
        assert!(
            longest.abs_diff(Duration::from_micros(LATENCY_MAX_US)) < Duration::from_secs(300),
            "{longest:?}"
        );
    }

    #[test]
    fn what_is_no_histogram_is_an_error() {
        for text in ["\"0\"", "\"zz\"", "\"é\"", "\"00ff\"", "12"] {
            assert!(serde_json::from_str::<Latencies>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn outcomes_of_two_processes_add_up() {
        let mut one = StreamOutcome {
            seconds: vec![Second {
                starts: 3,
                ..Second::default()
            }],
            ..StreamOutcome::default()
        };
        one.counts.accepted = 5;
        let mut two = StreamOutcome {
            seconds: vec![
                Second::default(),
                Second {
                    accepted: 2,
                    ..Second::default()
                },
            ],
            ..StreamOutcome::default()
        };
        two.counts.accepted = 2;
        two.stages
            .entry(Stage::Final)
            .or_default()
            .planned
            .record(Duration::from_millis(3));
        one.merge(&two);
        assert_eq!(one.counts.accepted, 7);
        assert_eq!(one.seconds.len(), 2);
        assert_eq!(one.stages[&Stage::Final].planned.0.len(), 1);
    }
}
