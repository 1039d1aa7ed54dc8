//! Listeners: one socket per shard and address, all of them a group of the kernel's (SO_REUSEPORT).
//!
//! The steering program answers with a place in the group, and places are given in the order of `listen`. So the shards listen in their own order,
//! one after the other, and stop together: closing one moves the last into its place, and clients would change shards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};

use socket2::{Domain, Protocol, Socket, Type};

use super::options::SocketOptions;
use super::service::{Intercept, Service};
use super::steering::{self, Steer};

#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub address: SocketAddr,
    /// Connections the kernel keeps until they are accepted, per shard; `net.core.somaxconn` is its cap.
    pub backlog: i32,
    pub steer: Steer,
    pub options: SocketOptions,
    pub service: Service,
}

/// One address of `--listen`, on all shards.
pub struct ListenerGroup {
    config: ListenerConfig,
    shards: usize,
    turn: Mutex<Turn>,
    passed: Condvar,
}

/// Whose turn it is to listen.
struct Turn {
    next: usize,
    /// Where the first has bound: port 0 becomes a port for all.
    bound: Option<SocketAddr>,
    /// One could not open; nobody after it tries.
    failed: Option<io::ErrorKind>,
}

impl ListenerGroup {
    pub fn new(config: ListenerConfig, shards: usize) -> ListenerGroup {
        ListenerGroup {
            config,
            shards,
            turn: Mutex::new(Turn {
                next: 0,
                bound: None,
                failed: None,
            }),
            passed: Condvar::new(),
        }
    }

    /// Opens this shard's listener; waits until the shards before it have opened theirs. Each shard opens once, its groups in the same order as the others.
    pub fn open(&self, shard: usize) -> io::Result<OwnedFd> {
        assert!(shard < self.shards, "shard {shard} of {}", self.shards);
        let mut turn = self.turn.lock().expect("opening does not panic");
        while turn.next < shard && turn.failed.is_none() {
            turn = self.passed.wait(turn).expect("opening does not panic");
        }
        if let Some(kind) = turn.failed {
            return Err(io::Error::new(
                kind,
                format!("{}: another shard could not listen", self.config.address),
            ));
        }
        assert_eq!(turn.next, shard, "a shard opens its listener once");
        let opened = self.listen(shard, turn.bound.unwrap_or(self.config.address));
        match &opened {
            Ok((_, bound)) => turn.bound = Some(*bound),
            Err(error) => turn.failed = Some(error.kind()),
        }
        turn.next += 1;
        self.passed.notify_all();
        opened
            .map(|(socket, _)| OwnedFd::from(socket))
            .map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.config.address))
            })
    }

    /// What its connections are for.
    pub fn service(&self) -> Service {
        self.config.service
    }

    /// Where the group listens, once the first shard does.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.turn.lock().expect("opening does not panic").bound
    }

    fn listen(&self, shard: usize, address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // An upstream's TIME_WAIT or our own last run must not keep us from the port.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            // The program reads the header of one family.
            socket.set_only_v6(true)?;
        }
        self.config.options.apply(&socket)?;
        // What was redirected is addressed to this host by then: that needs no privilege.
        if self.config.service.intercept == Some(Intercept::Tproxy) {
            take_for_others(&socket, &address)?;
        }
        socket.bind(&address.into())?;
        socket.listen(self.config.backlog)?;
        // Once per group, by its last member: before it listens, an answer could name nobody.
        if self.config.steer == Steer::Client && shard + 1 == self.shards {
            steering::attach(&socket, &address, self.shards)?;
        }
        let bound = socket
            .local_addr()?
            .as_socket()
            .expect("a TCP socket has an IP address");
        Ok((socket, bound))
    }
}

/// Lets a listener take connections to addresses that are not this host's.
fn take_for_others(socket: &Socket, address: &SocketAddr) -> io::Result<()> {
    let taken = match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    };
    taken.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("IP_TRANSPARENT, which needs CAP_NET_ADMIN: {error}"),
        )
    })
}

/// Lets the shards close their listeners together: each arrives when its accept queue is empty, all close when all have arrived.
pub struct CloseTogether {
    arrived: AtomicUsize,
    shards: usize,
}

impl CloseTogether {
    pub fn new(shards: usize) -> CloseTogether {
        CloseTogether {
            arrived: AtomicUsize::new(0),
            shards,
        }
    }

    /// This shard's queue is empty. Once per shard.
    pub fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
    }

    pub fn all_arrived(&self) -> bool {
        self.arrived.load(Ordering::Acquire) >= self.shards
    }
}
