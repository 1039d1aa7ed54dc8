//! Upstream sets: choice, health, weights.
