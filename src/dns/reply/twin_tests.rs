//! The reader against its slow twin: replies that are nearly right, and the corpus of the fuzzer.

use std::fs;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::super::name::{Kind, Question};
use super::super::testing::*;
use super::super::{naive, query};

const NAMES: [&str; 5] = ["a.example", "b.example", "c.example", "example", ""];

fn a_record() -> impl Strategy<Value = Record> {
    let name = || prop::sample::select(&NAMES[..]);
    let data = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        name().prop_map(wire),
        // Pointers, mostly to somewhere in the message.
        (0u8..120).prop_map(|at| vec![0xc0, at]),
        (0u8..120).prop_map(|at| vec![0, 10, 1, b'x', 0xc0, at]),
        name().prop_map(|at| soa(at, 1, 77).data),
    ];
    let code = prop::sample::select(vec![1u16, 2, 5, 6, 12, 15, 16, 28, 41]);
    let class = prop_oneof![9 => Just(1u16), 1 => Just(3u16)];
    let ttl = prop_oneof![4 => 0u32..5000, 1 => any::<u32>()];
    (name(), code, class, ttl, data).prop_map(|(owner, code, class, ttl, data)| Record {
        owner: owner.to_owned(),
        code,
        class,
        ttl,
        data,
    })
}

/// Records of the kind asked for, well formed.
fn a_good_record(kind: Kind) -> impl Strategy<Value = Record> {
    let name = || prop::sample::select(&NAMES[..4]);
    (name(), name(), any::<u8>(), prop::bool::ANY).prop_map(move |(owner, other, octet, alias)| {
        if alias {
            return cname(owner, u32::from(octet), other);
        }
        match kind {
            Kind::A => a(owner, 60, [192, 0, 2, octet]),
            Kind::Aaaa => record(owner, 60, 28, vec![octet; 16]),
            Kind::Ptr => ptr(owner, 60, other),
            Kind::Mx => mx(owner, 60, octet.into(), other),
            Kind::Txt => txt(owner, 60, &[&[octet; 200][..]; 7][..usize::from(octet & 7)]),
        }
    })
}

fn a_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![Kind::A, Kind::Aaaa, Kind::Ptr, Kind::Mx, Kind::Txt])
}

fn a_reply() -> impl Strategy<Value = (Question, Vec<u8>)> {
    a_kind().prop_flat_map(|kind| {
        let records = || prop::collection::vec(a_record(), 0..4);
        let good = prop::collection::vec(a_good_record(kind), 0..30);
        let code = prop_oneof![6 => Just(0u16), 2 => Just(3u16), 1 => 0u16..16];
        let flags = prop::sample::select(vec![QR | RA, QR | RA, QR, QR | 0x0400, QR | TC]);
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
        let cut = prop::option::weighted(0.1, any::<prop::sample::Index>());
        (
            good,
            records(),
            records(),
            records(),
            code,
            flags,
            changes,
            cut,
        )
            .prop_map(
                move |(mut answer, bad, authority, additional, code, flags, changes, cut)| {
                    if flags & RA == 0 {
                        answer.extend(bad);
                    }
                    let reply = Reply {
                        flags,
                        code,
                        answer,
                        authority,
                        additional,
                    };
                    let question = question("a.example", kind);
                    let mut asked = Vec::new();
                    query::write(&mut asked, 7, &question, 0, true);
                    let mut message = reply.to(&asked);
                    for (at, octet) in changes {
                        let at = at.index(message.len());
                        message[at] = octet;
                    }
                    if let Some(cut) = cut {
                        message.truncate(cut.index(message.len()));
                    }
                    (question, message)
                },
            )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_twins_agree((question, message) in a_reply()) {
        if message.len() >= query::HEADER {
            naive::agree(&message, &question);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_cut_of_a_reply_is_read_alike((question, message) in a_reply()) {
        for len in query::HEADER..message.len() {
            naive::agree(&message[..len], &question);
        }
    }
}

#[test]
fn most_of_what_is_tried_is_an_answer() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut answers = 0;
    for _ in 0..200 {
        let (question, message) = a_reply().new_tree(&mut runner).unwrap().current();
        let is_whole = message.len() >= query::HEADER;
        answers += usize::from(is_whole && naive::agree(&message, &question));
    }
    assert!((60..200).contains(&answers), "{answers} of 200");
}

/// The first octet says of what kind the question is, the rest is the message.
#[test]
fn the_fuzzers_corpus_is_read_alike() {
    let mut count = 0;
    for file in fs::read_dir("tests/fuzz/corpus/dns_answer").unwrap() {
        let input = fs::read(file.unwrap().path()).unwrap();
        naive::fuzz(&input);
        count += 1;
    }
    assert!(count >= 17, "{count} seeds");
}
