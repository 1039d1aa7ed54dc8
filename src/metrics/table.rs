//! The one table of metrics: a row is a field of [`Counters`], a name, how it is shown over shards, and the help.
//!
//! The help says how to read the number. Labels have bounded values; a peer can never make a new one.
//! docs/METRICS.md is generated from this table.

use crate::policy::dnsbl::ZONES_MAX;

use super::cell::{Counter, Dimension, Gauge, Histogram, Matrix, Names, Series, Vector};

/// Most upstreams a configuration may name (labels and tried-sets are sized by it): 64 x 17 cells x 8 bytes per shard.
pub const UPSTREAMS_MAX: usize = 64;

/// How a metric of several shards is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// One line per shard, label `shard`: where an uneven spread tells something.
    Shard,
    /// One line, added up over the shards.
    Sum,
}

/// One row of the table.
pub struct Row {
    pub name: &'static str,
    pub spread: Spread,
    pub help: &'static str,
    pub series: fn(&Counters) -> &dyn Series,
}

macro_rules! metrics {
    ($($field:ident: $cell:ty, $spread:ident, $name:literal, $help:literal;)*) => {
        /// One shard's metrics. The shard is the only writer.
        #[derive(Default, Debug)]
        #[repr(align(128))]
        pub struct Counters { $(#[doc = $help] pub $field: $cell,)* }

        /// All rows, in the order they are shown.
        pub const TABLE: &[Row] = &[$(Row {
            name: $name,
            spread: Spread::$spread,
            help: $help,
            series: |counters| &counters.$field,
        },)*];
    };
}

metrics! {
    // sessions
    sessions_accepted: Counter, Shard, "weir_sessions_accepted_total", "Client connections accepted. Uneven shards: few client addresses, or --steer kernel helps.";
    sessions_refused: Vector<Refusal>, Sum, "weir_sessions_refused_total", "Client connections answered with 421 or 554 instead of a greeting, by reason.";
    sessions_active: Gauge, Shard, "weir_sessions_active", "Client connections open now, parked ones included.";
    sessions_idle: Gauge, Shard, "weir_sessions_idle", "Open sessions that are between transactions and not parked.";
    sessions_ended: Vector<Ended>, Sum, "weir_sessions_ended_total", "Sessions that ended, by who or what ended them.";
    session_seconds: Histogram, Sum, "weir_session_seconds", "How long sessions lasted, from accept to close.";

    // transactions and messages
    transactions: Counter, Shard, "weir_transactions_total", "MAIL commands that opened a transaction.";
    transaction_seconds: Histogram, Sum, "weir_transaction_seconds", "From MAIL to the final reply of a message.";
    messages: Vector<Outcome>, Sum, "weir_messages_total", "Messages by what the client heard at the end of data; abandoned: the client left before a final reply.";
    message_bytes: Counter, Sum, "weir_message_bytes_total", "Content bytes of accepted messages. By weir_messages_total{outcome=\"accepted\"}: the mean size.";
    recipients: Vector<Outcome>, Sum, "weir_recipients_total", "RCPT commands by reply; abandoned: no reply could be given.";
    bodies: Vector<Body>, Sum, "weir_bodies_total", "Bodies by how they went up: held (one flight after the end), streamed (outgrew --hold-size or --hold-memory).";
    streams: Gauge, Shard, "weir_streams", "Bodies that go up while they come in, now: each holds an upstream connection. Limits: --pool-share for one client, three quarters of the pool for all.";
    streams_put_off: Counter, Sum, "weir_streams_put_off_total", "Bodies that had outgrown --hold-size and waited, because their client had its --pool-share of streams, or all clients three quarters of the pool.";
    given_back: Counter, Sum, "weir_upstreams_given_back_total", "Attached upstreams given back because the client was slow to send its body.";
    reclaims: Counter, Sum, "weir_upstreams_reclaimed_total", "Of these, given back before --give-back because few connections were left. Each is a replay: if it grows as fast as the messages do, raise --pool-max.";
    replays: Counter, Sum, "weir_replays_total", "Envelopes sent again, because a connection was needed again after it had been given back.";
    replay_refusals: Counter, Sum, "weir_replay_refusals_total", "Messages deferred because a recipient accepted before was refused in a replay. More than a few: the upstream's answers depend on time; raise --give-back.";
    retries: Counter, Sum, "weir_retries_total", "Transactions moved to another upstream before the client had heard any upstream reply.";
    replies: Vector<ReplyClass>, Sum, "weir_replies_total", "Replies sent to clients, by class. Rising 4xx: look at weir_findings_total and the upstreams.";
    final_reply_seconds: Histogram, Sum, "weir_final_reply_seconds", "From the client's end of data to the final reply: upstream time plus any wait for a slot.";

    // peers that speak for others
    introductions: Vector<Introduced>, Sum, "weir_introductions_total", "Connections of --trust to listeners with ,proxy, by what became of their PROXY header. timeout, malformed: see proxy_failed in the log.";
    handed_over: Counter, Shard, "weir_handed_over_total", "Clients behind a proxy that were passed to the shard that keeps the books of their address.";

    // policy
    findings: Matrix<Findings, Actions>, Sum, "weir_findings_total", "What checks found, by the action taken; action=\"log\" shows what would have been refused.";
    violations: Vector<Violations>, Sum, "weir_violations_total", "Protocol violations by clients, by name.";
    inquiries: Gauge, Shard, "weir_inquiries", "Clients that are inquired of now (--reputation). Near weir_sessions_active where that is on.";
    scores: Vector<ScoreRange>, Sum, "weir_scores_total", "Clients that were inquired of, by their score when they left. Where the good ones and the bad ones part, thresholds belong.";
    recipient_waits: Vector<Waited>, Sum, "weir_recipient_waits_total", "Recipients that waited for answers of lists and names, by how that ended. Many that expired: resolvers are slow; see weir_dns_* and --lookup-wait.";
    recipient_wait_seconds: Histogram, Sum, "weir_recipient_wait_seconds", "How long recipients waited for answers.";
    client_entries: Gauge, Shard, "weir_client_entries", "Client addresses (IPv4 /32, IPv6 /64) in the limits table.";

    // memory
    memory_networks: Gauge, Shard, "weir_memory_networks", "Networks whose history is known. Every shard has them all; at --history-max those go that say least.";
    memory_providers: Gauge, Shard, "weir_memory_providers", "Providers (autonomous systems) whose history is known.";
    memory_tuples: Gauge, Shard, "weir_memory_tuples", "First tries that greylisting remembers until they are tried again or --greylist-window is over.";
    memory_bytes: Gauge, Shard, "weir_memory_bytes", "Memory that these take.";
    greylist: Vector<Greylisted>, Sum, "weir_greylist_total", "Recipients that greylisting was asked about, by what it knew of them; first and early are deferred under --on greylist=defer. no_room: let through because --greylist-max was full of tries that may still come back.";

    // what shards learn
    news_told: Counter, Sum, "weir_news_told_total", "Things that shards have learnt and told the others: networks, greylisted tuples, deeds of one second at once.";
    news_learnt: Counter, Sum, "weir_news_learnt_total", "Such things that shards took in: from the others, from --state at the start and from other hosts.";
    news_dropped: Counter, Sum, "weir_news_dropped_total", "Such things that a shard learnt and the others did not hear of, because there were too many in a second. Each shard goes by its own then.";
    news_missed: Counter, Sum, "weir_news_missed_total", "Such things that a shard was told and did not take in, because it was behind.";

    // DNS lists
    dnsbl_answers: Matrix<Lists, ListSays>, Sum, "weir_dnsbl_answers_total", "What DNS lists said of clients, cached answers included. fault: an answer that is no listing; unknown: no answer, or from a list that is not believed. Neither is ever taken for a listing.";
    dnsbl_tests: Matrix<Lists, Probe>, Sum, "weir_dnsbl_tests_total", "Tests of DNS lists by their test points (--dnsbl-recheck), by result.";
    dnsbl_v4: Vector<Lists, Gauge>, Sum, "weir_dnsbl_ipv4", "How a DNS list stands for IPv4 clients. 0: not tested yet; 1: believed; above, it is suspended: 2 lists everything, 3 lists nothing, 4 answers with what is no listing, 5 does not answer.";
    dnsbl_v6: Vector<Lists, Gauge>, Sum, "weir_dnsbl_ipv6", "The same for IPv6 clients.";

    // TLS
    tls_handshakes: Matrix<TlsLeg, Handshake>, Sum, "weir_tls_handshakes_total", "TLS handshakes that came to their end, by side, version and whether the session was resumed. One that is resumed costs about a quarter.";
    tls_handshake_micros: Counter, Shard, "weir_tls_handshake_microseconds_total", "Time the shard spent in TLS handshakes, of both sides, failed ones included. By weir_tls_handshakes_total: what one costs; 1,000,000 a second would be the whole core. --rate-handshakes limits one client.";
    tls_failures: Matrix<TlsLeg, TlsFailure>, Sum, "weir_tls_failures_total", "TLS handshakes that failed and TLS connections that broke the rules, by side and reason.";
    tls_cut: Vector<TlsLeg>, Sum, "weir_tls_cut_total", "TLS connections that ended without close_notify. Clients that hang up so in the middle of a message lose it.";
    tls_injections: Counter, Sum, "weir_tls_injections_total", "Sessions in which octets came behind STARTTLS and in front of the handshake. They are thrown away. Above 0: somebody tries.";
    tls_sessions: Gauge, Shard, "weir_tls_sessions", "Connections inside TLS or on the way there now, of both sides, parked ones included: about 4 KiB each.";

    // bytes
    client_bytes: Vector<Way>, Shard, "weir_client_bytes_total", "Bytes received from (in) and sent to (out) clients.";
    upstream_bytes: Vector<Way>, Shard, "weir_upstream_bytes_total", "Bytes received from (in) and sent to (out) upstreams.";

    // tunnels
    tunnels: Gauge, Shard, "weir_tunnels", "Sessions whose client and server talk TLS with each other through weir now (--transparent-starttls tunnel).";
    tunnels_begun: Counter, Sum, "weir_tunnels_total", "Sessions that became such a tunnel.";
    tunnel_bytes: Vector<Way>, Sum, "weir_tunnel_bytes_total", "Bytes that tunnels moved, counted when they end: in = from clients, out = from servers. They are counted as bytes of clients and upstreams too.";
    plaintext_discarded: Counter, Sum, "weir_tunnel_plaintext_discarded_total", "Times that client or server had said more behind STARTTLS or its 220, in the clear: it was thrown away, and a server that did so was left.";

    // upstreams and the pool
    upstream_connects: Vector<Upstreams>, Sum, "weir_upstream_connects_total", "Connections opened to an upstream.";
    upstream_connect_failures: Vector<Upstreams>, Sum, "weir_upstream_connect_failures_total", "Connections that failed, timed out, or were refused in the greeting or EHLO.";
    upstream_connect_seconds: Histogram, Sum, "weir_upstream_connect_seconds", "From connect to a finished EHLO.";
    upstream_tls_forgone: Vector<Upstreams>, Sum, "weir_upstream_tls_forgone_total", "Connections that went in plaintext because a handshake with that server failed less than 10 minutes before (--upstream-tls may). Above 0: its TLS needs a look, upstream_tls_failed in the log says why.";
    upstream_reuses: Vector<Upstreams>, Sum, "weir_upstream_reuses_total", "Transactions that found a pooled connection. Against connects: how well the pool works.";
    upstream_closes: Matrix<Upstreams, ClosedLeg>, Sum, "weir_upstream_closes_total", "Upstream connections closed, by reason.";
    upstream_messages: Matrix<Upstreams, Outcome>, Sum, "weir_upstream_messages_total", "Final replies to messages, by upstream and outcome.";
    upstream_replies: Matrix<Upstreams, ReplyClass>, Sum, "weir_upstream_replies_total", "Replies of upstreams, by class.";
    upstream_ejections: Vector<Upstreams>, Sum, "weir_upstream_ejections_total", "Times a shard took an upstream out of the choice.";
    upstream_returns: Vector<Upstreams>, Sum, "weir_upstream_returns_total", "Times a shard began to use an ejected upstream again.";
    upstream_up: Vector<Upstreams, Gauge>, Sum, "weir_upstream_up_shards", "Shards that have heard the upstream and use it now. 0: it is ejected everywhere, or was never heard.";
    upstream_unheard: Gauge, Sum, "weir_upstream_unheard", "Addresses of upstreams, summed over shards, that have not answered or failed a probe yet. While above 0 EHLO announces less than the upstreams offer.";
    upstream_probes: Matrix<Upstreams, Probe>, Sum, "weir_upstream_probes_total", "Health probes, by result.";
    destinations_dead: Gauge, Shard, "weir_destinations_dead", "Hosts that clients wanted to go to themselves (--transparent) and that did not answer lately; with --identity transparent counted for each client that met it.";
    destinations_spared: Counter, Sum, "weir_destinations_spared_total", "Clients told at once, instead of after a connect of their own, that such a host does not answer.";
    pool_active: Vector<Upstreams, Gauge>, Sum, "weir_pool_active", "Upstream connections that carry a transaction or are being opened.";
    pool_idle: Vector<Upstreams, Gauge>, Sum, "weir_pool_idle", "Upstream connections waiting for the next transaction.";
    waiters: Gauge, Shard, "weir_waiters", "Transactions that wait for an upstream connection now. Steadily above 0: raise --pool-max.";
    wait_seconds: Histogram, Sum, "weir_wait_seconds", "How long transactions waited for an upstream connection (0 when one was idle).";
    waits_expired: Counter, Sum, "weir_waits_expired_total", "Waits that ended with 451 4.3.2 or 4.4.1 because --queue-wait or the reply's deadline was over.";
    waits_refused: Counter, Sum, "weir_waits_refused_total", "Transactions deferred at once because the wait queue was full.";

    // the pit
    pit_rows: Gauge, Shard, "weir_pit_rows", "Clients parked now.";
    pit_parked: Counter, Sum, "weir_pit_parked_total", "Times a client was parked.";
    pit_ended: Vector<PitEnd>, Sum, "weir_pit_ended_total", "Parked clients by what became of them.";
    pit_drip_bytes: Counter, Sum, "weir_pit_drip_bytes_total", "Bytes dripped to stuttered clients.";
    pit_seconds: Histogram, Sum, "weir_pit_seconds", "How long clients stayed parked.";

    // names
    dns_questions: Vector<DnsQuestion>, Sum, "weir_dns_questions_total", "Questions about clients put to the resolver: known (from the cache), joined (somebody was asking already), asked (of a server), refused (too many were open).";
    dns_answers: Vector<DnsAnswer>, Sum, "weir_dns_answers_total", "What came of questions that were asked of a server. Nothing is concluded from timeout and failed: many of them, and checks go without.";
    dns_queries: Vector<DnsWay>, Sum, "weir_dns_queries_total", "Messages sent to DNS servers, repeated ones included. Many by stream: answers too long for a datagram, or somebody forges.";
    dns_repeats: Counter, Sum, "weir_dns_repeats_total", "Of these, not the first of their question. By weir_dns_answers_total: how reliable servers and the way to them are.";
    dns_missed: Counter, Sum, "weir_dns_missed_total", "Queries that a server left unanswered for --resolver-timeout.";
    dns_odd: Vector<DnsOdd>, Sum, "weir_dns_odd_total", "What came from servers' addresses and answered nothing: late, stray (nobody asked; many: somebody forges), garbage, other_case, truncated, flood (strays that had a socket given up).";
    dns_sockets: Vector<DnsSocket>, Sum, "weir_dns_sockets_total", "Sockets opened to DNS servers, and those that failed: no slot, or nobody listens.";
    dns_servers: Gauge, Shard, "weir_dns_servers", "DNS servers that are known.";
    dns_servers_up: Gauge, Shard, "weir_dns_servers_up", "Of these, servers that have not left three queries in a row unanswered. 0: nothing is known of clients.";
    dns_open: Gauge, Shard, "weir_dns_open", "Questions that wait for an answer now.";
    dns_cached: Gauge, Shard, "weir_dns_cached", "Answers remembered. Limit: --resolver-cache.";
    dns_evicted: Counter, Sum, "weir_dns_evicted_total", "Answers forgotten before their time for want of room. Many: raise --resolver-cache.";

    // the shard's loop, its ring and its buffers
    turns: Counter, Shard, "weir_turns_total", "Turns of the shard's loop. Completions by turns: the batch size, grows with load.";
    ring_completions: Counter, Shard, "weir_ring_completions_total", "Completions taken from the hot ring.";
    ring_enters: Counter, Shard, "weir_ring_enters_total", "System calls of the hot ring. By messages: syscalls per message.";
    ring_sends: Counter, Shard, "weir_ring_sends_total", "Writes submitted.";
    ring_stale: Counter, Shard, "weir_ring_stale_total", "Completions of a former life of a slot, dropped. Harmless; many: report.";
    ring_overflow: Counter, Shard, "weir_ring_overflow_total", "Completion queue overflows. Above 0: the queue is too small for the load.";
    ring_no_buffers: Counter, Shard, "weir_ring_no_buffers_total", "Receives that paused because the shard's receive buffers were all in use.";
    accept_failures: Counter, Shard, "weir_accept_failures_total", "Accepts that failed (full file table, kernel memory). Accepting resumes by itself.";
    slots_free: Gauge, Shard, "weir_slots_free", "Free entries of the shard's file table that upstream connections can take.";
    buffers_used: Gauge, Shard, "weir_buffers_used", "Receive buffers (16 KiB each) that hold data not yet passed on.";
    held_bytes: Gauge, Shard, "weir_held_bytes", "Body bytes held for messages whose end has not been seen. Limit: --hold-memory over all shards.";
    overload_level: Gauge, Shard, "weir_overload_level", "Step of the overload ladder: 0 normal, higher sheds more.";
    overload_steps: Vector<Way>, Sum, "weir_overload_steps_total", "Steps taken on the overload ladder: in = up (more load), out = down.";
    panics: Counter, Sum, "weir_panics_total", "Sessions ended by a defect in weir. Above 0: report with the log line.";
    log_lines: Counter, Shard, "weir_log_lines_total", "Log lines written.";
    log_lines_dropped: Counter, Shard, "weir_log_lines_dropped_total", "Log lines dropped because the log's reader was slow. The shard never waits.";
}

/// An enum whose variants are the values of one label.
macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident, $label:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The word of logs and labels.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),* }
            }
        }

        impl Dimension for $name {
            type Key = $name;
            const LABEL: &'static str = $label;
            const MAX: usize = Self::ALL.len();
            fn index(key: $name) -> usize {
                key as usize
            }
            fn word(index: usize, _: &Names) -> Option<&str> {
                Self::ALL.get(index).map(|value| value.word())
            }
        }
    };
}

label_values! {
    /// Why a connection got no greeting.
    Refusal, "reason" {
        /// --max-connections, or the file table's reserve.
        Full = "full",
        /// The overload ladder.
        Overload = "overload",
        /// A check of policy (lists, concurrency, rates).
        Policy = "policy",
        /// The pit was full and --pit-full is refuse.
        PitFull = "pit_full",
        Drain = "drain",
    }
}

label_values! {
    /// What became of a PROXY header.
    Introduced, "result" {
        /// It named a client.
        Client = "client",
        /// The peer spoke for itself (LOCAL, UNKNOWN).
        Itself = "itself",
        /// None came within --proxy-timeout.
        Timeout = "timeout",
        /// Something else came.
        Malformed = "malformed",
        /// The peer closed before it was complete: most often a health check.
        Closed = "closed",
    }
}

label_values! {
    /// How a question of DNS was served.
    DnsQuestion, "how" {
        Known = "known",
        Joined = "joined",
        Asked = "asked",
        Refused = "refused",
    }
}

label_values! {
    /// What came of a question that was asked.
    DnsAnswer, "outcome" {
        Records = "records",
        /// The name has none of that kind.
        NoData = "no_data",
        NoName = "no_name",
        Timeout = "timeout",
        Failed = "failed",
    }
}

label_values! {
    /// By what a query went.
    DnsWay, "by" {
        Datagram = "datagram",
        Stream = "stream",
    }
}

label_values! {
    /// What answers nothing.
    DnsOdd, "what" {
        Late = "late",
        Stray = "stray",
        Garbage = "garbage",
        /// The question comes back in another case of letters.
        OtherCase = "other_case",
        Truncated = "truncated",
        Flood = "flood",
    }
}

label_values! {
    /// What became of sockets to DNS servers.
    DnsSocket, "kind" {
        Port = "port",
        PortFailed = "port_failed",
        Stream = "stream",
        StreamFailed = "stream_failed",
    }
}

label_values! {
    /// What a DNS list said of a client.
    ListSays, "says" {
        Listed = "listed",
        Unlisted = "unlisted",
        Unknown = "unknown",
        Fault = "fault",
    }
}

label_values! {
    /// Which side a TLS connection is on.
    TlsLeg, "side" {
        Client = "client",
        Upstream = "upstream",
    }
}

label_values! {
    /// How a handshake came to its end.
    Handshake, "kind" {
        Tls12 = "1.2",
        Tls12Resumed = "1.2-resumed",
        Tls13 = "1.3",
        Tls13Resumed = "1.3-resumed",
    }
}

label_values! {
    /// Why a handshake failed, or what became of a connection after it.
    TlsFailure, "reason" {
        /// Not TLS.
        Garbage = "garbage",
        /// No version, suite or signature that both sides know.
        Incompatible = "incompatible",
        /// The protocol was broken: records that do not decrypt, renegotiation, floods.
        Misbehaved = "misbehaved",
        /// The peer gave up with an alert.
        Alert = "alert",
        /// The peer's certificate does not convince.
        Certificate = "certificate",
        /// A handshake message beyond all measure.
        TooLong = "too_long",
        /// The stream ended in the middle of the handshake.
        Truncated = "truncated",
        Timeout = "timeout",
        /// No memory was left for unfinished records.
        NoRoom = "no_room",
        Internal = "internal",
    }
}

label_values! {
    /// What ended a session.
    Ended, "by" {
        Quit = "quit",
        /// The client closed without QUIT.
        ClientClosed = "client_closed",
        ClientReset = "client_reset",
        /// Refused instead of greeted.
        Refused = "refused",
        /// --timeout-command, --timeout-idle, --timeout-body, or the minimum data rate.
        Timeout = "timeout",
        /// A finding with action drop, hard errors.
        Dropped = "dropped",
        /// --max-messages reached, or another limit that ends in 421.
        Limit = "limit",
        Overload = "overload",
        Drain = "drain",
        /// A parked client that left, was cut, or had its last reply.
        Pit = "pit",
        /// Client or server ended their tunnel.
        Tunnel = "tunnel",
        /// A TLS handshake that failed.
        Tls = "tls",
        /// A defect in weir.
        Panic = "panic",
    }
}

label_values! {
    /// What greylisting knew.
    Greylisted, "tried" {
        /// The network is proven.
        Proven = "proven",
        First = "first",
        /// Again, and too early.
        Early = "early",
        /// Again, and in time: proven from now on.
        Passed = "passed",
        NoRoom = "no_room",
    }
}

label_values! {
    /// What became of a message or recipient.
    Outcome, "outcome" {
        Accepted = "accepted",
        Deferred = "deferred",
        Rejected = "rejected",
        Abandoned = "abandoned",
    }
}

label_values! {
    /// How a body went up.
    Body, "way" {
        Held = "held",
        Streamed = "streamed",
    }
}

label_values! {
    /// How a recipient's wait for answers ended.
    Waited, "end" {
        /// What it waited for is known, or suffices.
        Answered = "answered",
        /// --lookup-wait was over.
        Expired = "expired",
        /// The transaction was over.
        Left = "left",
    }
}

label_values! {
    /// A score, roughly.
    ScoreRange, "score" {
        Below = "below_0",
        Zero = "0",
        UpTo2 = "1_2",
        UpTo4 = "3_4",
        UpTo6 = "5_6",
        UpTo9 = "7_9",
        UpTo14 = "10_14",
        UpTo19 = "15_19",
        More = "20_more",
    }
}

impl ScoreRange {
    pub const fn of(score: i32) -> ScoreRange {
        match score {
            ..0 => ScoreRange::Below,
            0 => ScoreRange::Zero,
            1..=2 => ScoreRange::UpTo2,
            3..=4 => ScoreRange::UpTo4,
            5..=6 => ScoreRange::UpTo6,
            7..=9 => ScoreRange::UpTo9,
            10..=14 => ScoreRange::UpTo14,
            15..=19 => ScoreRange::UpTo19,
            20.. => ScoreRange::More,
        }
    }
}

label_values! {
    /// Class of a reply code.
    ReplyClass, "class" {
        Positive = "2xx",
        Intermediate = "3xx",
        Transient = "4xx",
        Permanent = "5xx",
    }
}

impl ReplyClass {
    /// The class of a reply code; codes outside 200-599 do not reach a counter (the reply reader refuses them).
    pub const fn of(code: u16) -> Self {
        match code / 100 {
            2 => Self::Positive,
            3 => Self::Intermediate,
            4 => Self::Transient,
            _ => Self::Permanent,
        }
    }
}

label_values! {
    /// Direction, seen from weir.
    Way, "way" {
        In = "in",
        Out = "out",
    }
}

label_values! {
    /// Why an upstream connection was closed.
    ClosedLeg, "reason" {
        Age = "age",
        Uses = "uses",
        Idle = "idle",
        /// Too many plain 4xx and 5xx since its last accepted message.
        Retired = "retired",
        /// A body was abandoned half way.
        Aborted = "aborted",
        Protocol = "protocol",
        /// The upstream answered 421.
        Refused421 = "421",
        Timeout = "timeout",
        /// Closed or reset by the upstream.
        Peer = "peer",
        ConnectFailed = "connect_failed",
        /// Its handshake failed, or it does not speak TLS and has to.
        Tls = "tls",
        /// It sent plaintext behind its 220 to STARTTLS: somebody wants that taken for protected.
        Injection = "tls_injection",
        /// Another shard was short of connections to this upstream.
        Yielded = "yielded",
        Drain = "drain",
    }
}

label_values! {
    /// Result of a health probe.
    Probe, "result" {
        Passed = "passed",
        Failed = "failed",
    }
}

label_values! {
    /// How a stay in the pit ended.
    PitEnd, "how" {
        /// Back to a live session.
        Promoted = "promoted",
        /// The client left.
        Left = "left",
        /// The oldest row made room for a new one.
        Displaced = "displaced",
        /// Its reply was complete and it was closed.
        Released = "released",
        /// Cut at drain or shed by overload.
        Cut = "cut",
    }
}

/// A dimension whose words another module owns; the key is the index there.
macro_rules! label_index {
    ($name:ident, $label:literal, $max:expr, $names:ident) => {
        #[derive(Debug)]
        pub struct $name;

        impl Dimension for $name {
            type Key = usize;
            const LABEL: &'static str = $label;
            const MAX: usize = $max;
            fn index(key: usize) -> usize {
                key
            }
            fn word(index: usize, names: &Names) -> Option<&str> {
                names.$names.get(index).map(|word| word as &str)
            }
        }
    };
}

label_index!(Findings, "finding", 64, findings);
label_index!(Actions, "action", 8, actions);
label_index!(Violations, "violation", 64, violations);
label_index!(Lists, "list", ZONES_MAX, lists);
label_index!(Upstreams, "upstream", UPSTREAMS_MAX, upstreams);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_row_follows_the_naming_rules() {
        let counters = Counters::default();
        let mut seen = HashSet::new();
        for row in TABLE {
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            assert!(row.name.starts_with("weir_"), "{}", row.name);
            assert!(
                row.help.ends_with(['.', ')']),
                "{}: help is a sentence",
                row.name
            );
            let kind = (row.series)(&counters).kind();
            assert_eq!(
                kind == "counter",
                row.name.ends_with("_total"),
                "{}",
                row.name
            );
            assert_eq!(
                kind == "histogram",
                row.name.ends_with("_seconds"),
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn the_last_place_of_every_index_exists() {
        let counters = Counters::default();
        counters.findings.at(63, 7).inc();
        counters.violations.at(63).inc();
        counters
            .upstream_closes
            .at(UPSTREAMS_MAX - 1, ClosedLeg::Drain)
            .inc();
        counters.upstream_up.at(UPSTREAMS_MAX - 1).set(1);
        assert_eq!(counters.findings.at(63, 7).value(), 1);
    }
}
