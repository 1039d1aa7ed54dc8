//! What a question costs that is answered from the cache: no allocation, whatever kind of records is known.
//!
//! Method: the allocator of this process counts. A stub is told an answer for each kind, and is asked again many times.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use weir::dns::{Act, Config, Kind, Name, Outcome, Question, Stub};
use weir_smtp::time::Moment;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system's allocator's; counting allocates nothing, since the cell is initialised at compile time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: it came from `alloc` above, and so from there.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(what: impl FnOnce()) -> u64 {
    let before = COUNT.with(Cell::get);
    what();
    COUNT.with(Cell::get) - before
}

/// The answer to a query: one record with this data, its name a pointer to the question.
fn reply(query: &[u8], data: &[u8]) -> Vec<u8> {
    // Without the OPT record, which is eleven octets long.
    let question = &query[12..query.len() - 11];
    let kind = &question[question.len() - 4..question.len() - 2];
    let mut octets = [&query[..2], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0], question].concat();
    octets.extend([0xc0, 12, kind[0], kind[1], 0, 1, 0, 0, 14, 16]);
    octets.extend((data.len() as u16).to_be_bytes());
    octets.extend_from_slice(data);
    octets
}

#[test]
fn an_answer_from_the_cache_allocates_nothing() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1, "the count counts");
    let config = Config {
        servers: vec!["192.0.2.1:53".parse().unwrap()],
        ..Config::default()
    };
    let mut stub: Stub<u8> = Stub::new(config, Box::new(|| 0x0123_4567_89ab_cdef));
    let name = Name::parse(b"2.0.0.127.bl.example").unwrap();
    let mut now = Moment::from_micros(1);
    for (kind, data) in [
        (Kind::A, &[127, 0, 0, 2][..]),
        (Kind::Aaaa, &[0; 16]),
        (Kind::Ptr, &[4, b'm', b'a', b'i', b'l', 0xc0, 12]),
        (Kind::Mx, &[0, 10, 2, b'm', b'x', 0xc0, 12]),
        (Kind::Txt, &[3, b'w', b'h', b'y']),
    ] {
        let question = Question {
            name: name.clone(),
            kind,
        };
        assert_eq!(stub.ask(&question, 1, now), None);
        let mut sent = None;
        while let Some(act) = stub.poll() {
            if let Act::Send { port, message } = act {
                sent = Some((port, reply(&message, data)));
            }
        }
        let (port, reply) = sent.unwrap();
        stub.datagram(port, &reply, now);
        assert!(matches!(stub.poll(), Some(Act::Answered { .. })));
        let asked = allocations(|| {
            for _ in 0..1000 {
                now = Moment::from_micros(now.as_micros() + 1);
                let answer = stub.ask(&question, 2, now).unwrap();
                assert!(matches!(answer.outcome, Outcome::Records(_)));
            }
        });
        assert_eq!(asked, 0, "{kind:?}");
    }
    assert_eq!(stub.stats().hits, 5000);
}
