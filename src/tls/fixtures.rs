//! Certificates and folders for tests.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};

/// A certificate with its key.
pub struct Made {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Made {
    pub fn certificate_pem(&self) -> String {
        self.certificate.pem()
    }

    pub fn certificate_der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// Self-signed, valid for longer than anybody waits.
pub fn ecdsa(names: &[&str]) -> Made {
    ecdsa_until(names, 2090)
}

/// Valid until the beginning of that year.
pub fn ecdsa_until(names: &[&str], year: i32) -> Made {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    signed_by_itself(names, year, key)
}

pub fn rsa(names: &[&str]) -> Made {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("a key");
    signed_by_itself(names, 2090, key)
}

/// What `openssl req -x509` makes of a host: its own CA.
pub fn self_signed_authority(names: &[&str]) -> Made {
    self_signed_authority_until(names, 2090)
}

pub fn self_signed_authority_until(names: &[&str], year: i32) -> Made {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let mut params = params(names, year);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    Made { certificate, key }
}

fn params(names: &[&str], year: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    params
}

fn signed_by_itself(names: &[&str], year: i32, key: KeyPair) -> Made {
    let certificate = params(names, year).self_signed(&key);
    let certificate = certificate.expect("a certificate");
    Made { certificate, key }
}

/// A CA of the test's own.
pub struct Authority(rcgen::CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn fresh() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "the test's CA");
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Authority(rcgen::CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    pub fn certificate_pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for servers and clients.
    pub fn sign(&self, names: &[&str]) -> Made {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Made { certificate, key }
    }
}

/// A folder that goes with the test.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn fresh() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("the folder can be written");
        path
    }

    /// Writes NAME.crt and NAME.key.
    pub fn pair(&self, name: &str, made: &Made) -> super::Pair {
        super::Pair {
            certificate: self.write(&format!("{name}.crt"), &made.certificate_pem()),
            key: self.write(&format!("{name}.key"), &made.key_pem()),
        }
    }
}
