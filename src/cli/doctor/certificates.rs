//! Certificates: can each file be read, do key and names and time fit, and would other hosts' checks pass?

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::Point;
use crate::tls::{
    Certificate, ClientCertificates, Pair, Settings, Standing, TicketKeys, UpstreamFiles,
    certificates::pairs_in, files, provider,
};

/// `hostname`: what weir calls itself; `now`: seconds since 1970.
pub fn points(settings: &Settings, hostname: &str, now: i64) -> Vec<Point> {
    let server = &settings.server;
    let mut points = Vec::new();
    let mut pairs = server.pairs.clone();
    match server.folder.as_deref().map(pairs_in) {
        Some(Ok(found)) => pairs.extend(found),
        Some(Err(fault)) => points.push(Point::failure(
            fault.to_string(),
            "name a folder that weir may read, --tls-dir",
        )),
        None => {}
    }
    let mut names = Vec::new();
    for pair in &pairs {
        let (about, certificate) = about(pair, now);
        points.extend(about);
        names.extend(certificate.into_iter().flat_map(|read| read.names));
    }
    points.extend(own_name(hostname, server.has_certificate(), &names));
    if let ClientCertificates::Ask(ca) | ClientCertificates::Require(ca) = &server.clients {
        points.push(readable("CA of clients", ca, files::roots(ca)));
    }
    if let Some(keys) = &server.tickets {
        points.push(readable("keys of tickets", keys, TicketKeys::read(keys)));
        points.extend(secret(keys));
    }
    let upstream = &settings.upstream;
    if let Some(pair) = &upstream.pair {
        points.extend(about(pair, now).0);
    }
    if upstream.verifies || upstream.authorities.is_some() {
        let mut roots = upstream.clone();
        roots.pair = None;
        points.extend(match UpstreamFiles::read(&roots) {
            Ok(_) => vec![Point::good("CA certificates for upstreams: readable")],
            Err(faults) => (faults.iter())
                .map(|fault| Point::failure(fault.to_string(), "--upstream-ca with a PEM file"))
                .collect(),
        });
    }
    points
}

fn readable<T>(what: &str, path: &Path, read: Result<T, files::FileFault>) -> Point {
    match read {
        Ok(_) => Point::good(format!("{what} {}: readable", path.display())),
        Err(fault) => Point::failure(fault.to_string(), "mend the file, or name another"),
    }
}

/// All there is to say of a pair, and what is in it.
fn about(pair: &Pair, now: i64) -> (Vec<Point>, Option<Certificate>) {
    let certificate = match Certificate::load(pair, &provider(true)) {
        Ok(certificate) => certificate,
        Err(fault) => {
            let remedy = "mend the file; weir does not start with it";
            return (vec![Point::failure(fault.to_string(), remedy)], None);
        }
    };
    let path = pair.certificate.display();
    let mut points = Vec::new();
    points.push(
        match (certificate.standing(now), certificate.warning(now)) {
            (Standing::Valid, _) | (_, None) => Point::good(format!(
                "certificate {path} for {}",
                certificate.names.join(" ")
            )),
            (_, Some(warning)) => Point::warning(warning, "renew it; weir notices the new file"),
        },
    );
    if certificate.names.is_empty() {
        points.push(Point::warning(
            format!("certificate {path} has no names"),
            "a certificate with the host's name in subjectAltName: the common name counts for nothing",
        ));
    }
    if lacks_chain(&certificate) {
        points.push(Point::warning(
            format!("certificate {path} comes without its issuer's"),
            "put the intermediate certificates behind it in the file (certbot: fullchain.pem)",
        ));
    }
    points.extend(secret(&pair.key));
    (points, Some(certificate))
}

/// Whether it is alone though somebody else has signed it.
fn lacks_chain(certificate: &Certificate) -> bool {
    let [own] = &certificate.keys.cert[..] else {
        return false;
    };
    let parsed = webpki::EndEntityCert::try_from(own);
    parsed.is_ok_and(|parsed| parsed.issuer() != parsed.subject())
}

/// A file with a secret that everybody on the host may read.
fn secret(path: &Path) -> Option<Point> {
    const OTHERS: u32 = 0o004;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & OTHERS != 0).then(|| {
        Point::warning(
            format!("{} can be read by every user of this host", path.display()),
            format!("chmod o-rwx {}", path.display()),
        )
    })
}

/// Clients that check names (MTA-STS, DANE) ask for the name that the MX record has: usually weir's own.
fn own_name(hostname: &str, has_certificate: bool, names: &[String]) -> Option<Point> {
    let name = hostname.to_ascii_lowercase();
    let wildcard = name
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    let is_there = |known: &String| *known == name || Some(known) == wildcard.as_ref();
    if !has_certificate || names.iter().any(is_there) {
        return None;
    }
    Some(Point::warning(
        format!("no certificate is for {hostname}, the name in the greeting"),
        "a certificate for the name that your MX record has, or another --hostname",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;
    use crate::tls::fixtures::{Authority, Folder, Made, ecdsa, ecdsa_until};

    const NOW: i64 = 1_800_000_000; // 2027

    fn of(folder: &Folder, made: &Made, hostname: &str) -> Vec<Point> {
        let mut settings = Settings::default();
        let pair = folder.pair("mx", made);
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
        settings.server.pairs.push(pair);
        points(&settings, hostname, NOW)
    }

    fn told(points: &[Point], level: Level, words: &str) -> bool {
        let found = points.iter().find(|point| point.what.contains(words));
        found.is_some_and(|point| point.level == level)
    }

    #[test]
    fn a_good_certificate_is_one_good_point() {
        let folder = Folder::fresh();
        let points = of(&folder, &ecdsa(&["*.example.org"]), "MX.example.org");
        assert!(
            points.len() == 1 && told(&points, Level::Good, "for *.example.org"),
            "{points:?}"
        );
    }

    #[test]
    fn what_other_hosts_would_not_take_is_told() {
        let folder = Folder::fresh();
        let points = of(&folder, &ecdsa_until(&["mx.example"], 2020), "mx.example");
        assert!(told(&points, Level::Warning, "HAS EXPIRED"), "{points:?}");
        let points = of(&folder, &ecdsa(&["other.example"]), "mx.example");
        assert!(told(
            &points,
            Level::Warning,
            "no certificate is for mx.example"
        ));
        let points = of(&folder, &ecdsa(&[]), "mx.example");
        assert!(told(&points, Level::Warning, "has no names"));
        let signed = Authority::fresh().sign(&["mx.example"]);
        let points = of(&folder, &signed, "mx.example");
        assert!(
            told(&points, Level::Warning, "without its issuer's"),
            "{points:?}"
        );
    }

    #[test]
    fn files_that_do_not_do_and_open_secrets_are_told() {
        let folder = Folder::fresh();
        let mut settings = Settings::default();
        let pair = folder.pair("mx", &ecdsa(&["mx.example"]));
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o644)).unwrap();
        settings.server.pairs.push(pair.clone());
        settings.server.folder = Some(folder.path("missing"));
        settings.server.clients = ClientCertificates::Ask(folder.path("ca.pem"));
        settings.server.tickets = Some(folder.write("keys", "short"));
        settings.upstream.authorities = Some(folder.path("roots.pem"));
        let told_of = points(&settings, "mx.example", NOW);
        for (level, words) in [
            (Level::Warning, "mx.key can be read by every user"),
            (Level::Failure, "missing cannot be read"),
            (Level::Failure, "ca.pem cannot be read"),
            (Level::Failure, "keys has no key in line 1"),
            (Level::Failure, "roots.pem cannot be read"),
        ] {
            assert!(told(&told_of, level, words), "{words} in {told_of:?}");
        }
        fs::remove_file(&pair.key).unwrap();
        let told_of = points(&settings, "mx.example", NOW);
        assert!(told(&told_of, Level::Failure, "mx.key cannot be read"));
    }
}
