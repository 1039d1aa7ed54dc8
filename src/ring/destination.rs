//! Where a client wanted to go whose connection was meant for another host.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use socket2::{SockAddr, SockRef};

use crate::net::Intercept;

pub(super) fn destination(socket: &OwnedFd, how: Intercept) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    let here = address(socket.local_addr())?;
    match how {
        Intercept::Tproxy => Ok(here),
        Intercept::Redirect => {
            let wanted = match here {
                SocketAddr::V4(_) => socket.original_dst_v4(),
                SocketAddr::V6(_) => socket.original_dst_v6(),
            };
            // Nothing is known of a connection that came here by itself.
            Ok(address(wanted).unwrap_or(here))
        }
    }
}

fn address(answer: io::Result<SockAddr>) -> io::Result<SocketAddr> {
    answer?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
