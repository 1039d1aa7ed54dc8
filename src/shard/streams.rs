//! Who may stream: bodies that go up while they come in hold an upstream connection for as long as their client takes.
//!
//! At the minimum data rate a body of 50 MiB takes a day. So the streams of one client (IPv4 address, IPv6 /64) hold at most
//! a share of the pool's connections (`--pool-share`), and all streams together at most three quarters of them: who sends
//! short messages finds one. A body beyond that stays where it is, its connection is given back, and it waits for its turn
//! in the queue of those who wait for a connection, within `--queue-wait`. Clients of the allow list have no share.
//!
//! Streams of one client are counted in the shard that serves it, all streams over all shards.

use hashbrown::HashMap;
use weir_smtp::time::Moment;

use crate::net::ClientPrefix;
use crate::policy::clients::ClientKey;
use crate::policy::pace::Pace;
use crate::ring::Wire;

use super::mail::UpstreamSpec;
use super::session::Session;
use super::slab::Key;
use super::world::World;

/// Of the pool's connections, those that streams may hold together: in quarters.
const ALL_QUARTERS: u64 = 3;

/// The streams of one shard.
#[derive(Debug)]
pub struct Streams {
    /// What is one client.
    prefix: ClientPrefix,
    by_client: HashMap<ClientKey, u32, foldhash::quality::RandomState>,
    here: u32,
    /// Streams that one client may have, and all clients of all shards.
    share: u32,
    all: u32,
}

impl Default for Streams {
    fn default() -> Streams {
        Streams {
            prefix: ClientPrefix::default(),
            by_client: HashMap::default(),
            here: 0,
            share: u32::MAX,
            all: u32::MAX,
        }
    }
}

impl Streams {
    /// Of clients that are told apart by so much of their addresses.
    pub fn by(prefix: ClientPrefix) -> Streams {
        Streams {
            prefix,
            ..Streams::default()
        }
    }

    /// Sizes the shares for a table of upstreams. `percent` 0, or an upstream without a limit: no shares.
    pub fn resize(&mut self, percent: u32, table: &[UpstreamSpec]) {
        let used = table.iter().filter(|spec| !spec.addresses.is_empty());
        let limits: Vec<u64> = used.map(|spec| spec.max.into()).collect();
        let pool: u64 = limits.iter().sum();
        (self.share, self.all) = if percent == 0 || limits.contains(&0) {
            (u32::MAX, u32::MAX)
        } else {
            let part = |connections: u64| u32::try_from(connections.max(1)).unwrap_or(u32::MAX);
            (
                part(pool * u64::from(percent) / 100),
                part(pool * ALL_QUARTERS / 4),
            )
        };
    }

    /// Whether this session may stream.
    pub fn admits(&self, session: &Session, all: u32) -> bool {
        session.flags.streams
            || session.standing.is_allowed()
            || self.has_room(session.peer.client(self.prefix), all)
    }

    /// Whether one more stream of this client finds room. `all`: streams of all shards.
    fn has_room(&self, client: ClientKey, all: u32) -> bool {
        // Mostly there are few, and nobody is looked up.
        all < self.all
            && (self.here < self.share
                || self
                    .by_client
                    .get(&client)
                    .is_none_or(|own| *own < self.share))
    }

    fn enter(&mut self, client: ClientKey) {
        self.here += 1;
        *self.by_client.entry(client).or_default() += 1;
    }

    fn leave(&mut self, client: ClientKey) {
        self.here -= 1;
        let own = self.by_client.get_mut(&client);
        let own = own.expect("a stream that ends was counted when it began");
        *own -= 1;
        if *own == 0 {
            self.by_client.remove(&client);
        }
    }
}

impl<W: Wire> World<W> {
    /// Whether this session may stream: it does, or there is room for one more.
    pub(super) fn may_stream(&self, key: Key) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| self.streams.admits(session, self.shared.streams()))
    }

    /// The session has begun to stream, or has got the connection for it.
    pub(super) fn enter_streams(&mut self, key: Key) {
        if let Some(session) = self.sessions.get_mut(key)
            && !session.flags.streams
        {
            session.flags.streams = true;
            self.streams.enter(session.peer.client(self.streams.prefix));
            self.shared.stream_begins();
            self.counters.streams.set(self.streams.here.into());
        }
    }

    /// Its stream is over, one way or another.
    pub(super) fn leave_streams(&mut self, key: Key) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.flags.streams
        {
            session.flags.streams = false;
            self.streams.leave(session.peer.client(self.streams.prefix));
            self.shared.stream_ends();
            self.counters.streams.set(self.streams.here.into());
        }
    }

    /// A body that goes up while it comes in holds an upstream connection, so it has to come along. Time in which weir
    /// itself does not read is not the client's.
    pub(super) fn keep_pace(&mut self, key: Key, leg_key: Key) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        if !session.relay.is_streaming() {
            // Its end has gone up: from now on it is the upstream that takes its time.
            if let Some(leg) = self.legs.get_mut(leg_key)
                && leg.pace.take().is_some()
            {
                leg.due = Moment::NEVER;
            }
            return;
        }
        if !self.legs.get(leg_key).is_some_and(|leg| leg.own) {
            self.enter_streams(key);
        }
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let reading = session.relay.wants_input() && session.pause_until <= self.now;
        let Some(leg) = self.legs.get_mut(leg_key) else {
            return;
        };
        if leg.broken {
            return;
        }
        let config = self.policy.config().pace;
        let pace = leg
            .pace
            .get_or_insert_with(|| Pace::start(&config, self.now));
        if reading {
            pace.resume(self.now)
        } else {
            pace.pause(self.now)
        }
        leg.due = pace.deadline(&config);
        self.arm_leg(leg_key);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(n: u8) -> ClientKey {
        ClientKey::from(IpAddr::from([192, 0, 2, n]))
    }

    fn table(max: &[u32]) -> Vec<UpstreamSpec> {
        let spec = |max: &u32| UpstreamSpec {
            name: "mx".into(),
            weight: 1,
            max: *max,
            addresses: vec![([192, 0, 2, 1], 25).into()],
            tls: None,
        };
        max.iter().map(spec).collect()
    }

    #[test]
    fn one_client_has_its_share_and_all_have_theirs() {
        let mut streams = Streams::default();
        streams.resize(25, &table(&[8, 4]));
        for _ in 0..3 {
            assert!(streams.has_room(client(1), 0));
            streams.enter(client(1));
        }
        assert!(!streams.has_room(client(1), 3));
        assert!(streams.has_room(client(2), 3));
        assert!(!streams.has_room(client(2), 9), "three quarters of 12");
        streams.leave(client(1));
        assert!(streams.has_room(client(1), 2));
    }

    #[test]
    fn a_small_pool_has_room_for_one_and_an_unlimited_one_for_all() {
        let mut streams = Streams::default();
        streams.resize(25, &table(&[1]));
        assert!(streams.has_room(client(1), 0));
        for (percent, max) in [(0, [5, 5]), (25, [5, 0])] {
            streams.resize(percent, &table(&max));
            assert!(streams.has_room(client(1), 1_000_000));
        }
    }
}
