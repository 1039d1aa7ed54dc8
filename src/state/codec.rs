//! News as octets: what hosts send each other.
//!
//! ```text
//!   "WN" | version | 0 | bits of IPv4 | bits of IPv6 | records ... | first 8 octets of SHA-256 over all before
//!   record: tag | fields, all of fixed width, big endian
//! ```
//! The bits are those of `--network-prefix`, by which networks and tuples are named: who has others would take the first network
//! of a larger one for all of it.
//!
//! The digest is no signature: who can write to the server that hosts share can write news. It keeps apart what was
//! written by weir from what something else wrote under the same name, and from what was cut or damaged on its way.

use aws_lc_rs::digest::{SHA256, digest};

use crate::net::ClientPrefix;
use crate::policy::clients::ClientKey;
use crate::policy::news::{Deed, News, TupleKey};

/// News that one batch may hold: 29 octets each at most.
pub const BATCH_MAX: usize = 4096;

const VERSION: u8 = 1;
const HEAD: [u8; 4] = [b'W', b'N', VERSION, 0];
const DIGEST: usize = 8;

const TUPLE: u8 = 1;
const PROVEN: u8 = 2;
const TRAPPED: u8 = 3;
const DEEDS: u8 = 4;

/// The shortest record.
#[cfg(any(test, fuzzing))]
const TUPLE_OCTETS: usize = 1 + 8 + 4;

/// Why octets are no batch.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Unreadable {
    /// Written by something else.
    Foreign,
    /// Written by a weir that knows another form.
    Version(u8),
    /// Cut, or changed on its way.
    Damaged,
    TooLong,
    /// Whole, but its networks are others than ours: so many bits of IPv4 and of IPv6.
    Prefix(u8, u8),
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unreadable::Foreign => f.write_str("not written by weir"),
            Unreadable::Version(version) => write!(f, "form {version}, this weir reads {VERSION}"),
            Unreadable::Damaged => f.write_str("damaged"),
            Unreadable::TooLong => write!(f, "more than {BATCH_MAX} news"),
            Unreadable::Prefix(v4, v6) => write!(f, "its networks are those of {v4}/{v6}"),
        }
    }
}

/// Writes at most [`BATCH_MAX`] news about networks of this prefix.
pub fn encode(news: &[News], prefix: ClientPrefix) -> Vec<u8> {
    assert!(
        news.len() <= BATCH_MAX,
        "a batch is cut before it is written"
    );
    let (v4, v6) = prefix.bits();
    let mut out = [&HEAD[..], &[v4, v6]].concat();
    for news in news {
        match *news {
            News::Tuple { key, first } => {
                out.push(TUPLE);
                out.extend(key.0.to_be_bytes());
                out.extend(first.to_be_bytes());
            }
            News::Proven { network, until } => until_record(&mut out, PROVEN, network, until),
            News::Trapped { network, until } => until_record(&mut out, TRAPPED, network, until),
            News::Deeds {
                network,
                asn,
                at,
                counts,
            } => {
                out.push(DEEDS);
                out.extend(network.to_bits().to_be_bytes());
                out.extend(asn.to_be_bytes());
                out.extend(at.to_be_bytes());
                counts
                    .iter()
                    .for_each(|count| out.extend(count.to_be_bytes()));
            }
        }
    }
    let check = check(&out);
    out.extend(check);
    out
}

fn until_record(out: &mut Vec<u8>, tag: u8, network: ClientKey, until: u32) {
    out.push(tag);
    out.extend(network.to_bits().to_be_bytes());
    out.extend(until.to_be_bytes());
}

/// Reads a batch: all of it or nothing, and nothing where it is about networks of another prefix.
pub fn decode(octets: &[u8], prefix: ClientPrefix) -> Result<Vec<News>, Unreadable> {
    let Some(([b'W', b'N', version, 0], _)) = octets.split_first_chunk::<4>() else {
        return Err(Unreadable::Foreign);
    };
    if *version != VERSION {
        return Err(Unreadable::Version(*version));
    }
    let (whole, _) = octets
        .split_last_chunk::<DIGEST>()
        .filter(|(whole, found)| check(whole) == **found)
        .ok_or(Unreadable::Damaged)?;
    let Some(([_, _, _, _, v4, v6], mut rest)) = whole.split_first_chunk::<6>() else {
        return Err(Unreadable::Damaged);
    };
    if (*v4, *v6) != prefix.bits() {
        return Err(Unreadable::Prefix(*v4, *v6));
    }
    let mut news = Vec::new();
    while !rest.is_empty() {
        if news.len() == BATCH_MAX {
            return Err(Unreadable::TooLong);
        }
        news.push(record(&mut rest).ok_or(Unreadable::Damaged)?);
    }
    Ok(news)
}

fn record(rest: &mut &[u8]) -> Option<News> {
    let [tag] = take(rest)?;
    let key = u64::from_be_bytes(take(rest)?);
    let network = ClientKey::from_bits(key);
    Some(match tag {
        TUPLE => News::Tuple {
            key: TupleKey(key),
            first: u32::from_be_bytes(take(rest)?),
        },
        PROVEN => News::Proven {
            network,
            until: u32::from_be_bytes(take(rest)?),
        },
        TRAPPED => News::Trapped {
            network,
            until: u32::from_be_bytes(take(rest)?),
        },
        DEEDS => {
            let (asn, at) = (take(rest)?, take(rest)?);
            let mut counts = [0; Deed::COUNT];
            for count in &mut counts {
                *count = u16::from_be_bytes(take(rest)?);
            }
            News::Deeds {
                network,
                asn: u32::from_be_bytes(asn),
                at: u32::from_be_bytes(at),
                counts,
            }
        }
        _ => return None,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn check(octets: &[u8]) -> [u8; DIGEST] {
    let digest = digest(&SHA256, octets);
    *digest
        .as_ref()
        .first_chunk()
        .expect("SHA-256 has 32 octets")
}

/// One input of the fuzzer: an octet, and what somebody has written. If the octet is odd he knows how the digest is made.
#[cfg(any(test, fuzzing))]
pub fn fuzz(input: &[u8]) {
    let Some((kind, octets)) = input.split_first() else {
        return;
    };
    let prefix = ClientPrefix::new(24, 64).expect("within their ranges");
    let mut octets = octets.to_vec();
    if kind % 2 == 1 {
        octets.extend(check(&octets));
    }
    match decode(&octets, prefix) {
        Ok(news) => {
            assert!(news.len() <= BATCH_MAX);
            assert_eq!(encode(&news, prefix), octets, "one way to write it");
            let last = octets.len() - 1;
            assert_eq!(decode(&octets[..last], prefix), Err(Unreadable::Damaged));
            octets[last] ^= 1;
            assert_eq!(decode(&octets, prefix), Err(Unreadable::Damaged));
        }
        Err(Unreadable::Foreign) => assert!(!octets.starts_with(&HEAD)),
        Err(Unreadable::Version(version)) => {
            assert_eq!((octets[2], octets[2] != VERSION), (version, true));
        }
        Err(Unreadable::TooLong) => assert!(octets.len() > BATCH_MAX * TUPLE_OCTETS),
        Err(Unreadable::Prefix(v4, v6)) => {
            assert_eq!(octets[4..6], [v4, v6]);
            // Whoever has that prefix reads it, or finds it damaged.
            if let Some(theirs) = ClientPrefix::new(v4, v6) {
                let found = decode(&octets, theirs);
                assert!(!matches!(found, Err(Unreadable::Prefix(..))), "{found:?}");
            }
        }
        Err(Unreadable::Damaged) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::arbitrary::news;
    use proptest::prelude::*;

    fn prefix() -> ClientPrefix {
        ClientPrefix::new(24, 64).unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(news in prop::collection::vec(news(), 0..200)) {
            prop_assert_eq!(decode(&encode(&news, prefix()), prefix()), Ok(news));
        }

        #[test]
        fn no_part_of_a_batch_is_a_batch(news in prop::collection::vec(news(), 0..20), cut in any::<prop::sample::Index>()) {
            let octets = encode(&news, prefix());
            prop_assert!(decode(&octets[..cut.index(octets.len())], prefix()).is_err());
        }

        #[test]
        fn a_changed_octet_is_noticed(news in prop::collection::vec(news(), 0..20), at in any::<prop::sample::Index>(), with in 1u8..) {
            let mut octets = encode(&news, prefix());
            let at = at.index(octets.len());
            octets[at] ^= with;
            prop_assert!(decode(&octets, prefix()).is_err());
        }

        /// Also where somebody has computed the digest.
        #[test]
        fn what_anybody_writes_is_read_or_refused(records in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut octets = [&HEAD[..], &[24, 64], &records].concat();
            octets.extend(check(&octets));
            if let Ok(news) = decode(&octets, prefix()) {
                prop_assert_eq!(encode(&news, prefix()), octets);
            }
        }
    }

    #[test]
    fn the_fuzzers_corpus_is_read_or_refused() {
        let mut count = 0;
        for file in std::fs::read_dir("tests/fuzz/corpus/news").unwrap() {
            fuzz(&std::fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 9, "{count} seeds");
    }

    #[test]
    fn strangers_are_told_apart() {
        let decode = |octets: &[u8]| super::decode(octets, prefix());
        assert_eq!(decode(b""), Err(Unreadable::Foreign));
        assert_eq!(decode(b"{\"news\": []}"), Err(Unreadable::Foreign));
        assert_eq!(decode(b"WN\x02\x00anything"), Err(Unreadable::Version(2)));
        assert_eq!(decode(b"WN\x01\x00"), Err(Unreadable::Damaged));
        let mut short = HEAD.to_vec();
        short.extend(check(&short));
        assert_eq!(decode(&short), Err(Unreadable::Damaged));
        let mut long = [&HEAD[..], &[24, 64]].concat();
        for _ in 0..=BATCH_MAX {
            long.extend([TUPLE; 13]);
        }
        long.extend(check(&long));
        assert_eq!(decode(&long), Err(Unreadable::TooLong));
        let other = ClientPrefix::new(16, 48).unwrap();
        assert_eq!(decode(&encode(&[], other)), Err(Unreadable::Prefix(16, 48)));
    }
}
