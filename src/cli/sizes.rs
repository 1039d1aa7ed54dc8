//! How large weir may come to be: slots of a shard's file table, and user memory in the worst case.

use super::{config::Config, tls, units::show_size};
use crate::maillog::PENDING_MAX;
use crate::policy::greylist::When;
use crate::shard::pit;
use crate::state;
use crate::tls::layer::CARRIED_MAX;

/// User memory of an idle session, and of one in a transaction without its body: docs/PERFORMANCE.md measures both.
const SESSION_IDLE: u64 = 640;
const SESSION_BUSY: u64 = 4096;
/// A pooled upstream connection with its reply reader.
const LEG: u64 = 2048;
/// A TLS session on either side, between two records: 4 KiB measured (`weir-bench figures tls-memory`), and some room.
const TLS_SESSION: u64 = 5 << 10;
/// An answer that a resolver remembers, on average at most.
const ANSWER: u64 = 256;
/// An entry of the table of client addresses with its index.
const CLIENT: u64 = 69;
/// A network that is remembered, and a first try that greylisting waits for: with their shares of the index.
const NETWORK: u64 = 64;
const TUPLE: u64 = 32;
/// A receive buffer.
const BUFFER: u64 = 16 << 10;

/// User memory in the worst case.
pub fn memory_max(config: &Config, shards: usize) -> u64 {
    memory(config, shards as u64).0
}

/// Slots one shard's file table should have: all clients may happen to come to one shard.
pub fn slots_wanted(config: &Config) -> u64 {
    max_clients(config) + slots_reserved(config)
}

fn max_clients(config: &Config) -> u64 {
    match config.listening.connections_max {
        0 => 1 << 16,
        max => u64::from(max),
    }
}

/// Slots kept for upstream connections, probes, services and names.
pub fn slots_reserved(config: &Config) -> u64 {
    legs_reserved(config) + lanes(config)
}

/// Sockets to DNS servers, those that only wait for late answers included.
fn lanes(config: &Config) -> u64 {
    // A file may name more than it does now.
    const SERVERS: usize = 3;
    let servers = config.resolving.resolvers.servers().len().max(SERVERS);
    let each = 2 * crate::dns::Config::default().ports + 1;
    match config.asks_names() {
        true => (servers * each) as u64,
        false => 0,
    }
}

fn legs_reserved(config: &Config) -> u64 {
    const BESIDES: u64 = 64;
    const UNLIMITED_POOL: u64 = 1024;
    let upstreams = &config.upstreams;
    let max = |max: u32| {
        if max == 0 {
            UNLIMITED_POOL
        } else {
            u64::from(max)
        }
    };
    let legs: u64 = upstreams
        .upstreams
        .iter()
        .map(|upstream| max(upstream.max.unwrap_or(upstreams.pool_max)))
        .sum();
    if config.identifying.is_dedicated() {
        // As many as clients, where the upstreams take that many.
        let clients = max_clients(config);
        let legs = match config.identifying.intercept {
            Some(_) => clients,
            None => legs,
        };
        return legs.min(clients) + BESIDES;
    }
    legs.max(max(upstreams.pool_max)).min(1 << 14) + BESIDES
}

/// The worst case: every limit reached at once. The kernel's socket buffers come on top.
pub fn memory(config: &Config, shards: u64) -> (u64, Vec<(&'static str, u64, String)>) {
    let listening = &config.listening;
    let connections = u64::from(listening.connections_max);
    let upstreams = &config.upstreams;
    let legs: u64 = upstreams
        .upstreams
        .iter()
        .map(|upstream| u64::from(upstream.max.unwrap_or(upstreams.pool_max)))
        .sum();
    let legs = match config.identifying.intercept {
        _ if config.running.demo => u64::from(upstreams.pool_max),
        Some(_) => connections,
        None => legs,
    };
    let pit_rows = match config.tarpit.pit_max {
        0 => connections,
        max => u64::from(max).min(connections.max(1)),
    };
    let pit_row = (pit::ROW_BYTES + 16) as u64;
    // A client is either a session or a row; a session with an open transaction needs an upstream sooner or later, or waits.
    let busy = connections.min(legs + u64::from(upstreams.queue_max) * shards);
    let mut rows = vec![
        (
            "client receive buffers",
            shards * u64::from(listening.client_buffers) * BUFFER,
            format!("{shards} shards x {} x 16 KiB", listening.client_buffers),
        ),
        (
            "upstream receive buffers",
            shards * u64::from(listening.upstream_buffers) * BUFFER,
            format!("{shards} shards x {} x 16 KiB", listening.upstream_buffers),
        ),
        (
            "held bodies",
            config.messages.hold_memory,
            "--hold-memory".into(),
        ),
        (
            "sessions",
            (connections - busy) * SESSION_IDLE,
            format!("{} idle x {SESSION_IDLE} B", connections - busy),
        ),
        (
            "transactions",
            busy * SESSION_BUSY,
            format!("{busy} x {SESSION_BUSY} B"),
        ),
        (
            "upstream connections",
            legs * LEG,
            format!("{legs} x {LEG} B"),
        ),
        (
            "pit",
            pit_rows * pit_row,
            format!("{pit_rows} rows x {pit_row} B, instead of as many sessions"),
        ),
        (
            "client addresses",
            shards * u64::from(config.clients.clients_max) * CLIENT,
            format!(
                "{shards} shards x {} x {CLIENT} B",
                config.clients.clients_max
            ),
        ),
        (
            "lists",
            config.access.memory() as u64 + config.relaying.relay.from.memory() as u64,
            "networks".into(),
        ),
        (
            "log",
            shards * 3 * PENDING_MAX as u64,
            format!("{shards} shards x 3 x 256 KiB"),
        ),
    ];
    if config.lasting.file.is_some() {
        let how = "what the file's thread reads and is to write".into();
        rows.push(("--state", state::MEMORY_MAX, how));
    }
    for (what, sessions) in [
        ("TLS with clients", tls::sessions_max(config)),
        ("TLS with upstreams", tls::legs_max(config)),
    ] {
        if sessions > 0 {
            let how = format!("{sessions} sessions x {}", show_size(TLS_SESSION));
            rows.push((what, sessions * TLS_SESSION, how));
        }
    }
    if tls::sessions_max(config) + tls::legs_max(config) > 0 {
        let carried = CARRIED_MAX as u64;
        let how = format!("{shards} shards x {}", show_size(carried));
        rows.push(("TLS records that are half here", shards * carried, how));
    }
    if config.asks_names() {
        let answers = u64::from(config.resolving.cache);
        let how = format!("{shards} shards x {answers} x {ANSWER} B");
        rows.push(("answers of DNS servers", shards * answers * ANSWER, how));
    }
    if config.reputation().on {
        let memory = &config.remembering.memory;
        let kinds = [
            ("networks", memory.networks_max, NETWORK),
            ("first tries", memory.greylist.tuples_max, TUPLE),
        ];
        let greylists = memory.greylist.when != When::Off;
        for (what, max, each) in kinds.into_iter().take(1 + usize::from(greylists)) {
            let how = format!("{shards} shards x {max} x {each} B");
            rows.push((what, shards * u64::from(max) * each, how));
        }
    }
    (rows.iter().map(|(_, bytes, _)| bytes).sum(), rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::{Wanted, parse};
    use crate::cli::flags::Purpose;

    #[test]
    fn memory_is_added_up() {
        let (Some(Wanted::Run(flags)), wrong) = parse(["--demo".to_owned()]) else {
            panic!("it is a command line")
        };
        let config = Config::read(&flags, Purpose::Relay, "h", wrong);
        let (total, rows) = memory(&config.expect("it is valid"), 2);
        assert_eq!(total, rows.iter().map(|row| row.1).sum::<u64>());
        assert!(rows.iter().any(|row| row.0 == "sessions" && row.1 > 0));
    }

    #[test]
    fn what_is_remembered_is_part_of_the_sum() {
        let of = |words: &[&str]| {
            let base = ["--listen", "127.0.0.1:25", "--upstream", "mx"];
            let typed = [&base[..], words].concat();
            let (Some(Wanted::Run(flags)), wrong) = parse(typed.iter().map(|w| (*w).to_owned()))
            else {
                panic!("{typed:?}")
            };
            let config = Config::read(&flags, Purpose::Relay, "h", wrong);
            memory(&config.expect("it is valid"), 2).0
        };
        let traps = [
            "--reputation",
            "on",
            "--history-max",
            "2000",
            "--resolver-cache",
            "16",
        ];
        let both = [&traps[..], &["--greylist", "all", "--greylist-max", "3000"]].concat();
        assert_eq!(of(&traps) - of(&[]), 2 * (2000 * 64 + 16 * ANSWER));
        assert_eq!(of(&both) - of(&traps), 2 * 3000 * 32);
    }
}
