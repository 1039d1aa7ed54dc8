//! The table of upstreams: names to addresses, looked up off the shards, with numbers that survive a reload.
//!
//! A lookup is the C library's getaddrinfo on a blocking thread (so /etc/hosts and nsswitch count), one per name, at most one
//! at a time per name. A failed lookup keeps the last addresses: a dead resolver must not stop mail.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use tokio::sync::mpsc;

use crate::metrics::UPSTREAMS_MAX;
use crate::shard::UpstreamSpec;
use crate::tls::{Material, UpstreamTls, UpstreamWish};

/// Addresses used of one name.
pub const ADDRESSES_MAX: usize = 16;

/// An upstream as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// HOST:PORT, for logs and metrics.
    pub name: String,
    pub host: String,
    pub port: u16,
    pub weight: u32,
    /// Connections over all shards; 0: no limit.
    pub max: u32,
    /// None: in plaintext.
    pub tls: Option<UpstreamWish>,
}

/// The table and the lookups under way.
pub struct Book {
    places: Vec<Place>,
    changed: bool,
    pending: HashSet<(String, u16)>,
    answered: mpsc::UnboundedReceiver<Answer>,
    answers: mpsc::UnboundedSender<Answer>,
}

/// A place in the table; its index is the upstream's number everywhere.
struct Place {
    target: Target,
    tls: Option<UpstreamTls>,
    addresses: Vec<SocketAddr>,
    /// Taken out by a reload: no addresses, and the place may be given to another.
    retired: bool,
    failing: bool,
}

struct Answer {
    host: String,
    port: u16,
    result: io::Result<Vec<SocketAddr>>,
}

impl Book {
    pub fn new(targets: &[Target], tls: &Material) -> Self {
        let (answers, answered) = mpsc::unbounded_channel();
        let place = |target: &Target| Place::new(target, tls);
        let places = targets.iter().map(place).collect();
        Self {
            places,
            changed: true,
            pending: HashSet::new(),
            answered,
            answers,
        }
    }

    pub fn table(&self) -> Arc<[UpstreamSpec]> {
        self.places.iter().map(Place::spec).collect()
    }

    /// The table, if it is not the one last asked for.
    pub fn changed(&mut self) -> Option<Arc<[UpstreamSpec]>> {
        std::mem::take(&mut self.changed).then(|| self.table())
    }

    /// Starts lookups of all names that have none under way. Needs a runtime around it.
    pub fn look_up(&mut self) {
        let named = self
            .places
            .iter()
            .filter(|place| !place.retired && place.literal().is_none());
        for (host, port) in named.map(|place| (place.target.host.clone(), place.target.port)) {
            if !self.pending.insert((host.clone(), port)) {
                continue;
            }
            let answers = self.answers.clone();
            tokio::task::spawn_blocking(move || {
                let result = (host.as_str(), port)
                    .to_socket_addrs()
                    .map(Iterator::collect);
                let _ = answers.send(Answer { host, port, result }); // the book is gone: weir ends
            });
        }
    }

    /// Looks all names up and waits until each has been answered one way or the other.
    pub async fn first_answers(&mut self) {
        self.look_up();
        while !self.pending.is_empty() {
            self.answers().await;
        }
    }

    /// Waits for the next answer and takes it, with all that are there. Safe to cancel.
    pub async fn answers(&mut self) {
        let Some(first) = self.answered.recv().await else {
            return;
        };
        self.take(first);
        while let Ok(more) = self.answered.try_recv() {
            self.take(more);
        }
    }

    /// A reload: upstreams that stay keep their places, new ones take new or abandoned places.
    pub fn replace(&mut self, targets: &[Target], tls: &Material) {
        for place in &mut self.places {
            place.retired = !targets
                .iter()
                .any(|target| target.name == place.target.name);
        }
        for target in targets {
            let same = self
                .places
                .iter_mut()
                .find(|place| place.target.name == target.name);
            if let Some(place) = same {
                // Where nothing changed the tickets stay too.
                if place.target.tls != target.tls {
                    place.tls = target.tls.as_ref().map(|wish| tls.upstream_tls(wish));
                }
                place.target = target.clone();
                continue;
            }
            let fresh = Place::new(target, tls);
            let free = self.places.iter().position(|place| place.retired);
            match free {
                _ if self.places.len() < UPSTREAMS_MAX => self.places.push(fresh),
                Some(free) => self.places[free] = fresh,
                None => unreachable!("a configuration names at most {UPSTREAMS_MAX} upstreams"),
            }
        }
        self.changed = true;
        self.look_up();
    }

    /// TLS with upstreams is made from other files now.
    pub fn dress_again(&mut self, tls: &Material) {
        for place in &mut self.places {
            let wish = place.target.tls.as_ref();
            place.tls = wish.map(|wish| tls.upstream_tls(wish));
            self.changed |= place.tls.is_some();
        }
    }

    fn take(&mut self, answer: Answer) {
        let key = (answer.host, answer.port);
        self.pending.remove(&key);
        for place in self
            .places
            .iter_mut()
            .filter(|place| place.target.host == key.0 && place.target.port == key.1)
        {
            match &answer.result {
                Ok(found) => self.changed |= place.found(found),
                Err(error) => place.not_found(error),
            }
        }
    }
}

impl Place {
    fn new(target: &Target, tls: &Material) -> Self {
        let mut place = Self {
            target: target.clone(),
            tls: target.tls.as_ref().map(|wish| tls.upstream_tls(wish)),
            addresses: Vec::new(),
            retired: false,
            failing: false,
        };
        place.addresses.extend(place.literal());
        place
    }

    /// The address, if the host is one.
    fn literal(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.target.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.target.port))
    }

    /// New addresses; tells whether they are others than before.
    fn found(&mut self, found: &[SocketAddr]) -> bool {
        let mut addresses = found.to_vec();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() > ADDRESSES_MAX {
            log::warn!(
                "upstream {} has {} addresses, {ADDRESSES_MAX} are used",
                self.target.name,
                addresses.len()
            );
            addresses.truncate(ADDRESSES_MAX);
        }
        if addresses.is_empty() {
            self.not_found(&io::Error::other("the name has no addresses"));
            return false;
        }
        self.failing = false;
        if addresses == self.addresses {
            return false;
        }
        log::info!("upstream {} is at {addresses:?}", self.target.name);
        self.addresses = addresses;
        true
    }

    fn not_found(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            let then = if self.addresses.is_empty() {
                "it cannot be used"
            } else {
                "the last addresses stay in use"
            };
            log::warn!(
                "upstream {} cannot be looked up, {then}: {error}",
                self.target.name
            );
        }
    }

    fn spec(&self) -> UpstreamSpec {
        UpstreamSpec {
            name: self.target.name.clone(),
            weight: self.target.weight,
            max: self.target.max,
            addresses: if self.retired {
                Vec::new()
            } else {
                self.addresses.clone()
            },
            tls: self.tls.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target {
            name: format!("{host}:{port}"),
            host: host.into(),
            port,
            weight: 1,
            max: 100,
            tls: None,
        }
    }

    fn names(table: &[UpstreamSpec]) -> Vec<(&str, usize)> {
        table
            .iter()
            .map(|spec| (spec.name.as_str(), spec.addresses.len()))
            .collect()
    }

    #[test]
    fn addresses_need_no_lookup() {
        let book = Book::new(
            &[
                target("127.0.0.1", 25),
                target("::1", 26),
                target("mx.example", 25),
            ],
            &Material::empty(),
        );
        assert_eq!(
            names(&book.table()),
            [("127.0.0.1:25", 1), ("::1:26", 1), ("mx.example:25", 0)]
        );
    }

    #[tokio::test]
    async fn names_are_looked_up_and_the_table_changes_once() {
        let mut book = Book::new(&[target("localhost", 25)], &Material::empty());
        assert!(book.changed().is_some() && book.changed().is_none());
        book.first_answers().await;
        let table = book.changed().expect("localhost has addresses");
        assert!(
            table[0]
                .addresses
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 25)
        );
        book.first_answers().await;
        assert!(
            book.changed().is_none(),
            "the same addresses again are no change"
        );
    }

    #[test]
    fn a_failed_lookup_keeps_the_last_addresses() {
        let mut book = Book::new(&[target("mx.example", 25)], &Material::empty());
        let answer = |result| Answer {
            host: "mx.example".into(),
            port: 25,
            result,
        };
        book.take(answer(Ok(vec![
            "192.0.2.2:25".parse().unwrap(),
            "192.0.2.1:25".parse().unwrap(),
            "192.0.2.2:25".parse().unwrap(),
        ])));
        assert_eq!(book.changed().unwrap()[0].addresses.len(), 2);
        book.take(answer(Err(io::Error::other("resolver is down"))));
        book.take(answer(Ok(Vec::new())));
        assert!(book.changed().is_none());
        assert_eq!(book.table()[0].addresses.len(), 2);
    }

    #[tokio::test]
    async fn a_reload_keeps_the_numbers_of_those_that_stay() {
        let mut book = Book::new(
            &[target("127.0.0.1", 1), target("127.0.0.1", 2)],
            &Material::empty(),
        );
        book.replace(
            &[target("127.0.0.1", 2), target("127.0.0.1", 3)],
            &Material::empty(),
        );
        assert_eq!(
            names(&book.table()),
            [("127.0.0.1:1", 0), ("127.0.0.1:2", 1), ("127.0.0.1:3", 1)]
        );
        book.replace(
            &[target("127.0.0.1", 1), target("127.0.0.1", 3)],
            &Material::empty(),
        );
        assert_eq!(
            names(&book.table()),
            [("127.0.0.1:1", 1), ("127.0.0.1:2", 0), ("127.0.0.1:3", 1)]
        );
    }

    #[tokio::test]
    async fn abandoned_places_are_used_again_when_there_are_no_others() {
        let many: Vec<Target> = (1..=UPSTREAMS_MAX as u16)
            .map(|port| target("127.0.0.1", port))
            .collect();
        let mut book = Book::new(&many, &Material::empty());
        let mut fewer = many[1..].to_vec();
        fewer.push(target("127.0.0.2", 25));
        book.replace(&fewer, &Material::empty());
        let table = book.table();
        assert_eq!(
            (table.len(), table[0].name.as_str()),
            (UPSTREAMS_MAX, "127.0.0.2:25")
        );
    }
}
