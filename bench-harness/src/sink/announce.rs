//! What the sink says it can do: any EHLO reply, written once.

use std::str::FromStr;

use anyhow::ensure;
use weir_smtp::extension::{Capabilities, ExtensionSet, parse_ehlo_reply};

/// EHLO keywords with their parameters, in the order given; what weir-smtp does not know is announced all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    keywords: Vec<String>,
}

/// What a usual mail server offers.
pub const USUAL: &str =
    "PIPELINING,SIZE 104857600,8BITMIME,SMTPUTF8,DSN,ENHANCEDSTATUSCODES,CHUNKING";

impl Default for Announce {
    fn default() -> Announce {
        USUAL
            .parse()
            .expect("the keywords written here can be announced")
    }
}

/// Keywords separated by commas: `PIPELINING,SIZE 1000,LIMITS RCPTMAX=100`; nothing or `none` for none.
impl FromStr for Announce {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Announce> {
        let text = if text.trim() == "none" { "" } else { text };
        let mut keywords = Vec::new();
        for keyword in text.split(',').map(str::trim) {
            if keyword.is_empty() {
                continue;
            }
            ensure!(
                keyword.len() <= 500 && keyword.bytes().all(|octet| matches!(octet, b' '..=b'~')),
                "`{keyword}` cannot be a line of an EHLO reply: printable ASCII, at most 500 octets"
            );
            keywords.push(keyword.to_owned());
        }
        ensure!(keywords.len() <= 100, "at most 100 keywords are announced");
        Ok(Announce { keywords })
    }
}

/// The replies that depend on what is announced, ready to be sent.
#[derive(Debug, Clone)]
pub struct Texts {
    pub greeting: Vec<u8>,
    pub ehlo: Vec<u8>,
    pub helo: Vec<u8>,
    pub capabilities: Capabilities,
    /// STARTTLS is not only announced, it is done.
    pub starttls: bool,
    enhanced: bool,
}

impl Texts {
    pub fn new(hostname: &str, announce: &Announce) -> Texts {
        let lines: Vec<&str> = std::iter::once(hostname)
            .chain(announce.keywords.iter().map(String::as_str))
            .collect();
        let mut ehlo = String::new();
        for (at, line) in lines.iter().enumerate() {
            let separator = if at + 1 == lines.len() { ' ' } else { '-' };
            ehlo += &format!("250{separator}{line}\r\n");
        }
        let capabilities = parse_ehlo_reply(ehlo.as_bytes());
        Texts {
            greeting: format!("220 {hostname} ESMTP weir-bench sink\r\n").into_bytes(),
            ehlo: ehlo.into_bytes(),
            helo: format!("250 {hostname}\r\n").into_bytes(),
            enhanced: capabilities.set.contains(ExtensionSet::ENHANCEDSTATUSCODES),
            capabilities,
            starttls: false,
        }
    }

    /// The same before TLS, which is offered.
    pub fn with_starttls(hostname: &str, announce: &Announce) -> Texts {
        let mut keywords = announce.keywords.clone();
        keywords.push("STARTTLS".to_owned());
        Texts {
            starttls: true,
            ..Texts::new(hostname, &Announce { keywords })
        }
    }

    /// Appends `reply`, a whole line `250 2.0.0 text`, without the enhanced status code where that was not announced.
    pub fn push(&self, out: &mut Vec<u8>, reply: &[u8]) {
        let coded = reply.len() > 10 && reply[5] == b'.' && reply[9] == b' ';
        if coded && !self.enhanced {
            out.extend_from_slice(&reply[..4]);
            out.extend_from_slice(&reply[10..]);
        } else {
            out.extend_from_slice(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(keywords: &str) -> Texts {
        Texts::new("sink.example", &keywords.parse().unwrap())
    }

    #[test]
    fn any_set_is_announced() {
        let some = texts("PIPELINING, SIZE 1000,X-ODD a=b");
        assert_eq!(
            some.ehlo,
            b"250-sink.example\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250 X-ODD a=b\r\n"
        );
        assert_eq!(some.capabilities.size_max, 1000);
        assert_eq!(some.capabilities.set.to_string(), "PIPELINING SIZE");
        assert_eq!(texts("none").ehlo, b"250 sink.example\r\n");
        assert_eq!(texts("").ehlo, b"250 sink.example\r\n");
    }

    #[test]
    fn a_keyword_cannot_smuggle_a_line() {
        for text in ["A\r\n250 B", "é", "A\0"] {
            assert!(text.parse::<Announce>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn enhanced_codes_are_said_only_where_announced() {
        for (keywords, want) in [
            (
                "ENHANCEDSTATUSCODES",
                "250 2.1.0 Ok\r\n354 go on, please.\r\n",
            ),
            ("DSN", "250 Ok\r\n354 go on, please.\r\n"),
        ] {
            let mut out = Vec::new();
            texts(keywords).push(&mut out, b"250 2.1.0 Ok\r\n");
            texts(keywords).push(&mut out, b"354 go on, please.\r\n");
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
    }
}
