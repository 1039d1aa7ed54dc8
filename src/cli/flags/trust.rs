//! Peers that may speak for others.

use std::{sync::Arc, time::Duration};

use clap::Args;

use crate::cli::{
    reader::{Reader, Zero},
    units::Fault,
};
use crate::policy::access::{Network, Networks};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Clients behind proxies")]
pub struct Flags {
    /// Networks of proxies that may say whom they speak for (repeatable)
    ///
    /// By a PROXY header (v1 or v2) on listeners with ,proxy, and by XCLIENT on all. As in 192.0.2.7 or 2001:db8:1::/64; read at
    /// start. From then on the client that they name is the client: for limits, lists, --relay-from, the log, and what mail
    /// servers are told. Nobody else is believed: see --on forged-proxy and forged-xclient. A client named by XCLIENT stays with the
    /// shard of its connection: its limits hold per shard; those named by a PROXY header are exact. Where each client has an
    /// upstream connection of its own (--identity xclient and so on), the next client that XCLIENT names gets a new one.
    ///
    /// Range: any number of networks. Default: none. Cost: about 30 bytes per network.
    #[arg(long, value_name = "CIDR", value_delimiter = ' ')]
    pub trust: Vec<String>,

    /// How long a proxy may take for its PROXY header
    ///
    /// On listeners with ,proxy every connection from --trust has to begin with one; who has not sent it by then, or sends
    /// anything else, is dropped. Connections that only open and close (health checks) are counted, not logged.
    ///
    /// Range: 100ms to 1min. Cost: a socket and some 200 bytes per connection that waits.
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub proxy_timeout: String,
}

/// What was meant.
#[derive(Clone)]
pub struct Trusting {
    pub networks: Arc<Networks<()>>,
    /// What was typed, for the plan.
    pub typed: Vec<String>,
    pub proxy_timeout: Duration,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Trusting {
        let mut networks = Vec::new();
        let typed = self.trust.iter().filter(|typed| !typed.is_empty());
        for typed in typed.clone() {
            let network = reader.parse("--trust", typed, |typed| {
                typed.parse::<Network>().map_err(|error| {
                    Fault::new(
                        format!("{error}"),
                        "write the proxies' own addresses, as in 192.0.2.7",
                    )
                })
            });
            networks.extend(network);
        }
        Trusting {
            networks: Arc::new(networks.into_iter().collect()),
            typed: typed.cloned().collect(),
            proxy_timeout: reader.duration(
                "--proxy-timeout",
                &self.proxy_timeout,
                Duration::from_millis(100)..=Duration::from_secs(60),
                Zero::Plain,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::testing;

    fn read(args: &[&str]) -> Result<Trusting, Vec<crate::cli::reader::Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn nobody_is_trusted_by_default() {
        let meant = read(&[]).unwrap();
        assert!(!meant.networks.contains("127.0.0.1".parse().unwrap()));
        assert_eq!(meant.proxy_timeout, Duration::from_secs(5));
    }

    #[test]
    fn networks_add_up() {
        let args = [
            "--trust",
            "192.0.2.7",
            "--trust",
            "2001:db8:1::/64 10.0.0.0/8",
        ];
        let meant = read(&args).unwrap();
        for (ip, trusted) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::9", true),
            ("10.1.2.3", true),
        ] {
            assert_eq!(
                meant.networks.contains(ip.parse().unwrap()),
                trusted,
                "{ip}"
            );
        }
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--trust",
            "proxy.example",
            "--trust",
            "10.0.0.1/8",
            "--proxy-timeout",
            "0",
        ];
        assert_eq!(
            testing::blamed(read(&args)),
            ["--trust", "--trust", "--proxy-timeout"]
        );
    }
}
