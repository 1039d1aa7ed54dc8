//! One function per log event: fixed words, peer bytes escaped.
