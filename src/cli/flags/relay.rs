//! Who may send where: weir must never make an open relay of a server that trusts it.

use std::{fs, net::SocketAddr, os::unix::fs::FileTypeExt, sync::Arc};

use clap::Args;

use crate::cli::{flags::identity::Identifying, reader::Reader, units::Fault};
use crate::policy::{
    access::{self, Network, read_networks},
    relay::{Relay, RelayDomains},
};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Relaying")]
pub struct Flags {
    /// Domains that anybody may send to
    ///
    /// Names with commas between them; .example.com means all names below it; @FILE has one per line and is read again at
    /// SIGHUP; any lets everybody send anywhere: only right where the upstreams themselves decide by something else than weir's
    /// address. Recipients elsewhere get 550 5.7.1 (--on relay=ACTION).
    /// With an --identity that shows the client's own address (xclient, proxy-v1, proxy-v2, transparent) it may be left out: then
    /// the upstreams decide. A client that they have authenticated is theirs to decide about in any case.
    ///
    /// Range: a list, @FILE, any. Default: none (any, where upstreams see the client); then only --relay-from and loopback listeners accept mail. Cost: about 100 bytes
    /// per name.
    #[arg(long, value_name = "LIST|@FILE|any")]
    pub relay_domains: Option<String>,

    /// Networks whose clients may send anywhere (repeatable)
    ///
    /// As in 192.0.2.0/24 or 2001:db8::/32; @FILE has one per line and is read again at SIGHUP.
    ///
    /// Range: any number of networks. Default: none; loopback, if weir listens on nothing else and --relay-domains is not given.
    /// Cost: about 30 bytes per network.
    #[arg(long, value_name = "CIDR", value_delimiter = ' ')]
    pub relay_from: Vec<String>,
}

/// What was meant, besides [`Relay`] itself for the printed plan.
#[derive(Clone)]
pub struct Relaying {
    pub relay: Arc<Relay>,
    /// Nothing was asked for.
    pub unasked: Option<Unasked>,
}

/// Who may send where when no flag says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unasked {
    /// All listeners are on loopback: its clients may send anywhere.
    Loopback,
    /// The mail servers decide: what they see is the client's own address.
    Servers,
}

/// Whose address mail servers see, so whom they may take for somebody to relay for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    Client,
    Weir,
    /// weir's, and clients come from anywhere, whatever the listeners' own addresses are.
    WeirInPath,
}

impl From<&Identifying> for Seen {
    fn from(meant: &Identifying) -> Seen {
        match meant.intercept {
            _ if meant.identity.is_dedicated() => Seen::Client,
            Some(_) => Seen::WeirInPath,
            None => Seen::Weir,
        }
    }
}

impl Flags {
    pub fn read(&self, reader: &mut Reader, listen: &[SocketAddr], seen: Seen) -> Relaying {
        let mut relay = Relay::default();
        if let Some(typed) = &self.relay_domains {
            relay.domains = domains(reader, typed);
        }
        let mut from = Vec::new();
        for typed in self.relay_from.iter().filter(|typed| !typed.is_empty()) {
            networks(reader, typed, &mut from);
        }
        relay.own = listen
            .iter()
            .map(SocketAddr::ip)
            .filter(|ip| !ip.is_unspecified())
            .collect();
        let asked = self.relay_domains.is_some() || !self.relay_from.is_empty();
        if !asked && seen == Seen::Client {
            relay.domains = RelayDomains::Any;
            let unasked = Some(Unasked::Servers);
            let relay = Arc::new(relay);
            return Relaying { relay, unasked };
        }
        let beyond = listen
            .iter()
            .find(|address| seen == Seen::WeirInPath || !address.ip().to_canonical().is_loopback());
        if let (false, Some(beyond)) = (asked, beyond) {
            let fault = Fault::new(
                "is open to strangers, and nothing says who may send where: weir would make an open relay of a server that trusts it",
                "give --relay-domains (your domains, or any if the upstreams decide), --relay-from (your own clients) or an --identity that shows the client",
            );
            reader.wrong("--listen", beyond.to_string(), fault);
        }
        if !asked {
            for own in ["127.0.0.0/8", "::1"] {
                from.push(own.parse().expect("a network"));
            }
        }
        relay.from = from.into_iter().collect();
        Relaying {
            relay: Arc::new(relay),
            unasked: (!asked).then_some(Unasked::Loopback),
        }
    }
}

fn domains(reader: &mut Reader, typed: &str) -> RelayDomains {
    const FLAG: &str = "--relay-domains";
    const REMEDY: &str = "write names, as in example.com,.example.net, or @FILE, or any";
    let domains = match typed.strip_prefix('@') {
        Some(path) => {
            let Some(text) = read_file(reader, FLAG, path) else {
                return RelayDomains::default();
            };
            RelayDomains::parse_file(&text)
                .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())
        }
        None => RelayDomains::parse(typed)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect()),
    };
    match domains {
        Ok(RelayDomains::These(list)) if list.is_empty() => {
            reader.wrong(FLAG, typed, Fault::new("names no domain", REMEDY));
            RelayDomains::default()
        }
        Ok(domains) => domains,
        Err(errors) => {
            errors.into_iter().for_each(|error| {
                reader.wrong(
                    FLAG,
                    typed,
                    Fault::new(format!("has an error: {error}"), REMEDY),
                )
            });
            RelayDomains::default()
        }
    }
}

fn networks(reader: &mut Reader, typed: &str, into: &mut Vec<Network>) {
    const FLAG: &str = "--relay-from";
    const REMEDY: &str = "write networks, as in 192.0.2.0/24";
    match typed.strip_prefix('@') {
        Some(path) => {
            let Some(text) = read_file(reader, FLAG, path) else {
                return;
            };
            for error in read_networks(&text, |network| into.push(network)) {
                reader.wrong(
                    FLAG,
                    typed,
                    Fault::new(format!("has an error: {error}"), REMEDY),
                );
            }
        }
        None => {
            let network = |typed: &str| {
                typed
                    .parse::<Network>()
                    .map_err(|why| Fault::new(format!("is no network: {why}"), REMEDY))
            };
            let parsed = reader.parse(FLAG, typed, network);
            parsed.into_iter().for_each(|network| into.push(network));
        }
    }
}

/// A list file; None after an error.
pub fn read_file(reader: &mut Reader, flag: &str, path: &str) -> Option<String> {
    let fault = |error| {
        reader.wrong(
            flag,
            path,
            Fault::new(format!("cannot be read: {error}"), "name a readable file"),
        )
    };
    if is_endless(path) {
        let fault = Fault::new(
            "is a pipe: whoever reads it may wait for ever",
            "name a file",
        );
        reader.wrong(flag, path, fault);
        return None;
    }
    let octets = fs::read(path).map_err(fault).ok()?;
    let faulty = |error| {
        let fault = Fault::new(format!("has an error: {error}"), "write it as UTF-8 text");
        reader.wrong(flag, path, fault);
    };
    access::text(octets).map_err(faulty).ok()
}

/// A pipe that has a name: without a writer it cannot even be opened. What a shell hands over as /dev/fd/63 has one.
fn is_endless(path: &str) -> bool {
    let handed_over = path.starts_with("/dev/fd/") || path.starts_with("/proc/");
    !handed_over && fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str], listen: &str) -> Result<Relaying, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| {
            flags.read(reader, &[listen.parse().unwrap()], Seen::Weir)
        })
    }

    #[test]
    fn beyond_loopback_somebody_has_to_say_who_may_send_where() {
        for listen in ["0.0.0.0:25", "[::]:25", "192.0.2.1:25"] {
            let wrong = read(&[], listen).err().unwrap();
            assert!(
                wrong[0].flag == "--listen" && wrong[0].remedy.contains("--relay-domains"),
                "{listen}"
            );
        }
        for args in [
            ["--relay-domains", "example.com"],
            ["--relay-domains", "any"],
            ["--relay-from", "10.0.0.0/8"],
        ] {
            assert!(read(&args, "0.0.0.0:25").is_ok(), "{args:?}");
        }
    }

    #[test]
    fn on_loopback_local_clients_may_send() {
        let meant = read(&[], "127.0.0.1:2525").unwrap();
        assert!(
            meant.unasked == Some(Unasked::Loopback)
                && meant.relay.is_from("127.0.0.1".parse().unwrap())
        );
        assert!(!meant.relay.is_from("192.0.2.1".parse().unwrap()));
        let meant = read(&["--relay-domains", "example.com"], "127.0.0.1:2525").unwrap();
        assert!(
            meant.unasked.is_none() && !meant.relay.is_from("127.0.0.1".parse().unwrap()),
            "what was asked for is all there is"
        );
    }

    #[test]
    fn servers_that_see_the_client_decide_and_others_must_not() {
        let read = |args: &[&str], listen: &str, seen: Seen| {
            testing::read(args, |flags: &Flags, reader| {
                flags.read(reader, &[listen.parse().unwrap()], seen)
            })
        };
        let meant = read(&[], "0.0.0.0:25", Seen::Client).unwrap();
        assert_eq!(meant.unasked, Some(Unasked::Servers));
        assert!(matches!(meant.relay.domains, RelayDomains::Any));
        let asked = ["--relay-domains", "example.com"];
        let meant = read(&asked, "0.0.0.0:25", Seen::Client).unwrap();
        assert!(meant.unasked.is_none() && !meant.relay.domains.contains(b"other.example"));
        let wrong = read(&[], "127.0.0.1:2525", Seen::WeirInPath).err().unwrap();
        assert_eq!(
            wrong[0].flag, "--listen",
            "packet rules bring strangers there"
        );
    }

    #[test]
    fn lists_come_from_flags_and_files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "example.com\n.example.net # all of them").unwrap();
        let at = format!("@{}", file.path().display());
        let meant = read(
            &[
                "--relay-domains",
                &at,
                "--relay-from",
                "10.0.0.0/8 2001:db8::/32",
                "--relay-from",
                "192.0.2.7",
            ],
            "192.0.2.1:25",
        )
        .unwrap();
        assert!(
            meant.relay.domains.contains(b"a.example.net")
                && !meant.relay.domains.contains(b"other.example")
        );
        assert!(
            meant.relay.is_from("2001:db8::5".parse().unwrap())
                && meant.relay.is_from("192.0.2.7".parse().unwrap())
        );
        assert_eq!(
            meant.relay.own,
            ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]
        );
    }

    #[test]
    fn a_pipe_with_a_name_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let list = format!("@{}", path.display());
        let wrong = read(&["--relay-domains", &list], "192.0.2.1:25")
            .err()
            .unwrap();
        assert!(wrong[0].to_string().contains("is a pipe"), "{}", wrong[0]);
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--relay-domains",
            "ok.example,not a!domain,also/not",
            "--relay-from",
            "10.0.0.0/33 10.0.0.1/8",
            "--relay-from",
            "@/nonexistent",
        ];
        let expected = [
            "--relay-domains",
            "--relay-domains",
            "--relay-from",
            "--relay-from",
            "--relay-from",
        ];
        assert_eq!(testing::blamed(read(&args, "0.0.0.0:25")), expected);
        assert_eq!(
            testing::blamed(read(&["--relay-domains", ""], "0.0.0.0:25")),
            ["--relay-domains"]
        );
    }
}
