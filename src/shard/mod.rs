//! One core's world: sessions, upstream connections, timers, the pit.

pub mod pit;
pub mod slab;
pub mod wheel;
