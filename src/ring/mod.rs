//! The hot ring: direct descriptors, provided buffers and sends behind a safe API.

pub mod wire;

pub use wire::{BufferId, Close, Event, Group, Owner, Part, ReceiveEnd, SlotId, Wire};
