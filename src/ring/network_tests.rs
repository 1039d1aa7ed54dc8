//! Connections to and from addresses that are not this host's, and datagrams.
//!
//! Each test of the former gives its thread a network of its own, which is gone with the thread. Without the privilege for that
//! (CAP_SYS_ADMIN) there is nothing to test with, which the output says.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::net::Intercept;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` on a thread in a network made by these commands.
fn elsewhere(commands: &[&str], test: fn()) {
    let commands: Vec<String> = commands.iter().map(|line| line.to_string()).collect();
    let thread = std::thread::spawn(move || {
        // SAFETY: no memory is involved; the thread has the namespace for itself.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            println!("no network of our own: {}", io::Error::last_os_error());
            return;
        }
        run("ip", &["link", "set", "lo", "up"], "");
        for line in commands {
            match line.split_once('<') {
                Some((_, rules)) => run("nft", &["-f", "-"], rules),
                None => run("ip", &line.split(' ').collect::<Vec<_>>(), ""),
            }
        }
        test();
    });
    thread.join().expect("the test passes");
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .expect(program);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("read");
    drop(stdin);
    let ended = child.wait().expect("it ends");
    assert!(ended.success(), "{program} {arguments:?} {input}");
}

fn ring() -> Ring {
    Ring::new(&RingConfig {
        slots: 64,
        reserve: 16,
        entries: 64,
        completions: 256,
        client_buffers: 16,
        upstream_buffers: 4,
        buffer_size: 4096,
        chunks: 4,
        gather: Duration::ZERO,
        shows_news: false,
    })
    .expect("this host has io_uring")
}

fn until<T>(ring: &mut Ring, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        while let Some(event) = ring.next_event() {
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "in vain");
        let now = Moment::ZERO + begun.elapsed();
        ring.wait(now, now + Duration::from_millis(50))
            .expect("the ring turns");
    }
}

/// Connects and returns the address that the far end saw, or why not.
fn seen(to: &TcpListener, from: &str, mark: u32) -> io::Result<SocketAddr> {
    let dial = Dial {
        to: to.local_addr().expect("bound"),
        from: Some(from.parse().expect("an address")),
        mark,
    };
    let mut ring = ring();
    ring.connect(&dial, Owner(1))?;
    let failed = until(&mut ring, |event| match event {
        Event::Connected { result, .. } => Some(result.as_ref().err().map(io::Error::kind)),
        _ => None,
    });
    match failed {
        Some(kind) => Err(kind.into()),
        None => Ok(to.accept().expect("connected").1),
    }
}

/// Connects to `address` and returns where the ring says that the client wanted to go; the connection has to work.
fn wanted(listener: TcpListener, how: Intercept, address: &str) -> SocketAddr {
    let mut ring = ring();
    ring.listen_for(OwnedFd::from(listener), Some(how));
    let mut client = TcpStream::connect(address).expect("somebody answers for it");
    let mine = client.local_addr().expect("bound");
    let (slot, destination) = until(&mut ring, |event| match *event {
        Event::Accepted {
            slot,
            peer,
            destination,
            ..
        } => {
            assert_eq!(peer, mine);
            Some((slot, destination))
        }
        _ => None,
    });
    ring.send(slot, b"220 hello\r\n".to_vec());
    until(&mut ring, |event| {
        matches!(event, Event::Sent { result: Ok(11), .. }).then_some(())
    });
    client.read_exact(&mut [0; 11]).expect("the greeting");
    assert_eq!(ring.client_slots_free(), 47);
    ring.close(slot, Close::Now);
    until(&mut ring, |event| {
        matches!(event, Event::Closed { .. }).then_some(())
    });
    assert_eq!(client.read(&mut [0; 1]).expect("a FIN"), 0);
    assert_eq!((ring.client_slots_free(), ring.stats().stale), (48, 0));
    destination.expect("it is known")
}

#[test]
fn a_connection_comes_from_the_address_it_was_given() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = seen(&listener, "127.0.0.9:0", 0).expect("an address of ours");
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
    let wrong = seen(&listener, "[::1]:0", 0).expect_err("another family");
    assert_eq!(wrong.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_connection_comes_from_an_address_that_is_not_ours() {
    let network = [
        "addr add 198.51.100.1/32 dev lo",
        "rule add from 198.51.100.1 lookup 100",
        "route add local default dev lo table 100",
        "addr add 2001:db8::1/128 dev lo nodad",
        "-6 rule add from 2001:db8::1 lookup 100",
        "-6 route add local default dev lo table 100",
    ];
    elsewhere(&network, || {
        for (here, from, ip) in [
            ("198.51.100.1:25", "203.0.113.9:0", "203.0.113.9"),
            ("[2001:db8::1]:25", "[2001:db8:9::9]:0", "2001:db8:9::9"),
        ] {
            let listener = TcpListener::bind(here).expect("ours");
            let begun = Instant::now();
            let peer = loop {
                match seen(&listener, from, 0) {
                    // An address has its route a little later than itself.
                    Err(error) if error.kind() == io::ErrorKind::NetworkUnreachable => {
                        assert!(begun.elapsed() < PATIENCE, "{error}");
                        std::thread::sleep(Duration::from_millis(10));
                    }
                    peer => break peer.expect("we may"),
                }
            };
            assert_eq!(peer.ip().to_string(), ip);
        }
    });
}

#[test]
fn a_mark_chooses_the_way() {
    let network = [
        "addr add 198.51.100.1/32 dev lo",
        "rule add fwmark 7 blackhole",
    ];
    elsewhere(&network, || {
        let listener = TcpListener::bind("198.51.100.1:25").expect("ours");
        let mut ring = ring();
        let dial = Dial {
            to: "192.0.2.1:25".parse().expect("an address"),
            from: None,
            mark: 7,
        };
        ring.connect(&dial, Owner(1)).expect("a slot is left");
        let error = until(&mut ring, |event| match event {
            Event::Connected { result, .. } => result.as_ref().err().map(io::Error::raw_os_error),
            _ => None,
        });
        assert_eq!(error, Some(libc::EINVAL), "blackholed, not unreachable");
        seen(&listener, "198.51.100.1:0", 8).expect("another mark goes through");
    });
}

#[test]
fn a_client_of_tproxy_wanted_to_go_where_its_connection_says() {
    let network = [
        "route add local 192.0.2.0/24 dev lo",
        "-6 route add local 2001:db8:2::/64 dev lo",
    ];
    elsewhere(&network, || {
        for (here, address) in [
            ("0.0.0.0:25", "192.0.2.25:25"),
            ("[::]:26", "[2001:db8:2::25]:26"),
        ] {
            let listener = TcpListener::bind(here).expect("ours");
            let wanted = wanted(listener, Intercept::Tproxy, address);
            assert_eq!(wanted.to_string(), address);
        }
    });
}

#[test]
fn a_redirected_client_wanted_to_go_where_conntrack_says() {
    let network = [
        "route add local 192.0.2.0/24 dev lo",
        "-6 route add local 2001:db8:2::/64 dev lo",
        "nft <table inet weir { chain out { type nat hook output priority -100; tcp dport 25 redirect to :2525; tcp dport 26 redirect to :2626; }; }",
    ];
    elsewhere(&network, || {
        for (here, address) in [
            ("0.0.0.0:2525", "192.0.2.25:25"),
            ("[::]:2626", "[2001:db8:2::25]:26"),
        ] {
            let listener = TcpListener::bind(here).expect("ours");
            let wanted = wanted(listener, Intercept::Redirect, address);
            assert_eq!(wanted.to_string(), address);
        }
    });
}

#[test]
fn who_was_not_redirected_wanted_to_come_here() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = listener.local_addr().expect("bound").to_string();
    let wanted = wanted(listener, Intercept::Redirect, &here);
    assert_eq!(wanted.to_string(), here);
}

/// A server for datagrams, and a ring's socket to it that hears.
fn datagrams() -> (UdpSocket, Ring, SlotId) {
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    server.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut ring = ring();
    let here = server.local_addr().expect("bound");
    let slot = ring
        .connect_datagram(here, Owner(7))
        .expect("a slot is left");
    ring.start_receive(slot, Group::Upstream);
    (server, ring, slot)
}

/// Sends one, and returns from where it came.
fn ask(server: &UdpSocket, ring: &mut Ring, slot: SlotId) -> SocketAddr {
    ring.send(slot, b"question".to_vec());
    until(ring, |event| match event {
        Event::Sent { result: Ok(8), .. } => Some(()),
        Event::Sent { result, .. } => panic!("{result:?}"),
        _ => None,
    });
    let mut room = [0; 16];
    let (len, from) = server.recv_from(&mut room).expect("it arrives");
    assert_eq!(&room[..len], b"question");
    from
}

fn heard(ring: &mut Ring) -> Vec<u8> {
    let (buffer, len) = until(ring, |event| match *event {
        Event::Received {
            owner, buffer, len, ..
        } => {
            assert_eq!(owner, Owner(7));
            Some((buffer, len))
        }
        Event::ReceiveEnded { ref why, .. } => panic!("{why:?}"),
        _ => None,
    });
    let bytes = ring.buffer(buffer)[..len as usize].to_vec();
    ring.release(buffer);
    bytes
}

#[test]
fn datagrams_arrive_one_by_one_and_an_empty_one_ends_nothing() {
    let (server, mut ring, slot) = datagrams();
    let from = ask(&server, &mut ring, slot);
    for datagram in [&b"one"[..], b"", b"", b"two"] {
        server.send_to(datagram, from).expect("sent");
    }
    assert_eq!(heard(&mut ring), b"one");
    assert_eq!(heard(&mut ring), b"two");
    let long = vec![b'x'; 5000];
    server.send_to(&long, from).expect("sent");
    assert_eq!(heard(&mut ring), &long[..4096], "cut at the buffer's end");
    ring.close(slot, Close::Linger);
    until(&mut ring, |event| {
        matches!(event, Event::Closed { .. }).then_some(())
    });
    assert_eq!((ring.free_slots(), ring.stats().stale), (16, 0));
    assert_eq!(ring.buffers_held(Group::Upstream), 0);
}

#[test]
fn datagrams_of_others_are_not_heard() {
    let (server, mut ring, slot) = datagrams();
    let from = ask(&server, &mut ring, slot);
    let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
    // That nobody is there is what it learns, and all it does.
    other.send_to(b"forged", from).expect("sent");
    server.send_to(b"true", from).expect("sent");
    assert_eq!(heard(&mut ring), b"true");
}

#[test]
fn a_server_that_is_not_there_is_told_of_and_may_come_back() {
    let (server, mut ring, slot) = datagrams();
    let here = server.local_addr().expect("bound");
    ask(&server, &mut ring, slot);
    drop(server);
    ring.send(slot, b"question".to_vec());
    let error = until(&mut ring, |event| match event {
        Event::ReceiveEnded {
            why: ReceiveEnd::Reset(error),
            ..
        } => Some(error.kind()),
        _ => None,
    });
    assert_eq!(error, io::ErrorKind::ConnectionRefused);
    let server = UdpSocket::bind(here).expect("its port is free");
    ring.start_receive(slot, Group::Upstream);
    let from = ask(&server, &mut ring, slot);
    server.send_to(b"answer", from).expect("sent");
    assert_eq!(heard(&mut ring), b"answer");
}

#[test]
fn a_socket_for_datagrams_without_a_slot_is_refused() {
    let (_server, mut ring, _) = datagrams();
    let to: SocketAddr = "127.0.0.1:53".parse().expect("an address");
    for _ in 0..15 {
        ring.connect_datagram(to, Owner(7)).expect("a slot is left");
    }
    let none = ring.connect_datagram(to, Owner(7)).expect_err("none left");
    assert_eq!(none.raw_os_error(), Some(libc::ENFILE));
}
