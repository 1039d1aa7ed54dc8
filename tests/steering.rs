//! Listener groups: each client address on one shard, spread over all, in every family; and that a group opens in order or not at all.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use weir::net::{CloseTogether, ListenerConfig, ListenerGroup, SocketOptions, Steer};

const SHARDS: usize = 4;

fn config(address: &str, steer: Steer) -> ListenerConfig {
    ListenerConfig {
        address: address.parse().expect("an address"),
        backlog: 1024,
        service: Default::default(),
        steer,
        options: SocketOptions::default(),
    }
}

/// Opens the group from threads that start in the wrong order.
fn open(group: &Arc<ListenerGroup>) -> Vec<TcpListener> {
    let opening: Vec<_> = (0..SHARDS)
        .rev()
        .map(|shard| {
            let group = Arc::clone(group);
            std::thread::spawn(move || (shard, group.open(shard).expect("it opens")))
        })
        .collect();
    let mut listeners: Vec<_> = opening
        .into_iter()
        .map(|thread| thread.join().expect("opened"))
        .collect();
    listeners.sort_by_key(|(shard, _)| *shard);
    listeners
        .into_iter()
        .map(|(_, socket)| TcpListener::from(socket))
        .collect()
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
    let group = Arc::new(ListenerGroup::new(
        config("127.0.0.1:0", Steer::Client),
        SHARDS,
    ));
    let listeners = open(&group);
    let to = group.local_addr().expect("open");
    let found = shards_of(&listeners, to, &loopback(200, 3));
    assert!(found.values().all(|shards| shards.len() == 1));
    let mut counts = [0; SHARDS];
    for shard in found.values().flatten() {
        counts[*shard] += 1;
    }
    assert!(counts.iter().all(|count| *count > 30), "{counts:?}");
}

#[test]
fn the_kernel_spreads_even_one_client() {
    let group = Arc::new(ListenerGroup::new(
        config("127.0.0.1:0", Steer::Kernel),
        SHARDS,
    ));
    let listeners = open(&group);
    let to = group.local_addr().expect("open");
    let found = shards_of(&listeners, to, &loopback(1, 100));
    assert!(found.values().all(|shards| shards.len() == SHARDS));
}

#[test]
fn an_ipv6_client_stays_on_one_shard() {
    let group = Arc::new(ListenerGroup::new(config("[::1]:0", Steer::Client), SHARDS));
    let listeners = open(&group);
    let to = group.local_addr().expect("open");
    let one = [IpAddr::V6(Ipv6Addr::LOCALHOST); 50];
    let found = shards_of(&listeners, to, &one);
    assert!(found.values().all(|shards| shards.len() == 1));
}

#[test]
fn a_group_that_cannot_open_fails_on_every_shard() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let group = Arc::new(ListenerGroup::new(config(&address, Steer::Client), 2));
    let second = {
        let group = Arc::clone(&group);
        std::thread::spawn(move || group.open(1).map(drop))
    };
    let first = group.open(0).map(drop).expect_err("the port is taken");
    assert!(first.to_string().contains(&address), "{first}");
    second
        .join()
        .expect("it returns")
        .expect_err("so does the other");
}

#[test]
fn shards_close_together() {
    let meeting = CloseTogether::new(2);
    meeting.arrive();
    assert!(!meeting.all_arrived());
    meeting.arrive();
    assert!(meeting.all_arrived());
}
