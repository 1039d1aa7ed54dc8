//! Lists that are read again while weir runs: by a thread of its own, and what they replace is taken apart by another.
//!
//! A million lines take a second to read and a large table some time to free: neither may hold up the control thread, and
//! no shard may be the one that lets go of a table last. So control keeps what it has replaced until nobody else has it.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use std::{any::Any, io, thread};

use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{Lists, Relisting};
use crate::rt;

/// How often control looks whether shards have let go of what was replaced. They do with their next letter.
const LOOK: Duration = Duration::from_millis(500);

/// What came of reading the lists.
pub(super) type Outcome = Result<Lists, Vec<String>>;

/// The reader of lists; one at a time.
pub(super) struct Reader {
    read: Arc<Relisting>,
    running: Option<oneshot::Receiver<Outcome>>,
    /// Asked to read again while it read: what it has may be half of it.
    again: bool,
}

impl Reader {
    pub(super) fn new(read: Box<Relisting>) -> Reader {
        Reader {
            read: Arc::from(read),
            running: None,
            again: false,
        }
    }

    /// Begins to read, or will do so when it is done with what it reads now.
    pub(super) fn begin(&mut self) {
        if self.running.is_some() {
            log::info!("reload: the lists are still being read; they are read again after that");
            self.again = true;
            return;
        }
        let (tell, told) = oneshot::channel();
        self.running = Some(told);
        let read = Arc::clone(&self.read);
        let work = move || {
            give_way();
            // Nobody listens any more where weir is ending.
            drop(tell.send(read()));
        };
        if let Err(error) = start("weir-lists", work) {
            // The sender is gone with it, which is told as a failure.
            log::error!("reload: {error}");
        }
    }

    /// What came of it; for ever if nothing is being read. May be dropped and called again.
    pub(super) async fn done(&mut self) -> Outcome {
        let Some(running) = &mut self.running else {
            return pending().await;
        };
        let outcome = running.await;
        self.running = None;
        if std::mem::take(&mut self.again) {
            self.begin();
        }
        outcome.unwrap_or_else(|_| Err(vec!["the lists could not be read: a defect".into()]))
    }

    pub(super) fn is_reading(&self) -> bool {
        self.running.is_some()
    }
}

/// What was replaced, until nobody uses it any more.
pub(super) struct Attic {
    kept: Vec<Box<dyn Kept>>,
    /// When it is worth looking again, however often other things happen.
    due: Instant,
}

trait Kept: Send {
    /// Nobody else has it, so nobody else will.
    fn is_forgotten(&self) -> bool;
    fn into_any(self: Box<Self>) -> Box<dyn Any + Send>;
}

impl<T: Send + Sync + 'static> Kept for Arc<T> {
    fn is_forgotten(&self) -> bool {
        Arc::strong_count(self) == 1
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Default for Attic {
    fn default() -> Attic {
        Attic {
            kept: Vec::new(),
            due: Instant::now(),
        }
    }
}

impl Attic {
    pub(super) fn keep<T: Send + Sync + 'static>(&mut self, replaced: Arc<T>) {
        self.kept.push(Box::new(replaced));
        self.due = Instant::now() + LOOK;
    }

    /// Until it is worth looking again; for ever if there is nothing.
    pub(super) async fn pause(&self) {
        match self.kept.is_empty() {
            true => pending().await,
            false => sleep_until(self.due).await,
        }
    }

    /// Frees what nobody uses any more, off this thread.
    pub(super) fn tidy(&mut self) {
        self.due = Instant::now() + LOOK;
        let forgotten: Vec<_> = (self.kept)
            .extract_if(.., |kept| kept.is_forgotten())
            .map(Kept::into_any)
            .collect();
        if forgotten.is_empty() {
            return;
        }
        let work = move || {
            give_way();
            drop(forgotten);
        };
        if let Err(error) = start("weir-attic", work) {
            log::warn!("old lists were freed by the control thread: {error}");
        }
    }
}

/// What it does can wait; what shards do cannot.
fn give_way() {
    if let Err(error) = rt::step_back() {
        log::debug!("lists are read at the priority of mail: {error}");
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let started = thread::Builder::new().name(name.into()).spawn(work);
    started.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::access::Access;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::sync::mpsc;

    fn lists() -> Lists {
        Lists {
            upstreams: Vec::new(),
            access: Arc::default(),
            relay: Arc::default(),
            lore: Arc::default(),
        }
    }

    #[tokio::test]
    async fn lists_are_read_by_another_thread_once_more_if_asked_meanwhile() {
        let (go, may_go) = mpsc::channel::<()>();
        let may_go = std::sync::Mutex::new(may_go);
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let mut reader = Reader::new(Box::new(move || {
            assert_eq!(thread::current().name(), Some("weir-lists"));
            may_go.lock().unwrap().recv().unwrap();
            match counted.fetch_add(1, Relaxed) {
                0 => Err(vec!["half a file".into()]),
                _ => Ok(lists()),
            }
        }));
        let idle = tokio::time::timeout(Duration::from_millis(1), reader.done());
        assert!(idle.await.is_err(), "nothing is being read");
        reader.begin();
        let early = tokio::time::timeout(Duration::from_millis(1), reader.done());
        assert!(early.await.is_err(), "control goes on");
        reader.begin();
        go.send(()).unwrap();
        assert_eq!(reader.done().await.err(), Some(vec!["half a file".into()]));
        assert!(reader.is_reading());
        go.send(()).unwrap();
        assert!(reader.done().await.is_ok() && !reader.is_reading());
        assert_eq!(reads.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_reader_that_panics_is_a_failure() {
        let mut reader = Reader::new(Box::new(|| panic!("not a list")));
        reader.begin();
        assert!(reader.done().await.is_err() && !reader.is_reading());
    }

    /// Tells which thread it ends on.
    struct Told(mpsc::Sender<Option<String>>);

    impl Drop for Told {
        fn drop(&mut self) {
            let name = thread::current().name().map(str::to_owned);
            self.0.send(name).unwrap();
        }
    }

    #[test]
    fn what_was_replaced_is_freed_when_the_last_shard_has_let_go_and_by_none_of_them() {
        let (tell, told) = mpsc::channel();
        let mut attic = Attic::default();
        let old = Arc::new(Told(tell));
        let shard = Arc::clone(&old);
        attic.keep(old);
        attic.keep(Arc::<Access>::default());
        attic.tidy();
        assert!(told.try_recv().is_err());
        drop(shard);
        assert!(told.try_recv().is_err(), "not by whoever was last");
        attic.tidy();
        let patience = Duration::from_secs(10);
        assert_eq!(
            told.recv_timeout(patience).unwrap().as_deref(),
            Some("weir-attic")
        );
        assert!(attic.kept.is_empty());
    }
}
