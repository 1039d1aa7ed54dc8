//! The verbs of SMTP as a table. A new verb is a row here and an arm in `command`.

/// What the first word of a command line says.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    StartTls,
    Auth,
    Etrn,
    Turn,
    Xclient,
    Xforward,
}

/// Sorted by how often a busy server sees them: the search is linear.
const TABLE: [(u64, Verb); 18] = [
    (key(b"RCPT"), Verb::Rcpt),
    (key(b"MAIL"), Verb::Mail),
    (key(b"DATA"), Verb::Data),
    (key(b"BDAT"), Verb::Bdat),
    (key(b"EHLO"), Verb::Ehlo),
    (key(b"QUIT"), Verb::Quit),
    (key(b"RSET"), Verb::Rset),
    (key(b"HELO"), Verb::Helo),
    (key(b"NOOP"), Verb::Noop),
    (key(b"STARTTLS"), Verb::StartTls),
    (key(b"AUTH"), Verb::Auth),
    (key(b"VRFY"), Verb::Vrfy),
    (key(b"EXPN"), Verb::Expn),
    (key(b"HELP"), Verb::Help),
    (key(b"ETRN"), Verb::Etrn),
    (key(b"TURN"), Verb::Turn),
    (key(b"XCLIENT"), Verb::Xclient),
    (key(b"XFORWARD"), Verb::Xforward),
];

impl Verb {
    /// The verb that `word` spells, in any case.
    pub fn parse(word: &[u8]) -> Option<Verb> {
        if word.len() < 4 || word.len() > 8 || word[0] == 0 {
            return None;
        }
        let key = key(word);
        TABLE.iter().find(|row| row.0 == key).map(|row| row.1)
    }

    /// The verb as it is written, for logs.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Ehlo => "EHLO",
            Verb::Helo => "HELO",
            Verb::Mail => "MAIL",
            Verb::Rcpt => "RCPT",
            Verb::Data => "DATA",
            Verb::Bdat => "BDAT",
            Verb::Rset => "RSET",
            Verb::Noop => "NOOP",
            Verb::Vrfy => "VRFY",
            Verb::Expn => "EXPN",
            Verb::Help => "HELP",
            Verb::Quit => "QUIT",
            Verb::StartTls => "STARTTLS",
            Verb::Auth => "AUTH",
            Verb::Etrn => "ETRN",
            Verb::Turn => "TURN",
            Verb::Xclient => "XCLIENT",
            Verb::Xforward => "XFORWARD",
        }
    }
}

/// Up to eight letters as one integer, upper case, so that a look-up is a comparison. A shorter word has zero bytes in front, so no
/// word may begin with NUL.
const fn key(word: &[u8]) -> u64 {
    assert!(word.len() <= 8, "a verb has at most eight letters");
    let mut key = 0;
    let mut i = 0;
    while i < word.len() {
        key = key << 8 | word[i].to_ascii_uppercase() as u64;
        i += 1;
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn every_row_is_found_under_its_own_word_in_any_case() {
        for (_, verb) in TABLE {
            assert_eq!(Verb::parse(verb.word().as_bytes()), Some(verb));
            let low = verb.word().to_ascii_lowercase().to_string();
            assert_eq!(Verb::parse(low.as_bytes()), Some(verb));
        }
    }

    #[test]
    fn near_misses_are_not_verbs() {
        for word in [
            "",
            "M",
            "MAI",
            "MAIL ",
            "MAILX",
            "EHLO\0",
            "\0MAIL",
            "STARTTLSX",
            "XFORWARDX",
            "\u{212a}ELP",
        ] {
            assert_eq!(Verb::parse(word.as_bytes()), None, "{word:?}");
        }
    }
}
