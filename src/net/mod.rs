//! What a socket is before it is on the ring: listeners, their options, and the steering of clients to shards.

mod addresses;
mod limits;
mod listener;
mod options;
mod prefix;
pub mod proxy;
mod proxy_header;
mod service;
mod steering;

pub use addresses::own_addresses;
pub use limits::{Bounds, Limit};
pub use listener::{
    CloseTogether, ListenerConfig, ListenerGroup, may_take_for_others, with_remedy,
};
pub use options::SocketOptions;
pub use prefix::{ClientPrefix, Network};
pub use proxy_header::{ProxyVersion, Spoken, write_proxy};
pub use service::{ClientTls, Intercept, Service};
pub use steering::{Steer, shard_of};
