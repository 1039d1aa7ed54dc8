//! What peers are compared in: a table of workloads, and the plan that each makes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::plan::{Arrivals, Bodies, Pattern, Plan, Profile, Sources, Step, Stream};

/// How clients, peers and sink stand to each other. What runs in one needs peers started for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// All is plaintext.
    Plain,
    /// TLS from the first octet, which the peer ends; plaintext to the sink.
    Tls,
    /// Plaintext; a connection to the sink for every client, which the peer names in a PROXY header.
    Identity,
    /// The same, then TLS end to end by STARTTLS, whose octets the peer passes on.
    Tunnel,
}

impl Setting {
    pub const ALL: [Setting; 4] = [
        Setting::Plain,
        Setting::Tls,
        Setting::Identity,
        Setting::Tunnel,
    ];

    /// Whether the sink hears of the client by a PROXY header.
    pub fn is_named(self) -> bool {
        matches!(self, Setting::Identity | Setting::Tunnel)
    }
}

/// One row: a profile, a size, what a peer must offer, and the CPU per message weir wants to reach against others.
#[derive(Debug, PartialEq)]
pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    pub setting: Setting,
    pub profile: Profile,
    pub octets: u32,
    /// EHLO keyword without which the workload is another one.
    pub needs: Option<&'static str>,
    pub targets: &'static [(&'static str, f64)],
}

pub static WORKLOADS: &[Workload] = &[
    Workload {
        name: "new-4k",
        title: "new connection per message, 4 KiB",
        setting: Setting::Plain,
        profile: Profile::PerMessage,
        octets: 4096,
        needs: None,
        targets: &[("haproxy", 0.5), ("nginx-mail", 0.4)],
    },
    Workload {
        name: "persistent-4k",
        title: "persistent, 4 KiB",
        setting: Setting::Plain,
        profile: Profile::Persistent,
        octets: 4096,
        needs: None,
        targets: &[("haproxy", 0.7)],
    },
    Workload {
        name: "pipelined-4k",
        title: "pipelined client, 4 KiB",
        setting: Setting::Plain,
        profile: Profile::Pipelined,
        octets: 4096,
        needs: Some("PIPELINING"),
        targets: &[("haproxy", 0.5)],
    },
    Workload {
        name: "persistent-100k",
        title: "persistent, 100 KiB",
        setting: Setting::Plain,
        profile: Profile::Persistent,
        octets: 102_400,
        needs: None,
        targets: &[("haproxy", 0.7)],
    },
    Workload {
        name: "bdat-4k",
        title: "BDAT client, 4 KiB",
        setting: Setting::Plain,
        profile: Profile::Bdat,
        octets: 4096,
        needs: Some("CHUNKING"),
        targets: &[],
    },
    Workload {
        name: "tls-new-4k",
        title: "new TLS 1.3 connection per message, 4 KiB",
        setting: Setting::Tls,
        profile: Profile::PerMessage,
        octets: 4096,
        needs: None,
        targets: &[("haproxy", 0.7)],
    },
    Workload {
        name: "tls-persistent-4k",
        title: "persistent in TLS 1.3, 4 KiB",
        setting: Setting::Tls,
        profile: Profile::Persistent,
        octets: 4096,
        needs: None,
        targets: &[("haproxy", 0.8)],
    },
    Workload {
        name: "dedicated-4k",
        title: "persistent, a connection to the sink for each client with a PROXY header, 4 KiB",
        setting: Setting::Identity,
        profile: Profile::Persistent,
        octets: 4096,
        needs: None,
        targets: &[("haproxy", 1.0)],
    },
    Workload {
        name: "tunnel-1m",
        title: "TLS 1.3 end to end by STARTTLS, persistent, 1 MiB",
        setting: Setting::Tunnel,
        profile: Profile::Persistent,
        octets: 1 << 20,
        needs: None,
        targets: &[("haproxy", 0.9)],
    },
];

pub fn find(name: &str) -> Result<&'static Workload> {
    let found = WORKLOADS.iter().find(|workload| workload.name == name);
    found.with_context(|| {
        let known: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        format!(
            "no workload is called {name:?}; there are {}",
            known.join(", ")
        )
    })
}

/// How hard and how long: the same for every peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    pub sessions: u32,
    /// Starts per second of an open-loop plan; without it the sessions go round in a circle.
    pub rate: Option<f64>,
    pub lasts: Duration,
    pub starts_max: u64,
}

impl Workload {
    pub fn plan(&self, load: &Load, target: SocketAddr, ledger: SocketAddr, seed: u64) -> Plan {
        Plan {
            target,
            ledger: Some(ledger),
            lasts: load.lasts,
            warmup: Duration::ZERO,
            grace: Duration::from_secs(30),
            streams: vec![good_clients(self.profile, self.octets, load)],
            seed,
            // Marks the messages of this run alone: never 0, never twice in a life of the sink.
            run: fastrand::u64(1..),
            process: 0,
            tls: None,
        }
    }
}

/// Clients without fault, each session from an address of its own (limits per client are per address).
pub fn good_clients(profile: Profile, octets: u32, load: &Load) -> Stream {
    let arrivals = match load.rate {
        None => Arrivals::Closed {
            sessions: load.sessions,
        },
        Some(rate) => Arrivals::Open {
            pattern: Pattern::Poisson,
            steps: vec![Step {
                from: rate,
                to: rate,
                lasts: load.lasts,
            }],
        },
    };
    Stream {
        name: "good".to_owned(),
        profile,
        arrivals,
        starts_max: load.starts_max,
        open_max: OPEN_MAX,
        messages: u32::MAX,
        recipients: 1,
        bodies: Bodies::Sizes {
            weights: vec![(octets, 1)],
        },
        sources: Sources {
            first: IpAddr::V4(Ipv4Addr::new(127, 4, 0, 1)),
            count: load.sessions.max(1),
        },
        helo: "client.test".to_owned(),
        sender: "a@client.test".to_owned(),
        recipient: "b@weir.test".to_owned(),
        patience: Duration::from_secs(30),
    }
}

/// Sessions that may be open at once in an open-loop run: beyond, a peer does not carry the rate.
const OPEN_MAX: u32 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for workload in WORKLOADS {
            assert!(std::ptr::eq(find(workload.name).unwrap(), workload));
        }
        let error = find("imap").unwrap_err().to_string();
        assert!(error.contains("persistent-100k"), "{error}");
    }

    #[test]
    fn a_rate_makes_an_open_plan() {
        let load = Load {
            sessions: 50,
            rate: Some(200.0),
            lasts: Duration::from_secs(2),
            starts_max: 1_000,
        };
        let here = SocketAddr::from(([127, 0, 0, 1], 25));
        let plan = WORKLOADS[0].plan(&load, here, here, 7);
        assert_ne!(plan.run, 0);
        assert!(matches!(plan.streams[0].arrivals, Arrivals::Open { .. }));
        assert_eq!(plan.streams[0].sources.count, 50);
    }
}
