//! What came of a question, and until when that holds.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use weir_smtp::time::Moment;

use super::Name;

/// An answer, from a server or from the cache. Cheap to clone.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Answer {
    pub outcome: Outcome,
    /// It may be used until then; bounded below and above by the resolver's configuration.
    pub until: Moment,
}

#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Outcome {
    /// At least one record of the kind asked for, CNAMEs followed.
    Records(Records),
    /// The name exists and has none of this kind.
    NoData,
    /// The name does not exist.
    NoName,
    /// Nobody knows: never to be taken for either of the above.
    Failed(Failure),
}

/// Records of one kind. At most as many as the resolver's configuration allows; the rest is cut.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Records {
    A(Arc<[Ipv4Addr]>),
    Aaaa(Arc<[Ipv6Addr]>),
    Ptr(Arc<[Name]>),
    /// Preference and exchange, best first; the root as the exchange: a null MX (RFC 7505).
    Mx(Arc<[(u16, Name)]>),
    /// Character strings of one record joined.
    Txt(Arc<[Box<[u8]>]>),
}

/// Why there is no answer.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Failure {
    /// No server answered in time.
    Timeout,
    /// SERVFAIL, REFUSED and their like, from all that were asked.
    Server,
    /// More questions are open than may be.
    Busy,
    /// No resolver is configured.
    NoServer,
}
