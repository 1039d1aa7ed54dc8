//! A visit to a mail server: does it answer, what does it offer, and would it relay for weir to a foreign domain?

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    sync::Arc,
    time::Duration,
};

use weir_smtp::{
    extension::{Capabilities, ExtensionSet, parse_ehlo_reply},
    reply::ReplyReader,
    xclient::Attributes,
};

use rustls::{ClientConnection, StreamOwned};

use super::{Level, Point};
use crate::cli::flags::upstreams::Upstream;
use crate::net::{ProxyVersion, Spoken, write_proxy};
use crate::route::Identity;
use crate::tls::{UpstreamMode, UpstreamTls, Version};

/// For the connection and for each reply.
const PATIENCE: Duration = Duration::from_secs(15);
const HANDSHAKE_FAILED: &str = "the TLS handshake failed";
/// Nobody here is responsible for it (RFC 2606), so who takes mail for it takes mail for everybody.
const FOREIGN: &str = "weir-relay-test@example.org";

/// One point per address of the server, spoken to as weir would. `tls`: None in plaintext.
pub fn visit(
    upstream: &Upstream,
    hostname: &str,
    tls: Option<&UpstreamTls>,
    identity: Identity,
) -> Vec<Point> {
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
        .flat_map(|address| {
            judge(
                &name,
                address,
                ask(address, hostname, tls, identity),
                identity,
            )
        })
        .collect()
}

/// What a server that expects a PROXY header hears first, on a connection that speaks for nobody but weir.
fn header(identity: Identity, own: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let spoken = Spoken {
        client: own,
        destination: to,
        tls: None,
        name: None,
    };
    let mut header = Vec::new();
    match identity {
        Identity::ProxyV1 => write_proxy(&mut header, ProxyVersion::Text, Some(&spoken)),
        Identity::ProxyV2 => write_proxy(&mut header, ProxyVersion::Binary, None),
        _ => {}
    }
    header
}

/// What a visit brought.
#[derive(Debug)]
struct Visit {
    /// The version of TLS; None: it was in plaintext.
    secured: Option<&'static str>,
    capabilities: Capabilities,
    /// The reply to RCPT with a foreign domain.
    foreign: (u16, String),
}

fn judge(
    name: &str,
    address: SocketAddr,
    visit: io::Result<Visit>,
    identity: Identity,
) -> Vec<Point> {
    let visit = match visit {
        Ok(visit) => visit,
        Err(error) => {
            let told = error.to_string();
            let remedy = match told.contains(HANDSHAKE_FAILED) {
                _ if told.contains("CertificateRequired") => {
                    "it wants to see a certificate: --upstream-cert and --upstream-key"
                }
                true => {
                    "openssl s_client -starttls smtp -connect HOST:PORT shows its certificate: is it for the name (,sni=NAME), and does it lead to --upstream-ca? One that a server made for itself has to stand there"
                }
                false => {
                    "is the mail server running, and does it accept connections from this host?"
                }
            };
            return vec![Point::failure(
                format!("upstream {name} at {address}: {error}"),
                remedy,
            )];
        }
    };
    let mut points = vec![Point::good(format!(
        "upstream {name} at {address} answers in {} and offers {}",
        visit.secured.unwrap_or("plaintext"),
        visit.capabilities.set
    ))];
    if !visit.capabilities.set.contains(ExtensionSet::PIPELINING) {
        points.push(Point::warning(
            format!("upstream {name} at {address} offers no PIPELINING"),
            "every message costs it more round trips",
        ));
    }
    let offered = visit.capabilities.xclient;
    if identity == Identity::Xclient && !offered.contains(Attributes::ADDR) {
        points.push(Point::failure(
            format!("upstream {name} at {address} offers no XCLIENT to this host, and is not used with --identity xclient"),
            "let this host use it (Postfix: smtpd_authorized_xclient_hosts)",
        ));
    }
    // A server that sees the clients decides about them, not about this host.
    if visit.foreign.0 / 100 == 2 && !identity.is_dedicated() {
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

fn ask(
    address: SocketAddr,
    hostname: &str,
    tls: Option<&UpstreamTls>,
    identity: Identity,
) -> io::Result<Visit> {
    let mut dialogue = Dialogue::connect(address, identity)?;
    if let Some(tls) = tls.filter(|tls| tls.implicit) {
        dialogue.secure(tls)?;
    }
    dialogue.expect("the connection", 2)?;
    let hello = format!("EHLO {hostname}");
    let mut ehlo = dialogue.command(&hello)?.1;
    if let Some(tls) = tls.filter(|tls| !tls.implicit) {
        let offered = parse_ehlo_reply(ehlo.as_bytes()).set;
        match (offered.contains(ExtensionSet::STARTTLS), tls.mode) {
            (true, _) => {
                dialogue.stream.write_all(b"STARTTLS\r\n")?;
                dialogue.expect("STARTTLS", 2)?;
                dialogue.secure(tls)?;
                ehlo = dialogue.command(&hello)?.1;
            }
            (false, UpstreamMode::May) => {}
            (false, UpstreamMode::Require | UpstreamMode::Verify) => {
                return Err(io::Error::other(
                    "it offers no STARTTLS, and is not used without",
                ));
            }
        }
    }
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
        secured: dialogue.stream.version(),
        capabilities,
        foreign: (foreign.0, first_line),
    })
}

/// The bytes of a visit.
enum Stream {
    Plain(TcpStream),
    Secured(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn version(&self) -> Option<&'static str> {
        let Stream::Secured(stream) = self else {
            return None;
        };
        let version = stream.conn.protocol_version()?;
        Some(Version::from(version).name())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Secured(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(bytes),
            Stream::Secured(stream) => stream.read(bytes),
        }
    }
}

struct Dialogue {
    stream: Stream,
    reader: ReplyReader,
}

impl Dialogue {
    fn connect(address: SocketAddr, identity: Identity) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.write_all(&header(identity, stream.local_addr()?, address))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: Stream::Plain(stream),
            reader: ReplyReader::new(),
        })
    }

    /// The handshake; nothing that was said before it is used after it.
    fn secure(&mut self, tls: &UpstreamTls) -> io::Result<()> {
        let Stream::Plain(stream) = &self.stream else {
            unreachable!("a visit asks for TLS once");
        };
        let mut stream = stream.try_clone()?;
        let told = |error: &dyn std::fmt::Display| {
            io::Error::other(format!("{HANDSHAKE_FAILED}: {error}"))
        };
        let mut connection = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
            .map_err(|error| told(&error))?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut stream)
                .map_err(|error| told(&error))?;
        }
        self.stream = Stream::Secured(Box::new(StreamOwned::new(connection, stream)));
        self.reader = ReplyReader::new();
        Ok(())
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
                // The ring that was tried before may have news, and a socket with a timeout is not read on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
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
    use crate::tls::{
        Material, Settings, UpstreamWish,
        fixtures::{Folder, ecdsa},
    };

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
        let points = visit(&upstream, "mx.example", None, Identity::None);
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

    /// A visit to one that speaks TLS, from the first byte or after STARTTLS.
    fn visited_in_tls(implicit: bool, mode: UpstreamMode, name: &str) -> Vec<Point> {
        let folder = Folder::fresh();
        let mut settings = Settings::default();
        let pair = folder.pair("mx", &ecdsa(&["mx.example"]));
        settings.upstream.authorities = Some(pair.certificate.clone());
        settings.server.pairs.push(pair);
        let material = Material::read(settings).unwrap();
        let server = material.server_tls().unwrap();
        let tls = material.upstream_tls(&UpstreamWish {
            mode,
            implicit,
            name: name.to_owned().try_into().unwrap(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if !implicit {
                for reply in ["220 x\r\n", "250-x\r\n250 STARTTLS\r\n", "220 go\r\n"] {
                    stream.write_all(reply.as_bytes()).unwrap();
                    if reply != "220 go\r\n" {
                        assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                    }
                }
            }
            let connection = rustls::ServerConnection::new(server.config).unwrap();
            let mut stream = StreamOwned::new(connection, stream);
            let greeting = implicit.then_some("220 x\r\n");
            for reply in greeting
                .into_iter()
                .chain([EHLO, "550 no\r\n", "221 bye\r\n"])
            {
                // without a greeting of its own the client speaks first
                if reply != "220 x\r\n" && stream.read(&mut [0; 512]).is_err() {
                    return;
                }
                if stream.write_all(reply.as_bytes()).is_err() {
                    return;
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
        let points = visit(&upstream, "weir.example", Some(&tls), Identity::None);
        serving.join().unwrap();
        points
    }

    #[test]
    fn a_server_that_expects_a_header_hears_one() {
        let (own, to) = ("192.0.2.1:4711".parse(), "192.0.2.25:25".parse());
        let (own, to) = (own.unwrap(), to.unwrap());
        let said = |identity| header(identity, own, to);
        assert_eq!(
            said(Identity::ProxyV1),
            b"PROXY TCP4 192.0.2.1 192.0.2.25 4711 25\r\n"
        );
        assert!(said(Identity::ProxyV2).starts_with(b"\r\n\r\n\0\r\nQUIT\n\x20"));
        assert!(said(Identity::None).is_empty() && said(Identity::Transparent).is_empty());
    }

    #[test]
    fn a_server_that_hides_xclient_is_of_no_use_to_who_needs_it() {
        let visit = || Visit {
            secured: None,
            capabilities: parse_ehlo_reply(b"250-mx\r\n250 PIPELINING\r\n"),
            foreign: (250, String::new()),
        };
        let worst = |identity| {
            let points = judge("mx", ([127, 0, 0, 1], 25).into(), Ok(visit()), identity);
            points.iter().map(|point| point.level).max()
        };
        assert_eq!(worst(Identity::Xclient), Some(Level::Failure));
        assert_eq!(worst(Identity::ProxyV2), Some(Level::Good));
        assert_eq!(worst(Identity::None), Some(Level::Warning));
    }

    #[test]
    fn servers_are_visited_in_tls() {
        for implicit in [true, false] {
            let points = visited_in_tls(implicit, UpstreamMode::Verify, "mx.example");
            assert!(
                points[0].level == Level::Good && points[0].what.contains("answers in TLSv1.3"),
                "{points:?}"
            );
            let points = visited_in_tls(implicit, UpstreamMode::Verify, "other.example");
            assert!(
                points[0].level == Level::Failure && points[0].what.contains("handshake failed"),
                "{points:?}"
            );
        }
        let points = visited_in_tls(true, UpstreamMode::Require, "other.example");
        assert_eq!(points[0].level, Level::Good, "{points:?}");
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
        assert_eq!(
            visit(&upstream, "x", None, Identity::None)[0].level,
            Level::Failure
        );
    }
}
