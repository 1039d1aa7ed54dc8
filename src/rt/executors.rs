//! One executor per shard, pinned to a core.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};

/// Which shard, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ShardIndex(pub usize);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// glommio's rings: with its default of 128 entries the cost of an event grows with the operations in flight. About 1 MiB a shard.
const RING_DEPTH: usize = 4096;

/// Registered buffers count against RLIMIT_MEMLOCK, and nothing of ours uses them: the least glommio takes.
const IO_MEMORY: usize = 64 << 10;

/// What an executor's three rings and its registered memory come to, which the kernel counts as locked memory of an
/// unprivileged user (rings since Linux 6.14): per entry one submission, its place in the queue and two completions.
pub const EXECUTOR_LOCKED: u64 = 3 * (RING_DEPTH as u64 * (64 + 4 + 2 * 16)) + (128 << 10);

/// glommio arms this timer each time it hands the core to a task, and its end is an event that wakes the hot ring. A shard yields by itself at each
/// event of glommio's, so the timer has nothing to do; short, it would make an idle shard tick (5 ms are 2 % of a core on a virtual machine).
const PREEMPT_TIMER: Duration = Duration::from_secs(600);

/// What the process exits with when a shard dies: EX_SOFTWARE.
const EXIT_SHARD_DIED: i32 = 70;

/// The shards' threads.
pub struct Shards {
    handles: Vec<ExecutorJoinHandle<()>>,
}

/// The cores this process may run on, which a container's cpuset narrows.
pub fn allowed_cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.into_iter().map(|core| core.id).collect()
}

/// Starts `count` shards, pinned to `cores` in turn. Each runs the future that `make` builds on its own thread.
///
/// The steering program of the listeners counts on every shard being there, and a lost one would lose its clients' mail: when a shard panics,
/// the process ends.
pub fn start_shards<M, F>(count: usize, cores: &[usize], make: M) -> io::Result<Shards>
where
    M: Fn(ShardIndex) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    assert!(!cores.is_empty(), "a shard needs a core to run on");
    let mut handles = Vec::with_capacity(count);
    let mut starting = Vec::with_capacity(count);
    for index in 0..count {
        let make = make.clone();
        let (tell, started) = std::sync::mpsc::channel();
        starting.push(started);
        let handle = LocalExecutorBuilder::new(Placement::Fixed(cores[index % cores.len()]))
            .name(&format!("shard-{index}"))
            .ring_depth(RING_DEPTH)
            .io_memory(IO_MEMORY)
            .preempt_timer(PREEMPT_TIMER)
            .spawn(move || async move {
                let _ = tell.send(()); // nobody listens any more when another shard could not start
                if let Err(panic) = catching_panics(make(ShardIndex(index))).await {
                    die(ShardIndex(index), panic.as_ref());
                }
            })
            .map_err(plain)?;
        handles.push(handle);
    }
    // An executor that cannot be made drops its task unstarted, and its thread ends with the reason.
    if let Some(failed) = starting.iter().position(|started| started.recv().is_err()) {
        let reason = handles.swap_remove(failed).join().map_err(plain);
        return Err(reason
            .err()
            .unwrap_or_else(|| io::Error::other(format!("shard {failed} ended before it began"))));
    }
    Ok(Shards { handles })
}

impl Shards {
    /// Waits until all shards have ended.
    pub fn join(self) -> io::Result<()> {
        for handle in self.handles {
            handle.join().map_err(plain)?;
        }
        Ok(())
    }
}

/// Polls a future to its end or its panic.
pub(super) async fn catching_panics<F: Future>(
    future: F,
) -> Result<F::Output, Box<dyn Any + Send>> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// The words of a panic, if it has any.
pub(super) fn panic_words(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let fixed = panic.downcast_ref::<&str>().copied();
    owned.or(fixed).unwrap_or("a panic without words")
}

/// glommio's own errors carry what is not Sync; their words are what anybody needs.
fn plain(error: glommio::GlommioError<()>) -> io::Error {
    match error {
        glommio::GlommioError::IoError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

fn die(shard: ShardIndex, panic: &(dyn Any + Send)) -> ! {
    // Beside the log, whose writer may not get to it any more.
    eprintln!("weir: shard {shard} died: {}", panic_words(panic));
    log::error!("shard {shard} died: {}", panic_words(panic));
    std::process::exit(EXIT_SHARD_DIED)
}
