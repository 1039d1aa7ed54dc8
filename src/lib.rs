//! weir: an SMTP proxy that passes sessions live to mail servers and keeps bad clients slow and cheap.
//!
//! The map of the house:
//!
//! ```text
//!   main       flags -> configuration -> launch -> wait -> drain -> exit code; no decisions
//!    |
//!   cli        what was typed, what it means (all errors at once), the plan, the doctor
//!   control    one thread: admin page, signals, reload, names of upstreams, news from shard to shard; mails the shards
//!   demo       an embedded mail sink, for the first minute
//!   state      what outlives a restart, in a file, and what hosts share, by a server
//!    |
//!   shard      one core's world: sessions, upstream connections, pool, timers, pit, inquiries, drain
//!    |
//!   policy     decisions as pure state: access, limits, rates, relay control, DNS lists, names, memory of networks,
//!              greylisting, what a finding and a score lead to
//!   route      upstream sets: choice, health, weights
//!   tls        a layer around the ring's sockets: handshakes, records; certificates and how they are read again
//!   metrics    one table of metrics, plain cells of each shard, merged at scrape
//!   maillog    one line per event, written by a thread of its own
//!   sandbox    what the process gives up once its ports are open
//!    |
//!   ring       the hot ring: sockets on io_uring behind a safe API
//!   rt         executors, placement, background tasks, mailboxes
//!   net        listeners, steering, socket options, limits of the process
//!   dns        a stub resolver without a socket
//!    |
//!   weir_smtp  the protocol core: bytes and time in, bytes and acts out; no sockets, no clock
//! ```
//!
//! Arrows point down only; tests/tidy.rs checks that. To read: `weir_smtp::relay` (what a session is), `weir_smtp::dedicated` (one
//! with an upstream connection of its own), `shard` (which file is what), `shard::world` (who is called for what), `ring::wire`
//! (what a shard asks of its network), `tls::layer` (what stands between them), `policy::pipeline` (what is decided where),
//! `shard::inquiry` (what is found out about a client, and what waits for it), `dns::stub` (how it is asked).
//! docs/ARCHITECTURE.md has the reasons.

pub mod cli;
pub mod control;
pub mod demo;
pub mod dns;
pub mod maillog;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod ring;
pub mod route;
pub mod rt;
pub mod sandbox;
pub mod shard;
pub mod state;
pub mod tls;
