//! What an upstream is: a name and port as configured, and the addresses it stands for.
//!
//! Control resolves names and numbers the upstreams (the same number on all shards: global caps are counted by it);
//! each shard turns that plan into endpoints of its own, and keeps what it knows of an address
//! that is still there after a new plan.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

pub use weir_smtp::gate::RouteId;
pub use weir_smtp::relay::UpstreamId;

use crate::tls::UpstreamTls;

/// The largest weight: shares stay distinguishable in integers.
pub const WEIGHT_MAX: u16 = 1000;

/// One `--upstream HOST:PORT[,weight=N][,max=N]`.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Spec {
    /// A name or an IP address (IPv6 without its brackets).
    pub host: String,
    pub port: u16,
    /// Its share of the transactions, relative to the others; each of its addresses has it.
    pub weight: u16,
    /// Connections to it over all shards; None: `--pool-max`.
    pub max: Option<u32>,
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Spec, SpecError> {
        let mut parts = text.split(',').map(str::trim);
        let (host, port) = host_and_port(parts.next().unwrap_or_default())?;
        let mut spec = Spec {
            host: host.into(),
            port,
            weight: 1,
            max: None,
        };
        for part in parts {
            match part.split_once('=') {
                Some(("weight", value)) => match value.parse() {
                    Ok(weight @ 1..=WEIGHT_MAX) => spec.weight = weight,
                    _ => return Err(SpecError::Weight(value.into())),
                },
                Some(("max", value)) => match value.parse() {
                    Ok(max @ 1..) => spec.max = Some(max),
                    _ => return Err(SpecError::Max(value.into())),
                },
                _ => return Err(SpecError::Option(part.into())),
            }
        }
        Ok(spec)
    }
}

fn host_and_port(text: &str) -> Result<(&str, u16), SpecError> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| SpecError::NoPort(text.into()))?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(ip) if ip.parse::<Ipv6Addr>().is_ok() => ip,
        Some(ip) => return Err(SpecError::Host(ip.into())),
        None if host.contains(':') => return Err(SpecError::Brackets(text.into())),
        None => host,
    };
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || !host.chars().all(is_name) {
        return Err(SpecError::Host(host.into()));
    }
    match port.parse() {
        Ok(port @ 1..) => Ok((host, port)),
        _ => Err(SpecError::Port(port.into())),
    }
}

impl fmt::Display for Spec {
    /// The name for logs and metrics: without the options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Why `--upstream` could not be read.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum SpecError {
    NoPort(String),
    Port(String),
    Host(String),
    Brackets(String),
    Weight(String),
    Max(String),
    Option(String),
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpecError::NoPort(text) => write!(
                f,
                "\"{text}\" has no port; an upstream is HOST:PORT, as in mx1.example:25"
            ),
            SpecError::Port(text) => {
                write!(f, "\"{text}\" is no port; it is a number from 1 to 65535")
            }
            SpecError::Host(text) => write!(
                f,
                "\"{}\" is neither a host name nor an IP address",
                text.escape_debug()
            ),
            SpecError::Brackets(text) => write!(
                f,
                "\"{text}\": an IPv6 address is written in brackets, as in [2001:db8::1]:25"
            ),
            SpecError::Weight(text) => write!(
                f,
                "weight={text}: a weight is a number from 1 to {WEIGHT_MAX}"
            ),
            SpecError::Max(text) => write!(
                f,
                "max={text}: the most connections to an upstream is a number from 1 on"
            ),
            SpecError::Option(text) => write!(
                f,
                "\"{}\": options of an upstream are weight=N and max=N",
                text.escape_debug()
            ),
        }
    }
}

/// An upstream with its number and its addresses: what control tells the shards.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Planned {
    pub id: UpstreamId,
    /// The set it belongs to.
    pub route: RouteId,
    pub weight: u16,
    pub addresses: Vec<SocketAddr>,
    /// How it is spoken to; None: in plaintext.
    pub tls: Option<UpstreamTls>,
}

/// Gives upstreams their numbers: control's, one for the process. A name keeps its number over reloads.
#[derive(Default, Debug)]
pub struct Roster {
    names: Vec<String>,
}

impl Roster {
    /// How many different upstreams a process can have had in its life: sizes the table of global counts.
    pub const UPSTREAMS_MAX: usize = 1024;

    /// The number of an upstream; None when there have been too many.
    pub fn number(&mut self, spec: &Spec) -> Option<UpstreamId> {
        let name = spec.to_string();
        let known = self.names.iter().position(|known| *known == name);
        if known.is_none() && self.names.len() == Self::UPSTREAMS_MAX {
            return None;
        }
        let number = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        Some(UpstreamId(number as u16))
    }

    /// The name behind a number, for logs and metrics.
    pub fn name(&self, id: UpstreamId) -> Option<&str> {
        self.names.get(usize::from(id.0)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_and_errors_name_the_remedy() {
        let spec = |host: &str, port, weight, max| Spec {
            host: host.into(),
            port,
            weight,
            max,
        };
        let table = [
            ("mx1.example:25", Ok(spec("mx1.example", 25, 1, None))),
            (
                "192.0.2.1:2525,weight=10",
                Ok(spec("192.0.2.1", 2525, 10, None)),
            ),
            (
                "[2001:db8::1]:25, max=7, weight=2",
                Ok(spec("2001:db8::1", 25, 2, Some(7))),
            ),
            ("mx1.example", Err(SpecError::NoPort("mx1.example".into()))),
            ("mx1.example:0", Err(SpecError::Port("0".into()))),
            ("mx1.example:smtp", Err(SpecError::Port("smtp".into()))),
            (":25", Err(SpecError::Host("".into()))),
            ("a b:25", Err(SpecError::Host("a b".into()))),
            ("[mx1]:25", Err(SpecError::Host("mx1".into()))),
            (
                "2001:db8::1:25",
                Err(SpecError::Brackets("2001:db8::1:25".into())),
            ),
            ("a:25,weight=0", Err(SpecError::Weight("0".into()))),
            ("a:25,weight=1001", Err(SpecError::Weight("1001".into()))),
            ("a:25,max=0", Err(SpecError::Max("0".into()))),
            ("a:25,backup", Err(SpecError::Option("backup".into()))),
        ];
        for (text, want) in table {
            assert_eq!(text.parse::<Spec>(), want, "{text}");
        }
        assert_eq!(
            "[::1]:25,max=3".parse::<Spec>().unwrap().to_string(),
            "[::1]:25"
        );
    }

    #[test]
    fn a_name_keeps_its_number() {
        let mut roster = Roster::default();
        let spec = |text: &str| text.parse::<Spec>().unwrap();
        let first = roster.number(&spec("a:25"));
        let second = roster.number(&spec("b:25"));
        assert_ne!(first, second);
        assert_eq!(roster.number(&spec("a:25,weight=7")), first);
        assert_eq!(roster.name(second.unwrap()), Some("b:25"));
    }
}
