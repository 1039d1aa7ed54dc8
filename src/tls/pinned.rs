//! Verifies upstreams, also those whose very certificate stands in the file of CA certificates.
//!
//! A certificate that a server has signed for itself usually says that it is a CA (`openssl req -x509` makes it so), and
//! as such the TLS library does not take it from a server, whatever is trusted. An operator who puts it into
//! `--upstream-ca` means just this certificate: it is taken, if name and time fit too.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::validity::validity;

/// What the CA file makes of a server's certificates.
#[derive(Debug)]
pub struct Pinned {
    pub usual: Arc<WebPkiServerVerifier>,
    /// All certificates of the file.
    pub listed: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            Ok(verified) => Ok(verified),
            Err(_) if self.listed.contains(end_entity) => fits(end_entity, server_name, now),
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// Whether a certificate that is trusted as such is for this name and time.
fn fits(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let parsed = webpki::EndEntityCert::try_from(certificate)
        .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
    parsed
        .verify_is_valid_for_subject_name(name)
        .map_err(|_| Error::InvalidCertificate(CertificateError::NotValidForName))?;
    let validity =
        validity(certificate).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = now.as_secs() as i64;
    if now > validity.not_after {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    if now < validity.not_before {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::fixtures::{self_signed_authority, self_signed_authority_until};
    use crate::tls::provider;

    fn verifier(listed: &[Vec<u8>]) -> Pinned {
        let listed: Vec<CertificateDer<'static>> =
            listed.iter().cloned().map(CertificateDer::from).collect();
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(listed.clone());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider(false));
        Pinned {
            usual: usual.build().unwrap(),
            listed,
        }
    }

    #[test]
    fn a_listed_certificate_is_taken_for_its_name_and_time_only() {
        let own = self_signed_authority(&["mx.example"]).certificate_der();
        let ended = self_signed_authority_until(&["mx.example"], 2020).certificate_der();
        let stranger = self_signed_authority(&["mx.example"]).certificate_der();
        let verifier = verifier(&[own.clone(), ended.clone()]);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        for (certificate, name, want) in [
            (&own, "mx.example", true),
            (&own, "other.example", false),
            (&own, "192.0.2.1", false),
            (&ended, "mx.example", false),
            (&stranger, "mx.example", false),
        ] {
            let name = ServerName::try_from(name).unwrap();
            let shown = CertificateDer::from(certificate.clone());
            let verified = verifier.verify_server_cert(&shown, &[], &name, &[], now);
            assert_eq!(verified.is_ok(), want, "{name:?} {verified:?}");
        }
    }
}
