//! The pit: clients that have to wait, as rows of a table.
//!
//! A parked client costs a socket in the kernel and a row here: no armed receive, no buffer, no session.
//! There are two kinds of waiting. A row that *holds* is silent until its time is over: the greet wait
//! before the 220, or a delayed reply. A row that *drips* sends its reply a byte at a time (stutter).
//! The pit decides who is due and which bytes go out; sending, watching and turning a row back into a
//! session are the shard's. Per row and turn:
//!
//! 1. [`Pit::due`] names a row that is due: `Drip` (send these bytes, tell [`Pit::dripped`] what came of it)
//!    or `Ripe` (its time is over: [`Pit::take`] it and make it a session again).
//! 2. A row that left (a send failed) or is woken early is taken too. [`Row::rest`] is what of a begun reply is
//!    still owed: it goes out before any other byte, so that no line is ever cut.
//!
//! The number of rows is capped. Who comes when the pit is full displaces the oldest row, or is
//! refused, as configured; rows without a finding (greet wait) are displaced last.
//! Memory: [`ROW_BYTES`] in the slab and 16 in the wheel; the reply is shared where it can be, and the parked session may
//! own something. With the socket's slot in the ring that is 176 bytes, the HELO name, and 70 if its address is one's own.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use weir_smtp::time::Moment;

use super::parking::Belongings;
use super::replies::{SharedText, TEXT_MAX};
use super::slab::{Key, Slab};
use super::wheel::{TICK_MICROS, Wheel};
use crate::net::ClientPrefix;
use crate::policy::clients::ClientKey;
use crate::policy::errors::Errors;
use crate::policy::{Finding, Standing};
use crate::ring::wire::SlotId;

/// Names a row; finds nothing once the row is taken.
pub type RowId = Key;

/// Bytes one drip may have.
pub const DRIP_BYTES_MAX: usize = 11;
/// A reply that drips ends within this time, whatever the interval: a client gives up on a reply after five minutes (RFC 5321, 4.5.3.2).
pub const STUTTER_MAX: Duration = Duration::from_secs(240);
/// Drips come no closer than this; a very long reply goes by several bytes a drip.
pub const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// What a row takes, without what the parked session has on the heap.
pub const ROW_BYTES: usize = Slab::<Row<Belongings>>::ENTRY_BYTES;

const _: () = assert!(
    ROW_BYTES <= 128,
    "a parked client has to stay small: with its timer and its slot it is to take 256 bytes"
);
const _: () = assert!(
    TEXT_MAX < u16::MAX as usize,
    "a row counts what is out in 16 bits"
);

/// Rows of one shard. `P` is what a session leaves behind to be resumed from.
pub struct Pit<P> {
    rows: Slab<Row<P>>,
    wheel: Wheel,
    overflow: Overflow,
    /// Rows with a finding, oldest first, and rows without.
    offenders: Ages,
    waiting: Ages,
}

/// What happens to who comes when the pit is full.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum Overflow {
    /// The row that is parked the longest makes room.
    #[default]
    DropOldest,
    /// The newcomer is not parked.
    Refuse,
}

/// Who is parked and why.
pub struct Tenant<P> {
    pub slot: SlotId,
    pub peer: Peer,
    pub standing: Standing,
    /// What its errors amount to.
    pub errors: Errors,
    /// The listener it came by.
    pub listener: u8,
    /// Milliseconds that it had been parked before.
    pub parked_before: u32,
    /// None: nothing is held against this client (greet wait).
    pub why: Option<Finding>,
    pub parked: P,
}

/// A parked client.
pub struct Row<P> {
    pub tenant: Tenant<P>,
    /// When it was parked.
    pub since: Moment,
    reply: Option<SharedText>,
    /// Milliseconds after `since`: when the waiting is over.
    until: u32,
    /// Milliseconds after `since`: when the row is looked at next. NOT_ARMED while a drip is in flight or after `Ripe`.
    due: u32,
    /// Milliseconds between drips; 0: a row that holds.
    interval: u32,
    older: u32,
    newer: u32,
    /// Bytes of the reply that are out.
    offset: u16,
    /// Bytes a drip.
    step: u8,
    in_flight: bool,
}

/// What [`Pit::park`] did.
pub enum Parking<P> {
    Parked(RowId),
    /// Parked, and this one made room for it: its client is to be closed.
    Displaced(RowId, Row<P>),
    /// The pit is full.
    Refused(Row<P>),
}

/// A row whose time has come.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Due {
    /// Send these bytes without blocking, then call [`Pit::dripped`].
    Drip {
        row: RowId,
        slot: SlotId,
        bytes: Drip,
    },
    /// The waiting is over: take the row.
    Ripe(RowId),
}

/// The bytes of one drip.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Drip {
    bytes: [u8; DRIP_BYTES_MAX],
    len: u8,
}

impl Drip {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Where a drip led.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Dripped {
    /// More to come.
    Going,
    /// The socket took nothing; it is tried again after the interval.
    Stalled,
    /// The reply is out: take the row.
    Finished,
    /// No such row any more.
    Gone,
}

impl<P> Pit<P> {
    /// A pit of at most `rows_max` rows; allocates as they come.
    pub fn new(rows_max: u32, overflow: Overflow, now: Moment) -> Pit<P> {
        Pit {
            rows: Slab::new(rows_max),
            wheel: Wheel::new(now),
            overflow,
            offenders: Ages::EMPTY,
            waiting: Ages::EMPTY,
        }
    }

    /// Parks a client, if there is room or room can be made.
    pub fn park(&mut self, row: Row<P>) -> Parking<P> {
        if !self.rows.is_full() {
            return Parking::Parked(self.add(row));
        }
        let displaced = match self.overflow {
            Overflow::Refuse => None,
            // A client against which nothing is held does not lose its place to one with a finding.
            Overflow::DropOldest if row.tenant.why.is_some() => self.oldest_offender(),
            Overflow::DropOldest => self.oldest(),
        };
        match displaced.and_then(|oldest| self.take(oldest)) {
            Some(oldest) => Parking::Displaced(self.add(row), oldest),
            None => Parking::Refused(row),
        }
    }

    /// The next row whose time has come; None when there is no more for now.
    pub fn due(&mut self, now: Moment) -> Option<Due> {
        while let Some(bits) = self.wheel.pop(now) {
            let id = RowId::from_bits(bits);
            // Gone, or looked at again later: that has a timer of its own.
            let Some(row) = self.rows.get_mut(id) else {
                continue;
            };
            if row.due == NOT_ARMED || row.moment(row.due) > now {
                continue;
            }
            row.due = NOT_ARMED;
            if row.interval == 0 || now >= row.until() {
                return Some(Due::Ripe(id));
            }
            row.in_flight = true;
            return Some(Due::Drip {
                row: id,
                slot: row.tenant.slot,
                bytes: row.drip(),
            });
        }
        None
    }

    /// What came of a drip: `taken` bytes went out (0: the socket is full). A failed send means that the client is gone: take the row instead.
    pub fn dripped(&mut self, id: RowId, taken: usize, now: Moment) -> Dripped {
        let Some(row) = self.rows.get_mut(id) else {
            return Dripped::Gone;
        };
        assert!(row.in_flight, "an answer without a drip");
        assert!(
            taken <= usize::from(row.step),
            "more went out than was given"
        );
        row.in_flight = false;
        row.offset += taken as u16;
        if row.rest().is_empty() {
            return Dripped::Finished;
        }
        let next = row.millis(now).saturating_add(row.interval);
        self.arm(id, next);
        if taken == 0 {
            Dripped::Stalled
        } else {
            Dripped::Going
        }
    }

    /// Changes when the waiting of a row is over; a row that was ripe waits again. False if it is gone.
    pub fn set_until(&mut self, id: RowId, until: Moment) -> bool {
        let Some(row) = self.rows.get_mut(id) else {
            return false;
        };
        row.until = row.millis(until);
        let next = match row.interval {
            0 => row.until,
            _ => row.due.min(row.until),
        };
        if !row.in_flight {
            self.arm(id, next);
        }
        true
    }

    /// Takes a row out: to resume it, to close it, or because the client left.
    pub fn take(&mut self, id: RowId) -> Option<Row<P>> {
        let row = self.rows.remove(id)?;
        let Pit {
            rows,
            offenders,
            waiting,
            ..
        } = self;
        let ages = if row.tenant.why.is_some() {
            offenders
        } else {
            waiting
        };
        ages.unlink(rows, row.older, row.newer);
        Some(row)
    }

    pub fn get(&self, id: RowId) -> Option<&Row<P>> {
        self.rows.get(id)
    }

    pub fn get_mut(&mut self, id: RowId) -> Option<&mut Row<P>> {
        self.rows.get_mut(id)
    }

    /// Who would have to go first: the longest parked one with a finding, else the longest parked one.
    pub fn oldest(&self) -> Option<RowId> {
        self.oldest_offender()
            .or_else(|| self.rows.key_at(self.waiting.oldest))
    }

    /// When [`Pit::due`] has something next (or finds that it has not).
    pub fn next(&self) -> Option<Moment> {
        self.wheel.next()
    }

    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub const fn is_full(&self) -> bool {
        self.rows.is_full()
    }

    pub fn iter(&self) -> impl Iterator<Item = (RowId, &Row<P>)> {
        self.rows.iter()
    }

    /// Bytes of memory in use, without what replies and parked sessions own.
    pub fn memory(&self) -> usize {
        self.rows.memory() + self.wheel.memory()
    }

    fn oldest_offender(&self) -> Option<RowId> {
        self.rows.key_at(self.offenders.oldest)
    }

    fn add(&mut self, row: Row<P>) -> RowId {
        let due = row.due;
        let offender = row.tenant.why.is_some();
        let Ok(id) = self.rows.insert(row) else {
            unreachable!("room was made");
        };
        let ages = if offender {
            &mut self.offenders
        } else {
            &mut self.waiting
        };
        ages.link(&mut self.rows, id);
        self.arm(id, due);
        id
    }

    /// Every value of `due` gets a timer of its own; timers of values that are no longer true fire for nothing.
    fn arm(&mut self, id: RowId, next: u32) {
        let row = self
            .rows
            .get_mut(id)
            .expect("only called for rows that are there");
        row.due = next.min(row.until);
        let mut at = row.moment(row.due);
        if row.due < row.until {
            at = together(at, row.interval);
        }
        self.wheel.insert(at, id.to_bits());
    }
}

/// Drips are put off by up to this part of their interval, and at most so many ticks of the wheel, to go out together: a
/// shard that has a client due in every tick would wake sixty times a second to send a few bytes.
const PUT_OFF_PART: u64 = 32;
const PUT_OFF_TICKS: u64 = 8;

/// The moment, at or after `at`, at which all rows of such an interval are due that are due about then.
fn together(at: Moment, interval: u32) -> Moment {
    let ticks = u64::from(interval) * 1000 / PUT_OFF_PART / TICK_MICROS;
    let grain = ticks.clamp(1, PUT_OFF_TICKS) * TICK_MICROS;
    Moment::from_micros(at.as_micros().next_multiple_of(grain))
}

/// `due` of a row for which nothing is scheduled.
const NOT_ARMED: u32 = u32::MAX;

impl<P> Row<P> {
    /// A row that is silent until `until`. `reply` is what then is owed ([`Row::rest`]).
    pub fn hold(
        tenant: Tenant<P>,
        reply: Option<SharedText>,
        now: Moment,
        until: Moment,
    ) -> Row<P> {
        let mut row = Row {
            tenant,
            since: now,
            reply,
            until: 0,
            due: 0,
            interval: 0,
            older: Ages::NOBODY,
            newer: Ages::NOBODY,
            offset: 0,
            step: 0,
            in_flight: false,
        };
        row.until = row.millis(until);
        row.due = row.until;
        row
    }

    /// A row that sends of `reply` a byte per `interval`, or so many that it ends within [`STUTTER_MAX`]; more often only if
    /// that is not enough.
    pub fn drip_out(
        tenant: Tenant<P>,
        reply: SharedText,
        interval: Duration,
        now: Moment,
    ) -> Row<P> {
        let (interval, step) = schedule(reply.as_bytes().len(), interval);
        let mut row = Row::hold(tenant, Some(reply), now, now + STUTTER_MAX);
        row.interval = interval;
        row.step = step;
        row.due = interval;
        row
    }

    /// What of the reply is still owed. Not to be trusted while a drip is in flight.
    pub fn rest(&self) -> &[u8] {
        match &self.reply {
            Some(reply) => &reply.as_bytes()[usize::from(self.offset)..],
            None => &[],
        }
    }

    /// What of the reply will be owed when the drip in flight is out.
    pub fn rest_after_drip(&self) -> &[u8] {
        let under_way = if self.in_flight {
            usize::from(self.drip().len)
        } else {
            0
        };
        &self.rest()[under_way..]
    }

    /// A reply was begun and is not complete: the line has to be finished before any other byte.
    pub fn is_mid_reply(&self) -> bool {
        self.offset > 0 && !self.rest().is_empty()
    }

    /// A drip has been handed out and not been answered.
    pub const fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    pub fn until(&self) -> Moment {
        self.moment(self.until)
    }

    fn drip(&self) -> Drip {
        let rest = self.rest();
        let len = rest.len().min(usize::from(self.step));
        let mut bytes = [0; DRIP_BYTES_MAX];
        bytes[..len].copy_from_slice(&rest[..len]);
        Drip {
            bytes,
            len: len as u8,
        }
    }

    fn moment(&self, millis: u32) -> Moment {
        self.since + Duration::from_millis(u64::from(millis))
    }

    /// Rounded up, so that nothing is due early; at most 49 days.
    fn millis(&self, at: Moment) -> u32 {
        let micros = at.since(self.since).as_micros();
        u32::try_from(micros.div_ceil(1000))
            .unwrap_or(NOT_ARMED)
            .min(NOT_ARMED - 1)
    }
}

/// Milliseconds between drips and bytes a drip, so that `len` bytes are out within [`STUTTER_MAX`].
///
/// A drip costs the same however many bytes it has, and the client waits as long for its reply: so what is wanted of the
/// interval is kept as long as [`DRIP_BYTES_MAX`] allows. (One byte a drip, more often, was tried: 15,000 clients at 30 s
/// cost 8500 sends a second and 7 % of a core for nothing.)
fn schedule(len: usize, wanted: Duration) -> (u32, u8) {
    let total = STUTTER_MAX.as_millis();
    let len = len.max(1) as u128;
    let drips_min = len.div_ceil(DRIP_BYTES_MAX as u128);
    // A reply longer than the shortest interval allows for is cut off there: the rest goes at once, at the end.
    let interval = wanted
        .as_millis()
        .min(total / drips_min)
        .max(INTERVAL_MIN.as_millis());
    let step = len.div_ceil(total / interval).min(DRIP_BYTES_MAX as u128);
    (interval as u32, step as u8)
}

/// An address and port in 18 bytes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Peer {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Peer {
    fn from(addr: SocketAddr) -> Peer {
        let ip = match addr.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Peer {
            ip,
            port: addr.port(),
        }
    }
}

impl From<Peer> for SocketAddr {
    /// IPv4 comes back as IPv4; a scope of a link-local address is lost.
    fn from(peer: Peer) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(peer.ip).to_canonical(), peer.port)
    }
}

impl Peer {
    pub fn ip(self) -> IpAddr {
        SocketAddr::from(self).ip()
    }

    /// As policy knows it.
    pub fn client(self, prefix: ClientPrefix) -> ClientKey {
        ClientKey::of(SocketAddr::from(self).ip(), prefix)
    }
}

/// Rows by age: a list through the rows themselves.
struct Ages {
    oldest: u32,
    newest: u32,
}

impl Ages {
    const NOBODY: u32 = u32::MAX;
    const EMPTY: Ages = Ages {
        oldest: Ages::NOBODY,
        newest: Ages::NOBODY,
    };

    fn link<P>(&mut self, rows: &mut Slab<Row<P>>, id: RowId) {
        let before = std::mem::replace(&mut self.newest, id.index());
        let row = rows.get_mut(id).expect("just inserted");
        (row.older, row.newer) = (before, Ages::NOBODY);
        match row_at(rows, before) {
            Some(before) => before.newer = id.index(),
            None => self.oldest = id.index(),
        }
    }

    /// `older` and `newer` are the neighbours of the row that was taken out.
    fn unlink<P>(&mut self, rows: &mut Slab<Row<P>>, older: u32, newer: u32) {
        match row_at(rows, older) {
            Some(row) => row.newer = newer,
            None => self.oldest = newer,
        }
        match row_at(rows, newer) {
            Some(row) => row.older = older,
            None => self.newest = older,
        }
    }
}

fn row_at<P>(rows: &mut Slab<Row<P>>, index: u32) -> Option<&mut Row<P>> {
    let key = rows.key_at(index)?;
    rows.get_mut(key)
}

#[cfg(test)]
mod tests;
