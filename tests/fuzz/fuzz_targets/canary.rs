//! Must fail: a fuzzer that does not find "MAIL" behind a length of its own finds nothing else either.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if data.len() > 3 && data[0] == b'M' && data[1] == b'A' && data[2] == b'I' && data[3] == b'L' {
        panic!("the canary was found");
    }
});
