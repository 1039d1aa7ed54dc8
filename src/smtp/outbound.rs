//! The machine that faces one upstream connection.
//!
//! It drives the handshake (greeting, EHLO, STARTTLS where wanted and EHLO again, HELO as the way out), writes commands and body pieces
//! into its outgoing flight, and matches every reply to the command that owes it. It knows nothing
//! of clients: while a connection is attached, [`crate::relay::Relay`] calls it; before and after,
//! the driver does. What it deliberately leaves out: connecting, timers, pooling.
//!
//! Order of use for a driver: feed bytes to [`Outbound::handle_input`] until it returns `None`,
//! handing each reply to the attached relay (or dropping it, if none is attached), then take what
//! [`Outbound::poll_output`] has gathered and send it as one flight.

mod commands;
mod passed;
mod secure;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::extension::{Capabilities, ExtensionSet, parse_ehlo_reply};
use crate::limits::{COMMANDS_OWED_MAX, ENVELOPE_FLIGHT_OCTETS};
use crate::pieces::{Form, Pieces};
use crate::reply::{Reply, ReplyReader};

use commands::write_hello;
pub use passed::Opening;
use secure::Protection;
pub use secure::TlsWanted;

/// Which command a reply answers.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Owed {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    Mail,
    Rcpt,
    Data,
    /// A BDAT chunk that is not the last.
    Chunk,
    /// The dot or BDAT LAST: the one reply that decides over a message.
    End,
    Rset,
    Quit,
    /// The client's own EHLO or HELO, on a connection that serves it alone.
    Hello,
    /// Any other command of the client's that passed as it was: its reply passes as well.
    Passed,
    /// AUTH, or a line of its exchange.
    Auth,
    /// The client's own STARTTLS: behind its 220 both ends go on without weir.
    Tunnel,
    /// A part of a client's chunk that went up as a chunk of its own: nobody else is owed its reply.
    Part,
    /// XCLIENT of weir's own.
    Xclient,
    /// XFORWARD, ahead of a MAIL: for the server's log, so what it says to it does not matter.
    Xforward,
    /// Nobody: a 421 that came unasked, on a connection that serves one client alone.
    Farewell,
}

/// Why an upstream connection can not be used any more. Nothing may be sent on it after this.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum LegLost {
    /// FIN or reset, or the connection could not be made.
    Closed,
    /// It spoke out of turn or not SMTP.
    Protocol,
    /// It owed a reply for too long.
    Timeout,
    /// It said 421 (RFC 5321, 3.8).
    Refused421,
    /// Its greeting or its EHLO and HELO replies were refusals.
    Unwelcome,
    /// There was plaintext behind its 220 to STARTTLS: it would have been read as if said inside TLS.
    Injection,
    /// TLS is required, and it does not offer it or refuses.
    NoTls,
}

#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Phase {
    Greeting,
    Hello,
    /// It agreed to STARTTLS: nothing but the handshake's end is awaited.
    Securing,
    /// It agreed to the client's own STARTTLS: what it says from now on is not for weir.
    Tunnelled,
    Ready,
    /// RSET follows when everything owed has been answered.
    Draining,
    Resetting,
    Quitting,
    /// It refused to serve the client that it was for, who has its reply.
    Over,
    Lost,
}

/// One upstream connection, from its greeting to QUIT.
///
/// Holds the flight in the making and the queue of owed replies, at most
/// [`COMMANDS_OWED_MAX`] entries of one byte; no body bytes (those are spans).
#[derive(Debug)]
pub struct Outbound {
    phase: Phase,
    tls: TlsWanted,
    protection: Protection,
    caps: Capabilities,
    hostname: Arc<[u8]>,
    reader: ReplyReader,
    owed: VecDeque<Owed>,
    out: Pieces,
    /// Commands at the end of `owed` that were written into `out` since it was last empty.
    unsent: usize,
    /// 4xx and 5xx replies since the last accepted message: a connection with too many is retired,
    /// so that one client's errors never run into the server's error limits for the next.
    failures: u16,
    /// None: the connection is shared, one transaction at a time.
    opening: Option<Opening>,
    /// XCLIENT or XFORWARD commands that have not gone up yet.
    introduction: Vec<u8>,
    /// XFORWARD stands, and no transaction has begun since that would end it.
    forwards: bool,
}

impl Outbound {
    /// A connection that was just made: its greeting is awaited. `hostname` is said in EHLO.
    pub fn new(hostname: Arc<[u8]>) -> Self {
        let mut owed = VecDeque::with_capacity(8);
        owed.push_back(Owed::Greeting);
        Self {
            phase: Phase::Greeting,
            tls: TlsWanted::Off,
            protection: Protection::Plaintext,
            caps: Capabilities::default(),
            hostname,
            reader: ReplyReader::default(),
            owed,
            out: Pieces::new(),
            unsent: 0,
            failures: 0,
            opening: None,
            introduction: Vec::new(),
            forwards: false,
        }
    }

    /// Takes the next whole reply out of `input`. `None`: all of `input` was taken and more bytes
    /// are needed. Call again until `None`: several replies may have come in one segment.
    ///
    /// # Errors
    /// The connection is lost: a reply that nobody is owed, one that is not SMTP, one whose code
    /// makes no sense for its command, a 421, or a refusal of the handshake.
    pub fn handle_input<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<(Owed, Reply<'r>)>, LegLost> {
        match self.phase {
            Phase::Lost => return Err(LegLost::Protocol),
            Phase::Over if !input.is_empty() => return Err(LegLost::Protocol),
            Phase::Securing | Phase::Tunnelled if !input.is_empty() => {
                self.phase = Phase::Lost;
                return Err(LegLost::Injection);
            }
            _ => {}
        }
        let reply = match self.reader.next(input) {
            Ok(None) => return Ok(None),
            Ok(Some(reply)) => reply,
            Err(_) => {
                self.phase = Phase::Lost;
                return Err(LegLost::Protocol);
            }
        };
        // A reply to a command that has not left yet answers something else: such a server counts
        // differently from us, and its next 250 could be taken for that of a message.
        let premature = !self.out.is_empty() && self.owed.len() <= self.unsent;
        let owed = self.owed.pop_front().filter(|_| !premature);
        let lost = match self.opening {
            None => refusal(owed, reply.code),
            Some(_) => passed::refusal(owed, reply.code),
        };
        if let Some(lost) = lost {
            self.phase = Phase::Lost;
            return Err(lost);
        }
        let owed = owed.unwrap_or(Owed::Farewell);
        let mut next = None;
        match owed {
            _ if passed::is_last(self.opening, owed, reply.code) => self.phase = Phase::Over,
            Owed::Greeting if self.opening == Some(Opening::Silent) => {
                self.phase = self.protection.suffices(self.tls);
            }
            Owed::Hello if reply.is_positive() && self.caps.esmtp => {
                self.caps = self.protection.limit(parse_ehlo_reply(reply.text));
            }
            Owed::Tunnel if reply.code == 220 => self.phase = Phase::Tunnelled,
            Owed::Xclient if self.introduction.is_empty() => self.phase = Phase::Ready,
            Owed::Xclient => next = Some(Owed::Xclient),
            Owed::Xforward if !self.introduction.is_empty() => next = Some(Owed::Xforward),
            Owed::Greeting => {
                let masked = reply.text.get(4..8).is_some_and(|start| start == b"****");
                next = Some(if masked { Owed::Helo } else { Owed::Ehlo });
                self.phase = Phase::Hello;
            }
            Owed::Ehlo if reply.is_positive() => {
                self.caps = self.protection.limit(parse_ehlo_reply(reply.text));
                let offered = self.caps.set.contains(ExtensionSet::STARTTLS);
                if offered && self.tls != TlsWanted::Off {
                    next = Some(Owed::StartTls);
                } else {
                    self.phase = self.protection.suffices(self.tls);
                }
            }
            Owed::Ehlo => next = Some(Owed::Helo),
            Owed::Helo => self.phase = self.protection.suffices(self.tls),
            Owed::StartTls if reply.code == 220 => self.phase = Phase::Securing,
            // 454 or worse: no TLS on this connection, as if it had not been offered (RFC 3207, 4)
            Owed::StartTls => self.phase = self.protection.suffices(self.tls),
            Owed::Rset if self.phase == Phase::Resetting && self.owed.is_empty() => {
                self.phase = Phase::Ready;
            }
            Owed::End if reply.is_positive() => self.failures = 0,
            Owed::Mail | Owed::Rcpt | Owed::Data | Owed::Chunk | Owed::End if reply.code >= 400 => {
                self.failures = self.failures.saturating_add(1);
            }
            _ => {}
        }
        if self.phase == Phase::Draining && self.owed.is_empty() {
            self.phase = Phase::Resetting;
            next = Some(Owed::Rset);
        }
        if self.phase == Phase::Lost {
            return Err(LegLost::NoTls);
        }
        if let Some(next) = next {
            // nothing is owed, so all that was written before has left
            self.unsent = 1;
            match next {
                Owed::StartTls => self.out.insert(b"STARTTLS\r\n"),
                Owed::Rset => self.out.insert(b"RSET\r\n"),
                Owed::Xclient | Owed::Xforward => {
                    passed::write_next(&mut self.introduction, &mut self.out)
                }
                hello => write_hello(&mut self.out, hello, &self.hostname),
            }
            self.owed.push_back(next);
        }
        Ok(Some((owed, reply)))
    }

    /// The flight in the making. The driver moves its pieces out when no send is under way; they are
    /// concrete, so the form they are read in does not matter.
    pub fn poll_output(&mut self) -> &mut Pieces {
        &mut self.out
    }

    /// Octets waiting to be taken by [`Outbound::poll_output`].
    pub fn queued(&self) -> u64 {
        self.out.wire_len(self.form())
    }

    /// How bodies travel on this connection: as BDAT chunks where CHUNKING is offered.
    pub fn form(&self) -> Form {
        if self.caps.set.contains(ExtensionSet::CHUNKING) {
            Form::Bdat
        } else {
            Form::Data
        }
    }

    /// The handshake is over, and no reset or QUIT is under way.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Waiting for the reply to RSET.
    pub fn is_resetting(&self) -> bool {
        matches!(self.phase, Phase::Resetting | Phase::Draining)
    }

    /// Ready, nothing owed, nothing half read, nothing to send, nothing said for a transaction that did not begin: another one may.
    pub fn is_reusable(&self) -> bool {
        self.is_ready()
            && self.owed.is_empty()
            && self.reader.is_empty()
            && self.out.is_empty()
            && !self.forwards
    }

    /// Some reply is awaited.
    pub fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    pub fn capabilities(&self) -> &Capabilities {
        &self.caps
    }

    /// 4xx and 5xx replies since the last accepted message.
    pub fn failures(&self) -> u16 {
        self.failures
    }

    /// May one more envelope command be written now? Without PIPELINING only when nothing is owed
    /// (RFC 2920); with it, within one flight of bounded size.
    pub fn can_pipeline(&self) -> bool {
        if self.caps.set.contains(ExtensionSet::PIPELINING) {
            self.owed.len() < COMMANDS_OWED_MAX && self.queued() < ENVELOPE_FLIGHT_OCTETS
        } else {
            self.owed.is_empty()
        }
    }
}

/// Does this reply end the connection? Codes that make no sense for the command do (RFC 5321,
/// 4.3.2 lists them): guessing what such a server means is how mail gets lost.
fn refusal(owed: Option<Owed>, code: u16) -> Option<LegLost> {
    if code == 421 {
        return Some(LegLost::Refused421);
    }
    let class = code / 100;
    match owed {
        None => Some(LegLost::Protocol),
        Some(Owed::Greeting) if class != 2 => Some(LegLost::Unwelcome),
        Some(Owed::Helo) if class != 2 => Some(LegLost::Unwelcome),
        // any other kind of agreement leaves open whether a handshake follows
        Some(Owed::StartTls) if class == 2 && code != 220 => Some(LegLost::Protocol),
        Some(Owed::Rset) if class != 2 => Some(LegLost::Protocol),
        Some(Owed::Data) if class == 2 || (class == 3 && code != 354) => Some(LegLost::Protocol),
        Some(Owed::Data) => None,
        Some(_) if class == 3 => Some(LegLost::Protocol),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::held::Held;
    use crate::pieces::Piece;

    pub(super) fn sent(leg: &mut Outbound) -> Vec<u8> {
        let form = leg.form();
        let mut bytes = Vec::new();
        for piece in leg.poll_output().iter(form) {
            match piece {
                Piece::Insert(insert) => bytes.extend_from_slice(insert),
                Piece::Span { .. } => panic!("no buffers here"),
            }
        }
        leg.poll_output().clear();
        bytes
    }

    pub(super) fn say(leg: &mut Outbound, mut text: &[u8]) -> Result<Vec<(Owed, u16)>, LegLost> {
        let mut got = Vec::new();
        while let Some((owed, reply)) = leg.handle_input(&mut text)? {
            got.push((owed, reply.code));
        }
        Ok(got)
    }

    fn ready(ehlo: &[u8]) -> Outbound {
        let mut leg = Outbound::new(Arc::from(&b"weir.example"[..]));
        say(&mut leg, b"220-teaser\r\n220 mx\r\n").unwrap();
        assert_eq!(sent(&mut leg), b"EHLO weir.example\r\n");
        say(&mut leg, ehlo).unwrap();
        assert!(leg.is_reusable());
        leg
    }

    #[test]
    fn falls_back_to_helo_when_ehlo_is_refused_or_the_banner_is_masked() {
        let mut leg = Outbound::new(Arc::from(&b"w"[..]));
        say(&mut leg, b"220 mx\r\n").unwrap();
        assert_eq!(sent(&mut leg), b"EHLO w\r\n");
        say(&mut leg, b"502 no\r\n").unwrap();
        assert_eq!(sent(&mut leg), b"HELO w\r\n");
        say(&mut leg, b"250 hi\r\n").unwrap();
        assert!(leg.is_ready() && !leg.capabilities().esmtp);

        let mut leg = Outbound::new(Arc::from(&b"w"[..]));
        say(&mut leg, b"220 ******\r\n").unwrap();
        assert_eq!(sent(&mut leg), b"HELO w\r\n");
    }

    #[test]
    fn a_reply_nobody_is_owed_ends_the_connection() {
        let mut leg = ready(b"250 mx\r\n");
        assert_eq!(say(&mut leg, b"250 surprise\r\n"), Err(LegLost::Protocol));
        let mut leg = ready(b"250 mx\r\n");
        assert_eq!(say(&mut leg, b"421 closing\r\n"), Err(LegLost::Refused421));
        assert_eq!(say(&mut leg, b"250 more\r\n"), Err(LegLost::Protocol));
    }

    #[test]
    fn codes_that_make_no_sense_end_the_connection() {
        let mut leg = ready(b"250 mx\r\n");
        leg.data();
        assert_eq!(say(&mut leg, b"250 what\r\n"), Err(LegLost::Protocol));
        let mut leg = ready(b"250 mx\r\n");
        leg.rcpt(b"<a@b>");
        assert_eq!(say(&mut leg, b"354 go\r\n"), Err(LegLost::Protocol));
        let mut leg = ready(b"250 mx\r\n");
        leg.begin_reset();
        assert_eq!(say(&mut leg, b"503 no\r\n"), Err(LegLost::Protocol));
    }

    #[test]
    fn size_goes_only_to_servers_that_offer_it() {
        let mut leg = ready(b"250-mx\r\n250-SIZE 1000\r\n250 8BITMIME\r\n");
        leg.mail(b"<a@b>", b" SIZE=10 BODY=8BITMIME");
        assert_eq!(sent(&mut leg), b"MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME\r\n");
        let mut leg = ready(b"250-mx\r\n250 8BITMIME\r\n");
        leg.mail(b"<a@b>", b" SIZE=10 BODY=8BITMIME");
        assert_eq!(sent(&mut leg), b"MAIL FROM:<a@b> BODY=8BITMIME\r\n");
    }

    #[test]
    fn commands_wait_for_each_other_without_pipelining() {
        let mut leg = ready(b"250 mx\r\n");
        leg.mail(b"<a@b>", b"");
        assert!(!leg.can_pipeline());
        sent(&mut leg);
        say(&mut leg, b"250 ok\r\n").unwrap();
        assert!(leg.can_pipeline());
        let mut leg = ready(b"250-mx\r\n250 PIPELINING\r\n");
        leg.mail(b"<a@b>", b"");
        assert!(leg.can_pipeline());
    }

    #[test]
    fn a_reset_awaits_its_own_250_behind_older_replies() {
        let mut leg = ready(b"250-mx\r\n250 PIPELINING\r\n");
        leg.mail(b"<a@b>", b"");
        leg.rcpt(b"<c@d>");
        leg.begin_reset();
        sent(&mut leg);
        assert_eq!(
            say(&mut leg, b"550 no\r\n503 no\r\n").unwrap(),
            [(Owed::Mail, 550), (Owed::Rcpt, 503)]
        );
        assert!(leg.is_resetting());
        say(&mut leg, b"250 ok\r\n").unwrap();
        assert!(leg.is_reusable());
        assert_eq!(leg.failures(), 2);
    }

    #[test]
    fn a_reset_goes_ahead_of_the_next_transaction() {
        let mut leg = ready(b"250-mx\r\n250 PIPELINING\r\n");
        leg.mail(b"<a@b>", b"");
        sent(&mut leg);
        assert!(!leg.may_reset_ahead(), "a reply is owed");
        say(&mut leg, b"550 no\r\n").unwrap();
        leg.reset_ahead();
        leg.mail(b"<c@d>", b"");
        assert_eq!(sent(&mut leg), b"RSET\r\nMAIL FROM:<c@d>\r\n");
        assert_eq!(
            say(&mut leg, b"250 ok\r\n250 ok\r\n").unwrap(),
            [(Owed::Rset, 250), (Owed::Mail, 250)]
        );
        assert!(leg.is_reusable());
        leg.reset_ahead();
        sent(&mut leg);
        assert_eq!(say(&mut leg, b"500 what?\r\n"), Err(LegLost::Protocol));
        assert!(!ready(b"250 mx\r\n").may_reset_ahead());
    }

    #[test]
    fn a_reply_before_its_command_has_left_ends_the_connection() {
        let mut leg = ready(b"250-mx\r\n250 PIPELINING\r\n");
        leg.mail(b"<a@b>", b"");
        assert_eq!(say(&mut leg, b"250 early\r\n"), Err(LegLost::Protocol));
        let mut leg = ready(b"250-mx\r\n250 PIPELINING\r\n");
        leg.mail(b"<a@b>", b"");
        sent(&mut leg);
        leg.rcpt(b"<c@d>");
        assert!(say(&mut leg, b"250 fine\r\n").is_ok());
        assert_eq!(say(&mut leg, b"250 early\r\n"), Err(LegLost::Protocol));
    }

    #[test]
    fn without_pipelining_a_reset_waits_for_what_is_owed() {
        let mut leg = ready(b"250 mx\r\n");
        leg.mail(b"<a@b>", b"");
        sent(&mut leg);
        leg.begin_reset();
        assert!(leg.is_resetting());
        assert_eq!(sent(&mut leg), b"");
        say(&mut leg, b"250 ok\r\n").unwrap();
        assert_eq!(sent(&mut leg), b"RSET\r\n");
        say(&mut leg, b"250 ok\r\n").unwrap();
        assert!(leg.is_reusable());
    }

    #[test]
    fn chunks_carry_their_length() {
        let mut leg = ready(b"250-mx\r\n250 CHUNKING\r\n");
        let mut held = Held::new();
        held.pieces_mut().insert(b"a\r\n");
        held.pieces_mut().push_dot();
        held.pieces_mut().insert(b".b\r\n");
        leg.chunk(&mut held);
        assert_eq!(sent(&mut leg), b"BDAT 7\r\na\r\n.b\r\n");
    }
}
