//! A kept connection, each command waiting for its reply.

use super::super::start::Start;
use super::{kept, per_message};

pub async fn run(start: Start) {
    kept::run(start, per_message::deliver).await;
}
