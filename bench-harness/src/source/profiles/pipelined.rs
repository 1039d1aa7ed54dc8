//! A kept connection; MAIL, RCPTs and DATA in one flight (RFC 2920).

use super::super::session::Session;
use super::super::start::{End, Letter, Start};
use super::kept;

pub async fn run(start: Start) {
    kept::run(start, deliver).await;
}

async fn deliver(session: &mut Session, letter: &mut Letter) -> Result<(), End> {
    if !session.offers().pipelining {
        return Err(End::NotOffered("PIPELINING"));
    }
    let mut flight = session.flight();
    session.put_envelope(&mut flight, letter);
    flight.extend_from_slice(b"DATA\r\n");
    session.send(flight).await?;
    let has_recipients = session.envelope_replies().await?;
    session.data_reply().await?;
    if has_recipients {
        return session.body(letter).await;
    }
    // 354 although nobody is left: nothing is to be sent (RFC 2920, 3.1)
    session.say(b".\r\n").await?;
    session.code(None).await?;
    Err(End::Refused)
}
