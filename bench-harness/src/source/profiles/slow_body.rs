//! As a connection per message, the body at so many octets a second: a phone in a tunnel, or somebody who wants to hold a connection.

use super::super::session::Session;
use super::super::start::{End, Letter, Start};

pub async fn run(start: Start, bytes_per_second: u32) {
    let ended = session(&start, bytes_per_second).await;
    start.end(ended);
}

async fn session(start: &Start, bytes_per_second: u32) -> Result<(), End> {
    let mut letter = Letter::new(start);
    let mut session = Session::begin(start).await?;
    session.envelope(&letter).await?;
    session.data().await?;
    session.slow_body(&mut letter, bytes_per_second).await?;
    session.quit().await?;
    session.whole();
    Ok(())
}
