//! Sends: whole or failed, gathered, dripped, cancelled.

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use weir::ring::{Event, Group, Part, SlotId, Wire};

use crate::bench::{Bench, small};

/// Waits for the end of a slot's send.
fn sent(bench: &mut Bench, wanted: SlotId) -> Result<usize, ErrorKind> {
    bench.until(|_, event| match event {
        Event::Sent {
            slot,
            result,
            flight,
            ..
        } if *slot == wanted => {
            assert!(flight.is_empty());
            Some(match result {
                Ok(count) => Ok(*count),
                Err(error) => Err(error.kind()),
            })
        }
        _ => None,
    })
}

#[test]
fn a_send_comes_back_with_its_allocation() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    let mut bytes = Vec::with_capacity(1000);
    bytes.extend_from_slice(b"220 weir\r\n");
    bench.ring.send(slot, bytes);
    let capacity = bench.until(|_, event| match event {
        Event::Sent { flight, .. } => Some(flight.capacity()),
        _ => None,
    });
    assert_eq!(capacity, 1000);
    let mut heard = [0; 10];
    peer.read_exact(&mut heard).expect("all of it");
    assert_eq!(&heard, b"220 weir\r\n");
}

#[test]
fn a_large_send_completes_whole_however_slow_the_peer() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    let body: Vec<u8> = (0..8 << 20).map(|i| i as u8).collect();
    bench.ring.send(slot, body.clone());
    let reader = std::thread::spawn(move || {
        let mut heard = vec![0; 8 << 20];
        for part in heard.chunks_mut(1 << 20) {
            std::thread::sleep(Duration::from_millis(5));
            peer.read_exact(part).expect("all of it");
        }
        heard
    });
    assert_eq!(sent(&mut bench, slot), Ok(8 << 20));
    assert!(reader.join().expect("read") == body);
}

#[test]
fn spans_are_sent_from_the_buffers_they_arrived_in() {
    let mut bench = Bench::new();
    let (client, mut sender) = bench.pair();
    let (upstream, mut receiver) = bench.upstream();
    bench.ring.start_receive(client, Group::Client);
    sender.write_all(b"Subject: hi\r\n").expect("sent");
    let (buffer, len) = bench.until(|_, event| match event {
        Event::Received { buffer, len, .. } => Some((*buffer, *len)),
        _ => None,
    });
    let parts = [
        Part::Bytes { start: 0, len: 7 },
        Part::Span {
            buffer,
            start: 0,
            len,
        },
        Part::Bytes { start: 7, len: 3 },
    ];
    bench
        .ring
        .send_spans(upstream, b"BDAT13 . ".to_vec(), &parts[..2]);
    bench.ring.release(buffer);
    assert_eq!(bench.ring.buffers_held(Group::Client), 1);
    assert_eq!(sent(&mut bench, upstream), Ok(20));
    assert_eq!(bench.ring.buffers_held(Group::Client), 0);
    let mut heard = [0; 20];
    receiver.read_exact(&mut heard).expect("all of it");
    assert_eq!(&heard, b"BDAT13 Subject: hi\r\n");
}

#[test]
fn a_list_longer_than_the_kernel_takes_goes_out_in_order() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    let head: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    let parts: Vec<Part> = (0..5000)
        .map(|start| Part::Bytes { start, len: 1 })
        .collect();
    bench.ring.send_spans(slot, head.clone(), &parts);
    assert_eq!(sent(&mut bench, slot), Ok(5000));
    let mut heard = vec![0; 5000];
    peer.read_exact(&mut heard).expect("all of it");
    assert_eq!(heard, head);
}

#[test]
fn copy_buffers_are_sent_while_more_is_appended() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    let chunk = bench.ring.chunk().expect("the budget is unused");
    assert_eq!(bench.ring.chunk_append(chunk, b"one "), (0, 4));
    let part = Part::Span {
        buffer: chunk,
        start: 0,
        len: 4,
    };
    bench.ring.send_spans(slot, Vec::new(), &[part]);
    assert_eq!(bench.ring.chunk_append(chunk, b"two "), (4, 4));
    assert_eq!(bench.ring.chunk_append(chunk, &[b'.'; 5000]), (8, 4088));
    assert_eq!(bench.ring.held_chunks(), 1);
    bench.ring.release(chunk);
    assert_eq!(sent(&mut bench, slot), Ok(4));
    assert_eq!(bench.ring.held_chunks(), 0);
    let mut heard = [0; 4];
    peer.read_exact(&mut heard).expect("all of it");
    assert_eq!(&heard, b"one ");
}

#[test]
fn the_hold_budget_has_an_end() {
    let mut bench = Bench::new();
    let held: Vec<_> = (0..small().chunks)
        .map(|_| bench.ring.chunk().expect("in the budget"))
        .collect();
    assert_eq!(bench.ring.chunk(), None);
    bench.ring.release(held[2]);
    assert!(bench.ring.chunk().is_some());
}

#[test]
fn a_drip_does_not_wait_for_a_full_socket() {
    let mut bench = Bench::new();
    let (slot, mut peer) = bench.pair();
    bench.ring.send_now(slot, b"2");
    assert_eq!(sent(&mut bench, slot), Ok(1));
    let mut heard = [0; 1];
    peer.read_exact(&mut heard).expect("the drip");
    // The peer does not read: what the kernel takes it takes, then a drip finds no room.
    bench.ring.send(slot, vec![b'.'; 64 << 20]);
    bench.turn(Duration::from_millis(200));
    bench.ring.cancel_send(slot);
    let taken = sent(&mut bench, slot);
    assert!(matches!(taken, Err(_) | Ok(..67_108_864)), "{taken:?}");
    // What room the cancelled send left is used up drip by drip; then there is none, and no waiting.
    let refused = (0..100_000).find_map(|_| {
        bench.ring.send_now(slot, &[b'0'; 11]);
        sent(&mut bench, slot).err()
    });
    assert_eq!(refused, Some(ErrorKind::WouldBlock));
}

#[test]
fn a_cancelled_send_ends_soon() {
    let mut bench = Bench::new();
    let (slot, _peer) = bench.pair();
    bench.ring.send(slot, vec![b'.'; 64 << 20]);
    bench.turn(Duration::from_millis(50));
    bench.ring.cancel_send(slot);
    let result = sent(&mut bench, slot);
    assert!(matches!(result, Err(_) | Ok(..67_108_864)), "{result:?}");
    bench.ring.cancel_send(slot);
    bench.ring.close(slot, weir::ring::Close::Now);
    bench.closed(slot);
}
