//! A visit to a mail server: does it answer, what does it offer, and would it relay for weir to a foreign domain?

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    time::Duration,
};

use weir_smtp::{
    extension::{Capabilities, ExtensionSet, parse_ehlo_reply},
    reply::ReplyReader,
};

use super::{Level, Point};
use crate::cli::flags::upstreams::Upstream;

/// For the connection and for each reply.
const PATIENCE: Duration = Duration::from_secs(15);
/// Nobody here is responsible for it (RFC 2606), so who takes mail for it takes mail for everybody.
const FOREIGN: &str = "weir-relay-test@example.org";

/// One point per address of the server.
pub fn visit(upstream: &Upstream, hostname: &str) -> Vec<Point> {
    let name = upstream.name();
    let addresses: Vec<SocketAddr> = match (upstream.host.as_str(), upstream.port).to_socket_addrs()
    {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            return vec![Point::failure(
                format!("upstream {name} cannot be looked up: {error}"),
                "check the name and the resolver",
            )];
        }
    };
    addresses
        .into_iter()
        .flat_map(|address| judge(&name, address, ask(address, hostname)))
        .collect()
}

/// What a visit brought.
#[derive(Debug)]
struct Visit {
    capabilities: Capabilities,
    /// The reply to RCPT with a foreign domain.
    foreign: (u16, String),
}

fn judge(name: &str, address: SocketAddr, visit: io::Result<Visit>) -> Vec<Point> {
    let visit = match visit {
        Ok(visit) => visit,
        Err(error) => {
            let remedy =
                "is the mail server running, and does it accept connections from this host?";
            return vec![Point::failure(
                format!("upstream {name} at {address}: {error}"),
                remedy,
            )];
        }
    };
    let mut points = vec![Point::good(format!(
        "upstream {name} at {address} answers and offers {}",
        visit.capabilities.set
    ))];
    if !visit.capabilities.set.contains(ExtensionSet::PIPELINING) {
        points.push(Point::warning(
            format!("upstream {name} at {address} offers no PIPELINING"),
            "every message costs it more round trips",
        ));
    }
    if visit.foreign.0 / 100 == 2 {
        points.push(Point {
            level: Level::Warning,
            what: format!(
                "upstream {name} at {address} WOULD RELAY TO ANYWHERE for this host: it answered {:?} to a foreign recipient. \
                 Behind weir every client has this host's address, so --relay-domains and --relay-from alone keep you from being an open relay",
                visit.foreign.1
            ),
            remedy: "take this host out of its trusted networks (Postfix: mynetworks), never use --relay-domains any with it, or be sure of both lists".into(),
        });
    }
    points
}

fn ask(address: SocketAddr, hostname: &str) -> io::Result<Visit> {
    let mut dialogue = Dialogue::connect(address)?;
    dialogue.expect("the connection", 2)?;
    let (_, ehlo) = dialogue.command(&format!("EHLO {hostname}"))?;
    let capabilities = parse_ehlo_reply(ehlo.as_bytes());
    let mut foreign = dialogue.command("MAIL FROM:<>")?;
    if foreign.0 / 100 == 2 {
        foreign = dialogue.command(&format!("RCPT TO:<{FOREIGN}>"))?;
        dialogue.command("RSET")?;
    } else {
        foreign = (0, String::new()); // no answer to the question, so no alarm
    }
    dialogue.command("QUIT")?;
    let first_line = foreign.1.lines().next().unwrap_or_default().to_owned();
    Ok(Visit {
        capabilities,
        foreign: (foreign.0, first_line),
    })
}

struct Dialogue {
    stream: TcpStream,
    reader: ReplyReader,
}

impl Dialogue {
    fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            reader: ReplyReader::new(),
        })
    }

    fn command(&mut self, line: &str) -> io::Result<(u16, String)> {
        self.stream.write_all(format!("{line}\r\n").as_bytes())?;
        self.reply(line)
    }

    fn expect(&mut self, after: &str, class: u16) -> io::Result<()> {
        let (code, text) = self.reply(after)?;
        if code / 100 == class {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "after {after} it said {:?}",
                text.trim_end()
            )))
        }
    }

    fn reply(&mut self, after: &str) -> io::Result<(u16, String)> {
        let mut bytes = [0; 4096];
        loop {
            let read = match self.stream.read(&mut bytes) {
                Ok(0) => return Err(io::Error::other(format!("it closed after {after}"))),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(io::Error::other(format!(
                        "no answer to {after} within {} s",
                        PATIENCE.as_secs()
                    )));
                }
                result => result?,
            };
            let mut input = &bytes[..read];
            let fault = |fault: weir_smtp::reply::ReplyFault| {
                io::Error::other(format!("no SMTP reply after {after}: {}", fault.word()))
            };
            if let Some(reply) = self.reader.next(&mut input).map_err(fault)? {
                return Ok((reply.code, String::from_utf8_lossy(reply.text).into_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// A mail server that answers each line with the next of these; returns the points about it.
    fn visited(replies: &'static [&'static str]) -> Vec<Point> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for reply in replies {
                stream.write_all(reply.as_bytes()).unwrap();
                if lines.next().is_none_or(|line| line.is_err()) {
                    break;
                }
            }
        });
        let upstream = Upstream {
            host: "127.0.0.1".into(),
            port,
            weight: 1,
            max: None,
            tls: None,
        };
        let points = visit(&upstream, "mx.example");
        server.join().unwrap();
        points
    }

    const EHLO: &str = "250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n";

    #[test]
    fn a_server_that_relays_for_everybody_is_shouted_about() {
        let points = visited(&[
            "220-two\r\n220 lines\r\n",
            EHLO,
            "250 ok\r\n",
            "250 2.1.5 take it\r\n",
            "250 ok\r\n",
            "221 bye\r\n",
        ]);
        assert_eq!(
            points.iter().map(|point| point.level).collect::<Vec<_>>(),
            [Level::Good, Level::Warning]
        );
        assert!(
            points[1].what.contains("WOULD RELAY") && points[1].what.contains("250 2.1.5 take it"),
            "{points:?}"
        );
    }

    #[test]
    fn a_server_that_refuses_is_fine() {
        let points = visited(&[
            "220 x\r\n",
            EHLO,
            "250 ok\r\n",
            "554 5.7.1 Relay access denied\r\n",
            "250 ok\r\n",
            "221 bye\r\n",
        ]);
        assert_eq!(
            points.iter().map(|point| point.level).collect::<Vec<_>>(),
            [Level::Good],
            "{points:?}"
        );
    }

    #[test]
    fn a_server_that_does_not_answer_is_told() {
        let points = visited(&["554 go away\r\n"]);
        assert!(
            points[0].level == Level::Failure && points[0].what.contains("554 go away"),
            "{points:?}"
        );
        let points = visited(&["220 x\r\n", "garbage\r\n"]);
        assert!(
            points[0].what.contains("no SMTP reply after EHLO"),
            "{points:?}"
        );
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let upstream = Upstream {
            host: "127.0.0.1".into(),
            port: closed,
            weight: 1,
            max: None,
            tls: None,
        };
        assert_eq!(visit(&upstream, "x")[0].level, Level::Failure);
    }
}
