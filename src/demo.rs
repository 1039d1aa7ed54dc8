//! The embedded sink: an upstream inside the process, for the first minute and for tests.
