//! Shards on their executors: the hot task sleeps in its own ring, and glommio's work still gets done.
//!
//! Method: a real shard thread with a real ring and a loop like the one in `shard`; time is measured only against generous bounds.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use weir::ring::{Event, Ring, RingConfig};
use weir::rt;
use weir_smtp::time::Moment;

/// Turns the ring until `done` says so; counts how often glommio was let in.
async fn hot_loop(ring: &mut Ring, span: Duration, mut done: impl FnMut() -> bool) -> usize {
    for fd in rt::executor_rings() {
        ring.watch_background(fd);
    }
    let epoch = Instant::now();
    let mut yields = 0;
    while !done() && epoch.elapsed() < span {
        let now = Moment::ZERO + epoch.elapsed();
        let until = if rt::has_background_work() {
            now
        } else {
            Moment::ZERO + span
        };
        ring.wait(now, until).expect("the ring turns");
        let mut background = rt::has_background_work();
        while let Some(event) = ring.next_event() {
            background |= matches!(event, Event::Background);
        }
        if background {
            yields += 1;
            rt::yield_background().await;
        }
    }
    yields
}

fn small_ring() -> Ring {
    let config = RingConfig {
        slots: 64,
        reserve: 8,
        ..RingConfig::default()
    };
    Ring::new(&config).expect("this host has io_uring")
}

fn on_one_shard<F: Future<Output = ()> + 'static>(body: impl Fn() -> F + Clone + Send + 'static) {
    rt::start_shards(1, &rt::allowed_cores(), move |_| body())
        .expect("a shard starts")
        .join()
        .expect("it runs to its end");
}

#[test]
fn a_background_task_reads_a_file_while_the_hot_loop_sleeps() {
    on_one_shard(|| async {
        let mut ring = small_ring();
        let read = Rc::new(Cell::new(0));
        let count = Rc::clone(&read);
        rt::spawn_background("reader", async move {
            let file = glommio::io::BufferedFile::open("Cargo.toml")
                .await
                .expect("the file is there");
            let bytes = file.read_at(0, 64).await.expect("it can be read");
            file.close().await.expect("it closes");
            count.set(bytes.len());
        });
        let begun = Instant::now();
        hot_loop(&mut ring, Duration::from_secs(10), || read.get() > 0).await;
        assert_eq!(read.get(), 64);
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_task_of_many_steps_neither_stalls_nor_stalls_the_loop() {
    on_one_shard(|| async {
        let mut ring = small_ring();
        let steps = Rc::new(Cell::new(0));
        let count = Rc::clone(&steps);
        let mut left = 200;
        rt::spawn_background(
            "steps",
            poll_fn(move |cx| {
                count.set(count.get() + 1);
                left -= 1;
                if left == 0 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
        );
        let mut turns = 0;
        hot_loop(&mut ring, Duration::from_secs(10), || {
            turns += 1;
            steps.get() == 200
        })
        .await;
        assert_eq!(steps.get(), 200);
        assert!(turns > 50, "the hot loop had {turns} turns");
    });
}

#[test]
fn a_panic_in_the_background_ends_nothing_else() {
    on_one_shard(|| async {
        let mut ring = small_ring();
        let done = Rc::new(Cell::new(false));
        let flag = Rc::clone(&done);
        rt::spawn_background("doomed", async { panic!("on purpose") });
        rt::spawn_background("healthy", async move { flag.set(true) });
        hot_loop(&mut ring, Duration::from_secs(10), || done.get()).await;
        assert!(done.get());
    });
}

#[test]
fn an_idle_shard_does_not_tick() {
    on_one_shard(|| async {
        let mut ring = small_ring();
        hot_loop(&mut ring, Duration::from_millis(100), || false).await;
        let before = ring.stats().enters;
        let yields = hot_loop(&mut ring, Duration::from_millis(1500), || false).await;
        let enters = ring.stats().enters - before;
        assert!(
            enters < 20,
            "{enters} turns, {yields} yields in 1.5 s of nothing"
        );
    });
}

#[test]
fn mail_reaches_a_sleeping_shard() {
    let heard = Arc::new(AtomicUsize::new(0));
    let doorbell = weir::ring::Doorbell::new().expect("an eventfd");
    let (sender, mailbox) = rt::mailbox::<usize>(8, doorbell.clone());
    let mailbox = Arc::new(mailbox);
    let total = Arc::clone(&heard);
    let shards = rt::start_shards(1, &rt::allowed_cores(), move |_| {
        let (mailbox, total, doorbell) = (mailbox.clone(), total.clone(), doorbell.clone());
        async move {
            let config = RingConfig {
                slots: 64,
                reserve: 8,
                ..RingConfig::default()
            };
            let mut ring = Ring::answering(&config, doorbell).expect("a ring");
            while total.load(Ordering::Relaxed) < 100 {
                ring.wait(Moment::ZERO, Moment::NEVER).expect("a turn");
                while ring.next_event().is_some() {}
                while let Some(number) = mailbox.take() {
                    total.fetch_add(number, Ordering::Relaxed);
                }
            }
        }
    })
    .expect("a shard starts");
    let mut sent = 0;
    while sent < 100 {
        match sender.send(1) {
            Ok(()) => sent += 1,
            Err(rt::Undelivered::Full(_)) => std::thread::yield_now(),
            Err(rt::Undelivered::Ended(_)) => panic!("the shard has ended"),
        }
    }
    shards.join().expect("all mail was read");
    assert_eq!(heard.load(Ordering::Relaxed), 100);
}
