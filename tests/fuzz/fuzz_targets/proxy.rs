//! The PROXY header: an answer that more input does not change, and no answer about octets behind the header.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../../src/net/proxy.rs"]
mod proxy;

use proxy::{HEADER_MAX, LINE_MAX, Parsed, looks_like_header, parse};

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    match whole {
        // No prefix of what is still incomplete is more than that; and it does not go on for ever.
        Ok(Parsed::Incomplete) => {
            let most = if data.first() == Some(&b'P') {
                LINE_MAX
            } else {
                HEADER_MAX
            };
            assert!(data.len() < most);
            for cut in 0..data.len() {
                assert_eq!(parse(&data[..cut]), Ok(Parsed::Incomplete));
            }
        }
        Ok(Parsed::Whole(_, len)) => {
            assert!(looks_like_header(data));
            assert_eq!(parse(&data[..len]), whole);
            assert_eq!(parse(&data[..len - 1]), Ok(Parsed::Incomplete));
        }
        Err(why) => {
            let mut longer = data.to_vec();
            longer.extend_from_slice(b"\r\n\0");
            assert_eq!(parse(&longer), Err(why));
            assert!(!why.word().is_empty());
        }
    }
});
