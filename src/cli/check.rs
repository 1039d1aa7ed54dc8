//! The effective plan: what weir would do with these flags.

mod lookups;
mod memory;

use std::fmt::Write as _;

use super::{
    config::Config,
    flags::relay::Unasked,
    needs, sizes, tls,
    units::{show, show_size},
};
use crate::net::{Intercept, Steer};
use crate::policy::{Finding, access::Subject, relay::RelayDomains};
use crate::route::{Identity, Starttls};
use crate::shard::pit;

/// The plan as text, for `weir check` and for the log at start.
pub fn plan(config: &Config, cores: usize) -> String {
    let mut out = String::new();
    let shards = config.shards(cores);
    for (topic, words) in [
        ("mode", mode(config)),
        ("listen", listen(config)),
        ("trust", trust(config)),
        ("shards", shards_words(config, shards, cores)),
        ("TLS", tls::plan(config)),
        ("upstreams", upstreams(config)),
        ("pool", pool(config)),
        ("relaying", relaying(config)),
        ("messages", messages(config)),
        ("clients", clients(config)),
        ("lists", lists(config)),
        ("findings", findings(config)),
        (
            "score",
            config.reputation().describe(&config.tarpit.actions),
        ),
        ("DNS lists", lookups::dns_lists(config)),
        ("history", memory::words(config)),
        ("pit", pit_words(config)),
        ("resolver", lookups::resolver(config)),
        ("state", memory::lasting(config)),
        ("timeouts", timeouts(config)),
        (
            "log",
            config
                .logging
                .log
                .file
                .as_ref()
                .map_or("standard error".into(), |file| file.display().to_string()),
        ),
        ("sandbox", needs::describe(&config.sandbox(false))),
        (
            "admin",
            config
                .running
                .admin
                .map_or("no admin page (--admin)".into(), |admin| {
                    format!("http://{admin}/")
                }),
        ),
    ] {
        let _ = writeln!(out, "{topic:<11}{}", words.replace('\n', "\n           "));
    }
    let (total, rows) = sizes::memory(config, shards as u64);
    let _ = writeln!(
        out,
        "memory     at most {} in user space, each part at its limit:",
        show_size(total)
    );
    for (what, bytes, how) in rows {
        let _ = writeln!(out, "           {:>10}  {what} ({how})", show_size(bytes));
    }
    for warning in warnings(config, shards, cores) {
        let _ = writeln!(out, "warning: {warning}");
    }
    out
}

impl Config {
    /// Shards that will run.
    pub fn shards(&self, cores: usize) -> usize {
        self.listening.shards.unwrap_or(cores).clamp(1, SHARDS_MAX)
    }
}

/// What a mask of shards can hold; also the range of --shards.
pub const SHARDS_MAX: usize = 64;

impl Config {
    /// How clients are bound to upstream connections, in a word.
    pub fn mode(&self) -> &'static str {
        match self.identifying.is_dedicated() {
            true => "dedicated",
            false => "multiplexed",
        }
    }
}

fn trust(config: &Config) -> String {
    let trusting = &config.trusting;
    if trusting.typed.is_empty() {
        return "nobody speaks for others (--trust)".into();
    }
    let header = match config.listening.listen.iter().any(|listen| listen.proxy) {
        true => format!(
            ", by a PROXY header within {} where a listener has it",
            show(trusting.proxy_timeout)
        ),
        false => String::new(),
    };
    format!(
        "{} may speak for others by XCLIENT{header}",
        trusting.typed.join(", ")
    )
}

fn mode(config: &Config) -> String {
    let meant = &config.identifying;
    let seen = match meant.identity {
        Identity::None => "see weir",
        Identity::Received => "read of the client in a Received field",
        Identity::Xforward => "are told of the client by XFORWARD",
        Identity::Xclient => "are told of the client by XCLIENT",
        Identity::ProxyV1 => "are told of the client by a PROXY header (v1)",
        Identity::ProxyV2 => "are told of the client by a PROXY header (v2)",
        Identity::Transparent => "see the client's address",
    };
    let mode = config.mode();
    if !meant.is_dedicated() {
        return format!("{mode}: clients share a pool of upstream connections; servers {seen}");
    }
    let starttls = match meant.starttls {
        Some(Starttls::Tunnel) => "STARTTLS is between client and server",
        Some(Starttls::Terminate) => "STARTTLS ends here",
        Some(Starttls::Refuse) => "STARTTLS is refused",
        None => "STARTTLS is the listener's",
    };
    let way = match meant.intercept {
        Some(Intercept::Tproxy) => ", to where it wanted to go (tproxy)",
        Some(Intercept::Redirect) => ", to where it wanted to go (redirect)",
        None => "",
    };
    let mark = match meant.mark {
        0 => String::new(),
        mark => format!("; packets to servers marked {mark:#x}"),
    };
    format!(
        "{mode}: each client has an upstream connection of its own{way}; servers {seen}; {starttls}{mark}"
    )
}

fn listen(config: &Config) -> String {
    let listening = &config.listening;
    let addresses: Vec<String> = listening.listen.iter().map(ToString::to_string).collect();
    let most = limit(listening.connections_max, "connections");
    format!("{} as {}, {most}", addresses.join(", "), listening.hostname)
}

fn shards_words(config: &Config, shards: usize, cores: usize) -> String {
    let how = match config.listening.steer {
        Steer::Client => "by client address",
        Steer::Kernel => "by connection",
    };
    format!("{shards} on {cores} cores, clients steered {how}")
}

fn upstreams(config: &Config) -> String {
    if config.running.demo {
        return "the embedded sink".into();
    }
    if config.identifying.intercept.is_some() {
        let tls = config.original_tls.map(tls::mode_words);
        let tls = tls.map(|how| format!(", {how}")).unwrap_or_default();
        return format!("where each client wanted to go{tls}");
    }
    let upstreams = &config.upstreams;
    let one = |upstream: &super::flags::upstreams::Upstream| {
        let max = limit(upstream.max.unwrap_or(upstreams.pool_max), "connections");
        let tls = tls::upstream_words(upstream);
        format!("{} weight {}, {max}{tls}", upstream.name(), upstream.weight)
    };
    upstreams
        .upstreams
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join("\n")
}

fn pool(config: &Config) -> String {
    let pool = &config.upstreams;
    let unless_zero = |value: std::time::Duration, other: &str| {
        if value.is_zero() {
            other.to_owned()
        } else {
            show(value)
        }
    };
    let queue_wait = unless_zero(pool.queue_wait, "the reply's deadline");
    let waiting = format!("{} may wait per shard", pool.queue_max);
    let connect = show(pool.connect_timeout);
    let upkeep = format!(
        "connect {connect}, probe every {}, look up names every {}",
        unless_zero(pool.probe_interval, "start only"),
        unless_zero(pool.resolve_interval, "start and SIGHUP only"),
    );
    if config.identifying.intercept.is_some() {
        return format!("none: a client keeps its connection; connect {connect}");
    }
    if config.identifying.is_dedicated() {
        return format!(
            "none: a client keeps its connection; it waits at most {queue_wait} for one, {waiting}; {upkeep}"
        );
    }
    format!(
        "connections live {} and {}, idle for {}; a transaction waits at most {queue_wait} for one, gives it back after {} of silence, {waiting}; {upkeep}",
        unless_zero(pool.pool_age, "without an age limit"),
        limit(pool.pool_uses, "transactions"),
        unless_zero(pool.pool_idle, "no time"),
        unless_zero(config.timeouts.give_back, "no amount"),
    )
}

fn relaying(config: &Config) -> String {
    let relaying = &config.relaying;
    match relaying.unasked {
        Some(Unasked::Loopback) => {
            return "from loopback to anywhere (nothing else can connect)".into();
        }
        Some(Unasked::Servers) => {
            return "the mail servers decide: they see the client".into();
        }
        None => {}
    }
    let domains = match &relaying.relay.domains {
        RelayDomains::Any => "anybody to anywhere".into(),
        RelayDomains::These(list) => format!("anybody to {} domains", list.len()),
    };
    format!(
        "{domains}; {} networks to anywhere",
        relaying.relay.from.len()
    )
}

fn messages(config: &Config) -> String {
    let messages = &config.messages;
    let size = if messages.size_max == 0 {
        "no size limit".into()
    } else {
        format!("at most {}", show_size(messages.size_max))
    };
    let rate = if messages.data_rate_min == 0 {
        "any rate".into()
    } else {
        format!("{}/s", show_size(messages.data_rate_min))
    };
    format!(
        "{size}, at most {} recipients, {} per connection; bare newlines: {:?}; bodies held up to {}, {} of all, then streamed at {rate} or faster",
        messages.recipients_max,
        limit(messages.messages_max, "messages"),
        messages.bare_newline,
        show_size(messages.hold_size),
        show_size(messages.hold_memory),
    )
    .replace("Reject", "reject")
    .replace("Normalize", "normalize")
    .replace("Pass", "pass")
}

fn clients(config: &Config) -> String {
    let clients = &config.clients;
    let rates = [
        ("connections", clients.rate_connections.to_string()),
        ("messages", clients.rate_messages.to_string()),
        ("recipients", clients.rate_recipients.to_string()),
        ("bytes", clients.rate_bytes.to_string()),
    ];
    let rates: Vec<String> = rates
        .into_iter()
        .filter(|(_, rate)| rate != "0")
        .map(|(what, rate)| format!("{what} {rate}"))
        .collect();
    let rates = if rates.is_empty() {
        "no rates".into()
    } else {
        rates.join(", ")
    };
    let errors = clients.errors;
    let (v4, v6) = clients.prefix.bits();
    format!(
        "per address (IPv4 /{v4}, IPv6 /{v6}): {}, {rates}; errors: slow beyond {}, out at {}; junk commands: out at {}",
        limit(clients.concurrency.0, "connections"),
        or_never(errors.soft),
        or_never(errors.hard),
        or_never(errors.junk),
    )
}

fn lists(config: &Config) -> String {
    let subjects = [
        (Subject::Client, "networks"),
        (Subject::Helo, "names in HELO"),
        (Subject::Sender, "senders"),
        (Subject::Recipient, "recipients"),
    ];
    let lists = subjects.map(|(subject, what)| (config.access.len(subject), what));
    let lists: Vec<String> = lists
        .into_iter()
        .filter(|(entries, _)| *entries > 0)
        .map(|(entries, what)| format!("{entries} {what}"))
        .collect();
    match lists.is_empty() {
        true => "none".into(),
        false => format!(
            "{}, {}",
            lists.join(", "),
            show_size(config.access.memory() as u64)
        ),
    }
}

fn findings(config: &Config) -> String {
    let words: Vec<String> = Finding::all()
        .map(|finding| {
            let actions = &config.tarpit.actions;
            let action = actions.of(finding);
            match actions.weight(finding) {
                0 => format!("{finding}={action}"),
                weight => format!("{finding}={action},score={weight}"),
            }
        })
        .collect();
    words
        .chunks(6)
        .map(|line| line.join(" "))
        .collect::<Vec<_>>()
        .join("\n")
}

fn pit_words(config: &Config) -> String {
    let tarpit = &config.tarpit;
    let greet = if tarpit.greet_wait.is_zero() {
        "no greet wait".into()
    } else {
        format!("greet wait {}", show(tarpit.greet_wait))
    };
    format!(
        "{greet}; {}, when full: {}; delay {}, stutter a byte every {}, for {}",
        limit(tarpit.pit_max, "rows"),
        match tarpit.pit_full {
            pit::Overflow::DropOldest => "drop the oldest",
            pit::Overflow::Refuse => "refuse",
        },
        show(tarpit.temper.delay),
        show(tarpit.temper.interval),
        show(tarpit.temper.hold),
    )
}

fn timeouts(config: &Config) -> String {
    let t = &config.timeouts;
    let idle = if t.idle.is_zero() {
        "none".into()
    } else {
        show(t.idle)
    };
    format!(
        "command {}, idle {idle}, body {}; replies: RCPT {}, DATA {}, final {}; drain {}",
        show(t.command),
        show(t.body),
        show(t.rcpt),
        show(t.data),
        show(t.end),
        show(t.drain)
    )
}

/// Choices that may not be meant.
pub fn warnings(config: &Config, shards: usize, cores: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    let listening = &config.listening;
    let trusted = !config.identifying.identity.is_dedicated();
    let beyond = listening
        .addresses()
        .iter()
        .any(|address| !address.ip().to_canonical().is_loopback());
    if beyond && trusted && matches!(config.relaying.relay.domains, RelayDomains::Any) {
        warnings.push("--relay-domains any: whatever the upstreams relay for weir's address, they relay for everybody; see weir doctor".into());
    }
    if listening.steer == Steer::Kernel && shards > 1 {
        warnings.push(format!("--steer kernel: a client's limits are counted on each of {shards} shards on its own, so it may reach {shards} times as much"));
    }
    if shards > cores {
        warnings.push(format!("{shards} shards share {cores} cores"));
    }
    if !listening.hostname.contains(['.', ':']) {
        warnings.push(format!(
            "host name {:?} has no dot: mail servers may refuse it in EHLO (--hostname)",
            listening.hostname
        ));
    }
    if config.trusting.typed.iter().any(|one| one.ends_with("/0")) {
        warnings.push("--trust names everybody: any client may say that it is another, one of --relay-from too; name the proxies".into());
    }
    warnings.extend(tls::warnings(config));
    if let Some(fault) = config
        .resolving
        .resolvers
        .fault()
        .filter(|_| config.asks_names())
    {
        let asked = config.resolving.resolvers.words();
        warnings.push(format!("{fault}: {asked} is asked for names (--resolver)"));
    }
    if lasts_for_nothing(config) {
        warnings.push("--state: nothing is learnt of clients that could be kept; add --greylist, --dnsbl or what else asks for it, or --reputation on".into());
    }
    warnings.extend(few_connections(config));
    if listening.connections_max == 0 {
        warnings.push("--max-connections 0: memory is bounded by the open-file limit only".into());
    }
    warnings
}

/// A place to keep what is learnt, and nothing learns. A server shares rates as well.
fn lasts_for_nothing(config: &Config) -> bool {
    let lasting = &config.lasting;
    (lasting.file.is_some() || lasting.server.is_some())
        && !config.reputation().on
        && !(lasting.server.is_some() && config.clients.limits_rates())
}

/// Where clients have upstream connections to themselves there are no more clients than those.
fn few_connections(config: &Config) -> Option<String> {
    let is_bounded = config.mode() == "dedicated" && config.identifying.intercept.is_none();
    let pool = &config.upstreams;
    let most = pool.upstreams.iter().map(|upstream| match upstream.max {
        Some(max) => max,
        None => pool.pool_max,
    });
    let most: Vec<u32> = most.collect();
    let sum: u64 = most.iter().map(|max| u64::from(*max)).sum();
    let clients = u64::from(config.listening.connections_max);
    let is_short = !most.contains(&0) && (clients == 0 || sum < clients);
    (is_bounded && is_short).then(|| {
        format!("each client needs an upstream connection, and there are {sum}: who comes on top waits for a greeting and then hears 421 (--pool-max, --queue-wait)")
    })
}

fn limit(n: u32, what: &str) -> String {
    if n == 0 {
        format!("any number of {what}")
    } else {
        format!("at most {n} {what}")
    }
}

fn or_never(n: u16) -> String {
    if n == 0 {
        "never".into()
    } else {
        n.to_string()
    }
}

#[cfg(test)]
mod tests;
