//! The control thread: admin HTTP, signals, reload, name resolution.
