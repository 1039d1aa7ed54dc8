//! The protocol core of weir: SMTP machines without sockets, clock or runtime.
//!
//! ```text
//!   client bytes --> inbound --\                  /-- outbound --> upstream bytes
//!   client bytes <-------------- relay ---------- <-- outbound <-- upstream bytes
//!                     questions to policy: gate
//! ```
//!
//! Bytes, verdicts and `now` go in; bytes, acts and deadlines come out. That the crate is `no_std` is a fence: nobody can slip a socket or a
//! clock into it by accident.
//!
//! Reading order: `line`, `verb`, `command`, `path`, `param` (what a client says); `reply`, `texts`, `violation` (what it hears); `extension`
//! (what was agreed on); `pieces`, `body`, `held` (a message on its way); then the machines, `inbound`, `outbound`, `relay`, `dedicated`, with `envelope`,
//! `gate` and `starttls`; `xclient` and `received` (what servers tell each other of a client). `limits` says how much of anything, `stats` counts. `naive` is the slow twin of `body`, for tests and fuzzing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod body;
pub mod command;
mod decimal;
pub mod dedicated;
pub mod dialogue;
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
pub mod received;
pub mod relay;
pub mod reply;
pub mod starttls;
pub mod stats;
pub mod texts;
pub mod time;
pub mod verb;
pub mod violation;
pub mod xclient;
