//! Which files are still used once weir runs, by whom and what for: the one table the sandbox goes by.
//!
//! A part that opens a file after the start has a row here, or a line in [`Config::sandbox`]; everything else is out of reach.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{config::Config, flags::Flags};
use crate::route::Identity;
use crate::rt;
use crate::sandbox::{Need, Sandbox, Trouble, Use};

/// Who, what for, and where.
type Row = (&'static str, &'static [&'static str]);

/// Whoever weir runs as.
const SYSTEM: &[Row] = &[
    (
        "the resolver and its modules (getaddrinfo)",
        &["/lib", "/lib64", "/usr/lib", "/usr/lib64"],
    ),
    (
        "certificate authorities of the system, where /etc has links only",
        &[
            "/usr/share/ca-certificates",
            "/usr/local/share/ca-certificates",
            "/usr/share/pki",
            "/var/lib/ca-certificates",
        ],
    ),
    // Not /proc/self alone: the kernel may make that folder anew, and a rule would hold for the old one.
    ("metrics of the process, limits, memory", &["/proc"]),
    ("cores, when a shard starts", &["/sys/devices/system"]),
];

/// Resolver files are replaced by DHCP clients and editors: whoever takes their place has another inode. All of /etc that
/// everybody may read is no secret to a user without privileges.
const ORDINARY: &[Row] = &[("resolver, certificate authorities", &["/etc"])];

/// root could read what nobody should. What is replaced here is found again at the next start.
const ROOT: &[Row] = &[
    (
        "resolver",
        &[
            "/etc/resolv.conf",
            "/etc/nsswitch.conf",
            "/etc/hosts",
            "/etc/host.conf",
            "/etc/gai.conf",
            "/etc/services",
            "/etc/ld.so.cache",
        ],
    ),
    (
        "certificate authorities",
        &["/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust"],
    ),
];

/// A file that a flag names and that is read again while weir runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reread {
    pub flag: &'static str,
    pub path: PathBuf,
}

/// The lists that SIGHUP reads again.
pub fn lists(flags: &Flags) -> Vec<Reread> {
    let at = |words: &[String]| -> Vec<PathBuf> {
        let named = words.iter().filter_map(|word| word.strip_prefix('@'));
        named.map(PathBuf::from).collect()
    };
    let relay = &flags.relay;
    let files = flags.lists.files();
    let files =
        files.map(|(flag, _, _, path)| (flag, path.map(PathBuf::from).into_iter().collect()));
    [
        ("--upstream", at(&flags.upstreams.upstream)),
        ("--relay-domains", at(relay.relay_domains.as_slice())),
        ("--relay-from", at(&relay.relay_from)),
        (
            "--resolver",
            flags
                .resolver
                .file()
                .map(PathBuf::from)
                .into_iter()
                .collect(),
        ),
    ]
    .into_iter()
    .chain(files)
    .chain(
        flags
            .memory
            .files()
            .map(|(flag, path)| (flag, path.cloned().into_iter().collect())),
    )
    .flat_map(|(flag, paths)| paths.into_iter().map(move |path| Reread { flag, path }))
    // What a shell gives as /dev/fd/63 is read once.
    .filter(|reread| reread.path.is_file())
    .collect()
}

impl Config {
    /// What weir gives up, and what it needs all the same. `locks_much`: locked memory may not suffice.
    pub fn sandbox(&self, locks_much: bool) -> Sandbox {
        let running = &self.running;
        let is_root = running.user.is_none() && rt::effective_uid() == 0;
        let rows = SYSTEM.iter().chain(if is_root { ROOT } else { ORDINARY });
        let fixed = rows.flat_map(|(_, places)| *places);
        let mut needs: Vec<Need> = fixed.map(|place| Need::of(place, Use::Read)).collect();
        let resolver = Path::new("/etc/resolv.conf").canonicalize();
        let elsewhere = resolver.ok().filter(|real| !real.starts_with("/etc"));
        if let Some(real) = elsewhere {
            needs.extend(Need::of_replaceable(&real, Use::Read));
        }
        // For the names in a backtrace.
        needs.extend(std::env::current_exe().map(|own| Need::of(own, Use::Read)));
        let roots = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
        let roots = roots.iter().filter_map(std::env::var_os).map(PathBuf::from);
        let certificates = self.tls.settings.paths().cloned();
        let lists = self.reread.iter().map(|reread| reread.path.clone());
        for path in certificates.chain(roots).chain(lists) {
            needs.extend(Need::of_replaceable(&path, Use::Read));
            // A folder of certificates may be one of links.
            for entry in entries(&path) {
                needs.extend(Need::of_replaceable(&entry, Use::Read));
            }
        }
        if let Some(log) = &self.logging.log.file {
            needs.extend(Need::of_replaceable(log, Use::Write));
        }
        if let Some(state) = &self.lasting.file {
            needs.extend(Need::of_replaceable(state, Use::Keep));
        }
        needs.sort();
        needs.dedup();
        let identifying = &self.identifying;
        Sandbox {
            user: running.user.clone(),
            fenced: running.fenced,
            foreign_addresses: identifying.identity == Identity::Transparent
                || identifying.mark != 0,
            locks_much,
            needs,
        }
    }

    /// The first file that could be used before, and not any more: it would be missed later.
    pub fn out_of_reach(&self) -> Option<Trouble> {
        self.state_out_of_reach()
            .or_else(|| self.list_out_of_reach())
    }

    /// A disk that is full or fails is waited for once weir runs; where the file cannot ever be is told now.
    fn state_out_of_reach(&self) -> Option<Trouble> {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied};
        let path = self.lasting.file.as_ref()?;
        let error = crate::state::reach(path).err()?;
        let fatal = [IsADirectory, NotADirectory, NotFound, PermissionDenied];
        fatal.contains(&error.kind()).then(|| Trouble {
            what: format!("--state {}: {error}", path.display()),
            remedy: format!(
                "its folder has to be there, and writable for the user that weir runs as (--user): {}",
                path.parent().unwrap_or(path).display()
            ),
        })
    }

    fn list_out_of_reach(&self) -> Option<Trouble> {
        let denied = |path: &Path| {
            fs::File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        let lists = self.reread.iter().map(|list| (list.flag, &list.path));
        let certificates = self.tls.settings.paths().map(|path| ("TLS:", path));
        let mut all = lists.chain(certificates);
        let (flag, path) = all.find_map(|(flag, path)| {
            let mut these = std::iter::once(path.clone()).chain(entries(path));
            Some((flag, these.find(|path| denied(path))?))
        })?;
        let path = path.display();
        let user = match &self.running.user {
            Some(user) => format!("as {}", user.name),
            None => "without capabilities".into(),
        };
        Some(Trouble {
            what: format!(
                "{flag} {path}: cannot be read {user}, and would be missed when it is read again"
            ),
            remedy: format!(
                "make the file and its folders readable for that user (ls -l {path}; namei -l {path})"
            ),
        })
    }
}

/// What lies in a folder; nothing if it is a file.
fn entries(path: &Path) -> impl Iterator<Item = PathBuf> {
    let read = fs::read_dir(path).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path()))
}

/// For the plan.
pub fn describe(sandbox: &Sandbox) -> String {
    let user = match &sandbox.user {
        Some(user) => format!("runs as {} (uid {})", user.name, user.uid),
        None => "runs as whoever starts it".into(),
    };
    if !sandbox.fenced {
        return format!("{user}; keeps what that user may (--sandbox no)");
    }
    let keeps = match sandbox.foreign_addresses {
        true => "keeps CAP_NET_RAW alone, for clients' addresses and marks",
        false => "keeps no capability",
    };
    let places = |used| {
        let these = sandbox.needs.iter().filter(|need| need.used == used);
        let shown: Vec<String> = these.map(|need| need.path.display().to_string()).collect();
        match shown.is_empty() {
            true => "nothing".into(),
            false => shown.join(" "),
        }
    };
    format!(
        "{user}; {keeps}, executes nothing\nreads {}\nwrites {}\nkeeps {}",
        places(Use::Read),
        places(Use::Write),
        places(Use::Keep)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        args::{Wanted, parse},
        flags::Purpose,
    };

    fn config(words: &[&str]) -> Config {
        let (Some(Wanted::Run(flags)), wrong) = parse(words.iter().map(|w| (*w).to_owned())) else {
            panic!("{words:?}")
        };
        Config::read(&flags, Purpose::Relay, "mx.example", wrong)
            .unwrap_or_else(|wrong| panic!("{wrong:?}"))
    }

    fn needs(config: &Config, path: &Path, used: Use) -> bool {
        config.sandbox(false).needs.contains(&Need::of(path, used))
    }

    #[test]
    fn every_list_and_the_log_are_needed_by_their_folders() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let list = |name: &str, text: &str| {
            let folder = root.join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("list"), text).unwrap();
            format!("{}/{name}/list", root.display())
        };
        let (servers, domains) = (list("servers", "mx1:25"), list("domains", "a.example"));
        let (from, allow) = (list("from", "10.0.0.0/8"), list("allow", "10.0.0.0/8"));
        let (deny, log) = (list("deny", "10.0.0.0/8"), list("log", ""));
        let config = config(&[
            "--listen",
            "127.0.0.1:25",
            "--upstream",
            &format!("@{servers}"),
            "--relay-domains",
            &format!("@{domains}"),
            "--relay-from",
            &format!("@{from}"),
            "--allow-list",
            &allow,
            "--deny-list",
            &deny,
            "--log-file",
            &log,
        ]);
        for name in ["servers", "domains", "from", "allow", "deny"] {
            assert!(needs(&config, &root.join(name), Use::Read), "{name}");
        }
        assert!(needs(&config, &root.join("log"), Use::Write));
        assert_eq!(config.reread.len(), 5);
        assert_eq!(config.out_of_reach(), None);
    }

    #[test]
    fn only_an_ordinary_user_may_see_all_of_etc() {
        let base = ["--listen", "127.0.0.1:25", "--upstream", "mx"];
        let nobody = config(&[&base[..], &["--user", "nobody"]].concat());
        assert!(needs(&nobody, Path::new("/etc"), Use::Read));
        let whoever = config(&base);
        let is_root = rt::effective_uid() == 0;
        assert_eq!(needs(&whoever, Path::new("/etc"), Use::Read), !is_root);
    }

    #[test]
    fn capabilities_are_kept_for_foreign_addresses_and_marks_alone() {
        let keeps = |words: &[&str]| {
            let base = ["--listen", "127.0.0.1:25", "--upstream", "mx"];
            let config = config(&[&base[..], words].concat());
            (
                config.sandbox(false).foreign_addresses,
                describe(&config.sandbox(false)).contains("CAP_NET_RAW"),
            )
        };
        assert_eq!(keeps(&[]), (false, false));
        assert_eq!(keeps(&["--identity", "proxy-v2"]), (false, false));
        assert_eq!(keeps(&["--identity", "transparent"]), (true, true));
        assert_eq!(keeps(&["--transparent-mark", "7"]), (true, true));
    }

    #[test]
    fn the_folder_of_the_state_is_needed_and_looked_at_before_the_start() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().canonicalize().unwrap();
        let at = |path: &str| {
            let state = root.join(path).display().to_string();
            config(&[
                "--listen",
                "127.0.0.1:25",
                "--upstream",
                "mx",
                "--state",
                &state,
            ])
        };
        let good = at("state");
        assert!(needs(&good, &root, Use::Keep));
        assert!(describe(&good.sandbox(false)).contains(&format!("keeps {}", root.display())));
        assert_eq!(good.out_of_reach(), None);
        let trouble = at("nowhere/state").out_of_reach().unwrap();
        assert!(trouble.to_string().contains("nowhere/state"), "{trouble}");
    }
}
