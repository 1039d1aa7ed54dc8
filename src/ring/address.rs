//! Socket addresses in the kernel's layout, at a place of their own for as long as an operation may read or write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for a `sockaddr_in` or `sockaddr_in6`, and the length the kernel reads or writes beside it.
#[derive(Clone, Copy)]
#[repr(C, align(4))]
pub(super) struct RawAddress {
    bytes: [u8; RawAddress::ROOM as usize],
    len: libc::socklen_t,
}

impl RawAddress {
    const ROOM: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

    /// For the kernel to fill.
    pub(super) fn empty() -> RawAddress {
        RawAddress {
            bytes: [0; Self::ROOM as usize],
            len: Self::ROOM,
        }
    }

    /// The address that dissolves a connection: connecting to it sends RST.
    pub(super) fn unspecified_family() -> RawAddress {
        // AF_UNSPEC is 0.
        Self::empty()
    }

    pub(super) fn new(address: &SocketAddr) -> RawAddress {
        let mut raw = Self::empty();
        let family = match address {
            SocketAddr::V4(_) => libc::AF_INET,
            SocketAddr::V6(_) => libc::AF_INET6,
        };
        raw.bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        match address {
            SocketAddr::V4(v4) => {
                raw.bytes[4..8].copy_from_slice(&v4.ip().octets());
                raw.len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(v6) => {
                raw.bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                raw.bytes[8..24].copy_from_slice(&v6.ip().octets());
                raw.bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
            }
        }
        raw
    }

    /// What the kernel has written; a family that is neither is an unspecified address.
    pub(super) fn get(&self) -> SocketAddr {
        let b = &self.bytes;
        let port = u16::from_be_bytes([b[2], b[3]]);
        match i32::from(u16::from_ne_bytes([b[0], b[1]])) {
            libc::AF_INET => SocketAddr::V4(SocketAddrV4::new(
                Ipv4Addr::new(b[4], b[5], b[6], b[7]),
                port,
            )),
            libc::AF_INET6 => {
                let octets: [u8; 16] = b[8..24].try_into().expect("sixteen bytes");
                SocketAddr::V6(SocketAddrV6::new(
                    Ipv6Addr::from(octets),
                    port,
                    u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
                    u32::from_ne_bytes([b[24], b[25], b[26], b[27]]),
                ))
            }
            _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        }
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        self.bytes.as_mut_ptr().cast()
    }

    pub(super) fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub(super) fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// The length for the kernel to read the room from and to write the length to.
    pub(super) fn len_mut_ptr(&mut self) -> *mut libc::socklen_t {
        self.len = Self::ROOM;
        &raw mut self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_layout() {
        for text in ["192.0.2.7:25", "[2001:db8::7]:2525", "[fe80::1]:1"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(RawAddress::new(&address).get(), address);
        }
    }

    #[test]
    fn a_scope_is_kept() {
        let address = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 25, 0, 7));
        assert_eq!(RawAddress::new(&address).get(), address);
    }
}
