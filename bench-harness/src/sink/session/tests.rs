//! Dialogues without a socket: whole, and octet by octet. What is pipelined where it may not be is seen only in the whole one, so each such
//! test says how it is fed.

use super::*;
use crate::ledger::{Arrived, MessageId, stamp};
use crate::sink::announce::Announce;

const RUN: u64 = 5;

/// A session and its desk.
struct Bench {
    session: Session,
    texts: Texts,
    faults: Faults,
    counters: Counters,
    ledgers: Ledgers,
    replies: Replies,
}

impl Bench {
    fn new(announce: &str, faults: &str) -> Bench {
        let announce: Announce = announce.parse().unwrap();
        let mut bench = Bench {
            session: Session::new(1),
            texts: Texts::new("sink", &announce),
            faults: faults.parse().unwrap(),
            counters: Counters::default(),
            ledgers: Ledgers::default(),
            replies: Replies::default(),
        };
        let mut desk = Desk {
            texts: &bench.texts,
            faults: &bench.faults,
            counters: &mut bench.counters,
            ledgers: &mut bench.ledgers,
        };
        bench.session.greet(&mut desk, &mut bench.replies);
        bench.session.heard();
        bench
    }

    /// One flight, and what is done with the connection then.
    fn flight(&mut self, octets: &[u8]) -> Next {
        let mut desk = Desk {
            texts: &self.texts,
            faults: &self.faults,
            counters: &mut self.counters,
            ledgers: &mut self.ledgers,
        };
        self.session.take(octets, &mut desk, &mut self.replies)
    }

    /// The codes of all replies since the last call, and the client hears them.
    fn codes(&mut self) -> String {
        self.session.heard();
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.replies.octets)).into_owned();
        let codes: Vec<&str> = text
            .lines()
            .filter(|line| line.as_bytes().get(3) == Some(&b' '))
            .map(|line| &line[..3])
            .collect();
        codes.join(" ")
    }

    fn says(&mut self, line: &str) -> String {
        self.flight(line.as_bytes());
        self.codes()
    }

    fn violations(&self) -> Vec<(&str, u64)> {
        let all = self.counters.violations.iter();
        all.map(|(word, number)| (word.as_str(), *number)).collect()
    }

    fn arrived(&self) -> Arrived {
        self.ledgers.of(RUN).cloned().unwrap_or_default()
    }
}

const ALL: &str =
    "PIPELINING,SIZE 5000,8BITMIME,SMTPUTF8,DSN,ENHANCEDSTATUSCODES,CHUNKING,BINARYMIME";

/// With the session past EHLO.
fn greeted(announce: &str, faults: &str) -> Bench {
    let mut bench = Bench::new(announce, faults);
    bench.codes();
    assert_eq!(bench.says("EHLO proxy.example\r\n"), "250");
    bench
}

fn message(number: u32) -> Vec<u8> {
    let id = MessageId {
        run: RUN,
        process: 0,
        number,
    };
    let mut message = b"Received: by proxy.example\r\n".to_vec();
    stamp(&mut message, id, b"Subject: x\r\n\r\nbody\r\n");
    message
}

fn by_data(number: u32) -> Vec<u8> {
    [message(number), b".\r\n".to_vec()].concat()
}

fn by_bdat(number: u32) -> Vec<u8> {
    let message = message(number);
    let command = format!("BDAT {} LAST\r\n", message.len());
    [command.into_bytes(), message].concat()
}

const ENVELOPE: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

#[test]
fn a_dialogue_word_for_word() {
    let mut bench = Bench::new("PIPELINING,SIZE 5000,ENHANCEDSTATUSCODES,CHUNKING", "none");
    bench.flight(b"EHLO a\r\n");
    bench.session.heard();
    bench.flight(b"MAIL FROM:<a@b.example> SIZE=9\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
    bench.session.heard();
    bench.flight(&by_data(0));
    bench.flight(ENVELOPE.as_bytes());
    bench.flight(&by_bdat(1));
    bench.flight(b"RSET\r\nVRFY x\r\n");
    bench.session.heard();
    bench.flight(b"NOOP\r\n");
    bench.session.heard();
    assert_eq!(bench.flight(b"QUIT\r\n"), Next::Close);
    assert_eq!(
        String::from_utf8_lossy(&bench.replies.octets),
        "220 sink ESMTP weir-bench sink\r\n\
         250-sink\r\n250-PIPELINING\r\n250-SIZE 5000\r\n250-ENHANCEDSTATUSCODES\r\n250 CHUNKING\r\n\
         250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n\
         250 2.0.0 Ok: counted\r\n250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: counted\r\n\
         250 2.0.0 Ok\r\n252 2.1.5 Send some mail\r\n250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"
    );
    assert_eq!(bench.violations(), []);
    assert_eq!((bench.counters.accepted, bench.counters.recipients), (2, 2));
    assert_eq!((bench.arrived().total(), bench.arrived().unknown()), (2, 0));
    assert_eq!((bench.counters.altered, bench.counters.unstamped), (0, 0));
}

#[test]
fn where_the_reads_fall_does_not_matter() {
    let mut wire = ENVELOPE.as_bytes().to_vec();
    wire.extend(by_bdat(0));
    wire.extend(ENVELOPE.as_bytes());
    let half = message(1);
    wire.extend(format!("BDAT {}\r\n", 50).into_bytes());
    wire.extend(&half[..50]);
    wire.extend(format!("BDAT {}\r\n", half.len() - 50).into_bytes());
    wire.extend(&half[50..]);
    wire.extend(b"BDAT 0 LAST\r\n");
    wire.extend(ENVELOPE.as_bytes());
    wire.extend(b"RSET\r\n");
    for at in 0..=wire.len() {
        let mut bench = greeted(ALL, "none");
        bench.flight(&wire[..at]);
        bench.flight(&wire[at..]);
        assert_eq!(
            bench.codes(),
            "250 250 250 250 250 250 250 250 250 250 250",
            "{at}"
        );
        assert_eq!(
            (bench.arrived().total(), bench.counters.altered),
            (2, 0),
            "{at}"
        );
        assert_eq!(bench.violations(), [], "{at}");
    }
    let mut bench = greeted(ALL, "none");
    for octet in wire.chunks(1) {
        bench.flight(octet);
    }
    assert_eq!((bench.arrived().total(), bench.counters.altered), (2, 0));
}

#[test]
fn data_ends_where_it_ends_at_every_split() {
    let wire = [by_data(0), b"MAIL FROM:<>\r\n".to_vec()].concat();
    for at in 0..=wire.len() {
        let mut bench = greeted(ALL, "none");
        bench.says(ENVELOPE);
        assert_eq!(bench.says("DATA\r\n"), "354");
        bench.flight(&wire[..at]);
        bench.flight(&wire[at..]);
        assert_eq!(bench.codes(), "250 250", "{at}");
        assert_eq!((bench.arrived().total(), bench.counters.altered), (1, 0));
        assert_eq!(bench.violations(), [], "{at}");
    }
}

#[test]
fn commands_out_of_order_are_refused_and_counted() {
    // lines, codes, what is counted
    let table: &[(&[&str], &str, &str)] = &[
        (&["RCPT TO:<a@b.example>\r\n"], "503", "need_mail"),
        (&["DATA\r\n"], "503", "need_mail"),
        (&["BDAT 3\r\n", "abc"], " 503", "need_mail"),
        (&["MAIL FROM:<>\r\n", "DATA\r\n"], "250 503", "need_rcpt"),
        (
            &["MAIL FROM:<>\r\n", "BDAT 0 LAST\r\n"],
            "250 503",
            "need_rcpt",
        ),
        (
            &["MAIL FROM:<>\r\n", "MAIL FROM:<>\r\n"],
            "250 503",
            "nested_mail",
        ),
        (
            &[ENVELOPE, "BDAT 0\r\n", "DATA\r\n"],
            "250 250 250 503",
            "mixed_data_bdat",
        ),
        (
            &[ENVELOPE, "BDAT 0\r\n", "RCPT TO:<a@b.example>\r\n"],
            "250 250 250 503",
            "bad_sequence",
        ),
        (&["MAIL FROM:<> SIZE=5001\r\n"], "552", "message_too_big"),
        (
            &[
                "MAIL FROM:<> BODY=BINARYMIME\r\n",
                "RCPT TO:<a@b.example>\r\n",
                "DATA\r\n",
            ],
            "250 250 503",
            "binary_needs_bdat",
        ),
        (
            &["MAIL FROM:<>\r\n", "RCPT TO:<é@b.example>\r\n"],
            "250 553",
            "utf8_not_declared",
        ),
        (&["NOOP\n"], "500", "bare_lf_in_command"),
        (&["NO\rOP\r\n"], "500", "bare_cr_in_command"),
        (&["NO\0OP\r\n"], "500", "nul_in_command"),
        (&["HELLO\r\n"], "500", "unknown_command"),
        (&["STARTTLS\r\n"], "502", "command_not_offered"),
        (&["AUTH PLAIN\r\n"], "502", "command_not_offered"),
        (&["XCLIENT ADDR=1\r\n"], "502", "command_not_offered"),
        (&["EXPN x\r\n"], "502", "not_implemented"),
        (&["BDAT x\r\n"], "501", "bad_chunk"),
    ];
    for (lines, codes, word) in table {
        let mut bench = greeted(ALL, "none");
        let heard: Vec<String> = lines.iter().map(|line| bench.says(line)).collect();
        assert_eq!(heard.join(" "), *codes, "{lines:?}");
        assert_eq!(bench.violations(), [(*word, 1)], "{lines:?}");
    }
    let mut bench = Bench::new(ALL, "none");
    bench.codes();
    assert_eq!(bench.says("MAIL FROM:<>\r\n"), "503");
    assert_eq!(bench.violations(), [("need_helo", 1)]);
}

#[test]
fn what_may_not_be_pipelined_is_counted() {
    let both = [ENVELOPE.as_bytes(), &by_bdat(0)].concat();
    // announced, one flight, what is counted
    type Row<'a> = (&'a str, &'a [u8], &'a [(&'a str, u64)]);
    let table: &[Row<'_>] = &[
        (ALL, &both, &[]),
        (ALL, b"NOOP\r\nRSET\r\n", &[(own::GROUP, 1)]),
        (ALL, b"EHLO a\r\nRSET\r\n", &[(own::GROUP, 1)]),
        (ALL, b"RSET\r\nRSET\r\nNOOP\r\n", &[]),
        ("CHUNKING", &both, &[(own::PIPELINING, 2)]),
        ("CHUNKING", b"NOOP\r\nNOOP\r\n", &[(own::PIPELINING, 1)]),
        ("CHUNKING", b"NOOP\r\nNO", &[(own::PIPELINING, 1)]),
    ];
    for (announce, flight, want) in table {
        let mut bench = greeted(announce, "none");
        bench.flight(flight);
        assert_eq!(bench.violations(), *want, "{announce} {flight:?}");
    }
}

#[test]
fn a_chunk_and_the_next_command_may_not_share_a_flight_without_pipelining() {
    let mut bench = greeted("CHUNKING", "none");
    bench.says("MAIL FROM:<>\r\n");
    bench.says("RCPT TO:<a@b.example>\r\n");
    bench.flight(&by_bdat(0));
    assert_eq!(bench.violations(), []);
    bench.flight(b"QUIT\r\n");
    assert_eq!(bench.violations(), [(own::PIPELINING, 1)]);
}

#[test]
fn a_body_before_the_354_is_counted_and_taken() {
    let mut bench = greeted(ALL, "none");
    bench.flight(&[ENVELOPE.as_bytes(), b"DATA\r\n", &by_data(0)].concat());
    assert_eq!(bench.codes(), "250 250 354 250");
    assert_eq!(bench.violations(), [(own::EARLY_BODY, 1)]);
    assert_eq!(bench.arrived().total(), 1);
}

#[test]
fn talking_before_the_greeting_is_counted() {
    let mut bench = Bench::new(ALL, "none");
    bench.session = Session::new(1);
    bench.flight(b"EHLO early\r\n");
    assert_eq!(bench.violations(), [(own::PREGREET, 1)]);
}

#[test]
fn octets_after_the_end_of_data_are_counted() {
    let mut bench = greeted(ALL, "none");
    bench.says(ENVELOPE);
    bench.says("DATA\r\n");
    bench.flight(&[by_data(0), b"the rest of the body\r\n".to_vec()].concat());
    assert_eq!(bench.codes(), "250 500");
    assert_eq!(
        bench.violations(),
        [(own::AFTER_END, 1), ("unknown_command", 1)]
    );
}

#[test]
fn bare_newlines_of_a_body_are_counted() {
    for (text, want) in [("a\nb\r\n", 1), ("a\rb\r\n", 1), ("a\r\nb\r\n", 0)] {
        let mut bench = greeted(ALL, "none");
        bench.says(ENVELOPE);
        bench.says("DATA\r\n");
        bench.says(&format!("{text}.\r\n"));
        let count = bench.counters.violations.get(own::BARE_NEWLINE);
        assert_eq!(count.copied().unwrap_or(0), want, "{text:?}");
        assert_eq!(bench.counters.unstamped, 1);
    }
}

#[test]
fn what_follows_a_refusal_of_ours_is_nobodys_fault() {
    let chunked = [ENVELOPE.as_bytes(), &by_bdat(0), b"NOOP\r\n"].concat();
    // faults, one flight, codes
    let table: &[(&str, &[u8], &str)] = &[
        ("mail:451", &chunked, "451 503 503 250"),
        ("rcpt:550", &chunked, "250 550 554 250"),
        ("final:452", &chunked, "250 250 452 250"),
        (
            "mail:451",
            b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n",
            "451 503 503",
        ),
        (
            "rcpt:550",
            b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n",
            "250 550 554",
        ),
        (
            "data:451",
            b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n",
            "250 250 451",
        ),
        (
            "bdat:452",
            b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 1\r\nxBDAT 1 LAST\r\nxRSET\r\n",
            "250 250 452 503 250",
        ),
    ];
    for (faults, flight, codes) in table {
        let mut bench = greeted(ALL, faults);
        bench.flight(flight);
        assert_eq!(bench.codes(), *codes, "{faults}");
        assert_eq!(bench.violations(), [], "{faults}");
        assert_eq!((bench.counters.accepted, bench.arrived().total()), (0, 0));
        assert_eq!(bench.counters.faults.len(), 1, "{faults}");
    }
}

#[test]
fn a_chunk_nobody_asked_for_is_passed_over_and_not_read_as_commands() {
    let mut bench = greeted("PIPELINING", "none");
    bench.says(ENVELOPE);
    assert_eq!(bench.says("BDAT 6 LAST\r\nQUIT\r\n"), "502");
    assert_eq!(bench.violations(), [(own::NOT_OFFERED, 1)]);
    assert_eq!(bench.says("RSET\r\n"), "250");
    assert_eq!(bench.counters.refused, 1);
}

#[test]
fn messages_larger_than_announced_are_refused() {
    let mut bench = greeted(ALL, "none");
    bench.says(ENVELOPE);
    let body = vec![b'x'; 5001];
    bench.flight(b"BDAT 5001 LAST\r\n");
    bench.flight(&body);
    assert_eq!(bench.codes(), "552");
    assert_eq!(bench.violations(), [("message_too_big", 1)]);
    assert_eq!((bench.counters.accepted, bench.counters.refused), (0, 1));
}

#[test]
fn faults_in_place_of_a_reply() {
    // faults, what is done with the connection, codes
    let table = [
        ("noop:reset", Next::Reset, ""),
        ("noop:close", Next::Close, ""),
        ("noop:421", Next::Close, "421"),
        ("noop:521", Next::Close, "521"),
        ("noop:450", Next::GoOn, "450"),
        ("noop:stall", Next::GoOn, ""),
        ("all:reset", Next::Reset, ""),
        ("rcpt:reset", Next::GoOn, "250"),
    ];
    for (faults, next, codes) in table {
        let mut bench = greeted(ALL, "none");
        bench.faults = faults.parse().unwrap();
        assert_eq!(bench.flight(b"NOOP\r\n"), next, "{faults}");
        assert_eq!(bench.codes(), codes, "{faults}");
    }
}

#[test]
fn a_stalled_session_says_nothing_more() {
    let mut bench = greeted(ALL, "rcpt:stall");
    bench.flight(&[ENVELOPE.as_bytes(), &by_bdat(0), b"QUIT\r\n"].concat());
    assert_eq!(bench.codes(), "250");
    assert_eq!(bench.flight(b"NOOP\r\n"), Next::GoOn);
    assert_eq!(bench.codes(), "");
    assert_eq!(bench.counters.accepted, 0);
}

#[test]
fn garbage_is_no_reply() {
    for seed in 0..64 {
        let mut bench = greeted(ALL, "noop:garbage");
        bench.session.rng = fastrand::Rng::with_seed(seed);
        bench.replies.octets.clear();
        bench.flight(b"NOOP\r\n");
        // behind it, what a client may still read as a reply
        let mut heard = bench.replies.octets.as_slice();
        let mut reader = weir_smtp::reply::ReplyReader::new();
        assert!(
            !matches!(reader.next(&mut heard), Ok(Some(_))),
            "{:?}",
            bench.replies.octets
        );
    }
}

#[test]
fn a_greeting_that_refuses_ends_the_session() {
    for (faults, octets) in [
        ("greeting:554", "554 5.3.0 As the sink was told to say\r\n"),
        ("greeting:421", "421 4.3.0 As the sink was told to say\r\n"),
        ("greeting:close", ""),
    ] {
        let mut bench = Bench::new(ALL, faults);
        assert_eq!(String::from_utf8_lossy(&bench.replies.octets), octets);
        bench.session = Session::new(1);
        let mut desk = Desk {
            texts: &bench.texts,
            faults: &bench.faults,
            counters: &mut bench.counters,
            ledgers: &mut bench.ledgers,
        };
        assert_eq!(
            bench.session.greet(&mut desk, &mut bench.replies),
            Next::Close
        );
    }
}

#[test]
fn traps_spring_at_their_octet() {
    let length = message(0).len();
    for (at, springs) in [
        (0, 1),
        (10, 10),
        (length - 1, length - 1),
        (length, length),
        (9999, length),
    ] {
        for (fault, want) in [("reset", Next::Reset), ("stall", Next::StopReading)] {
            let mut bench = greeted(ALL, &format!("body:{fault}@{at}"));
            bench.says(ENVELOPE);
            bench.says(&format!("BDAT {length} LAST\r\n"));
            let message = message(0);
            let mut octets = message.chunks(1).enumerate();
            let sprung = octets.find(|(_, octet)| bench.flight(octet) == want);
            assert_eq!(sprung.map(|(at, _)| at + 1), Some(springs), "{fault} {at}");
            assert_eq!((bench.counters.accepted, bench.codes().as_str()), (0, ""));
        }
        let mut bench = greeted(ALL, &format!("body:reset@{at}"));
        bench.says(ENVELOPE);
        bench.says("DATA\r\n");
        assert_eq!(bench.flight(&by_data(0)), Next::Reset, "{at}");
        assert_eq!(bench.counters.accepted, 0);
    }
}

#[test]
fn delays_of_one_flight_do_not_add_up() {
    let mut bench = greeted(ALL, "all:delay=50ms rcpt:delay=20ms");
    bench.replies.delay = Duration::ZERO;
    bench.flight(&[ENVELOPE.as_bytes(), &by_bdat(0)].concat());
    assert_eq!(bench.replies.delay, Duration::from_millis(50));
    let mut bench = greeted(ALL, "rcpt:delay=20ms mail:delay=70ms");
    bench.flight(b"NOOP\r\n");
    assert_eq!(bench.replies.delay, Duration::ZERO);
    bench.flight(ENVELOPE.as_bytes());
    assert_eq!(bench.replies.delay, Duration::from_millis(70));
}

#[test]
fn a_part_of_a_flight_has_no_delay() {
    let mut bench = greeted(ALL, "all:delay=50ms");
    bench.replies.delay = Duration::ZERO;
    bench.flight(b"MAIL FROM:");
    assert_eq!(bench.replies.delay, Duration::ZERO);
}

#[test]
fn the_same_seed_makes_the_same_session() {
    let codes = |seed| {
        let mut bench = greeted(ALL, "rcpt:450=50%");
        bench.session.rng = fastrand::Rng::with_seed(seed);
        bench.says("MAIL FROM:<>\r\n");
        (0..40)
            .map(|_| bench.says("RCPT TO:<a@b.example>\r\n"))
            .collect::<String>()
    };
    assert_eq!(codes(3), codes(3));
    assert_ne!(codes(3), codes(4));
}

#[test]
fn an_endless_line_ends_the_session_and_costs_no_memory() {
    for piece in [1, 7, 4095, 4096, 100_000] {
        let mut bench = greeted(ALL, "none");
        let octets = vec![b'x'; piece];
        let rounds = (0..5000).find(|_| bench.flight(&octets) == Next::Close);
        assert!(rounds.is_some(), "{piece}");
        assert!(bench.session.line.capacity() <= 2 * COMMAND_LINE_MAX);
        assert_eq!(bench.codes(), "500");
        assert_eq!(bench.violations(), [("line_too_long", 1)]);
    }
}

#[test]
fn a_chunk_without_end_ends_the_session() {
    for size in ["9223372036854775808", "18446744073709551614", "4294967297"] {
        let mut bench = greeted(ALL, "none");
        bench.says(ENVELOPE);
        assert_eq!(
            bench.flight(format!("BDAT {size}\r\n").as_bytes()),
            Next::Close
        );
        assert_eq!(bench.codes(), "552");
    }
    let mut bench = greeted(ALL, "none");
    bench.says(ENVELOPE);
    assert_eq!(bench.says("BDAT 99999999999999999999\r\n"), "501");
}

#[test]
fn one_flipped_octet_anywhere_in_a_body_is_seen() {
    let whole = message(0);
    let start = whole.len() - b"Subject: x\r\n\r\nbody\r\n".len();
    for at in start..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x01;
        let mut bench = greeted(ALL, "none");
        bench.says(ENVELOPE);
        bench.flight(format!("BDAT {} LAST\r\n", bad.len()).as_bytes());
        bench.flight(&bad);
        assert_eq!(
            (bench.counters.accepted, bench.counters.altered),
            (1, 1),
            "{at}"
        );
    }
}

#[test]
fn helo_gets_no_extensions_and_is_no_ehlo() {
    let mut bench = Bench::new(ALL, "none");
    bench.replies.octets.clear();
    bench.flight(b"HELO a\r\n");
    assert_eq!(bench.replies.octets, b"250 sink\r\n");
    bench.codes();
    assert_eq!(bench.says("MAIL FROM:<> SIZE=1\r\n"), "555");
    assert_eq!(bench.says("MAIL FROM:<>\r\n"), "250");
}

#[test]
fn xclient_begins_the_session_anew() {
    let mut bench = greeted("XCLIENT,XFORWARD", "none");
    assert_eq!(bench.says("XFORWARD ADDR=1\r\n"), "250");
    assert_eq!(bench.says("XCLIENT ADDR=1\r\n"), "220");
    assert_eq!(bench.says("MAIL FROM:<>\r\n"), "503");
    assert_eq!(bench.says("EHLO a\r\n"), "250");
    assert_eq!(bench.says("MAIL FROM:<>\r\n"), "250");
}

#[test]
fn noise_never_breaks_a_session() {
    let words: [&[u8]; 14] = [
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<a@b.example>\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"BDAT 3\r\n",
        b"BDAT 2 LAST\r\n",
        b"RSET\r\n",
        b"EHLO a\r\n",
        b"\r\n",
        b"\n",
        b"\0",
        b"abc",
        b"\r",
        b"NOOP",
    ];
    for seed in 0..3000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let faults = [
            "none",
            "all:450=10% all:garbage=5% body:reset@random=20% rcpt:stall=2%",
        ][rng.usize(0..2)];
        let mut bench = greeted(ALL, "none");
        bench.faults = faults.parse().unwrap();
        for _ in 0..60 {
            if bench.flight(words[rng.usize(0..words.len())]) != Next::GoOn {
                break;
            }
        }
        assert!(bench.session.line.len() <= COMMAND_LINE_MAX, "seed {seed}");
        assert!(
            bench.counters.accepted >= bench.counters.unstamped,
            "seed {seed}"
        );
    }
}

#[test]
fn starttls_begins_anew_and_takes_nothing_along() {
    let mut bench = Bench::new("PIPELINING", "none");
    bench.texts = Texts::with_starttls("sink", &"PIPELINING".parse().unwrap());
    bench.flight(b"EHLO c\r\n");
    assert!(String::from_utf8_lossy(&bench.replies.octets).contains("STARTTLS"));
    bench.codes();
    assert_eq!(
        bench.flight(b"MAIL FROM:<a@b.example>\r\nSTARTTLS\r\n"),
        Next::GoOn
    );
    assert_eq!(bench.codes(), "250 503");
    bench.flight(b"RSET\r\n");
    bench.codes();
    let next = bench.flight(b"STARTTLS\r\nMAIL FROM:<evil@b.example>\r\n");
    assert_eq!(next, Next::StartTls);
    assert_eq!(bench.codes(), "220");
    assert_eq!(bench.counters.violations[own::BEHIND_STARTTLS], 1);
    bench.session.secured();
    bench.flight(b"MAIL FROM:<a@b.example>\r\n");
    assert_eq!(bench.codes(), "503");
}
