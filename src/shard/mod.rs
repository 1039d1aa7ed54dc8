//! One core's world: sessions, upstream connections, timers, the pit.

mod ahead;
mod arrivals;
mod claimed;
pub mod clock;
pub mod config;
mod dedicated;
mod departures;
mod destinations;
mod drain;
pub mod flights;
mod gates;
mod house;
mod intake;
mod introduction;
mod launch;
mod leg;
pub mod mail;
mod parking;
pub mod pit;
mod pool;
mod preface;
mod probe;
mod proxied;
pub mod replies;
mod secure;
mod secure_leg;
mod session;
pub mod shared;
mod shortage;
pub mod slab;
mod socket;
mod streams;
mod told;
mod tunnel;
pub mod waiters;
mod want;
pub mod wheel;
pub mod who;
mod world;

#[cfg(test)]
mod tests;

pub use config::{ShardsConfig, WorldConfig};
pub use launch::{Mailer, Shards, launch};
pub use mail::{Mail, UpstreamSpec};
pub use world::{Setup, World};
