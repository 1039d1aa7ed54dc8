//! The clients' side: from files to what clients shake hands with.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::certificates::{Certificate, Pair, pairs_in};
use super::files::{self, FileFault};
use super::lenient::Lenient;
use super::provider::{Oldest, provider};
use super::resolver::Resolver;
use super::tickets::{TicketKeys, Tickets};

/// What clients shake hands with, the same on all shards. Replaced whole when a certificate changes.
#[derive(Clone, Debug)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
    /// None: client certificates are not asked for.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

impl ServerTls {
    /// One that asks for no client certificates.
    pub fn new(config: Arc<ServerConfig>) -> ServerTls {
        ServerTls {
            config,
            verifier: None,
        }
    }

    /// Whether a client's certificates lead to the CA of `--tls-client-ca`. Where certificates are asked for and not
    /// required, a client with another one is let in like one with none.
    pub fn trusts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        match (&self.verifier, chain) {
            (Some(verifier), [own, others @ ..]) => {
                verifier.verify_client_cert(own, others, now).is_ok()
            }
            _ => false,
        }
    }
}

/// Whether clients have to show certificates, and whose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    #[default]
    Off,
    /// Asked for; a client without a good one is let in.
    Ask(PathBuf),
    /// A handshake without a good one fails.
    Require(PathBuf),
}

impl ClientCertificates {
    fn authorities(&self) -> Option<&PathBuf> {
        match self {
            ClientCertificates::Off => None,
            ClientCertificates::Ask(path) | ClientCertificates::Require(path) => Some(path),
        }
    }
}

/// What the flags say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSettings {
    /// In the operator's order: the first is the default.
    pub pairs: Vec<Pair>,
    /// Comes after them.
    pub folder: Option<PathBuf>,
    pub min: Oldest,
    pub hybrid: bool,
    pub clients: ClientCertificates,
    /// None: keys of this process alone.
    pub tickets: Option<PathBuf>,
}

impl ServerSettings {
    /// Whether there is to be a certificate at all.
    pub fn has_certificate(&self) -> bool {
        !self.pairs.is_empty() || self.folder.is_some()
    }

    /// Files and folders that everything is made from.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pairs.iter();
        let others = [&self.folder, &self.tickets].into_iter().flatten();
        pairs
            .flat_map(|pair| [&pair.certificate, &pair.key])
            .chain(others)
            .chain(self.clients.authorities())
    }
}

/// The clients' side as it was read.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    pub certificates: Vec<Certificate>,
    /// None: no file of keys.
    pub tickets: Option<TicketKeys>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Sessions made under another are not resumed.
    context: Vec<u8>,
    config: Arc<ServerConfig>,
}

impl ServerFiles {
    /// Reads all files. Err: all that cannot be used.
    pub fn read(settings: &ServerSettings) -> Result<ServerFiles, Vec<FileFault>> {
        let mut faults = Vec::new();
        let provider = provider(settings.hybrid);
        let mut pairs = settings.pairs.clone();
        let in_folder = settings
            .folder
            .as_ref()
            .map(|folder| (folder, pairs_in(folder)));
        match in_folder {
            Some((folder, Ok(found))) if found.is_empty() && pairs.is_empty() => {
                let why = "has no certificate: NAME.crt with NAME.key, or NAME.pem";
                faults.push(FileFault::new(folder, why));
            }
            Some((_, Ok(found))) => pairs.extend(found),
            Some((_, Err(fault))) => faults.push(fault),
            None => {}
        }
        let mut certificates = Vec::new();
        for pair in &pairs {
            match Certificate::load(pair, &provider) {
                Ok(certificate) => certificates.push(certificate),
                Err(fault) => faults.push(fault),
            }
        }
        let mut note = |fault: FileFault| faults.push(fault);
        let tickets = settings.tickets.as_deref().map(TicketKeys::read);
        let tickets = tickets.and_then(|read| read.map_err(&mut note).ok());
        let verifier = verifier(&settings.clients, &provider)
            .map_err(&mut note)
            .ok();
        let (true, Some((verifier, context))) = (faults.is_empty(), verifier) else {
            return Err(faults);
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(settings.min.and_later())
            .expect("the provider has suites for both versions");
        let builder = match (&verifier, &settings.clients) {
            (None, _) => builder.with_no_client_auth(),
            (Some(strict), ClientCertificates::Require(_)) => {
                builder.with_client_cert_verifier(Arc::clone(strict))
            }
            (Some(strict), _) => {
                builder.with_client_cert_verifier(Arc::new(Lenient(Arc::clone(strict))))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(Resolver::new(&certificates)));
        // Clients mostly put AES-256 first, out of habit; see `provider`.
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A mail server comes back with one connection after the other: one ticket each is enough.
        config.send_tls13_tickets = 1;
        Ok(ServerFiles {
            certificates,
            tickets,
            verifier,
            context,
            config: Arc::new(config),
        })
    }

    /// Whether both lead to the same handshakes.
    pub fn is(&self, other: &ServerFiles) -> bool {
        let chains = |files: &ServerFiles| -> Vec<_> {
            let keys = files
                .certificates
                .iter()
                .map(|certificate| &certificate.keys);
            keys.map(|keys| keys.cert.clone()).collect()
        };
        let same_keys = match (&self.tickets, &other.tickets) {
            (Some(one), Some(other)) => one.is(other),
            (one, other) => one.is_none() && other.is_none(),
        };
        same_keys && self.context == other.context && chains(self) == chains(other)
    }

    /// With these keys for tickets, unless there is a file of them.
    pub fn server_tls(&self, own: &TicketKeys) -> ServerTls {
        let keys = self.tickets.as_ref().unwrap_or(own).clone();
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::new(Tickets::new(keys, &self.context));
        ServerTls {
            config: Arc::new(config),
            verifier: self.verifier.clone(),
        }
    }
}

type Verifier = (Option<Arc<dyn ClientCertVerifier>>, Vec<u8>);

/// Who looks at clients' certificates, and what sessions are bound to.
fn verifier(
    clients: &ClientCertificates,
    provider: &Arc<CryptoProvider>,
) -> Result<Verifier, FileFault> {
    let Some(path) = clients.authorities() else {
        return Ok((None, b"off".to_vec()));
    };
    let roots = files::roots(path)?;
    let mut context = match clients {
        ClientCertificates::Require(_) => b"require".to_vec(),
        _ => b"ask".to_vec(),
    };
    for root in &roots.roots {
        context.extend(root.subject.as_ref());
        context.extend(root.subject_public_key_info.as_ref());
    }
    let strict = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| FileFault::new(path, format!("cannot be used: {error}")))?;
    Ok((Some(strict), context))
}
