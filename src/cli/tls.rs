//! TLS as configured: both groups of flags together, and what is in the files that they name.

use std::path::Path;

use super::{
    flags::{Flags, Purpose, tls, tls::needs_certificate, upstreams::Upstream},
    reader::Reader,
    units::Fault,
};
use crate::net::ClientTls;
use crate::tls::{FileFault, Material, Settings, UpstreamMode};

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
        let (verifies, hybrid) = (any_verified(upstreams), clients.server.hybrid);
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

/// Whether certificates of any upstream are verified.
pub fn any_verified(upstreams: &[Upstream]) -> bool {
    let wishes = upstreams
        .iter()
        .filter_map(|upstream| upstream.tls.as_ref());
    wishes
        .into_iter()
        .any(|wish| wish.mode == UpstreamMode::Verify)
}

/// Tells of a file under the flag that named it.
fn blame(reader: &mut Reader, flags: &Flags, fault: FileFault) {
    let FileFault { path, why } = fault;
    reader.wrong(
        flag_of(flags, &path),
        path.display().to_string(),
        Fault::new(why, "name a file that does"),
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
        config::Config,
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
    fn an_empty_folder_is_no_certificate() {
        let folder = Folder::fresh();
        let blamed = blamed(&["--tls-dir", folder.root().to_str().unwrap()]);
        assert_eq!(blamed[0].0, "--tls-dir");
    }
}
