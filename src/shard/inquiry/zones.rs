//! DNS lists: which of them are asked, what their answers mean, and what a client that is on one is told.

use weir_smtp::gate::Verdict;

use crate::dns::Answer;
use crate::policy::verdict::verdict;
use crate::policy::{Action, Finding};
use crate::ring::Wire;

use super::super::lookups::About;
use super::super::slab::Key;
use super::super::world::World;

impl<W: Wire> World<W> {
    /// A client was admitted: each list is asked for its address, by [`World::inquire`].
    pub(super) fn ask_zones(&mut self, inquiry: Key) {
        let _ = inquiry;
    }

    /// A list has answered ([`About::Zone`]), or told its reason ([`About::Reason`]): into marks, by [`World::mark`].
    pub(super) fn zone_answered(&mut self, inquiry: Key, about: About, answer: &Answer) {
        let _ = (inquiry, about, answer);
    }

    /// What a list is called in public.
    pub(in super::super) fn zone_word(&self, zone: u16) -> String {
        zone.to_string()
    }

    /// The reply to a client that is refused for a finding.
    pub(super) fn refusal_for(&self, inquiry: Key, finding: Finding, action: Action) -> Verdict {
        let _ = inquiry;
        verdict(finding, action)
    }
}
