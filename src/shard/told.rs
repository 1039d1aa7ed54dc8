//! What upstreams that clients share are told of each: XFORWARD ahead of a transaction, or a Received field above its message. Connections
//! that serve one client alone are another file's business.

use std::net::SocketAddr;

use weir_smtp::received::{self, Trace};
use weir_smtp::xclient::{ClientFacts, write_xforward};

use crate::ring::Wire;
use crate::route::Identity;

use super::session::Session;
use super::slab::Key;
use super::world::World;

/// Commands and fields mostly fit into this.
const ROOM: usize = 512;

/// What is known of a client, to be passed on.
pub(super) fn facts_of(session: &Session) -> ClientFacts<'_> {
    let introduction = session.introduction.as_deref();
    ClientFacts {
        address: session.peer.into(),
        name: introduction.and_then(|told| told.name.as_deref()),
        helo: session.relay.helo(),
        esmtp: session.relay.is_esmtp(),
        destination: introduction.and_then(|told| told.destination),
        login: introduction.and_then(|told| told.login.as_deref()),
    }
}

impl<W: Wire> World<W> {
    /// The connection that a session was given hears whom it serves next, if it wants to know.
    pub(super) fn forward_client(&mut self, key: Key, leg: Key) {
        if self.config.identity != Identity::Xforward {
            return;
        }
        let (Some(session), Some(leg)) = (self.sessions.get(key), self.legs.get_mut(leg)) else {
            return;
        };
        let mut commands = self.flights.take(ROOM);
        let understood = leg.outbound.capabilities().xforward;
        if write_xforward(&mut commands, &facts_of(session), understood) {
            leg.outbound.xforward(&commands);
        }
        self.flights.give_back(commands);
    }

    /// A message is about to come.
    pub(super) fn stamp_message(&mut self, key: Key) {
        if self.config.identity != Identity::Received {
            return;
        }
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let tls = session.slot.and_then(|slot| self.wire.facts(slot));
        let known = tls.map(|facts| (facts.version.name(), facts.suite()));
        let introduction = session.introduction.as_deref();
        let secured = known.is_some() || introduction.is_some_and(|told| told.secured);
        let trace = Trace {
            by: &self.config.smtp.hostname,
            address: SocketAddr::from(session.peer).ip(),
            name: introduction.and_then(|told| told.name.as_deref()),
            helo: session.relay.helo(),
            esmtp: session.relay.is_esmtp(),
            utf8: session
                .relay
                .envelope()
                .is_some_and(|envelope| envelope.is_smtputf8()),
            tls: secured.then_some(known),
            at: self.log.wall_seconds(self.now),
        };
        let transaction = session.relay.stats().transactions;
        let id = format_args!("{}.{:x}.{transaction}", self.shard, session.number);
        let mut field = self.flights.take(ROOM);
        received::write(&mut field, &trace, &id);
        if let Some(session) = self.sessions.get_mut(key) {
            session.relay.stamp(&field);
        }
        self.flights.give_back(field);
    }
}
