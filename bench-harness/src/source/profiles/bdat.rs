//! A kept connection; the envelope and the message as one chunk, all in one flight (RFC 3030).

use super::super::session::Session;
use super::super::start::{End, Letter, Start};
use super::kept;

pub async fn run(start: Start) {
    kept::run(start, deliver).await;
}

async fn deliver(session: &mut Session, letter: &mut Letter) -> Result<(), End> {
    let offers = session.offers();
    if !offers.pipelining {
        return Err(End::NotOffered("PIPELINING"));
    }
    if !offers.chunking {
        return Err(End::NotOffered("CHUNKING"));
    }
    let mut flight = session.flight();
    session.put_envelope(&mut flight, letter);
    session.put_chunk(&mut flight, letter);
    session.send_last(flight, letter).await?;
    let has_recipients = session.envelope_replies().await?;
    session.final_reply(letter).await?;
    // a refused chunk leaves the transaction open until RSET (RFC 3030, 2)
    match has_recipients && letter.is_accepted() {
        true => Ok(()),
        false => Err(End::Refused),
    }
}
