//! Lists of names: what clients call themselves, and addresses of senders and recipients.
//!
//! | entry | names in HELO | addresses |
//! |---|---|---|
//! | `mx.example.com` | this name | every address at this domain |
//! | `.example.com`, `*.example.com` | all names below it | every address at a domain below it |
//! | `[192.0.2.1]`, `[IPv6:2001:db8::1]` | this literal | every address at it, written `@[192.0.2.1]` |
//! | `user@example.com` | | this address |
//! | `@example.com`, `@.example.com` | | as without the @ |
//! | `user@` | | this local part at any domain, and without one |
//! | `<>` | | the null sender |
//!
//! The more specific entry counts: an address before its domain, a domain before those above it, these before `user@`.
//! ASCII letters are compared without case, in local parts too: few servers tell `Joe` from `joe`, and no list should be passed by
//! writing it otherwise. For the same reason `"joe"@example.com` is `joe@example.com`.

use std::io::Write as _;

use weir_smtp::limits::{HELO_MAX, MAILBOX_MAX};
use weir_smtp::path::{self, Path};

use super::super::relay::{is_domain, literal};
use super::words::Words;

/// Octets of the longest key: a mailbox, or a literal written out.
const KEY_MAX: usize = MAILBOX_MAX + 64;
const _: () = assert!(HELO_MAX <= KEY_MAX, "a name in HELO fits a key");

/// What a list is about; decides how its lines are read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Kind {
    Names,
    Addresses,
}

/// Names or addresses, each with what is said of it.
#[derive(Clone, Debug)]
pub(super) struct Names<T> {
    words: Words<T>,
    /// There are entries `.domain`, and entries `user@`.
    has_below: bool,
    has_locals: bool,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names {
            words: Words::default(),
            has_below: false,
            has_locals: false,
        }
    }
}

impl<T: Copy> Names<T> {
    /// Reads one entry. Of two that say the same the later counts.
    pub(super) fn insert(&mut self, kind: Kind, entry: &str, value: T) -> Result<(), NameError> {
        let key = match kind {
            Kind::Names => name_key(entry).ok_or(NameError::Name)?,
            Kind::Addresses => address_key(entry).ok_or(NameError::Address)?,
        };
        let key = key.as_bytes();
        self.has_below |= key.starts_with(b".");
        self.has_locals |= key.ends_with(b"@") && key.len() > 1;
        match self.words.insert(key, value) {
            true => Ok(()),
            false => Err(NameError::Full),
        }
    }

    /// What is said of a name in HELO.
    pub(super) fn name(&self, name: &[u8]) -> Option<T> {
        if self.words.len() == 0 {
            return None;
        }
        let name = name.strip_suffix(b".").unwrap_or(name);
        if name.starts_with(b".") {
            return None;
        }
        let mut key = Key::default();
        key.push_domain(name);
        let key = key.as_bytes();
        self.words.get(key).or_else(|| self.below(key))
    }

    /// What is said of an address.
    pub(super) fn address(&self, path: &Path<'_>) -> Option<T> {
        if self.words.len() == 0 {
            return None;
        }
        if path.null {
            return self.words.get(NULL);
        }
        let key = Key::of(path);
        let key = key.as_bytes();
        let at = memchr::memrchr(b'@', key)?;
        let exact = self.words.get(key).or_else(|| self.words.get(&key[at..]));
        let around = exact.or_else(|| self.below(&key[at + 1..]));
        around.or_else(|| match self.has_locals {
            true => self.words.get(&key[..=at]),
            false => None,
        })
    }

    /// The nearest domain above this one that is listed with all below it.
    fn below(&self, domain: &[u8]) -> Option<T> {
        if !self.has_below {
            return None;
        }
        let mut dots = memchr::memchr_iter(b'.', domain).filter(|dot| *dot > 0);
        dots.find_map(|dot| self.words.get(&domain[dot..]))
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    pub(super) fn memory(&self) -> usize {
        self.words.memory()
    }
}

/// The null sender.
const NULL: &[u8] = b"<>";

/// An entry of a list of names; None if it is none.
fn name_key(entry: &str) -> Option<Key> {
    let mut key = Key::default();
    match below(entry) {
        Some(domain) => key.push_below(domain)?,
        None if is_domain(entry) || literal(entry.as_bytes()).is_some() => {
            key.push_domain(entry.as_bytes());
        }
        None => return None,
    }
    Some(key)
}

/// An entry of a list of addresses; None if it is none.
fn address_key(entry: &str) -> Option<Key> {
    let mut key = Key::default();
    if entry.as_bytes() == NULL {
        key.push(NULL);
        return Some(key);
    }
    let domain = match entry.rsplit_once('@') {
        // A single word is more likely half an address than a domain.
        None => Some(entry).filter(|entry| entry.contains('.'))?,
        Some(("", domain)) => domain,
        // Nobody's name, and no pattern here: all of a domain is `@domain`.
        Some(("*", _)) => return None,
        Some((local, domain)) => {
            let domain = if domain.is_empty() { "any" } else { domain };
            let whole = format!("<{local}@{domain}>");
            let (path, rest) = path::parse(whole.as_bytes()).ok()?;
            let plain = rest.is_empty() && path.whole.len() == path.mailbox.len() + 2;
            let path = Path {
                domain: match entry.ends_with('@') {
                    true => b"",
                    false => path.domain,
                },
                ..path
            };
            return plain.then(|| Key::of(&path));
        }
    };
    match below(domain) {
        Some(domain) => key.push_below(domain)?,
        None if is_domain(domain) || literal(domain.as_bytes()).is_some() => {
            key.push(b"@");
            key.push_domain(domain.as_bytes());
        }
        None => return None,
    }
    Some(key)
}

/// The domain of `.domain` and `*.domain`.
fn below(entry: &str) -> Option<&str> {
    entry.strip_prefix("*.").or_else(|| entry.strip_prefix('.'))
}

/// The form in which entries are kept and looked up: without quotes, in lower case.
struct Key {
    octets: [u8; KEY_MAX],
    len: usize,
}

impl Default for Key {
    fn default() -> Key {
        Key {
            octets: [0; KEY_MAX],
            len: 0,
        }
    }
}

impl Key {
    /// `local@domain`; the domain may be missing.
    fn of(path: &Path<'_>) -> Key {
        let mut key = Key::default();
        key.push_local(path.local);
        key.push(b"@");
        key.push_domain(path.domain);
        key
    }

    fn as_bytes(&self) -> &[u8] {
        &self.octets[..self.len]
    }

    /// What does not fit is cut: paths and names are shorter, whoever parsed them.
    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.octets[self.len..];
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        room[..len].make_ascii_lowercase();
        self.len += len;
    }

    fn push_local(&mut self, local: &[u8]) {
        let quoted = local
            .strip_prefix(b"\"")
            .and_then(|rest| rest.strip_suffix(b"\""));
        let Some(mut rest) = quoted else {
            return self.push(local);
        };
        while let Some(backslash) = memchr::memchr(b'\\', rest) {
            self.push(&rest[..backslash]);
            // The octet behind it stands for itself.
            let (escaped, behind) = rest[backslash + 1..]
                .split_at_checked(1)
                .unwrap_or_default();
            self.push(escaped);
            rest = behind;
        }
        self.push(rest);
    }

    /// A literal is written as the address it means.
    fn push_domain(&mut self, domain: &[u8]) {
        let Some(ip) = literal(domain) else {
            return self.push(domain);
        };
        let mut room = &mut self.octets[self.len..];
        let before = room.len();
        let written = write!(room, "[{ip}]");
        let left = room.len();
        match written {
            Ok(()) => self.len += before - left,
            Err(_) => self.push(domain),
        }
    }

    fn push_below(&mut self, domain: &str) -> Option<()> {
        is_domain(domain).then(|| {
            self.push(b".");
            self.push(domain.as_bytes());
        })
    }
}

/// Why a line of a list of names could not be read.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NameError {
    Name,
    Address,
    /// More than 4 GiB of names.
    Full,
}

impl std::error::Error for NameError {}

impl std::fmt::Display for NameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NameError::Name => {
                "not a name, as in mx.example.com, or .example.com for all names below it"
            }
            NameError::Address => {
                "not an address, as in user@example.com, @example.com, .example.com, user@ or <>"
            }
            NameError::Full => "the list is too long",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: Kind, entries: &[(&str, u8)]) -> Names<u8> {
        let mut names = Names::default();
        for (entry, value) in entries {
            assert_eq!(names.insert(kind, entry, *value), Ok(()), "{entry}");
        }
        names
    }

    #[test]
    fn names_in_helo() {
        let names = names(
            Kind::Names,
            &[
                ("mx.Example.com", 1),
                (".example.com", 2),
                ("*.bad.example.com", 3),
                ("localhost", 4),
                ("[192.0.2.1]", 5),
                ("[IPv6:2001:db8:0::1]", 6),
                ("ylmf-pc", 7),
                ("192.0.2.7", 8),
                ("bücher.example", 9),
            ],
        );
        let table: &[(&str, Option<u8>)] = &[
            ("MX.example.COM", Some(1)),
            ("mx.example.com.", Some(1)),
            ("a.mx.example.com", Some(2)),
            ("other.example.com", Some(2)),
            ("bad.example.com", Some(2)),
            ("x.bad.example.com", Some(3)),
            ("example.com", None),
            ("xexample.com", None),
            (".example.com", None),
            ("LocalHost", Some(4)),
            ("[192.0.2.1]", Some(5)),
            ("[192.0.2.2]", None),
            ("[ipv6:2001:DB8::1]", Some(6)),
            ("192.0.2.1", None),
            ("192.0.2.7", Some(8)),
            ("bücher.example", Some(9)),
            ("ylmf-pc", Some(7)),
            ("", None),
            (".", None),
        ];
        for (name, want) in table {
            assert_eq!(names.name(name.as_bytes()), *want, "{name}");
        }
        let long = vec![b'.'; 4096];
        assert_eq!(names.name(&long), None);
    }

    #[test]
    fn addresses() {
        let names = names(
            Kind::Addresses,
            &[
                ("Joe@Example.com", 1),
                ("@example.com", 2),
                ("@.example.com", 3),
                ("other.example", 4),
                ("*.deep.other.example", 5),
                ("abuse@", 6),
                ("\"two words\"@example.com", 7),
                ("<>", 8),
                ("@[192.0.2.1]", 9),
                ("user#1@example.com", 10),
                ("\"a@b\"@example.com", 11),
            ],
        );
        let table: &[(&str, Option<u8>)] = &[
            ("<joe@example.com>", Some(1)),
            ("<JOE@EXAMPLE.COM>", Some(1)),
            ("<\"joe\"@example.com>", Some(1)),
            ("<\"j\\oe\"@example.com>", Some(1)),
            ("<@relay.example:joe@example.com>", Some(1)),
            ("<jane@example.com>", Some(2)),
            ("<joe@a.example.com>", Some(3)),
            ("<joe@a.b.example.com>", Some(3)),
            ("<joe@other.example>", Some(4)),
            ("<joe@deep.other.example>", None),
            ("<joe@x.deep.other.example>", Some(5)),
            ("<abuse@third.example>", Some(6)),
            ("<abuse@other.example>", Some(4)),
            ("<\"Two Words\"@example.com>", Some(7)),
            ("<>", Some(8)),
            ("<postmaster>", None),
            ("<x@[192.0.2.1]>", Some(9)),
            ("<x@[192.0.2.2]>", None),
            ("<user#1@example.com>", Some(10)),
            ("<\"a@b\"@example.com>", Some(11)),
            ("<xexample.com@third.example>", None),
            ("<joe@xexample.com>", None),
        ];
        for (text, want) in table {
            let (path, _) = path::parse(text.as_bytes()).expect(text);
            assert_eq!(names.address(&path), *want, "{text}");
        }
    }

    #[test]
    fn postmaster_needs_no_domain() {
        let names = names(Kind::Addresses, &[("postmaster@", 1)]);
        for text in ["<Postmaster>", "<postmaster@example.com>"] {
            let (path, _) = path::parse(text.as_bytes()).expect(text);
            assert_eq!(names.address(&path), Some(1), "{text}");
        }
    }

    #[test]
    fn what_is_no_entry() {
        let not_names = [
            "",
            ".",
            "*.",
            "*",
            "..a",
            "a..b",
            "a b",
            "user@example.com",
            "-/-",
            "<>",
            "[192.0.2]",
            "a.",
            "@example.com",
            ".[192.0.2.1]",
        ];
        let not_addresses = [
            "",
            "@",
            "joe",
            "joe@@example.com",
            "a b@example.com",
            "@a b",
            ".",
            "@.",
            "*@example.com",
            "<joe@example.com>",
            "joe@.example.com",
            "joe@example.com.",
            "@relay:joe@example.com",
            "\"joe@example.com",
            "example.com/24",
        ];
        let refused = |kind, entries: &[&str], why| {
            for entry in entries {
                let read = Names::default().insert(kind, entry, 0);
                assert_eq!(read, Err(why), "{entry}");
            }
        };
        refused(Kind::Names, &not_names, NameError::Name);
        refused(Kind::Addresses, &not_addresses, NameError::Address);
    }
}
