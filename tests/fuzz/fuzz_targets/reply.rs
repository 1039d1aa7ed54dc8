//! How a stream of replies is cut does not matter, and what is carried to the client is one reply of the same code.
//! The first byte says where to cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_smtp::extension::parse_ehlo_reply;
use weir_smtp::reply::{Reply, ReplyFault, ReplyReader, carry};

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = read([stream]);
    let at = usize::from(cut) * stream.len() / 255;
    assert_eq!(read([&stream[..at], &stream[at..]]), whole);
    assert_eq!(read(stream.chunks(1)), whole);
    for (code, text) in whole.0 {
        let reply = Reply { code, text: &text };
        parse_ehlo_reply(&text);
        let mut out = Vec::new();
        carry(&mut out, &reply);
        let (replies, fault, empty) = read([&out[..]]);
        // a line may grow beyond the limit by its enhanced status code
        if fault.is_none() {
            assert!(empty);
            assert_eq!(replies, [(code, out.clone())]);
        }
        if matches!(reply.class(), 2 | 4 | 5) {
            let enhanced = Reply { code, text: &out }.enhanced().expect("synthesised");
            assert_eq!(enhanced.0, reply.class());
        }
    }
});

type Replies = (Vec<(u16, Vec<u8>)>, Option<ReplyFault>, bool);

fn read<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Replies {
    let mut reader = ReplyReader::new();
    let mut replies = Vec::new();
    for mut part in parts {
        loop {
            match reader.next(&mut part) {
                Ok(Some(reply)) => replies.push((reply.code, reply.text.to_vec())),
                Ok(None) => break,
                Err(fault) => return (replies, Some(fault), false),
            }
        }
    }
    (replies, None, reader.is_empty())
}
