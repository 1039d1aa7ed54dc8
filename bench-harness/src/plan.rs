//! What a run is to do: one [`Plan`] is handed, as JSON, to every process of the crew.
//!
//! A plan has streams, and streams run side by side: "2,000 messages a second of good clients while 60,000 bots are held" is two.
//! Nothing here reads a clock, a flag or a file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One run. Bounded: it ends after `lasts`, and no stream starts more than `starts_max` sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Where the mail goes.
    pub target: SocketAddr,
    /// The sink's control port, asked for its ledger at the end. Without it nothing is said about lost messages.
    pub ledger: Option<SocketAddr>,
    /// How long sessions are started. Sessions under way then may end, within `grace`.
    pub lasts: Duration,
    /// Starts of the first so-long are made but not counted in the histograms.
    pub warmup: Duration,
    /// How long the last sessions may take after `lasts`; what is still open then is cut and counted as unfinished.
    pub grace: Duration,
    pub streams: Vec<Stream>,
    /// Seed of everything random: arrivals, sizes, hang-ups.
    pub seed: u64,
    /// Marks the messages of this run for the sink. Never 0.
    pub run: u64,
    /// Which process of the crew this share is for: the second part of a message's id.
    pub process: u16,
    /// None: plaintext.
    #[serde(default)]
    pub tls: Option<Tls>,
}

/// How all clients of a plan speak TLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tls {
    pub way: Way,
    pub versions: Versions,
    /// Whether later connections resume the sessions of earlier ones.
    pub resumption: bool,
    pub trust: Trust,
    /// The name asked for, which the certificate has to have. An address is asked for by no client: then only the certificate is looked at.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// After EHLO (RFC 3207). Profiles that look at no reply never get there.
    Starttls,
    /// Before the greeting (RFC 8314).
    Implicit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versions {
    #[serde(rename = "any")]
    Any,
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whose certificates are good enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Those in this file, and those signed by them.
    Authority(PathBuf),
    Anybody,
}

/// Sessions of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Short name for reports: `good`, `bots`.
    pub name: String,
    pub profile: Profile,
    pub arrivals: Arrivals,
    /// Never more starts than this.
    pub starts_max: u64,
    /// Starts that find so many sessions of their stream open are dropped, and counted as dropped.
    pub open_max: u32,
    /// Messages a connection carries, for profiles that keep it.
    pub messages: u32,
    /// Recipients of a message.
    pub recipients: u32,
    pub bodies: Bodies,
    pub sources: Sources,
    /// HELO name, reverse-path and forward-path. `{}` in a path becomes the number of the start.
    pub helo: String,
    pub sender: String,
    pub recipient: String,
    /// How long one reply may take before the session is given up as timed out.
    pub patience: Duration,
}

/// How a session behaves. The latency of every stage is kept for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Profile {
    /// A connection for each message: greeting, EHLO, MAIL, RCPT, DATA, body, QUIT, each waiting for its reply.
    PerMessage,
    /// Connections are kept; a start is one transaction on an idle one, or on a new one where none is idle.
    Persistent,
    /// As `Persistent`, MAIL, RCPTs and DATA in one flight (RFC 2920).
    Pipelined,
    /// As `Pipelined`, the body as one BDAT LAST in the same flight (RFC 3030).
    Bdat,
    /// As `PerMessage`; the body goes out at so many octets a second.
    SlowBody { bytes_per_second: u32 },
    /// Talks before the greeting, then goes on as `PerMessage` and keeps listening as long as it is kept.
    Pregreet,
    /// Sends a command one octet at a time, one every `every`, for ever.
    SlowLoris { every: Duration },
    /// Connects, says EHLO where it is greeted, and stays silent.
    Idle,
    /// Connects and never says anything.
    Silent,
    /// Sends everything in one flight and looks at no reply; stays as long as it is kept.
    Spambot,
    /// As `PerMessage`, but resets the connection after a random octet of what it has to send.
    HangUp,
}

impl Profile {
    /// As in JSON and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Profile::PerMessage => "per-message",
            Profile::Persistent => "persistent",
            Profile::Pipelined => "pipelined",
            Profile::Bdat => "bdat",
            Profile::SlowBody { .. } => "slow-body",
            Profile::Pregreet => "pregreet",
            Profile::SlowLoris { .. } => "slow-loris",
            Profile::Idle => "idle",
            Profile::Silent => "silent",
            Profile::Spambot => "spambot",
            Profile::HangUp => "hang-up",
        }
    }

    /// Whether each session is about a message.
    pub fn sends(self) -> bool {
        !matches!(
            self,
            Profile::SlowLoris { .. } | Profile::Idle | Profile::Silent
        )
    }

    /// Held clients are opened once, up to their number, and kept; the others come and go.
    pub fn is_kept(self) -> bool {
        matches!(
            self,
            Profile::Pregreet
                | Profile::SlowLoris { .. }
                | Profile::Idle
                | Profile::Silent
                | Profile::Spambot
        )
    }
}

/// When sessions start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Arrivals {
    /// A plan made in advance: starts never wait for replies.
    Open { pattern: Pattern, steps: Vec<Step> },
    /// So many sessions in a circle: the next start of each is the end of its last. Says nothing about latency under a planned load.
    Closed { sessions: u32 },
    /// Opened at `per_second`, kept open, replaced when they are lost.
    Held { connections: u32, per_second: u32 },
}

/// How planned starts are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    Constant,
    Poisson,
}

/// A piece of the plan: from one rate to another, linearly. A constant rate has both equal.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Starts per second.
    pub from: f64,
    pub to: f64,
    pub lasts: Duration,
}

/// What the messages of a stream are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Bodies {
    /// Made text of these sizes in octets (header and id included), each with its weight.
    Sizes { weights: Vec<(u32, u32)> },
    /// Real messages, one file each (`*.eml`, or any file of a Maildir), or one mbox file, used in turn.
    Files { from: PathBuf },
}

/// Addresses clients come from: `count` following addresses from `first`, used in turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    pub first: IpAddr,
    pub count: u32,
}

impl Sources {
    /// The address of the client with this number. None: the kernel is to choose, since no particular one is named.
    pub fn address(&self, number: u64) -> Option<IpAddr> {
        if self.first.is_unspecified() {
            return None;
        }
        let offset = (number % u64::from(self.count.max(1))) as u32;
        Some(after(self.first, offset))
    }

    /// Its own addresses for each process, where there are enough.
    fn share(&self, index: u32, of: u32) -> Sources {
        if self.first.is_unspecified() || self.count < of {
            return *self;
        }
        let before: u64 = (0..index).map(|i| share_of(self.count.into(), i, of)).sum();
        Sources {
            first: after(self.first, before as u32),
            count: share_of(self.count.into(), index, of) as u32,
        }
    }
}

/// The address so many after `first`.
fn after(first: IpAddr, offset: u32) -> IpAddr {
    match first {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().wrapping_add(offset))),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(
            first.to_bits().wrapping_add(offset.into()),
        )),
    }
}

impl Plan {
    /// The share of process `index` of `of`: rates, sessions and numbers divided, seeds and source addresses its own.
    ///
    /// Shares add up to the whole: what does not divide goes to the first ones.
    pub fn share(&self, index: u32, of: u32) -> Plan {
        let mut plan = self.clone();
        plan.process = u16::try_from(index).expect("a crew has less than 65,536 processes");
        plan.seed = self
            .seed
            .wrapping_add(u64::from(index).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for stream in &mut plan.streams {
            stream.starts_max = share_of(stream.starts_max, index, of);
            stream.sources = stream.sources.share(index, of);
            stream.open_max = share_of(u64::from(stream.open_max), index, of) as u32;
            match &mut stream.arrivals {
                Arrivals::Open { steps, .. } => {
                    for step in steps {
                        step.from /= f64::from(of);
                        step.to /= f64::from(of);
                    }
                }
                Arrivals::Closed { sessions } => {
                    *sessions = share_of(u64::from(*sessions), index, of) as u32
                }
                Arrivals::Held {
                    connections,
                    per_second,
                } => {
                    *connections = share_of(u64::from(*connections), index, of) as u32;
                    *per_second = (*per_second).div_ceil(of);
                }
            }
        }
        plan
    }
}

fn share_of(whole: u64, index: u32, of: u32) -> u64 {
    whole / u64::from(of) + u64::from(u64::from(index) < whole % u64::from(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_shared_out_without_overlap() {
        let whole = Sources {
            first: "127.1.0.254".parse().unwrap(),
            count: 7,
        };
        let mut all: Vec<IpAddr> = Vec::new();
        for index in 0..3 {
            let share = whole.share(index, 3);
            all.extend((0..share.count).filter_map(|number| share.address(number.into())));
        }
        let want: Vec<IpAddr> = (0..7).filter_map(|number| whole.address(number)).collect();
        assert_eq!(all, want);
        assert_eq!(all[2], "127.1.1.0".parse::<IpAddr>().unwrap());
        assert_eq!(whole.share(5, 8), whole, "too few to share");
        let any = Sources {
            first: "0.0.0.0".parse().unwrap(),
            count: 1,
        };
        assert_eq!(any.address(3), None);
    }

    #[test]
    fn shares_add_up_to_the_whole() {
        for whole in [0, 1, 2, 7, 60_000] {
            for of in [1, 2, 3, 4, 7] {
                assert_eq!(
                    (0..of).map(|index| share_of(whole, index, of)).sum::<u64>(),
                    whole
                );
            }
        }
    }
}
