//! Connects, says EHLO where it is greeted, and stays silent.

use super::super::session::Session;
use super::super::start::{End, Start};

pub async fn run(start: Start) {
    let ended = session(&start).await;
    start.end(ended);
}

async fn session(start: &Start) -> Result<(), End> {
    let mut session = Session::open(start).await?;
    let ended = stay(&mut session).await;
    ended.inspect_err(|end| session.note_kept(end))
}

async fn stay(session: &mut Session) -> Result<(), End> {
    session.greeting().await?;
    session.starttls().await?;
    session.say_ehlo().await?;
    session.listen().await
}
