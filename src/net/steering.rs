//! Which shard a new connection goes to: the kernel asks a small program attached to the group of listeners.
//!
//! All connections of one client (an address, IPv6: a /64, or what --client-prefix says) go to one shard. So that shard's rate limits see
//! everything the client does, and no shard has to ask another. The program is classic BPF, which needs no privilege.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::Socket;

use super::prefix::{ClientPrefix, Network};

/// `--steer`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Steer {
    /// By client address: limits per client are exact.
    #[default]
    Client,
    /// As the kernel spreads connections, by address and port: evenly even for one client, but per-client limits then hold per shard.
    Kernel,
}

/// Where the network header begins, in the addresses a program may load from (SKF_NET_OFF).
const NETWORK_HEADER: u32 = -0x10_0000_i32 as u32;
const IPV4_SOURCE: u32 = 12;
const IPV6_SOURCE: u32 = 8;

/// An odd number whose multiples spread neighbouring addresses over the high bits: 2^32 divided by the golden ratio.
const SPREAD: u32 = 0x9E37_79B1;

/// Attaches the program to the listener's group. Index `n` is the listener that called `listen` as the n-th of the group.
pub(super) fn attach(
    socket: &Socket,
    address: &SocketAddr,
    shards: usize,
    prefix: ClientPrefix,
) -> io::Result<()> {
    let shards = u32::try_from(shards).expect("a host has fewer than four billion cores");
    let mut program = match address {
        SocketAddr::V4(_) => by_ipv4_source(shards, prefix),
        SocketAddr::V6(_) => by_ipv6_network(shards, prefix),
    };
    let descriptor = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the descriptor names the program's instructions; the kernel copies them during the call.
    let attached = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const descriptor).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if attached < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The shard that the program sends clients of this address to: of who comes through a proxy it sees only the proxy.
pub fn shard_of(client: IpAddr, shards: usize, prefix: ClientPrefix) -> usize {
    let hash = match prefix.network(client) {
        Network::V4(network) => network.wrapping_mul(SPREAD),
        Network::V6(network) => {
            let (high, low) = ((network >> 32) as u32, network as u32);
            (high.wrapping_mul(SPREAD) ^ low).wrapping_mul(SPREAD)
        }
    };
    (hash >> 16) as usize % shards
}

fn by_ipv4_source(shards: u32, prefix: ClientPrefix) -> Vec<libc::sock_filter> {
    let mut program = vec![
        load(NETWORK_HEADER.wrapping_add(IPV4_SOURCE)),
        keep(prefix.v4_mask()),
        step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, SPREAD),
    ];
    program.extend(choose(shards));
    program
}

fn by_ipv6_network(shards: u32, prefix: ClientPrefix) -> Vec<libc::sock_filter> {
    let mask = prefix.v6_mask();
    let mut program = vec![
        load(NETWORK_HEADER.wrapping_add(IPV6_SOURCE)),
        keep((mask >> 32) as u32),
        step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, SPREAD),
        step(libc::BPF_MISC | libc::BPF_TAX, 0),
        load(NETWORK_HEADER.wrapping_add(IPV6_SOURCE + 4)),
        keep(mask as u32),
        step(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, SPREAD),
    ];
    program.extend(choose(shards));
    program
}

/// The high half of the product, modulo the shards, is the answer.
fn choose(shards: u32) -> [libc::sock_filter; 3] {
    [
        step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, shards),
        step(libc::BPF_RET | BPF_A, 0),
    ]
}

/// Return the accumulator; not among libc's names.
const BPF_A: u32 = 0x10;

fn keep(bits: u32) -> libc::sock_filter {
    step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits)
}

fn load(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn step(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    /// Runs a program as the kernel would, on a network header. Knows the instructions used here.
    fn run(program: &[libc::sock_filter], header: &[u8]) -> u32 {
        let (mut a, mut x) = (0u32, 0u32);
        for step in program {
            match u32::from(step.code) {
                code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    let at = step.k.wrapping_sub(NETWORK_HEADER) as usize;
                    let word = header[at..at + 4].try_into().expect("four bytes");
                    a = u32::from_be_bytes(word);
                }
                code if code == libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K => {
                    a = a.wrapping_mul(step.k);
                }
                code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => a &= step.k,
                code if code == libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X => a ^= x,
                code if code == libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K => a >>= step.k,
                code if code == libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K => a %= step.k,
                code if code == libc::BPF_MISC | libc::BPF_TAX => x = a,
                code if code == libc::BPF_RET | BPF_A => return a,
                code => panic!("instruction {code:#x}"),
            }
        }
        panic!("a program ends with a return")
    }

    fn chosen_by_the_kernel(address: Ipv6Addr, shards: u32, prefix: ClientPrefix) -> u32 {
        let mut header = [0u8; 40];
        header[8..24].copy_from_slice(&address.octets());
        run(&by_ipv6_network(shards, prefix), &header)
    }

    #[test]
    fn the_shard_of_a_client_is_the_one_that_the_kernel_chooses() {
        let mut bits = 1u128;
        let prefixes = [(32, 64), (24, 56), (8, 16), (20, 32)];
        for (shards, (v4, v6)) in [1, 2, 3, 7, 64]
            .into_iter()
            .zip(prefixes.into_iter().cycle())
        {
            let prefix = ClientPrefix::new(v4, v6).expect("within its range");
            for _ in 0..200 {
                bits = bits.wrapping_mul(0x2545_f491_4f6c_dd1d_9e37_79b9_7f4a_7c15) | 1;
                let v6 = Ipv6Addr::from_bits(bits);
                let kernels = chosen_by_the_kernel(v6, shards, prefix) as usize;
                let own = |ip| shard_of(ip, shards as usize, prefix);
                assert_eq!(own(v6.into()), kernels, "{v6}");
                let v4 = Ipv4Addr::from_bits(bits as u32);
                let mut header = [0u8; 20];
                header[12..16].copy_from_slice(&v4.octets());
                let kernels = run(&by_ipv4_source(shards, prefix), &header) as usize;
                for ip in [v4.into(), v4.to_ipv6_mapped().into()] {
                    assert_eq!(own(ip), kernels, "{ip}");
                }
            }
        }
    }

    #[test]
    fn an_ipv6_network_stays_together_and_networks_spread() {
        let mut counts = [0; 4];
        for network in 0..400u16 {
            let host = |low| Ipv6Addr::new(0x2001, 0xdb8, 7, network, 0, 0, low, low);
            let prefix = ClientPrefix::default();
            let shard = chosen_by_the_kernel(host(1), 4, prefix);
            assert_eq!(shard, chosen_by_the_kernel(host(0xfffe), 4, prefix));
            counts[shard as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
    }
}
