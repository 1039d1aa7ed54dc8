//! The thread that keeps the file of --state FILE: opens it, tells the shards what is in it, writes what they learn.
//!
//! Nobody waits for it. It opens the file when weir runs already and hands out what is in it in small letters, a few under way
//! at a time, so that a shard has its clients to serve in between. What comes meanwhile is pending and written every two
//! seconds; so a crash costs what came since. A file that is unfit is put aside and a new one begun; a disk that fails is tried
//! again, and what is pending stays, bounded, until it works.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use crate::metrics::state::File as Readings;
use crate::net::ClientPrefix;
use crate::policy::news::{News, Seconds};

use super::file::{File, Place, Trouble};
use super::pending::Pending;

pub use super::file::Room;
use super::record::Lives;

/// Letters that may wait for the thread, one of each shard each second: a minute's worth while a commit takes long.
const ORDERS: usize = 4096;
/// News in all of them: some 40 MiB.
const WAITING_MAX: u64 = 1 << 20;
/// How often is written.
const COMMIT: Duration = Duration::from_secs(2);
/// How often is looked for what is over while there is nothing to write.
const SWEEP: Duration = Duration::from_secs(30);
/// How often a disk that failed, or a file that another process has, is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Entries in one letter: some 50 microseconds of a shard's time.
const LETTER: usize = 256;
/// Letters under way at a time.
const UNDER_WAY: usize = 4;
/// Between looks whether letters have been read.
const BREATH: Duration = Duration::from_millis(1);
/// A shard that takes longer over its letters than this is not waited for.
const PATIENCE: u32 = 1000;

/// What is kept where.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Keeping {
    pub path: PathBuf,
    pub room: Room,
    pub lives: Lives,
    /// Of the networks.
    pub prefix: ClientPrefix,
}

/// Microseconds since 1970, never running backwards.
pub type Wall = Box<dyn Fn() -> u64 + Send>;

/// Passes on what the file had.
pub type Deliver = Box<dyn Fn(Arc<[News]>) + Send>;

/// The thread, from outside.
pub struct Keeper {
    orders: SyncSender<Order>,
    cells: Arc<Cells>,
    /// None: it has been waited for.
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

enum Order {
    Keep(Arc<[News]>),
    End,
}

#[derive(Default)]
struct Cells {
    tuples: AtomicU64,
    networks: AtomicU64,
    loaded: AtomicU64,
    is_loaded: AtomicBool,
    pending: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    /// News in letters that wait.
    waiting: AtomicU64,
    commits: AtomicU64,
    failures: AtomicU64,
    is_failing: AtomicBool,
    set_aside: AtomicU64,
}

impl Keeper {
    pub fn start(keeping: Keeping, wall: Wall, deliver: Deliver) -> io::Result<Keeper> {
        let (orders, received) = sync_channel(ORDERS);
        let cells = Arc::new(Cells::default());
        let mut work = Work {
            keeping,
            wall,
            deliver,
            orders: received,
            cells: Arc::clone(&cells),
            file: None,
            place: Place::START,
            under_way: VecDeque::new(),
            breaths: 0,
            pending: Pending::default(),
            next: Next::default(),
        };
        let thread = thread::Builder::new()
            .name("weir-state".into())
            .spawn(move || work.run())?;
        Ok(Keeper {
            orders,
            cells,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Leaves news to be written. Never waits: where the thread is far behind they are let go and counted.
    pub fn keep(&self, news: Arc<[News]>) {
        let count = news.len() as u64;
        let waiting = self.cells.waiting.fetch_add(count, Relaxed) + count;
        let has_room = waiting <= WAITING_MAX;
        if !has_room || self.orders.try_send(Order::Keep(news)).is_err() {
            self.cells.waiting.fetch_sub(count, Relaxed);
            self.cells.refused.fetch_add(count, Relaxed);
        }
    }

    pub fn readings(&self) -> Readings {
        self.view().readings()
    }

    /// For whoever looks from elsewhere.
    pub fn view(&self) -> View {
        View(Arc::clone(&self.cells))
    }

    /// Writes what is pending and ends; waits for that, for the disk may take its time.
    pub fn finish(&self) {
        let thread = self
            .thread
            .lock()
            .expect("nobody panics while it is held")
            .take();
        let Some(thread) = thread else { return };
        if self.orders.send(Order::End).is_err() || thread.join().is_err() {
            log::error!("--state: the thread that keeps the file had ended before");
        }
    }
}

/// How the file stands, whoever asks.
#[derive(Clone)]
pub struct View(Arc<Cells>);

impl View {
    pub fn readings(&self) -> Readings {
        let cells = &*self.0;
        Readings {
            tuples: cells.tuples.load(Relaxed),
            networks: cells.networks.load(Relaxed),
            loaded: cells.loaded.load(Relaxed),
            is_loaded: cells.is_loaded.load(Relaxed),
            pending: cells.pending.load(Relaxed),
            dropped: cells.dropped.load(Relaxed) + cells.refused.load(Relaxed),
            commits: cells.commits.load(Relaxed),
            failures: cells.failures.load(Relaxed),
            is_failing: cells.is_failing.load(Relaxed),
            set_aside: cells.set_aside.load(Relaxed),
        }
    }
}

/// When what is due, in microseconds of the wall.
#[derive(Default)]
struct Next {
    attempt: u64,
    commit: u64,
    sweep: u64,
}

struct Work {
    keeping: Keeping,
    wall: Wall,
    deliver: Deliver,
    orders: Receiver<Order>,
    cells: Arc<Cells>,
    file: Option<File>,
    place: Place,
    under_way: VecDeque<Arc<[News]>>,
    /// Looks in vain at the letters under way.
    breaths: u32,
    pending: Pending,
    next: Next,
}

impl Work {
    fn run(&mut self) {
        loop {
            let now = (self.wall)();
            if self.file.is_none() && now >= self.next.attempt {
                self.open();
            }
            if self.file.is_some() {
                self.load();
            }
            // What is written while it is read would be told to those who told it.
            if self.place == Place::End {
                self.write_if_due(now);
            }
            self.cells.pending.store(self.pending.len() as u64, Relaxed);
            match self.orders.recv_timeout(self.pause(now)) {
                Ok(Order::Keep(news)) => self.take(&news),
                Ok(Order::End) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(order) = self.orders.try_recv() {
                match order {
                    Order::Keep(news) => self.take(&news),
                    Order::End => return self.end(),
                }
            }
        }
        self.end();
    }

    fn end(&mut self) {
        if self.file.is_none() {
            self.open();
        }
        self.commit();
        if !self.pending.is_empty() {
            let path = self.keeping.path.display();
            log::error!(
                "--state {path}: {} entries could not be written and are lost",
                self.pending.len()
            );
        }
        self.close();
    }

    fn seconds(&self) -> Seconds {
        Seconds::try_from((self.wall)() / 1_000_000).unwrap_or(Seconds::MAX)
    }

    fn take(&mut self, news: &[News]) {
        self.cells.waiting.fetch_sub(news.len() as u64, Relaxed);
        let now = self.seconds();
        self.pending.add(news, now, &self.keeping.lives);
        self.cells.dropped.store(self.pending.dropped, Relaxed);
    }

    /// How long there is nothing to do but to listen.
    fn pause(&self, now: u64) -> Duration {
        if self.file.is_some() && self.place != Place::End {
            return BREATH;
        }
        let due = match (&self.file, self.pending.is_empty()) {
            (None, _) => self.next.attempt,
            (Some(_), false) => self.next.commit,
            (Some(_), true) => self.next.sweep,
        };
        Duration::from_micros(due.saturating_sub(now))
    }

    fn open(&mut self) {
        let keeping = &self.keeping;
        let opened = guarded(|| {
            let file = File::open(&keeping.path, keeping.room, keeping.lives)?;
            file.look_at_prefix(keeping.prefix)?;
            Ok(file)
        });
        match opened {
            Ok(file) => {
                self.file = Some(file);
                // A full disk can be opened: what is pending has to be written before it works.
                if self.pending.is_empty() {
                    self.works();
                }
                self.count_entries();
            }
            Err(trouble) => self.failed(trouble),
        }
    }

    /// Passes on the next entries, if the shards have read what is under way.
    fn load(&mut self) {
        if self.place == Place::End || !self.are_letters_read() {
            return;
        }
        while self.under_way.len() < UNDER_WAY && self.place != Place::End {
            let now = self.seconds();
            let (Some(file), place) = (&self.file, self.place) else {
                return;
            };
            match guarded(|| file.read(place, LETTER, now)) {
                Ok((news, next)) => {
                    self.place = next;
                    self.cells.loaded.fetch_add(news.len() as u64, Relaxed);
                    if !news.is_empty() {
                        let letter: Arc<[News]> = news.into();
                        self.under_way.push_back(Arc::clone(&letter));
                        (self.deliver)(letter);
                    }
                }
                Err(trouble) => return self.failed(trouble),
            }
        }
        if self.place == Place::End {
            self.loaded();
        }
    }

    fn loaded(&mut self) {
        self.under_way.clear();
        self.cells.is_loaded.store(true, Relaxed);
        let readings = self.cells.loaded.load(Relaxed);
        log::info!(
            "--state {}: {readings} entries read",
            self.keeping.path.display()
        );
    }

    /// Whoever has read a letter has let go of it. True also when that takes too long.
    fn are_letters_read(&mut self) -> bool {
        while self
            .under_way
            .front()
            .is_some_and(|letter| Arc::strong_count(letter) == 1 || self.breaths >= PATIENCE)
        {
            self.under_way.pop_front();
            self.breaths = 0;
        }
        let has_room = self.under_way.len() < UNDER_WAY;
        self.breaths = if has_room { 0 } else { self.breaths + 1 };
        has_room
    }

    fn write_if_due(&mut self, now: u64) {
        if self.file.is_none() {
            return;
        }
        let has_news = !self.pending.is_empty() && now >= self.next.commit;
        if has_news || now >= self.next.sweep {
            self.commit();
            let after = (self.wall)();
            self.next.commit = after + COMMIT.as_micros() as u64;
            self.next.sweep = after + SWEEP.as_micros() as u64;
        }
    }

    fn commit(&mut self) {
        let now = self.seconds();
        let (Some(file), pending) = (&mut self.file, &self.pending) else {
            return;
        };
        match guarded(|| file.commit(pending, now)) {
            Ok(()) => {
                self.pending.clear();
                self.cells.commits.fetch_add(1, Relaxed);
                self.works();
                self.count_entries();
            }
            Err(trouble) => self.failed(trouble),
        }
    }

    fn count_entries(&mut self) {
        let Some(file) = &self.file else { return };
        match guarded(|| file.entries()) {
            Ok((tuples, networks)) => {
                self.cells.tuples.store(tuples, Relaxed);
                self.cells.networks.store(networks, Relaxed);
            }
            Err(trouble) => self.failed(trouble),
        }
    }

    fn works(&mut self) {
        if self.cells.is_failing.swap(false, Relaxed) {
            let path = self.keeping.path.display();
            log::info!("--state {path}: works again");
        }
    }

    /// What is pending stays. Told once, until it works again.
    fn failed(&mut self, trouble: Trouble) {
        self.close();
        self.next.attempt = (self.wall)() + AGAIN.as_micros() as u64;
        let trouble = match trouble {
            Trouble::Unfit(why) => match self.set_aside(&why) {
                Ok(()) => return,
                Err(error) => format!("{why}; it cannot be put aside: {error}"),
            },
            Trouble::InUse => "another process has it open".into(),
            Trouble::Failed(why) => why,
        };
        self.cells.failures.fetch_add(1, Relaxed);
        if !self.cells.is_failing.swap(true, Relaxed) {
            let path = self.keeping.path.display();
            log::error!(
                "--state {path}: {trouble}; what is learnt stays in memory, and is tried again every {AGAIN:?}"
            );
        }
    }

    /// One file is kept aside: the last.
    fn set_aside(&mut self, why: &str) -> io::Result<()> {
        let path = &self.keeping.path;
        let aside = aside(path);
        fs::rename(path, &aside)?;
        self.cells.set_aside.fetch_add(1, Relaxed);
        log::error!(
            "--state {}: {why}; put aside as {}, what was in it is not known any more, and a new file is begun",
            path.display(),
            aside.display()
        );
        self.place = Place::START;
        // Not at once: were the next one unfit too, this would go round and round.
        self.next.attempt = (self.wall)() + COMMIT.as_micros() as u64;
        Ok(())
    }

    /// Closing a database that has failed may fail as well; there is nothing left in it to lose.
    fn close(&mut self) {
        let file = self.file.take();
        if catch_unwind(AssertUnwindSafe(|| drop(file))).is_err() {
            log::warn!(
                "--state {}: could not be closed in order",
                self.keeping.path.display()
            );
        }
    }
}

/// Where an unfit file goes.
pub fn aside(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".aside");
    name.into()
}

fn guarded<T>(step: impl FnOnce() -> Result<T, Trouble>) -> Result<T, Trouble> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|_| Err(Trouble::of_panic()))
}

#[cfg(test)]
mod tests;
