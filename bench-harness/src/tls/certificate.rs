//! Who a server says it is: a certificate and its key, from files or made at start, and the configuration of a server that shows them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A chain and its key, both as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub chain: String,
    pub key: String,
}

/// A key is nobody's business, not even in a log of a test.
impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl Certificate {
    /// ECDSA P-256, signed by itself, for `name`, `localhost` and the loopback addresses: who trusts it needs no other file.
    pub fn make(name: &str) -> Result<Certificate> {
        let names = [name, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names)
            .with_context(|| format!("cannot make a certificate for {name}"))?;
        Ok(Certificate {
            chain: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        })
    }

    pub fn read(chain: &Path, key: &Path) -> Result<Certificate> {
        let text = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Certificate {
            chain: text(chain)?,
            key: text(key)?,
        })
    }

    /// A server that shows it, speaks 1.2 and 1.3 and hands out tickets.
    pub fn server(&self) -> Result<Arc<ServerConfig>> {
        let chain = CertificateDer::pem_slice_iter(self.chain.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .context("the certificate is no PEM")?;
        ensure!(
            !chain.is_empty(),
            "there is no certificate among what was given as one"
        );
        let key =
            PrivateKeyDer::from_pem_slice(self.key.as_bytes()).context("the key is no PEM")?;
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .context("aws-lc has neither TLS 1.2 nor 1.3")?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("certificate and key are of no use together")?;
        config.ticketer = aws_lc_rs::Ticketer::new().context("cannot make keys for tickets")?;
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_one_can_be_shown_and_does_not_tell_its_key() {
        let made = Certificate::make("sink.example").unwrap();
        made.server().unwrap();
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_no_certificate_or_anothers_key_is_refused() {
        let made = Certificate::make("sink.example").unwrap();
        let other = Certificate::make("sink.example").unwrap();
        for (chain, key, want) in [
            ("", made.key.as_str(), "no certificate"),
            (&made.chain, "", "no PEM"),
            (&made.chain, &other.key, "of no use together"),
        ] {
            let (chain, key) = (chain.to_owned(), key.to_owned());
            let error = Certificate { chain, key }.server().unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
