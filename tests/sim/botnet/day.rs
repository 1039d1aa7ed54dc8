//! The day of mail through weir itself: its real world on the simulated network, with a mail server behind it.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir::cli;
use weir::cli::args::Wanted;
use weir::cli::flags::Purpose;
use weir::maillog;
use weir::metrics::Counters;
use weir::policy;
use weir::policy::access::Access;
use weir::policy::dnsbl::{Spec, zones};
use weir::policy::lore::Lore;
use weir::policy::news::News;
use weir::policy::relay::{Relay, RelayDomains};
use weir::policy::spamtraps::Spamtraps;
use weir::shard::config::SessionConfig;
use weir::shard::mail::{Mail, To, UpstreamSpec};
use weir::shard::shared::Shared;
use weir::shard::{Setup, World, WorldConfig};
use weir_smtp::time::Moment;

use super::mailbox::Mailbox;
use super::places::{DOMAIN, OUR_NAME, TRAPS, ZONES};
use super::population::Population;
use super::table::Row;
use super::talk::{self, Errands};
use super::traffic::Errand;
use crate::chance::Chance;
use crate::names::{Faults, NameServer};
use crate::net::{Door, Line, Net, Party, SharedNet};
use crate::scenario::plain_config;
use crate::tasks::Tasks;
use crate::wire::{Caps, Sabotage, SharedCaps, SimWire, WireOptions};

pub const SHARDS: usize = 2;

/// Sockets of a shard, and those of them that are not for clients.
const SLOTS: usize = 1024;
const RESERVE: usize = 64;

/// Turns in one moment after which a shard is taken for spinning.
const TURNS_AT_ONCE: u32 = 20_000;

/// The longest that a sender keeps a message, and a day to begin in.
const END_OF_TIME: Moment = Moment::from_micros(9 * 24 * 3600 * 1_000_000);

/// What came of a day.
pub struct Evening {
    pub row: Row,
    pub wrong: Vec<String>,
    pub turns: u64,
    /// Asked of the name server.
    pub questions: u64,
    /// Good mail that did not arrive, told so that it can be looked up in the log.
    pub lost: Vec<String>,
}

/// All errands against weir, set up like this.
pub fn pass(
    name: &str,
    population: &Population,
    config: &WorldConfig,
    faults: Faults,
    seed: u64,
) -> Evening {
    let mut day = Day::new(population, config, faults, seed);
    day.play();
    day.evening(name)
}

/// What a shard's resolver draws.
fn numbers(shard: usize) -> weir::dns::Chance {
    let mut chance = Chance::new(shard as u64);
    Box::new(move || chance.next())
}

/// A world's configuration with room for a botnet.
fn config() -> WorldConfig {
    WorldConfig {
        hostname: OUR_NAME.as_bytes().into(),
        slots: SLOTS as u32,
        reserve: RESERVE as u32,
        ..plain_config()
    }
}

/// Only what can be told of a client by how it talks, enforced; six seconds for everybody before the greeting.
pub fn protocol_only() -> WorldConfig {
    let wait = Duration::from_secs(6);
    let mut policy = policy::Config::default();
    for on in ["pregreet=reject", "pipelining=reject"] {
        policy.actions.set(on.parse().expect("an allowed action"));
    }
    WorldConfig {
        policy: Arc::new(policy),
        session: SessionConfig {
            greet_wait: wait,
            greet_wait_stressed: wait,
        },
        ..config()
    }
}

/// What tuning/mx-reputation.flags is followed by, once what it logs has been read (docs/OPERATING.md, Reputation).
const ENFORCED: [&str; 4] = [
    "--on=score-stutter=stutter",
    "--on=greylist=defer",
    "--on=score-reject=reject",
    // A drip is a turn of the simulation: fewer of them.
    "--stutter-interval=5s",
];

/// What that profile gives lists of the kinds of [`ZONES`].
const WEIGHTS: [i32; ZONES.len()] = [5, 3, 2, 1, 1, -4];

/// What weir is for: the profile for a server of incoming mail, enforced, with the lists there are here.
pub fn reputation() -> WorldConfig {
    let mut config = config();
    let profile = profile();
    let wait = profile.tarpit.greet_wait;
    config.session.greet_wait = wait;
    config.session.greet_wait_stressed = wait;
    config.resolver.servers = vec![name_server()];
    let mut policy = profile.policy();
    let lists: Vec<Spec> = ZONES
        .iter()
        .zip(WEIGHTS)
        .map(|(zone, weight)| {
            let spec = format!("{}=127.0.0.{}*{weight}", zone.name, zone.code);
            spec.parse().expect("a list")
        })
        .collect();
    policy.dnsbl.zones = zones(lists).expect("each list once");
    config.policy = Arc::new(policy);
    config
}

fn profile() -> cli::config::Config {
    let needed = ["--upstream=users.test:25", "--relay-domains=weir.test"];
    let profile = ["@tuning/mx-reputation.flags"].iter();
    let args = profile.chain(&needed).chain(&ENFORCED);
    let (wanted, wrong) = cli::args::parse(args.map(|arg| (*arg).to_owned()));
    let Some(Wanted::Run(flags)) = wanted else {
        panic!("flags to run with: {wrong:?}");
    };
    cli::config::Config::read(&flags, Purpose::Relay, OUR_NAME, wrong)
        .unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

/// Where the log goes: to `WEIR_BOTNET_LOG`, of the day with reputation.
fn log_file(config: &WorldConfig) -> PathBuf {
    let wanted = std::env::var_os("WEIR_BOTNET_LOG").filter(|_| config.policy.reputation.on);
    wanted.map_or_else(|| PathBuf::from("/dev/null"), PathBuf::from)
}

struct Day {
    net: SharedNet,
    tasks: Tasks,
    errands: Rc<Errands>,
    mailbox: Rc<Mailbox>,
    names: Rc<NameServer>,
    shards: Vec<World<SimWire>>,
    counters: Vec<Arc<Counters>>,
    mail: Vec<(usize, Mail)>,
    /// When shards last told each other what they have learnt.
    told: Moment,
    writer: maillog::Writer,
    wrong: Vec<String>,
    turns: u64,
    turns_here: u32,
}

impl Day {
    fn new(population: &Population, config: &WorldConfig, faults: Faults, seed: u64) -> Day {
        let mut chance = Chance::new(seed ^ 0xda1);
        let net = Rc::new(RefCell::new(Net::new(chance.fork())));
        net.borrow_mut().set_door(mail_server(), Door::Open);
        let log = maillog::Config {
            file: Some(log_file(config)),
            ..maillog::Config::default()
        };
        let errands = Errands {
            list: population
                .errands
                .iter()
                .cloned()
                .map(RefCell::new)
                .collect(),
            open: Cell::new(population.errands.len()),
        };
        let mut day = Day {
            net,
            tasks: Tasks::default(),
            errands: Rc::new(errands),
            mailbox: Rc::default(),
            names: NameServer::new(population.places.clone(), faults, chance.fork()),
            shards: Vec::new(),
            counters: Vec::new(),
            mail: Vec::new(),
            told: Moment::ZERO,
            writer: maillog::Writer::start(log, Instant::now()).expect("the log opens"),
            wrong: Vec::new(),
            turns: 0,
            turns_here: 0,
        };
        day.add_shards(config, &mut chance);
        let traps: String = (0..TRAPS)
            .map(|trap| format!("trap{trap}@{DOMAIN}\n"))
            .collect();
        let lore = Arc::new(Lore {
            spamtraps: Spamtraps::parse(&traps).expect("addresses"),
            ..Lore::default()
        });
        day.mail
            .extend((0..SHARDS).map(|shard| (shard, Mail::Lore(lore.clone()))));
        day.net.borrow_mut().set_door(name_server(), Door::Open);
        let answers = day.names.clone().answer_datagrams(name_server());
        day.tasks.start(&day.net, answers);
        for number in 0..day.errands.list.len() {
            let errand = talk::run(day.errands.clone(), number, |visit| {
                listener(shard_of(visit.from))
            });
            day.tasks.start(&day.net, errand);
        }
        day
    }

    fn add_shards(&mut self, config: &WorldConfig, chance: &mut Chance) {
        let shared = Arc::new(Shared::new(0));
        let caps: SharedCaps = Rc::new(RefCell::new(Caps::default()));
        caps.borrow_mut().set(mail_server(), 0, 0);
        caps.borrow_mut().set(name_server(), 1, 0);
        let relay = Arc::new(Relay {
            domains: RelayDomains::Any,
            ..Relay::default()
        });
        let now = self.net.borrow().now();
        for shard in 0..SHARDS {
            let counters = Arc::new(Counters::default());
            let wire = SimWire::new(
                self.net.clone(),
                chance.fork(),
                options(shard),
                caps.clone(),
                |_| Line::smooth(),
            );
            let setup = Setup {
                config: Arc::new(config.clone()),
                access: Arc::new(Access::default()),
                relay: relay.clone(),
                lore: Arc::default(),
                upstreams: vec![upstream()].into(),
                shard,
                shared: shared.clone(),
                counters: counters.clone(),
                log: self.writer.logs().buffer(shard, counters.clone()),
                unix: 1_800_000_000,
                chance: numbers(shard),
            };
            self.counters.push(counters);
            self.shards.push(World::new(setup, wire, now));
            self.net.borrow_mut().set_door(listener(shard), Door::Open);
        }
    }

    fn play(&mut self) {
        loop {
            self.turn();
            if self.errands.open.get() == 0 {
                return;
            }
            let next = self.next();
            if next >= END_OF_TIME {
                return self
                    .wrong
                    .push("somebody is still there at the end of time".into());
            }
            let now = self.net.borrow().now();
            self.turns += 1;
            self.turns_here = if next > now { 0 } else { self.turns_here + 1 };
            if self.turns_here > TURNS_AT_ONCE {
                return self.wrong.push(format!("no end of work at {now}"));
            }
            self.net.borrow_mut().advance(next);
        }
    }

    fn next(&mut self) -> Moment {
        let now = self.net.borrow().now();
        if !self.mail.is_empty() {
            return now;
        }
        let mut next = self.net.borrow().next();
        for shard in &mut self.shards {
            next = next.min(shard.next_deadline()).min(shard.wire().next());
        }
        next.max(now)
    }

    fn turn(&mut self) {
        let now = self.net.borrow().now();
        self.tell();
        for shard in &mut self.shards {
            while let Some(event) = shard.wire().next_event() {
                shard.handle(now, event);
            }
        }
        for (shard, mail) in std::mem::take(&mut self.mail) {
            self.shards[shard].handle_mail(now, mail);
        }
        for number in 0..SHARDS {
            self.shards[number].tick(now);
            self.collect_mail(number);
            let faults = self.shards[number].wire().faults();
            self.wrong.extend(faults);
        }
        self.pass_news_on(now);
    }

    /// As the control thread does, about once a second.
    fn pass_news_on(&mut self, now: Moment) {
        if now.since(self.told) < Duration::from_secs(1) {
            return;
        }
        self.told = now;
        for from in 0..SHARDS {
            let news = self.shards[from].take_news();
            if !news.is_empty() {
                let letter: Arc<[News]> = news.into();
                let others = (0..SHARDS).filter(|shard| *shard != from);
                self.mail
                    .extend(others.map(|shard| (shard, Mail::News(letter.clone()))));
            }
        }
    }

    fn collect_mail(&mut self, from: usize) {
        while let Some((to, mail)) = self.shards[from].take_mail() {
            for shard in 0..SHARDS {
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

    fn tell(&mut self) {
        self.take_arrivals();
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

    fn take_arrivals(&mut self) {
        loop {
            let Some(arrival) = self.net.borrow_mut().take_arrival() else {
                return;
            };
            match (0..SHARDS).find(|shard| listener(*shard) == arrival.at) {
                Some(shard) => self.shards[shard].wire().arrived(arrival),
                None if arrival.at == name_server() => {
                    let serve = self.names.clone().serve(arrival.end);
                    self.tasks.start(&self.net, serve);
                }
                None => {
                    let serve = self.mailbox.clone().serve(arrival.end);
                    self.tasks.start(&self.net, serve);
                }
            }
        }
    }

    fn evening(mut self, name: &str) -> Evening {
        let panics: u64 = self
            .counters
            .iter()
            .map(|counters| counters.panics.value())
            .sum();
        if panics > 0 {
            self.wrong.push(format!("{panics} panics were contained"));
        }
        self.wrong.extend(self.mailbox.wrong.take());
        let errands: Vec<Errand> = self
            .errands
            .list
            .iter()
            .map(|errand| errand.borrow().clone())
            .collect();
        for (number, errand) in errands.iter().enumerate() {
            let (received, twice) = self.mailbox.recipients_of(number);
            if received < errand.fate.taken || (twice && errand.is_good()) {
                let told = errand.fate.taken;
                self.wrong.push(format!("errand {number} was told of {told} recipients, and {received} got it, twice: {twice}"));
            }
        }
        drop(self.shards);
        self.writer.finish();
        let questions = self.names.questions();
        Evening {
            questions,
            row: Row::of(name, &errands),
            lost: errands.iter().filter_map(Errand::loss).collect(),
            wrong: self.wrong,
            turns: self.turns,
        }
    }
}

/// One client's visits are one shard's.
fn shard_of(client: IpAddr) -> usize {
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    (hasher.finish() % SHARDS as u64) as usize
}

fn listener(shard: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 2500 + shard as u16))
}

pub fn name_server() -> SocketAddr {
    SocketAddr::from(([10, 9, 0, 53], 53))
}

fn mail_server() -> SocketAddr {
    SocketAddr::from(([10, 1, 0, 1], 25))
}

fn upstream() -> UpstreamSpec {
    UpstreamSpec {
        name: "users.test:25".into(),
        weight: 1,
        max: 0,
        addresses: vec![mail_server()],
        tls: None,
    }
}

fn options(shard: usize) -> WireOptions {
    WireOptions {
        slots: SLOTS,
        reserve: RESERVE,
        client_buffers: 512,
        upstream_buffers: 128,
        chunks: 64,
        lag: Duration::ZERO,
        sips: 0,
        tells_starvation: true,
        address: SocketAddr::from(([10, 0, 0, 1], 0)),
        shard,
        sabotage: Sabotage::None,
    }
}
