//! The upstreams' side: how each upstream is spoken to, and from files to what weir shakes hands with as a client.
//!
//! Each upstream has a configuration of its own, and so tickets of its own: names and addresses that several upstreams share
//! do not mix their sessions.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};

use super::certificates::{Certificate, Pair};
use super::files::{self, FileFault};
use super::lenient::AnyServer;
use super::pinned::Pinned;
use super::provider::{Oldest, provider};

/// Names that one upstream's tickets are kept for: it has one.
const SESSIONS_MAX: usize = 4;

/// The same for all hosts that clients want to go to themselves, each by its address: some 2 KiB each.
const DESTINATIONS_MAX: usize = 256;

/// Stands for all those addresses.
fn anywhere() -> ServerName<'static> {
    IpAddr::from(Ipv4Addr::UNSPECIFIED).into()
}

/// `--upstream-tls`, where it is not off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamMode {
    /// STARTTLS where it is offered, any certificate; plaintext where it is not.
    May,
    /// No mail without TLS; any certificate.
    Require,
    /// No mail without TLS and a certificate of that name.
    Verify,
}

/// How an upstream is to be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamWish {
    pub mode: UpstreamMode,
    /// The handshake comes before the greeting.
    pub implicit: bool,
    /// Told in SNI, unless it is an address, and what the certificate is verified for.
    pub name: ServerName<'static>,
}

impl UpstreamWish {
    /// How to speak to hosts that clients want to go to themselves. Each connection puts the host's address in place of the name;
    /// nothing can be verified by that.
    pub fn anywhere(mode: UpstreamMode) -> UpstreamWish {
        UpstreamWish {
            mode,
            implicit: false,
            name: anywhere(),
        }
    }

    /// Whether any of these needs roots to verify a certificate.
    pub fn any_verified<'a>(wishes: impl IntoIterator<Item = &'a UpstreamWish>) -> bool {
        let mut wishes = wishes.into_iter();
        wishes.any(|wish| wish.mode == UpstreamMode::Verify)
    }
}

/// With what an upstream is spoken to.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    pub mode: UpstreamMode,
    pub implicit: bool,
    pub name: ServerName<'static>,
    pub config: Arc<ClientConfig>,
}

impl UpstreamTls {
    /// Whether connections made for one will do for the other; newer files alone make no difference.
    pub fn is_like(&self, other: &UpstreamTls) -> bool {
        (self.mode, self.implicit, &self.name) == (other.mode, other.implicit, &other.name)
    }
}

impl PartialEq for UpstreamTls {
    fn eq(&self, other: &UpstreamTls) -> bool {
        self.is_like(other) && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for UpstreamTls {}

/// What the flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Whether any upstream is verified: nothing else needs roots.
    pub verifies: bool,
    /// None: the system's roots.
    pub authorities: Option<PathBuf>,
    /// Shown to upstreams that ask for one.
    pub pair: Option<Pair>,
    pub hybrid: bool,
}

impl UpstreamSettings {
    /// The files that everything is made from; the system's roots are not watched.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let pair = self.pair.iter();
        pair.flat_map(|pair| [&pair.certificate, &pair.key])
            .chain(&self.authorities)
    }
}

/// The upstreams' side as it was read.
#[derive(Clone, Debug)]
pub struct UpstreamFiles {
    provider: Arc<CryptoProvider>,
    /// None: nothing is verified.
    verifier: Option<Arc<dyn ServerCertVerifier>>,
    /// What that verifier trusts.
    roots: Arc<RootCertStore>,
    pub certificate: Option<Certificate>,
}

impl UpstreamFiles {
    /// Whether both lead to the same handshakes.
    pub fn is(&self, other: &UpstreamFiles) -> bool {
        let chain = |files: &UpstreamFiles| {
            let certificate = files.certificate.as_ref();
            certificate.map(|certificate| certificate.keys.cert.clone())
        };
        self.roots.roots == other.roots.roots && chain(self) == chain(other)
    }

    /// Reads all files. Err: all that cannot be used.
    pub fn read(settings: &UpstreamSettings) -> Result<UpstreamFiles, Vec<FileFault>> {
        let provider = provider(settings.hybrid);
        let mut faults = Vec::new();
        let mut note = |fault: FileFault| faults.push(fault);
        let pair = settings.pair.as_ref();
        let certificate = pair.map(|pair| Certificate::load(pair, &provider));
        let certificate = certificate.and_then(|read| read.map_err(&mut note).ok());
        let roots = match &settings.authorities {
            Some(path) => Some(listed_roots(path)),
            None => settings.verifies.then(|| Ok((system_roots()?, Vec::new()))),
        };
        let roots = roots.and_then(|read| read.map_err(&mut note).ok());
        if !faults.is_empty() {
            return Err(faults);
        }
        let (roots, listed) = roots.unwrap_or_else(|| (RootCertStore::empty(), Vec::new()));
        let roots = Arc::new(roots);
        let verifier = (!roots.is_empty()).then(|| {
            let (roots, provider) = (Arc::clone(&roots), Arc::clone(&provider));
            let builder = WebPkiServerVerifier::builder_with_provider(roots, provider);
            let usual = builder.build();
            Arc::new(Pinned {
                usual: usual.expect("there are roots and no revocation lists"),
                listed,
            })
        });
        Ok(UpstreamFiles {
            provider,
            verifier: verifier.map(|verifier| verifier as Arc<dyn ServerCertVerifier>),
            roots,
            certificate,
        })
    }

    /// What an upstream is spoken to with; it starts without tickets.
    pub fn upstream_tls(&self, wish: &UpstreamWish) -> UpstreamTls {
        let verifier = match (wish.mode, &self.verifier) {
            (UpstreamMode::Verify, Some(verifier)) => Arc::clone(verifier),
            (UpstreamMode::Verify, None) => {
                unreachable!("roots are read where an upstream is verified")
            }
            _ => Arc::new(AnyServer(Arc::clone(&self.provider))),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(Oldest::Tls12.and_later())
            .expect("the provider has suites for both versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let sessions = match wish.name == anywhere() {
            true => DESTINATIONS_MAX,
            false => SESSIONS_MAX,
        };
        let mut config = match &self.certificate {
            Some(own) => {
                let own = CertifiedKey::clone(&own.keys);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(sessions);
        UpstreamTls {
            mode: wish.mode,
            implicit: wish.implicit,
            name: wish.name.clone(),
            config: Arc::new(config),
        }
    }
}

/// What a file says is to be trusted, as roots and as it stands there.
fn listed_roots(path: &Path) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), FileFault> {
    Ok((files::roots(path)?, files::certificates(path)?))
}

/// The roots that this host trusts. Those that cannot be read or used are left out, as everywhere.
fn system_roots() -> Result<RootCertStore, FileFault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = match found.errors.first() {
            Some(error) => format!("cannot be used: {error}"),
            None => "are not there: install ca-certificates, or give --upstream-ca".into(),
        };
        return Err(FileFault::new("the system's roots".as_ref(), why));
    }
    Ok(roots)
}
