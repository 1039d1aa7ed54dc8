//! Whether a client may be let into a tunnel: what is said there passes no gate, so there must be nothing that a gate could
//! still say to it.

use crate::policy::Finding;
use crate::policy::names::Wants;
use crate::ring::Wire;

use super::super::slab::Key;
use super::super::world::World;

impl<W: Wire> World<W> {
    /// Whether no recipient of this client would be refused for what is known of it, whoever it is. Answers are not waited for:
    /// who could still be refused goes on in the clear, and is judged there.
    pub(in super::super) fn is_unsuspected(&self, session: Key) -> bool {
        let Some(inquiry) = self.inquiry_of(session) else {
            return true;
        };
        let refuses = |finding| self.policy.config().actions.of(finding).refuses();
        let traps = refuses(Finding::Spamtrap) && !self.lore.spamtraps.is_empty();
        let by_sender = traps || Wants::SENDER.into_iter().any(refuses);
        !by_sender
            && self.is_decided(inquiry)
            && self.refusal_of(inquiry).is_none()
            && !(refuses(Finding::Greylist) && self.is_to_come_again(session))
    }

    fn is_to_come_again(&self, session: Key) -> bool {
        let ip = self.sessions.get(session).map(|session| session.peer.ip());
        let proven = ip.is_some_and(|ip| self.memory.is_proven(ip, self.wall()));
        !proven && self.is_greylisted(session)
    }
}
