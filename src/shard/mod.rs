//! One core's world: sessions, upstream connections, timers, the pit.

pub mod clock;
pub mod config;
pub mod flights;
pub mod mail;
pub mod pit;
pub mod shared;
pub mod slab;
pub mod waiters;
pub mod wheel;
pub mod who;

pub use config::{ShardsConfig, Steer, WorldConfig};
pub use mail::{Mail, UpstreamSpec};
