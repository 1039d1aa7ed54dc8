//! Lists of clients, of the names they give, of senders and recipients: who is let through, who is refused.
//!
//! Text form, one entry a line, `#` begins a comment. Clients: `192.0.2.0/24`, `2001:db8::/32`, a single address. The other
//! lists: see `names.rs`. The more specific entry counts, whichever list it is on; of two equal ones, the one that allows.
//! Built once, off the shards, shared by all of them and replaced whole.

mod names;
mod network;
mod networks;
mod table;
mod words;

use std::fmt;
use std::net::IpAddr;

use weir_smtp::path::Path;

pub use names::NameError;
pub use network::{Network, NetworkError};
pub use networks::Networks;

use names::{Kind, Names};

/// What the lists say.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Listed {
    Allow,
    Deny,
}

impl Listed {
    pub const fn word(self) -> &'static str {
        match self {
            Listed::Allow => "allow",
            Listed::Deny => "deny",
        }
    }
}

/// What a list is about.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Subject {
    /// Networks of clients.
    Client,
    /// Names in HELO and EHLO.
    Helo,
    Sender,
    Recipient,
}

/// All allow and deny lists. Built once, shared by all shards, replaced whole on reload.
#[derive(Clone, Default, Debug)]
pub struct Access {
    networks: Networks<Listed>,
    helo: Names<Listed>,
    senders: Names<Listed>,
    recipients: Names<Listed>,
    /// Of senders and recipients there are some to be denied.
    denies_senders: bool,
    denies_recipients: bool,
}

impl Access {
    /// What is said of a client.
    pub fn lookup(&self, ip: IpAddr) -> Option<Listed> {
        self.networks.lookup(ip).copied()
    }

    /// What is said of the name that a client gives.
    pub fn helo(&self, name: &[u8]) -> Option<Listed> {
        self.helo.name(name)
    }

    pub fn sender(&self, path: &Path<'_>) -> Option<Listed> {
        self.senders.address(path)
    }

    pub fn recipient(&self, path: &Path<'_>) -> Option<Listed> {
        self.recipients.address(path)
    }

    /// Whether any sender, or any recipient, is to be denied.
    pub fn denies(&self, subject: Subject) -> bool {
        match subject {
            Subject::Sender => self.denies_senders,
            Subject::Recipient => self.denies_recipients,
            Subject::Client | Subject::Helo => false,
        }
    }

    /// Entries of the lists about this.
    pub fn len(&self, subject: Subject) -> usize {
        match subject {
            Subject::Client => self.networks.len(),
            Subject::Helo => self.helo.len(),
            Subject::Sender => self.senders.len(),
            Subject::Recipient => self.recipients.len(),
        }
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        let names = [&self.helo, &self.senders, &self.recipients];
        self.networks.memory() + names.iter().map(|names| names.memory()).sum::<usize>()
    }
}

/// Lists that are being read. Those that deny come first: of two entries that say the same the later counts.
#[derive(Default)]
pub struct AccessBuilder {
    networks: Vec<(Network, Listed)>,
    names: Access,
}

impl AccessBuilder {
    /// Reads one list. What is wrong with it, at most [`ERRORS_MAX`] lines of it.
    pub fn read(&mut self, subject: Subject, listed: Listed, text: &str) -> Vec<ListError> {
        let denied = listed == Listed::Deny && entries(text).next().is_some();
        let names = &mut self.names;
        names.denies_senders |= denied && subject == Subject::Sender;
        names.denies_recipients |= denied && subject == Subject::Recipient;
        let (kind, names) = match subject {
            Subject::Client => {
                return read_networks(text, |network| self.networks.push((network, listed)));
            }
            Subject::Helo => (Kind::Names, &mut names.helo),
            Subject::Sender => (Kind::Addresses, &mut names.senders),
            Subject::Recipient => (Kind::Addresses, &mut names.recipients),
        };
        let wrong = entries(text).filter_map(|(number, entry)| {
            let why = names.insert(kind, entry, listed).err()?;
            Some(ListError::new(number, entry, why))
        });
        wrong.take(ERRORS_MAX).collect()
    }

    pub fn build(self) -> Access {
        Access {
            networks: Networks::new(self.networks),
            ..self.names
        }
    }
}

/// Reads a list of networks line by line; the errors are returned, at most [`ERRORS_MAX`] of them.
pub fn read_networks(text: &str, mut insert: impl FnMut(Network)) -> Vec<ListError> {
    let wrong = lines(text).filter_map(|(number, line)| match line.parse() {
        Ok(network) => {
            insert(network);
            None
        }
        Err(why) => Some(ListError::new(number, line, why)),
    });
    wrong.take(ERRORS_MAX).collect()
}

/// The text of a list file; what is no text is an error of its line.
pub fn text(octets: Vec<u8>) -> Result<String, ListError> {
    String::from_utf8(octets).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let octets = error.as_bytes();
        let begin = memchr::memrchr(b'\n', &octets[..good]).map_or(0, |end| end + 1);
        let end = memchr::memchr(b'\n', &octets[good..]).map_or(octets.len(), |end| good + end);
        let number = 1 + memchr::memchr_iter(b'\n', &octets[..begin]).count();
        let line = String::from_utf8_lossy(&octets[begin..end]);
        ListError::new(number, &line, "not UTF-8 text")
    })
}

/// Errors reported of one list: who mistook one file for another does not need a million.
pub const ERRORS_MAX: usize = 20;

/// The lines of a list that say something, with their numbers; comments and blanks are cut.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text, |line| line.split('#').next().unwrap_or_default())
}

/// The same of a list of names: `#` may stand inside an address, so a comment begins a line or follows a blank.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    numbered(text, |line| {
        let mut marks = line.match_indices('#').map(|(at, _)| at);
        let comment = marks.find(|at| line[..*at].chars().last().is_none_or(char::is_whitespace));
        &line[..comment.unwrap_or(line.len())]
    })
}

fn numbered<'a>(
    text: &'a str,
    said: impl Fn(&'a str) -> &'a str,
) -> impl Iterator<Item = (usize, &'a str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines()
        .enumerate()
        .map(move |(index, line)| (index + 1, said(line).trim()))
        .filter(|(_, line)| !line.is_empty())
}

/// A line of a list that cannot be read.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct ListError {
    pub line: usize,
    /// The line, cut.
    pub text: String,
    pub why: String,
}

impl ListError {
    pub(super) fn new(line: usize, text: &str, why: impl fmt::Display) -> ListError {
        ListError {
            line,
            text: text.chars().take(60).collect(),
            why: why.to_string(),
        }
    }
}

impl std::error::Error for ListError {}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: \"{}\": {}",
            self.line,
            self.text.escape_debug(),
            self.why
        )
    }
}

#[cfg(test)]
impl Access {
    /// Of two lists of networks, which have to be sound.
    pub fn of_clients(allow: &str, deny: &str) -> Access {
        let mut lists = AccessBuilder::default();
        for (listed, text) in [(Listed::Deny, deny), (Listed::Allow, allow)] {
            assert_eq!(lists.read(Subject::Client, listed, text), []);
        }
        lists.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_smtp::path;

    fn errors(subject: Subject, text: &str) -> Vec<String> {
        let errors = AccessBuilder::default().read(subject, Listed::Deny, text);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_more_specific_entry_counts_and_allow_wins_a_draw() {
        let allow = "10.1.0.0/16\n2001:db8:1::/48\n192.0.2.1 # a friend\n";
        let deny = "10.0.0.0/8\n10.1.2.0/24\n2001:db8::/32\n192.0.2.1\n";
        let access = Access::of_clients(allow, deny);
        let table = [
            ("10.2.0.1", Some(Listed::Deny)),
            ("10.1.0.1", Some(Listed::Allow)),
            ("10.1.2.3", Some(Listed::Deny)),
            ("::ffff:10.1.2.3", Some(Listed::Deny)),
            ("192.0.2.1", Some(Listed::Allow)),
            ("192.0.2.2", None),
            ("2001:db8::1", Some(Listed::Deny)),
            ("2001:db8:1::1", Some(Listed::Allow)),
            ("2001:db9::1", None),
        ];
        for (client, want) in table {
            assert_eq!(access.lookup(client.parse().unwrap()), want, "{client}");
        }
        assert_eq!(access.len(Subject::Client), 6);
    }

    #[test]
    fn each_list_is_about_its_own() {
        let mut lists = AccessBuilder::default();
        for (subject, listed, text) in [
            (Subject::Helo, Listed::Deny, ".example # all\n"),
            (Subject::Helo, Listed::Allow, "mx.example\n"),
            (Subject::Sender, Listed::Deny, "x#1@example\n<>\n"),
            (Subject::Recipient, Listed::Deny, "@example\n"),
            (
                Subject::Recipient,
                Listed::Allow,
                "abuse@example\n@example\n",
            ),
        ] {
            assert_eq!(lists.read(subject, listed, text), []);
        }
        let access = lists.build();
        let path = |text: &'static str| path::parse(text.as_bytes()).expect(text).0;
        assert_eq!(access.helo(b"mx.example"), Some(Listed::Allow));
        assert_eq!(access.helo(b"my.example"), Some(Listed::Deny));
        assert_eq!(access.sender(&path("<x#1@example>")), Some(Listed::Deny));
        assert_eq!(access.sender(&path("<x@example>")), None);
        assert_eq!(access.sender(&path("<>")), Some(Listed::Deny));
        assert_eq!(access.recipient(&path("<x@example>")), Some(Listed::Allow));
        assert_eq!(access.recipient(&path("<x@mx.example>")), None);
        let counts = [
            Subject::Client,
            Subject::Helo,
            Subject::Sender,
            Subject::Recipient,
        ];
        assert_eq!(counts.map(|subject| access.len(subject)), [0, 2, 2, 2]);
    }

    #[test]
    fn errors_name_their_lines_and_come_to_an_end() {
        let text = errors(
            Subject::Client,
            "# fine\n\nmx.example\n10.0.0.0/8\n10.0.0.1/8\n",
        );
        assert_eq!(
            text[0],
            "line 3: \"mx.example\": not an IP address or network, as in 192.0.2.0/24 or 2001:db8::/32"
        );
        assert_eq!(
            text[1],
            "line 5: \"10.0.0.1/8\": address bits are set beyond the prefix length"
        );
        for subject in [Subject::Client, Subject::Sender] {
            let errors = errors(subject, &"\u{1b}[2J\r\n".repeat(1000));
            assert_eq!(errors.len(), ERRORS_MAX);
            assert!(errors[0].is_ascii() && !errors[0].contains('\u{1b}'));
        }
    }

    #[test]
    fn what_is_no_text_is_told_by_its_line() {
        assert_eq!(
            text(b"10.0.0.0/8\n".to_vec()).as_deref(),
            Ok("10.0.0.0/8\n")
        );
        for (octets, line) in [
            (&b"\xff"[..], 1),
            (b"a\nb\nc\xe9d\ne\n", 3),
            (b"a\n\xff", 2),
        ] {
            let error = text(octets.to_vec()).expect_err("no text");
            assert_eq!((error.line, error.why.as_str()), (line, "not UTF-8 text"));
        }
    }

    #[test]
    fn files_of_other_systems_are_read() {
        let access = Access::of_clients("\u{feff}10.0.0.0/8\r\n\t192.0.2.0/24 \r\n", "");
        assert_eq!(access.len(Subject::Client), 2);
    }
}
