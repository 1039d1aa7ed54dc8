//! The control thread: admin page, signals, reload, names of upstreams, news from shard to shard. Never on the data path.
//!
//! ```text
//!   signals ---.                       .--> shards (mail: upstreams, resolvers, lists, news, drain, end)
//!   names  ----+--> [the main thread] -+--> log (reopen)
//!   admin <----+     tokio, one task   +--> service manager (ready, reloading, stopping)
//!   files  ----+                       '--> what lasts and what hosts share (exchange.rs, crate::state)
//!   shards ----'  (what they have learnt)
//! ```
//! It runs on the main thread, on a runtime of one thread. Shards are mailed and never waited for, except for their end. Lists are
//! read by a thread of their own (reload.rs).
//! The order at start: [`Control::open`] (signals and the admin page, so that errors come before any mail is accepted),
//! then the shards, then [`Control::run`] until they have ended.

mod admin;
mod certificates;
mod exchange;
mod explain;
mod process;
mod reload;
mod resolve;
pub mod resolvers;
mod status;

use std::{
    io, mem,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::sleep,
};

pub use self::{
    admin::bind as bind_admin,
    exchange::{ToAll, ToOthers},
    resolve::Target,
};

use self::{
    admin::Admin,
    certificates::Certificates,
    exchange::Exchange,
    reload::{Attic, Reader},
    resolve::Book,
    resolvers::Resolvers,
    status::State,
};
use crate::maillog::Logs;
use crate::metrics::Counters;
use crate::policy::{access::Access, lore::Lore, relay::Relay};
use crate::shard::{self, Mail, Told, UpstreamSpec, clock::Clock};
use crate::state::{Keeping, Meeting};
use crate::tls::{Changed, Material};

/// What control goes by.
pub struct Config {
    /// None: no admin page. See [`bind_admin`].
    pub admin: Option<TcpListener>,
    pub upstreams: Vec<Target>,
    /// What is made from files for TLS.
    pub tls: Material,
    /// Whom the shards ask about clients.
    pub resolvers: Resolvers,
    /// Zero: names are looked up at start and at a reload only.
    pub resolve_interval: Duration,
    /// How long open transactions may take to finish.
    pub drain: Duration,
    /// Reads the lists named in the flags again, or says what is wrong with them.
    pub reload: Box<Relisting>,
    /// What the shards begin with.
    pub first: shard::Lists,
    /// The file that what shards learn is kept in.
    pub keeping: Option<Keeping>,
    /// The server by which hosts share it.
    pub meeting: Option<Meeting>,
    pub clock: Clock,
    /// For the status page.
    pub about: About,
}

/// Reads lists; takes as long as that takes.
pub type Relisting = dyn Fn() -> Result<Lists, Vec<String>> + Send + Sync;

/// What a reload brings.
pub struct Lists {
    pub upstreams: Vec<Target>,
    pub access: Arc<Access>,
    pub relay: Arc<Relay>,
    pub lore: Arc<Lore>,
}

/// What does not change while weir runs, for the status page.
#[derive(Clone, Debug)]
pub struct About {
    pub hostname: String,
    pub listen: Vec<SocketAddr>,
    /// How clients are bound to upstream connections.
    pub mode: &'static str,
    /// What DNS lists are called, by number.
    pub lists: Vec<String>,
}

/// The shards as control sees them.
pub struct Crew {
    pub mail: ToAll,
    pub to_others: ToOthers,
    /// What they have learnt.
    pub told: mpsc::Receiver<Told>,
    /// One per shard, in order.
    pub counters: Vec<Arc<Counters>>,
    /// Resolves when all shards have ended.
    pub ended: oneshot::Receiver<()>,
}

/// The control plane, open but not yet running.
pub struct Control {
    runtime: Runtime,
    signals: Signals,
    admin: Option<Admin>,
    config: Config,
    book: Book,
    certificates: Certificates,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// How long the service manager is kept waiting for the first lookup of names.
const FIRST_LOOKUP: Duration = Duration::from_secs(5);
/// How often files are looked at that others change.
const LOOK: Duration = Duration::from_secs(5);
/// After the second signal: how long the shards may take to say 421 and end.
const END_GRACE: Duration = Duration::from_secs(3);

impl Control {
    /// Takes over the signals and the admin address.
    pub fn open(mut config: Config) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let guard = runtime.enter();
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        let admin = config.admin.take().map(Admin::new).transpose()?;
        drop(guard);
        let book = Book::new(&config.upstreams, &config.tls);
        let certificates = Certificates::new(config.tls.clone(), &config.upstreams);
        Ok(Self {
            runtime,
            signals,
            admin,
            config,
            book,
            certificates,
        })
    }

    /// The table of upstreams with what is known without a lookup: addresses given as such.
    pub fn upstreams(&self) -> Arc<[UpstreamSpec]> {
        self.book.table()
    }

    /// Where the admin page is, if there is one: the port may have been left to the kernel.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::address)
    }

    /// Runs until the shards have ended; the exit code says how.
    pub fn run(self, crew: Crew, logs: &Logs) -> io::Result<ExitCode> {
        let Self {
            runtime,
            signals,
            admin,
            mut config,
            book,
            certificates,
        } = self;
        let exchange = {
            let _on = runtime.enter();
            let (keeping, meeting) = (config.keeping.take(), config.meeting.take());
            Exchange::start(keeping, meeting, config.clock, &crew.mail, crew.to_others)?
        };
        let state = Arc::new(State::new(
            config.about.clone(),
            crew.counters,
            logs.clone(),
            book.table(),
            exchange.views(),
            Arc::clone(&crew.mail),
        ));
        let work = Work {
            signals,
            drain: config.drain,
            resolve_interval: config.resolve_interval,
            resolvers: config.resolvers,
            reader: Reader::new(config.reload),
            access: config.first.access,
            relay: config.first.relay,
            lore: config.first.lore,
            attic: Attic::default(),
            book,
            certificates,
            state,
            mail: crew.mail,
            told: crew.told,
            exchange,
            ended: crew.ended,
            logs: logs.clone(),
        };
        let code = runtime.block_on(work.run(admin));
        // A lookup that hangs in the C library must not keep the process alive.
        runtime.shutdown_background();
        Ok(code)
    }
}

type Pause = std::pin::Pin<Box<tokio::time::Sleep>>;

const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

struct Work {
    signals: Signals,
    drain: Duration,
    resolve_interval: Duration,
    resolvers: Resolvers,
    reader: Reader,
    /// What the shards go by now.
    access: Arc<Access>,
    relay: Arc<Relay>,
    lore: Arc<Lore>,
    /// What they went by before.
    attic: Attic,
    book: Book,
    certificates: Certificates,
    state: Arc<State>,
    mail: ToAll,
    told: mpsc::Receiver<Told>,
    exchange: Exchange,
    ended: oneshot::Receiver<()>,
    logs: Logs,
}

impl Work {
    async fn run(mut self, admin: Option<Admin>) -> ExitCode {
        if let Some(admin) = admin {
            tokio::spawn(admin.serve(Arc::clone(&self.state)));
        }
        if tokio::time::timeout(FIRST_LOOKUP, self.book.first_answers())
            .await
            .is_err()
        {
            log::warn!("names of upstreams take long to look up; going on without them");
        }
        self.publish();
        self.look_at_certificates();
        notify(&[sd_notify::NotifyState::Ready]);
        let code = match self.serve().await {
            Some(code) => code,
            None => self.drain().await,
        };
        // Each shard has told its last when it ended.
        while let Ok(told) = self.told.try_recv() {
            self.exchange.told(told);
        }
        self.exchange.finish().await;
        code
    }

    /// Until a signal asks to stop: None. Some: the shards ended by themselves.
    async fn serve(&mut self) -> Option<ExitCode> {
        let mut next_lookup = self.lookup_pause();
        let mut next_look = self.look_pause();
        loop {
            tokio::select! {
                _ = self.signals.terminate.recv() => return None,
                _ = self.signals.interrupt.recv() => return None,
                _ = self.signals.hangup.recv() => self.reload(),
                read = self.reader.done() => self.take_over(read),
                () = self.attic.pause() => self.attic.tidy(),
                () = self.book.answers() => self.publish(),
                Some(told) = self.told.recv() => self.exchange.told(told),
                () = &mut next_lookup => {
                    self.book.look_up();
                    next_lookup = self.lookup_pause();
                }
                () = &mut next_look => {
                    self.look_at_certificates();
                    self.look_at_resolvers();
                    next_look = self.look_pause();
                }
                _ = &mut self.ended => {
                    log::error!("the shards ended without being told to");
                    return Some(ExitCode::from(SOFTWARE));
                }
            }
        }
    }

    async fn drain(&mut self) -> ExitCode {
        log::info!(
            "draining: no new sessions, transactions have {:?} to finish",
            self.drain
        );
        self.state.drain();
        notify(&[sd_notify::NotifyState::Stopping]);
        (self.mail)(Mail::Drain { grace: self.drain });
        loop {
            tokio::select! {
                _ = &mut self.ended => {
                    log::info!("drained");
                    return ExitCode::SUCCESS;
                }
                Some(told) = self.told.recv() => self.exchange.told(told),
                _ = self.signals.terminate.recv() => break,
                _ = self.signals.interrupt.recv() => break,
            }
        }
        log::warn!("a second signal: ending at once");
        (self.mail)(Mail::End);
        if tokio::time::timeout(END_GRACE, &mut self.ended)
            .await
            .is_err()
        {
            log::error!("shards did not end within {END_GRACE:?}; leaving them behind");
        }
        ExitCode::from(CUT)
    }

    /// SIGHUP. What is in files of lists is read beside everything else; see [`Work::take_over`].
    fn reload(&mut self) {
        log::info!(
            "reloading: log file, @FILE lists, access lists, spamtraps, files of places, certificates, resolvers"
        );
        let reloading = sd_notify::NotifyState::monotonic_usec_now();
        if let Ok(now) = reloading {
            notify(&[sd_notify::NotifyState::Reloading, now]);
        }
        self.logs.reopen();
        self.look_at_resolvers();
        self.reader.begin();
    }

    /// The lists have been read. What cannot be read leaves everything as it was.
    fn take_over(&mut self, read: Result<Lists, Vec<String>>) {
        let read = read.and_then(|lists| Ok((self.certificates.reload(&lists.upstreams)?, lists)));
        match read {
            Ok((changed, lists)) => {
                (self.mail)(Mail::Access(Arc::clone(&lists.access)));
                (self.mail)(Mail::Relay(Arc::clone(&lists.relay)));
                (self.mail)(Mail::Lore(Arc::clone(&lists.lore)));
                let (access, relay, lore) = (&mut self.access, &mut self.relay, &mut self.lore);
                self.attic.keep(mem::replace(access, lists.access));
                self.attic.keep(mem::replace(relay, lists.relay));
                self.attic.keep(mem::replace(lore, lists.lore));
                let material = self.certificates.material();
                self.book.replace(&lists.upstreams, material);
                self.pass_on(changed);
                self.publish();
                log::info!("reloaded");
            }
            Err(errors) => errors
                .iter()
                .for_each(|error| log::error!("reload: {error}; everything stays as it was")),
        }
        self.state.set_certificates(self.certificates.readings());
        if !self.reader.is_reading() {
            notify(&[sd_notify::NotifyState::Ready]);
        }
    }

    fn look_at_resolvers(&mut self) {
        if self.resolvers.look() {
            log::info!("names are asked of {} from now on", self.resolvers.words());
            (self.mail)(Mail::Resolvers(self.resolvers.servers()));
        }
    }

    fn look_at_certificates(&mut self) {
        let changed = self.certificates.look();
        self.pass_on(changed);
        self.publish();
        self.state.set_certificates(self.certificates.readings());
    }

    /// Tells the shards what has changed of the clients' side, and the table what has of the upstreams'.
    fn pass_on(&mut self, changed: Changed) {
        if changed.upstream {
            self.book.dress_again(self.certificates.material());
        }
        let news = changed.server.then(|| self.certificates.mail()).flatten();
        news.into_iter().for_each(|news| (self.mail)(news));
    }

    /// Tells the shards and the pages the table of upstreams, if it changed.
    fn publish(&mut self) {
        if let Some(table) = self.book.changed() {
            self.state.set_upstreams(Arc::clone(&table));
            (self.mail)(Mail::Upstreams(table));
        }
    }

    fn lookup_pause(&self) -> Pause {
        let interval = self.resolve_interval;
        Box::pin(sleep(if interval.is_zero() {
            FOR_EVER
        } else {
            interval
        }))
    }

    fn look_pause(&self) -> Pause {
        let watched = self.certificates.is_watched() || self.resolvers.file().is_some();
        Box::pin(sleep(match watched {
            true => LOOK,
            false => FOR_EVER,
        }))
    }
}

/// sysexits.h: a defect.
const SOFTWARE: u8 = 70;
/// Ended by a second signal, sessions were cut.
const CUT: u8 = 1;

fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        log::warn!("service manager cannot be notified: {error}");
    }
}

#[cfg(test)]
mod tests;
