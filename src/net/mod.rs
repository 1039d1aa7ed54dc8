//! What a socket is before it is on the ring: listeners, steering, options, addresses.
