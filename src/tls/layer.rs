//! TLS between a shard and its network: a [`Wire`] around a [`Wire`]. Slots that have begun TLS carry plaintext on the shard's side and records on the
//! network's; all others pass through after one look at a table.
//!
//! ```text
//!   World --- calls ---> Layer --- calls ---> Ring
//!         <- next_event --     <-- admit ----
//! ```
//!
//! What was received is decrypted back into the buffer it came in; what does not fit there (the end of a record that began in an earlier buffer) lies in
//! copy buffers. Sends are encrypted into one flight, which leaves at the end of the shard's step ([`Layer::flush`]): so whatever the handshake or the end
//! of the connection adds to it (tickets, close_notify) costs no send of its own. Tickets have time until there is something to send anyway.
//!
//! A stream that ends without close_notify has been cut: the shard hears [`ReceiveEnd::Reset`], so that nothing passes for complete that is not.

mod calls;
mod channel;
mod receiving;
mod sending;

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use weir_smtp::starttls::PlaintextDrained;
use weir_smtp::time::Moment;

use crate::ring::{BufferId, Event, Group, Owner, ReceiveEnd, SlotId, Wire};

use super::connection::Connection;
use super::facts::Facts;
use channel::Channel;

/// Plaintext that came before the shard has asked for any: what one receive brings, and what is still on its way after it.
const HELD_MAX: usize = 64 * 1024;

/// Octets that all connections of a shard may hold together: unfinished records, handshake messages, plaintext not asked for. Who needs more then is cut.
pub const CARRIED_MAX: usize = 32 << 20;

/// Of these, so many at clients' hands: they must not be able to cut the connections to upstreams.
const CLIENTS_CARRY_MAX: usize = CARRIED_MAX / 4 * 3;

/// Allocations kept for flights: a send takes one and leaves one.
const SPARE_MAX: usize = 64;
const SPARE_BYTES: usize = 20 * 1024;

pub struct Layer<W> {
    wire: W,
    /// By slot: the place of its channel, plus one. No longer than the highest slot that ever had one.
    places: Vec<u32>,
    channels: Vec<Option<Box<Channel>>>,
    free: Vec<u32>,
    /// For the shard, in order; owners are looked up when they are handed out.
    events: VecDeque<(SlotId, News)>,
    /// Slots with something to send.
    dirty: Vec<SlotId>,
    /// What all connections carry together.
    carried: usize,
    /// Tells the time, for [`Layer::shaking`]; before somebody gives it one it stands still.
    meter: Box<dyn Fn() -> Moment>,
    shaking: Duration,
    /// Scratch: plaintext of one receive, or of one record to be sent.
    plain: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// What is being decrypted: should that meet a defect, it is released when its slot is closed.
    at_work: Option<BufferId>,
}

/// The slot that is to have TLS, as it is now.
pub struct Begin {
    pub slot: SlotId,
    pub owner: Owner,
    pub group: Group,
    /// A receive is armed, and stays so for what comes inside TLS.
    pub receiving: bool,
}

/// What a slot's owner is to hear.
enum News {
    Secured(io::Result<()>),
    Received(BufferId, u32),
    Ended(ReceiveEnd),
    Sent(io::Result<usize>, Vec<u8>),
}

/// Passed through as it is: the network's own calls.
impl<W> Deref for Layer<W> {
    type Target = W;

    fn deref(&self) -> &W {
        &self.wire
    }
}

impl<W> DerefMut for Layer<W> {
    fn deref_mut(&mut self) -> &mut W {
        &mut self.wire
    }
}

/// What only this wire can do.
impl<W: Wire> Layer<W> {
    pub fn new(wire: W) -> Layer<W> {
        Layer {
            wire,
            places: Vec::new(),
            channels: Vec::new(),
            free: Vec::new(),
            events: VecDeque::new(),
            dirty: Vec::new(),
            carried: 0,
            meter: Box::new(|| Moment::ZERO),
            shaking: Duration::ZERO,
            plain: Vec::new(),
            spare: Vec::new(),
            at_work: None,
        }
    }

    /// Begins a handshake; `Secured` follows. No send may be in flight. `unread`: what has been received of the handshake already.
    pub fn begin(
        &mut self,
        begin: Begin,
        connection: Connection,
        unread: &[u8],
        _: PlaintextDrained,
    ) {
        let Begin {
            slot,
            owner,
            group,
            receiving,
        } = begin;
        debug_assert!(self.channel(slot).is_none(), "{slot:?}: TLS inside TLS");
        let begun = (self.meter)();
        let mut channel = Box::new(Channel::new(connection, owner, group, receiving));
        if !receiving {
            self.wire.start_receive(slot, group);
        }
        let started = match channel.connection.is_server() {
            true => Ok(()),
            false => channel.connection.start(&mut channel.pending),
        };
        self.shaking += (self.meter)().since(begun);
        self.put(slot, channel);
        match started {
            Ok(()) => self.touch(slot),
            Err(failure) => self.fail(slot, failure),
        }
        if !unread.is_empty() {
            self.received_before(slot, unread);
        }
    }

    /// A completion of the network. What is meant for a slot without TLS comes back at once; the rest by [`Layer::next_event`].
    pub fn admit(&mut self, event: Event) -> Option<Event> {
        let (Event::Received { slot, .. }
        | Event::ReceiveEnded { slot, .. }
        | Event::Sent { slot, .. }) = event
        else {
            return Some(event);
        };
        if self.channel(slot).is_none() {
            return Some(event);
        }
        match event {
            Event::Received { buffer, len, .. } => self.received(slot, buffer, len),
            Event::ReceiveEnded { why, .. } => self.receive_ended(slot, why),
            Event::Sent { result, flight, .. } => self.sent(slot, result, flight),
            _ => {}
        }
        None
    }

    /// What the shard is to hear next.
    pub fn next_event(&mut self) -> Option<Event> {
        while let Some((slot, news)) = self.events.pop_front() {
            let Some(channel) = self.channel(slot) else {
                continue;
            };
            let owner = channel.owner;
            return Some(match news {
                News::Secured(result) => Event::Secured {
                    slot,
                    owner,
                    result,
                },
                News::Ended(why) => Event::ReceiveEnded { slot, owner, why },
                News::Received(buffer, len) => Event::Received {
                    slot,
                    owner,
                    buffer,
                    len,
                },
                News::Sent(result, flight) => Event::Sent {
                    slot,
                    owner,
                    result,
                    flight,
                },
            });
        }
        None
    }

    /// Something waits for [`Layer::next_event`].
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Something waits for [`Layer::flush`].
    pub fn has_flights(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Hands over what has gathered. Call at the end of a step. `note` hears ahead of each send whose it is.
    pub fn flush(&mut self, mut note: impl FnMut(Owner)) {
        while let Some(slot) = self.dirty.pop() {
            let Some(channel) = self.channel(slot) else {
                continue;
            };
            note(channel.owner);
            channel.dirty = false;
            if let Some(flight) = channel.take_flight() {
                self.wire.send(slot, flight);
            }
        }
    }

    /// The last send of a connection: close_notify goes with it.
    pub fn send_last(&mut self, slot: SlotId, bytes: Vec<u8>) {
        self.send(slot, bytes);
        if let Some(channel) = self.channel(slot) {
            // Should that fail, the stream ends without it.
            let _ = channel.connection.close(&mut channel.pending);
        }
    }

    /// What a slot has agreed on with its peer; None without TLS, or before the end of the handshake.
    pub fn facts(&self, slot: SlotId) -> Option<Facts> {
        self.peek(slot)?.connection.facts()
    }

    /// Looks whether the certificate that the peer has shown counts: [`Layer::facts`] tell from then on.
    pub fn weigh_certificate(
        &mut self,
        slot: SlotId,
        trusts: impl FnOnce(&[CertificateDer<'static>]) -> bool,
    ) {
        if let Some(channel) = self.channel(slot) {
            channel.connection.weigh_certificate(trusts);
        }
    }

    /// The slot has begun TLS.
    pub fn is_secure(&self, slot: SlotId) -> bool {
        self.peek(slot).is_some()
    }

    /// Connections inside TLS or on the way there.
    pub fn secure_slots(&self) -> usize {
        self.channels.len() - self.free.len()
    }

    /// Gives it a clock: what handshakes cost is worth knowing, and only they are measured.
    pub fn measure_by(&mut self, meter: impl Fn() -> Moment + 'static) {
        self.meter = Box::new(meter);
    }

    /// Time that was spent in handshakes.
    pub fn shaking(&self) -> Duration {
        self.shaking
    }

    /// Octets that unfinished records hold.
    pub fn carried(&self) -> usize {
        self.carried
    }
}

/// The table.
impl<W> Layer<W> {
    fn place(&self, slot: SlotId) -> Option<usize> {
        let place = *self.places.get(slot.0 as usize)?;
        (place as usize).checked_sub(1)
    }

    fn peek(&self, slot: SlotId) -> Option<&Channel> {
        self.channels[self.place(slot)?].as_deref()
    }

    fn channel(&mut self, slot: SlotId) -> Option<&mut Channel> {
        let place = self.place(slot)?;
        self.channels[place].as_deref_mut()
    }

    fn put(&mut self, slot: SlotId, channel: Box<Channel>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.channels.push(None);
            self.channels.len() as u32 - 1
        });
        self.channels[place as usize] = Some(channel);
        let slot = slot.0 as usize;
        if self.places.len() <= slot {
            self.places.resize(slot + 1, 0);
        }
        self.places[slot] = place + 1;
    }

    fn take(&mut self, slot: SlotId) -> Option<Box<Channel>> {
        let place = self.place(slot)?;
        self.places[slot.0 as usize] = 0;
        self.free.push(place as u32);
        let channel = self.channels[place].take()?;
        self.carried -= channel.counted + channel.held.len();
        Some(channel)
    }

    /// More is carried than a connection of this group may add to.
    fn carries_too_much(&self, group: Group) -> bool {
        self.carried
            > match group {
                Group::Client => CLIENTS_CARRY_MAX,
                Group::Upstream => CARRIED_MAX,
            }
    }

    fn tell(&mut self, slot: SlotId, news: News) {
        self.events.push_back((slot, news));
    }

    /// Notes that there is something to send.
    fn touch(&mut self, slot: SlotId) {
        if let Some(channel) = self.channel(slot)
            && !channel.dirty
            && !channel.pending.is_empty()
        {
            channel.dirty = true;
            self.dirty.push(slot);
        }
    }

    fn recycle(&mut self, mut flight: Vec<u8>) {
        if flight.capacity() > 0 && self.spare.len() < SPARE_MAX {
            flight.clear();
            flight.shrink_to(SPARE_BYTES);
            self.spare.push(flight);
        }
    }
}

/// Memory to encrypt to.
fn equip(pending: &mut Vec<u8>, spare: &mut Vec<Vec<u8>>) {
    if pending.capacity() == 0
        && let Some(spare) = spare.pop()
    {
        *pending = spare;
    }
}
