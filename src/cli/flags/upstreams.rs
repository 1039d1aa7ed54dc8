//! The mail servers behind weir, and the pool of connections to them.

use std::{collections::HashSet, fs, time::Duration};

use clap::Args;

use crate::cli::{
    flags::{
        Purpose,
        upstream_tls::{Mode, Options},
    },
    reader::{Reader, Zero},
    units::Fault,
};
use crate::metrics::UPSTREAMS_MAX;
use crate::route::upstream::WEIGHT_MAX;
use crate::tls::UpstreamWish;

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Upstreams")]
pub struct Flags {
    /// Mail server to relay to (repeatable)
    ///
    /// HOST:PORT, with ,weight=N for its share of the load against the others and ,max=N for its own --pool-max; or @FILE with
    /// one per line, read again at SIGHUP. A name may have several addresses; it is looked up every --resolve-interval.
    /// ,tls=off, may, require or verify is its own --upstream-tls; ,implicit-tls begins with the handshake, as on port 465 (then
    /// require, unless verify is wanted); ,sni=NAME is the name asked for and verified, where it is not HOST.
    ///
    /// Range: 1 to 64 servers; port 25 if none is given; weight 1 to 1000. Default: none (with --demo the embedded sink).
    /// Cost: a probe connection each --probe-interval.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ' ')]
    pub upstream: Vec<String>,

    /// Connections to one upstream, over all shards
    ///
    /// A transaction that finds none free waits (--queue-wait). Must stay below what the upstream accepts from one client.
    ///
    /// Range: 1 to 100000, or 0: no limit. Cost: a socket here and a session there each, and 2 KiB.
    #[arg(long, value_name = "N", default_value = "100")]
    pub pool_max: String,

    /// Share of the pool that one client's large messages may hold, in percent
    ///
    /// A message that outgrows --hold-size holds an upstream connection while it comes in. A client (IPv4 address, IPv6 /64)
    /// that has its share waits with the next one (--queue-wait); all clients together may hold three quarters of the pool
    /// this way, so that short messages go on. Clients of --allow-list have no limit.
    ///
    /// Range: 1 to 100, or 0: neither limit. With --pool-max 0 there is none. Cost: low, a client that sends many large
    /// messages at a time is deferred.
    #[arg(long, value_name = "PERCENT", default_value = "25")]
    pub pool_share: String,

    /// Age at which a pooled connection is not used again
    ///
    /// Range: 1s to 20m (servers of big providers cut at 20 minutes), or 0: no limit. Cost: connects, when short.
    #[arg(long, value_name = "DURATION", default_value = "10m")]
    pub pool_age: String,

    /// Transactions after which a pooled connection is not used again
    ///
    /// Range: 1 to 1000000, or 0: no limit. Cost: connects, when low.
    #[arg(long, value_name = "N", default_value = "100")]
    pub pool_uses: String,

    /// Time after which an unused pooled connection is closed
    ///
    /// Range: 1s to 5m, or 0: connections are not kept. Cost: idle sessions at the upstream, when long.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub pool_idle: String,

    /// Longest wait of a transaction for an upstream connection
    ///
    /// Then the client gets 451: 4.3.2 if all connections were in use, 4.4.1 if no upstream is up, which is waited for 10s at
    /// most. The deadlines of --deadline-rcpt and --deadline-final hold besides.
    ///
    /// Range: 100ms to 9m, or 0: only those deadlines. Cost: short, mail is deferred that a moment later had gone through;
    /// long, sessions pile up while all upstreams are down.
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    pub queue_wait: String,

    /// Transactions that may wait for an upstream connection, per shard
    ///
    /// One more gets 451 4.3.2 at once.
    ///
    /// Range: 1 to 1000000, or 0: nobody waits. Cost: about 64 bytes each while waiting, besides the open transaction.
    #[arg(long, value_name = "N", default_value = "10000")]
    pub queue_max: String,

    /// Longest connect to an upstream, per address
    ///
    /// Greeting and EHLO have the time of --timeout-command.
    ///
    /// Range: 100ms to 2m. Cost: a client's waiting time, when long.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub upstream_connect_timeout: String,

    /// How often each upstream's health is probed
    ///
    /// With a real dialogue: greeting, EHLO, QUIT. One shard probes for all. Upstreams are also probed once at start, and
    /// taken out of the choice when real connections fail.
    ///
    /// Range: 1s to 1h, or 0: at start only. Cost: one short connection per address and interval.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub probe_interval: String,

    /// How often upstream names are looked up again
    ///
    /// If a lookup fails the last addresses stay in use.
    ///
    /// Range: 1s to 1d, or 0: at start and at SIGHUP only. Cost: one lookup per name and interval.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub resolve_interval: String,

    /// Whether upstreams are tested for relaying to foreign domains: yes or no
    ///
    /// At start each upstream is asked, without sending mail, whether it would relay to a foreign domain for weir. If so a
    /// loud warning is logged: then only --relay-domains and --relay-from keep weir from being an open relay.
    ///
    /// Range: yes, no. Cost: one short connection per upstream at start.
    #[arg(long, value_name = "YES|NO", default_value = "yes")]
    pub relay_test: String,
}

/// One upstream as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstream {
    pub host: String,
    pub port: u16,
    pub weight: u32,
    /// None: --pool-max.
    pub max: Option<u32>,
    /// None: in plaintext.
    pub tls: Option<UpstreamWish>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upstreams {
    pub upstreams: Vec<Upstream>,
    /// What was typed, for reading `@FILE`s again.
    pub typed: Vec<String>,
    pub pool_max: u32,
    pub pool_share: u32,
    pub pool_age: Duration,
    pub pool_uses: u32,
    pub pool_idle: Duration,
    pub queue_wait: Duration,
    pub queue_max: u32,
    pub connect_timeout: Duration,
    pub probe_interval: Duration,
    pub resolve_interval: Duration,
    pub relay_test: bool,
}

impl Flags {
    /// `destined`: clients say themselves where they want to go; `tls`: how upstreams are spoken to in general.
    pub fn read(
        &self,
        reader: &mut Reader,
        purpose: Purpose,
        destined: bool,
        tls: Mode,
    ) -> Upstreams {
        let seconds = Duration::from_secs;
        let upstreams = upstreams(reader, &self.upstream, tls);
        match (self.upstream.is_empty(), purpose) {
            (true, Purpose::Relay) if !destined => {
                reader.wrong(
                    "--upstream",
                    "",
                    Fault::new(
                        "is missing",
                        "name a mail server, as in --upstream mx1.example:25, or try --demo",
                    ),
                );
            }
            (false, Purpose::Relay) if destined => reader.wrong(
                "--upstream",
                self.upstream.join(" "),
                Fault::new(
                    "is not asked with --transparent: a client's upstream is the host that it wanted to go to",
                    "leave out one of the two",
                ),
            ),
            (false, Purpose::Demo) => reader.wrong(
                "--demo",
                "",
                Fault::new("brings its own upstream", "leave out --upstream or --demo"),
            ),
            _ => {}
        }
        Upstreams {
            upstreams,
            typed: self.upstream.clone(),
            pool_max: reader.count("--pool-max", &self.pool_max, 1..=100_000, Zero::Lifts),
            pool_share: reader.count("--pool-share", &self.pool_share, 1..=100, Zero::Lifts),
            pool_age: reader.duration(
                "--pool-age",
                &self.pool_age,
                seconds(1)..=seconds(1200),
                Zero::Lifts,
            ),
            pool_uses: reader.count("--pool-uses", &self.pool_uses, 1..=1_000_000, Zero::Lifts),
            pool_idle: reader.duration(
                "--pool-idle",
                &self.pool_idle,
                seconds(1)..=seconds(300),
                Zero::Lifts,
            ),
            queue_wait: reader.duration(
                "--queue-wait",
                &self.queue_wait,
                Duration::from_millis(100)..=seconds(540),
                Zero::Lifts,
            ),
            queue_max: reader.count("--queue-max", &self.queue_max, 1..=1_000_000, Zero::Lifts),
            connect_timeout: reader.duration(
                "--upstream-connect-timeout",
                &self.upstream_connect_timeout,
                Duration::from_millis(100)..=seconds(120),
                Zero::Plain,
            ),
            probe_interval: reader.duration(
                "--probe-interval",
                &self.probe_interval,
                seconds(1)..=seconds(3600),
                Zero::Lifts,
            ),
            resolve_interval: reader.duration(
                "--resolve-interval",
                &self.resolve_interval,
                seconds(1)..=seconds(86_400),
                Zero::Lifts,
            ),
            relay_test: reader.choice(
                "--relay-test",
                &self.relay_test,
                &[("yes", true), ("no", false)],
            ),
        }
    }
}

/// All upstreams of `typed`, with the `@FILE`s read now. Also what a reload calls.
pub fn upstreams(reader: &mut Reader, typed: &[String], tls: Mode) -> Vec<Upstream> {
    let mut found = Vec::new();
    let upstream = |typed: &str| upstream(typed, tls);
    for word in typed.iter().filter(|word| !word.is_empty()) {
        let Some(path) = word.strip_prefix('@') else {
            found.extend(reader.parse("--upstream", word, upstream));
            continue;
        };
        match fs::read_to_string(path) {
            Ok(text) => found
                .extend(lines(&text).filter_map(|line| reader.parse("--upstream", line, upstream))),
            Err(error) => reader.wrong(
                "--upstream",
                word,
                Fault::new(format!("cannot be read: {error}"), "name a readable file"),
            ),
        }
    }
    let mut seen = HashSet::new();
    for upstream in &found {
        if !seen.insert((&upstream.host, upstream.port)) {
            let fault = Fault::new(
                "stands twice",
                "name each server once; ,weight=N gives it a larger share",
            );
            reader.wrong("--upstream", upstream.name(), fault);
        }
    }
    if found.len() > UPSTREAMS_MAX {
        let fault = Fault::new(
            format!("has {} servers", found.len()),
            format!("name at most {UPSTREAMS_MAX}"),
        );
        reader.wrong("--upstream", "", fault);
    }
    found
}

/// Lines of a list file, without comments (from `#`) and blank lines.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

impl Upstream {
    /// HOST:PORT, the name of logs and metrics.
    pub fn name(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

fn upstream(typed: &str, general: Mode) -> Result<Upstream, Fault> {
    let mut parts = typed.split(',');
    let (host, port) = host_and_port(parts.next().unwrap_or_default())?;
    let mut upstream = Upstream {
        host,
        port,
        weight: 1,
        max: None,
        tls: None,
    };
    let mut tls = Options::default();
    for part in parts {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (part.trim(), None),
        };
        let n = value.and_then(|value| value.parse::<u32>().ok());
        match (key, n) {
            ("weight", Some(n)) if (1..=u32::from(WEIGHT_MAX)).contains(&n) => upstream.weight = n,
            ("max", Some(n)) if n <= 100_000 => upstream.max = Some(n),
            _ if tls.take(key, value) => {}
            _ => return Err(unknown(part)),
        }
    }
    upstream.tls = tls.wish(&upstream.host, general)?;
    Ok(upstream)
}

fn unknown(part: &str) -> Fault {
    Fault::new(
        format!("has the unknown option {part:?}"),
        "options are ,weight=N (1 to 1000) ,max=N ,tls=off|may|require|verify ,implicit-tls and ,sni=NAME",
    )
}

fn host_and_port(typed: &str) -> Result<(String, u16), Fault> {
    let fault = || {
        Fault::new(
            "is no HOST:PORT",
            "write a name or address and a port, as in mx1.example:25 or [2001:db8::1]:25",
        )
    };
    let typed = typed.trim();
    let (host, port) = match typed.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(fault)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| fault())?;
            (
                host,
                if rest.is_empty() {
                    "25"
                } else {
                    rest.strip_prefix(':').ok_or_else(fault)?
                },
            )
        }
        None => typed.split_once(':').unwrap_or((typed, "25")),
    };
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
    if host.is_empty() || host.len() > 253 || !host.bytes().all(allowed) {
        return Err(fault());
    }
    let port: u16 = port.parse().map_err(|_| fault())?;
    if port == 0 {
        Err(fault())
    } else {
        Ok((host.to_owned(), port))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Upstreams, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| {
            flags.read(reader, Purpose::Relay, false, None)
        })
    }

    #[test]
    fn defaults() {
        let meant = read(&["--upstream", "mx1.example:25"]).unwrap();
        assert_eq!(
            meant.upstreams,
            [Upstream {
                host: "mx1.example".into(),
                port: 25,
                weight: 1,
                max: None,
                tls: None
            }]
        );
        assert_eq!(
            (
                meant.pool_max,
                meant.pool_share,
                meant.pool_uses,
                meant.queue_max
            ),
            (100, 25, 100, 10_000)
        );
        let times = [
            meant.pool_age,
            meant.pool_idle,
            meant.connect_timeout,
            meant.probe_interval,
        ];
        assert_eq!(times.map(|t| t.as_secs()), [600, 60, 30, 30]);
        assert!(meant.relay_test);
    }

    #[test]
    fn an_upstream_has_a_host_a_port_and_options() {
        for (typed, name, weight, max) in [
            ("mx1.example", "mx1.example:25", 1, None),
            ("127.0.0.1:2526,weight=3", "127.0.0.1:2526", 3, None),
            (
                "[2001:db8::1]:587,max=20,weight=2",
                "[2001:db8::1]:587",
                2,
                Some(20),
            ),
            ("[::1]", "[::1]:25", 1, None),
        ] {
            let meant = upstream(typed, None).unwrap();
            assert_eq!(
                (meant.name().as_str(), meant.weight, meant.max),
                (name, weight, max),
                "{typed}"
            );
        }
        for typed in [
            "",
            ":25",
            "mx1:0",
            "mx1:smtp",
            "2001:db8::1",
            "[mx1]:25",
            "mx1:25,weight=0",
            "mx1:25,fast",
            "mx 1:25",
            "mx1:25,max=x",
        ] {
            assert!(upstream(typed, None).is_err(), "{typed}");
        }
    }

    #[test]
    fn a_file_lists_one_per_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            file,
            "# the old site\nmx1.example:25,weight=2  # faster\n\nmx2.example:25"
        )
        .unwrap();
        let meant = read(&[
            "--upstream",
            &format!("@{}", file.path().display()),
            "--upstream",
            "mx3.example:25",
        ])
        .unwrap();
        let names: Vec<String> = meant.upstreams.iter().map(Upstream::name).collect();
        assert_eq!(
            names,
            ["mx1.example:25", "mx2.example:25", "mx3.example:25"]
        );
        assert_eq!(
            testing::blamed(read(&["--upstream", "@/nonexistent"])),
            ["--upstream"]
        );
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--upstream",
            "mx1:25 mx1:25",
            "--pool-max",
            "many",
            "--pool-share",
            "101",
            "--pool-age",
            "1d",
            "--queue-wait",
            "10m",
            "--probe-interval",
            "1ms",
        ];
        assert_eq!(
            testing::blamed(read(&args)),
            [
                "--upstream",
                "--pool-max",
                "--pool-share",
                "--pool-age",
                "--queue-wait",
                "--probe-interval"
            ]
        );
        assert_eq!(testing::blamed(read(&[])), ["--upstream"]);
    }

    #[test]
    fn zero_lifts() {
        let meant = read(&[
            "--upstream",
            "mx1",
            "--pool-max",
            "0",
            "--pool-age",
            "0",
            "--pool-uses",
            "0",
            "--queue-wait",
            "0",
        ])
        .unwrap();
        assert_eq!(
            (
                meant.pool_max,
                meant.pool_uses,
                meant.pool_age,
                meant.queue_wait
            ),
            (0, 0, Duration::ZERO, Duration::ZERO)
        );
    }
}
