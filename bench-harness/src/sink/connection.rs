//! One connection and its socket: reads flights, lets their replies wait as long as a long way would, writes them.
//!
//! A flight whose replies need not wait is answered within the read that brought it: one receive, one send. Others queue, each with its own
//! time, while further flights are read: delays of flights that are under way at once do not add up.
//!
//! Before it are what comes before SMTP (a PROXY header, a handshake), and between two parts of it the handshake of STARTTLS.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::HandshakeKind;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::announce::Texts;
use super::proxied;
use super::session::{Desk, Next, Replies, Session, own};
use super::thread::{Said, Shared, Thread};
use crate::tls::wire::Wire;

/// Octets of replies that may wait for their time, or for the client, before nothing more is read.
const WAITING_MAX: usize = 256 * 1024;
/// How long a connection that we end may take to be ended by the client too, so that our last words are not lost to a reset.
const LINGER: Duration = Duration::from_secs(1);

/// What comes first on the connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The greeting.
    Open,
    /// A handshake.
    Tls,
    /// A PROXY header, then the greeting.
    Proxied,
}

pub struct Connection {
    stream: Wire,
    session: Session,
    thread: Arc<Thread>,
    /// Replies whose time has not come.
    flights: VecDeque<(Instant, Vec<u8>)>,
    /// Replies whose time has come, and how much of them has left.
    unsent: Vec<u8>,
    sent: usize,
    state: State,
    /// Everything that was said has left, and nothing was heard since.
    answered: bool,
    /// Something was heard since the idle timer was set.
    active: bool,
    idle: Pin<Box<Sleep>>,
    release: Option<Pin<Box<Sleep>>>,
    /// Slow reading: nothing is read before.
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Talking,
    /// To be in TLS when the replies have left.
    Securing,
    /// Nothing more is read, now or ever.
    NotReading,
    /// To be closed when the replies have left; true: the client has closed its side.
    Ending(bool),
    /// We have closed our side.
    Lingering,
    /// We have ended it by RST.
    Reset,
}

impl Connection {
    pub fn new(stream: TcpStream, seed: u64, thread: Arc<Thread>) -> Connection {
        Connection {
            stream: Wire::Plain(stream),
            session: Session::new(seed),
            flights: VecDeque::new(),
            unsent: Vec::new(),
            sent: 0,
            state: State::Talking,
            answered: false,
            active: false,
            idle: Box::pin(sleep(thread.idle_max)),
            release: None,
            pause: None,
            thread,
        }
    }

    /// Serves, to the end. An error of the socket is an end like any other: clients and proxies reset connections.
    pub async fn run(mut self, door: Door) {
        let opened = match door {
            Door::Open => true,
            Door::Tls => self.secure().await,
            Door::Proxied => self.hear_of_client().await,
        };
        if !opened {
            return;
        }
        let mut goes_on = self.greet();
        while goes_on {
            // the socket's end is the same whether it went well or not; what it was is in the counters
            let _ended: io::Result<()> = std::future::poll_fn(|cx| self.poll(cx)).await;
            goes_on = self.state == State::Securing;
            if goes_on {
                if !self.secure().await {
                    return;
                }
                self.session.secured();
                self.state = State::Talking;
            }
        }
        self.account();
    }

    /// The handshake. False: there is no connection any more.
    async fn secure(&mut self) -> bool {
        let thread = Arc::clone(&self.thread);
        let Some(acceptor) = &thread.said.tls else {
            unreachable!("neither a listener of TLS nor STARTTLS is there without a certificate")
        };
        let Wire::Plain(tcp) = std::mem::replace(&mut self.stream, Wire::Gone) else {
            unreachable!("STARTTLS is not offered in TLS")
        };
        // boxed: what a handshake needs is not to lie in the task of every connection
        let handshake = Box::pin(acceptor.accept(tcp));
        let made = timeout(self.thread.idle_max, handshake).await;
        let counters = &mut self.thread.shared().counters;
        match made {
            Ok(Ok(tls)) => {
                counters.handshakes += 1;
                let kind = tls.get_ref().1.handshake_kind();
                counters.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
                self.stream = Wire::Tls(Box::new(tls.into()));
                true
            }
            Ok(Err(_)) | Err(_) => {
                counters.handshakes_failed += 1;
                false
            }
        }
    }

    /// Reads the PROXY header. False: there was none, which ends the connection.
    async fn hear_of_client(&mut self) -> bool {
        let Wire::Plain(tcp) = &mut self.stream else {
            unreachable!("a connection begins in plaintext")
        };
        let read = timeout(self.thread.idle_max, proxied::read(tcp)).await;
        let counters = &mut self.thread.shared().counters;
        let is_there = matches!(read, Ok(Ok(())));
        match is_there {
            true => counters.proxied += 1,
            false => counters.violation(own::NO_PROXY_HEADER),
        }
        is_there
    }

    /// Says the greeting, or what the faults have in its place. False: the connection is to go at once.
    fn greet(&mut self) -> bool {
        let next = {
            let thread = Arc::clone(&self.thread);
            let mut shared = thread.shared();
            let Shared {
                replies,
                counters,
                ledgers,
                faults,
                ..
            } = &mut *shared;
            replies.restart();
            let mut desk = Desk {
                texts: self.texts(&thread.said),
                faults,
                counters,
                ledgers,
            };
            let next = self.session.greet(&mut desk, replies);
            self.enqueue(replies);
            next
        };
        self.obey(next)
    }

    fn texts<'s>(&self, said: &'s Said) -> &'s Texts {
        match self.stream.is_tls() {
            true => &said.secured,
            false => &said.plain,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.poll_release(cx);
            let flushed = self.poll_write(cx)?.is_ready();
            if flushed && self.flights.is_empty() {
                match self.state {
                    State::Securing => return Poll::Ready(Ok(())),
                    State::Ending(true) => return self.part(cx),
                    State::Ending(false) if self.session.has_quit() => return self.part(cx),
                    State::Ending(false) => self.linger(cx),
                    State::Lingering if self.idle.as_mut().poll_elapsed(cx) => {
                        return Poll::Ready(Ok(()));
                    }
                    _ => {}
                }
            }
            let read = match self.wants_input(cx) {
                true => self.poll_read(cx)?,
                false => Poll::Pending,
            };
            match read {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(Ok(())),
                Poll::Pending if self.poll_idle(cx) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Moves the flights whose time has come to what is written, and sets the timer for the next.
    fn poll_release(&mut self, cx: &mut Context<'_>) {
        while let Some((at, _)) = self.flights.front() {
            let timer = match &mut self.release {
                Some(timer) => timer,
                none => none.insert(Box::pin(sleep_until(*at))),
            };
            if timer.deadline() != *at {
                timer.as_mut().reset(*at);
            }
            if !timer.as_mut().poll_elapsed(cx) {
                return;
            }
            if let Some((_, octets)) = self.flights.pop_front() {
                self.unsent.extend_from_slice(&octets);
            }
        }
    }

    /// Writes what may be written. Ready: nothing is left of it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        if self.unsent.is_empty() {
            return self.flush(cx);
        }
        while self.sent < self.unsent.len() {
            let rest = &self.unsent[self.sent..];
            match self.stream.poll_write(cx, rest)? {
                Poll::Ready(octets) => self.sent += octets,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.unsent.clear();
        self.sent = 0;
        if self.flights.is_empty() {
            self.all_left();
        }
        self.flush(cx)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        match self.stream.poll_flush(cx)? {
            Poll::Ready(()) => Ok(Poll::Ready(())),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn all_left(&mut self) {
        self.session.heard();
        self.answered = true;
    }

    fn wants_input(&mut self, cx: &mut Context<'_>) -> bool {
        match self.state {
            State::Talking => {}
            State::Lingering => return true,
            State::Securing | State::NotReading | State::Ending(_) | State::Reset => return false,
        }
        if let Some(pause) = &mut self.pause {
            if !pause.as_mut().poll_elapsed(cx) {
                return false;
            }
            self.pause = None;
        }
        let waiting: usize = self.flights.iter().map(|(_, octets)| octets.len()).sum();
        waiting + self.unsent.len() <= WAITING_MAX
    }

    /// One read, and the answer to it. Ready(false): the connection is over.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<bool>> {
        let thread = Arc::clone(&self.thread);
        let mut shared = thread.shared();
        let Shared {
            input,
            replies,
            counters,
            ledgers,
            faults,
        } = &mut *shared;
        // of slow reading, twenty pieces a second
        let limit = match faults.read_per_second {
            Some(rate) => (rate as usize / 20).clamp(1, input.len()),
            None => input.len(),
        };
        let mut buffer = ReadBuf::new(&mut input[..limit]);
        match self.stream.poll_read(cx, &mut buffer)? {
            Poll::Ready(()) => {}
            Poll::Pending => return Ok(Poll::Pending),
        }
        let octets = buffer.filled();
        match self.state {
            State::Lingering => return Ok(Poll::Ready(!octets.is_empty())),
            _ if octets.is_empty() => {
                self.state = State::Ending(true);
                return Ok(Poll::Ready(true));
            }
            _ => {}
        }
        self.active = true;
        counters.reads += 1;
        counters.octets += octets.len() as u64;
        counters.turns += u64::from(std::mem::take(&mut self.answered));
        if let Some(rate) = faults.read_per_second {
            let pause = Duration::from_secs_f64(octets.len() as f64 / f64::from(rate));
            self.pause = Some(Box::pin(sleep(pause)));
        }
        replies.restart();
        let mut desk = Desk {
            texts: self.texts(&thread.said),
            faults,
            counters,
            ledgers,
        };
        let next = self.session.take(octets, &mut desk, replies);
        let left = self.answer_at_once(replies, cx)?;
        self.enqueue_from(replies, left);
        Ok(Poll::Ready(self.obey(next)))
    }

    /// Writes replies that need not wait for anything, from where they lie. Returns how many octets have left.
    fn answer_at_once(&mut self, replies: &Replies, cx: &mut Context<'_>) -> io::Result<usize> {
        let idle = self.unsent.is_empty() && self.flights.is_empty();
        if replies.octets.is_empty() || !replies.delay.is_zero() || !idle {
            return Ok(0);
        }
        match self.stream.poll_write(cx, &replies.octets)? {
            Poll::Ready(octets) => {
                if octets == replies.octets.len() {
                    self.all_left();
                }
                Ok(octets)
            }
            Poll::Pending => Ok(0),
        }
    }

    fn enqueue(&mut self, replies: &Replies) {
        self.enqueue_from(replies, 0);
    }

    /// Keeps the replies from octet `left` on.
    fn enqueue_from(&mut self, replies: &Replies, left: usize) {
        let octets = &replies.octets[left..];
        if octets.is_empty() {
            return;
        }
        if replies.delay.is_zero() && self.flights.is_empty() {
            self.unsent.extend_from_slice(octets);
            return;
        }
        let at = Instant::now() + replies.delay;
        // replies stay in order, whatever the draws were
        let at = self
            .flights
            .back()
            .map_or(at, |(before, _)| at.max(*before));
        self.flights.push_back((at, octets.to_vec()));
    }

    /// False: the connection is to go at once.
    fn obey(&mut self, next: Next) -> bool {
        match next {
            Next::GoOn => {}
            Next::Close => self.state = State::Ending(false),
            Next::StopReading => self.state = State::NotReading,
            Next::StartTls => self.state = State::Securing,
            Next::Reset => {
                self.state = State::Reset;
                self.reset();
                return false;
            }
        }
        true
    }

    /// Has the kernel answer with RST when the socket is closed.
    fn reset(&self) {
        let Some(tcp) = self.stream.tcp() else {
            unreachable!("a session is served on a connection only")
        };
        socket2::SockRef::from(tcp)
            .set_linger(Some(Duration::ZERO))
            .expect("SO_LINGER can be set on an open TCP socket");
    }

    /// Closes our side.
    fn linger(&mut self, cx: &mut Context<'_>) {
        self.state = State::Lingering;
        self.idle.as_mut().reset(Instant::now() + LINGER);
        // fails where the client has gone already: then the next read says so; and what the kernel does not take now, nobody waits for
        let _said = self.stream.poll_close(cx);
    }

    /// The last words in TLS; in plaintext the closed socket says it.
    fn part(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.stream.is_tls() {
            true => self.stream.poll_close(cx),
            false => Poll::Ready(Ok(())),
        }
    }

    /// True: nothing was heard for the whole of the idle time.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> bool {
        while self.idle.as_mut().poll_elapsed(cx) {
            if !std::mem::take(&mut self.active) || self.state == State::Lingering {
                return true;
            }
            let again = Instant::now() + self.thread.idle_max;
            self.idle.as_mut().reset(again);
        }
        false
    }

    /// Notes that the client went away, where it was the client.
    fn account(&self) {
        let ours = matches!(
            self.state,
            State::Lingering | State::Reset | State::NotReading
        );
        if self.session.has_quit() || ours {
            return;
        }
        let mut shared = self.thread.shared();
        shared.counters.hung_up += 1;
        shared.counters.hung_up_in_message += u64::from(self.session.is_within_message());
    }
}

trait PollElapsed {
    fn poll_elapsed(self, cx: &mut Context<'_>) -> bool;
}

impl PollElapsed for Pin<&mut Sleep> {
    fn poll_elapsed(self, cx: &mut Context<'_>) -> bool {
        std::future::Future::poll(self, cx).is_ready()
    }
}
