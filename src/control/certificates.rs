//! Certificates and all else that TLS is made from: watched, read again, and told to the shards.
//!
//! Files are looked at every few seconds; a changed one has everything read again, all or nothing. What cannot be used
//! is tried again at each look until it can, and logged once, and again when the reason becomes another.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Target, process};
use crate::metrics::certificates::Certificates as Readings;
use crate::shard::Mail;
use crate::tls::{Changed, Material, UpstreamWish, tickets};

/// How often certificates that end soon are logged.
const REMIND: Duration = Duration::from_secs(86_400);

pub struct Certificates {
    material: Material,
    /// Whether any upstream is verified.
    verifies: bool,
    /// Why the last reading failed; empty: it did not.
    faults: Vec<String>,
    passed: u64,
    failed: u64,
    rotated: Instant,
    reminded: Option<Instant>,
}

impl Certificates {
    pub fn new(material: Material, targets: &[Target]) -> Self {
        Self {
            material,
            verifies: verifies(targets),
            faults: Vec::new(),
            passed: 0,
            failed: 0,
            rotated: Instant::now(),
            reminded: None,
        }
    }

    pub fn material(&self) -> &Material {
        &self.material
    }

    /// Whether anything has to be looked at now and then.
    pub fn is_watched(&self) -> bool {
        self.material.has_files()
    }

    /// For these upstreams from now on: all files are read again. Err: everything stays as it was.
    pub fn reload(&mut self, targets: &[Target]) -> Result<Changed, Vec<String>> {
        let verifies = verifies(targets);
        let changed = self.read_again(verifies)?;
        self.verifies = verifies;
        Ok(changed)
    }

    /// Time to look at the files, and at the keys of tickets.
    pub fn look(&mut self) -> Changed {
        self.remind();
        let mut changed = Changed::default();
        if self.material.looks_changed() || !self.faults.is_empty() {
            let before = self.faults.clone();
            match self.read_again(self.verifies) {
                Ok(news) => {
                    changed = news;
                    log::info!("TLS: files have changed and are in use");
                }
                Err(faults) if faults == before => {}
                Err(faults) => faults.iter().for_each(|fault| {
                    log::error!("TLS: {fault}; what was read before stays in use")
                }),
            }
        }
        if self.rotated.elapsed() >= tickets::ROTATION {
            self.rotated = Instant::now();
            changed.server |= self.material.rotate();
        }
        changed
    }

    /// What clients shake hands with from now on.
    pub fn mail(&self) -> Option<Mail> {
        self.material
            .server_tls()
            .map(|tls| Mail::Tls(Arc::new(tls)))
    }

    /// For the pages.
    pub fn readings(&self) -> Readings {
        let end = |certificate: &crate::tls::Certificate| {
            let file = certificate.pair.certificate.display();
            (file.to_string(), certificate.validity.not_after)
        };
        // One file may serve both legs.
        let ends: BTreeMap<_, _> = self.material.certificates().map(end).collect();
        Readings {
            ends: ends.into_iter().collect(),
            passed: self.passed,
            failed: self.failed,
            failing: !self.faults.is_empty(),
        }
    }

    fn read_again(&mut self, verifies: bool) -> Result<Changed, Vec<String>> {
        let read = self.material.read_again(verifies, now());
        self.faults = match &read {
            Ok(_) => Vec::new(),
            Err(faults) => faults.iter().map(ToString::to_string).collect(),
        };
        match read.is_ok() {
            true => self.passed += 1,
            false => self.failed += 1,
        }
        read.map_err(|_| self.faults.clone())
    }

    /// Tells of certificates that end soon or have ended: at start, and once a day.
    fn remind(&mut self) {
        if self.reminded.is_some_and(|last| last.elapsed() < REMIND) {
            return;
        }
        self.reminded = Some(Instant::now());
        for warning in self.material.warnings(now()) {
            log::warn!("{warning}");
        }
    }
}

fn verifies(targets: &[Target]) -> bool {
    UpstreamWish::any_verified(targets.iter().filter_map(|target| target.tls.as_ref()))
}

/// Seconds since 1970.
fn now() -> i64 {
    process::seconds_since_1970() as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::Settings;
    use crate::tls::fixtures::{Folder, ecdsa};

    fn material(pair: crate::tls::Pair) -> Material {
        let mut settings = Settings::default();
        settings.server.pairs.push(pair);
        Material::read(settings).unwrap()
    }

    #[test]
    fn a_look_finds_new_files_and_mended_ones() {
        let folder = Folder::fresh();
        let pair = folder.pair("mx", &ecdsa(&["mx.example"]));
        let mut certificates = Certificates::new(material(pair), &[]);
        assert_eq!(certificates.look(), Changed::default());
        folder.write("mx.key", "half");
        assert_eq!(certificates.look(), Changed::default());
        assert!(certificates.readings().failing && certificates.readings().failed == 1);
        assert!(certificates.faults.len() == 1, "{:?}", certificates.faults);
        folder.pair("mx", &ecdsa(&["mx.example"]));
        assert!(certificates.look().server && certificates.faults.is_empty());
        let readings = certificates.readings();
        assert_eq!((readings.passed, readings.ends.len()), (1, 1));
        assert!(matches!(certificates.mail(), Some(Mail::Tls(_))));
    }

    #[test]
    fn a_reload_tells_what_cannot_be_used() {
        let folder = Folder::fresh();
        let pair = folder.pair("mx", &ecdsa(&["mx.example"]));
        let key = pair.key.display().to_string();
        let mut certificates = Certificates::new(material(pair), &[]);
        assert_eq!(certificates.reload(&[]), Ok(Changed::default()));
        folder.write("mx.key", "");
        let faults = certificates.reload(&[]).unwrap_err();
        assert!(
            faults.len() == 1 && faults[0].starts_with(&key),
            "{faults:?}"
        );
    }
}
