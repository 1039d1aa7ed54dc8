//! PEM files: certificates and private keys, with errors that name the file and say what is wrong with it.
//!
//! Only the control thread and the start come here. Nothing of a private key is ever part of an error.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Larger than any chain, key or file of roots (Debian's has 220 KiB).
const FILE_MAX: u64 = 4 << 20;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFault {
    pub path: PathBuf,
    pub why: String,
}

impl FileFault {
    pub fn new(path: &Path, why: impl Into<String>) -> FileFault {
        FileFault {
            path: path.to_owned(),
            why: why.into(),
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.why)
    }
}

/// The whole file, up to 4 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>, FileFault> {
    let fault = |error: io::Error| FileFault::new(path, format!("cannot be read: {error}"));
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(fault)?;
    file.take(FILE_MAX + 1)
        .read_to_end(&mut content)
        .map_err(fault)?;
    if content.len() as u64 > FILE_MAX {
        return Err(FileFault::new(path, "is larger than 4 MiB"));
    }
    Ok(content)
}

/// All certificates in a file, in its order; at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let content = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(FileFault::new(path, "has no certificate")),
        Ok(chain) => Ok(chain),
        Err(error) => Err(FileFault::new(path, damage(&error))),
    }
}

/// The first private key in a file.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileFault> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => FileFault::new(
            path,
            "has no private key that can be read (an encrypted one cannot)",
        ),
        other => FileFault::new(path, damage(&other)),
    })
}

/// Certificates to trust.
pub fn roots(path: &Path) -> Result<RootCertStore, FileFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| {
            FileFault::new(
                path,
                format!("has a certificate that cannot be used: {error}"),
            )
        })?;
    }
    Ok(roots)
}

/// What is wrong with a PEM file. The library's own words would quote lines of it.
fn damage(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "ends in the middle: is it being written?",
        pem::Error::IllegalSectionStart { .. } => "has a damaged BEGIN line",
        pem::Error::Base64Decode(_) => "has a line that is no base64",
        _ => "is no PEM file",
    }
}

/// What tells one version of a file from the next: when it or its permissions were changed last, and which file it is.
/// None where there is no file.
pub type Stamp = Option<((i64, i64), u64)>;

pub fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    Some((changed, metadata.ino()))
}

/// Of all files in a folder, by name.
pub fn stamps_in(folder: &Path) -> Vec<Stamp> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| stamp(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::fixtures::{Folder, ecdsa};

    #[test]
    fn errors_name_the_file_and_never_its_content() {
        let folder = Folder::fresh();
        let made = ecdsa(&["mx.example"]);
        let key = made.key_pem();
        let half = &key[..key.len() / 2];
        for (name, content, why) in [
            ("empty", "", "has no private key that can be read"),
            ("half", half, "ends in the middle"),
            (
                "junk",
                "-----BEGIN PRIVATE KEY-----\n!!secret!!\n-----END PRIVATE KEY-----\n",
                "no base64",
            ),
            ("cert", &made.certificate_pem(), "has no private key"),
        ] {
            let path = folder.write(name, content);
            let fault = private_key(&path).unwrap_err();
            assert!(
                fault.path == path && fault.why.contains(why),
                "{name}: {fault}"
            );
            assert!(!fault.why.contains("secret"), "{fault}");
        }
        let fault = certificates(&folder.path("missing")).unwrap_err();
        assert!(
            fault.to_string().contains("missing cannot be read"),
            "{fault}"
        );
        let fault = certificates(&folder.write("key", &key)).unwrap_err();
        assert_eq!(fault.why, "has no certificate");
    }

    #[test]
    fn a_file_without_an_end_is_refused() {
        let fault = read(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(fault.why, "is larger than 4 MiB");
    }

    #[test]
    fn a_stamp_changes_with_the_file() {
        let folder = Folder::fresh();
        let path = folder.path("file");
        assert_eq!(stamp(&path), None);
        folder.write("file", "one");
        let first = stamp(&path);
        folder.write("other", "two");
        fs::rename(folder.path("other"), &path).unwrap();
        assert!(first.is_some() && stamp(&path) != first);
    }
}
