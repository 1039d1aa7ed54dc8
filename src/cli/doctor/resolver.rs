//! Whom weir asks for names: does it answer, and does it tell the truth about names that do not exist?
//!
//! A resolver that makes up addresses for those would have every list name every client. The question is put by weir's own
//! resolver, one server at a time, so what convinces here convinces there.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::Point;
use crate::cli::{flags::resolver::Resolving, units::show};
use crate::dns::{Act, Answer, Config, Failure, Kind, Name, Outcome, PortId, Question, Stub};
use crate::shard::{chance, clock::Clock};

/// Longer than any datagram that is asked for.
const DATAGRAM_MAX: usize = 4096;

/// Run for everybody, whom lists refuse or give wrong answers for all the questions that come from them.
const PUBLIC: &[&str] = &[
    "8.8.8.8",
    "8.8.4.4",
    "2001:4860:4860::8888",
    "2001:4860:4860::8844",
    "1.1.1.1",
    "1.0.0.1",
    "2606:4700:4700::1111",
    "2606:4700:4700::1001",
    "9.9.9.9",
    "149.112.112.112",
    "2620:fe::fe",
    "2620:fe::9",
    "208.67.222.222",
    "208.67.220.220",
    "2620:119:35::35",
    "2620:119:53::53",
];

/// One point per server, and one per server that lists will not serve. `lists`: whether any are asked.
pub fn points(resolving: &Resolving, lists: bool) -> Vec<Point> {
    let mut points = Vec::new();
    if let Some(fault) = resolving.resolvers.fault() {
        points.push(Point::warning(
            fault,
            "mend the file, or name servers with --resolver",
        ));
    }
    for server in resolving.resolvers.servers().iter() {
        let mut number = chance();
        let name = format!("weir-doctor-{:016x}.invalid", number());
        points.push(judge(
            *server,
            resolving.timeout,
            ask(*server, &name, resolving.timeout),
        ));
        if lists && is_public(server.ip()) {
            points.push(Point::warning(
                format!(
                    "resolver {server} is a public one: DNS lists do not answer it, or wrongly"
                ),
                "run a resolver of your own, as unbound on 127.0.0.1, and name it with --resolver",
            ));
        }
    }
    points
}

fn is_public(ip: IpAddr) -> bool {
    PUBLIC.iter().any(|public| public.parse() == Ok(ip))
}

fn judge(server: SocketAddr, timeout: Duration, answer: io::Result<Answer>) -> Point {
    let unreachable = "check the address, and that the server takes questions from this host";
    match answer.map(|answer| answer.outcome) {
        Ok(Outcome::NoName | Outcome::NoData) => Point::good(format!("resolver {server} answers")),
        Ok(Outcome::Records(_)) => Point::failure(
            format!("resolver {server} makes up answers for names that do not exist"),
            "switch that off there (NXDOMAIN rewriting), or name another with --resolver: every list would name every client",
        ),
        Ok(Outcome::Failed(Failure::Timeout)) => Point::warning(
            format!("resolver {server} does not answer within {}", show(timeout)),
            unreachable,
        ),
        Ok(Outcome::Failed(_)) => Point::warning(
            format!("resolver {server} refuses to answer"),
            "allow this host to ask it, and see whether it reaches the root servers",
        ),
        Err(error) => Point::warning(format!("resolver {server}: {error}"), unreachable),
    }
}

/// Asks that server for an address, and waits.
fn ask(server: SocketAddr, name: &str, timeout: Duration) -> io::Result<Answer> {
    let config = Config {
        servers: vec![server],
        timeout,
        patience: timeout,
        ..Config::default()
    };
    let question = Question {
        name: Name::parse(name.as_bytes()).map_err(io::Error::other)?,
        kind: Kind::A,
    };
    let clock = Clock::start();
    let now = || clock.now();
    let mut stub = Stub::new(config, chance());
    if let Some(answer) = stub.ask(&question, (), now()) {
        return Ok(answer);
    }
    let mut sockets: Vec<(PortId, UdpSocket)> = Vec::new();
    loop {
        while let Some(act) = stub.poll() {
            match act {
                Act::Answered { answer, .. } => return Ok(answer),
                Act::Open { port, server } => sockets.push((port, socket_to(server)?)),
                Act::Send { port, message } => {
                    for (_, socket) in sockets.iter().filter(|(id, _)| *id == port) {
                        socket.send(&message)?;
                    }
                }
                Act::Close { port } => sockets.retain(|(id, _)| *id != port),
                // Nothing that is asked here has a long answer.
                Act::Connect { stream, .. } => stub.stream_over(stream, now()),
                Act::SendStream { .. } | Act::CloseStream { .. } => {}
            }
        }
        let heard = sockets.first().map(|(port, socket)| (*port, hear(socket)));
        match heard {
            Some((port, Ok(datagram))) => stub.datagram(port, &datagram, now()),
            Some((_, Err(error))) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return Err(error);
            }
            // It is time to look at the clock.
            Some(_) | None => {}
        }
        if stub.deadline() <= now() {
            stub.timeout(now());
        }
    }
}

fn socket_to(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

fn hear(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut room = vec![0; DATAGRAM_MAX];
    let len = socket.recv(&mut room)?;
    room.truncate(len);
    Ok(room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;
    use crate::control::resolvers::Resolvers;

    /// A server that says this of every name: its code, and how many addresses.
    fn server(code: u8, addresses: u8) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("bound");
        std::thread::spawn(move || {
            let mut room = [0; 512];
            while let Ok((_, client)) = socket.recv_from(&mut room) {
                let name = 12 + room[12..].iter().position(|o| *o == 0).expect("a name") + 1;
                let mut reply = room[..name + 4].to_vec();
                reply[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, addresses, 0, 0, 0, 0]);
                for n in 0..addresses {
                    reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, n]);
                }
                socket.send_to(&reply, client).expect("sent");
            }
        });
        address
    }

    fn found(server: SocketAddr, lists: bool) -> Vec<(Level, String)> {
        let resolving = Resolving {
            resolvers: Resolvers::named(vec![server]),
            timeout: Duration::from_millis(300),
            cache: 16,
            ttl: Default::default(),
        };
        let points = points(&resolving, lists).into_iter();
        points.map(|point| (point.level, point.what)).collect()
    }

    #[test]
    fn who_tells_the_truth_is_good_and_who_makes_up_answers_is_not() {
        for (code, addresses, level, words) in [
            (3, 0, Level::Good, "answers"),
            (0, 0, Level::Good, "answers"),
            (0, 1, Level::Failure, "makes up"),
            (2, 0, Level::Warning, "refuses"),
            (5, 0, Level::Warning, "refuses"),
        ] {
            let found = found(server(code, addresses), true);
            assert!(
                found.len() == 1 && found[0].0 == level && found[0].1.contains(words),
                "{code} {addresses}: {found:?}"
            );
        }
    }

    #[test]
    fn who_is_silent_or_not_there_is_told_of() {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = silent.local_addr().expect("bound");
        let told = found(address, false);
        assert!(
            told[0].1.contains("does not answer within 300ms"),
            "{told:?}"
        );
        drop(silent);
        let told = found(address, false);
        assert!(
            told[0].0 == Level::Warning && told[0].1.contains("refused"),
            "{told:?}"
        );
    }

    #[test]
    fn public_resolvers_are_known() {
        assert!(PUBLIC.iter().all(|ip| ip.parse::<IpAddr>().is_ok()));
        assert!(is_public("9.9.9.9".parse().expect("an address")));
        assert!(!is_public("192.0.2.1".parse().expect("an address")));
    }
}
