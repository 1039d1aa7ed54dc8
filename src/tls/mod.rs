//! TLS on both legs: rustls driven by bytes in and bytes out; certificates, and what upstreams have to show.

use std::sync::Arc;

/// What clients shake hands with, the same on all shards. Replaced whole when a certificate changes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<rustls::ServerConfig>,
}
