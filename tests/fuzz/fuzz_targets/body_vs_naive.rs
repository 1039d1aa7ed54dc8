//! The body scanner against its slow twin: same content, same DATA form, same end, same findings, however the bytes are cut; and nothing that
//! leaves by DATA reads as an end of data. The first three bytes say where to cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_smtp::body::BareNewline;
use weir_smtp::naive::{read_chunks, read_data, scan_chunks, scan_data};

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first_chunk::<3>() else {
        return;
    };
    let mut cuts: Vec<usize> = choice
        .iter()
        .map(|&cut| usize::from(cut) * bytes.len() / 255)
        .collect();
    cuts.sort_unstable();
    for policy in [
        BareNewline::Reject,
        BareNewline::Normalize,
        BareNewline::Pass,
    ] {
        let by_data = scan_data(policy, bytes, &cuts);
        assert_eq!(by_data, read_data(policy, bytes));
        let by_chunks = scan_chunks(policy, bytes, &cuts, true);
        assert_eq!(by_chunks, read_chunks(policy, bytes, true));
        if policy == BareNewline::Pass {
            continue;
        }
        for outcome in [by_data, by_chunks] {
            let mut wire = b"\r\n".to_vec();
            wire.extend_from_slice(&outcome.wire);
            assert!(!wire.windows(5).any(|window| window == b"\r\n.\r\n"));
        }
    }
});
