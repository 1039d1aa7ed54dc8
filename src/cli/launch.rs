//! From the configuration to what each part is started with. Only values change hands here; nothing is opened.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use weir_smtp::relay as smtp;

use super::{
    config::Config,
    flags::{Flags, Purpose, listener::Listener, upstream_tls::Mode, upstreams::Upstream},
    reader::{Reader, Wrong},
    sizes,
};
use crate::control::{self, About, Lists, Target, resolvers::Resolvers};
use crate::dns;
use crate::net::{ListenerConfig, Service, SocketOptions, Steer};
use crate::policy;
use crate::ring::RingConfig;
use crate::rt;
use crate::shard::{
    self, ShardsConfig, UpstreamSpec, WorldConfig,
    clock::Clock,
    config::{
        DedicatedConfig, LegConfig, PitConfig, ProbeConfig, ProxiedConfig, SessionConfig,
        WaitConfig,
    },
};
use crate::state::{Keeping, Lives, Meeting, Room};
use crate::tls::UpstreamWish;

/// Instead of "no limit" where a limit is a duration.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// What one streaming session may have between the two sockets.
const STREAM_WINDOW: u64 = 256 << 10;
const BUFFER_SIZE: usize = 16 << 10;
/// More files than this one ring does not take (IORING_MAX_FIXED_FILES).
const SLOTS_MAX: u64 = 1 << 20;
/// Completions a ring can hold (IORING_MAX_CQ_ENTRIES).
const COMPLETIONS_MAX: usize = 1 << 16;

/// What only the process at its start knows.
pub struct Circumstances {
    /// The cores it may run on.
    pub cores: Vec<usize>,
    /// The open-file limit: what one ring's table can hold.
    pub open_files: u64,
    /// Addresses of this host.
    pub addresses: Vec<IpAddr>,
    pub clock: Clock,
}

impl Config {
    /// What is listened on, in order.
    pub fn listeners(&self) -> Vec<ListenerConfig> {
        let listener = |(listener, service): (&Listener, &Service)| ListenerConfig {
            address: listener.address,
            backlog: i32::from(self.listening.backlog),
            // Behind a proxy all have its address: they are handed over when it is known who they are.
            steer: match service.proxy {
                true => Steer::Kernel,
                false => self.listening.steer,
            },
            prefix: self.clients.prefix,
            options: SocketOptions::default(),
            service: *service,
        };
        let services = self.services();
        self.listening
            .listen
            .iter()
            .zip(&*services)
            .map(listener)
            .collect()
    }

    /// What the shards are started with.
    pub fn shards_config(
        &self,
        upstreams: Arc<[UpstreamSpec]>,
        here: &Circumstances,
    ) -> ShardsConfig {
        let shards = self.shards(here.cores.len());
        let ring = self.ring(shards, here.open_files);
        ShardsConfig {
            shards,
            cores: here.cores.clone(),
            gives_way: self.listening.gives_way,
            busy_wait: self.listening.busy_wait,
            world: self.world(shards, &ring, &here.addresses),
            ring,
            connections_max: self.listening.connections_max,
            upstreams,
            clock: here.clock,
        }
    }

    /// The lists that shards begin with.
    pub fn lists(&self) -> shard::Lists {
        shard::Lists {
            access: Arc::clone(&self.access),
            relay: Arc::clone(&self.relaying.relay),
            lore: Arc::clone(&self.remembering.lore),
        }
    }

    /// What the control thread goes by. `listening`: where, with the ports that the kernel chose; `sink`: the demo's upstream.
    pub fn control_config(
        &self,
        flags: Flags,
        listening: Vec<SocketAddr>,
        admin: Option<TcpListener>,
        sink: Option<SocketAddr>,
        clock: Clock,
    ) -> control::Config {
        let pool_max = self.upstreams.pool_max;
        let upstreams = match sink {
            None if self.identifying.intercept.is_some() => vec![original(self.original_tls)],
            Some(sink) => vec![Target {
                name: "sink".into(),
                host: sink.ip().to_string(),
                port: sink.port(),
                weight: 1,
                max: pool_max,
                tls: None,
            }],
            None => targets(&self.upstreams.upstreams, pool_max),
        };
        let (again, listen) = (upstreams.clone(), self.listening.addresses());
        let fixed = sink.is_some() || self.identifying.intercept.is_some();
        let reload = move || lists(&flags, &listen, pool_max, fixed.then(|| again.clone()));
        control::Config {
            admin,
            upstreams,
            tls: self.tls.material.clone(),
            resolvers: match self.asks_names() {
                true => self.resolving.resolvers.clone(),
                // Nobody would ask them.
                false => Resolvers::named(Vec::new()),
            },
            resolve_interval: self.upstreams.resolve_interval,
            drain: self.timeouts.drain,
            reload: Box::new(reload),
            keeping: self.keeping(),
            meeting: self.meeting(),
            clock,
            first: self.lists(),
            about: About {
                hostname: self.listening.hostname.clone(),
                listen: listening,
                mode: self.mode(),
                lists: self
                    .dnsbl
                    .zones
                    .iter()
                    .map(|zone| zone.public().to_string())
                    .collect(),
            },
        }
    }

    /// The file that what is learnt is kept in, with the limits that the shards have.
    fn keeping(&self) -> Option<Keeping> {
        let memory = self.policy().memory;
        Some(Keeping {
            path: self.lasting.file.clone()?,
            room: Room {
                tuples: memory.greylist.tuples_max.into(),
                networks: memory.networks_max.into(),
            },
            lives: Lives {
                tuple: memory.greylist.window,
                proven: memory.greylist.lifetime,
                trapped: memory.trap_time,
                half_life: memory.half_life,
            },
            prefix: memory.prefix,
        })
    }

    fn meeting(&self) -> Option<Meeting> {
        let policy = self.policy();
        Some(Meeting {
            server: self.lasting.server.clone()?,
            networks: policy.memory.prefix,
            clients: policy.prefix,
        })
    }

    /// What each listener is for, by its number.
    fn services(&self) -> Arc<[Service]> {
        let listeners = self.listening.listen.iter();
        listeners
            .map(|listener| Service {
                intercept: self.identifying.intercept,
                ..listener.service(self.tls.clients.clients)
            })
            .collect()
    }

    /// Locked memory that all shards' rings count as, for a user without CAP_IPC_LOCK. Other processes of that user count as well.
    pub fn locked_memory(&self, shards: usize, open_files: u64) -> u64 {
        shards as u64 * (rt::EXECUTOR_LOCKED + self.ring(shards, open_files).locked_bytes())
    }

    fn ring(&self, shards: usize, open_files: u64) -> RingConfig {
        let slots = sizes::slots_wanted(self).min(open_files).min(SLOTS_MAX) as usize;
        let held = usize::try_from(self.messages.hold_memory).unwrap_or(usize::MAX);
        RingConfig {
            slots,
            // With few files clients and upstreams share them evenly.
            reserve: (sizes::slots_reserved(self) as usize).min(slots / 2),
            completions: slots.next_power_of_two().clamp(4096, COMPLETIONS_MAX) as u32,
            client_buffers: self.listening.client_buffers.into(),
            upstream_buffers: self.listening.upstream_buffers.into(),
            buffer_size: BUFFER_SIZE,
            chunks: (held / BUFFER_SIZE / shards).max(16),
            gather: self.gather(),
            shows_news: !self.listening.busy_wait.is_zero(),
            ..RingConfig::default()
        }
    }

    /// A shard that looks for events has no sleep to save.
    fn gather(&self) -> Duration {
        match self.listening.busy_wait {
            Duration::ZERO => self.listening.gather,
            _ => Duration::ZERO,
        }
    }

    fn world(&self, shards: usize, ring: &RingConfig, addresses: &[IpAddr]) -> WorldConfig {
        let unless_zero = |limit: Duration| if limit.is_zero() { FOR_EVER } else { limit };
        let (pool, tarpit) = (&self.upstreams, &self.tarpit);
        WorldConfig {
            hostname: self.listening.hostname.as_bytes().into(),
            smtp: self.smtp(),
            services: self.services(),
            tls: self.tls.material.server_tls().map(Arc::new),
            identity: self.identifying.identity,
            dedicated: self.dedicated(addresses),
            proxied: ProxiedConfig {
                trust: self.trusting.networks.clone(),
                wait: self.trusting.proxy_timeout,
                owners: match self.listening.steer {
                    Steer::Client => shards,
                    Steer::Kernel => 1,
                },
            },
            hold_max: self.messages.hold_size,
            stream_share: pool.pool_share,
            slots: ring.slots as u32,
            reserve: ring.reserve as u32,
            chunks_max: ring.chunks as u32,
            policy: Arc::new(self.policy()),
            health: Default::default(),
            overload: self.clients.overload,
            session: SessionConfig {
                greet_wait: tarpit.greet_wait,
                greet_wait_stressed: tarpit.greet_wait.min(Duration::from_secs(2)),
            },
            leg: LegConfig {
                connect: pool.connect_timeout,
                handshake: self.timeouts.command.min(self.timeouts.rcpt),
                age_max: unless_zero(pool.pool_age),
                uses_max: pool.pool_uses,
                idle_max: pool.pool_idle,
                ..LegConfig::default()
            },
            wait: WaitConfig {
                time: unless_zero(pool.queue_wait),
                max: pool.queue_max as usize,
            },
            pit: PitConfig {
                rows_max: match tarpit.pit_max {
                    0 => ring.slots as u32,
                    max => max.div_ceil(shards as u32),
                },
                overflow: tarpit.pit_full,
                secure_max: match self.tls.clients.parked_max {
                    0 => u32::MAX,
                    max => max.div_ceil(shards as u32),
                },
            },
            probe: ProbeConfig {
                interval: pool.probe_interval,
                relay_test: pool.relay_test && !self.running.demo,
            },
            resolver: self.resolver(),
        }
    }

    fn resolver(&self) -> dns::Config {
        let resolving = &self.resolving;
        dns::Config {
            servers: resolving.resolvers.servers().to_vec(),
            timeout: resolving.timeout,
            patience: resolving.timeout * 5 / 2,
            cache: resolving.cache as usize,
            ttl_min: resolving.ttl.0,
            ttl_max: resolving.ttl.1,
            ..dns::Config::default()
        }
    }

    fn dedicated(&self, addresses: &[IpAddr]) -> DedicatedConfig {
        let listeners = self.listening.addresses();
        DedicatedConfig {
            starttls: self.identifying.starttls,
            mark: self.identifying.mark,
            addresses: addresses.into(),
            own: own_endpoints(&listeners, addresses).into(),
            listeners: listeners.into(),
        }
    }

    fn smtp(&self) -> smtp::Config {
        let (t, messages) = (&self.timeouts, &self.messages);
        let mut greeting = Vec::new();
        weir_smtp::texts::write_greeting(&mut greeting, self.listening.hostname.as_bytes());
        smtp::Config {
            hostname: self.listening.hostname.as_bytes().to_vec(),
            greeting,
            message_size_max: messages.size_max,
            recipients_max: messages.recipients_max,
            messages_max: messages.messages_max,
            bare_newline: messages.bare_newline,
            stream_window: STREAM_WINDOW,
            timeouts: smtp::Timeouts {
                command: t.command,
                idle: if t.idle.is_zero() { FOR_EVER } else { t.idle },
                body: t.body,
                rcpt_reply: t.rcpt,
                data_reply: t.data,
                final_reply: t.end,
                give_back: t.give_back,
                handshake: self.tls.clients.handshake_timeout,
                ..smtp::Timeouts::default()
            },
        }
    }

    /// What becomes of clients.
    pub fn policy(&self) -> policy::Config {
        let clients = &self.clients;
        policy::Config {
            actions: self.tarpit.actions.clone(),
            prefix: clients.prefix,
            concurrency: clients.concurrency,
            rate_connections: clients.rate_connections,
            rate_messages: clients.rate_messages,
            rate_recipients: clients.rate_recipients,
            rate_bytes: clients.rate_bytes,
            rate_handshakes: self.tls.clients.rate_handshakes,
            errors: clients.errors,
            temper: self.tarpit.temper,
            pace: policy::pace::Config {
                octets_per_second: self.messages.data_rate_min as u32,
                ..Default::default()
            },
            memory: policy::memory::Config {
                on: self.reputation().on,
                ..self.remembering.memory.clone()
            },
            reputation: self.reputation(),
            dnsbl: self.dnsbl.clone(),
            shares_rates: self.lasting.server.is_some(),
            clients_max: clients.clients_max,
        }
    }
}

/// Where a connection would be one to weir itself.
fn own_endpoints(listeners: &[SocketAddr], addresses: &[IpAddr]) -> Vec<SocketAddr> {
    let mut own = Vec::new();
    for listener in listeners {
        own.push(*listener);
        if listener.ip().is_unspecified() {
            let family = addresses
                .iter()
                .filter(|address| address.is_ipv4() == listener.is_ipv4());
            own.extend(family.map(|address| SocketAddr::new(*address, listener.port())));
        }
    }
    own
}

/// Stands in the table of upstreams for all hosts that clients want to go to themselves.
fn original(tls: Mode) -> Target {
    Target {
        name: "original".into(),
        host: "0.0.0.0".into(),
        port: 0,
        weight: 1,
        max: 0,
        tls: tls.map(UpstreamWish::anywhere),
    }
}

fn targets(upstreams: &[Upstream], pool_max: u32) -> Vec<Target> {
    let target = |upstream: &Upstream| Target {
        name: upstream.name(),
        host: upstream.host.clone(),
        port: upstream.port,
        weight: upstream.weight,
        max: upstream.max.unwrap_or(pool_max),
        tls: upstream.tls.clone(),
    };
    upstreams.iter().map(target).collect()
}

/// SIGHUP: the lists that the flags name, read again. `fixed`: upstreams that come from no list.
fn lists(
    flags: &Flags,
    listen: &[SocketAddr],
    pool_max: u32,
    fixed: Option<Vec<Target>>,
) -> Result<Lists, Vec<String>> {
    let mut reader = Reader::default();
    let tls = flags.upstream_tls.mode(&mut reader);
    let upstreams = super::flags::upstreams::upstreams(&mut reader, &flags.upstreams.upstream, tls);
    let access = flags.lists.read(&mut reader);
    let lore = flags.memory.lore(&mut reader);
    let identifying = flags.identity.read(&mut reader, Purpose::Relay);
    let relaying = flags.relay.read(&mut reader, listen, (&identifying).into());
    if fixed.is_none() && upstreams.is_empty() {
        reader.wrong(
            "--upstream",
            "",
            super::units::Fault::new("names no server any more", "keep one in the list"),
        );
    }
    reader
        .finish()
        .map_err(|wrong| wrong.iter().map(Wrong::to_string).collect::<Vec<_>>())?;
    Ok(Lists {
        upstreams: fixed.unwrap_or_else(|| targets(&upstreams, pool_max)),
        access: Arc::new(access),
        relay: relaying.relay,
        lore: Arc::new(lore),
    })
}

#[cfg(test)]
mod tests;
