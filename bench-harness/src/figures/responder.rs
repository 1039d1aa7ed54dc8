//! A name server in a thread of ours: knows nobody, says so at once, and counts what it is asked.
//!
//! Every name does not exist, but for the test points of lists (RFC 5782 5), so that weir takes its zones for lists that work.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

const HEADER: usize = 12;
/// How long an answer holds, in seconds: longer than any run.
const TTL: u32 = 3600;
/// How often the thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

pub struct Responder {
    pub at: SocketAddr,
    told: Arc<Told>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Told {
    ends: AtomicBool,
    datagrams: AtomicU64,
    /// Hashes of the questions.
    questions: Mutex<HashSet<u64>>,
}

/// What was asked so far.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    pub datagrams: u64,
    /// Different questions among them.
    pub questions: u64,
}

impl Responder {
    pub fn start() -> Result<Responder> {
        let socket = UdpSocket::bind("127.0.0.1:0").context("no port for a name server")?;
        let at = socket.local_addr()?;
        socket.set_read_timeout(Some(LOOK))?;
        let told = Arc::new(Told::default());
        let its = told.clone();
        let thread = std::thread::Builder::new().name("responder".to_owned());
        let thread = thread.spawn(move || its.serve(&socket))?;
        Ok(Responder {
            at,
            told,
            thread: Some(thread),
        })
    }

    pub fn asked(&self) -> Asked {
        let questions = self.told.questions.lock().expect("nobody panics with it");
        Asked {
            datagrams: self.told.datagrams.load(Ordering::Relaxed),
            questions: questions.len() as u64,
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.told.ends.store(true, Ordering::Relaxed);
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            eprintln!("the name server has panicked");
        }
    }
}

impl Told {
    fn serve(&self, socket: &UdpSocket) {
        let hashes = RandomState::new();
        let mut buffer = [0; 1500];
        while !self.ends.load(Ordering::Relaxed) {
            let (len, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if is_empty(error.kind()) => continue,
                Err(error) => return eprintln!("the name server cannot receive: {error}"),
            };
            let Some((question, reply)) = answer(&buffer[..len]) else {
                continue;
            };
            self.datagrams.fetch_add(1, Ordering::Relaxed);
            let mut questions = self.questions.lock().expect("nobody panics with it");
            questions.insert(hashes.hash_one(question.to_ascii_lowercase()));
            drop(questions);
            if let Err(error) = socket.send_to(&reply, from) {
                eprintln!("the name server cannot answer {from}: {error}");
            }
        }
    }
}

/// Nothing has come, or somebody has closed the port that an answer went to.
fn is_empty(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock
            | ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
    )
}

/// The question of a query, and the reply to it (RFC 1035 4).
fn answer(query: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let mut end = HEADER;
    loop {
        let label = usize::from(*query.get(end)?);
        end += 1 + label;
        if label == 0 {
            break;
        }
    }
    end += 4;
    let question = query.get(HEADER..end)?;
    let is_test_point = question.starts_with(b"\x012\x010\x010\x03127");
    let is_address = question[question.len() - 4..] == [0, 1, 0, 1];
    let listed = is_test_point && is_address;
    let mut reply = query[..2].to_vec();
    // Response, recursion desired and available; no such name.
    reply.extend([0x81, if listed { 0x80 } else { 0x83 }]);
    let (answers, authorities) = if listed { (1, 0) } else { (0, 1) };
    reply.extend([0, 1, 0, answers, 0, authorities, 0, 0]);
    reply.extend(question);
    if listed {
        reply.extend([0xc0, HEADER as u8, 0, 1, 0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, 4, 127, 0, 0, 2]);
    } else {
        // The root's SOA, without names: for so long there is no such name (RFC 2308 5).
        reply.extend([0, 0, 6, 0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, 22, 0, 0]);
        for number in [1, 3600, 600, 86_400, TTL] {
            reply.extend(number.to_be_bytes());
        }
    }
    Some((question, reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        query
    }

    #[test]
    fn test_points_are_listed_and_nobody_else() {
        for (name, code, answers) in [
            ("2.0.0.127.zone.test", 0x80, 1),
            ("1.0.0.127.zone.test", 0x83, 0),
            ("9.0.4.127.zone.test", 0x83, 0),
        ] {
            let query = query(name);
            let (question, reply) = answer(&query).expect("a query");
            assert_eq!(question, &query[HEADER..]);
            assert_eq!(
                (reply[0], reply[1], reply[3], reply[7]),
                (7, 9, code, answers),
                "{name}"
            );
        }
        assert!(answer(&query("a.b")[..15]).is_none());
    }

    #[test]
    fn questions_are_counted_once_and_datagrams_each() {
        let responder = Responder::start().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        for name in ["a.zone.test", "A.zone.test", "b.zone.test"] {
            socket.send_to(&query(name), responder.at).unwrap();
            socket.recv(&mut [0; 512]).unwrap();
        }
        let asked = responder.asked();
        assert_eq!((asked.datagrams, asked.questions), (3, 2));
    }
}
