//! What a client has done, written into the memory of networks: at the end of transactions and sessions, and when an upstream
//! refuses a recipient.
//!
//! Nobody is remembered for what weir itself has decided by reputation: that would be held against them twice, and for
//! ever. Clients beyond doubt and those that a server has authenticated are not remembered at all.

use std::net::IpAddr;

use weir_smtp::relay::Outcome;

use crate::metrics;
use crate::policy::Finding;
use crate::policy::news::Deed;
use crate::ring::Wire;

use super::session::Session;
use super::slab::Key;
use super::world::World;

impl<W: Wire> World<W> {
    /// A session's client has done something.
    pub(super) fn remember(&mut self, session: Key, deed: Deed) {
        let Some(session) = self.sessions.get(session) else {
            return;
        };
        if is_remembered(session) {
            self.remember_of(session.peer.ip(), deed);
        }
    }

    /// The same where there is no session, or none any more.
    pub(super) fn remember_of(&mut self, ip: IpAddr, deed: Deed) {
        if !self.memory.config().on {
            return;
        }
        let asn = self.asn_of(ip);
        self.memory.did(ip, asn, deed, self.wall());
    }

    /// A finding about the protocol is one deed of a session, however often it is found.
    pub(super) fn remember_finding(&mut self, key: Key, finding: Finding) {
        use Finding::{ForgedProxy, ForgedXclient, NonSmtp, Pipelining, Pregreet, TlsInjection};
        let is_protocol = matches!(
            finding,
            Pregreet | Pipelining | NonSmtp | TlsInjection | ForgedProxy | ForgedXclient
        );
        if !is_protocol {
            return;
        }
        let inquiry = self.inquiry_of(key);
        let Some(entry) = inquiry.and_then(|inquiry| self.inquiries.get_mut(inquiry)) else {
            return;
        };
        if !std::mem::replace(&mut entry.misbehaved, true) {
            self.remember(key, Deed::Protocol);
        }
    }

    /// A transaction has ended: taken by an upstream, or refused by it after all of it was read.
    pub(super) fn remember_transaction(&mut self, key: Key) {
        let ended = self
            .sessions
            .get(key)
            .and_then(|session| session.relay.ended());
        let deed = ended.and_then(|ended| match ended.outcome {
            Outcome::Accepted => Some(Deed::Accepted),
            Outcome::Rejected if ended.upstream.is_some() && ended.end_of_data.is_some() => {
                Some(Deed::Refused)
            }
            _ => None,
        });
        if let Some(deed) = deed {
            self.remember(key, deed);
        }
    }

    /// A session has ended: by hanging up, before it had begun any mail?
    pub(super) fn remember_end(&mut self, session: &Session) {
        let left = matches!(
            session.ended,
            metrics::Ended::ClientClosed | metrics::Ended::ClientReset
        );
        if left && session.relay.stats().transactions == 0 && is_remembered(session) {
            self.remember_of(session.peer.ip(), Deed::HangUp);
        }
    }

    /// An upstream has answered to RCPT that it does not know the recipient (RFC 3463, 3.2).
    pub(super) fn remember_recipient(&mut self, key: Key, code: u16, reply: &[u8]) {
        let status = reply.get(4..).unwrap_or_default();
        let unknown = [&b"5.1.1"[..], b"5.1.10"].into_iter().any(|known| {
            let rest = status.strip_prefix(known);
            rest.is_some_and(|rest| !rest.first().is_some_and(u8::is_ascii_digit))
        });
        if code == 550 && unknown {
            self.remember(key, Deed::UnknownRecipient);
        }
    }

    /// The provider of an address: as it is remembered, or as the file says.
    pub(super) fn asn_of(&self, ip: IpAddr) -> u32 {
        let known = self.memory.networks().find(self.memory.network_of(ip));
        match known.map_or(0, |network| network.asn) {
            0 => self.lore.places.find(ip).asn,
            asn => asn,
        }
    }
}

fn is_remembered(session: &Session) -> bool {
    !session.standing.is_beyond_doubt() && !session.relay.is_authenticated()
}
