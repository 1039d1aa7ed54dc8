//! What the shards are told at start. Filled by main from the flags; every part belongs to the module that uses it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use weir_smtp::extension::OwnLimits;
use weir_smtp::relay;

use crate::dns;
use crate::net::Service;
use crate::policy;
use crate::policy::access::{Access, Networks};
use crate::ring::RingConfig;
use crate::route::{Identity, Starttls};
use crate::tls::ServerTls;

use super::clock::Clock;
use super::mail::UpstreamSpec;
use super::pit;

/// All of it.
#[derive(Clone)]
pub struct ShardsConfig {
    pub shards: usize,
    /// The cores to pin to, in turn: shard n runs on `cores[n % cores.len()]`.
    pub cores: Vec<usize>,
    /// Whether a shard lets others on its core finish before it runs.
    pub gives_way: bool,
    /// How long a shard looks for events before it sleeps; zero: not at all. Needs a ring that shows news.
    pub busy_wait: Duration,
    pub ring: RingConfig,
    /// Clients over all shards; 0: as many as the tables of open files hold.
    pub connections_max: u32,
    pub world: WorldConfig,
    /// The table of upstreams, with the addresses known by now; the rest comes by mail.
    pub upstreams: Arc<[UpstreamSpec]>,
    pub clock: Clock,
}

/// What shards look clients and envelopes up in from the start; replaced by mail.
#[derive(Clone)]
pub struct Lists {
    pub access: Arc<Access>,
    pub relay: Arc<policy::relay::Relay>,
    pub lore: Arc<policy::lore::Lore>,
}

/// What one world goes by; the same for all.
#[derive(Clone)]
pub struct WorldConfig {
    /// Said in EHLO to upstreams.
    pub hostname: Arc<[u8]>,
    /// The machine between client and upstream: names, limits of messages, timeouts.
    pub smtp: relay::Config,
    /// What each listener is for, by its number.
    pub services: Arc<[Service]>,
    /// The clients' side of TLS as it is at the start; None: no certificate, and no listener that needs one.
    pub tls: Option<Arc<ServerTls>>,
    /// What mail servers are told of clients.
    pub identity: Identity,
    /// Upstream connections that serve one client only.
    pub dedicated: DedicatedConfig,
    /// Peers that speak for others.
    pub proxied: ProxiedConfig,
    /// Octets of a body that are held before it streams.
    pub hold_max: u64,
    /// Percent of the pool's connections that one client's streams may hold; 0 lifts the limit.
    pub stream_share: u32,
    /// Sockets of a shard, of which so many are kept from clients, and copy buffers: what its load is measured against.
    pub slots: u32,
    pub reserve: u32,
    pub chunks_max: u32,
    pub policy: Arc<policy::Config>,
    pub health: crate::route::health::Config,
    pub overload: policy::overload::Config,
    /// The clients' side.
    pub session: SessionConfig,
    /// Connections to upstreams.
    pub leg: LegConfig,
    pub wait: WaitConfig,
    pub pit: PitConfig,
    pub probe: ProbeConfig,
    /// Whom to ask for names, and what to remember.
    pub resolver: dns::Config,
}

impl WorldConfig {
    /// Sockets that clients may take.
    pub fn client_slots(&self) -> u32 {
        self.slots - self.reserve
    }

    /// Each client has an upstream connection of its own.
    pub fn is_dedicated(&self) -> bool {
        self.identity.is_dedicated() || self.services.iter().any(|one| one.intercept.is_some())
    }

    /// Whether mail servers are asked if they relay for weir's address.
    pub fn tests_relaying(&self) -> bool {
        self.probe.relay_test && !self.identity.is_dedicated()
    }

    /// What weir itself announces and holds to.
    pub fn own_limits(&self) -> OwnLimits {
        OwnLimits {
            message_size_max: self.smtp.message_size_max,
            recipients_max: self.smtp.recipients_max,
            messages_max: self.smtp.messages_max,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct SessionConfig {
    /// Time between the first line of the greeting (`220-`) and its last, in which a client must not speak. Zero: no wait.
    pub greet_wait: Duration,
    /// Under stress (the first rung of the overload ladder) the greet wait is cut to this.
    pub greet_wait_stressed: Duration,
}

/// The queue of sessions that wait for an upstream connection.
#[derive(Clone, Copy, Debug)]
pub struct WaitConfig {
    /// How long a session waits before 451.
    pub time: Duration,
    /// Sessions of one shard that may wait at a time: 16 bytes each.
    pub max: usize,
}

impl Default for WaitConfig {
    fn default() -> WaitConfig {
        WaitConfig {
            time: Duration::from_secs(30),
            max: 10_000,
        }
    }
}

/// The pit of one shard.
#[derive(Clone, Copy, Debug)]
pub struct PitConfig {
    /// Parked clients: `pit::ROW_BYTES` and a timer each.
    pub rows_max: u32,
    pub overflow: pit::Overflow,
    /// Of these, with TLS: some 4 KiB more each.
    pub secure_max: u32,
}

impl Default for PitConfig {
    fn default() -> PitConfig {
        PitConfig {
            rows_max: 50_000,
            overflow: pit::Overflow::default(),
            secure_max: 10_000,
        }
    }
}

/// What the connections to upstreams keep to.
#[derive(Clone, Copy, Debug)]
pub struct LegConfig {
    /// For the TCP connection.
    pub connect: Duration,
    /// For greeting and EHLO together.
    pub handshake: Duration,
    /// For the 250 to a RSET.
    pub reset: Duration,
    /// For the 221 to a QUIT, of a connection that nobody needs any more.
    pub quit: Duration,
    /// A connection is not used again when it is this old: servers close sessions after some 20 minutes.
    pub age_max: Duration,
    /// Transactions on one connection; 0 lifts the limit.
    pub uses_max: u32,
    /// An idle connection is closed after this.
    pub idle_max: Duration,
    /// 4xx and 5xx replies since the last accepted message, before a connection is retired: one client's errors must
    /// not run into the server's error limits for the next.
    pub failures_max: u16,
}

impl Default for LegConfig {
    fn default() -> LegConfig {
        LegConfig {
            connect: Duration::from_secs(30),
            handshake: Duration::from_secs(60),
            reset: Duration::from_secs(5),
            quit: Duration::from_secs(5),
            age_max: Duration::from_secs(600),
            uses_max: 100,
            idle_max: Duration::from_secs(60),
            failures_max: 5,
        }
    }
}

/// Upstream connections that serve one client only.
#[derive(Clone, Debug, Default)]
pub struct DedicatedConfig {
    /// What becomes of STARTTLS; None: what the listener's TLS says.
    pub starttls: Option<Starttls>,
    /// SO_MARK of upstream connections; 0: none.
    pub mark: u32,
    /// Addresses of this host.
    pub addresses: Arc<[IpAddr]>,
    /// Where weir listens, every address of a host that it listens on included.
    pub own: Arc<[SocketAddr]>,
    /// The listeners' addresses, by number.
    pub listeners: Arc<[SocketAddr]>,
}

/// Peers that speak for others.
#[derive(Clone)]
pub struct ProxiedConfig {
    /// Who is believed.
    pub trust: Arc<Networks<()>>,
    /// How long the header may take.
    pub wait: Duration,
    /// So many shards share the clients by address; 1: each keeps those that come to it.
    pub owners: usize,
}

impl Default for ProxiedConfig {
    fn default() -> ProxiedConfig {
        ProxiedConfig {
            trust: Arc::default(),
            wait: Duration::from_secs(5),
            owners: 1,
        }
    }
}

/// Health probes. One shard does them for all.
#[derive(Clone, Copy, Debug)]
pub struct ProbeConfig {
    /// Between two probes of an endpoint; zero: only at start and after a change of the table.
    pub interval: Duration,
    /// At start, also ask each endpoint whether it would relay for the world (MAIL, RCPT to a foreign domain, RSET).
    pub relay_test: bool,
}

impl Default for ProbeConfig {
    fn default() -> ProbeConfig {
        ProbeConfig {
            interval: Duration::from_secs(10),
            relay_test: true,
        }
    }
}
