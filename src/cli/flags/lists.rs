//! Lists of clients, names, senders and recipients, from files: who is let through, who is refused.

use std::path::{Path, PathBuf};

use clap::Args;

use super::relay::read_file;
use crate::cli::{reader::Reader, units::Fault};
use crate::policy::access::{Access, AccessBuilder, Listed, Subject};

#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
#[command(next_help_heading = "Lists")]
pub struct Flags {
    /// File of networks exempt from limits, tarpit and reputation
    ///
    /// One network or address per line, # for comments. Relay control and what protects messages hold for them too. Of two entries
    /// that match, the more specific counts, at a tie the one that allows. All files of lists are read again at SIGHUP, beside the
    /// mail: an error in one of them is logged with its line, and leaves all as they were. Replace a file by renaming, or half of it
    /// may be read.
    ///
    /// Range: a readable file. Default: none. Cost: at most 16 bytes per IPv4 network, 40 per IPv6 network.
    #[arg(long, value_name = "FILE")]
    pub allow_list: Option<PathBuf>,

    /// File of networks that are turned away
    ///
    /// Finding deny-list: 521 by default. Form and reading as --allow-list.
    ///
    /// Range: a readable file. Default: none. Cost: as --allow-list.
    #[arg(long, value_name = "FILE")]
    pub deny_list: Option<PathBuf>,

    /// File of names in HELO that are not checked
    ///
    /// One per line: mx.example.com is this name, .example.com all names below it, [192.0.2.1] this literal. They are exempt from
    /// --deny-helo and from the findings about names in HELO (helo-...), from nothing else: anybody can give any name.
    ///
    /// Range: a readable file. Default: none. Cost: about 20 bytes and its own length per name.
    #[arg(long, value_name = "FILE")]
    pub allow_helo: Option<PathBuf>,

    /// File of names in HELO that are refused
    ///
    /// Finding deny-helo. Form as --allow-helo; the more specific entry counts, at a tie the one that allows.
    ///
    /// Range: a readable file. Default: none. Cost: as --allow-helo.
    #[arg(long, value_name = "FILE")]
    pub deny_helo: Option<PathBuf>,

    /// File of senders that are not checked
    ///
    /// One per line: user@example.com is this address, @example.com (or example.com) all of the domain, .example.com all of the domains
    /// below it, user@ this local part at any domain, <> the null sender. Letters count without case. They are exempt from
    /// --deny-sender, from the findings about a sender's domain (sender-...) and from greylisting, not from what is known of
    /// the client: anybody can give any sender.
    ///
    /// Range: a readable file. Default: none. Cost: about 20 bytes and its own length per address.
    #[arg(long, value_name = "FILE")]
    pub allow_sender: Option<PathBuf>,

    /// File of senders that are refused
    ///
    /// Finding deny-sender, at MAIL. Form as --allow-sender; the more specific entry counts, at a tie the one that allows.
    ///
    /// Range: a readable file. Default: none. Cost: as --allow-sender.
    #[arg(long, value_name = "FILE")]
    pub deny_sender: Option<PathBuf>,

    /// File of recipients that get all mail
    ///
    /// Form as --allow-sender: postmaster@ and abuse@ are worth an entry. Mail to them is exempt from --deny-recipient, --spamtraps,
    /// greylisting and from being refused at RCPT for the client's score or for what was found of the client; not from relay
    /// control and rates. A client that is dropped before it names a recipient, or that stutters, does not come so far: where they
    /// matter, let score-reject refuse rather than score-drop.
    ///
    /// Range: a readable file. Default: none. Cost: as --allow-sender.
    #[arg(long, value_name = "FILE")]
    pub allow_recipient: Option<PathBuf>,

    /// File of recipients that are refused
    ///
    /// Finding deny-recipient, at RCPT. Form as --allow-sender; the more specific entry counts, at a tie the one that allows.
    ///
    /// Range: a readable file. Default: none. Cost: as --allow-sender.
    #[arg(long, value_name = "FILE")]
    pub deny_recipient: Option<PathBuf>,
}

/// One list: its flag, what it is about, what it says, where it is.
pub type List<'a> = (&'static str, Subject, Listed, Option<&'a Path>);

impl Flags {
    /// All lists. Those that deny come first: where both have the same entry, the later counts.
    pub fn files(&self) -> [List<'_>; 8] {
        use Listed::{Allow, Deny};
        use Subject::{Client, Helo, Recipient, Sender};
        [
            ("--deny-list", Client, Deny, self.deny_list.as_deref()),
            ("--deny-helo", Helo, Deny, self.deny_helo.as_deref()),
            ("--deny-sender", Sender, Deny, self.deny_sender.as_deref()),
            (
                "--deny-recipient",
                Recipient,
                Deny,
                self.deny_recipient.as_deref(),
            ),
            ("--allow-list", Client, Allow, self.allow_list.as_deref()),
            ("--allow-helo", Helo, Allow, self.allow_helo.as_deref()),
            (
                "--allow-sender",
                Sender,
                Allow,
                self.allow_sender.as_deref(),
            ),
            (
                "--allow-recipient",
                Recipient,
                Allow,
                self.allow_recipient.as_deref(),
            ),
        ]
    }

    /// All lists, read now. Also what a reload calls.
    pub fn read(&self, reader: &mut Reader) -> Access {
        let mut lists = AccessBuilder::default();
        for (flag, subject, listed, path) in self.files() {
            let Some(path) = path.map(|path| path.display().to_string()) else {
                continue;
            };
            let Some(text) = read_file(reader, flag, &path) else {
                continue;
            };
            for error in lists.read(subject, listed, &text) {
                let fault = Fault::new(format!("has an error: {error}"), remedy(subject));
                reader.wrong(flag, &path, fault);
            }
        }
        lists.build()
    }
}

fn remedy(subject: Subject) -> &'static str {
    match subject {
        Subject::Client => "write one network per line, as in 192.0.2.0/24",
        Subject::Helo => "write one name per line, as in mx.example.com",
        Subject::Sender | Subject::Recipient => {
            "write one address or domain per line, as in user@example.com or @example.com"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::{flags::testing, reader::Wrong};

    fn read(args: &[&str]) -> Result<Access, Vec<Wrong>> {
        testing::read(args, |flags: &Flags, reader| flags.read(reader))
    }

    #[test]
    fn no_lists_by_default() {
        let access = read(&[]).ok().unwrap();
        assert_eq!(access.memory(), 0);
    }

    #[test]
    fn lists_are_read_and_their_errors_told_with_the_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (allow, deny) = (
            path("allow", "192.0.2.1 # partner\n"),
            path("deny", "192.0.2.0/24\nnonsense\n"),
        );
        let senders = path("senders", "@example.com\nnobody\n\u{e9}");
        let args = [
            "--allow-list",
            &allow,
            "--deny-list",
            &deny,
            "--deny-sender",
            &senders,
            "--deny-helo",
            "/nonexistent",
        ];
        let wrong = read(&args).err().unwrap();
        let told: Vec<_> = wrong
            .iter()
            .map(|wrong| (&*wrong.flag, &*wrong.why))
            .collect();
        assert!(
            told[0].0 == "--deny-list" && told[0].1.contains("line 2"),
            "{told:?}"
        );
        assert!(
            told[1].0 == "--deny-helo" && told[1].1.contains("cannot be read"),
            "{told:?}"
        );
        assert!(
            told[2].0 == "--deny-sender" && told[2].1.contains("line 2: \"nobody\""),
            "{told:?}"
        );
        path("deny", "192.0.2.0/24\n");
        fs::write(&senders, b"@example.com\n\xe9").unwrap();
        let wrong = read(&args[..6]).err().unwrap();
        assert!(
            wrong.len() == 1 && wrong[0].why.contains("line 2"),
            "{wrong:?}"
        );
        path("senders", "@example.com\n");
        let access = read(&args[..6]).ok().unwrap();
        let listed = ["192.0.2.1", "192.0.2.2", "198.51.100.1"];
        assert_eq!(
            listed.map(|ip| access.lookup(ip.parse().unwrap())),
            [Some(Listed::Allow), Some(Listed::Deny), None]
        );
        assert_eq!(access.len(Subject::Sender), 1);
    }
}
