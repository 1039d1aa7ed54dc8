//! One table of metrics, plain per-shard counters, merged at scrape.
