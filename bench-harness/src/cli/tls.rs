//! How the clients of `source` and `hold` speak TLS.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::grammar::problem::Problems;
use crate::plan::{Tls, Trust, Versions, Way};
use crate::tls::client::Client;

/// Of all streams.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "TLS")]
pub struct TlsFlags {
    /// TLS of all clients: off, starttls (after EHLO), implicit (before the greeting) [default: off]
    #[arg(long, value_name = "WAY")]
    pub tls: Option<String>,
    /// 1.2, 1.3 or any [default: any]
    #[arg(long, value_name = "VERSION")]
    pub tls_version: Option<String>,
    /// Whether later connections of a process resume the sessions of earlier ones: yes, no [default: no]
    #[arg(long, value_name = "WORD")]
    pub tls_resumption: Option<String>,
    /// Certificates to trust, PEM: what --tls-cert-to of the sink writes
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Trusts every certificate, and says so in the plan
    #[arg(long)]
    pub tls_insecure: bool,
    /// The name asked for, and wanted in the certificate [default: the address of the target]
    #[arg(long, value_name = "NAME")]
    pub tls_name: Option<String>,
}

impl TlsFlags {
    /// None where all is plaintext, or where there are problems.
    pub fn plan(&self, target: Option<SocketAddr>, problems: &mut Problems) -> Option<Tls> {
        let before = problems.0.len();
        let way = word(
            "--tls",
            self.tls.as_deref().unwrap_or("off"),
            &[
                ("off", None),
                ("starttls", Some(Way::Starttls)),
                ("implicit", Some(Way::Implicit)),
            ],
            problems,
        )?;
        let Some(way) = way else {
            self.refuse_without_tls(problems);
            return None;
        };
        let versions = word(
            "--tls-version",
            self.tls_version.as_deref().unwrap_or("any"),
            &[
                ("any", Versions::Any),
                ("1.2", Versions::Tls12),
                ("1.3", Versions::Tls13),
            ],
            problems,
        );
        let resumption = word(
            "--tls-resumption",
            self.tls_resumption.as_deref().unwrap_or("no"),
            &[("yes", true), ("no", false)],
            problems,
        );
        let trust = self.trust(problems);
        // a wrong target is a problem of its own
        let address = target.map_or_else(String::new, |target| target.ip().to_string());
        let tls = Tls {
            way,
            versions: versions?,
            resumption: resumption?,
            trust: trust?,
            name: self.tls_name.clone().unwrap_or(address),
        };
        if target.is_some() {
            problems.take(
                "--tls",
                self.tls.as_deref().unwrap_or_default(),
                Client::new(&tls).map_err(|error| format!("{error:#}")),
            );
        }
        (problems.0.len() == before).then_some(tls)
    }

    fn trust(&self, problems: &mut Problems) -> Option<Trust> {
        match (&self.tls_ca, self.tls_insecure) {
            (Some(file), false) => Some(Trust::Authority(file.clone())),
            (None, true) => Some(Trust::Anybody),
            (Some(file), true) => {
                problems.add(
                    "--tls-ca",
                    file.display().to_string(),
                    "--tls-insecure trusts everybody: keep one of the two",
                );
                None
            }
            (None, false) => {
                problems.add(
                    "--tls",
                    self.tls.clone().unwrap_or_default(),
                    "say whom to trust: --tls-ca FILE, or --tls-insecure",
                );
                None
            }
        }
    }

    fn refuse_without_tls(&self, problems: &mut Problems) {
        let given = [
            ("--tls-version", self.tls_version.is_some()),
            ("--tls-resumption", self.tls_resumption.is_some()),
            ("--tls-ca", self.tls_ca.is_some()),
            ("--tls-insecure", self.tls_insecure),
            ("--tls-name", self.tls_name.is_some()),
        ];
        for (flag, is_given) in given {
            if is_given {
                problems.add(flag, "", "there is no TLS: give --tls starttls or implicit");
            }
        }
    }
}

/// One of a few words.
fn word<T: Copy>(
    flag: &str,
    text: &str,
    known: &[(&str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let found = known.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        problems.add(flag, text, format!("one of {}", words.join(", ")));
    }
    found.map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: TlsFlags,
    }

    fn read(line: &str) -> Result<Option<Tls>, Vec<String>> {
        let words = std::iter::once("x").chain(line.split_ascii_whitespace());
        let flags = Line::try_parse_from(words).expect("clap takes it").flags;
        let mut problems = Problems::default();
        let tls = flags.plan(Some(([127, 0, 0, 1], 465).into()), &mut problems);
        match problems.0.is_empty() {
            true => Ok(tls),
            false => Err(problems.0.iter().map(|p| p.flag.clone()).collect()),
        }
    }

    #[test]
    fn plaintext_is_the_default_and_tls_asks_for_the_address() {
        assert_eq!(read(""), Ok(None));
        let tls = read("--tls implicit --tls-insecure --tls-version 1.3")
            .unwrap()
            .unwrap();
        assert_eq!(
            (tls.way, tls.versions, tls.resumption, tls.name.as_str()),
            (Way::Implicit, Versions::Tls13, false, "127.0.0.1")
        );
    }

    #[test]
    fn wrong_words_and_flags_without_use_are_told() {
        for (line, flag) in [
            ("--tls maybe", "--tls"),
            ("--tls starttls", "--tls"),
            ("--tls starttls --tls-ca /nonexistent", "--tls"),
            ("--tls starttls --tls-ca /x --tls-insecure", "--tls-ca"),
            (
                "--tls starttls --tls-insecure --tls-version 1.1",
                "--tls-version",
            ),
            (
                "--tls starttls --tls-insecure --tls-resumption x",
                "--tls-resumption",
            ),
            ("--tls starttls --tls-insecure --tls-name a..b", "--tls"),
            ("--tls-insecure", "--tls-insecure"),
        ] {
            assert_eq!(read(line).unwrap_err(), [flag], "{line}");
        }
    }
}
