//! The peers, and how each is started: a configuration from bench-harness/peers/, a process, an address that answers.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};

use super::child::{self, Child};
use super::config::{self, Places};
use super::folder::Folder;
use super::sink::Sink;
use super::weir::{Weir, WeirOptions};
use super::workload::Setting;
use crate::proc::tree;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No proxy: what source and sink can do on this machine.
    Direct,
    Haproxy,
    NginxMail,
    NginxStream,
    Postfix,
    Weir,
}

impl Kind {
    pub const ALL: [Kind; 6] = [
        Kind::Direct,
        Kind::Haproxy,
        Kind::NginxMail,
        Kind::NginxStream,
        Kind::Postfix,
        Kind::Weir,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Kind::Direct => "direct",
            Kind::Haproxy => "haproxy",
            Kind::NginxMail => "nginx-mail",
            Kind::NginxStream => "nginx-stream",
            Kind::Postfix => "postfix",
            Kind::Weir => "weir",
        }
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Kind> {
        let found = Kind::ALL.into_iter().find(|kind| kind.word() == word);
        found.with_context(|| {
            let known = Kind::ALL.map(Kind::word).join(", ");
            format!("no peer is called {word:?}; there are {known}")
        })
    }
}

/// A peer that answers.
pub struct Peer {
    pub kind: Kind,
    pub smtp: SocketAddr,
    /// None for `direct`.
    server: Option<Child>,
    /// Helpers whose CPU time is not the peer's.
    _helpers: Vec<Child>,
}

impl Peer {
    /// CPU time of all its processes since they started; None where there is no proxy.
    pub fn cpu(&mut self) -> Result<Option<std::time::Duration>> {
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        server.check()?;
        tree::cpu_time(server.pid()).map(Some)
    }

    /// The process to take samples of.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::pid)
    }
}

/// What peers are started with.
pub struct Bench<'a> {
    pub folder: &'a Folder,
    pub sink: &'a Sink,
    pub setting: Setting,
    pub threads: u32,
    pub weir: &'a WeirOptions,
}

/// Why a peer is not there although it was asked for: not installed, not allowed. Anything else is an error.
pub enum Start {
    Ready(Peer),
    Absent(String),
}

impl Bench<'_> {
    pub fn start(&self, kind: Kind) -> Result<Start> {
        match kind {
            Kind::NginxMail | Kind::Postfix if self.setting != Setting::Plain => {
                Ok(Start::Absent("is compared in plaintext only".to_owned()))
            }
            Kind::NginxStream if self.setting.is_named() => {
                let why = "has PROXY headers of version 1 only";
                Ok(Start::Absent(why.to_owned()))
            }
            Kind::Direct => Ok(Start::Ready(Peer {
                kind,
                smtp: match self.setting {
                    Setting::Tls => self.sink.smtp_tls,
                    _ => self.sink.smtp,
                },
                server: None,
                _helpers: Vec::new(),
            })),
            Kind::Haproxy => self.haproxy(),
            Kind::NginxMail => self.nginx_mail(),
            Kind::NginxStream => self.nginx_stream(),
            Kind::Postfix => self.postfix(),
            Kind::Weir => self.weir(),
        }
    }

    fn haproxy(&self) -> Result<Start> {
        let Some(program) = child::program("haproxy") else {
            return Ok(not_installed("haproxy"));
        };
        let port = child::free_port()?;
        let text = config::haproxy(port, self.sink, self.setting, self.threads)?;
        let mut command = Command::new(program);
        command.args(["-db", "-f"]);
        command.arg(self.folder.write(&format!("haproxy-{port}.cfg"), &text)?);
        self.listening(Kind::Haproxy, port, command, Vec::new())
    }

    fn nginx_stream(&self) -> Result<Start> {
        let (Some(program), Some(modules)) = (child::program("nginx"), modules("stream")) else {
            return Ok(not_installed("nginx with libnginx-mod-stream"));
        };
        let port = child::free_port()?;
        let places = self.places(&modules);
        let text = config::nginx_stream(port, self.sink, self.setting, self.threads, places)?;
        let command = self.nginx(&program, &format!("nginx-stream-{port}.conf"), &text)?;
        self.listening(Kind::NginxStream, port, command, Vec::new())
    }

    fn nginx_mail(&self) -> Result<Start> {
        let (Some(program), Some(modules)) = (child::program("nginx"), modules("mail")) else {
            return Ok(not_installed("nginx with libnginx-mod-mail"));
        };
        let (port, auth) = (child::free_port()?, child::free_port()?);
        let text = config::nginx_auth(auth, self.sink.smtp, self.folder.path())?;
        let command = self.nginx(&program, &format!("nginx-auth-{auth}.conf"), &text)?;
        let mut helper = Child::spawn("nginx-auth", command, self.folder.path())?;
        helper.wait_listening(loopback(auth))?;
        let places = self.places(&modules);
        let text = config::nginx_mail(port, auth, self.sink.chunking, self.threads, places)?;
        let command = self.nginx(&program, &format!("nginx-mail-{port}.conf"), &text)?;
        self.listening(Kind::NginxMail, port, command, vec![helper])
    }

    fn nginx(&self, program: &Path, name: &str, text: &str) -> Result<Command> {
        let file = self.folder.write(name, text)?;
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(self.folder.path())
            .arg("-c")
            .arg(file);
        Ok(command)
    }

    /// `postfix check` makes the queue's folders and says on standard error what is wrong; `master` itself only tells syslog.
    fn postfix(&self) -> Result<Start> {
        let (Some(postfix), Some(master)) = (child::program("postfix"), child::program("master"))
        else {
            return Ok(not_installed("postfix"));
        };
        if !is_root()? {
            let why = "Postfix starts as root only (master(8) changes users)";
            return Ok(Start::Absent(why.to_owned()));
        }
        let port = child::free_port()?;
        let config = self.folder.sub(&format!("postfix-{port}"))?;
        self.postfix_files(port, &config)?;
        let mut command = Command::new(postfix);
        command.arg("-c").arg(&config).arg("check");
        let mut check = Child::spawn("postfix-check", command, self.folder.path())?;
        check.wait_ended(child::START_PATIENCE)?;
        let mut command = Command::new(master);
        command.arg("-c").arg(&config).arg("-d");
        let words = check.words();
        self.listening(Kind::Postfix, port, command, Vec::new())
            .with_context(|| format!("postfix check said: {words:?}"))
    }

    fn postfix_files(&self, port: u16, config: &Path) -> Result<()> {
        let queue = format!("{}/queue", config.display());
        let data = format!("{}/data", config.display());
        for (path, owner) in [(&queue, 0), (&data, uid_of("postfix")?)] {
            fs::create_dir(path).with_context(|| format!("cannot make {path}"))?;
            std::os::unix::fs::chown(path, Some(owner), None)
                .with_context(|| format!("cannot give {path} to user {owner}"))?;
        }
        let main = config::postfix_main(&queue, &data, self.sink.smtp)?;
        let services = config::postfix_master(port)?;
        for (name, text) in [("main.cf", main), ("master.cf", services)] {
            let path = config.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    fn weir(&self) -> Result<Start> {
        let weir = Weir::start(
            self.folder,
            self.sink,
            self.setting,
            self.threads,
            self.weir,
        )?;
        let smtp = match self.setting {
            Setting::Tls => weir.smtp_tls,
            Setting::Plain | Setting::Identity | Setting::Tunnel => weir.smtp,
        };
        Ok(Start::Ready(Peer {
            kind: Kind::Weir,
            smtp,
            server: Some(weir.child),
            _helpers: Vec::new(),
        }))
    }

    fn listening(
        &self,
        kind: Kind,
        port: u16,
        command: Command,
        helpers: Vec<Child>,
    ) -> Result<Start> {
        let mut server = Child::spawn(kind.word(), command, self.folder.path())?;
        server.wait_listening(loopback(port))?;
        Ok(Start::Ready(Peer {
            kind,
            smtp: loopback(port),
            server: Some(server),
            _helpers: helpers,
        }))
    }

    fn places<'a>(&'a self, modules: &'a str) -> Places<'a> {
        Places {
            folder: self.folder.path(),
            modules,
        }
    }
}

pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn not_installed(what: &str) -> Start {
    Start::Absent(format!("{what} is not installed"))
}

/// Where Debian has nginx's modules, if the one for `what` is there.
fn modules(what: &str) -> Option<String> {
    let folder = "/usr/lib/nginx/modules";
    Path::new(&format!("{folder}/ngx_{what}_module.so"))
        .is_file()
        .then(|| folder.to_owned())
}

fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let me = fs::metadata("/proc/self").context("cannot read /proc/self")?;
    Ok(me.uid() == 0)
}

fn uid_of(user: &str) -> Result<u32> {
    let path = "/etc/passwd";
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let Some(fields) = lines.find(|fields| fields.first() == Some(&user)) else {
        bail!("{path} has no user {user}");
    };
    let uid = fields.get(2).and_then(|uid| uid.parse().ok());
    uid.with_context(|| format!("{path} has no number for {user}"))
}

#[cfg(test)]
#[path = "kind_tests.rs"]
pub mod tests;
