//! A connection for each message: the way most mail servers send to a host they rarely talk to.

use super::super::session::Session;
use super::super::start::{End, Letter, Start};

pub async fn run(start: Start) {
    let ended = session(&start).await;
    start.end(ended);
}

async fn session(start: &Start) -> Result<(), End> {
    let mut letter = Letter::new(start);
    let mut session = Session::begin(start).await?;
    match deliver(&mut session, &mut letter).await {
        Ok(()) => {
            session.quit().await?;
            session.whole();
            Ok(())
        }
        // polite to the end, and not counted as a whole session
        Err(End::Refused) => session.quit().await.and(Err(End::Refused)),
        Err(end) => Err(end),
    }
}

/// Envelope to final reply, each command waiting for its reply.
pub async fn deliver(session: &mut Session, letter: &mut Letter) -> Result<(), End> {
    session.envelope(letter).await?;
    session.data().await?;
    session.body(letter).await
}
