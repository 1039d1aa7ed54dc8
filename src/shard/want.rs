//! What a session asks of the pool, and how long it has waited for it.

use std::time::Duration;

use weir_smtp::extension::ExtensionSet;
use weir_smtp::gate::RouteId;
use weir_smtp::relay::UpstreamId;
use weir_smtp::time::Moment;

use crate::route::Tried;

use super::waiters::Ticket;

/// The upstream connection a session waits for, and what it must not be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    pub ticket: Ticket,
    pub needs: ExtensionSet,
    pub route: RouteId,
    pub since: Moment,
    /// Milliseconds after `since`: when it is looked whether waiting is still worth it.
    pub patience: u32,
    /// Milliseconds that the transaction waited, all attaches together.
    pub waited: u32,
    /// Endpoints that failed this transaction.
    pub tried: Tried,
    /// The upstream that has accepted recipients of it.
    pub prefer: Option<UpstreamId>,
}

impl Want {
    /// How long it is worth waiting.
    pub fn be_patient_for(&mut self, span: Duration) {
        self.patience = u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
    }

    pub fn until(&self) -> Moment {
        self.since + Duration::from_millis(self.patience.into())
    }

    /// A wait has ended, with a connection or without: it is added to the transaction's.
    pub fn waited_until(&mut self, now: Moment) -> Duration {
        let waited = now.since(self.since);
        let millis = u32::try_from(waited.as_millis()).unwrap_or(u32::MAX);
        self.waited = self.waited.saturating_add(millis);
        waited
    }
}
