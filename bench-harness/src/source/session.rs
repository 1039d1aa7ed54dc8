//! The steps all profiles are made of: open, handshake, greeting, EHLO, envelope, data, body, QUIT. Each counts its latency.

mod secure;

use std::io::Write as _;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use weir_smtp::reply::Reply;

use super::connection::Connection;
use super::start::{End, Letter, Start};
use super::stream::{Seat, Stream};
use super::tally::Since;
use super::waiting::Waiting;
use crate::ledger::STAMP_OCTETS;
use crate::outcome::Stage;

pub struct Session {
    pub stream: Rc<Stream>,
    pub connection: Connection,
    since: Since,
    made: Instant,
    offers: Offers,
    seat: Rc<Seat>,
}

/// What EHLO offered, as far as a profile is about it.
#[derive(Clone, Copy, Default)]
pub struct Offers {
    pub pipelining: bool,
    pub chunking: bool,
    pub eight_bit: bool,
    pub size: bool,
    pub starttls: bool,
}

/// The kind of reply a command wants: 2xx, or 3xx after DATA.
#[derive(Clone, Copy)]
enum Want {
    Done,
    GoOn,
}

/// How soon clients that are replaced at once try again after TCP refused them.
const RETRY: Duration = Duration::from_millis(10);

impl Session {
    pub async fn open(start: &Start) -> Result<Session, End> {
        let waiting = Waiting::new(&start.stream, Stage::Connect, start.since());
        let opened = Connection::open(&start.stream).await;
        waiting.over(opened.as_ref().err());
        let connection = match opened {
            Err(end) => {
                if start.stream.is_refilled() {
                    tokio::time::sleep(RETRY).await;
                }
                return Err(end);
            }
            Ok(connection) => connection,
        };
        let mut session = Session {
            stream: start.stream.clone(),
            since: start.since(),
            made: start.made,
            offers: Offers::default(),
            seat: Rc::default(),
            connection,
        };
        session.mark(Stage::Connect);
        session.implicit_tls().await?;
        Ok(session)
    }

    /// Opens, and gets past greeting, STARTTLS and EHLO.
    pub async fn begin(start: &Start) -> Result<Session, End> {
        let mut session = Session::open(start).await?;
        session.greeting().await?;
        session.starttls().await?;
        session.say_ehlo().await?;
        session.ehlo_reply().await?;
        Ok(session)
    }

    pub async fn greeting(&mut self) -> Result<(), End> {
        match self.expect(Stage::Greeting, Want::Done).await {
            // no service here (RFC 5321, 3.1)
            Err(End::Refused) => Err(End::TurnedAway),
            other => other,
        }
    }

    pub async fn say_ehlo(&mut self) -> Result<(), End> {
        let mut flight = self.flight();
        self.put_ehlo(&mut flight);
        self.send(flight).await
    }

    pub async fn ehlo_reply(&mut self) -> Result<(), End> {
        let mut offers = Offers::default();
        let code = self
            .hear(Some(Stage::Ehlo), |reply| offers = Offers::of(reply))
            .await?;
        self.offers = offers;
        wanted(code, Want::Done)
    }

    pub fn offers(&self) -> Offers {
        self.offers
    }

    /// Makes use of no extension: what is sent then is known before EHLO is answered.
    pub fn forget_offers(&mut self) {
        self.offers = Offers::default();
    }

    /// MAIL, then each RCPT, waiting for every reply. Refused if nobody is left to send to.
    pub async fn envelope(&mut self, letter: &Letter) -> Result<(), End> {
        let mut flight = self.flight();
        self.put_mail(&mut flight, letter);
        self.send(flight).await?;
        self.expect(Stage::Mail, Want::Done).await?;
        let mut accepted = 0;
        for place in 0..self.stream.plan.recipients {
            let mut flight = self.flight();
            self.put_rcpt(&mut flight, letter, place);
            self.send(flight).await?;
            accepted += u32::from(is_done(self.code(Some(Stage::Rcpt)).await?));
        }
        match accepted {
            0 => Err(End::Refused),
            _ => Ok(()),
        }
    }

    /// The replies to an envelope sent in one flight: whether somebody is left to send to.
    pub async fn envelope_replies(&mut self) -> Result<bool, End> {
        let mail = self.code(Some(Stage::Mail)).await?;
        let mut accepted = 0;
        for _ in 0..self.stream.plan.recipients {
            accepted += u32::from(is_done(self.code(Some(Stage::Rcpt)).await?));
        }
        Ok(is_done(mail) && accepted > 0)
    }

    pub async fn data(&mut self) -> Result<(), End> {
        self.say(b"DATA\r\n").await?;
        self.data_reply().await
    }

    pub async fn data_reply(&mut self) -> Result<(), End> {
        self.expect(Stage::Data, Want::GoOn).await
    }

    /// The message and its end of data in one flight, and the reply to it.
    pub async fn body(&mut self, letter: &mut Letter) -> Result<(), End> {
        let mut flight = self.flight();
        letter.put_with_dots(&mut flight);
        self.send_last(flight, letter).await?;
        self.final_reply(letter).await
    }

    /// The same at so many octets a second. A reply before its end means that the other side has had enough.
    pub async fn slow_body(&mut self, letter: &mut Letter, rate: u32) -> Result<(), End> {
        let waiting = Waiting::new(&self.stream, Stage::Final, self.since);
        let sent = self.trickle(letter, rate).await;
        waiting.over(sent.as_ref().err());
        sent?;
        letter.left();
        self.final_reply(letter).await
    }

    async fn trickle(&mut self, letter: &Letter, rate: u32) -> Result<(), End> {
        let pace = Pace::of(rate);
        let mut stamp = self.flight();
        letter.put(&mut stamp);
        stamp.truncate(STAMP_OCTETS);
        // the flight is shared: what is needed for longer is copied
        let line = stamp.as_slice().to_owned();
        self.stream.process.flight.replace(stamp);
        let body = letter.body.clone();
        let pieces = line
            .chunks(pace.octets)
            .chain(body.dotted().chunks(pace.octets));
        for (number, piece) in pieces.enumerate() {
            if number > 0 {
                self.pause(pace.pause).await?;
            }
            self.connection.send_octets(piece).await?;
        }
        Ok(())
    }

    /// Sends a flight whose last octet is the last of the message.
    pub async fn send_last(&mut self, flight: Vec<u8>, letter: &mut Letter) -> Result<(), End> {
        let waiting = Waiting::new(&self.stream, Stage::Final, self.since);
        let sent = self.send(flight).await;
        waiting.over(sent.as_ref().err());
        if matches!(sent, Ok(()) | Err(End::HungUp { missing: 0 })) {
            letter.left();
        }
        sent
    }

    /// The reply to the end of data. An answer is an answer: Ok for a refusal, too.
    pub async fn final_reply(&mut self, letter: &mut Letter) -> Result<(), End> {
        let code = self.hear_any(Some(Stage::Final), |_| ()).await?;
        letter.answered(code);
        match code {
            200..=299 => Ok(()),
            _ => not_turned_away(code).and_then(|code| match code {
                300..=399 => Err(End::Absurd),
                _ => Ok(()),
            }),
        }
    }

    /// Ends politely. The other side may be gone as soon as QUIT is said.
    pub async fn quit(&mut self) -> Result<(), End> {
        self.say(b"QUIT\r\n").await?;
        let heard = self.hear_any(None, |_| ()).await;
        self.connection.close().await;
        match heard {
            Err(End::TimedOut) => Err(End::TimedOut),
            _ => Ok(()),
        }
    }

    /// Forgets a transaction that was refused in the midst.
    pub async fn reset(&mut self) -> Result<(), End> {
        self.say(b"RSET\r\n").await?;
        wanted(self.code(None).await?, Want::Done)
    }

    /// The session (transaction) has run as planned: counts the whole of it.
    pub fn whole(&mut self) {
        let since = Since {
            last: self.made,
            ..self.since
        };
        let at = self.connection.read_at;
        self.stream.tally.borrow_mut().session(since, at);
    }

    /// Waits on an idle connection for the next start. None: it is over, by the plan or by the other side.
    pub async fn next_start(&mut self) -> Option<Start> {
        let (stream, seat) = (&self.stream, &self.seat);
        if stream.process.is_ending.get() {
            return None;
        }
        stream.offer(seat.clone());
        let idle = self
            .connection
            .idle_until(|cx| match seat.poll(cx.waker()) {
                Poll::Ready(start) => Poll::Ready(Some(start)),
                Poll::Pending if stream.process.is_ending.get() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
        let Some(start) = idle.await else {
            seat.leave();
            return None;
        };
        self.since = start.since();
        self.made = start.made;
        Some(start)
    }

    /// Hears whatever is said until the other side ends it.
    pub async fn listen(&mut self) -> Result<(), End> {
        loop {
            self.code(None).await?;
        }
    }

    /// How long this client was kept, if it was the other side that ended it.
    pub fn note_kept(&self, end: &End) {
        if matches!(end, End::TurnedAway | End::Reset | End::ClosedEarly) {
            let mut tally = self.stream.tally.borrow_mut();
            tally.kept(self.connection.opened_at, Instant::now());
        }
    }

    /// An empty buffer to make a flight in; [`Session::send`] gives it back.
    pub fn flight(&self) -> Vec<u8> {
        self.stream.process.empty_flight()
    }

    pub async fn say(&mut self, line: &[u8]) -> Result<(), End> {
        let mut flight = self.flight();
        flight.extend_from_slice(line);
        self.send(flight).await
    }

    pub async fn send(&mut self, flight: Vec<u8>) -> Result<(), End> {
        match self.connection.send(flight).await {
            // who was cut off may still read why
            Err(End::Reset) => Err(self.code(None).await.err().unwrap_or(End::Reset)),
            sent => sent,
        }
    }

    pub fn put_ehlo(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"EHLO ");
        out.extend_from_slice(self.stream.plan.helo.as_bytes());
        out.extend_from_slice(b"\r\n");
    }

    pub fn put_envelope(&self, out: &mut Vec<u8>, letter: &Letter) {
        self.put_mail(out, letter);
        for place in 0..self.stream.plan.recipients {
            self.put_rcpt(out, letter, place);
        }
    }

    fn put_mail(&self, out: &mut Vec<u8>, letter: &Letter) {
        out.extend_from_slice(b"MAIL FROM:<");
        self.stream.sender.put(out, letter.number, 0);
        out.extend_from_slice(b">");
        if self.offers.size {
            write!(out, " SIZE={}", letter.body.octets()).expect("a Vec takes everything");
        }
        if letter.body.has_eight_bits && self.offers.eight_bit {
            out.extend_from_slice(b" BODY=8BITMIME");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn put_rcpt(&self, out: &mut Vec<u8>, letter: &Letter, place: u32) {
        out.extend_from_slice(b"RCPT TO:<");
        self.stream.recipient.put(out, letter.number, place);
        out.extend_from_slice(b">\r\n");
    }

    pub fn put_chunk(&self, out: &mut Vec<u8>, letter: &Letter) {
        write!(out, "BDAT {} LAST\r\n", letter.body.octets()).expect("a Vec takes everything");
        letter.put(out);
    }

    async fn expect(&mut self, stage: Stage, want: Want) -> Result<(), End> {
        wanted(self.code(Some(stage)).await?, want)
    }

    /// The code of the next reply, unless it turns the client away.
    pub async fn code(&mut self, stage: Option<Stage>) -> Result<u16, End> {
        self.hear(stage, |_| ()).await
    }

    async fn hear(
        &mut self,
        stage: Option<Stage>,
        look: impl FnMut(&Reply<'_>),
    ) -> Result<u16, End> {
        not_turned_away(self.hear_any(stage, look).await?)
    }

    /// The next reply, whatever it is; the stage it ends is counted.
    async fn hear_any(
        &mut self,
        stage: Option<Stage>,
        mut look: impl FnMut(&Reply<'_>),
    ) -> Result<u16, End> {
        let tally = &self.stream.tally;
        let waiting = stage.map(|stage| Waiting::new(&self.stream, stage, self.since));
        let heard = self.connection.reply(|reply| {
            look(reply);
            if reply.code >= 400 {
                tally.borrow_mut().words(first_line(reply.text));
            }
            reply.code
        });
        let heard = heard.await;
        if let Some(waiting) = waiting {
            waiting.over(heard.as_ref().err());
        }
        let code = heard?;
        if let Some(stage) = stage {
            self.mark(stage);
        }
        Ok(code)
    }

    fn mark(&mut self, stage: Stage) {
        let at = self.connection.read_at;
        self.stream.tally.borrow_mut().stage(stage, self.since, at);
        self.since.last = at;
    }

    async fn pause(&mut self, pause: Duration) -> Result<(), End> {
        match tokio::time::timeout(pause, self.connection.has_input()).await {
            Err(_) => Ok(()),
            Ok(()) => self.code(None).await.and(Err(End::TurnedAway)),
        }
    }
}

/// Octets sent at once by a slow client, and the time between.
struct Pace {
    octets: usize,
    pause: Duration,
}

impl Pace {
    /// About a segment of Ethernet at a time, but something every second, and not more than a hundred times a second.
    fn of(rate: u32) -> Pace {
        const SEGMENT: f64 = 1460.0;
        let rate = f64::from(rate.max(1));
        let pause = (SEGMENT / rate).clamp(0.01, 1.0);
        Pace {
            octets: ((rate * pause) as usize).max(1),
            pause: Duration::from_secs_f64(pause),
        }
    }
}

impl Offers {
    fn of(reply: &Reply<'_>) -> Offers {
        let mut offers = Offers::default();
        for line in reply.text.split(|&octet| octet == b'\n').skip(1) {
            let words = line.get(4..).unwrap_or_default();
            let keyword = words.split(u8::is_ascii_whitespace).next();
            match keyword.unwrap_or_default().to_ascii_uppercase().as_slice() {
                b"PIPELINING" => offers.pipelining = true,
                b"CHUNKING" => offers.chunking = true,
                b"SIZE" => offers.size = true,
                b"8BITMIME" => offers.eight_bit = true,
                b"STARTTLS" => offers.starttls = true,
                _ => {}
            }
        }
        offers
    }
}

fn is_done(code: u16) -> bool {
    (200..300).contains(&code)
}

/// Success where it is what was wanted; a refusal otherwise, or a reply that makes no sense.
fn wanted(code: u16, want: Want) -> Result<(), End> {
    match (code / 100, want) {
        (2, Want::Done) | (3, Want::GoOn) => Ok(()),
        (4 | 5, _) => Err(End::Refused),
        _ => Err(End::Absurd),
    }
}

/// 421 and 521 end a connection whatever they answer (RFC 5321, 3.8; RFC 7504).
fn not_turned_away(code: u16) -> Result<u16, End> {
    match code {
        421 | 521 => Err(End::TurnedAway),
        code => Ok(code),
    }
}

fn first_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|&octet| octet == b'\r');
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_client_keeps_its_rate() {
        for rate in [1, 7, 1000, 1460, 5000, 1_000_000, u32::MAX] {
            let pace = Pace::of(rate);
            let real = pace.octets as f64 / pace.pause.as_secs_f64();
            assert!(
                (real / f64::from(rate) - 1.0).abs() < 0.01,
                "{rate} became {real}"
            );
            assert!(pace.pause >= Duration::from_millis(10));
        }
    }

    #[test]
    fn offers_are_read_whatever_their_case() {
        let text = b"250-pipelining.example CHUNKING\r\n250-size 100\r\n250-Chunking\r\n250 8BITMIME x\r\n";
        let offers = Offers::of(&Reply { code: 250, text });
        assert!(offers.chunking && offers.eight_bit && offers.size && !offers.pipelining);
    }
}
