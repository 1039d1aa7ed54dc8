//! Names: of the client's address, of HELO, of the sender's domain.

use crate::dns::Answer;
use crate::ring::Wire;

use super::super::lookups::About;
use super::super::slab::Key;
use super::super::world::World;

impl<W: Wire> World<W> {
    /// A client was admitted: what is its address called?
    pub(super) fn ask_reverse(&mut self, inquiry: Key) {
        let _ = inquiry;
    }

    /// HELO was read, not for the first time perhaps; `session.relay.helo()` is its name.
    pub(super) fn ask_helo(&mut self, inquiry: Key, session: Key) {
        let _ = (inquiry, session);
    }

    /// MAIL was read; `session.relay.envelope()` has the sender. Marks of the sender before are to be taken back.
    pub(super) fn ask_sender(&mut self, inquiry: Key, session: Key) {
        let _ = (inquiry, session);
    }

    /// An answer about one of them: into marks, or into further questions.
    pub(super) fn name_answered(&mut self, inquiry: Key, about: About, answer: &Answer) {
        let _ = (inquiry, about, answer);
    }
}
