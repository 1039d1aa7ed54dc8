//! What a socket is before it is on the ring: listeners, their options, and the steering of clients to shards.

mod limits;
mod listener;
mod options;
mod steering;

pub use limits::{Bounds, Limit};
pub use listener::{CloseTogether, ListenerConfig, ListenerGroup};
pub use options::SocketOptions;
pub use steering::Steer;
