//! Everything that is made from files, for both legs, and how it is read again.
//!
//! Reading again is all or nothing: one file that cannot be used leaves everything as it was. A certificate that is new and not
//! valid now counts as such a file: no careful operator would have put it there. One that has expired in its place stays in
//! use, because mail servers hardly ever look, and a restart must not fail for it.

use std::path::PathBuf;

use super::certificates::{Certificate, Standing};
use super::client::{UpstreamFiles, UpstreamSettings, UpstreamTls, UpstreamWish};
use super::files::{self, FileFault, Stamp};
use super::server::{ServerFiles, ServerSettings, ServerTls};
use super::tickets::TicketKeys;

/// What the flags say, of both legs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub server: ServerSettings,
    pub upstream: UpstreamSettings,
}

impl Settings {
    /// Files and folders that are watched.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.server.paths().chain(self.upstream.paths())
    }
}

/// All of it as it was read last.
#[derive(Clone, Debug)]
pub struct Material {
    settings: Settings,
    /// None: there is no certificate for clients.
    server: Option<ServerFiles>,
    upstream: UpstreamFiles,
    /// For tickets, where there is no file of keys.
    own_keys: TicketKeys,
    stamps: Vec<Stamp>,
}

/// What reading again has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub server: bool,
    pub upstream: bool,
}

impl Material {
    /// Reads all files. Err: all that cannot be used.
    pub fn read(settings: Settings) -> Result<Material, Vec<FileFault>> {
        let stamps = stamps(&settings);
        let (server, upstream) = read(&settings)?;
        Ok(Material {
            settings,
            server,
            upstream,
            own_keys: TicketKeys::random(),
            stamps,
        })
    }

    /// Of no file at all.
    pub fn empty() -> Material {
        Material::read(Settings::default()).expect("there is no file that could be bad")
    }

    /// What clients shake hands with; None: there is no certificate.
    pub fn server_tls(&self) -> Option<ServerTls> {
        let server = self.server.as_ref()?;
        Some(server.server_tls(&self.own_keys))
    }

    /// What an upstream is spoken to with.
    pub fn upstream_tls(&self, wish: &UpstreamWish) -> UpstreamTls {
        self.upstream.upstream_tls(wish)
    }

    /// All certificates of weir's own.
    pub fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.for_clients().chain(&self.upstream.certificate)
    }

    /// Those that clients are shown.
    pub fn for_clients(&self) -> impl Iterator<Item = &Certificate> {
        self.server.iter().flat_map(|server| &server.certificates)
    }

    /// What is to be said of certificates whose time is not `now` (seconds since 1970).
    pub fn warnings(&self, now: i64) -> Vec<String> {
        let certificates = self.certificates();
        certificates
            .filter_map(|certificate| certificate.warning(now))
            .collect()
    }

    /// Whether a file is another than when it was read last, or than at the last failure to do so.
    pub fn looks_changed(&self) -> bool {
        self.stamps != stamps(&self.settings)
    }

    /// Whether there are files to watch at all.
    pub fn has_files(&self) -> bool {
        self.settings.paths().next().is_some()
    }

    /// Reads everything again. `verifies`: whether any upstream is verified now; `now`: seconds since 1970. Err: all files that
    /// cannot be used; nothing has changed.
    pub fn read_again(&mut self, verifies: bool, now: i64) -> Result<Changed, Vec<FileFault>> {
        let mut settings = self.settings.clone();
        settings.upstream.verifies = verifies;
        // Taken before reading: what changes meanwhile is looked at once more.
        self.stamps = stamps(&settings);
        let (server, upstream) = read(&settings)?;
        let certificates = server.iter().flat_map(|server| &server.certificates);
        let faults: Vec<FileFault> = certificates
            .chain(&upstream.certificate)
            .filter(|new| !self.certificates().any(|old| old.is(new)))
            .filter_map(|new| untimely(new, now))
            .collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let changed = Changed {
            server: match (&self.server, &server) {
                (Some(old), Some(new)) => !old.is(new),
                _ => false, // certificates neither come nor go without a restart
            },
            upstream: !self.upstream.is(&upstream),
        };
        self.settings = settings;
        if changed.server {
            self.server = server;
        }
        if changed.upstream {
            self.upstream = upstream;
        }
        Ok(changed)
    }

    /// Lets the own keys of tickets move on; false: there is a file of keys, or nothing to make tickets for.
    pub fn rotate(&mut self) -> bool {
        let own = (self.server.as_ref()).is_some_and(|server| server.tickets.is_none());
        if own {
            self.own_keys = self.own_keys.rotated();
        }
        own
    }
}

fn read(settings: &Settings) -> Result<(Option<ServerFiles>, UpstreamFiles), Vec<FileFault>> {
    let server = match settings.server.has_certificate() {
        true => ServerFiles::read(&settings.server).map(Some),
        false => Ok(None),
    };
    match (server, UpstreamFiles::read(&settings.upstream)) {
        (Ok(server), Ok(upstream)) => Ok((server, upstream)),
        (server, upstream) => {
            let faults = [server.err(), upstream.err()];
            Err(faults.into_iter().flatten().flatten().collect())
        }
    }
}

fn untimely(certificate: &Certificate, now: i64) -> Option<FileFault> {
    let why = match certificate.standing(now) {
        Standing::Valid | Standing::ExpiresSoon => return None,
        Standing::Expired => "has expired",
        Standing::NotYetValid => "is not valid yet",
    };
    Some(FileFault::new(&certificate.pair.certificate, why))
}

/// In a fixed order, what is in folders included.
fn stamps(settings: &Settings) -> Vec<Stamp> {
    let mut stamps: Vec<Stamp> = settings.paths().map(|path| files::stamp(path)).collect();
    if let Some(folder) = &settings.server.folder {
        stamps.extend(files::stamps_in(folder));
    }
    stamps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Pair;
    use crate::tls::fixtures::{Folder, ecdsa, ecdsa_until};

    const NOW: i64 = 1_800_000_000; // 2027

    fn settings(pair: &Pair) -> Settings {
        let mut settings = Settings::default();
        settings.server.pairs.push(pair.clone());
        settings
    }

    fn shown(material: &Material) -> Vec<u8> {
        let first = material.certificates().next().expect("a certificate");
        first.keys.cert[0].to_vec()
    }

    #[test]
    fn a_new_pair_is_seen_and_taken() {
        let folder = Folder::fresh();
        let pair = folder.pair("mx", &ecdsa(&["mx.example"]));
        let mut material = Material::read(settings(&pair)).unwrap();
        assert!(!material.looks_changed());
        let unchanged = material.read_again(false, NOW).unwrap();
        assert_eq!(unchanged, Changed::default());
        let new = ecdsa(&["mx.example"]);
        folder.pair("mx", &new);
        assert!(material.looks_changed());
        let changed = material.read_again(false, NOW).unwrap();
        assert!(changed.server && !changed.upstream && !material.looks_changed());
        assert_eq!(shown(&material), new.certificate_der());
    }

    #[test]
    fn what_cannot_be_used_leaves_everything_and_is_mended_later() {
        let folder = Folder::fresh();
        let old = ecdsa(&["mx.example"]);
        let new = ecdsa(&["mx.example"]);
        let pair = folder.pair("mx", &old);
        let mut material = Material::read(settings(&pair)).unwrap();
        let certificate = new.certificate_pem();
        let expired = ecdsa_until(&["mx.example"], 2020);
        let half = &certificate[..certificate.len() / 2];
        for (content, why) in [
            (half, "ends in the middle"),
            ("", "has no certificate"),
            (&certificate, "is not the key of"), // the key comes a moment later
        ] {
            folder.write("mx.crt", content);
            let faults = material.read_again(false, NOW).unwrap_err();
            assert!(
                faults.len() == 1 && faults[0].why.contains(why),
                "{faults:?}"
            );
            assert_eq!(shown(&material), old.certificate_der());
        }
        std::fs::remove_file(&pair.key).unwrap();
        let faults = material.read_again(false, NOW).unwrap_err();
        assert_eq!(faults[0].path, pair.key);
        folder.pair("mx", &expired);
        let faults = material.read_again(false, NOW).unwrap_err();
        assert_eq!(faults[0].why, "has expired");
        assert_eq!(shown(&material), old.certificate_der());
        folder.pair("mx", &new);
        assert!(material.looks_changed());
        assert!(material.read_again(false, NOW).unwrap().server);
        assert_eq!(shown(&material), new.certificate_der());
    }

    #[test]
    fn one_bad_file_holds_up_all_others() {
        let folder = Folder::fresh();
        let first = ecdsa(&["a.example"]);
        let mut settings = settings(&folder.pair("a", &first));
        let second = folder.pair("b", &ecdsa(&["b.example"]));
        settings.server.pairs.push(second.clone());
        let mut material = Material::read(settings).unwrap();
        folder.pair("a", &ecdsa(&["a.example"]));
        folder.write("b.key", "nonsense");
        let faults = material.read_again(false, NOW).unwrap_err();
        assert_eq!((faults.len(), &faults[0].path), (1, &second.key));
        assert_eq!(shown(&material), first.certificate_der());
    }

    #[test]
    fn a_certificate_that_expired_in_its_place_holds_up_nothing() {
        let folder = Folder::fresh();
        let old = folder.pair("old", &ecdsa_until(&["old.example"], 2020));
        let mut settings = settings(&old);
        let other = folder.pair("other", &ecdsa(&["other.example"]));
        settings.server.pairs.push(other);
        let mut material = Material::read(settings).expect("it is no reason not to start");
        folder.pair("other", &ecdsa(&["other.example"]));
        assert!(material.read_again(false, NOW).unwrap().server);
    }

    #[test]
    fn a_folder_is_watched_for_new_pairs() {
        let folder = Folder::fresh();
        folder.pair("a.example", &ecdsa(&["a.example"]));
        let mut settings = Settings::default();
        settings.server.folder = Some(folder.root().to_owned());
        let mut material = Material::read(settings).unwrap();
        folder.pair("b.example", &ecdsa(&["b.example"]));
        assert!(material.looks_changed());
        assert!(material.read_again(false, NOW).unwrap().server);
        assert_eq!(material.certificates().count(), 2);
    }

    #[test]
    fn only_own_keys_rotate() {
        let folder = Folder::fresh();
        let mut settings = settings(&folder.pair("mx", &ecdsa(&["mx.example"])));
        let rotates = |settings: &Settings| Material::read(settings.clone()).unwrap().rotate();
        assert!(rotates(&settings));
        settings.server.tickets = Some(folder.write("keys", &"a".repeat(64)));
        assert!(!rotates(&settings));
        let mut material = Material::read(settings).unwrap();
        folder.write("keys", &format!("{}\n{}\n", "a".repeat(64), "b".repeat(64)));
        assert!(material.read_again(false, NOW).unwrap().server);
        assert!(!Material::read(Settings::default()).unwrap().rotate());
    }
}
