//! weir: an SMTP proxy that passes sessions live to mail servers and keeps bad clients slow and cheap.

pub mod cli;
pub mod control;
pub mod demo;
pub mod maillog;
pub mod metrics;
pub mod net;
pub mod policy;
pub mod ring;
pub mod route;
pub mod rt;
pub mod shard;
