//! Domain names in wire form, and questions.

use std::fmt;
use std::net::IpAddr;

/// A domain name: labels with their lengths in front, lower case, ended by the root's zero octet. At most 255 octets.
#[derive(Clone, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct Name(Box<[u8]>);

/// What is wanted of a name.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub enum Kind {
    A,
    Aaaa,
    Ptr,
    Mx,
    Txt,
}

#[derive(Clone, Eq, PartialEq, Hash, Debug)]
pub struct Question {
    pub name: Name,
    pub kind: Kind,
}

/// Why a text is no name.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NameError {
    /// An empty label: two dots, or one in front.
    Empty,
    /// A label of more than 63 octets.
    LongLabel,
    /// More than 255 octets in all.
    Long,
}

/// Octets of a name on the wire (RFC 1035, 2.3.4).
const OCTETS_MAX: usize = 255;
const LABEL_MAX: usize = 63;

impl Name {
    /// From text without escapes; a dot at the end changes nothing, and nothing at all is the root.
    pub fn parse(text: &[u8]) -> Result<Name, NameError> {
        let text = text.strip_suffix(b".").unwrap_or(text);
        let mut octets = Vec::with_capacity(text.len() + 2);
        for label in text.split(|octet| *octet == b'.') {
            if label.is_empty() && !text.is_empty() {
                return Err(NameError::Empty);
            }
            push(&mut octets, label)?;
        }
        if !text.is_empty() {
            octets.push(0);
        }
        Name::from_octets(octets)
    }

    /// The address as a name below `zone`: octets or nibbles in reverse (RFC 5782, 2.1 and 2.4; RFC 1035, 3.5; RFC 3596, 2.5).
    pub fn reversed(ip: IpAddr, zone: &Name) -> Result<Name, NameError> {
        let mut octets = Vec::with_capacity(64 + zone.0.len());
        match ip {
            IpAddr::V4(ip) => {
                for octet in ip.octets().iter().rev() {
                    push(&mut octets, octet.to_string().as_bytes())?;
                }
            }
            IpAddr::V6(ip) => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                for octet in ip.octets().iter().rev() {
                    octets.extend([1, digit(octet & 15), 1, digit(octet >> 4)]);
                }
            }
        }
        octets.extend_from_slice(&zone.0);
        Name::from_octets(octets)
    }

    /// From labels; those that are empty are passed over.
    pub(super) fn from_labels<'a>(
        labels: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Name, NameError> {
        let mut octets = Vec::with_capacity(64);
        for label in labels.filter(|label| !label.is_empty()) {
            push(&mut octets, label)?;
        }
        octets.push(0);
        Name::from_octets(octets)
    }

    /// From wire form, uncompressed and checked by whoever calls; letters become lower case.
    fn from_octets(mut octets: Vec<u8>) -> Result<Name, NameError> {
        if octets.len() > OCTETS_MAX {
            return Err(NameError::Long);
        }
        // Lengths are below 64 and no letters.
        octets.make_ascii_lowercase();
        Ok(Name(octets.into()))
    }

    /// Wire form, the zero octet included.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// From the leftmost on, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (&len, behind) = rest.split_first()?;
            let (label, behind) = behind.split_at_checked(len.into())?;
            rest = behind;
            (!label.is_empty()).then_some(label)
        })
    }
}

fn push(octets: &mut Vec<u8>, label: &[u8]) -> Result<(), NameError> {
    if label.len() > LABEL_MAX {
        return Err(NameError::LongLabel);
    }
    octets.push(label.len() as u8);
    octets.extend_from_slice(label);
    Ok(())
}

impl fmt::Display for Name {
    /// Without the dot at the end; octets that are no printable ASCII, dots and backslashes within labels as \DDD.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        for (number, label) in self.labels().enumerate() {
            if number > 0 {
                f.write_str(".")?;
            }
            for &octet in label {
                match octet {
                    b'.' | b'\\' => write!(f, "\\{octet:03}")?,
                    b'!'..=b'~' => write!(f, "{}", char::from(octet))?,
                    _ => write!(f, "\\{octet:03}")?,
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NameError {}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "an empty label, as between two dots",
            NameError::LongLabel => "a label of more than 63 octets",
            NameError::Long => "more than 255 octets",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown() {
        let table = [
            ("Mail.Example.", Ok("mail.example")),
            ("", Ok(".")),
            (".", Ok(".")),
            ("a b", Ok("a\\032b")),
            ("a..b", Err(NameError::Empty)),
            (".a", Err(NameError::Empty)),
        ];
        for (text, want) in table {
            let got = Name::parse(text.as_bytes()).map(|name| name.to_string());
            assert_eq!(got, want.map(String::from), "{text}");
        }
        assert_eq!(Name::parse(&[b'a'; 64]), Err(NameError::LongLabel));
        let long = vec!["a".repeat(63); 4].join(".");
        assert_eq!(Name::parse(long.as_bytes()), Err(NameError::Long));
    }

    #[test]
    fn addresses_are_reversed_as_lists_want_them() {
        let zone = Name::parse(b"bl.example").unwrap();
        let name = |ip: &str| {
            Name::reversed(ip.parse().unwrap(), &zone)
                .unwrap()
                .to_string()
        };
        assert_eq!(name("192.0.2.99"), "99.2.0.192.bl.example");
        assert_eq!(
            name("2001:db8:1:2:3:4:567:89ab"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.example"
        );
    }
}
