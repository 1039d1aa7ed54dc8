//! Listeners: one socket per shard and address, all of them a group of the kernel's (SO_REUSEPORT).
//!
//! The steering program answers with a place in the group, and places are given in the order of `listen`. So the sockets are opened in the order of
//! their shards, and closed together: closing one moves the last into its place, and clients would change shards.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::{Domain, Protocol, Socket, Type};

use super::options::SocketOptions;
use super::prefix::ClientPrefix;
use super::service::{Intercept, Service};
use super::steering::{self, Steer};

#[derive(Clone, Debug)]
pub struct ListenerConfig {
    pub address: SocketAddr,
    /// Connections the kernel keeps until they are accepted, per shard; `net.core.somaxconn` is its cap.
    pub backlog: i32,
    pub steer: Steer,
    /// What clients are steered by.
    pub prefix: ClientPrefix,
    pub options: SocketOptions,
    pub service: Service,
}

/// One address of `--listen`, open on all shards.
#[derive(Debug)]
pub struct ListenerGroup {
    /// Where it listens: a port 0 has become a real one.
    pub address: SocketAddr,
    pub service: Service,
    /// By shard.
    pub sockets: Vec<OwnedFd>,
}

impl ListenerGroup {
    /// Binds and listens, for one shard after the other. By the process's first thread, while it still has the privileges it was started with.
    pub fn open(config: &ListenerConfig, shards: usize) -> io::Result<ListenerGroup> {
        let mut group = ListenerGroup {
            address: config.address,
            service: config.service,
            sockets: Vec::with_capacity(shards),
        };
        for shard in 0..shards {
            // Once per group, by its last member: before it listens, an answer could name nobody.
            let steered = config.steer == Steer::Client && shard + 1 == shards;
            let opened = config.listen(group.address, steered.then_some(shards));
            let socket = opened.map_err(|error| with_remedy(config.address, &error))?;
            group.address =
                (socket.local_addr()?.as_socket()).expect("a TCP socket has an IP address");
            group.sockets.push(OwnedFd::from(socket));
        }
        Ok(group)
    }
}

impl ListenerConfig {
    /// `steered`: over so many shards, from this socket on.
    fn listen(&self, address: SocketAddr, steered: Option<usize>) -> io::Result<Socket> {
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
        self.options.apply(&socket)?;
        // What was redirected is addressed to this host by then: that needs no privilege.
        if self.service.intercept == Some(Intercept::Tproxy) {
            take_for_others(&socket, address.is_ipv4()).map_err(|error| {
                io::Error::other(format!(
                    "IP_TRANSPARENT: {error}; it needs CAP_NET_ADMIN or CAP_NET_RAW: start weir as root with --user, or with AmbientCapabilities= in the systemd unit"
                ))
            })?;
        }
        socket.bind(&address.into())?;
        socket.listen(self.backlog)?;
        if let Some(shards) = steered {
            steering::attach(&socket, &address, shards, self.prefix)?;
        }
        Ok(socket)
    }
}

/// Lets a listener take connections to addresses that are not this host's.
fn take_for_others(socket: &Socket, v4: bool) -> io::Result<()> {
    match v4 {
        true => socket.set_ip_transparent_v4(true),
        false => socket.set_ip_transparent_v6(true),
    }
}

/// Whether this process may: tried on a socket of its own, of IPv4 or IPv6.
pub fn may_take_for_others(v4: bool) -> io::Result<()> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    take_for_others(&socket, v4)
}

/// Why an address cannot be listened on, and what helps.
pub fn with_remedy(address: SocketAddr, error: &io::Error) -> io::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has it, see ss -ltnp",
        io::ErrorKind::AddrNotAvailable => "; no interface has this address, see ip address",
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            "; a port below 1024 needs CAP_NET_BIND_SERVICE: start weir as root with --user, or with AmbientCapabilities= in the systemd unit, or setcap cap_net_bind_service+ep on the binary"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("{address}: {error}{remedy}"))
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
