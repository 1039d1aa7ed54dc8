//! What another host has written is read or refused; what was read is written as it was. The first octet says whether a digest is put behind
//! the rest, or none would ever fit.
//!
//! The codec is compiled here by itself, with the few names it knows of weir.
#![no_main]
#![allow(dead_code)] // parts of them are for the shards

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/state/codec.rs"]
mod codec;

#[path = "../../../src/policy/client_key.rs"]
mod clients;
#[path = "../../../src/net/prefix.rs"]
mod net;
#[path = "../../../src/policy/news.rs"]
mod news;

mod policy {
    pub(crate) use crate::{clients, news};
}

fuzz_target!(|input: &[u8]| codec::fuzz(input));
