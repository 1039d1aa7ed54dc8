//! What both legs do TLS with: aws-lc, and the key exchanges that are allowed.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

/// The oldest version that is spoken. Before 1.2 nothing is (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Oldest {
    #[default]
    Tls12,
    Tls13,
}

impl Oldest {
    /// It and all later ones.
    pub fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        static NEWEST: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
        match self {
            Oldest::Tls12 => rustls::ALL_VERSIONS,
            Oldest::Tls13 => &NEWEST,
        }
    }
}

/// AES-128 with SHA-256 first: strong enough, and a twelfth of the CPU of a whole handshake cheaper than AES-256 with SHA-384,
/// for which processors have no instructions (weir-bench, tls-new-4k).
fn cost(suite: &SupportedCipherSuite) -> u8 {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    }
}

/// `hybrid`: whether X25519MLKEM768 is among the key exchanges (draft-ietf-tls-ecdhe-mlkem). A client that
/// offers it first gets it; as client weir offers it first.
pub fn provider(hybrid: bool) -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.cipher_suites.sort_by_key(cost);
    provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    if hybrid {
        provider.kx_groups.insert(0, kx_group::X25519MLKEM768);
    }
    Arc::new(provider)
}
