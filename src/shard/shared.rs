//! What is truly global: how many connections weir has to each upstream and to all clients together.
//!
//! Plain atomics, touched when a connection opens or closes and never per message. A shard that finds no permit
//! while its sessions wait marks itself *starving* and mails the others, which close one idle connection each; whoever
//! gives a permit back while somebody starves mails that shard. While it starves, nobody keeps or takes more than a fair
//! share: without that, the shard that came first kept them all, passing them among its own.

use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release,
};

use crate::metrics::UPSTREAMS_MAX;

/// Shards that can be told apart in the mask of the starving.
pub const SHARDS_MAX: usize = 64;

/// Counters of the whole process, one behind an `Arc` for all shards.
#[derive(Debug)]
pub struct Shared {
    clients: AtomicU32,
    clients_max: AtomicU32,
    /// Bodies that go up while they come in.
    streams: AtomicU32,
    upstreams: [Permits; UPSTREAMS_MAX],
}

/// Connections to one upstream over all shards.
#[derive(Debug)]
struct Permits {
    open: AtomicU32,
    max: AtomicU32,
    /// Bit n: shard n has sessions that wait for a permit.
    starving: AtomicU64,
}

/// The shards of a mask, lowest first.
pub fn shards_in(mask: u64) -> impl Iterator<Item = usize> {
    (0..SHARDS_MAX).filter(move |shard| mask & (1 << shard) != 0)
}

impl Shared {
    /// `clients_max` 0: no limit of our own (the tables of open files still bound it).
    pub fn new(clients_max: u32) -> Shared {
        Shared {
            clients: AtomicU32::new(0),
            clients_max: AtomicU32::new(lift(clients_max)),
            streams: AtomicU32::new(0),
            upstreams: [const {
                Permits {
                    open: AtomicU32::new(0),
                    max: AtomicU32::new(u32::MAX),
                    starving: AtomicU64::new(0),
                }
            }; UPSTREAMS_MAX],
        }
    }

    /// Counts a new client in; false when that would be one too many.
    pub fn client_enters(&self) -> bool {
        take_below(&self.clients, self.clients_max.load(Acquire))
    }

    pub fn client_leaves(&self) {
        give_back(&self.clients);
    }

    pub fn clients(&self) -> u32 {
        self.clients.load(Acquire)
    }

    pub fn stream_begins(&self) {
        self.streams.fetch_add(1, AcqRel);
    }

    pub fn stream_ends(&self) {
        give_back(&self.streams);
    }

    pub fn streams(&self) -> u32 {
        self.streams.load(Acquire)
    }

    /// `None`: unlimited.
    pub fn clients_max(&self) -> Option<u32> {
        Some(self.clients_max.load(Acquire)).filter(|&max| max != u32::MAX)
    }

    /// How many connections the upstream may have over all shards; 0 lifts the limit. Takes effect on new ones.
    pub fn set_upstream_max(&self, upstream: usize, max: u32) {
        self.upstreams[upstream].max.store(lift(max), Release);
    }

    /// How many connections this upstream may have; `None`: any number.
    pub fn upstream_max(&self, upstream: usize) -> Option<u32> {
        Some(self.upstreams[upstream].max.load(Acquire)).filter(|&max| max != u32::MAX)
    }

    /// Whether one more connection to this upstream could be opened now.
    pub fn has_permit(&self, upstream: usize) -> bool {
        let permits = &self.upstreams[upstream];
        permits.open.load(Acquire) < permits.max.load(Acquire)
    }

    /// A permit for one more connection of this shard to this upstream, for which it starves no more.
    pub fn take_permit(&self, upstream: usize, shard: usize) -> Result<(), NoPermit> {
        let permits = &self.upstreams[upstream];
        if take_below(&permits.open, permits.max.load(Acquire)) {
            self.is_sated(upstream, shard);
            Ok(())
        } else {
            Err(NoPermit)
        }
    }

    /// Sessions of this shard wait for a permit. True: that is news, the other shards are to be mailed. Whoever calls
    /// this looks for a permit once more afterwards: one given back just before was mailed to nobody.
    pub fn starve(&self, upstream: usize, shard: usize) -> bool {
        let bit = 1 << (shard % SHARDS_MAX);
        self.upstreams[upstream].starving.fetch_or(bit, AcqRel) & bit == 0
    }

    /// This shard starves for this upstream no more: it has a permit, or nobody waits.
    pub fn is_sated(&self, upstream: usize, shard: usize) {
        let starving = &self.upstreams[upstream].starving;
        let bit = 1u64 << (shard % SHARDS_MAX);
        if starving.load(Acquire) & bit != 0 {
            starving.fetch_and(!bit, AcqRel);
        }
    }

    /// How many connections this shard may have while others starve: as many as each of those that want more.
    pub fn fair_share(&self, upstream: usize, shard: usize) -> u32 {
        let permits = &self.upstreams[upstream];
        let own = 1u64 << (shard % SHARDS_MAX);
        let others = (permits.starving.load(Acquire) & !own).count_ones();
        match others {
            0 => u32::MAX,
            others => permits.max.load(Acquire).div_ceil(others + 1),
        }
    }

    /// Gives a permit back. The mask says which shards starve; they are to be mailed.
    #[must_use = "starving shards wait to be told"]
    pub fn give_permit(&self, upstream: usize) -> u64 {
        let permits = &self.upstreams[upstream];
        give_back(&permits.open);
        permits.starving.load(Acquire)
    }

    /// Whether some other shard than this one starves for this upstream.
    pub fn others_starve(&self, upstream: usize, shard: usize) -> bool {
        let own = 1u64 << (shard % SHARDS_MAX);
        self.upstreams[upstream].starving.load(Acquire) & !own != 0
    }

    pub fn upstream_open(&self, upstream: usize) -> u32 {
        self.upstreams[upstream].open.load(Acquire)
    }
}

/// The upstream has as many connections as it may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoPermit;

fn lift(limit: u32) -> u32 {
    if limit == 0 { u32::MAX } else { limit }
}

fn take_below(counter: &AtomicU32, max: u32) -> bool {
    counter
        .fetch_update(AcqRel, Acquire, |open| (open < max).then(|| open + 1))
        .is_ok()
}

fn give_back(counter: &AtomicU32) {
    let before = counter.fetch_sub(1, AcqRel);
    assert!(before > 0, "more permits were given back than were taken");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_counted_up_to_the_limit() {
        let shared = Shared::new(2);
        assert!(shared.client_enters());
        assert!(shared.client_enters());
        assert!(!shared.client_enters());
        shared.client_leaves();
        assert!(shared.client_enters());
        assert_eq!(shared.clients(), 2);
    }

    #[test]
    fn zero_lifts_the_limit() {
        let shared = Shared::new(0);
        assert_eq!(shared.clients_max(), None);
        assert!((0..10_000).all(|_| shared.client_enters()));
    }

    #[test]
    fn who_starves_is_told_once_when_a_permit_comes_back() {
        let shared = Shared::new(0);
        shared.set_upstream_max(3, 1);
        assert_eq!(shared.take_permit(3, 1), Ok(()));
        assert_eq!(shared.take_permit(3, 1), Err(NoPermit));
        assert!(shared.starve(3, 1));
        assert!(!shared.starve(3, 1), "no news");
        assert!(shared.others_starve(3, 0));
        assert!(!shared.others_starve(3, 1));
        assert_eq!(
            (shared.fair_share(3, 0), shared.fair_share(3, 1)),
            (1, u32::MAX)
        );
        let told = shared.give_permit(3);
        assert_eq!(shards_in(told).collect::<Vec<_>>(), [1]);
        assert_eq!(shared.take_permit(3, 1), Ok(()));
        assert_eq!(shared.give_permit(3), 0);
    }

    #[test]
    fn permits_hold_over_threads() {
        let shared = Shared::new(0);
        shared.set_upstream_max(0, 7);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let shared = &shared;
                    scope.spawn(move || {
                        (0..100)
                            .filter(|_| shared.take_permit(0, 0).is_ok())
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(taken, 7);
        assert_eq!(shared.upstream_open(0), 7);
    }
}
