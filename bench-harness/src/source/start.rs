//! One start of the plan, and the message it is about. Both count themselves when they go, however they go: by their end, by an error, or
//! cut off with the run. So the books add up: every start ended or is unfinished, every message has exactly one fate.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use weir_smtp::reply::ReplyFault;

use super::mail::Body;
use super::stream::Stream;
use super::tally::Since;
use crate::ledger::{Fate, MessageId};

/// Why a session ended before its planned end.
#[derive(Debug)]
pub enum End {
    /// A command was refused; the connection is still good.
    Refused,
    /// 421 or 521, or a greeting that is no welcome.
    TurnedAway,
    ConnectFailed(io::Error),
    HandshakeFailed(io::Error),
    Reset,
    ClosedEarly,
    Garbled(ReplyFault),
    /// A reply of the wrong kind, such as 250 to DATA.
    Absurd,
    TimedOut,
    /// The client meant to, with so many octets of its last flight not sent.
    HungUp {
        missing: usize,
    },
    /// EHLO does not offer what the profile is about.
    NotOffered(&'static str),
}

/// Begins the words for a connection that failed before anything was sent: the other side has no part in it.
pub const NOT_FROM_HERE: &str = "cannot connect from here";

/// Ports, files or memory of this side ran out, or the source address is none of this machine.
fn is_ours(error: &io::Error) -> bool {
    let ours = [
        libc::EADDRNOTAVAIL,
        libc::EADDRINUSE,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINVAL,
        libc::EACCES,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| ours.contains(&code))
}

/// A session of the plan that was started: for profiles that keep connections, a transaction.
pub struct Start {
    pub stream: Rc<Stream>,
    pub number: u64,
    pub planned: Instant,
    pub made: Instant,
    has_letter: Cell<bool>,
    has_ended: bool,
}

impl Start {
    pub fn new(stream: &Rc<Stream>, number: u64, planned: Instant, made: Instant) -> Start {
        stream.under_way.set(stream.under_way.get() + 1);
        stream.tally.borrow_mut().started(made);
        Start {
            stream: stream.clone(),
            number,
            planned,
            made,
            has_letter: Cell::new(false),
            has_ended: false,
        }
    }

    /// Counts how it ended. A session that was given up counts in the histogram with the time it was waited for: leaving it out would
    /// make the slowest answers vanish.
    pub fn end(mut self, ended: Result<(), End>) {
        self.has_ended = true;
        let Err(end) = ended else { return };
        let now = Instant::now();
        let is_kept = self.stream.plan.profile.is_kept();
        let mut tally = self.stream.tally.borrow_mut();
        let counts = &mut tally.counts;
        match end {
            End::Refused | End::HungUp { .. } => {}
            End::TurnedAway => counts.turned_away += 1,
            End::ConnectFailed(error) => {
                counts.connect_failed += 1;
                let side = if is_ours(&error) {
                    NOT_FROM_HERE
                } else {
                    "connect"
                };
                tally.words(format!("{side}: {error}").as_bytes());
                if is_kept {
                    tally.failed(now);
                }
            }
            End::HandshakeFailed(error) => {
                counts.handshakes_failed += 1;
                tally.words(format!("TLS: {error}").as_bytes());
                if is_kept {
                    tally.failed(now);
                }
            }
            End::Reset => counts.resets += 1,
            End::ClosedEarly => counts.closed_early += 1,
            End::Garbled(fault) => {
                counts.garbled += 1;
                tally.words(format!("no SMTP: {}", fault.word()).as_bytes());
            }
            End::Absurd => counts.garbled += 1,
            End::TimedOut => {
                counts.timed_out += 1;
                if !is_kept {
                    tally.session(self.since(), now);
                }
            }
            End::NotOffered(extension) => {
                tally.words(format!("EHLO does not offer {extension}").as_bytes());
            }
        }
    }

    pub fn since(&self) -> Since {
        Since {
            planned: self.planned,
            last: self.made,
        }
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        let stream = &self.stream;
        stream.under_way.set(stream.under_way.get() - 1);
        if std::thread::panicking() {
            stream.process.is_broken.set(true);
        } else if !self.has_ended {
            let mut tally = stream.tally.borrow_mut();
            let (now, profile) = (Instant::now(), stream.plan.profile);
            tally.counts.unfinished += 1;
            if !profile.is_kept() {
                tally.session(self.since(), now);
            }
            // cut before its session had its first turn
            if profile.sends() && !self.has_letter.get() {
                tally.counts.not_sent += 1;
                tally.failed(now);
            }
        }
        if stream.is_refilled() || stream.process.is_ending.get() {
            stream.process.wake_starter();
        }
    }
}

/// A message on its way. What was found out about it last is its fate.
pub struct Letter {
    stream: Rc<Stream>,
    id: MessageId,
    /// Number of its start: what `{}` in a path is.
    pub number: u64,
    pub body: Rc<Body>,
    fate: Fate,
    /// The code its end of data was answered with.
    code: u16,
}

impl Letter {
    pub fn new(start: &Start) -> Letter {
        start.has_letter.set(true);
        let stream = &start.stream;
        let body = stream
            .mail
            .borrow_mut()
            .next(&mut stream.chance.borrow_mut());
        Letter {
            stream: stream.clone(),
            id: stream.process.next_id(),
            number: start.number,
            body,
            fate: Fate::NotSent,
            code: 0,
        }
    }

    /// Appends it as it is.
    pub fn put(&self, out: &mut Vec<u8>) {
        self.body.put(out, self.id);
    }

    /// Appends it with doubled dots and the end of data.
    pub fn put_with_dots(&self, out: &mut Vec<u8>) {
        self.body.put_with_dots(out, self.id);
    }

    /// Its last octet was given to the kernel: from now on it may arrive.
    pub fn left(&mut self) {
        self.fate = Fate::Unanswered;
    }

    pub fn is_accepted(&self) -> bool {
        self.fate == Fate::Accepted
    }

    pub fn answered(&mut self, code: u16) {
        self.code = code;
        self.fate = match code {
            200..=299 => Fate::Accepted,
            400..=599 => Fate::Refused,
            _ => self.fate,
        };
    }
}

impl Drop for Letter {
    fn drop(&mut self) {
        let process = &self.stream.process;
        process.sent.borrow_mut().set(self.id.number, self.fate);
        let now = Instant::now();
        let mut tally = self.stream.tally.borrow_mut();
        match self.fate {
            Fate::Accepted => return tally.accepted(self.body.octets() as u64, now),
            Fate::Refused if self.code < 500 => tally.counts.deferred += 1,
            Fate::Refused => tally.counts.rejected += 1,
            Fate::Unanswered => tally.counts.unanswered += 1,
            Fate::NotSent => tally.counts.not_sent += 1,
        }
        tally.failed(now);
    }
}
