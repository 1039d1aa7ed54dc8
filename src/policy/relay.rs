//! Who may send where: weir must never make an open relay of a server that trusts it.
//!
//! The mail server behind sees weir's address, often one it relays for. So weir decides, before
//! anything goes up: a recipient in one of our domains is for everybody, any other for the clients
//! of `--relay-from` only. There is no default that allows: `any` has to be said.
//!
//! An address can ask to be sent on by the server that gets it: a source route (`<@ours:user@other>`), the
//! percent hack (`user%other@ours`), a bang path (`other!user@ours`), a quoted address (`"user@other"@ours`).
//! Servers differ in what they make of these, so from strangers all of them are refused, as
//! Postfix does (allow_untrusted_routing), unless each hop of a route is ours.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use weir_smtp::path::Path;

use super::access::{self, ListError, Networks};

/// Domains longer than this do not exist (RFC 5321, 4.5.3.1.2).
const DOMAIN_MAX: usize = 255;

/// `--relay-domains` and `--relay-from`. The default allows nothing.
#[derive(Clone, Default)]
pub struct Relay {
    pub domains: RelayDomains,
    /// Clients that may send anywhere.
    pub from: Networks<()>,
    /// Our own addresses, for `postmaster@[192.0.2.1]`.
    pub own: Vec<IpAddr>,
}

impl Relay {
    /// Whether a client of `--relay-from`, which may send anywhere.
    pub fn is_from(&self, client: IpAddr) -> bool {
        self.from.contains(client)
    }

    /// Whether everybody may send anywhere.
    pub fn is_open(&self) -> bool {
        matches!(self.domains, RelayDomains::Any)
    }

    /// Whether anybody may send to this recipient.
    pub fn is_ours(&self, path: &Path<'_>) -> bool {
        if self.is_open() {
            return true;
        }
        if !hops(path).all(|hop| self.is_our_domain(hop)) {
            return false;
        }
        if path.domain.is_empty() {
            return path.local.eq_ignore_ascii_case(b"postmaster");
        }
        let forwards = path
            .local
            .iter()
            .any(|byte| matches!(byte, b'@' | b'%' | b'!'));
        !forwards && self.is_our_domain(path.domain)
    }

    fn is_our_domain(&self, domain: &[u8]) -> bool {
        match literal(domain) {
            Some(ip) => {
                self.own.iter().any(|own| own.to_canonical() == ip) || self.domains.contains(domain)
            }
            None => self.domains.contains(domain),
        }
    }
}

/// The hops of a source route; none for an ordinary address.
fn hops<'a>(path: &Path<'a>) -> impl Iterator<Item = &'a [u8]> {
    // "<" route ":" mailbox ">"; without a route, mailbox is all there is.
    let route_len = path.whole.len().saturating_sub(path.mailbox.len() + 2);
    let route = path.whole.get(1..1 + route_len).unwrap_or_default();
    let route = route.strip_suffix(b":").unwrap_or(route);
    let hops = (!route.is_empty()).then(|| route.split(|byte| *byte == b','));
    // What does not look like a hop is no domain of ours either.
    hops.into_iter()
        .flatten()
        .map(|hop| hop.strip_prefix(b"@").unwrap_or(b""))
}

/// The address of a literal `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
pub(super) fn literal(domain: &[u8]) -> Option<IpAddr> {
    let inner = domain.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let inner = std::str::from_utf8(inner).ok()?;
    match inner.split_at_checked(5) {
        Some((tag, ip)) if tag.eq_ignore_ascii_case("IPv6:") => {
            ip.parse::<Ipv6Addr>().ok().map(|ip| ip.to_canonical())
        }
        _ => inner.parse().ok().map(IpAddr::V4),
    }
}

/// `--relay-domains`.
#[derive(Clone)]
pub enum RelayDomains {
    /// Everybody may send anywhere.
    Any,
    These(Domains),
}

impl Default for RelayDomains {
    fn default() -> RelayDomains {
        RelayDomains::These(Domains::default())
    }
}

impl RelayDomains {
    /// `any`, or names with commas or blanks between them.
    pub fn parse(text: &str) -> Result<RelayDomains, Vec<DomainError>> {
        if text.trim().eq_ignore_ascii_case("any") {
            return Ok(RelayDomains::Any);
        }
        let mut domains = Domains::default();
        let words = text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|word| !word.is_empty());
        let errors: Vec<_> = words
            .filter_map(|word| domains.insert(word).err())
            .collect();
        if errors.is_empty() {
            Ok(RelayDomains::These(domains))
        } else {
            Err(errors)
        }
    }

    /// The content of a file: one name a line (or several), `#` begins a comment. `any` is not for files.
    pub fn parse_file(text: &str) -> Result<RelayDomains, Vec<ListError>> {
        let mut domains = Domains::default();
        let mut errors = Vec::new();
        for (number, line) in access::lines(text) {
            let words = line
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|word| !word.is_empty());
            errors.extend(words.filter_map(|word| {
                domains
                    .insert(word)
                    .err()
                    .map(|why| ListError::new(number, word, why))
            }));
            if errors.len() >= access::ERRORS_MAX {
                break;
            }
        }
        if errors.is_empty() {
            Ok(RelayDomains::These(domains))
        } else {
            Err(errors)
        }
    }

    pub fn contains(&self, domain: &[u8]) -> bool {
        match self {
            RelayDomains::Any => true,
            RelayDomains::These(list) => list.contains(domain),
        }
    }
}

/// A list of domains: `example.com` is that name alone, `.example.com` and `*.example.com` all names below it.
///
/// Compared byte by byte with ASCII letters in lower case. An internationalised name matches in the
/// form in which it is listed: list both `bücher.example` and `xn--bcher-kva.example`.
#[derive(Clone, Default, Debug)]
pub struct Domains {
    exact: HashSet<Box<[u8]>>,
    below: HashSet<Box<[u8]>>,
}

impl Domains {
    pub fn insert(&mut self, word: &str) -> Result<(), DomainError> {
        let (list, name) = match word.strip_prefix("*.").or_else(|| word.strip_prefix('.')) {
            Some(name) => (&mut self.below, name),
            None => (&mut self.exact, word),
        };
        // Meant as the word that lifts the rule, it would shut everybody out instead.
        let meant_any = name.eq_ignore_ascii_case("any");
        if meant_any || !is_domain(name) && literal(name.as_bytes()).is_none() {
            return Err(DomainError {
                word: word.chars().take(60).collect(),
            });
        }
        list.insert(name.to_ascii_lowercase().into_bytes().into());
        Ok(())
    }

    pub fn contains(&self, domain: &[u8]) -> bool {
        let mut lowered = [0; DOMAIN_MAX];
        let Some(name) = lowered.get_mut(..domain.len()) else {
            return false;
        };
        name.copy_from_slice(domain);
        name.make_ascii_lowercase();
        let name = &*name;
        if self.exact.contains(name) {
            return true;
        }
        let mut dots = memchr::memchr_iter(b'.', name);
        !self.below.is_empty() && dots.any(|dot| dot > 0 && self.below.contains(&name[dot + 1..]))
    }

    pub fn len(&self) -> usize {
        self.exact.len() + self.below.len()
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }
}

/// Labels of letters, digits, hyphens, underscores and UTF-8, with single dots between them.
pub(super) fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| {
                c.is_ascii_alphanumeric()
                    || matches!(c, '-' | '_')
                    || !c.is_ascii() && c.is_alphanumeric()
            })
    };
    name.len() <= DOMAIN_MAX && name.split('.').all(label)
}

/// Not a domain.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct DomainError {
    pub word: String,
}

impl std::error::Error for DomainError {}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\"{}\" is not a domain, as in example.com, or .example.com for all names below it",
            self.word.escape_debug()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_smtp::path;

    fn relay(domains: &str) -> Relay {
        Relay {
            domains: RelayDomains::parse(domains).unwrap_or_else(|errors| panic!("{errors:?}")),
            from: ["192.0.2.0/24".parse().unwrap()].into_iter().collect(),
            own: vec![
                "203.0.113.7".parse().unwrap(),
                "2001:db8::7".parse().unwrap(),
            ],
        }
    }

    fn is_ours(relay: &Relay, text: &str) -> bool {
        match path::parse(text.as_bytes()) {
            Ok((path, rest)) => {
                assert!(rest.is_empty(), "{text}");
                relay.is_ours(&path)
            }
            // 501 before it comes to this.
            Err(path::NotAPath) => false,
        }
    }

    #[test]
    fn recipients_of_our_domains_are_for_everybody() {
        let relay =
            relay("ours.example, .below.example *.star.example,bücher.example,[198.51.100.1]");
        let table = [
            ("<user@ours.example>", true),
            ("<USER@OURS.Example>", true),
            ("<\"quoted user\"@ours.example>", true),
            ("<user+tag=x@ours.example>", true),
            ("<user@sub.ours.example>", false),
            ("<user@xours.example>", false),
            ("<user@ours.example.evil.example>", false),
            ("<user@a.below.example>", true),
            ("<user@a.b.below.example>", true),
            ("<user@below.example>", false),
            ("<user@xbelow.example>", false),
            ("<user@a.star.example>", true),
            ("<user@star.example>", false),
            ("<user@bücher.example>", true),
            ("<user@xn--bcher-kva.example>", false),
            ("<user@other.example>", false),
            ("<postmaster>", true),
            ("<@ours.example:postmaster>", true),
            ("<@evil.example:postmaster>", false),
            ("<@ours.example,@evil.example:postmaster>", false),
            ("<PostMaster>", true),
            ("<user>", false),
            ("<>", false),
            ("<user@[203.0.113.7]>", true),
            ("<user@[IPv6:2001:db8::7]>", true),
            ("<user@[IPv6:2001:db8:0::7]>", true),
            ("<user@[ipv6:::ffff:203.0.113.7]>", true),
            ("<user@[198.51.100.1]>", true),
            ("<user@[203.0.113.8]>", false),
            ("<user@[IPv6:2001:db8::8]>", false),
        ];
        for (text, want) in table {
            assert_eq!(is_ours(&relay, text), want, "{text}");
        }
    }

    #[test]
    fn an_address_that_asks_to_be_sent_on_is_refused() {
        let relay = relay("ours.example");
        let tricks = [
            "<user%other.example@ours.example>",
            "<user%ours.example@ours.example>",
            "<user%other.example%ours.example@ours.example>",
            "<\"user%other.example\"@ours.example>",
            "<\"user@other.example\"@ours.example>",
            "<\"user\\@other.example\"@ours.example>",
            "<user\\@other.example@ours.example>",
            "<user@other.example@ours.example>",
            "<other.example!user@ours.example>",
            "<\"other.example!user\"@ours.example>",
            "<@ours.example:user@other.example>",
            "<@ours.example,@other.example:user@ours.example>",
            "<@other.example:user@ours.example>",
            "<@other.example,@ours.example:user@ours.example>",
            "<@ours.example:user%other.example@ours.example>",
            "<@ours.example:@other.example:user@ours.example>",
            "<user%other.example@[203.0.113.7]>",
            "<user@other.example@[203.0.113.7]>",
            "<@[198.51.100.9]:user@ours.example>",
            "<user@ours.example.>",
            "<user@.ours.example>",
            "<user@ours.example,other.example>",
        ];
        for text in tricks {
            assert!(!is_ours(&relay, text), "{text}");
        }
        // A route through ourselves only is an odd way to write the same.
        assert!(is_ours(&relay, "<@ours.example:user@ours.example>"));
        assert!(is_ours(
            &relay,
            "<@ours.example,@[203.0.113.7]:user@ours.example>"
        ));
    }

    #[test]
    fn any_has_to_be_said_and_nothing_is_the_default() {
        let nothing = Relay::default();
        assert!(
            !is_ours(&nothing, "<user@ours.example>")
                && !nothing.is_from("127.0.0.1".parse().unwrap())
        );
        assert!(is_ours(&nothing, "<postmaster>"));
        let any = relay(" ANY ");
        assert!(is_ours(&any, "<user%other@ours.example>") && is_ours(&any, "<@a,@b:user@c>"));
        assert!(
            RelayDomains::parse("any.example").is_ok_and(|domains| !domains.contains(b"other"))
        );
    }

    #[test]
    fn relay_from_goes_by_address() {
        let relay = relay("");
        for (ip, want) in [
            ("192.0.2.200", true),
            ("::ffff:192.0.2.200", true),
            ("192.0.3.1", false),
            ("::1", false),
        ] {
            assert_eq!(relay.is_from(ip.parse().unwrap()), want, "{ip}");
        }
    }

    #[test]
    fn lists_of_domains_say_what_is_wrong_with_them() {
        let file = "# ours\nours.example\n\n a.example b.example # two\nnot_a/domain\n.\n..x\nany\nuser@c.example\n";
        let errors = RelayDomains::parse_file(file)
            .err()
            .expect("some lines are wrong");
        let lines: Vec<_> = errors
            .iter()
            .map(|error| (error.line, error.text.as_str()))
            .collect();
        assert_eq!(
            lines,
            [
                (5, "not_a/domain"),
                (6, "."),
                (7, "..x"),
                (8, "any"),
                (9, "user@c.example")
            ]
        );
        let text = errors[0].to_string();
        assert!(text.starts_with("line 5: \"not_a/domain\": "), "{text}");
        let errors = RelayDomains::parse("ours.example,*")
            .err()
            .expect("a star alone is not any");
        assert!(errors[0].to_string().contains("\"*\" is not a domain"));
        assert!(RelayDomains::parse("ours.example,any").is_err());
    }

    #[test]
    fn a_domain_of_any_length_is_looked_up() {
        let relay = relay("ours.example,.example");
        for len in [0, 1, 254, 255, 256, 5000] {
            let domain = vec![b'a'; len];
            assert!(!relay.domains.contains(&domain), "{len}");
            let below = [domain.as_slice(), b".example"].concat();
            assert_eq!(
                relay.domains.contains(&below),
                len > 0 && below.len() <= DOMAIN_MAX,
                "{len}"
            );
        }
    }
}
