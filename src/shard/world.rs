//! One shard's whole world, and who is called for what: completions, mail and timers in, work for the network out.
//!
//! ```text
//!   Event (completion) --> handle --+--> socket.rs   a client spoke, took its reply, left
//!   Mail  (other threads) -> handle_mail  leg.rs      an upstream connected, answered, left
//!   Moment (the wheel) ---> tick    +--> pit, chores, those with more input to read
//! ```
//!
//! The world reads no clock, opens no file and starts no thread: time, chance and the network are given to it, so that
//! the simulation runs exactly this code. Owners are named by slab keys and looked up at each step; a step that finds
//! its owner gone does nothing. A step that panics ends its owner, with what it is attached to, and nobody else.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use weir_smtp::gate::Verdict;
use weir_smtp::relay::{self, Act, Acts, Gone, SparePool};
use weir_smtp::time::Moment;

use crate::dns;
use crate::maillog::LogBuffer;
use crate::metrics::{ClosedLeg, Counters, Ended};
use crate::policy::Policy;
use crate::policy::access::Access;
use crate::policy::lore::Lore;
use crate::policy::memory::Memory;
use crate::policy::names::Ours;
use crate::policy::news::Seconds;
use crate::policy::overload::Ladder;
use crate::ring::{BufferId, Close, Event, Part, Wire};
use crate::route::{Approach, Identity, Routes};
use crate::tls::{Layer, ServerTls};

use super::ahead::Ahead;
use super::config::WorldConfig;
use super::destinations::Destinations;
use super::drain::Drain;
use super::explain::Explaining;
use super::flights::Flights;
use super::hearsay::Hearsay;
use super::house::Announcements;
use super::inquiry::{self, Inquiries};
use super::intake::Pending;
use super::introduction::Introductions;
use super::leg::Leg;
use super::lists::Lists;
use super::mail::{Mail, To, UpstreamSpec};
use super::parking::Belongings;
use super::pit::Pit;
use super::pool::Pools;
use super::proxied::Proxied;
use super::replies::Replies;
use super::resolver::Resolver;
use super::session::Session;
use super::shared::Shared;
use super::shortage::Shortage;
use super::slab::{Key, Slab};
use super::streams::Streams;
use super::tunnel::Tunnels;
use super::waiters::Waiters;
use super::wheel::Wheel;
use super::who::{Chore, Who};

/// Sessions that get another turn of reading in one tick.
const READERS_PER_TICK: usize = 64;

/// What a world is made of besides its network.
pub struct Setup {
    pub config: Arc<WorldConfig>,
    pub access: Arc<Access>,
    pub relay: Arc<crate::policy::relay::Relay>,
    /// What is known of addresses at the start.
    pub lore: Arc<Lore>,
    pub upstreams: Arc<[UpstreamSpec]>,
    /// Which of the shards this is.
    pub shard: usize,
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
    pub log: LogBuffer,
    /// Seconds since 1970 at [`Moment::ZERO`].
    pub unix: u64,
    /// Numbers that nobody can foresee.
    pub chance: dns::Chance,
}

pub struct World<W: Wire> {
    /// The network, with TLS where a slot has begun it.
    pub(super) wire: Layer<W>,
    pub(super) shard: usize,
    pub(super) now: Moment,
    unix: u64,
    pub(super) config: Arc<WorldConfig>,
    pub(super) announced: Announcements,
    /// What `config.smtp` becomes under stress.
    pub(super) stressed: relay::Config,
    pub(super) ladder: Ladder,
    /// Octets of a body that may be held before it streams; lowered when buffers are scarce.
    pub(super) hold_max: u64,
    pub(super) sessions: Slab<Session>,
    pub(super) legs: Slab<Leg>,
    pub(super) pit: Pit<Belongings>,
    /// Rows with TLS.
    pub(super) parked_secure: u32,
    pub(super) ahead: Ahead,
    pub(super) introductions: Introductions,
    pub(super) inquiries: Inquiries,
    pub(super) lists: Lists,
    pub(super) ours: Ours,
    pub(super) explaining: Explaining,
    pub(super) proxied: Slab<Proxied>,
    pub(super) wheel: Wheel,
    pub(super) policy: Policy,
    /// What is remembered of networks, and what of it others should know.
    pub(super) memory: Memory,
    pub(super) hearsay: Hearsay,
    pub(super) lore: Arc<Lore>,
    /// What clients shake hands with.
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) routes: Routes,
    pub(super) pools: Pools,
    pub(super) destinations: Destinations,
    pub(super) tunnels: Tunnels,
    pub(super) waiters: Waiters<Key>,
    pub(super) shortage: Shortage,
    pub(super) streams: Streams,
    pub(super) drain: Drain,
    /// Acts of the relay that is being stepped; empty between steps.
    pub(super) acts: Acts,
    pub(super) spare: SparePool,
    pub(super) flights: Flights,
    pub(super) resolver: Resolver,
    pub(super) replies: Replies,
    pub(super) intakes: Vec<Vec<Pending>>,
    /// Scratch: the text of the reply that is being handed over, the parts of the flight that is being gathered.
    pub(super) reply: Vec<u8>,
    pub(super) parts: Vec<Part>,
    pub(super) copied: Vec<u8>,
    /// The chunk that waiting input of all sessions is put aside to.
    pub(super) aside: Option<BufferId>,
    /// Sessions with more input than one turn's share.
    pub(super) readable: VecDeque<Key>,
    /// Sessions whose replies wait for the next one.
    pub(super) gathering: Vec<Key>,
    /// Connections free for the next transaction.
    pub(super) offers: VecDeque<Key>,
    pub(super) outgoing: VecDeque<(To, Mail)>,
    pub(super) shared: Arc<Shared>,
    pub(super) counters: Arc<Counters>,
    pub(super) log: LogBuffer,
    pub(super) sessions_seen: u64,
    /// Sessions that are between transactions.
    pub(super) idle_sessions: usize,
    /// Names of the upstreams by number, for the log.
    pub(super) upstream_names: Vec<String>,
    /// Endpoints that a probe has spoken to, and asked whether they relay for the world.
    pub(super) introduced: Vec<Approach>,
    /// The answer to the connect gate of the session that is just being greeted.
    pub(super) welcome: Option<Verdict>,
    /// Slots whose end is awaited.
    pub(super) closing: usize,
    pub(super) retry_armed: bool,
    /// Questions that a test keeps open.
    #[cfg(test)]
    pub(super) asked: Option<Vec<(crate::dns::Question, super::lookups::Asker)>>,
    /// Whose step is running, for the case that it panics.
    stepping: Who,
}

impl<W: Wire> World<W> {
    pub fn new(setup: Setup, wire: W, now: Moment) -> World<W> {
        let config = setup.config;
        let slots = config.slots;
        let mut world = World {
            wire: Layer::new(wire),
            shard: setup.shard,
            now,
            unix: setup.unix,
            announced: Self::unannounced(&config),
            stressed: Self::stressed(&config),
            ladder: Ladder::new(config.overload),
            hold_max: config.hold_max,
            sessions: Slab::new(slots),
            legs: Slab::new(slots),
            pit: Pit::new(config.pit.rows_max, config.pit.overflow, now),
            parked_secure: 0,
            ahead: Ahead::default(),
            introductions: Introductions::default(),
            explaining: Explaining::default(),
            inquiries: Inquiries::new(slots),
            ours: inquiry::names::ours(&config),
            lists: Lists::new(&config.policy, now),
            proxied: Slab::new(slots),
            wheel: Wheel::new(now),
            tls: config.tls.clone(),
            policy: Policy::new(config.policy.clone(), setup.access, setup.relay),
            memory: Memory::new(config.policy.memory.clone()),
            hearsay: Hearsay::default(),
            lore: setup.lore,
            routes: Routes::new(config.health),
            pools: Pools::default(),
            destinations: Destinations::new(config.identity == Identity::Transparent),
            tunnels: Tunnels::new(slots),
            waiters: Waiters::new(config.wait.max),
            shortage: Shortage::default(),
            streams: Streams::by(config.policy.prefix),
            drain: Drain::default(),
            acts: Acts::new(),
            spare: SparePool::default(),
            flights: Flights::default(),
            resolver: Resolver::new(config.resolver.clone(), setup.chance),
            replies: Replies::default(),
            intakes: Vec::new(),
            reply: Vec::new(),
            parts: Vec::new(),
            copied: Vec::new(),
            aside: None,
            readable: VecDeque::new(),
            gathering: Vec::new(),
            offers: VecDeque::new(),
            outgoing: VecDeque::new(),
            shared: setup.shared,
            counters: setup.counters,
            log: setup.log,
            sessions_seen: 0,
            idle_sessions: 0,
            upstream_names: Vec::new(),
            introduced: Vec::new(),
            welcome: None,
            closing: 0,
            retry_armed: false,
            #[cfg(test)]
            asked: None,
            stepping: Who::Nobody,
            config,
        };
        world.set_upstreams(&setup.upstreams);
        world.keep_house();
        world.begin_list_tests();
        if !world.config.probe.interval.is_zero() {
            let first = now + world.config.probe.interval;
            world
                .wheel
                .insert(first, Who::Chore(Chore::Probe).to_bits());
        }
        world
    }

    /// What has happened on the network.
    pub fn handle(&mut self, now: Moment, event: Event) {
        self.now = now;
        self.guarded(|world| {
            if let Some(owner) = event.owner() {
                // Whose record it is, for the case that it cannot be digested.
                world.step(owner.into());
            }
            if let Some(event) = world.wire.admit(event) {
                world.dispatch(event);
            }
        });
        self.hear_layer();
    }

    /// What another thread has to say.
    pub fn handle_mail(&mut self, now: Moment, mail: Mail) {
        self.now = now;
        self.guarded(|world| world.open_mail(mail));
        self.hear_layer();
    }

    /// Timers, and work that was left for later so that everybody gets a turn. Call once a turn, after the events.
    pub fn tick(&mut self, now: Moment) {
        self.now = now;
        while let Some(bits) = self.wheel.pop(now) {
            self.guarded(|world| world.fire(Who::from_bits(bits)));
        }
        self.guarded(|world| world.pump_tunnels());
        self.guarded(|world| world.tend_pit());
        self.guarded(|world| world.learn_some());
        self.guarded(|world| {
            world.drain_some();
            world.serve_offers();
        });
        for _ in 0..self.readable.len().min(READERS_PER_TICK) {
            self.guarded(|world| world.next_reader());
        }
        self.hear_layer();
        // What answers lead to may be said inside TLS, and what is heard there may lead to questions.
        while self.mind_resolver() {
            self.hear_layer();
        }
    }

    /// What has become of records, and then everything that is to be sent inside TLS.
    fn hear_layer(&mut self) {
        loop {
            while self.wire.has_events() {
                self.guarded(|world| {
                    if let Some(event) = world.wire.next_event() {
                        world.dispatch(event);
                    }
                });
            }
            if !self.wire.has_flights() {
                return;
            }
            self.guarded(|world| {
                let World { wire, stepping, .. } = world;
                wire.flush(|owner| *stepping = owner.into());
            });
        }
    }

    /// When [`World::tick`] is needed if nothing happens before; the present when work is left.
    pub fn next_deadline(&self) -> Moment {
        let has_work = !self.readable.is_empty() || !self.hearsay.is_empty();
        if has_work || self.tunnels.has_work() || self.wire.has_events() {
            return self.now;
        }
        let wheel = self.wheel.next().unwrap_or(Moment::NEVER);
        wheel
            .min(self.pit.next().unwrap_or(Moment::NEVER))
            .min(self.resolver.deadline(self.now))
            .min(self.drain_deadline())
    }

    /// Mail for other shards.
    pub fn take_mail(&mut self) -> Option<(To, Mail)> {
        self.outgoing.pop_front()
    }

    pub fn wire(&mut self) -> &mut W {
        &mut self.wire
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Accepted {
                listener,
                slot,
                peer,
                destination,
            } => self.accepted(listener, slot, peer, destination),
            Event::AcceptFailed { error, .. } => self.accept_failed(&error),
            Event::Connected {
                slot,
                owner,
                result,
            } => match self.step(owner.into()) {
                Who::Leg(key) => self.leg_connected(key, result),
                Who::Resolver(lane) => self.resolver_connected(lane, &result),
                _ => self.close_slot(slot, Close::Now),
            },
            Event::Received {
                owner, buffer, len, ..
            } => match self.step(owner.into()) {
                Who::Session(key) => self.client_received(key, buffer, len),
                Who::Leg(key) => self.leg_received(key, buffer, len),
                Who::Row(row) => self.row_spoke(row, buffer, len),
                Who::Proxied(key) => self.proxied_received(key, buffer, len),
                Who::Tunnel(id, side) => self.tunnel_received(id, side, buffer, len),
                Who::Resolver(lane) => self.resolver_received(lane, buffer, len),
                Who::Inquiry(_) | Who::Chore(_) | Who::Nobody => self.release(buffer),
            },
            Event::ReceiveEnded { owner, why, .. } => match self.step(owner.into()) {
                Who::Session(key) => self.client_receive_ended(key, why),
                Who::Leg(key) => self.leg_receive_ended(key, why),
                Who::Row(row) => self.row_silent(row, why),
                Who::Proxied(key) => self.proxied_receive_ended(key, &why),
                Who::Tunnel(id, side) => self.tunnel_receive_ended(id, side, why),
                Who::Resolver(lane) => self.resolver_receive_ended(lane, &why),
                Who::Inquiry(_) | Who::Chore(_) | Who::Nobody => {}
            },
            Event::Sent {
                owner,
                result,
                flight,
                ..
            } => match self.step(owner.into()) {
                Who::Session(key) => self.client_sent(key, result, flight),
                Who::Leg(key) => self.leg_sent(key, result, flight),
                Who::Row(row) => {
                    self.flights.give_back(flight);
                    self.row_dripped(row, result);
                }
                Who::Tunnel(id, side) => self.tunnel_sent(id, side, result, flight),
                Who::Resolver(lane) => self.resolver_sent(lane, &result, flight),
                Who::Proxied(_) | Who::Inquiry(_) | Who::Chore(_) | Who::Nobody => {
                    self.flights.give_back(flight)
                }
            },
            Event::Secured { owner, result, .. } => match self.step(owner.into()) {
                Who::Session(key) => self.client_secured(key, result),
                Who::Leg(key) => self.leg_secured(key, result),
                Who::Row(_)
                | Who::Proxied(_)
                | Who::Tunnel(..)
                | Who::Inquiry(_)
                | Who::Resolver(_)
                | Who::Chore(_)
                | Who::Nobody => {}
            },
            Event::Extracted { owner, result, .. } => {
                if let Who::Proxied(key) = self.step(owner.into()) {
                    self.extracted(key, result);
                }
            }
            Event::Closed { .. } => self.closing -= 1,
            Event::Doorbell | Event::Background => {}
        }
        self.serve_offers();
    }

    fn fire(&mut self, who: Who) {
        match self.step(who) {
            Who::Session(key) => self.session_timer(key),
            Who::Leg(key) => self.leg_timer(key),
            Who::Proxied(key) => self.proxied_timer(key),
            Who::Tunnel(id, _) => self.tunnel_timer(id),
            Who::Inquiry(key) => self.inquiry_timer(key),
            Who::Chore(Chore::Waiters) => self.open_for_waiters(),
            Who::Chore(Chore::Probe) => self.send_probes(),
            Who::Chore(Chore::Drain) => self.drain_timer(),
            Who::Chore(Chore::Shortage) => self.shortage_timer(),
            Who::Chore(Chore::Lists) => self.test_lists(),
            Who::Chore(Chore::Housekeeping) => self.keep_house(),
            Who::Row(_) | Who::Resolver(_) | Who::Nobody => {}
        }
        self.serve_offers();
    }

    fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Upstreams(table) => self.set_upstreams(&table),
            Mail::Access(lists) => self.policy.set_access(lists),
            Mail::Relay(lists) => self.policy.set_relay(lists),
            Mail::Lore(lore) => self.lore = lore,
            Mail::Tls(tls) => self.tls = Some(tls),
            Mail::Resolvers(servers) => self.set_resolvers(&servers),
            Mail::Explain(asked) => self.explain(asked),
            Mail::Drain { grace } => self.begin_drain(grace),
            Mail::End => self.end_at_once(),
            Mail::Probed { approach, result } => self.probed(&approach, result),
            Mail::ListDoubted { list } => self.doubt_list(list),
            Mail::ListTested { list, standings } => self.list_tested(list, standings),
            Mail::Starving { upstream } => self.yield_connection(upstream.into()),
            Mail::PermitFree { .. } => self.open_for_waiters(),
            Mail::News(letter) => self.hear_news(letter),
            Mail::Owed(owed) => self.policy.owe(&owed, self.now),
            Mail::HandOver(letter) => {
                if let Some(letter) = Arc::into_inner(letter) {
                    self.taken_over(letter);
                }
            }
        }
        self.serve_offers();
    }

    fn next_reader(&mut self) {
        let Some(key) = self.readable.pop_front() else {
            return;
        };
        self.step(Who::Session(key));
        if let Some(session) = self.sessions.get_mut(key) {
            session.flags.queued = false;
            self.feed(key);
        }
        self.serve_offers();
    }

    pub(super) fn release(&mut self, buffer: BufferId) {
        self.wire.release(buffer);
    }

    /// The present in seconds since 1970: for what is kept beyond this run.
    pub fn wall(&self) -> Seconds {
        let here = self.now.as_micros() / 1_000_000;
        Seconds::try_from(self.unix + here).unwrap_or(Seconds::MAX)
    }

    /// Notes whose step this is.
    pub(super) fn step(&mut self, who: Who) -> Who {
        self.stepping = who;
        who
    }

    pub(super) fn guarded(&mut self, step: impl FnOnce(&mut Self)) {
        self.stepping = Who::Nobody;
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_err() {
            self.contain_panic();
        }
    }
}

impl<W: Wire> World<W> {
    /// A step panicked: whoever it was for is ended, with what it is attached to. Everybody else goes on.
    fn contain_panic(&mut self) {
        self.counters.panics.inc();
        let who = self.stepping;
        log::error!(
            "shard {}: a step for {who:?} panicked; it is closed, the shard goes on",
            self.shard
        );
        self.acts.clear();
        let leg = match who {
            Who::Session(key) => self.abandon_session(key),
            Who::Leg(key) => Some(key),
            Who::Row(row) => {
                self.guarded_once(|world| world.row_left(row));
                None
            }
            Who::Proxied(key) => {
                if let Some(slot) = self.abandon_proxied(key) {
                    self.close_slot(slot, Close::Reset);
                }
                None
            }
            Who::Tunnel(id, _) => self.abandon_tunnel(id),
            Who::Resolver(lane) => {
                self.guarded_once(|world| world.lose_lane(lane));
                None
            }
            Who::Inquiry(_) | Who::Chore(_) | Who::Nobody => None,
        };
        if let Some(leg) = leg {
            let session = self.legs.get(leg).and_then(|leg| leg.session());
            self.guarded_once(|world| world.close_leg(leg, Some(ClosedLeg::Aborted)));
            if let Some(session) = session {
                self.abandon_session(session);
            }
        }
    }

    /// Takes a session out without asking it anything but to let go of its buffers. Returns the leg it was attached to.
    pub(super) fn abandon_session(&mut self, key: Key) -> Option<Key> {
        self.forget_tunnel_of(key);
        let session = self.sessions.get_mut(key)?;
        session.ended = Ended::Panic;
        let leg = session.leg.take();
        let slot = session.slot.take();
        if let Some(slot) = slot {
            self.close_slot(slot, Close::Reset);
        }
        self.guarded_once(|world| {
            world.relay_call(key, |relay, cx| relay.handle_client_gone(cx, Gone::Reset));
            while let Some(act) = world.acts.pop_front() {
                if let Act::Release(buffer) = act {
                    world.release(buffer);
                }
            }
        });
        self.acts.clear();
        self.guarded_once(|world| world.end_session(key));
        // Should even that have failed, the entry itself must not stay.
        self.take_session(key);
        leg
    }

    /// Cleaning up after a panic may meet the same defect again; then it is left at that.
    fn guarded_once(&mut self, step: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_err() {
            log::error!(
                "shard {}: cleaning up after a panic panicked too",
                self.shard
            );
        }
    }
}
