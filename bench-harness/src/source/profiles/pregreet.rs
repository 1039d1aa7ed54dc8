//! Talks before the greeting, as bots do that have no time to lose. Then it sends its message, if it may, and stays.

use super::super::session::Session;
use super::super::start::{End, Letter, Start};
use super::per_message;

pub async fn run(start: Start) {
    let ended = session(&start).await;
    start.end(ended);
}

async fn session(start: &Start) -> Result<(), End> {
    let letter = Letter::new(start);
    let mut session = Session::open(start).await?;
    let ended = talk(&mut session, letter).await;
    ended.inspect_err(|end| session.note_kept(end))
}

async fn talk(session: &mut Session, mut letter: Letter) -> Result<(), End> {
    session.say_ehlo().await?;
    match deliver(session, &mut letter).await {
        // whatever was refused: it stays and listens
        Ok(()) | Err(End::Refused) => {}
        Err(end) => return Err(end),
    }
    drop(letter);
    session.listen().await
}

async fn deliver(session: &mut Session, letter: &mut Letter) -> Result<(), End> {
    session.greeting().await?;
    session.ehlo_reply().await?;
    session.starttls_after_ehlo().await?;
    per_message::deliver(session, letter).await
}
