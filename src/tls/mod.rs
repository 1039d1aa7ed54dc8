//! TLS on both legs: rustls driven by bytes in and bytes out; certificates, and what upstreams have to show.
//!
//! Files are read by the control thread and at the start only: [`server`] and [`client`] make of them what shards shake hands
//! with, which is replaced whole when a file changes. [`connection`] is one handshake and what comes after it, [`layer`] joins it to the network.

pub mod certificates;
pub mod client;
pub mod connection;
pub mod facts;
pub mod failure;
pub mod files;
#[cfg(test)]
pub mod fixtures;
pub mod layer;
mod lenient;
pub mod material;
mod pinned;
mod provider;
mod resolver;
pub mod server;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tickets;
mod validity;

pub use certificates::{Certificate, Pair, Standing};
pub use client::{UpstreamFiles, UpstreamMode, UpstreamSettings, UpstreamTls, UpstreamWish};
pub use connection::Connection;
pub use facts::{Facts, Shown, Version};
pub use failure::Failure;
pub use files::FileFault;
pub use layer::{Begin, Layer};
pub use material::{Changed, Material, Settings};
pub use provider::{Oldest, provider};
pub use server::{ClientCertificates, ServerFiles, ServerSettings, ServerTls};
pub use tickets::TicketKeys;
