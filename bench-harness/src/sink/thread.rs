//! What the connections of one thread share: one buffer to read into, one to answer from, counters and ledgers. The control port looks in from
//! its own thread, so there is a lock; it is taken once a read, and nobody else wants it then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::announce::Texts;
use super::connection::{Connection, Door};
use super::counters::Counters;
use super::fault::Faults;
use super::ledgers::Ledgers;
use super::session::Replies;

/// What one read may bring.
const INPUT_OCTETS: usize = 256 * 1024;

pub struct Thread {
    pub said: Arc<Said>,
    pub idle_max: Duration,
    pub open: Arc<Open>,
    seed: u64,
    shared: Mutex<Shared>,
}

/// What is said, and how it is made secret.
pub struct Said {
    /// Before TLS, and where there is none.
    pub plain: Texts,
    pub secured: Texts,
    pub tls: Option<TlsAcceptor>,
}

/// What the control port looks at, and what the connections of the thread lend each other.
pub struct Shared {
    pub input: Box<[u8]>,
    pub replies: Replies,
    pub counters: Counters,
    pub ledgers: Ledgers,
    pub faults: Arc<Faults>,
}

/// Open connections of all threads.
#[derive(Default)]
pub struct Open {
    now: AtomicU64,
    most: AtomicU64,
}

impl Open {
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// Counts itself as an open connection.
struct Counted(Arc<Open>);

impl Counted {
    fn new(open: &Arc<Open>) -> Counted {
        let now = open.now.fetch_add(1, Ordering::Relaxed) + 1;
        open.most.fetch_max(now, Ordering::Relaxed);
        Counted(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Thread {
    pub fn new(
        said: Arc<Said>,
        faults: Arc<Faults>,
        idle_max: Duration,
        seed: u64,
        open: Arc<Open>,
    ) -> Thread {
        Thread {
            said,
            idle_max,
            open,
            seed,
            shared: Mutex::new(Shared {
                input: vec![0; INPUT_OCTETS].into_boxed_slice(),
                replies: Replies::default(),
                counters: Counters::default(),
                ledgers: Ledgers::default(),
                faults,
            }),
        }
    }

    /// Never held across a wait. One connection that panicked does not make the counts of the others worthless.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes connections, for ever.
    pub async fn serve(self: Arc<Thread>, listener: TcpListener, door: Door) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.admit(stream, door),
                Err(error) => {
                    self.shared().counters.fault("accept_failed");
                    eprintln!(
                        "sink: cannot take a connection: {error}; raise the limit of open files (ulimit -n)"
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Thread>, stream: TcpStream, door: Door) {
        let counted = Counted::new(&self.open);
        let seed = {
            let mut shared = self.shared();
            shared.counters.connections += 1;
            let max = shared.faults.connections_max;
            if max.is_some_and(|max| self.open.now() > max as u64) {
                shared.counters.fault("connections_limited");
                // a socket that was just opened takes a line; and one that does not is closed all the same
                stream.try_write(b"421 4.7.0 Too many connections\r\n").ok();
                return;
            }
            // each connection its own draws, the same for the same seed
            self.seed.wrapping_add(
                shared
                    .counters
                    .connections
                    .wrapping_mul(0x9E37_79B9_7F4A_7C15),
            )
        };
        let connection = Connection::new(stream, seed, Arc::clone(self));
        tokio::spawn(async move {
            connection.run(door).await;
            drop(counted);
        });
    }
}
