//! `weir-bench source`: flags to plan, one run, its summary.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::cli::run::{self, RunFlags};
use crate::cli::tls::TlsFlags;
use crate::exit::Exit;
use crate::grammar;
use crate::grammar::problem::Problems;
use crate::grammar::stream;
use crate::grammar::stream::Settings;
use crate::plan::Plan;
use crate::{rails, summary};

const LASTS: Duration = Duration::from_secs(10);
const GRACE: Duration = Duration::from_secs(10);
const SEED: u64 = 1;

/// Sends mail: sessions at a planned rate, or in a circle.
///
/// Latency is counted from the time the plan gives a session, so that a server which stalls cannot hide it (no coordinated omission);
/// service times stand beside it. A rate is only told together with what arrived: name the sink's control port with --ledger.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(after_long_help = after_help())]
pub struct SourceFlags {
    /// Where the mail goes, as 127.0.0.1:2525
    pub target: String,
    /// A stream of sessions, 'NAME: key=value ...'; repeat it for several side by side. Keys are listed below
    #[arg(long = "stream", value_name = "STREAM", help_heading = "Streams")]
    pub streams: Vec<String>,
    #[command(flatten)]
    pub one: OneStream,
    #[command(flatten)]
    pub plan: PlanFlags,
    #[command(flatten)]
    pub run: RunFlags,
}

/// The keys of a stream as flags, for a run that has only one.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "One stream (the same keys as --stream)")]
pub struct OneStream {
    /// How a session behaves: per-message, persistent, pipelined, bdat, slow-body, hang-up, pregreet, slow-loris, idle, silent, spambot [default: per-message]
    #[arg(long)]
    pub profile: Option<String>,
    /// Starts planned: 2000/s, or ramps and steps as '100/s..2000/s over 30s, 2000/s over 1m'
    #[arg(long)]
    pub rate: Option<String>,
    /// How planned starts are spread: constant, poisson [default: poisson]
    #[arg(long)]
    pub pattern: Option<String>,
    /// Instead of a rate: so many sessions in a circle
    #[arg(long, value_name = "N")]
    pub sessions: Option<String>,
    /// Instead of a rate: so many connections kept (pregreet, slow-loris, idle, silent, spambot)
    #[arg(long, value_name = "N")]
    pub connections: Option<String>,
    /// How fast kept connections are opened [default: 2000/s]
    #[arg(long, value_name = "RATE")]
    pub opening: Option<String>,
    /// Octets of a message: 4k, a mix '4k*9,100k*1', or @FILE with a size and a weight a line [default: 4k]
    #[arg(long)]
    pub size: Option<String>,
    /// Real messages instead: a folder of .eml, a Maildir, an mbox
    #[arg(long, value_name = "PATH")]
    pub mail: Option<String>,
    /// Messages a kept connection carries [default: 100]
    #[arg(long, value_name = "N")]
    pub messages: Option<String>,
    /// Recipients of a message [default: 1]
    #[arg(long, value_name = "N")]
    pub recipients: Option<String>,
    /// Source addresses: 127.4.0.1+50, 127.4.0.1-127.4.0.50, any [default: of 127.64.0.0/10, one for 16 clients]
    #[arg(long, value_name = "ADDRS")]
    pub from: Option<String>,
    /// Never more starts than this [default: what the plan asks for, and a fifth]
    #[arg(long, value_name = "N")]
    pub starts: Option<String>,
    /// Starts that find so many sessions open are dropped, and counted [default: five seconds of the rate]
    #[arg(long, value_name = "N")]
    pub open: Option<String>,
    /// Name in EHLO [default: client.test]
    #[arg(long, value_name = "NAME")]
    pub helo: Option<String>,
    /// Reverse-path, {} being the number of the start [default: sender{}@client.test]
    #[arg(long, value_name = "PATH")]
    pub sender: Option<String>,
    /// Forward-path, {} being the number of the start [default: recipient@weir.test]
    #[arg(long, value_name = "PATH")]
    pub recipient: Option<String>,
    /// How long a reply may take [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub patience: Option<String>,
    /// Octets of a body a second, slow-body [default: 1k/s]
    #[arg(long)]
    pub speed: Option<String>,
    /// Time between two octets, slow-loris [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub every: Option<String>,
}

/// What holds for all streams.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Plan")]
pub struct PlanFlags {
    /// How long sessions are started [default: what --rate says, or 10s]
    #[arg(long = "for", value_name = "TIME")]
    pub lasts: Option<String>,
    /// Starts of the first so-long are made and not counted [default: 0s]
    #[arg(long, value_name = "TIME")]
    pub warmup: Option<String>,
    /// How long the last sessions may take after --for [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub grace: Option<String>,
    /// The sink's control port, asked at the end what arrived
    #[arg(long, value_name = "ADDR:PORT")]
    pub ledger: Option<String>,
    /// Seed of everything random [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<String>,
    #[command(flatten)]
    pub tls: TlsFlags,
    /// A host that is not this one, and yours to load; exactly this address
    #[arg(long = "i-own-this-host", value_name = "ADDR")]
    pub owned: Vec<String>,
}

impl OneStream {
    /// The flags given, under the keys of a stream.
    fn values(&self) -> BTreeMap<&'static str, String> {
        let all = [
            ("profile", &self.profile),
            ("rate", &self.rate),
            ("pattern", &self.pattern),
            ("sessions", &self.sessions),
            ("connections", &self.connections),
            ("opening", &self.opening),
            ("size", &self.size),
            ("mail", &self.mail),
            ("messages", &self.messages),
            ("recipients", &self.recipients),
            ("from", &self.from),
            ("starts", &self.starts),
            ("open", &self.open),
            ("helo", &self.helo),
            ("sender", &self.sender),
            ("recipient", &self.recipient),
            ("patience", &self.patience),
            ("speed", &self.speed),
            ("every", &self.every),
        ];
        all.into_iter()
            .filter_map(|(key, value)| Some((key, value.clone()?)))
            .collect()
    }

    /// The stream of these flags, named after its profile.
    pub fn settings(&self) -> Settings {
        let values = self.values();
        Settings {
            name: values
                .get("profile")
                .map_or("mail", String::as_str)
                .to_owned(),
            place: "--".to_owned(),
            values,
        }
    }
}

impl SourceFlags {
    pub fn plan(&self) -> Result<Plan, Problems> {
        let mut problems = Problems::default();
        let one = self.one.settings();
        let settings: Vec<Settings> = if self.streams.is_empty() {
            vec![one]
        } else {
            for (key, value) in &one.values {
                problems.add(
                    format!("--{key}"),
                    value,
                    "belongs into a --stream, where there are any",
                );
            }
            self.streams
                .iter()
                .filter_map(|text| Settings::parse(text, &mut problems))
                .collect()
        };
        let plan = self.plan.plan(&self.target, &settings, &mut problems);
        problems.end(plan)
    }
}

impl PlanFlags {
    /// The plan of these streams.
    pub fn plan(
        &self,
        target: &str,
        settings: &[Settings],
        problems: &mut Problems,
    ) -> Option<Plan> {
        let before = problems.0.len();
        let owned = self.owned(problems);
        let target = loadable("TARGET", target, &owned, problems);
        let ledger = self
            .ledger
            .as_ref()
            .and_then(|text| loadable("--ledger", text, &owned, problems));
        let (lasts, warmup, grace) = self.times(settings, problems);
        let tls = self.tls.plan(target, problems);
        let seed = self.seed.as_ref();
        let seed = seed.and_then(|text| problems.take("--seed", text, grammar::count(text)));
        repeated_names(settings, problems);
        // A wrong target is a problem already; the streams are looked at all the same.
        let towards = target.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1)));
        let streams: Vec<_> = settings
            .iter()
            .filter_map(|settings| settings.build(towards, lasts, problems))
            .collect();
        let plan = Plan {
            target: target?,
            ledger,
            lasts,
            warmup,
            grace,
            streams,
            seed: seed.unwrap_or(SEED),
            run: fastrand::u64(1..),
            process: 0,
            tls,
        };
        if let Err(remedy) = rails::bounds(&plan) {
            problems.add(
                "--for",
                humantime::format_duration(lasts).to_string(),
                remedy,
            );
        }
        (problems.0.len() == before).then_some(plan)
    }

    /// How long sessions are started, the warm-up in it, and the grace.
    fn times(
        &self,
        settings: &[Settings],
        problems: &mut Problems,
    ) -> (Duration, Duration, Duration) {
        let mut time = |flag: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            problems.take(flag, text, grammar::duration(text))
        };
        let lasts = time("--for", &self.lasts);
        let warmup = time("--warmup", &self.warmup).unwrap_or(Duration::ZERO);
        let grace = time("--grace", &self.grace).unwrap_or(GRACE);
        let planned = || settings.iter().filter_map(Settings::lasts).max();
        (lasts.or_else(planned).unwrap_or(LASTS), warmup, grace)
    }

    fn owned(&self, problems: &mut Problems) -> Vec<IpAddr> {
        let parse = |text: &String| {
            text.parse()
                .map_err(|_| "an address without a port, as 192.0.2.7".to_owned())
        };
        self.owned
            .iter()
            .filter_map(|text| problems.take("--i-own-this-host", text, parse(text)))
            .collect()
    }
}

fn loadable(
    flag: &str,
    text: &str,
    owned: &[IpAddr],
    problems: &mut Problems,
) -> Option<SocketAddr> {
    let address = problems.take(flag, text, grammar::address(text))?;
    problems.take(flag, text, rails::allowed(address.ip(), owned))?;
    Some(address)
}

fn repeated_names(settings: &[Settings], problems: &mut Problems) {
    for (at, stream) in settings.iter().enumerate() {
        if settings[..at].iter().any(|other| other.name == stream.name) {
            problems.add(
                "--stream",
                &stream.name,
                "two streams have this name: rename one",
            );
        }
    }
}

fn after_help() -> String {
    let mut text = "Keys of --stream:\n".to_owned();
    for (key, help) in stream::KEYS {
        text += &format!("  {key:<12}{help}\n");
    }
    text += "\nExit codes: 0 well, 1 a threshold of --fail-if was broken or mail was lost, duplicated, altered or invented,\nor came without an id, 64 bad usage, 69 the environment failed (no target, no sink, a worker died), 130 interrupted (and reported).";
    text
}

pub fn command(flags: &SourceFlags) -> anyhow::Result<Exit> {
    run::command(flags.plan(), &flags.run, summary::text)
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
