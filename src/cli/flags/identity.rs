//! By what mail servers see whom weir speaks for, and connections that were meant for other hosts.

use clap::Args;

use crate::cli::{
    flags::Purpose,
    reader::{Reader, Zero},
    units::Fault,
};
use crate::net::Intercept;
use crate::route::{Identity, Starttls};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "Identity and interception")]
pub struct Flags {
    /// By what mail servers see whom weir speaks for
    ///
    /// none: they see weir. received: a Received field in front of each message. xforward: XFORWARD before each transaction,
    /// for their log only. xclient: XCLIENT, where the server offers it to weir; a server that does not is not used. proxy-v1
    /// and proxy-v2: a PROXY header in front of everything, which the server has to expect. transparent: connections
    /// come from the client's own address; replies must find their way back through this host (needs CAP_NET_ADMIN or
    /// CAP_NET_RAW).
    ///
    /// The last four give each client an upstream connection of its own: its whole dialogue is relayed command by command,
    /// AUTH included, and who may send where is the server's to decide unless --relay-domains or --relay-from is given.
    ///
    /// Where a client has its own there is no pool: --pool-age, --pool-uses, --pool-idle, --pool-share and --give-back mean nothing,
    /// and bodies by DATA are not held (--hold-size).
    ///
    /// Range: none, received, xforward, xclient, proxy-v1, proxy-v2, transparent. Cost: of the last four an upstream connection per client, for as long as it stays.
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub identity: String,

    /// Take connections that were meant for other hosts: tproxy or redirect
    ///
    /// All --listen addresses become intercepting ones, and each client's upstream is the host that it wanted to go to: there
    /// is no --upstream. tproxy: nftables or iptables TPROXY (needs CAP_NET_RAW or CAP_NET_ADMIN). redirect: REDIRECT or DNAT, on the same
    /// host. Together with --identity transparent neither side sees weir. With any other identity the destination sees weir's
    /// address, which it may trust more than the client's: then --relay-domains or --relay-from has to be given (any, if no
    /// destination does).
    ///
    /// Range: tproxy, redirect; nothing means tproxy. Default: off. Cost: an upstream connection per client.
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "tproxy")]
    pub transparent: Option<String>,

    /// What becomes of STARTTLS: tunnel, terminate or refuse
    ///
    /// For connections that are not shared by clients; elsewhere, and without this flag, --tls says it. tunnel: the client and its server talk TLS with each other, and weir moves bytes that it cannot read; limits of
    /// connections, byte rates and durations stay in force. What weir could refuse inside must not pass it unread: where
    /// --relay-domains or --relay-from decides, only clients that may send anywhere are let into one; where --deny-sender,
    /// --deny-recipient, --spamtraps or the names of senders refuse mail, only clients on --allow-list; where the score or
    /// greylisting do, only clients of which it is known that they pass. Others hear 454. terminate: weir answers with its own certificate
    /// (how it goes on to the server is said by --upstream-tls). refuse: 454, the
    /// keyword is still shown.
    ///
    /// Range: tunnel, terminate, refuse. Default: with --transparent tunnel; else as --tls says. Cost: of tunnel, what is in it
    /// is not checked.
    #[arg(long, value_name = "HOW")]
    pub transparent_starttls: Option<String>,

    /// Mark of weir's own upstream packets (SO_MARK), so that packet rules let them pass
    ///
    /// Without it a rule that intercepts what this host sends itself would give weir its own connections back (needs
    /// CAP_NET_RAW or CAP_NET_ADMIN).
    ///
    /// Range: 1 to 4294967295 (or 0x1 to 0xffffffff), or 0: no mark. Cost: none.
    #[arg(long, value_name = "N", default_value = "0")]
    pub transparent_mark: String,
}

/// What was meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Identifying {
    pub identity: Identity,
    pub intercept: Option<Intercept>,
    /// None: as the listener's TLS says.
    pub starttls: Option<Starttls>,
    /// 0: none.
    pub mark: u32,
}

impl Identifying {
    /// Each client has an upstream connection of its own.
    pub fn is_dedicated(&self) -> bool {
        self.identity.is_dedicated() || self.intercept.is_some()
    }

    /// What an interception goes by; elsewhere it may be left to the listener's TLS.
    fn settled(mut self) -> Identifying {
        if self.intercept.is_some() {
            self.starttls.get_or_insert(Starttls::Tunnel);
        }
        self
    }
}

impl Flags {
    pub fn read(&self, reader: &mut Reader, purpose: Purpose) -> Identifying {
        let meant = self.typed(reader).settled();
        let dedicated = meant.is_dedicated();
        if purpose == Purpose::Demo && dedicated {
            let flag = match meant.intercept {
                Some(_) => "--transparent",
                None => "--identity",
            };
            let remedy = "leave it out, or name a mail server with --upstream instead of --demo";
            reader.wrong(flag, "", Fault::new("is not for --demo", remedy));
        }
        if meant.intercept.is_some()
            && matches!(meant.identity, Identity::Received | Identity::Xforward)
        {
            let fault = Fault::new(
                "goes with a shared pool of connections, which --transparent has not",
                "write --identity transparent, or none",
            );
            reader.wrong("--identity", &self.identity, fault);
        }
        if let (false, Some(typed)) = (dedicated, &self.transparent_starttls) {
            let fault = Fault::new(
                "is for connections that are not shared by clients",
                "leave it out, or add --transparent or --identity proxy-v2 or another that is shown per connection",
            );
            reader.wrong("--transparent-starttls", typed, fault);
        }
        meant
    }

    fn typed(&self, reader: &mut Reader) -> Identifying {
        let identities = [
            ("none", Identity::None),
            ("received", Identity::Received),
            ("xforward", Identity::Xforward),
            ("xclient", Identity::Xclient),
            ("proxy-v1", Identity::ProxyV1),
            ("proxy-v2", Identity::ProxyV2),
            ("transparent", Identity::Transparent),
        ];
        let ways = [
            ("tproxy", Intercept::Tproxy),
            ("redirect", Intercept::Redirect),
        ];
        let starttls = [
            ("tunnel", Starttls::Tunnel),
            ("terminate", Starttls::Terminate),
            ("refuse", Starttls::Refuse),
        ];
        Identifying {
            identity: reader.choice("--identity", &self.identity, &identities),
            intercept: self
                .transparent
                .as_ref()
                .map(|typed| reader.choice("--transparent", typed, &ways)),
            starttls: self
                .transparent_starttls
                .as_ref()
                .map(|typed| reader.choice("--transparent-starttls", typed, &starttls)),
            mark: reader.count(
                "--transparent-mark",
                &decimal(&self.transparent_mark),
                1..=u32::MAX,
                Zero::Lifts,
            ),
        }
    }
}

/// Packet rules write marks as 0x25; what is not such a number stays as it is, for the reader to complain of.
fn decimal(typed: &str) -> String {
    let digits = typed
        .strip_prefix("0x")
        .or_else(|| typed.strip_prefix("0X"));
    let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    number.map_or_else(|| typed.into(), |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str], purpose: Purpose) -> Result<Identifying, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader, purpose))
    }

    fn relay(args: &[&str]) -> Result<Identifying, Vec<Wrong>> {
        read(args, Purpose::Relay)
    }

    #[test]
    fn by_default_servers_see_weir_and_connections_are_shared() {
        let meant = relay(&[]).unwrap();
        assert_eq!(meant, Identifying::default());
        assert!(!meant.is_dedicated());
        assert!(!relay(&["--identity", "xforward"]).unwrap().is_dedicated());
    }

    #[test]
    fn what_is_shown_per_connection_dedicates_connections() {
        for identity in ["xclient", "proxy-v1", "proxy-v2", "transparent"] {
            let meant = relay(&["--identity", identity]).unwrap();
            assert!(meant.is_dedicated(), "{identity}");
            assert_eq!(meant.starttls, None, "{identity}: as the listener says");
        }
        let meant = relay(&["--transparent", "tproxy", "--transparent-mark", "37"]).unwrap();
        assert!(meant.is_dedicated());
        assert_eq!((meant.starttls, meant.mark), (Some(Starttls::Tunnel), 37));
        let mark = |typed| relay(&["--transparent-mark", typed]).map(|meant| meant.mark);
        assert_eq!(mark("0x7702").unwrap(), 0x7702);
        for wrong in ["0x", "0x100000000", "7702h", "0x-1"] {
            assert_eq!(testing::blamed(mark(wrong)), ["--transparent-mark"]);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (args, blamed) in [
            (
                &["--transparent", "redirect", "--identity", "xforward"][..],
                "--identity",
            ),
            (
                &["--transparent-starttls", "refuse"],
                "--transparent-starttls",
            ),
        ] {
            assert_eq!(testing::blamed(relay(args)), [blamed], "{args:?}");
        }
        let demo = read(&["--identity", "proxy-v1"], Purpose::Demo);
        assert_eq!(testing::blamed(demo), ["--identity"]);
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let args = [
            "--identity",
            "me",
            "--transparent",
            "bridge",
            "--transparent-starttls",
            "strip",
            "--transparent-mark",
            "x",
        ];
        assert_eq!(
            testing::blamed(relay(&args)),
            [
                "--identity",
                "--transparent",
                "--transparent-starttls",
                "--transparent-mark"
            ]
        );
    }
}
