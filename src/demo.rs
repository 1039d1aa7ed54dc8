//! The embedded sink: an upstream inside the process, for the first minute and for tests.
//!
//! It accepts everything, keeps nothing, and tells what arrived: sender, recipients, size, and the beginning of the message.
//! One blocking thread per connection: weir's own pool bounds how many there are. Parsing is the core's, the dialogue is not:
//! a sink that shared weir's machines would share their mistakes.

use std::{
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use weir_smtp::xclient::Attributes;
use weir_smtp::{
    body::{BareNewline, BodyScanner},
    command::{self, Command},
    extension::{Capabilities, ExtensionSet, write_ehlo},
    limits::COMMAND_LINE_MAX,
    line::split_line,
    pieces::{BufferId, Form, Piece, Pieces},
    texts,
};

/// Bytes of a message that are kept for showing.
const SHOWN_MAX: usize = 4096;
/// Lines of them that are shown.
const LINES_SHOWN: usize = 12;
/// More connections than weir's pool ever has to one upstream, unless it is told to.
const SESSIONS_MAX: u32 = 1024;
/// A connection of the pool idles for a minute at most.
const IDLE: Duration = Duration::from_secs(600);

/// A message that arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// From 1, over all connections.
    pub number: u64,
    pub sender: Vec<u8>,
    pub recipients: Vec<Vec<u8>>,
    /// Content bytes, without transparency dots.
    pub size: u64,
    /// The first of them.
    pub beginning: Vec<u8>,
    pub chunked: bool,
}

/// What the sink does with each message.
type Tell = dyn Fn(&Arrival) + Send + Sync;

/// Starts a sink on a loopback port of the kernel's choice. It lives as long as the process.
pub fn start(tell: impl Fn(&Arrival) + Send + Sync + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let sink = Arc::new(Sink {
        tell: Box::new(tell),
        arrivals: AtomicU64::new(0),
        sessions: AtomicU32::new(0),
    });
    thread::Builder::new()
        .name("weir-sink".into())
        .spawn(move || accept(&listener, &sink))?;
    Ok(address)
}

/// What to try, for the terminal.
pub fn welcome(listen: SocketAddr, admin: Option<SocketAddr>) -> String {
    let mut text = format!(
        "weir demo: mail for {listen} goes to a sink inside this process, which shows it here.\n\nTry, in another terminal:\n\n  \
         printf 'From: me@example.com\\r\\nTo: you@example.com\\r\\nSubject: hello\\r\\n\\r\\nThrough the weir.\\r\\n' |\n    \
         curl -sS smtp://{listen} --mail-from me@example.com --mail-rcpt you@example.com --upload-file -\n"
    );
    let _ = write!(
        text,
        "\n  swaks --server {listen} --from me@example.com --to you@example.com\n"
    );
    if let Some(admin) = admin {
        let _ = write!(text, "\n  curl http://{admin}/status\n");
    }
    text.push_str("\nCtrl-C ends it.\n");
    text
}

/// A message as shown on a terminal.
pub fn describe(arrival: &Arrival) -> String {
    let mut text = format!(
        "\n-- message {}: from <{}> to <{}>, {} bytes by {}\n",
        arrival.number,
        printable(&arrival.sender),
        arrival
            .recipients
            .iter()
            .map(|path| printable(path))
            .collect::<Vec<_>>()
            .join(">, <"),
        arrival.size,
        if arrival.chunked { "BDAT" } else { "DATA" },
    );
    let lines: Vec<&[u8]> = arrival.beginning.split(|byte| *byte == b'\n').collect();
    let lines = lines.strip_suffix(&[&b""[..]]).unwrap_or(&lines);
    for line in lines.iter().take(LINES_SHOWN) {
        let _ = writeln!(
            text,
            "   | {}",
            printable(line.strip_suffix(b"\r").unwrap_or(line))
        );
    }
    if lines.len() > LINES_SHOWN || arrival.size > arrival.beginning.len() as u64 {
        text.push_str("   | ...\n");
    }
    text
}

/// Nothing a message holds may move the cursor.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

struct Sink {
    tell: Box<Tell>,
    arrivals: AtomicU64,
    sessions: AtomicU32,
}

fn accept(listener: &TcpListener, sink: &Arc<Sink>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(100)); // no descriptors: some will come back
            continue;
        };
        if sink.sessions.fetch_add(1, Relaxed) >= SESSIONS_MAX {
            sink.sessions.fetch_sub(1, Relaxed);
            continue;
        }
        let own = Arc::clone(sink);
        let serve = move || {
            if let Err(error) = Session::new(stream, &own).and_then(Session::serve) {
                log::debug!("sink: {error}");
            }
            own.sessions.fetch_sub(1, Relaxed);
        };
        if let Err(error) = thread::Builder::new().name("weir-sink".into()).spawn(serve) {
            log::warn!("sink: no thread: {error}");
            sink.sessions.fetch_sub(1, Relaxed);
        }
    }
}

struct Session<'a> {
    sink: &'a Sink,
    input: BufReader<TcpStream>,
    output: TcpStream,
    /// Replies not yet written: one write per flight.
    replies: Vec<u8>,
    sender: Option<Vec<u8>>,
    message: Arrival,
}

/// Whether the dialogue goes on.
#[derive(PartialEq, Eq)]
enum Next {
    More,
    Close,
}

const CAPABILITIES: Capabilities = Capabilities {
    set: ExtensionSet::OWN
        .union(ExtensionSet::SHARED)
        .without(ExtensionSet::LIMITS)
        .without(ExtensionSet::REQUIRETLS),
    size_max: 0,
    rcpt_max: 0,
    mail_max: 0,
    esmtp: true,
    xclient: Attributes::NONE,
    xforward: Attributes::NONE,
};
const NAME: &[u8] = b"sink.weir.demo";
const OK: &[u8] = b"250 2.0.0 Ok\r\n";

impl<'a> Session<'a> {
    fn new(stream: TcpStream, sink: &'a Sink) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE))?;
        let input = BufReader::with_capacity(64 << 10, stream.try_clone()?);
        Ok(Self {
            sink,
            input,
            output: stream,
            replies: Vec::new(),
            sender: None,
            message: Arrival::default(),
        })
    }

    fn serve(mut self) -> io::Result<()> {
        texts::write_greeting(&mut self.replies, NAME);
        let mut line = Vec::new();
        while self.read_line(&mut line)? {
            let length = split_line(&line).map_or(line.len(), |(length, ..)| length);
            let next = match command::parse(&line[..length], CAPABILITIES.set, true) {
                Ok(command) => self.command(&command)?,
                Err(violation) => {
                    self.say(violation.reply().as_bytes());
                    Next::More
                }
            };
            if next == Next::Close {
                break;
            }
        }
        self.flush()
    }

    /// False at the end of input, or at a line that is none.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        if !self.input.buffer().contains(&b'\n') {
            self.flush()?;
        }
        (&mut self.input)
            .take(COMMAND_LINE_MAX as u64)
            .read_until(b'\n', line)?;
        Ok(line.ends_with(b"\n"))
    }

    fn command(&mut self, command: &Command<'_>) -> io::Result<Next> {
        match command {
            Command::Ehlo(_) => {
                self.reset();
                write_ehlo(&mut self.replies, NAME, &CAPABILITIES);
            }
            Command::Helo(_) => {
                self.reset();
                texts::write_helo(&mut self.replies, NAME);
            }
            Command::Mail(mail) if self.sender.is_none() => {
                self.sender = Some(mail.path.mailbox.to_vec());
                self.say(OK);
            }
            Command::Rcpt(rcpt) if self.sender.is_some() => {
                self.message.recipients.push(rcpt.path.mailbox.to_vec());
                self.say(OK);
            }
            Command::Data if !self.message.recipients.is_empty() => {
                self.say(b"354 End data with <CR><LF>.<CR><LF>\r\n");
                self.flush()?;
                self.data()?;
            }
            Command::Bdat { size, last } if !self.message.recipients.is_empty() => {
                self.chunk(*size, *last)?
            }
            Command::Bdat { size, .. } => {
                io::copy(&mut (&mut self.input).take(*size), &mut io::sink())?;
                self.say(b"503 5.5.1 Need MAIL and RCPT\r\n");
            }
            Command::Rset => {
                self.reset();
                self.say(OK);
            }
            Command::Noop => self.say(OK),
            Command::Quit => {
                self.say(b"221 2.0.0 Bye\r\n");
                return Ok(Next::Close);
            }
            Command::Mail(_) | Command::Rcpt(_) | Command::Data => {
                self.say(b"503 5.5.1 Bad sequence of commands\r\n")
            }
            _ => self.say(b"502 5.5.1 Not implemented\r\n"),
        }
        Ok(Next::More)
    }

    fn data(&mut self) -> io::Result<()> {
        let mut scanner = BodyScanner::data(BareNewline::Pass);
        let mut pieces = Pieces::new();
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (consumed, end) = scanner.scan_data(BufferId(0), 0, bytes, &mut pieces);
            for piece in pieces.iter(Form::Bdat) {
                match piece {
                    Piece::Span { start, len, .. } => {
                        self.message.take(&bytes[start as usize..][..len as usize])
                    }
                    Piece::Insert(inserted) => self.message.take(inserted),
                }
            }
            pieces.clear();
            self.input.consume(consumed);
            if end.is_some() {
                self.arrived();
                return Ok(());
            }
        }
    }

    fn chunk(&mut self, size: u64, last: bool) -> io::Result<()> {
        self.message.chunked = true;
        let mut left = size;
        while left > 0 {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.message.take(&bytes[..taken]);
            self.input.consume(taken);
            left -= taken as u64;
        }
        if last {
            self.arrived();
        } else {
            self.say(OK);
        }
        Ok(())
    }

    fn arrived(&mut self) {
        self.message.number = self.sink.arrivals.fetch_add(1, Relaxed) + 1;
        self.message.sender = self.sender.take().unwrap_or_default();
        (self.sink.tell)(&self.message);
        self.replies.extend_from_slice(
            format!("250 2.0.0 Ok: message {} sunk\r\n", self.message.number).as_bytes(),
        );
        self.reset();
    }

    fn reset(&mut self) {
        self.sender = None;
        self.message = Arrival::default();
    }

    fn say(&mut self, reply: &[u8]) {
        self.replies.extend_from_slice(reply);
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.output.write_all(&self.replies);
        self.replies.clear();
        result
    }
}

impl Arrival {
    fn take(&mut self, content: &[u8]) {
        self.size += content.len() as u64;
        let room = SHOWN_MAX.saturating_sub(self.beginning.len());
        self.beginning
            .extend_from_slice(&content[..content.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Sends everything at once, and returns all that came back with the messages that arrived.
    fn dialogue(input: &[u8]) -> (String, Vec<Arrival>) {
        let (told, arrivals) = mpsc::channel();
        let address = start(move |arrival| told.send(arrival.clone()).unwrap()).unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(input).unwrap();
        let mut output = String::new();
        client.read_to_string(&mut output).unwrap();
        (output, arrivals.try_iter().collect())
    }

    fn codes(output: &str) -> Vec<&str> {
        output
            .lines()
            .filter(|line| line.as_bytes().get(3) == Some(&b' '))
            .map(|line| &line[..3])
            .collect()
    }

    #[test]
    fn a_message_by_data_arrives_without_its_dots() {
        let (output, arrivals) = dialogue(
            b"EHLO x\r\nMAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\nDATA\r\n\
              Subject: dots\r\n\r\n..\r\n.. two\r\nend\r\n.\r\nQUIT\r\n",
        );
        assert_eq!(
            codes(&output),
            ["220", "250", "250", "250", "250", "354", "250", "221"]
        );
        assert!(
            output.contains("250-CHUNKING") && output.contains("SMTPUTF8"),
            "{output}"
        );
        let [arrival] = &arrivals[..] else {
            panic!("one message: {arrivals:?}")
        };
        assert_eq!(
            arrival.beginning,
            b"Subject: dots\r\n\r\n.\r\n. two\r\nend\r\n"
        );
        assert_eq!(
            (arrival.recipients.len(), arrival.size, arrival.chunked),
            (2, 32, false)
        );
    }

    #[test]
    fn chunks_are_joined_and_messages_follow_each_other() {
        let (output, arrivals) = dialogue(
            b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nBDAT 5\r\nhelloBDAT 8 LAST\r\n there\r\n\
              MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nBDAT 0 LAST\r\nQUIT\r\n",
        );
        assert_eq!(
            codes(&output),
            [
                "220", "250", "250", "250", "250", "250", "250", "250", "250", "221"
            ]
        );
        assert_eq!(arrivals[0].beginning, b"hello there\r\n");
        assert_eq!(
            (arrivals[0].number, arrivals[1].number, arrivals[1].size),
            (1, 2, 0)
        );
    }

    #[test]
    fn wrong_order_is_refused_and_chunks_without_an_envelope_are_swallowed() {
        let (output, arrivals) = dialogue(b"HELO x\r\nDATA\r\nRCPT TO:<a@b.example>\r\nBDAT 6 LAST\r\nQUIT\r\nVRFY a\r\nSTUFF\r\nQUIT\r\n");
        assert_eq!(
            codes(&output),
            ["220", "250", "503", "503", "503", "502", "500", "221"]
        );
        assert!(arrivals.is_empty());
    }

    #[test]
    fn what_is_shown_cannot_move_the_cursor() {
        let arrival = Arrival {
            number: 7,
            sender: b"a\x1b[2J@b".to_vec(),
            recipients: vec![b"c@d".to_vec()],
            size: 9,
            beginning: b"x\x07y\r\nz\r\n".to_vec(),
            chunked: true,
        };
        assert_eq!(
            describe(&arrival),
            "\n-- message 7: from <a?[2J@b> to <c@d>, 9 bytes by BDAT\n   | x?y\n   | z\n   | ...\n"
        );
    }

    #[test]
    fn the_welcome_has_commands_to_paste() {
        let text = welcome(
            "127.0.0.1:2525".parse().unwrap(),
            Some("127.0.0.1:9025".parse().unwrap()),
        );
        assert!(
            text.contains("curl -sS smtp://127.0.0.1:2525 ")
                && text.contains("curl http://127.0.0.1:9025/status")
        );
    }
}
