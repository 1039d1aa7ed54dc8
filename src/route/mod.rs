//! Upstream sets: what an upstream is ([`upstream`]), whether its addresses may be used ([`health`]), and which of them gets the next
//! transaction ([`choose`]). Pure state of one shard; connections, names and probes are other people's work.

#![forbid(unsafe_code)]

pub mod choose;
pub mod health;
pub mod identity;
pub mod upstream;

pub use choose::{Approach, Endpoint, EndpointId, Probed, Routes, Tried};
pub use health::Failure;
pub use identity::{Identity, Starttls};
pub use upstream::Planned;
