//! What is believed of a reply and what is not, record for record.

use super::super::testing::*;
use super::*;

fn query(name: &str, kind: Kind) -> (Question, Vec<u8>) {
    let question = question(name, kind);
    let mut octets = Vec::new();
    super::super::query::write(&mut octets, 7, &question, 0, true);
    (question, octets)
}

fn read_as(kind: Kind, reply: &Reply) -> String {
    let (question, query) = query("a.example", kind);
    match read(&reply.to(&query), &question) {
        Reading::Answer(outcome, ttl) => format!("{outcome:?} for {ttl:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn answers_are_read() {
    let ip = [192, 0, 2, 9];
    let other = [203, 0, 113, 66];
    let foreign_class = Record {
        class: 3,
        ..a("a.example", 60, other)
    };
    let table = [
        (
            "one record",
            Reply::with(vec![a("a.example", 60, ip)]),
            "Records(A([192.0.2.9])) for Some(60)",
        ),
        (
            "owners have no case",
            Reply::with(vec![a("A.ExAmPlE", 60, ip)]),
            "Records(A([192.0.2.9])) for Some(60)",
        ),
        (
            "the least of all TTLs",
            Reply::with(vec![
                a("c.example", 300, ip),
                cname("a.example", 30, "b.example"),
                cname("b.example", 60, "c.example"),
            ]),
            "Records(A([192.0.2.9])) for Some(30)",
        ),
        (
            "what was said twice counts once",
            Reply::with(vec![a("a.example", 60, ip), a("a.example", 60, ip)]),
            "Records(A([192.0.2.9])) for Some(60)",
        ),
        (
            "a TTL of 32 bits is none",
            Reply::with(vec![a("a.example", 1 << 31, ip)]),
            "Records(A([192.0.2.9])) for Some(0)",
        ),
        (
            "other owners' records are passed over",
            Reply::with(vec![a("b.example", 60, other), a("a.example", 60, ip)]),
            "Records(A([192.0.2.9])) for Some(60)",
        ),
        (
            "so are those of another class",
            Reply::with(vec![foreign_class, a("a.example", 60, ip)]),
            "Records(A([192.0.2.9])) for Some(60)",
        ),
        (
            "and other sections'",
            Reply::with(vec![])
                .authority(soa("example", 600, 90))
                .authority(a("a.example", 60, other))
                .additional(a("a.example", 60, other)),
            "NoData for Some(90)",
        ),
        (
            "only owners off the chain: an answer to something else",
            Reply::with(vec![a("b.example", 60, other)]),
            "Failure",
        ),
        (
            "even where it says that the name does not exist",
            Reply {
                code: 3,
                ..Reply::with(vec![a("b.example", 60, other)])
            },
            "Failure",
        ),
        (
            "an alias that was not followed",
            Reply::with(vec![cname("a.example", 20, "b.example")]),
            "Failure",
        ),
        (
            "an alias for a name without data",
            Reply::with(vec![cname("a.example", 20, "b.example")])
                .authority(soa("example", 60, 900)),
            "NoData for Some(20)",
        ),
        (
            "no such name",
            Reply::code(3).authority(soa("example", 60, 900)),
            "NoName for Some(60)",
        ),
        (
            "an alias for no such name",
            Reply {
                code: 3,
                ..Reply::with(vec![cname("a.example", 20, "b.example")])
            }
            .authority(soa("example", 60, 900)),
            "NoName for Some(20)",
        ),
        (
            "it does not exist, and there it is",
            Reply {
                code: 3,
                ..Reply::with(vec![a("a.example", 60, ip)])
            },
            "Failure",
        ),
        (
            "a hint whom else to ask is no answer",
            Reply::with(vec![]).authority(ns("example", 60, "ns.example")),
            "Failure",
        ),
        (
            "nor is nothing, from who does not look for others",
            Reply {
                flags: QR,
                ..Reply::with(vec![])
            },
            "Failure",
        ),
        ("servfail", Reply::code(2), "Failure"),
        ("refused", Reply::code(5), "Failure"),
        ("notimp", Reply::code(4), "NotUnderstood"),
        ("formerr", Reply::code(1), "NotUnderstood"),
        (
            "badvers",
            Reply::with(vec![]).additional(record("", 1 << 24, 41, vec![])),
            "NotUnderstood",
        ),
        ("truncated", Reply::truncated(), "Truncated"),
        (
            "an address of three octets",
            Reply::with(vec![record("a.example", 60, 1, vec![192, 0, 2])]),
            "Garbage",
        ),
        (
            "one of five",
            Reply::with(vec![record("a.example", 60, 1, vec![192, 0, 2, 9, 9])]),
            "Garbage",
        ),
    ];
    for (label, reply, want) in table {
        assert_eq!(read_as(Kind::A, &reply), want, "{label}");
    }
}

#[test]
fn each_kind_is_read() {
    let six = record(
        "a.example",
        60,
        28,
        [[0x20, 1, 0xd, 0xb8], [0; 4], [0; 4], [0, 0, 0, 1]].concat(),
    );
    let table = [
        (Kind::Aaaa, six, "Records(Aaaa([2001:db8::1])) for Some(60)"),
        (
            Kind::Ptr,
            ptr("a.example", 60, "Mail.Example"),
            "Records(Ptr([mail.example])) for Some(60)",
        ),
        (
            Kind::Mx,
            mx("a.example", 60, 10, "mx.example"),
            "Records(Mx([(10, mx.example)])) for Some(60)",
        ),
        (
            Kind::Mx,
            mx("a.example", 60, 0, ""),
            "Records(Mx([(0, .)])) for Some(60)",
        ),
        (
            Kind::Txt,
            txt("a.example", 60, &[b"ab", b"", b"c"]),
            "Records(Txt([[97, 98, 99]])) for Some(60)",
        ),
    ];
    for (kind, record, want) in table {
        assert_eq!(read_as(kind, &Reply::with(vec![record])), want);
    }
    let best_first = Reply::with(vec![
        mx("a.example", 60, 20, "b.example"),
        mx("a.example", 60, 10, "c.example"),
    ]);
    assert_eq!(
        read_as(Kind::Mx, &best_first),
        "Records(Mx([(10, c.example), (20, b.example)])) for Some(60)"
    );
}

#[test]
fn aliases_lead_so_far_and_never_in_circles() {
    let chain = |links: usize| {
        let name = |number: usize| match number {
            0 => "a.example".to_owned(),
            _ => format!("a{number}.example"),
        };
        let mut answer: Vec<Record> = (0..links)
            .map(|number| cname(&name(number), 60, &name(number + 1)))
            .collect();
        answer.push(a(&name(links), 60, [192, 0, 2, 9]));
        Reply::with(answer)
    };
    assert_eq!(
        read_as(Kind::A, &chain(ALIASES_MAX)),
        "Records(A([192.0.2.9])) for Some(60)"
    );
    assert_eq!(read_as(Kind::A, &chain(ALIASES_MAX + 1)), "Failure");
    let circle = Reply::with(vec![
        cname("a.example", 60, "b.example"),
        cname("b.example", 60, "a.example"),
    ]);
    assert_eq!(read_as(Kind::A, &circle), "Failure");
    let itself = Reply::with(vec![cname("a.example", 60, "a.example")]);
    assert_eq!(read_as(Kind::A, &itself), "Failure");
}

#[test]
fn no_more_is_kept_than_may_be() {
    let many = (0..100)
        .map(|n| a("a.example", 60, [192, 0, 2, n]))
        .collect();
    let (question, octets) = query("a.example", Kind::A);
    let Reading::Answer(Outcome::Records(Records::A(kept)), _) =
        read(&Reply::with(many).to(&octets), &question)
    else {
        panic!("no addresses");
    };
    assert_eq!(kept.len(), RECORDS_MAX);
    let (question, octets) = query("a.example", Kind::Txt);
    let long = txt("a.example", 60, &[&[b'x'; 255][..]; 20]);
    let Reading::Answer(Outcome::Records(Records::Txt(kept)), _) =
        read(&Reply::with(vec![long]).to(&octets), &question)
    else {
        panic!("no text");
    };
    assert_eq!(kept[0].len(), TEXT_MAX);
}

/// Pointers that lead to themselves, ahead, or around each other.
#[test]
fn compressed_names_lead_back_or_nowhere() {
    let (question, query) = query("a.example", Kind::Ptr);
    let bare = Reply::with(vec![ptr("a.example", 60, "b.example")]).to(&query);
    // The owner of the only record begins where the question ends.
    let owner = query.len() - 11;
    let data = owner + wire("a.example").len() + 10;
    let pointer = |at: usize| (0xc000 | at as u16).to_be_bytes();
    for (place, to) in [
        (owner, owner),
        (owner, owner + 2),
        (owner, bare.len()),
        (owner, 0x3fff),
        (data, data),
        (data, data + 1),
        (data, owner),
    ] {
        let mut message = bare.clone();
        message[place..place + 2].copy_from_slice(&pointer(to));
        let reading = read(&message, &question);
        let is_answer = matches!(reading, Reading::Answer(Outcome::Records(_), _));
        assert!(!is_answer, "{place} -> {to}: {reading:?}");
    }
    // One that leads back to the question is what every server sends.
    let name = wire("a.example").len();
    let mut message = bare[..owner].to_vec();
    message.extend(pointer(12));
    message.extend_from_slice(&bare[owner + name..]);
    let reading = read(&message, &question);
    assert!(matches!(
        reading,
        Reading::Answer(Outcome::Records(_), Some(60))
    ));
}

#[test]
fn only_replies_to_queries_have_a_head() {
    let (_, query) = query("a.example", Kind::A);
    let reply = Reply::code(0).to(&query);
    assert_eq!(head(&reply).map(|head| head.id), Some(7));
    assert_eq!(head(&query), None, "a query");
    for opcode in 1..16 {
        let mut other = reply.clone();
        other[2] |= opcode << 3;
        assert_eq!(head(&other), None, "opcode {opcode}");
    }
    for len in 0..12 {
        assert_eq!(head(&reply[..len]), None, "{len} octets");
    }
    let bare = head(&[0, 7, 0x80, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(bare.is_some_and(|head| head.bare_refusal));
}
