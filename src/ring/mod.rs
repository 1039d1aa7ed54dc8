//! The hot ring: direct descriptors, provided buffers and sends behind a safe API.
//!
//! A shard's sockets live in the ring's own table of files, one number each, and everything they do is an operation queued here and a completion
//! handed back as an [`Event`]. One `io_uring_enter` a turn submits what was queued and waits for what comes.
//!
//! ```text
//! loop {
//!     while let Some(event) = ring.next_event() { world.handle(now, event) }     // calls of Wire queue operations
//!     ring.wait(now, deadline)                                                   // one syscall
//! }
//! ```
//!
//! Read [`wire`] for what can be asked and what is told, `completions` for what the kernel answers, `closing` for how slots end.
//! This is the unsafe island of weir: whatever the kernel reads or writes after a call has returned lies in mappings and boxes that the ring owns
//! and that outlive the operation. The ring belongs to one thread, which has to make it (IORING_SETUP_SINGLE_ISSUER).

mod accept;
mod address;
mod buffers;
mod calls;
mod closing;
mod completions;
mod destination;
mod dialing;
mod doorbell;
mod flights;
mod mapping;
#[cfg(test)]
mod network_tests;
mod patience;
mod places;
mod slots;
mod support;
mod token;
pub mod wire;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue, types};
use weir_smtp::time::Moment;

pub use doorbell::Doorbell;
pub use support::{Support, probe};
pub use wire::{BufferId, Close, Dial, Event, Group, Owner, Part, ReceiveEnd, SlotId, Wire};

use accept::Accepting;
use address::RawAddress;
use buffers::Buffers;
use closing::Deadlines;
use flights::Flights;
use mapping::Mapping;
use patience::Patience;
use slots::Slots;
use token::{Op, Token};

/// Sizes of one shard's ring. The memory is what the mappings come to; it is paid for where it is touched.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// Sockets at one time, at most RLIMIT_NOFILE. 40 bytes each here, and 64 of the kernel's.
    pub slots: usize,
    /// Of these, slots that no client can take.
    pub reserve: usize,
    /// Operations that can be queued before the kernel has to be entered in mid turn. 64 bytes each.
    pub entries: u32,
    /// Completions the kernel can post before it has to remember them elsewhere. 16 bytes each, and as much again in the ring's own queue.
    pub completions: u32,
    /// Buffers of `buffer_size` that clients' input lands in.
    pub client_buffers: usize,
    /// The same for upstreams' replies.
    pub upstream_buffers: usize,
    pub buffer_size: usize,
    /// Copy buffers of `buffer_size` for bytes that have to wait.
    pub chunks: usize,
    /// How long at most a busy ring lets completions gather before it wakes; zero: not at all.
    pub gather: Duration,
    /// Whether the kernel is to show in the ring's memory that something has happened: see [`Ring::has_news`].
    pub shows_news: bool,
}

impl RingConfig {
    /// What the kernel counts as locked memory of an unprivileged user: the queues (since Linux 6.14), and the buffers' rings.
    pub fn locked_bytes(&self) -> u64 {
        let entries = u64::from(self.entries);
        let completions = u64::from(self.completions).max(entries * 2);
        let offered = (self.client_buffers + self.upstream_buffers) as u64;
        entries * (64 + 4) + (completions + offered) * 16 + (128 << 10)
    }
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            slots: 16_384,
            reserve: 1024,
            entries: 2048,
            completions: 16_384,
            client_buffers: 256,
            upstream_buffers: 256,
            buffer_size: 16 << 10,
            chunks: 2048,
            gather: Duration::from_millis(2),
            shows_news: false,
        }
    }
}

/// What a ring has done since it was made. Plain numbers; the shard copies them into its metrics.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct RingStats {
    pub enters: u64,
    pub submissions: u64,
    pub completions: u64,
    pub accepted: u64,
    pub connects: u64,
    pub receives: u64,
    pub received_bytes: u64,
    pub sends: u64,
    pub sent_bytes: u64,
    pub closes: u64,
    /// Turns in which the kernel had more completions than the queue holds.
    pub overflows: u64,
    /// Receives that ended because no buffer was left in their group.
    pub no_buffers: u64,
    /// Completions of a former life of their slot. Anything but zero is a broken invariant.
    pub stale: u64,
}

pub struct Ring {
    // First, so that it is gone before the memory it points to.
    uring: IoUring,
    slots: Slots,
    buffers: Buffers,
    flights: Flights,
    accepting: Accepting,
    graces: Deadlines,
    lingers: Deadlines,
    nowhere: Box<RawAddress>,
    scratch: Mapping<u8>,
    /// Reserved slots that are free.
    free: Vec<SlotId>,
    /// Slots whose receive waits for a buffer, with their generation, per group.
    starved: [VecDeque<(SlotId, u32)>; 2],
    /// Completions of this turn, and how many of them have been handed on.
    batch: Vec<cqueue::Entry>,
    position: usize,
    /// Events made by the ring itself; they come before the next completion.
    made: VecDeque<Event>,
    doorbell: Doorbell,
    doorbell_value: Box<u64>,
    doorbell_armed: bool,
    watched: Vec<Watched>,
    small_buffers: bool,
    /// Whether slots can be taken out of the table with their sockets.
    gives_descriptors: bool,
    /// Operations queued this turn that will have completed when the kernel begins to wait.
    at_once: u32,
    patience: Patience,
    /// Events of the last wait, unless it was cut short.
    came: Option<u32>,
    now: Moment,
    stats: RingStats,
}

/// A descriptor of the executor whose readiness means that it has work.
struct Watched {
    fd: RawFd,
    armed: bool,
}

impl Ring {
    pub fn new(config: &RingConfig) -> io::Result<Ring> {
        Ring::answering(config, Doorbell::new()?)
    }

    /// A ring that hears a doorbell made before it, on whichever thread: senders can be handed out before the shards run.
    pub fn answering(config: &RingConfig, doorbell: Doorbell) -> io::Result<Ring> {
        assert!(
            config.reserve < config.slots,
            "clients have to have some slots"
        );
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(config.completions.max(config.entries * 2));
        if config.shows_news {
            builder.setup_taskrun_flag();
        }
        let uring = builder.build(config.entries)?;
        uring
            .submitter()
            .register_files_sparse(config.slots as u32)?;
        let room = config.slots - config.reserve;
        keep_auto_slots_below(&uring, room as u32)?;
        let buffers = Buffers::new(
            &uring,
            config.buffer_size,
            [config.client_buffers, config.upstream_buffers],
            config.chunks,
        )?;
        // What came with the same kernel, 6.10; there is no way to ask for the flag itself.
        let accepts_poll_first = uring.params().is_feature_recvsend_bundle();
        let gives_descriptors = places::gives_descriptors(&uring.submitter());
        Ok(Ring {
            uring,
            slots: Slots::new(config.slots)?,
            buffers,
            flights: Flights::new(),
            accepting: Accepting::new(room, accepts_poll_first),
            graces: Deadlines::default(),
            lingers: Deadlines::default(),
            nowhere: Box::new(RawAddress::unspecified_family()),
            scratch: Mapping::new(64 << 10)?,
            free: (room..config.slots)
                .rev()
                .map(|index| SlotId(index as u32))
                .collect(),
            starved: Default::default(),
            batch: Vec::with_capacity(config.completions as usize),
            position: 0,
            made: VecDeque::new(),
            doorbell,
            doorbell_value: Box::new(0),
            doorbell_armed: false,
            watched: Vec::new(),
            small_buffers: true,
            gives_descriptors,
            at_once: 0,
            patience: Patience::new(config.gather),
            came: None,
            now: Moment::ZERO,
            stats: RingStats::default(),
        })
    }

    /// The next thing that has happened, until there is nothing left of this turn.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.made.pop_front() {
                if self.is_heard(&event) {
                    return Some(event);
                }
                continue;
            }
            let completion = self.batch.get(self.position)?.clone();
            self.position += 1;
            if let Some(event) = self.complete(&completion) {
                return Some(event);
            }
        }
    }

    /// Submits what has been queued and sleeps until something happens or `until` is reached; returns at once when events are left of this turn.
    ///
    /// The kernel is entered once. `now` is what the shard's clock said at the end of its work.
    pub fn wait(&mut self, now: Moment, until: Moment) -> io::Result<()> {
        self.learn(now);
        self.prepare(now);
        let wake = until
            .min(self.linger_deadline())
            .min(self.accepting.deadline());
        let idle = self.made.is_empty() && self.position == self.batch.len() && wake > now;
        let at_once = std::mem::take(&mut self.at_once);
        if !idle {
            self.enter(0, None)?;
            self.collect();
            return Ok(());
        }
        let (want, rest) = match self.patience.wanted() {
            // What completes at once is nothing to wait for.
            Some((wanted, span)) => (wanted + at_once, wake.min(now + span)),
            None => (1, wake),
        };
        let span = (rest != Moment::NEVER).then(|| Timespec::from(rest.since(now)));
        self.enter(want, span)?;
        self.collect();
        let completed = self.batch.len() as u32;
        // A wait that a deadline cut short says nothing.
        if completed >= want || rest < wake {
            self.came = Some(completed.saturating_sub(at_once));
        }
        Ok(())
    }

    /// Submits what has been queued and takes what has happened, without sleeping. True if that was anything: a turn to
    /// work off. For a shard that looks for a while before it sleeps; then [`Ring::has_news`] says when to look again.
    pub fn look(&mut self, now: Moment) -> io::Result<bool> {
        self.prepare(now);
        self.at_once = 0;
        if !self.uring.submission().is_empty() || self.has_news() {
            self.enter(0, None)?;
            self.collect();
        }
        Ok(!self.made.is_empty() || self.position < self.batch.len())
    }

    /// Whether the kernel has something for us: a read of shared memory. Only in a ring that [`RingConfig::shows_news`].
    pub fn has_news(&mut self) -> bool {
        self.uring.submission().taskrun() || !self.uring.completion().is_empty()
    }

    /// What is due at the end of a turn, queued before the kernel is entered.
    fn prepare(&mut self, now: Moment) {
        self.now = now;
        self.expire_lingers();
        self.end_rest();
        self.buffers.offer();
        self.arm_starved();
        self.arm_accepts();
        self.arm_watches();
    }

    /// The turn that is over had so many events: what that says for the next.
    fn learn(&mut self, now: Moment) {
        if let Some(came) = self.came.take() {
            self.patience.learn(came, now.since(self.now));
        }
    }

    /// For other threads, to wake this one.
    pub fn doorbell(&self) -> Doorbell {
        self.doorbell.clone()
    }

    /// Makes readiness of `fd` an [`Event::Background`]. For the executor's own rings, which live as long as its thread.
    pub fn watch_background(&mut self, fd: RawFd) {
        self.watched.push(Watched { fd, armed: false });
    }

    pub fn stats(&self) -> RingStats {
        self.stats
    }

    /// Slots that clients may fill and that are not in use.
    pub fn client_slots_free(&self) -> usize {
        self.accepting.room_left()
    }

    /// Provided buffers of a group that the shard or a send holds.
    pub fn buffers_held(&self, group: Group) -> usize {
        self.buffers.held(group)
    }

    fn push_for(&mut self, id: SlotId, op: Op, entry: squeue::Entry) {
        self.slots.live(id).ops += 1;
        let token = self.slots.token(id, op);
        self.push(entry, token);
    }

    /// Queues an operation. What it points to stays in place until its completion: see the callers.
    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.pack());
        self.stats.submissions += 1;
        // SAFETY: every entry made in this module points to memory that the ring owns and keeps until the completion.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            self.submit_early();
        }
    }

    /// Cancels an operation by its token. Says nothing itself: what was cancelled completes, and that is what counts.
    fn cancel(&mut self, target: Token) {
        let cancel = opcode::AsyncCancel::new(target.pack())
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS);
        self.push(cancel, Token::plain(Op::Cancel, 0));
    }

    /// The queue is full in mid turn.
    fn submit_early(&mut self) {
        self.at_once = 0;
        match self.enter(0, None) {
            Ok(()) => {}
            // Out of memory for requests: the same thread has to give some back first, and can, once completions are collected.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(error) => panic!("io_uring_enter refuses a full queue: {error}"),
        }
        self.collect();
    }

    fn enter(&mut self, want: u32, timeout: Option<Timespec>) -> io::Result<()> {
        let submissions = self.uring.submission();
        let queued = submissions.len() as u32;
        self.stats.overflows += u64::from(submissions.cq_overflow());
        drop(submissions);
        self.stats.enters += 1;
        let mut args = SubmitArgs::new();
        if let Some(timeout) = &timeout {
            args = args.timespec(timeout);
        }
        let flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // SAFETY: SubmitArgs is the structure EXT_ARG announces, and it and the time it points to live through the call.
        let entered = unsafe {
            self.uring
                .submitter()
                .enter(queued, want, flags.bits(), Some(&args))
        };
        match entered {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // The time is over, a signal came, or completions have to be collected first: all seen by the caller's next look.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Moves the completions out of the kernel's queue, which makes room there at once.
    fn collect(&mut self) {
        if self.position == self.batch.len() {
            self.batch.clear();
            self.position = 0;
        }
        let before = self.batch.len();
        self.batch.extend(self.uring.completion());
        self.stats.completions += (self.batch.len() - before) as u64;
    }

    /// Watches the doorbell and the executor's rings again. A watch ends with its event.
    fn arm_watches(&mut self) {
        if !self.doorbell_armed {
            self.doorbell_armed = true;
            let value = (&raw mut *self.doorbell_value).cast();
            let read = opcode::Read::new(types::Fd(self.doorbell.fd()), value, 8).build();
            self.push(read, Token::plain(Op::Doorbell, 0));
        }
        for index in 0..self.watched.len() {
            let watched = &mut self.watched[index];
            if watched.armed {
                continue;
            }
            watched.armed = true;
            let poll = opcode::PollAdd::new(types::Fd(watched.fd), libc::POLLIN as u32).build();
            self.push(poll, Token::plain(Op::Background, index as u32));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Closing the ring's descriptor cancels in the background, while our buffers go away: so cancel here, and wait for it.
        let cancelled = self
            .uring
            .submitter()
            .register_sync_cancel(None, CancelBuilder::any());
        if let Err(error) = cancelled
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            log::error!("the ring's operations could not be cancelled: {error}");
        }
    }
}

/// Accepts take their slots from the first `room`; the others are numbered by us.
fn keep_auto_slots_below(uring: &IoUring, room: u32) -> io::Result<()> {
    const REGISTER_FILE_ALLOC_RANGE: libc::c_uint = 25;
    #[repr(C)]
    struct FileIndexRange {
        start: u32,
        len: u32,
        reserved: u64,
    }
    let range = FileIndexRange {
        start: 0,
        len: room,
        reserved: 0,
    };
    // SAFETY: the structure this registration reads, alive through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            uring.as_raw_fd(),
            REGISTER_FILE_ALLOC_RANGE,
            &raw const range,
            0,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
