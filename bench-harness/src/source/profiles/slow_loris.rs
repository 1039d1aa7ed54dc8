//! One octet of a command at a time, for ever. Replies are not looked at.

use std::time::Duration;

use tokio::time::timeout;

use super::super::session::Session;
use super::super::start::{End, Start};

pub async fn run(start: Start, every: Duration) {
    let ended = session(&start, every).await;
    start.end(ended);
}

async fn session(start: &Start, every: Duration) -> Result<(), End> {
    let mut session = Session::open(start).await?;
    let ended = stutter(&mut session, every).await;
    ended.inspect_err(|end| session.note_kept(end))
}

async fn stutter(session: &mut Session, every: Duration) -> Result<(), End> {
    // clients opened together are not to speak together
    let first = every.mul_f64(session.stream.chance.borrow_mut().f64());
    let helo = session.stream.plan.helo.clone();
    let command = ["EHLO ", &helo, "\r\n"];
    let mut wait = first;
    for octet in command.iter().flat_map(|part| part.bytes()).cycle() {
        if let Ok(end) = timeout(wait, session.connection.discard()).await {
            return Err(end);
        }
        session.connection.send_octets(&[octet]).await?;
        wait = every;
    }
    Ok(())
}
