//! What this host's io_uring can do: asked at start, and by `weir doctor`.

use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, types};

use super::buffers::Buffers;
use super::wire::Group;

/// What was found. The first group is needed, the second makes things better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// All operations the ring is built on are there.
    pub operations: bool,
    /// SINGLE_ISSUER and DEFER_TASKRUN (6.1).
    pub deferred_work: bool,
    /// Rings of provided buffers (5.19).
    pub buffer_rings: bool,
    /// Slots for accepts kept apart from ours (6.0).
    pub slot_ranges: bool,
    /// A closed slot closes its socket at once. Before 6.13 the socket stays until every operation that was submitted earlier, on whatever socket,
    /// has completed: with receives armed for hours, FINs come late and sockets pile up.
    pub prompt_close: bool,
    /// setsockopt on slots (6.7): without it a parked client keeps its large kernel buffers.
    pub socket_options: bool,
    /// Descriptors for slots (6.8): without them a client that a trusted peer speaks for stays with the shard its connection came to.
    pub descriptors: bool,
}

impl Support {
    /// Whether weir can run here at all.
    pub fn is_sufficient(&self) -> bool {
        self.operations && self.deferred_work && self.buffer_rings && self.slot_ranges
    }
}

const OPERATIONS: [u8; 10] = [
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    opcode::Connect::CODE,
    opcode::PollAdd::CODE,
    opcode::Read::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::SendMsg::CODE,
    opcode::Shutdown::CODE,
];

/// Asks the kernel, and tries on a pair of loopback sockets what it cannot be asked. An error means that there is no io_uring for us at all
/// (`ENOSYS`: not built in; `EPERM`: switched off by sysctl or seccomp).
pub fn probe() -> io::Result<Support> {
    let plain = IoUring::new(8)?;
    let mut known = Probe::new();
    plain.submitter().register_probe(&mut known)?;
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(8);
    let mut support = Support {
        operations: OPERATIONS.iter().all(|code| known.is_supported(*code)),
        deferred_work: deferred.is_ok(),
        buffer_rings: false,
        slot_ranges: false,
        prompt_close: false,
        socket_options: false,
        descriptors: super::places::gives_descriptors(&plain.submitter()),
    };
    let Ok(mut uring) = deferred else {
        return Ok(support);
    };
    support.buffer_rings = takes_buffer_rings(&uring)?;
    uring.submitter().register_files_sparse(8)?;
    support.slot_ranges = super::keep_auto_slots_below(&uring, 4).is_ok();
    let pair = LoopbackPair::new()?;
    let other = LoopbackPair::new()?;
    uring
        .submitter()
        .register_files_update(0, &[pair.near.as_raw_fd(), other.near.as_raw_fd()])?;
    support.socket_options = sets_options(&mut uring)?;
    support.prompt_close = closes_promptly(&mut uring, pair, other)?;
    Ok(support)
}

fn takes_buffer_rings(uring: &IoUring) -> io::Result<bool> {
    let Ok(buffers) = Buffers::new(uring, 4096, [1, 1], 0) else {
        return Ok(false);
    };
    // The ring outlives these buffers: so it must forget them first.
    for group in [Group::Client, Group::Upstream] {
        uring.submitter().unregister_buf_ring(group as u16)?;
    }
    drop(buffers);
    Ok(true)
}

/// Two ends of a connection.
struct LoopbackPair {
    near: TcpStream,
    far: TcpStream,
}

impl LoopbackPair {
    fn new() -> io::Result<LoopbackPair> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let far = TcpStream::connect(listener.local_addr()?)?;
        let (near, _) = listener.accept()?;
        Ok(LoopbackPair { near, far })
    }
}

fn sets_options(uring: &mut IoUring) -> io::Result<bool> {
    static SIZE: libc::c_int = 4096;
    let option = opcode::SetSockOpt::new(
        types::Fixed(0),
        libc::SOL_SOCKET as u32,
        libc::SO_RCVBUF as u32,
        (&raw const SIZE).cast(),
        size_of::<libc::c_int>() as u32,
    )
    .build();
    Ok(run(uring, option)? >= 0)
}

/// Arms a receive on one slot, closes the other, and looks whether its far end hears of it.
fn closes_promptly(
    uring: &mut IoUring,
    pair: LoopbackPair,
    mut other: LoopbackPair,
) -> io::Result<bool> {
    // From here on the slots alone keep the near ends open.
    drop(pair.near);
    drop(other.near);
    let mut byte = Box::new([0u8; 1]);
    let receive = opcode::Recv::new(types::Fixed(0), byte.as_mut_ptr(), 1)
        .build()
        .user_data(1);
    // SAFETY: the byte lives until the receive is over, which the far end brings about below.
    unsafe { uring.submission().push(&receive) }.expect("an empty queue takes one");
    uring.submit()?;
    let closed = run(uring, opcode::Close::new(types::Fixed(1)).build())?;
    other
        .far
        .set_read_timeout(Some(Duration::from_millis(200)))?;
    let heard = other.far.read(&mut [0u8; 1]);
    pair.far.shutdown(std::net::Shutdown::Both)?;
    uring.submit_and_wait(1)?;
    drop(byte);
    Ok(closed == 0 && matches!(heard, Ok(0)))
}

/// One operation and its result. Completions of others are passed over.
fn run(uring: &mut IoUring, entry: io_uring::squeue::Entry) -> io::Result<i32> {
    // SAFETY: the callers' entries point to statics only.
    unsafe { uring.submission().push(&entry.user_data(0)) }.expect("an empty queue takes one");
    loop {
        uring.submit_and_wait(1)?;
        let found = uring.completion().find(|done| done.user_data() == 0);
        if let Some(done) = found {
            return Ok(done.result());
        }
    }
}
