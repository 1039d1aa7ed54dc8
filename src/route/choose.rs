//! Which address gets the next transaction: the least loaded for its weight, among those that will do.
//!
//! Load is transactions under way divided by weight and share. Where loads are equal (nearly always, when
//! there is little to do), turns are taken in proportion: each address has a running total to which a turn adds
//! the inverse of its weight, and the lowest total is next. A returning address starts at the
//! present total, so that it has nothing to catch up.

use std::net::SocketAddr;

use weir_smtp::extension::{Capabilities, ExtensionSet};
use weir_smtp::relay::AttachFailure;
use weir_smtp::time::Moment;

use super::health::{self, Failure, Health, SHARE_WHOLE};
use super::upstream::{Planned, RouteId, UpstreamId};
use crate::tls::UpstreamTls;

/// One address of an upstream, by its place in this shard's table.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct EndpointId(pub u16);

/// One address of an upstream, as this shard sees it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub upstream: UpstreamId,
    pub addr: SocketAddr,
    tls: Option<UpstreamTls>,
    route: RouteId,
    weight: u16,
    health: Health,
    /// What its EHLO said last; None: never heard.
    caps: Option<Capabilities>,
    /// Transactions of this shard that use it.
    active: u32,
    /// Connections of this shard to it, idle ones included.
    connections: u32,
    /// Connections go without TLS until then.
    plain_until: Moment,
    /// What it had of turns; see the head of this file.
    total: u64,
    /// No longer in the plan: finishes what it has.
    retired: bool,
}

impl Endpoint {
    pub const fn capabilities(&self) -> Option<&Capabilities> {
        self.caps.as_ref()
    }

    pub const fn active(&self) -> u32 {
        self.active
    }

    pub const fn connections(&self) -> u32 {
        self.connections
    }

    pub const fn health(&self) -> &Health {
        &self.health
    }

    /// How it is spoken to; None: in plaintext.
    pub const fn tls(&self) -> Option<&UpstreamTls> {
        self.tls.as_ref()
    }

    /// A handshake failed lately, and mail does not depend on TLS.
    pub fn goes_without_tls(&self, now: Moment) -> bool {
        now < self.plain_until
    }

    /// The set it belongs to.
    pub const fn route(&self) -> RouteId {
        self.route
    }

    /// It stands for all hosts that clients want to go to themselves, and is no host.
    pub fn is_anywhere(&self) -> bool {
        self.addr.ip().is_unspecified()
    }

    pub const fn is_retired(&self) -> bool {
        self.retired
    }

    pub fn approach(&self) -> Approach {
        Approach {
            addr: self.addr,
            tls: self.tls.clone(),
        }
    }

    /// Whether it is that address, spoken to in the same way.
    pub fn is_at(&self, approach: &Approach) -> bool {
        self.addr == approach.addr && are_alike(&self.tls, &approach.tls)
    }

    /// Whether its own EHLO carries what a transaction uses. One never heard of carries nothing.
    fn qualifies(&self, needs: ExtensionSet) -> bool {
        needs.is_empty() || self.caps.is_some_and(|caps| caps.set.contains(needs))
    }
}

/// An address and how it is spoken to. What is known of one way, and connections made in it, are good for that way only: a
/// server may offer other things inside TLS, and a handshake that fails is nothing to those who need none.
#[derive(Clone, Debug)]
pub struct Approach {
    pub addr: SocketAddr,
    pub tls: Option<UpstreamTls>,
}

impl Approach {
    pub fn is_like(&self, other: &Approach) -> bool {
        self.addr == other.addr && are_alike(&self.tls, &other.tls)
    }
}

fn are_alike(one: &Option<UpstreamTls>, other: &Option<UpstreamTls>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_like(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Addresses already tried for a transaction: a handful, after which it is given up.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Tried {
    endpoints: [u16; Tried::MAX],
    len: u8,
}

impl Tried {
    pub const MAX: usize = 4;

    /// Notes one; false if there is no further try.
    pub fn insert(&mut self, endpoint: EndpointId) -> bool {
        if let Some(place) = self.endpoints.get_mut(usize::from(self.len)) {
            *place = endpoint.0;
            self.len += 1;
        }
        !self.is_full()
    }

    pub fn contains(&self, endpoint: EndpointId) -> bool {
        self.endpoints[..usize::from(self.len)].contains(&endpoint.0)
    }

    pub const fn is_full(&self) -> bool {
        self.len as usize == Self::MAX
    }
}

/// All upstreams of one shard, in all sets.
#[derive(Default, Debug)]
pub struct Routes {
    config: health::Config,
    endpoints: Vec<Endpoint>,
    /// The total of whoever had the last turn.
    turn: u64,
}

impl Routes {
    pub fn new(config: health::Config) -> Routes {
        Routes {
            config,
            ..Routes::default()
        }
    }

    /// Takes over a new plan. An address that stays keeps all that is known of it; one that left finishes what it has.
    pub fn set_plan(&mut self, plan: &[Planned]) {
        for endpoint in &mut self.endpoints {
            endpoint.retired = true;
        }
        for upstream in plan {
            for addr in &upstream.addresses {
                self.plan_endpoint(upstream, *addr);
            }
        }
    }

    fn plan_endpoint(&mut self, upstream: &Planned, addr: SocketAddr) {
        let approach = Approach {
            addr,
            tls: upstream.tls.clone(),
        };
        let known = self
            .endpoints
            .iter_mut()
            .find(|known| known.upstream == upstream.id && known.is_at(&approach));
        if let Some(known) = known {
            (known.retired, known.weight, known.route) = (false, upstream.weight, upstream.route);
            if known.tls != upstream.tls {
                // Perhaps it was our own certificate.
                known.plain_until = Moment::ZERO;
                known.tls = upstream.tls.clone();
            }
            return;
        }
        let fresh = Endpoint {
            upstream: upstream.id,
            addr,
            tls: upstream.tls.clone(),
            route: upstream.route,
            weight: upstream.weight,
            health: Health::default(),
            // The same server under another name, perhaps.
            caps: self
                .endpoints
                .iter()
                .find(|other| other.is_at(&approach))
                .and_then(|other| other.caps),
            active: 0,
            connections: 0,
            plain_until: Moment::ZERO,
            total: self.turn,
            retired: false,
        };
        let vacant = |old: &&mut Endpoint| old.retired && old.active == 0 && old.connections == 0;
        match self.endpoints.iter_mut().find(vacant) {
            Some(old) => *old = fresh,
            None => {
                assert!(
                    self.endpoints.len() < usize::from(u16::MAX),
                    "control bounds the plan"
                );
                self.endpoints.push(fresh);
            }
        }
    }

    /// What stands for all hosts that clients choose themselves is up, and nobody asks it what it can do.
    pub fn take_anywhere_for_granted(&mut self) {
        let anywhere = self.endpoints.iter_mut().filter(|one| one.is_anywhere());
        anywhere.for_each(|one| one.caps = Some(Capabilities::default()));
    }

    /// The address for the next transaction. `has_room` says whether a connection to it is idle or may be opened.
    ///
    /// Which failure it is tells what is missing first: an address that is up, one that is able, a connection.
    pub fn choose(
        &mut self,
        route: RouteId,
        needs: ExtensionSet,
        tried: &Tried,
        now: Moment,
        mut has_room: impl FnMut(EndpointId, &Endpoint) -> bool,
    ) -> Result<EndpointId, AttachFailure> {
        let mut failure = AttachFailure::NoUpstream;
        let mut best: Option<(Load, EndpointId)> = None;
        let turn = self.turn;
        for (number, endpoint) in self.endpoints.iter_mut().enumerate() {
            let id = EndpointId(number as u16);
            if endpoint.retired || endpoint.route != route || tried.contains(id) {
                continue;
            }
            let share = endpoint.health.share(&self.config, now);
            if share == 0 {
                continue;
            }
            if !endpoint.qualifies(needs) {
                if failure == AttachFailure::NoUpstream {
                    failure = AttachFailure::Unqualified;
                }
                continue;
            }
            let load = Load {
                active: endpoint.active,
                weight: u32::from(endpoint.weight) * share,
                total: endpoint.total.max(turn),
            };
            if best
                .as_ref()
                .is_some_and(|(other, _)| !load.is_below(other))
            {
                continue;
            }
            if !has_room(id, endpoint) {
                failure = AttachFailure::NoSlot;
                continue;
            }
            best = Some((load, id));
        }
        let (load, id) = best.ok_or(failure)?;
        self.turn = load.total;
        self.endpoints[usize::from(id.0)].total = load.total + TURN / u64::from(load.weight);
        Ok(id)
    }

    /// Whether a transaction may (still) use this address: it is neither retired nor ejected, and carries what is used.
    pub fn is_usable(&mut self, id: EndpointId, needs: ExtensionSet, now: Moment) -> bool {
        let Some(endpoint) = self.endpoints.get_mut(usize::from(id.0)) else {
            return false;
        };
        !endpoint.retired
            && endpoint.health.share(&self.config, now) > 0
            && endpoint.qualifies(needs)
    }

    /// Whether an upstream has an address that a transaction may (still) use.
    pub fn is_upstream_usable(
        &mut self,
        upstream: UpstreamId,
        needs: ExtensionSet,
        now: Moment,
    ) -> bool {
        (0..self.endpoints.len()).any(|number| {
            let id = EndpointId(number as u16);
            self.endpoints[number].upstream == upstream && self.is_usable(id, needs, now)
        })
    }

    /// A transaction begins to use this address.
    pub fn begin(&mut self, id: EndpointId) {
        self.at(id).active += 1;
    }

    /// A transaction ends to use this address.
    pub fn end(&mut self, id: EndpointId) {
        let endpoint = self.at(id);
        assert!(endpoint.active > 0, "a transaction ends once");
        endpoint.active -= 1;
    }

    /// A connection is opened to this address (from the attempt on).
    pub fn opened(&mut self, id: EndpointId) {
        self.at(id).connections += 1;
    }

    pub fn closed(&mut self, id: EndpointId) {
        let endpoint = self.at(id);
        assert!(endpoint.connections > 0, "a connection is closed once");
        endpoint.connections -= 1;
    }

    /// An address failed. True: it is ejected by this, which is worth a log line.
    pub fn failed(&mut self, id: EndpointId, why: Failure, now: Moment) -> bool {
        let config = self.config;
        self.at(id).health.failed(why, &config, now)
    }

    /// New connections to an address go without TLS until then. True: they did not before, which is worth a log line.
    pub fn forgo_tls(&mut self, id: EndpointId, now: Moment, until: Moment) -> bool {
        let endpoint = self.at(id);
        let news = !endpoint.goes_without_tls(now);
        if news {
            endpoint.plain_until = until;
        }
        news
    }

    /// What an address said to EHLO. True: it was something new, so what weir announces may change.
    pub fn heard(&mut self, id: EndpointId, caps: Capabilities) -> bool {
        self.at(id).caps.replace(caps) != Some(caps)
    }

    /// The outcome of a probe, from whichever shard made it: it counts for all who speak to that address in that way.
    pub fn probed(
        &mut self,
        approach: &Approach,
        outcome: Option<Capabilities>,
        now: Moment,
    ) -> Probed {
        let mut probed = Probed::default();
        for endpoint in self
            .endpoints
            .iter_mut()
            .filter(|endpoint| endpoint.is_at(approach))
        {
            match outcome {
                Some(caps) => {
                    probed.returned |= endpoint.health.probed(&self.config, now);
                    probed.caps_changed |= endpoint.caps.replace(caps) != Some(caps);
                }
                None => probed.ejected |= endpoint.health.failed(Failure::Probe, &self.config, now),
            }
        }
        probed
    }

    /// What the EHLO reply is the intersection of. An address that was never heard counts as one that can do nothing,
    /// unless it is ejected: one server that is down at the start must not take 8BITMIME from all.
    pub fn candidates(&self) -> impl Iterator<Item = Capabilities> {
        let planned = self.endpoints.iter().filter(|endpoint| !endpoint.retired);
        planned.filter_map(|endpoint| match endpoint.caps {
            None if endpoint.health.ejected_until().is_none() => Some(Capabilities::default()),
            caps => caps,
        })
    }

    /// None: no such address, or long gone.
    pub fn get(&self, id: EndpointId) -> Option<&Endpoint> {
        self.endpoints.get(usize::from(id.0))
    }

    /// All addresses in use, retired ones that finish included.
    pub fn iter(&self) -> impl Iterator<Item = (EndpointId, &Endpoint)> {
        let all = self.endpoints.iter().enumerate();
        all.map(|(number, endpoint)| (EndpointId(number as u16), endpoint))
    }

    fn at(&mut self, id: EndpointId) -> &mut Endpoint {
        &mut self.endpoints[usize::from(id.0)]
    }
}

/// What a probe changed.
#[derive(Copy, Clone, Eq, PartialEq, Default, Debug)]
pub struct Probed {
    pub returned: bool,
    pub ejected: bool,
    pub caps_changed: bool,
}

/// A turn of an address with weight 1 and the whole share adds this much / [`SHARE_WHOLE`].
const TURN: u64 = SHARE_WHOLE as u64 * (1 << 20);

struct Load {
    active: u32,
    weight: u32,
    total: u64,
}

impl Load {
    fn is_below(&self, other: &Load) -> bool {
        let ours = u64::from(self.active) * u64::from(other.weight);
        let theirs = u64::from(other.active) * u64::from(self.weight);
        (ours, self.total) < (theirs, other.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{Material, Settings, UpstreamMode, UpstreamWish};
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::time::Duration;

    const ROUTE: RouteId = RouteId(0);
    const NONE: ExtensionSet = ExtensionSet::NONE;

    fn at(millis: u64) -> Moment {
        Moment::ZERO + Duration::from_millis(millis)
    }

    fn addr(number: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, number], 25))
    }

    fn plain(number: u8) -> Approach {
        Approach {
            addr: addr(number),
            tls: None,
        }
    }

    fn secured(mode: UpstreamMode) -> Option<UpstreamTls> {
        let name = "mx.example".to_owned().try_into().expect("a name");
        let wish = UpstreamWish {
            mode,
            implicit: false,
            name,
        };
        let settings = Settings::default();
        let material = Material::read(settings).expect("no files are named");
        Some(material.upstream_tls(&wish))
    }

    fn planned(id: u16, weight: u16, addresses: &[u8]) -> Planned {
        Planned {
            id: UpstreamId(id),
            route: ROUTE,
            weight,
            addresses: addresses.iter().map(|number| addr(*number)).collect(),
            tls: None,
        }
    }

    fn routes(plan: &[Planned]) -> Routes {
        let mut routes = Routes::default();
        routes.set_plan(plan);
        routes
    }

    fn choose(routes: &mut Routes, now: Moment) -> Result<SocketAddr, AttachFailure> {
        let id = routes.choose(ROUTE, NONE, &Tried::default(), now, |_, _| true)?;
        Ok(routes.get(id).expect("chosen").addr)
    }

    fn caps(set: ExtensionSet) -> Capabilities {
        Capabilities {
            set,
            esmtp: true,
            ..Capabilities::default()
        }
    }

    #[test]
    fn without_load_turns_are_taken_by_weight() {
        let mut routes = routes(&[planned(0, 3, &[1]), planned(1, 1, &[2, 3])]);
        let mut turns = HashMap::new();
        for _ in 0..5000 {
            *turns
                .entry(choose(&mut routes, at(0)).unwrap())
                .or_insert(0) += 1;
        }
        assert_eq!(
            (turns[&addr(1)], turns[&addr(2)], turns[&addr(3)]),
            (3000, 1000, 1000)
        );
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_chosen() {
        let mut routes = routes(&[planned(0, 2, &[1]), planned(1, 1, &[2])]);
        let mut count = HashMap::new();
        for _ in 0..300 {
            let id = routes
                .choose(ROUTE, NONE, &Tried::default(), at(0), |_, _| true)
                .unwrap();
            routes.begin(id);
            *count.entry(id).or_insert(0) += 1;
        }
        assert_eq!((count[&EndpointId(0)], count[&EndpointId(1)]), (200, 100));
        (0..100).for_each(|_| routes.end(EndpointId(0)));
        (0..100).for_each(|_| assert_eq!(choose(&mut routes, at(0)), Ok(addr(1))));
    }

    #[test]
    fn what_was_tried_has_no_room_or_is_not_able_is_passed_over() {
        let mut routes = routes(&[planned(0, 1, &[1]), planned(1, 1, &[2])]);
        let mut tried = Tried::default();
        assert!(tried.insert(EndpointId(0)));
        let chosen = routes.choose(ROUTE, NONE, &tried, at(0), |_, _| true);
        assert_eq!(chosen, Ok(EndpointId(1)));
        let full = routes.choose(ROUTE, NONE, &tried, at(0), |_, _| false);
        assert_eq!(full, Err(AttachFailure::NoSlot));
        let needs = ExtensionSet::SMTPUTF8;
        let unable = routes.choose(ROUTE, needs, &tried, at(0), |_, _| true);
        assert_eq!(unable, Err(AttachFailure::Unqualified));
        assert!(
            routes.heard(EndpointId(1), caps(needs)) && !routes.heard(EndpointId(1), caps(needs))
        );
        assert_eq!(
            routes.choose(ROUTE, needs, &tried, at(0), |_, _| true),
            Ok(EndpointId(1))
        );
        assert!(
            routes.is_usable(EndpointId(1), needs, at(0))
                && !routes.is_usable(EndpointId(0), needs, at(0))
        );
        assert_eq!(
            routes.choose(RouteId(7), NONE, &tried, at(0), |_, _| true),
            Err(AttachFailure::NoUpstream)
        );
    }

    #[test]
    fn tries_come_to_an_end() {
        let mut tried = Tried::default();
        let more: Vec<_> = (0..6)
            .map(|number| tried.insert(EndpointId(number)))
            .collect();
        assert_eq!(more, [true, true, true, false, false, false]);
        assert!(tried.contains(EndpointId(3)) && !tried.contains(EndpointId(4)));
    }

    #[test]
    fn all_down_is_no_upstream_until_one_returns_little_by_little() {
        let mut routes = routes(&[planned(0, 1, &[1]), planned(1, 1, &[2])]);
        assert!(routes.failed(EndpointId(0), Failure::Connect, at(0)));
        assert_eq!(choose(&mut routes, at(0)), Ok(addr(2)));
        assert!(routes.failed(EndpointId(1), Failure::Refused, at(500)));
        assert_eq!(choose(&mut routes, at(600)), Err(AttachFailure::NoUpstream));
        assert_eq!(choose(&mut routes, at(1000)), Ok(addr(1)));
        // The first has its whole share again when the second comes back with a tenth.
        routes.failed(EndpointId(1), Failure::Refused, at(31_000));
        let mut turns = HashMap::new();
        for _ in 0..1100 {
            *turns
                .entry(choose(&mut routes, at(33_000)).unwrap())
                .or_insert(0) += 1;
        }
        assert!((99..=101).contains(&turns[&addr(2)]), "{turns:?}");
    }

    #[test]
    fn a_new_plan_keeps_what_is_known_of_addresses_that_stay() {
        let mut routes = routes(&[planned(0, 1, &[1, 2])]);
        routes.failed(EndpointId(0), Failure::Connect, at(0));
        routes.begin(EndpointId(1));
        routes.opened(EndpointId(1));
        routes.set_plan(&[planned(0, 1, &[1, 3])]);
        assert_eq!(
            choose(&mut routes, at(0)),
            Ok(addr(3)),
            "1 is still ejected, 2 has left"
        );
        assert!(routes.get(EndpointId(1)).unwrap().is_retired());
        // A retired one keeps its place until it has finished; then the place is free.
        routes.set_plan(&[planned(0, 1, &[1, 3, 4])]);
        assert_eq!(routes.iter().count(), 4);
        routes.end(EndpointId(1));
        routes.closed(EndpointId(1));
        routes.set_plan(&[planned(0, 1, &[1, 3, 4, 5])]);
        assert_eq!(routes.get(EndpointId(1)).unwrap().addr, addr(5));
    }

    #[test]
    fn another_way_of_tls_is_another_endpoint() {
        let plan = |tls: &Option<UpstreamTls>| {
            let tls = tls.clone();
            [Planned {
                tls,
                ..planned(0, 1, &[1])
            }]
        };
        let mut routes = routes(&plan(&None));
        let id = EndpointId(0);
        routes.opened(id);
        assert!(routes.heard(id, caps(ExtensionSet::DSN)));
        let (first, newer) = (
            secured(UpstreamMode::Require),
            secured(UpstreamMode::Require),
        );
        routes.set_plan(&plan(&first));
        assert!(
            routes.get(id).unwrap().is_retired(),
            "the connection in plaintext"
        );
        let other = EndpointId(1);
        assert!(routes.get(other).unwrap().capabilities().is_none());
        routes.heard(other, caps(ExtensionSet::DSN));
        assert_ne!(first, newer, "other tickets");
        routes.set_plan(&plan(&newer));
        let endpoint = routes.get(other).unwrap();
        assert!(!endpoint.is_retired() && endpoint.capabilities().is_some());
        assert_eq!(
            endpoint.tls(),
            newer.as_ref(),
            "newer files, the same endpoint"
        );
        routes.set_plan(&plan(&secured(UpstreamMode::May)));
        let endpoint = routes.get(other).unwrap();
        assert!(
            endpoint.capabilities().is_none(),
            "it took the vacant place"
        );
    }

    #[test]
    fn a_probe_tells_all_endpoints_of_its_address_and_way() {
        let mut routes = routes(&[planned(0, 1, &[1]), planned(1, 1, &[1, 2])]);
        assert!(routes.probed(&plain(1), None, at(0)).ejected);
        assert_eq!(choose(&mut routes, at(0)), Ok(addr(2)));
        let probed = routes.probed(&plain(1), Some(caps(ExtensionSet::DSN)), at(10));
        assert!(probed.returned && probed.caps_changed && !probed.ejected);
        assert_eq!(
            routes.probed(&plain(1), Some(caps(ExtensionSet::DSN)), at(20)),
            Probed::default()
        );
    }

    #[test]
    fn what_was_learned_in_one_way_is_not_believed_of_another() {
        let upstream = |id, tls| Planned {
            tls,
            ..planned(id, 1, &[1])
        };
        let inside = secured(UpstreamMode::Require);
        let mut routes = routes(&[upstream(0, None), upstream(1, inside.clone())]);
        let by_tls = Approach {
            addr: addr(1),
            tls: inside,
        };
        let known =
            |routes: &Routes, id| routes.get(EndpointId(id)).unwrap().capabilities().copied();
        let rich = caps(ExtensionSet::REQUIRETLS.union(ExtensionSet::EIGHTBITMIME));
        assert!(routes.probed(&by_tls, Some(rich), at(0)).caps_changed);
        assert_eq!((known(&routes, 0), known(&routes, 1)), (None, Some(rich)));
        routes.probed(&plain(1), Some(caps(NONE)), at(0));
        assert_eq!(known(&routes, 1), Some(rich));
        assert!(routes.probed(&by_tls, None, at(0)).ejected);
        assert!(routes.is_usable(EndpointId(0), NONE, at(0)));
        assert!(!routes.is_usable(EndpointId(1), NONE, at(0)));
    }

    #[test]
    fn what_was_never_heard_can_do_nothing_unless_it_is_down() {
        let mut routes = routes(&[planned(0, 1, &[1, 2])]);
        routes.heard(EndpointId(0), caps(ExtensionSet::DSN));
        assert_eq!(
            routes.candidates().collect::<Vec<_>>(),
            [caps(ExtensionSet::DSN), Capabilities::default()]
        );
        routes.failed(EndpointId(1), Failure::Probe, at(0));
        assert_eq!(
            routes.candidates().collect::<Vec<_>>(),
            [caps(ExtensionSet::DSN)]
        );
    }

    proptest! {
        /// Whatever happens, nothing ejected, retired, tried or full is chosen, and there is a choice if anything is left.
        #[test]
        fn a_choice_is_always_one_that_will_do(steps in prop::collection::vec((0u8..6, 0u16..6, 0u64..5000), 1..200)) {
            let mut routes = routes(&[planned(0, 5, &[1, 2]), planned(1, 1, &[3, 4]), planned(2, 1000, &[5, 6])]);
            let mut now = at(0);
            for (kind, number, millis) in steps {
                let id = EndpointId(number);
                match kind {
                    0 => drop(routes.failed(id, Failure::Connect, now)),
                    1 => drop(routes.probed(&plain(number as u8 + 1), Some(caps(NONE)), now)),
                    2 => now = now + Duration::from_millis(millis),
                    3 if routes.get(id).unwrap().active() > 0 => routes.end(id),
                    4 => {
                        let mut tried = Tried::default();
                        tried.insert(id);
                        let full = EndpointId((number + 1) % 6);
                        let usable: Vec<_> = (0..6).map(EndpointId).filter(|other| routes.is_usable(*other, NONE, now)).collect();
                        let chosen = routes.choose(ROUTE, NONE, &tried, now, |other, _| other != full);
                        match chosen {
                            Ok(chosen) => prop_assert!(chosen != id && chosen != full && usable.contains(&chosen)),
                            Err(_) => prop_assert!(usable.iter().all(|other| *other == id || *other == full)),
                        }
                        chosen.into_iter().for_each(|chosen| routes.begin(chosen));
                    }
                    _ => {}
                }
            }
        }
    }
}
