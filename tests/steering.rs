//! Listener groups: each client address on one shard, spread over all, in every family; and that a group opens whole or not at all.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};
use weir::net::{
    ClientPrefix, CloseTogether, ListenerConfig, ListenerGroup, SocketOptions, Steer, shard_of,
};

const SHARDS: usize = 4;

fn config(address: &str, steer: Steer) -> ListenerConfig {
    ListenerConfig {
        address: address.parse().expect("an address"),
        backlog: 1024,
        service: Default::default(),
        steer,
        prefix: ClientPrefix::default(),
        options: SocketOptions::default(),
    }
}

/// Opens a group; where it listens, and its sockets by shard.
fn open(address: &str, steer: Steer) -> (SocketAddr, Vec<TcpListener>) {
    let group = ListenerGroup::open(&config(address, steer), SHARDS).expect("it opens");
    let listeners = group.sockets.into_iter().map(TcpListener::from).collect();
    (group.address, listeners)
}

/// Connects from each source and tells which shard it came to.
fn shards_of(
    listeners: &[TcpListener],
    to: SocketAddr,
    sources: &[IpAddr],
) -> HashMap<IpAddr, HashSet<usize>> {
    let mut found: HashMap<IpAddr, HashSet<usize>> = HashMap::new();
    for listener in listeners {
        listener.set_nonblocking(true).expect("set");
    }
    for source in sources {
        let client = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        client
            .bind(&SocketAddr::new(*source, 0).into())
            .expect("the source is ours");
        client.connect(&to.into()).expect("somebody listens");
        let shard = (0..listeners.len()).find(|shard| {
            let accepted = listeners[*shard].accept();
            accepted.is_ok_and(|(_, peer)| peer.ip() == *source)
        });
        found
            .entry(*source)
            .or_default()
            .insert(shard.expect("one of the group has it"));
    }
    found
}

fn loopback(hosts: u8, times: usize) -> Vec<IpAddr> {
    let once = (1..=hosts).map(|host| IpAddr::V4(Ipv4Addr::new(127, 0, 3, host)));
    once.cycle().take(hosts as usize * times).collect()
}

#[test]
fn each_client_address_stays_on_one_shard_and_all_shards_have_some() {
    let (to, listeners) = open("127.0.0.1:0", Steer::Client);
    let found = shards_of(&listeners, to, &loopback(200, 3));
    assert!(found.values().all(|shards| shards.len() == 1));
    for (ip, shards) in &found {
        let own = shard_of(*ip, SHARDS, ClientPrefix::default());
        assert!(shards.contains(&own), "{ip}: {shards:?}, not {own}");
    }
    let mut counts = [0; SHARDS];
    for shard in found.values().flatten() {
        counts[*shard] += 1;
    }
    assert!(counts.iter().all(|count| *count > 30), "{counts:?}");
}

#[test]
fn the_kernel_spreads_even_one_client() {
    let (to, listeners) = open("127.0.0.1:0", Steer::Kernel);
    let found = shards_of(&listeners, to, &loopback(1, 100));
    assert!(found.values().all(|shards| shards.len() == SHARDS));
}

#[test]
fn an_ipv6_client_stays_on_one_shard() {
    let (to, listeners) = open("[::1]:0", Steer::Client);
    let one = [IpAddr::V6(Ipv6Addr::LOCALHOST); 50];
    let found = shards_of(&listeners, to, &one);
    assert!(found.values().all(|shards| shards.len() == 1));
}

#[test]
fn a_group_that_cannot_open_says_where() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let error = ListenerGroup::open(&config(&address, Steer::Client), 2);
    let error = error.expect_err("the port is taken").to_string();
    assert!(
        error.starts_with(&address) && error.contains("another program"),
        "{error}"
    );
}

#[test]
fn shards_close_together() {
    let meeting = CloseTogether::new(2);
    meeting.arrive();
    assert!(!meeting.all_arrived());
    meeting.arrive();
    assert!(meeting.all_arrived());
}
