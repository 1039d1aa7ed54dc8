//! Addresses that nobody writes to who was asked: recipients that give a sender away.
//!
//! Written as --deny-recipient is: addresses, domains, local parts. The null sender springs no trap: bounces and callouts
//! come to addresses that others have put on their mail.

use weir_smtp::path::Path;

use super::access::{Access, AccessBuilder, ListError, Listed, Subject};

/// The list. Read once, shared by all shards, replaced whole on reload.
#[derive(Clone, Default)]
pub struct Spamtraps(Access);

impl Spamtraps {
    pub fn parse(text: &str) -> Result<Spamtraps, Vec<ListError>> {
        let mut lists = AccessBuilder::default();
        let errors = lists.read(Subject::Recipient, Listed::Deny, text);
        match errors.is_empty() {
            true => Ok(Spamtraps(lists.build())),
            false => Err(errors),
        }
    }

    pub fn has(&self, recipient: &Path<'_>) -> bool {
        self.0.recipient(recipient).is_some()
    }

    pub fn len(&self) -> usize {
        self.0.len(Subject::Recipient)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_smtp::path;

    #[test]
    fn addresses_and_domains_are_traps() {
        let text = "Trap@Example.com # an old one\n@trap.example\n.deep.example\n";
        let traps = Spamtraps::parse(text).expect("a list");
        assert_eq!(traps.len(), 3);
        let table = [
            ("<trap@example.COM>", true),
            ("<traps@example.com>", false),
            ("<any.body@TRAP.example>", true),
            ("<any@sub.trap.example>", false),
            ("<any@sub.deep.example>", true),
            ("<any@nottrap.example>", false),
            ("<Postmaster>", false),
            ("<@hop.example:trap@example.com>", true),
        ];
        for (text, want) in table {
            let (path, _) = path::parse(text.as_bytes()).expect("a path");
            assert_eq!(traps.has(&path), want, "{text}");
        }
        let errors = Spamtraps::parse("a@b.example\na b\n").err();
        assert_eq!(errors.expect("a wrong line")[0].line, 2);
    }
}
