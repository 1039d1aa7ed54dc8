//! `weir-bench sink`: flags to the configuration of an upstream that counts, and does wrong where it is told to.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::exit::Exit;
use crate::grammar::problem::Problems;
use crate::grammar::{self, Parsed};
use crate::rails;
use crate::sink::announce::{Announce, USUAL};
use crate::sink::fault::Faults;
use crate::sink::{self, Config};
use crate::tls::certificate::Certificate;

/// Takes mail, checks and counts every message by its id; delays, refuses, resets where it is told to.
///
/// Prints its addresses, then serves until SIGINT or SIGTERM, then prints its counters as JSON.
#[derive(clap::Args, Debug, Clone)]
#[command(after_long_help = FAULTS)]
pub struct SinkFlags {
    /// Where mail is taken; repeat it. Port 0 is any free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2525")]
    pub listen: Vec<String>,
    /// Where mail is taken in TLS from the first octet; repeat it
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_tls: Vec<String>,
    /// Where every connection begins with a PROXY header, version 1 or 2; repeat it
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen_proxied: Vec<String>,
    /// Offers STARTTLS at --listen and --listen-proxied, and does it
    #[arg(long)]
    pub starttls: bool,
    /// Certificate chain, PEM [default: one made at start, ECDSA P-256, signed by itself]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Where to write the certificate, for clients to trust (--tls-ca of source)
    #[arg(long, value_name = "FILE")]
    pub tls_cert_to: Option<PathBuf>,
    /// Where the ledger and the counters are asked for, and faults are changed
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:2526")]
    pub control: String,
    /// Threads, each with listeners of its own
    #[arg(long, value_name = "N", default_value = "1")]
    pub threads: String,
    /// What it calls itself
    #[arg(long, value_name = "NAME", default_value = "sink.example")]
    pub hostname: String,
    /// EHLO keywords, or none
    #[arg(long, value_name = "LIST", default_value = USUAL)]
    pub announce: String,
    /// Leaves CHUNKING out of --announce
    #[arg(long)]
    pub no_chunking: bool,
    /// Faults, as 'all:delay=40ms rcpt:450=1% final:reset=0.1%'; the whole language is below
    #[arg(long, value_name = "FAULTS", default_value = "none")]
    pub faults: String,
    /// A connection on which nothing was heard for so long is closed
    #[arg(long, value_name = "TIME", default_value = "5m")]
    pub idle: String,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: String,
    /// Ends by itself after this [default: at a signal]
    #[arg(long = "for", value_name = "TIME")]
    pub lasts: Option<String>,
    /// An address of this host that is not loopback, to listen on
    #[arg(long = "i-own-this-host", value_name = "ADDR")]
    pub owned: Vec<IpAddr>,
}

const FAULTS: &str = "\
Faults, separated by blanks:
  all:delay=40ms           every flight is answered later, as if the way were long
  PLACE:delay=DELAY        one reply is; DELAY also uniform, normal, exponential, lognormal (see the README)
  PLACE:450=1%             4xx or 5xx in place of the reply; after 421 the connection is closed
  PLACE:reset=1%           reset, close, stall or garbage in place of the reply
  body:reset@random=1%     reset or stall in the midst of a message, at an octet or a random one
  connections=100          further ones hear 421
  read=10k/s               no connection is read faster
PLACE is all, greeting, ehlo, mail, rcpt, data, bdat, final, rset, noop or quit; without =RATE always.";

impl SinkFlags {
    /// The configuration, and how long the sink runs.
    pub fn config(&self) -> Result<(Config, Option<Duration>), Problems> {
        let mut problems = Problems::default();
        let own = |text: &str| -> Parsed<SocketAddr> {
            let address = grammar::address(text)?;
            rails::allowed(address.ip(), &self.owned)?;
            Ok(address)
        };
        let mut all = |flag: &str, texts: &[String]| -> Vec<SocketAddr> {
            let addresses = texts.iter();
            addresses
                .filter_map(|text| problems.take(flag, text, own(text)))
                .collect()
        };
        let listen = all("--listen", &self.listen);
        let listen_tls = all("--listen-tls", &self.listen_tls);
        let listen_proxied = all("--listen-proxied", &self.listen_proxied);
        let certificate = self.certificate(&mut problems);
        let control = problems.take("--control", &self.control, own(&self.control));
        let threads = problems.take("--threads", &self.threads, grammar::count32(&self.threads));
        let hostname = problems.take("--hostname", &self.hostname, grammar::word(&self.hostname));
        let announce = problems.take("--announce", &self.announce, self.announced());
        let faults = self.faults.parse::<Faults>().map_err(|e| format!("{e:#}"));
        let faults = problems.take("--faults", &self.faults, faults);
        let idle_max = problems.take("--idle", &self.idle, grammar::duration_some(&self.idle));
        let seed = problems.take("--seed", &self.seed, grammar::count(&self.seed));
        let lasts = self
            .lasts
            .as_ref()
            .and_then(|text| problems.take("--for", text, grammar::duration_some(text)));
        let config = || {
            Some(Config {
                listen,
                listen_tls,
                listen_proxied,
                starttls: self.starttls,
                certificate,
                control: control?,
                threads: threads? as usize,
                hostname: hostname?,
                announce: announce?,
                faults: faults?,
                seed: seed?,
                idle_max: idle_max?,
            })
        };
        let config = config();
        problems.end(config.map(|config| (config, lasts)))
    }

    /// The files, if there are any.
    fn certificate(&self, problems: &mut Problems) -> Option<Certificate> {
        let (chain, key) = self.tls_cert.as_ref().zip(self.tls_key.as_ref())?;
        let read = Certificate::read(chain, key).and_then(|certificate| {
            certificate.server()?;
            Ok(certificate)
        });
        let read = read.map_err(|error| format!("{error:#}"));
        problems.take("--tls-cert", &chain.display().to_string(), read)
    }

    fn announced(&self) -> Parsed<Announce> {
        let is_left_out = |keyword: &&str| {
            let name = keyword.split_ascii_whitespace().next().unwrap_or("");
            self.no_chunking && name.eq_ignore_ascii_case("CHUNKING")
        };
        let keywords: Vec<&str> = self
            .announce
            .split(',')
            .filter(|keyword| !is_left_out(keyword))
            .collect();
        keywords
            .join(",")
            .parse()
            .map_err(|e: anyhow::Error| format!("{e:#}"))
    }
}

pub fn command(flags: &SinkFlags) -> anyhow::Result<Exit> {
    let (config, lasts) = flags.config()?;
    sink::command(&config, lasts, flags.tls_cert_to.as_deref())?;
    Ok(Exit::Well)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: SinkFlags,
    }

    fn read(arguments: &[&str]) -> Result<(Config, Option<Duration>), Problems> {
        let line = std::iter::once("sink").chain(arguments.iter().copied());
        Line::try_parse_from(line)
            .expect("clap takes it")
            .flags
            .config()
    }

    #[test]
    fn without_flags_it_is_a_usual_mail_server() {
        let (config, lasts) = read(&[]).unwrap();
        assert_eq!(config.announce, Config::default().announce);
        assert_eq!(config.faults, Config::default().faults);
        assert_eq!(
            (config.threads, config.idle_max, lasts),
            (1, Duration::from_secs(300), None)
        );
        assert_eq!(config.listen[0].to_string(), "127.0.0.1:2525");
    }

    #[test]
    fn chunking_can_be_left_out() {
        let (config, _) = read(&["--no-chunking", "--announce", "SIZE 5,chunking,DSN"]).unwrap();
        assert_eq!(config.announce, "SIZE 5,DSN".parse().unwrap());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let arguments = [
            "--listen",
            "0.0.0.0:25",
            "--control",
            "x",
            "--threads",
            "0",
            "--faults",
            "all:explode",
            "--idle",
            "5",
            "--seed",
            "x",
            "--for",
            "0s",
            "--announce",
            "é",
        ];
        let problems = read(&arguments).unwrap_err();
        let told: Vec<&str> = problems
            .0
            .iter()
            .map(|problem| problem.flag.as_str())
            .collect();
        assert_eq!(
            told,
            [
                "--listen",
                "--control",
                "--threads",
                "--announce",
                "--faults",
                "--idle",
                "--seed",
                "--for"
            ]
        );
    }

    #[test]
    fn the_language_of_faults_in_the_help_is_understood() {
        for line in FAULTS.lines().filter(|line| line.starts_with("  ")) {
            let fault = line.split_ascii_whitespace().next().unwrap();
            let fault = fault.replace("PLACE", "rcpt").replace("DELAY", "5ms");
            fault
                .parse::<Faults>()
                .unwrap_or_else(|e| panic!("{fault}: {e:#}"));
        }
    }
}
