//! A server as a child process: its own process group, its output in a log, ended by its number when it is dropped.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::sys;

/// How long a server may take until it answers, and how long to go once it is told to.
pub const START_PATIENCE: Duration = Duration::from_secs(20);
const END_PATIENCE: Duration = Duration::from_secs(5);
/// How much of a log an error shows.
const LOG_TAIL: usize = 2_000;

pub struct Child {
    pub name: String,
    process: std::process::Child,
    log: PathBuf,
}

impl Child {
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> Result<Child> {
        let log = folder.join(format!("{name}-{:06x}.out", fastrand::u32(..1 << 24)));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let both = file
            .try_clone()
            .with_context(|| format!("cannot write {} twice", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(both)
            .process_group(0);
        sys::end_with_parent(&mut command);
        let process = command
            .spawn()
            .with_context(|| format!("cannot start {:?} ({name})", command.get_program()))?;
        Ok(Child {
            name: name.to_owned(),
            process,
            log,
        })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.process.try_wait();
        ended.with_context(|| format!("cannot ask after {}", self.name))
    }

    /// An error with the end of its log, once the process is gone.
    pub fn check(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}); its last words:\n{}",
                self.name,
                self.words()
            ),
        }
    }

    /// The end of what it said, for people.
    pub fn words(&self) -> String {
        let text = match fs::read(&self.log) {
            Ok(text) => text,
            Err(error) => return format!("(cannot read {}: {error})", self.log.display()),
        };
        let tail = &text[text.len().saturating_sub(LOG_TAIL)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    /// Asks until the answer is yes, the process is gone or the patience is over.
    pub fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            self.check()?;
            if ready()? {
                return Ok(());
            }
            if Instant::now() > until {
                bail!(
                    "{}: waited {} s in vain for {what}; its last words:\n{}",
                    self.name,
                    patience.as_secs(),
                    self.words()
                );
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn wait_listening(&mut self, at: SocketAddr) -> Result<()> {
        self.wait_until(&format!("{at} to listen"), START_PATIENCE, || {
            Ok(TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok())
        })
    }

    /// Waits for an end that comes by itself or was asked for.
    pub fn wait_ended(&mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        while self.ended()?.is_none() {
            if Instant::now() > until {
                bail!(
                    "{} does not end; its last words:\n{}",
                    self.name,
                    self.words()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::signal(self.pid(), signal).with_context(|| format!("cannot signal {}", self.name))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        // Not yet waited for, so the number cannot be somebody else's.
        let group = self.process.id();
        if sys::signal_group(group, libc::SIGTERM).is_ok() && self.wait_ended(END_PATIENCE).is_ok()
        {
            return;
        }
        if let Err(error) = sys::signal_group(group, libc::SIGKILL) {
            eprintln!("cannot end {}: {error}", self.name);
        }
        if let Err(error) = self.process.wait() {
            eprintln!("cannot wait for {}: {error}", self.name);
        }
    }
}

/// A port below the ephemeral range that nobody listens on now.
pub fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let port = fastrand::u16(10_000..31_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 10000 and 31000")
}

/// A program of the system: PATH, then the folders of programs for administrators.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/postfix/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn one_that_dies_is_an_error_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo no such upstream >&2; exit 3";
        let mut child = Child::spawn("proxy", shell(script), folder.path()).unwrap();
        let nobody = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let error = child.wait_listening(nobody).unwrap_err().to_string();
        assert!(error.contains("no such upstream"), "{error}");
        assert!(error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn one_that_never_answers_is_an_error_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Child::spawn("mute", shell("sleep 60"), folder.path()).unwrap();
        let error = child
            .wait_until("a word", Duration::from_millis(80), || Ok(false))
            .unwrap_err();
        assert!(error.to_string().contains("in vain for a word"), "{error}");
    }

    #[test]
    fn with_it_go_its_own_children() {
        let folder = tempfile::tempdir().unwrap();
        let mut child =
            Child::spawn("tree", shell("sleep 60 & echo $!; wait"), folder.path()).unwrap();
        child
            .wait_until("a number", START_PATIENCE, || Ok(true))
            .unwrap();
        let mut grandchild = None;
        for _ in 0..200 {
            grandchild = child.words().trim().parse::<u32>().ok();
            if grandchild.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let stat = format!("/proc/{}/stat", grandchild.expect("sh prints a number"));
        drop(child);
        // Whoever adopts it may take a moment to bury it: a zombie is gone enough.
        let gone = |text: std::io::Result<String>| text.map_or(true, |text| text.contains(") Z "));
        for _ in 0..200 {
            if gone(fs::read_to_string(&stat)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{stat} is still there");
    }
}
