//! A reply is read as its slow twin reads it, and a resolver that has asked believes it only if it answers the question. The first byte says of what
//! kind that is, the rest is the message.
//!
//! The module is compiled here by itself: it needs nothing of weir but the protocol core's time.
#![no_main]

#[allow(dead_code, unused_imports)]
#[path = "../../../src/dns/mod.rs"]
mod dns;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| dns::naive::fuzz(data));
