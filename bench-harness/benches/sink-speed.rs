//! How many messages a second one core of the sink takes:
//! `cargo bench -p weir-bench --bench sink-speed -- [CONNECTIONS] [PER_WRITE] [OCTETS] [SECONDS] [data]`.
//!
//! A thread with blocking sockets per connection pipelines whole transactions, PER_WRITE of them a write, and reads the replies. The sink runs
//! in this process with one thread, whose CPU time is read from /proc; so the figure per core does not depend on how fast the clients are.
//! It shows the sink and its half of loopback TCP, no proxy: the kernel does the receiving of a segment on its sender's account, so what
//! the clients send costs the clients. Every message is stamped, and checked by the sink.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use weir_bench::ledger::{Fate, MessageId, Sent, reconcile, stamp};
use weir_bench::sink::{self, Config};

struct Load {
    connections: u16,
    per_write: u32,
    octets: usize,
    lasts: Duration,
    data: bool,
}

fn main() -> anyhow::Result<()> {
    let load = Load::of_arguments()?;
    if cfg!(debug_assertions) {
        eprintln!("a debug build: the figure says nothing");
    }
    let handle = sink::start(&Config::default())?;
    let cpu_before = cpu_of_sink()?;
    let began = Instant::now();
    let sent = send_all(handle.smtp[0], &load)?;
    let (lasted, cpu) = (began.elapsed(), cpu_of_sink()? - cpu_before);
    let integrity = reconcile(&sent, &handle.arrived(1));
    let counters = handle.counters();
    ensure!(integrity.is_clean(), "not clean: {integrity:?}");
    ensure!(
        counters.violations.is_empty(),
        "violations: {:?}",
        counters.violations
    );
    let messages = integrity.arrived as f64;
    println!(
        "{messages} messages of {} octets, {} connections, {} per write, {}: {:.0} messages/s; the sink's thread used {:.2} s of {:.2} s, {:.2} µs a message: {:.0} messages/s and core; {:.2} reads a message",
        load.octets,
        load.connections,
        load.per_write,
        if load.data { "DATA" } else { "BDAT" },
        messages / lasted.as_secs_f64(),
        cpu.as_secs_f64(),
        lasted.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / messages,
        messages / cpu.as_secs_f64(),
        counters.reads as f64 / messages,
    );
    Ok(())
}

impl Load {
    fn of_arguments() -> anyhow::Result<Load> {
        // cargo adds flags of its own
        let words: Vec<String> = std::env::args()
            .skip(1)
            .filter(|word| !word.starts_with("--"))
            .collect();
        let number = |at: usize, default: u32| match words.get(at) {
            Some(word) => word
                .parse()
                .with_context(|| format!("`{word}` is no number")),
            None => Ok(default),
        };
        let connections = u16::try_from(number(0, 2)?).context("at most 65,535 connections")?;
        let load = Load {
            connections,
            per_write: number(1, 16)?,
            octets: number(2, 1024)? as usize,
            lasts: Duration::from_secs(number(3, 5)?.into()),
            data: words.get(4).is_some_and(|word| word == "data"),
        };
        ensure!(
            !load.data || load.per_write == 1,
            "DATA is answered before it is sent: PER_WRITE is 1"
        );
        Ok(load)
    }
}

/// One thread a connection; what each has sent.
fn send_all(to: SocketAddr, load: &Load) -> anyhow::Result<Vec<(u16, Sent)>> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..load.connections)
            .map(|process| scope.spawn(move || send(to, process, load)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client does not panic"))
            .collect()
    })
}

fn send(to: SocketAddr, process: u16, load: &Load) -> anyhow::Result<(u16, Sent)> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    replies(&mut stream, 1)?;
    stream.write_all(b"EHLO speed.example\r\n")?;
    replies(&mut stream, 1)?;
    let mut rest = b"Subject: speed\r\n\r\n".to_vec();
    while rest.len() + 80 < load.octets {
        rest.extend_from_slice(
            b"The quick brown fox jumps over the lazy dog, and again over the other dog....\r\n",
        );
    }
    let (mut sent, mut number) = (Sent::default(), 0);
    let (mut flight, mut message) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < load.lasts {
        flight.clear();
        for _ in 0..load.per_write {
            let id = MessageId {
                run: 1,
                process,
                number,
            };
            message.clear();
            stamp(&mut message, id, &rest);
            flight
                .extend_from_slice(b"MAIL FROM:<a@speed.example>\r\nRCPT TO:<b@sink.example>\r\n");
            if load.data {
                flight.extend_from_slice(b"DATA\r\n");
                stream.write_all(&flight)?;
                replies(&mut stream, 3)?;
                flight.clear();
                flight.extend_from_slice(&message);
                flight.extend_from_slice(b".\r\n");
            } else {
                write!(flight, "BDAT {} LAST\r\n", message.len())?;
                flight.extend_from_slice(&message);
            }
            sent.set(number, Fate::Accepted);
            number += 1;
        }
        stream.write_all(&flight)?;
        let owed = if load.data { 1 } else { 3 * load.per_write };
        replies(&mut stream, owed)?;
    }
    stream.write_all(b"QUIT\r\n")?;
    replies(&mut stream, 1)?;
    Ok((process, sent))
}

/// Reads so many replies, all of them positive.
fn replies(stream: &mut TcpStream, mut owed: u32) -> anyhow::Result<()> {
    let mut buffer = [0; 65_536];
    let mut kept = 0;
    while owed > 0 {
        let octets = stream.read(&mut buffer[kept..])?;
        ensure!(octets > 0, "the sink has closed the connection");
        let end = kept + octets;
        let mut start = 0;
        while let Some(lf) = buffer[start..end].iter().position(|&octet| octet == b'\n') {
            let line = &buffer[start..start + lf + 1];
            ensure!(
                matches!(line[0], b'2' | b'3'),
                "refused: {:?}",
                String::from_utf8_lossy(line)
            );
            owed -= u32::from(line[3] != b'-');
            start += lf + 1;
        }
        buffer.copy_within(start..end, 0);
        kept = end - start;
    }
    Ok(())
}

/// CPU time of the thread named `sink`, to a nanosecond (schedstat), not to a tick. A thread names itself once it runs: wait for that.
fn cpu_of_sink() -> anyhow::Result<Duration> {
    for _ in 0..500 {
        for task in std::fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            if std::fs::read_to_string(task.join("comm"))?.trim() == "sink" {
                let text = std::fs::read_to_string(task.join("schedstat"))?;
                let ran = text.split(' ').next().context("schedstat is empty")?;
                return Ok(Duration::from_nanos(ran.parse()?));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    anyhow::bail!("the sink has no thread")
}
