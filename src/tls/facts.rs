//! What both sides of a TLS connection have agreed on, in eight octets: every session has room for it.

use rustls::{CipherSuite, ProtocolVersion};

/// What both sides have agreed on. Every session has room for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub version: Version,
    /// The lower half of its number in the registry of IANA: those of rustls differ in it.
    suite: u8,
    pub resumed: bool,
    pub certificate: Shown,
}

/// What a peer has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Nothing,
    /// With `--tls-client-certs ask` it may be anybody's.
    Untrusted,
    /// [`super::ServerTls::trusts`] it.
    Trusted,
}

impl Facts {
    pub(super) fn new(
        version: ProtocolVersion,
        suite: CipherSuite,
        resumed: bool,
        certificate: Shown,
    ) -> Facts {
        Facts {
            version: version.into(),
            suite: low(suite),
            resumed,
            certificate,
        }
    }

    /// The suite's name in the registry of IANA.
    pub fn suite(&self) -> &'static str {
        let suites = rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
        let mut names = suites.iter().map(|suite| suite.suite());
        let name = names.find(|suite| low(*suite) == self.suite);
        name.and_then(|suite| suite.as_str()).unwrap_or("unknown")
    }

    /// TLS 1.3.
    pub fn is_newest(&self) -> bool {
        self.version == Version::Tls13
    }
}

fn low(suite: CipherSuite) -> u8 {
    u16::from(suite) as u8
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Version {
    Tls12,
    Tls13,
}

impl From<ProtocolVersion> for Version {
    /// Nothing older than 1.2 is spoken, and nothing newer than 1.3.
    fn from(version: ProtocolVersion) -> Version {
        match version {
            ProtocolVersion::TLSv1_3 => Version::Tls13,
            _ => Version::Tls12,
        }
    }
}

impl Version {
    /// As mail servers write it in headers.
    pub fn name(self) -> &'static str {
        match self {
            Version::Tls12 => "TLSv1.2",
            Version::Tls13 => "TLSv1.3",
        }
    }

    /// For the log.
    pub fn word(self) -> &'static str {
        match self {
            Version::Tls12 => "1.2",
            Version::Tls13 => "1.3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_keeps_its_name() {
        for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES {
            let suite = suite.suite();
            let facts = Facts::new(ProtocolVersion::TLSv1_3, suite, false, Shown::Nothing);
            assert_eq!(Some(facts.suite()), suite.as_str());
        }
    }
}
