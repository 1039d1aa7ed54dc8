//! Hosts tell each other what they learn, by a stream on the server of --state redis://.
//!
//! ```text
//!   weir:news   a stream: XADD MAXLEN ~ n * host ID news OCTETS (codec.rs), read by everybody from where he was
//! ```
//! A stream and not publish/subscribe: who was away, or has just started, reads what he missed, as far back as the stream goes.
//! Everything is one task on the control thread's runtime: once a second it writes what has come together and reads what is new.
//! While the server is away what is to be written waits, bounded; then the oldest is let go. Deeds from before the start are not
//! counted where a file is kept, which has counted most of them already; all else does no harm when it is heard twice.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use aws_lc_rs::rand;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, cmd};
use tokio::sync::Notify;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::metrics::state::Shared as Readings;
use crate::net::ClientPrefix;
use crate::policy::budget::{Owed, Spent};
use crate::policy::news::News;

use super::codec::{self, Unreadable};
use super::{budgets, server::Server};

const STREAM: &str = "weir:news";
/// Entries that the server keeps: an hour and more of a few hosts. Each has at most [`PER_ENTRY`] news of 29 octets.
const STREAM_MAX: u32 = 8192;
const PER_ENTRY: usize = 1024;
const _: () = assert!(PER_ENTRY <= codec::BATCH_MAX);

/// How often is written and read.
const EVERY: Duration = Duration::from_secs(1);
/// Between two readings where there is more.
const BREATH: Duration = Duration::from_millis(100);
/// How soon a server that is away is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// Longer than a server takes that is of any use.
const PATIENCE: Duration = Duration::from_secs(3);
/// Entries read at once: 2 MiB at most.
const PAGE: usize = 64;
/// News that wait for a server that is away.
const OUTBOX_MAX: usize = 1 << 16;
/// Clients and kinds of rates at a time.
const SPENT_MAX: usize = 1 << 16;
/// Letters of shards on their way here.
const LETTERS: usize = 1024;
/// News in all of them: some 40 MiB.
const WAITING_MAX: u64 = 1 << 20;

/// What is read with XREAD: streams, entries, fields.
type Read = Option<Vec<(String, Vec<(String, Vec<Vec<u8>>)>)>>;

/// What hears of what other hosts have learnt.
pub type Hear = Box<dyn Fn(Arc<[News]>) + Send + Sync>;

/// What hears of what clients have spent on all hosts.
pub type Owe = Box<dyn Fn(Vec<Owed>) + Send + Sync>;

/// Where hosts meet, and what they have to agree on to understand each other.
#[derive(Clone, Debug)]
pub struct Meeting {
    pub server: Server,
    /// --network-prefix: by which networks and tuples are named.
    pub networks: ClientPrefix,
    /// --client-prefix: by which rates are.
    pub clients: ClientPrefix,
}

/// What the shards leave for the server.
enum Letter {
    News(Arc<[News]>),
    Spent(Vec<Spent>),
}

/// The task, from outside.
pub struct Sharing {
    letters: mpsc::Sender<Letter>,
    cells: Arc<Cells>,
    ending: Arc<Notify>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Cells {
    is_up: AtomicBool,
    sent: AtomicU64,
    received: AtomicU64,
    dropped: AtomicU64,
    /// News in letters that wait.
    waiting: AtomicU64,
    unreadable: AtomicU64,
    losses: AtomicU64,
    settled: AtomicU64,
    unsettled: AtomicU64,
}

/// How it stands, whoever asks.
#[derive(Clone)]
pub struct SharingView(Arc<Cells>);

impl SharingView {
    pub fn readings(&self) -> Readings {
        let cells = &*self.0;
        Readings {
            is_up: cells.is_up.load(Relaxed),
            sent: cells.sent.load(Relaxed),
            received: cells.received.load(Relaxed),
            dropped: cells.dropped.load(Relaxed),
            unreadable: cells.unreadable.load(Relaxed),
            losses: cells.losses.load(Relaxed),
            settled: cells.settled.load(Relaxed),
            unsettled: cells.unsettled.load(Relaxed),
        }
    }
}

impl Sharing {
    /// Starts the task on the runtime of the caller. `counts_before`: also deeds of before the start are news.
    pub fn start(meeting: Meeting, counts_before: bool, hear: Hear, owe: Owe) -> Sharing {
        let (letters, received) = mpsc::channel(LETTERS);
        let cells = Arc::new(Cells::default());
        let mut host = [0; 8];
        rand::fill(&mut host).expect("the kernel has random octets");
        let task = Task {
            meeting,
            host: u64::from_be_bytes(host).to_string(),
            hear,
            owe,
            spent: Vec::new(),
            letters: received,
            cells: Arc::clone(&cells),
            outbox: VecDeque::new(),
            seen: Id::default(),
            before: (!counts_before).then(Id::default),
            is_told: false,
            others_told: Told::default(),
            ending: Arc::default(),
        };
        let ending = Arc::clone(&task.ending);
        Sharing {
            letters,
            cells,
            ending,
            task: tokio::spawn(task.run()),
        }
    }

    /// Leaves news for the other hosts. Never waits.
    pub fn tell(&self, news: Arc<[News]>) {
        let count = news.len() as u64;
        let waiting = self.cells.waiting.fetch_add(count, Relaxed) + count;
        let has_room = waiting <= WAITING_MAX;
        if !has_room || self.letters.try_send(Letter::News(news)).is_err() {
            self.cells.waiting.fetch_sub(count, Relaxed);
            self.cells.dropped.fetch_add(count, Relaxed);
        }
    }

    /// Leaves what clients have spent of their rates. Where there is no room each host holds them to the rate alone.
    pub fn spend(&self, spent: Vec<Spent>) {
        if self.letters.try_send(Letter::Spent(spent)).is_err() {
            self.cells.unsettled.fetch_add(1, Relaxed);
        }
    }

    /// Sends what is left, if the server takes it at once.
    pub async fn finish(self) {
        drop(self.letters);
        self.ending.notify_one();
        if timeout(PATIENCE, self.task).await.is_err() {
            log::warn!("--state redis://: the other hosts miss what was learnt last");
        }
    }

    pub fn view(&self) -> SharingView {
        SharingView(Arc::clone(&self.cells))
    }
}

/// The number of an entry: milliseconds of the server's clock, and a count within them.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug, Default)]
struct Id(u64, u64);

impl Id {
    fn parse(text: &str) -> Option<Id> {
        let (millis, count) = text.split_once('-')?;
        Some(Id(millis.parse().ok()?, count.parse().ok()?))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

struct Task {
    meeting: Meeting,
    /// Drawn at the start: what one has written oneself is passed over.
    host: String,
    hear: Hear,
    owe: Owe,
    /// Of the last second or so: what is older is of no use.
    spent: Vec<Spent>,
    letters: mpsc::Receiver<Letter>,
    cells: Arc<Cells>,
    outbox: VecDeque<News>,
    /// The last entry that was read.
    seen: Id,
    /// The last entry there was at the start, once that is known; None: all deeds count.
    before: Option<Id>,
    /// That the server is away is told once.
    is_told: bool,
    others_told: Told,
    /// No more letters come: not to sleep on.
    ending: Arc<Notify>,
}

/// What was told of entries that are passed over: each once.
#[derive(Default)]
struct Told {
    unreadable: bool,
    prefix: bool,
}

/// Control has ended.
struct Ended;

impl Task {
    async fn run(mut self) {
        loop {
            let ended = match self.connect().await {
                Ok(mut connection) => self.exchange(&mut connection).await,
                Err(error) => {
                    self.lost(&error);
                    self.gather()
                }
            };
            if ended.is_err() {
                return;
            }
            self.spent.clear();
            self.rest(AGAIN).await;
        }
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let client = self.meeting.server.client();
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let last = last_entry(&mut connection).await?;
        if last < self.seen {
            // The server has forgotten, or its clock went back: what is there now came since.
            self.seen = Id::default();
        }
        if self.before == Some(Id::default()) {
            self.before = Some(last);
        }
        self.is_told = false;
        self.cells.is_up.store(true, Relaxed);
        log::info!("--state {}: connected", self.meeting.server);
        Ok(connection)
    }

    /// Goes on until the server is lost or weir ends.
    async fn exchange(&mut self, connection: &mut MultiplexedConnection) -> Result<(), Ended> {
        loop {
            let is_ending = self.gather().is_err();
            let outcome = self.turn(connection).await;
            if is_ending {
                return Err(Ended);
            }
            match outcome {
                Ok(has_more) => self.rest(if has_more { BREATH } else { EVERY }).await,
                Err(error) => {
                    self.lost(&error);
                    return Ok(());
                }
            }
        }
    }

    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = sleep(pause) => {}
            () = self.ending.notified() => {}
        }
    }

    /// Rates first: they are in a hurry. True: there may be more to read.
    async fn turn(&mut self, connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
        let spent = std::mem::take(&mut self.spent);
        if !spent.is_empty() {
            let owed = budgets::settle(connection, &spent, self.meeting.clients).await?;
            self.cells.settled.fetch_add(owed.len() as u64, Relaxed);
            (self.owe)(owed);
        }
        self.send(connection).await?;
        self.receive(connection).await
    }

    /// Takes what the shards have left. Of too much the oldest goes.
    fn gather(&mut self) -> Result<(), Ended> {
        loop {
            match self.letters.try_recv() {
                Ok(Letter::News(news)) => {
                    self.cells.waiting.fetch_sub(news.len() as u64, Relaxed);
                    self.outbox.extend(news.iter());
                }
                Ok(Letter::Spent(spent)) if self.spent.len() < SPENT_MAX => {
                    self.spent.extend(spent);
                }
                Ok(Letter::Spent(_)) => drop(self.cells.unsettled.fetch_add(1, Relaxed)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Ended),
            }
            let excess = self.outbox.len().saturating_sub(OUTBOX_MAX);
            self.outbox.drain(..excess);
            self.cells.dropped.fetch_add(excess as u64, Relaxed);
        }
        Ok(())
    }

    async fn send(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        while !self.outbox.is_empty() {
            let count = self.outbox.len().min(PER_ENTRY);
            let batch: Vec<News> = self.outbox.iter().take(count).copied().collect();
            cmd("XADD")
                .arg(STREAM)
                .arg("MAXLEN")
                .arg("~")
                .arg(STREAM_MAX)
                .arg("*")
                .arg("host")
                .arg(&self.host)
                .arg("news")
                .arg(codec::encode(&batch, self.meeting.networks))
                .query_async::<String>(connection)
                .await?;
            self.outbox.drain(..count);
            self.cells.sent.fetch_add(count as u64, Relaxed);
        }
        Ok(())
    }

    /// True: there may be more.
    async fn receive(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<bool, RedisError> {
        let read: Read = cmd("XREAD")
            .arg("COUNT")
            .arg(PAGE)
            .arg("STREAMS")
            .arg(STREAM)
            .arg(self.seen.to_string())
            .query_async(connection)
            .await?;
        let entries = read.into_iter().flatten().flat_map(|(_, entries)| entries);
        let mut count = 0;
        for (id, fields) in entries {
            count += 1;
            match Id::parse(&id) {
                Some(id) if id > self.seen => self.seen = id,
                // A server that numbers otherwise would be read for ever.
                _ => return Ok(false),
            }
            self.read(&fields);
        }
        Ok(count == PAGE)
    }

    fn read(&mut self, fields: &[Vec<u8>]) {
        let (pairs, _) = fields.as_chunks::<2>();
        let field = |name: &[u8]| {
            let found = pairs.iter().find(|[key, _]| key == name);
            found.map_or(&[][..], |[_, value]| value)
        };
        if field(b"host") == self.host.as_bytes() {
            return;
        }
        match codec::decode(field(b"news"), self.meeting.networks) {
            Ok(news) => {
                let news: Arc<[News]> = news.into_iter().filter(|news| self.counts(news)).collect();
                self.cells.received.fetch_add(news.len() as u64, Relaxed);
                if !news.is_empty() {
                    (self.hear)(news);
                }
            }
            Err(why) => self.passed_over(why),
        }
    }

    fn passed_over(&mut self, why: Unreadable) {
        self.cells.unreadable.fetch_add(1, Relaxed);
        let server = &self.meeting.server;
        if let Unreadable::Prefix(v4, v6) = why {
            if !std::mem::replace(&mut self.others_told.prefix, true) {
                let (our_v4, our_v6) = self.meeting.networks.bits();
                log::error!(
                    "--state {server}: another host has --network-prefix {v4}/{v6}, this one {our_v4}/{our_v6}: neither hears what the other learns until they have the same; told once"
                );
            }
        } else if !std::mem::replace(&mut self.others_told.unreadable, true) {
            log::warn!(
                "--state {server}: an entry of {STREAM} is passed over: {why}; told once, weir_state_shared_unreadable_total counts"
            );
        }
    }

    /// Deeds of before the start are in the file already.
    fn counts(&self, news: &News) -> bool {
        let is_before = self.before.is_some_and(|before| self.seen <= before);
        !(is_before && matches!(news, News::Deeds { .. }))
    }

    fn lost(&mut self, error: &RedisError) {
        self.cells.is_up.store(false, Relaxed);
        if !self.is_told {
            self.is_told = true;
            self.cells.losses.fetch_add(1, Relaxed);
            log::error!(
                "--state {}: {error}; each host goes by what it knows itself until the server is back, tried again every {AGAIN:?}",
                self.meeting.server
            );
        }
    }
}

/// The newest entry there is; the first possible where there is none.
async fn last_entry(connection: &mut MultiplexedConnection) -> Result<Id, RedisError> {
    let newest: Vec<(String, Vec<Vec<u8>>)> = cmd("XREVRANGE")
        .arg(STREAM)
        .arg("+")
        .arg("-")
        .arg("COUNT")
        .arg(1)
        .query_async(connection)
        .await?;
    let newest = newest.first().and_then(|(id, _)| Id::parse(id));
    Ok(newest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes its time must not cost all memory there is.
    #[tokio::test]
    async fn what_waits_for_the_server_is_bounded() {
        let meeting = Meeting {
            server: Server::parse("redis://127.0.0.1:1/").unwrap(),
            networks: ClientPrefix::default(),
            clients: ClientPrefix::default(),
        };
        let sharing = Sharing::start(meeting, true, Box::new(drop), Box::new(drop));
        let news = News::Tuple {
            key: crate::policy::news::TupleKey(1),
            first: 1,
        };
        let letter: Arc<[News]> = vec![news; 65_536].into();
        // The task has no turn before this one waits.
        for _ in 0..WAITING_MAX / 65_536 + 3 {
            sharing.tell(Arc::clone(&letter));
        }
        assert_eq!(sharing.view().readings().dropped, 3 * 65_536);
    }

    #[test]
    fn entries_are_in_order() {
        assert_eq!(Id::parse("17-3"), Some(Id(17, 3)));
        assert_eq!(Id(17, 3).to_string(), "17-3");
        assert!(Id(17, 3) < Id(17, 20) && Id(17, 20) < Id(18, 0));
        for text in ["", "17", "-", "a-b", "17-3-2", "17-99999999999999999999"] {
            assert_eq!(Id::parse(text), None, "{text}");
        }
    }
}
