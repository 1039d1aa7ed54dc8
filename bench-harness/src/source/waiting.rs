//! Steps that nobody answers are counted, too.

use std::rc::Rc;
use std::time::Instant;

use super::start::End;
use super::stream::Stream;
use super::tally::Since;
use crate::outcome::Stage;

/// A step under way. One that runs out of patience, or is cut at the end of the run, counts with as long as it has lasted: were it left out,
/// the slowest replies would vanish from the percentiles of their step.
pub struct Waiting {
    stream: Rc<Stream>,
    stage: Stage,
    since: Since,
    is_over: bool,
}

impl Waiting {
    pub fn new(stream: &Rc<Stream>, stage: Stage, since: Since) -> Waiting {
        Waiting {
            stream: stream.clone(),
            stage,
            since,
            is_over: false,
        }
    }

    /// What came of it counts elsewhere, unless nothing did.
    pub fn over(mut self, failed: Option<&End>) {
        self.is_over = !matches!(failed, Some(End::TimedOut));
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // clients that are kept have no patience that ends, and are cut off by plan
        if !self.is_over && !self.stream.plan.profile.is_kept() && !std::thread::panicking() {
            let mut tally = self.stream.tally.borrow_mut();
            tally.stage(self.stage, self.since, Instant::now());
        }
    }
}
