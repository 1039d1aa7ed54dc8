//! Who is asked for names by the shards: servers that were named, or those of resolv.conf, which is looked at again.
//!
//! DHCP clients and VPNs rewrite that file at any time. It is read every few seconds, which is cheaper than to reason about
//! times and inodes; only another list of servers makes news. A file that cannot be read, or names none, leaves what was known.
//! Upstreams' names are not looked up here: they go the way of every program, by the C library.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use resolv_conf::ScopedIp;

use crate::dns::SERVERS_MAX;

/// Where servers are found when none are named.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of DNS.
pub const PORT: u16 = 53;

/// Where a file without any server sends its reader: resolv.conf(5).
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolvers {
    servers: Arc<[SocketAddr]>,
    /// None: they were named, and stay.
    file: Option<PathBuf>,
    /// Why the file was of no use when it was last looked at.
    fault: Option<String>,
}

impl Resolvers {
    pub fn named(servers: Vec<SocketAddr>) -> Resolvers {
        Resolvers {
            servers: servers.into(),
            file: None,
            fault: None,
        }
    }

    /// Those of a file. Without one, or with one that names none, the server of this host is asked.
    pub fn of(file: PathBuf) -> Resolvers {
        let mut resolvers = Resolvers {
            servers: [LOCAL].into(),
            file: Some(file),
            fault: None,
        };
        resolvers.look();
        resolvers
    }

    pub fn servers(&self) -> Arc<[SocketAddr]> {
        self.servers.clone()
    }

    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What is wrong with the file.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Reads the file again. True: there are other servers now.
    pub fn look(&mut self) -> bool {
        let Some(file) = &self.file else {
            return false;
        };
        match read(file) {
            Ok(servers) => {
                self.fault = None;
                let changed = *self.servers != *servers;
                self.servers = servers.into();
                changed
            }
            Err(fault) => {
                let fault = format!("{}: {fault}", file.display());
                if self.fault.as_ref() != Some(&fault) {
                    log::warn!("{fault}; names are asked of {}", self.words());
                }
                self.fault = Some(fault);
                false
            }
        }
    }

    /// For the plan and the log.
    pub fn words(&self) -> String {
        let shown: Vec<String> = self.servers.iter().map(ToString::to_string).collect();
        shown.join(", ")
    }
}

fn read(file: &Path) -> Result<Vec<SocketAddr>, String> {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let servers = servers(&text);
    match servers.is_empty() {
        true => Err("no nameserver that could be asked".into()),
        false => Ok(servers),
    }
}

/// What a resolv.conf names. Lines that nobody understands are passed over, as everywhere.
fn servers(text: &[u8]) -> Vec<SocketAddr> {
    let (config, _) = resolv_conf::Config::parse_with_errors(text);
    let mut servers: Vec<SocketAddr> = Vec::new();
    for server in config.nameservers.iter().filter_map(address) {
        if !servers.contains(&server) && servers.len() < SERVERS_MAX {
            servers.push(server);
        }
    }
    servers
}

/// None: a link-local address on an interface that is named and not numbered, which takes the C library to find.
fn address(server: &ScopedIp) -> Option<SocketAddr> {
    match server {
        ScopedIp::V4(ip) => Some(SocketAddr::new((*ip).into(), PORT)),
        ScopedIp::V6(ip, None) => Some(SocketAddr::new((*ip).into(), PORT)),
        ScopedIp::V6(ip, Some(scope)) => {
            let scope = scope.parse().ok()?;
            Some(SocketAddrV6::new(*ip, PORT, 0, scope).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Resolvers::named(servers(text.as_bytes())).words()
    }

    #[test]
    fn servers_are_found_among_whatever_else_a_file_says() {
        let table = [
            ("nameserver 192.0.2.1\n", "192.0.2.1:53"),
            (
                "# of DHCP\nsearch example.com\nnameserver 2001:db8::53\noptions timeout:1 frob\nfrobnicate yes\nnameserver 192.0.2.1",
                "[2001:db8::53]:53, 192.0.2.1:53",
            ),
            (
                "nameserver fe80::1%2\nnameserver fe80::1%eth0\n",
                "[fe80::1%2]:53",
            ),
            (
                "nameserver 192.0.2.1\nnameserver 192.0.2.1\n",
                "192.0.2.1:53",
            ),
            ("nameserver nowhere\nnameserver 192.0.2.2\n", "192.0.2.2:53"),
            ("search example.com\n", ""),
            ("\u{0}\u{1f}nameserver\n\n nameserver", ""),
        ];
        for (text, want) in table {
            assert_eq!(shown(text), want, "{text:?}");
        }
        let many: String = (1..100)
            .map(|n| format!("nameserver 192.0.2.{n}\n"))
            .collect();
        assert_eq!(servers(many.as_bytes()).len(), SERVERS_MAX);
    }

    #[test]
    fn a_changed_file_makes_news_and_a_broken_one_does_not() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("resolv.conf");
        let mut resolvers = Resolvers::of(file.clone());
        assert_eq!(resolvers.words(), "127.0.0.1:53", "there is no file");
        assert!(resolvers.fault().is_some() && !resolvers.look());
        fs::write(&file, "nameserver 192.0.2.1\n").expect("written");
        assert!(resolvers.look() && !resolvers.look());
        assert_eq!(
            (resolvers.words().as_str(), resolvers.fault()),
            ("192.0.2.1:53", None)
        );
        fs::write(&file, "search example.com\nnameserver 192.0.2.1\n").expect("written");
        assert!(!resolvers.look(), "the servers are the same");
        fs::write(&file, "").expect("written");
        assert!(!resolvers.look() && resolvers.fault().is_some());
        assert_eq!(resolvers.words(), "192.0.2.1:53");
        fs::write(&file, "nameserver 192.0.2.2\n").expect("written");
        assert!(resolvers.look());
        assert_eq!(
            *resolvers.servers(),
            ["192.0.2.2:53".parse().expect("an address")]
        );
    }

    #[test]
    fn named_servers_stay() {
        let mut resolvers = Resolvers::named(vec![LOCAL]);
        assert!(!resolvers.look() && resolvers.file().is_none());
    }
}
