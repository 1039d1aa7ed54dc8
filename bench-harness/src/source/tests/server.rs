//! A small mail server for the tests of the source, on a thread and runtime of its own, so that a stall of it stalls nobody else. It does
//! what its script says, keeps what every client said octet by octet, and counts messages as the sink does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::ledger::{Arrived, Checker};

/// What the server answers.
#[derive(Clone)]
pub struct Script {
    pub greeting: &'static str,
    pub greeting_delay: Duration,
    pub ehlo: &'static str,
    pub mail: &'static str,
    pub rcpt: &'static str,
    pub data: &'static str,
    pub end_of_data: &'static str,
    /// The whole server stops for so long at this message.
    pub stall: Option<(u64, Duration)>,
    /// Octets of replies after which a connection is closed.
    pub replies_max: usize,
    /// Replies in pieces of so many octets.
    pub piece: usize,
    /// Sent again and again instead of anything else.
    pub garbage: Option<&'static [u8]>,
    /// Octets read from a client before no more are read.
    pub reads_max: usize,
}

impl Default for Script {
    fn default() -> Script {
        Script {
            greeting: "220 server.example\r\n",
            greeting_delay: Duration::ZERO,
            ehlo: "250-server.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 0\r\n250 CHUNKING\r\n",
            mail: "250 2.1.0 sender\r\n",
            rcpt: "250 2.1.5 recipient\r\n",
            data: "354 go on\r\n",
            end_of_data: "250 2.0.0 taken\r\n",
            stall: None,
            replies_max: usize::MAX,
            piece: usize::MAX,
            garbage: None,
            reads_max: usize::MAX,
        }
    }
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Seen {
    /// What each connection said, in the order they were made.
    said: Vec<Vec<u8>>,
    from: Vec<SocketAddr>,
    flights: Vec<u32>,
    arrived: Arrived,
    messages: u64,
}

impl Server {
    pub fn start(script: Script) -> Server {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = oneshot::channel();
        let listener = listener();
        let address = listener.local_addr().unwrap();
        let shared = seen.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::spawn(accept(listener, script, shared));
                stopped.await.ok();
            });
        });
        Server {
            address,
            seen,
            _stop: stop,
        }
    }

    pub fn said(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let said = seen.said.iter();
        said.map(|said| String::from_utf8_lossy(said).into_owned())
            .collect()
    }

    pub fn clients(&self) -> Vec<SocketAddr> {
        self.seen.lock().unwrap().from.clone()
    }

    /// Reads that had something, by connection.
    pub fn flights(&self) -> Vec<u32> {
        self.seen.lock().unwrap().flights.clone()
    }

    pub fn arrived(&self) -> Arrived {
        self.seen.lock().unwrap().arrived.clone()
    }
}

/// With room for all who come during a stall: what finds none comes back a second later.
fn listener() -> std::net::TcpListener {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    socket.listen(4096).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.into()
}

async fn accept(listener: TcpListener, script: Script, seen: Arc<Mutex<Seen>>) {
    loop {
        let (tcp, from) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.said.push(Vec::new());
            seen.flights.push(0);
            seen.from.push(from);
            seen.said.len() - 1
        };
        let client = Client {
            number,
            replies_left: script.replies_max,
            reads_left: script.reads_max,
            script: script.clone(),
            seen: seen.clone(),
            input: Vec::new(),
            output: Vec::new(),
            mode: Mode::Commands,
        };
        tokio::spawn(client.serve(tcp));
    }
}

struct Client {
    number: usize,
    script: Script,
    seen: Arc<Mutex<Seen>>,
    input: Vec<u8>,
    output: Vec<u8>,
    mode: Mode,
    replies_left: usize,
    reads_left: usize,
}

#[derive(PartialEq)]
enum Mode {
    Commands,
    Data,
    Chunk(usize),
    Over,
}

impl Client {
    /// None: the connection is over.
    async fn serve(mut self, mut tcp: TcpStream) -> Option<()> {
        tokio::time::sleep(self.script.greeting_delay).await;
        self.output
            .extend_from_slice(self.script.greeting.as_bytes());
        let mut buffer = vec![0; 64 * 1024];
        loop {
            while let Some(garbage) = self.script.garbage {
                tcp.write_all(garbage).await.ok()?;
            }
            self.write(&mut tcp).await?;
            if self.mode == Mode::Over {
                return None;
            }
            if self.reads_left == 0 {
                std::future::pending::<()>().await;
            }
            let room = buffer.len().min(self.reads_left);
            let read = tcp.read(&mut buffer[..room]).await.ok()?;
            if read == 0 {
                return None;
            }
            self.reads_left -= read;
            self.take(&buffer[..read]);
            while self.step() {}
        }
    }

    async fn write(&mut self, tcp: &mut TcpStream) -> Option<()> {
        let output = std::mem::take(&mut self.output);
        let allowed = output.len().min(self.replies_left);
        for piece in output[..allowed].chunks(self.script.piece) {
            tcp.write_all(piece).await.ok()?;
            if self.script.piece < usize::MAX {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        self.replies_left -= allowed;
        (self.replies_left > 0).then_some(())
    }

    fn take(&mut self, octets: &[u8]) {
        let mut seen = self.seen.lock().unwrap();
        seen.said[self.number].extend_from_slice(octets);
        seen.flights[self.number] += 1;
        self.input.extend_from_slice(octets);
    }

    /// Whether something was taken from the input.
    fn step(&mut self) -> bool {
        match self.mode {
            Mode::Commands => self.command(),
            Mode::Data => self.data(),
            Mode::Chunk(octets) => self.chunk(octets),
            Mode::Over => false,
        }
    }

    fn command(&mut self) -> bool {
        let Some(end) = self.input.iter().position(|&octet| octet == b'\n') else {
            return false;
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let script = &self.script;
        let reply = match line.split([' ', ':']).next().unwrap() {
            "EHLO" => script.ehlo,
            "MAIL" => script.mail,
            "RCPT" => script.rcpt,
            "RSET" => "250 2.0.0 reset\r\n",
            "DATA" => {
                if script.data.starts_with("354") {
                    self.mode = Mode::Data;
                }
                script.data
            }
            "BDAT" => {
                let octets = line.split(' ').nth(1).unwrap().parse().unwrap();
                self.mode = Mode::Chunk(octets);
                return true;
            }
            "QUIT" => {
                self.mode = Mode::Over;
                "221 2.0.0 bye\r\n"
            }
            _ => "500 5.5.2 what?\r\n",
        };
        self.output.extend_from_slice(reply.as_bytes());
        true
    }

    fn data(&mut self) -> bool {
        let input = [b"\r\n", self.input.as_slice()].concat();
        let Some(end) = input.windows(5).position(|five| five == b"\r\n.\r\n") else {
            return false;
        };
        let mut message = Vec::new();
        for line in self.input[..end].split_inclusive(|&octet| octet == b'\n') {
            message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        self.input.drain(..end + 3);
        self.arrive(&message);
        true
    }

    fn chunk(&mut self, octets: usize) -> bool {
        if self.input.len() < octets {
            return false;
        }
        let message: Vec<u8> = self.input.drain(..octets).collect();
        self.arrive(&message);
        true
    }

    fn arrive(&mut self, message: &[u8]) {
        self.mode = Mode::Commands;
        let end_of_data = self.script.end_of_data.as_bytes();
        self.output.extend_from_slice(end_of_data);
        let mut seen = self.seen.lock().unwrap();
        if end_of_data.starts_with(b"2") && !message.is_empty() {
            let mut checker = Checker::default();
            checker.feed(message);
            seen.arrived.count(checker.finish());
        }
        seen.messages += 1;
        if let Some((number, stall)) = self.script.stall
            && number == seen.messages
        {
            drop(seen);
            std::thread::sleep(stall);
        }
    }
}
