//! weir as a child process, and its admin page.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::child::{self, Child};
use super::config::{self, Ports};
use super::folder::Folder;
use super::kind::loopback;
use super::sink::Sink;
use super::workload::Setting;

/// Which weir, and what it is told beyond bench-harness/peers/weir.flags.
#[derive(Debug, Clone, Default)]
pub struct WeirOptions {
    pub binary: PathBuf,
    pub flags: Vec<String>,
}

impl WeirOptions {
    /// The weir beside this program, if none is named; a debug build is refused, as every figure of it would be wrong.
    pub fn new(binary: Option<PathBuf>, flags: &str) -> Result<WeirOptions> {
        let binary = match binary {
            Some(binary) => binary,
            None => std::env::current_exe()
                .context("cannot find this program's own file")?
                .with_file_name("weir"),
        };
        let binary = binary.canonicalize().with_context(|| {
            let shown = binary.display();
            format!("no weir at {shown}: cargo build --release, or name one with --weir")
        })?;
        if is_debug_build(&binary) {
            bail!(
                "{} is a debug build: its figures would mean nothing; cargo build --release, or --weir",
                binary.display()
            );
        }
        Ok(WeirOptions {
            binary,
            flags: flags.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// The same weir with further flags; of a flag given twice the later counts.
    pub fn with(&self, flags: &str) -> WeirOptions {
        let further = flags.split_whitespace().map(str::to_owned);
        WeirOptions {
            binary: self.binary.clone(),
            flags: further.chain(self.flags.iter().cloned()).collect(),
        }
    }
}

/// Cargo puts builds of the dev profile into a folder of this name.
fn is_debug_build(binary: &Path) -> bool {
    binary.parent().and_then(Path::file_name) == Some("debug".as_ref())
}

pub struct Weir {
    pub smtp: SocketAddr,
    /// Where it listens in TLS, if it was started so.
    pub smtp_tls: SocketAddr,
    pub child: Child,
    admin: SocketAddr,
}

impl Weir {
    pub fn start(
        folder: &Folder,
        sink: &Sink,
        setting: Setting,
        threads: u32,
        options: &WeirOptions,
    ) -> Result<Weir> {
        let ports = Ports {
            smtp: child::free_port()?,
            tls: child::free_port()?,
            admin: child::free_port()?,
        };
        let text = config::weir(ports, sink, setting, threads, folder.path())?;
        let file = folder.write(&format!("weir-{}.flags", ports.smtp), &text)?;
        let mut command = Command::new(&options.binary);
        command
            .arg(format!("@{}", file.display()))
            .args(&options.flags);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEIR_") {
                command.env_remove(name);
            }
        }
        let child = Child::spawn("weir", command, folder.path())?;
        let mut weir = Weir {
            smtp: loopback(ports.smtp),
            smtp_tls: loopback(ports.tls),
            admin: loopback(ports.admin),
            child,
        };
        weir.wait_ready()?;
        Ok(weir)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let admin = self.admin;
        self.child.wait_until("/readyz", child::START_PATIENCE, || {
            Ok(page(admin, "/readyz").is_ok())
        })
    }

    /// A metric summed over all shards and labels.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let text = page(self.admin, "/metrics")?;
        sum(&text, name).with_context(|| format!("weir has no metric {name}"))
    }

    /// Waits until a metric is as wanted.
    pub fn wait_metric(
        &mut self,
        name: &str,
        patience: Duration,
        wanted: impl Fn(f64) -> bool,
    ) -> Result<()> {
        let admin = self.admin;
        self.child.wait_until(name, patience, || {
            let text = page(admin, "/metrics")?;
            Ok(sum(&text, name).is_some_and(&wanted))
        })
    }
}

/// GET of an admin page; anything but 200 is an error.
fn page(admin: SocketAddr, path: &str) -> Result<String> {
    let patience = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&admin, patience)
        .with_context(|| format!("cannot reach weir's admin page at {admin}"))?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .with_context(|| format!("weir's admin page {path} does not end"))?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        _ => bail!("weir's admin page {path}: {:?}", text.lines().next()),
    }
}

/// Adds up the samples of one metric in Prometheus' text.
fn sum(text: &str, name: &str) -> Option<f64> {
    let samples: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with('{') || rest.starts_with(' '))
        .filter_map(|rest| rest.rsplit_once(' ')?.1.parse().ok())
        .collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_all_shards_add_up() {
        let text = "# HELP weir_pit_rows x\nweir_pit_rows{shard=\"0\"} 3\nweir_pit_rows{shard=\"1\"} 4\nweir_pit_rows_max 9\n";
        assert_eq!(sum(text, "weir_pit_rows"), Some(7.0));
        assert_eq!(sum(text, "weir_pit"), None);
    }

    #[test]
    fn a_debug_build_is_known_by_its_folder() {
        assert!(is_debug_build(Path::new("/x/target/debug/weir")));
        assert!(!is_debug_build(Path::new("/x/debug/release/weir")));
    }

    #[test]
    fn later_flags_stand_later() {
        let options = WeirOptions {
            binary: PathBuf::from("weir"),
            flags: vec!["--gather".to_owned(), "0".to_owned()],
        };
        assert_eq!(
            options.with("--shards 6").flags,
            ["--shards", "6", "--gather", "0"]
        );
    }
}
