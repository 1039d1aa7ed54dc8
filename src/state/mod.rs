//! What lasts: the memory of networks and greylisted tuples, on disk and shared with other hosts. On threads of its own, never on the data path.
//!
//! ```text
//!   shards --news, once a second--> control --+--> the other shards
//!                                             +--> keeper.rs   a thread: file.rs (redb), pending.rs (not yet written)
//!                                             +--> sharing.rs  a task: codec.rs, a stream on the server of other hosts
//! ```
//! Everything passes as [`crate::policy::news::News`]: what a shard has learnt, what a file gave back at the start, what another
//! host has written. The shards merge; so does the file (record.rs). Losing any of it costs precision, never mail.

mod budgets;
pub mod codec;
mod file;
mod keeper;
mod pending;
pub mod record;
mod server;
mod sharing;

pub use file::reach;
pub use keeper::{Deliver, Keeper, Keeping, Room, View, Wall};
pub use record::Lives;
pub use server::Server;
pub use sharing::{Meeting, Sharing, SharingView};

/// Memory of the keeper at most: redb's cache, and what is pending at some 96 bytes an entry.
pub const MEMORY_MAX: u64 = file::CACHE as u64 + 96 * pending::PENDING_MAX as u64;
