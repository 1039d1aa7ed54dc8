//! Wakes the starter in time. Tokio's timers go by milliseconds, which is too coarse for thousands of starts a second; a timerfd in the
//! same epoll set is exact to some ten microseconds.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::unix::AsyncFd;

use crate::sys;

pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set_for: Option<Instant>,
}

/// Starts nearer to each other than this are made together: a wake-up for each would cost more than it gains.
const NEAREST: Duration = Duration::from_micros(25);

impl Alarm {
    pub fn new() -> anyhow::Result<Alarm> {
        let timer = sys::timer().context("the kernel gives no timer (timerfd_create)")?;
        Ok(Alarm {
            timer,
            set_for: None,
        })
    }

    /// Has the task polled when the alarm goes off. To be called before the clock is read: what goes off after it was read wakes again.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(ready) = self.timer.poll_read_ready(cx) {
            ready?.clear_ready();
            self.set_for = None;
        }
        Ok(())
    }

    pub fn set(&mut self, at: Instant, now: Instant) -> io::Result<()> {
        if self.set_for == Some(at) {
            return Ok(());
        }
        self.set_for = Some(at);
        let after = at.saturating_duration_since(now).max(NEAREST);
        sys::set_timer(self.timer.get_ref().as_fd(), after)
    }
}
