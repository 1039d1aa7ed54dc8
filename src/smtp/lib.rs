//! The protocol core of weir: SMTP machines without sockets, clock or runtime.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod body;
pub mod command;
pub mod envelope;
pub mod extension;
pub mod gate;
pub mod held;
pub mod inbound;
pub mod limits;
pub mod line;
#[cfg(any(test, fuzzing))]
pub mod naive;
pub mod outbound;
pub mod param;
pub mod path;
pub mod pieces;
pub mod relay;
pub mod reply;
pub mod stats;
pub mod texts;
pub mod time;
pub mod verb;
pub mod violation;
