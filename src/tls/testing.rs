//! A certificate and both sides' configurations for tests.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

pub const NAME: &str = "weir.example";

type Certificate = (CertificateDer<'static>, Vec<u8>);

/// Made once: P-256, self-signed.
fn certificate() -> &'static Certificate {
    static MADE: OnceLock<Certificate> = OnceLock::new();
    MADE.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]);
        let made = made.expect("a name makes a certificate");
        (made.cert.der().clone(), made.signing_key.serialize_der())
    })
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub fn server_config(versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let (certificate, key) = certificate();
    let key = PrivateKeyDer::Pkcs8(key.clone().into());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("the key belongs to the certificate");
    config.send_tls13_tickets = 1;
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().expect("a ticket key");
    Arc::new(config)
}

pub fn client_config(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate().0.clone()).expect("a certificate");
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

pub fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a host name")
}
