//! Which certificate a client is shown: by the name it asks for, and of those the one it can check.
//!
//! A name has its exact certificate, else that of a wildcard of one label (RFC 9525, 6.3), else the default: the first pair.
//! Where several pairs stand for a name the client's signature schemes choose; ECDSA comes before RSA, because it costs a fifth.
//! A client that cannot check any certificate of its name is shown the default's: most mail servers
//! encrypt without looking at the name, and a refused handshake would send the mail in plaintext.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::certificates::Certificate;

/// Certificates of one name, the preferred first.
type Choice = Vec<Arc<CertifiedKey>>;

/// All names, the same for all shards.
#[derive(Debug)]
pub struct Resolver {
    exact: HashMap<String, Choice>,
    /// By what stands behind the `*.`.
    wildcards: HashMap<String, Choice>,
    default: Choice,
}

impl Resolver {
    /// `certificates`: in the operator's order; the first is the default, together with others that stand for one of its names.
    pub fn new(certificates: &[Certificate]) -> Resolver {
        let mut resolver = Resolver {
            exact: HashMap::new(),
            wildcards: HashMap::new(),
            default: Choice::new(),
        };
        for certificate in certificates {
            for name in &certificate.names {
                let choice = match name.strip_prefix("*.") {
                    Some(parent) => resolver.wildcards.entry(parent.to_owned()),
                    None => resolver.exact.entry(name.clone()),
                };
                choice.or_default().push(Arc::clone(&certificate.keys));
            }
        }
        let first = certificates.first();
        let is_default = |other: &&Certificate| {
            first.is_some_and(|first| {
                first.is(other) || first.names.iter().any(|name| other.names.contains(name))
            })
        };
        let default = certificates.iter().filter(is_default);
        resolver.default = default.map(|other| Arc::clone(&other.keys)).collect();
        let all = resolver.exact.values_mut();
        let all = all.chain(resolver.wildcards.values_mut());
        for choice in all.chain([&mut resolver.default]) {
            choice.sort_by_key(|keys| cost(keys)); // stable: the operator's order within a kind
        }
        resolver
    }

    /// For a name, which may be missing, and what the client can check.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let named = name.and_then(|name| self.named(name)).into_iter();
        let checkable = |keys: &&Arc<CertifiedKey>| keys.key.choose_scheme(schemes).is_some();
        named.chain([&self.default]).flatten().find(checkable)
    }

    fn named(&self, name: &str) -> Option<&Choice> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(&name)
            .or_else(|| self.wildcards.get(parent()?))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
            .cloned()
    }
}

fn cost(keys: &CertifiedKey) -> u8 {
    match keys.key.algorithm() {
        SignatureAlgorithm::RSA => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixtures::{Folder, Made, ecdsa, rsa};
    use crate::tls::provider;

    fn resolver(made: &[(&str, Made)]) -> Resolver {
        let folder = Folder::fresh();
        let load = |(name, made): &(&str, Made)| {
            Certificate::load(&folder.pair(name, made), &provider(true)).expect("a good pair")
        };
        Resolver::new(&made.iter().map(load).collect::<Vec<_>>())
    }

    const BOTH: &[SignatureScheme] = &[
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::ECDSA_NISTP256_SHA256,
    ];
    const RSA_ONLY: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];
    const ED25519_ONLY: &[SignatureScheme] = &[SignatureScheme::ED25519];

    #[test]
    fn names_choose_among_exact_wildcard_and_default() {
        let made = [
            ("default", ecdsa(&["mx.example"])),
            ("wild", ecdsa(&["*.example.org", "example.org"])),
            ("exact", ecdsa(&["a.example.org"])),
        ];
        let resolver = resolver(&made);
        for (name, want) in [
            (None, 0),
            (Some("mx.example"), 0),
            (Some("MX.Example."), 0),
            (Some("other.example"), 0),
            (Some("b.example.org"), 1),
            (Some("example.org"), 1),
            (Some("A.EXAMPLE.ORG"), 2),
            (Some("b.a.example.org"), 0), // a wildcard is one label
            (Some("org"), 0),
            (Some(""), 0),
        ] {
            let chosen = resolver.choose(name, BOTH).expect("there is a default");
            assert_eq!(
                chosen.cert[0].to_vec(),
                made[want].1.certificate_der(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn keys_of_a_name_are_chosen_by_what_the_client_can_check() {
        let made = [
            ("rsa", rsa(&["mx.example"])),
            ("ecdsa", ecdsa(&["mx.example"])),
            ("only-ecdsa", ecdsa(&["other.example"])),
        ];
        let resolver = resolver(&made);
        for (name, schemes, want) in [
            (Some("mx.example"), BOTH, Some(1)),
            (None, BOTH, Some(1)), // the default's other key too
            (Some("mx.example"), RSA_ONLY, Some(0)),
            (Some("other.example"), BOTH, Some(2)),
            (Some("other.example"), RSA_ONLY, Some(0)), // the wrong name beats plaintext
            (Some("mx.example"), ED25519_ONLY, None),
        ] {
            let chosen = resolver.choose(name, schemes);
            let chosen = chosen.map(|keys| keys.cert[0].to_vec());
            let want = want.map(|want: usize| made[want].1.certificate_der());
            assert_eq!(chosen, want, "{name:?} {schemes:?}");
        }
    }

    #[test]
    fn of_two_alike_the_first_counts() {
        let made = [
            ("first", ecdsa(&["mx.example"])),
            ("second", ecdsa(&["mx.example"])),
        ];
        let chosen = resolver(&made);
        let chosen = chosen.choose(Some("mx.example"), BOTH).unwrap();
        assert_eq!(chosen.cert[0].to_vec(), made[0].1.certificate_der());
    }
}
