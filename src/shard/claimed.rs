//! XCLIENT from trusted peers: a session whose client is another one from now on (Postfix, XCLIENT_README).
//!
//! A peer of `--trust` is shown XCLIENT in EHLO, and what it claims replaces the client in every book: limits, lists, log, and what mail
//! servers are told. Several commands add up, and the next client of the same connection replaces the one before. Who else
//! tries is refused: finding `forged-xclient`.
//!
//! The session stays on its shard, in the middle of a connection as it is: limits of clients known this way hold per shard.

use std::net::SocketAddr;

use weir_smtp::gate::Verdict;
use weir_smtp::xclient::{Claim, Said};

use crate::policy::Finding;
use crate::ring::Wire;

use super::introduction::Introduction;
use super::session::Session;
use super::slab::Key;
use super::world::World;

impl<W: Wire> World<W> {
    /// Whether whoever speaks on a session's connection may speak for others. Looked up and not kept: a session has no byte left for it.
    pub(super) fn may_introduce(&self, session: &Session) -> bool {
        if self.config.proxied.trust.is_empty() {
            return false;
        }
        let claimed = session.introduction.as_ref().filter(|told| told.claimed);
        let speaker = claimed.and_then(|told| told.by);
        self.is_trusted(speaker.unwrap_or(session.peer.into()))
    }

    /// XCLIENT was read, outside a transaction.
    pub(super) fn claimed(&mut self, key: Key, claim: &Claim) {
        let trusted = |session| self.may_introduce(session);
        if !self.sessions.get(key).is_some_and(trusted) {
            return self.forged_claim(key);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before: SocketAddr = session.peer.into();
        let mut introduction = session.introduction.take().unwrap_or_default();
        let destination = introduction.destination;
        let client = introduce(&mut introduction, before, claim);
        let service = self.config.services[usize::from(session.listener)];
        if service.intercept.is_some() {
            // Where this connection goes is what the packets say.
            introduction.destination = destination;
        }
        session.introduction = Some(introduction);
        session.peer = client.into();
        let verdict = match client.ip() == before.ip() {
            true => Verdict::Pass,
            false => self.judge_again(key, client),
        };
        // The relay asks before it greets.
        self.welcome = Some(verdict);
        self.relay_call(key, |relay, cx| relay.handle_claim(cx, Some(claim)));
    }

    /// Another client has the session: the books of the one before are closed.
    fn judge_again(&mut self, key: Key, client: SocketAddr) -> Verdict {
        let Some(session) = self.sessions.get(key) else {
            return Verdict::Pass;
        };
        let (standing, errors) = (session.standing, session.errors);
        self.policy.disconnected(standing, errors, self.now);
        let rung = self.ladder.rung();
        let admission = self.policy.connected(client.ip(), rung, self.now);
        if let Some(session) = self.sessions.get_mut(key) {
            session.standing = admission.standing;
            session.errors = admission.errors;
        }
        self.begin_inquiry_anew(key);
        self.feel_temper(key);
        self.take_note(key, &admission.ruling, "xclient");
        admission.ruling.verdict
    }

    fn forged_claim(&mut self, key: Key) {
        let Some(standing) = self.sessions.get(key).map(|session| session.standing) else {
            return;
        };
        let ruling = self
            .policy
            .found(standing, Finding::ForgedXclient, self.now);
        self.take_note(key, &ruling, "xclient");
        self.relay_call(key, |relay, cx| match &ruling.verdict {
            Verdict::Close(reply) => relay.refuse(cx, reply),
            // Whatever policy thinks of it, it is not obeyed: 550.
            _ => relay.handle_claim(cx, None),
        });
    }
}

/// Adds what a claim says to what was known. Returns the client; one without an address is known by its speaker's.
fn introduce(told: &mut Introduction, before: SocketAddr, claim: &Claim) -> SocketAddr {
    if !told.claimed {
        // What a PROXY header told was about the speaker.
        *told = Introduction {
            by: Some(before),
            claimed: true,
            ..Introduction::default()
        };
    }
    let speaker = told.by.unwrap_or(before);
    if claim.addr.is_some() {
        // The next client: what was said of the one before is not true of it.
        *told = Introduction {
            by: told.by,
            claimed: true,
            ..Introduction::default()
        };
    }
    replace(&mut told.name, &claim.name);
    replace(&mut told.login, &claim.login);
    let port = |port: &Option<Said<u16>>| port.as_ref().and_then(Said::known).copied();
    if let Some(addr) = &claim.destination_addr {
        let to = port(&claim.destination_port).unwrap_or(25);
        told.destination = addr.known().map(|ip| SocketAddr::new(*ip, to));
    } else if let (Some(to), Some(port)) = (&mut told.destination, port(&claim.destination_port)) {
        to.set_port(port);
    }
    let mut client = match &claim.addr {
        None => before,
        Some(Said::Is(ip)) => SocketAddr::new(*ip, 0),
        Some(Said::Unavailable | Said::NotNow) => speaker,
    };
    if let Some(port) = port(&claim.port) {
        client.set_port(port);
    }
    client
}

fn replace(known: &mut Option<Box<[u8]>>, said: &Option<Said<Box<[u8]>>>) {
    if let Some(said) = said {
        *known = said.known().cloned();
    }
}
