//! A value for each network of a list; the longest match counts. Built once, only read afterwards.
//!
//! Networks nest, so a list of them cuts the addresses into ranges, each with one answer. They are found by an index that is
//! built once (see [`super::table`]). A trie needs a step for every few bits, each in another place of memory: for IPv6 it was ten
//! times as large.
//! IPv6 is cut by the first half of the address. Only where an entry is longer than /64 the second half is looked at.

use std::net::IpAddr;

use super::network::Network;
use super::table::Table;

/// A value for each network.
#[derive(Clone, Debug)]
pub struct Networks<T> {
    v4: Table<u32, Span<T>, 16, 10>,
    v6: Table<u64, Cell<T>, 8, 4>,
    /// Second halves of addresses, one group after the other.
    lows: Box<[Low<T>]>,
    len: usize,
}

/// What holds from the start of a range. Where networks lie apart there is nothing said between them: half of all ranges,
/// which are not kept, since that of a network says how far it goes.
#[derive(Copy, Clone, Debug)]
struct Span<T> {
    value: Option<T>,
    /// Bits of an address that may differ from the start; [`TO_THE_NEXT`]: up to the next range.
    size: u8,
}

const TO_THE_NEXT: u8 = 64;

impl<T> Span<T> {
    /// What is said of the address so far behind the start.
    fn at(&self, behind: u64) -> Option<&T> {
        let beyond = behind.checked_shr(self.size.into()).unwrap_or(0);
        self.value.as_ref().filter(|_| beyond == 0)
    }
}

/// What holds for the addresses of a range that have their first halves in common.
#[derive(Copy, Clone, Debug)]
enum Cell<T> {
    Whole(Span<T>),
    /// It depends on the second half: a group, by the place of its first. It is one first half only.
    Parted(u32),
}

/// What is said of a first half.
#[derive(Copy, Clone)]
enum Half<T> {
    Whole(T),
    Parted(u32),
}

/// A range of second halves. The first of a group begins at 0.
#[derive(Copy, Clone, Debug)]
struct Low<T> {
    start: u64,
    span: Span<T>,
    /// In the first: how many there are in the group.
    count: u32,
}

impl<T> Default for Networks<T> {
    fn default() -> Networks<T> {
        Networks {
            v4: Table::default(),
            v6: Table::default(),
            lows: Box::default(),
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
        let v4 = spans(v4.map(|(start, value)| (start as u64, value)));
        let mut networks = Networks {
            v4: Table::new(v4.map(|(start, span)| (start as u32, span))),
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
            IpAddr::V4(ip) => {
                let (start, span) = self.v4.find(ip.to_bits())?;
                span.at(u64::from(ip.to_bits() - start))
            }
            IpAddr::V6(ip) => {
                let (high, low) = ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64);
                match self.v6.find(high)? {
                    (start, Cell::Whole(span)) => span.at(high - start),
                    (start, Cell::Parted(group)) if start == high => self.within(*group, low),
                    (_, Cell::Parted(_)) => None,
                }
            }
        }
    }

    fn within(&self, group: u32, low: u64) -> Option<&T> {
        let first = group as usize;
        let group = &self.lows[first..first + self.lows[first].count as usize];
        let begun = group.partition_point(|range| range.start <= low);
        let Low { start, span, .. } = &group[begun - 1];
        span.at(low - start)
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
        self.v4.memory() + self.v6.memory() + size_of_val(&*self.lows)
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

/// From ranges side by side to those that are kept.
fn spans<T>(
    ranges: impl Iterator<Item = (u64, Option<T>)>,
) -> impl Iterator<Item = (u64, Span<T>)> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let (start, value) = ranges.next()?;
        let mut size = TO_THE_NEXT;
        if value.is_some()
            && let Some((end, _)) =
                ranges.next_if(|(end, next)| next.is_none() && (end - start).is_power_of_two())
        {
            size = (end - start).trailing_zeros() as u8;
        }
        Some((start, Span { value, size }))
    })
}

/// From ranges of whole IPv6 addresses to ranges of first halves.
fn halve<T: Copy>(ranges: &[(u128, Option<T>)]) -> Networks<T> {
    let high = |at: usize| ranges.get(at).map(|(start, _)| (start >> 64) as u64);
    let (mut halves, mut lows) = (Vec::new(), Vec::new());
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
            halves.push((half, value.map(Half::Whole)));
        } else {
            halves.push((half, Some(Half::Parted(lows.len() as u32))));
            part(&mut lows, before, these);
            // What holds at its end holds for the next halves too, until a range begins.
            let next = half.checked_add(1);
            if let Some(next) = next.filter(|next| high(at) != Some(*next)) {
                halves.push((next, after.map(Half::Whole)));
            }
        }
        before = after;
    }
    let cells = spans(halves.into_iter()).map(|(start, Span { value, size })| match value {
        Some(Half::Parted(group)) => (start, Cell::Parted(group)),
        Some(Half::Whole(value)) => (
            start,
            Cell::Whole(Span {
                value: Some(value),
                size,
            }),
        ),
        None => (start, Cell::Whole(Span { value: None, size })),
    });
    Networks {
        v6: Table::new(cells),
        lows: lows.into(),
        ..Networks::default()
    }
}

/// Adds the group of a first half: what held before it, and the ranges that begin in it.
fn part<T: Copy>(lows: &mut Vec<Low<T>>, before: Option<T>, ranges: &[(u128, Option<T>)]) {
    let first = lows.len();
    let begun = (ranges[0].0 as u64 != 0).then_some((0, before));
    let ranges = ranges.iter().map(|(start, value)| (*start as u64, *value));
    lows.extend(
        spans(begun.into_iter().chain(ranges)).map(|(start, span)| Low {
            start,
            span,
            count: 0,
        }),
    );
    lows[first].count = (lows.len() - first) as u32;
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
        let many = |v6: bool| -> Networks<bool> {
            let network = |n: u32| {
                let text = match v6 {
                    false => format!("{}/31", Ipv4Addr::from(n << 3)),
                    true => format!("{}/63", Ipv6Addr::from(u128::from(n) << 80)),
                };
                (text.parse().expect("a network"), true)
            };
            Networks::new((0..200_000).map(network))
        };
        let per_network = |networks: Networks<bool>| networks.memory() / networks.len();
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
