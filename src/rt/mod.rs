//! The executors that host the shards, their placement and their mailboxes.
