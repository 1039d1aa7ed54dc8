//! A value for each network of a list; the longest match counts. Built once, only read afterwards.
//!
//! Networks nest, so a list of them cuts the addresses into ranges, each with one answer: a sorted array of where ranges
//! begin, searched in two steps so that the first stays in the cache. A trie needs a step for every few bits, each in another
//! place of memory: at a million networks that was three times as slow, and for IPv6 ten times as large.
//! IPv6 is cut by the first half of the address. Only where an entry is longer than /64 the second half is looked at.

use std::net::IpAddr;
use std::ops::Range;

use super::network::Network;

/// Ranges between two that the first step looks at: 2 KiB of the second's.
const STRIDE: usize = 256;

/// A value for each network.
#[derive(Clone, Debug)]
pub struct Networks<T> {
    v4: Table<u32, Option<T>>,
    v6: Table<u64, Cell<T>>,
    /// Second halves of addresses, one group after the other.
    lows: Box<[(u64, Option<T>)]>,
    groups: Box<[Range<u32>]>,
    len: usize,
}

/// What holds for the addresses of a range that have their first halves in common.
#[derive(Copy, Clone, Debug)]
enum Cell<T> {
    Whole(Option<T>),
    /// It depends on the second half: a group, by its number.
    Parted(u32),
}

impl<T> Default for Networks<T> {
    fn default() -> Networks<T> {
        Networks {
            v4: Table::default(),
            v6: Table::default(),
            lows: Box::default(),
            groups: Box::default(),
            len: 0,
        }
    }
}

impl<T: Copy + PartialEq> Networks<T> {
    /// Of two entries for the same network the later counts.
    pub fn new(entries: impl IntoIterator<Item = (Network, T)>) -> Networks<T> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (Network { ip, bits }, value) in entries {
            match ip {
                IpAddr::V4(ip) => v4.push((u128::from(ip.to_bits()), bits, value)),
                IpAddr::V6(ip) => v6.push((ip.to_bits(), bits, value)),
            }
        }
        let len = sort(&mut v4) + sort(&mut v6);
        let v4 = flatten(32, v4).into_iter();
        let mut networks = Networks {
            v4: Table::new(v4.map(|(start, value)| (start as u32, value))),
            len,
            ..halve(&flatten(128, v6))
        };
        if len == 0 {
            networks = Networks::default();
        }
        networks
    }
}

impl FromIterator<Network> for Networks<()> {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Networks<()> {
        Networks::new(networks.into_iter().map(|network| (network, ())))
    }
}

impl<T> Networks<T> {
    /// What the most specific network around an address says.
    pub fn lookup(&self, ip: IpAddr) -> Option<&T> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.find(ip.to_bits())?.as_ref(),
            IpAddr::V6(ip) => {
                let ip = ip.to_bits();
                match self.v6.find((ip >> 64) as u64)? {
                    Cell::Whole(value) => value.as_ref(),
                    Cell::Parted(group) => self.within(*group, ip as u64),
                }
            }
        }
    }

    fn within(&self, group: u32, low: u64) -> Option<&T> {
        let group = &self.groups[group as usize];
        let lows = &self.lows[group.start as usize..group.end as usize];
        let begun = lows.partition_point(|(start, _)| *start <= low);
        lows[begun - 1].1.as_ref()
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.lookup(ip).is_some()
    }

    /// Networks that were listed.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        let lows = size_of_val(&*self.lows) + size_of_val(&*self.groups);
        self.v4.memory() + self.v6.memory() + lows
    }
}

/// Where ranges begin, and what holds from there on. The first begins at 0; an empty table holds nothing anywhere.
#[derive(Clone, Debug)]
struct Table<K, V> {
    starts: Box<[K]>,
    /// Each [`STRIDE`]th of them.
    strides: Box<[K]>,
    values: Box<[V]>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table {
            starts: Box::default(),
            strides: Box::default(),
            values: Box::default(),
        }
    }
}

impl<K: Copy + Ord, V> Table<K, V> {
    fn new(ranges: impl Iterator<Item = (K, V)>) -> Table<K, V> {
        let (starts, values): (Vec<K>, Vec<V>) = ranges.unzip();
        Table {
            strides: starts.iter().step_by(STRIDE).copied().collect(),
            starts: starts.into(),
            values: values.into(),
        }
    }

    fn find(&self, key: K) -> Option<&V> {
        let stride = self.strides.partition_point(|start| *start <= key);
        let first = stride.checked_sub(1)? * STRIDE;
        let near = &self.starts[first..self.starts.len().min(first + STRIDE)];
        let begun = near.partition_point(|start| *start <= key);
        self.values.get(first + begun - 1)
    }
}

impl<K, V> Table<K, V> {
    fn memory(&self) -> usize {
        size_of_val(&*self.starts) + size_of_val(&*self.strides) + size_of_val(&*self.values)
    }
}

/// An entry: first address, how many bits count, what is said of it.
type Entry<T> = (u128, u8, T);

/// Outer networks before those inside; of each network the last entry stays. Returns how many there are.
fn sort<T>(entries: &mut Vec<Entry<T>>) -> usize {
    entries.sort_by_key(|(start, bits, _)| (*start, *bits));
    // `dedup` keeps the first of equals.
    entries.reverse();
    entries.dedup_by_key(|(start, bits, _)| (*start, *bits));
    entries.reverse();
    entries.len()
}

/// From nested networks, sorted, to ranges side by side.
fn flatten<T: Copy + PartialEq>(width: u8, entries: Vec<Entry<T>>) -> Vec<(u128, Option<T>)> {
    let max = u128::MAX >> (128 - width);
    let mut ranges = vec![(0, None)];
    // The networks around the present place, with their last addresses.
    let mut around: Vec<(u128, T)> = Vec::new();
    for (start, bits, value) in entries {
        while around.last().is_some_and(|(last, _)| *last < start) {
            leave(&mut ranges, &mut around, max);
        }
        put(&mut ranges, start, Some(value));
        let host_bits = max.checked_shr(bits.into()).unwrap_or(0);
        around.push((start | host_bits, value));
    }
    while !around.is_empty() {
        leave(&mut ranges, &mut around, max);
    }
    ranges
}

/// Behind the end of a network the one around it counts again.
fn leave<T: Copy + PartialEq>(
    ranges: &mut Vec<(u128, Option<T>)>,
    around: &mut Vec<(u128, T)>,
    max: u128,
) {
    if let Some((last, _)) = around.pop()
        && last < max
    {
        put(ranges, last + 1, around.last().map(|(_, value)| *value));
    }
}

fn put<T: PartialEq>(ranges: &mut Vec<(u128, Option<T>)>, start: u128, value: Option<T>) {
    match ranges.last_mut() {
        Some(last) if last.0 == start => last.1 = value,
        Some(last) if last.1 == value => {}
        _ => ranges.push((start, value)),
    }
}

/// From ranges of whole IPv6 addresses to ranges of first halves.
fn halve<T: Copy>(ranges: &[(u128, Option<T>)]) -> Networks<T> {
    let high = |at: usize| ranges.get(at).map(|(start, _)| (start >> 64) as u64);
    let (mut cells, mut lows, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = None;
    let mut at = 0;
    while let Some(half) = high(at) {
        let first = at;
        while high(at) == Some(half) {
            at += 1;
        }
        let these = &ranges[first..at];
        let after = these[these.len() - 1].1;
        if let [(start, value)] = these
            && *start as u64 == 0
        {
            cells.push((half, Cell::Whole(*value)));
        } else {
            let group = lows.len() as u32;
            if these[0].0 as u64 != 0 {
                lows.push((0, before));
            }
            lows.extend(these.iter().map(|(start, value)| (*start as u64, *value)));
            cells.push((half, Cell::Parted(groups.len() as u32)));
            groups.push(group..lows.len() as u32);
            // What holds at its end holds for the next halves too, until a range begins.
            let next = half.checked_add(1);
            if let Some(next) = next.filter(|next| high(at) != Some(*next)) {
                cells.push((next, Cell::Whole(after)));
            }
        }
        before = after;
    }
    Networks {
        v6: Table::new(cells.into_iter()),
        lows: lows.into(),
        groups: groups.into(),
        ..Networks::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn networks(entries: &[(&str, u8)]) -> Networks<u8> {
        let read = |(text, value): &(&str, u8)| (text.parse().expect(text), *value);
        Networks::new(entries.iter().map(read))
    }

    #[test]
    fn ranges_end_where_networks_do() {
        let networks = networks(&[
            ("0.0.0.0/0", 1),
            ("255.255.255.0/24", 2),
            ("255.255.255.255", 3),
            ("0.0.0.0", 4),
            ("::", 5),
            ("ffff:ffff:ffff:ffff::/64", 6),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 7),
            ("2001:db8::8000:0:0:0/65", 8),
        ]);
        let table = [
            ("0.0.0.0", Some(4)),
            ("0.0.0.1", Some(1)),
            ("255.255.254.255", Some(1)),
            ("255.255.255.254", Some(2)),
            ("255.255.255.255", Some(3)),
            ("::", Some(5)),
            ("::1", None),
            ("0:0:0:1::", None),
            ("2001:db8::", None),
            ("2001:db8::7fff:ffff:ffff:ffff", None),
            ("2001:db8::8000:0:0:0", Some(8)),
            ("2001:db8::ffff:ffff:ffff:ffff", Some(8)),
            ("2001:db8:0:1::", None),
            ("ffff:ffff:ffff:fffe:ffff:ffff:ffff:ffff", None),
            ("ffff:ffff:ffff:ffff::", Some(6)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", Some(6)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(7)),
        ];
        for (ip, want) in table {
            let found = networks.lookup(ip.parse().expect(ip)).copied();
            assert_eq!(found, want, "{ip}");
        }
        assert_eq!(networks.len(), 8);
    }

    #[test]
    fn nothing_is_on_an_empty_list() {
        let none = Networks::<()>::default();
        let made: Networks<()> = std::iter::empty::<Network>().collect();
        for ip in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            let ip = ip.parse().expect(ip);
            assert!(!none.contains(ip) && !made.contains(ip));
        }
        assert!(made.is_empty() && made.memory() == 0);
        let one: Networks<()> = ["10.0.0.0/8".parse().expect("a network")]
            .into_iter()
            .collect();
        assert!(!one.contains("::".parse().expect("an address")));
    }

    #[test]
    fn a_large_list_stays_small() {
        let many = |v6: bool| -> Networks<u8> {
            let network = |n: u32| {
                let text = match v6 {
                    false => format!("{}/31", Ipv4Addr::from(n << 3)),
                    true => format!("{}/63", Ipv6Addr::from(u128::from(n) << 80)),
                };
                (text.parse().expect("a network"), 1)
            };
            Networks::new((0..200_000).map(network))
        };
        let per_network = |networks: Networks<u8>| networks.memory() / networks.len();
        assert!(per_network(many(false)) <= 16);
        assert!(per_network(many(true)) <= 40);
    }

    proptest! {
        /// Against a list that is searched whole. Few different addresses, so that networks nest and touch.
        #[test]
        fn the_longest_match_is_found(
            entries in prop::collection::vec((any::<u128>(), 0u8..=128, 0u8..3), 1..100),
            clients in prop::collection::vec(any::<u128>(), 50),
            v6: bool,
        ) {
            const FEW: u128 = 0xc000_0000_0000_0081_8000_0000_c000_00c1;
            let most = if v6 { 128 } else { 32 };
            let mask = |bits: u8| match bits {
                0 => 0,
                bits => u128::MAX << (most - bits),
            };
            let address = |bits: u128| match v6 {
                true => IpAddr::V6(Ipv6Addr::from(bits)),
                false => IpAddr::V4(Ipv4Addr::from(bits as u32)),
            };
            let mut list: Vec<(u128, u8, u8)> = Vec::new();
            let mut read = Vec::new();
            for (start, bits, value) in entries {
                let bits = bits % (most + 1);
                let start = start & FEW & mask(bits) & (u128::MAX >> (128 - most));
                read.push((Network { ip: address(start), bits }, value));
                list.retain(|(other, other_bits, _)| (*other, *other_bits) != (start, bits));
                list.push((start, bits, value));
            }
            let networks = Networks::new(read);
            let near = list.iter().flat_map(|(start, ..)| [*start, start.wrapping_sub(1), start + 1]);
            let clients: Vec<u128> = near.chain(clients.into_iter().map(|ip| ip & FEW)).collect();
            for client in clients {
                let client = client & (u128::MAX >> (128 - most));
                // A mapped address is looked up as IPv4.
                if v6 && client >> 32 == 0xffff { continue }
                let around = list.iter().filter(|(start, bits, _)| client & mask(*bits) == *start);
                let want = around.max_by_key(|(_, bits, _)| *bits).map(|(_, _, value)| value);
                prop_assert_eq!(networks.lookup(address(client)), want, "{}", address(client));
            }
            prop_assert_eq!(networks.len(), list.len());
        }
    }
}
