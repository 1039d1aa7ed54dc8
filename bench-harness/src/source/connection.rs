//! One connection: whole flights go out, whole replies come in, and the clock is read when the octets were.
//!
//! All connections of a process share one buffer for reading and one for writing; what a connection keeps for itself is the rest of a read
//! that held several replies. A reply costs one read and no more: tokio knows from a short read that nothing is left.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::ReadBuf;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use weir_smtp::reply::{Reply, ReplyFault, ReplyReader};

use super::start::End;
use super::stream::Stream;
use crate::sys;
use crate::tls::wire::Wire;

pub struct Connection {
    wire: Wire,
    open: Open,
    reader: ReplyReader,
    /// Replies that came in one read with the last one.
    carry: Vec<u8>,
    /// When the last octets were read.
    pub read_at: Instant,
    pub opened_at: Instant,
    /// Octets until the client resets the connection, if it means to.
    pub octets_left: Option<usize>,
}

impl Connection {
    pub async fn open(stream: &Rc<Stream>) -> Result<Connection, End> {
        let socket = socket(stream.process.target, stream.next_source());
        let socket = socket.map_err(End::ConnectFailed)?;
        let connecting = socket.connect(stream.process.target);
        let tcp = within(stream.patience(), connecting)
            .await?
            .map_err(End::ConnectFailed)?;
        let now = Instant::now();
        Ok(Connection {
            wire: Wire::Plain(tcp),
            open: Open::new(stream),
            reader: ReplyReader::new(),
            carry: Vec::new(),
            read_at: now,
            opened_at: now,
            octets_left: None,
        })
    }

    /// Makes it secure, as the plan wants it. What was said behind the last reply was said by who knows whom, and ends it.
    pub async fn secure(&mut self) -> Result<(), End> {
        let process = self.open.stream.process.clone();
        let Some(client) = &process.tls else {
            unreachable!("a plan without TLS has no handshakes")
        };
        if !self.carry.is_empty() {
            return Err(End::Absurd);
        }
        let Wire::Plain(tcp) = std::mem::replace(&mut self.wire, Wire::Gone) else {
            unreachable!("there is one handshake on a connection")
        };
        let handshake = client.handshake(tcp);
        let (wire, is_resumed) = within(self.open.stream.patience(), handshake)
            .await?
            .map_err(End::HandshakeFailed)?;
        self.wire = wire;
        self.read_at = Instant::now();
        let counts = &mut self.open.stream.tally.borrow_mut().counts;
        counts.handshakes += 1;
        counts.resumed += u64::from(is_resumed);
        Ok(())
    }

    /// Says in TLS that nothing follows. In plaintext the end of the connection says it.
    pub async fn close(&mut self) {
        if self.wire.is_tls() {
            // who has gone already need not be told
            let closing = poll_fn(|cx| self.wire.poll_close(cx));
            within(self.open.stream.patience(), closing).await.ok();
        }
    }

    /// Writes a flight, in one go where the kernel takes it, and gives its buffer back.
    pub async fn send(&mut self, flight: Vec<u8>) -> Result<(), End> {
        let sent = self.send_octets(&flight).await;
        self.open.stream.process.flight.replace(flight);
        sent
    }

    /// Writes; a client that means to hang up does so in the midst of it.
    pub async fn send_octets(&mut self, octets: &[u8]) -> Result<(), End> {
        let allowed = self.octets_left.unwrap_or(usize::MAX);
        if octets.len() < allowed {
            self.octets_left = self.octets_left.map(|left| left - octets.len());
            return self.write(octets).await;
        }
        self.write(&octets[..allowed]).await?;
        if let Some(tcp) = self.wire.tcp() {
            tcp.set_zero_linger().map_err(|_| End::Reset)?;
        }
        Err(End::HungUp {
            missing: octets.len() - allowed,
        })
    }

    async fn write(&mut self, mut octets: &[u8]) -> Result<(), End> {
        let Wire::Plain(tcp) = &self.wire else {
            return self.write_secured(octets).await;
        };
        while !octets.is_empty() {
            match tcp.try_write(octets) {
                Ok(written) => octets = &octets[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let writable = poll_fn(|cx| tcp.poll_write_ready(cx));
                    within(self.open.stream.patience(), writable)
                        .await?
                        .map_err(|_| End::Reset)?;
                }
                Err(_) => return Err(End::Reset),
            }
        }
        Ok(())
    }

    /// The same in TLS. Ready when the last octet was given to the kernel.
    async fn write_secured(&mut self, mut octets: &[u8]) -> Result<(), End> {
        let patience = self.open.stream.patience();
        while !octets.is_empty() {
            let writing = poll_fn(|cx| self.wire.poll_write(cx, octets));
            let written = within(patience, writing).await?.map_err(|_| End::Reset)?;
            octets = &octets[written..];
        }
        let leaving = poll_fn(|cx| self.wire.poll_flush(cx));
        within(patience, leaving).await?.map_err(|_| End::Reset)
    }

    /// Shows the next reply to `look`.
    pub async fn reply<T>(&mut self, mut look: impl FnMut(&Reply<'_>) -> T) -> Result<T, End> {
        if let Some(seen) = self.reply_of_carry(&mut look).map_err(End::Garbled)? {
            return Ok(seen);
        }
        let patience = self.open.stream.patience();
        within(patience, poll_fn(|cx| self.poll_reply(cx, &mut look))).await?
    }

    fn reply_of_carry<T>(
        &mut self,
        look: &mut impl FnMut(&Reply<'_>) -> T,
    ) -> Result<Option<T>, ReplyFault> {
        if self.carry.is_empty() {
            return Ok(None);
        }
        let mut left = self.carry.as_slice();
        let seen = self.reader.next(&mut left)?.map(|reply| look(&reply));
        let used = self.carry.len() - left.len();
        self.carry.drain(..used);
        Ok(seen)
    }

    fn poll_reply<T>(
        &mut self,
        cx: &mut Context<'_>,
        look: &mut impl FnMut(&Reply<'_>) -> T,
    ) -> Poll<Result<T, End>> {
        let process = self.open.stream.process.clone();
        let mut input = process.input.borrow_mut();
        loop {
            let mut octets = ready!(self.poll_read(cx, &mut input))?;
            self.read_at = Instant::now();
            match self.reader.next(&mut octets) {
                Err(fault) => return Poll::Ready(Err(End::Garbled(fault))),
                Ok(None) => {}
                Ok(Some(reply)) => {
                    let seen = look(&reply);
                    self.carry.extend_from_slice(octets);
                    return Poll::Ready(Ok(seen));
                }
            }
        }
    }

    fn poll_read<'b>(
        &mut self,
        cx: &mut Context<'_>,
        input: &'b mut [u8],
    ) -> Poll<Result<&'b [u8], End>> {
        let mut buffer = ReadBuf::new(input);
        let read = ready!(self.wire.poll_read(cx, &mut buffer));
        let octets = buffer.filled().len();
        Poll::Ready(match read {
            Err(_) => Err(End::Reset),
            Ok(()) if octets == 0 => Err(End::ClosedEarly),
            Ok(()) => Ok(&input[..octets]),
        })
    }

    /// Waits until something can be read, and keeps it.
    pub async fn has_input(&mut self) {
        match &self.wire {
            _ if !self.carry.is_empty() => {}
            // an error is readable too: the next read has it
            Wire::Plain(tcp) => drop(poll_fn(|cx| tcp.poll_read_ready(cx)).await),
            // tickets are no input, so what is readable has to be looked at
            _ => self.read_ahead().await,
        }
    }

    async fn read_ahead(&mut self) {
        let process = self.open.stream.process.clone();
        poll_fn(|cx| {
            let mut input = process.input.borrow_mut();
            if let Ok(octets) = ready!(self.poll_read(cx, &mut input)) {
                self.carry.extend_from_slice(octets);
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Reads and forgets everything until the other side ends it.
    pub async fn discard(&mut self) -> End {
        let process = self.open.stream.process.clone();
        poll_fn(|cx| {
            let mut input = process.input.borrow_mut();
            loop {
                match ready!(self.poll_read(cx, &mut input)) {
                    Ok(_) => self.read_at = Instant::now(),
                    Err(end) => return Poll::Ready(end),
                }
            }
        })
        .await
    }

    /// Waits, idle, for what `come` waits for. None where the other side ends the connection first, or says something nobody asked for.
    pub async fn idle_until<T>(
        &mut self,
        mut come: impl FnMut(&mut Context<'_>) -> Poll<Option<T>>,
    ) -> Option<T> {
        let process = self.open.stream.process.clone();
        poll_fn(|cx| {
            if let Poll::Ready(came) = come(cx) {
                return Poll::Ready(came);
            }
            let mut input = process.input.borrow_mut();
            self.poll_read(cx, &mut input).map(|_| None)
        })
        .await
    }
}

/// A socket bound to `source`. No delay of small writes: a flight is one write, and nothing is to wait for it to be full.
fn socket(target: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpSocket> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    if let Some(source) = source {
        sys::bind_without_port(socket.as_fd())?;
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

/// As long as a reply may take.
async fn within<T>(patience: Option<Duration>, work: impl Future<Output = T>) -> Result<T, End> {
    match patience {
        Some(patience) => timeout(patience, work).await.map_err(|_| End::TimedOut),
        None => Ok(work.await),
    }
}

/// Counts a connection as long as it is open.
struct Open {
    stream: Rc<Stream>,
}

impl Open {
    fn new(stream: &Rc<Stream>) -> Open {
        stream.connections.set(stream.connections.get() + 1);
        Open {
            stream: stream.clone(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let stream = &self.stream;
        stream.connections.set(stream.connections.get() - 1);
        if stream.process.is_ending.get() {
            stream.process.wake_starter();
        }
    }
}
