//! Names and addresses: a stub resolver without a socket. Questions and datagrams in, answers and datagrams out.
//!
//! [`Name`] and [`Question`] are what is asked, [`Answer`] what came of it and how long that holds. Nothing here opens a
//! socket or reads a clock: a shard drives it with its own.

mod answer;
mod name;

pub use answer::{Answer, Failure, Outcome, Records};
pub use name::{Kind, Name, NameError, Question};
