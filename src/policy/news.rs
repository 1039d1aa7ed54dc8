//! What a shard has learnt and the others, other hosts and the next start should know: small, additive, in any order.
//!
//! Each shard keeps the whole memory of networks for itself and writes down what happens as it happens; the control thread
//! gathers that about once a second, keeps it, and passes it on. Applied twice or in another order it does little harm:
//! counts are added up, times are compared.

use super::clients::ClientKey;

/// Seconds since 1970.
pub type Seconds = u32;

/// A sender, a recipient and a network: SHA-256 over the three, cut to 64 bits, so that all hosts agree on it.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct TupleKey(pub u64);

/// What is counted of a network.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
#[repr(u8)]
pub enum Deed {
    /// A message that an upstream took.
    Accepted,
    /// A message that was refused for good.
    Refused,
    /// A recipient that an upstream does not know.
    UnknownRecipient,
    /// A recipient of --spamtraps.
    Spamtrap,
    /// A finding about the protocol: pregreet, pipelining, not SMTP.
    Protocol,
    /// It hung up before it had sent anything.
    HangUp,
}

impl Deed {
    pub const COUNT: usize = Deed::HangUp as usize + 1;
}

/// One thing to know.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum News {
    /// A greylisted tuple was first seen then: the earliest counts.
    Tuple { key: TupleKey, first: Seconds },
    /// A network has passed greylisting: the latest counts.
    Proven { network: ClientKey, until: Seconds },
    /// A network has written to a spamtrap: the latest counts.
    Trapped { network: ClientKey, until: Seconds },
    /// Things a network has done, each so many times, as of then.
    Deeds {
        network: ClientKey,
        /// Its autonomous system; 0: not known.
        asn: u32,
        at: Seconds,
        counts: [u16; Deed::COUNT],
    },
}
