//! Keeping house: what is looked at now and then, and what concerns the shard as a whole.
//!
//! The load and its ladder, levels for the metrics, the table of upstreams, and what weir announces in its EHLO reply.

use std::time::Duration;

use weir_smtp::extension::{Capabilities, ExtensionSet, announce};
use weir_smtp::gate::RouteId;
use weir_smtp::relay::{self, Announced, TlsOffer, UpstreamId};
use weir_smtp::texts;

use crate::maillog::Value;
use crate::metrics::{ClosedLeg, PitEnd, UPSTREAMS_MAX, Way};
use crate::policy::overload::{Ladder, Rung};
use crate::ring::Wire;
use crate::route::Planned;
use crate::route::upstream::WEIGHT_MAX;

use super::config::WorldConfig;
use super::mail::UpstreamSpec;
use super::slab::Key;
use super::who::{Chore, Who};
use super::world::World;

/// How often the house is kept.
const EVERY: Duration = Duration::from_secs(1);

/// Parked clients that are cut in one round, when the shard sheds.
const SHED_AT_ONCE: usize = 256;

/// Timeouts for clients under stress: Postfix cuts its own to 10 s there.
const STRESSED_COMMAND: Duration = Duration::from_secs(10);
const STRESSED_IDLE: Duration = Duration::from_secs(30);

/// A body may be held up to this under memory pressure.
const HOLD_MIN: u64 = 16 * 1024;

impl<W: Wire> World<W> {
    /// Once a second, also when nothing happens: a shard that sleeps between costs a few hundred microseconds an hour.
    pub(super) fn keep_house(&mut self) {
        self.wheel
            .insert(self.now + EVERY, Who::Chore(Chore::Housekeeping).to_bits());
        self.let_gathered_go();
        self.weigh_load();
        self.count_pools();
        self.policy.sweep(self.now);
        self.memory.sweep(self.wall());
        self.destinations.sweep(self.now);
        self.let_go_of_aside();
        self.note_if_sated();
        self.count_memory();
        self.count_resolver();
        let counters = &self.counters;
        counters
            .client_entries
            .set(self.policy.clients().len() as u64);
        counters.inquiries.set(self.inquiries.len() as u64);
        counters
            .destinations_dead
            .set(self.destinations.dead() as u64);
        counters.waiters.set(self.waiters.len() as u64);
        counters.slots_free.set(self.wire.free_slots() as u64);
        counters
            .held_bytes
            .set(self.wire.held_chunks() as u64 * 16 * 1024);
        counters
            .tls_handshake_micros
            .mirror(self.wire.shaking().as_micros() as u64);
        counters.tls_sessions.set(self.wire.secure_slots() as u64);
        counters.sessions_idle.set(self.idle_sessions as u64);
    }

    fn count_memory(&self) {
        let (counters, memory) = (&self.counters, &self.memory);
        counters.memory_networks.set(memory.networks().len() as u64);
        counters.memory_providers.set(memory.providers() as u64);
        counters.memory_tuples.set(memory.tuples().len() as u64);
        counters.memory_bytes.set(memory.memory() as u64);
    }

    /// Sockets that clients have, those that are being closed included.
    pub(super) fn client_slots_used(&self) -> usize {
        self.sessions.len() + self.pit.len() + self.proxied.len() + self.closing
    }

    /// The scarcest of slots, clients and buffers, in thousandths.
    fn load(&self) -> u16 {
        let part = |used: u64, all: u64| (used.min(all) * 1000 / all.max(1)) as u16;
        let slots = part(
            self.client_slots_used() as u64,
            self.config.client_slots().into(),
        );
        // --max-connections is its own limit, and all of it can be used: near it timeouts get shorter, no more.
        let clients = self
            .shared
            .clients_max()
            .map_or(0, |max| part(self.shared.clients().into(), max.into()));
        let clients = clients.min(self.config.overload.0[Rung::KnownOnly as usize - 1].high - 1);
        let chunks = part(
            self.wire.held_chunks() as u64,
            self.config.chunks_max.into(),
        );
        slots.max(clients).max(chunks)
    }

    /// Looks how full everything is, and takes a step on the ladder if that changed enough.
    pub(super) fn weigh_load(&mut self) {
        let chunks = u64::from(self.config.chunks_max);
        let held = self.wire.held_chunks() as u64;
        self.hold_max = if held * 4 > chunks * 3 {
            self.config.hold_max.min(HOLD_MIN)
        } else {
            self.config.hold_max
        };
        let load = self.load();
        if let Some(step) = self.ladder.update(load) {
            let way = if step.to > step.from {
                Way::In
            } else {
                Way::Out
            };
            self.counters.overload_steps.at(way).inc();
            self.counters.overload_level.set(step.to as u64);
            let fields = [
                ("from", Value::Word(step.from.word())),
                ("to", Value::Word(step.to.word())),
                ("load", Value::Number(load.into())),
            ];
            self.log.event(self.now, "overload", &fields);
        }
        if self.ladder.rung() == Rung::Shed {
            for _ in 0..SHED_AT_ONCE {
                let Some(row) = self.pit.oldest().and_then(|row| self.pit.take(row)) else {
                    break;
                };
                self.cut_row(row, PitEnd::Cut, &texts::OVERLOAD);
            }
        }
    }

    /// A new table of upstreams.
    pub(super) fn set_upstreams(&mut self, table: &[UpstreamSpec]) {
        let planned = |(number, spec): (usize, &UpstreamSpec)| Planned {
            id: UpstreamId(number as u16),
            route: RouteId::default(),
            weight: spec.weight.clamp(1, WEIGHT_MAX.into()) as u16,
            addresses: spec.addresses.clone(),
            tls: spec.tls.clone(),
        };
        let table = &table[..table.len().min(UPSTREAMS_MAX)];
        let plan: Vec<Planned> = table.iter().enumerate().map(planned).collect();
        self.routes.set_plan(&plan);
        self.routes.take_anywhere_for_granted();
        for (number, spec) in table.iter().enumerate() {
            self.shared.set_upstream_max(number, spec.max);
        }
        self.streams.resize(self.config.stream_share, table);
        self.upstream_names = table.iter().map(|spec| spec.name.clone()).collect();
        let retired = |key: &Key| {
            let endpoint = self
                .legs
                .get(*key)
                .and_then(|leg| self.routes.get(leg.endpoint));
            endpoint.is_none_or(|endpoint| endpoint.is_retired())
        };
        let leaving: Vec<Key> = self.pools.idle().filter(retired).collect();
        for leg in leaving {
            self.dismiss_leg(leg, ClosedLeg::Drain);
        }
        self.announce();
        self.probe_newcomers();
        self.open_for_waiters();
    }

    /// Computes what EHLO is answered with from now on: our own, and what every upstream in question can carry.
    pub(super) fn announce(&mut self) {
        let caps = announce(&self.config.own_limits(), self.routes.candidates());
        self.announced = Announcements::new(&self.config.smtp.hostname, &caps);
    }

    /// The timeouts of a shard under stress.
    pub(super) fn stressed(config: &WorldConfig) -> relay::Config {
        let mut smtp = config.smtp.clone();
        smtp.timeouts.command = smtp.timeouts.command.min(STRESSED_COMMAND);
        smtp.timeouts.idle = smtp.timeouts.idle.min(STRESSED_IDLE);
        smtp
    }

    /// An empty announcement, before any upstream was heard.
    pub(super) fn unannounced(config: &WorldConfig) -> Announcements {
        let caps = announce(&config.own_limits(), std::iter::empty());
        Announcements::new(&config.smtp.hostname, &caps)
    }
}

/// What EHLO is answered with.
pub struct Announcements {
    clients: ByTls,
    /// To peers that may speak for others.
    trusted: ByTls,
}

/// By how the client stands to TLS.
struct ByTls {
    plain: Announced,
    offered: Announced,
    inside: Announced,
}

impl Announcements {
    fn new(hostname: &[u8], caps: &Capabilities) -> Announcements {
        let mut trusted = *caps;
        trusted.set.insert(ExtensionSet::XCLIENT);
        Announcements {
            clients: ByTls::new(hostname, caps),
            trusted: ByTls::new(hostname, &trusted),
        }
    }

    pub fn to(&self, tls: TlsOffer, trusted: bool) -> &Announced {
        let texts = if trusted {
            &self.trusted
        } else {
            &self.clients
        };
        match tls {
            TlsOffer::Off => &texts.plain,
            TlsOffer::May | TlsOffer::Require => &texts.offered,
            TlsOffer::Active => &texts.inside,
        }
    }
}

impl ByTls {
    fn new(hostname: &[u8], caps: &Capabilities) -> ByTls {
        let to = |tls| Announced::new(hostname, *caps, tls);
        ByTls {
            plain: to(TlsOffer::Off),
            offered: to(TlsOffer::May),
            inside: to(TlsOffer::Active),
        }
    }
}

/// The machine's configuration at the present load.
pub(super) fn smtp_config<'a>(
    config: &'a WorldConfig,
    stressed: &'a relay::Config,
    ladder: &Ladder,
) -> &'a relay::Config {
    match ladder.rung() {
        Rung::Calm => &config.smtp,
        _ => stressed,
    }
}
