//! TLS as configured: both groups of flags together, and what is in the files that they name.

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, SystemTime},
};

use rustls::SignatureAlgorithm;

use super::{
    config::Config,
    flags::{Flags, Purpose, tls, tls::needs_certificate, upstreams::Upstream},
    reader::Reader,
    units::{Fault, show},
};
use crate::net::ClientTls;
use crate::route::Starttls;
use crate::tls::{
    Certificate, ClientCertificates, FileFault, Material, Oldest, Settings, UpstreamMode,
    UpstreamWish,
};

/// What was meant, with the files read.
#[derive(Clone)]
pub struct Tls {
    pub clients: tls::Tls,
    pub settings: Settings,
    /// Empty for the doctor, who looks at each file himself.
    pub material: Material,
}

impl Tls {
    pub fn read(
        flags: &Flags,
        reader: &mut Reader,
        purpose: Purpose,
        upstreams: &[Upstream],
    ) -> Tls {
        let clients = flags.tls.read(reader);
        let wishes = upstreams.iter().filter_map(|known| known.tls.as_ref());
        let verifies = UpstreamWish::any_verified(wishes);
        let hybrid = clients.server.hybrid;
        let settings = Settings {
            server: clients.server.clone(),
            upstream: flags.upstream_tls.read(reader, verifies, hybrid),
        };
        let material = match purpose {
            Purpose::Doctor => Ok(Material::empty()),
            Purpose::Relay | Purpose::Demo => Material::read(settings.clone()),
        };
        let material = material.unwrap_or_else(|faults| {
            faults.into_iter().for_each(|fault| {
                blame(reader, flags, fault);
            });
            Material::empty()
        });
        Tls {
            clients,
            settings,
            material,
        }
    }

    /// `flag` is a listener's, which does this about TLS.
    pub fn agree(&self, reader: &mut Reader, flag: &str, listener: String, does: ClientTls) {
        if does != ClientTls::Off && !self.settings.server.has_certificate() {
            reader.wrong(flag, listener, needs_certificate());
        }
    }
}

/// The plan: what clients are offered, and with which certificates.
pub fn plan(config: &Config) -> String {
    let tls = &config.tls;
    let server = &tls.settings.server;
    if !server.has_certificate() {
        return "not with clients: no certificate (--tls-cert, --tls-dir)".into();
    }
    let general = match (tls.clients.clients, config.identifying.starttls) {
        (ClientTls::Require, Some(Starttls::Tunnel)) => "STARTTLS is the server's, and required",
        (_, Some(Starttls::Tunnel)) => "STARTTLS is the server's",
        (_, Some(Starttls::Refuse)) => "STARTTLS refused",
        (ClientTls::Off, _) => "only where a listener says so",
        (ClientTls::May, _) => "STARTTLS offered",
        (ClientTls::Require, _) => "STARTTLS required",
        (ClientTls::Implicit, _) => unreachable!("--tls has no such word"),
    };
    let oldest = match server.min {
        Oldest::Tls12 => "1.2 and 1.3",
        Oldest::Tls13 => "1.3",
    };
    let hybrid = match server.hybrid {
        true => ", X25519MLKEM768",
        false => "",
    };
    let clients = match &server.clients {
        ClientCertificates::Off => String::new(),
        ClientCertificates::Ask(ca) => format!(", asks for certificates of {}", ca.display()),
        ClientCertificates::Require(ca) => format!(", requires certificates of {}", ca.display()),
    };
    let tickets = match &server.tickets {
        Some(file) => format!("keys in {}", file.display()),
        None => "keys of this process".into(),
    };
    let mut lines = vec![format!(
        "{general}; TLS {oldest}{hybrid}{clients}; tickets: {tickets}; handshake {}, {} per client; {} keep TLS in the pit",
        show(tls.clients.handshake_timeout),
        match tls.clients.rate_handshakes.to_string() {
            none if none == "0" => "any number".into(),
            rate => rate,
        },
        match tls.clients.parked_max {
            0 => "all parked clients".into(),
            max => format!("at most {max} clients"),
        },
    )];
    lines.extend(tls.material.certificates().map(certificate_words));
    lines.join("\n")
}

fn certificate_words(certificate: &Certificate) -> String {
    let end = Duration::from_secs(certificate.validity.not_after.max(0) as u64);
    let end = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + end).to_string();
    let names = match certificate.names.as_slice() {
        [] => "no names".into(),
        names => names.join(" "),
    };
    format!(
        "{}: {:?} for {names} until {}",
        certificate.pair.certificate.display(),
        certificate.keys.key.algorithm(),
        end.split('T').next().unwrap_or_default(),
    )
}

/// How an upstream is spoken to, in the plan.
pub fn upstream_words(upstream: &Upstream) -> String {
    let Some(wish) = &upstream.tls else {
        return String::new();
    };
    let how = mode_words(wish.mode);
    let first = match wish.implicit {
        true => " from the first byte",
        false => "",
    };
    format!(", {how}{first}, as {}", wish.name.to_str())
}

pub fn mode_words(mode: UpstreamMode) -> &'static str {
    match mode {
        UpstreamMode::May => "TLS where offered",
        UpstreamMode::Require => "TLS required, not verified",
        UpstreamMode::Verify => "TLS required and verified",
    }
}

/// Choices about TLS that may not be meant.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    let server = &config.tls.settings.server;
    if server.has_certificate() && !has_tls(config) {
        warnings.push("there is a certificate, and no listener uses it (--tls off)".into());
    }
    let general = config.tls.clients.clients;
    let mut listeners = config.listening.listen.iter();
    let requires = listeners.any(|listener| listener.service(general).tls == ClientTls::Require);
    if requires && config.identifying.starttls == Some(Starttls::Refuse) {
        warnings.push("no mail can be taken where TLS is required and --transparent-starttls refuse: write terminate or tunnel".into());
    }
    let upstream = &config.tls.settings.upstream;
    if upstream.authorities.is_some() && !upstream.verifies {
        warnings.push("--upstream-ca is not used: no upstream is verified (--upstream-tls verify, or ,tls=verify behind one)".into());
    }
    warnings.extend(config.upstreams.upstreams.iter().filter_map(speaks_first));
    let mut seen = HashSet::new();
    for certificate in config.tls.material.for_clients() {
        let path = certificate.pair.certificate.display();
        if certificate.names.is_empty() {
            warnings.push(format!(
                "certificate {path} has no names (subjectAltName): no client that verifies takes it"
            ));
        }
        let is_rsa = certificate.keys.key.algorithm() == SignatureAlgorithm::RSA;
        for name in &certificate.names {
            if !seen.insert((name, is_rsa)) {
                warnings.push(format!(
                    "certificate {path} is not shown to who asks for {name}: another of its kind comes first"
                ));
            }
        }
    }
    warnings
}

/// Whether any listener speaks TLS.
fn has_tls(config: &Config) -> bool {
    let general = config.tls.clients.clients;
    let mut listeners = config.listening.listen.iter();
    listeners.any(|listener| listener.service(general).tls != ClientTls::Off)
}

/// Clients that may speak TLS at a time.
pub fn sessions_max(config: &Config) -> u64 {
    match has_tls(config) {
        true => config.listening.connections_max.into(),
        false => 0,
    }
}

/// Upstream connections that may speak TLS at a time.
pub fn legs_max(config: &Config) -> u64 {
    let pool = &config.upstreams;
    let secured = (pool.upstreams.iter()).filter(|upstream| upstream.tls.is_some());
    secured
        .map(|upstream| u64::from(upstream.max.unwrap_or(pool.pool_max)))
        .sum()
}

/// Port 465 begins with the handshake everywhere; a dialogue in plaintext would wait for a greeting that never comes.
fn speaks_first(upstream: &Upstream) -> Option<String> {
    let implicit = upstream.tls.as_ref().is_some_and(|tls| tls.implicit);
    let mute = upstream.port == 465 && !implicit;
    mute.then(|| {
        format!(
            "--upstream {} is a port where servers begin with TLS: write ,implicit-tls behind it",
            upstream.name()
        )
    })
}

/// Tells of a file under the flag that named it.
fn blame(reader: &mut Reader, flags: &Flags, fault: FileFault) {
    let FileFault { path, why } = fault;
    reader.wrong(
        flag_of(flags, &path),
        path.display().to_string(),
        Fault::new(why, "mend the file, or name another"),
    );
}

fn flag_of(flags: &Flags, path: &Path) -> &'static str {
    let (clients, upstreams) = (&flags.tls, &flags.upstream_tls);
    let is = |flag: &Option<std::path::PathBuf>| flag.as_deref() == Some(path);
    match () {
        () if clients.tls_cert.iter().any(|known| known == path) => "--tls-cert",
        () if clients.tls_key.iter().any(|known| known == path) => "--tls-key",
        () if is(&clients.tls_client_ca) => "--tls-client-ca",
        () if is(&clients.tls_tickets_file) => "--tls-tickets-file",
        () if is(&upstreams.upstream_cert) => "--upstream-cert",
        () if is(&upstreams.upstream_key) => "--upstream-key",
        () if is(&upstreams.upstream_ca) => "--upstream-ca",
        () if (clients.tls_dir.as_ref()).is_some_and(|folder| path.starts_with(folder)) => {
            "--tls-dir"
        }
        () => "--upstream-tls",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        args::{Wanted, parse},
        reader::Wrong,
    };
    use crate::tls::fixtures::{Folder, ecdsa};

    fn read(words: &[&str]) -> Result<Config, Vec<Wrong>> {
        let base = ["--listen", "127.0.0.1:2525", "--upstream", "127.0.0.1:26"];
        let words = base.iter().chain(words).map(|word| (*word).to_owned());
        let (Some(Wanted::Run(flags)), wrong) = parse(words) else {
            panic!("it is a command line")
        };
        Config::read(&flags, Purpose::Relay, "mx.example", wrong)
    }

    fn blamed(words: &[&str]) -> Vec<(String, String)> {
        let wrong = read(words).err().expect("errors were expected");
        wrong.into_iter().map(|w| (w.flag, w.why)).collect()
    }

    #[test]
    fn each_bad_file_is_told_under_its_flag() {
        let folder = Folder::fresh();
        let pair = folder.pair("a", &ecdsa(&["a.example"]));
        let other = folder.pair("b", &ecdsa(&["b.example"]));
        let (certificate, key) = (
            pair.certificate.to_str().unwrap(),
            pair.key.to_str().unwrap(),
        );
        let junk = folder.write("certs.pem", "junk");
        let junk = junk.to_str().unwrap();
        let words = ["--tls-cert", certificate, "--tls-key", key];
        assert!(read(&words).is_ok());
        let words = [
            &["--tls-cert", junk, "--tls-key", key][..],
            &[
                "--tls-cert",
                certificate,
                "--tls-key",
                other.key.to_str().unwrap(),
            ],
            &["--tls-client-certs", "ask", "--tls-client-ca", "/missing"],
            &[
                "--tls-tickets-file",
                "/missing.keys",
                "--upstream-ca",
                "/missing.ca",
            ],
            &["--tls-dir", folder.root().to_str().unwrap()],
        ];
        let flags: Vec<String> = blamed(&words.concat()).into_iter().map(|w| w.0).collect();
        let want = [
            "--tls-cert", // the junk, by flag
            "--tls-key",
            "--tls-cert", // and once more from the folder
            "--tls-tickets-file",
            "--tls-client-ca",
            "--upstream-ca",
        ];
        let mut sorted = (flags.clone(), want.map(str::to_owned).to_vec());
        sorted.0.sort();
        sorted.1.sort();
        assert_eq!(sorted.0, sorted.1, "{flags:?}");
    }

    #[test]
    fn listeners_with_tls_need_a_certificate() {
        for words in [
            ["--listen", "127.0.0.1:2526,tls=may"],
            ["--listen-tls", "127.0.0.1:4465"],
        ] {
            let blamed = blamed(&words);
            assert_eq!(blamed.len(), 1, "{blamed:?}");
            assert_eq!(blamed[0], (words[0].into(), "needs a certificate".into()));
        }
        let folder = Folder::fresh();
        folder.pair("a", &ecdsa(&["a.example"]));
        let root = folder.root().to_str().unwrap();
        assert!(read(&["--listen-tls", "127.0.0.1:4465", "--tls-dir", root]).is_ok());
    }

    #[test]
    fn the_plan_tells_what_is_offered_and_warns_of_what_is_not_meant() {
        let folder = Folder::fresh();
        let mut words: Vec<String> = Vec::new();
        for (name, made) in [
            ("a", ecdsa(&["a.example"])),
            ("twin", ecdsa(&["a.example"])),
            ("nameless", ecdsa(&[])),
        ] {
            let pair = folder.pair(name, &made);
            let path = |path: std::path::PathBuf| path.display().to_string();
            words.extend(["--tls-cert".into(), path(pair.certificate)]);
            words.extend(["--tls-key".into(), path(pair.key)]);
        }
        let off = "--tls off --upstream localhost:465,implicit-tls --pool-max 10";
        words.extend(off.split(' ').map(str::to_owned));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let plan = crate::cli::check::plan(&read(&words).unwrap_or_else(|w| panic!("{w:?}")), 2);
        for words in [
            "only where a listener says so; TLS 1.2 and 1.3; tickets: keys of this process",
            "a.crt: ECDSA for a.example until 2090-01-01",
            "localhost:465 weight 1, at most 10 connections, TLS required, not verified from the first byte, as localhost",
            "50.0 KiB  TLS with upstreams (10 sessions x 5.0 KiB)",
            "no listener uses it",
            "twin.crt is not shown to who asks for a.example",
            "nameless.crt has no names",
        ] {
            assert!(plan.contains(words), "{words} in\n{plan}");
        }
        assert!(!plan.contains("TLS with clients"), "{plan}");
    }

    #[test]
    fn what_cannot_work_is_warned_of() {
        let folder = Folder::fresh();
        let pair = folder.pair("mx", &ecdsa(&["mx.example"]));
        let (cert, key) = (pair.certificate.display(), pair.key.display());
        for (words, warned) in [
            (
                format!("--upstream a:465 --tls-cert {cert} --tls-key {key}"),
                "write ,implicit-tls",
            ),
            (
                format!("--upstream a --upstream-ca {cert}"),
                "--upstream-ca is not used",
            ),
            (
                format!(
                    "--upstream a --identity proxy-v2 --transparent-starttls refuse --tls require --tls-cert {cert} --tls-key {key}"
                ),
                "no mail can be taken",
            ),
            (
                "--upstream a --trust 0.0.0.0/0".into(),
                "--trust names everybody",
            ),
            (
                "--upstream a,max=7 --identity xclient".into(),
                "there are 107: who comes on top",
            ),
        ] {
            let words: Vec<&str> = words.split(' ').collect();
            let config = read(&words).unwrap_or_else(|wrong| panic!("{wrong:?}"));
            let warnings = crate::cli::check::warnings(&config, 2, 2);
            assert!(
                warnings.iter().any(|one| one.contains(warned)),
                "{warned} in {warnings:?}"
            );
        }
        let config =
            read(&["--upstream", "a:465,implicit-tls"]).unwrap_or_else(|w| panic!("{w:?}"));
        assert!(crate::cli::check::warnings(&config, 2, 2).is_empty());
    }

    #[test]
    fn an_empty_folder_is_no_certificate() {
        let folder = Folder::fresh();
        let blamed = blamed(&["--tls-dir", folder.root().to_str().unwrap()]);
        assert_eq!(blamed[0].0, "--tls-dir");
    }
}
