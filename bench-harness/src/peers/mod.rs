//! weir beside its peers: HAProxy, nginx and Postfix as they are in Debian, each with a configuration kept in bench-harness/peers/,
//! all in front of our own sink, all given the same plan, in rounds that take turns.
//!
//! CPU per message is user plus system time of all processes of a peer over the messages accepted. It does not show what the kernel
//! does in softirq on behalf of whoever was running, and source and sink compete for the same cores.
//!
//! Reading order: `workload` (what), `kind` (who), `rounds` (how), `medians` and `table` (what came of it); `child`, `folder`,
//! `template`, `tree`, `offers` are tools.

pub mod child;
mod config;
pub mod folder;
pub mod kind;
pub mod medians;
pub mod offers;
pub mod sink;
pub mod table;
mod template;
pub mod tree;
pub mod weir;
pub mod workload;
