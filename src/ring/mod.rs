//! The hot ring: direct descriptors, provided buffers and sends behind a safe API.
