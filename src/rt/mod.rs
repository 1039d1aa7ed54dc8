//! The executors that host the shards, their placement and their mailboxes.

mod flags;

pub use flags::executor_rings;
