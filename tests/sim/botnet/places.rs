//! What the world's DNS knows of addresses and names: lists and since when they list, names of addresses, addresses of names.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use weir_smtp::time::Moment;

use crate::names::{Data, Found, Kind, Lore, Record, address_of};

/// The domain whose mail is filtered, and the name of its server.
pub const DOMAIN: &str = "weir.test";
pub const OUR_NAME: &str = "mx.weir.test";

/// Who there is in it. Traps were users once.
pub const USERS: u64 = 60;
pub const TRAPS: u64 = 10;

/// A list of addresses, with the weight that everybody who asks it gives it.
pub struct Zone {
    pub name: &'static str,
    pub weight: i32,
    /// The last octet of its answers, 127.0.0.x.
    pub code: u8,
}

/// Lists bots some hours after they have begun; homes of home users; in haste; with mistakes; and who is known as good.
pub const ZONES: [Zone; 6] = [
    zone("worst.lists.test", 3, 4),
    zone("homes.lists.test", 2, 11),
    zone("fresh.lists.test", 2, 2),
    zone("grudge.lists.test", 1, 2),
    zone("old.lists.test", 1, 3),
    zone("good.lists.test", -3, 2),
];

pub const WORST: usize = 0;
pub const HOMES: usize = 1;
pub const FRESH: usize = 2;
pub const GRUDGE: usize = 3;
pub const OLD: usize = 4;
pub const GOOD: usize = 5;

const fn zone(name: &'static str, weight: i32, code: u8) -> Zone {
    Zone { name, weight, code }
}

#[derive(Clone, Debug, Default)]
pub struct Place {
    pub name: Option<Rc<str>>,
    /// Since when each zone has it.
    pub listed: [Option<Moment>; ZONES.len()],
}

#[derive(Default)]
pub struct Places {
    places: HashMap<IpAddr, Place>,
    names: HashMap<Rc<str>, Vec<IpAddr>>,
    /// Domains that take mail.
    domains: HashSet<Rc<str>>,
}

impl Places {
    pub fn is_taken(&self, address: IpAddr) -> bool {
        self.places.contains_key(&address)
    }

    pub fn settle(&mut self, address: IpAddr, place: Place) {
        let before = self.places.insert(address, place);
        assert!(before.is_none(), "{address} is somebody's already");
    }

    pub fn list(&mut self, address: IpAddr, zone: usize, since: Moment) {
        let place = self.places.get_mut(&address).expect("somebody lives there");
        place.listed[zone] = Some(since);
    }

    pub fn name(&mut self, name: &Rc<str>, address: IpAddr) {
        self.names.entry(name.clone()).or_default().push(address);
    }

    pub fn takes_mail(&mut self, domain: Rc<str>) {
        self.domains.insert(domain);
    }

    pub fn is_listed(&self, zone: usize, address: IpAddr, now: Moment) -> bool {
        let since = self
            .places
            .get(&address)
            .and_then(|place| place.listed[zone]);
        since.is_some_and(|since| since <= now)
    }

    /// The sum of the weights of the lists an address is on.
    pub fn score(&self, address: IpAddr, now: Moment) -> i32 {
        let listing = |(zone, entry): (usize, &Zone)| {
            self.is_listed(zone, address, now).then_some(entry.weight)
        };
        ZONES.iter().enumerate().filter_map(listing).sum()
    }

    /// What `name` is the name of in the tree of a list or of reverse names, if it lies in one.
    fn look_up_address(&self, name: &str, kind: Kind, now: Moment) -> Option<Found> {
        for (number, zone) in ZONES.iter().enumerate() {
            if let Some(address) = address_of(name, zone.name) {
                let listed = is_test_point(address) || self.is_listed(number, address, now);
                let code = IpAddr::from([127, 0, 0, zone.code]);
                return Some(match kind {
                    _ if !listed => Found::NoName,
                    Kind::A => records([Data::Address(code)]),
                    Kind::Txt => records([Data::Txt(format!("see https://{}/", zone.name))]),
                    _ => Found::NoData,
                });
            }
        }
        let mut trees = ["in-addr.arpa", "ip6.arpa"].into_iter();
        let address = trees.find_map(|tree| address_of(name, tree))?;
        Some(match (self.name_of(address), kind) {
            (None, _) => Found::NoName,
            (Some(name), Kind::Ptr) => records([Data::Ptr(name.to_string())]),
            _ => Found::NoData,
        })
    }

    pub fn name_of(&self, address: IpAddr) -> Option<&Rc<str>> {
        self.places.get(&address)?.name.as_ref()
    }

    pub fn addresses_of(&self, name: &str) -> &[IpAddr] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn has_mail_server(&self, domain: &str) -> bool {
        self.domains.contains(domain)
    }
}

impl Lore for Places {
    fn look_up(&self, name: &str, kind: Kind, now: Moment) -> Found {
        if let Some(found) = self.look_up_address(name, kind, now) {
            return found;
        }
        let addresses = self.addresses_of(name);
        let known = !addresses.is_empty() || self.has_mail_server(name);
        let is_four = |address: &&IpAddr| address.is_ipv4() == (kind == Kind::A);
        let found: Vec<Data> = match kind {
            Kind::A | Kind::Aaaa => {
                let right = addresses.iter().filter(is_four);
                right.map(|address| Data::Address(*address)).collect()
            }
            Kind::Mx if self.has_mail_server(name) => vec![Data::Mx(10, format!("mx.{name}"))],
            _ => Vec::new(),
        };
        match (known, found.is_empty()) {
            (false, _) => Found::NoName,
            (true, true) => Found::NoData,
            (true, false) => records(found),
        }
    }
}

fn records(data: impl IntoIterator<Item = Data>) -> Found {
    let records = data.into_iter().map(|data| Record { seconds: 300, data });
    Found::Records(records.collect())
}

/// What every list has to list (RFC 5782 5).
fn is_test_point(address: IpAddr) -> bool {
    let six: IpAddr = Ipv6Addr::from(0xffff_7f00_0002).into();
    address == IpAddr::from([127, 0, 0, 2]) || address == six
}

/// What the mail server behind every filter says to a recipient.
pub fn is_user(recipient: &str) -> bool {
    number_of(recipient, "user").is_some_and(|number| number < USERS)
}

pub fn is_trap(recipient: &str) -> bool {
    number_of(recipient, "trap").is_some_and(|number| number < TRAPS)
}

fn number_of(recipient: &str, word: &str) -> Option<u64> {
    let local = recipient.strip_suffix(DOMAIN)?.strip_suffix('@')?;
    local.strip_prefix(word)?.parse().ok()
}
