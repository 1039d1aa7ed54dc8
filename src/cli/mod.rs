//! What was typed, what it means, and whether this host is fit.
