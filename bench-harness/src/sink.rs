//! The sink: an upstream for more than 100,000 messages a second and core, that judges strictly, counts every message by its id, and does
//! wrong where it is told to.
//!
//! ```text
//! thread (one a core, own runtime, SO_REUSEPORT)
//!    listener ──> connection: read ──> session: commands ──> content: dots, newlines ──> ledger::Checker
//!                     ^                   │ faults: delays, refusals, resets                  │
//!                     └── replies <───────┘                                       ledgers, counters
//! control port (own thread): ledger of a run, counters, other faults ──────────────────────────┘
//! ```
//! Reading order: `announce`, `fault`, `delay` (what it says and does wrong), `session`, `content` (what it does right, without a socket),
//! `connection`, `thread` (sockets), `ledgers`, `counters`, `control`.
//!
//! A message is counted before its 250 is written, and stays counted if the 250 cannot be: a server that accepts mail has it, heard or not.
//! One whose final reply is a fault was not accepted. Memory: an idle connection costs 1.8 KB (measured with 15,000); a run 2 bits
//! a message.

pub mod announce;
mod connection;
mod content;
mod control;
pub mod counters;
pub mod delay;
pub mod fault;
mod ledgers;
mod proxied;
mod session;
mod thread;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::watch;

use crate::ledger::Arrived;
use crate::tls::certificate::Certificate;
use announce::{Announce, Texts};
use connection::Door;
use counters::Counters;
use fault::Faults;
use thread::{Open, Said, Thread};

/// What a sink is to be.
#[derive(Debug, Clone)]
pub struct Config {
    /// Port 0 is any free one.
    pub listen: Vec<SocketAddr>,
    /// TLS before the greeting.
    pub listen_tls: Vec<SocketAddr>,
    /// A PROXY header before the greeting.
    pub listen_proxied: Vec<SocketAddr>,
    /// Offers STARTTLS, and does it.
    pub starttls: bool,
    /// For TLS of either kind; made at start where there is none.
    pub certificate: Option<Certificate>,
    pub control: SocketAddr,
    /// Each has its own runtime and its own listeners.
    pub threads: usize,
    pub hostname: String,
    pub announce: Announce,
    pub faults: Faults,
    /// Of everything random.
    pub seed: u64,
    /// A connection on which nothing was heard for so long, or up to twice so long, is closed.
    pub idle_max: Duration,
}

impl Default for Config {
    /// One thread, any free ports of 127.0.0.1, no faults.
    fn default() -> Config {
        Config {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            listen_tls: Vec::new(),
            listen_proxied: Vec::new(),
            starttls: false,
            certificate: None,
            control: SocketAddr::from(([127, 0, 0, 1], 0)),
            threads: 1,
            hostname: "sink.example".to_owned(),
            announce: Announce::default(),
            faults: Faults::default(),
            seed: 1,
            idle_max: Duration::from_secs(300),
        }
    }
}

const THREADS_MAX: usize = 256;

/// A sink at work. It stops when this is dropped.
pub struct Handle {
    /// In the order of `Config::listen`, ports filled in.
    pub smtp: Vec<SocketAddr>,
    pub smtp_tls: Vec<SocketAddr>,
    pub smtp_proxied: Vec<SocketAddr>,
    pub control: SocketAddr,
    /// What it shows in TLS: who trusts this, trusts the sink.
    pub certificate: Option<Certificate>,
    threads: Arc<[Arc<Thread>]>,
    stop: watch::Sender<bool>,
    running: Vec<std::thread::JoinHandle<()>>,
}

impl Handle {
    /// What was seen so far, without the control port.
    pub fn counters(&self) -> Counters {
        control::counters(&self.threads)
    }

    pub fn arrived(&self, run: u64) -> Arrived {
        control::arrived(&self.threads, run)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // a thread that does not listen any more has ended already
        self.stop.send_replace(true);
        for thread in self.running.drain(..) {
            if thread.join().is_err() {
                eprintln!("sink: a thread of the sink has panicked");
            }
        }
    }
}

/// Opens all ports and starts to serve.
pub fn start(config: &Config) -> anyhow::Result<Handle> {
    check(config)?;
    let mut doors = config.doors();
    let addresses = doors.iter().map(|(_, address)| address);
    for address in addresses.chain([&config.control]) {
        be_alone(*address)?;
    }
    let mut listeners: Vec<Vec<(Door, std::net::TcpListener)>> = Vec::new();
    for _ in 0..config.threads {
        let mut own = Vec::new();
        for (door, address) in &mut doors {
            let listener = listen(*address)?;
            *address = listener.local_addr().context("a socket has no address")?;
            own.push((*door, listener));
        }
        listeners.push(own);
    }
    let control = listen(config.control)?;
    let certificate = config.certificate()?;
    let threads = threads(config, certificate.as_ref())?;
    let (stop, stopped) = watch::channel(false);
    let behind = |wanted: Door| {
        let behind = doors.iter().filter(|(door, _)| *door == wanted);
        behind.map(|(_, address)| *address).collect()
    };
    let mut handle = Handle {
        smtp: behind(Door::Open),
        smtp_tls: behind(Door::Tls),
        smtp_proxied: behind(Door::Proxied),
        certificate,
        control: control.local_addr().context("a socket has no address")?,
        threads: Arc::clone(&threads),
        stop,
        running: Vec::new(),
    };
    for (thread, listeners) in threads.iter().zip(listeners) {
        let (thread, stopped) = (Arc::clone(thread), stopped.clone());
        handle.spawn("sink", stopped, move || {
            for (door, listener) in listeners {
                tokio::spawn(Arc::clone(&thread).serve(of_tokio(listener), door));
            }
        })?;
    }
    handle.spawn("sink-control", stopped, move || {
        tokio::spawn(control::serve(of_tokio(control), threads));
    })?;
    Ok(handle)
}

impl Config {
    /// Every address and what comes first behind it.
    fn doors(&self) -> Vec<(Door, SocketAddr)> {
        let doors = [
            (Door::Open, &self.listen),
            (Door::Tls, &self.listen_tls),
            (Door::Proxied, &self.listen_proxied),
        ];
        let all = doors.into_iter();
        all.flat_map(|(door, addresses)| addresses.iter().map(move |address| (door, *address)))
            .collect()
    }

    /// The one given, or one that is made; none where there is no TLS.
    fn certificate(&self) -> anyhow::Result<Option<Certificate>> {
        if !self.starttls && self.listen_tls.is_empty() {
            return Ok(None);
        }
        match &self.certificate {
            Some(given) => Ok(Some(given.clone())),
            None => Certificate::make(&self.hostname).map(Some),
        }
    }
}

fn check(config: &Config) -> anyhow::Result<()> {
    ensure!(
        (1..=THREADS_MAX).contains(&config.threads),
        "a sink has 1 to {THREADS_MAX} threads, not {}",
        config.threads
    );
    ensure!(
        !config.doors().is_empty(),
        "a sink needs an address to listen on"
    );
    let name = config.hostname.as_bytes();
    ensure!(
        !name.is_empty() && name.iter().all(u8::is_ascii_graphic),
        "`{}` cannot be a host name",
        config.hostname
    );
    Ok(())
}

/// What each thread keeps, each with draws of its own.
fn threads(
    config: &Config,
    certificate: Option<&Certificate>,
) -> anyhow::Result<Arc<[Arc<Thread>]>> {
    let server = certificate.map(Certificate::server).transpose()?;
    let said = Arc::new(Said {
        plain: match config.starttls {
            true => Texts::with_starttls(&config.hostname, &config.announce),
            false => Texts::new(&config.hostname, &config.announce),
        },
        secured: Texts::new(&config.hostname, &config.announce),
        tls: server.map(Into::into),
    });
    let faults = Arc::new(config.faults.clone());
    let open = Arc::new(Open::default());
    let thread = |index: u64| {
        Arc::new(Thread::new(
            Arc::clone(&said),
            Arc::clone(&faults),
            config.idle_max,
            config.seed ^ index << 48,
            Arc::clone(&open),
        ))
    };
    Ok((0..config.threads as u64).map(thread).collect())
}

impl Handle {
    /// A thread with a runtime, in which `begin` starts its tasks.
    fn spawn(
        &mut self,
        name: &str,
        mut stopped: watch::Receiver<bool>,
        begin: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime: too many open files?")?;
        let run = move || {
            runtime.block_on(async {
                begin();
                // an error means that the handle is gone, which is the same
                stopped.wait_for(|stopped| *stopped).await.ok();
            })
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .context("cannot start a thread")?;
        self.running.push(thread);
        Ok(())
    }
}

fn of_tokio(listener: std::net::TcpListener) -> tokio::net::TcpListener {
    tokio::net::TcpListener::from_std(listener)
        .expect("a non-blocking listener can be given to the runtime it is made for")
}

/// A listener that others of this process may share its port with. Accepted sockets inherit TCP_NODELAY: replies leave as they are written.
fn listen(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let open = || {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // the kernel cuts it to net.core.somaxconn
        socket.listen(65_535)?;
        std::io::Result::Ok(socket.into())
    };
    open().with_context(|| format!("the sink cannot listen on {address}"))
}

/// That the threads of a sink share a port lets a second sink have it, too: each would see a part of the mail, and answer for all of it.
/// A socket that does not share finds out.
fn be_alone(address: SocketAddr) -> anyhow::Result<()> {
    let alone = socket(address).and_then(|socket| socket.bind(&address.into()));
    alone.with_context(|| format!("the sink cannot listen on {address}"))
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Fewer connections than that are worth a word.
const OPEN_FILES_WANTED: u64 = 10_000;

/// Runs a sink until it is interrupted, or for `lasts`; then prints its counters as JSON. Its certificate is written to a file for clients
/// to trust, before it says where it listens.
pub fn command(
    config: &Config,
    lasts: Option<Duration>,
    certificate_to: Option<&Path>,
) -> anyhow::Result<()> {
    let files = crate::sys::raise_open_files().context("cannot raise the limit of open files")?;
    if files < OPEN_FILES_WANTED {
        eprintln!("sink: only {files} connections fit (ulimit -n): raise the hard limit for more");
    }
    let handle = start(config)?;
    if let (Some(file), Some(certificate)) = (certificate_to, &handle.certificate) {
        std::fs::write(file, &certificate.chain)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    for (word, addresses) in [
        ("smtp", &handle.smtp),
        ("smtp-tls", &handle.smtp_tls),
        ("smtp-proxied", &handle.smtp_proxied),
    ] {
        for address in addresses {
            println!("{word} {address}");
        }
    }
    println!("control {}", handle.control);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(until(lasts))?;
    let counters = serde_json::to_string_pretty(&handle.counters())
        .context("the counters cannot be written as JSON")?;
    println!("{counters}");
    Ok(())
}

/// SIGINT, SIGTERM, or the end of the time.
async fn until(lasts: Option<Duration>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let over = async {
        match lasts {
            Some(lasts) => tokio::time::sleep(lasts).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = over => {}
    }
    Ok(())
}
