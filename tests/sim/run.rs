//! One simulation from beginning to end: the loop that joins shards, network and peers, and the checks on the way.
//!
//! A turn of a shard is what its run loop does: hand out the events that are due, then tick. Time jumps to whatever is due next. After the
//! last client has left, everything is given time to come to rest; then weir is drained, and nothing may be left of anything.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::panic;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use weir::maillog;
use weir::metrics::Counters;
use weir::policy::access::Access;
use weir::policy::news::News;
use weir::policy::relay::{Relay, RelayDomains};
use weir::shard::mail::{Mail, To, UpstreamSpec};
use weir::shard::shared::Shared;
use weir::shard::{Setup, World};
use weir_smtp::time::Moment;

use crate::chance::Chance;
use crate::client::{Client, Kind};
use crate::ledger::{Counts, Ledger, SharedLedger};
use crate::names::NameServer;
use crate::net::{Door, Net, Party, SharedNet};
use crate::scenario::{Scenario, UpstreamPlan, Weather};
use crate::tasks::Tasks;
use crate::upstream::{Offers, Server, Temper};
use crate::wire::{Caps, SharedCaps, SimWire};

/// Turns in one moment of time after which a shard is taken for spinning.
const TURNS_AT_ONCE: u64 = 20_000;

/// When everything has to be over.
const END_OF_TIME: Moment = Moment::from_micros(48 * 3600 * 1_000_000);

/// After the last client has gone: longer than an upstream may take with a final reply.
const REST: Duration = Duration::from_secs(900);

/// How long a drain may take: the longest deadline of a reply, and some.
const DRAIN_MAX: Duration = Duration::from_secs(700);

/// How long weir may take to end at once.
const HURRY_MAX: Duration = Duration::from_secs(5);

/// Numbers from here on are no upstreams.
const UPSTREAMS_MAX: usize = 1000;

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub wrong: Vec<String>,
    pub counts: Counts,
    pub turns: u64,
    pub ended: Moment,
}

impl Outcome {
    pub fn add(&mut self, other: &Outcome) {
        self.turns += other.turns;
        self.ended = self.ended.max(other.ended);
        self.counts.add(&other.counts);
    }
}

/// Runs the scenario of a seed.
pub fn run(seed: u64, scenario: &Scenario, logs: bool) -> Outcome {
    catch_words_of_panics();
    RUNNING.set(true);
    let mut simulation = Simulation::new(seed, scenario.clone(), logs);
    let result = panic::catch_unwind(panic::AssertUnwindSafe(|| simulation.play()));
    let mut outcome = simulation.outcome();
    RUNNING.set(false);
    let mut panicked = PANICS.take();
    panicked.dedup();
    if result.is_err() || !panicked.is_empty() {
        outcome
            .wrong
            .extend(panicked.into_iter().map(|words| format!("panic: {words}")));
    }
    outcome
}

/// Well-behaved clients and a well-behaved upstream, connected to each other.
pub fn run_without_weir(seed: u64) -> Outcome {
    let mut scenario = Scenario::from_seed(seed);
    scenario.shards = 0;
    scenario.drain = None;
    scenario.upstreams.truncate(1);
    let upstream = &mut scenario.upstreams[0];
    upstream.temper = Temper::default();
    upstream.crash = None;
    upstream.offers = Offers::everything();
    for plan in &mut scenario.clients {
        plan.kind = Kind::Proper;
        plan.bare_newlines = 0;
        plan.detours = 0;
        // The server itself would hang up on a client that waits longer.
        plan.gap = plan.gap.min(Duration::from_secs(200));
    }
    if scenario.weather == Weather::Foul {
        scenario.weather = Weather::Rough;
    }
    run(seed, &scenario, false)
}

struct Simulation {
    scenario: Scenario,
    net: SharedNet,
    tasks: Tasks,
    ledger: SharedLedger,
    servers: Vec<Rc<Server>>,
    names: Vec<(SocketAddr, Rc<NameServer>)>,
    shards: Vec<World<SimWire>>,
    shared: Arc<Shared>,
    mail: Vec<(usize, Mail)>,
    /// When shards last told each other what they have learnt.
    told: Moment,
    counters: Vec<Arc<Counters>>,
    writer: Option<maillog::Writer>,
    /// Crashes and returns to come, latest first.
    fates: Vec<(Moment, usize, bool)>,
    /// The table of upstreams is read again, latest first.
    reloads: Vec<Moment>,
    chance: Chance,
    turns: u64,
    turns_here: u64,
}

impl Simulation {
    fn new(seed: u64, scenario: Scenario, logs: bool) -> Simulation {
        let mut chance = Chance::new(seed ^ 0xabcd);
        let net = Rc::new(RefCell::new(Net::new(chance.fork())));
        let ledger = Ledger::new(scenario.newlines);
        let servers = servers(&scenario, &mut chance, &net, &ledger);
        let file = (!logs).then(|| PathBuf::from("/dev/null"));
        let log = maillog::Config {
            file,
            ..maillog::Config::default()
        };
        let writer = maillog::Writer::start(log, Instant::now()).expect("the log opens");
        let shared = Arc::new(Shared::new(scenario.clients_max));
        let caps: SharedCaps = Rc::new(RefCell::new(Caps::default()));
        for (index, upstream) in scenario.upstreams.iter().enumerate() {
            for address in &upstream.spec.addresses {
                caps.borrow_mut().set(*address, index, upstream.spec.max);
            }
        }
        for (nth, server) in scenario
            .names
            .iter()
            .flat_map(|plan| &plan.servers)
            .enumerate()
        {
            caps.borrow_mut().set(*server, UPSTREAMS_MAX + nth, 0);
        }
        let mut simulation = Simulation {
            net,
            tasks: Tasks::default(),
            ledger,
            servers,
            names: Vec::new(),
            shards: Vec::new(),
            shared,
            mail: Vec::new(),
            told: Moment::ZERO,
            counters: Vec::new(),
            fates: fates(&scenario.upstreams),
            reloads: scenario.reloads.iter().rev().copied().collect(),
            chance: chance.fork(),
            writer: None,
            turns: 0,
            turns_here: 0,
            scenario,
        };
        for shard in 0..simulation.scenario.shards {
            let counters = Arc::new(Counters::default());
            let log = writer.logs().buffer(shard, counters.clone());
            simulation.counters.push(counters);
            simulation.add_shard(shard, log, &mut chance, &caps);
        }
        simulation.writer = Some(writer);
        simulation.start_clients(&mut chance);
        simulation.start_name_servers(seed);
        simulation
    }

    fn add_shard(
        &mut self,
        shard: usize,
        log: maillog::LogBuffer,
        chance: &mut Chance,
        caps: &SharedCaps,
    ) {
        let mut options = self.scenario.wire.clone();
        options.shard = shard;
        let weather = self.scenario.weather;
        // Apart from all else that is left to chance, so that a seed means what it meant without questions.
        let mut numbers = Chance::new(!chance.clone().next());
        let mut lines = chance.fork();
        let wire = SimWire::new(
            self.net.clone(),
            chance.fork(),
            options,
            caps.clone(),
            move |_| weather.line(&mut lines),
        );
        let relay = Relay {
            domains: RelayDomains::Any,
            ..Relay::default()
        };
        let setup = Setup {
            config: Arc::new(self.scenario.config.clone()),
            access: Arc::new(Access::default()),
            relay: Arc::new(relay),
            lore: Arc::default(),
            upstreams: self.scenario.specs(),
            shard,
            shared: self.shared.clone(),
            counters: self.counters[shard].clone(),
            log,
            unix: 1_800_000_000,
            chance: Box::new(move || numbers.next()),
        };
        let now = self.net.borrow().now();
        self.shards.push(World::new(setup, wire, now));
        self.net.borrow_mut().set_door(listener(shard), Door::Open);
    }

    fn start_clients(&mut self, chance: &mut Chance) {
        for (nth, plan) in self.scenario.clients.iter().enumerate() {
            let client = Client {
                plan: plan.clone(),
                address: SocketAddr::from(([10, 2, 0, nth as u8], 40_000)),
                server: self.server_of(nth),
                line: self.scenario.weather.line(chance),
                chance: chance.fork(),
                ledger: self.ledger.clone(),
                bears: self.scenario.bears,
            };
            self.tasks.start(&self.net, client.run());
        }
    }

    fn start_name_servers(&mut self, seed: u64) {
        let Some(plan) = self.scenario.names.clone() else {
            return;
        };
        let mut chance = Chance::new(seed ^ 0xd45);
        self.net.borrow_mut().set_fate(plan.fate);
        for &at in &plan.servers[plan.dead..] {
            let server = NameServer::new(Rc::new(plan.lore), plan.faults, chance.fork());
            self.net.borrow_mut().set_door(at, Door::Open);
            self.tasks
                .start(&self.net, server.clone().answer_datagrams(at));
            self.names.push((at, server));
        }
    }

    /// Whom a client connects to; without shards that is the upstream itself.
    fn server_of(&self, client: usize) -> SocketAddr {
        match self.scenario.shards {
            0 => self.scenario.upstreams[0].spec.addresses[0],
            shards => listener(client % shards),
        }
    }

    fn play(&mut self) {
        let drain = self.scenario.drain;
        if let Some((at, grace)) = drain {
            self.until(at, |_| false);
            if let Some(after) = self.scenario.second_signal {
                return self.end_in_a_hurry(grace, after);
            }
            self.drain(grace);
        }
        self.until(END_OF_TIME, |simulation| simulation.clients_are_gone());
        if !self.clients_are_gone() {
            return self.wrong("clients are still there at the end of time");
        }
        let now = self.net.borrow().now();
        if drain.is_none() {
            self.heal();
            self.until(now + REST, |_| false);
            self.drain(Duration::ZERO);
        }
        self.check_end();
    }

    /// Everybody who began as a client has left.
    fn clients_are_gone(&self) -> bool {
        self.tasks.finished(self.scenario.clients.len())
    }

    /// From now on upstreams behave.
    fn heal(&mut self) {
        for server in &self.servers {
            *server.temper.borrow_mut() = Temper::default();
        }
    }

    fn drain(&mut self, grace: Duration) {
        self.begin_drain(grace);
        let by = self.net.borrow().now() + grace + DRAIN_MAX;
        self.until(by, |simulation| {
            simulation.shards.iter().all(World::is_over)
        });
        if !self.shards.iter().all(World::is_over) {
            self.wrong("the drain did not end");
        }
    }

    fn begin_drain(&mut self, grace: Duration) {
        for shard in 0..self.shards.len() {
            self.net
                .borrow_mut()
                .set_door(listener(shard), Door::Refuses);
            self.shards[shard].wire().stop_accepting();
            self.mail.push((shard, Mail::Drain { grace }));
        }
    }

    /// A second signal follows the first: weir ends at once, and nobody is waited for. What was said until then has to be true.
    fn end_in_a_hurry(&mut self, grace: Duration, after: Duration) {
        self.begin_drain(grace);
        let at = self.net.borrow().now() + after;
        self.until(at, |_| false);
        for shard in 0..self.shards.len() {
            self.mail.push((shard, Mail::End));
        }
        let ends = |shard: &World<SimWire>| shard.is_ending() || shard.is_over();
        self.until(at + HURRY_MAX, |simulation| {
            simulation.shards.iter().all(ends)
        });
        if !self.shards.iter().all(ends) {
            self.wrong("the second signal did not end it");
        }
    }

    fn check_end(&mut self) {
        for shard in 0..self.shards.len() {
            let counters = self.counters[shard].clone();
            if counters.panics.value() > 0 {
                self.wrong(&format!("shard {shard} has contained a panic"));
            }
            let leftovers = self.shards[shard].wire().leftovers();
            leftovers
                .iter()
                .for_each(|what| self.wrong(&format!("at the end of shard {shard} {what}")));
        }
        if self.shared.clients() > 0 {
            let clients = self.shared.clients();
            self.wrong(&format!("{clients} clients are still counted at the end"));
        }
        for upstream in 0..self.scenario.upstreams.len() {
            let open = self.shared.upstream_open(upstream);
            if open > 0 {
                self.wrong(&format!(
                    "{open} permits of upstream {upstream} were not given back"
                ));
            }
        }
        self.ledger.borrow_mut().close(&self.net.borrow());
    }

    fn outcome(&mut self) -> Outcome {
        if let Some(writer) = self.writer.take() {
            writer.finish();
        }
        let mut ledger = self.ledger.borrow_mut();
        Outcome {
            wrong: ledger.take_wrong(),
            counts: ledger.counts,
            turns: self.turns,
            ended: self.net.borrow().now(),
        }
    }

    fn wrong(&mut self, what: &str) {
        self.ledger.borrow_mut().wrong(what.to_owned());
    }

    /// Lets time pass until `at`, or until it is enough.
    fn until(&mut self, at: Moment, enough: impl Fn(&Simulation) -> bool) {
        loop {
            self.turn();
            if enough(self) {
                return;
            }
            let next = self.next();
            if next >= at {
                self.advance(at);
                return;
            }
            if !self.advance(next) {
                return;
            }
        }
    }

    /// False: somebody spins.
    fn advance(&mut self, to: Moment) -> bool {
        let now = self.net.borrow().now();
        self.turns += 1;
        self.turns_here = if to > now { 0 } else { self.turns_here + 1 };
        if self.turns_here > TURNS_AT_ONCE {
            self.wrong(&format!("no end of work at {now}"));
            return false;
        }
        self.net.borrow_mut().advance(to);
        true
    }

    fn next(&mut self) -> Moment {
        let mut next = self.net.borrow().next();
        for shard in &mut self.shards {
            next = next.min(shard.next_deadline()).min(shard.wire().next());
        }
        if let Some((at, ..)) = self.fates.last() {
            next = next.min(*at);
        }
        if let Some(at) = self.reloads.last() {
            next = next.min(*at);
        }
        let now = self.net.borrow().now();
        if self.mail.is_empty() {
            next.max(now)
        } else {
            now
        }
    }

    /// Everybody does what he has to do now.
    fn turn(&mut self) {
        let now = self.net.borrow().now();
        self.let_fate_strike(now);
        self.reload_upstreams(now);
        self.take_arrivals();
        self.tell();
        for shard in 0..self.shards.len() {
            while let Some(event) = self.shards[shard].wire().next_event() {
                self.shards[shard].handle(now, event);
            }
        }
        for (shard, mail) in std::mem::take(&mut self.mail) {
            self.shards[shard].handle_mail(now, mail);
        }
        for shard in 0..self.shards.len() {
            self.shards[shard].tick(now);
            self.collect_mail(shard);
            for fault in self.shards[shard].wire().faults() {
                self.wrong(&format!("at {now} shard {shard}: {fault}"));
            }
        }
        self.pass_news_on(now);
    }

    /// As the control thread does, about once a second.
    fn pass_news_on(&mut self, now: Moment) {
        if now.since(self.told) < Duration::from_secs(1) {
            return;
        }
        self.told = now;
        for from in 0..self.shards.len() {
            let news = self.shards[from].take_news();
            if !news.is_empty() {
                let letter: Arc<[News]> = news.into();
                let others = (0..self.shards.len()).filter(|shard| *shard != from);
                self.mail
                    .extend(others.map(|shard| (shard, Mail::News(Arc::clone(&letter)))));
            }
        }
    }

    fn collect_mail(&mut self, from: usize) {
        while let Some((to, mail)) = self.shards[from].take_mail() {
            for shard in 0..self.shards.len() {
                let meant = match to {
                    To::Others => shard != from,
                    To::Shard(one) => shard == one,
                };
                if meant {
                    self.mail.push((shard, mail.clone()));
                }
            }
        }
    }

    fn let_fate_strike(&mut self, now: Moment) {
        while let Some(&(at, upstream, up)) = self.fates.last()
            && at <= now
        {
            self.fates.pop();
            let plan = &self.scenario.upstreams[upstream];
            if let Some(offers) = plan.offers_later.clone().filter(|_| up) {
                *self.servers[upstream].offers.borrow_mut() = offers;
            }
            let door = match (up, plan.dead) {
                (true, _) => Door::Open,
                (false, true) => Door::Dead,
                (false, false) => Door::Refuses,
            };
            for address in &plan.spec.addresses {
                self.net.borrow_mut().set_door(*address, door);
                if !up {
                    self.net.borrow_mut().crash(*address);
                }
            }
        }
    }

    /// Some addresses are gone for now; the last table has all of them.
    fn reload_upstreams(&mut self, now: Moment) {
        while self.reloads.last().is_some_and(|at| *at <= now) {
            self.reloads.pop();
            let mut specs = self.scenario.specs().to_vec();
            if !self.reloads.is_empty() {
                for spec in &mut specs {
                    spec.addresses.retain(|_| self.chance.one_in(2));
                }
            }
            let table: Arc<[UpstreamSpec]> = specs.into();
            for shard in 0..self.shards.len() {
                self.mail.push((shard, Mail::Upstreams(table.clone())));
            }
        }
    }

    fn take_arrivals(&mut self) {
        loop {
            let Some(arrival) = self.net.borrow_mut().take_arrival() else {
                return;
            };
            if let Some(shard) = (0..self.shards.len()).find(|shard| listener(*shard) == arrival.at)
            {
                self.shards[shard].wire().arrived(arrival);
                continue;
            }
            if let Some((_, names)) = self.names.iter().find(|(at, _)| *at == arrival.at) {
                let serve = names.clone().serve(arrival.end);
                self.tasks.start(&self.net, serve);
                continue;
            }
            let server = self
                .scenario
                .upstreams
                .iter()
                .position(|upstream| upstream.spec.addresses.contains(&arrival.at));
            if let Some(server) = server {
                let server = self.servers[server].clone();
                self.tasks.start(&self.net, server.serve(arrival.end));
            }
        }
    }

    fn tell(&mut self) {
        loop {
            let Some(party) = self.net.borrow_mut().take_told() else {
                return;
            };
            match party {
                Party::Task(task) => self.tasks.poll(task),
                Party::Slot { shard, slot, life } => self.shards[shard].wire().poke(slot, life),
            }
            self.take_arrivals();
        }
    }
}

/// Where a shard's clients connect to: steering is done by who they are.
fn listener(shard: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 2500 + shard as u16))
}

fn servers(
    scenario: &Scenario,
    chance: &mut Chance,
    net: &SharedNet,
    ledger: &SharedLedger,
) -> Vec<Rc<Server>> {
    let server = |(index, plan): (usize, &UpstreamPlan)| {
        for address in &plan.spec.addresses {
            net.borrow_mut().set_door(*address, Door::Open);
        }
        Server::new(
            index,
            plan.offers.clone(),
            plan.temper,
            chance.fork(),
            ledger.clone(),
        )
    };
    scenario.upstreams.iter().enumerate().map(server).collect()
}

fn fates(upstreams: &[UpstreamPlan]) -> Vec<(Moment, usize, bool)> {
    let mut fates = Vec::new();
    for (index, upstream) in upstreams.iter().enumerate() {
        if let Some((from, until)) = upstream.crash {
            fates.push((from, index, false));
            fates.push((until, index, true));
        }
    }
    fates.sort_by_key(|fate| std::cmp::Reverse(fate.0));
    fates
}

/// The calls that led to a panic, as far as they are weir's; with RUST_BACKTRACE only, since it takes long.
fn way_there() -> String {
    let trace = Backtrace::capture();
    if trace.status() != BacktraceStatus::Captured {
        return String::new();
    }
    let trace = trace.to_string();
    let calls = trace.lines().filter(|line| line.contains(" at ./src/"));
    calls.fold(String::new(), |way, call| way + "\n     " + call.trim())
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// The shard contains its panics; here they are failures, told with their place.
fn catch_words_of_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                let words = info.to_string().replace('\n', " ");
                PANICS.with_borrow_mut(|panics| panics.push(words + &way_there()));
            } else {
                before(info);
            }
        }));
    });
}
