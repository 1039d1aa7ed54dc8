//! What an upstream is: a number, and the addresses that its name stands for.
//!
//! Control resolves names and numbers the upstreams (the same number on all shards: global caps are counted by it); each shard turns
//! that plan into endpoints of its own, and keeps what it knows of an address that is still there after a new plan.

use std::net::SocketAddr;

pub use weir_smtp::gate::RouteId;
pub use weir_smtp::relay::UpstreamId;

use crate::tls::UpstreamTls;

/// The largest weight: shares stay distinguishable in integers.
pub const WEIGHT_MAX: u16 = 1000;

/// An upstream with its number and its addresses: what control tells the shards.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Planned {
    pub id: UpstreamId,
    /// The set it belongs to.
    pub route: RouteId,
    pub weight: u16,
    pub addresses: Vec<SocketAddr>,
    /// How it is spoken to; None: in plaintext.
    pub tls: Option<UpstreamTls>,
}
