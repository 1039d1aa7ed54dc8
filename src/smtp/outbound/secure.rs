//! TLS on the upstream's side: when it is asked for, what a connection is worth with it, what is forgotten by it (RFC 3207).
//!
//! A server's offer of STARTTLS comes in plaintext, so whoever sits in the path can take it away. Where TLS is wanted if it can be had, that
//! is the price of having mail delivered at all; where it is required the connection is lost instead.

use super::commands::write_hello;
use super::{Outbound, Owed, Phase};
use crate::extension::{Capabilities, ExtensionSet};
use crate::reply::ReplyReader;
use crate::starttls::PlaintextDrained;

/// Whether a connection is to be inside TLS before mail goes over it.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub enum TlsWanted {
    #[default]
    Off,
    /// Where it is offered.
    May,
    /// No mail without it.
    Require,
}

/// What a connection is protected by.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Protection {
    Plaintext,
    /// TLS with whoever is there.
    Encrypted,
    /// TLS with a server that has proven its name.
    Verified,
}

impl Outbound {
    /// To be said before the first octet comes.
    pub fn set_tls(&mut self, wanted: TlsWanted) {
        assert!(
            self.phase == Phase::Greeting,
            "what a server offers is looked at once"
        );
        self.tls = wanted;
    }

    /// The server agreed to STARTTLS: the driver begins the handshake, with the proof of [`Outbound::plaintext_drained`], and calls
    /// [`Outbound::handle_secured`] when it is over. If it fails, the connection is lost.
    pub fn wants_tls(&self) -> bool {
        self.phase == Phase::Securing
    }

    /// `unread`: octets received and not fed. The proof that a handshake may begin; none while something of the plaintext is left, or
    /// none is due.
    pub fn plaintext_drained(&self, unread: usize) -> Option<PlaintextDrained> {
        let holds = self.phase != Phase::Securing
            || !self.reader.is_empty()
            || !self.owed.is_empty()
            || !self.out.is_empty();
        PlaintextDrained::proven(holds, unread)
    }

    /// The handshake is over, of STARTTLS or from the first octet; `verified`: the server has proven its name. What it said before does not
    /// count any more (RFC 3207, 4.2): it is greeted again.
    pub fn handle_secured(&mut self, verified: bool) {
        let implicit = self.phase == Phase::Greeting && self.reader.is_empty();
        assert!(
            implicit || self.phase == Phase::Securing,
            "a handshake in the middle of something"
        );
        self.protection = if verified {
            Protection::Verified
        } else {
            Protection::Encrypted
        };
        if implicit {
            return;
        }
        self.caps = Capabilities::default();
        self.reader = ReplyReader::default();
        self.failures = 0;
        self.phase = Phase::Hello;
        self.unsent = 1;
        write_hello(&mut self.out, Owed::Ehlo, &self.hostname);
        self.owed.push_back(Owed::Ehlo);
    }

    /// What is sent over it is encrypted.
    pub fn is_secured(&self) -> bool {
        self.protection != Protection::Plaintext
    }
}

impl Protection {
    /// What counts of an EHLO reply that came so protected. REQUIRETLS is an offer only of a server that is known to be who it says
    /// (RFC 8689, 2); STARTTLS is none inside TLS (RFC 3207, 4.2).
    pub(super) fn limit(self, mut caps: Capabilities) -> Capabilities {
        if self != Protection::Plaintext {
            caps.set.remove(ExtensionSet::STARTTLS);
        }
        if self != Protection::Verified {
            caps.set.remove(ExtensionSet::REQUIRETLS);
        }
        caps
    }

    /// What comes of a connection that stays as it is.
    pub(super) fn suffices(self, wanted: TlsWanted) -> Phase {
        match (self, wanted) {
            (Protection::Plaintext, TlsWanted::Require) => Phase::Lost,
            _ => Phase::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LegLost;
    use super::super::tests::{say, sent};
    use super::*;
    use crate::extension::ExtensionSet;
    use alloc::sync::Arc;
    use alloc::vec::Vec;

    const OFFER: &[u8] = b"250-mx\r\n250-STARTTLS\r\n250-PIPELINING\r\n250 REQUIRETLS\r\n";

    fn greeted(tls: TlsWanted) -> Outbound {
        let mut leg = Outbound::new(Arc::from(&b"w"[..]));
        leg.set_tls(tls);
        say(&mut leg, b"220 mx\r\n").unwrap();
        assert_eq!(sent(&mut leg), b"EHLO w\r\n");
        leg
    }

    /// Up to where STARTTLS has been sent.
    fn asking(tls: TlsWanted) -> Outbound {
        let mut leg = greeted(tls);
        assert_eq!(say(&mut leg, OFFER).unwrap(), [(Owed::Ehlo, 250)]);
        assert_eq!(sent(&mut leg), b"STARTTLS\r\n");
        assert!(!leg.is_ready() && !leg.is_reusable());
        leg
    }

    fn keywords(leg: &Outbound) -> ExtensionSet {
        leg.capabilities().set
    }

    #[test]
    fn nothing_said_before_tls_is_used_after_it() {
        let mut leg = asking(TlsWanted::May);
        assert_eq!(leg.plaintext_drained(0), None);
        assert_eq!(
            say(&mut leg, b"220 go\r\n").unwrap(),
            [(Owed::StartTls, 220)]
        );
        assert!(leg.wants_tls() && !leg.is_ready() && leg.plaintext_drained(1).is_none());
        assert!(leg.plaintext_drained(0).is_some());
        leg.handle_secured(false);
        assert!(!leg.wants_tls() && leg.is_secured() && keywords(&leg).is_empty());
        assert_eq!(sent(&mut leg), b"EHLO w\r\n");
        say(&mut leg, b"250-mx\r\n250-STARTTLS\r\n250 SIZE 5\r\n").unwrap();
        assert!(leg.is_reusable(), "STARTTLS is not taken up inside TLS");
        assert_eq!(keywords(&leg), ExtensionSet::SIZE);
    }

    #[test]
    fn requiretls_counts_only_where_the_name_was_proven() {
        for (verified, want) in [
            (false, ExtensionSet::NONE),
            (true, ExtensionSet::REQUIRETLS),
        ] {
            let mut leg = asking(TlsWanted::Require);
            assert!(
                !keywords(&leg).contains(ExtensionSet::REQUIRETLS),
                "in plaintext"
            );
            say(&mut leg, b"220 go\r\n").unwrap();
            leg.handle_secured(verified);
            sent(&mut leg);
            say(&mut leg, OFFER).unwrap();
            assert_eq!(keywords(&leg).intersect(ExtensionSet::REQUIRETLS), want);
        }
    }

    #[test]
    fn plaintext_behind_the_220_ends_the_connection() {
        let glued: &[&[u8]] = &[
            b"250 mx\r\n",
            b"250-mx\r\n250 SIZE\r\n",
            b"2",
            b"\r\n",
            b"\x16\x03\x03",
            b"421 bye\r\n",
        ];
        for more in glued {
            let mut leg = asking(TlsWanted::May);
            let whole = [b"220 go\r\n", *more].concat();
            assert_eq!(say(&mut leg, &whole), Err(LegLost::Injection), "{more:?}");
            let mut leg = asking(TlsWanted::May);
            say(&mut leg, b"220 go\r\n").unwrap();
            assert_eq!(say(&mut leg, more), Err(LegLost::Injection), "{more:?}");
            assert_eq!(leg.plaintext_drained(0), None, "too late to begin");
            assert!(!leg.wants_tls());
        }
    }

    #[test]
    fn a_220_before_starttls_has_left_answers_something_else() {
        let mut leg = greeted(TlsWanted::May);
        let early = [OFFER, b"220 go\r\n"].concat();
        assert_eq!(say(&mut leg, &early), Err(LegLost::Protocol));
        let mut leg = Outbound::new(Arc::from(&b"w"[..]));
        leg.set_tls(TlsWanted::May);
        let early = [b"220 mx\r\n", OFFER].concat();
        assert_eq!(say(&mut leg, &early), Err(LegLost::Protocol));
    }

    #[test]
    fn a_refusal_of_starttls_leaves_plaintext_where_that_will_do() {
        for refusal in [
            &b"454 4.7.0 no\r\n"[..],
            b"500 what?\r\n",
            b"554-no\r\n554 no\r\n",
        ] {
            let mut leg = asking(TlsWanted::May);
            say(&mut leg, refusal).unwrap();
            assert!(leg.is_reusable() && !leg.is_secured() && !leg.wants_tls());
            assert!(keywords(&leg).contains(ExtensionSet::PIPELINING));
            let mut leg = asking(TlsWanted::Require);
            assert_eq!(say(&mut leg, refusal), Err(LegLost::NoTls));
            assert_eq!(say(&mut leg, b"250 but\r\n"), Err(LegLost::Protocol));
        }
    }

    #[test]
    fn answers_to_starttls_that_are_none_end_the_connection() {
        let table: &[(&[u8], LegLost)] = &[
            (b"250 sure\r\n", LegLost::Protocol),
            (b"221 sure\r\n", LegLost::Protocol),
            (b"354 sure\r\n", LegLost::Protocol),
            (b"421 busy\r\n", LegLost::Refused421),
            (b"\x15\x03\x03\0\x02\r\n", LegLost::Protocol),
        ];
        for (answer, want) in table {
            for tls in [TlsWanted::May, TlsWanted::Require] {
                assert_eq!(say(&mut asking(tls), answer), Err(*want), "{answer:?}");
            }
        }
    }

    #[test]
    fn a_server_without_starttls_will_do_only_where_it_may() {
        let mut leg = greeted(TlsWanted::May);
        say(&mut leg, b"250 mx\r\n").unwrap();
        assert!(leg.is_reusable());
        let mut leg = greeted(TlsWanted::Require);
        assert_eq!(say(&mut leg, b"250 mx\r\n"), Err(LegLost::NoTls));
        // HELO offers nothing
        let mut leg = greeted(TlsWanted::Require);
        say(&mut leg, b"502 what?\r\n").unwrap();
        sent(&mut leg);
        assert_eq!(say(&mut leg, b"250 mx\r\n"), Err(LegLost::NoTls));
        let mut leg = greeted(TlsWanted::Off);
        say(&mut leg, OFFER).unwrap();
        assert!(leg.is_reusable(), "not wanted");
    }

    #[test]
    fn tls_from_the_first_octet_needs_no_starttls() {
        for tls in [TlsWanted::Off, TlsWanted::Require] {
            let mut leg = Outbound::new(Arc::from(&b"w"[..]));
            leg.set_tls(tls);
            leg.handle_secured(true);
            assert_eq!(sent(&mut leg), Vec::<u8>::new(), "the greeting comes first");
            say(&mut leg, b"220 mx\r\n").unwrap();
            assert_eq!(sent(&mut leg), b"EHLO w\r\n");
            say(&mut leg, OFFER).unwrap();
            assert!(leg.is_reusable() && leg.is_secured());
            assert!(keywords(&leg).contains(ExtensionSet::REQUIRETLS));
        }
    }

    #[test]
    fn cuts_do_not_matter() {
        let text = b"220-go\r\n220 on\r\n";
        for at in 1..text.len() {
            let mut leg = asking(TlsWanted::May);
            assert!(say(&mut leg, &text[..at]).unwrap().is_empty());
            assert_eq!(leg.plaintext_drained(0), None, "half a reply");
            say(&mut leg, &text[at..]).unwrap();
            assert!(leg.plaintext_drained(0).is_some());
        }
    }
}
