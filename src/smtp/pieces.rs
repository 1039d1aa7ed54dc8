//! Names for bytes that live elsewhere: the driver's buffers.

/// A buffer of the driver. Opaque here: only the driver knows whose storage it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BufferId(pub u32);
