//! Whom the shards ask for names, how patiently, and what they remember.

use std::{net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use clap::Args;

use crate::cli::{
    flags::{listener, relay},
    reader::{Reader, Zero},
    units::{self, Fault},
};
use crate::control::resolvers::{PORT, RESOLV_CONF, Resolvers};
use crate::dns::SERVERS_MAX;

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Resolver")]
pub struct Flags {
    /// DNS server to ask about clients (repeatable)
    ///
    /// ADDR or ADDR:PORT of a recursive resolver, or @FILE in the format of resolv.conf, which is looked at every 5s and used
    /// when it has changed. The first is asked; the next when it is silent, and instead of it while it is dead or far slower. Each
    /// shard asks for itself, over UDP from changing ports, and over TCP where an answer is too long. Lists refuse or count out the big public resolvers: run one on this
    /// host. Upstreams' names are not looked up here but by the system.
    ///
    /// Range: 1 to 8 servers. Default: @/etc/resolv.conf. Cost: up to 16 sockets per server and shard, once something is asked.
    #[arg(long, value_name = "ADDR[:PORT]", value_delimiter = ' ')]
    pub resolver: Vec<String>,

    /// How long a DNS server may take before another one is asked
    ///
    /// When nobody has answered for two and a half times as long, what was asked is unknown, and nothing is concluded from that.
    ///
    /// Range: 100ms to 10s. Cost: short, questions are sent twice; long, a dead server delays the answers.
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub resolver_timeout: String,

    /// Answers of DNS servers that are remembered, per shard
    ///
    /// Of those that do not fit the older ones go.
    ///
    /// Range: 16 to 16777216. Cost: 256 bytes each at most.
    #[arg(long, value_name = "N", default_value = "65536")]
    pub resolver_cache: String,

    /// Shortest and longest time for which an answer is remembered
    ///
    /// In between it is what the answer itself says (TTL). The first protects the servers from lists with a TTL of
    /// nothing, the second weir from answers that never end.
    ///
    /// Range: 0 to 1h for the shortest, 1s to 7d for the longest. Cost: what has changed is noticed that much later.
    #[arg(long, value_name = "MIN:MAX", default_value = "5s:1h")]
    pub resolver_ttl: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolving {
    pub resolvers: Resolvers,
    pub timeout: Duration,
    pub cache: u32,
    /// Shortest and longest.
    pub ttl: (Duration, Duration),
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Resolving {
        Resolving {
            resolvers: self.resolvers(reader),
            timeout: reader.duration(
                "--resolver-timeout",
                &self.resolver_timeout,
                Duration::from_millis(100)..=Duration::from_secs(10),
                Zero::Plain,
            ),
            cache: reader.count(
                "--resolver-cache",
                &self.resolver_cache,
                16..=1 << 24,
                Zero::Plain,
            ),
            ttl: reader
                .parse("--resolver-ttl", &self.resolver_ttl, ttl)
                .unwrap_or_default(),
        }
    }

    fn resolvers(&self, reader: &mut Reader) -> Resolvers {
        const FLAG: &str = "--resolver";
        let typed: Vec<&str> = self.resolver.iter().map(|one| one.trim()).collect();
        let typed: Vec<&str> = typed.into_iter().filter(|one| !one.is_empty()).collect();
        let files: Vec<&str> = typed
            .iter()
            .filter_map(|one| one.strip_prefix('@'))
            .collect();
        match (typed.len(), files.as_slice()) {
            (0, _) => Resolvers::of(RESOLV_CONF.into()),
            (1, [file]) => {
                relay::read_file(reader, FLAG, file);
                Resolvers::of(PathBuf::from(file))
            }
            (_, []) => {
                let servers: Vec<SocketAddr> = typed
                    .iter()
                    .filter_map(|one| reader.parse(FLAG, one, server))
                    .collect();
                if servers.len() > SERVERS_MAX {
                    let fault = Fault::new(
                        format!("names {} servers", servers.len()),
                        format!("name at most {SERVERS_MAX}"),
                    );
                    reader.wrong(FLAG, "", fault);
                }
                Resolvers::named(servers)
            }
            (_, [file, ..]) => {
                let fault = Fault::new(
                    "is a file, and there are other servers",
                    "name one file or some servers",
                );
                reader.wrong(FLAG, format!("@{file}"), fault);
                Resolvers::named(Vec::new())
            }
        }
    }

    /// The file that servers are read from, again and again.
    pub fn file(&self) -> Option<&Path> {
        let mut files = self.resolver.iter().filter_map(|one| one.strip_prefix('@'));
        files.next().map(Path::new)
    }
}

fn server(typed: &str) -> Result<SocketAddr, Fault> {
    let address = match typed.parse() {
        Ok(ip) => SocketAddr::new(ip, PORT),
        Err(_) => listener::address(typed)?,
    };
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(Fault::new(
            "is nobody's address",
            "name the resolver, as in 127.0.0.1 or [2001:db8::53]:53",
        ));
    }
    Ok(address)
}

fn ttl(typed: &str) -> Result<(Duration, Duration), Fault> {
    const LONGEST_MIN: Duration = Duration::from_secs(3600);
    const LONGEST_MAX: Duration = Duration::from_secs(7 * 86_400);
    let (shortest, longest) = typed.split_once(':').ok_or_else(|| {
        Fault::new(
            "is not two durations",
            "write the shortest and the longest, as in 5s:1h",
        )
    })?;
    let (shortest, longest) = (units::duration(shortest)?, units::duration(longest)?);
    let fits = shortest <= LONGEST_MIN
        && (Duration::from_secs(1)..=LONGEST_MAX).contains(&longest)
        && shortest <= longest;
    fits.then_some((shortest, longest)).ok_or_else(|| {
        Fault::new(
            "is out of range",
            "write at most 1h for the shortest, and 1s to 7d for the longest",
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Resolving, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn unless_told_otherwise_those_of_the_host_are_asked() {
        let meant = read(&[]).unwrap();
        assert_eq!(meant.resolvers.file(), Some(Path::new("/etc/resolv.conf")));
        assert!(!meant.resolvers.servers().is_empty());
        assert_eq!(meant.timeout, Duration::from_secs(2));
        assert_eq!(meant.cache, 65_536);
        assert_eq!(
            meant.ttl,
            (Duration::from_secs(5), Duration::from_secs(3600))
        );
    }

    #[test]
    fn servers_are_named_with_and_without_a_port() {
        let args = "--resolver 127.0.0.1 --resolver 192.0.2.1:5353 --resolver 2001:db8::53 --resolver [2001:db8::54]:5353";
        let args: Vec<&str> = args.split(' ').collect();
        let words = "127.0.0.1:53, 192.0.2.1:5353, [2001:db8::53]:53, [2001:db8::54]:5353";
        assert_eq!(read(&args).unwrap().resolvers.words(), words);
        let args = ["--resolver-ttl", "0:7d", "--resolver-cache", "16"];
        let meant = read(&args).unwrap();
        assert_eq!(meant.ttl, (Duration::ZERO, Duration::from_secs(604_800)));
    }

    #[test]
    fn servers_are_read_from_a_file() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("resolv.conf");
        fs::write(&file, "nameserver 192.0.2.9\n").unwrap();
        let named = format!("@{}", file.display());
        let meant = read(&["--resolver", &named]).unwrap();
        assert_eq!(meant.resolvers.words(), "192.0.2.9:53");
        assert_eq!(meant.resolvers.file(), Some(file.as_path()));
        let both = read(&["--resolver", &named, "--resolver", "192.0.2.1"]);
        assert_eq!(testing::blamed(both), ["--resolver"]);
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        for typed in [
            "resolver.example",
            "0.0.0.0",
            "127.0.0.1:0",
            "@/no such file",
            "1.2.3",
        ] {
            assert_eq!(
                testing::blamed(read(&["--resolver", typed])),
                ["--resolver"],
                "{typed}"
            );
        }
        let nine: Vec<String> = (1..10).map(|n| format!("--resolver=192.0.2.{n}")).collect();
        let nine: Vec<&str> = nine.iter().map(String::as_str).collect();
        assert_eq!(testing::blamed(read(&nine)), ["--resolver"]);
        for typed in ["1h", "1h:5s", "2h:3h", "0:0", "0:8d", "x:y", ""] {
            let wrong = read(&["--resolver-ttl", typed]);
            assert_eq!(testing::blamed(wrong), ["--resolver-ttl"], "{typed}");
        }
        let args = ["--resolver-timeout", "0", "--resolver-cache", "0"];
        let expected = ["--resolver-timeout", "--resolver-cache"];
        assert_eq!(testing::blamed(read(&args)), expected);
    }
}
