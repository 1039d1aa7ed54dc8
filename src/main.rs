//! Flags to configuration to shards to exit code; no decisions.

fn main() {}
