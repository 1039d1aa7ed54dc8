//! Names and addresses: a stub resolver without a socket. Questions and datagrams in, answers and datagrams out.
//!
//! [`Name`] and [`Question`] are what is asked, [`Answer`] what came of it and how long that holds. Nothing here opens a
//! socket, reads a clock or draws a number: a shard drives [`Stub`] with its own. No recursion, no validation of
//! signatures: that is the work of the resolvers it asks, which are best close by.
//!
//! ```text
//!   stub       one question's life, and how it is driven
//!    |
//!   flights    the questions that are open, and what was sent for each
//!   ports      sockets for datagrams: few, short-lived, drawn by lot
//!   streams    one TCP connection for each server, for what datagrams cannot carry
//!   servers    who is asked first, who is silent
//!   cache      what is known, until when
//!    |
//!   query      a question as octets, and whether a reply repeats it
//!   reply      octets as an answer
//!   name, answer, config, stats
//! ```
#![forbid(unsafe_code)]

mod answer;
mod cache;
mod config;
mod flights;
#[cfg(any(test, fuzzing))]
pub mod naive;
mod name;
mod ports;
mod query;
mod reply;
mod servers;
mod stats;
mod streams;
mod stub;
#[cfg(test)]
mod testing;

pub use answer::{Answer, Failure, Outcome, Records};
pub use config::{Config, SERVERS_MAX};
pub use name::{Kind, Name, NameError, Question};
pub use ports::PortId;
pub use reply::RECORDS_MAX;
pub use servers::ServerState;
pub use stats::Stats;
pub use streams::StreamId;
pub use stub::{Act, Chance, Stub};
