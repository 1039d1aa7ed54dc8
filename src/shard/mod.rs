//! One core's world: sessions, upstream connections, timers, the pit.
