//! The bench of these tests: a ring, a listener on loopback, and a clock of the tests' own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use weir::ring::{BufferId, Event, Owner, ReceiveEnd, Ring, RingConfig, SlotId, Wire};
use weir_smtp::time::Moment;

/// Longer than anything here may take; a test that waits in vain fails with what it saw.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    pub ring: Ring,
    pub address: SocketAddr,
    epoch: Instant,
}

/// Small, so that limits are reached soon.
pub fn small() -> RingConfig {
    RingConfig {
        slots: 64,
        reserve: 16,
        entries: 64,
        completions: 256,
        client_buffers: 16,
        upstream_buffers: 4,
        buffer_size: 4096,
        chunks: 4,
        gather: Duration::ZERO,
        shows_news: false,
    }
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(small())
    }

    pub fn with(config: RingConfig) -> Bench {
        let mut ring = Ring::new(&config).expect("this host has io_uring");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("it is bound");
        ring.listen(OwnedFd::from(listener));
        Bench {
            ring,
            address,
            epoch: Instant::now(),
        }
    }

    pub fn now(&self) -> Moment {
        Moment::ZERO + self.epoch.elapsed()
    }

    /// One turn of at most `span`; the events it brought.
    pub fn turn(&mut self, span: Duration) -> Vec<Event> {
        let now = self.now();
        self.ring.wait(now, now + span).expect("the ring turns");
        std::iter::from_fn(|| self.ring.next_event()).collect()
    }

    /// Turns until an event is what the test waits for; the others are dropped, their buffers released.
    #[track_caller]
    pub fn until<T>(&mut self, mut wanted: impl FnMut(&mut Ring, &Event) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut seen = Vec::new();
        loop {
            while let Some(event) = self.ring.next_event() {
                if let Some(found) = wanted(&mut self.ring, &event) {
                    return found;
                }
                if let Event::Received { buffer, .. } = event {
                    self.ring.release(buffer);
                }
                seen.push(event);
            }
            assert!(begun.elapsed() < PATIENCE, "in vain; seen: {seen:?}");
            let now = self.now();
            self.ring
                .wait(now, now + Duration::from_millis(100))
                .expect("the ring turns");
        }
    }

    /// A connected pair: the slot, and the peer as a plain socket.
    #[track_caller]
    pub fn pair(&mut self) -> (SlotId, TcpStream) {
        let peer = TcpStream::connect(self.address).expect("the listener listens");
        let slot = self.accepted();
        (slot, peer)
    }

    #[track_caller]
    pub fn accepted(&mut self) -> SlotId {
        self.until(|_, event| match event {
            Event::Accepted { slot, .. } => Some(*slot),
            _ => None,
        })
    }

    /// A connection opened by the ring, and its far end.
    #[track_caller]
    pub fn upstream(&mut self) -> (SlotId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("it is bound");
        let slot = self
            .ring
            .connect(&to.into(), Owner(7))
            .expect("a slot is left");
        self.until(|_, event| match event {
            Event::Connected { result, .. } => {
                assert!(result.is_ok(), "{result:?}");
                Some(())
            }
            _ => None,
        });
        let (far, _) = listener.accept().expect("it has connected");
        (slot, far)
    }

    #[track_caller]
    pub fn received(&mut self, wanted: SlotId) -> Vec<u8> {
        self.until(|ring, event| received(ring, event, wanted))
    }

    #[track_caller]
    pub fn closed(&mut self, wanted: SlotId) {
        self.until(|_, event| match event {
            Event::Closed { slot, .. } if *slot == wanted => Some(()),
            _ => None,
        });
    }

    #[track_caller]
    pub fn ended(&mut self, wanted: SlotId) -> String {
        self.until(|_, event| match event {
            Event::ReceiveEnded { slot, why, .. } if *slot == wanted => Some(word(why)),
            _ => None,
        })
    }
}

/// The bytes of a `Received`, its buffer released.
pub fn received(ring: &mut Ring, event: &Event, wanted: SlotId) -> Option<Vec<u8>> {
    match *event {
        Event::Received {
            slot, buffer, len, ..
        } if slot == wanted => Some(take(ring, buffer, len)),
        _ => None,
    }
}

pub fn take(ring: &mut Ring, buffer: BufferId, len: u32) -> Vec<u8> {
    let bytes = ring.buffer(buffer)[..len as usize].to_vec();
    ring.release(buffer);
    bytes
}

pub fn word(why: &ReceiveEnd) -> String {
    match why {
        ReceiveEnd::Eof => "eof",
        ReceiveEnd::Stopped => "stopped",
        ReceiveEnd::NoBuffers => "no buffers",
        ReceiveEnd::Reset(_) => "reset",
    }
    .to_owned()
}
