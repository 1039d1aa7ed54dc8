//! Decisions as pure state: facts and time in, verdicts out. No DNS, no sleep, no log, no clock.
//!
//! Reading order: [`finding`] (what is noticed and what may be done about it), [`actions`] (what is done), [`pipeline`] (the
//! order of checks, [`Policy`] itself), [`verdict`] (replies), then one file per check: [`access`], [`concurrency`], [`rate`], [`bytes`],
//! [`relay`], [`errors`], [`pace`]. What is found out about one client, by DNS lists ([`dnsbl`]) and [`names`] among others, is
//! its [`dossier`]; what that comes to is said by [`reputation`]. What is remembered of a client address is in [`clients`],
//! how it is treated for it in [`temper`], what of it `weir explain` tells in [`remembered`]; [`budget`] is what hosts hold it
//! to together. What networks have done is in [`memory`]: [`networks`], [`history`], [`greylist`] in tables of `book.rs`, and
//! [`news`] of it for the other shards; [`lore`] is what files say: [`spamtraps`], and the [`origin`] of an address.
//! [`overload`] is the ladder of a whole shard.
//!
//! A new check is a file with its `Config`, its state and its tests, a [`Finding`] with a row and replies, and a line in the pipeline.

#![forbid(unsafe_code)]

pub mod access;
pub mod actions;
mod book;
pub mod budget;
pub mod bytes;
mod client_key;
pub mod clients;
pub mod concurrency;
pub mod dnsbl;
pub mod dossier;
pub mod errors;
pub mod finding;
pub mod greylist;
pub mod history;
pub mod lore;
pub mod memory;
pub mod names;
pub mod networks;
pub mod news;
pub mod origin;
pub mod overload;
pub mod pace;
pub mod pipeline;
pub mod rate;
pub mod relay;
pub mod remembered;
pub mod reputation;
pub mod spamtraps;
pub mod temper;
pub mod verdict;

pub use actions::{Actions, On};
pub use finding::{Action, Finding, FindingSet};
pub use pipeline::{Admission, Config, Policy, Standing};
pub use temper::Temper;
pub use verdict::Ruling;
