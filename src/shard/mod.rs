//! One core's world: sessions, upstream connections, timers, the pit.
//!
//! ```text
//!   the shard itself     world (who is called for what), launch (its loop), house, drain, mail, shared (what all have in common),
//!                        hearsay (what they learn from each other), config, clock, wheel, slab, who
//!   a client comes       arrivals, proxied (PROXY header, hand over to another shard), claimed (XCLIENT), introduction
//!                        (what they told of it), secure (into TLS)
//!   it is served         session (a step), socket, intake (its input), gates (policy's answers)
//!   it is made to wait   pit, parking (into a row and back), ahead, replies
//!   who is it?           inquiry (what is asked and what it comes to), lookups (who asks, and who is told), resolver (its
//!                        sockets), lists (tests of DNS lists), explain (what is told of an address)
//!   it leaves            departures (the books and the log), deeds (what its network is remembered for)
//!   upstreams            leg (one connection), secure_leg (its way into TLS), flights (its writes), probe (are they well?)
//!   ... shared           pool, permits, want, waiters, serving, streams, shortage; told (of whom they are told)
//!   ... one client's     dedicated, preface (whom it speaks for), destinations (hosts that clients choose), tunnel
//! ```
//!
//! Nearly all of them are parts of one `impl World`: a file is what somebody looks for, not a fence.

mod ahead;
mod arrivals;
mod claimed;
pub mod clock;
pub mod config;
mod dedicated;
mod deeds;
mod departures;
mod destinations;
mod drain;
pub mod explain;
pub mod flights;
mod gates;
mod hearsay;
mod house;
pub mod inquiry;
mod intake;
mod introduction;
mod launch;
mod leg;
mod lists;
pub mod lookups;
pub mod mail;
mod parking;
mod permits;
pub mod pit;
mod pool;
mod preface;
mod probe;
mod proxied;
pub mod replies;
mod resolver;
mod secure;
mod secure_leg;
mod serving;
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

pub use config::{Lists, ShardsConfig, WorldConfig};
pub use launch::{Mailer, Shards, Told, chance, launch};
pub use mail::{Mail, UpstreamSpec};
pub use world::{Setup, World};
