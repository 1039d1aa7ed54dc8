//! What a shard is told by the control thread and by the other shards.
//!
//! Every message says something complete and may arrive late, twice or not at all in the middle of a drain: a shard
//! acts on what it says now, never on the order in which things were said.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_smtp::extension::Capabilities;

use crate::policy::access::Access;
use crate::policy::budget::Owed;
use crate::policy::dnsbl::Standings;
use crate::policy::lore::Lore;
use crate::policy::news::News;
use crate::policy::relay::Relay;
use crate::route::Approach;
use crate::tls::{ServerTls, UpstreamTls};

use super::explain::Explain;
use super::proxied::HandOver;

/// One upstream as configured, with the addresses its name has now. Its place in the table is its number everywhere:
/// in logs, metrics and permits. A reload keeps the numbers of those that stay.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamSpec {
    /// As typed: HOST:PORT. Names it in logs and metrics.
    pub name: String,
    /// Share of the load against the others, at least 1.
    pub weight: u32,
    /// Connections over all shards; 0 lifts the limit.
    pub max: u32,
    /// Empty: not resolved yet, unknown, or taken out by a reload. Nothing is opened to it.
    pub addresses: Vec<SocketAddr>,
    /// None: in plaintext.
    pub tls: Option<UpstreamTls>,
}

/// A letter to one shard. Cheap to clone: control sends one to each.
#[derive(Clone)]
pub enum Mail {
    /// The whole table of upstreams: at start, after each resolution that changed something, and after a reload.
    Upstreams(Arc<[UpstreamSpec]>),
    /// New allow and deny lists.
    Access(Arc<Access>),
    /// New domains and networks that mail is relayed for.
    Relay(Arc<Relay>),
    /// New spamtraps, files of places and weights.
    Lore(Arc<Lore>),
    /// New certificates: the next handshake uses them.
    Tls(Arc<ServerTls>),
    /// Other servers to ask for names.
    Resolvers(Arc<[SocketAddr]>),
    /// Tell what is known of an address.
    Explain(Explain),
    /// No new sessions; transactions finish within `grace`, then the shard ends.
    Drain { grace: Duration },
    /// End at once.
    End,
    /// The shard that probes tells all (itself included) how an endpoint did.
    Probed {
        approach: Approach,
        result: Result<Capabilities, ProbeFailure>,
    },
    /// The shard that tests DNS lists tells all how one of them stands.
    ListTested { list: u16, standings: Standings },
    /// Another shard asks it to test a list before its time.
    ListDoubted { list: u16 },
    /// Another shard waits for a connection to this upstream: close an idle one, if there is one.
    Starving { upstream: u16 },
    /// A permit for this upstream came free while this shard was starving.
    PermitFree { upstream: u16 },
    /// A client that the reader owns, found by the shard its connection came to. To one shard only: it is taken out.
    HandOver(Arc<HandOver>),
    /// What another shard, another host, or weir before its last restart has learnt.
    News(Arc<[News]>),
    /// What clients have spent of their rates on all hosts.
    Owed(Arc<[Owed]>),
}

/// Why a probe failed; the word stands in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProbeFailure {
    Connect,
    Timeout,
    Closed,
    /// Not SMTP, or replies that fit no command.
    Protocol,
    /// A refusal in greeting or EHLO, or 421.
    Refused,
    /// No TLS, or none that convinces, where it is asked for.
    Tls,
}

impl ProbeFailure {
    pub fn word(self) -> &'static str {
        match self {
            ProbeFailure::Connect => "connect",
            ProbeFailure::Timeout => "timeout",
            ProbeFailure::Closed => "closed",
            ProbeFailure::Protocol => "protocol",
            ProbeFailure::Refused => "refused",
            ProbeFailure::Tls => "tls",
        }
    }
}

/// To whom a shard writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum To {
    Others,
    Shard(usize),
}
