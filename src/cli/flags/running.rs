//! The admin address, the user weir runs as, and the demo.

use std::net::SocketAddr;

use clap::{Args, builder::BoolishValueParser};

use crate::cli::{flags::listener, reader::Reader, units::Fault};
use crate::rt::{self, Account};

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

    /// User to run as, once ports are open
    ///
    /// Started as root, weir opens its ports and becomes this user, with its groups and without capabilities, but for
    /// CAP_NET_RAW with --identity transparent or --transparent-mark, and CAP_IPC_LOCK where the limit of locked memory
    /// may not suffice for the rings (below 64 MiB) and cannot be raised. What is read and written from then on, it reads and writes as
    /// this user: lists and certificates when they are read again, the log file. What it could not read is told at start.
    ///
    /// Range: a user of this host, not root. Default: whoever starts weir. Cost: none.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// Whether weir gives up what it does not need: yes or no
    ///
    /// yes: once ports are open it drops capabilities, nothing it could execute gives them back (no_new_privs), and only
    /// those files can be opened that it needs, which weir check names (Landlock, Linux 5.13). What the kernel does not
    /// offer is told in the log.
    ///
    /// Range: yes, no. Cost: none that can be measured.
    #[arg(long, value_name = "HOW", default_value = "yes")]
    pub sandbox: String,

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
    /// None: whoever starts weir.
    pub user: Option<Account>,
    /// Whether everything is given up that is not needed.
    pub fenced: bool,
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
            user: self
                .user
                .as_ref()
                .and_then(|typed| reader.parse("--user", typed, user)),
            fenced: reader.choice("--sandbox", &self.sandbox, &[("yes", true), ("no", false)]),
            demo: self.demo,
        }
    }
}

fn user(typed: &str) -> Result<Account, Fault> {
    let unknown = || Fault::new("is no user of this host", "name one of getent passwd");
    match rt::account(typed) {
        Ok(Some(account)) if account.uid == 0 => Err(Fault::new(
            "is root",
            "name a user without privileges, as in nobody",
        )),
        Ok(account) => account.ok_or_else(unknown),
        Err(error) => Err(Fault::new(
            format!("cannot be looked up: {error}"),
            "see the passwd line of /etc/nsswitch.conf",
        )),
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
        assert_eq!((meant.user, meant.fenced), (None, true));
    }

    #[test]
    fn a_user_of_this_host_who_is_not_root() {
        let meant = read(&["--user", "nobody", "--sandbox", "no"]).unwrap();
        assert!(meant.user.is_some_and(|user| user.uid != 0) && !meant.fenced);
        for user in ["root", "no such user", ""] {
            assert_eq!(
                testing::blamed(read(&["--user", user])),
                ["--user"],
                "{user}"
            );
        }
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
