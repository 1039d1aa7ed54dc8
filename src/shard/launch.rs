//! From a configuration to running shards, and the loop of one: completions, mail, timers, and back to sleep.
//!
//! Each shard is one task on its own executor. It is given its listeners, makes its ring on its own thread, and says
//! whether that worked; [`launch`] returns when all have said so.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use tokio::sync::mpsc;
use weir_smtp::time::Moment;

use crate::dns;
use crate::maillog::LogBuffer;
use crate::metrics::Counters;
use crate::net::{CloseTogether, ListenerGroup};
use crate::policy::budget::Spent;
use crate::policy::news::News;
use crate::ring::{Doorbell, Event, Group, Ring};
use crate::rt::{self, MailSender, Mailbox, ShardIndex, Undelivered};

use super::config::{Lists, ShardsConfig};
use super::mail::{Mail, To};
use super::shared::Shared;
use super::world::{Setup, World};

/// Letters that may wait for a shard. Control sends a handful; shards write to each other when permits are short.
const MAILBOX: usize = 1024;

/// Clients that come on and on must not keep a shard from closing its listeners.
const CLOSING_WAIT: Duration = Duration::from_millis(500);

/// While listeners wait for each other to close, a shard looks this often.
const CLOSING_LOOK: Duration = Duration::from_millis(20);

/// How often the ring's own counts are copied to the metrics, and the others told what was learnt.
const MIRROR: Duration = Duration::from_secs(1);

/// Letters to the control thread that may wait, of each shard.
const TOLD: usize = 4;

/// What a shard has learnt, and what its clients have spent of their rates.
pub struct Told {
    pub shard: usize,
    pub news: Arc<[News]>,
    pub spent: Vec<Spent>,
}

/// The shards, running.
pub struct Shards {
    threads: rt::Shards,
    mailer: Mailer,
    told: mpsc::Receiver<Told>,
}

/// Writes to the shards. Any thread's.
#[derive(Clone)]
pub struct Mailer {
    senders: Arc<[MailSender<Mail>]>,
}

impl Mailer {
    /// To all shards. One whose mailbox is full misses it, which is logged; one that has ended needs no letters (at a second
    /// signal some have), and that it has ended is told by whoever waits for it.
    pub fn post(&self, mail: &Mail) {
        for shard in 0..self.senders.len() {
            self.post_to(shard, mail.clone());
        }
    }

    /// As a part that knows nothing of shards has it.
    pub fn to_all(self) -> Arc<dyn Fn(Mail) + Send + Sync> {
        Arc::new(move |mail| self.post(&mail))
    }

    /// To all but one, who knows.
    pub fn to_others(self) -> Box<dyn Fn(usize, Mail) + Send> {
        Box::new(move |shard, mail| {
            for other in (0..self.senders.len()).filter(|other| *other != shard) {
                self.post_to(other, mail.clone());
            }
        })
    }

    fn post_to(&self, shard: usize, mail: Mail) {
        if let Err(Undelivered::Full(_)) = self.senders[shard].send(mail) {
            log::warn!("shard {shard} did not take a letter: its mailbox is full");
        }
    }
}

impl Shards {
    pub fn mailer(&self) -> Mailer {
        self.mailer.clone()
    }

    /// What they tell, and whoever waits until all have ended.
    pub fn split(self) -> (mpsc::Receiver<Told>, impl FnOnce() -> io::Result<()>) {
        let threads = self.threads;
        (self.told, || threads.join())
    }
}

/// What is handed to one shard's thread.
struct Crew {
    log: LogBuffer,
    counters: Arc<Counters>,
    mailbox: Mailbox<Mail>,
    doorbell: Doorbell,
    lists: Lists,
    /// In the order of the configuration.
    listeners: Vec<OwnedFd>,
}

/// What all shards have in common.
struct Common {
    config: ShardsConfig,
    shared: Arc<Shared>,
    closing: CloseTogether,
    mailer: Mailer,
    tell: mpsc::Sender<Told>,
    crews: Mutex<Vec<Option<Crew>>>,
    ready: Sender<io::Result<()>>,
}

/// Starts the shards; returns when all of them accept, or with the first trouble.
///
/// `lists` are what the shards begin with, and nothing here keeps them; `groups` are the listeners in the order of the
/// configuration; `counters` and `logs` have one entry per shard, in order.
pub fn launch(
    config: ShardsConfig,
    lists: Lists,
    groups: Vec<ListenerGroup>,
    counters: &[Arc<Counters>],
    logs: Vec<LogBuffer>,
) -> io::Result<Shards> {
    let shards = config.shards;
    assert!(
        counters.len() == shards && logs.len() == shards,
        "one set of counters and one log buffer per shard"
    );
    let mut senders = Vec::with_capacity(shards);
    let mut crews = Vec::with_capacity(shards);
    let listeners = by_shard(groups, shards);
    for ((log, counters), listeners) in logs.into_iter().zip(counters).zip(listeners) {
        let doorbell = Doorbell::new()?;
        let (sender, mailbox) = rt::mailbox(MAILBOX, doorbell.clone());
        senders.push(sender);
        crews.push(Some(Crew {
            log,
            counters: counters.clone(),
            mailbox,
            doorbell,
            lists: lists.clone(),
            listeners,
        }));
    }
    let (ready, reports): (_, Receiver<io::Result<()>>) = crossbeam_channel::bounded(shards);
    let (tell, told) = mpsc::channel(TOLD * shards);
    let cores = config.cores.clone();
    let mailer = Mailer {
        senders: senders.into(),
    };
    let common = Arc::new(Common {
        shared: Arc::new(Shared::new(config.connections_max)),
        closing: CloseTogether::new(shards),
        mailer: mailer.clone(),
        tell,
        crews: Mutex::new(crews),
        ready,
        config,
    });
    let make = {
        let common = common.clone();
        move |index: ShardIndex| run(common.clone(), index.0)
    };
    let threads = rt::start_shards(shards, &cores, make)?;
    for _ in 0..shards {
        reports.recv().map_err(io::Error::other)??;
    }
    Ok(Shards {
        threads,
        mailer,
        told,
    })
}

/// Each shard's sockets, in the order of the groups.
fn by_shard(groups: Vec<ListenerGroup>, shards: usize) -> Vec<Vec<OwnedFd>> {
    let mut listeners: Vec<Vec<OwnedFd>> = (0..shards).map(|_| Vec::new()).collect();
    for group in groups {
        assert_eq!(group.sockets.len(), shards, "a socket for each shard");
        for (listeners, socket) in listeners.iter_mut().zip(group.sockets) {
            listeners.push(socket);
        }
    }
    listeners
}

/// One shard's life.
async fn run(common: Arc<Common>, shard: usize) {
    let crew = common.crews.lock().expect("nobody panics while it is held")[shard].take();
    let crew = crew.expect("a shard starts once");
    if common.config.gives_way
        && let Err(error) = rt::give_way()
    {
        log::warn!(
            "shard {shard} runs as an ordinary thread, which costs CPU: SCHED_BATCH: {error}"
        );
    }
    let counters = crew.counters.clone();
    let mailbox = crew.mailbox;
    let ring = match open(&common, crew.listeners, crew.doorbell) {
        Ok(ring) => ring,
        Err(error) => return report(&common, Err(error)),
    };
    let clock = common.config.clock;
    let setup = Setup {
        config: Arc::new(common.config.world.clone()),
        access: crew.lists.access,
        relay: crew.lists.relay,
        lore: crew.lists.lore,
        upstreams: common.config.upstreams.clone(),
        shard,
        shared: common.shared.clone(),
        counters: counters.clone(),
        log: crew.log,
        unix: clock.unix(),
        chance: chance(),
    };
    let mut world = World::new(setup, ring, clock.now());
    world.measure_handshakes_by(clock);
    report(&common, Ok(()));
    let mut shard = Shard {
        world,
        mailbox,
        counters,
        common,
        index: shard,
        mirrored: Moment::ZERO,
        stopping: Stopping::No,
        draining_since: None,
    };
    shard.turn_until_over().await;
}

/// Random numbers, drawn many at a time: each draw costs the generator's own upkeep.
pub fn chance() -> dns::Chance {
    let mut drawn = [0; 512];
    let mut used = drawn.len();
    Box::new(move || {
        if used == drawn.len() {
            aws_lc_rs::rand::fill(&mut drawn).expect("the generator is seeded by the kernel");
            used = 0;
        }
        let (number, _) = drawn[used..]
            .split_first_chunk()
            .expect("eight octets are left");
        used += 8;
        u64::from_ne_bytes(*number)
    })
}

fn report(common: &Common, outcome: io::Result<()>) {
    // Nobody listens any more when another shard failed first; the process is ending then.
    if common.ready.send(outcome).is_err() {
        log::debug!("a shard started after another had failed");
    }
}

fn open(common: &Common, listeners: Vec<OwnedFd>, doorbell: Doorbell) -> io::Result<Ring> {
    let mut ring = Ring::answering(&common.config.ring, doorbell)?;
    for (socket, service) in listeners.into_iter().zip(&*common.config.world.services) {
        ring.listen_for(socket, service.intercept);
    }
    for fd in rt::executor_rings() {
        ring.watch_background(fd);
    }
    Ok(ring)
}

/// A shard and what its loop looks after.
struct Shard {
    world: World<Ring>,
    mailbox: Mailbox<Mail>,
    counters: Arc<Counters>,
    common: Arc<Common>,
    index: usize,
    mirrored: Moment,
    stopping: Stopping,
    draining_since: Option<Moment>,
}

/// How far the listeners are from being closed.
#[derive(Clone, Copy, PartialEq)]
enum Stopping {
    No,
    /// This shard's queue is empty; the others' are waited for.
    Arrived,
    Closed,
}

impl Shard {
    async fn turn_until_over(&mut self) {
        let clock = self.common.config.clock;
        loop {
            let now = clock.now();
            self.world.tick(now);
            self.post_mail();
            let wake = self.wake_at(now);
            let over = self.world.is_ending()
                || (self.world.is_over() && self.stopping == Stopping::Closed);
            let until = if over || rt::has_background_work() {
                now
            } else {
                wake
            };
            if let Err(error) = self.await_events(now, until) {
                panic!(
                    "shard {}: the ring does not work any more: {error}",
                    self.index
                );
            }
            if over {
                self.tell_news();
                return;
            }
            if self.work_off(clock.now()) || rt::has_background_work() {
                rt::yield_background().await;
            }
        }
    }

    /// Looks for events as long as it is told to, then sleeps until one comes or `until` is reached.
    fn await_events(&mut self, now: Moment, until: Moment) -> io::Result<()> {
        let Common { config, .. } = &*self.common;
        let ring = self.world.wire();
        if config.busy_wait.is_zero() || until <= now {
            return ring.wait(now, until);
        }
        if ring.look(now)? {
            return Ok(());
        }
        let end = until.min(now + config.busy_wait);
        let mut now = now;
        while now < end && !ring.has_news() {
            std::hint::spin_loop();
            now = config.clock.now();
        }
        ring.wait(now, until)
    }

    /// Everything that has happened. True: the executor has work of its own.
    fn work_off(&mut self, now: Moment) -> bool {
        let mut background = false;
        while let Some(event) = self.world.wire().next_event() {
            match event {
                Event::Doorbell => {}
                Event::Background => background = true,
                event => self.world.handle(now, event),
            }
        }
        while let Some(mail) = self.mailbox.take() {
            self.world.handle_mail(now, mail);
        }
        self.counters.turns.inc();
        self.mirror(now);
        background
    }

    /// Never waits for the control thread: what it has no room for, the others do not hear of.
    fn tell_news(&mut self) {
        let (news, spent) = (self.world.take_news(), self.world.take_spent());
        if news.is_empty() && spent.is_empty() {
            return;
        }
        let told = Told {
            shard: self.index,
            news: news.into(),
            spent,
        };
        if let Err(unheard) = self.common.tell.try_send(told) {
            let news = unheard.into_inner().news.len() as u64;
            self.world.note_unheard(news);
        }
    }

    fn post_mail(&mut self) {
        while let Some((to, mail)) = self.world.take_mail() {
            let mailer = &self.common.mailer;
            match to {
                To::Shard(shard) => mailer.post_to(shard, mail),
                To::Others => {
                    for shard in (0..self.common.config.shards).filter(|shard| *shard != self.index)
                    {
                        mailer.post_to(shard, mail.clone());
                    }
                }
            }
        }
    }

    /// When to wake up at the latest; on the way, the steps of closing the listeners.
    fn wake_at(&mut self, now: Moment) -> Moment {
        let deadline = self.world.next_deadline();
        if !self.world.is_draining() || self.stopping == Stopping::Closed {
            return deadline;
        }
        let since = *self.draining_since.get_or_insert(now);
        let patience_is_over = now.since(since) >= CLOSING_WAIT;
        if self.stopping == Stopping::No
            && (patience_is_over || self.world.wire().accept_queues_empty())
        {
            self.common.closing.arrive();
            self.stopping = Stopping::Arrived;
        }
        if self.common.closing.all_arrived() {
            self.world.wire().stop_accepting();
            self.stopping = Stopping::Closed;
        }
        deadline.min(now + CLOSING_LOOK)
    }

    /// Copies what the ring counts by itself.
    fn mirror(&mut self, now: Moment) {
        if now.since(self.mirrored) < MIRROR {
            return;
        }
        self.mirrored = now;
        self.tell_news();
        let ring = self.world.wire();
        let stats = ring.stats();
        let held = ring.buffers_held(Group::Client) + ring.buffers_held(Group::Upstream);
        let counters = &self.counters;
        counters.ring_completions.mirror(stats.completions);
        counters.ring_enters.mirror(stats.enters);
        counters.ring_sends.mirror(stats.sends);
        counters.ring_stale.mirror(stats.stale);
        counters.ring_overflow.mirror(stats.overflows);
        counters.ring_no_buffers.mirror(stats.no_buffers);
        counters.buffers_used.set(held as u64);
    }
}
