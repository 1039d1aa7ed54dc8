//! Peers as stories: each fake client and each connection of a fake upstream is a future that reads, writes and waits.
//!
//! No wakers: the network says which task's end has news or whose timer is over, and that task is polled. What a future awaits is looked at
//! again on every poll, so a poll too many does no harm.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use weir_smtp::time::Moment;

use crate::net::{End, Heard, Line, Opening, Party, Read, SharedNet};

type Story = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Default)]
pub struct Tasks {
    stories: Vec<Option<Story>>,
}

impl Tasks {
    /// Starts a story; it is polled for the first time when the network is asked next.
    pub fn start<F>(&mut self, net: &SharedNet, story: impl FnOnce(Host) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        let task = self.stories.len();
        let host = Host {
            net: net.clone(),
            task,
        };
        self.stories.push(Some(Box::pin(story(host))));
        let mut net = net.borrow_mut();
        let now = net.now();
        net.wake(Party::Task(task), now);
    }

    pub fn poll(&mut self, task: usize) {
        let Some(story) = self.stories[task].as_mut() else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        if story.as_mut().poll(&mut context).is_ready() {
            self.stories[task] = None;
        }
    }

    /// The first so many stories are over.
    pub fn finished(&self, first: usize) -> bool {
        self.stories[..first].iter().all(Option::is_none)
    }
}

/// Where a story takes place: its access to the network and the time.
#[derive(Clone)]
pub struct Host {
    pub net: SharedNet,
    task: usize,
}

impl Host {
    pub fn now(&self) -> Moment {
        self.net.borrow().now()
    }

    pub async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now() + span).await;
    }

    pub async fn sleep_until(&self, at: Moment) {
        self.net.borrow_mut().wake(Party::Task(self.task), at);
        poll_fn(|_| {
            if self.now() >= at {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    pub async fn connect(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        line: Line,
    ) -> io::Result<Socket> {
        let end = self
            .net
            .borrow_mut()
            .connect(from, to, line, Party::Task(self.task));
        let opening = poll_fn(|_| match self.net.borrow().opening(end) {
            Opening::UnderWay => Poll::Pending,
            over => Poll::Ready(over),
        })
        .await;
        match opening {
            Opening::Failed(kind) => Err(kind.into()),
            _ => Ok(self.socket(end)),
        }
    }

    /// Takes datagrams to this address.
    pub fn open_port(&self, at: SocketAddr) {
        self.net
            .borrow_mut()
            .open_port(at, Party::Task(self.task), None);
    }

    pub fn take_datagram(&self, at: SocketAddr) -> Option<Heard> {
        self.net.borrow_mut().take_datagram(at)
    }

    /// The story is looked at again then.
    pub fn wake_at(&self, at: Moment) {
        self.net.borrow_mut().wake(Party::Task(self.task), at);
    }

    /// Takes over a connection that has arrived.
    pub fn adopt(&self, end: End) -> Socket {
        self.net.borrow_mut().adopt(end, Party::Task(self.task));
        self.socket(end)
    }

    fn socket(&self, end: End) -> Socket {
        Socket {
            host: self.clone(),
            end,
            buffer: RefCell::default(),
            over: Cell::new(None),
        }
    }
}

/// Why nothing more can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Over {
    Fin,
    Reset,
    /// Nothing came in time. More may come later.
    Late,
}

/// A peer's end of a connection, with what was read ahead.
pub struct Socket {
    pub host: Host,
    pub end: End,
    buffer: RefCell<Vec<u8>>,
    over: Cell<Option<Over>>,
}

impl Socket {
    pub fn send(&self, bytes: &[u8]) {
        self.host.net.borrow_mut().queue(self.end, bytes);
    }

    pub fn shut_down(&self) {
        self.host.net.borrow_mut().shut_down(self.end);
    }

    pub fn close(&self) {
        self.host.net.borrow_mut().close(self.end);
    }

    pub fn reset(&self) {
        self.host.net.borrow_mut().reset(self.end);
    }

    /// Octets written so far.
    pub fn written(&self) -> u64 {
        self.host.net.borrow().written(self.end)
    }

    pub fn is_faulty(&self) -> bool {
        self.host.net.borrow().is_faulty(self.end)
    }

    /// Read ahead and not taken yet.
    pub fn buffered(&self) -> usize {
        self.pull();
        self.buffer.borrow().len()
    }

    /// One line with its LF, or what it was that came instead. `CR` handling is the caller's.
    pub async fn line(&self, until: Moment) -> Result<Vec<u8>, Over> {
        self.some(until, |buffer| {
            buffer
                .iter()
                .position(|&byte| byte == b'\n')
                .map(|at| at + 1)
        })
        .await
    }

    /// Exactly so many octets.
    pub async fn exactly(&self, octets: usize, until: Moment) -> Result<Vec<u8>, Over> {
        self.some(until, |buffer| (buffer.len() >= octets).then_some(octets))
            .await
    }

    /// Everything up to and including the first occurrence.
    pub async fn through(&self, what: &[u8], until: Moment) -> Result<Vec<u8>, Over> {
        let mut looked = 0;
        self.some(until, |buffer| {
            let from = usize::saturating_sub(looked, what.len());
            looked = buffer.len();
            let at = buffer[from..]
                .windows(what.len())
                .position(|window| window == what)?;
            Some(from + at + what.len())
        })
        .await
    }

    /// Waits until there is something to read, or the end.
    pub async fn stirs(&self, until: Moment) -> Result<(), Over> {
        self.some(until, |buffer| (!buffer.is_empty()).then_some(0))
            .await
            .map(drop)
    }

    /// All that has come so far.
    pub fn drain(&self) -> Vec<u8> {
        self.pull();
        std::mem::take(&mut self.buffer.borrow_mut())
    }

    pub fn over(&self) -> Option<Over> {
        self.pull();
        self.over.get()
    }

    async fn some(
        &self,
        until: Moment,
        mut enough: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Vec<u8>, Over> {
        if until != Moment::NEVER {
            self.host
                .net
                .borrow_mut()
                .wake(Party::Task(self.host.task), until);
        }
        poll_fn(|_| {
            self.pull();
            let mut buffer = self.buffer.borrow_mut();
            if let Some(len) = enough(&buffer) {
                return Poll::Ready(Ok(buffer.drain(..len).collect()));
            }
            if let Some(over) = self.over.get() {
                return Poll::Ready(Err(over));
            }
            if self.host.now() >= until {
                Poll::Ready(Err(Over::Late))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn pull(&self) {
        let mut net = self.host.net.borrow_mut();
        while self.over.get().is_none() {
            match net.read(self.end, usize::MAX) {
                Read::Bytes(bytes) => {
                    net.add_heard(self.end, bytes.len() as u64);
                    self.buffer.borrow_mut().extend_from_slice(&bytes);
                }
                Read::Nothing => break,
                Read::Fin => self.over.set(Some(Over::Fin)),
                Read::Reset => self.over.set(Some(Over::Reset)),
            }
        }
    }
}
