//! What is said to a client: the reply, or what the faults have in its place, or the violation it has committed.

use weir_smtp::violation::Violation;

use super::super::fault::{Deed, Place};
use super::{Desk, Next, Phase, Replies, Session};

impl Session {
    /// The client is at fault.
    pub(super) fn refuse(
        &mut self,
        violation: Violation,
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        desk.counters.violation(violation.word());
        self.follow_up(violation, desk, out)
    }

    /// Refused for what came before.
    pub(super) fn follow_up(
        &mut self,
        violation: Violation,
        desk: &Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        desk.texts
            .push(&mut out.octets, violation.reply().as_bytes());
        Next::GoOn
    }

    /// The client is at fault, and there is no way to go on.
    pub(super) fn end_with(
        &mut self,
        violation: Violation,
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        self.refuse(violation, desk, out);
        Next::Close
    }

    pub(super) fn answer(
        &mut self,
        place: Place,
        reply: &[u8],
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> Next {
        self.answer_at(place, reply, desk, out).0
    }

    /// Says `reply`, or what the faults have in its place. True: it was said.
    pub(super) fn answer_at(
        &mut self,
        place: Place,
        reply: &[u8],
        desk: &mut Desk<'_>,
        out: &mut Replies,
    ) -> (Next, bool) {
        let text = |desk: &Desk<'_>, out: &mut Vec<u8>| desk.texts.push(out, reply);
        self.answer_with(place, desk, out, text)
    }

    pub(super) fn answer_with(
        &mut self,
        place: Place,
        desk: &mut Desk<'_>,
        out: &mut Replies,
        say: impl FnOnce(&Desk<'_>, &mut Vec<u8>),
    ) -> (Next, bool) {
        if let Some(delay) = desk.faults.delay(place) {
            out.delay = out.delay.max(delay.draw(&mut self.rng));
        }
        let Some(deed) = desk.faults.deed(place, &mut self.rng) else {
            say(desk, &mut out.octets);
            return (Next::GoOn, true);
        };
        desk.counters.fault(deed.word());
        let next = match deed {
            Deed::Reset => Next::Reset,
            Deed::Close => Next::Close,
            Deed::Stall => {
                self.phase = Phase::Deaf;
                Next::GoOn
            }
            Deed::Garbage => {
                out.octets
                    .extend_from_slice(GARBAGE[self.rng.usize(0..GARBAGE.len())]);
                Next::GoOn
            }
            Deed::Reply(code) => {
                let class = code / 100;
                let text = format!("{code} {class}.3.0 As the sink was told to say\r\n");
                desk.texts.push(&mut out.octets, text.as_bytes());
                match place {
                    _ if matches!(code, 421 | 521) => Next::Close,
                    Place::Greeting => Next::Close,
                    _ => Next::GoOn,
                }
            }
        };
        (next, false)
    }
}

/// What is no reply, each in its own way.
const GARBAGE: [&[u8]; 8] = [
    b"\r\n",
    b"hello\r\n",
    b"25",
    b"999 9.9.9 there is no such class\r\n",
    b"250 2.0.0 bare\n",
    b"250-2.0.0 one\r\n550 5.0.0 other\r\n",
    b"250 2.0.0 n\0ught\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
];
