//! The hot ring on real sockets of the loopback device.
//!
//! Goal: what the trait `Wire` promises, at the limits of every table and under the races that the kernel can produce.
//! Method: the ring and plain blocking sockets take turns on one thread, so that each test says in which order things happen;
//! races are brought about by doing the racing things in the same turn, both ways around.

mod bench;

mod buffers;
mod closing;
mod limits;
mod moving;
mod receiving;
mod sending;
mod waking;
