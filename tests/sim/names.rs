//! A name server on the simulated network: answers from what it is told of the world, and fails by chance.
//!
//! It knows DNS from RFC 1035 alone and shares no code with weir's resolver, so that a mistake there is not made here too. Datagrams and
//! connections are answered; which questions are met with silence, delay, failure, garbage or lies is decided for each by the seed.

mod message;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use weir_smtp::time::Moment;

pub use message::{Data, Found, Kind, Record, address_of};

use message::Query;

use crate::chance::Chance;
use crate::net::{End, Heard};
use crate::tasks::{Host, Over};

/// What there is to know.
pub trait Lore {
    /// `name` in lower case, without the last dot.
    fn look_up(&self, name: &str, kind: Kind, now: Moment) -> Found;
}

/// In percent of the questions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub silent: u64,
    pub fails: u64,
    pub garbage: u64,
    /// The answer to another question, or under another number.
    pub mistaken: u64,
    /// Too long for a datagram, or said to be.
    pub truncated: u64,
    /// Seconds late.
    pub late: u64,
}

pub struct NameServer {
    lore: Rc<dyn Lore>,
    faults: Faults,
    chance: RefCell<Chance>,
    questions: Cell<u64>,
}

impl NameServer {
    pub fn new(lore: Rc<dyn Lore>, faults: Faults, chance: Chance) -> Rc<NameServer> {
        Rc::new(NameServer {
            lore,
            faults,
            chance: RefCell::new(chance),
            questions: Cell::new(0),
        })
    }

    /// How many questions were asked.
    pub fn questions(&self) -> u64 {
        self.questions.get()
    }

    /// The story of its port, which has no end.
    pub fn answer_datagrams(
        self: Rc<Self>,
        at: SocketAddr,
    ) -> impl FnOnce(Host) -> Pin<Box<dyn Future<Output = ()>>> {
        move |host| {
            Box::pin(async move {
                host.open_port(at);
                // What is said later than other things: when, to whom, what.
                let mut late: Vec<(Moment, SocketAddr, Vec<u8>)> = Vec::new();
                poll_fn(|_| {
                    let now = host.now();
                    let due = late.extract_if(.., |(when, ..)| *when <= now);
                    for (_, to, bytes) in due.collect::<Vec<_>>() {
                        host.net.borrow_mut().send_datagram(at, to, &bytes);
                    }
                    while let Some(heard) = host.take_datagram(at) {
                        let Heard::Datagram { from, bytes } = heard else {
                            continue;
                        };
                        let Some((answer, delay)) = self.answer(&bytes, now, true) else {
                            continue;
                        };
                        if delay.is_zero() {
                            host.net.borrow_mut().send_datagram(at, from, &answer);
                        } else {
                            host.wake_at(now + delay);
                            late.push((now + delay, from, answer));
                        }
                    }
                    Poll::<()>::Pending
                })
                .await;
            })
        }
    }

    /// The story of a connection.
    pub fn serve(
        self: Rc<Self>,
        end: End,
    ) -> impl FnOnce(Host) -> Pin<Box<dyn Future<Output = ()>>> {
        move |host| {
            Box::pin(async move {
                let socket = host.adopt(end);
                let talk = async {
                    loop {
                        let length = socket.exactly(2, Moment::NEVER).await?;
                        let length = u16::from_be_bytes([length[0], length[1]]);
                        let query = socket.exactly(usize::from(length), Moment::NEVER).await?;
                        let Some((answer, delay)) = self.answer(&query, host.now(), false) else {
                            return Ok::<(), Over>(());
                        };
                        host.sleep(delay).await;
                        socket.send(&(answer.len() as u16).to_be_bytes());
                        socket.send(&answer);
                    }
                };
                _ = talk.await;
                socket.close();
            })
        }
    }

    /// What is said to a query, and how much later than at once; `None`: nothing.
    fn answer(&self, query: &[u8], now: Moment, datagram: bool) -> Option<(Vec<u8>, Duration)> {
        let query = Query::parse(query)?;
        self.questions.set(self.questions.get() + 1);
        let faults = self.faults;
        let chance = &mut *self.chance.borrow_mut();
        if chance.percent(faults.silent) {
            return None;
        }
        let delay = if chance.percent(faults.late) {
            chance.millis(500..8000)
        } else {
            Duration::ZERO
        };
        let found = self.lore.look_up(&query.name, query.kind, now);
        let mut answer = if chance.percent(faults.fails) {
            query.failure()
        } else if datagram && chance.percent(faults.truncated) {
            query.truncated()
        } else {
            query.answer(&found)
        };
        if chance.percent(faults.mistaken) {
            let at = *chance.pick(&[0, 1, 13, query.end() - 3]);
            answer[at] ^= 1;
        }
        if chance.percent(faults.garbage) {
            let from = chance.below(answer.len() as u64) as usize;
            answer[from..].fill_with(|| chance.next() as u8);
            answer.truncate(from.max(chance.below(answer.len() as u64 + 1) as usize));
        }
        Some((answer, delay))
    }
}
