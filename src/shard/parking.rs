//! Parking: from a session to a row of the pit and back.
//!
//! Two ways lead there. A client that just came and must not speak for a while (the greet wait) is a row from the start:
//! the first line of the greeting goes out, and at the deadline one look at the socket tells whether it kept quiet. A
//! client whose replies stutter is parked with each reply, between transactions only, and is a session again when the
//! reply is out; what it has said ahead by then waits beside the pit. A row has nothing armed on its socket: that its
//! client has left shows when bytes are sent to it, or at its deadline.

use std::net::SocketAddr;
use std::time::Duration;

use weir_smtp::dialogue::Dialogue;
use weir_smtp::gate::Verdict;
use weir_smtp::relay::{Parked, Relay};
use weir_smtp::reply::ReplyText;
use weir_smtp::texts;
use weir_smtp::time::Moment;

use crate::metrics::{Ended, PitEnd, Refusal};
use crate::policy::news::Deed;
use crate::policy::{Admission, Finding};
use crate::ring::wire::SEND_NOW_MAX;
use crate::ring::{BufferId, Close, Group, ReceiveEnd, SlotId, Wire};

use super::ahead::AHEAD_MAX;
use super::arrivals::Arrival;
use super::intake::Pending;
use super::pit::{DRIP_BYTES_MAX, Dripped, Due, Parking, Row, RowId, Tenant};
use super::replies::TEXT_MAX;
use super::secure::Secrecy;
use super::session::Session;
use super::slab::Key;
use super::who::Who;
use super::world::World;

const _: () = assert!(
    DRIP_BYTES_MAX <= SEND_NOW_MAX,
    "a drip fits one non-blocking send"
);

/// Rows looked at in one turn. More of them wait for the next, which follows at once: a drip takes the kernel some
/// microseconds, and nobody else is served in between.
const ROWS_PER_TURN: usize = 64;

/// Of these, looks at whether a client has spoken: each may take a receive buffer, and only so many are on offer.
pub(super) const LOOKS_PER_TURN: usize = 32;

/// No buffer was left to look with: the look is repeated after this part of the time waited so far, within bounds.
const LOOK_AGAIN_PART: u32 = 8;
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(20);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(1);

/// What a row of the pit keeps for its client.
pub enum Belongings {
    /// A client in its greet wait: it has not begun a session. `teasing`: the first line of the greeting is being sent.
    Newcomer {
        teasing: bool,
    },
    Session(ParkedSession),
}

const _: () = assert!(
    size_of::<Belongings>() <= 40,
    "it lies in the row: there is one for each parked client"
);

/// What a session leaves behind while it is parked. What is cut to 32 bits here is for the log only.
pub struct ParkedSession {
    pub relay: Parked,
    number: u32,
    /// Milliseconds from accept to parking.
    age: u32,
    pub bytes_in: u32,
    pub bytes_out: u32,
}

impl ParkedSession {
    fn of(session: &mut Session, now: Moment) -> ParkedSession {
        let stats = session.relay.stats();
        debug_assert!(
            (stats.errors, stats.junk) == (session.errors_seen, session.junk_seen),
            "errors are weighed before a session is parked"
        );
        ParkedSession {
            number: session.number as u32,
            age: millis(now.since(session.accepted)),
            bytes_in: u32::try_from(session.bytes_in).unwrap_or(u32::MAX),
            bytes_out: u32::try_from(session.bytes_out).unwrap_or(u32::MAX),
            relay: session.relay.park(),
        }
    }

    /// Its number in the log, of which the lower half was kept: `latest` is the highest so far.
    pub fn number(&self, latest: u64) -> u64 {
        let passed = (latest as u32).wrapping_sub(self.number);
        latest.saturating_sub(passed.into())
    }

    /// When it was accepted, to the millisecond.
    pub fn accepted(&self, parked: Moment) -> Moment {
        let age = u64::from(self.age) * 1000;
        Moment::from_micros(parked.as_micros().saturating_sub(age))
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// Where the last of several replies begins.
pub(super) fn last_reply(replies: &[u8]) -> usize {
    let mut start = 0;
    let mut at = 0;
    while let Some(len) = memchr::memchr(b'\n', &replies[at..]) {
        let line = &replies[at..=at + len];
        at += line.len();
        // A blank behind the code ends a reply; the one that ends the whole begins nothing.
        if line.get(3) != Some(&b'-') && at < replies.len() {
            start = at;
        }
    }
    start
}

impl<W: Wire> World<W> {
    /// A new client has to hold its tongue first: the first line of the greeting, and a row.
    pub(super) fn park_newcomer(&mut self, arrival: Arrival, admission: Admission, wait: Duration) {
        let slot = arrival.slot;
        let tenant = Tenant {
            slot,
            peer: arrival.peer.into(),
            standing: admission.standing,
            errors: admission.errors,
            listener: arrival.listener as u8,
            parked_before: 0,
            why: None,
            // Nothing is on its way yet: whom the pit has no room for is told so at once.
            parked: Belongings::Newcomer { teasing: false },
        };
        self.introductions.put(slot, arrival.introduction);
        let row = Row::hold(tenant, None, self.now, self.now + wait);
        let Some(id) = self.park_row(row) else { return };
        self.wire.set_owner(slot, Who::Row(id).owner());
        self.count_sessions();
        // With a connection of its own the greeting is the server's, and comes when the wait is over.
        if self.config.is_dedicated() {
            return;
        }
        if let Some(row) = self.pit.get_mut(id) {
            row.tenant.parked = Belongings::Newcomer { teasing: true };
        }
        let mut teaser = self.flights.take(0);
        texts::write_teaser(&mut teaser, &self.config.smtp.hostname);
        self.wire.send(slot, teaser);
    }

    /// Parks a session whose reply is to stutter, if this is the moment for it. True: the session is gone.
    pub(super) fn park_if_due(&mut self, key: Key) -> bool {
        let stays = !self.drain.is_on();
        let Some(session) = self.sessions.get_mut(key) else {
            return true;
        };
        let ripe = stays
            && session.flags.stutter
            && !session.flags.closing
            && !session.flags.eof
            && !session.out.is_empty()
            && session.out.len() <= TEXT_MAX
            && !session.flags.sending
            // The greeting is not worth a stutter: the one command that most early talkers have sent is answered first.
            && (session.intake.is_empty() || session.relay.stats().commands > 0)
            && session.waiting_octets() <= AHEAD_MAX
            && session.leg.is_none()
            && session.relay.is_parkable();
        session.flags.parking = ripe;
        let Some(slot) = session.slot.filter(|_| ripe) else {
            return false;
        };
        if session.flags.receiving {
            // What still comes before the receive has stopped is read first.
            self.wire.stop_receive(slot);
            return false;
        }
        let last = last_reply(&session.out);
        if last > 0 {
            // Replies to earlier commands go out as ever; it is the last one that stutters.
            let mut earlier = self.flights.take(last);
            earlier.extend_from_slice(&session.out[..last]);
            session.out.drain(..last);
            session.bytes_out += last as u64;
            session.flags.sending = true;
            self.wire.send(slot, earlier);
            return false;
        }
        self.park_session(key, slot);
        true
    }

    fn park_session(&mut self, key: Key, slot: SlotId) {
        self.forget_room(key);
        let ahead = self.copy_intake(key);
        self.drop_intake(key);
        self.leave_findings_beside(key, slot);
        let Some(mut session) = self.take_session(key) else {
            return;
        };
        self.ahead.put(slot, ahead);
        self.introductions.put(slot, session.introduction.take());
        let reply = self.replies.share(&session.out);
        session.bytes_out += reply.as_bytes().len() as u64;
        session.out.clear();
        self.flights.relieve(&mut session.out);
        self.wire.small_buffers(slot);
        let tenant = Tenant {
            slot,
            peer: session.peer,
            standing: session.standing,
            errors: session.errors,
            listener: session.listener,
            parked_before: session.parked_millis,
            // A temper remembered from an earlier session has no finding in this one.
            why: Some(session.blame.unwrap_or(Finding::ErrorsSoft)),
            parked: Belongings::Session(ParkedSession::of(&mut session, self.now)),
        };
        let interval = self.policy.config().temper.interval;
        let row = Row::drip_out(tenant, reply, interval, self.now);
        if let Some(id) = self.park_row(row) {
            self.wire.set_owner(slot, Who::Row(id).owner());
        }
        self.count_sessions();
    }

    /// A row into the pit. When it is full, somebody is closed: the one displaced, or this one.
    fn park_row(&mut self, row: Row<Belongings>) -> Option<RowId> {
        self.counters.pit_parked.inc();
        if self.wire.is_secure(row.tenant.slot) {
            self.parked_secure += 1;
            if self.parked_secure > self.config.pit.secure_max {
                self.counters.sessions_refused.at(Refusal::PitFull).inc();
                self.cut_row(row, PitEnd::Displaced, &texts::OVERLOAD);
                return None;
            }
        }
        let id = match self.pit.park(row) {
            Parking::Parked(id) => Some(id),
            Parking::Displaced(id, other) => {
                self.cut_row(other, PitEnd::Displaced, &texts::OVERLOAD);
                Some(id)
            }
            Parking::Refused(row) => {
                self.counters.sessions_refused.at(Refusal::PitFull).inc();
                self.cut_row(row, PitEnd::Displaced, &texts::OVERLOAD);
                None
            }
        };
        self.counters.pit_rows.set(self.pit.len() as u64);
        id
    }

    /// Walks the rows whose time has come.
    pub(super) fn tend_pit(&mut self) {
        let mut looks = 0;
        for _ in 0..ROWS_PER_TURN {
            if looks == LOOKS_PER_TURN {
                break;
            }
            let Some(due) = self.pit.due(self.now) else {
                return;
            };
            match due {
                Due::Drip { slot, bytes, .. } => {
                    self.counters
                        .pit_drip_bytes
                        .add(bytes.as_bytes().len() as u64);
                    self.wire.send_now(slot, bytes.as_bytes());
                }
                Due::Ripe(id) => looks += usize::from(self.row_ripe(id)),
            }
        }
        // The rest waits for the next turn, which follows at once: the pit's own deadline has passed.
    }

    /// True: it has to be seen first whether the client has spoken.
    fn row_ripe(&mut self, id: RowId) -> bool {
        let Some(row) = self.pit.get(id) else {
            return false;
        };
        if matches!(row.tenant.parked, Belongings::Newcomer { .. }) {
            // The end of a greet wait: one look.
            self.wire.receive_now(row.tenant.slot, Group::Client);
            return true;
        }
        self.resume_row(id);
        false
    }

    /// What came of a drip, or of the first line of the greeting.
    pub(super) fn row_dripped(&mut self, id: RowId, result: std::io::Result<usize>) {
        let Some(row) = self.pit.get_mut(id) else {
            return;
        };
        let taken = match result {
            Ok(taken) => taken,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
            Err(_) => return self.row_left(id),
        };
        if let Belongings::Newcomer { teasing } = &mut row.tenant.parked {
            *teasing = false;
        } else if row.is_in_flight() && self.pit.dripped(id, taken, self.now) == Dripped::Finished {
            self.resume_row(id);
        }
    }

    /// A client spoke before its greeting was complete.
    pub(super) fn row_spoke(&mut self, id: RowId, buffer: BufferId, len: u32) {
        let Some(row) = self.pit.take(id) else {
            return self.release(buffer);
        };
        let ruling = self
            .policy
            .found(row.tenant.standing, Finding::Pregreet, self.now);
        let Some(key) = self.session_of(row, PitEnd::Promoted) else {
            return self.release(buffer);
        };
        self.take_note(key, &ruling, "connect");
        if let Some(session) = self.sessions.get_mut(key) {
            session.bytes_in += u64::from(len);
            session.intake = self.intakes.pop().unwrap_or_default();
            session.intake.push(Pending {
                copied: false,
                buffer,
                start: 0,
                len,
            });
        }
        self.greet_early(key, ruling.verdict);
    }

    /// Nothing came before the greeting, or it could not be seen, or the client has left.
    pub(super) fn row_silent(&mut self, id: RowId, why: ReceiveEnd) {
        match why {
            ReceiveEnd::Stopped => {
                if let Some(row) = self.pit.take(id)
                    && let Some(key) = self.session_of(row, PitEnd::Promoted)
                {
                    self.greet(key, Verdict::Pass);
                }
            }
            // Whoever has spoken is not to pass for polite because weir was busy.
            ReceiveEnd::NoBuffers => {
                if let Some(row) = self.pit.get(id) {
                    let part = self.now.since(row.since) / LOOK_AGAIN_PART;
                    let again = part.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX);
                    self.pit.set_until(id, self.now + again);
                }
            }
            ReceiveEnd::Eof | ReceiveEnd::Reset(_) => self.row_left(id),
        }
    }

    /// The reply is out, or has stuttered as long as it may: the row is a session again, and the rest goes out at once.
    fn resume_row(&mut self, id: RowId) {
        let Some(row) = self.pit.take(id) else { return };
        let rest = row.rest().to_vec();
        let ahead = self.ahead.take(row.tenant.slot);
        let Some(key) = self.session_of(row, PitEnd::Promoted) else {
            return;
        };
        if let Some(ahead) = ahead {
            self.read_again(key, &ahead);
        }
        if let Some(session) = self.sessions.get_mut(key)
            && !rest.is_empty()
        {
            session.out.extend_from_slice(&rest);
            session.flags.stutter = false;
        }
        self.finish_step(key);
    }

    /// Makes a session of a row that was taken out of the pit.
    pub(super) fn session_of(&mut self, row: Row<Belongings>, how: PitEnd) -> Option<Key> {
        self.row_ended(&row, how);
        let tenant = row.tenant;
        let introduction = self.introductions.take(tenant.slot);
        let begun = matches!(tenant.parked, Belongings::Session(_));
        let mut session = match tenant.parked {
            Belongings::Newcomer { teasing } => {
                self.sessions_seen += 1;
                let mut session =
                    Session::new(row.since, self.sessions_seen, tenant.slot, tenant.peer);
                session.flags.sending = teasing;
                session
            }
            Belongings::Session(parked) => {
                let number = parked.number(self.sessions_seen);
                let accepted = parked.accepted(row.since);
                let mut session = Session::new(accepted, number, tenant.slot, tenant.peer);
                session.bytes_in = parked.bytes_in.into();
                session.bytes_out = parked.bytes_out.into();
                let idle = self.config.smtp.timeouts.idle;
                session.relay = Dialogue::Multiplexed(Relay::resume(parked.relay, self.now, idle));
                session
            }
        };
        let stats = session.relay.stats();
        (session.errors_seen, session.junk_seen) = (stats.errors, stats.junk);
        session.errors = tenant.errors;
        let here = millis(self.now.since(row.since));
        session.parked_millis = tenant.parked_before.saturating_add(here);
        session.standing = tenant.standing;
        session.listener = tenant.listener;
        if let Some(facts) = self.wire.facts(tenant.slot) {
            session.secrecy = Secrecy::Inside(facts);
        }
        session.introduction = introduction;
        if !begun {
            return self.add_session(session);
        }
        if how != PitEnd::Promoted {
            // It is a session only to hear its last words.
            let findings = self.end_inquiry_beside(tenant.slot);
            let key = self.add_session(session)?;
            self.inquiries.part_with(key, findings);
            return Some(key);
        }
        let ip = SocketAddr::from(tenant.peer).ip();
        self.begin_inquiry(tenant.slot, ip, tenant.standing);
        let key = self.add_session(session)?;
        self.helo_said(key);
        Some(key)
    }

    pub(super) fn row_left(&mut self, id: RowId) {
        if let Some(row) = self.pit.take(id) {
            self.row_ended(&row, PitEnd::Left);
            let tenant = &row.tenant;
            let greeted = !matches!(tenant.parked, Belongings::Newcomer { .. });
            if !greeted && !tenant.standing.is_beyond_doubt() {
                self.remember_of(tenant.peer.ip(), Deed::HangUp);
            }
            self.close_slot(row.tenant.slot, Close::Now);
            self.forget_row(&row);
        }
    }

    /// Ends a parked client: the line it is in the middle of is completed, then comes the reason, on a line of its own.
    pub(super) fn cut_row(&mut self, row: Row<Belongings>, how: PitEnd, reply: &ReplyText) {
        let teasing = matches!(row.tenant.parked, Belongings::Newcomer { teasing: true });
        if teasing || row.is_in_flight() {
            return self.cut_after_flight(row, how, reply);
        }
        self.row_ended(&row, how);
        let mut last_words = self.flights.take(0);
        if row.is_mid_reply() {
            last_words.extend_from_slice(row.rest());
        }
        last_words.extend_from_slice(reply.as_bytes());
        self.wire.send(row.tenant.slot, last_words);
        self.close_slot(row.tenant.slot, Close::Linger);
        self.forget_row(&row);
    }

    /// The same while bytes are under way: as a session, it can wait until they are out.
    fn cut_after_flight(&mut self, row: Row<Belongings>, how: PitEnd, reply: &ReplyText) {
        let rest = row.rest_after_drip().to_vec();
        let Some(key) = self.session_of(row, how) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.flags.sending = true;
            session.ended = Ended::Pit;
            session.out.extend_from_slice(&rest);
        }
        self.relay_step(key, |relay, cx| relay.refuse(cx, reply));
    }

    fn row_ended(&mut self, row: &Row<Belongings>, how: PitEnd) {
        self.parked_secure -= u32::from(self.wire.is_secure(row.tenant.slot));
        self.counters.pit_ended.at(how).inc();
        self.counters.pit_seconds.observe(self.now.since(row.since));
        self.counters.pit_rows.set(self.pit.len() as u64);
        if !self.ahead.is_empty() {
            self.ahead.take(row.tenant.slot);
        }
    }

    /// Writes the last line of a client that ends as a row.
    fn forget_row(&mut self, row: &Row<Belongings>) {
        let introduction = self.introductions.take(row.tenant.slot);
        let findings = self.end_inquiry_beside(row.tenant.slot);
        self.count_score(findings);
        self.log_parked_end(row, &introduction, findings, Ended::Pit);
        self.leave(row.tenant.standing, row.tenant.errors);
    }
}
