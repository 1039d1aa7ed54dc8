//! The sink over loopback: what needs sockets, threads or time. Dialogues are tested without them, in `sink::session`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use weir_bench::ledger::{Fate, MessageId, Sent, ask, fetch, forget, reconcile, stamp};
use weir_bench::sink::counters::Counters;
use weir_bench::sink::{Config, Handle, start};

fn sink(faults: &str) -> Handle {
    start(&Config {
        faults: faults.parse().unwrap(),
        ..Config::default()
    })
    .unwrap()
}

/// A client that says what it is told and hears lines.
struct Client(TcpStream);

impl Client {
    fn connect(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    /// Past EHLO.
    fn greeted(to: SocketAddr) -> Client {
        let mut client = Client::connect(to);
        assert_eq!(client.hears(1), "220");
        client.says("EHLO client.example\r\n");
        assert_eq!(client.hears(1), "250");
        client
    }

    fn says(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// The codes of the next so many replies.
    fn hears(&mut self, replies: usize) -> String {
        let mut codes = Vec::new();
        while codes.len() < replies {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                let mut octet = [0];
                self.0.read_exact(&mut octet).unwrap();
                line.push(octet[0]);
            }
            if line[3] == b' ' {
                codes.push(String::from_utf8(line[..3].to_vec()).unwrap());
            }
        }
        codes.join(" ")
    }

    /// How it ends: true by FIN, false by RST.
    fn ends(&mut self) -> bool {
        loop {
            match self.0.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Envelope and message, as one flight.
fn transaction(run: u64, number: u32) -> String {
    let id = MessageId {
        run,
        process: 0,
        number,
    };
    let mut message = Vec::new();
    stamp(&mut message, id, b"Subject: x\r\n\r\nbody\r\n");
    let message = String::from_utf8(message).unwrap();
    format!(
        "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT {} LAST\r\n{message}",
        message.len()
    )
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

fn within(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_sent_is_found_in_the_ledger_of_every_thread() {
    let sink = start(&Config {
        threads: 3,
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)); 2],
        ..Config::default()
    })
    .unwrap();
    assert_eq!(sink.smtp.len(), 2);
    let mut sent = Sent::default();
    for number in 0..60 {
        let mut client = Client::greeted(sink.smtp[number as usize % 2]);
        client.says(&transaction(77, number));
        assert_eq!(client.hears(3), "250 250 250");
        sent.set(number, Fate::Accepted);
    }
    let arrived = block_on(fetch(sink.control, 77)).unwrap();
    assert_eq!(arrived, sink.arrived(77));
    let integrity = reconcile(&[(0, sent)], &arrived);
    assert!(
        integrity.is_clean() && integrity.arrived == 60,
        "{integrity:?}"
    );
    block_on(forget(sink.control, 77)).unwrap();
    assert_eq!(block_on(fetch(sink.control, 77)).unwrap().total(), 0);
}

#[test]
fn the_control_port_answers_in_lines() {
    let sink = sink("rcpt:450=1%");
    let mut client = Client::greeted(sink.smtp[0]);
    let mut control = TcpStream::connect(sink.control).unwrap();
    control
        .write_all(
            b"counters\nfaults\nfaults noop:451\nfaults\nfaults x\nledger x\ngo away\nforget 3\n",
        )
        .unwrap();
    control.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    control.read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let counters: Counters = serde_json::from_str(lines[0].strip_prefix("ok ").unwrap()).unwrap();
    assert_eq!(
        (counters.connections, counters.open, counters.open_max),
        (1, 1, 1)
    );
    assert_eq!(
        lines[1..4],
        ["ok rcpt:450=1%", "ok noop:451", "ok noop:451"]
    );
    assert!(
        lines[4].starts_with("error fault `x`: a fault is place:what"),
        "{}",
        lines[4]
    );
    assert_eq!(
        lines[5],
        "error `x` is no number of a run: invalid digit found in string"
    );
    assert!(
        lines[6].starts_with("error `go away` is none of"),
        "{}",
        lines[6]
    );
    assert_eq!(lines[7..], ["ok"]);
    // and the new fault is in force on a connection that was open
    client.says("NOOP\r\n");
    assert_eq!(client.hears(1), "451");
    block_on(ask(sink.control, "faults none")).unwrap();
    client.says("NOOP\r\n");
    assert_eq!(client.hears(1), "250");
}

#[test]
fn an_endless_line_to_the_control_port_is_refused() {
    let sink = sink("none");
    let mut control = TcpStream::connect(sink.control).unwrap();
    control.write_all(&[b'x'; 8192]).unwrap();
    let mut text = String::new();
    control.read_to_string(&mut text).unwrap();
    assert_eq!(text, "error the line is too long\n");
}

#[test]
fn delays_of_flights_under_way_at_once_do_not_add_up() {
    let delay = Duration::from_millis(400);
    let sink = sink("all:delay=400ms");
    let began = Instant::now();
    let mut client = Client::connect(sink.smtp[0]);
    assert_eq!(client.hears(1), "220");
    assert!(began.elapsed() >= delay);
    client.says("EHLO a\r\n");
    client.hears(1);
    assert!(began.elapsed() >= 2 * delay);
    let flights = Instant::now();
    for number in 0..4 {
        client.says(&transaction(1, number));
        std::thread::sleep(Duration::from_millis(20));
    }
    client.hears(12);
    let took = flights.elapsed();
    assert!(took >= delay && took < 3 * delay, "{took:?}");
    assert_eq!(sink.arrived(1).total(), 4);
    assert!(sink.counters().violations.is_empty());
}

#[test]
fn octets_while_a_reply_is_on_its_way_are_seen() {
    let sink = sink("all:delay=300ms");
    let mut client = Client::connect(sink.smtp[0]);
    client.says("EHLO early\r\n");
    client.hears(2);
    client.says("NOOP\r\n");
    std::thread::sleep(Duration::from_millis(50));
    client.says("RSET\r\n");
    client.hears(2);
    let seen = sink.counters().violations;
    let words: Vec<(&str, u64)> = seen.iter().map(|(word, n)| (word.as_str(), *n)).collect();
    assert_eq!(words, [("group_not_ended", 1), ("pregreet", 1)]);
}

#[test]
fn an_accepted_message_counts_though_its_reply_is_not_heard() {
    let sink = sink("none");
    let mut client = Client::greeted(sink.smtp[0]);
    block_on(ask(sink.control, "faults final:delay=5s")).unwrap();
    client.says(&transaction(9, 0));
    within(Duration::from_secs(5), "the message", || {
        sink.arrived(9).total() == 1
    });
    socket2::SockRef::from(&client.0)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    within(Duration::from_secs(5), "the end", || {
        sink.counters().open == 0
    });
    assert_eq!(sink.arrived(9).total(), 1);
    assert_eq!(sink.counters().hung_up, 1);
}

#[test]
fn resets_are_resets_and_ends_are_ends() {
    for (faults, by_fin) in [
        ("mail:reset", false),
        ("mail:close", true),
        ("mail:421", true),
        ("body:reset@20", false),
    ] {
        let sink = sink(faults);
        let mut client = Client::greeted(sink.smtp[0]);
        client.says(&transaction(1, 0));
        assert_eq!(client.ends(), by_fin, "{faults}");
        drop(client);
        within(Duration::from_secs(5), faults, || sink.counters().open == 0);
        let counters = sink.counters();
        assert_eq!((counters.accepted, counters.hung_up), (0, 0), "{faults}");
        assert_eq!(counters.faults.values().sum::<u64>(), 1, "{faults}");
    }
}

#[test]
fn last_words_are_heard_though_more_was_sent() {
    let sink = sink("mail:421");
    let mut client = Client::greeted(sink.smtp[0]);
    for number in 0..200 {
        client.says(&transaction(1, number));
    }
    assert_eq!(client.hears(1), "421");
    assert!(client.ends());
}

#[test]
fn a_stalled_message_is_not_read_and_not_answered() {
    let sink = sink("body:stall@10");
    let mut client = Client::greeted(sink.smtp[0]);
    client.says(&transaction(1, 0));
    client
        .0
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(client.hears(2), "250 250");
    let error = client.0.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let began = Instant::now();
    drop(sink);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "a stall does not keep the sink from ending"
    );
}

#[test]
fn connections_are_limited() {
    let sink = sink("connections=2");
    let mut kept = [Client::greeted(sink.smtp[0]), Client::greeted(sink.smtp[0])];
    let mut third = Client::connect(sink.smtp[0]);
    assert_eq!(third.hears(1), "421");
    assert!(third.ends());
    kept[0].says("QUIT\r\n");
    assert_eq!(kept[0].hears(1), "221");
    within(Duration::from_secs(5), "a free place", || {
        sink.counters().open == 1
    });
    Client::greeted(sink.smtp[0]);
    assert_eq!(sink.counters().faults["connections_limited"], 1);
}

#[test]
fn reading_is_as_slow_as_told() {
    let sink = sink("read=20k/s");
    let mut client = Client::greeted(sink.smtp[0]);
    let began = Instant::now();
    client.says(&format!(
        "MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 20480 LAST\r\n{}",
        "x".repeat(20_480)
    ));
    client.hears(3);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(800), "{took:?}");
    assert!(sink.counters().reads >= 20);
}

#[test]
fn silent_connections_are_closed() {
    let sink = start(&Config {
        idle_max: Duration::from_millis(100),
        ..Config::default()
    })
    .unwrap();
    let mut client = Client::greeted(sink.smtp[0]);
    let began = Instant::now();
    assert!(client.ends());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn replies_that_nobody_reads_do_not_grow_without_end() {
    let sink = sink("none");
    let mut client = Client::greeted(sink.smtp[0]);
    client
        .0
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let flight = "RSET\r\n".repeat(10_000);
    // some megabytes fit into the buffers of both kernels; then the sink has to stop reading
    let blocked = (0..2000).find_map(|_| client.0.write_all(flight.as_bytes()).err());
    assert_eq!(
        blocked.map(|error| error.kind()),
        Some(ErrorKind::WouldBlock)
    );
}

#[test]
fn round_trips_are_counted() {
    let sink = sink("none");
    let mut client = Client::greeted(sink.smtp[0]);
    let before = sink.counters().turns;
    for number in 0..10 {
        client.says(&transaction(1, number));
        client.hears(3);
    }
    assert_eq!(sink.counters().turns - before, 10);
}

#[test]
fn ports_that_are_taken_are_an_error_with_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // one that was left behind shared its ports, and the ledger of either knew a part of the mail
    let stale = sink("none");
    for (listen, control) in [
        (taken.local_addr().unwrap(), None),
        (stale.smtp[0], None),
        ("127.0.0.1:0".parse().unwrap(), Some(stale.control)),
    ] {
        let config = Config::default();
        let wanted = control.unwrap_or(listen);
        let error = start(&Config {
            listen: vec![listen],
            control: control.unwrap_or(config.control),
            threads: 2,
            ..config
        })
        .map(|_| ())
        .unwrap_err();
        assert!(
            format!("{error:#}").contains(&wanted.to_string()),
            "{error:#}"
        );
    }
}
