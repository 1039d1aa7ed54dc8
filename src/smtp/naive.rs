//! The slow twin of `body`, for tests and fuzzing: reads a whole message at once, line by line as the rules are worded, without machine,
//! blocks or spans. What both say must be the same, however the bytes were cut.

use alloc::vec::Vec;

use crate::body::{BareNewline, BodyFindings, BodyScanner, EndOfData};
use crate::limits::TEXT_LINE_MAX;
use crate::pieces::{BufferId, Form, Piece, Pieces};

/// What became of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    pub taken: usize,
    pub ended: bool,
    /// As BDAT would send it; nothing if the message is refused.
    pub content: Vec<u8>,
    /// As DATA would send it, without the final dot; nothing if the message is refused.
    pub wire: Vec<u8>,
    pub findings: BodyFindings,
}

/// How a line ends.
#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    CrLf,
    BareLf,
    BareCr,
    /// No more bytes. `true`: they end in a CR of which nobody knows yet whether it is bare.
    Open(bool),
}

/// The oracle for DATA.
pub fn read_data(policy: BareNewline, bytes: &[u8]) -> Outcome {
    // the CRLF that ended the DATA line counts
    let mut stream = b"\r\n".to_vec();
    stream.extend_from_slice(bytes);
    let end = stream.windows(5).position(|window| window == b"\r\n.\r\n");
    let taken = end.map_or(bytes.len(), |at| at + 3);
    let mut body = &bytes[..taken];
    if end.is_some() {
        body = &body[..taken - 3];
    } else if stream.ends_with(b"\r\n.") {
        body = &body[..taken - 1];
    } else if stream.ends_with(b"\r\n.\r") {
        body = &body[..taken - 2];
    }
    judge(policy, true, body, &bytes[..taken], end.is_some())
}

/// The oracle for the chunks of a message, joined; `last`: they are all there.
pub fn read_chunks(policy: BareNewline, bytes: &[u8], last: bool) -> Outcome {
    judge(policy, false, bytes, bytes, last)
}

fn judge(policy: BareNewline, dotted: bool, body: &[u8], taken: &[u8], ended: bool) -> Outcome {
    let (mut content, mut wire) = (Vec::new(), Vec::new());
    let mut findings = header_findings(taken);
    findings.nul = body.contains(&0);
    findings.long_line = taken
        .split_inclusive(|&byte| byte == b'\n')
        .any(|line| line.len() > TEXT_LINE_MAX + b".\r\n".len());
    let mut before = End::CrLf;
    for (mut line, mut end) in lines(body) {
        if dotted && before == End::CrLf && line.first() == Some(&b'.') {
            line = &line[1..];
        }
        if end == End::Open(true) && ended {
            end = End::BareCr;
        }
        findings.bare_lf |= end == End::BareLf;
        findings.bare_cr |= end == End::BareCr;
        let line_starts = before == End::CrLf || policy == BareNewline::Normalize;
        if line_starts && line.first() == Some(&b'.') {
            wire.push(b'.');
        }
        let newline: &[u8] = match (end, policy) {
            (End::Open(false), _) => b"",
            (End::Open(true), _) => b"\r",
            (End::CrLf, _) | (_, BareNewline::Normalize) => b"\r\n",
            (End::BareLf, _) => b"\n",
            (End::BareCr, _) => b"\r",
        };
        for part in [line, newline] {
            content.extend_from_slice(part);
            wire.extend_from_slice(part);
        }
        before = end;
    }
    findings.ends_with_crlf = content.is_empty() || content.ends_with(b"\r\n");
    if policy == BareNewline::Reject && findings.bare_newline() {
        content.clear();
        wire.clear();
    }
    Outcome {
        taken: taken.len(),
        ended,
        content,
        wire,
        findings,
    }
}

/// Cuts at CRLF, at LF and at CR. What follows the last newline is a line too, open.
fn lines(body: &[u8]) -> Vec<(&[u8], End)> {
    let mut lines = Vec::new();
    let mut rest = body;
    loop {
        let len = rest
            .iter()
            .position(|byte| b"\r\n".contains(byte))
            .unwrap_or(rest.len());
        let (line, after) = rest.split_at(len);
        let (end, skip) = match after {
            [] => (End::Open(false), 0),
            [b'\r'] => (End::Open(true), 1),
            [b'\r', b'\n', ..] => (End::CrLf, 2),
            [b'\r', ..] => (End::BareCr, 1),
            _ => (End::BareLf, 1),
        };
        lines.push((line, end));
        rest = &after[skip..];
        if matches!(end, End::Open(_)) {
            return lines;
        }
    }
}

/// The header ends at the first line that is empty but for a CR.
fn header_findings(bytes: &[u8]) -> BodyFindings {
    let mut findings = BodyFindings::default();
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        findings.header_octets += line.len() as u32;
        if line == b"\r\n" || line == b"\n" {
            findings.headers_ended = true;
            break;
        }
        if line.len() >= 9 && line[..9].eq_ignore_ascii_case(b"received:") {
            findings.received += 1;
        }
    }
    findings
}

/// What the scanner makes of DATA that arrives cut at `cuts` (ascending), each part in a buffer of its own.
pub fn scan_data(policy: BareNewline, bytes: &[u8], cuts: &[usize]) -> Outcome {
    let mut scanner = BodyScanner::data(policy);
    let mut pieces = Pieces::new();
    let mut taken = 0;
    let mut end = None;
    for (buffer, start, part) in parts(bytes, cuts) {
        let (len, proof) = scanner.scan_data(buffer, start, part, &mut pieces);
        assert!(
            len == part.len() || proof.is_some(),
            "all is taken unless the end was reached"
        );
        taken += len;
        end = proof;
        if end.is_some() {
            break;
        }
    }
    outcome(
        policy,
        bytes,
        cuts,
        &pieces,
        (taken, end),
        scanner.findings(),
    )
}

/// The same for chunks.
pub fn scan_chunks(policy: BareNewline, bytes: &[u8], cuts: &[usize], last: bool) -> Outcome {
    let mut scanner = BodyScanner::bdat(policy, false);
    let mut pieces = Pieces::new();
    for (buffer, start, part) in parts(bytes, cuts) {
        scanner.scan_chunk(buffer, start, part, &mut pieces);
    }
    let end = last.then(|| scanner.finish_bdat(&mut pieces));
    outcome(
        policy,
        bytes,
        cuts,
        &pieces,
        (bytes.len(), end),
        scanner.findings(),
    )
}

fn outcome(
    policy: BareNewline,
    bytes: &[u8],
    cuts: &[usize],
    pieces: &Pieces,
    (taken, end): (usize, Option<EndOfData>),
    findings: BodyFindings,
) -> Outcome {
    let (mut content, mut wire) = (
        read(pieces, Form::Bdat, bytes, cuts),
        read(pieces, Form::Data, bytes, cuts),
    );
    assert_eq!(content.len() as u64, pieces.wire_len(Form::Bdat));
    assert_eq!(content.len() as u64, pieces.content_len());
    assert_eq!(wire.len() as u64, pieces.wire_len(Form::Data));
    if policy == BareNewline::Reject && findings.bare_newline() {
        content.clear();
        wire.clear();
    }
    Outcome {
        taken,
        ended: end.is_some(),
        content,
        wire,
        findings,
    }
}

/// The buffer that starts at each cut is called after its place; its bytes stand somewhere in the middle of it.
fn parts<'a>(
    bytes: &'a [u8],
    cuts: &'a [usize],
) -> impl Iterator<Item = (BufferId, u32, &'a [u8])> {
    let starts = core::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(core::iter::once(bytes.len()));
    starts
        .zip(ends)
        .enumerate()
        .map(move |(i, (start, end))| (BufferId(i as u32), MARGIN, &bytes[start..end]))
}

const MARGIN: u32 = 77;

fn read(pieces: &Pieces, form: Form, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let buffers: Vec<&[u8]> = parts(bytes, cuts).map(|part| part.2).collect();
    let mut out = Vec::new();
    for piece in pieces.iter(form) {
        match piece {
            Piece::Insert(bytes) => out.extend_from_slice(bytes),
            Piece::Span { buffer, start, len } => {
                let start = (start - MARGIN) as usize;
                out.extend_from_slice(&buffers[buffer.0 as usize][start..start + len as usize]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICIES: [BareNewline; 3] = [
        BareNewline::Reject,
        BareNewline::Normalize,
        BareNewline::Pass,
    ];

    /// Bodies made of what matters, and of runs long enough for the blocks.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            8 => Just(b"\r\n".to_vec()),
            6 => Just(b".".to_vec()),
            3 => Just(b"\r".to_vec()),
            3 => Just(b"\n".to_vec()),
            1 => Just(b"\0".to_vec()),
            4 => Just(b"text".to_vec()),
            1 => Just(b"\r\n.\r\n".to_vec()),
            1 => Just(b"received: x".to_vec()),
            3 => (1usize..300).prop_map(|len| alloc::vec![b'x'; len]),
            1 => (900usize..1100).prop_map(|len| alloc::vec![b'y'; len]),
        ];
        prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat())
    }

    /// Bodies that a careful client sends: the blocks have most of the work, and the end is reached.
    fn clean_body() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            8 => (0usize..200).prop_map(|len| alloc::vec![b'x'; len]),
            1 => Just(b"..dotted".to_vec()),
            1 => Just(b".odd".to_vec()),
        ];
        prop::collection::vec(line, 0..20).prop_map(|lines| {
            let mut body = lines.join(&b"\r\n"[..]);
            body.extend_from_slice(b"\r\n.\r\nQUIT\r\n");
            body
        })
    }

    fn cuts(len: usize, at: Vec<prop::sample::Index>) -> Vec<usize> {
        let mut cuts: Vec<usize> = at.iter().map(|index| index.index(len + 1)).collect();
        cuts.sort_unstable();
        cuts
    }

    fn check(bytes: &[u8], cuts: &[usize]) {
        for policy in POLICIES {
            assert_eq!(
                scan_data(policy, bytes, cuts),
                read_data(policy, bytes),
                "DATA, {policy:?}, {cuts:?}"
            );
            for last in [false, true] {
                let (fast, slow) = (
                    scan_chunks(policy, bytes, cuts, last),
                    read_chunks(policy, bytes, last),
                );
                assert_eq!(fast, slow, "BDAT, {policy:?}, {cuts:?}, {last}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn fast_and_slow_agree_however_the_bytes_are_cut(bytes in body(), at in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            check(&bytes, &cuts(bytes.len(), at));
        }

        #[test]
        fn fast_and_slow_agree_on_careful_clients(bytes in clean_body(), at in prop::collection::vec(any::<prop::sample::Index>(), 0..3)) {
            check(&bytes, &cuts(bytes.len(), at));
        }

        #[test]
        fn nothing_that_leaves_by_data_ends_early(bytes in body()) {
            for policy in [BareNewline::Reject, BareNewline::Normalize] {
                for mut wire in [scan_data(policy, &bytes, &[]).wire, scan_chunks(policy, &bytes, &[], true).wire] {
                    wire.splice(0..0, *b"\r\n");
                    prop_assert!(!wire.windows(5).any(|window| window == b"\r\n.\r\n"));
                }
            }
        }

        #[test]
        fn what_leaves_reads_the_same_to_the_next_of_us(bytes in body()) {
            let first = read_chunks(BareNewline::Normalize, &bytes, true);
            let mut wire = first.wire;
            if !first.findings.ends_with_crlf {
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b".\r\n");
            let second = scan_data(BareNewline::Reject, &wire, &[]);
            prop_assert!(second.ended && second.taken == wire.len() && !second.findings.bare_newline());
            prop_assert!(second.content.starts_with(&first.content));
        }
    }

    #[test]
    fn a_line_is_long_from_the_same_octet_on() {
        for len in TEXT_LINE_MAX - 2..TEXT_LINE_MAX + 8 {
            for tail in [&b""[..], b"\n", b"\r\n", b"\r\n.\r\n", b"\r\nmore"] {
                let mut bytes = b"first\r\n".to_vec();
                bytes.resize(bytes.len() + len, b'x');
                bytes.extend_from_slice(tail);
                check(&bytes, &[]);
                check(&bytes, &[7]);
                check(&bytes, &[500, bytes.len() - tail.len()]);
            }
        }
    }

    #[test]
    fn every_short_body_of_the_four_bytes_that_matter_split_at_every_byte() {
        const BYTES: [u8; 4] = *b"\r\n.x";
        for len in 0..=7u32 {
            for number in 0..4u32.pow(len) {
                let bytes: Vec<u8> = (0..len)
                    .map(|i| BYTES[(number >> (2 * i)) as usize & 3])
                    .collect();
                let every: Vec<usize> = (1..bytes.len()).collect();
                check(&bytes, &[]);
                check(&bytes, &every);
                check(&bytes, &[bytes.len() / 2]);
            }
        }
    }

    /// The hold budget counts the list with the bytes; this says how far a hostile body can drive it.
    #[test]
    fn a_list_outgrows_no_body_by_more_than_a_part_a_byte() {
        for unit in [
            &b"\n"[..],
            b"\r",
            b"x\n",
            b"\n.",
            b"\r.",
            b"..\r\n",
            b".x\r\n",
            b".\r",
            b"\r\n",
        ] {
            let bytes = unit.repeat(10_000);
            let mut pieces = Pieces::new();
            let mut scanner = BodyScanner::data(BareNewline::Normalize);
            scanner.scan_data(BufferId(0), 0, &bytes, &mut pieces);
            let factor = pieces.memory() as f64 / bytes.len() as f64;
            assert!(factor <= 14.0, "{unit:?}: {factor}");
        }
    }

    #[test]
    fn an_event_at_every_place_of_a_block() {
        for event in [
            &b"\n"[..],
            b"\r",
            b"\0",
            b"\r\n.",
            b"\r\n..",
            b"\r\n.\r\n",
            b"\r\n.\r",
            b"\n.\r\n",
            b"\r\r\n",
        ] {
            for at in 0..300 {
                let mut bytes = alloc::vec![b'a'; 300];
                bytes.splice(at..at, event.iter().copied());
                check(&bytes, &[]);
                check(&bytes, &[at + 1]);
            }
        }
    }

    /// Buffers can be shared: what lies between two pieces of one body in the same buffer is not its own.
    #[test]
    fn a_doubled_dot_cut_in_two_is_not_looked_for_between_two_pieces() {
        let line = b"0123456789012345678901234567890123456789\r\n";
        let (shared, own) = (BufferId(0), BufferId(1));
        let len = line.len() as u32;
        let mut pieces = Pieces::new();
        let mut scanner = BodyScanner::data(BareNewline::Reject);
        scanner.scan_data(shared, 0, line, &mut pieces);
        scanner.scan_data(own, 0, b".", &mut pieces);
        let dotted = [&b"."[..], line].concat();
        scanner.scan_data(shared, len + 1, &dotted, &mut pieces);
        let span = |start, len| Piece::Span {
            buffer: shared,
            start,
            len,
        };
        let want = [span(0, len), Piece::Insert(b"."), span(len + 1, len + 1)];
        assert_eq!(pieces.iter(Form::Data).collect::<Vec<_>>(), want);
    }
}
