//! TLS with clients: certificates, and who gets and needs it.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::cli::{
    flags::clients::rate,
    reader::{Reader, Zero},
    units::Fault,
};
use crate::net::ClientTls;
use crate::policy::rate::Rate;
use crate::tls::{ClientCertificates, Oldest, Pair, ServerSettings};

#[derive(Args, Clone, Debug)]
#[group(skip)]
#[command(next_help_heading = "TLS with clients")]
pub struct Flags {
    /// What --listen addresses do about STARTTLS: off, may or require
    ///
    /// off: it is not offered. may: offered, mail is taken without it. require: no mail without it (530 5.7.0); wrong for the MX of a
    /// public domain, whose mail has to be taken from everybody (RFC 3207, 4). An option behind an address overrides it there.
    ///
    /// Range: off, may, require. Default: may if there is a certificate, else off. Cost: a handshake per connection, about 75
    /// microseconds with an ECDSA certificate, 330 with an RSA one; and about 4 KiB per connection.
    #[arg(long, value_name = "HOW")]
    pub tls: Option<String>,

    /// File with a certificate and its chain, PEM (repeatable, each with its --tls-key)
    ///
    /// The names in its subjectAltName decide who is shown it (SNI): the exact name, else a wildcard of one label, else the first
    /// certificate of all. Two for the same name, ECDSA and RSA, serve side by side, ECDSA where the client can check it.
    /// Files are looked at every 5s and read again when they change, and at SIGHUP; connections
    /// from then on see the new ones. If any file cannot be used (damaged, key of another certificate, expired) all stays
    /// as it was, and the log and weir_tls_reload_failing say so. A certificate that expires in its place stays in use: most mail
    /// servers never look, and a restart must not fail for it. weir warns from 14 days before.
    ///
    /// Range: readable files, for --user too. Default: none. Cost: about 10 KiB each.
    #[arg(long, value_name = "FILE", value_delimiter = ' ')]
    pub tls_cert: Vec<PathBuf>,

    /// File with the private key of the --tls-cert at the same place, PEM (repeatable)
    ///
    /// PKCS#8, PKCS#1 or SEC1, not encrypted; may be the same file.
    ///
    /// Range: as many as --tls-cert. Default: none. Cost: none.
    #[arg(long, value_name = "FILE", value_delimiter = ' ')]
    pub tls_key: Vec<PathBuf>,

    /// Folder of more certificates
    ///
    /// NAME.crt with NAME.key, or NAME.pem with both inside; other files do not count. They come after those of --tls-cert, by
    /// file name. Files that are added, changed or taken away are noticed as with --tls-cert.
    ///
    /// Range: a folder with at most 1000 certificates. Default: none. Cost: about 10 KiB per certificate.
    #[arg(long, value_name = "DIR")]
    pub tls_dir: Option<PathBuf>,

    /// Oldest version of TLS that clients may speak: 1.2 or 1.3
    ///
    /// Many mail servers still speak nothing newer than 1.2; without TLS in common they send in plaintext.
    ///
    /// Range: 1.2, 1.3. Cost: none.
    #[arg(long, value_name = "VERSION", default_value = "1.2")]
    pub tls_min: String,

    /// Whether the hybrid key exchange X25519MLKEM768 is spoken: yes or no
    ///
    /// What is recorded today stays secret from a quantum computer later. With clients that offer it first, and with upstreams.
    ///
    /// Range: yes, no. Cost: about 60 microseconds and 2.3 KiB on the wire per handshake that uses it.
    #[arg(long, value_name = "YES|NO", default_value = "no")]
    pub tls_hybrid: String,

    /// Whether clients are asked for certificates: off, ask or require
    ///
    /// ask: a client without one, or with one of another CA, is let in all the same, unless weir cannot read it
    /// (X.509 version 1). require: its handshake fails; only for
    /// listeners whose clients are all known.
    ///
    /// Range: off, ask, require. Cost: a larger handshake, and larger tickets.
    #[arg(long, value_name = "HOW", default_value = "off")]
    pub tls_client_certs: String,

    /// File with the CA certificates that clients' certificates have to come from, PEM
    ///
    /// Read again as --tls-cert. Sessions made before it changed are not resumed.
    ///
    /// Range: a readable file. Default: none; needed with --tls-client-certs ask and require. Cost: none.
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<PathBuf>,

    /// File with the keys that session tickets are sealed with, to share sessions among hosts
    ///
    /// Each line is a key of 64 hexadecimal digits (openssl rand -hex 32), the oldest first. The last but one seals, all of them
    /// open: to move on, add one below and take the first away, on all hosts, in any order, at least daily. Whoever reads this
    /// file can read recorded sessions of TLS 1.2 and resume others: keep it as you keep the keys. Read again as --tls-cert.
    ///
    /// Range: 1 to 16 keys. Default: keys of this process alone, that change every 12 hours. Cost: none.
    #[arg(long, value_name = "FILE")]
    pub tls_tickets_file: Option<PathBuf>,

    /// Longest handshake with a client
    ///
    /// Range: 1s to 5m. Cost: half-open handshakes pile up, when long.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub tls_handshake_timeout: String,

    /// TLS handshakes of one client address, as a rate
    ///
    /// N at once, then one each UNIT/N. Beyond it STARTTLS is answered with 454 4.7.0, and connections to --listen-tls are closed.
    /// Resumed sessions count too: the client chooses whether it resumes.
    ///
    /// Range: N/UNIT, as in 60/m; 0: no limit. Cost: a busy client may fall back to plaintext or come later.
    #[arg(long, value_name = "N/UNIT", default_value = "0")]
    pub rate_handshakes: String,

    /// Parked clients that may keep their TLS session, over all shards
    ///
    /// One more is closed instead of parked.
    ///
    /// Range: 1 to 10000000, or 0: no limit but --pit-max. Cost: about 4 KiB each.
    #[arg(long, value_name = "N", default_value = "10000")]
    pub tls_parked_max: String,
}

/// What was meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tls {
    /// What listeners do that say nothing of their own.
    pub clients: ClientTls,
    pub server: ServerSettings,
    pub handshake_timeout: Duration,
    pub rate_handshakes: Rate,
    /// 0: no limit.
    pub parked_max: u32,
}

impl Flags {
    pub fn read(&self, reader: &mut Reader) -> Tls {
        let server = ServerSettings {
            pairs: pairs(
                reader,
                ("--tls-cert", &self.tls_cert),
                ("--tls-key", &self.tls_key),
            ),
            folder: self.tls_dir.clone(),
            min: reader.choice(
                "--tls-min",
                &self.tls_min,
                &[("1.2", Oldest::Tls12), ("1.3", Oldest::Tls13)],
            ),
            hybrid: self.hybrid(reader),
            clients: self.client_certificates(reader),
            tickets: self.tls_tickets_file.clone(),
        };
        if !server.has_certificate() {
            let typed = [
                ("--tls-tickets-file", &self.tls_tickets_file),
                ("--tls-client-ca", &self.tls_client_ca),
            ];
            for (flag, path) in typed {
                let shown = path.iter().map(|path| path.display().to_string());
                shown.for_each(|shown| reader.wrong(flag, shown, needs_certificate()));
            }
        }
        let minute = Duration::from_secs(60);
        Tls {
            clients: self.clients(reader, server.has_certificate()),
            server,
            handshake_timeout: reader.duration(
                "--tls-handshake-timeout",
                &self.tls_handshake_timeout,
                Duration::from_secs(1)..=5 * minute,
                Zero::Plain,
            ),
            rate_handshakes: rate(reader, "--rate-handshakes", &self.rate_handshakes),
            parked_max: reader.count(
                "--tls-parked-max",
                &self.tls_parked_max,
                1..=10_000_000,
                Zero::Lifts,
            ),
        }
    }

    fn clients(&self, reader: &mut Reader, has_certificate: bool) -> ClientTls {
        let Some(typed) = &self.tls else {
            return match has_certificate {
                true => ClientTls::May,
                false => ClientTls::Off,
            };
        };
        let words = [
            ("off", ClientTls::Off),
            ("may", ClientTls::May),
            ("require", ClientTls::Require),
        ];
        let clients = reader.choice("--tls", typed, &words);
        if clients != ClientTls::Off && !has_certificate {
            reader.wrong("--tls", typed, needs_certificate());
        }
        clients
    }

    fn has_certificate(&self) -> bool {
        !self.tls_cert.is_empty() || self.tls_dir.is_some()
    }

    /// Also what the upstreams' side goes by.
    pub fn hybrid(&self, reader: &mut Reader) -> bool {
        let words = [("yes", true), ("no", false)];
        reader.choice("--tls-hybrid", &self.tls_hybrid, &words)
    }

    fn client_certificates(&self, reader: &mut Reader) -> ClientCertificates {
        const FLAG: &str = "--tls-client-certs";
        let typed = &self.tls_client_certs;
        let words = [
            ("off", None),
            ("ask", Some(ClientCertificates::Ask as fn(PathBuf) -> _)),
            ("require", Some(ClientCertificates::Require)),
        ];
        match (reader.choice(FLAG, typed, &words), &self.tls_client_ca) {
            (Some(how), Some(authorities)) => how(authorities.clone()),
            (Some(_), None) => {
                let remedy = "give --tls-client-ca: whose certificates are good?";
                reader.wrong(FLAG, typed, Fault::new("needs a CA", remedy));
                ClientCertificates::Off
            }
            (None, Some(authorities)) if self.has_certificate() => {
                let fault = Fault::new(
                    "has no use: no client is asked",
                    "add --tls-client-certs ask or require, or leave it out",
                );
                reader.wrong("--tls-client-ca", authorities.display().to_string(), fault);
                ClientCertificates::Off
            }
            (None, _) => ClientCertificates::Off,
        }
    }
}

/// What is wrong with asking for TLS and having no certificate.
pub fn needs_certificate() -> Fault {
    Fault::new(
        "needs a certificate",
        "give --tls-cert and --tls-key, or --tls-dir",
    )
}

/// Certificates and keys given at the same places.
pub fn pairs(
    reader: &mut Reader,
    (certificate_flag, certificates): (&str, &[PathBuf]),
    (key_flag, keys): (&str, &[PathBuf]),
) -> Vec<Pair> {
    for (flag, own, other_flag, others) in [
        (certificate_flag, certificates, key_flag, keys),
        (key_flag, keys, certificate_flag, certificates),
    ] {
        if let Some(single) = own.get(others.len()) {
            let fault = Fault::new(
                format!("has no {other_flag}"),
                "give both, in the same order",
            );
            reader.wrong(flag, single.display().to_string(), fault);
        }
    }
    let pair = |(certificate, key): (&PathBuf, &PathBuf)| Pair {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    certificates.iter().zip(keys).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Tls, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    const PAIR: [&str; 4] = ["--tls-cert", "a.crt", "--tls-key", "a.key"];

    #[test]
    fn defaults() {
        let meant = read(&[]).unwrap();
        assert_eq!(meant.clients, ClientTls::Off);
        assert_eq!(meant.server, ServerSettings::default());
        assert_eq!(meant.handshake_timeout, Duration::from_secs(30));
        assert!(meant.rate_handshakes.is_unlimited() && meant.parked_max == 10_000);
    }

    #[test]
    fn a_certificate_alone_offers_starttls() {
        assert_eq!(read(&PAIR).unwrap().clients, ClientTls::May);
        let meant = read(&["--tls-dir", "certs"]).unwrap();
        assert_eq!(meant.clients, ClientTls::May);
        for (word, want) in [
            ("off", ClientTls::Off),
            ("may", ClientTls::May),
            ("require", ClientTls::Require),
        ] {
            let args = [&PAIR[..], &["--tls", word]].concat();
            assert_eq!(read(&args).unwrap().clients, want, "{word}");
        }
    }

    #[test]
    fn pairs_keep_their_order() {
        let args = [&PAIR[..], &["--tls-key", "b.pem", "--tls-cert", "b.pem"]].concat();
        let pairs = read(&args).unwrap().server.pairs;
        let names: Vec<_> = pairs
            .iter()
            .map(|pair| pair.key.to_str().unwrap())
            .collect();
        assert_eq!(names, ["a.key", "b.pem"]);
    }

    #[test]
    fn everything_can_be_set() {
        let args = [
            &PAIR[..],
            &["--tls-min", "1.3", "--tls-hybrid", "yes"],
            &["--tls-client-certs", "ask", "--tls-client-ca", "ca.pem"],
            &[
                "--tls-tickets-file",
                "keys",
                "--tls-handshake-timeout",
                "10s",
            ],
            &["--rate-handshakes", "60/m", "--tls-parked-max", "0"],
        ];
        let meant = read(&args.concat()).unwrap();
        let server = &meant.server;
        assert!(server.hybrid && server.min == Oldest::Tls13);
        assert_eq!(server.clients, ClientCertificates::Ask("ca.pem".into()));
        assert_eq!(server.tickets, Some("keys".into()));
        assert_eq!(meant.handshake_timeout, Duration::from_secs(10));
        assert_eq!(meant.rate_handshakes.to_string(), "60/m");
        assert_eq!(meant.parked_max, 0);
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        let cases: [(&[&str], &str); 11] = [
            (&["--tls", "may"], "--tls"),
            (&["--tls", "maybe", "--tls-dir", "certs"], "--tls"),
            (&["--tls-cert", "a.crt"], "--tls-cert"),
            (&["--tls-key", "a.key"], "--tls-key"),
            (&["--tls-min", "1.1"], "--tls-min"),
            (&["--tls-client-certs", "require"], "--tls-client-certs"),
            (&["--tls-client-ca", "ca.pem"], "--tls-client-ca"),
            (
                &["--tls-dir", "certs", "--tls-client-ca", "ca.pem"],
                "--tls-client-ca",
            ),
            (&["--tls-tickets-file", "keys"], "--tls-tickets-file"),
            (&["--tls-handshake-timeout", "0"], "--tls-handshake-timeout"),
            (&["--rate-handshakes", "fast"], "--rate-handshakes"),
        ];
        for (args, flag) in cases {
            assert_eq!(testing::blamed(read(args)), [flag], "{args:?}");
        }
    }
}
