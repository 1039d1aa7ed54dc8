//! From a seed to a day of mail: 200 senders of good mail, 10,000 bots, their addresses, names and listings, and what they send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::places::{
    DOMAIN, FRESH, GOOD, GRUDGE, HOMES, OLD, OUR_NAME, Place, Places, TRAPS, USERS, WORST,
};
use super::retries::Retry;
use super::traffic::{BotKind, Doors, Errand, Manner, Origin, Patience, Plan, Whose};
use crate::chance::Chance;

pub const SENDERS: u64 = 200;
pub const BOTS: u64 = 10_000;

/// Within which everything is tried for the first time.
const DAY: u64 = 24 * 3600 * 1000;

/// Machines in a network of snowshoe bots.
const SNOWSHOE: u64 = 250;

pub struct Population {
    pub places: Rc<Places>,
    pub errands: Vec<Errand>,
}

impl Population {
    /// A tenth of the bots, of the senders and of the time is a small world, in which everything happens as well.
    pub fn from_seed(seed: u64, senders: u64, bots: u64) -> Population {
        let mut maker = Maker {
            chance: Chance::new(seed ^ 0xb07),
            places: Places::default(),
            errands: Vec::new(),
            neighbours: Vec::new(),
        };
        let ours = IpAddr::from([192, 0, 2, 25]);
        maker.settle(ours, Some(&OUR_NAME.into()), true);
        maker.places.takes_mail(DOMAIN.into());
        maker.add_senders(senders);
        maker.add_bots(bots);
        Population {
            places: Rc::new(maker.places),
            errands: maker.errands,
        }
    }
}

struct Maker {
    chance: Chance,
    places: Places,
    errands: Vec<Errand>,
    /// Good senders' addresses, next to whom a bot may live.
    neighbours: Vec<Ipv4Addr>,
}

/// Of 200 senders so many retry like this, from one address each unless they are a pool's customers.
const HABITS: [(u64, Retry); 8] = [
    (80, Retry::Postfix),
    (40, Retry::Exim),
    (10, Retry::Sendmail),
    (5, Retry::Qmail),
    (25, Retry::Exchange),
    (15, Retry::Pool),
    (15, Retry::Provider),
    (10, Retry::Shop),
];

impl Maker {
    fn add_senders(&mut self, senders: u64) {
        let pool = self.add_pool("pool", 6, 20);
        let provider = self.add_pool("provider", 4, 15);
        let mut habits = HABITS
            .iter()
            .flat_map(|&(many, retry)| (0..many).map(move |_| retry))
            .cycle();
        // A small world has some of each kind.
        let step = (SENDERS / senders.max(1)).max(1) as usize;
        for number in 0..senders {
            let retry = habits.next().expect("they go round");
            (1..step).for_each(|_| _ = habits.next());
            let (doors, origin) = match retry {
                Retry::Pool => (pool.clone(), self.networks(6, 20)),
                Retry::Provider => (provider.clone(), self.networks(4, 15)),
                _ => self.add_site(number),
            };
            self.add_good_mail(number, retry, &doors, &origin);
        }
    }

    fn networks(&mut self, networks: u64, each: usize) -> Origin {
        Origin::Networks {
            each,
            home: self.chance.below(networks) as usize,
        }
    }

    /// The outgoing machines of somebody large, whom lists of good senders know.
    fn add_pool(&mut self, name: &str, networks: u64, each: u64) -> Doors {
        let mut doors = Vec::new();
        for network in 0..networks {
            let base = Ipv4Addr::from(0x1400_0000 | (self.chance.below(1 << 16) as u32) << 8);
            for machine in 0..each {
                let address = IpAddr::from(Ipv4Addr::from(u32::from(base) + machine as u32 + 10));
                let host: Rc<str> = format!("out{machine}.net{network}.{name}.test").into();
                self.settle(address, Some(&host), true);
                self.places.list(address, GOOD, Moment::ZERO);
                doors.push((address, host));
            }
        }
        doors.into()
    }

    /// A company's server, or a few of them side by side; some are not set up quite right, and some are on a list for nothing.
    fn add_site(&mut self, number: u64) -> (Doors, Origin) {
        let machines = if self.chance.one_in(10) { 3 } else { 1 };
        let six = self.chance.one_in(8);
        let base = 0x2000_0000 | self.chance.below(1 << 27) as u32;
        let mut doors = Vec::new();
        for machine in 0..machines {
            let address = if six {
                let site = 0x2001_0db8_0000_0000_0000_0000_0000_0000 | u128::from(number) << 64;
                IpAddr::from(Ipv6Addr::from(site | u128::from(machine as u8 + 1)))
            } else {
                let four = Ipv4Addr::from((base & !0xff) + (base & 0x7f) + machine + 1);
                self.neighbours.push(four);
                IpAddr::from(four)
            };
            let host: Rc<str> = format!("mail{machine}.sender{number}.test").into();
            let named = !self.chance.one_in(16);
            let resolves = !self.chance.one_in(20);
            self.settle(address, named.then_some(&host), resolves);
            let helo = if self.chance.one_in(25) {
                format!("exchange{number}.local").into()
            } else {
                host
            };
            for (zone, one_in) in [(GOOD, 10), (GRUDGE, 30), (OLD, 50), (FRESH, 100)] {
                if self.chance.one_in(one_in) {
                    let since = Moment::ZERO + self.chance.millis(0..DAY);
                    self.places.list(address, zone, since);
                }
            }
            doors.push((address, helo));
        }
        let origin = if machines > 1 {
            Origin::Any
        } else {
            Origin::One(0)
        };
        (doors.into(), origin)
    }

    fn add_good_mail(&mut self, number: u64, retry: Retry, doors: &Doors, origin: &Origin) {
        let domain: Rc<str> = format!("sender{number}.test").into();
        self.places.takes_mail(domain.clone());
        let messages = self.chance.within(5..36);
        for _ in 0..messages {
            let sender = match self.chance.below(20) {
                0 => "".into(),
                person => format!("person{}@{domain}", person % 5).into(),
            };
            let many = if self.chance.one_in(8) { 3 } else { 1 };
            let first = self.chance.below(USERS);
            let recipients = (0..many).map(|nth| user((first + nth) % USERS)).collect();
            let origin = match origin {
                Origin::Any => Origin::Any,
                Origin::One(door) => Origin::One(*door),
                Origin::Networks { each, .. } => {
                    let networks = doors.len() / each;
                    self.networks(networks as u64, *each)
                }
            };
            let plan = Plan {
                whose: Whose::Good,
                begins: self.some_time(),
                sender,
                recipients,
                doors: doors.clone(),
                origin,
                manner: Manner {
                    speaks_after: None,
                    hurries: false,
                    pipelines: self.chance.one_in(2),
                    patience: Patience {
                        reply: Duration::from_secs(300),
                        renewed: None,
                    },
                    quits: true,
                },
                retry,
            };
            self.add(plan);
        }
    }

    fn add_bots(&mut self, bots: u64) {
        let networks = bots / 10 / SNOWSHOE;
        (0..networks).for_each(|network| self.add_snowshoe(network));
        for bot in networks * SNOWSHOE..bots {
            let kind = match self.chance.below(100) {
                0..=59 => BotKind::Forgets,
                60..=74 => BotKind::Pregreets,
                75..=87 => BotKind::Retries,
                _ => BotKind::Guesses,
            };
            self.add_bot(bot, kind);
        }
    }

    fn add_bot(&mut self, number: u64, kind: BotKind) {
        let address = self.somewhere();
        let host: Rc<str> = format!("dsl-{number}.access.test").into();
        let named = !self.chance.one_in(3);
        let resolves = self.chance.one_in(2);
        self.settle(address, named.then_some(&host), resolves);
        let begins = self.some_time();
        self.list_bot(address, kind, begins);
        let helo = self.helo_of_bot(number, &host);
        let doors: Doors = vec![(address, helo)].into();
        let errands = match kind {
            BotKind::Forgets | BotKind::Pregreets => 1 + u64::from(self.chance.one_in(4)),
            BotKind::Retries | BotKind::Guesses | BotKind::Snowshoe => self.chance.within(1..3),
        };
        let mut at = begins;
        for _ in 0..errands {
            let retry = match kind {
                BotKind::Retries => Retry::Bot {
                    times: self.chance.within(1..9) as u32,
                    minutes: *self.chance.pick(&[5, 10, 30, 60]),
                },
                _ => Retry::Never,
            };
            let plan = Plan {
                whose: Whose::Bot(kind),
                begins: at,
                sender: self.sender_of_bot(),
                recipients: self.recipients_of_bot(kind),
                doors: doors.clone(),
                origin: Origin::One(0),
                manner: self.manner_of_bot(kind),
                retry,
            };
            self.add(plan);
            at = at + self.chance.millis(60_000..4 * 3600 * 1000);
        }
    }

    /// A network of machines that look like mail servers, each of which sends little, and any of which tries again.
    fn add_snowshoe(&mut self, network: u64) {
        let base = 0x2d00_0000 | (self.chance.below(1 << 16) as u32) << 8;
        let begins = self.some_time();
        let domain: Rc<str> = format!("offers{network}.test").into();
        self.places.takes_mail(domain.clone());
        let mut doors = Vec::new();
        for machine in 0..SNOWSHOE {
            let address = IpAddr::from(Ipv4Addr::from(base + machine as u32 + 1));
            let host: Rc<str> = format!("m{machine}.offers{network}.test").into();
            self.settle(address, Some(&host), true);
            self.list_bot(address, BotKind::Snowshoe, begins);
            doors.push((address, host));
        }
        let doors: Doors = doors.into();
        for _ in 0..SNOWSHOE * 3 / 2 {
            let plan = Plan {
                whose: Whose::Bot(BotKind::Snowshoe),
                begins: begins + self.chance.millis(0..8 * 3600 * 1000),
                sender: format!("news@{domain}").into(),
                recipients: self.recipients_of_bot(BotKind::Snowshoe),
                doors: doors.clone(),
                origin: Origin::Any,
                manner: self.manner_of_bot(BotKind::Snowshoe),
                retry: Retry::Bot {
                    times: 4,
                    minutes: 20,
                },
            };
            self.add(plan);
        }
    }

    fn add(&mut self, plan: Plan) {
        let chance = self.chance.fork();
        self.errands.push(Errand::new(plan, chance));
    }

    fn settle(&mut self, address: IpAddr, name: Option<&Rc<str>>, resolves: bool) {
        let place = Place {
            name: name.cloned(),
            ..Place::default()
        };
        self.places.settle(address, place);
        if let Some(name) = name.filter(|_| resolves) {
            self.places.name(name, address);
        }
    }

    fn some_time(&mut self) -> Moment {
        Moment::ZERO + self.chance.millis(1000..DAY)
    }

    /// An address of its own, now and then in a good sender's network.
    fn somewhere(&mut self) -> IpAddr {
        loop {
            let four = if self.chance.one_in(300) && !self.neighbours.is_empty() {
                let neighbour = u32::from(*self.chance.pick(&self.neighbours));
                neighbour & !0xff | self.chance.within(1..255) as u32
            } else {
                self.chance.within(0x4000_0000..0x7e00_0000) as u32
            };
            let address = IpAddr::from(Ipv4Addr::from(four));
            if !self.places.is_taken(address) {
                return address;
            }
        }
    }

    /// On which lists a bot is already, and on which it will be.
    fn list_bot(&mut self, address: IpAddr, kind: BotKind, begins: Moment) {
        let hours = |hours: u64| hours * 3600 * 1000;
        // Percent who are listed when they begin, percent who will be, and within how long.
        let chances: &[(usize, u64, u64, u64)] = match kind {
            BotKind::Snowshoe => &[(WORST, 0, 50, hours(12)), (FRESH, 0, 40, hours(6))],
            BotKind::Retries => &[(WORST, 50, 25, hours(4)), (FRESH, 40, 30, hours(2))],
            _ => &[
                (WORST, 60, 20, hours(4)),
                (FRESH, 45, 25, hours(2)),
                (HOMES, 55, 0, 1),
            ],
        };
        for &(zone, before, later, within) in chances {
            let lot = self.chance.below(100);
            if lot < before {
                self.places.list(address, zone, Moment::ZERO);
            } else if lot < before + later {
                let since = begins + self.chance.millis(0..within);
                self.places.list(address, zone, since);
            }
        }
        for (zone, percent) in [(GRUDGE, 20), (OLD, 15)] {
            if self.chance.percent(percent) {
                self.places.list(address, zone, Moment::ZERO);
            }
        }
    }

    fn helo_of_bot(&mut self, number: u64, host: &Rc<str>) -> Rc<str> {
        match self.chance.below(20) {
            0..=5 => host.clone(),
            6..=9 => format!("wrk{number}").into(),
            10..=12 => format!("[192.168.{}.{}]", number % 256, number % 250).into(),
            13 | 14 => OUR_NAME.into(),
            _ => format!("mail.forged{number}.test").into(),
        }
    }

    /// A domain that exists and has nothing to do with it, or one that does not exist.
    fn sender_of_bot(&mut self) -> Rc<str> {
        let person = self.chance.below(1000);
        if self.chance.percent(70) {
            let number = self.chance.below(20);
            return format!("p{person}@sender{number}.test").into();
        }
        format!("p{person}@nowhere{}.test", self.chance.below(5000)).into()
    }

    fn recipients_of_bot(&mut self, kind: BotKind) -> Vec<Rc<str>> {
        let many = match kind {
            BotKind::Guesses => self.chance.within(15..40),
            BotKind::Snowshoe => 1,
            _ => self.chance.within(1..6),
        };
        let unknown = match kind {
            BotKind::Guesses => 92,
            BotKind::Snowshoe => 2,
            _ => 25,
        };
        let mut recipients: Vec<Rc<str>> = (0..many)
            .map(|_| {
                if self.chance.percent(unknown) {
                    format!("guess{}@{DOMAIN}", self.chance.below(1_000_000)).into()
                } else if self.chance.percent(5) {
                    format!("trap{}@{DOMAIN}", self.chance.below(TRAPS)).into()
                } else {
                    user(self.chance.below(USERS))
                }
            })
            .collect();
        recipients.sort();
        recipients.dedup();
        recipients
    }

    fn manner_of_bot(&mut self, kind: BotKind) -> Manner {
        let patience = match kind {
            BotKind::Retries | BotKind::Snowshoe => Patience {
                reply: Duration::from_secs(300),
                renewed: None,
            },
            _ => Patience {
                reply: self.chance.millis(8_000..60_000),
                renewed: self
                    .chance
                    .one_in(2)
                    .then(|| self.chance.millis(120_000..900_000)),
            },
        };
        Manner {
            speaks_after: (kind == BotKind::Pregreets).then(|| self.chance.millis(50..3000)),
            hurries: kind == BotKind::Forgets && self.chance.one_in(12),
            pipelines: false,
            patience,
            quits: matches!(kind, BotKind::Retries | BotKind::Snowshoe) || self.chance.one_in(3),
        }
    }
}

fn user(number: u64) -> Rc<str> {
    format!("user{number}@{DOMAIN}").into()
}
