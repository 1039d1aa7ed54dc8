//! As a connection per message, but the connection is reset after a random octet of all that would be sent.

use super::super::session::Session;
use super::super::start::{End, Letter, Start};
use super::per_message;

pub async fn run(start: Start) {
    let ended = session(&start, None).await;
    start.end(ended);
}

/// Resets the connection after exactly so many octets.
#[cfg(test)]
pub async fn hang_up_after(start: &Start, octets: usize) -> Result<(), End> {
    session(start, Some(octets)).await
}

async fn session(start: &Start, after: Option<usize>) -> Result<(), End> {
    let mut letter = Letter::new(start);
    let mut session = Session::open(start).await?;
    let all = octets_of(&session, &letter);
    let after = after.unwrap_or_else(|| start.stream.chance.borrow_mut().usize(1..=all));
    session.greeting().await?;
    session.starttls().await?;
    session.connection.octets_left = Some(after);
    session.say_ehlo().await?;
    session.ehlo_reply().await?;
    session.forget_offers();
    per_message::deliver(&mut session, &mut letter).await?;
    session.quit().await
}

/// How much a whole session sends.
pub fn octets_of(session: &Session, letter: &Letter) -> usize {
    let mut flight = session.flight();
    session.put_ehlo(&mut flight);
    session.put_envelope(&mut flight, letter);
    flight.extend_from_slice(b"DATA\r\n");
    letter.put_with_dots(&mut flight);
    flight.extend_from_slice(b"QUIT\r\n");
    let octets = flight.len();
    session.stream.process.flight.replace(flight);
    octets
}
