//! The log: one function per event, fixed words, peer bytes escaped and cut. Never makes a shard wait.
//!
//! ```text
//!  shard 0: LogBuffer --append--> [shelf a] [shelf b] <--swap-- writer thread --write--> stderr or --log-file
//!  shard 1: LogBuffer --append--> [shelf a] [shelf b] <--swap--'
//!  log::warn! (any thread)        [shelves ...      ] <--swap--'
//! ```
//! A line is formatted straight into a *shelf*, a byte vector behind a mutex that is only ever tried, not waited for. The writer
//! holds one shelf at a time, and only to swap the vector for an empty one, so of two shelves one is always free, and the
//! vectors with their capacities go round: no allocation per line. A full shelf means the reader of the log is slow: the line is
//! dropped, counted, and the gap is noted in the log itself. The writer wakes at most a hundred times a second under load
//! (shards pay no futex call then) and sleeps when there is nothing to write.
//!
//! Left out: rotation (SIGHUP reopens the file, so logrotate does it), syslog (stderr under systemd goes to the journal).

mod line;
mod operation;
mod shelf;
mod writer;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use weir_smtp::time::Moment;

pub use self::line::{Format, Value};
pub use self::shelf::PENDING_MAX;
pub use self::writer::{Config, Logs, Writer};

use self::{line::Line, shelf::Shelves};
use crate::metrics::{Body, Counters, Ended, Outcome};
use crate::policy::FindingSet;

/// Recipients named in a transaction's line; of more only the number is told.
pub const RECIPIENTS_LOGGED: usize = 16;

/// One shard's way into the log.
pub struct LogBuffer {
    shelves: Arc<Shelves>,
    counters: Arc<Counters>,
    /// Wall clock, in microseconds since 1970, at `Moment::ZERO`; kept current by the writer.
    wall_at_zero: Arc<AtomicU64>,
    format: Format,
    shard: usize,
    /// Lines dropped since the last one that was written.
    lost: u64,
}

/// Who told of a client, if it came through a trusted peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told<'a> {
    pub by: Option<SocketAddr>,
    /// What the peer calls the connection, or empty.
    pub id: &'a [u8],
}

impl Told<'_> {
    fn write(&self, line: &mut Line<'_>) {
        if let Some(by) = self.by {
            line.address("by", by);
        }
        line.bytes_if("by_id", self.id);
    }
}

/// A session that ended.
#[derive(Clone, Debug)]
pub struct SessionRecord<'a> {
    pub at: Moment,
    /// Unique on its shard for the life of the process.
    pub session: u64,
    pub client: SocketAddr,
    pub told: Told<'a>,
    pub helo: &'a [u8],
    pub ended: Ended,
    /// Word of the finding or violation that ended it, or empty.
    pub why: &'static str,
    /// The last reply the client was sent, or empty.
    pub reply: &'a [u8],
    pub lasted: Duration,
    /// Of `lasted`, the time spent in the pit.
    pub parked: Duration,
    pub transactions: u32,
    pub accepted: u32,
    pub deferred: u32,
    pub rejected: u32,
    /// 4xx and 5xx replies to commands.
    pub errors: u32,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub tls: Option<TlsWords>,
    pub findings: Option<Weighed>,
}

/// What was found of a client that was inquired of, and what that sums up to.
#[derive(Clone, Copy, Debug)]
pub struct Weighed {
    pub findings: FindingSet,
    pub score: Option<i32>,
}

impl Weighed {
    fn write(this: Option<Weighed>, line: &mut Line<'_>) {
        let Some(weighed) = this.filter(|weighed| !weighed.findings.is_empty()) else {
            return;
        };
        let words = weighed.findings.iter().map(|finding| finding.word());
        line.words("findings", words);
        if let Some(score) = weighed.score {
            line.signed("score", score.into());
        }
    }
}

/// How a client was inside TLS.
#[derive(Clone, Copy, Debug)]
pub struct TlsWords {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    pub suite: &'static str,
    pub resumed: bool,
    /// `trusted` or `untrusted`; empty: the client has shown none.
    pub certificate: &'static str,
}

/// A transaction that ended: with a final reply, or abandoned.
#[derive(Clone, Debug)]
pub struct TransactionRecord<'a> {
    pub at: Moment,
    pub session: u64,
    /// From 1, within the session.
    pub transaction: u32,
    pub client: SocketAddr,
    pub told: Told<'a>,
    pub helo: &'a [u8],
    /// The reverse-path without its angle brackets; empty: the null sender.
    pub sender: &'a [u8],
    /// RCPT commands, accepted or not.
    pub recipients: u32,
    pub recipients_accepted: u32,
    /// Content bytes seen.
    pub size: u64,
    /// HOST:PORT as configured, or empty: none was attached.
    pub upstream: &'a str,
    /// `1.2` or `1.3`, or empty: in plaintext.
    pub upstream_tls: &'static str,
    pub outcome: Outcome,
    /// The reply the client heard last in this transaction, or empty.
    pub reply: &'a [u8],
    /// Word of the finding, violation or failure behind the outcome, or empty.
    pub why: &'static str,
    /// None: no body was begun.
    pub body: Option<Body>,
    /// From MAIL to the end.
    pub lasted: Duration,
    /// Waiting for an upstream connection.
    pub queue_wait: Duration,
    /// From the 354, or the first BDAT, to the end of data.
    pub data: Duration,
    /// From the end of data to the final reply.
    pub answer: Duration,
    pub tls: Option<TlsWords>,
    pub findings: Option<Weighed>,
}

/// A check that found something.
#[derive(Clone, Debug)]
pub struct FindingRecord<'a> {
    pub at: Moment,
    pub session: u64,
    pub client: SocketAddr,
    pub finding: &'static str,
    pub action: &'static str,
    /// The command or stage it came at: `connect`, `mail`, ...
    pub stage: &'static str,
    /// How long after the session's start.
    pub after: Duration,
    /// The reason, where a finding can have several, or empty.
    pub why: &'static str,
    /// What it adds to the score. 0: not told.
    pub weight: i16,
    /// The score now, of a client that is inquired of.
    pub score: Option<i32>,
    /// Which list, network or country it was, or empty.
    pub detail: &'a str,
}

impl LogBuffer {
    pub fn session(&mut self, r: &SessionRecord<'_>) {
        self.write(r.at, "session", |line| {
            line.session(r.session);
            line.address("client", r.client);
            r.told.write(line);
            line.bytes("helo", r.helo);
            line.word("ended", r.ended.word());
            line.word_if("why", r.why);
            Weighed::write(r.findings, line);
            line.bytes_if("reply", last_line(r.reply));
            line.seconds("lasted", r.lasted);
            line.seconds_if("parked", r.parked);
            line.number("transactions", r.transactions.into());
            line.number("accepted", r.accepted.into());
            line.number_if("deferred", r.deferred.into());
            line.number_if("rejected", r.rejected.into());
            line.number_if("errors", r.errors.into());
            line.number("in", r.bytes_in);
            line.number("out", r.bytes_out);
            line.tls(r.tls);
        });
    }

    /// `recipients`: the forward-paths without angle brackets, in order; the first [`RECIPIENTS_LOGGED`] are written.
    pub fn transaction<'a>(
        &mut self,
        r: &TransactionRecord<'_>,
        recipients: impl Iterator<Item = &'a [u8]>,
    ) {
        self.write(r.at, "transaction", |line| {
            line.session(r.session);
            line.number("transaction", r.transaction.into());
            line.address("client", r.client);
            r.told.write(line);
            line.bytes("helo", r.helo);
            line.bytes("sender", r.sender);
            line.number("recipients", r.recipients.into());
            line.number("recipients_accepted", r.recipients_accepted.into());
            line.list("to", recipients.take(RECIPIENTS_LOGGED));
            line.number("size", r.size);
            line.bytes_if("upstream", r.upstream.as_bytes());
            line.word_if("upstream_tls", r.upstream_tls);
            line.word("outcome", r.outcome.word());
            line.word_if("why", r.why);
            Weighed::write(r.findings, line);
            line.bytes_if("reply", last_line(r.reply));
            line.word_if("body", r.body.map_or("", Body::word));
            line.seconds("lasted", r.lasted);
            line.seconds("queue_wait", r.queue_wait);
            line.seconds("data", r.data);
            line.seconds("answer", r.answer);
            line.tls(r.tls);
        });
    }

    pub fn finding(&mut self, r: &FindingRecord<'_>) {
        self.write(r.at, "finding", |line| {
            line.session(r.session);
            line.address("client", r.client);
            line.word("finding", r.finding);
            line.word("action", r.action);
            line.word("stage", r.stage);
            line.seconds("after", r.after);
            line.word_if("why", r.why);
            line.bytes_if("detail", r.detail.as_bytes());
            line.signed_if("weight", r.weight.into());
            if let Some(score) = r.score {
                line.signed("score", score.into());
            }
        });
    }

    /// Anything rarer: an upstream ejected, a step of the overload ladder, a defect caught. `event` and the keys are fixed words.
    pub fn event(&mut self, at: Moment, event: &'static str, fields: &[(&'static str, Value<'_>)]) {
        self.write(at, event, |line| {
            fields
                .iter()
                .for_each(|(key, value)| line.value(key, value))
        });
    }

    /// What clocks on walls show at that moment: seconds since 1970.
    pub fn wall_seconds(&self, at: Moment) -> u64 {
        self.wall(at) / 1_000_000
    }

    /// The same in microseconds.
    fn wall(&self, at: Moment) -> u64 {
        self.wall_at_zero
            .load(Relaxed)
            .saturating_add(at.as_micros())
    }

    fn write(&mut self, at: Moment, event: &'static str, fields: impl FnOnce(&mut Line<'_>)) {
        let wall = self.wall(at);
        let Some(mut pending) = self.shelves.open() else {
            self.lost += 1;
            self.counters.log_lines_dropped.inc();
            return;
        };
        if self.lost > 0 {
            let mut line =
                Line::begin(&mut pending, self.format, wall, "log_gap", Some(self.shard));
            line.number("dropped", std::mem::take(&mut self.lost));
            line.end();
        }
        let mut line = Line::begin(&mut pending, self.format, wall, event, Some(self.shard));
        fields(&mut line);
        line.end();
        drop(pending);
        self.counters.log_lines.inc();
        self.shelves.filled();
    }
}

/// A reply of several lines is logged by its last one, which every reply has; its end of line is not.
fn last_line(reply: &[u8]) -> &[u8] {
    let reply = reply.strip_suffix(b"\n").unwrap_or(reply);
    let reply = reply.strip_suffix(b"\r").unwrap_or(reply);
    match memchr::memrchr(b'\n', reply) {
        Some(at) => &reply[at + 1..],
        None => reply,
    }
}

#[cfg(test)]
mod tests;
