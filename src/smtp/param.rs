//! The parameters of MAIL and RCPT as a table: keyword, the extension that brings it, where it may stand, and its grammar. A new parameter is
//! a row. Values are checked and pass on byte for byte.

use crate::decimal;
use crate::extension::ExtensionSet;
use crate::limits::{ENVID_MAX, ORCPT_MAX};
use crate::violation::Violation;

/// BODY= of MAIL.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BodyType {
    /// Also what no BODY= means.
    #[default]
    SevenBit,
    EightBitMime,
    BinaryMime,
}

/// The command that a parameter stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    Mail,
    Rcpt,
}

/// What the parameters of one command say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Params {
    pub size: Option<u64>,
    pub body: BodyType,
    pub smtputf8: bool,
    /// Extensions an upstream must have to be sent these parameters. Never SIZE: that one can be left out.
    pub uses: ExtensionSet,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keyword {
    Size,
    Body,
    SmtpUtf8,
    Ret,
    EnvId,
    Auth,
    Notify,
    Orcpt,
    RequireTls,
}

struct Row {
    name: &'static str,
    keyword: Keyword,
    place: Place,
    brought_by: ExtensionSet,
}

const TABLE: [Row; 9] = [
    Row {
        name: "SIZE",
        keyword: Keyword::Size,
        place: Place::Mail,
        brought_by: ExtensionSet::SIZE,
    },
    // BODY=BINARYMIME needs more: see `Params::set`
    Row {
        name: "BODY",
        keyword: Keyword::Body,
        place: Place::Mail,
        brought_by: ExtensionSet::NONE,
    },
    Row {
        name: "SMTPUTF8",
        keyword: Keyword::SmtpUtf8,
        place: Place::Mail,
        brought_by: ExtensionSet::SMTPUTF8,
    },
    Row {
        name: "RET",
        keyword: Keyword::Ret,
        place: Place::Mail,
        brought_by: ExtensionSet::DSN,
    },
    Row {
        name: "ENVID",
        keyword: Keyword::EnvId,
        place: Place::Mail,
        brought_by: ExtensionSet::DSN,
    },
    // only where AUTH passes through: see `dedicated`
    Row {
        name: "AUTH",
        keyword: Keyword::Auth,
        place: Place::Mail,
        brought_by: ExtensionSet::AUTH,
    },
    Row {
        name: "NOTIFY",
        keyword: Keyword::Notify,
        place: Place::Rcpt,
        brought_by: ExtensionSet::DSN,
    },
    Row {
        name: "ORCPT",
        keyword: Keyword::Orcpt,
        place: Place::Rcpt,
        brought_by: ExtensionSet::DSN,
    },
    Row {
        name: "REQUIRETLS",
        keyword: Keyword::RequireTls,
        place: Place::Mail,
        brought_by: ExtensionSet::REQUIRETLS,
    },
];

/// Reads the parameters of a MAIL or RCPT: `KEYWORD[=value]`, separated by blanks. Those of extensions that were not announced are refused.
pub fn parse(params: &[u8], place: Place, announced: ExtensionSet) -> Result<Params, Violation> {
    let mut said = Params::default();
    let mut seen = 0u16;
    for word in words(params) {
        let (name, value) = split(word);
        let index = row_index(name, place).ok_or_else(|| unknown(name))?;
        let row = &TABLE[index];
        if !announced.contains(row.brought_by) {
            return Err(row.not_announced());
        }
        if seen & 1 << index != 0 {
            return Err(Violation::BadParameter);
        }
        seen |= 1 << index;
        said.set(row.keyword, value, announced)?;
        if row.keyword != Keyword::Size {
            said.uses.insert(row.brought_by);
        }
    }
    Ok(said)
}

impl Row {
    /// Who asks for protection is told that there is none (RFC 8689, 4.2.1), not that the word is unknown.
    fn not_announced(&self) -> Violation {
        match self.keyword {
            Keyword::RequireTls => Violation::NoRequireTls,
            _ => Violation::ParameterNotAnnounced,
        }
    }
}

/// Each of `params` but the one called `keyword`: for an upstream that would not know it.
pub fn without<'a>(params: &'a [u8], keyword: &str) -> impl Iterator<Item = &'a [u8]> {
    words(params).filter(move |word| !split(word).0.eq_ignore_ascii_case(keyword.as_bytes()))
}

fn words(params: &[u8]) -> impl Iterator<Item = &[u8]> {
    params
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
}

fn split(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'=', word) {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    }
}

fn row_index(name: &[u8], place: Place) -> Option<usize> {
    TABLE
        .iter()
        .position(|row| row.place == place && name.eq_ignore_ascii_case(row.name.as_bytes()))
}

/// A word that could be somebody's parameter was not announced; anything else is no parameter at all.
fn unknown(name: &[u8]) -> Violation {
    let legal = name.first().is_some_and(u8::is_ascii_alphanumeric)
        && name
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if legal {
        Violation::ParameterNotAnnounced
    } else {
        Violation::BadParameter
    }
}

impl Params {
    fn set(
        &mut self,
        keyword: Keyword,
        value: Option<&[u8]>,
        announced: ExtensionSet,
    ) -> Result<(), Violation> {
        let legal = match (keyword, value) {
            (Keyword::SmtpUtf8, None) => {
                self.smtputf8 = true;
                true
            }
            (Keyword::RequireTls, None) => true,
            (Keyword::SmtpUtf8 | Keyword::RequireTls, Some(_)) | (_, None) => false,
            (Keyword::Size, Some(value)) => {
                // RFC 1870, 4: at most 20 digits; what does not fit into 64 bits is too big for anybody
                self.size = decimal::read(value).filter(|_| value.len() <= 20);
                self.size.is_some()
            }
            (Keyword::Body, Some(value)) => return self.set_body(value, announced),
            (Keyword::Ret, Some(value)) => is_one_of(value, &["FULL", "HDRS"]),
            (Keyword::EnvId, Some(value)) => value.len() <= ENVID_MAX && is_xtext(value),
            // RFC 4954, 5: a mailbox or "<>", as xtext
            (Keyword::Auth, Some(value)) => !value.is_empty() && is_xtext(value),
            (Keyword::Notify, Some(value)) => is_notify(value),
            (Keyword::Orcpt, Some(value)) => return self.set_orcpt(value, announced),
        };
        if legal {
            Ok(())
        } else {
            Err(Violation::BadParameter)
        }
    }

    fn set_body(&mut self, value: &[u8], announced: ExtensionSet) -> Result<(), Violation> {
        let needs = if value.eq_ignore_ascii_case(b"7BIT") {
            ExtensionSet::EIGHTBITMIME
        } else if value.eq_ignore_ascii_case(b"8BITMIME") {
            self.body = BodyType::EightBitMime;
            ExtensionSet::EIGHTBITMIME
        } else if value.eq_ignore_ascii_case(b"BINARYMIME") {
            self.body = BodyType::BinaryMime;
            ExtensionSet::BINARYMIME.union(ExtensionSet::CHUNKING)
        } else {
            return Err(Violation::BadParameter);
        };
        if !announced.contains(needs) {
            return Err(Violation::ParameterNotAnnounced);
        }
        self.uses.insert(needs);
        Ok(())
    }

    /// `addr-type;xtext` (RFC 3461, 4.2), or `utf-8;` and UTF-8 as it is (RFC 6533, 3), which only SMTPUTF8 can carry.
    fn set_orcpt(&mut self, value: &[u8], announced: ExtensionSet) -> Result<(), Violation> {
        let at = memchr::memchr(b';', value).ok_or(Violation::BadParameter)?;
        let (kind, address) = (&value[..at], &value[at + 1..]);
        let kind_legal = !kind.is_empty()
            && kind
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if value.len() > ORCPT_MAX || !kind_legal {
            return Err(Violation::BadParameter);
        }
        let plain = is_xtext(address);
        let utf8 = !plain && kind.eq_ignore_ascii_case(b"utf-8") && is_utf8_text(address);
        if utf8 && !announced.contains(ExtensionSet::SMTPUTF8) {
            return Err(Violation::ParameterNotAnnounced);
        }
        if utf8 {
            self.uses.insert(ExtensionSet::SMTPUTF8);
        }
        if plain || utf8 {
            Ok(())
        } else {
            Err(Violation::BadParameter)
        }
    }
}

fn is_one_of(value: &[u8], words: &[&str]) -> bool {
    words
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word.as_bytes()))
}

/// NEVER, or some of SUCCESS, FAILURE, DELAY (RFC 3461, 4.1).
fn is_notify(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"NEVER")
        || value
            .split(|&byte| byte == b',')
            .all(|word| is_one_of(word, &["SUCCESS", "FAILURE", "DELAY"]))
}

/// RFC 3461, 4: printable ASCII but "+" and "=", which are written "+2B" and "+3D" as anything else can be.
fn is_xtext(value: &[u8]) -> bool {
    let mut rest = value;
    loop {
        rest = match rest {
            [] => return true,
            [b'+', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [b'+' | b'=', ..] => return false,
            [b'!'..=b'~', rest @ ..] => rest,
            _ => return false,
        }
    }
}

/// RFC 6533, 3, read loosely: UTF-8 without controls, blanks and "=".
fn is_utf8_text(value: &[u8]) -> bool {
    core::str::from_utf8(value)
        .is_ok_and(|text| text.chars().all(|c| c > ' ' && c != '=' && !c.is_control()))
}
