//! What the memory of networks knows of a client, and what it has to say at RCPT and DATA.

use crate::policy::Ruling;
use crate::ring::Wire;

use super::super::slab::Key;
use super::super::world::World;

impl<W: Wire> World<W> {
    /// A client was admitted: what its network is remembered for becomes marks at once.
    pub(super) fn recall(&mut self, inquiry: Key) {
        let _ = inquiry;
    }

    /// RCPT `index`, before anything is waited for: lists of recipients, spamtraps. The envelope has the recipient.
    pub(in super::super) fn at_trap(&mut self, session: Key, index: u16) -> Ruling {
        let _ = (session, index);
        Ruling::PASS
    }

    /// RCPT `index`, when score and findings have let it pass: greylisting.
    pub(in super::super) fn at_recipient(&mut self, session: Key, index: u16) -> Ruling {
        let _ = (session, index);
        Ruling::PASS
    }

    /// DATA: who came with the null sender was spared at RCPT.
    pub(in super::super) fn at_data(&mut self, session: Key) -> Ruling {
        let _ = session;
        Ruling::PASS
    }
}
