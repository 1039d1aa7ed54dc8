//! Where clients connect, and how connections spread over shards.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::cli::{
    flags::{
        Purpose,
        listener::{Listener, listeners},
    },
    reader::{Reader, Zero},
    units::Fault,
};
use crate::net::Steer;

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Listening")]
pub struct Flags {
    /// Address and port to accept SMTP on (repeatable)
    ///
    /// IPv4 and IPv6, as in 0.0.0.0:25 or [::]:25; an IPv6 address takes IPv6 clients only.
    /// Beyond loopback, --relay-domains or --relay-from has to say who may send where, unless mail
    /// servers see the clients themselves (--identity).
    ///
    /// Options of one listener stand behind its address: ,tls=off does not offer STARTTLS there, ,tls=may offers it,
    /// ,tls=require takes no mail without it; ,proxy expects a PROXY header from trusted peers.
    ///
    /// Range: 1 to 16 addresses, those of --listen-tls included. Default: none (with --demo 127.0.0.1:2525). Cost: one
    /// socket per address and shard.
    #[allow(rustdoc::broken_intra_doc_links)] // an IPv6 address in brackets is no link
    #[arg(
        long,
        value_name = "ADDR:PORT[,tls=HOW][,proxy]",
        value_delimiter = ' '
    )]
    pub listen: Vec<String>,

    /// Address and port where TLS begins with the first byte, as on port 465 (repeatable)
    ///
    /// The handshake comes before the greeting (RFC 8314). ,proxy behind the address as with --listen.
    ///
    /// Range: 1 to 16 addresses, those of --listen included. Default: none. Cost: one socket per address and shard.
    #[arg(long, value_name = "ADDR:PORT[,proxy]", value_delimiter = ' ')]
    pub listen_tls: Vec<String>,

    /// Name in the greeting, in EHLO replies and in the EHLO sent to upstreams
    ///
    /// Should be the name that the address resolves to and back.
    ///
    /// Range: 1 to 255 letters, digits, dots and hyphens, or an address literal. Default: the host's name. Cost: none.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// Shards: cores that run sessions
    ///
    /// Each shard has its own listener, sessions, upstream pool, limits and buffers. More shards than cores is possible; pinning wraps.
    ///
    /// Range: 1 to 64. Default: the cores this process may use. Cost: a thread and the buffers of --client-buffers and
    /// --upstream-buffers each.
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,

    /// How a connection finds its shard: client or kernel
    ///
    /// client: by address (IPv4 /32, IPv6 /64), so that limits per client are exact. kernel: by connection, which spreads a few
    /// busy addresses over all shards, but then each shard counts a client's limits on its own.
    ///
    /// Range: client, kernel. Cost: none.
    #[arg(long, value_name = "HOW", default_value = "client")]
    pub steer: String,

    /// Client connections over all shards
    ///
    /// One more is answered with 421. Load is shed before that (--overload).
    ///
    /// Range: 1 to 10000000, or 0: only the open-file limit counts. Cost: about 640 bytes each when idle, 4 KiB in a transaction,
    /// and the kernel's socket.
    #[arg(long, value_name = "N", default_value = "100000")]
    pub max_connections: String,

    /// Connections the kernel may queue per listener and shard
    ///
    /// The kernel cuts it to net.core.somaxconn (see weir doctor).
    ///
    /// Range: 1 to 65535. Cost: kernel memory under a burst of connections.
    #[arg(long, value_name = "N", default_value = "4096")]
    pub backlog: String,

    /// Receive buffers per shard for clients, 16 KiB each
    ///
    /// When all are in use, clients are read more slowly (weir_ring_no_buffers_total counts it).
    ///
    /// Range: 16 to 32768, a power of two. Cost: 16 KiB each: at the default 4 MiB per shard once touched. More
    /// of them hold more bodies without a copy, and leave the processor's caches sooner.
    #[arg(long, value_name = "N", default_value = "256")]
    pub client_buffers: String,

    /// Receive buffers per shard for upstreams, 16 KiB each
    ///
    /// Apart from the clients', so that replies can be received however busy clients are.
    ///
    /// Range: 16 to 32768, a power of two. Cost: 16 KiB each: at the default 4 MiB per shard once touched.
    #[arg(long, value_name = "N", default_value = "256")]
    pub upstream_buffers: String,

    /// Whether a shard takes its core from what else runs there: batch or normal
    ///
    /// normal: a shard that is woken runs at once. batch: it lets the running program finish its slice, and finds more
    /// work at once when it runs. On a core that nobody else uses there is no difference.
    ///
    /// Range: batch, normal. Cost: of batch, up to 4 ms per step of a dialogue beside programs that keep the core busy;
    /// of normal, beside a mail server on the same cores, up to a tenth more CPU per message at full load and half as
    /// much again at a small part of it.
    #[arg(long, value_name = "HOW", default_value = "normal")]
    pub scheduling: String,

    /// How long at most a busy shard lets events gather before it wakes for them
    ///
    /// Going to sleep and waking up is the dearest thing a shard does. A busy shard sleeps for as many events as it has
    /// learned to come soon, and for this long if they do not; one with time for each event wakes for the first.
    ///
    /// Range: 10us to 10ms, or 0: never. Cost: now and then this much latency for a step of a dialogue; without it about
    /// a quarter more CPU per message.
    #[arg(long, value_name = "DURATION", default_value = "2ms")]
    pub gather: String,

    /// How long a shard looks for events before it sleeps
    ///
    /// Whoever sleeps has to be woken. With a core to itself a shard can look instead, and serves each event as it comes:
    /// such a shard does not gather.
    ///
    /// Range: 1us to 100ms, or 0: it sleeps at once. Cost: a core per shard while mail comes more often than this. On a
    /// core that is shared with a mail server or with interrupts it takes away time from them, and costs latency.
    #[arg(long, value_name = "DURATION", default_value = "0")]
    pub busy_wait: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listening {
    pub listen: Vec<Listener>,
    pub hostname: String,
    /// None: one per allowed core.
    pub shards: Option<usize>,
    pub steer: Steer,
    /// 0: no limit.
    pub connections_max: u32,
    pub backlog: u16,
    pub client_buffers: u16,
    pub upstream_buffers: u16,
    /// Whether shards let others on their cores finish first.
    pub gives_way: bool,
    /// Zero: never.
    pub gather: Duration,
    /// Zero: not at all.
    pub busy_wait: Duration,
}

impl Listening {
    /// Where, without what is special there.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listen
            .iter()
            .map(|listener| listener.address)
            .collect()
    }
}

impl Flags {
    /// `host`: this machine's own name.
    pub fn read(&self, reader: &mut Reader, purpose: Purpose, host: &str) -> Listening {
        Listening {
            listen: self.listeners(reader, purpose),
            hostname: self.name(reader, host),
            shards: self
                .shards
                .as_ref()
                .map(|typed| reader.count("--shards", typed, 1..=64, Zero::Plain) as usize),
            steer: reader.choice(
                "--steer",
                &self.steer,
                &[("client", Steer::Client), ("kernel", Steer::Kernel)],
            ),
            connections_max: reader.count(
                "--max-connections",
                &self.max_connections,
                1..=10_000_000,
                Zero::Lifts,
            ),
            backlog: reader.count("--backlog", &self.backlog, 1..=65_535, Zero::Plain) as u16,
            client_buffers: buffers(reader, "--client-buffers", &self.client_buffers),
            upstream_buffers: buffers(reader, "--upstream-buffers", &self.upstream_buffers),
            gives_way: reader.choice(
                "--scheduling",
                &self.scheduling,
                &[("batch", true), ("normal", false)],
            ),
            gather: reader.duration(
                "--gather",
                &self.gather,
                Duration::from_micros(10)..=Duration::from_millis(10),
                Zero::Lifts,
            ),
            busy_wait: reader.duration(
                "--busy-wait",
                &self.busy_wait,
                Duration::from_micros(1)..=Duration::from_millis(100),
                Zero::Lifts,
            ),
        }
    }

    fn listeners(&self, reader: &mut Reader, purpose: Purpose) -> Vec<Listener> {
        let mut found = listeners(reader, &self.listen, &self.listen_tls);
        let none_typed = self.listen.is_empty() && self.listen_tls.is_empty();
        if none_typed && purpose == Purpose::Relay {
            let remedy = "say where to accept mail, as in --listen 0.0.0.0:25, or try --demo";
            reader.wrong("--listen", "", Fault::new("is missing", remedy));
        }
        if none_typed && purpose == Purpose::Demo {
            found.push(Listener::plain(SocketAddr::from(([127, 0, 0, 1], 2525))));
        }
        found
    }

    fn name(&self, reader: &mut Reader, host: &str) -> String {
        match &self.hostname {
            Some(typed) => reader
                .parse("--hostname", typed, hostname)
                .unwrap_or_default(),
            None => hostname(host).unwrap_or_else(|_| "localhost".into()),
        }
    }
}

fn hostname(typed: &str) -> Result<String, Fault> {
    let fault = Fault::new(
        "is no host name",
        "write a name of letters, digits, dots and hyphens, as in mx.example.net",
    );
    let literal = typed.starts_with('[') && typed.ends_with(']');
    let inside = if literal {
        &typed[1..typed.len() - 1]
    } else {
        typed
    };
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b) || (literal && b == b':');
    let fits = !inside.is_empty() && typed.len() <= 255 && inside.bytes().all(allowed);
    if fits {
        Ok(typed.to_owned())
    } else {
        Err(fault)
    }
}

fn buffers(reader: &mut Reader, flag: &str, typed: &str) -> u16 {
    let n = reader.count(flag, typed, 16..=32_768, Zero::Plain);
    if !n.is_power_of_two() && (16..=32_768).contains(&n) {
        let near = n.next_power_of_two();
        reader.wrong(
            flag,
            typed,
            Fault::new(
                "is no power of two",
                format!("write {near} or {}", near / 2),
            ),
        );
    }
    n as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::testing;

    fn read(args: &[&str]) -> Result<Listening, Vec<crate::cli::reader::Wrong>> {
        testing::read(args, |flags: &Flags, reader| {
            flags.read(reader, Purpose::Relay, "mx.example")
        })
    }

    #[test]
    fn defaults() {
        let meant = read(&["--listen", "127.0.0.1:25"]).unwrap();
        assert_eq!(
            (meant.hostname.as_str(), meant.shards, meant.steer),
            ("mx.example", None, Steer::Client)
        );
        assert_eq!((meant.connections_max, meant.backlog), (100_000, 4096));
        assert!(!meant.gives_way);
        assert_eq!(meant.gather, Duration::from_millis(2));
        assert_eq!(meant.busy_wait, Duration::ZERO);
    }

    #[test]
    fn several_addresses_of_both_families() {
        let meant = read(&[
            "--listen",
            "0.0.0.0:25",
            "--listen=[::]:25 127.0.0.1:587",
            "--shards",
            "3",
            "--steer",
            "kernel",
            "--scheduling",
            "batch",
            "--busy-wait",
            "50us",
        ])
        .unwrap();
        assert_eq!(meant.busy_wait, Duration::from_micros(50));
        assert!(meant.gives_way);
        assert_eq!(meant.listen.len(), 3);
        assert_eq!((meant.shards, meant.steer), (Some(3), Steer::Kernel));
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--listen",
            "25",
            "--hostname",
            "my host",
            "--shards",
            "65",
            "--steer",
            "luck",
            "--client-buffers",
            "1000",
            "--scheduling",
            "real-time",
            "--gather",
            "1s",
            "--busy-wait",
            "1s",
            "--backlog",
            "0",
        ];
        let expected = [
            "--listen",
            "--hostname",
            "--shards",
            "--steer",
            "--backlog",
            "--client-buffers",
            "--scheduling",
            "--gather",
            "--busy-wait",
        ];
        assert_eq!(testing::blamed(read(&args)), expected);
    }

    #[test]
    fn a_listener_is_required_outside_the_demo() {
        assert_eq!(testing::blamed(read(&[])), ["--listen"]);
        let demo = testing::read(&[], |flags: &Flags, reader| {
            flags.read(reader, Purpose::Demo, "x")
        })
        .unwrap();
        assert_eq!(demo.addresses(), ["127.0.0.1:2525".parse().unwrap()]);
        assert!(read(&["--listen-tls", "127.0.0.1:465"]).is_ok());
    }

    #[test]
    fn an_address_stands_once() {
        assert_eq!(
            testing::blamed(read(&[
                "--listen",
                "127.0.0.1:25",
                "--listen",
                "127.0.0.1:25"
            ])),
            ["--listen"]
        );
        assert!(
            read(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]).is_ok(),
            "port 0 gives two ports"
        );
    }
}
