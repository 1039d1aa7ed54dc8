//! What a shard remembers of hosts that clients want to go to themselves: which of them are dead, and who asks too often.
//!
//! A host that does not answer would cost each client the whole time of a connect. So after a failure the next clients are
//! told at once, for a while that grows with each failure; then one of them tries, and the others are told until it knows.
//! A host that works has no entry.
//!
//! Where hosts see each client's own address (--identity transparent), one may well refuse to talk to a client that it has
//! listed. What happens to one client then says nothing of the others, and is remembered for itself.
//!
//! One whose TLS fails, where TLS is not a must, is spoken to in plaintext for a while.
//!
//! A client that has many connections to one host under way, none of them answered yet, is most likely weir itself: packet
//! rules that intercept its own connections give them back to it, each as a new client (with --identity transparent under
//! the first client's address). The chain ends here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hashbrown::HashMap;
use weir_smtp::time::Moment;

/// Dead hosts remembered: 80 bytes each. Beyond that a failure is forgotten at once.
const DEAD_MAX: usize = 4096;

/// Hosts remembered that are spoken to without TLS: 48 bytes each. Beyond that each connection tries for itself.
const PLAIN_MAX: usize = 4096;

/// How long nobody tries after the first failure, and after many.
const REST_MIN: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(60);

/// Connections of one client to one host that may be unanswered at a time. Mail servers open some 20 to a host at once,
/// several of them may share an address, and some hosts greet after many seconds.
pub const UNANSWERED_MAX: u16 = 128;

/// Why a host is not connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shut {
    /// It did not answer others.
    Dead,
    /// The client is weir itself.
    Loop,
}

#[derive(Debug, Default)]
pub struct Destinations {
    /// Hosts see each client's own address.
    apart: bool,
    /// For the client named, or for all.
    dead: HashMap<(Option<IpAddr>, SocketAddr), Dead, foldhash::quality::RandomState>,
    /// Spoken to without TLS until then, for the client named or for all.
    plain: HashMap<(Option<IpAddr>, SocketAddr), Moment, foldhash::quality::RandomState>,
    /// Connections that are being opened or have not been greeted.
    unanswered: HashMap<(IpAddr, SocketAddr), u16, foldhash::quality::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Dead {
    rest: Duration,
    until: Moment,
    /// Somebody is trying, and has until then.
    tried_until: Moment,
}

impl Destinations {
    /// `apart`: hosts see each client's own address.
    pub fn new(apart: bool) -> Destinations {
        Destinations {
            apart,
            ..Destinations::default()
        }
    }

    /// Whether this client may be connected to this host now; who may has until `patience` is over to tell how it went.
    pub fn admit(
        &mut self,
        client: IpAddr,
        to: SocketAddr,
        now: Moment,
        patience: Duration,
    ) -> Result<(), Shut> {
        let unanswered = self.unanswered.get(&(client, to));
        if unanswered.is_some_and(|count| *count >= UNANSWERED_MAX) {
            return Err(Shut::Loop);
        }
        let whom = self.whom(client);
        if let Some(dead) = self.dead.get_mut(&(whom, to)) {
            if now < dead.until || now < dead.tried_until {
                return Err(Shut::Dead);
            }
            dead.tried_until = now + patience;
        }
        *self.unanswered.entry((client, to)).or_default() += 1;
        Ok(())
    }

    /// The connection is there. True: that is news.
    pub fn connected(&mut self, client: IpAddr, to: SocketAddr) -> bool {
        !self.dead.is_empty() && self.dead.remove(&(self.whom(client), to)).is_some()
    }

    /// The connection could not be made. True: that is news.
    pub fn failed(&mut self, client: IpAddr, to: SocketAddr, now: Moment) -> bool {
        let place = (self.whom(client), to);
        if self.dead.len() >= DEAD_MAX && !self.dead.contains_key(&place) {
            self.dead.retain(|_, dead| now < dead.until + REST_MAX);
        }
        if self.dead.len() >= DEAD_MAX && !self.dead.contains_key(&place) {
            return false;
        }
        let known = self.dead.get(&place).copied();
        let rest = known.map_or(REST_MIN, |dead| (dead.rest * 2).min(REST_MAX));
        let dead = Dead {
            rest,
            until: now + rest,
            tried_until: Moment::ZERO,
        };
        self.dead.insert(place, dead);
        known.is_none()
    }

    /// Whom it tells something that this client could, or could not, connect.
    fn whom(&self, client: IpAddr) -> Option<IpAddr> {
        self.apart.then_some(client)
    }

    /// A client that was admitted has had its greeting, or will never have it.
    pub fn answered(&mut self, client: IpAddr, to: SocketAddr) {
        let count = self.unanswered.get_mut(&(client, to));
        let count = count.expect("who is answered was admitted");
        *count -= 1;
        if *count == 0 {
            self.unanswered.remove(&(client, to));
        }
    }

    /// A client that a host shuts out in the middle of a handshake must not take TLS from the others.
    pub fn goes_without_tls(&self, client: IpAddr, to: SocketAddr, now: Moment) -> bool {
        let place = (self.whom(client), to);
        !self.plain.is_empty() && self.plain.get(&place).is_some_and(|until| now < *until)
    }

    /// New connections go without TLS until then. True: that is news.
    pub fn forgo_tls(
        &mut self,
        client: IpAddr,
        to: SocketAddr,
        now: Moment,
        until: Moment,
    ) -> bool {
        if self.goes_without_tls(client, to, now) {
            return false;
        }
        if self.plain.len() >= PLAIN_MAX {
            self.plain.retain(|_, until| now < *until);
        }
        let room = self.plain.len() < PLAIN_MAX;
        if room {
            self.plain.insert((self.whom(client), to), until);
        }
        room
    }

    /// Hosts that are not connected to now, or were not lately.
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Forgets what has been quiet for long.
    pub fn sweep(&mut self, now: Moment) {
        if !self.dead.is_empty() {
            self.dead.retain(|_, dead| now < dead.until + REST_MAX);
        }
        if !self.plain.is_empty() {
            self.plain.retain(|_, until| now < *until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::ZERO + Duration::from_secs(100 + seconds)
    }

    fn host(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 25))
    }

    fn client(n: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, n])
    }

    fn admit(hosts: &mut Destinations, who: u8, now: Moment) -> Result<(), Shut> {
        hosts.admit(client(who), host(1), now, PATIENCE)
    }

    #[test]
    fn a_dead_host_costs_one_client_its_time_and_the_others_nothing() {
        let mut hosts = Destinations::default();
        assert_eq!(admit(&mut hosts, 1, at(0)), Ok(()));
        assert!(hosts.failed(client(1), host(1), at(30)), "news");
        assert_eq!(admit(&mut hosts, 2, at(31)), Err(Shut::Dead));
        assert_eq!(admit(&mut hosts, 2, at(36)), Ok(()), "one tries");
        assert_eq!(admit(&mut hosts, 3, at(37)), Err(Shut::Dead));
        assert!(!hosts.failed(client(1), host(1), at(40)));
        assert_eq!(admit(&mut hosts, 3, at(46)), Err(Shut::Dead), "longer now");
        assert_eq!(admit(&mut hosts, 3, at(51)), Ok(()));
        assert!(hosts.connected(client(1), host(1)));
        assert!(!hosts.connected(client(1), host(1)));
        assert_eq!(admit(&mut hosts, 4, at(51)), Ok(()));
        assert_eq!(hosts.dead(), 0);
    }

    #[test]
    fn a_host_that_refuses_one_client_is_not_dead_for_another() {
        let mut hosts = Destinations::new(true);
        assert_eq!(admit(&mut hosts, 1, at(0)), Ok(()));
        assert!(hosts.failed(client(1), host(1), at(0)));
        assert_eq!(admit(&mut hosts, 1, at(1)), Err(Shut::Dead));
        assert_eq!(admit(&mut hosts, 2, at(1)), Ok(()));
        assert!(!hosts.connected(client(2), host(1)), "no news");
        assert_eq!(
            admit(&mut hosts, 1, at(2)),
            Err(Shut::Dead),
            "still refused"
        );
        assert_eq!(admit(&mut hosts, 1, at(6)), Ok(()));
        assert!(hosts.connected(client(1), host(1)));
        assert_eq!(hosts.dead(), 0);
    }

    #[test]
    fn who_tries_and_never_tells_does_not_block_the_others_for_ever() {
        let mut hosts = Destinations::default();
        hosts.failed(client(1), host(1), at(0));
        assert_eq!(admit(&mut hosts, 1, at(6)), Ok(()));
        assert_eq!(admit(&mut hosts, 2, at(35)), Err(Shut::Dead));
        assert_eq!(admit(&mut hosts, 2, at(36)), Ok(()));
    }

    #[test]
    fn a_chain_of_own_connections_ends() {
        let mut hosts = Destinations::default();
        for _ in 0..UNANSWERED_MAX {
            assert_eq!(admit(&mut hosts, 1, at(0)), Ok(()));
        }
        assert_eq!(admit(&mut hosts, 1, at(0)), Err(Shut::Loop));
        assert_eq!(admit(&mut hosts, 2, at(0)), Ok(()), "another client");
        hosts.answered(client(1), host(1));
        assert_eq!(admit(&mut hosts, 1, at(0)), Ok(()));
        for _ in 0..UNANSWERED_MAX {
            hosts.answered(client(1), host(1));
        }
        hosts.answered(client(2), host(1));
        assert!(hosts.unanswered.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_what_is_old_is_forgotten() {
        let mut hosts = Destinations::default();
        for n in 0..DEAD_MAX as u32 + 10 {
            let to = SocketAddr::new(IpAddr::from(n.to_be_bytes()), 25);
            assert_eq!(hosts.failed(client(1), to, at(0)), n < DEAD_MAX as u32);
        }
        hosts.sweep(at(64));
        assert_eq!(hosts.dead(), DEAD_MAX);
        hosts.sweep(at(66));
        assert_eq!(hosts.dead(), 0);
    }

    #[test]
    fn who_is_shut_out_of_tls_does_not_take_it_from_others() {
        for apart in [true, false] {
            let mut hosts = Destinations::new(apart);
            hosts.forgo_tls(client(1), host(1), at(0), at(10));
            assert!(hosts.goes_without_tls(client(1), host(1), at(9)));
            assert_eq!(hosts.goes_without_tls(client(2), host(1), at(9)), !apart);
        }
    }

    #[test]
    fn hosts_without_tls_are_bounded_and_get_another_try() {
        let mut hosts = Destinations::default();
        for n in 0..PLAIN_MAX as u32 + 10 {
            let to = SocketAddr::new(IpAddr::from(n.to_be_bytes()), 25);
            let kept = n < PLAIN_MAX as u32;
            assert_eq!(hosts.forgo_tls(client(1), to, at(0), at(10)), kept);
            assert_eq!(hosts.goes_without_tls(client(1), to, at(9)), kept);
            assert!(!hosts.goes_without_tls(client(1), to, at(10)));
        }
        assert!(
            hosts.forgo_tls(client(1), host(1), at(10), at(20)),
            "in place of old ones"
        );
        assert!(
            !hosts.forgo_tls(client(1), host(1), at(15), at(25)),
            "no news"
        );
        assert!(
            !hosts.goes_without_tls(client(1), host(1), at(20)),
            "nor any longer"
        );
        hosts.sweep(at(20));
        assert!(hosts.plain.is_empty());
    }
}
