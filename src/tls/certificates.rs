//! weir's own certificates: pairs of files, what is in them, and whether it can be used.
//!
//! A pair is loaded whole or not at all: the chain parses, the key belongs to it. Which names it stands for is what its
//! subjectAltName says; the common name counts for nothing (RFC 9525, 2).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::files::{self, FileFault};
use super::validity::{Validity, validity};

/// Pairs in a folder: the metrics have a line for each.
pub const PAIRS_MAX: usize = 1000;

/// From this long before its end an operator hears of it daily, in seconds.
pub const EXPIRES_SOON: i64 = 14 * 86_400;

/// Two files, which may be one and the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A pair as it was read.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub pair: Pair,
    pub keys: Arc<CertifiedKey>,
    /// Lower case, wildcards among them.
    pub names: Vec<String>,
    pub validity: Validity,
}

/// How a certificate stands with the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Valid,
    /// Valid for less than [`EXPIRES_SOON`].
    ExpiresSoon,
    Expired,
    NotYetValid,
}

impl Certificate {
    pub fn load(pair: &Pair, provider: &CryptoProvider) -> Result<Certificate, FileFault> {
        let fault = |why: &str| FileFault::new(&pair.certificate, why);
        let chain = files::certificates(&pair.certificate)?;
        let first = chain.first().ok_or_else(|| fault("has no certificate"))?;
        let names = names(first).map_err(|why| fault(&why))?;
        let validity =
            validity(first).ok_or_else(|| fault("has a certificate whose time cannot be read"))?;
        let key = files::private_key(&pair.key)?;
        let keys = CertifiedKey::from_der(chain, key, provider);
        Ok(Certificate {
            pair: pair.clone(),
            names,
            validity,
            keys: Arc::new(keys.map_err(|error| mismatch(pair, &error))?),
        })
    }

    /// `now`: seconds since 1970.
    pub fn standing(&self, now: i64) -> Standing {
        let Validity {
            not_before,
            not_after,
        } = self.validity;
        match now {
            _ if now > not_after => Standing::Expired,
            _ if now < not_before => Standing::NotYetValid,
            _ if now > not_after - EXPIRES_SOON => Standing::ExpiresSoon,
            _ => Standing::Valid,
        }
    }

    /// What is to be said of it, if its time is not now.
    pub fn warning(&self, now: i64) -> Option<String> {
        let days = (self.validity.not_after - now).div_euclid(86_400);
        let path = self.pair.certificate.display();
        match self.standing(now) {
            Standing::Valid => None,
            Standing::ExpiresSoon => Some(format!("certificate {path} expires in {days} days")),
            Standing::Expired => Some(format!(
                "certificate {path} HAS EXPIRED: clients that look at it do not send mail; it stays in use"
            )),
            Standing::NotYetValid => Some(format!(
                "certificate {path} is not valid yet: is the clock right?"
            )),
        }
    }

    /// Whether it is the very certificate that `other` is.
    pub fn is(&self, other: &Certificate) -> bool {
        self.keys.cert.first() == other.keys.cert.first()
    }
}

/// What a certificate stands for; Err: why it cannot be used.
fn names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(parsed) => Ok(parsed
            .valid_dns_names()
            .map(str::to_ascii_lowercase)
            .collect()),
        Err(webpki::Error::UnsupportedCertVersion) => Err(
            "has a certificate of X.509 version 1: one of version 3, with names, is needed".into(),
        ),
        Err(other) => Err(format!("has a certificate that cannot be used: {other}")),
    }
}

fn mismatch(pair: &Pair, error: &Error) -> FileFault {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => FileFault::new(
            &pair.key,
            format!("is not the key of {}", pair.certificate.display()),
        ),
        // the library's words for keys tell kinds and sizes, never content
        other => FileFault::new(&pair.key, format!("has a key that cannot be used: {other}")),
    }
}

/// The pairs in a folder, by name: NAME.crt with NAME.key, and NAME.pem with both inside. Other files do not count.
pub fn pairs_in(folder: &Path) -> Result<Vec<Pair>, FileFault> {
    let unreadable =
        |error: std::io::Error| FileFault::new(folder, format!("cannot be read: {error}"));
    let mut pairs = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let certificate = entry.map_err(unreadable)?.path();
        let key = match certificate.extension().and_then(|kind| kind.to_str()) {
            Some("crt") => certificate.with_extension("key"),
            Some("pem") => certificate.clone(),
            _ => continue,
        };
        pairs.push(Pair { certificate, key });
        if pairs.len() > PAIRS_MAX {
            let why = format!("has more than {PAIRS_MAX} certificates");
            return Err(FileFault::new(folder, why));
        }
    }
    pairs.sort_by(|a, b| a.certificate.cmp(&b.certificate));
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixtures::{Folder, ecdsa, ecdsa_until, rsa};
    use crate::tls::provider;

    #[test]
    fn a_pair_has_its_names_and_its_time() {
        let folder = Folder::fresh();
        let pair = folder.pair("a", &ecdsa_until(&["MX.Example", "*.example.org"], 2049));
        let read = Certificate::load(&pair, &provider(true)).unwrap();
        assert_eq!(read.names, ["mx.example", "*.example.org"]);
        let end = 2_493_072_000;
        for (now, want) in [
            (end + 1, Standing::Expired),
            (end - 3600, Standing::ExpiresSoon),
            (end - 15 * 86_400, Standing::Valid),
            (0, Standing::NotYetValid),
        ] {
            let not_before = read.validity.not_before;
            assert!(want != Standing::NotYetValid || now < not_before);
            assert_eq!(read.standing(now), want, "{now}");
        }
    }

    #[test]
    fn certificates_that_end_are_told_in_time() {
        let folder = Folder::fresh();
        let end = 2_493_072_000; // the beginning of 2049
        let pair = folder.pair("mx", &ecdsa_until(&["mx.example"], 2049));
        let certificate = Certificate::load(&pair, &provider(true)).unwrap();
        for (now, word) in [
            (end - 15 * 86_400, None),
            (end - 13 * 86_400 - 1, Some("expires in 13 days")),
            (end + 1, Some("HAS EXPIRED")),
            (0, Some("not valid yet")),
        ] {
            let said = certificate.warning(now);
            assert_eq!(said.is_some(), word.is_some(), "{said:?}");
            assert!(word.is_none_or(|word| said.unwrap().contains(word)));
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_told_with_both_files() {
        let folder = Folder::fresh();
        let (one, other) = (ecdsa(&["a.example"]), rsa(&["a.example"]));
        let pair = Pair {
            certificate: folder.pair("one", &one).certificate,
            key: folder.pair("other", &other).key,
        };
        let fault = Certificate::load(&pair, &provider(true)).unwrap_err();
        assert_eq!(fault.path, pair.key);
        assert!(fault.why.ends_with("one.crt"), "{fault}");
    }

    #[test]
    fn a_folder_has_pairs_and_single_files() {
        let folder = Folder::fresh();
        folder.pair("b.example", &ecdsa(&["b.example"]));
        let both = ecdsa(&["a.example"]);
        folder.write("a.example.pem", &(both.certificate_pem() + &both.key_pem()));
        folder.write("README", "not one of them");
        let pairs = pairs_in(folder.root()).unwrap();
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0].key, folder.path("a.example.pem"));
        assert_eq!(pairs[1].key, folder.path("b.example.key"));
        for pair in &pairs {
            Certificate::load(pair, &provider(true)).unwrap();
        }
        assert!(pairs_in(&folder.path("missing")).is_err());
    }

    #[test]
    fn no_key_is_in_the_debug_output() {
        let folder = Folder::fresh();
        let made = ecdsa(&["mx.example"]);
        let pair = folder.pair("a", &made);
        let shown = format!("{:?}", Certificate::load(&pair, &provider(true)).unwrap());
        let secret: String = made
            .key_pem()
            .lines()
            .nth(1)
            .unwrap()
            .chars()
            .take(20)
            .collect();
        assert!(!shown.contains(&secret));
        assert!(shown.contains("a.key"), "it is the pair that is shown");
    }
}
