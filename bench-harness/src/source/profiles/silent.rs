//! Connects and never says anything.

use super::super::session::Session;
use super::super::start::{End, Start};

pub async fn run(start: Start) {
    let ended = session(&start).await;
    start.end(ended);
}

async fn session(start: &Start) -> Result<(), End> {
    let mut session = Session::open(start).await?;
    let end = session.connection.discard().await;
    session.note_kept(&end);
    Err(end)
}
