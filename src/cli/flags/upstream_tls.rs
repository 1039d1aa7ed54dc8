//! TLS with upstreams: how much of it, and who has to show what.

use std::path::PathBuf;

use clap::Args;
use rustls::pki_types::ServerName;

use crate::cli::{flags::tls::pairs, reader::Reader, units::Fault};
use crate::tls::{UpstreamMode, UpstreamSettings, UpstreamWish};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "TLS with upstreams")]
pub struct Flags {
    /// How upstreams are spoken to: off, may, require or verify
    ///
    /// off: in plaintext. may: STARTTLS where it is offered, plaintext where it is not; any certificate will do. require: no mail
    /// without TLS; any certificate will do, so it protects against eavesdroppers, not against somebody in between. verify: no mail
    /// without TLS and a certificate for the upstream's name that leads to --upstream-ca. A failed handshake or
    /// verification counts as a failed connection; there is no plaintext after it, except with may: the next connections to
    /// that address go without TLS for 10 minutes. With --transparent it is for the hosts that clients want to go to, with
    /// --transparent-starttls terminate or refuse; verify is not, since of those only the address is known. tls=HOW behind an --upstream overrides it there.
    ///
    /// Range: off, may, require, verify. Cost: a handshake per upstream connection, mostly a resumed one; low with a pool.
    #[arg(long, value_name = "HOW", default_value = "off")]
    pub upstream_tls: String,

    /// File with the CA certificates that verified upstreams have to come from, PEM
    ///
    /// A server's own certificate may stand here too: it is taken as it is, for its names and until its end. Read again when it
    /// changes and at SIGHUP, the system's at SIGHUP.
    ///
    /// Range: a readable file. Default: the system's. Cost: none.
    #[arg(long, value_name = "FILE")]
    pub upstream_ca: Option<PathBuf>,

    /// File with a certificate and its chain that is shown to upstreams that ask for one, PEM
    ///
    /// Read again when it changes and at SIGHUP.
    ///
    /// Range: a readable file, with --upstream-key. Default: none. Cost: a larger handshake.
    #[arg(long, value_name = "FILE")]
    pub upstream_cert: Option<PathBuf>,

    /// File with the private key of --upstream-cert, PEM
    ///
    /// Range: a readable file, with --upstream-cert. Default: none. Cost: none.
    #[arg(long, value_name = "FILE")]
    pub upstream_key: Option<PathBuf>,
}

/// None: in plaintext.
pub type Mode = Option<UpstreamMode>;

const WORDS: [(&str, Mode); 4] = [
    ("off", None),
    ("may", Some(UpstreamMode::May)),
    ("require", Some(UpstreamMode::Require)),
    ("verify", Some(UpstreamMode::Verify)),
];

impl Flags {
    /// What holds for upstreams that say nothing of their own.
    pub fn mode(&self, reader: &mut Reader) -> Mode {
        reader.choice("--upstream-tls", &self.upstream_tls, &WORDS)
    }

    /// `verifies`: whether any upstream is verified; `hybrid`: `--tls-hybrid`.
    pub fn read(&self, reader: &mut Reader, verifies: bool, hybrid: bool) -> UpstreamSettings {
        let certificate = self.upstream_cert.as_slice();
        let key = self.upstream_key.as_slice();
        let pairs = pairs(
            reader,
            ("--upstream-cert", certificate),
            ("--upstream-key", key),
        );
        UpstreamSettings {
            verifies,
            authorities: self.upstream_ca.clone(),
            pair: pairs.into_iter().next(),
            hybrid,
        }
    }
}

/// What stands behind the address of an upstream: `,tls=HOW`, `,implicit-tls`, `,sni=NAME`.
#[derive(Clone, Debug, Default)]
pub struct Options {
    mode: Option<Mode>,
    implicit: bool,
    name: Option<ServerName<'static>>,
}

impl Options {
    /// Takes one that is about TLS; false: it is about something else, or makes no sense.
    pub fn take(&mut self, key: &str, value: Option<&str>) -> bool {
        match (key, value) {
            ("implicit-tls", None) => self.implicit = true,
            ("tls", Some(word)) => {
                let found = WORDS.iter().find(|(known, _)| *known == word);
                self.mode = found.map(|(_, mode)| *mode);
                return found.is_some();
            }
            ("sni", Some(name)) => {
                self.name = ServerName::try_from(name.to_owned()).ok();
                return self.name.is_some();
            }
            _ => return false,
        }
        true
    }

    /// How the upstream is to be spoken to.
    pub fn wish(self, host: &str, general: Mode) -> Result<Option<UpstreamWish>, Fault> {
        // TLS from the first byte is wished for, whatever the rest of the upstreams does.
        let usual = match (general, self.implicit) {
            (None | Some(UpstreamMode::May), true) => Some(UpstreamMode::Require),
            _ => general,
        };
        let mode = match (self.mode.unwrap_or(usual), self.implicit) {
            (Some(mode), _) => mode,
            (None, true) => {
                let fault = "has both ,tls=off and ,implicit-tls";
                return Err(Fault::new(fault, "leave one of them out"));
            }
            (None, false) => return Ok(None),
        };
        let own = || {
            ServerName::try_from(host.to_owned()).map_err(|_| {
                let why = format!("has a name that no certificate can have, {host:?}");
                Fault::new(why, "tell the name by ,sni=NAME")
            })
        };
        Ok(Some(UpstreamWish {
            mode,
            implicit: self.implicit,
            name: self.name.map_or_else(own, Ok)?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<(Mode, UpstreamSettings), Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| {
            (flags.mode(reader), flags.read(reader, false, false))
        })
    }

    #[test]
    fn defaults_and_modes() {
        let (mode, settings) = read(&[]).unwrap();
        assert_eq!((mode, settings), (None, UpstreamSettings::default()));
        for (word, want) in WORDS {
            assert_eq!(read(&["--upstream-tls", word]).unwrap().0, want);
        }
        assert_eq!(
            testing::blamed(read(&["--upstream-tls", "yes"])),
            ["--upstream-tls"]
        );
    }

    #[test]
    fn certificate_and_key_come_together() {
        let args = ["--upstream-cert", "a.crt", "--upstream-key", "a.key"];
        assert!(read(&args).unwrap().1.pair.is_some());
        assert_eq!(testing::blamed(read(&args[..2])), ["--upstream-cert"]);
        assert_eq!(testing::blamed(read(&args[2..])), ["--upstream-key"]);
    }

    #[test]
    fn options_overrule_the_general_flag() {
        use UpstreamMode::*;
        let wish = |parts: &[(&str, Option<&str>)], general: Mode| {
            let mut options = Options::default();
            for (key, value) in parts {
                assert!(options.take(key, *value), "{key}");
            }
            options.wish("mx.example", general).ok().unwrap()
        };
        let mode = |parts, general| wish(parts, general).map(|wish| (wish.mode, wish.implicit));
        let implicit: &[(&str, Option<&str>)] = &[("implicit-tls", None)];
        for (parts, general, want) in [
            (&[][..], None, None),
            (&[], Some(May), Some((May, false))),
            (&[("tls", Some("verify"))], None, Some((Verify, false))),
            (&[("tls", Some("off"))], Some(Verify), None),
            (implicit, None, Some((Require, true))),
            (implicit, Some(Verify), Some((Verify, true))),
        ] {
            assert_eq!(mode(parts, general), want, "{parts:?} {general:?}");
        }
        let name = wish(&[("sni", Some("other.example"))], Some(Verify))
            .unwrap()
            .name;
        assert_eq!(name, ServerName::try_from("other.example").unwrap());
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for (key, value) in [
            ("tls", Some("perhaps")),
            ("tls", None),
            ("sni", Some("a..b")),
            ("implicit-tls", Some("yes")),
            ("weight", Some("3")),
        ] {
            assert!(!Options::default().take(key, value), "{key} {value:?}");
        }
        let mut options = Options::default();
        assert!(options.take("tls", Some("off")) && options.take("implicit-tls", None));
        assert!(options.wish("mx.example", None).is_err());
        assert!(
            Options::default()
                .wish("a..b", Some(UpstreamMode::May))
                .is_err()
        );
        assert!(Options::default().wish("a..b", None).is_ok());
    }
}
