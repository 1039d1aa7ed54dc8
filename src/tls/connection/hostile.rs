//! A peer that knows TLS and bends it: a real one's records with octets changed, left out, said twice or invented between
//! them, in any pieces. Nothing comes out that it did not say, nobody panics, and what is kept and answered is bounded.

use proptest::prelude::*;
use rustls::version::{TLS12, TLS13};

use super::tests::Peer;
use super::*;

const SAID: &[u8] = b"MAIL FROM:<a@c.example>\r\nRCPT TO:<b@d.example>\r\n";

/// What becomes of a flight.
#[derive(Clone, Debug)]
enum Bend {
    Change(prop::sample::Index, u8),
    LeaveOut(prop::sample::Index, usize),
    Twice(prop::sample::Index, usize),
    /// Any octets, anywhere.
    Noise(prop::sample::Index, Vec<u8>),
    /// A record of that type that says it is so long, ahead of all others.
    Record(u8, u16, Vec<u8>),
}

fn bend() -> impl Strategy<Value = Bend> {
    let at = any::<prop::sample::Index>;
    let octets = |most| proptest::collection::vec(any::<u8>(), 0..most);
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, by)| Bend::Change(at, by)),
        2 => (at(), 1usize..400).prop_map(|(at, len)| Bend::LeaveOut(at, len)),
        2 => (at(), 1usize..2000).prop_map(|(at, len)| Bend::Twice(at, len)),
        2 => (at(), octets(300)).prop_map(|(at, noise)| Bend::Noise(at, noise)),
        1 => (at(), octets(40_000)).prop_map(|(at, noise)| Bend::Noise(at, noise)),
        3 => (19u8..26, any::<u16>(), octets(300)).prop_map(|(kind, len, body)| Bend::Record(kind, len, body)),
        // Well-formed, as far as its length goes.
        3 => (19u8..26, octets(300)).prop_map(|(kind, body)| Bend::Record(kind, body.len() as u16, body)),
    ]
}

impl Bend {
    fn apply(&self, flight: &mut Vec<u8>) {
        let span = |at: &prop::sample::Index, len: usize| {
            let start = at.index(flight.len() + 1);
            start..(start + len).min(flight.len())
        };
        match self {
            Bend::Change(at, by) if !flight.is_empty() => {
                let at = at.index(flight.len());
                flight[at] ^= by;
            }
            Bend::Change(..) => {}
            Bend::LeaveOut(at, len) => drop(flight.drain(span(at, *len))),
            Bend::Twice(at, len) => {
                let span = span(at, *len);
                let again = flight[span.clone()].to_vec();
                flight.splice(span.start..span.start, again);
            }
            Bend::Noise(at, noise) => {
                let start = span(at, 0).start;
                flight.splice(start..start, noise.iter().copied());
            }
            Bend::Record(kind, len, body) => {
                let [high, low] = len.to_be_bytes();
                let record = [*kind, 3, 3, high, low]
                    .into_iter()
                    .chain(body.iter().copied());
                flight.splice(0..0, record);
            }
        }
    }
}

/// Ours, and what it has taken and given.
struct Victim {
    ours: Connection,
    plain: Vec<u8>,
    taken: usize,
    given: usize,
    failed: bool,
}

impl Victim {
    fn read(&mut self, piece: &mut [u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let before = self.plain.len();
        let read = self.ours.read(piece, &mut self.plain, &mut out);
        self.taken += piece.len();
        self.given += out.len();
        if self.failed {
            assert!(read.is_err() && out.is_empty(), "it stays failed");
            assert_eq!(self.plain.len(), before);
        }
        self.failed = read.is_err();
        assert!(SAID.starts_with(&self.plain), "nothing that was not said");
        assert!(self.plain.is_empty() || self.ours.is_secured() || self.failed);
        assert!(self.ours.carried() <= CARRY_MAX + RECORD_MAX + HEADER);
        // Its own flights and tickets, and no more than an answer to each record.
        assert!(
            self.given <= 16_384 + 2 * self.taken,
            "{} octets",
            self.given
        );
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(5000) })]

    #[test]
    fn a_peer_that_bends_the_rules_gains_nothing(
        newest: bool,
        ours_serves: bool,
        bent in 0usize..4,
        bends in proptest::collection::vec(bend(), 1..4),
        pieces in proptest::collection::vec(prop_oneof![1usize..8, 1usize..600, 1usize..40_000], 1..6),
    ) {
        let version = if newest { &TLS13 } else { &TLS12 };
        let (ours, mut peer) = Peer::of(version, ours_serves);
        let mut victim = Victim { ours, plain: Vec::new(), taken: 0, given: 0, failed: false };
        let mut pieces = pieces.into_iter().cycle();
        let (mut hears, mut said) = (true, false);
        let mut answer = if ours_serves { Vec::new() } else { victim.read(&mut []) };
        for flight in 0..6 {
            // An alert, or the answer to what it never sent, ends its part: what it had to say still arrives.
            hears = hears && peer.hear_if_it_can(&answer);
            if hears && !peer.is_handshaking() && !said {
                peer.say(SAID);
                said = true;
            }
            let mut cipher = peer.speak();
            if flight == bent {
                bends.iter().for_each(|bend| bend.apply(&mut cipher));
            }
            answer.clear();
            let mut rest = &mut cipher[..];
            while !rest.is_empty() {
                let len = pieces.next().expect("endless").min(rest.len());
                let (piece, behind) = rest.split_at_mut(len);
                answer.extend(victim.read(piece));
                rest = behind;
            }
        }
    }
}
