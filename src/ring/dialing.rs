//! The socket of an outgoing connection, made by syscalls before the ring has it: where it comes from and which mark it bears.
//!
//! An address that is not this host's needs IP_TRANSPARENT (CAP_NET_ADMIN or CAP_NET_RAW), and packet rules that bring the answers back here.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::wire::Dial;

pub(super) fn socket_for(dial: &Dial) -> io::Result<Socket> {
    // Blocking, although nothing here blocks: the ring would answer EAGAIN where it is meant to wait.
    let socket = Socket::new(
        Domain::for_address(dial.to),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    if dial.mark != 0 {
        socket.set_mark(dial.mark)?;
    }
    if let Some(from) = dial.from {
        bind(&socket, dial.to, from)?;
    }
    Ok(socket)
}

/// A socket that datagrams of `to` alone come to: the kernel drops the others. Its port is the kernel's choice, at random, and nobody else's;
/// connecting sends nothing and waits for nothing.
pub(super) fn datagram_socket_for(to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&to.into())?;
    Ok(socket)
}

fn bind(socket: &Socket, to: SocketAddr, from: SocketAddr) -> io::Result<()> {
    if from.is_ipv4() != to.is_ipv4() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{to} cannot be reached from {from}: another family"),
        ));
    }
    let transparent = if to.is_ipv4() {
        socket.set_ip_transparent_v4(true)
    } else {
        socket.set_ip_transparent_v6(true)
    };
    if from.port() == 0 {
        choose_port_late(socket)?;
    }
    // Without the privilege one of our own addresses will still do; with any other it is the privilege that is missing.
    socket
        .bind(&from.into())
        .map_err(|error| transparent.err().unwrap_or(error))
}

/// Leaves the choice of the port to connect, which knows the destination: then one address has 28,000 ports for each
/// destination, and not for all together.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an int that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
