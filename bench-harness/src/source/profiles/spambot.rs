//! Sends everything in one flight and looks at no reply. It says no QUIT: how long it is kept is for the other side to decide.

use super::super::session::Session;
use super::super::start::{End, Letter, Start};

pub async fn run(start: Start) {
    let ended = session(&start).await;
    start.end(ended);
}

async fn session(start: &Start) -> Result<(), End> {
    let mut letter = Letter::new(start);
    let mut session = Session::open(start).await?;
    let ended = blurt(&mut session, &mut letter).await;
    drop(letter);
    let end = match ended {
        Ok(()) => session.connection.discard().await,
        Err(end) => end,
    };
    session.note_kept(&end);
    Err(end)
}

async fn blurt(session: &mut Session, letter: &mut Letter) -> Result<(), End> {
    let mut flight = session.flight();
    session.put_ehlo(&mut flight);
    session.put_envelope(&mut flight, letter);
    flight.extend_from_slice(b"DATA\r\n");
    letter.put_with_dots(&mut flight);
    session.send_last(flight, letter).await
}
