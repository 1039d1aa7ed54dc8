//! What the admin page shows: metrics, readiness, and the status as JSON. Everything is read from the shards' counters, so that
//! looking costs the shards nothing.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use serde::Serialize;

use super::{About, ToAll, exchange::Views, explain, process};
use crate::maillog::Logs;
use crate::metrics::{
    Counters, ListSays, Names, Outcome,
    certificates::{self, Certificates},
    expose::{self, Process},
    state,
};
use crate::policy::dnsbl::Standing;
use crate::policy::{Action, Finding};
use crate::shard::UpstreamSpec;
use crate::state::{SharingView, View};

/// How long readiness waits for the first probes: until then EHLO announces less than the upstreams offer.
const FIRST_PROBES: Duration = Duration::from_secs(5);

/// Shared by the control loop (which writes) and the admin page (which reads).
pub struct State {
    about: About,
    counters: Vec<Arc<Counters>>,
    logs: Logs,
    upstreams: Mutex<Arc<[UpstreamSpec]>>,
    certificates: Mutex<Certificates>,
    /// The file and the server of --state.
    lasting: Views,
    mail: ToAll,
    draining: AtomicBool,
    started: Instant,
    started_at: f64,
}

impl State {
    pub fn new(
        about: About,
        counters: Vec<Arc<Counters>>,
        logs: Logs,
        upstreams: Arc<[UpstreamSpec]>,
        lasting: Views,
        mail: ToAll,
    ) -> Self {
        Self {
            about,
            counters,
            logs,
            upstreams: Mutex::new(upstreams),
            certificates: Mutex::default(),
            lasting,
            mail,
            draining: AtomicBool::new(false),
            started: Instant::now(),
            started_at: process::seconds_since_1970(),
        }
    }

    pub fn set_upstreams(&self, table: Arc<[UpstreamSpec]>) {
        *self
            .upstreams
            .lock()
            .expect("no panic while the table is held") = table;
    }

    pub fn set_certificates(&self, certificates: Certificates) {
        *self.certificates() = certificates;
    }

    fn certificates(&self) -> MutexGuard<'_, Certificates> {
        let held = self.certificates.lock();
        held.expect("no panic while the certificates are held")
    }

    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Why no mail should be sent here now; None: it should.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Relaxed) {
            return Some("draining");
        }
        let starting = self.started.elapsed() < FIRST_PROBES;
        if starting && self.sum(|counters| counters.upstream_unheard.value()) > 0 {
            return Some("the first probes are under way");
        }
        // the news of the first probes is on every shard, or later at least on one
        let shards = if starting {
            self.counters.len() as u64
        } else {
            1
        };
        let upstreams = self.upstreams();
        let up = (0..upstreams.len()).any(|upstream| self.shards_up(upstream) >= shards);
        (!up).then_some("no upstream is up")
    }

    pub fn metrics(&self) -> String {
        let names = Names {
            findings: Finding::all().map(Finding::word).collect(),
            actions: Action::ALL.iter().map(|action| action.word()).collect(),
            violations: weir_smtp::violation::Violation::ALL
                .iter()
                .map(|violation| violation.word())
                .collect(),
            upstreams: self
                .upstreams()
                .iter()
                .map(|upstream| upstream.name.clone())
                .collect(),
            lists: self.about.lists.clone(),
        };
        let mut out = expose::render(self.counters.iter().map(Arc::as_ref), &names);
        certificates::render(&mut out, &self.certificates());
        let Views { file, shared } = &self.lasting;
        let (file, shared) = (file.as_ref(), shared.as_ref());
        state::render(
            &mut out,
            file.map(View::readings),
            shared.map(SharingView::readings),
        );
        expose::render_process(
            &mut out,
            &Process {
                started_at: self.started_at,
                cpu_seconds: process::cpu_seconds(),
                resident_bytes: process::resident_bytes(),
                open_files: process::open_files(),
                log_errors: self.logs.errors(),
            },
        );
        out
    }

    /// Asks the shards about an address; None: none has answered.
    pub async fn explain(&self, ip: IpAddr) -> Option<String> {
        explain::explain(ip, self.counters.len(), &self.mail).await
    }

    pub fn status(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.snapshot())
            .expect("a status has no maps with odd keys");
        text.push('\n');
        text
    }

    fn snapshot(&self) -> Status {
        let upstreams = self.upstreams();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            mode: self.about.mode,
            hostname: self.about.hostname.clone(),
            listen: self.about.listen.iter().map(ToString::to_string).collect(),
            state: if self.draining.load(Relaxed) {
                "draining"
            } else {
                "running"
            },
            ready: self.not_ready().is_none(),
            not_ready: self.not_ready(),
            totals: self.totals(),
            shards: self
                .counters
                .iter()
                .enumerate()
                .map(|(shard, counters)| Shard::of(shard, counters))
                .collect(),
            upstreams: upstreams
                .iter()
                .enumerate()
                .map(|(index, spec)| self.upstream(index, spec))
                .collect(),
            lists: (self.about.lists.iter().enumerate())
                .map(|(index, name)| self.list(index, name))
                .collect(),
            certificates: (self.certificates().ends.iter())
                .map(|(file, end)| Certificate::of(file, *end))
                .collect(),
        }
    }

    fn totals(&self) -> Totals {
        let outcome = |outcome| self.sum(|c| c.messages.at(outcome).value());
        Totals {
            sessions: self.sum(|c| c.sessions_active.value()),
            sessions_accepted: self.sum(|c| c.sessions_accepted.value()),
            messages_accepted: outcome(Outcome::Accepted),
            messages_deferred: outcome(Outcome::Deferred),
            messages_rejected: outcome(Outcome::Rejected),
            parked: self.sum(|c| c.pit_rows.value()),
            waiting: self.sum(|c| c.waiters.value()),
            held_bytes: self.sum(|c| c.held_bytes.value()),
        }
    }

    fn upstream(&self, index: usize, spec: &UpstreamSpec) -> Upstream {
        Upstream {
            name: spec.name.clone(),
            weight: spec.weight,
            max: spec.max,
            addresses: spec.addresses.iter().map(ToString::to_string).collect(),
            shards_up: self.shards_up(index),
            active: self.sum(|c| c.pool_active.at(index).value()),
            idle: self.sum(|c| c.pool_idle.at(index).value()),
            connects: self.sum(|c| c.upstream_connects.at(index).value()),
            connect_failures: self.sum(|c| c.upstream_connect_failures.at(index).value()),
            messages_accepted: self
                .sum(|c| c.upstream_messages.at(index, Outcome::Accepted).value()),
            messages_deferred: self
                .sum(|c| c.upstream_messages.at(index, Outcome::Deferred).value()),
            messages_rejected: self
                .sum(|c| c.upstream_messages.at(index, Outcome::Rejected).value()),
        }
    }

    fn list(&self, index: usize, name: &str) -> List {
        let said = |says| self.sum(|c| c.dnsbl_answers.at(index, says).value());
        List {
            name: name.into(),
            ipv4: Standing::word_of(self.sum(|c| c.dnsbl_v4.at(index).value())),
            ipv6: Standing::word_of(self.sum(|c| c.dnsbl_v6.at(index).value())),
            listed: said(ListSays::Listed),
            unlisted: said(ListSays::Unlisted),
            unknown: said(ListSays::Unknown),
            faults: said(ListSays::Fault),
        }
    }

    fn shards_up(&self, upstream: usize) -> u64 {
        self.sum(|c| c.upstream_up.at(upstream).value())
    }

    fn upstreams(&self) -> Arc<[UpstreamSpec]> {
        Arc::clone(
            &self
                .upstreams
                .lock()
                .expect("no panic while the table is held"),
        )
    }

    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| of(counters)).sum()
    }
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    pid: u32,
    uptime_seconds: u64,
    mode: &'static str,
    hostname: String,
    listen: Vec<String>,
    state: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready: Option<&'static str>,
    totals: Totals,
    shards: Vec<Shard>,
    upstreams: Vec<Upstream>,
    lists: Vec<List>,
    certificates: Vec<Certificate>,
}

/// A DNS list: how it stands, and what it said of clients.
#[derive(Serialize)]
struct List {
    name: String,
    ipv4: &'static str,
    ipv6: &'static str,
    listed: u64,
    unlisted: u64,
    unknown: u64,
    faults: u64,
}

#[derive(Serialize)]
struct Certificate {
    file: String,
    /// RFC 3339.
    ends: String,
}

impl Certificate {
    fn of(file: &str, end: i64) -> Self {
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end.max(0) as u64);
        Self {
            file: file.into(),
            ends: humantime::format_rfc3339_seconds(end).to_string(),
        }
    }
}

#[derive(Serialize)]
struct Totals {
    sessions: u64,
    sessions_accepted: u64,
    messages_accepted: u64,
    messages_deferred: u64,
    messages_rejected: u64,
    parked: u64,
    waiting: u64,
    held_bytes: u64,
}

#[derive(Serialize)]
struct Shard {
    shard: usize,
    sessions: u64,
    parked: u64,
    waiting: u64,
    overload_level: u64,
    slots_free: u64,
    buffers_used: u64,
    held_bytes: u64,
    client_entries: u64,
}

impl Shard {
    fn of(shard: usize, counters: &Counters) -> Self {
        Self {
            shard,
            sessions: counters.sessions_active.value(),
            parked: counters.pit_rows.value(),
            waiting: counters.waiters.value(),
            overload_level: counters.overload_level.value(),
            slots_free: counters.slots_free.value(),
            buffers_used: counters.buffers_used.value(),
            held_bytes: counters.held_bytes.value(),
            client_entries: counters.client_entries.value(),
        }
    }
}

#[derive(Serialize)]
struct Upstream {
    name: String,
    weight: u32,
    max: u32,
    addresses: Vec<String>,
    shards_up: u64,
    active: u64,
    idle: u64,
    connects: u64,
    connect_failures: u64,
    messages_accepted: u64,
    messages_deferred: u64,
    messages_rejected: u64,
}
