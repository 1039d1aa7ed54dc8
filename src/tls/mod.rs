//! TLS on both legs: rustls driven by bytes in and bytes out; certificates, and what upstreams have to show.

pub mod connection;
#[cfg(test)]
pub mod testing;

use std::sync::Arc;

pub use connection::{Connection, Facts, Failure, Version};

/// What clients shake hands with, the same on all shards. Replaced whole when a certificate changes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<rustls::ServerConfig>,
}
