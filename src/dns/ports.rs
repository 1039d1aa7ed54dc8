//! Sockets for datagrams: a few for each server, connected, each with a port that the kernel drew.
//!
//! A forger who does not see the traffic has to guess the port as well as the id (RFC 5452, 9). A fresh socket for each query would be the most to
//! guess and too dear on a shard; so queries are spread over a few by lot, and each is given up after some queries or seconds. An id
//! is used once in a socket's life. What comes in that was not asked for is counted, and a socket that gets a flood of it is given up
//! at once: somebody is guessing.

use std::time::Duration;

use weir_smtp::time::Moment;

use super::config::SERVERS_MAX;

/// Queries that one socket sends, and how long it lives.
const QUERIES_MAX: u16 = 1024;
const LIFE: Duration = Duration::from_secs(30);
/// Messages nobody asked for, in a socket's life: a forger needs thousands, a confused server sends a few.
const STRAYS_MAX: u16 = 32;
/// Sockets in use for one server.
const EACH_MAX: usize = 256;

/// A socket that a shard holds for the resolver.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub struct PortId {
    number: u32,
    life: u32,
}

impl PortId {
    /// Below [`super::Stub::ports_max`], and no other open port's.
    pub fn number(self) -> usize {
        self.number as usize
    }
}

#[derive(Debug)]
pub struct Ports {
    /// For each server twice as many places as are in use at a time: a socket that was given up still listens for what it has asked.
    all: Vec<Option<Port>>,
    /// By server and lot, the ones in use.
    used: Vec<Option<u32>>,
    each: usize,
    life: u32,
}

#[derive(Debug)]
struct Port {
    id: PortId,
    server: usize,
    /// Queries sent, and those of them that are still open.
    sent: u16,
    open: u16,
    strays: u16,
    until: Moment,
    in_use: bool,
    /// Ids that were used, one bit each: 8 KiB.
    spent: Box<[u64; 1024]>,
}

/// A socket to ask from, and what has to be done before.
#[derive(Copy, Clone, Debug)]
pub struct Drawn {
    pub port: PortId,
    pub close: Option<PortId>,
    pub open: bool,
}

/// What a message is whose id no open query has.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Unknown {
    /// The id was one of ours, and its query is over.
    Late,
    Stray,
    /// One stray too many.
    Flood,
}

impl Ports {
    pub fn new(each: usize) -> Ports {
        let each = each.clamp(1, EACH_MAX);
        Ports {
            all: (0..Ports::max(each)).map(|_| None).collect(),
            used: vec![None; SERVERS_MAX * each],
            each,
            life: 0,
        }
    }

    /// Places for `each` sockets in use for each server.
    pub fn max(each: usize) -> usize {
        SERVERS_MAX * each.clamp(1, EACH_MAX) * 2
    }

    /// A socket to ask `server` from, by lot.
    pub fn draw(&mut self, server: usize, lot: usize, now: Moment) -> Drawn {
        let place = server * self.each + lot % self.each;
        if let Some(port) = self.used[place].and_then(|number| self.at(number))
            && port.is_fresh(now)
        {
            return Drawn::as_is(port.id);
        }
        let close = self.give_up(place);
        let mut places = server * self.each * 2..(server + 1) * self.each * 2;
        let Some(spare) = places.clone().find(|&number| self.all[number].is_none()) else {
            // All that may be open wait for answers: an old one has to do.
            let old = places.find_map(|number| self.at(number as u32));
            return Drawn::as_is(old.expect("no place is spare").id);
        };
        Drawn {
            port: self.open(place, server, spare, now),
            close,
            open: true,
        }
    }

    fn open(&mut self, place: usize, server: usize, number: usize, now: Moment) -> PortId {
        self.life = self.life.wrapping_add(1);
        let id = PortId {
            number: number as u32,
            life: self.life,
        };
        self.all[number] = Some(Port {
            id,
            server,
            sent: 0,
            open: 0,
            strays: 0,
            until: now + LIFE,
            in_use: true,
            spent: Box::new([0; 1024]),
        });
        self.used[place] = Some(number as u32);
        id
    }

    /// Nothing is asked any more from the socket at `place`. Some: and it waits for nothing.
    fn give_up(&mut self, place: usize) -> Option<PortId> {
        let number = self.used[place].take()?;
        let port = self.all[number as usize].as_mut()?;
        port.in_use = false;
        self.close_if_done(number)
    }

    fn close_if_done(&mut self, number: u32) -> Option<PortId> {
        let port = self.at(number)?;
        let done = !port.in_use && port.open == 0;
        done.then(|| self.all[number as usize].take())
            .flatten()
            .map(|port| port.id)
    }

    /// An id for one more query from the port: none that was used there before.
    pub fn draw_id(&mut self, port: PortId, lot: u32, is_open: impl Fn(u16) -> bool) -> u16 {
        let port = self.known_mut(port).expect("a port that was just drawn");
        if port.sent >= 1 << 15 {
            // Only of a socket that had to do beyond its time; what is open is not used again even so.
            port.spent.fill(0);
            port.sent = 0;
        }
        // An odd step goes around all 65,536; the first try is nearly always the last.
        let (mut id, step) = (lot as u16, (lot >> 16) as u16 | 1);
        while port.is_spent(id) || is_open(id) {
            id = id.wrapping_add(step);
        }
        port.spent[usize::from(id >> 6)] |= 1 << (id & 63);
        port.sent += 1;
        port.open += 1;
        id
    }

    /// A query is over. Some: the port was given up before, and waited for nothing else.
    pub fn release(&mut self, port: PortId) -> Option<PortId> {
        self.known_mut(port)?.open -= 1;
        self.close_if_done(port.number)
    }

    /// The port does not work, or is not to be used again. False: it is not known any more.
    pub fn abandon(&mut self, port: PortId) -> bool {
        if self.known_mut(port).is_none() {
            return false;
        }
        self.all[port.number()] = None;
        if let Some(place) = self
            .used
            .iter_mut()
            .find(|used| **used == Some(port.number))
        {
            *place = None;
        }
        true
    }

    /// Every port there is, of any server; none is open afterwards.
    pub fn abandon_all(&mut self) -> Vec<PortId> {
        self.used.fill(None);
        let all = self.all.iter_mut().filter_map(Option::take);
        all.map(|port| port.id).collect()
    }

    pub fn server_of(&self, port: PortId) -> Option<usize> {
        let known = self.at(port.number).filter(|known| known.id == port);
        known.map(|known| known.server)
    }

    /// Somebody has sent something there with an id that is not open.
    pub fn unknown(&mut self, port: PortId, id: u16) -> Unknown {
        match self.known_mut(port) {
            Some(port) if !port.is_spent(id) => port.stray(),
            _ => Unknown::Late,
        }
    }

    /// Somebody has sent an answer there that has an open query's id, and is not its answer.
    pub fn mismatch(&mut self, port: PortId) -> Unknown {
        self.known_mut(port).map_or(Unknown::Late, Port::stray)
    }

    fn at(&self, number: u32) -> Option<&Port> {
        self.all.get(number as usize)?.as_ref()
    }

    fn known_mut(&mut self, port: PortId) -> Option<&mut Port> {
        let known = self.all.get_mut(port.number())?.as_mut();
        known.filter(|known| known.id == port)
    }
}

impl Port {
    fn is_fresh(&self, now: Moment) -> bool {
        self.sent < QUERIES_MAX && now < self.until
    }

    fn is_spent(&self, id: u16) -> bool {
        self.spent[usize::from(id >> 6)] & 1 << (id & 63) != 0
    }

    fn stray(&mut self) -> Unknown {
        self.strays = self.strays.saturating_add(1);
        match self.strays > STRAYS_MAX {
            true => Unknown::Flood,
            false => Unknown::Stray,
        }
    }
}

impl Drawn {
    fn as_is(port: PortId) -> Drawn {
        Drawn {
            port,
            close: None,
            open: false,
        }
    }
}
