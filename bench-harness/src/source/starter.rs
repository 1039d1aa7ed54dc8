//! Makes the starts of all streams, each at its time, and knows when the run is over.
//!
//! It is polled whenever a session was, at the latest after some sixty of them, so a burst of replies does not hold up the plan; between,
//! the alarm wakes it. What is due is started, late or not: a start never waits for a reply.

use std::iter::Peekable;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::alarm::Alarm;
use super::profiles;
use super::schedule::Schedule;
use super::start::Start;
use super::stream::{Process, Stream};
use crate::outcome::Counts;
use crate::plan::{Arrivals, Plan};

pub struct Starter<'c> {
    process: Rc<Process>,
    lanes: Vec<Lane>,
    alarm: Alarm,
    begun: Instant,
    /// No starts from here on.
    ends: Instant,
    grace: Duration,
    /// Whole seconds that are over.
    seconds: u32,
    on_second: &'c mut dyn FnMut(&[Counts]) -> ControlFlow<()>,
}

/// One stream and its plan.
struct Lane {
    stream: Rc<Stream>,
    plan: Starts,
    made: u64,
}

enum Starts {
    Planned(Peekable<Schedule>),
    /// As many as are missing, at most one every so often.
    Refilled {
        sessions: u32,
        every: Duration,
        next: Instant,
    },
}

/// Starts a stream may make in one go before other streams and sessions get their turn.
const AT_ONCE: u32 = 64;
/// How far the opening of held clients may be behind its rate and still catch up.
const BEHIND: Duration = Duration::from_millis(10);
/// Starts that are counted one by one as dropped when a run is cut, a second's work.
const REST_MAX: usize = 10_000_000;
/// Later than this counts as late.
const LATE: Duration = Duration::from_millis(1);

impl<'c> Starter<'c> {
    pub fn new(
        plan: &Plan,
        process: &Rc<Process>,
        streams: &[Rc<Stream>],
        on_second: &'c mut dyn FnMut(&[Counts]) -> ControlFlow<()>,
    ) -> anyhow::Result<Starter<'c>> {
        let begun = process.begun;
        let lanes = streams.iter().map(|stream| Lane::new(plan, stream, begun));
        Ok(Starter {
            process: process.clone(),
            lanes: lanes.collect::<anyhow::Result<_>>()?,
            alarm: Alarm::new()?,
            begun,
            ends: begun + plan.lasts,
            grace: plan.grace,
            seconds: 0,
            on_second,
        })
    }

    /// Ready when every session that ends by itself has ended, or had its grace.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<anyhow::Result<()>> {
        match self.step(cx) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn step(&mut self, cx: &mut Context<'_>) -> anyhow::Result<bool> {
        if self.process.is_broken.get() {
            bail!("a session of the load source broke down; its panic is printed above");
        }
        self.alarm.poll(cx).context("the timer cannot be read")?;
        let now = Instant::now();
        self.count_seconds(now);
        let mut next = self.begun + Duration::from_secs(u64::from(self.seconds) + 1);
        self.listen_for_ends(cx);
        if !self.process.is_ending.get() {
            let is_over = now >= self.ends;
            match self.make_starts(now.min(self.ends), is_over) {
                // more are due: after sessions had their turn
                None => cx.waker().wake_by_ref(),
                Some(_) if is_over => self.end(),
                Some(due) => next = next.min(due).min(self.ends),
            }
        }
        let cut = self.ends + self.grace;
        if now >= cut || self.process.is_ending.get() && self.is_quiet() {
            let lasted = self.ends - self.begun;
            for lane in &mut self.lanes {
                lane.drop_rest(lasted);
            }
            return Ok(true);
        }
        next = next.min(cut);
        self.alarm
            .set(next, now)
            .context("the timer cannot be set")?;
        Ok(false)
    }

    fn listen_for_ends(&self, cx: &Context<'_>) {
        let mut starter = self.process.starter.borrow_mut();
        match &mut *starter {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *starter = Some(cx.waker().clone()),
        }
    }

    /// The time of the next start; None where some are still due. A plan that is over is caught up with, and nobody is replaced.
    fn make_starts(&mut self, now: Instant, is_over: bool) -> Option<Instant> {
        let mut next = Some(self.ends);
        for lane in &mut self.lanes {
            for made in 0..=AT_ONCE {
                let Some(due) = lane.next(self.begun, is_over) else {
                    break;
                };
                if due > now {
                    next = next.map(|next| next.min(due));
                    break;
                }
                if made == AT_ONCE {
                    next = None;
                    break;
                }
                lane.start(due);
            }
        }
        next
    }

    fn end(&mut self) {
        self.process.is_ending.set(true);
        for lane in &self.lanes {
            lane.stream.dismiss();
        }
    }

    /// Whether only clients are left that never end by themselves.
    fn is_quiet(&self) -> bool {
        self.lanes
            .iter()
            .map(|lane| &lane.stream)
            .filter(|stream| !stream.plan.profile.is_kept())
            .all(|stream| stream.under_way.get() == 0 && stream.connections.get() == 0)
    }

    fn count_seconds(&mut self, now: Instant) {
        let over = (now - self.begun).as_secs() as u32;
        if over == self.seconds {
            return;
        }
        // a second that nobody looked at ended like this one
        for second in self.seconds..over {
            let at = self.begun + Duration::from_secs(second.into());
            for lane in &self.lanes {
                let open = lane.stream.connections.get();
                lane.stream.tally.borrow_mut().open(at, open.into());
            }
        }
        self.seconds = over;
        let counts: Vec<Counts> = self
            .lanes
            .iter()
            .map(|lane| lane.stream.tally.borrow().counts)
            .collect();
        if (self.on_second)(&counts).is_break() {
            self.ends = self.ends.min(now);
        }
    }
}

impl Lane {
    fn new(plan: &Plan, stream: &Rc<Stream>, begun: Instant) -> anyhow::Result<Lane> {
        let starts = match &stream.plan.arrivals {
            Arrivals::Open { pattern, steps } => {
                let seed = stream.chance.borrow_mut().u64(..);
                let schedule = Schedule::new(steps, *pattern, plan.lasts, plan.process, seed)
                    .with_context(|| format!("stream {} cannot be planned", stream.plan.name))?;
                Starts::Planned(schedule.peekable())
            }
            Arrivals::Closed { sessions } => Starts::Refilled {
                sessions: stream.plan.open_max.min(*sessions),
                every: Duration::ZERO,
                next: begun,
            },
            Arrivals::Held {
                connections,
                per_second,
            } => Starts::Refilled {
                sessions: stream.plan.open_max.min(*connections),
                every: Duration::from_secs(1) / (*per_second).max(1),
                next: begun,
            },
        };
        Ok(Lane {
            stream: stream.clone(),
            plan: starts,
            made: 0,
        })
    }

    /// When the next start is due, which may be past. None: when a session has ended, or never.
    fn next(&mut self, begun: Instant, is_over: bool) -> Option<Instant> {
        if self.made >= self.stream.plan.starts_max || !self.stream.process.has_numbers() {
            return None;
        }
        match &mut self.plan {
            Starts::Planned(schedule) => schedule.peek().map(|at| begun + *at),
            Starts::Refilled { sessions, next, .. } => {
                (self.stream.under_way.get() < *sessions && !is_over).then_some(*next)
            }
        }
    }

    /// What the source could not even begin until it was cut counts as dropped.
    fn drop_rest(&mut self, lasted: Duration) {
        if let Starts::Planned(schedule) = &mut self.plan {
            let allowed = self.stream.plan.starts_max - self.made;
            let rest = schedule.take(REST_MAX.min(allowed as usize));
            let rest = rest.take_while(|at| *at < lasted).count();
            self.stream.tally.borrow_mut().counts.dropped += rest as u64;
        }
    }

    fn start(&mut self, due: Instant) {
        let now = Instant::now();
        let planned = match &mut self.plan {
            Starts::Planned(schedule) => {
                schedule.next();
                due
            }
            Starts::Refilled { every, next, .. } => {
                // who was lost all at once comes back one by one
                *next = (*next + *every).max(now - BEHIND);
                now
            }
        };
        let number = self.made;
        self.made += 1;
        if self.stream.under_way.get() >= self.stream.plan.open_max {
            self.stream.tally.borrow_mut().counts.dropped += 1;
            return;
        }
        if now.saturating_duration_since(planned) > LATE {
            self.stream.tally.borrow_mut().counts.late += 1;
        }
        profiles::spawn(Start::new(&self.stream, number, planned, now));
    }
}
