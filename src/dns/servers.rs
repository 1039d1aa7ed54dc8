//! Who is asked first, and who is silent.
//!
//! The first server in the configuration's order is asked, as long as it answers and is not far slower than another. Whoever lets three tries pass
//! in a row counts as dead. Those that are dead, slow or not known yet are tried now and then with a copy of a question that a better one
//! is asked as well: no client waits for an experiment.
//!
//! A single question that takes long says little of the server: it is the zone's own servers that are dead, as those of bad clients
//! often are. So quick answers count for more than slow ones, and silence counts only in a row.

use std::net::SocketAddr;
use std::time::Duration;

use weir_smtp::time::Moment;

use super::config::SERVERS_MAX;

/// Tries in a row that a server may let pass before it counts as dead.
const MISSES_MAX: u8 = 3;
/// A dead server is tried again after that, and then ever more seldom up to the longest.
const PROBE_FIRST: Duration = Duration::from_secs(1);
const PROBE_LAST: Duration = Duration::from_secs(64);
/// Slow: that many times the quickest server's time, and more than that on top.
const SLOW_TIMES: u64 = 4;
const SLOW_MICROS: u64 = 100_000;

/// A set of servers, by their numbers.
pub type Mask = u8;
const _: () = assert!(SERVERS_MAX <= Mask::BITS as usize);

/// One server, for whoever wants to see it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct ServerState {
    pub addr: SocketAddr,
    /// It has not let three tries in a row pass.
    pub up: bool,
    /// What it takes for an answer, the quick ones weighing more; None: it has not answered yet.
    pub latency: Option<Duration>,
}

#[derive(Debug)]
pub struct Server {
    pub addr: SocketAddr,
    /// What it takes for an answer, in microseconds; 0: nothing is known.
    latency: u64,
    misses: u8,
    probe_at: Moment,
    probe_after: Duration,
    /// It reads EDNS.
    pub edns: bool,
    /// It repeats a question in the case it was asked in.
    pub keeps_case: bool,
}

#[derive(Debug)]
pub struct Servers(Vec<Server>);

impl Servers {
    pub fn new(addrs: &[SocketAddr]) -> Servers {
        let mut servers = Servers(Vec::new());
        servers.replace(addrs);
        servers
    }

    /// Who stays keeps what is known of it.
    pub fn replace(&mut self, addrs: &[SocketAddr]) {
        let mut old = std::mem::take(&mut self.0);
        for &addr in addrs {
            if self.0.len() == SERVERS_MAX || self.0.iter().any(|server| server.addr == addr) {
                continue;
            }
            let known = old.iter().position(|server| server.addr == addr);
            let server = known.map(|at| old.swap_remove(at));
            self.0.push(server.unwrap_or_else(|| Server::new(addr)));
        }
    }

    pub fn addrs(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().map(|server| server.addr)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn at(&self, server: usize) -> &Server {
        &self.0[server]
    }

    pub fn at_mut(&mut self, server: usize) -> &mut Server {
        &mut self.0[server]
    }

    pub fn states(&self) -> impl Iterator<Item = ServerState> + '_ {
        self.0.iter().map(|server| ServerState {
            addr: server.addr,
            up: server.is_up(),
            latency: (server.latency > 0).then(|| Duration::from_micros(server.latency)),
        })
    }

    /// The best of those that have not `failed`; one that was not `tried` yet rather than again the same, a living one rather than a new one.
    pub fn choose(&self, failed: Mask, tried: Mask) -> Option<usize> {
        let open = (0..self.0.len()).filter(|&number| failed & bit(number) == 0);
        open.min_by_key(|&number| {
            let again = tried & bit(number) != 0;
            (!self.0[number].is_up(), again, self.is_slow(number), number)
        })
    }

    /// Somebody that is worth a copy of a question which goes to `asked`, now.
    pub fn probe(&mut self, asked: usize, now: Moment) -> Option<usize> {
        let due = (0..self.0.len()).find(|&number| {
            let server = &self.0[number];
            let suspect = !server.is_up() || server.latency == 0 || self.is_slow(number);
            number != asked && suspect && server.probe_at <= now
        })?;
        self.0[due].wait_longer(now);
        Some(due)
    }

    /// Whether any other than `server` is up and has not failed.
    pub fn has_other(&self, server: usize, failed: Mask) -> bool {
        let mut others = (0..self.0.len()).filter(|&number| number != server);
        others.any(|number| failed & bit(number) == 0 && self.0[number].is_up())
    }

    fn is_slow(&self, number: usize) -> bool {
        let known = self.0.iter().filter(|s| s.is_up() && s.latency > 0);
        let best = known.map(|server| server.latency).min();
        best.is_some_and(|best| self.0[number].latency > best * SLOW_TIMES + SLOW_MICROS)
    }
}

impl Server {
    fn new(addr: SocketAddr) -> Server {
        Server {
            addr,
            latency: 0,
            misses: 0,
            probe_at: Moment::ZERO,
            probe_after: PROBE_FIRST,
            edns: true,
            keeps_case: true,
        }
    }

    fn is_up(&self) -> bool {
        self.misses < MISSES_MAX
    }

    /// It has answered; after how long, if that is known.
    pub fn heard(&mut self, after: Option<Duration>) {
        self.misses = 0;
        self.probe_after = PROBE_FIRST;
        if let Some(after) = after {
            self.weigh(after);
        }
    }

    /// A try has passed without a word.
    pub fn missed(&mut self, now: Moment) {
        self.misses = self.misses.saturating_add(1);
        if self.misses == MISSES_MAX {
            self.wait_longer(now);
        }
    }

    /// Nobody listens there.
    pub fn refused(&mut self, now: Moment) {
        let was_up = self.is_up();
        self.misses = self.misses.max(MISSES_MAX);
        if was_up {
            self.wait_longer(now);
        }
    }

    fn wait_longer(&mut self, now: Moment) {
        self.probe_at = now + self.probe_after;
        self.probe_after = (self.probe_after * 2).min(PROBE_LAST);
    }

    fn weigh(&mut self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.latency = match self.latency {
            0 => took,
            latency if took < latency => latency.midpoint(took),
            latency => latency + (took - latency) / 16,
        };
    }
}

pub fn bit(number: usize) -> Mask {
    1 << number
}
