//! What workers say to their parent: a line of JSON each.

use serde::{Deserialize, Serialize};

use crate::outcome::Counts;
use crate::source::SourceReport;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FromWorker {
    /// The plan is read; waiting for `go`.
    Ready,
    /// Counts so far, stream by stream.
    Second(Vec<Counts>),
    Report(Box<SourceReport>),
}
