//! What lasts: the memory of networks and greylisted tuples, on disk and shared with other hosts. On threads of its own, never on the data path.
