//! The admin address and the demo.

use std::net::SocketAddr;

use clap::{Args, builder::BoolishValueParser};

use crate::cli::{flags::listener, reader::Reader};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Running")]
pub struct Flags {
    /// Address and port of the admin page
    ///
    /// /metrics for Prometheus, /healthz, /readyz, and /status as JSON. No authentication: keep it on loopback or a management
    /// network.
    ///
    /// Range: one address. Default: none, no page (with --demo 127.0.0.1:9025). Cost: up to 16 connections at a time.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<String>,

    /// Try weir out: an embedded mail sink as upstream
    ///
    /// Listens on 127.0.0.1:2525 with the admin page on 127.0.0.1:9025 unless told otherwise, and prints what to try and what
    /// arrived. Nothing leaves the machine.
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub demo: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Running {
    pub admin: Option<SocketAddr>,
    pub demo: bool,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Running {
        let admin = self
            .admin
            .as_ref()
            .and_then(|typed| reader.parse("--admin", typed, listener::address));
        let by_default = self.demo.then(|| SocketAddr::from(([127, 0, 0, 1], 9025)));
        Running {
            admin: admin.or(by_default),
            demo: self.demo,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Running, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn defaults() {
        let meant = read(&[]).unwrap();
        assert_eq!((meant.admin, meant.demo), (None, false));
    }

    #[test]
    fn the_demo_has_an_admin_page() {
        assert_eq!(
            read(&["--demo"]).unwrap().admin,
            Some("127.0.0.1:9025".parse().unwrap())
        );
        assert_eq!(
            read(&["--demo", "--admin", "[::1]:9000"]).unwrap().admin,
            Some("[::1]:9000".parse().unwrap())
        );
    }

    #[test]
    fn an_admin_address_needs_a_port() {
        assert_eq!(testing::blamed(read(&["--admin", "9025"])), ["--admin"]);
    }
}
