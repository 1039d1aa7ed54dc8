//! The client's side: a plan's TLS made into a configuration, once a process, and the handshake of one connection.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore, SignatureScheme,
    SupportedProtocolVersion, version,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::wire::Wire;
use crate::plan::{Tls, Trust, Versions, Way};

/// How the connections of a process are made secure.
pub struct Client {
    pub way: Way,
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Servers whose sessions are kept to be resumed: there is one, and rustls keeps some tickets of each.
const SESSIONS_KEPT: usize = 32;

impl Client {
    pub fn new(tls: &Tls) -> Result<Client> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions(tls.versions))
            .context("aws-lc lacks a version of TLS")?;
        let mut config = match &tls.trust {
            Trust::Authority(file) => config.with_root_certificates(authorities(file)?),
            Trust::Anybody => config
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider))),
        }
        .with_no_client_auth();
        config.resumption = match tls.resumption {
            true => Resumption::in_memory_sessions(SESSIONS_KEPT),
            false => Resumption::disabled(),
        };
        Ok(Client {
            way: tls.way,
            connector: Arc::new(config).into(),
            name: server_name(&tls.name)?,
        })
    }

    /// The connection in TLS, and whether that was a session resumed.
    pub async fn handshake(&self, tcp: TcpStream) -> io::Result<(Wire, bool)> {
        // boxed: what a handshake needs is not to lie in every task that makes none
        let stream = Box::pin(self.connector.connect(self.name.clone(), tcp)).await?;
        let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok((Wire::Tls(Box::new(stream.into())), is_resumed))
    }
}

/// A name for SNI and the certificate, or an address.
pub fn server_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .with_context(|| format!("{name:?} is neither a host name nor an address"))
}

fn versions(versions: Versions) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match versions {
        Versions::Any => &BOTH,
        Versions::Tls13 => &BOTH[..1],
        Versions::Tls12 => &BOTH[1..],
    }
}

fn authorities(file: &Path) -> Result<RootCertStore> {
    let shown = file.display();
    let text = fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.with_context(|| format!("{shown} is no PEM"))?;
        roots
            .add(certificate)
            .with_context(|| format!("a certificate of {shown} cannot be trusted"))?;
    }
    ensure!(!roots.is_empty(), "{shown} holds no certificate");
    Ok(roots)
}

/// Takes every certificate, if only its key signed the handshake.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
