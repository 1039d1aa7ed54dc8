//! Proxies that lie: each does its one wrong thing to some messages, between the real binary and a sink, and has to be found out, with
//! the right count and the right exit code.
//!
//! A proxy here is a thread for each connection that takes a message, does what it does, and answers. It is as plain as can be, since
//! nothing checks it but the honest one.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use weir_bench::outcome::{Integrity, Outcome, Results};
use weir_bench::sink;

/// One message in so many meets the crime.
const EVERY: usize = 10;
const MESSAGES: u64 = 50;
const HIT: u64 = MESSAGES / EVERY as u64;

const OK: &str = "250 2.0.0 Ok\r\n";
const LATER: &str = "451 4.3.0 Later\r\n";

/// What is done with a message that is hit: the messages delivered instead of it, now and a second later, and what the client hears.
/// The second argument is the message before, which was whole and is kept back for those crimes that mix two.
struct Deed {
    now: Vec<Vec<u8>>,
    late: Vec<Vec<u8>>,
    reply: &'static str,
}

type Crime = fn(&[u8], &[u8]) -> Deed;

fn now(messages: Vec<Vec<u8>>) -> Deed {
    Deed {
        now: messages,
        late: Vec::new(),
        reply: OK,
    }
}

fn flipped(message: &[u8], at: usize) -> Deed {
    let mut message = message.to_vec();
    message[at] ^= 1;
    now(vec![message])
}

/// The first octet behind the stamp, and behind the header.
fn marks(message: &[u8]) -> (usize, usize) {
    let stamp = message.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    let header = message
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    (stamp, header)
}

/// The start of one message and the end of another.
fn mixed(start: &[u8], end: &[u8], at: usize) -> Vec<u8> {
    [&start[..at], &end[at..]].concat()
}

struct Proxy {
    sink: SocketAddr,
    crime: Crime,
    seen: Mutex<(usize, Vec<u8>)>,
}

impl Proxy {
    fn start(sink: SocketAddr, crime: Crime) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Arc::new(Proxy {
            sink,
            crime,
            seen: Mutex::default(),
        });
        thread::spawn(move || {
            for client in listener.incoming() {
                let proxy = proxy.clone();
                thread::spawn(move || proxy.serve(client.unwrap()));
            }
        });
        address
    }

    /// Ends when the client does. Its first connection says nothing at all: the one that asks whether somebody is there.
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(client.try_clone().ok()?);
        client.write_all(b"220 proxy.example\r\n").ok()?;
        loop {
            let line = line_of(&mut lines)?;
            let reply = match line.get(..4)? {
                b"DATA" => {
                    client.write_all(b"354 Go on\r\n").ok()?;
                    self.handle(&content_of(&mut lines)?)
                }
                _ => OK,
            };
            client.write_all(reply.as_bytes()).ok()?;
        }
    }

    fn handle(&self, message: &[u8]) -> &'static str {
        let (is_hit, before) = {
            let mut seen = self.seen.lock().unwrap();
            seen.0 += 1;
            let before = std::mem::replace(&mut seen.1, message.to_vec());
            (seen.0.is_multiple_of(EVERY), before)
        };
        if !is_hit {
            deliver(self.sink, message);
            return OK;
        }
        let deed = (self.crime)(message, &before);
        for message in &deed.now {
            deliver(self.sink, message);
        }
        let (sink, late) = (self.sink, deed.late);
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(1));
            late.iter().for_each(|message| deliver(sink, message));
        });
        deed.reply
    }
}

/// One line with its end.
fn line_of(lines: &mut impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    match lines.read_until(b'\n', &mut line) {
        Ok(1..) => Some(line),
        _ => None,
    }
}

/// As it came, doubled dots and all.
fn content_of(lines: &mut impl std::io::BufRead) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        match line_of(lines)? {
            end if end == b".\r\n" => return Some(content),
            line => content.extend_from_slice(&line),
        }
    }
}

fn deliver(sink: SocketAddr, message: &[u8]) {
    let mut server = TcpStream::connect(sink).unwrap();
    let mut replies = BufReader::new(server.try_clone().unwrap());
    let mut hear = |want: &[u8]| loop {
        let line = line_of(&mut replies).expect("the sink answers");
        assert!(line.starts_with(want), "{}", line.escape_ascii());
        if line[3] == b' ' {
            break;
        }
    };
    hear(b"220");
    for (line, want) in [
        (b"EHLO proxy.example\r\n".as_slice(), b"250"),
        (b"MAIL FROM:<a@example.com>\r\n", b"250"),
        (b"RCPT TO:<b@example.com>\r\n", b"250"),
        (b"DATA\r\n", b"354"),
        (&[message, b".\r\n"].concat(), b"250"),
        (b"QUIT\r\n", b"221"),
    ] {
        server.write_all(line).unwrap();
        hear(want);
    }
}

/// Sends all messages through a proxy with this crime. The exit code, what was printed, what was written.
fn run(crime: Crime) -> (i32, String, Outcome) {
    let sink = sink::start(&sink::Config::default()).unwrap();
    let proxy = Proxy::start(sink.smtp[0], crime);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("run.json");
    // one session at a time: which message is hit, and which was before it, is no matter of luck
    let done = Command::new(env!("CARGO_BIN_EXE_weir-bench"))
        .args([
            "source",
            &proxy.to_string(),
            "--quiet",
            "--sessions",
            "1",
            "--for",
            "4s",
        ])
        .args([
            "--starts",
            &MESSAGES.to_string(),
            "--grace",
            "20s",
            "--size",
            "2k",
        ])
        .args(["--ledger", &sink.control.to_string()])
        .arg("--json")
        .arg(&json)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    let text = std::fs::read_to_string(&json).unwrap_or_else(|error| panic!("{error}: {told}"));
    let results: Results = serde_json::from_str(&text).unwrap();
    let outcome = results.runs.into_iter().next().unwrap();
    (done.status.code().unwrap(), told, outcome)
}

/// What the sink has to have been found to have, and in which words.
type Row = (&'static str, Crime, Integrity, &'static str);

fn counts(arrived: u64, set: impl Fn(&mut Integrity)) -> Integrity {
    let mut integrity = Integrity {
        arrived,
        ..Integrity::default()
    };
    set(&mut integrity);
    integrity
}

/// A crime that leaves every message in its place, and some of them changed.
fn altered(label: &'static str, crime: Crime) -> Row {
    let integrity = counts(MESSAGES, |i| i.altered = HIT);
    (label, crime, integrity, "5 altered")
}

/// All rows at once: what they do most is wait.
fn judge(rows: &[Row]) {
    thread::scope(|scope| {
        for row in rows {
            scope.spawn(move || judge_one(row));
        }
    });
}

fn judge_one((label, crime, want, words): &Row) {
    let (code, told, outcome) = run(*crime);
    assert_eq!(outcome.integrity.as_ref(), Some(want), "{label}: {told}");
    assert_eq!(code, i32::from(!want.is_clean()), "{label}: {told}");
    assert!(
        told.contains(words),
        "{label}: {words} is missing in {told}"
    );
}

#[test]
fn an_honest_proxy_is_believed() {
    judge(&[(
        "honest",
        |message, _| now(vec![message.to_vec()]),
        counts(MESSAGES, |_| ()),
        "50 arrived · 0 lost",
    )]);
}

#[test]
fn messages_that_go_astray_are_counted() {
    judge(&[
        (
            "lost",
            |_, _| now(vec![]),
            counts(MESSAGES - HIT, |i| i.lost = HIT),
            "5 lost",
        ),
        (
            "twice",
            |message, _| now(vec![message.to_vec(); 2]),
            counts(MESSAGES + HIT, |i| i.duplicated = HIT),
            "5 duplicated",
        ),
        (
            "refused and delivered",
            |message, _| Deed {
                reply: LATER,
                ..now(vec![message.to_vec()])
            },
            counts(MESSAGES, |i| i.invented = HIT),
            "5 refused or never sent, and arrived all the same",
        ),
    ]);
}

/// The ledger was asked once, right after the last reply: what came a moment later was seen by nobody.
#[test]
fn what_comes_after_the_last_reply_is_counted() {
    judge(&[
        (
            "late, and not lost",
            |message, _| Deed {
                late: vec![message.to_vec()],
                ..now(vec![])
            },
            counts(MESSAGES, |_| ()),
            "0 lost",
        ),
        (
            "once more, late",
            |message, _| {
                thread::sleep(Duration::from_millis(300));
                Deed {
                    late: vec![message.to_vec()],
                    ..now(vec![message.to_vec()])
                }
            },
            counts(MESSAGES + HIT, |i| i.duplicated = HIT),
            "5 duplicated",
        ),
    ]);
}

#[test]
fn single_octets_count_wherever_they_are() {
    judge(&[
        altered("header", |message, _| flipped(message, marks(message).0)),
        altered("body", |message, _| flipped(message, marks(message).1 + 99)),
        altered("last line", |message, _| {
            flipped(message, message.len() - 3)
        }),
        (
            "stamp",
            |message, _| flipped(message, 20),
            counts(MESSAGES - HIT, |i| (i.lost, i.unknown) = (HIT, HIT)),
            "5 without an id that can be read",
        ),
    ]);
}

#[test]
fn pieces_of_messages_count() {
    judge(&[
        altered("cut short", |message, _| {
            let line = message[..message.len() - 2]
                .iter()
                .rposition(|&octet| octet == b'\n');
            now(vec![message[..line.unwrap() + 1].to_vec()])
        }),
        altered("end of another in front", |message, before| {
            let line = before[..before.len() - 2]
                .iter()
                .rposition(|&octet| octet == b'\n');
            now(vec![[&before[line.unwrap() + 1..], message].concat()])
        }),
        altered("another behind it", |message, before| {
            now(vec![[message, before].concat()])
        }),
        altered("body of another", |message, before| {
            now(vec![mixed(message, before, marks(message).1)])
        }),
        altered("a piece of another", |message, before| {
            let middle = message.len() / 2;
            let one = mixed(message, before, middle);
            now(vec![mixed(&one, message, middle + 64)])
        }),
        (
            "a piece beside it",
            |message, _| now(vec![b"Subject: x\r\n\r\n".to_vec(), message.to_vec()]),
            counts(MESSAGES, |i| i.unknown = HIT),
            "5 without an id that can be read",
        ),
    ]);
}
