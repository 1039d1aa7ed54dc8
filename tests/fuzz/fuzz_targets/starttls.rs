//! The switch to TLS on both legs: whatever was said in plaintext, what follows is as if it had not been, and nothing behind an upstream's 220
//! passes. The input is three octets of choice and text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_smtp::starttls::twins::play;

fuzz_target!(|moves: &[u8]| {
    play(moves);
});
