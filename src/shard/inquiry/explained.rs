//! An inquiry without a session: control wants to know what would be found of an address.

use std::net::IpAddr;

use weir_smtp::time::Moment;

use crate::policy::finding::FindingSet;
use crate::ring::Wire;

use super::super::lookups::About;
use super::super::slab::Key;
use super::super::who::Who;
use super::super::world::World;
use super::{Inquiries, Inquiry, Of};

impl Inquiries {
    /// Inquiries of sessions of this address.
    pub fn of_sessions(&self, ip: IpAddr) -> impl Iterator<Item = &Inquiry> {
        let all = self.slab.iter().map(|(_, entry)| entry);
        all.filter(move |entry| entry.ip == ip && matches!(entry.of, Of::Session(_)))
    }

    pub fn drop_entry(&mut self, inquiry: Key) {
        self.slab.remove(inquiry);
    }
}

impl Inquiry {
    pub fn is_explained(&self) -> bool {
        matches!(self.of, Of::Explained)
    }

    pub fn is_answered(&self) -> bool {
        self.open.is_empty()
    }

    /// When it is looked at again.
    pub fn due(&self) -> Moment {
        self.armed
    }

    pub fn open_questions(&self) -> impl Iterator<Item = About> {
        self.open.iter().map(|open| open.about)
    }
}

impl<W: Wire> World<W> {
    /// Its answers are waited for until then. None: there is no room for another.
    pub(in super::super) fn begin_explained(&mut self, ip: IpAddr, due: Moment) -> Option<Key> {
        let entry = Inquiry {
            armed: due,
            ..Inquiry::new(Of::Explained, ip, FindingSet::EMPTY)
        };
        let inquiry = self.inquiries.slab.insert(entry).ok()?;
        self.wheel.insert(due, Who::Inquiry(inquiry).to_bits());
        Some(inquiry)
    }

    /// What would be asked of a client that has just connected.
    pub(in super::super) fn ask_for_explanation(&mut self, inquiry: Key) {
        self.recall(inquiry);
        self.ask_zones(inquiry);
        self.ask_reverse(inquiry);
    }
}
