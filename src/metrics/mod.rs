//! One table of metrics, plain per-shard counters, merged at scrape.
//!
//! A shard owns one [`Counters`] and is its only writer, so a bump is a relaxed load and store (no locked instruction);
//! the control thread reads all of them when Prometheus asks. To add a metric: one row in `table.rs`, one bump in `shard`.

mod cell;
pub mod certificates;
pub mod expose;
pub mod state;
mod table;

pub use cell::{Counter, Dimension, Gauge, Histogram, Matrix, Names, Reading, Series, Vector};
pub use table::{
    Body, ClosedLeg, Counters, Ended, Greylisted, Handshake, Introduced, ListSays, Outcome, PitEnd,
    Probe, Refusal, ReplyClass, Row, ScoreRange, Spread, TABLE, TlsFailure, TlsLeg, UPSTREAMS_MAX,
    Waited, Way,
};
pub use table::{DnsAnswer, DnsOdd, DnsQuestion, DnsSocket, DnsWay};
