//! Background tasks of a shard: glommio tasks beside the hot one.
//!
//! While the hot task sleeps in its ring nobody else runs. So it yields when glommio has work, and there are two ways to know: glommio's rings, which
//! the hot ring watches, and the wakers handed to background tasks, which leave a mark here.
//! glommio looks at its rings only when no task of the executor can run; a yield therefore rests on a timer that is over at once, and so does a
//! background task that wakes itself: neither can keep the other, or the rings, waiting.

use std::cell::OnceCell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use glommio::timer::Timer;
use glommio::{Latency, Shares, TaskQueueHandle};

use super::executors::{catching_panics, panic_words};

/// Long enough not to be over before it is first looked at.
const REST: Duration = Duration::from_micros(5);

thread_local! {
    static MARK: Arc<AtomicBool> = Arc::new(AtomicBool::new(false));
    static QUEUE: OnceCell<TaskQueueHandle> = const { OnceCell::new() };
}

/// Runs a future beside this shard's hot task. It starts at the shard's next yield; a panic ends it alone.
pub fn spawn_background(name: &'static str, future: impl Future<Output = ()> + 'static) {
    let queue = QUEUE.with(|queue| *queue.get_or_init(background_queue));
    let mark = MARK.with(Arc::clone);
    mark.store(true, Ordering::Release);
    let task = async move {
        if let Err(panic) = catching_panics(resting_between_steps(future, mark)).await {
            log::error!(
                "background task {name} panicked: {}",
                panic_words(panic.as_ref())
            );
        }
    };
    glommio::spawn_local_into(task, queue)
        .expect("the queue was made on this executor and is never removed")
        .detach();
}

/// Whether a background task of this shard could run: then the hot task must not sleep.
pub fn has_background_work() -> bool {
    MARK.with(|mark| mark.load(Ordering::Acquire))
}

/// Lets glommio look at its rings and run the background tasks that can run.
pub async fn yield_background() {
    MARK.with(|mark| mark.store(false, Ordering::Release));
    Timer::new(REST).await;
}

fn background_queue() -> TaskQueueHandle {
    glommio::executor().create_task_queue(Shares::Static(1), Latency::NotImportant, "background")
}

/// Polls the future with a waker of ours in between, and rests after each step that woke itself.
async fn resting_between_steps(future: impl Future<Output = ()>, mark: Arc<AtomicBool>) {
    let mut future = pin!(future);
    let marker = Arc::new(Marker {
        mark,
        woken: AtomicBool::new(false),
        task: Mutex::new(Waker::noop().clone()),
    });
    let waker = Waker::from(Arc::clone(&marker));
    loop {
        let ended = std::future::poll_fn(|cx| {
            marker.task().clone_from(cx.waker());
            marker.woken.store(false, Ordering::Release);
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending if marker.woken.load(Ordering::Acquire) => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        if ended.await {
            return;
        }
        Timer::new(REST).await;
    }
}

/// Wakes the task and leaves the mark that it can run.
struct Marker {
    mark: Arc<AtomicBool>,
    woken: AtomicBool,
    task: Mutex<Waker>,
}

impl Marker {
    fn task(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.task.lock().expect("nobody panics while it is held")
    }
}

impl Wake for Marker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.mark.store(true, Ordering::Release);
        // Cloned, because waking runs glommio's code, which may wake again.
        let task = self.task().clone();
        task.wake();
    }
}
