//! weir-bench: an SMTP load harness that is open-loop, free of coordinated omission, and able to act as thousands of bad clients.
//!
//! ```text
//!            plan ──> crew (processes) ──> source (sessions of every profile) ──SMTP──> proxy ──SMTP──> sink
//!                       │                                                                               │
//!   outcome <── merge ──┘<───────────── what was sent, id by id ── ledger ── what arrived, id by id ────┘
//!      │
//!      └──> report (HTML, .hgrm, JSON) · compare · verdict (--fail-if)
//! ```
//!
//! Sessions are scheduled, not commands: every latency is counted from the moment the plan says its session starts, and beside it
//! stands the service time, counted from the step before (HdrHistogram#148 has the argument for chains of dependent steps).
//! A rate is printed only after the sink has been asked what arrived.
//!
//! Reading order: `plan` (what is to be done), `outcome` (what was seen), `ledger` (what was sent and what arrived), then `source`,
//! `sink`, `hold`, `peers`, `report`. Modules use those of lower floors only; the floors are in weir's tests/tidy.rs. Nothing of weir itself
//! is used but its protocol core, `weir_smtp`.
// System calls without a safe wrapper are in `sys`.
#![deny(unsafe_code)]

pub mod cli;
pub mod crew;
pub mod exit;
pub mod figures;
pub mod grammar;
pub mod hold;
pub mod ledger;
pub mod machine;
pub mod medians;
pub mod outcome;
pub mod peers;
pub mod plan;
pub mod proc;
pub mod progress;
pub mod rails;
pub mod report;
pub mod sink;
pub mod source;
pub mod summary;
pub mod sys;
pub mod tls;
pub mod units;
pub mod verdict;
