//! Connections that carry message after message: what persistent, pipelined and BDAT clients have in common.

use super::super::session::Session;
use super::super::start::{End, Letter, Start};

/// Opens a connection for `start`, and serves further starts on it until it has carried its number of messages.
pub async fn run(
    start: Start,
    transaction: impl AsyncFn(&mut Session, &mut Letter) -> Result<(), End>,
) {
    let letter = Letter::new(&start);
    match Session::begin(&start).await {
        Ok(session) => serve(session, start, letter, transaction).await,
        Err(end) => {
            drop(letter);
            start.end(Err(end));
        }
    }
}

async fn serve(
    mut session: Session,
    mut start: Start,
    mut letter: Letter,
    transaction: impl AsyncFn(&mut Session, &mut Letter) -> Result<(), End>,
) {
    for served in 1.. {
        let ended = transaction(&mut session, &mut letter).await;
        drop(letter);
        let is_refused = matches!(ended, Err(End::Refused));
        let is_over = ended.is_err() && !is_refused;
        if ended.is_ok() {
            session.whole();
        }
        start.end(ended);
        if is_over || (is_refused && session.reset().await.is_err()) {
            return;
        }
        if served >= session.stream.plan.messages {
            break;
        }
        match session.next_start().await {
            Some(next) => start = next,
            None => break,
        }
        letter = Letter::new(&start);
    }
    // no start is about this: whether QUIT is answered is nobody's latency
    session.quit().await.ok();
}
