//! The writer thread: takes filled shelves, writes them out, reopens the file, keeps the wall clock's offset current.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Format, LogBuffer,
    operation::Operations,
    shelf::{Bell, Shelves},
};
use crate::metrics::Counters;

/// Pause between two rounds under load.
const ROUND: Duration = Duration::from_millis(10);
/// Longest sleep, so that the wall clock's offset does not grow stale.
const SLEEP: Duration = Duration::from_secs(10);
/// How long `finish` waits for a reader that does not read.
const FINISH_WAIT: Duration = Duration::from_secs(2);

/// Where the log goes and in which form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub format: Format,
    /// None: standard error.
    pub file: Option<PathBuf>,
}

/// A handle to the log, for whoever makes a [`LogBuffer`] or wants the file reopened.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

/// The running writer thread.
pub struct Writer {
    logs: Logs,
    finished: mpsc::Receiver<()>,
}

struct Shared {
    config: Config,
    sources: Mutex<Vec<Arc<Shelves>>>,
    operations: Arc<Shelves>,
    wall_at_zero: Arc<AtomicU64>,
    bell: &'static Bell,
    reopen: AtomicBool,
    stop: AtomicBool,
    errors: AtomicU64,
}

impl Writer {
    /// Opens the log and starts its thread. `epoch` is the instant of `Moment::ZERO`.
    pub fn start(config: Config, epoch: Instant) -> io::Result<Self> {
        let target = Target::open(config.file.as_deref())?;
        let bell: &'static Bell = Box::leak(Box::default());
        let shared = Arc::new(Shared {
            config,
            sources: Mutex::default(),
            operations: Arc::new(Shelves::new(8, bell)),
            wall_at_zero: Arc::new(AtomicU64::new(wall_at(epoch))),
            bell,
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            errors: AtomicU64::new(0),
        });
        let (done, finished) = mpsc::channel();
        let on_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("weir-log".into())
            .spawn(move || {
                run(&on_thread, target, epoch);
                let _ = done.send(()); // nobody waits when the process just exits
            })?;
        Ok(Self {
            logs: Logs(shared),
            finished,
        })
    }

    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Makes this log the process's sink of `log::warn!` and its kin.
    pub fn install(&self, level: log::LevelFilter) -> Result<(), log::SetLoggerError> {
        let shared = &self.logs.0;
        let operations = Operations::new(Arc::clone(&shared.operations), shared.config.format);
        log::set_boxed_logger(Box::new(operations))?;
        log::set_max_level(level);
        Ok(())
    }

    /// Writes what is on the shelves and ends the thread; gives up on a reader that has stopped reading.
    pub fn finish(self) {
        self.logs.0.stop.store(true, SeqCst);
        self.logs.0.bell.ring();
        let _ = self.finished.recv_timeout(FINISH_WAIT); // lines are lost, as they are whenever the reader is too slow
    }
}

impl Logs {
    /// A shard's buffer.
    pub fn buffer(&self, shard: usize, counters: Arc<Counters>) -> LogBuffer {
        let shared = &self.0;
        let shelves = Arc::new(Shelves::new(2, shared.bell));
        shared
            .sources
            .lock()
            .expect("no panic while the list of sources is held")
            .push(Arc::clone(&shelves));
        LogBuffer {
            shelves,
            counters,
            wall_at_zero: Arc::clone(&shared.wall_at_zero),
            format: shared.config.format,
            shard,
            lost: 0,
        }
    }

    /// Opens the file anew before the next line, for logrotate. If that fails the old one stays in use.
    pub fn reopen(&self) {
        self.0.reopen.store(true, SeqCst);
        self.0.bell.ring();
    }

    /// Writes that failed (disk full, closed pipe): their lines are lost.
    pub fn errors(&self) -> u64 {
        self.0.errors.load(Relaxed)
    }
}

fn run(shared: &Shared, mut target: Target, epoch: Instant) {
    let mut spare = Vec::new();
    loop {
        shared.wall_at_zero.store(wall_at(epoch), Relaxed);
        if shared.reopen.swap(false, SeqCst) {
            reopen(shared, &mut target);
        }
        let stop = shared.stop.load(SeqCst);
        let wrote = round(shared, &mut target, &mut spare);
        if stop {
            return;
        }
        match wrote {
            true => thread::sleep(ROUND),
            false => sleep(shared),
        }
    }
}

/// Writes out all shelves; tells whether there was anything.
fn round(shared: &Shared, target: &mut Target, spare: &mut Vec<u8>) -> bool {
    let sources = shared
        .sources
        .lock()
        .expect("no panic while the list of sources is held")
        .clone();
    let mut wrote = false;
    for shelves in sources.iter().chain([&shared.operations]) {
        shelves.take(spare, |batch| {
            wrote = true;
            if target.write(batch).is_err() {
                shared.errors.fetch_add(1, Relaxed);
            }
        });
    }
    wrote
}

fn sleep(shared: &Shared) {
    shared.bell.going_to_sleep();
    let sources = shared
        .sources
        .lock()
        .expect("no panic while the list of sources is held")
        .clone();
    let nothing = sources
        .iter()
        .chain([&shared.operations])
        .all(|shelves| shelves.is_empty());
    if nothing && !shared.stop.load(SeqCst) && !shared.reopen.load(SeqCst) {
        thread::park_timeout(SLEEP);
    }
    shared.bell.awake();
}

fn reopen(shared: &Shared, target: &mut Target) {
    match Target::open(shared.config.file.as_deref()) {
        Ok(fresh) => *target = fresh,
        Err(error) => {
            shared.errors.fetch_add(1, Relaxed);
            log::error!("log file cannot be reopened, the old one stays in use: {error}");
        }
    }
}

enum Target {
    Stderr,
    File(File),
}

impl Target {
    fn open(file: Option<&Path>) -> io::Result<Self> {
        let Some(path) = file else {
            return Ok(Target::Stderr);
        };
        let opened = OpenOptions::new().append(true).create(true).open(path);
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        Ok(Target::File(opened.map_err(named)?))
    }

    fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        match self {
            Target::Stderr => io::stderr().lock().write_all(batch),
            Target::File(file) => file.write_all(batch),
        }
    }
}

fn wall_at(epoch: Instant) -> u64 {
    let wall = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    wall.saturating_sub(epoch.elapsed()).as_micros() as u64
}
