//! What is remembered of networks, whom greylisting asks to come again, spamtraps, and where clients come from.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;

use super::{clients::prefix, relay::read_file};
use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use crate::net::ClientPrefix;
use crate::policy::{
    greylist::{self, When},
    lore::Lore,
    memory,
    news::Seconds,
    origin::{Kind, Places, Weight, Weights},
    spamtraps::Spamtraps,
};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Greylisting and history")]
pub struct Flags {
    /// Whom greylisting asks to come again: off, score or all
    ///
    /// The first mail of a sender to a recipient from a network is deferred with 451, until it is tried again --greylist-delay later;
    /// then the network is proven and not asked again for --greylist-lifetime. score: only who has a score of --greylist-score.
    /// all: everybody but those with a score below 0. Who is on an allow list of --dnsbl is never asked. The null sender is
    /// deferred at DATA, so that callouts are answered. Finding greylist: by default it is only counted, --on greylist=defer defers.
    ///
    /// Range: off, score, all. Cost: mail of new senders is late by as long as they wait before they try again, mostly 5 to 30
    /// minutes.
    #[arg(long, value_name = "WHOM", default_value = "off")]
    pub greylist: String,

    /// Score from which on --greylist score asks
    ///
    /// Range: 1 to 10000. Cost: none.
    #[arg(long, value_name = "N", default_value = "1")]
    pub greylist_score: String,

    /// Time before a retry passes
    ///
    /// Counted from the first try; tries in between change nothing.
    ///
    /// Range: 1s to 1h. Cost: mail of new senders is late by at least this.
    #[arg(long, value_name = "DURATION", default_value = "5m")]
    pub greylist_delay: String,

    /// Time in which a retry passes
    ///
    /// Counted from the first try. Later than that is a first try again.
    ///
    /// Range: 1s to 30d, longer than --greylist-delay. Cost: memory of what never comes back.
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    pub greylist_window: String,

    /// How long a proven network is not asked again
    ///
    /// Counted from its last mail, so that a monthly letter is not late.
    ///
    /// Range: 1s to 366d. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "36d")]
    pub greylist_lifetime: String,

    /// First tries that are remembered, per shard
    ///
    /// When full, the oldest make room that had twice --greylist-delay to come back; if there is none, who is new passes.
    ///
    /// Range: 1024 to 16777216. Cost: up to 32 bytes each.
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub greylist_max: String,

    /// How many bits of an IPv4 and of an IPv6 address make one network
    ///
    /// For greylisting and history: a large sender tries again from another address of the same network.
    ///
    /// Range: V4/V6 with V4 from 8 to 32 and V6 from 16 to 64. Cost: none.
    #[arg(long, value_name = "V4/V6", default_value = "24/64")]
    pub network_prefix: String,

    /// Time in which what a network has done counts half
    ///
    /// Messages that were accepted or refused, unknown recipients, spamtraps, violations of the protocol and early hang-ups are
    /// counted per network, and per provider where --geo-asn tells it. Mostly bad deeds are finding history, of 1 to 3 points
    /// (a provider: 1 or 2); a good history lowers the score by 1 or 2.
    ///
    /// Range: 1m to 366d. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    pub history_half_life: String,

    /// Networks that are remembered, per shard
    ///
    /// When full, those make room that say least.
    ///
    /// Range: 1024 to 16777216. Cost: up to 64 bytes each.
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub history_max: String,

    /// File of recipients that nobody writes to who was asked
    ///
    /// Form as --deny-recipient: user@example.com, @example.com. Who writes to one: finding spamtrap, and its network has the finding
    /// trapped for --trap-time. The null sender springs no trap. Read again at SIGHUP.
    ///
    /// Range: a readable file. Default: none. Cost: about 60 bytes per address.
    #[arg(long, value_name = "FILE")]
    pub spamtraps: Option<PathBuf>,

    /// How long a spamtrap is held against a network
    ///
    /// Range: 1s to 366d. Cost: none.
    #[arg(long, value_name = "DURATION", default_value = "1d")]
    pub trap_time: String,

    /// What clients of a provider or a country weigh (repeatable)
    ///
    /// AS and a number, or the two capital letters of a country, and a weight that is added to the score: finding origin. A
    /// weight below 0 speaks for a client. Needs --geo-asn or --geo-country.
    ///
    /// Range: AS1 to AS4294967295 or two letters; WEIGHT from -100 to 100, default 1. Default: none. Cost: none.
    #[arg(long, value_name = "ORIGIN[*WEIGHT]", value_delimiter = ' ')]
    pub origin: Vec<String>,

    /// File that tells the country of an address
    ///
    /// In MaxMind's format, as GeoLite2-Country is. Read again at SIGHUP.
    ///
    /// Range: a readable file of up to 1 GiB. Default: none. Cost: its size in memory, once; some microseconds per client.
    #[arg(long, value_name = "FILE")]
    pub geo_country: Option<PathBuf>,

    /// File that tells the provider of an address, its autonomous system
    ///
    /// In MaxMind's format, as GeoLite2-ASN is. Read again at SIGHUP.
    ///
    /// Range: a readable file of up to 1 GiB. Default: none. Cost: its size in memory, once; some microseconds per client.
    #[arg(long, value_name = "FILE")]
    pub geo_asn: Option<PathBuf>,
}

/// What is remembered, and by which lists.
#[derive(Clone)]
pub struct Remembering {
    pub memory: memory::Config,
    pub lore: Arc<Lore>,
    /// Something was asked for that only memory can do.
    pub is_wanted: bool,
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(366 * 86_400);
/// The largest file of places: what all there is takes a tenth of.
const PLACES_MAX: u64 = 1 << 30;

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Remembering {
        let greylist = self.greylist(reader);
        let lore = self.lore(reader);
        let files = self.geo_asn.is_some() || self.geo_country.is_some();
        Remembering {
            is_wanted: greylist.when != When::Off
                || self.spamtraps.is_some()
                || files
                || !lore.weights.0.is_empty(),
            memory: memory::Config {
                prefix: self.prefix(reader),
                half_life: seconds(
                    reader,
                    "--history-half-life",
                    &self.history_half_life,
                    60 * SECOND..=YEAR,
                ),
                networks_max: entries(reader, "--history-max", &self.history_max),
                trap_time: seconds(reader, "--trap-time", &self.trap_time, SECOND..=YEAR),
                greylist,
                ..memory::Config::default()
            },
            lore: Arc::new(lore),
        }
    }

    /// What the files say, read now. Also what a reload calls.
    pub fn lore(&self, reader: &mut Reader) -> Lore {
        let mut places = Places::default();
        for (flag, kind, path) in [
            ("--geo-country", Kind::Country, &self.geo_country),
            ("--geo-asn", Kind::Asn, &self.geo_asn),
        ] {
            let Some(path) = path else { continue };
            if let Err(why) = read_bounded(path).and_then(|content| places.add(kind, content)) {
                let fault = Fault::new(
                    format!("cannot be used: {why}"),
                    "name a file in MaxMind's format",
                );
                reader.wrong(flag, path.display().to_string(), fault);
            }
        }
        Lore {
            spamtraps: self.spamtraps(reader),
            places,
            weights: self.weights(reader),
        }
    }

    /// The files by their flags, for whoever has to keep them within reach.
    pub fn files(&self) -> [(&'static str, Option<&PathBuf>); 3] {
        [
            ("--spamtraps", self.spamtraps.as_ref()),
            ("--geo-country", self.geo_country.as_ref()),
            ("--geo-asn", self.geo_asn.as_ref()),
        ]
    }

    fn greylist(&self, reader: &mut Reader) -> greylist::Config {
        let words = [
            ("off", When::Off),
            ("score", When::Score),
            ("all", When::All),
        ];
        let config = greylist::Config {
            when: reader.choice("--greylist", &self.greylist, &words),
            score: reader.count(
                "--greylist-score",
                &self.greylist_score,
                1..=10_000,
                Zero::Plain,
            ) as i32,
            delay: seconds(
                reader,
                "--greylist-delay",
                &self.greylist_delay,
                SECOND..=60 * 60 * SECOND,
            ),
            window: seconds(
                reader,
                "--greylist-window",
                &self.greylist_window,
                SECOND..=30 * DAY,
            ),
            lifetime: seconds(
                reader,
                "--greylist-lifetime",
                &self.greylist_lifetime,
                SECOND..=YEAR,
            ),
            tuples_max: entries(reader, "--greylist-max", &self.greylist_max),
        };
        if config.window <= config.delay {
            let fault = Fault::new(
                "is over before --greylist-delay is: nobody would pass",
                "make it longer, hours at least",
            );
            reader.wrong("--greylist-window", &self.greylist_window, fault);
        }
        config
    }

    fn weights(&self, reader: &mut Reader) -> Weights {
        let parse = |typed: &str| {
            typed.parse::<Weight>().map_err(|why| {
                Fault::new(
                    format!("cannot be used: {why}"),
                    "write AS64500*3 or XX*2, separated by spaces",
                )
            })
        };
        let typed = self.origin.iter().filter(|typed| !typed.is_empty());
        let weights = Weights(
            typed
                .filter_map(|typed| reader.parse("--origin", typed, parse))
                .collect(),
        );
        for (kind, path, flag) in [
            (Kind::Asn, &self.geo_asn, "--geo-asn"),
            (Kind::Country, &self.geo_country, "--geo-country"),
        ] {
            if weights.asks(kind) && path.is_none() {
                let fault = Fault::new("cannot be told", format!("add {flag} FILE"));
                reader.wrong("--origin", self.origin.join(" "), fault);
            }
        }
        weights
    }

    fn prefix(&self, reader: &mut Reader) -> ClientPrefix {
        reader
            .parse("--network-prefix", &self.network_prefix, prefix)
            .unwrap_or_default()
    }

    fn spamtraps(&self, reader: &mut Reader) -> Spamtraps {
        const FLAG: &str = "--spamtraps";
        let Some(path) = &self.spamtraps else {
            return Spamtraps::default();
        };
        let path = path.display().to_string();
        let text = read_file(reader, FLAG, &path).unwrap_or_default();
        Spamtraps::parse(&text).unwrap_or_else(|errors| {
            for error in errors {
                let fault = Fault::new(
                    format!("has an error: {error}"),
                    "write one address or @domain per line",
                );
                reader.wrong(FLAG, path.as_str(), fault);
            }
            Spamtraps::default()
        })
    }
}

fn read_bounded(path: &PathBuf) -> Result<Vec<u8>, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    match size <= PLACES_MAX {
        true => fs::read(path).map_err(|error| error.to_string()),
        false => Err("it has more than 1 GiB".into()),
    }
}

fn seconds(
    reader: &mut Reader,
    flag: &str,
    typed: &str,
    range: std::ops::RangeInclusive<Duration>,
) -> Seconds {
    reader.duration(flag, typed, range, Zero::Plain).as_secs() as Seconds
}

fn entries(reader: &mut Reader, flag: &str, typed: &str) -> u32 {
    reader.count(flag, typed, 1024..=1 << 24, Zero::Plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};
    use crate::policy::origin::fixtures::{Record, database};

    fn read(args: &[&str]) -> Result<Remembering, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content).expect("written");
        file
    }

    fn at(file: &tempfile::NamedTempFile) -> &str {
        file.path().to_str().expect("UTF-8")
    }

    #[test]
    fn the_defaults_are_those_of_policy_and_nothing_is_wanted() {
        let meant = read(&[]).expect("no errors");
        assert_eq!(meant.memory, memory::Config::default());
        assert!(!meant.is_wanted && meant.lore.spamtraps.is_empty());
    }

    #[test]
    fn times_and_bounds_are_read() {
        let meant = read(&[
            "--greylist",
            "score",
            "--greylist-score",
            "3",
            "--greylist-delay=2s",
            "--greylist-window=1m",
            "--greylist-lifetime=2d",
            "--greylist-max=2048",
            "--network-prefix=16/48",
            "--history-half-life=1h",
            "--history-max=4096",
            "--trap-time=2h",
        ])
        .expect("no errors");
        let want = memory::Config {
            on: false,
            prefix: ClientPrefix::new(16, 48).expect("in range"),
            half_life: 3600,
            networks_max: 4096,
            trap_time: 7200,
            greylist: greylist::Config {
                when: When::Score,
                score: 3,
                delay: 2,
                window: 60,
                lifetime: 172_800,
                tuples_max: 2048,
            },
        };
        assert!(meant.memory == want && meant.is_wanted);
        for args in [
            ["--greylist", "yes"],
            ["--greylist-delay", "0"],
            ["--greylist-window", "5m"],
            ["--history-max", "10"],
            ["--network-prefix", "24/96"],
            ["--trap-time", "1000d"],
        ] {
            assert_eq!(testing::blamed(read(&args)), [args[0]], "{args:?}");
        }
    }

    #[test]
    fn origins_need_the_file_that_tells_them() {
        let asn = file(&database("X-ASN", &[("10.0.0.0/8", Record::Asn(64500))]));
        let meant = read(&["--origin", "AS64500*3 AS1", "--geo-asn", at(&asn)]);
        let meant = meant.expect("no errors");
        let place = meant.lore.places.find("10.1.2.3".parse().expect("one"));
        assert_eq!(meant.lore.weights.of(place).count(), 1);
        let country = read(&["--origin", "XX", "--geo-asn", at(&asn)]);
        assert_eq!(testing::blamed(country), ["--origin"]);
        let mistaken = read(&["--geo-country", at(&asn)]);
        assert_eq!(testing::blamed(mistaken), ["--geo-country"]);
        assert_eq!(testing::blamed(read(&["--origin", "x"])), ["--origin"]);
    }

    #[test]
    fn spamtraps_are_read_and_every_wrong_line_is_told() {
        let good = file(b"trap@x.example\n@trap.example\n");
        let meant = read(&["--spamtraps", at(&good)]).expect("no errors");
        assert!(meant.lore.spamtraps.len() == 2 && meant.is_wanted);
        let bad = file(b"trap@x.example\nx\ny\n");
        let wrong = read(&["--spamtraps", at(&bad)]).err().expect("two errors");
        assert!(
            wrong.len() == 2 && wrong[1].why.contains("line 3"),
            "{wrong:?}"
        );
    }
}
