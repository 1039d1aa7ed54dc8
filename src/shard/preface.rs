//! What a mail server is told ahead of everything else, on a connection that speaks for one client: a PROXY header as its
//! first octets, or XCLIENT once the client's name is known.

use std::net::{IpAddr, SocketAddr};

use weir_smtp::outbound::LegLost;
use weir_smtp::xclient::write_xclient;

use crate::maillog::Value;
use crate::metrics::{ClosedLeg, Way};
use crate::net::{ProxyVersion, Spoken, write_proxy};
use crate::ring::Wire;
use crate::route::Identity;

use super::session::Session;
use super::slab::Key;
use super::told::facts_of;
use super::world::World;

impl<W: Wire> World<W> {
    /// A connection is there: whom it speaks for is said first, then it is listened to.
    pub(super) fn greet_leg(&mut self, key: Key) {
        let Some(leg) = self.legs.get_mut(key) else {
            return;
        };
        let (own, slot) = (leg.own, leg.slot);
        if let Some(preface) = leg.preface.take() {
            leg.sending = true;
            leg.prefacing = leg.begins_with_tls();
            self.counters
                .upstream_bytes
                .at(Way::Out)
                .add(preface.len() as u64);
            self.wire.send(slot, preface);
        }
        if !self.legs.get(key).is_some_and(|leg| leg.prefacing) {
            self.listen_to_leg(key);
        }
        if own {
            self.own_leg_connected(key);
        }
    }

    /// The client's EHLO is about to go up: the server is told of the client first. One that does not want to hear of it
    /// would take the client for weir, and is not used.
    pub(super) fn introduce(&mut self, key: Key) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let Some(leg_key) = session.leg else {
            return;
        };
        let Some(leg) = self.legs.get_mut(leg_key) else {
            return;
        };
        let facts = facts_of(session);
        let mut commands = Vec::new();
        let understood = leg.outbound.capabilities().xclient;
        if !write_xclient(&mut commands, &facts, understood) {
            let address = leg.address;
            let fields = [("address", Value::Address(address))];
            self.log.event(self.now, "xclient_not_offered", &fields);
            return self.lose_leg(leg_key, LegLost::Unwelcome, ClosedLeg::Protocol);
        }
        leg.outbound.introduce(commands);
        self.relay_call(key, |relay, cx| relay.handle_introduced(cx));
    }

    /// The header for a session's own connection.
    pub(super) fn preface_of(&self, session: &Session) -> Option<Vec<u8>> {
        let client = SocketAddr::from(session.peer);
        let tls = session.slot.and_then(|slot| self.wire.facts(slot));
        let here = self
            .config
            .dedicated
            .listeners
            .get(usize::from(session.listener));
        let spoken = Spoken {
            client,
            destination: session.destination().or(here.copied()).unwrap_or(client),
            tls: tls.map(|facts| facts.version.name()),
            // What the proxy in front of weir was asked for; more than it told is not known.
            name: session
                .introduction
                .as_ref()
                .and_then(|told| told.authority.as_deref())
                .and_then(|name| str::from_utf8(name).ok()),
        };
        preface(self.config.identity, Some(&spoken))
    }

    /// The header for a connection of weir's own. Version 1 has a word for that, UNKNOWN, which Postfix does not take (3.7,
    /// smtpd and postscreen): so weir speaks for itself there.
    pub(super) fn preface_of_weir(&self, to: SocketAddr) -> Option<Vec<u8>> {
        let alike = |own: &&IpAddr| {
            own.is_ipv4() == to.is_ipv4() && own.is_loopback() == to.ip().is_loopback()
        };
        let own = self.config.dedicated.addresses.iter().find(alike);
        let spoken = own.map(|own| Spoken {
            client: SocketAddr::new(*own, 0),
            destination: to,
            tls: None,
            name: None,
        });
        match self.config.identity {
            Identity::ProxyV1 => preface(Identity::ProxyV1, spoken.as_ref()),
            other => preface(other, None),
        }
    }
}

/// What a mail server is told before anything else; a server that expects a header waits for it. `None` in `spoken`: the
/// connection is weir's own.
fn preface(identity: Identity, spoken: Option<&Spoken<'_>>) -> Option<Vec<u8>> {
    let version = match identity {
        Identity::ProxyV1 => ProxyVersion::Text,
        Identity::ProxyV2 => ProxyVersion::Binary,
        _ => return None,
    };
    let mut header = Vec::new();
    write_proxy(&mut header, version, spoken);
    Some(header)
}
