//! What is told while a run goes on: live progress on the terminal (nothing where there is none, or with --quiet), and the lines of
//! commands that make several.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Once;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::outcome::Counts;
use crate::plan::Plan;
use crate::units::grouped;

pub struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    pub fn new(plan: &Plan, quiet: bool) -> Progress {
        let target = if quiet {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let milliseconds = plan.lasts.as_millis() as u64;
        let bar = ProgressBar::with_draw_target(Some(milliseconds), target);
        let style = ProgressStyle::with_template("{bar:30} {elapsed} {msg}")
            .expect("the template is a constant");
        bar.set_style(style);
        Progress { bar, quiet }
    }

    /// Told before the run, so that it can still be broken off; the summary has them again, for whoever reads it later.
    pub fn warn(&self, warnings: &[String]) {
        if self.quiet || !std::io::stderr().is_terminal() {
            return;
        }
        for warning in warnings {
            eprintln!("warning: {warning}");
        }
    }

    pub fn tick(&self, elapsed: Duration) {
        self.bar.set_position(elapsed.as_millis() as u64);
    }

    /// Counts so far: by process, then by stream.
    pub fn update(&self, totals: &[Vec<Counts>]) {
        let mut sum = Counts::default();
        for counts in totals.iter().flatten() {
            sum.merge(counts);
        }
        self.bar.set_message(words(&sum));
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// A line on standard output. `println!` panics where nobody reads it any more, and an hour's results would be lost with it.
pub fn tell(line: impl Display) {
    static NOTED: Once = Once::new();
    let mut output = std::io::stdout().lock();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) {
        NOTED.call_once(|| eprintln!("what is told is read by nobody ({error}); it goes on"));
    }
}

fn words(counts: &Counts) -> String {
    let refused = counts.deferred + counts.rejected + counts.turned_away;
    let lost = counts.unanswered + counts.timed_out;
    format!(
        "{} started ({} late, {} dropped) · {} accepted · {} refused · {} unanswered",
        grouped(counts.starts),
        grouped(counts.late),
        grouped(counts.dropped),
        grouped(counts.accepted),
        grouped(refused),
        grouped(lost)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_what_has_happened_so_far() {
        let counts = Counts {
            starts: 12_000,
            late: 3,
            accepted: 11_000,
            deferred: 1,
            rejected: 2,
            ..Counts::default()
        };
        assert_eq!(
            words(&counts),
            "12,000 started (3 late, 0 dropped) · 11,000 accepted · 3 refused · 0 unanswered"
        );
    }
}
